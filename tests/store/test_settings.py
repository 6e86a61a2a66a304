import pytest
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.http import HttpOptions
from diptych_store.options.memory import MemoryOptions
from diptych_store.settings import (
    DRIVERS,
    SECRETS,
    StoreConfig,
    StoresConfig,
    StoreSettingsError,
    store_sections,
)

Sections = dict[str, dict[str, str]]


def several(**changes: dict[str, str]) -> Sections:
    sections = {
        "DEFAULT": {"enabled_backends": "fast:file, slow:file"},
        "glance_store": {"default_backend": "fast"},
        "fast": {"filesystem_store_datadir": "/srv/fast"},
        "slow": {"filesystem_store_datadir": "/srv/slow"},
    }
    return {**sections, **changes}


def problems(sections: Sections) -> list[tuple[str, str]]:
    with pytest.raises(StoreSettingsError) as raised:
        StoresConfig.from_sections(sections)
    for problem in raised.value.problems:
        assert str(problem) in str(raised.value)
    return [(one.section, one.option) for one in raised.value.problems]


def test_several_stores_each_have_their_section():
    config = StoresConfig.from_sections(
        several(
            fast={
                "filesystem_store_datadir": "/srv/fast",
                "store_description": "NVMe",
                "weight": "200",
            },
            slow={"filesystem_store_datadir": "/srv/slow", "read_only": "true"},
        )
    )
    assert config.stores == (
        StoreConfig(
            name="fast",
            type="file",
            options=FilesystemOptions(filesystem_store_datadir="/srv/fast"),
            description="NVMe",
            weight=200,
        ),
        StoreConfig(
            name="slow",
            type="file",
            options=FilesystemOptions(filesystem_store_datadir="/srv/slow"),
            read_only=True,
        ),
    )
    assert config.default == "fast"
    assert config.is_multiple
    assert config.unused == ()


def test_every_option_of_a_directory_is_read():
    sections = several(
        fast={
            "filesystem_store_datadir": " /srv/fast ",
            "filesystem_store_file_perm": "0640",
            "filesystem_store_chunk_size": "65536",
            "filesystem_thin_provisioning": "True",
            "filesystem_store_timeout": "30",
            "filesystem_store_thread_pool_size": "4",
        }
    )
    assert StoresConfig.from_sections(sections).stores[0].options == FilesystemOptions(
        filesystem_store_datadir="/srv/fast",
        filesystem_store_file_perm=0o640,
        filesystem_store_chunk_size=65536,
        filesystem_thin_provisioning=True,
        filesystem_store_timeout=30,
        filesystem_store_thread_pool_size=4,
    )


def test_shared_defaults_yield_to_a_stores_own_section():
    config = StoresConfig.from_sections(
        several(
            backend_defaults={"filesystem_store_chunk_size": "65536", "weight": "7"},
            fast={"filesystem_store_datadir": "/srv/fast", "weight": "9"},
        )
    )
    assert [one.weight for one in config.stores] == [9, 7]
    for store in config.stores:
        assert isinstance(store.options, FilesystemOptions)
        assert store.options.filesystem_store_chunk_size == 65536


def test_a_store_without_a_section_has_the_defaults_of_its_driver():
    config = StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "a:file,b:memory,"},
            "glance_store": {"default_backend": "b"},
        }
    )
    assert [one.options for one in config.stores] == [FilesystemOptions(), MemoryOptions()]


