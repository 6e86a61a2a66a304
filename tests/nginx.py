"""A real nginx in front of a service, and a service that is served from the loop of a test."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
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
  server {{
    listen 127.0.0.1:{port};
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
  }}
}}
"""

_STORE = """
    location "{prefix}{folder}/" {{ include {included}; alias "{folder}/"; }}
"""


@contextmanager
def front(nginx: str, root: Path, *, upstream: int, folders: Sequence[Path]) -> Generator[str]:
    """The URL of nginx in front of a port, which sends what is in these folders by itself."""
    port = ports.any_free()
    included = ROOT / "deploy" / "proxy" / "stored-files.conf"
    root.mkdir()
    configuration = root / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            root=root,
            port=port,
            upstream=upstream,
            user="user root;" if os.geteuid() == 0 else "",
            stores="".join(
                _STORE.format(prefix=PREFIX, folder=folder, included=included) for folder in folders
            ),
        )
    )
    log = root / "output.log"
    process = guard.guarded(
        [nginx, "-c", str(configuration), "-e", str(root / "error.log")], log=log, environment={}
    )
    try:
        guard.await_start(process, lambda: _listens(port), name="nginx", log=log, within_s=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        guard.stop(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
