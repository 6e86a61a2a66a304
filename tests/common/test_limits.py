"""Limits as a Keystone with strict_two_level has them, and what counts while it is away."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from diptych_common.errors import ServiceUnavailable
from diptych_common.keystone import Keystone
from diptych_common.limits import Limits, UnifiedLimits
from diptych_common.settings import KeystoneAuthtoken, OsloLimit
from pydantic import SecretStr

TOKEN = {"token": {"expires_at": "2099-01-01T00:00:00Z", "user": {"id": "u"}}}
ANSWERS: dict[str, Any] = {
    "/v3/limits/model": {"model": {"name": "strict_two_level"}},
    "/v3/endpoints/e": {"endpoint": {"id": "e", "service_id": "s", "region_id": "here"}},
    "/v3/registered_limits?service_id=s": {
        "registered_limits": [
            {"resource_name": "a", "default_limit": 5},
            {"resource_name": "a", "default_limit": 7, "region_id": "here"},
            {"resource_name": "b", "default_limit": 9, "region_id": "elsewhere"},
            {"resource_name": "c", "default_limit": -1},
        ]
    },
    "/v3/limits?service_id=s&project_id=p": {
        "limits": [{"resource_name": "c", "resource_limit": 3, "region_id": "here"}]
    },
    "/v3/limits?service_id=s&domain_id=d": {
        "limits": [{"resource_name": "a", "resource_limit": 20}]
    },
    "/v3/projects/p": {"project": {"id": "p", "domain_id": "d"}},
    "/v3/projects?domain_id=d": {
        "projects": [{"id": "q", "domain_id": "d"}, {"id": "p", "domain_id": "d"}]
    },
}


class Answering(BaseHTTPRequestHandler):
    """A Keystone that knows what is in ANSWERS."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, TOKEN)

    def do_GET(self) -> None:
        known = ANSWERS.get(self.path)
        self._answer(404 if known is None else 200, known)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Subject-Token", "t")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def answering() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        host = urlsplit(f"http://127.0.0.1:{server.server_port}")
        yield f"{host.geturl()}/v3"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_two_levels_and_what_is_known_while_nobody_answers() -> None:
    with answering() as url:
        settings = KeystoneAuthtoken(
            auth_url=url,
            username="u",
            password=SecretStr("p"),
            system_scope="all",
            http_request_max_retries=0,
        )
        async with Keystone(settings, service_type="image") as keystone:
            limits = UnifiedLimits(keystone, OsloLimit(endpoint_id="e"), ["a", "b", "c"])
            found = await limits.of("p")
            assert found == Limits(
                {"a": 7, "b": 0, "c": 3},
                domain_id="d",
                shared={"a": 20, "b": 0, "c": -1},
                sharing=("p", "q"),
            )
            with pytest.raises(ServiceUnavailable):
                await limits.of("nobody")
            assert await limits.of("p") is found
