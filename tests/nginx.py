"""A real nginx with any servers, or in front of a service that is served from a test's loop."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from dev import guard, ports
from dev.documents import ROOT
from starlette.types import ASGIApp

PREFIX = "/_store"

# As root nginx would serve with the rights of another user, who does not see pytest's folders.
_CONFIGURATION = """
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
{servers}
}}
"""
_SERVER = """
  server {{
    listen 127.0.0.1:{port};
    {does}
  }}
"""

_FRONT = """
    client_max_body_size 0;
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Sendfile-Type X-Accel-Redirect;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
    {stores}
"""

_STORE = """
    location "{prefix}{folder}/" {{ include {included}; alias "{folder}/"; }}
"""


@contextmanager
def listening(nginx: str, root: Path, servers: Mapping[str, str]) -> Generator[dict[str, str]]:
    """Run a server with each of these blocks; their URLs by the same names. `root` is there."""
    numbers = dict(zip(servers, ports.several_free(len(servers)), strict=True))
    configuration = root / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            root=root,
            servers="".join(
                _SERVER.format(port=numbers[name], does=does) for name, does in servers.items()
            ),
        )
    )
    log = root / "output.log"
    process = guard.guarded(
        [nginx, "-c", str(configuration), "-e", str(root / "error.log")], log=log, environment={}
    )
    try:
        guard.await_start(
            process,
            lambda: not any(map(ports.is_free, numbers.values())),
            name="nginx",
            log=log,
            within_s=20,
        )
        yield {name: f"http://{ports.LOOPBACK}:{number}" for name, number in numbers.items()}
    finally:
        guard.stop(process)


@contextmanager
def front(nginx: str, root: Path, *, upstream: int, folders: Sequence[Path]) -> Generator[str]:
    """The URL of nginx in front of a port, which sends what is in these folders by itself."""
    included = ROOT / "deploy" / "proxy" / "stored-files.conf"
    stores = "".join(
        _STORE.format(prefix=PREFIX, folder=folder, included=included) for folder in folders
    )
    root.mkdir()
    does = _FRONT.format(upstream=upstream, stores=stores)
    with listening(nginx, root, {"front": does}) as urls:
        yield urls["front"]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave pytest its signals."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncGenerator[int]:
    """Serve an opened application from this loop; the port."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
        server = _Server(config)
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running
