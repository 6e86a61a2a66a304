"""What made-up requests are about: images in every state, namespaces, tasks."""

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx

from tests.images.definitions import WHOLE
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, PATCH

NEW = {"disk_format": "raw", "container_format": "bare", "tags": ["a", "b"], "mine": "x"}
PRIVATE = {**WHOLE, "namespace": "Private", "visibility": "private", "display_name": "Other"}

# Of which images an operation asks to some purpose.
_FITTING = {
    "/file": ("queued",),
    "/stage": ("queued", "without formats"),
    "/import": ("queued", "queued", "staged", "shared"),
    "/locations": ("queued",),
    "/{member}": ("shared",),
    "/stores/{store}/{image_id}": ("active",),
    "/cache/{image_id}": ("active",),
    "/cache/nodes/{image_id}": ("active",),
}

_NAMES = {
    "objects": ("Shape", "Bare"),
    "properties": ("size", "hw_size"),
    "tags": ("one", "two", "none yet"),
    "resource_types": ("OS::Glance::Image", "OS::Nova::Flavor"),
    "schemas": ("image", "images", "member", "task", "metadefs/namespace"),
}


class Subjects:
    """Makes what really exists when it is first asked for, and again after `changed`.

    `url` has some bytes for those who come with the rights to read it.
    """

    def __init__(self, api: httpx.AsyncClient, url: str, choose: random.Random) -> None:
        self._api = api
        self._url = url
        self._choose = choose
        self._known: dict[str, str] = {}
        self._used: set[str] = set()
        self._makers: Mapping[str, Callable[[], Awaitable[str]]] = {
            "queued": self._queued,
            "queued for all": self._queued_for_all,
            "without formats": self._without_formats,
            "staged": self._staged,
            "importing": self._importing,
            "active": self._active,
            "shared": self._shared,
            "deactivated": self._deactivated,
            "protected": self._protected,
        }

    async def path_of(self, path: str, made_up: Mapping[str, Any], *, fitting: float) -> str:
        """A path of the OpenAPI document with names of what exists, mostly.

        What is `made_up` is quoted already; `fitting` is the share of images to the purpose.
        """
        found: dict[str, Any] = {}
        for name, value in made_up.items():
            exists = self._choose.random() < 0.9
            found[name] = quote(await self._one(name, path), safe="") if exists else value
        kinds = next((kinds for end, kinds in _FITTING.items() if path.endswith(end)), ())
        if kinds and self._choose.random() < fitting:
            found["image_id"] = await self.image(self._choose.choice(kinds))
        for name, value in found.items():
            path = path.replace(f"{{{name}}}", str(value))
        return path

    async def query(self, path: str, made_up: Mapping[str, Any]) -> dict[str, Any]:
        """Mostly fewer parameters, for one wrong one is enough; and markers that exist."""
        query = self._fewer(made_up)
        if "marker" in query and self._choose.random() < 0.7:
            subject = "name" if path.endswith(("objects", "tags")) else "namespace"
            subject = {"/v2/images": "image_id", "/v2/tasks": "task_id"}.get(path, subject)
            query["marker"] = await self._one(subject, path)
        return query

    async def headers(self, path: str, made_up: Mapping[str, Any]) -> dict[str, Any]:
        """Fewer of them too; and stores that exist."""
        headers = self._fewer(made_up)
        if "X-Image-Meta-Store" in headers and self._choose.random() < 0.7:
            headers["X-Image-Meta-Store"] = await self._one("store", path)
        return headers

    def _fewer(self, made_up: Mapping[str, Any]) -> dict[str, Any]:
        share = self._choose.choice((0.1, 0.3, 1))
        return {name: value for name, value in made_up.items() if self._choose.random() < share}

    def changed(self) -> None:
        """What was handed out since the last time may not be as it was: make others."""
        for name in self._used:
            self._known.pop(name, None)
        self._used.clear()

    def unchanged(self) -> None:
        """What was handed out is still good for another request."""
        self._used.clear()

    async def image(self, kind: str | None = None) -> str:
        """The id of an image, of any kind unless told."""
        name = kind or self._choose.choice([*self._makers])
        return await self._get(name, self._makers[name])

    async def _one(self, parameter: str, path: str) -> str:
        match parameter:
            case "image_id":
                return await self.image()
            case "task_id":
                return await self._get("task", self._task)
            case "member":
                return self._choose.choice(("alpha", "beta", "gamma"))
            case "tag":
                return self._choose.choice(("a", "b", "c"))
            case "store":
                return self._choose.choice(("fast", "cheap", "web"))
            case "namespace":
                document = self._choose.choice((WHOLE, PRIVATE))
                return await self._get(document["namespace"], lambda: self._namespace(document))
            case _:
                holder = next(segment for segment in reversed(path.split("/")) if segment in _NAMES)
                return self._choose.choice(_NAMES[holder])

    async def _get(self, name: str, make: Callable[[], Awaitable[str]]) -> str:
        self._used.add(name)
        if name not in self._known:
            self._known[name] = await make()
        return self._known[name]

    async def _ask(
        self, method: str, path: str, *, headers: Mapping[str, str] = ALICE, **content: Any
    ) -> httpx.Response:
        answer = await self._api.request(method, path, headers=dict(headers), **content)
        assert answer.is_success, (method, path, answer.text)
        return answer

    async def _new(self, headers: Mapping[str, str] = ALICE, **fields: object) -> str:
        # An id of the test's own choice, so that requests are the same in every run.
        chosen = {"id": str(UUID(int=self._choose.getrandbits(128), version=4))}
        body = {**NEW, **chosen, **fields}
        return (await self._ask("POST", "/v2/images", headers=headers, json=body)).json()["id"]

    async def _with_bytes(self, image: str, where: str = "file") -> str:
        headers = {**ALICE, **OCTETS}
        await self._ask("PUT", f"/v2/images/{image}/{where}", headers=headers, content=b"bytes")
        return image

    async def _queued(self) -> str:
        return await self._new()

    async def _queued_for_all(self) -> str:
        return await self._new(ADMIN, visibility="public", owner="alpha")

    async def _without_formats(self) -> str:
        return await self._new(disk_format=None, container_format=None, os_hidden=True)

    async def _staged(self) -> str:
        return await self._with_bytes(await self._new(), "stage")

    async def _importing(self) -> str:
        image = await self._new(owner="alpha")
        method = {"name": "web-download", "uri": self._url}
        await self._ask("POST", f"/v2/images/{image}/import", json={"method": method})
        return image

    async def _active(self) -> str:
        """In two stores, the second of which is the web."""
        image = await self._with_bytes(await self._new())
        where = {"url": self._url, "metadata": {}}
        change = [{"op": "add", "path": "/locations/-", "value": where}]
        await self._ask("PATCH", f"/v2/images/{image}", headers={**ADMIN, **PATCH}, json=change)
        return image

    async def _shared(self) -> str:
        image = await self._with_bytes(await self._new(visibility="shared"))
        members = f"/v2/images/{image}/members"
        for member in ("beta", "gamma"):
            await self._ask("POST", members, json={"member": member})
        await self._ask("PUT", f"{members}/beta", headers=BOB, json={"status": "accepted"})
        return image

    async def _deactivated(self) -> str:
        image = await self._with_bytes(await self._new(visibility="community"))
        await self._ask("POST", f"/v2/images/{image}/actions/deactivate", headers=ADMIN)
        return image

    async def _protected(self) -> str:
        return await self._with_bytes(await self._new(protected=True, os_hidden=True))

    async def _task(self) -> str:
        given = {"import_from": self._url, "import_from_format": "raw", "image_properties": {}}
        body = {"type": "import", "input": given}
        return (await self._ask("POST", "/v2/tasks", headers=ADMIN, json=body)).json()["id"]

    async def _namespace(self, document: Mapping[str, Any]) -> str:
        """As it is in `document`, whatever a request has made of the one before."""
        path = f"/v2/metadefs/namespaces/{document['namespace']}"
        there = await self._api.get(path, headers=ADMIN)
        if there.is_success:
            if there.json()["protected"]:
                body = {"namespace": document["namespace"], "protected": False}
                await self._ask("PUT", path, headers=ADMIN, json=body)
            await self._ask("DELETE", path, headers=ADMIN)
        await self._ask("POST", "/v2/metadefs/namespaces", headers=ADMIN, json=dict(document))
        return document["namespace"]
