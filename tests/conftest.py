"""What all tests may ask for. Real parts only: PostgreSQL, Keystone, clients, Debian's programs."""

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dev import environments, postgres
from dev import rabbitmq as dev_rabbitmq
from dev.barbican import Barbican
from dev.keystone import Keystone
from dev.rabbitmq import Rabbitmq
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift

from tests import databases, kills, servers
from tests import debian as debian_programs

# Suites and helpers with assertions, which others than their own tests import, too.
for module in ("conformance", "faults", "fault_suite"):
    pytest.register_assert_rewrite(f"tests.store.{module}")


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        servers.prepare()
    sys.addaudithook(_stay_on_loopback)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _is_worker(config):
        servers.leave()
    else:
        servers.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    kills.summarize(terminalreporter)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _stay_on_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections to other machines: a test that needs one would fail somewhere else."""
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if not host or host == "localhost" or host in os.environ.get("TEST_DATABASE_URL", ""):
        return
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise RuntimeError(f"a test asked for the address of {host}") from None
    # To look a literal address up asks nobody; to connect there does.
    if event == "socket.connect" and not (address.is_loopback or address.is_unspecified):
        raise RuntimeError(f"a test connected to {host}")


def missing(reason: str) -> None:
    """Skip the test for want of a part; where CI=true, fail it, since CI has to have them all."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """The run's PostgreSQL, database `postgres`: leave that one as it is."""
    return servers.postgres_url()


@pytest.fixture
async def empty_database(postgres_url: str) -> AsyncGenerator[str]:
    """A database of the test's own with nothing in it."""
    url = await databases.create(postgres_url)
    yield url
    await databases.drop(url)


@pytest.fixture
def private_postgres(tmp_path: Path) -> Generator[postgres.Server]:
    """A running server of the test's own, to kill and start again."""
    server = servers.private_postgres(f"private-{os.getpid()}-{tmp_path.name}")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.data)


@pytest.fixture(scope="session")
async def _images_schema(postgres_url: str) -> AsyncGenerator[tuple[str, list[str]]]:
    """This worker's database with the images' schema, and its tables in an order to empty them."""
    from diptych_images.db.tables import metadata

    async with _migrated(postgres_url, "images") as url:
        yield url, [table.name for table in reversed(metadata.sorted_tables)]


@pytest.fixture(scope="session")
async def _artifacts_schema(postgres_url: str) -> AsyncGenerator[tuple[str, list[str]]]:
    """As `_images_schema`, of the artifacts service."""
    from diptych_artifacts.db.tables import metadata

    async with _migrated(postgres_url, "artifacts") as url:
        yield url, [table.name for table in reversed(metadata.sorted_tables)]


@asynccontextmanager
async def _migrated(postgres_url: str, service: str) -> AsyncGenerator[str]:
    from diptych_common import migrations

    # Migrated once for all workers; a name with the run's folder in it, for servers that stay.
    template = f"{service}_{servers.folder().name}"
    migrated = servers.folder() / f"{service}-migrated"
    with environments.exclusive(servers.folder() / f"{service}-template.lock"):
        if not migrated.exists():
            url = await databases.create(postgres_url, template)
            await migrations.upgrade(url, package=f"diptych_{service}.migrations")
            migrated.touch()
        url = await databases.create(postgres_url, template=template)
    yield url
    await databases.drop(url)


@pytest.fixture
async def images_database(_images_schema: tuple[str, list[str]]) -> AsyncGenerator[str]:
    """A migrated database of the images service without rows; emptied again after the test."""
    url, tables = _images_schema
    yield url
    await databases.empty(url, tables)


@pytest.fixture
async def artifacts_database(_artifacts_schema: tuple[str, list[str]]) -> AsyncGenerator[str]:
    """A migrated database of the artifacts service without rows; emptied again after the test."""
    url, tables = _artifacts_schema
    yield url
    await databases.empty(url, tables)


@pytest.fixture(scope="session")
def keystone() -> Keystone:
    """The run's Keystone with the users of `dev.keystone_setup`; add others, change none."""
    return servers.keystone()


@pytest.fixture(scope="session")
def s3() -> Seaweedfs:
    """The run's S3 server: make a bucket of your own, keys are in `full` and `read_only`."""
    return servers.seaweedfs()


@pytest.fixture(scope="session")
def swift() -> Swift:
    """The run's Swift with the accounts of `dev.swift`, and a proxy for those of `keystone`.

    Take containers of your own and leave them empty.
    """
    return servers.swift()


@pytest.fixture(scope="session")
def rabbitmq() -> Rabbitmq:
    """The run's RabbitMQ: take topics of your own."""
    _debian(dev_rabbitmq.PACKAGE, "rabbitmqctl")
    return servers.rabbitmq()


@pytest.fixture
def private_rabbitmq() -> Generator[Rabbitmq]:
    """A RabbitMQ of the test's own, to stop and start."""
    _debian(dev_rabbitmq.PACKAGE, "rabbitmqctl")
    server = servers.private_rabbitmq(f"rabbitmq-{uuid4().hex[:8]}")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def oslo_messaging_env() -> Path:
    """The folder with a `python` that has the real oslo.messaging."""
    return environments.ready("oslo_messaging")


@pytest.fixture(scope="session")
def barbican() -> Barbican:
    """The run's Barbican, in the catalog of `keystone`, region RegionOne."""
    return servers.barbican()


@pytest.fixture(scope="session")
def clients_env() -> Path:
    """The folder with `openstack`, `glance`, and a `python` that has openstacksdk."""
    return environments.ready("clients")


@pytest.fixture(scope="session")
def glareclient_env() -> Path:
    """The folder with python-glareclient's `openstack` and `glare`, and its `python`."""
    return environments.ready("glareclient")


@pytest.fixture(scope="session")
def tools_env() -> Path:
    """The folder with `hadolint` and `check-jsonschema`."""
    return environments.ready("tools")


@pytest.fixture(scope="session")
def keystonemiddleware_env() -> Path:
    """The folder with a `python` that has the real keystonemiddleware."""
    return environments.ready("keystonemiddleware")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (`ca.pem`) and certificates of servers, key included."""
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(
        [
            # Keystone depends on the library that makes certificates; the product does not.
            str(environments.ready("keystone") / "python"),
            str(Path(__file__).parent / "common" / "make_certificates.py"),
            str(folder),
        ],
        check=True,
    )
    return folder


@pytest.fixture(scope="session")
def debian() -> Callable[[str, str], str]:
    """`debian(packages, program)`: the program's path, installed with apt if we are root."""
    return _debian


def _debian(packages: str, program: str) -> str:
    found = debian_programs.program(packages, program)
    if found is None:
        missing(f"needs {program}, from Debian's {packages}")
    return str(found)
