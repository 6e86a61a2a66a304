"""What the parts about bytes ask of a server that is compared."""

import json
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.bench.servers import Server

_FORMATS = {"disk_format": "raw", "container_format": "bare"}


def asked(
    server: Server, method: str, path: str, body: Mapping[str, object] | None = None
) -> bytes:
    """The body of an answer, which is no error."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    try:
        headers = {**server.headers, "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=sent, headers=headers)
        answer = connection.getresponse()
        found = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise SystemExit(f"{server.name}: {method} {path}: {answer.status}: {found[:500]!r}")
    return found


def made(server: Server, name: str = "bench") -> str:
    """The id of a new image, which is queued."""
    return json.loads(asked(server, "POST", "/v2/images", {"name": name, **_FORMATS}))["id"]


def removed(server: Server, image: str) -> None:
    """Remove an image, and wait until its file has gone: that is work, too, and nobody's turn."""
    asked(server, "DELETE", f"/v2/images/{image}")
    deadline = time.monotonic() + 10
    while any(server.folder.rglob(image)) and time.monotonic() < deadline:
        time.sleep(0.05)
