"""PATCH documents of both dialects, and what they do to an image."""

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from diptych_common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    TooLarge,
    UnsupportedMediaType,
)
from diptych_images.db.images import ImageRow
from diptych_images.wire import patch
from diptych_images.wire.patch import Changes, Dialect, Operation
from diptych_images.wire.schemas import ImageSchema
from hypothesis import given, settings
from hypothesis import strategies as st

SCHEMA = ImageSchema()
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def row(**changes: Any) -> ImageRow:
    image: dict[str, Any] = {
        "id": "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d",
        "name": "name",
        "status": "active",
        "visibility": "shared",
        "owner": "project",
        "disk_format": "raw",
        "container_format": "bare",
        "min_disk": 0,
        "min_ram": 0,
        "size": 1,
        "virtual_size": None,
        "checksum": "c",
        "os_hash_algo": "sha512",
        "os_hash_value": "h",
        "protected": False,
        "os_hidden": False,
        "tags": ["old"],
        "properties": {"there": "value"},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
        "deleted_at": None,
        "locations": [],
        "member_status": None,
    }
    return image | changes  # pyright: ignore[reportReturnType]


def v21(op: str, path: str, *value: Any) -> dict[str, Any]:
    return {"op": op, "path": path} | ({"value": value[0]} if value else {})


def v20(op: str, path: str, *value: Any) -> dict[str, Any]:
    return {op: path} | ({"value": value[0]} if value else {})


WRITE = {"2.0": v20, "2.1": v21}


def change(
    *operations: dict[str, Any],
    dialect: Dialect = "2.1",
    image: ImageRow | None = None,
    is_admin: bool = False,
    property_quota: int = 128,
    tag_quota: int = 128,
    required: tuple[str, ...] = (),
) -> Changes:
    return patch.apply(
        image or row(),
        patch.parse(list(operations), dialect, SCHEMA),
        is_admin=is_admin,
        property_quota=property_quota,
        tag_quota=tag_quota,
        required=required,
    )


# --- media types ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/openstack-images-v2.0-json-patch", "2.0"),
        ("application/openstack-images-v2.1-json-patch", "2.1"),
        ("application/openstack-images-v2.1-json-patch; charset=utf-8", "2.1"),
    ],
)
def test_the_content_type_chooses_the_dialect(content_type: str, expected: str) -> None:
    assert patch.dialect(content_type) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/json-patch+json",
        "application/openstack-images-v2.3-json-patch",
    ],
)
def test_any_other_content_type_is_answered_with_those_there_are(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType) as refused:
        patch.dialect(content_type)

    assert refused.value.headers == {
        "Accept-Patch": "application/openstack-images-v2.0-json-patch, "
        "application/openstack-images-v2.1-json-patch"
    }


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_operations_change_nothing(dialect: Dialect) -> None:
    assert change(dialect=dialect) == Changes(values={}, visibilities=frozenset())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", [None, {}, "x", 1, [1], ["x"], [[]], [None], [{}]])
def test_a_document_is_a_list_of_objects(body: object, dialect: Dialect) -> None:
    with pytest.raises(BadRequest):
        patch.parse(body, dialect, SCHEMA)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "move", "from": "/a", "path": "/b"},
        {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "test", "path": "/a", "value": "b"},
        {"op": None, "path": "/a", "value": "b"},
        {"op": ["add"], "path": "/a", "value": "b"},
        {"path": "/a", "value": "b"},
        {"op": "add", "value": "b"},
        {"op": "add", "path": None, "value": "b"},
        {"op": "add", "path": ["a"], "value": "b"},
        {"op": "add", "path": "/a"},
        {"op": "replace", "path": "/a"},
        {"add": "/a", "value": "b"},
    ],
)
def test_a_malformed_operation_of_the_newer_dialect_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        patch.parse([operation], "2.1", SCHEMA)