REFUSED: dict[str, tuple[Sections, list[tuple[str, str]]]] = {
    "no default": (several(glance_store={}), [("glance_store", "default_backend")]),
    "an unknown default": (
        several(glance_store={"default_backend": "other"}),
        [("glance_store", "default_backend")],
    ),
    "a reserved default": (
        several(
            DEFAULT={"enabled_backends": "fast:file, slow:file, os_glance_staging_store:file"},
            glance_store={"default_backend": "os_glance_staging_store"},
        ),
        [("glance_store", "default_backend")],
    ),
    "a reserved name": (
        several(DEFAULT={"enabled_backends": "fast:file, os_glance_other:file"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "a name twice": (
        several(DEFAULT={"enabled_backends": "fast:file, fast:file"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "a reserved name twice": (
        several(
            DEFAULT={
                "enabled_backends": "fast:file,"
                " os_glance_staging_store:file, os_glance_staging_store:file"
            }
        ),
        [("DEFAULT", "enabled_backends")],
    ),
    "an unknown type": (
        several(DEFAULT={"enabled_backends": "fast:file, tape:lto"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "no type": (
        several(DEFAULT={"enabled_backends": "fast:file, slow"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "the name of another section": (
        several(DEFAULT={"enabled_backends": "fast:file, glance_store:file"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "no name": (
        several(DEFAULT={"enabled_backends": "fast:file, :file"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "nothing but commas": (
        {"DEFAULT": {"enabled_backends": ","}},
        [("glance_store", "default_backend")],
    ),
    "one directory, spelt in two ways": (
        several(slow={"filesystem_store_datadir": "/srv/./fast/"}),
        [("slow", "filesystem_store_datadir")],
    ),
    "one directory, by what all have in common": (
        several(
            backend_defaults={"filesystem_store_datadir": "/srv/same"},
            fast={},
            slow={"weight": "1"},
        ),
        [("slow", "filesystem_store_datadir")],
    ),
    "staging in a store": (
        several(os_glance_staging_store={"filesystem_store_datadir": "/srv/slow"}),
        [("os_glance_staging_store", "filesystem_store_datadir")],
    ),
    "staging that cannot be written to": (
        several(DEFAULT={"enabled_backends": "fast:file, slow:file, os_glance_staging_store:http"}),
        [("DEFAULT", "enabled_backends")],
    ),
    "staging that is not to be written to": (
        several(os_glance_staging_store={"read_only": "true"}),
        [("os_glance_staging_store", "read_only")],
    ),
    "staging that each host has for itself": (
        several(
            DEFAULT={"enabled_backends": "fast:file, slow:file, os_glance_staging_store:file"},
            backend_defaults={"filesystem_store_shared": "false"},
        ),
        [("os_glance_staging_store", "filesystem_store_shared")],
    ),
    "single, staging in a store": (
        {
            "glance_store": {"filesystem_store_datadir": "/srv/one"},
            "os_glance_staging_store": {"filesystem_store_datadir": "/srv/one"},
        },
        [("os_glance_staging_store", "filesystem_store_datadir")],
    ),
    "a relative directory": (
        several(slow={"filesystem_store_datadir": "relative"}),
        [("slow", "filesystem_store_datadir")],
    ),
    "several bad values": (
        several(
            fast={"filesystem_store_datadir": "/srv/fast", "weight": "heavy"},
            slow={"filesystem_store_file_perm": "rw-r-----", "read_only": "perhaps"},
            os_glance_staging_store={"filesystem_store_chunk_size": "much"},
        ),
        [
            ("fast", "weight"),
            ("slow", "read_only"),
            ("slow", "filesystem_store_file_perm"),
            ("os_glance_staging_store", "filesystem_store_chunk_size"),
        ],
    ),
    "no threads": (
        several(fast={"filesystem_store_thread_pool_size": "0"}),
        [("fast", "filesystem_store_thread_pool_size")],
    ),
    "single, an unknown type": (
        {"glance_store": {"default_store": "lto"}},
        [("glance_store", "default_store")],
    ),
    "single, an unknown type listed": (
        {"glance_store": {"stores": "file, lto"}},
        [("glance_store", "stores")],
    ),
    "single, the default not listed": (
        {"glance_store": {"default_store": "file", "stores": "memory,http"}},
        [("glance_store", "default_store")],
    ),
    "a default that cannot be written to": (
        several(
            DEFAULT={"enabled_backends": "fast:file, web:http"},
            glance_store={"default_backend": "web"},
        ),
        [("glance_store", "default_backend")],
    ),
    "single, a default that cannot be written to": (
        {"glance_store": {"stores": "http", "default_store": "https"}},
        [("glance_store", "default_store")],
    ),
    "single, a bad value": (
        {"glance_store": {"weight": "heavy"}},
        [("glance_store", "weight")],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_its_place(case: str):
    sections, expected = REFUSED[case]
    assert problems(sections) == expected


BUCKET = {
    "s3_store_host": "https://s3.example.org:443",
    "s3_store_bucket": "images",
    "s3_store_access_key": "AKIA",
    "s3_store_secret_key": "canary",
}
CONTAINER = {
    "swift_store_auth_address": "https://keystone.example.org/v3",
    "swift_store_user": "service:glance",
    "swift_store_key": "canary",
}
# Type, the options of one store, how those of another differ, and the option that is refused, if
# it is: then both are in one place.
TWO: dict[str, tuple[str, dict[str, str], dict[str, str], str | None]] = {
    "another bucket": ("s3", BUCKET, {"s3_store_bucket": "other"}, None),
    "another server": ("s3", BUCKET, {"s3_store_host": "https://s3.example.com"}, None),
    "the same bucket": (
        "s3",
        BUCKET,
        {"s3_store_host": "http://S3.example.org/", "s3_store_access_key": "AKIB"},
        "s3_store_bucket",
    ),
    "another container": ("swift", CONTAINER, {"swift_store_container": "other"}, None),
    "another project": ("swift", CONTAINER, {"swift_store_user": "other:glance"}, None),
    "the same container": (
        "swift",
        CONTAINER,
        {"swift_store_user": "service:other", "swift_store_container": "glance"},
        "swift_store_container",
    ),
    "another pool": ("rbd", {}, {"rbd_store_pool": "vms"}, None),
    "another cluster": ("rbd", {}, {"rbd_store_ceph_conf": "/etc/ceph/far.conf"}, None),
    "the same pool": (
        "rbd",
        {},
        {"rbd_store_ceph_conf": "/etc/ceph/ceph.conf", "rbd_store_user": "glance"},
        "rbd_store_pool",
    ),
}


@pytest.mark.parametrize("case", TWO)
def test_two_stores_of_a_kind_are_in_different_places(case: str):
    kind, one, other, refused = TWO[case]
    sections = {
        "DEFAULT": {"enabled_backends": f"one:{kind}, other:{kind}"},
        "glance_store": {"default_backend": "one"},
        "one": one,
        "other": {**one, **other},
    }
    if refused is None:
        config = StoresConfig.from_sections(sections)
        assert [store.name for store in config.stores] == ["one", "other"]
        assert "canary" not in repr([store.options.places() for store in config.stores])
    else:
        assert problems(sections) == [("other", refused)]


def test_no_secret_of_a_store_is_printed():
    for kind, model in DRIVERS.items():
        canaries = {name: f"canary-of-{name}" for name in model.model_fields if name in SECRETS}
        application = {"swift_store_application_credential_id": "id"}
        needed = {**BUCKET, **CONTAINER, **application, **canaries}
        sections = several(DEFAULT={"enabled_backends": f"fast:file, one:{kind}"}, one=needed)
        config = StoresConfig.from_sections(sections)
        store = config.stores[1]
        for name in canaries:
            secret = getattr(store.options, name)
            assert secret.get_secret_value() == f"canary-of-{name}"
        for text in (repr(config), str(store.options), repr(store.options.properties())):
            assert "canary" not in text
    assert {"s3_store_access_key", "s3_store_secret_key", "swift_store_key"} <= SECRETS


def test_a_bad_secret_is_not_told():
    with pytest.raises(StoreSettingsError) as raised:
        StoresConfig.from_sections(
            {
                "DEFAULT": {"enabled_backends": "one:s3"},
                "glance_store": {"default_backend": "one"},
                "one": {**BUCKET, "s3_store_bucket": "canary/", "s3_store_host": "u:canary@host"},
            }
        )
    assert {one.option for one in raised.value.problems} == {"s3_store_bucket", "s3_store_host"}
    assert "canary" not in str(raised.value) + repr(raised.value)


@pytest.mark.parametrize(
    ("sections", "kind"),
    [
        (several(DEFAULT={"enabled_backends": "fast:file, volumes:cinder"}), "cinder"),
        (several(DEFAULT={"enabled_backends": "fast:file, esx:vmware"}), "vmware"),
        ({"glance_store": {"stores": "file, cinder"}}, "cinder"),
        ({"glance_store": {"default_store": "vsphere"}}, "vmware"),
    ],
)
def test_glances_types_that_are_not_here_are_told_to_be_so(sections: Sections, kind: str):
    with pytest.raises(StoreSettingsError) as raised:
        StoresConfig.from_sections(sections)
    assert f"there are no stores of type {kind} here" in str(raised.value)


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_store_of_any_type_without_options_is_fine_or_says_which_it_needs(kind: str):
    sections = several(DEFAULT={"enabled_backends": f"fast:file, one:{kind}"})
    try:
        config = StoresConfig.from_sections(sections)
    except StoreSettingsError as error:
        for problem in error.problems:
            assert problem.section == "one"
            assert problem.option in DRIVERS[kind].model_fields
            assert problem.expected
    else:
        assert [one.type for one in config.stores] == ["file", kind]


def test_a_problem_says_what_was_expected_and_not_what_was_given():
    with pytest.raises(StoreSettingsError) as raised:
        StoresConfig.from_sections(several(fast={"weight": "hunter2"}))
    assert "[fast] weight: " in str(raised.value)
    assert "integer" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ({}, ["file", "http"]),
        ({"stores": "file"}, ["file"]),
        ({"stores": "file,http", "default_store": "file"}, ["file", "http"]),
        ({"stores": "http, filesystem", "default_store": "filesystem"}, ["http", "file"]),
        ({"stores": "file, file, filesystem"}, ["file"]),
        ({"default_store": "filesystem"}, ["file", "http"]),
    ],
)
def test_single_stores_are_configured_without_names(section: dict[str, str], names: list[str]):
    config = StoresConfig.from_sections(
        {"glance_store": {**section, "filesystem_store_datadir": "/srv/images"}}
    )
    assert [(store.name, store.type) for store in config.stores] == [(one, one) for one in names]
    assert (config.default, config.is_multiple) == ("file", False)
    by_name = {store.name: store.options for store in config.stores}
    assert by_name["file"] == FilesystemOptions(filesystem_store_datadir="/srv/images")
    assert config.unused == ()


def test_a_scheme_names_the_store_that_has_it():
    config = StoresConfig.from_sections(
        {"glance_store": {**CONTAINER, "stores": "https, swift", "default_store": "swift+https"}}
    )
    assert config.default == "swift"
    assert [one.name for one in config.stores] == ["http", "swift"]


def test_nothing_configured_is_glances_default_directory():
    directory, web = StoresConfig.from_sections({}).stores
    assert directory.options == FilesystemOptions(filesystem_store_datadir="/var/lib/glance/images")
    assert web.options == HttpOptions()


def test_what_lies_behind_urls_is_only_read():
    config = StoresConfig.from_sections(
        several(
            DEFAULT={"enabled_backends": "fast:file, web:http"},
            web={"read_only": "false"},
        )
    )
    assert [one.read_only for one in config.stores] == [False, True]


def test_the_staging_store_is_kept_apart():
    config = StoresConfig.from_sections(
        several(os_glance_staging_store={"filesystem_store_datadir": "/srv/staging"})
    )
    assert [one.name for one in config.stores] == ["fast", "slow"]
    assert [one.name for one in config.every] == ["fast", "slow", "os_glance_staging_store"]
    assert config.staging == StoreConfig(
        name="os_glance_staging_store",
        type="file",
        options=FilesystemOptions(filesystem_store_datadir="/srv/staging"),
    )
    assert config.unused == ()


def test_the_staging_store_has_a_directory_of_its_own_if_it_does_not_say_which():
    listed = several(DEFAULT={"enabled_backends": "fast:file, os_glance_staging_store:file"})
    section = {"os_glance_staging_store": {"filesystem_store_chunk_size": "65536"}}
    for sections in (listed, section):
        staging = StoresConfig.from_sections(sections).staging
        assert staging is not None
        assert [*staging.options.places()] == ["/var/lib/glance/os_glance_staging_store"]


def test_there_is_no_store_for_tasks():
    config = StoresConfig.from_sections(
        several(
            DEFAULT={"enabled_backends": "fast:file, slow:file, os_glance_tasks_store:file"},
            os_glance_tasks_store={"filesystem_store_datadir": "/srv/tasks", "misspelt": "1"},
        )
    )
    assert [one.name for one in config.every] == ["fast", "slow"]
    assert {(one.section, one.option): one.reason for one in config.unused} == {
        ("os_glance_tasks_store", "filesystem_store_datadir"): "tasks keep nothing in a store",
        ("os_glance_tasks_store", "misspelt"): None,
    }


def test_the_staging_store_may_be_of_any_type_that_can_be_written_to():
    config = StoresConfig.from_sections(
        several(DEFAULT={"enabled_backends": "fast:file, os_glance_staging_store:memory"})
    )
    assert [one.name for one in config.stores] == ["fast"]
    assert config.staging == StoreConfig(
        name="os_glance_staging_store", type="memory", options=MemoryOptions()
    )


def test_without_a_section_there_is_no_staging_store():
    for sections in (several(), {}):
        assert StoresConfig.from_sections(sections).staging is None


def test_a_directory_for_staging_has_nothing_of_what_stores_with_a_section_have_in_common():
    config = StoresConfig.from_sections(
        {"backend_defaults": {"filesystem_store_datadir": "/srv/common"}},
        node_staging_uri="file:///srv/staging",
    )
    assert config.staging is not None
    assert config.staging.options == FilesystemOptions(filesystem_store_datadir="/srv/staging")
    assert [(one.section, one.option) for one in config.unused] == [
        ("backend_defaults", "filesystem_store_datadir")
    ]


def test_options_without_effect_are_told_and_why():
    config = StoresConfig.from_sections(
        several(
            DEFAULT={"enabled_backends": "fast:file, slow:file, ram:memory"},
            glance_store={
                "default_backend": "fast",
                "default_store": "file",
                "filesystem_store_datadir": "/srv/elsewhere",
                "weight": "1",
                "default_bakend": "fast",
                "cinder_volume_type": "lvm",
            },
            fast={
                "filesystem_store_datadir": "/srv/fast",
                "filesystem_store_threadpool_threshold": "75",
                "filesystem_store_datdir": "/srv/typo",
            },
            ram={"filesystem_store_chunk_size": "4096", "vmware_insecure": "true"},
            os_glance_other={"filesystem_store_datadir": "/srv/other", "misspelt": "1"},
            other={"nothing": "of ours"},
        )
    )
    told = {(one.section, one.option): one.reason for one in config.unused}
    assert told == {
        ("glance_store", "default_store"): "enabled_backends and default_backend say it",
        ("glance_store", "filesystem_store_datadir"): (
            "each of enabled_backends has a section of its own"
        ),
        ("glance_store", "weight"): "each of enabled_backends has a section of its own",
        ("glance_store", "default_bakend"): None,
        ("glance_store", "cinder_volume_type"): "there are no stores of type cinder here",
        ("fast", "filesystem_store_threadpool_threshold"): FilesystemOptions.UNUSED[
            "filesystem_store_threadpool_threshold"
        ],
        ("fast", "filesystem_store_datdir"): None,
        ("ram", "filesystem_store_chunk_size"): "only stores of type file have it",
        ("ram", "vmware_insecure"): "there are no stores of type vmware here",
        ("os_glance_other", "filesystem_store_datadir"): "only stores of type file have it",
        ("os_glance_other", "misspelt"): None,
    }
    assert {(one.section, one.option) for one in config.unknown} == {
        place for place, reason in told.items() if reason is None
    }


def test_options_of_the_other_form_are_told_to_be_so():
    config = StoresConfig.from_sections(
        {
            "glance_store": {"default_backend": "fast", "filesystem_store_chunk_size": "4096"},
            "backend_defaults": {"filesystem_store_chunk_size": "4096", "misspelt": "1"},
        }
    )
    assert {(one.section, one.option): one.reason for one in config.unused} == {
        ("glance_store", "default_backend"): "without enabled_backends, default_store says it",
        ("backend_defaults", "filesystem_store_chunk_size"): (
            "without enabled_backends, [glance_store] says it"
        ),
        ("backend_defaults", "misspelt"): None,
    }


def test_what_stores_have_in_common_may_be_of_use_to_some_only():
    config = StoresConfig.from_sections(
        several(
            DEFAULT={"enabled_backends": "fast:file, ram:memory"},
            backend_defaults={"filesystem_store_chunk_size": "4096"},
        )
    )
    assert config.unused == ()


def test_the_sections_of_stores_are_told_from_others() -> None:
    sections = {
        "DEFAULT": {"enabled_backends": "fast:file, slow:file,"},
        "os_glance_other": {"filesystem_store_datadir": "/srv/other"},
        "other": {"nothing": "of ours"},
    }
    always = {
        "glance_store", "backend_defaults", "os_glance_staging_store", "os_glance_tasks_store",
    }  # fmt: skip
    assert store_sections(sections) == always | {"fast", "slow", "os_glance_other"}
    assert store_sections({}) == always
