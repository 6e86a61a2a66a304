"""What people and programs do with metadata definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.clouds import Cloud, CommandFailed, PasswordCloud, Raised, rows
from tests.images.definitions import COLOUR, SIZE, WHOLE

RESOURCE_TYPE = "OS::Glance::Image"
SHAPE = {"description": "How it looks.", "required": ["colour"], "properties": {"colour": COLOUR}}


@pytest.fixture
def namespace(admin: PasswordCloud, name: str) -> str:
    """The name of a public namespace, and its display name too."""
    shown = admin.sdk(
        "image.create_metadef_namespace", namespace=name, display_name=name, visibility="public"
    )
    assert (shown["namespace"], shown["visibility"]) == (name, "public")
    return name


def _listed(cloud: Cloud, *arguments: str) -> list[str]:
    return [row["name"] for row in cloud.shown(*arguments)]


def test_openstack_keeps_namespaces(admin: PasswordCloud, demo: PasswordCloud, name: str) -> None:
    created = admin.shown(
        *("image", "metadef", "namespace", "create", name, "--display-name", "A name"),
        *("--description", "With a description", "--public", "--protected"),
    )
    assert (created["visibility"], created["protected"]) == ("public", True)
    command = ("image", "metadef", "namespace", "list", "--visibility", "public")
    assert name in [row["namespace"] for row in demo.shown(*command)]
    with pytest.raises(CommandFailed, match="1 of 1 namespace failed to delete"):
        admin.openstack("image", "metadef", "namespace", "delete", name)

    admin.openstack(
        *("image", "metadef", "namespace", "set", name, "--description", "Another"),
        *("--unprotected", "--private", "--tag", "one", "--tag", "two three"),
    )
    shown = admin.shown("image", "metadef", "namespace", "show", name)
    assert (shown["description"], shown["visibility"]) == ("Another", "private")
    assert shown["tags"] == [{"name": "one"}, {"name": "two three"}]
    with pytest.raises(CommandFailed, match="404"):
        demo.openstack("image", "metadef", "namespace", "show", name)
    admin.openstack("image", "metadef", "namespace", "unset", name, "--tag", "two three")
    admin.openstack("image", "metadef", "namespace", "unset", name, "--all-tags")
    admin.openstack("image", "metadef", "namespace", "delete", name)
    with pytest.raises(CommandFailed, match="404"):
        admin.openstack("image", "metadef", "namespace", "show", name)


def test_openstack_keeps_objects(admin: PasswordCloud, namespace: str) -> None:
    within = ("--namespace", namespace)
    created = admin.shown("image", "metadef", "object", "create", *within, "Shape")
    assert (created["name"], created["namespace_name"]) == ("Shape", namespace)
    admin.openstack("image", "metadef", "object", "update", namespace, "Shape", "--name", "Form")
    assert admin.shown("image", "metadef", "object", "show", namespace, "Form")["name"] == "Form"
    assert _listed(admin, "image", "metadef", "object", "list", namespace) == ["Form"]
    admin.sdk("image.update_metadef_object", "Form", namespace, name="Form", **SHAPE)
    shown = admin.shown(
        "image", "metadef", "object", "property", "show", namespace, "Form", "colour"
    )
    assert shown == {**COLOUR, "name": "colour"}
    admin.openstack("image", "metadef", "object", "delete", namespace, "Form")
    assert _listed(admin, "image", "metadef", "object", "list", namespace) == []


def test_openstack_keeps_properties(admin: PasswordCloud, namespace: str) -> None:
    given = ("--name", "size", "--title", "Size", "--type", "integer")
    schema = ("--schema", json.dumps({"minimum": 1, "operators": [">="]}))
    created = admin.shown("image", "metadef", "property", "create", *given, *schema, namespace)
    assert created.items() >= {"name": "size", **SIZE}.items()
    admin.openstack(
        *("image", "metadef", "property", "set", "--name", "length", "--title", "Length"),
        *("--schema", '{"maximum": 9}', namespace, "size"),
    )
    shown = admin.shown("image", "metadef", "property", "show", namespace, "length")
    assert (shown["title"], shown["maximum"]) == ("Length", 9)
    assert _listed(admin, "image", "metadef", "property", "list", namespace) == ["length"]
    admin.openstack("image", "metadef", "property", "delete", namespace, "length")
    assert _listed(admin, "image", "metadef", "property", "list", namespace) == []


def test_openstack_keeps_resource_types(admin: PasswordCloud, namespace: str) -> None:
    made = admin.shown(
        *("image", "metadef", "resource", "type", "association", "create"),
        *(namespace, RESOURCE_TYPE, "--properties-target", "image"),
    )
    assert made["name"] == RESOURCE_TYPE
    listed = admin.shown("image", "metadef", "resource", "type", "association", "list", namespace)
    assert listed == [{"Name": RESOURCE_TYPE}]
    types = admin.shown("image", "metadef", "resource", "type", "list")
    assert {"Name": RESOURCE_TYPE} in types
    admin.openstack("image", "metadef", "namespace", "set", namespace, "--protected")
    admin.openstack(
        *("image", "metadef", "resource", "type", "association", "delete"),
        *("--force", namespace, RESOURCE_TYPE),
    )
    shown = admin.sdk("image.get_metadef_namespace", namespace)
    assert (shown["is_protected"], shown["resource_type_associations"]) == (True, None)


def test_glance_keeps_namespaces(
    admin: PasswordCloud, demo: PasswordCloud, name: str, tmp_path: Path
) -> None:
    created = admin.glance_shown(
        *("md-namespace-create", name, "--display-name", "A name", "--visibility", "public"),
        *("--description", "With a description", "--protected", "False"),
    )
    assert (created["display_name"], created["protected"]) == ("A name", "False")
    admin.glance("md-namespace-update", name, "--namespace", name, "--visibility", "private")
    assert admin.glance_shown("md-namespace-show", name)["visibility"] == "private"
    with pytest.raises(CommandFailed, match="404"):
        demo.glance("md-namespace-show", name)
    admin.glance("md-namespace-delete", name)

    file = tmp_path / "namespace.json"
    file.write_text(json.dumps({**WHOLE, "namespace": name}))
    admin.glance("md-namespace-import", "--file", str(file))
    shown = demo.glance_shown("md-namespace-show", name, "--resource-type", RESOURCE_TYPE)
    # With the prefix of that type.
    assert shown["properties"] == '["hw_size"]'
    assert shown["resource_type_associations"] == '["OS::Glance::Image", "OS::Nova::Flavor"]'
    assert (shown["objects"], shown["tags"]) == ('["Shape", "Bare"]', '["one", "two"]')
    listed = demo.glance("md-namespace-list", "--resource-types", RESOURCE_TYPE, "--page-size", "1")
    assert [name] in rows(listed)


def test_glance_keeps_resource_types(admin: PasswordCloud, namespace: str) -> None:
    of_image = ("--name", RESOURCE_TYPE, "--prefix", "hw_", "--properties-target", "image")
    made = admin.glance_shown("md-resource-type-associate", namespace, *of_image)
    assert (made["name"], made["prefix"]) == (RESOURCE_TYPE, "hw_")
    assert rows(admin.glance("md-namespace-resource-type-list", namespace)) == [
        [RESOURCE_TYPE, "hw_", "image"]
    ]
    assert [RESOURCE_TYPE] in rows(admin.glance("md-resource-type-list"))
    admin.glance("md-resource-type-deassociate", namespace, RESOURCE_TYPE)
    assert rows(admin.glance("md-namespace-resource-type-list", namespace)) == []


def test_glance_keeps_properties(admin: PasswordCloud, namespace: str) -> None:
    given = ("--name", "size", "--title", "Size", "--type", "integer")
    schema = ("--schema", json.dumps({"minimum": 1}))
    created = admin.glance_shown("md-property-create", namespace, *given, *schema)
    assert (created["title"], created["minimum"]) == ("Size", "1")
    longer = ("--name", "length", "--title", "Length", "--schema", '{"type": "integer"}')
    admin.glance("md-property-update", namespace, "size", *longer)
    assert admin.glance_shown("md-property-show", namespace, "length")["type"] == "integer"
    assert rows(admin.glance("md-property-list", namespace)) == [["length", "Length", "integer"]]
    admin.glance("md-property-delete", namespace, "length")
    admin.glance("md-property-create", namespace, *given, *schema)
    admin.glance("md-namespace-properties-delete", namespace)
    assert rows(admin.glance("md-property-list", namespace)) == []


def test_glance_keeps_objects(admin: PasswordCloud, namespace: str) -> None:
    given = ("--name", "Shape", "--schema", json.dumps(SHAPE))
    created = admin.glance_shown("md-object-create", namespace, *given)
    assert (created["name"], created["properties"]) == ("Shape", '["colour"]')
    other = ("--name", "Form", "--schema", json.dumps({**SHAPE, "description": "The same."}))
    admin.glance("md-object-update", namespace, "Shape", *other)
    assert admin.glance_shown("md-object-show", namespace, "Form")["description"] == "The same."
    shown = admin.glance_shown("md-object-property-show", namespace, "Form", "colour")
    assert (shown["name"], shown["title"]) == ("colour", "Colour")
    assert rows(admin.glance("md-object-list", namespace)) == [["Form", "The same."]]
    admin.glance("md-object-delete", namespace, "Form")
    admin.glance("md-object-create", namespace, *given)
    admin.glance("md-namespace-objects-delete", namespace)
    assert rows(admin.glance("md-object-list", namespace)) == []


def test_glance_keeps_tags(admin: PasswordCloud, namespace: str) -> None:
    def tags() -> list[str]:
        return sorted(row[0] for row in rows(admin.glance("md-tag-list", namespace)))

    admin.glance("md-tag-create", namespace, "--name", "one")
    admin.glance("md-tag-update", namespace, "one", "--name", "first")
    assert admin.glance_shown("md-tag-show", namespace, "first")["name"] == "first"
    # `--append` fails in every glanceclient that has it: it gives requests a header that is True.
    admin.glance("md-tag-create-multiple", namespace, "--names", "four;five", "--delim", ";")
    assert tags() == ["five", "four"]
    admin.glance("md-tag-delete", namespace, "four")
    assert tags() == ["five"]
    admin.glance("md-namespace-tags-delete", namespace)
    assert tags() == []


def test_the_sdk_keeps_namespaces(admin: PasswordCloud, demo: PasswordCloud, name: str) -> None:
    with pytest.raises(Raised) as raised:
        demo.sdk("image.create_metadef_namespace", namespace=name)
    assert raised.value.name == "ForbiddenException"
    admin.sdk("image.create_metadef_namespace", namespace=name, visibility="public")
    with pytest.raises(Raised) as raised:
        admin.sdk("image.create_metadef_namespace", namespace=name)
    assert raised.value.name == "ConflictException"
    # What is not given again has its default again.
    changed = {"description": "With a description", "visibility": "public"}
    admin.sdk("image.update_metadef_namespace", name, **changed)
    assert demo.sdk("image.get_metadef_namespace", name)["description"] == "With a description"
    listed = demo.sdk("image.metadef_namespaces", visibility="public")
    assert name in [one["namespace"] for one in listed]

    for tag in ("one", "two three", "four"):
        admin.sdk("image.add_tag_to_metadef_namespace", name, tag)
    admin.sdk("image.remove_tag_from_metadef_namespace", name, "one")
    assert demo.sdk("image.get_metadef_namespace", name)["tags"] == [
        {"name": "two three"},
        {"name": "four"},
    ]
    admin.sdk("image.remove_tags_from_metadef_namespace", name)
    assert demo.sdk("image.get_metadef_namespace", name)["tags"] == []
    admin.sdk("image.delete_metadef_namespace", name)
    assert admin.sdk("image.delete_metadef_namespace", name) is None
    with pytest.raises(Raised) as raised:
        demo.sdk("image.get_metadef_namespace", name)
    assert raised.value.name == "NotFoundException"


def test_the_sdk_keeps_resource_types(admin: PasswordCloud, namespace: str) -> None:
    associated = {"name": RESOURCE_TYPE, "prefix": "hw_", "properties_target": "image"}
    admin.sdk("image.create_metadef_resource_type_association", namespace, **associated)
    [found] = admin.sdk("image.metadef_resource_type_associations", namespace)
    assert found.items() >= associated.items()
    assert RESOURCE_TYPE in [one["name"] for one in admin.sdk("image.metadef_resource_types")]
    admin.sdk("image.delete_metadef_resource_type_association", RESOURCE_TYPE, namespace)
    assert admin.sdk("image.metadef_resource_type_associations", namespace) == []


def test_the_sdk_keeps_properties(admin: PasswordCloud, namespace: str) -> None:
    admin.sdk("image.create_metadef_property", namespace, name="size", **SIZE)
    changed = {**SIZE, "name": "length", "title": "Length"}
    admin.sdk("image.update_metadef_property", "size", namespace, **changed)
    found = admin.sdk("image.get_metadef_property", "length", namespace)
    assert (found["name"], found["title"], found["minimum"]) == ("length", "Length", 1)
    assert [one["name"] for one in admin.sdk("image.metadef_properties", namespace)] == ["length"]
    admin.sdk("image.delete_metadef_property", "length", namespace)
    admin.sdk("image.create_metadef_property", namespace, name="size", **SIZE)
    admin.sdk("image.delete_all_metadef_properties", namespace)
    assert admin.sdk("image.metadef_properties", namespace) == []


def test_the_sdk_keeps_objects(admin: PasswordCloud, namespace: str) -> None:
    admin.sdk("image.create_metadef_object", namespace, name="Shape", **SHAPE)
    admin.sdk("image.update_metadef_object", "Shape", namespace, **{**SHAPE, "name": "Form"})
    found = admin.sdk("image.get_metadef_object", "Form", namespace)
    assert (found["name"], found["required"]) == ("Form", ["colour"])
    assert [one["name"] for one in admin.sdk("image.metadef_objects", namespace)] == ["Form"]
    admin.sdk("image.delete_metadef_object", "Form", namespace)
    admin.sdk("image.create_metadef_object", namespace, name="Shape", **SHAPE)
    admin.sdk("image.delete_all_metadef_objects", namespace)
    assert admin.sdk("image.metadef_objects", namespace) == []


SCHEMAS = (
    "image.get_metadef_namespace_schema",
    "image.get_metadef_namespaces_schema",
    "image.get_metadef_object_schema",
    "image.get_metadef_objects_schema",
    "image.get_metadef_properties_schema",
    "image.get_metadef_property_schema",
    "image.get_metadef_resource_type_schema",
    "image.get_metadef_resource_types_schema",
    "image.get_metadef_tag_schema",
    "image.get_metadef_tags_schema",
)


def test_the_sdk_reads_schemas(demo: PasswordCloud) -> None:
    for call in SCHEMAS:
        kind = call.removeprefix("image.get_metadef_").removesuffix("_schema")
        shown: dict[str, Any] = demo.sdk(call)
        assert shown["name"] == kind.replace("resource_type", "resource_type_association")