@pytest.mark.parametrize(
    "operation",
    [
        {"value": "b"},
        {"add": "/a", "replace": "/a", "value": "b"},
        {"add": "/a", "remove": "/b", "value": "b"},
        {"add": "/a"},
        {"replace": "/a"},
        {"add": 1, "value": "b"},
        {"op": "add", "path": "/a", "value": "b"},
        {"move": "/a", "value": "b"},
    ],
)
def test_a_malformed_operation_of_the_older_dialect_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        patch.parse([operation], "2.0", SCHEMA)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "a",
        "a/",
        "//a",
        "/a/",
        "/a//b",
        "/a/ /b",
        "/a/  ",
        "/ /",
        "/a~",
        "/a~2",
        "/~",
        "/a/b",
        "/tags/-",
        "/tags/0",
        "/name/first",
        "/locations",
        "/locations/1/url",
        f"/{'x' * 256}",
        "/ ",
        "/a\x00",
    ],
)
def test_a_path_that_is_no_pointer_to_a_property_is_refused(path: str, dialect: Dialect) -> None:
    with pytest.raises(BadRequest):
        patch.parse([WRITE[dialect]("add", path, "value")], dialect, SCHEMA)


def test_pointers_are_unescaped_and_trimmed() -> None:
    operations = patch.parse(
        [
            v21("add", "/a~1b", "1"),
            v21("add", "/a~0b", "2"),
            v21("add", "/a~01b", "3"),
            v21("add", "/ a b ", "4"),
            v21("remove", "/a.b"),
        ],
        "2.1",
        SCHEMA,
    )

    assert [operation.path for operation in operations] == [
        ("a/b",), ("a~b",), ("a~1b",), ("a b",), ("a.b",),
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 1),
        ("name", "x" * 256),
        ("visibility", "secret"),
        ("visibility", None),
        ("protected", "yes"),
        ("os_hidden", None),
        ("disk_format", "floppy"),
        ("container_format", "box"),
        ("min_disk", -1),
        ("min_ram", 2**31),
        ("min_ram", True),
        ("tags", "a"),
        ("tags", ["x" * 256]),
        ("owner", 1),
        ("custom", 1),
        ("custom", None),
        ("custom", ["a"]),
        ("custom", "a\x00b"),
        ("custom", "x" * 65_536),
        ("kernel_id", "no-uuid"),
        ("locations", "nowhere"),
        ("locations", [{}]),
    ],
)
def test_a_value_that_the_schema_refuses_is_refused(
    name: str, value: object, dialect: Dialect
) -> None:
    with pytest.raises(BadRequest):
        patch.parse([WRITE[dialect]("replace", f"/{name}", value)], dialect, SCHEMA)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
@pytest.mark.parametrize(
    "name",
    [
        "id", "checksum", "created_at", "updated_at", "direct_url", "file", "schema", "self",
        "size", "status", "stores", "virtual_size", "os_hash_algo", "os_hash_value",
        "location", "deleted", "deleted_at", "os_glance_import_task", "os_glance",
        "os_glance~0x",
    ],
)  # fmt: skip
def test_names_of_the_services_own_cannot_be_changed(name: str, op: str, dialect: Dialect) -> None:
    with pytest.raises(Forbidden):
        patch.parse([WRITE[dialect](op, f"/{name}", "value")], dialect, SCHEMA)


# --- custom properties ----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_add_makes_a_new_property(dialect: Dialect) -> None:
    changes = change(WRITE[dialect]("add", "/new", "x"), dialect=dialect)

    assert changes.values == {"properties": {"there": "value", "new": "x"}}


def test_add_overwrites_in_the_newer_dialect() -> None:
    assert change(v21("add", "/there", "x")).values == {"properties": {"there": "x"}}
    assert change(v21("add", "/name", "x")).values == {"name": "x"}


