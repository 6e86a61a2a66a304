"""The two services as their users reach them, and what is done to both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx

from tests.compat.form import Exchange, Step, Until
from tests.compat.states import STATES, V2_1
from tests.waiting import until

ABSENT_ID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Side:
    """One of the services; `tokens` and `names`, the values of `$owner` and such, are of both."""

    client: httpx.AsyncClient
    tokens: Mapping[str, str | None]
    names: Mapping[str, str]

    async def prepare(self, given: str, ids: Mapping[str, str]) -> None:
        """Bring the images with these ids into the state."""
        for step in STATES[given]:
            if isinstance(step, Until):
                await self.wait(step, ids)
            else:
                (await self.send(step, ids)).raise_for_status()

    async def send(self, step: Step, ids: Mapping[str, str]) -> httpx.Response:
        """The answer; `ids` are the values of `$id`, `$second` and `$third`."""
        names = {**self.names, **ids, "absent": ABSENT_ID}
        method, _, path = Template(step.request).safe_substitute(names).partition(" ")
        headers: dict[str, str | None] = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "compat",
            "X-Auth-Token": self.tokens[step.by],
            **_content_type(method, step.body),
            **step.headers,
        }
        content = _content(step.body, names)
        request = httpx.Request(
            method,
            self.client.base_url.join(path),
            headers={name: value for name, value in headers.items() if value is not None},
            content=content,
        )
        return await self.client.send(request)

    async def forget(self, ids: Mapping[str, str]) -> None:
        """Delete the images with these ids, those that there are."""
        for name in ids:
            await self.send(Step(request=f"DELETE /v2/images/${name}", by="admin"), ids)

    async def wait(self, awaited: Until, ids: Mapping[str, str]) -> None:
        """Wait for it, which has to come within some seconds."""
        shown = Step(request="GET /v2/images/$id", by="admin")

        async def holds() -> bool:
            found = (await self.send(shown, ids)).json().get(awaited.name)
            # In which order an image's stores are named differs.
            return (
                sorted(found.split(",")) if awaited.name == "stores" else found
            ) == awaited.value

        await until(holds)


def ids_of(exchange: Exchange) -> dict[str, str]:
    """The ids of its images, the same on both sides and in every run."""
    own: UUID = uuid5(NAMESPACE_URL, exchange.name)
    return {name: str(uuid5(own, name)) for name in ("id", "second", "third")}


def _content_type(method: str, body: Any) -> dict[str, str]:
    if body is None:
        return {}
    if method == "PATCH":
        return {"Content-Type": V2_1}
    if method == "PUT" and isinstance(body, bytes):
        return {"Content-Type": "application/octet-stream"}
    return {"Content-Type": "application/json"}


def _content(body: Any, names: Mapping[str, str]) -> bytes | None:
    if body is None:
        return None
    if isinstance(body, bytes):
        return body.replace(b"$id", names["id"].encode())
    return Template(json.dumps(body)).safe_substitute(names).encode()
