"""What a client sends to import: what is refused, and what the job is given of it."""

from typing import Any

import pytest
from diptych_common.errors import BadRequest
from diptych_images.settings import IMPORT_METHODS
from diptych_images.wire.imports import ImportJob, ImportRequest, parse, swift_object
from hypothesis import given
from hypothesis import strategies as st

URI = "https://example.com/image"
ID = "1b2c3d4e-1111-4111-8111-111111111111"
SHA256 = "Ab" * 32
WEB = {"name": "web-download", "uri": URI}


def parsed(body: object) -> ImportRequest:
    return parse(body, enabled=IMPORT_METHODS)


def test_a_method_alone_goes_to_the_default_store():
    asked = parsed({"method": {"name": "glance-direct"}})
    assert asked == ImportRequest("glance-direct", given={"method": {"name": "glance-direct"}})
    assert (asked.stores, asked.all_stores, asked.all_stores_must_succeed) == (None, False, True)


# As glanceclient, openstackclient and openstacksdk send them.
BODIES: dict[str, tuple[dict[str, Any], dict[str, object]]] = {
    "web-download": ({"method": WEB}, {"uri": URI}),
    "glance-download": (
        {
            "method": {
                "name": "glance-download",
                "glance_region": "north",
                "glance_image_id": ID,
                "glance_service_interface": "internal",
            }
        },
        {
            "glance_region": "north",
            "glance_image_id": ID,
            "glance_service_interface": "internal",
        },
    ),
    "glance-download without an interface": (
        {"method": {"name": "glance-download", "glance_region": "n", "glance_image_id": ID}},
        {"glance_region": "n", "glance_image_id": ID, "glance_service_interface": "public"},
    ),
    "copy-image": (
        {"method": {"name": "copy-image"}, "stores": ["b", "a", "b"]},
        {"stores": ("b", "a")},
    ),
    "no stores": ({"method": WEB, "stores": []}, {"uri": URI, "stores": None}),
    "all stores": (
        {"method": WEB, "all_stores": True, "all_stores_must_succeed": False},
        {"uri": URI, "all_stores": True, "all_stores_must_succeed": False},
    ),
    "a digest": (
        {
            "method": {
                **WEB,
                "validation_data": {"os_hash_algo": "sha256", "os_hash_value": SHA256},
            }
        },
        {"uri": URI, "expected": ("sha256", SHA256.lower())},
    ),
    "swift-local": (
        {
            "method": {"name": "swift-local", "swift-location": "box/a/b"},
            "source_disk_format": "vhd",
            "source_container_format": "bare",
            "os_type": "linux",
        },
        {
            "swift_location": "box/a/b",
            "source_disk_format": "vhd",
            "source_container_format": "bare",
            "os_type": "linux",
        },
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_clients_send_is_understood(name: str):
    body, fields = BODIES[name]
    asked = parsed(body)
    assert asked.given is not None
    expected = ImportRequest(method=body["method"]["name"], given=asked.given, **fields)  # pyright: ignore[reportArgumentType]
    assert asked == expected
    assert asked.given.keys() == body.keys()
    asked.check_source()


@pytest.mark.parametrize("name", BODIES)
def test_a_job_reads_what_was_asked(name: str):
    asked = parsed(BODIES[name][0])
    job = ImportJob(
        task_id=ID,
        image_id=ID,
        request=asked,
        stores=("fast", "cheap"),
        roles=("member", "reader"),
        project_id="p",
        request_id="req-1",
        remove_image=True,
    )
    read = ImportJob.read(job.payload())
    assert read.request.given is None
    assert read.request.payload() == asked.payload()
    assert read.payload() == job.payload()
    assert (read.stores, read.roles, read.remove_image) == (job.stores, job.roles, True)


def test_a_task_shows_no_credentials():
    uri = "https://user:word@example.com/image?signature=secret"
    asked = parsed({"method": {"name": "web-download", "uri": uri}})
    assert asked.uri == uri
    assert asked.given == {"method": {"name": "web-download", "uri": URI}}


def test_a_task_keeps_only_what_has_a_meaning():
    body: dict[str, Any] = {
        "method": {**WEB, "verify": "no", "\0": 1},
        "surprise": {"a": ["b"]},
        "stores": ["fast"],
    }
    assert parsed(body).given == {"method": WEB, "stores": ["fast"]}


TEXTS = ("uri", "glance_region", "glance_image_id", "glance_service_interface", "swift-location")
NO_TEXTS: tuple[object, ...] = (1, True, 1.5, [], {}, ["a"], "a\0b", "x" * 16_385)
DIGEST = {"os_hash_algo": "md5", "os_hash_value": "a" * 32}
WRONG: list[object] = [
    None, [], "import", 1, True, {}, [{"method": WEB}],
    {"method": None}, {"method": []}, {"method": "web-download"}, {"method": {}},
    {"method": {"name": None}}, {"method": {"name": 1}}, {"method": {"name": []}},
    {"method": {"name": {}}}, {"method": {"name": "web_download"}}, {"method": {"name": "x\0"}},
    *({"method": {**WEB, name: value}} for name in TEXTS for value in NO_TEXTS),
    *(
        {"method": WEB, name: value}
        for name in ("source_disk_format", "source_container_format", "os_type")
        for value in NO_TEXTS
    ),
    *(
        {"method": WEB, name: value}
        for name in ("all_stores", "all_stores_must_succeed")
        for value in (None, 0, 1, "true", [], {})
    ),
    *(
        {"method": WEB, "stores": value}
        for value in (None, "fast", 1, True, {}, [1], [None], [["fast"]], ["a\0"])
    ),
    *(
        {"method": {**WEB, "validation_data": value}}
        for value in (
            None, [], "md5", 1, {}, {"os_hash_algo": "md5"}, {"os_hash_value": "a" * 32},
            {**DIGEST, "checksum": "a" * 32}, {**DIGEST, "os_hash_algo": "sha384"},
            {**DIGEST, "os_hash_algo": 5}, {**DIGEST, "os_hash_algo": ["md5"]},
            {**DIGEST, "os_hash_value": "a" * 31}, {**DIGEST, "os_hash_value": "a" * 33},
            {**DIGEST, "os_hash_value": "g" * 32}, {**DIGEST, "os_hash_value": "a" * 31 + "\n"},
            {**DIGEST, "os_hash_value": "\uff11" * 32}, {**DIGEST, "os_hash_value": 5},
        )
    ),
    # Nobody would compare it.
    {"method": {"name": "glance-direct", "validation_data": DIGEST}},
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(WRONG)))
def test_what_cannot_be_meant_is_refused(at: int):
    with pytest.raises(BadRequest):
        parsed(WRONG[at])


def test_a_method_that_is_not_enabled_is_refused():
    with pytest.raises(BadRequest, match="no import method web-download"):
        parse({"method": WEB}, enabled=("glance-direct",))


@pytest.mark.parametrize(
    "method",
    [
        {"name": "glance-download"},
        {"name": "glance-download", "glance_region": "north"},
        {"name": "glance-download", "glance_image_id": ID},
        {"name": "glance-download", "glance_region": "", "glance_image_id": ID},
        {"name": "glance-download", "glance_region": "north", "glance_image_id": "no-uuid"},
        {"name": "swift-local"},
        {"name": "swift-local", "swift-location": ""},
        {"name": "swift-local", "swift-location": "container"},
        {"name": "swift-local", "swift-location": "container/"},
        {"name": "swift-local", "swift-location": "/object"},
    ],
    ids=str,
)
def test_a_source_that_is_not_named_is_noticed_after_the_image_was_looked_at(
    method: dict[str, str],
):
    asked = parsed({"method": method})
    with pytest.raises(BadRequest):
        asked.check_source()


def test_an_object_in_swift_may_have_slashes():
    assert swift_object("box/a/b//c") == ("box", "a/b//c")


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
known = st.sampled_from(
    ["method", "name", "stores", "all_stores", "uri", "validation_data", "swift-location"]
)
bodies = st.dictionaries(known, json) | st.fixed_dictionaries(
    {"method": st.dictionaries(known, json) | st.just(WEB)},
    optional={"stores": json, "all_stores": json, "os_type": json},
)


@given(bodies | json)
def test_any_json_is_understood_or_refused(body: object):
    try:
        asked = parsed(body)
    except BadRequest:
        return
    assert ImportRequest.read(asked.payload()).payload() == asked.payload()
