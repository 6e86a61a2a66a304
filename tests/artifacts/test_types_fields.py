"""What fields can be declared, and what becomes of values for them."""

from typing import Any, cast

import pytest
from diptych_artifacts.types import validators
from diptych_artifacts.types.fields import (
    DeclarationError,
    Field,
    Invalid,
    Kind,
    Shape,
    coerce,
    coerce_element,
    coerce_key,
    linked_artifact,
)

ID = "5fdeba9a-ba12-4147-bb8a-a8daada84222"

STRING = Field("String")
INTEGER = Field("Integer")
FLOAT = Field("Float")
BOOLEAN = Field("Boolean")
TIME = Field("DateTime")
VERSION = Field("Version")
LINK = Field("Link")
STRINGS = Field("String", "list")
INTEGERS_BY_KEY = Field("Integer", "dict")


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        (STRING, "é\U0001f600", "é\U0001f600"),
        (STRING, 1, "1"),
        (STRING, 1.0, "1.0"),
        (STRING, True, "True"),
        (STRING, "", ""),
        (STRING, "a" * 255, "a" * 255),
        (INTEGER, 1.1, 1),
        (INTEGER, "2", 2),
        (INTEGER, True, 1),
        (INTEGER, -(2**63), -(2**63)),
        (FLOAT, 1, 1.0),
        (FLOAT, "2", 2.0),
        (FLOAT, "3.0", 3.0),
        (FLOAT, True, 1.0),
        (BOOLEAN, "1", True),
        (BOOLEAN, 1, True),
        (BOOLEAN, "t", True),
        (BOOLEAN, True, True),
        (BOOLEAN, "On", True),
        (BOOLEAN, "Y", True),
        (BOOLEAN, "YES", True),
        (BOOLEAN, "TRUE", True),
        (BOOLEAN, "", False),
        (BOOLEAN, 1.0, False),
        (BOOLEAN, 2.1, False),
        (BOOLEAN, "no", False),
        (BOOLEAN, [1], False),
        (BOOLEAN, [], False),
        (BOOLEAN, {}, False),
        (TIME, "2016-01-02T03:04:05Z", "2016-01-02T03:04:05Z"),
        (TIME, "2016-01-02T03:04:05.678", "2016-01-02T03:04:05Z"),
        (TIME, "2016-01-02T03:04:05+02:00", "2016-01-02T01:04:05Z"),
        (TIME, "0500-01-02", "0500-01-02T00:00:00Z"),
        (VERSION, 2.0, "2.0.0"),
        (VERSION, "1-beta", "1.0.0-beta"),
        (LINK, f"/artifacts/images/{ID}", f"/artifacts/images/{ID}"),
        (LINK, "https://example.com:8000/a?b=c#d", "https://example.com:8000/a?b=c#d"),
        (LINK, "http://[::1]/", "http://[::1]/"),
        (STRINGS, ["a", 1, "a"], ["a", "1", "a"]),
        (INTEGERS_BY_KEY, {"a": "1"}, {"a": 1}),
        (
            Field("String", "list", validators=[validators.Unique(True)]),
            ["b", "a", "b"],
            ["b", "a"],
        ),
    ],
)
def test_values_are_coerced(field: Field, value: object, stored: object) -> None:
    coerced = coerce(field, value)
    assert coerced == stored
    assert type(coerced) is type(stored)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (STRING, []),
        (STRING, {}),
        (STRING, "a" * 256),
        (STRING, "a\0"),
        (STRING, "\ud800"),
        (INTEGER, "3.0"),
        (INTEGER, ""),
        (INTEGER, []),
        (INTEGER, {}),
        (INTEGER, 2**63),
        (INTEGER, "9" * 5000),
        (INTEGER, float("inf")),
        (INTEGER, float("nan")),
        (FLOAT, "True"),
        (FLOAT, []),
        (FLOAT, {}),
        (FLOAT, "nan"),
        (FLOAT, "1e999"),
        (TIME, 5),
        (TIME, "yesterday"),
        (TIME, "0001-01-01T00:00:00+05:00"),
        (VERSION, ""),
        (VERSION, []),
        (VERSION, True),
        (LINK, 1),
        (LINK, ""),
        (LINK, "/artifacts/images/not-a-uuid"),
        (LINK, f"/artifacts/images/{ID}/image"),
        (LINK, f"/artifacts//{ID}"),
        (LINK, f"/images/{ID}"),
        (LINK, f"/artifacts/images/{ID}\n"),
        (LINK, "ftp://example.com/"),
        (LINK, "httpx://example.com/"),
        (LINK, "http://"),
        (LINK, "http:///path"),
        (LINK, "http://[::1/"),
        (LINK, "http://example.com:port/"),
        (LINK, "http://example.com/a b"),
        (LINK, "http://example.com/" + "a" * 2048),
        (STRINGS, "a"),
        (STRINGS, {}),
        (STRINGS, 1),
        (STRINGS, [None]),
        (STRINGS, [["a"]]),
        (STRINGS, ["a"] * 256),
        (STRINGS, ["a" * 256]),
        (INTEGERS_BY_KEY, []),
        (INTEGERS_BY_KEY, "a"),
        (INTEGERS_BY_KEY, {"a": None}),
        (INTEGERS_BY_KEY, {"a": "lala"}),
        (INTEGERS_BY_KEY, {"": 1}),
        (INTEGERS_BY_KEY, {"a" * 256: 1}),
        (INTEGERS_BY_KEY, {"a\0": 1}),
        (INTEGERS_BY_KEY, {1: 1}),
        (INTEGERS_BY_KEY, {str(number): number for number in range(256)}),
        (Field("Blob"), "data"),
        (Field("Blob", "dict"), {}),
    ],
)
def test_values_that_do_not_fit_are_refused(field: Field, value: object) -> None:
    with pytest.raises(Invalid, match=r"."):
        coerce(field, value)


