"""A real nginx with as many servers as wanted, each with a `location` of its own."""

import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dev import guard, ports

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
    location / {{
      {does}
    }}
  }}
"""


@contextmanager
def listening(nginx: str, root: Path, servers: Mapping[str, str]) -> Generator[dict[str, str]]:
    """Run a server for each of these `location`s until the context is left.

    The URLs of the servers, by the same names.
    """
    numbers = dict(zip(servers, ports.several_free(len(servers)), strict=True))
    config = root / "nginx.conf"
    config.write_text(
        _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            root=root,
            servers="".join(
                _SERVER.format(port=numbers[name], does=does) for name, does in servers.items()
            ),
        )
    )
    process = guard.guarded(
        [nginx, "-c", str(config), "-e", str(root / "error.log")],
        log=root / "output.log",
        environment={},
    )
    try:
        while not all(map(_listens, numbers.values())):
            assert process.poll() is None, (root / "output.log").read_text()
            time.sleep(0.02)
        yield {name: f"http://{ports.LOOPBACK}:{number}" for name, number in numbers.items()}
    finally:
        guard.stop(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ports.LOOPBACK, port)) == 0
