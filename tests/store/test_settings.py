import pytest
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.memory import MemoryOptions
from diptych_store.settings import (
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


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (several(glance_store={}), [("glance_store", "default_backend")]),
        (
            several(glance_store={"default_backend": "other"}),
            [("glance_store", "default_backend")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, os_glance_staging_store:file"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, fast:file"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, ceph:rbd"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, slow"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, glance_store:file"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(DEFAULT={"enabled_backends": "fast:file, :file"}),
            [("DEFAULT", "enabled_backends")],
        ),
        (
            several(slow={"filesystem_store_datadir": "/srv/./fast/"}),
            [("slow", "filesystem_store_datadir")],
        ),
        (
            several(slow={"filesystem_store_datadir": "relative"}),
            [("slow", "filesystem_store_datadir")],
        ),
        (
            several(slow={"filesystem_store_datadirs": "/srv/a:1"}),
            [("slow", "filesystem_store_datadirs")],
        ),
        (
            several(
                fast={"filesystem_store_datadir": "/srv/fast", "weight": "heavy"},
                slow={"filesystem_store_file_perm": "rw-r-----", "read_only": "perhaps"},
            ),
            [
                ("fast", "weight"),
                ("slow", "read_only"),
                ("slow", "filesystem_store_file_perm"),
            ],
        ),
        (
            several(fast={"filesystem_store_thread_pool_size": "0"}),
            [("fast", "filesystem_store_thread_pool_size")],
        ),
        ({"glance_store": {"default_store": "rbd"}}, [("glance_store", "default_store")]),
        (
            {"glance_store": {"default_store": "file", "stores": "rbd,http"}},
            [("glance_store", "default_store")],
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(
    sections: Sections, expected: list[tuple[str, str]]
):
    assert problems(sections) == expected


def test_a_problem_says_what_was_expected_and_not_what_was_given():
    with pytest.raises(StoreSettingsError) as raised:
        StoresConfig.from_sections(several(fast={"weight": "hunter2"}))
    assert "[fast] weight: " in str(raised.value)
    assert "integer" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"stores": "file"},
        {"stores": "file,http", "default_store": "file"},
        {"stores": "filesystem", "default_store": "filesystem"},
    ],
)
def test_a_single_store_is_configured_without_names(section: dict[str, str]):
    config = StoresConfig.from_sections(
        {"glance_store": {**section, "filesystem_store_datadir": "/srv/images"}}
    )
    [store] = config.stores
    assert (store.name, config.default, config.is_multiple) == ("file", "file", False)
    assert store.options == FilesystemOptions(filesystem_store_datadir="/srv/images")
    assert config.unused == ()


def test_nothing_configured_is_glances_default_directory():
    [store] = StoresConfig.from_sections({}).stores
    assert store.options == FilesystemOptions(filesystem_store_datadir="/var/lib/glance/images")


def test_options_without_effect_are_told_and_why():
    config = StoresConfig.from_sections(
        several(
            glance_store={
                "default_backend": "fast",
                "rbd_store_pool": "images",
                "filesystem_store_datadir": "/srv/elsewhere",
                "default_bakend": "fast",
            },
            fast={
                "filesystem_store_datadir": "/srv/fast",
                "filesystem_store_metadata_file": "/etc/x",
                "filesystem_store_datdir": "/srv/typo",
            },
            os_glance_staging_store={"filesystem_store_datadir": "/srv/staging"},
            other={"nothing": "of ours"},
        )
    )
    assert {(one.section, one.option): one.reason for one in config.unused} == {
        ("glance_store", "rbd_store_pool"): "no such driver here",
        ("glance_store", "filesystem_store_datadir"): "not needed",
        ("glance_store", "default_bakend"): None,
        ("fast", "filesystem_store_metadata_file"): "not needed",
        ("fast", "filesystem_store_datdir"): None,
        ("os_glance_staging_store", "filesystem_store_datadir"): "reserved store",
    }
    assert [one.option for one in config.unknown] == ["filesystem_store_datdir", "default_bakend"]


def test_the_sections_of_stores_are_told_from_others() -> None:
    sections = {
        "DEFAULT": {"enabled_backends": "fast:file, slow:file,"},
        "os_glance_staging_store": {"filesystem_store_datadir": "/srv/staging"},
        "other": {"nothing": "of ours"},
    }
    assert store_sections(sections) == {
        "glance_store", "backend_defaults", "fast", "slow", "os_glance_staging_store",
    }  # fmt: skip
    assert store_sections({}) == {"glance_store", "backend_defaults"}
