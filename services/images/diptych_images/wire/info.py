"""The discovery documents under /v2/info."""

from collections.abc import Mapping, Sequence

from diptych_store.registry import Stores

# Compared character by character by openshift-install, so part of the protocol.
# Source: openshift/installer#3162.
_IMPORT_DESCRIPTION = "Import methods available."


def import_methods(methods: Sequence[str]) -> dict[str, object]:
    """The document of /v2/info/import."""
    return {
        "import-methods": {
            "description": _IMPORT_DESCRIPTION,
            "type": "array",
            "value": list(methods),
        }
    }


def stores(stores: Stores) -> dict[str, object]:
    """The document of /v2/info/stores. Flags are strings, as every client expects them."""
    return {"stores": [_store(stores, name) for name in stores.names]}


def stores_detail(stores: Stores) -> dict[str, object]:
    """The document of /v2/info/stores/detail."""
    return {
        "stores": [
            {
                **_store(stores, name),
                "type": stores.info[name].type,
                "weight": stores.info[name].weight,
                "properties": dict(stores.info[name].properties),
            }
            for name in stores.names
        ]
    }


def usage(used: Mapping[str, tuple[int, int]] | None) -> dict[str, object]:
    """The document of /v2/info/usage, of pairs of usage and limit."""
    return {
        "usage": {
            name: {"usage": has, "limit": may_have}
            for name, (has, may_have) in (used or {}).items()
        }
    }


def _store(stores: Stores, name: str) -> dict[str, object]:
    about = stores.info[name]
    document: dict[str, object] = {"id": name}
    if about.description:
        document["description"] = about.description
    if about.is_default:
        document["default"] = "true"
    if about.read_only:
        document["read-only"] = "true"
    return document
