"""A namespace of metadata definitions with one of each kind."""

from typing import Any

NAMESPACES = "/v2/metadefs/namespaces"
SIZE = {"title": "Size", "type": "integer", "minimum": 1, "operators": [">="]}
COLOUR = {"title": "Colour", "type": "string", "enum": ["red", "blue"], "default": "red"}
WHOLE: dict[str, Any] = {
    "namespace": "Whole",
    "display_name": "A whole",
    "description": "With one of each.",
    "visibility": "public",
    "protected": False,
    "owner": "alpha",
    "resource_type_associations": [
        {"name": "OS::Glance::Image", "prefix": "hw_", "properties_target": "image"},
        {"name": "OS::Nova::Flavor"},
    ],
    "properties": {"size": SIZE},
    "objects": [
        {
            "name": "Shape",
            "description": "How it looks.",
            "required": ["colour"],
            "properties": {"colour": COLOUR},
        },
        {"name": "Bare", "required": [], "properties": {}},
    ],
    "tags": [{"name": "one"}, {"name": "two"}],
}


def without_times(document: Any) -> Any:
    """The document without what is made anew, at any depth."""
    if isinstance(document, list):
        return [without_times(part) for part in document]
    if isinstance(document, dict):
        return {
            key: without_times(part)
            for key, part in document.items()
            if key not in ("created_at", "updated_at", "self", "schema")
        }
    return document