def test_numbers_too_long_to_print_are_refused() -> None:
    for field in (STRING, INTEGER, FLOAT, VERSION):
        with pytest.raises(Invalid):
            coerce(field, 10**5000)


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        (INTEGER, None),
        (STRINGS, []),
        (INTEGERS_BY_KEY, {}),
        (Field("Boolean", default=False), False),
        (Field("Integer", default=0, nullable=False), 0),
        (Field("String", "dict", default=None), None),
        (Field("Blob"), None),
        (Field("Blob", "dict"), {}),
    ],
)
def test_null_is_the_default(field: Field, stored: object) -> None:
    assert coerce(field, None) == stored


def test_defaults_are_not_shared() -> None:
    cast(list[object], coerce(STRINGS, None)).append("a")
    assert coerce(STRINGS, None) == []


def test_null_is_refused_where_nothing_stands_for_it() -> None:
    with pytest.raises(Invalid):
        coerce(Field("String", nullable=False), None)
    with pytest.raises(Invalid):
        coerce_element(STRING, None)


@pytest.mark.parametrize(
    ("validator", "kind", "good", "bad"),
    [
        (validators.UUID(), "String", ID, ID.replace("-", "")),
        (validators.UUID(), "String", ID.upper(), f"{ID}\n"),
        (validators.AllowedValues(["a", "b"]), "String", "a", "c"),
        (validators.AllowedValues([1, 2]), "Integer", "2", 3),
        (validators.Regex("^([0-9a-fA-F]){8}$"), "String", "cafebabe", "cafebab"),
        (validators.Regex("ab"), "String", "abc", "cab"),
        (validators.MaxStrLen(2), "String", "ab", "abc"),
        (validators.MinStrLen(2), "String", "ab", "a"),
        (validators.ForbiddenChars(["]", "^"]), "String", "a", "a]"),
        (validators.MaxNumberSize(20), "Integer", 20, 21),
        (validators.MinNumberSize(0.5), "Float", 0.5, 0.4),
    ],
)
def test_validators_of_values(
    validator: validators.Validator, kind: Kind, good: object, bad: object
) -> None:
    field = Field(kind, validators=[validator])
    coerce(field, good)
    coerce_element(field, good)
    coerce_element(Field(kind, "list", element_validators=[validator]), good)
    for refuse in (
        lambda: coerce(field, bad),
        lambda: coerce_element(field, bad),
        lambda: coerce(Field(kind, "list", element_validators=[validator]), [bad]),
        lambda: coerce(Field(kind, "dict", element_validators=[validator]), {"key": bad}),
    ):
        with pytest.raises(Invalid):
            refuse()


@pytest.mark.parametrize(
    ("validator", "good", "bad"),
    [
        (validators.MaxListSize(2), ["a", "b"], ["a", "b", "c"]),
        (validators.MinListSize(1), ["a"], []),
        (validators.Unique(), ["a", "b"], ["a", "a"]),
        (validators.MaxDictSize(1), {"a": ""}, {"a": "", "b": ""}),
        (validators.MinDictSize(1), {"a": ""}, {}),
        (validators.AllowedDictKeys(["a", "b"]), {"b": ""}, {"c": ""}),
        (validators.RequiredDictKeys(["a"]), {"a": "", "b": ""}, {"b": ""}),
        (validators.MaxDictKeyLen(2), {"ab": ""}, {"abc": ""}),
        (validators.MinDictKeyLen(2), {"ab": ""}, {"a": ""}),
    ],
)
def test_validators_of_lists_and_dicts(
    validator: validators.Validator, good: object, bad: object
) -> None:
    shape: Shape = "list" if isinstance(good, list) else "dict"
    field = Field("String", shape, validators=[validator])
    assert coerce(field, good) == good
    with pytest.raises(Invalid):
        coerce(field, bad)


def test_all_validators_must_agree() -> None:
    field = Field(
        "String",
        validators=[validators.AllowedValues(["aa", "bb", "c" * 11]), validators.MaxStrLen(10)],
    )
    assert coerce(field, "aa") == "aa"
    with pytest.raises(Invalid):
        coerce(field, "c" * 11)


