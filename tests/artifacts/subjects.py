"""What made-up requests are about: artifacts in every state, with blobs and without."""

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from tests.artifacts.service import ADMIN, ALICE, LOCATION, OCTETS, PATCH

NEW = {
    "string_required": "x",
    "str1": "one",
    "int1": 5,
    "list_of_str": ["a", "b"],
    "dict_of_int": {"one": 1},
    "tags": ["a", "b"],
    "metadata": {"k": "v"},
}
_FIELDS = ("blob", "small_blob", "dict_of_blobs/key", "dict_of_blobs/a/b", "str1", "none")


class Subjects:
    """Makes what really exists when it is first asked for, and again after `changed`."""

    def __init__(self, api: httpx.AsyncClient, choose: random.Random) -> None:
        self._api = api
        self._choose = choose
        self._known: dict[str, str] = {}
        self._used: set[str] = set()
        self._made = 0
        self._makers: Mapping[str, Callable[[], Awaitable[str]]] = {
            "drafted": self._new,
            "with blobs": self._with_blobs,
            "with a location": self._with_location,
            "active": self._active,
            "public": self._public,
            "deactivated": self._deactivated,
        }

    def changed(self) -> None:
        """What was handed out since the last time may not be as it was: make others."""
        for name in self._used:
            self._known.pop(name, None)
        self._used.clear()

    def unchanged(self) -> None:
        """What was handed out is still good for another request."""
        self._used.clear()

    async def path_of(self, path: str, made_up: Mapping[str, Any], *, kind: str | None) -> str:
        """A path of the OpenAPI document with names of what exists, mostly.

        What is `made_up` is quoted already; `kind` is the artifact to the purpose.
        """
        for name, value in made_up.items():
            exists = self._choose.random() < 0.9
            found = quote(await self._one(name, kind), safe="/") if exists else value
            path = path.replace(f"{{{name}}}", str(found)).replace(f"{{{name}:path}}", str(found))
        return path

    async def query(self, made_up: Mapping[str, Any]) -> dict[str, Any]:
        """Mostly fewer parameters, for one wrong one is enough; and markers that exist."""
        share = self._choose.choice((0.1, 0.3, 1))
        query = {name: one for name, one in made_up.items() if self._choose.random() < share}
        if "marker" in query and self._choose.random() < 0.7:
            query["marker"] = await self.artifact()
        return query

    async def artifact(self, kind: str | None = None) -> str:
        """The id of an artifact, of any kind unless told."""
        name = kind or self._choose.choice([*self._makers])
        self._used.add(name)
        if name not in self._known:
            self._known[name] = await self._makers[name]()
        return self._known[name]

    async def _one(self, parameter: str, kind: str | None) -> str:
        match parameter:
            case "type_name":
                return self._choose.choice(("sample_artifact",) * 6 + ("images", "all"))
            case "artifact_id":
                return await self.artifact(kind)
            case "project_id":
                return self._choose.choice(("alpha", "beta"))
            case _:
                return self._choose.choice(_FIELDS)

    async def _ask(
        self, method: str, path: str, *, headers: Mapping[str, str] = ALICE, **content: Any
    ) -> httpx.Response:
        answer = await self._api.request(method, path, headers=dict(headers), **content)
        assert answer.is_success, (method, path, answer.text)
        return answer

    async def _new(self, **fields: object) -> str:
        # A name of its own each time, the same in every run.
        self._made += 1
        body = {**NEW, "name": f"subject-{self._made}-{self._choose.getrandbits(64)}", **fields}
        made = await self._ask("POST", "/artifacts/sample_artifact", json=body)
        return made.json()["id"]

    async def _change(self, artifact: str, path: str, value: object, by: Mapping[str, str]) -> None:
        change = [{"op": "replace", "path": path, "value": value}]
        where = f"/artifacts/sample_artifact/{artifact}"
        await self._ask("PATCH", where, headers={**by, **PATCH}, json=change)

    async def _with_blobs(self) -> str:
        artifact = await self._new()
        for field in ("blob", "small_blob", "dict_of_blobs/key", "dict_of_blobs/a/b"):
            where = f"/artifacts/sample_artifact/{artifact}/{field}"
            await self._ask("PUT", where, headers={**ALICE, **OCTETS}, content=b"bytes")
        return artifact

    async def _with_location(self) -> str:
        artifact = await self._new()
        for field in ("blob", "dict_of_blobs/key"):
            where = f"/artifacts/sample_artifact/{artifact}/{field}"
            headers = {**ALICE, **LOCATION}
            content = b'{"url": "https://example.com/x", "md5": null}'
            await self._ask("PUT", where, headers=headers, content=content)
        return artifact

    async def _active(self) -> str:
        artifact = await self._with_blobs()
        await self._change(artifact, "/status", "active", ALICE)
        return artifact

    async def _public(self) -> str:
        artifact = await self._active()
        await self._change(artifact, "/visibility", "public", ADMIN)
        return artifact

    async def _deactivated(self) -> str:
        artifact = await self._active()
        await self._change(artifact, "/status", "deactivated", ADMIN)
        return artifact
