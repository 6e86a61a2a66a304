"""GET /artifacts/{type} and /artifacts/all, by HTTP.

What filters and sorts find is tried at length in test_list_against_python.py, and what they can be
in test_wire_listing.py.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import databases
from tests.artifacts.service import ADMIN, ALICE, BOB, TYPES, CustomApi, Make, persona

SAMPLES = "/artifacts/sample_artifact"


async def listed(
    api: httpx.AsyncClient, path: str, headers: Mapping[str, str] = ALICE
) -> dict[str, Any]:
    answer = await api.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def names(api: httpx.AsyncClient, path: str, headers: Mapping[str, str] = ALICE) -> list[str]:
    page = await listed(api, path, headers)
    assert page["total_count"] == len(page["artifacts"])
    return [artifact["name"] for artifact in page["artifacts"]]


async def change(url: str, artifact: Mapping[str, Any], assignments: str) -> None:
    async with databases.connection(url) as server:
        await server.execute(f"UPDATE artifacts SET {assignments} WHERE id = $1", artifact["id"])


async def publish(url: str, *artifacts: Mapping[str, Any]) -> None:
    for artifact in artifacts:
        await change(url, artifact, "status = 'active', visibility = 'public'")


async def test_a_page(api: httpx.AsyncClient, make_artifact: Make) -> None:
    assert await listed(api, SAMPLES) == {
        "artifacts": [],
        "type_name": "sample_artifact",
        "schema": "/schemas/sample_artifact",
        "first": "/artifacts/sample_artifact",
        "total_count": 0,
    }
    artifact = await make_artifact(name="x", int1=5)
    page = await listed(api, f"{SAMPLES}?int1=5&limit=1")
    assert page == {
        "artifacts": [artifact],
        "type_name": "sample_artifact",
        "schema": "/schemas/sample_artifact",
        "first": "/artifacts/sample_artifact?int1=5&limit=1",
        "next": f"/artifacts/sample_artifact?int1=5&limit=1&marker={artifact['id']}",
        "total_count": 1,
    }
    last = await listed(api, page["next"])
    assert last["artifacts"] == []
    assert last["total_count"] == 1
    assert "next" not in last


async def test_all_shows_what_all_have(api: httpx.AsyncClient, make_artifact: Make) -> None:
    await make_artifact(name="x", int1=5, metadata={"a": "b"})
    (shown,) = (await listed(api, "/artifacts/all"))["artifacts"]
    assert shown["type_name"] == "sample_artifact"
    assert shown["display_type_name"] == "Sample Artifact"
    assert shown["metadata"] == {"a": "b"}
    assert shown["__some_meta_information__"] == "X"
    assert "int1" not in shown
    assert await names(api, "/artifacts/all?metadata.a=b") == ["x"]
    assert await names(api, "/artifacts/all?metadata.a=c") == []


async def test_fifty_four_artifacts(api: httpx.AsyncClient, make_artifact: Make) -> None:
    for kind, name, version in product(TYPES.split(","), "abc", (1, 2, 3)):
        await make_artifact(kind=kind, name=f"{kind}-{name}", version=version)

    async def number(query: str) -> int:
        page = await listed(api, f"/artifacts/all?limit=1000&{query}")
        assert page["total_count"] == len(page["artifacts"])
        return page["total_count"]

    assert await number("") == 54
    assert await number("version=latest") == 18
    assert await number("type_name=in:images,heat_templates") == 18
    assert await number("type_name=in:images,heat_templates&version=latest") == 6
    assert await number("type_name=like:heat%25") == 18
    assert await number("display_type_name=like:Heat%25") == 18
    assert await number("name=images-a&version=latest") == 1
    page = await listed(api, "/artifacts/all?sort=type_name:asc,version:desc,name:asc&limit=2")
    shown = [(one["name"], one["version"]) for one in page["artifacts"]]
    assert shown == [("heat_environments-a", "3.0.0"), ("heat_environments-b", "3.0.0")]
    assert page["total_count"] == 54


async def test_filters_change_which_version_is_the_latest(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    await make_artifact(name="x", version="1.0.0", int1=2050)
    newer = await make_artifact(name="x", version="2.0.0-alpha.10", int1=2051)
    await make_artifact(name="x", version="2.0.0-alpha.9", int1=2050)
    await make_artifact(name="y", version="1.0.0+a")
    await make_artifact(name="y", version="1.0.0+b")

    async def versions(query: str) -> list[str]:
        page = await listed(api, f"{SAMPLES}?sort=name:asc,version:asc&version=latest&{query}")
        assert page["total_count"] == len(page["artifacts"])
        return [one["version"] for one in page["artifacts"]]

    assert await versions("name=x") == ["2.0.0-alpha.10"]
    assert await versions("int1=2050") == ["2.0.0-alpha.9"]
    assert await versions("version=lt:2-alpha&name=x") == ["1.0.0"]
    # Which differ by their builds only, so that neither is the newer.
    assert await versions("version=latest") == ["2.0.0-alpha.10", "1.0.0+a", "1.0.0+b"]
    await change(artifacts_database, newer, "status = 'active'")
    assert await versions("name=x&status=drafted") == ["2.0.0-alpha.9"]
    page = await listed(api, f"{SAMPLES}?version=latest&limit=1&sort=name:desc,version:desc")
    assert page["total_count"] == 3
    assert [one["version"] for one in page["artifacts"]] == ["1.0.0+b"]
    page = await listed(api, page["next"])
    assert [one["version"] for one in page["artifacts"]] == ["1.0.0+a"]


async def test_the_latest_is_by_name_across_projects_and_types(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    await make_artifact(name="x", version="1.0.0")
    await make_artifact(name="x", version="2.0.0", headers=BOB)
    await make_artifact(name="x", version="2.0.0", kind="images", headers=BOB)
    await make_artifact(name="x", version="1.9.0", kind="heat_templates")

    async def latest(path: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        page = await listed(api, f"{path}?version=latest&sort=type_name:asc", headers)
        return [(one["type_name"], one["version"]) for one in page["artifacts"]]

    # An administrator sees that there is a newer one in another project.
    both = [("images", "2.0.0"), ("sample_artifact", "2.0.0")]
    assert await latest("/artifacts/all", ADMIN) == both
    assert await latest("/artifacts/all", BOB) == both
    assert await latest("/artifacts/all", ALICE) == [("heat_templates", "1.9.0")]


async def test_who_lists_what(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    await make_artifact(name="alice's")
    await make_artifact(name="bob's", headers=BOB)
    public = await make_artifact(name="public", headers=BOB)
    gone = await make_artifact(name="gone")
    await publish(artifacts_database, public)
    await change(artifacts_database, gone, "status = 'deleted', deleted_at = now()")

    for path in (SAMPLES, "/artifacts/all"):
        path += "?sort=name:asc"
        assert await names(api, path, ALICE) == ["alice's", "public"]
        assert await names(api, path, BOB) == ["bob's", "public"]
        assert await names(api, path, persona("gamma", "reader")) == ["public"]
        assert await names(api, path, persona(None)) == ["public"]
        assert await names(api, path, ADMIN) == ["alice's", "bob's", "public"]
        assert await names(api, f"{path}&status=deleted", ADMIN) == []
        assert await names(api, f"{path}&owner=beta", ALICE) == ["public"]
        assert await names(api, f"{path}&visibility=private", ALICE) == ["alice's"]
    assert await names(api, "/artifacts/images", ADMIN) == []


async def test_strangers_list_what_is_public(
    custom_api: CustomApi, artifacts_database: str
) -> None:
    api = await custom_api(DEFAULT__ALLOW_ANONYMOUS_ACCESS="true")
    for name in ("private", "public"):
        created = await api.post(SAMPLES, json={"name": name}, headers=ALICE)
        if name == "public":
            await publish(artifacts_database, created.json())
    assert await names(api, SAMPLES, {}) == ["public"]


async def test_a_policy_lets_others_list_everything(custom_api: CustomApi, tmp_path: Path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text(
        '"artifact:list": "not role:nobody"\n"artifact:list_all_artifacts": "role:auditor"\n'
    )
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(rules))
    await api.post(SAMPLES, json={"name": "x"}, headers=ALICE)
    auditor = {**persona("gamma"), "X-Roles": "auditor"}
    assert await names(api, SAMPLES, auditor) == ["x"]
    assert await names(api, SAMPLES, persona("gamma")) == []
    refused = await api.get(SAMPLES, headers={**ALICE, "X-Roles": "nobody"})
    assert refused.status_code == 403


async def test_what_has_no_value_is_listed_last(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    for name, values in {
        "a": {},
        "b": {"int1": 10, "str1": "z"},
        "c": {"int1": 9, "str1": "Z"},
        "d": {},
    }.items():
        await make_artifact(name=name, **values)

    async def walked(sort: str) -> str:
        """All pages of one artifact."""
        seen = ""
        page = await listed(api, f"{SAMPLES}?limit=1&sort={sort}")
        while page["artifacts"]:
            assert page["total_count"] == 4
            seen += page["artifacts"][0]["name"]
            page = await listed(api, page["next"])
        return seen

    assert await walked("int1:asc,name:asc") == "cbad"
    assert await walked("int1:desc,name:desc") == "bcda"
    assert await walked("str1:asc,name:asc") == "cbad"
    assert await walked("activated_at:desc,name:asc") == "abcd"
    assert await walked("name:asc,int1:desc") == "abcd"
    # Newest first.
    assert await walked("int1") == "bcda"


async def test_pages_neither_miss_nor_repeat_while_others_create(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    there = {(await make_artifact(name=f"old-{number}"))["id"] for number in range(12)}
    walking = asyncio.Event()

    async def create() -> None:
        await walking.wait()
        for number in range(20):
            await make_artifact(name=f"new-{number}")

    async def walk(sort: str) -> list[str]:
        seen: list[str] = []
        page = await listed(api, f"{SAMPLES}?limit=1&sort={sort}")
        while page["artifacts"]:
            walking.set()
            seen += [one["id"] for one in page["artifacts"]]
            page = await listed(api, page["next"])
        return seen

    creating = asyncio.create_task(create())
    walks = await asyncio.gather(
        *(walk(sort) for sort in ("created_at:desc", "name:asc", "id:desc"))
    )
    await creating
    for seen in walks:
        assert len(seen) == len(set(seen))
        assert there <= set(seen)
    # What came later is before the pages of this one.
    assert walks[0][-12:] == [one for one in walks[0] if one in there]


@pytest.mark.parametrize("marker", ["x", "00000000-0000-4000-8000-000000000000", "%00"])
async def test_a_marker_that_is_not_there(api: httpx.AsyncClient, marker: str) -> None:
    answer = await api.get(f"{SAMPLES}?marker={marker}", headers=ALICE)
    assert answer.status_code == (400 if marker == "%00" else 404)


async def test_a_marker_is_any_artifact_that_the_caller_sees(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    hidden = await make_artifact(headers=BOB)
    first = await make_artifact(name="a", int1=1)
    image = await make_artifact(name="b", kind="images")
    await make_artifact(name="c", int1=1)
    await make_artifact(name="d")
    refused = await api.get(f"{SAMPLES}?marker={hidden['id']}", headers=ALICE)
    assert refused.status_code == 404
    by_name = f"{SAMPLES}?sort=name:asc&marker="
    assert (await listed(api, by_name + image["id"]))["total_count"] == 3
    page = await listed(api, by_name + image["id"])
    assert [one["name"] for one in page["artifacts"]] == ["c", "d"]
    # It has no such field, so it is where those are that have no value.
    page = await listed(api, f"{SAMPLES}?sort=int1:asc,name:asc&marker={image['id']}")
    assert [one["name"] for one in page["artifacts"]] == ["d"]
    # The walk goes on where the artifact stood.
    await change(artifacts_database, first, "status = 'deleted', deleted_at = now()")
    page = await listed(api, by_name + first["id"])
    assert [one["name"] for one in page["artifacts"]] == ["c", "d"]


async def test_limits(custom_api: CustomApi) -> None:
    api = await custom_api(DEFAULT__DEFAULT_API_LIMIT="1", DEFAULT__MAX_API_LIMIT="2")
    for number in range(3):
        await api.post(SAMPLES, json={"name": f"x{number}"}, headers=ALICE)
    for query, number in (("", 1), ("?limit=2", 2), ("?limit=9", 2), ("?limit=0", 0)):
        page = await listed(api, SAMPLES + query)
        assert len(page["artifacts"]) == number
        assert page["total_count"] == 3
        assert ("next" in page) is (number > 0)


async def test_blobs_are_listed(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    """Of one that is being replaced, the old one."""
    artifact = await make_artifact(name="x")
    async with databases.connection(artifacts_database) as server:
        for key, status in (("", "active"), ("", "saving"), ("k", "saving"), ("j", "deleted")):
            await server.execute(
                "INSERT INTO blobs (artifact_id, owner, type_name, field, key, status, size, url,"
                " store, external, lease_until) VALUES ($1, 'alpha', 'sample_artifact', $2, $3,"
                " $4, 3, 'file:///x', 'fast', false, $5 + now())",
                artifact["id"],
                "dict_of_blobs" if key else "blob",
                key,
                status,
                timedelta(hours=1) if status == "saving" else None,
            )
    (shown,) = (await listed(api, SAMPLES))["artifacts"]
    assert shown == (await api.get(f"{SAMPLES}/{artifact['id']}", headers=ALICE)).json()
    assert shown["blob"]["status"] == "active"
    assert shown["blob"]["url"] == f"{SAMPLES}/{artifact['id']}/blob"
    assert {key: one["status"] for key, one in shown["dict_of_blobs"].items()} == {"k": "saving"}


async def test_dots_and_colons_and_letters_of_others(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    await make_artifact(name="ж:ж", str1='q"t', dict_of_str={"ключ": "%", "a.b": "c"}, tags=["ё"])
    await make_artifact(name="other")
    for query in (
        {"name": "eq:ж:ж"},
        {"str1": 'in:"q\\"t"'},
        {"dict_of_str": "ключ"},
        {"dict_of_str.ключ": "%"},
        {"dict_of_str": "a.b"},
        {"tags": "ё"},
        {"name": "like:ж%"},
    ):
        answer = await api.get(SAMPLES, params=query, headers=ALICE)
        page = answer.json()
        assert [one["name"] for one in page["artifacts"]] == ["ж:ж"], query
        assert page["first"].isascii()
        again = await listed(api, page["first"])
        assert again == page
    # What is after the last dot is the key.
    assert await names(api, f"{SAMPLES}?dict_of_str.=c") == []
    assert (await api.get(f"{SAMPLES}?dict_of_str.a.b=c", headers=ALICE)).status_code == 400


# That clients are told, and that the database never sees.
@pytest.mark.parametrize(
    "query",
    [
        "name=%ff",
        "name=%00",
        "name=like:%00",
        "nothing=x",
        "int1=9223372036854775808",
        "version=99999999",
        "limit=-1",
        "limit=x",
        "sort=int1,int2",
        "str1=in:%22a",
        "tags=in:a",
    ],
)
async def test_what_cannot_be_asked_is_refused(api: httpx.AsyncClient, query: str) -> None:
    answer = await api.get(f"{SAMPLES}?{query}", headers=ALICE)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "BadRequest"


# What PostgreSQL could stumble over.
@pytest.mark.parametrize(
    "query",
    [
        "name=like:%5C",
        "str1=like:%25%5C",
        "created_at=gt:9999-12-31T23:59:59Z",
        "created_at=lt:0001-01-01T00:00:00Z",
        "int1=-9223372036854775808",
        "float1=1e308",
        "float1=in:1e-300,1",
        "int1=in:" + ",".join(map(str, range(2000))),
        "dict_of_str.%22%27%24%7B=x",
        "metadata.$[*]=x",
        "dict_of_str=in:",
        "limit=99999999999999999999999999",
        "&name=x&&",
        "tags=%F0%9F%98%80",
        "version=in:1,1.0,1.0.0-a.b.c+d",
    ],
)
async def test_odd_queries_are_answered(
    api: httpx.AsyncClient, make_artifact: Make, query: str
) -> None:
    await make_artifact(name="y", int1=5000)
    assert await names(api, f"{SAMPLES}?{query}") == (["y"] if query.startswith("limit") else [])


async def test_what_is_no_list(api: httpx.AsyncClient) -> None:
    assert (await api.get("/artifacts/nothing", headers=ALICE)).status_code == 404
    assert (await api.get("/artifacts/secrets", headers=ALICE)).status_code == 404
    with_body = await api.request("GET", SAMPLES, content=b"x", headers=ALICE)
    assert with_body.status_code == 400
    typed = await api.get(SAMPLES, headers={**ALICE, "Content-Type": "application/json"})
    assert typed.status_code == 200
