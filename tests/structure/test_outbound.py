"""URLs that a user had a hand in are opened by one module; others only reach configured servers."""

import ast

import pytest
from dev.documents import ROOT

# What can open a connection.
CLIENTS = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "ftplib",
    "h11",
    "http.client",
    "httpcore",
    "httpx",
    "keystoneauth1",
    "requests",
    "smtplib",
    "telnetlib",
    "urllib.request",
    "urllib3",
}
CALLS = {
    "anyio.connect_tcp",
    "asyncio.open_connection",
    "create_connection",
    "getaddrinfo",
    "sock_connect",
    "socket.create_connection",
    "socket.getaddrinfo",
    "socket.socket",
}
# Module → why it may.
ALLOWED = {
    "libs/common/diptych_common/outbound.py": "vets where each connection goes",
    "libs/common/diptych_common/keystone.py": "the operator names Keystone",
    "libs/common/diptych_common/doctor/front.py": "the operator, or Keystone, names this service",
    "libs/common/diptych_common/doctor/identity.py": "the operator names Keystone",
    "libs/common/diptych_common/server.py": "it listens",
    "services/artifacts/diptych_artifacts/keycloak.py": "the operator names Keycloak",
    "libs/common/diptych_common/barbican.py": "the operator, or Keystone, names Barbican",
    "services/artifacts/client/": "a user's own program, on the user's machine",
    "libs/store/diptych_store/drivers/s3": "the operator names the server",
    "libs/store/diptych_store/drivers/swift": "the operator names the server",
}
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("libs", "services")
    for path in (ROOT / folder).rglob("*.py")
)


def connects(source: str) -> set[str]:
    """Which clients a module imports, and which calls of the kind it makes."""
    imported: set[str] = set()
    called: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Attribute):
            called |= {node.attr, ast.unparse(node)}
    clients = {
        one for one in CLIENTS for name in imported if name == one or name.startswith(f"{one}.")
    }
    return clients | CALLS & (called | imported)


@pytest.mark.parametrize("source", SOURCES)
def test_no_other_module_opens_connections(source: str) -> None:
    if not source.startswith(tuple(ALLOWED)):
        assert connects((ROOT / source).read_text()) == set()


def test_the_check_sees_what_it_is_for() -> None:
    seen = {
        "import httpx": {"httpx"},
        "import urllib.request": {"urllib.request"},
        "from urllib.request import urlopen": {"urllib.request"},
        "from urllib import request": {"urllib.request"},
        "from http import client": {"http.client"},
        "import aiobotocore.session": {"aiobotocore"},
        "def late():\n    from requests import get": {"requests"},
        "from asyncio import open_connection": {"asyncio.open_connection"},
        "asyncio.open_connection('h', 80)": {"asyncio.open_connection"},
        "loop.create_connection(f, 'h', 80)": {"create_connection"},
        "socket.socket()": {"socket.socket"},
        "from urllib.parse import urlsplit": set[str](),
        "self.requests.labels()": set[str](),
        "from httpxtras import x": set[str](),
    }
    assert {source: connects(source) for source in seen} == seen


def test_those_that_may_are_there_and_do() -> None:
    for source in ALLOWED:
        files = [one for one in SOURCES if one.startswith(source)]
        if files:  # a driver may be a module or a package
            assert any(connects((ROOT / one).read_text()) for one in files), source
