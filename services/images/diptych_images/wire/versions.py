"""The version document of / and /versions: which minor versions this configuration speaks."""

from collections.abc import Mapping

# In the order of the document, which changes with what is switched on: old clients take the first
# CURRENT one. Source: Glance 33.0, api/versions.py, as its clients see it.
_ALWAYS = ("v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")
_STORES = ("v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8")


def supported(*, cache: bool, multi_store: bool) -> tuple[str, ...]:
    """The ids of the minor versions, in the order of the document.

    `cache` says whether the cache API is there, `multi_store` whether stores have names.
    """
    if cache:
        newest = ("v2.18", "v2.17", "v2.16", "v2.15", "v2.14")
        return newest + (_STORES if multi_store else ("v2.9",)) + _ALWAYS
    if multi_store:
        return ("v2.15", *_STORES, "v2.17", *_ALWAYS)
    return ("v2.15", "v2.9", "v2.17", *_ALWAYS)


def current(*, cache: bool) -> str:
    """The id of the one version with status CURRENT."""
    return "v2.18" if cache else "v2.17"


def document(base_url: str, *, cache: bool, multi_store: bool) -> dict[str, object]:
    """All versions with their links; `base_url` is where clients reach the service's root."""
    newest = current(cache=cache)
    return {
        "versions": [
            _version(version, base_url, "CURRENT" if version == newest else "SUPPORTED")
            for version in supported(cache=cache, multi_store=multi_store)
        ]
    }


def single(base_url: str, *, cache: bool) -> Mapping[str, object]:
    """The document of the one major version, for /v2 itself."""
    return {"version": _version(current(cache=cache), base_url, "CURRENT")}


def _version(version: str, base_url: str, status: str) -> dict[str, object]:
    return {
        "id": version,
        "status": status,
        "links": [{"rel": "self", "href": f"{base_url.rstrip('/')}/v2/"}],
    }
