"""What no client should send: never a 500, always a fault of the API's form, no change."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx

from tests import databases
from tests.artifacts.sending import (
    ACTIVATE,
    REQUIRED,
    add,
    changed,
    copy,
    expect,
    move,
    path_of,
    remove,
    replace,
    shown,
)
from tests.artifacts.service import ALICE, PATCH, Make

JSON = {"Content-Type": "application/json"}
SAMPLES = "/artifacts/sample_artifact"
NUL = "a\0b"
FIELDS = {"tags": ["a"], "metadata": {"k": "v"}, "list_of_int": [1], "dict_of_int": {"k": 1}}
DEEP = "[" * 900 + "]" * 900

# JSON that Python's own writer would not write, or not so.
RAW_VALUES = (
    DEEP,
    '{"a":' * 900 + "1" + "}" * 900,
    "[" * 5000 + "]" * 5000,
    "9" * 300,
    "-" + "9" * 300,
    "9" * 5000,
    "1e400",
    "-1e999",
    "1e-400",
    "1" + "0" * 308 + ".5",
    "18446744073709551616",
    "-9223372036854775809",
    "NaN",
    "Infinity",
    "-0.0",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"a\\u0000b"',
    '["\\u0000"]',
    '{"\\u0000": "x"}',
    '{"k": "\\u0000"}',
    '{"\\ud800": "x"}',
    '"\\x41"',
    "'text'",
    "tru",
    "nul",
    "01",
    "+1",
    ".5",
    "0x10",
    "",
    "[1,]",
    '{"a": 1,}',
    '{"a"}',
    "\ufeff1",
)

POINTERS = (
    "",
    "/",
    "//",
    "///",
    "name",
    "#/name",
    "/name/",
    "/name/first",
    "/name/0",
    "/NAME",
    "/ name",
    "/name ",
    "/name\0",
    "/\0",
    "/~",
    "/~2",
    "/~~",
    "/tags/~",
    "/metadata/~3",
    "/metadata/\0",
    f"/metadata/{'k' * 256}",
    "/metadata/",
    "/metadata/k/",
    "/metadata/k/k",
    "/metadata/k/k/k/k/k",
    "/" + "/".join("a" * 5000),
    "/" + "a" * 100_000,
    "/tags/-1",
    "/tags/+1",
    "/tags/ 1",
    "/tags/1 ",
    "/tags/1.0",
    "/tags/1e0",
    "/tags/00",
    "/tags/" + "9" * 9,
    "/tags/" + "9" * 20,
    "/tags/" + "9" * 5000,
    "/tags/٣",
    "/tags/²",
    "/tags/-/-",
    "/tags/0/0",
    "/list_of_int/-/0",
    "/blob",
    "/blob/status",
    "/blob/-",
    "/dict_of_blobs",
    "/dict_of_blobs/x",
    "/dict_of_blobs/x/status",
    "/__class__",
    "/__dict__/x",
    "/fields",
    "/type_name",
    "/deleted_at",
    "/version_sort",
    "/saving",
    "/blobs",
    "/*",
    "/'; DROP TABLE artifacts; --",
)


def patches() -> Iterator[str]:
    """Bodies of PATCH, none of which changes an artifact."""
    for pointer in POINTERS:
        for operation in (
            replace(pointer, "x"),
            remove(pointer),
            expect(pointer, "x"),
            copy(pointer, "/dict_of_int/x"),
            move(pointer, "/dict_of_int/x"),
        ):
            yield json.dumps([operation])
        if not pointer.startswith("/metadata/") and pointer != "/tags/-":
            yield json.dumps([add(pointer, "x")])
    for value in RAW_VALUES:
        for field in ("link1", "list_validators", "dict_validators/abc", "string_validators"):
            yield f'[{{"op": "add", "path": "/{field}", "value": {value}}}]'
        yield f'[{{"op": "test", "path": "/metadata", "value": {value}}}]'
        yield f'[{{"op": {value}, "path": "/name", "value": "x"}}]'
        yield f'[{{"op": "add", "path": {value}, "value": "x"}}]'
        yield f'[{{"op": "copy", "path": "/str1", "from": {value}}}]'
        yield f"[{value or 5}]"
        yield value
    for members in (
        {},
        {"op": "add"},
        {"path": "/name"},
        {"value": "x"},
        {"op": "add", "path": "/name", "from": "/str1"},
        {"op": "move", "path": "/str1", "value": "x"},
        {"op": "Add", "path": "/name", "value": "x"},
        {"op": "add ", "path": "/name", "value": "x"},
        {"op": True, "path": "/name", "value": "x"},
        {"op": {"add": 1}, "path": "/name", "value": "x"},
        {"op": "add", "path": {"name": 1}, "value": "x"},
        {"op": "add", "path": 5, "value": "x"},
        {"OP": "add", "PATH": "/name", "VALUE": "x"},
    ):
        yield json.dumps([members])
    # The first is good, and is not done either.
    good = add("/tags/-", "new")
    for bad in (
        replace("/int1", NUL),
        replace("/str1", NUL),
        replace("/name", NUL),
        add("/tags/-", NUL),
        add(f"/metadata/{NUL}", "x"),
        add("/metadata/x", NUL),
        replace("/metadata", {NUL: "x"}),
        replace("/description", NUL),
        replace("/version", f"1.0.0-{NUL * 200}"),
        replace("/version", "9" * 250),
        replace("/version", "1." * 127),
        replace("/version", "1.0.0-" + "9" * 200),
        replace("/int1", 2**63),
        replace("/int1", -(2**63) - 1),
        replace("/int1", "9" * 250),
        replace("/float1", "1e999"),
        replace("/float1", "nan"),
        replace("/float1", "inf"),
        replace("/list_of_int", [1] * 256),
        replace("/list_of_int", [[]]),
        replace("/dict_of_int", {"k": {}}),
        replace("/dict_of_int", {str(number): 1 for number in range(256)}),
        replace("/tags", ["t" * 256]),
        replace("/tags", [str(number) for number in range(256)]),
        replace("/link1", "/artifacts/" + "x" * 5000),
        replace("/link1", f"/artifacts/sample_artifact/{uuid4()}"),
        replace("/link1", f"/artifacts/{NUL}/{uuid4()}"),
        replace("/link1", "http://[::1"),
        replace("/link1", "http://x:99999/"),
        replace("/link1", "http://" + "x" * 3000),
        replace("/string_regex", "a" * 200_000),
        replace("/status", {"active": True}),
        replace("/status", ["active"]),
        replace("/status", "active\0"),
        replace("/visibility", 1),
    ):
        yield json.dumps([good, bad])


def creations() -> Iterator[str]:
    """Bodies of POST, none of which makes an artifact."""
    for value in RAW_VALUES:
        if value not in ("9" * 300, "-" + "9" * 300, "-0.0", "18446744073709551616", "1e-400"):
            yield (
                f'{{"name": {value}}}'
                if value
                not in (
                    "1" + "0" * 308 + ".5",
                    "-9223372036854775809",
                )
                else "{}"
            )
        for field in ("link1", "list_validators", "int_validators", "metadata", "version"):
            if field == "version" and value in ("9" * 5000, "1e-400", "-0.0"):
                continue
            yield f'{{"name": "x", "{field}": {value}, "dict_of_int": 5}}'
        yield value
    for field in ("id", "owner", "blob", "dict_of_blobs", "none", NUL, "", "x" * 100_000, "all"):
        for value in (None, "x", {}, [], 5):
            yield json.dumps({"name": "x", field: value})
    for name in (NUL, "\0", " " * 256, "x" * 256, [], {}, [["x"]], False, 0, None, ""):
        yield json.dumps({"name": name})


async def state(database: str) -> list[Any]:
    async with databases.connection(database) as server:
        return [
            *await server.fetch("SELECT * FROM artifacts ORDER BY id"),
            *await server.fetch("SELECT id FROM outbox"),
        ]


def require_fault(answer: httpx.Response, what: str) -> None:
    assert 400 <= answer.status_code < 500, (answer.status_code, what[:200])
    fault = answer.json()
    assert fault["code"] == answer.status_code, what[:200]
    assert set(fault) == {"code", "title", "explanation", "error"}


async def test_patches(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    drafted = path_of(await make_artifact(**FIELDS))
    active = path_of(await make_artifact(**FIELDS, **REQUIRED))
    await changed(api, active, ACTIVATE)
    before = await state(artifacts_database)
    number = 0
    for body in patches():
        number += 1
        path = active if number % 4 == 0 else drafted
        answer = await api.patch(path, content=body.encode(), headers={**ALICE, **PATCH})
        require_fault(answer, body)
    assert number > 500
    assert await state(artifacts_database) == before
    assert (await shown(api, drafted))["tags"] == ["a"]


async def test_creations(api: httpx.AsyncClient, artifacts_database: str) -> None:
    number = 0
    for body in creations():
        number += 1
        answer = await api.post(SAMPLES, content=body.encode(), headers={**ALICE, **JSON})
        require_fault(answer, body)
    assert number > 200
    assert await state(artifacts_database) == []


async def test_paths(api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str) -> None:
    artifact = await make_artifact()
    before = await state(artifacts_database)
    body = json.dumps([replace("/str1", "x")])
    for path in (
        f"{SAMPLES}/%00",
        f"{SAMPLES}/{artifact['id']}%00",
        f"{SAMPLES}/{artifact['id']}%0A",
        f"{SAMPLES}/%ff",
        f"{SAMPLES}/{artifact['id'].replace('-', '')}",
        f"{SAMPLES}/{{{artifact['id']}}}",
        f"{SAMPLES}/urn:uuid:{artifact['id']}",
        f"{SAMPLES}/{'9' * 5000}",
        f"{SAMPLES}/'%20OR%20true",
        f"/artifacts/%00/{artifact['id']}",
        f"/artifacts/{'x' * 5000}/{artifact['id']}",
        f"/artifacts/Sample_Artifact/{artifact['id']}",
        f"/artifacts/%ff/{artifact['id']}",
        f"/artifacts/__class__/{artifact['id']}",
    ):
        for answer in (
            await api.get(path, headers=ALICE),
            await api.delete(path, headers=ALICE),
            await api.patch(path, content=body, headers={**ALICE, **PATCH}),
        ):
            assert answer.status_code in (400, 404), path
            require_fault(answer, path)
    for path in ("%00", "x" * 5000, "%ff", "Sample_Artifact", "."):
        answer = await api.post(f"/artifacts/{path}", json={"name": "x"}, headers=ALICE)
        assert answer.status_code in (400, 404, 405), path
        require_fault(answer, path)
    assert await state(artifacts_database) == before


async def test_large_bodies(api: httpx.AsyncClient, make_artifact: Make) -> None:
    path = path_of(await make_artifact())
    large = b'[{"op": "add", "path": "/str1", "value": "' + b"x" * (10 << 20) + b'"}]'
    many = json.dumps([expect("/int1", None)] * 30_000).encode()
    for body in (large, many):
        answer = await api.patch(path, content=body, headers={**ALICE, **PATCH})
        assert answer.status_code == 413
        answer = await api.post(SAMPLES, content=body, headers={**ALICE, **JSON})
        assert answer.status_code == 413
