"""The version document, for each configuration that changes it."""

import pytest
from diptych_images.wire import versions

OLD = ["v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"]
STORES = ["v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8"]


# Source: Glance 33.0, GET /versions in each configuration.
@pytest.mark.parametrize(
    ("cache", "multi_store", "ids", "current"),
    [
        (True, True, ["v2.18", "v2.17", "v2.16", "v2.15", "v2.14", *STORES, *OLD], "v2.18"),
        (True, False, ["v2.18", "v2.17", "v2.16", "v2.15", "v2.14", "v2.9", *OLD], "v2.18"),
        (False, True, ["v2.15", *STORES, "v2.17", *OLD], "v2.17"),
        (False, False, ["v2.15", "v2.9", "v2.17", *OLD], "v2.17"),
    ],
)
def test_versions_follow_the_configuration(
    cache: bool, multi_store: bool, ids: list[str], current: str
) -> None:
    shown = versions.document("http://glance.example/", cache=cache, multi_store=multi_store)

    assert shown == {
        "versions": [
            {
                "id": version,
                "status": "CURRENT" if version == current else "SUPPORTED",
                "links": [{"rel": "self", "href": "http://glance.example/v2/"}],
            }
            for version in ids
        ]
    }
    assert list(versions.supported(cache=cache, multi_store=multi_store)) == ids


@pytest.mark.parametrize("base", ["https://host:9292/image", "https://host:9292/image/"])
def test_links_end_in_one_slash_whatever_the_base(base: str) -> None:
    shown = versions.single(base, cache=False)

    assert shown == {
        "version": {
            "id": "v2.17",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": "https://host:9292/image/v2/"}],
        }
    }