@pytest.mark.parametrize("name", ["there", "name", "owner"])
def test_add_conflicts_in_the_older_dialect(name: str) -> None:
    with pytest.raises(Conflict):
        change(v20("add", f"/{name}", "x"), dialect="2.0")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_replace_needs_the_property(dialect: Dialect) -> None:
    changes = change(WRITE[dialect]("replace", "/there", "x"), dialect=dialect)

    assert changes.values == {"properties": {"there": "x"}}
    with pytest.raises(Conflict):
        change(WRITE[dialect]("replace", "/absent", "x"), dialect=dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_remove_needs_the_property(dialect: Dialect) -> None:
    changes = change(WRITE[dialect]("remove", "/there"), dialect=dialect)

    assert changes.values == {"properties": {}}
    with pytest.raises(Conflict):
        change(WRITE[dialect]("remove", "/absent"), dialect=dialect)


@pytest.mark.parametrize("name", ["image_id", "extra_properties", "member_status", "properties"])
def test_names_of_columns_that_are_no_properties_are_ordinary_custom_ones(name: str) -> None:
    changes = change(v21("add", f"/{name}", "x"))

    assert changes.values == {"properties": {"there": "value", name: "x"}}


def test_a_property_that_the_site_requires_stays() -> None:
    with pytest.raises(Forbidden):
        change(v21("remove", "/there"), required=("there",))
    assert change(v21("replace", "/there", "x"), required=("there",)).values


def test_operations_are_done_in_order_and_the_last_wins() -> None:
    changes = change(
        v21("add", "/new", "1"),
        v21("replace", "/new", "2"),
        v21("remove", "/there"),
        v21("replace", "/name", "first"),
        v21("replace", "/name", "last"),
        v21("remove", "/new"),
        v21("add", "/there", "again"),
    )

    assert changes.values == {"properties": {"there": "again"}, "name": "last"}


def test_the_image_itself_is_left_alone() -> None:
    image = row()

    change(v21("add", "/new", "x"), v21("replace", "/tags", ["a"]), image=image)

    assert image == row()


def test_a_failing_operation_fails_all() -> None:
    with pytest.raises(Conflict):
        change(v21("replace", "/name", "x"), v21("remove", "/absent"))


# --- base properties ------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", None),
        ("visibility", "private"),
        ("protected", True),
        ("os_hidden", True),
        ("min_disk", 5),
        ("min_ram", 2**31 - 1),
    ],
)
def test_base_properties_are_replaced(name: str, value: object, dialect: Dialect) -> None:
    changes = change(WRITE[dialect]("replace", f"/{name}", value), dialect=dialect)

    assert changes.values == {name: value}


def test_tags_are_replaced_as_a_set() -> None:
    assert change(v21("replace", "/tags", ["b", "a", "b"])).values == {"tags": ["b", "a"]}


@pytest.mark.parametrize(
    "name",
    ["name", "tags", "visibility", "protected", "os_hidden", "min_ram", "min_disk", "owner",
     "disk_format", "container_format"],
)  # fmt: skip
def test_base_properties_are_not_removed(name: str) -> None:
    for dialect in DIALECTS:
        with pytest.raises(Forbidden):
            change(WRITE[dialect]("remove", f"/{name}"), dialect=dialect, is_admin=True)


@pytest.mark.parametrize("op", ["add", "replace"])
@pytest.mark.parametrize("owner", ["another", "project", None])
def test_only_an_administrator_gives_an_image_away(op: str, owner: str | None) -> None:
    with pytest.raises(Forbidden):
        change(v21(op, "/owner", owner))
    assert change(v21(op, "/owner", owner), is_admin=True).values == {"owner": owner}


@pytest.mark.parametrize("name", ["disk_format", "container_format"])
def test_formats_change_only_before_there_is_data(name: str) -> None:
    for status in ("queued", "importing"):
        image = row(status=status)
        assert change(v21("replace", f"/{name}", "ami"), image=image).values == {name: "ami"}
    for status in ("saving", "active", "deactivated", "uploading"):
        with pytest.raises(Forbidden):
            change(v21("replace", f"/{name}", "ami"), image=row(status=status))


def test_every_visibility_asked_for_on_the_way_is_reported() -> None:
    changes = change(v21("replace", "/visibility", "public"), v21("add", "/visibility", "private"))

    assert changes.values == {"visibility": "private"}
    assert changes.visibilities == {"public", "private"}


@pytest.mark.parametrize(
    "operation",
    [
        v21("add", "/locations/-", {"url": "http://x", "metadata": {}}),
        v21("replace", "/locations", []),
        v21("remove", "/locations/0"),
    ],
)
def test_locations_are_not_changed_this_way(operation: dict[str, Any]) -> None:
    with pytest.raises(Forbidden):
        change(operation, is_admin=True)


# --- quotas ---------------------------------------------------------------------------------------


