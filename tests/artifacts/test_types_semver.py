"""What is taken for a version, and how versions sort."""

import pytest
from diptych_artifacts.types import semver


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "1.0.0"),
        ("1.0", "1.0.0"),
        ("2.0", "2.0.0"),
        ("01.02.03", "1.2.3"),
        ("1-beta", "1.0.0-beta"),
        ("1:0", "1.0.0-0"),
        ("1:0:0", "1.0.0-0-0"),
        ("2:0-0", "2.0.0-0-0"),
        ("1_0", "1.0.0-0"),
        ("1.2.3.4", "1.2.3+4"),
        ("1.2.3.4.5", "1.2.3+4.5"),
        ("1.2.3-rc.1+build.7", "1.2.3-rc.1+build.7"),
        ("1.2.3+001", "1.2.3+001"),
        ("1.0-", "1.0.0"),
        ("1.0.0--", "1.0.0--"),
        ("1.2beta+a+b", "1.2.0-beta+a.b"),
        ("3é", "3.0.0"),
        ("3é4", "3.0.0-4"),
        ("65536", None),
        ("65535", "65535.0.0"),
        ("1.0.0-999999", "1.0.0-999999"),
        ("1.0.0-1000000", None),
        ("", None),
        (":", None),
        ("-1", None),
        ("v1", None),
        ("dummy", None),
        ("t" * 256, None),
        ("1" * 256, None),
        ("1." + "1" * 200, None),
        ("1.0.0-" + "a" * 250, None),
        ("1.0.0-01", None),
        ("1.0.0-a..b", None),
        ("1.0.0+a..b", None),
        ("\u0661", None),
        (" 1", None),
    ],
)
def test_what_resembles_a_version_becomes_one(value: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(ValueError, match=r"."):
            semver.coerce(value)
    else:
        version = semver.coerce(value)
        assert version.text == text
        assert semver.coerce(version.text) == version


def test_the_build_is_told_apart() -> None:
    assert semver.coerce("1.0.0-a+b").build == "b"
    assert semver.coerce("1.0.0-a").build == ""


def test_keys_sort_as_versions_do() -> None:
    # Section 11 of Semantic Versioning, and what its examples leave open.
    ordered = [
        "0.0.0-0",
        "0.0.0",
        "0.0.9",
        "0.0.10",
        "0.9.0",
        "0.10.0",
        "1.0.0--",
        "1.0.0-A",
        "1.0.0-a",
        "1.0.0-a.1",
        "1.0.0-a.1.0",
        "1.0.0-a.2",
        "1.0.0-a.11",
        "1.0.0-a.999999",
        "1.0.0-a.0a",
        "1.0.0-a.a",
        "1.0.0-a-",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0-z-z",
        "1.0.0",
        "1.0.1-0",
        "9.0.0",
        "10.0.0",
        "65535.65535.65535-a",
        "65535.65535.65535",
    ]
    keys = [semver.coerce(version).sort_key for version in ordered]
    assert sorted(keys) == keys
    assert len(set(keys)) == len(keys)


def test_builds_do_not_sort() -> None:
    assert semver.coerce("1.0.0+a").sort_key == semver.coerce("1.0.0+b").sort_key
