"""What is accepted to create an image, and the document of one, held against the served schema."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from diptych_common.errors import ApiError, BadRequest, Forbidden, TooLarge
from diptych_images.db.images import ImageRow, LocationRow
from diptych_images.wire.image import check_quotas, document, parse_create
from diptych_images.wire.schemas import ImageSchema, documents
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

SCHEMA = ImageSchema()
PROJECT = "8b5f6e4c0a9d4a0fb7e2a5d0e6f1c3b2"
ID = "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"


def create(body: object, *, is_admin: bool = False, schema: ImageSchema = SCHEMA) -> Any:
    return parse_create(body, schema, project_id=PROJECT, is_admin=is_admin)


def location(store: str, *, number: int = 1) -> LocationRow:
    return {
        "id": number,
        "store": store,
        "url": f"file:///{store}/{ID}",
        "metadata": {"store": store},
        "status": "active",
    }


def image_row(**changes: Any) -> ImageRow:
    row: dict[str, Any] = {
        "id": ID,
        "name": None,
        "status": "queued",
        "visibility": "shared",
        "owner": PROJECT,
        "disk_format": None,
        "container_format": None,
        "min_disk": 0,
        "min_ram": 0,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "protected": False,
        "os_hidden": False,
        "tags": [],
        "properties": {},
        "import_task": None,
        "created_at": datetime(2026, 3, 4, 5, 6, 7, 999_999, tzinfo=UTC),
        "updated_at": datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC),
        "deleted_at": None,
        "locations": [],
        "member_status": None,
    }
    return row | changes  # pyright: ignore[reportReturnType]


def assert_valid(shown: dict[str, object]) -> None:
    # glanceclient validates with the newest dialect, older tools with draft 4.
    Draft4Validator(SCHEMA.document).validate(shown)
    Draft202012Validator(SCHEMA.document).validate(shown)


# --- create ---------------------------------------------------------------------------------------


def test_an_empty_document_makes_a_queued_shared_image_of_the_callers_project() -> None:
    new = create({})

    assert new.id is None
    assert new.visibility is None
    assert new.values(ID) == {
        "id": ID,
        "name": None,
        "status": "queued",
        "visibility": "shared",
        "owner": PROJECT,
        "disk_format": None,
        "container_format": None,
        "min_disk": 0,
        "min_ram": 0,
        "os_hash_algo": None,
        "protected": False,
        "os_hidden": False,
        "tags": [],
        "properties": {},
    }


def test_all_that_a_client_can_set_reaches_the_row() -> None:
    new = create(
        {
            "id": ID.upper(),
            "name": "Ubuntu 🐧",
            "visibility": "private",
            "protected": True,
            "os_hidden": True,
            "disk_format": "qcow2",
            "container_format": "bare",
            "min_disk": 5,
            "min_ram": 2**31 - 1,
            "tags": ["b", "a", "b"],
            "owner_specified.openstack.md5": "x",
            "kernel_id": None,
        }
    )

    assert new.id == ID
    values = new.values(new.id)
    assert values["name"] == "Ubuntu 🐧"
    assert values["visibility"] == "private"
    assert (values["protected"], values["os_hidden"]) == (True, True)
    assert (values["disk_format"], values["container_format"]) == ("qcow2", "bare")
    assert (values["min_disk"], values["min_ram"]) == (5, 2**31 - 1)
    assert values["tags"] == ["b", "a"]
    assert values["properties"] == {"owner_specified.openstack.md5": "x", "kernel_id": None}


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        "name",
        {"id": "not-a-uuid"},
        {"id": f"{ID}\n"},
        {"id": None},
        {"name": 5},
        {"name": "x" * 256},
        {"name": "a\x00b"},
        {"visibility": "secret"},
        {"visibility": None},
        {"protected": "true"},
        {"protected": None},
        {"os_hidden": 1},
        {"disk_format": "floppy"},
        {"container_format": "box"},
        {"disk_format": 1},
        {"min_disk": -1},
        {"min_disk": True},
        {"min_disk": 1.0},
        {"min_ram": 2**31},
        {"min_ram": 1e400},
        {"min_ram": "1"},
        {"tags": "a"},
        {"tags": [1]},
        {"tags": ["x" * 256]},
        {"tags": ["a\x00"]},
        {"owner": "x" * 256},
        {"status": "bogus"},
        {"custom": 1},
        {"custom": True},
        {"custom": None},
        {"custom": ["a"]},
        {"custom": {"a": "b"}},
        {"custom": nested(1000)},
        {"tags": nested(1000)},
        {"custom": "a\x00"},
        {"cus\x00tom": "a"},
        {"custom": "é" * 32_768},
        {"x" * 256: "a"},
        {"": "a"},
        {"kernel_id": "not-a-uuid"},
        {"cinder_encryption_key_deletion_policy": "sometimes"},
        {"locations": "nowhere"},
        {"locations": [{"url": "x"}]},
        {"os_hash_algo": "x" * 65},
    ],
)
def test_what_the_schema_refuses_is_a_bad_request(body: object) -> None:
    with pytest.raises(BadRequest):
        create(body, is_admin=True)


@pytest.mark.parametrize(
    "body",
    [
        {"direct_url": 5},
        {"self": "x"},
        {"file": "x"},
        {"schema": "x"},
        {"stores": "x"},
        {"status": "active"},
        {"checksum": None},
        {"size": 1},
        {"virtual_size": None},
        {"created_at": "x"},
        {"updated_at": "x"},
        {"location": "x"},
        {"deleted": "x"},
        {"deleted_at": "x"},
        {"os_glance_import_task": "x"},
        {"os_glance": "x"},
        {"locations": []},
    ],
)
def test_names_of_the_services_own_are_forbidden_even_to_administrators(body: object) -> None:
    with pytest.raises(Forbidden):
        create(body, is_admin=True)


def test_the_algorithm_of_the_multihash_is_chosen_and_its_value_is_ignored() -> None:
    new = create({"os_hash_algo": "sha256", "os_hash_value": "abc"})

    assert new.values(ID)["os_hash_algo"] == "sha256"
    assert "os_hash_value" not in new.values(ID)
    assert new.properties == {}


@pytest.mark.parametrize("owner", ["another", None, ""])
def test_only_an_administrator_chooses_the_owner(owner: str | None) -> None:
    with pytest.raises(Forbidden):
        create({"owner": owner})
    assert create({"owner": owner}, is_admin=True).owner == owner


def test_ones_own_project_can_be_named_as_the_owner() -> None:
    assert create({"owner": PROJECT}).owner == PROJECT


def test_a_property_holds_as_much_as_a_text_column_of_mysql() -> None:
    assert create({"custom": "x" * 65_535}).properties["custom"] == "x" * 65_535


def test_required_site_properties_must_be_given() -> None:
    schema = ImageSchema(
        site_properties={"os_distro": {"type": "string"}}, required=["os_distro", "name"]
    )

    with pytest.raises(BadRequest, match="os_distro"):
        create({"name": "x"}, schema=schema)
    assert create({"name": "x", "os_distro": "debian"}, schema=schema).name == "x"


def test_formats_are_those_of_the_deployment() -> None:
    schema = ImageSchema(disk_formats=["gpt"], container_formats=["docker"])

    assert create({"disk_format": "gpt"}, schema=schema).disk_format == "gpt"
    with pytest.raises(BadRequest):
        create({"disk_format": "raw"}, schema=schema)
    with pytest.raises(BadRequest):
        create({"container_format": "bare"}, schema=schema)


def test_messages_do_not_repeat_huge_values() -> None:
    for body in ({"custom": ["x" * 10_000_000]}, {"visibility": "x" * 100_000}, {"x" * 10_000: 1}):
        with pytest.raises(BadRequest) as refused:
            create(body)
        assert len(refused.value.message) < 1000


def test_quotas_count_neither_the_services_own_properties_nor_repeated_tags() -> None:
    new = create({"a": "1", "b": "2", "tags": ["x", "x"]})

    check_quotas(new.properties, new.tags, property_quota=2, tag_quota=1)
    check_quotas(
        {**new.properties, "os_glance_importing_to_stores": ""},
        new.tags,
        property_quota=2,
        tag_quota=1,
    )
    check_quotas(new.properties, new.tags, property_quota=-1, tag_quota=-1)
    with pytest.raises(TooLarge):
        check_quotas(new.properties, new.tags, property_quota=1, tag_quota=1)
    with pytest.raises(TooLarge):
        check_quotas(new.properties, new.tags, property_quota=2, tag_quota=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
names = st.sampled_from(sorted(SCHEMA.document["properties"])) | st.text(max_size=8)


@settings(deadline=None)
@given(st.dictionaries(names, json_values, max_size=5))
def test_any_json_object_is_accepted_or_refused_in_the_apis_terms(body: dict[str, Any]) -> None:
    validator = Draft4Validator(SCHEMA.document)
    try:
        new = create(body, is_admin=True)
    except BadRequest:
        # Beyond the schema only three things are wrong: a bad name, U+0000, an id with a line feed.
        assert (
            not validator.is_valid(body)
            or "" in body
            or "\\u0000" in repr(body).replace("\\x00", "\\u0000")
            or str(body.get("id", "")).endswith("\n")
        )
    except ApiError:
        pass
    else:
        validator.validate(body)
        row = image_row(**new.values(ID))
        assert_valid(document(row, nullable=SCHEMA.nullable))


# --- document -------------------------------------------------------------------------------------


def test_a_new_images_document_has_every_base_property_and_nothing_else() -> None:
    shown = document(image_row())

    assert shown == {
        "id": ID,
        "name": None,
        "status": "queued",
        "visibility": "shared",
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "os_hidden": False,
        "protected": False,
        "min_disk": 0,
        "min_ram": 0,
        "owner": PROJECT,
        "disk_format": None,
        "container_format": None,
        "tags": [],
        "created_at": "2026-03-04T05:06:07Z",
        "updated_at": "2026-03-04T05:06:08Z",
        "self": f"/v2/images/{ID}",
        "file": f"/v2/images/{ID}/file",
        "schema": "/v2/schemas/image",
    }
    assert_valid(shown)


def test_times_are_shown_in_utc() -> None:
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))

    assert document(image_row(created_at=moment))["created_at"] == "2025-12-31T22:30:00Z"


def test_custom_properties_stand_beside_the_base_ones() -> None:
    row = image_row(
        properties={
            "os_distro": "debian",
            "os_glance_failed_import": "",
            "os_glance_stage_host": "http://host",
            "os_glance_hash_op_host": "http://host",
        }
    )

    shown = document(row)

    assert shown["os_distro"] == "debian"
    assert shown["os_glance_failed_import"] == ""
    assert not {"os_glance_stage_host", "os_glance_hash_op_host", "properties"} & shown.keys()


def test_a_null_property_is_shown_empty_unless_the_schema_lets_it_be_null() -> None:
    row = image_row(properties={"custom": None, "kernel_id": None})

    shown = document(row, nullable=SCHEMA.nullable)

    assert shown["custom"] == ""
    assert shown["kernel_id"] is None
    assert_valid(shown)


def test_a_property_never_takes_the_place_of_a_base_one() -> None:
    shown = document(image_row(properties={"status": "hacked", "self": "elsewhere"}))

    assert shown["status"] == "queued"
    assert shown["self"] == f"/v2/images/{ID}"


def test_where_data_lies_is_shown_only_where_switched_on() -> None:
    row = image_row(status="active", locations=[location("fast")])

    assert not {"direct_url", "locations", "stores"} & document(row).keys()
    shown = document(row, show_direct_url=True, show_locations=True, multi_store=True)
    assert shown["direct_url"] == f"file:///fast/{ID}"
    assert shown["locations"] == [{"url": f"file:///fast/{ID}", "metadata": {"store": "fast"}}]
    assert shown["stores"] == "fast"
    assert_valid(shown)


def test_no_location_shows_a_credential() -> None:
    urls = {
        "untellable": "s3://key:se?cret@host/bucket/key",
        "s3": f"s3://key:sec/ret@host/bucket/{ID}",
        "swift": f"swift+https://user%3Aname:secret@auth.example/v3/glance/{ID}",
        "web": "https://user:secret@web.example/disk.img?X-Amz-Signature=secret",
    }
    locations = [{**location(store), "url": url} for store, url in urls.items()]
    row = image_row(status="active", locations=locations)
    shown = document(row, show_direct_url=True, show_locations=True, multi_store=True)
    clean = [
        f"s3://host/bucket/{ID}",
        f"swift+https://auth.example/v3/glance/{ID}",
        "https://web.example/disk.img",
    ]
    assert [each["url"] for each in shown["locations"]] == clean  # pyright: ignore
    assert shown["direct_url"] == clean[0]
    # Which stores have the bytes is told all the same.
    assert shown["stores"] == "untellable,s3,swift,web"


def test_an_image_without_data_has_an_empty_list_of_locations_and_no_stores() -> None:
    shown = document(image_row(), show_direct_url=True, show_locations=True, multi_store=True)

    assert shown["locations"] == []
    assert not {"direct_url", "stores"} & shown.keys()


def test_stores_come_in_the_order_in_which_they_are_read() -> None:
    slow, fast = location("slow", number=1), location("fast", number=2)
    row = image_row(status="active", locations=[slow, fast])

    as_added = document(row, multi_store=True)
    shown = document(row, multi_store=True, show_direct_url=True, locations=[fast, slow])

    assert as_added["stores"] == "slow,fast"
    assert shown["stores"] == "fast,slow"
    assert shown["direct_url"] == f"file:///fast/{ID}"


def test_a_deactivated_image_shows_its_locations_to_administrators_only() -> None:
    row = image_row(status="deactivated", locations=[location("fast")])

    others = document(row, show_direct_url=True, show_locations=True, multi_store=True)
    admins = document(
        row, is_admin=True, show_direct_url=True, show_locations=True, multi_store=True
    )

    assert others["locations"] == []
    assert "direct_url" not in others
    assert "stores" not in others
    assert admins["direct_url"] == f"file:///fast/{ID}"
    assert admins["stores"] == "fast"


def test_a_page_of_documents_satisfies_the_collections_schema() -> None:
    page = {
        "images": [document(image_row()), document(image_row(tags=["a"], size=5))],
        "first": "/v2/images",
        "schema": "/v2/schemas/images",
    }

    Draft202012Validator(documents(SCHEMA)["images"]).validate(page)


def test_an_image_that_is_imported_names_its_task():
    assert "os_glance_import_task" not in document(image_row())
    assert document(image_row(import_task=ID))["os_glance_import_task"] == ID


def test_why_an_import_failed_is_for_the_owner_and_administrators():
    row = image_row(
        properties={
            "os_glance_import_message": "There is nothing at internal.example.",
            "os_glance_failed_import": "fast",
            "os_glance_importing_to_stores": "",
        }
    )
    assert document(row, is_owner=True)["os_glance_import_message"]
    assert document(row, is_admin=True)["os_glance_import_message"]
    shown = document(row)
    assert "os_glance_import_message" not in shown
    # What Nova polls everybody sees, empty lists too.
    assert shown["os_glance_failed_import"] == "fast"
    assert shown["os_glance_importing_to_stores"] == ""
