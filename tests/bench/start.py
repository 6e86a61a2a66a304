"""How long the images service takes from its start to its first answers."""

import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from dev import ports

from tests.bench.figures import Figure, figure
from tests.bench.servers import Rig, Server, our_images
from tests.bench.streams import head

PART: Final = "start"

_PAUSE_S: Final = 0.005
_PATIENCE_S: Final = 60


def figures(rig: Rig, *, quick: bool) -> list[Figure]:
    """All that is measured here."""
    health: list[float] = []
    answers: list[float] = []
    with our_images(rig, rig.folder / "start") as server:
        for _ in range(2 if quick else 7):
            port = ports.any_free()
            process, begun = _started(server, port)
            try:
                health.append(_first_answer(port, "/healthcheck", {}) - begun)
                answers.append(_first_answer(port, "/v2/images", server.headers) - begun)
            finally:
                process.terminate()
                process.wait(_PATIENCE_S)
    return [
        figure(PART, "first answer of /healthcheck", "s", ours=health),
        figure(PART, "first list", "s", ours=answers),
    ]


def _started(server: Server, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """Another daemon like this one on another port, and when it was started."""
    log = server.folder.parent / "another.log"
    environ = {**server.process.environ(), "DIPTYCH_IMAGES__DEFAULT__BIND_PORT": str(port)}
    command = server.process.cmdline()
    begun = time.monotonic()
    with log.open("ab") as written:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )
    return process, begun


def _first_answer(port: int, path: str, headers: Mapping[str, str]) -> float:
    """When the end of the first good answer came."""
    url = f"http://{ports.LOOPBACK}:{port}{path}"
    request = head("GET", url, {**headers, "Connection": "close"})
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            with socket.create_connection((ports.LOOPBACK, port), timeout=5) as connection:
                connection.sendall(request)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 200 "):
            return time.monotonic()
        time.sleep(_PAUSE_S)
    raise SystemExit(f"{path} was never answered with 200")
