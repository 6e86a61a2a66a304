"""A folder served over HTTP, with ranges and strong validators: `python -m … FOLDER`.

It ends with its standard input, so that nothing is left of a test run that was killed.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import uvicorn
from dev import guard, ports
from dev.documents import ROOT
from diptych_common.outbound import Outbound
from diptych_common.settings import Outbound as OutboundSettings
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

# As root nginx would serve with the rights of another user, who does not see pytest's folders.
_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root}/files;
  }}
}}
"""


@dataclass(frozen=True)
class Folder:
    """A folder and the port of its server on loopback."""

    place: Path
    port: int

    def put(self, key: str, data: bytes, *, port: int | None = None) -> str:
        """The URL of a new file, by another port if that leads to the server."""
        (self.place / key).write_bytes(data)
        return f"http://127.0.0.1:{port or self.port}/{quote(key, safe='')}"

    def remove(self, url: str) -> None:
        (self.place / unquote(url.rpartition("/")[2])).unlink()

    def everything(self) -> list[str]:
        return [file.name for file in self.place.iterdir()]


def loopback(**options: float) -> Outbound:
    """The way out for tests: to loopback, and without long waits."""
    return Outbound(
        OutboundSettings.model_validate(
            {"allowed_networks": ("127.0.0.0/8",), "allowed_ports": (), "min_rate": 0} | options
        )
    )


@contextmanager
def serving(place: Path) -> Generator[Folder]:
    """Serve a folder until the context is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.web_folder", str(place)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        yield Folder(place, int(process.stdout.readline()))
        process.kill()


@contextmanager
def serving_with_nginx(nginx: str, root: Path) -> Generator[Folder]:
    """Serve an empty folder in `root` with this nginx until the context is left."""
    folder = Folder(root / "files", ports.any_free())
    folder.place.mkdir()
    config = root / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(root=root, port=folder.port, user=user))
    process = guard.guarded(
        [nginx, "-c", str(config), "-e", str(root / "error.log")],
        log=root / "output.log",
        environment={},
    )
    try:
        while not _listens(folder.port):
            assert process.poll() is None, (root / "output.log").read_text()
            time.sleep(0.02)
        yield folder
    finally:
        guard.stop(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Server(uvicorn.Server):
    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        sys.stdout.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()


def main(folder: str) -> None:
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    server = _Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))

    def watch() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(sys.argv[1])
