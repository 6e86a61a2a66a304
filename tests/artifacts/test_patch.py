"""PATCH: what each operation does, what is refused how, and what comes of concurrent ones."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests import databases
from tests.artifacts.sending import (
    ACTIVATE,
    DEACTIVATE,
    PUBLISH,
    REQUIRED,
    Operation,
    add,
    changed,
    copy,
    events,
    expect,
    move,
    patch,
    path_of,
    put_blob,
    remove,
    replace,
    shown,
)
from tests.artifacts.service import ADMIN, ALICE, BOB, CustomApi, Make

BEFORE = {
    "str1": "old",
    "tags": ["a", "b"],
    "list_of_str": ["x", "y"],
    "list_of_int": [1],
    "dict_of_str": {"k": "v", "a/b": "slash", "m~n": "tilde"},
    "metadata": {"k": "w"},
}

# Operations on an artifact as above, and what they change.
EFFECTS: dict[str, tuple[Sequence[Operation], dict[str, Any]]] = {
    "nothing": ([], {}),
    "a field is added": ([add("/str1", "new")], {"str1": "new"}),
    "a field is replaced": ([replace("/str1", "new")], {"str1": "new"}),
    "what was null is replaced": ([replace("/int1", 5)], {"int1": 5}),
    "a whole list": ([replace("/list_of_str", ["z"])], {"list_of_str": ["z"]}),
    "a whole dict": ([add("/dict_of_str", {"z": "1"})], {"dict_of_str": {"z": "1"}}),
    "an empty list": ([replace("/list_of_str", [])], {"list_of_str": []}),
    "an empty dict": ([replace("/dict_of_str", {})], {"dict_of_str": {}}),
    "an element at the end": ([add("/list_of_str/-", "z")], {"list_of_str": ["x", "y", "z"]}),
    "an element after the last": ([add("/list_of_str/2", "z")], {"list_of_str": ["x", "y", "z"]}),
    "an element before another": ([add("/list_of_str/0", "z")], {"list_of_str": ["z", "x", "y"]}),
    "an element in place of another": (
        [replace("/list_of_str/0", "z")],
        {"list_of_str": ["z", "y"]},
    ),
    "an element less": ([remove("/list_of_str/0")], {"list_of_str": ["y"]}),
    "the last element": ([remove("/list_of_int/0")], {"list_of_int": []}),
    "a key": (
        [add("/metadata/new", "v")],
        {"metadata": {"k": "w", "new": "v"}},
    ),
    "a key that is there": ([add("/metadata/k", "v")], {"metadata": {"k": "v"}}),
    "a key is replaced": ([replace("/metadata/k", "v")], {"metadata": {"k": "v"}}),
    "a key less": ([remove("/metadata/k")], {"metadata": {}}),
    "keys with slash and tilde": (
        [remove("/dict_of_str/a~1b"), replace("/dict_of_str/m~0n", "t")],
        {"dict_of_str": {"k": "v", "m~n": "t"}},
    ),
    "a key like an escaped escape": (
        [replace("/metadata", {"~1": "v"}), replace("/metadata/~01", "w")],
        {"metadata": {"~1": "w"}},
    ),
    "a key that looks like an index": (
        [add("/metadata/0", "v"), add("/metadata/-", "v")],
        {"metadata": {"k": "w", "0": "v", "-": "v"}},
    ),
    "elements are coerced": (
        [add("/list_of_int/-", "7"), add("/dict_of_str/n", 1)],
        {
            "list_of_int": [1, 7],
            "dict_of_str": {"k": "v", "a/b": "slash", "m~n": "tilde", "n": "1"},
        },
    ),
    "a tag twice": ([add("/tags/-", "a")], {}),
    "tags are a set": ([replace("/tags", ["c", "c", "d"])], {"tags": ["c", "d"]}),
    "an element moves into a dict": (
        [move("/tags/0", "/metadata/tag")],
        {"tags": ["b"], "metadata": {"k": "w", "tag": "a"}},
    ),
    "a key moves onto the same key": (
        [move("/dict_of_str/k", "/metadata/k")],
        {"dict_of_str": {"a/b": "slash", "m~n": "tilde"}, "metadata": {"k": "v"}},
    ),
    "an element moves within its list": (
        [move("/list_of_str/0", "/list_of_str/1")],
        {"list_of_str": ["y", "x"]},
    ),
    "an element moves into a field": (
        [move("/dict_of_str/k", "/str1")],
        {"dict_of_str": {"a/b": "slash", "m~n": "tilde"}, "str1": "v"},
    ),
    "an element moves to where it is": ([move("/list_of_str/0", "/list_of_str/0")], {}),
    "a key is copied": (
        [copy("/dict_of_str/a~1b", "/metadata/a~1b")],
        {"metadata": {"k": "w", "a/b": "slash"}},
    ),
    "a field is copied": ([copy("/name", "/str1")], {"str1": "patched"}),
    "a list is copied": ([copy("/list_of_str", "/tags")], {"tags": ["x", "y"]}),
    "an element is copied as another kind": (
        [copy("/list_of_int/0", "/list_of_str/-")],
        {"list_of_str": ["x", "y", "1"]},
    ),
    "what a former operation left is seen": (
        [add("/str1", 5), expect("/str1", "5"), copy("/str1", "/int1"), expect("/int1", 5)],
        {"str1": "5", "int1": 5},
    ),
    "tests of fields and elements": (
        [
            expect("/str1", "old"),
            expect("/list_of_int/0", 1.0),
            expect("/dict_of_str", {"m~n": "tilde", "a/b": "slash", "k": "v"}),
            expect("/int1", None),
            expect("/visibility", "private"),
            expect("/status", "drafted"),
        ],
        {},
    ),
    "null: a string": ([replace("/str1", None)], {"str1": None}),
    "null: a list": ([replace("/list_of_str", None)], {"list_of_str": []}),
    "null: a dict": ([replace("/dict_of_str", None)], {"dict_of_str": {}}),
    "null: tags": ([replace("/tags", None)], {"tags": []}),
    "null: a boolean": ([add("/bool1", True), replace("/bool1", None)], {"bool1": False}),
    "null: an integer": ([add("/int1", 1), replace("/int1", None)], {"int1": None}),
    "null: the description": (
        [add("/description", "x"), replace("/description", None)],
        {"description": ""},
    ),
    "null: a field with a default": (
        [add("/metadata_attribute", "x"), replace("/metadata_attribute", None)],
        {"metadata_attribute": "default"},
    ),
    "null: the version": ([replace("/version", None)], {"version": "0.0.0"}),
    "after null there is what is there by default": (
        [replace("/list_of_str", None), add("/list_of_str/-", "z")],
        {"list_of_str": ["z"]},
    ),
    "empty is null where that is the default": (
        [add("/dict_validators", {"abc": "x"}), remove("/dict_validators/abc")],
        {"dict_validators": None},
    ),
    "other members of an operation": ([{**replace("/str1", "z"), "from": 5}], {"str1": "z"}),
    "a value that is not used": ([{**remove("/tags/0"), "value": "x"}], {"tags": ["b"]}),
    "text": ([replace("/str1", "Владивосток 🎉")], {"str1": "Владивосток 🎉"}),
}


async def test_operations(api: httpx.AsyncClient, make_artifact: Make) -> None:
    for number, (name, (operations, expected)) in enumerate(EFFECTS.items()):
        before = await make_artifact(name="patched", version=str(number + 1), **BEFORE)
        after = await changed(api, path_of(before), *operations)
        assert after == await shown(api, path_of(before)), name
        after["updated_at"] = before["updated_at"]
        assert after == {**before, **expected}, name


async def test_operations_one_by_one_come_to_the_same(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    for number, (operations, _) in enumerate(EFFECTS.values()):
        fields = {"name": "patched", "version": str(number + 1), **BEFORE}
        together = path_of(await make_artifact(**fields))
        apart = path_of(await make_artifact(headers=BOB, **fields))
        await changed(api, together, *operations)
        for operation in operations:
            await changed(api, apart, operation, headers=BOB)
        one, other = await shown(api, together), await shown(api, apart)
        own = {name: one[name] for name in ("id", "owner", "created_at", "updated_at")}
        assert {**other, **own} == one, operations


# Values of single fields, and what becomes of them; 400 for those that are not taken.
COERCIONS: list[tuple[str, Any, Any]] = [
    ("name", True, "True"),
    ("name", 1.0, "1.0"),
    ("name", "tt:t", "tt:t"),
    ("name", "", 400),
    ("name", None, 400),
    ("name", "a" * 256, 400),
    ("version", 2.0, "2.0.0"),
    ("version", "1", "1.0.0"),
    ("version", "1.0", "1.0.0"),
    ("version", "01.02.03", "1.2.3"),
    ("version", "1-alpha", "1.0.0-alpha"),
    ("version", "1:0", "1.0.0-0"),
    ("version", "1:0:0", "1.0.0-0-0"),
    ("version", "2:0-0", "2.0.0-0-0"),
    ("version", "1_0", "1.0.0-0"),
    ("version", "1.2.3.4", "1.2.3+4"),
    ("version", "", 400),
    ("version", ":", 400),
    ("version", -1, 400),
    ("version", "v1", 400),
    ("version", "dummy", 400),
    ("version", "t" * 256, 400),
    ("version", "1.0.0-01", 400),
    ("version", "70000", 400),
    ("description", "a" * 4096, "a" * 4096),
    ("description", "a" * 4097, 400),
    ("tags", ["a" * 255], ["a" * 255]),
    ("tags", ["a" * 256], 400),
    ("tags", [""], 400),
    ("tags", ["a/a"], 400),
    ("tags", ["a,a"], 400),
    ("tags", [None], 400),
    ("tags", [str(number) for number in range(256)], 400),
    ("tags", "abc", 400),
    ("tags", {"a": 1}, 400),
    ("metadata", {"key": 5}, {"key": "5"}),
    ("metadata", {"key": "a" * 256}, 400),
    ("metadata", {"key": ""}, 400),
    ("metadata", {"key": None}, 400),
    ("metadata", {"": "a"}, 400),
    ("metadata", {"a" * 256: "a"}, 400),
    ("metadata", {f"a{number}": "a" for number in range(256)}, 400),
    ("metadata", ["a"], 400),
    ("metadata", "a", 400),
    ("int1", 1.1, 1),
    ("int1", "2", 2),
    ("int1", True, 1),
    ("int1", "3.0", 400),
    ("int1", "", 400),
    ("int1", "aaa", 400),
    ("int1", [], 400),
    ("int1", {}, 400),
    ("float1", 1, 1.0),
    ("float1", "3.5", 3.5),
    ("float1", "True", 400),
    ("float1", [], 400),
    ("bool1", "yes", True),
    ("bool1", "ON", True),
    ("bool1", 1, True),
    ("bool1", 2.1, False),
    ("bool1", "", False),
    ("bool1", [], False),
    ("bool1", {}, False),
    ("str1", True, "True"),
    ("str1", 1.5, "1.5"),
    ("str1", "", ""),
    ("str1", [], 400),
    ("str1", {"a": "b"}, 400),
    ("str1", "a" * 255, "a" * 255),
    ("str1", "a" * 256, 400),
    ("string_regex", "167f808Z", 400),
    ("string_regex", "167f8083", "167f8083"),
    ("string_validators", "aa", "aa"),
    ("string_validators", "dd", 400),
    ("string_validators", "c" * 11, 400),
    ("int_validators", 10, 10),
    ("int_validators", 9, 400),
    ("int_validators", 21, 400),
    ("list_validators", ["a", "b", "c"], ["a", "b", "c"]),
    ("list_validators", ["a", "b", "c", "d"], 400),
    ("list_validators", ["a", "a"], 400),
    ("dict_validators", {"abc": "a", "def": "b"}, {"abc": "a", "def": "b"}),
    ("dict_validators", {"zzz": "a"}, 400),
    ("dict_validators", {"abc": "a", "def": "b", "ghi": "c", "jkl": "d"}, 400),
    ("list_of_str", {"a": "b"}, 400),
    ("list_of_str", [["a"]], 400),
    ("list_of_int", ["1", 2], [1, 2]),
    ("dict_of_str", ["a"], 400),
    ("dict_of_str", {"a": {"b": "c"}}, 400),
    ("dict_of_int", {"a": "5"}, {"a": 5}),
    ("dict_of_int", {"a": "b"}, 400),
    ("link1", "https://example.org/x?y#z", "https://example.org/x?y#z"),
    ("link1", "Invalid", 400),
    ("link1", "file:///etc/passwd", 400),
    ("link1", 5, 400),
    ("status", "wrong", 400),
    ("status", None, 400),
    ("visibility", "wrong", 400),
    ("visibility", None, 400),
]


async def test_values_are_coerced_as_they_are_at_creation(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    path = path_of(await make_artifact())
    for number, (field, value, expected) in enumerate(COERCIONS):
        created = await api.post(
            "/artifacts/sample_artifact",
            json={"name": f"created-{number}", field: value},
            headers=BOB,
        )
        patched = await patch(api, path, replace(f"/{field}", value))
        case = f"{field} {value!r:.60}"
        assert patched.status_code == (400 if expected == 400 else 200), case
        if (field, value) != ("name", None) and field not in ("status", "visibility"):
            assert created.status_code == (400 if expected == 400 else 201), case
        if expected != 400:
            assert patched.json()[field] == expected, case
            assert created.json()[field] == expected, case


# On a drafted artifact as above.
REFUSED: list[tuple[int, object]] = [
    (400, "no operation"),
    (400, None),
    (400, []),
    (400, {}),
    (400, {"op": "replace", "path": "/name"}),
    (400, {"op": "add", "path": "/name"}),
    (400, {"op": "test", "path": "/name"}),
    (400, {"op": "move", "path": "/metadata/x"}),
    (400, {"op": "copy", "path": "/metadata/x", "from": None}),
    (400, {"op": "copy", "path": "/metadata/x", "from": 5}),
    (400, {"op": "no-op", "path": "/name", "value": "x"}),
    (400, {"op": None, "path": "/name", "value": "x"}),
    (400, {"op": ["add"], "path": "/name", "value": "x"}),
    (400, {"op": "replace", "path": None, "value": "x"}),
    (400, {"op": "replace", "path": ["name"], "value": "x"}),
    (400, {"op": "replace", "value": "x"}),
    (400, replace("", "x")),
    (400, remove("")),
    (400, expect("", {})),
    (400, move("/metadata/k", "")),
    (400, replace("/", "x")),
    (400, replace("//", "x")),
    (400, replace("name/", "x")),
    (400, replace("name", "x")),
    (400, replace("*/*", "x")),
    (400, add("/", "x")),
    (400, add("//", "x")),
    (400, replace("/wrong_field", "x")),
    (400, add("/wrong_field", "x")),
    (400, add("/wrong_field/x", "x")),
    (400, remove("/wrong_field")),
    (400, expect("/wrong_field", None)),
    (400, add("/__some_meta_information__", "x")),
    (400, add("/type_name", "images")),
    (400, add("/name/", "x")),
    (400, add("/name/0", "x")),
    (400, add("/int1/0", "x")),
    (400, add("/dict_validators/abc", "x")),  # which is null
    (400, add("/dict_of_str/", "x")),
    (400, add("/dict_of_str/k/x", "x")),
    (400, add("/dict_of_str/x", None)),
    (400, add("/dict_of_str/x", [1, 2])),
    (400, add("/metadata/~2", "x")),
    (400, add("/metadata/x~", "x")),
    (400, replace("/dict_of_str/none", "x")),
    (400, remove("/dict_of_str/none")),
    (400, expect("/dict_of_str/none", None)),
    (400, add("/list_of_str/3", "x")),
    (400, add("/list_of_str/10", "x")),
    (400, add("/list_of_str/-1", "x")),
    (400, add("/list_of_str/01", "x")),
    (400, add("/list_of_str/x", "x")),
    (400, add("/list_of_str/²", "x")),
    (400, add("/list_of_str/0/0", "x")),
    (400, add("/list_of_str/-", None)),
    (400, replace("/list_of_str/-", "x")),
    (400, replace("/list_of_str/99", "x")),
    (400, replace("/list_of_str/2", "x")),
    (400, remove("/list_of_str/-")),
    (400, remove("/list_of_str/999")),
    (400, expect("/list_of_str/-", "y")),
    (400, remove("/name")),
    (400, remove("/status")),
    (400, remove("/tags")),
    (400, remove("/list_of_str")),
    (400, remove("/int1")),
    (400, remove("/id")),
    (400, replace("/blob", "x")),
    (400, replace("/blob", None)),
    (400, add("/blob/size", 5)),
    (400, remove("/blob")),
    (400, add("/dict_of_blobs/x", None)),
    (400, replace("/dict_of_blobs", {})),
    (400, expect("/blob", None)),
    (400, copy("/blob", "/str1/x")),
    (400, copy("/dict_of_str", "/str1")),
    (400, copy("/none", "/str1")),
    (400, copy("", "/str1")),
    (400, move("/str1", "/string_mutable")),
    (400, move("/tags", "/list_of_str")),
    (400, move("/tags/9", "/str1")),
    (400, move("/metadata/k", "/wrong_field")),
    (400, move("/metadata/k", "/int1")),
    (400, move("", "/str1")),
    (400, expect("/str1", "other")),
    (400, expect("/list_of_int/0", True)),
    (400, expect("/bool1", 0)),
    (400, expect("/list_of_str", ["x"])),
    (400, expect("/list_of_str", ["y", "x"])),
    (400, expect("/dict_of_str", {"k": "v"})),
    (400, expect("/metadata", {"k": "other"})),
    (403, replace("/id", str(uuid4()))),
    (403, replace("/id", None)),
    (403, replace("/owner", "beta")),
    (403, replace("/created_at", "2000-01-01")),
    (403, replace("/updated_at", "2000-01-01")),
    (403, replace("/activated_at", "2000-01-01")),
    (403, replace("/display_type_name", "x")),
    (403, replace("/system_attribute", "x")),
    (403, expect("/system_attribute", "default")),
    (403, copy("/name", "/system_attribute")),
]


async def test_refusals_change_nothing(api: httpx.AsyncClient, make_artifact: Make) -> None:
    before = await make_artifact(name="patched", **BEFORE)
    for status, operation in REFUSED:
        # What comes before a refusal is not done either.
        for operations in ([operation], [replace("/str1", "new"), add("/tags/-", "c"), operation]):
            answer = await patch(api, path_of(before), *operations)
            assert answer.status_code == (
                400 if operation == expect("/str1", "other") else status
            ), f"{operation}: {answer.text}"
            assert answer.json()["code"] == answer.status_code
    assert await shown(api, path_of(before)) == before


async def test_an_active_artifact_changes_where_its_type_says_so(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    before = await make_artifact(**BEFORE, **REQUIRED)
    path = path_of(before)
    await changed(api, path, ACTIVATE)
    for operation in (
        replace("/name", "x"),
        replace("/version", "5"),
        replace("/str1", "x"),
        replace("/str1", "old"),
        expect("/str1", "old"),
        expect("/metadata/k", "w"),
        replace("/string_required", None),
        add("/list_of_str/-", "x"),
        remove("/metadata/k"),
        # Glare looks at where the value goes only.
        move("/metadata/k", "/string_mutable"),
        move("/tags/0", "/metadata/tag"),
        copy("/tags/0", "/str1"),
    ):
        assert (await patch(api, path, operation)).status_code == 403, operation
    after = await changed(
        api,
        path,
        replace("/description", "new"),
        replace("/string_mutable", "new"),
        add("/tags/-", "c"),
        move("/tags/0", "/description"),
        copy("/metadata/k", "/string_mutable"),
        add("/dict_of_links/x", "http://example.org"),
    )
    assert after["tags"] == ["b", "c"]
    assert after["description"] == "a"
    assert after["string_mutable"] == "w"
    assert after["metadata"] == before["metadata"]


async def test_a_deactivated_artifact_changes_its_status_only(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    path = path_of(await make_artifact(**REQUIRED))
    new = replace("/description", "new")
    await changed(api, path, ACTIVATE)
    assert (await changed(api, path, new, DEACTIVATE, headers=ADMIN))["description"] == "new"
    for operations in (
        [replace("/description", "newer")],
        [expect("/description", "new")],
        [replace("/description", "newer"), ACTIVATE],
        [PUBLISH],
        [remove("/tags/0")],
    ):
        refused = await patch(api, path, *operations, headers=ADMIN)
        assert refused.status_code == (400 if operations[0]["op"] == "remove" else 403), operations
    after = await changed(api, path, ACTIVATE, replace("/description", "newer"), headers=ADMIN)
    assert (after["status"], after["description"]) == ("active", "newer")


async def test_who_may_patch_what(api: httpx.AsyncClient, make_artifact: Make) -> None:
    private = path_of(await make_artifact())
    public = await make_artifact(**REQUIRED)
    await changed(api, path_of(public), ACTIVATE, PUBLISH, headers=ADMIN)
    new = replace("/description", "new")
    anonymous = {"X-User-Id": "nobody", "X-Roles": "reader"}
    for headers, path, status in (
        (BOB, private, 404),
        (ALICE, private, 200),
        (ADMIN, private, 200),
        (anonymous, private, 404),
        (BOB, path_of(public), 403),
        (ALICE, path_of(public), 403),
        (ADMIN, path_of(public), 200),
        (anonymous, path_of(public), 403),
        (ALICE, private.replace("sample_artifact", "images"), 404),
        (ALICE, private.replace("sample_artifact", "no_such_type"), 404),
        (ALICE, private.replace("sample_artifact", "all"), 403),
        (BOB, private.replace("sample_artifact", "all"), 404),
        (ALICE, f"/artifacts/sample_artifact/{uuid4()}", 404),
        (ALICE, "/artifacts/sample_artifact/nothing", 404),
    ):
        for operations in ([new], []):
            answer = await patch(api, path, *operations, headers=headers)
            assert answer.status_code == status, (headers, path)
    # Of a patch that is none nobody learns whether there is an artifact.
    assert (await patch(api, private, {"op": "x"}, headers=BOB)).status_code == 400


async def test_the_content_type_comes_first(api: httpx.AsyncClient, make_artifact: Make) -> None:
    path = path_of(await make_artifact())
    for given, body, status in (
        ("application/json", "[]", 415),
        ("application/json-patch", "nonsense", 415),
        ("text/plain", "[]", 415),
        ("application/json-patch+json", "nonsense", 400),
        ("application/json-patch+json", "", 400),
        ("application/json-patch+json", '{"op": "add", "path": "/name", "value": "x"}', 400),
        ("application/json-patch+json", '"text"', 400),
        ("application/json-patch+json", "[]", 200),
        ("application/json-patch+json; charset=UTF-8", "[]", 200),
    ):
        headers = {**ALICE, "Content-Type": given}
        answer = await api.patch(path, content=body, headers=headers)
        assert answer.status_code == status, (given, body)
        assert (await api.patch("/artifacts/x/y", content=body, headers=headers)).status_code == (
            404 if status == 200 else status
        )
    assert (await api.patch(path, content="[]", headers=ALICE)).status_code == 400


async def test_what_changes_nothing_is_no_change(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    before = await make_artifact(**BEFORE, **REQUIRED)
    path = path_of(before)
    await changed(api, path, ACTIVATE)

    async def state() -> tuple[Any, int]:
        async with databases.connection(artifacts_database) as server:
            at = await server.fetchval("SELECT updated_at FROM artifacts")
        return at, len(await events(artifacts_database))

    then = await state()
    for operations in (
        [],
        [ACTIVATE],
        [replace("/visibility", "private")],
        [replace("/tags", ["a", "b", "a"])],
        [replace("/description", "x"), replace("/description", "")],
        [add("/tags/-", "c"), remove("/tags/2")],
        [expect("/tags/0", "a")],
        [replace("/string_mutable", None)],
    ):
        await changed(api, path, *operations)
    assert await state() == then
    await changed(api, path, add("/tags/-", "c"))
    assert (await state())[0] > then[0]


async def test_times(api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str) -> None:
    path = path_of(await make_artifact(**REQUIRED))
    assert (await shown(api, path))["activated_at"] is None
    async with databases.connection(artifacts_database) as server:
        times: list[Any] = []
        for operations in (
            [replace("/description", "x")],
            [ACTIVATE],
            [replace("/description", "y")],
            [DEACTIVATE],
            [ACTIVATE],
            [DEACTIVATE, ACTIVATE],
        ):
            await changed(api, path, *operations, headers=ADMIN)
            times.append(await server.fetchrow("SELECT updated_at, activated_at FROM artifacts"))
    assert times[0]["activated_at"] is None
    updated = [row["updated_at"] for row in times]
    assert updated == sorted(set(updated))
    assert [row["activated_at"] == row["updated_at"] for row in times] == [
        *(False, True, False, False, True, True)
    ]


async def test_a_taken_name_and_version(api: httpx.AsyncClient, make_artifact: Make) -> None:
    path = path_of(await make_artifact(name="ttt", version="1.0"))
    await make_artifact(name="ttt", version="2.0")
    await make_artifact(name="ddd", version="1.0")
    await make_artifact(name="eee", version="1.0", headers=BOB)
    for operations in (
        [replace("/version", "2")],
        [replace("/version", "2.0.0")],
        [replace("/name", "ddd")],
        [replace("/name", "ddd"), replace("/description", "x")],
    ):
        for headers in (ALICE, ADMIN):  # in the owner's scope, whoever changes it
            answer = await patch(api, path, *operations, headers=headers)
            assert answer.status_code == 409, operations
    assert (await shown(api, path))["name"] == "ttt"
    for operations in (
        [replace("/name", "ddd"), replace("/name", "ttt")],
        [replace("/version", "2.0.0+build")],
        [replace("/version", "2.0.0-0")],
        [replace("/name", "ddd"), replace("/version", "3")],
        [replace("/name", "eee"), replace("/version", "1")],
    ):
        await changed(api, path, *operations)


async def test_a_link_to_the_web_causes_no_request(custom_api: CustomApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        api = await custom_api(OUTBOUND__ALLOWED_HOSTS=host, JOBS__WITH_WORKER="true")
        body = {"name": "x", "link1": f"http://{host}/1", **REQUIRED}
        created = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
        path = path_of(created.json())
        await changed(
            api,
            path,
            replace("/link2", f"http://{host}/2"),
            add("/list_of_links/-", f"http://{host}/3"),
            add("/dict_of_links/x", f"http://{host}/4"),
            ACTIVATE,
        )
        assert (await shown(api, path))["dict_of_links"] == {"x": f"http://{host}/4"}
        listed = await api.get(f"/artifacts/all?id={created.json()['id']}", headers=ALICE)
        assert len(listed.json()["artifacts"]) == 1
        # Who connects is in the queue at once, whether or not anybody accepts.
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_links_name_what_the_caller_sees(api: httpx.AsyncClient, make_artifact: Make) -> None:
    own = path_of(await make_artifact())
    others = path_of(await make_artifact(headers=BOB))
    public = await make_artifact(headers=BOB, **REQUIRED)
    await changed(api, path_of(public), ACTIVATE, PUBLISH, headers=ADMIN)
    nowhere = f"/artifacts/sample_artifact/{uuid4()}"
    path = path_of(await make_artifact(name="linked", list_of_links=[own]))
    for operation in (
        replace("/link1", nowhere),
        replace("/link1", others),
        add("/list_of_links/-", nowhere),
        add("/dict_of_links/x", others),
        replace("/dict_of_links", {"a": own, "b": nowhere}),
        replace("/link1", "/artifacts/sample_artifact/x"),
        replace("/link1", f"{own}/blob"),
        replace("/link1", f"http://artifacts.example{own}\n"),
        replace("/link1", "http://"),
    ):
        assert (await patch(api, path, operation)).status_code == 400, operation
    after = await changed(
        api,
        path,
        replace("/link1", own.replace("sample_artifact", "images")),  # the type is not looked at
        replace("/link2", own.upper().replace("/ARTIFACTS/SAMPLE_ARTIFACT", "/artifacts/all")),
        add("/list_of_links/-", path_of(public)),
        add("/dict_of_links/x", "http://127.0.0.1:1/"),
    )
    assert after["list_of_links"] == [own, path_of(public)]
    await changed(api, path, replace("/link1", others), headers=ADMIN)
    assert (await api.delete(own, headers=ALICE)).status_code == 204
    # What hangs already is no hindrance.
    after = await changed(
        api,
        path,
        add("/list_of_links/-", path),
        replace("/link1", None),
        remove("/list_of_links/1"),
    )
    assert after["list_of_links"] == [own, path]
    assert after["link1"] is None
    for links, status in (({"link1": path}, 201), ({"dict_of_links": {"a": own}}, 400)):
        body = {"name": f"to-{status}", **links}
        answer = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
        assert answer.status_code == status


async def test_links_are_looked_up_all_at_once(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    links = [path_of(await make_artifact()) for _ in range(3)]
    path = path_of(await make_artifact())
    async with databases.statements(artifacts_database) as seen:
        await changed(api, path, replace("/list_of_links", links), replace("/link1", links[0]))
    assert len([text for text in seen.texts if "= ANY" in text]) == 1


async def test_data_that_is_being_uploaded_keeps_the_status(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact(**REQUIRED)
    path = path_of(artifact)
    await put_blob(artifacts_database, artifact, "blob")
    blob_id = await put_blob(artifacts_database, artifact, "blob", status="saving")
    assert (await patch(api, path, ACTIVATE)).status_code == 409
    assert (await patch(api, path, add("/tags/-", "x"), ACTIVATE)).status_code == 409
    assert (await changed(api, path, add("/tags/-", "x")))["tags"] == ["x"]
    assert (await changed(api, path, replace("/status", "drafted")))["status"] == "drafted"
    assert (await shown(api, path))["blob"]["status"] == "active"
    async with databases.connection(artifacts_database) as server:
        await server.execute("DELETE FROM blobs WHERE id = $1", blob_id)
    assert (await changed(api, path, ACTIVATE))["status"] == "active"


async def test_blobs_can_be_copied_from(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact()
    path = path_of(artifact)
    await put_blob(artifacts_database, artifact, "dict_of_blobs", "k/l")
    after = await changed(api, path, copy("/dict_of_blobs/k~1l/md5", "/str1"))
    assert after["str1"] == "sum"
    assert after["dict_of_blobs"]["k/l"]["url"] == f"{path}/dict_of_blobs/k/l"
    for operation in (
        move("/dict_of_blobs/k~1l", "/metadata/x"),
        move("/dict_of_blobs/k~1l/md5", "/metadata/x"),
        remove("/dict_of_blobs/k~1l"),
        expect("/dict_of_blobs/k~1l/size", 3),
    ):
        assert (await patch(api, path, operation)).status_code == 400, operation


async def test_concurrent_patches_queue_up(api: httpx.AsyncClient, make_artifact: Make) -> None:
    path = path_of(await make_artifact())
    answers = await asyncio.gather(
        *(
            patch(api, path, add("/tags/-", f"t{number}"), add(f"/metadata/k{number}", "v"))
            for number in range(30)
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 30
    after = await shown(api, path)
    assert {*after["tags"]} == {f"t{number}" for number in range(30)}
    assert len(after["metadata"]) == 30


async def test_concurrent_patches_to_one_name(api: httpx.AsyncClient, make_artifact: Make) -> None:
    paths = [path_of(await make_artifact(name=f"n{number}")) for number in range(8)]
    answers = await asyncio.gather(*(patch(api, path, replace("/name", "x")) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]


async def test_every_change_is_told(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact(name="told", **REQUIRED)
    path = path_of(artifact)
    for operations in (
        [replace("/description", "x")],
        [ACTIVATE],
        [ACTIVATE],
        [ACTIVATE, replace("/description", "y")],
        [DEACTIVATE],
        [replace("/description", "z"), ACTIVATE],
        [ACTIVATE, PUBLISH, replace("/description", "z")],
        [PUBLISH, add("/tags/-", "t")],
    ):
        await patch(api, path, *operations, headers=ADMIN)
    assert (await api.delete(path, headers=ADMIN)).status_code == 204
    told = await events(artifacts_database)
    assert [action for action, _ in told] == [
        "create",
        *("update",),
        *("update", "activate"),
        *("update",),
        *("update", "deactivate"),
        *("update", "reactivate", "publish"),
        *("update",),
        "delete",
    ]
    payload = told[2][1]
    assert payload == {
        "type": "sample_artifact",
        "id": artifact["id"],
        "description": "x",
        "name": "told",
        "version": "0.0.0",
        "visibility": "private",
        "status": "active",
        "owner": "alpha",
        "created_at": artifact["created_at"],
        "updated_at": payload["activated_at"],
        "activated_at": payload["updated_at"],
    }


async def test_rules_of_transitions_see_what_the_artifact_will_be(
    custom_api: CustomApi, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "artifact:activate: \"'ready':%(description)s\"\n"
        "artifact:publish: \"'active':%(status)s and 'public':%(visibility)s\"\n"
    )
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(policy))
    body = {"name": "x", **REQUIRED}
    created = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
    path = path_of(created.json())
    ready = replace("/description", "ready")
    assert (await patch(api, path, ACTIVATE)).status_code == 403
    assert (await patch(api, path, ACTIVATE, ready)).status_code == 403
    assert (await changed(api, path, ready, ACTIVATE, PUBLISH))["visibility"] == "public"


async def test_a_body_of_thousands_of_operations(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    path = path_of(await make_artifact(metadata={f"k{number}": "v" for number in range(255)}))
    operations = [replace("/metadata/k7", f"v{number}") for number in range(1000)]
    assert (await changed(api, path, *operations))["metadata"]["k7"] == "v999"
    too_many = [replace("/metadata/k7", "v")] * 7000
    assert (await patch(api, path, *too_many)).status_code == 413
    copies = [copy("/metadata", "/dict_of_str")] * 101
    assert (await patch(api, path, *copies)).status_code == 400
    after = await changed(api, path, *copies[:100])
    assert after["dict_of_str"] == after["metadata"]


async def test_what_would_be_too_large_is_not_kept(
    custom_api: CustomApi, artifacts_database: str
) -> None:
    api = await custom_api(DEFAULT__MAX_ARTIFACT_SIZE="1000")
    body = {"name": "x", "metadata": {"a": "x" * 255, "b": "x" * 255, "c": "x" * 255}, **REQUIRED}
    created = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
    path = path_of(created.json())
    told = len(await events(artifacts_database))
    for operation in (
        add("/metadata/d", "x" * 255),
        replace("/description", "ж" * 150),
        replace("/tags", ["x" * 200]),
        replace("/name", "x" * 255),
        copy("/metadata/a", "/str1"),
        copy("/metadata", "/dict_of_str"),
    ):
        answer = await patch(api, path, replace("/int1", 7), operation)
        assert answer.status_code == 413, operation
    assert await shown(api, path) == created.json()
    assert len(await events(artifacts_database)) == told
    await changed(api, path, replace("/metadata/a", "x"), replace("/str1", "x" * 150))
    # Where the limit comes later, what exceeds it can become smaller, and go through its states.
    strict = await custom_api(DEFAULT__MAX_ARTIFACT_SIZE="100")
    await changed(strict, path, remove("/metadata/b"))
    assert (await patch(strict, path, add("/metadata/b", "x"))).status_code == 413
    await changed(strict, path, ACTIVATE)
    await changed(strict, path, DEACTIVATE, headers=ADMIN)
