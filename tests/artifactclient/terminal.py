"""The commands of our `openstack artifact`, in this process, at a server of the test's own."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from diptych_artifactclient.client import Artifacts
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from tests import web

COMMANDS = {
    found.name.replace("_", " "): found for found in entry_points(group="openstack.artifact.v1")
}


def artifacts(url: str) -> Artifacts:
    """The library, for the user of a token."""
    return Artifacts(Adapter(Session(Token(url, "the-token")), endpoint_override=url))


def run(url: str, line: str, *arguments: str) -> str:
    """What the command prints: `run(url, "artifact show", "images", "x")`."""
    stdout = io.StringIO()
    app = SimpleNamespace(
        client_manager=SimpleNamespace(artifact=artifacts(url)),
        stdout=stdout,
        stdin=io.StringIO(),
        NAME="openstack",
    )
    command = COMMANDS[line].load()(app, None)
    parsed = command.get_parser(line).parse_args(arguments)
    assert command.run(parsed) == 0
    return stdout.getvalue()


def shown(url: str, line: str, *arguments: str) -> Any:
    """The same of `-f json`, decoded."""
    return json.loads(run(url, line, *arguments, "-f", "json"))


def fields(url: str, line: str, *arguments: str) -> dict[str, Any]:
    """The values of an artifact that a command shows."""
    return {row["Field"]: row["Value"] for row in shown(url, line, *arguments)}


@dataclass
class Answers:
    """Answers by method and decoded target; what is not there is a 404 in Glare's form."""

    by_request: dict[str, object] = field(default_factory=dict)
    otherwise: Callable[..., Any] | None = None

    async def __call__(self, asked: web.Asked, writer: Any) -> None:
        found = self.by_request.get(f"{asked.method} {unquote(asked.target)}")
        if callable(found):
            answer: Any = found
            await answer(asked, writer)
        elif found is None and self.otherwise is not None:
            await self.otherwise(asked, writer)
        elif found is None:
            await refusal(404, f"Nothing at {asked.target}.")(asked, writer)
        else:
            await document(found)(asked, writer)


def document(body: object, status: int = 200) -> Callable[..., Any]:
    """An answer in JSON."""
    return answer(json.dumps(body).encode(), status, {"Content-Type": "application/json"})


def answer(
    body: bytes = b"", status: int = 200, headers: Mapping[str, str | None] | None = None
) -> Callable[..., Any]:
    """As web.answer; the client is told that the connection ends."""
    more: dict[str, object] = {"Connection": "close", **(headers or {})}
    return web.answer(body, status, **more)


def refusal(status: int, message: str) -> Callable[..., Any]:
    """As the service refuses."""
    error = {"message": message, "type": "Whatever"}
    body = {"code": status, "title": "Whatever", "explanation": "It is so.", "error": error}
    return document(body, status)
