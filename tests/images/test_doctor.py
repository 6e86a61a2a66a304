"""`diptych-images doctor`, with real servers that are well, ill, silent or gone."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone
from diptych_common.doctor import findings, front
from diptych_common.doctor.findings import Finding
from diptych_images.cli import SERVICE, main
from diptych_images.settings import load
from typer.testing import CliRunner

from tests import nginx
from tests.daemon import COMMAND, Daemon
from tests.images.service import configuration

UNBUFFERED = "proxy_request_buffering off; proxy_http_version 1.1;"
UNLIMITED = "client_max_body_size 0;"
TELLING = "proxy_set_header Host $http_host;"


def doctor(
    environ: Mapping[str, str], *options: str, code: int
) -> dict[str, list[tuple[str, str]]]:
    """Levels and words by what they are about."""
    done = subprocess.run(
        [COMMAND, "doctor", "--json", *options],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert PASSWORD not in done.stdout + done.stderr
    found: dict[str, list[tuple[str, str]]] = {}
    for one in json.loads(done.stdout):
        assert one["advice"] or one["level"] == "ok"
        found.setdefault(one["about"], []).append((one["level"], one["told"]))
    return found


def by_keystone(keystone: Keystone, **options: str) -> dict[str, str]:
    """Settings of a service that Keystone knows."""
    own = {
        "PASTE_DEPLOY__FLAVOR": "keystone",
        "KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "KEYSTONE_AUTHTOKEN__USERNAME": "glance",
        "KEYSTONE_AUTHTOKEN__PASSWORD": PASSWORD,
        "KEYSTONE_AUTHTOKEN__PROJECT_NAME": "service",
        "OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING": "true",
        **options,
    }
    return {f"DIPTYCH_IMAGES__{name}": value for name, value in own.items()}


@pytest.fixture(scope="module")
def region(keystone: Keystone) -> Generator[Callable[..., str]]:
    """`region(interface=url, …)`: a region of its own where images have these endpoints."""
    made: list[str] = []

    def make(**interfaces: str) -> str:
        name = f"doctor-{uuid4().hex[:8]}"
        services = keystone.call("GET", "/services?type=image")["services"]
        keystone.call("POST", "/regions", {"region": {"id": name}})
        made.append(f"/regions/{name}")
        for interface, url in interfaces.items():
            endpoint = {
                "interface": interface,
                "url": url,
                "region_id": name,
                "service_id": services[0]["id"],
            }
            answer = keystone.call("POST", "/endpoints", {"endpoint": endpoint})
            made.append(f"/endpoints/{answer['endpoint']['id']}")
        return name

    yield make
    for path in reversed(made):
        keystone.call("DELETE", path)


@pytest.fixture
def served(
    images_database: str, keystone: Keystone, tmp_path: Path
) -> Generator[tuple[Daemon, dict[str, str]]]:
    environ = {
        **configuration(images_database, tmp_path, DEFAULT__WORKERS="1", JOBS__WITH_WORKER="true"),
        **by_keystone(keystone),
    }
    daemon = Daemon(environ, tmp_path / "daemon.log")
    daemon.start()
    yield daemon, environ
    assert daemon.stop() == 0


async def proxied(url: str) -> list[Finding]:
    """What is found of a proxy."""
    assert SERVICE.patient is not None
    seen = SERVICE.patient.front(load(environ={}))
    diagnosis = await findings.examined({"proxy": front.examination(url, seen, None)}, seconds=30)
    return list(diagnosis.findings)


# Each of the proxies is left in silence for some seconds.
@pytest.mark.timeout(300)
async def test_the_service_and_the_proxies_before_it(
    served: tuple[Daemon, dict[str, str]],
    region: Callable[..., str],
    debian: Callable[[str, str], str],
    tmp_path: Path,
) -> None:
    daemon, environ = served
    to_it = f"proxy_pass {daemon.url};"
    servers = {
        "good": f"{to_it} {UNBUFFERED} {UNLIMITED} {TELLING}",
        "buffering": f"{to_it} {UNLIMITED} {TELLING}",
        "limiting": f"{to_it} {UNBUFFERED} {TELLING} client_max_body_size 1g;",
        "not_telling": f"{to_it} {UNBUFFERED} {UNLIMITED}",
        "elsewhere": "return 200 hello;",
        "to_nobody": f"proxy_pass http://127.0.0.1:{ports.any_free()};",
    }
    program = debian("nginx-light", "nginx")
    blocks = {name: f"location / {{ {does} }}" for name, does in servers.items()}
    with nginx.listening(program, tmp_path, blocks) as urls:
        known = {
            **environ,
            "DIPTYCH_IMAGES__KEYSTONE_AUTHTOKEN__REGION_NAME": region(
                public=urls["good"], internal=daemon.url
            ),
        }
        found = doctor(known, "--url", urls["good"], code=0)
        assert {level for one in found.values() for level, _ in one} == {"ok"}, found
        assert [*found] == [
            "settings", "policy", "database", "clock of the database", "schema", "workers",
            "events", "keystone", "clock of keystone", "credentials", "token validation", "catalog",
            "public endpoint", "internal endpoint", "store fast", "store cheap", "barbican",
            "proxy", "uploads", "size of uploads",
        ]  # fmt: skip
        told = {name: await proxied(url) for name, url in urls.items()}
    levels = {name: [(one.about, one.level) for one in some] for name, some in told.items()}
    assert levels == {
        "good": [("proxy", "ok"), ("uploads", "ok"), ("size of uploads", "ok")],
        "buffering": [("proxy", "ok"), ("uploads", "warning"), ("size of uploads", "ok")],
        "limiting": [("proxy", "ok"), ("uploads", "ok"), ("size of uploads", "failure")],
        "not_telling": [("proxy", "warning"), ("uploads", "ok"), ("size of uploads", "ok")],
        "elsewhere": [("proxy", "failure")],
        "to_nobody": [("proxy", "failure")],
    }
    assert "proxy_request_buffering off" in told["buffering"][1].advice
    assert "client_max_body_size 0" in told["limiting"][2].advice


@contextmanager
def silent() -> Generator[int]:
    """A port where connections are made, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_what_is_gone_or_silent_keeps_nothing_else_from_being_examined(
    keystone: Keystone, tmp_path: Path
) -> None:
    gone = ports.any_free()
    with silent() as mute:
        environ = {
            **configuration(
                f"postgresql://glance:{PASSWORD}@127.0.0.1:{mute}/x",
                tmp_path,
                DEFAULT__NONSENSE="1",
                DEFAULT__TRANSPORT_URL=f"rabbit://glance:{PASSWORD}@127.0.0.1:{gone}/",
                OSLO_MESSAGING_NOTIFICATIONS__DRIVER="messagingv2",
            ),
            **by_keystone(keystone, KEYSTONE_AUTHTOKEN__AUTH_URL=f"http://127.0.0.1:{mute}"),
            "DIPTYCH_IMAGES__BARBICAN__BARBICAN_ENDPOINT": f"http://127.0.0.1:{gone}",
        }
        (tmp_path / "fast").rmdir()
        (tmp_path / "fast").touch()
        found = doctor(environ, "--timeout", "2", "--url", f"http://127.0.0.1:{gone}", code=1)
    levels = {about: [level for level, _ in some] for about, some in found.items()}
    assert levels == {
        "settings": ["warning"],
        "policy": ["ok"],
        "database": ["failure"],
        "keystone": ["failure"],
        "store fast": ["failure"],
        "store cheap": ["ok"],
        "rabbitmq": ["failure"],
        "barbican": ["failure"],
        "proxy": ["failure"],
    }
    assert found["database"][0][1] == found["keystone"][0][1] == "There was no answer within 2 s."


def test_text_has_a_line_for_each_finding(tmp_path: Path) -> None:
    environ = configuration(
        f"postgresql://127.0.0.1:{ports.any_free()}/x", tmp_path, PASTE_DEPLOY__FLAVOR="none"
    )
    done = CliRunner(env=environ).invoke(main, ["doctor"])
    assert done.exit_code == 1
    *lines, last = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "ok", "ok", "failure", "warning", "ok", "ok",
    ]  # fmt: skip
    assert "Connect call failed" in lines[2]
    assert lines[2].endswith("of [database] connection right?")
    assert last == "1 failures, 1 warnings."