def test_keys_of_folders() -> None:
    folder = Field("Blob", "dict", validators=[validators.MaxDictKeyLen(1000)])
    assert coerce_key(folder, "a/" * 450) == "a/" * 450
    for key in ("", "a" * 1001, "a\0", "\udfff", 5):
        with pytest.raises(Invalid):
            coerce_key(folder, key)
    assert folder.max_items == 255
    assert Field("Blob", "dict", validators=[validators.MaxDictSize(3)]).max_items == 3


def test_links_to_artifacts_are_told_from_others() -> None:
    assert linked_artifact(f"/artifacts/images/{ID}") == ID
    assert linked_artifact("https://example.com/") is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "Blob", "shape": "list"}, "lists of blobs"),
        ({"kind": "String", "shape": "list", "sortable": True}, "sortable"),
        ({"kind": "String", "shape": "dict", "sortable": True}, "sortable"),
        ({"kind": "Blob", "sortable": True}, "sortable"),
        (
            {"kind": "String", "sortable": True, "validators": [validators.MaxStrLen(256)]},
            "at most 255 characters",
        ),
        ({"kind": "Boolean", "filter_ops": ("in",)}, "filter_ops: 'in'"),
        ({"kind": "String", "filter_ops": ("gt",)}, "filter_ops: 'gt'"),
        ({"kind": "Link", "filter_ops": ("like",)}, "filter_ops: 'like'"),
        ({"kind": "Integer", "filter_ops": ("eq", "like")}, "filter_ops: 'like'"),
        ({"kind": "Float", "shape": "dict", "filter_ops": ("like",)}, "filter_ops: 'like'"),
        ({"kind": "DateTime", "filter_ops": ("eq",)}, "filter_ops: 'eq'"),
        ({"kind": "Blob", "filter_ops": ("eq",)}, "filter_ops: 'eq'"),
        ({"kind": "Integer", "validators": [validators.MaxStrLen(2)]}, "MaxStrLen is not for"),
        ({"kind": "String", "validators": [validators.MaxListSize(2)]}, "MaxListSize is not for"),
        (
            {"kind": "String", "shape": "list", "validators": [validators.MaxStrLen(2)]},
            "MaxStrLen is not for list of String",
        ),
        (
            {"kind": "Integer", "shape": "list", "element_validators": [validators.UUID()]},
            "UUID is not for",
        ),
        ({"kind": "String", "element_validators": [validators.UUID()]}, "element_validators"),
        ({"kind": "Integer", "default": "many"}, "default"),
        (
            {"kind": "Integer", "default": 5, "validators": [validators.MinNumberSize(6)]},
            "default",
        ),
        ({"kind": "Blob", "default": "data"}, "default"),
        ({"kind": "Blob", "max_blob_size": -1}, "max_blob_size"),
    ],
)
def test_fields_that_cannot_be_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        Field(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: validators.AllowedValues([]),
        lambda: validators.AllowedValues(["a", "a"]),
        lambda: validators.Regex("("),
        lambda: validators.Regex(r"(a)\1"),
        lambda: validators.ForbiddenChars([]),
        lambda: validators.ForbiddenChars(["ab"]),
        lambda: validators.AllowedDictKeys([]),
        lambda: validators.RequiredDictKeys([]),
        lambda: validators.RequiredDictKeys(["a", "a"]),
    ],
)
def test_validators_that_cannot_be_are_refused(make: Any) -> None:
    with pytest.raises(DeclarationError):
        make()


def test_what_every_kind_is_filtered_by() -> None:
    every = ("eq", "neq", "in", "gt", "gte", "lt", "lte")
    expected: dict[Kind, tuple[str, ...]] = {
        "String": ("eq", "neq", "in"),
        "Integer": every,
        "Float": every,
        "Boolean": ("eq", "neq"),
        "DateTime": ("lt", "gt"),
        "Version": ("eq", "neq", "in"),
        "Link": ("eq", "neq"),
        "Blob": (),
    }
    for kind, ops in expected.items():
        assert Field(kind).filter_ops == ops
        assert Field(kind, "dict").filter_ops == ops


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", "a" * 254 + "!"),
        ("(a?){50}a{50}$", "a" * 49),
        ("(.*,){11}P", ",".join("1" * 20)),
    ],
)
def test_no_value_makes_a_pattern_slow(pattern: str, text: str) -> None:
    # With `re` each of them is for years, beyond the time that a test has.
    with pytest.raises(Invalid):
        coerce(Field("String", validators=[validators.Regex(pattern)]), text)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", "(?<!a)b", r"(a)\1", "a{0,60000}"])
def test_patterns_that_cannot_be_matched_so_are_refused(pattern: str) -> None:
    with pytest.raises(DeclarationError, match="Regex"):
        validators.Regex(pattern)