def test_one_property_too_many_is_refused() -> None:
    image = row(properties={"a": "1", "os_glance_failed_import": ""})

    assert change(v21("add", "/b", "2"), image=image, property_quota=2).values
    with pytest.raises(TooLarge):
        change(v21("add", "/b", "2"), v21("add", "/c", "3"), image=image, property_quota=2)
    assert change(v21("add", "/b", "2"), image=image, property_quota=-1).values


def test_one_tag_too_many_is_refused() -> None:
    assert change(v21("replace", "/tags", ["a", "b", "a"]), tag_quota=2).values
    with pytest.raises(TooLarge):
        change(v21("replace", "/tags", ["a", "b", "c"]), tag_quota=2)
    assert change(v21("replace", "/tags", ["a", "b", "c"]), tag_quota=-1).values


def test_an_image_over_a_quota_can_change_and_shrink() -> None:
    image = row(properties={"a": "1", "b": "2", "c": "3"}, tags=["a", "b", "c"])

    assert change(
        v21("replace", "/name", "x"),
        v21("remove", "/a"),
        v21("replace", "/b", "x"),
        v21("replace", "/tags", ["b", "c"]),
        image=image,
        property_quota=1,
        tag_quota=1,
    ).values == {"name": "x", "properties": {"b": "x", "c": "3"}, "tags": ["b", "c"]}


# --- anything at all ------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
known = st.sampled_from(sorted(SCHEMA.document["properties"]))
paths = (
    st.builds("/{}".format, known)
    | st.text(alphabet="/~01 ab-", max_size=8)
    | st.builds("/{}/{}".format, known, st.sampled_from(["-", "0", "x"]))
)
operations_v21 = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "replace", "remove", "move"]), "path": paths},
    optional={"value": json_values},
)
operations_v20 = st.dictionaries(
    st.sampled_from(["add", "replace", "remove", "value"]), paths | json_values
)


@settings(deadline=None)
@given(
    body=json_values | st.lists(operations_v20 | operations_v21 | json_values, max_size=4),
    dialect=st.sampled_from(DIALECTS),
    is_admin=st.booleans(),
)
def test_any_document_is_applied_or_refused_in_the_apis_terms(
    body: object, dialect: Dialect, is_admin: bool
) -> None:
    try:
        operations = patch.parse(body, dialect, SCHEMA)
        changes = patch.apply(
            row(), operations, is_admin=is_admin, property_quota=128, tag_quota=128
        )
    except (BadRequest, Forbidden, Conflict):
        return
    assert bool(operations) == bool(changes.values)
    for name, value in changes.values.items():
        if name == "properties":
            assert isinstance(value, dict)
            for custom, text in value.items():
                SCHEMA.check(custom, text)
        else:
            SCHEMA.check(name, value)


class Model:
    """The rules of add, replace and remove on custom properties, spelled out one by one."""

    def __init__(self, properties: dict[str, str]) -> None:
        self.properties = properties

    def do(self, operation: Operation) -> None:
        name = operation.name
        if operation.op == "add" and not operation.may_overwrite and name in self.properties:
            raise Conflict("there")
        if operation.op != "add" and name not in self.properties:
            raise Conflict("not there")
        if operation.op == "remove":
            self.properties.pop(name)
        else:
            self.properties[name] = operation.value


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("abc"), st.text("xyz", max_size=2)),
    wanted=st.lists(
        st.tuples(
            st.sampled_from(["add", "replace", "remove"]),
            st.sampled_from("abc"),
            st.text("xyz", max_size=2),
        ),
        max_size=6,
    ),
    dialect=st.sampled_from(DIALECTS),
)
def test_sequences_of_operations_come_to_what_their_rules_say(
    before: dict[str, str], wanted: list[tuple[str, str, str]], dialect: Dialect
) -> None:
    body = [WRITE[dialect](op, f"/{name}", value) for op, name, value in wanted]
    operations = patch.parse(body, dialect, SCHEMA)
    model = Model(dict(before))
    try:
        for operation in operations:
            model.do(operation)
    except Conflict:
        with pytest.raises(Conflict):
            change(*body, dialect=dialect, image=row(properties=before))
        return
    changes = change(*body, dialect=dialect, image=row(properties=before))

    assert changes.values == ({"properties": model.properties} if wanted else {})
