"""The schema documents, and the operator's site schema."""

import json
from typing import Any

import pytest
from diptych_common.errors import BadRequest
from diptych_images.wire.schemas import (
    STOCK_SITE_PROPERTIES,
    ImageSchema,
    SiteSchemaError,
    documents,
    site_schema,
)
from jsonschema import Draft4Validator, Draft202012Validator

SCHEMA = ImageSchema()
ALL = documents(SCHEMA)


def test_every_document_of_the_api_is_there() -> None:
    assert set(ALL) == {
        "image", "images", "member", "members", "task", "tasks",
        "metadefs/namespace", "metadefs/namespaces", "metadefs/object", "metadefs/objects",
        "metadefs/property", "metadefs/properties", "metadefs/resource_type",
        "metadefs/resource_types", "metadefs/tag", "metadefs/tags",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_document_is_a_json_schema(path: str) -> None:
    document = json.loads(json.dumps(ALL[path]))

    Draft4Validator.check_schema(document)
    # Following every reference shows that its target is in the same document.
    for reference in _references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        Draft202012Validator.check_schema(target)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for part in node.values() for found in _references(part)]
    if isinstance(node, list):
        return [found for part in node for found in _references(part)]
    return []


def test_the_image_schema_has_the_shape_that_clients_build_models_from() -> None:
    document = SCHEMA.document

    assert document["name"] == "image"
    assert document["additionalProperties"] == {"type": "string"}
    assert {link["rel"]: link["href"] for link in document["links"]} == {
        "self": "{self}",
        "enclosure": "{file}",
        "describedby": "{schema}",
    }
    assert "required" not in document
    assert set(document["properties"]) == {
        "id", "name", "status", "visibility", "protected", "os_hidden", "checksum",
        "os_hash_algo", "os_hash_value", "owner", "size", "virtual_size", "container_format",
        "disk_format", "created_at", "updated_at", "tags", "direct_url", "min_ram", "min_disk",
        "self", "file", "schema", "stores", "locations", *STOCK_SITE_PROPERTIES,
    }  # fmt: skip
    assert {
        name for name, declared in document["properties"].items() if declared.get("readOnly")
    } == {
        "status", "checksum", "os_hash_algo", "os_hash_value", "size", "virtual_size",
        "created_at", "updated_at", "direct_url", "self", "file", "schema", "stores",
    }  # fmt: skip


def test_formats_begin_with_null_and_are_the_deployments() -> None:
    properties = ImageSchema(disk_formats=["raw"], container_formats=["bare"]).document[
        "properties"
    ]

    # Nova reads the enum to learn what it may upload.
    assert properties["disk_format"]["enum"] == [None, "raw"]
    assert properties["container_format"]["enum"] == [None, "bare"]
    assert SCHEMA.document["properties"]["disk_format"]["enum"] == [
        None, "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop",
    ]  # fmt: skip


def test_collections_hold_their_items_and_links() -> None:
    assert ALL["images"]["properties"]["images"]["items"]["name"] == "image"
    assert {"first", "next", "schema"} <= set(ALL["images"]["properties"])
    assert ALL["members"]["properties"]["members"]["items"]["name"] == "member"
    assert ALL["tasks"]["links"] == [{"rel": "describedby", "href": "{schema}"}]


def test_definitions_of_items_move_to_the_top_of_their_collection() -> None:
    for name in ("namespaces", "objects"):
        document = ALL[f"metadefs/{name}"]
        assert "property" in document["definitions"]
        assert "definitions" not in document["properties"][name]["items"]


def test_site_properties_are_marked_as_such() -> None:
    schema = ImageSchema(
        site_properties={"flavour": {"type": ["string", "null"], "enum": ["sweet", None]}},
        required=["flavour"],
    )

    assert schema.document["properties"]["flavour"] == {
        "type": ["string", "null"],
        "enum": ["sweet", None],
        "is_base": False,
    }
    assert schema.document["required"] == ["flavour"]
    assert schema.nullable == {"flavour"}
    assert "kernel_id" not in schema.document["properties"]
    schema.check("flavour", "sweet")
    with pytest.raises(BadRequest, match="must be one of sweet, null"):
        schema.check("flavour", "sour")


@pytest.mark.parametrize(
    "declared",
    [
        {"name": {"type": "string"}},
        {"custom": {"type": "integer"}},
        {"custom": {"type": ["string", "integer"]}},
        {"custom": {"type": "null"}},
        {"custom": {}},
        {"custom": {"type": "string", "maxLength": "long"}},
        {"custom": {"type": "nonsense"}},
    ],
)
def test_a_site_schema_that_cannot_work_is_refused_at_the_start(declared: dict[str, Any]) -> None:
    with pytest.raises(SiteSchemaError):
        ImageSchema(site_properties=declared)


def test_a_required_property_must_be_declared() -> None:
    with pytest.raises(SiteSchemaError, match="color"):
        ImageSchema(required=["color"])


def test_a_site_schema_has_two_forms() -> None:
    properties = {"custom": {"type": "string"}}

    assert site_schema(properties) == (properties, ())
    assert site_schema({"properties": properties, "required": ["custom"]}) == (
        properties,
        ("custom",),
    )
    assert site_schema({"properties": properties}) == (properties, ())


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {"custom": "string"},
        {"properties": {"custom": 1}},
        {"properties": {}, "required": "x"},
        {"properties": {}, "required": [1]},
    ],
)
def test_a_site_schema_of_another_form_is_refused(document: object) -> None:
    with pytest.raises(SiteSchemaError):
        site_schema(document)


def test_a_location_may_be_nested_deeper_than_the_stack() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"x": deep}

    SCHEMA.check_location({"url": "http://x", "metadata": deep})
    with pytest.raises(BadRequest):
        SCHEMA.check_location({"url": "http://x", "metadata": deep, "validation_data": {"x": deep}})
    with pytest.raises(BadRequest):
        SCHEMA.check_location({"url": "http://x", "metadata": {"x": ["a\x00"]}})
