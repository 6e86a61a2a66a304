"""The two services as their users reach them, and what is done to both."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any

import httpx

from tests.compat.artifacts.form import JSON, OCTETS, PATCH, PERSONAS, Exchange, Step

ABSENT_ID = "00000000-0000-4000-8000-000000000000"


@dataclass
class Side:
    """One of the services; only one exchange at a time.

    `keeps` says that it keeps what is deleted: then each exchange has projects of its own, whose
    limits such artifacts do not use up.
    """

    client: httpx.AsyncClient
    keeps: bool = False
    _standing: Sequence[Step] | None = None
    _names: dict[str, str] = field(default_factory=dict[str, str])
    _round: int = 0
    _made: list[str] = field(default_factory=list[str])
    _limited: set[str] = field(default_factory=set[str])

    async def bring_about(self, exchange: Exchange) -> dict[str, str]:
        """Make what the exchange is to find, and nothing else is there; the names of it.

        What stands as it was left by one that only looked is not made anew.
        """
        if self._standing is None or self._standing != exchange.given:
            await self._forget()
            self._round += 1
            suffix = f"-{self._round}" if self.keeps else ""
            self._names = {name: f"{name}{suffix}" for name in ("demo", "other")}
            for step in exchange.given:
                (await self.send(step, self._names)).raise_for_status()
        only_looks = exchange.request.startswith("GET ")
        self._standing = exchange.given if only_looks else None
        return self._names

    async def send(self, step: Step, names: dict[str, str]) -> httpx.Response:
        """The answer; what is made is put under its name into `names`."""
        known = {**names, "absent": ABSENT_ID}
        method, _, path = Template(step.request).safe_substitute(known).partition(" ")
        headers: dict[str, str | None] = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "compat",
            **PERSONAS[step.by],
            **_content_type(method, step.body),
            **step.headers,
        }
        content = _content(step.body, known)
        answer = await self.client.send(
            httpx.Request(
                method,
                self.client.base_url.copy_with(raw_path=path.encode()),
                headers={
                    name: Template(value).safe_substitute(known)
                    for name, value in headers.items()
                    if value is not None
                },
                content=_chunked(step.chunks) if step.chunks else content,
            )
        )
        if method == "POST" and answer.status_code == 201:
            made = answer.json()["id"]
            self._made.append(f"{path.partition('?')[0]}/{made}")
            if step.makes:
                names[step.makes] = made
        if path == "/quotas" and answer.status_code == 200 and content:
            self._limited |= {one["project_id"] for one in json.loads(content)}
        return answer

    async def _forget(self) -> None:
        """Delete what was made, with the limits of projects."""
        made, self._made = self._made, []
        # The last first: in Glare nothing can be done to what links to what is gone.
        for path in reversed(made):
            answer = await self.send(Step(request=f"DELETE {path}", by="admin"), {})
            if answer.status_code != 404:
                answer.raise_for_status()
        limited, self._limited = self._limited, set()
        if limited:
            none = [{"project_id": project, "project_quotas": []} for project in sorted(limited)]
            answer = await self.send(Step(request="PUT /quotas", by="admin", body=none), {})
            answer.raise_for_status()
            self._limited.clear()


def _content_type(method: str, body: Any) -> dict[str, str]:
    if body is None:
        return {}
    if method == "PATCH":
        return {"Content-Type": PATCH}
    return {"Content-Type": OCTETS if isinstance(body, bytes) else JSON}


def _content(body: Any, names: dict[str, str]) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return Template(json.dumps(body)).safe_substitute(names).encode()


async def _chunked(chunks: Sequence[bytes]) -> AsyncGenerator[bytes]:
    for chunk in chunks:
        yield chunk
