"""Images built from the Dockerfiles, and run: root file system read-only, PostgreSQL and Keystone.

All of it takes minutes: `make test-long T=tests/deployment`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping

import httpx
import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone

from tests import web
from tests.deployment.conftest import BASE, Containers
from tests.deployment.programs import SERVICES, settings
from tests.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

OTHER = {"images": "artifacts", "artifacts": "images"}
DATA = b"nine byte" * 200_000
# What a service, and all that it stands on, may add to the base image.
ROOM = 250 << 20
Run = Callable[..., str]


def test_keystone_is_built(containers: Containers, built: Callable[..., str]) -> None:
    container = containers.build("from", "--pull=never", built("keystone"))
    assert containers.build("run", container, "--", "id", "-u") != "0"


@pytest.mark.parametrize("service", SERVICES)
def test_it_has_one_service_and_nothing_to_build_with(
    containers: Containers, built: Callable[..., str], service: str
) -> None:
    container = containers.build("from", "--pull=never", built(service))

    def inside(*command: str) -> str:
        return containers.build("run", container, "--", *command)

    assert inside("id", "-u") == "10001"
    assert "Serve the API" in inside(f"diptych-{service}", "--help")
    installed = inside(
        *("python", "-c"),
        "import importlib.metadata as m; print(*(d.name for d in m.distributions()))",
    ).split()
    assert f"diptych-{service}" in installed
    assert not {f"diptych-{OTHER[service]}", "pytest", "ruff", "uv", "pip"} & set(installed)
    assert (
        inside(
            *("python", "-c"),
            f"from importlib.util import find_spec; print(find_spec('diptych_{OTHER[service]}'))",
        )
        == "None"
    )
    tools = "for one in pip pip3 uv gcc cc c++ make; do command -v $one; done; true"
    assert inside("sh", "-c", tools) == ""
    assert _size(containers, built(service)) - _size(containers, BASE) < ROOM


def test_images_can_have_more(containers: Containers, built: Callable[..., str]) -> None:
    image = built("images", "--target=with-qemu", "--build-arg=EXTRAS=otel")
    container = containers.build("from", "--pull=never", image)
    assert "qemu-img version" in containers.build("run", container, "--", "qemu-img", "--version")
    containers.build("run", container, "--", "python", "-c", "import opentelemetry.sdk")
    assert containers.build("run", container, "--", "id", "-u") == "10001"


async def test_images(
    containers: Containers,
    built: Callable[..., str],
    images_database: str,
    keystone: Keystone,
) -> None:
    image = built("images")
    gate = asyncio.Event()

    async def once_half(_asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(web.head(content_length=len(DATA)) + DATA[: len(DATA) // 2])
        await writer.drain()
        await gate.wait()
        writer.write(DATA[len(DATA) // 2 :])
        await writer.drain()

    async with web.serving(once_half) as source:
        environ = _environ(
            "images",
            images_database,
            keystone,
            DEFAULT__BIND_PORT=str(ports.any_free()),
            IMPORT_FILTERING_OPTS__ALLOWED_PORTS=str(source.port),
            OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{source.port}",
            # Longer than this test may take: what a worker holds, another only gets if it is given.
            JOBS__LEASE="3600",
        )
        url = f"http://127.0.0.1:{settings('images', environ).default.bind_port}"
        run = _runner(containers, image, environ, volume="images:/var/lib/diptych/images")
        api = run("api", "--without-worker")
        headers = {"X-Auth-Token": keystone.token("demo", "demo")}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            await until(lambda: ports.answers(f"{url}/healthcheck"), within_s=60)
            containers.run("healthcheck", "run", api)
            made = await _make(client)

            # It is told to stop in the middle of an upload.
            going = asyncio.Event()
            half = asyncio.Event()
            upload = asyncio.create_task(
                client.put(
                    f"{made}/file",
                    content=_in_halves(half, going),
                    headers={"Content-Type": "application/octet-stream"},
                )
            )
            await half.wait()
            stopping = asyncio.create_task(
                asyncio.to_thread(containers.run, "stop", "--time=60", api)
            )
            await until(lambda: not _listens(url), within_s=30)
            assert not stopping.done()
            going.set()
            assert (await upload).status_code == 204
            await stopping
            assert _exit_code(containers, api) == "0"

        containers.run("start", api)
        await until(lambda: ports.answers(f"{url}/healthcheck"), within_s=60)
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            assert (await client.get(f"{made}/file")).content == DATA
            # Nothing can be written but what has to be.
            places = "/ /tmp /var/tmp /opt/diptych /run"
            tried = f"for one in {places}; do touch $one/x 2>/dev/null && echo $one; done; true"
            assert containers.run("exec", api, "sh", "-c", tried) == ""

            first = run("worker")
            imported = await _make(client)
            method = {"name": "web-download", "uri": f"{source.url}/disk"}
            begun = await client.post(f"{imported}/import", json={"method": method})
            assert begun.status_code == 202, begun.text
            await until(lambda: bool(source.asked), within_s=60)
            containers.run("stop", "--time=30", first)
            assert _exit_code(containers, first) == "0"
            gate.set()
            second = run("worker")

            async def is_active() -> bool:
                return (await client.get(imported)).json()["status"] == "active"

            await until(is_active, within_s=60)
            shown = (await client.get(imported)).json()
            assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
        for container in (api, second):
            containers.run("stop", "--time=30", container)
            assert _exit_code(containers, container) == "0"


async def test_artifacts(
    containers: Containers,
    built: Callable[..., str],
    artifacts_database: str,
    keystone: Keystone,
) -> None:
    environ = _environ(
        "artifacts", artifacts_database, keystone, DEFAULT__BIND_PORT=str(ports.any_free())
    )
    url = f"http://127.0.0.1:{settings('artifacts', environ).default.bind_port}"
    run = _runner(
        containers,
        built("artifacts"),
        environ,
        volume="artifacts:/var/lib/diptych/artifacts",
    )
    api = run("api")
    headers = {"X-Auth-Token": keystone.token("demo", "demo")}
    await until(lambda: ports.answers(f"{url}/healthcheck"), within_s=60)
    containers.run("healthcheck", "run", api)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        made = await client.post("/artifacts/images", json={"name": "demo"})
        assert made.status_code == 201, made.text
        blob = f"/artifacts/images/{made.json()['id']}/image"
        going, half = asyncio.Event(), asyncio.Event()
        upload = asyncio.create_task(
            client.put(
                blob,
                content=_in_halves(half, going),
                headers={"Content-Type": "application/octet-stream"},
            )
        )
        await half.wait()
        stopping = asyncio.create_task(asyncio.to_thread(containers.run, "stop", "--time=60", api))
        await until(lambda: not _listens(url), within_s=30)
        going.set()
        assert (await upload).status_code == 200
        await stopping
        assert _exit_code(containers, api) == "0"
    worker = run("worker")
    containers.run("start", api)
    await until(lambda: ports.answers(f"{url}/healthcheck"), within_s=60)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        assert (await client.get(blob)).content == DATA
    for container in (api, worker):
        containers.run("stop", "--time=30", container)
        assert _exit_code(containers, container) == "0"


def _environ(service: str, database: str, keystone: Keystone, **options: str) -> dict[str, str]:
    """Settings as docker-compose.yml has them, with the servers of the tests."""
    own = {
        "DATABASE__CONNECTION": database,
        "DEFAULT__BIND_HOST": "127.0.0.1",
        "DEFAULT__GRACEFUL_TIMEOUT": "60",
        "DEFAULT__ENABLED_BACKENDS": "local:file",
        "GLANCE_STORE__DEFAULT_BACKEND": "local",
        "LOCAL__FILESYSTEM_STORE_DATADIR": f"/var/lib/diptych/{service}",
        "KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "KEYSTONE_AUTHTOKEN__USERNAME": {"images": "glance", "artifacts": "glare"}[service],
        "KEYSTONE_AUTHTOKEN__PASSWORD": PASSWORD,
        "KEYSTONE_AUTHTOKEN__PROJECT_NAME": "service",
        "KEYSTONE_AUTHTOKEN__USER_DOMAIN_NAME": "Default",
        "KEYSTONE_AUTHTOKEN__PROJECT_DOMAIN_NAME": "Default",
        "METRICS__BIND_PORT": "0",
        **options,
    }
    return {f"DIPTYCH_{service.upper()}__{name}": value for name, value in own.items()}


def _runner(containers: Containers, image: str, environ: Mapping[str, str], *, volume: str) -> Run:
    """Start the image with a command, nothing of it writable but the volume; the container's id."""

    def run(*command: str) -> str:
        return containers.run(
            *("run", "--detach", "--read-only", "--read-only-tmpfs=false", "--network=host"),
            *("--ulimit", "nofile=1024:10240", "--ulimit", "nproc=1024:10240"),
            *("--cap-drop=all", "--security-opt=no-new-privileges", "--volume", volume),
            *(part for name, value in environ.items() for part in ("--env", f"{name}={value}")),
            *(image, *command),
        )

    return run


async def _make(client: httpx.AsyncClient) -> str:
    fields = {"disk_format": "raw", "container_format": "bare"}
    made = await client.post("/v2/images", json=fields)
    assert made.status_code == 201, made.text
    return made.json()["self"]


async def _in_halves(half: asyncio.Event, going: asyncio.Event) -> AsyncIterator[bytes]:
    yield DATA[: len(DATA) // 2]
    half.set()
    await going.wait()
    yield DATA[len(DATA) // 2 :]


def _listens(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez")
    except httpx.ConnectError:
        return False
    return True


def _exit_code(containers: Containers, container: str) -> str:
    return containers.run("inspect", "--format={{.State.ExitCode}}", container)


def _size(containers: Containers, image: str) -> int:
    return int(containers.run("image", "inspect", "--format={{.Size}}", image))
