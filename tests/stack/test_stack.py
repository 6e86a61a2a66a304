"""What `make stack` starts, by HTTP through its balancer: from a token to an event."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from pathlib import Path

import httpx
import psutil
import pytest
from dev import balancers, ports
from dev.balancers import SAMPLES, Front
from dev.rabbitmq import Rabbitmq
from dev.services import SERVICES, Sections, Service
from dev.stack import Node, Stack

from tests.listening import listening
from tests.stack.deployed import NEW_IMAGE, OCTETS, Deployed, deployed, served
from tests.waiting import until
from tests.web import answer, serving

# A dozen processes start before the first test.
pytestmark = pytest.mark.timeout(400)

MIB = 1 << 20
BLOCK = bytes(range(256)) * 4096  # 1 MiB
FROM_THE_WEB = b"an image of another site " * 10_000


@pytest.fixture(scope="module", params=["nginx", pytest.param("haproxy", marks=pytest.mark.long)])
async def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    debian: Callable[[str, str], str],
    rabbitmq: Rabbitmq,
) -> AsyncGenerator[Deployed]:
    """One node of images, two of artifacts, a worker of each, and a web site to import from."""
    kind: balancers.Kind = request.param
    debian(balancers.PACKAGES[kind], kind)
    async with serving(answer(FROM_THE_WEB)) as web:
        options: Sections = {
            "outbound": {"allowed_hosts": f"127.0.0.1:{web.port}"},
            "import_filtering_opts": {"allowed_ports": ""},
        }
        root = tmp_path_factory.mktemp("stack") / kind
        async with deployed(root, kind=kind, images=1, options={"images": options}) as running:
            (root / "web").write_text(web.url)
            yield running


@pytest.fixture(scope="module")
async def images(site: Deployed) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=site.url("images"), headers=site.user, timeout=60
    ) as client:
        yield client


@pytest.fixture(scope="module")
async def artifacts(site: Deployed) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=site.url("artifacts"), headers=site.user, timeout=60
    ) as client:
        yield client


async def new_image(images: httpx.AsyncClient, **fields: object) -> str:
    created = await images.post("/v2/images", json={**NEW_IMAGE, **fields})
    assert created.status_code == 201, created.text
    return created.json()["id"]


async def status(images: httpx.AsyncClient, image: str) -> str:
    return (await images.get(f"/v2/images/{image}")).json()["status"]


def stored(stack: Stack) -> int:
    """Bytes in the directory that the nodes of images share."""
    return sum(path.stat().st_size for path in (stack.root / "images").rglob("*") if path.is_file())


async def uploaded(stack: Stack, images: httpx.AsyncClient, content: list[bytes]) -> str:
    """Upload these pieces, all but the last of which are in the store before that one leaves."""
    before = stored(stack)
    image = await new_image(images)
    # What has arrived is written in blocks of 1 MiB; some are on their way.
    known = sum(map(len, content[:-1])) - 4 * MIB

    async def pieces() -> AsyncIterator[bytes]:
        for piece in content[:-1]:
            yield piece
        await until(lambda: stored(stack) - before >= known)
        yield content[-1]

    path = f"/v2/images/{image}/file"
    put = await images.put(path, content=pieces(), headers=OCTETS)
    assert put.status_code == 204, put.text
    return image


async def answering(client: httpx.AsyncClient, path: str, nodes: Iterable[Node]) -> set[str]:
    """Ask thirty times; the names of the nodes that have answered, of these."""
    before = {node: await served(node) for node in nodes}
    answers = await asyncio.gather(*(client.get(path) for _ in range(30)))
    assert {one.status_code for one in answers} == {200}
    return {node.name for node, count in before.items() if await served(node) > count}


def serving_nodes(stack: Stack, service: Service) -> list[Node]:
    return [
        node for node in stack.nodes.values() if (node.service, node.command) == (service, "api")
    ]


@pytest.mark.parametrize("mib", [24, pytest.param(300, marks=pytest.mark.long)])
async def test_an_upload_passes_through_as_it_comes_and_returns(
    site: Deployed, images: httpx.AsyncClient, mib: int
) -> None:
    content = [BLOCK, b"x" * MIB] * (mib // 2)
    image = await uploaded(site.stack, images, content)
    whole = b"".join(content)
    shown = (await images.get(f"/v2/images/{image}")).json()
    assert (shown["status"], shown["size"]) == ("active", len(whole))
    assert shown["os_hash_value"] == hashlib.sha512(whole).hexdigest()

    path = f"/v2/images/{image}/file"
    got = await images.get(path)
    assert (got.status_code, got.content == whole) == (200, True)
    assert got.headers["content-md5"] == shown["checksum"]
    assert got.headers["content-type"] == "application/octet-stream"
    assert "x-openstack-request-id" in got.headers
    part = await images.get(path, headers={"Range": "bytes=1048570-1048600"})
    assert (part.status_code, part.content) == (206, whole[1048570:1048601])
    assert part.headers["content-range"] == f"bytes 1048570-1048600/{len(whole)}"
    tag = got.headers["etag"]
    assert (await images.get(path, headers={"If-None-Match": tag})).status_code == 304
    resumed = {"Range": "bytes=-5", "If-Range": tag}
    assert (await images.get(path, headers=resumed)).content == whole[-5:]
    assert (await images.get(path, headers=resumed | {"If-Range": '"other"'})).content == whole
    beyond = await images.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416

    # nginx, and not the node, has sent it; HAProxy sends no files.
    node = site.stack.nodes["images-1"]
    offered = {**site.user, "X-Sendfile-Type": "X-Accel-Redirect"}
    async with httpx.AsyncClient() as past_the_balancer:
        told = await past_the_balancer.get(f"{node.url}{path}", headers=offered)
    assert ("x-accel-redirect" in told.headers) is (site.stack.kind == "nginx")
    assert (told.content == b"") is (site.stack.kind == "nginx")
    # To clients that offer to send files nothing is told, whatever is in between.
    assert (await images.get(path, headers=offered)).content == whole

    # Refused before it was read: the answer arrives all the same. Of no more than 16 MiB, beyond
    # which the node closes the connection, as it does with clients that come to it directly.
    again = await images.put(path, content=BLOCK * 8, headers=OCTETS)
    assert again.status_code == 409, again.text


async def test_a_worker_imports_and_both_services_tell_rabbitmq(
    site: Deployed,
    images: httpx.AsyncClient,
    artifacts: httpx.AsyncClient,
    rabbitmq: Rabbitmq,
    oslo_messaging_env: Path,
) -> None:
    url = (site.stack.root / "web").read_text()
    web_download = {"name": "web-download", "uri": f"{url}/image.raw"}
    told: dict[str, set[str]] = {}
    for method in (web_download, {"name": "glance-direct"}):
        image = await new_image(images)
        if method is not web_download:
            staged = await images.put(
                f"/v2/images/{image}/stage", content=FROM_THE_WEB, headers=OCTETS
            )
            assert staged.status_code == 204, staged.text
        asked = await images.post(
            f"/v2/images/{image}/import", json={"method": method, "stores": ["local", "objects"]}
        )
        assert asked.status_code == 202, asked.text

        async def is_done(image: str = image) -> bool:
            now = await status(images, image)
            assert now in ("queued", "uploading", "importing", "active")
            return now == "active"

        await until(is_done, within_s=60)
        document = (await images.get(f"/v2/images/{image}")).json()
        assert set(document["stores"].split(",")) == {"local", "objects"}
        for store in ("local", "objects"):
            got = await images.get(f"/v2/images/{image}/file", params={"prefer": store})
            assert got.content == FROM_THE_WEB
        told[image] = {"image.create", "image.activate"}

    created = await artifacts.post("/artifacts/images", json={"name": "told"})
    assert created.status_code == 201, created.text
    told[created.json()["id"]] = {"artifact.artifact:create"}
    async with listening(oslo_messaging_env, rabbitmq.url(), site.told, exchange=site.told) as read:
        while any(told.values()):
            event = await read()
            told.get(event["payload"].get("id"), set()).discard(event["event_type"])


async def test_a_blob_of_an_artifact_goes_up_and_returns(artifacts: httpx.AsyncClient) -> None:
    created = await artifacts.post(
        "/artifacts/images",
        json={"name": "disk", "disk_format": "raw", "container_format": "bare"},
    )
    assert created.status_code == 201, created.text
    path = f"/artifacts/images/{created.json()['id']}/image"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield BLOCK

    put = await artifacts.put(path, content=chunks(), headers=OCTETS)
    assert put.status_code == 200, put.text
    got = await artifacts.get(path)
    assert (got.status_code, got.content == BLOCK * 8) == (200, True)
    part = await artifacts.get(path, headers={"Range": "bytes=256-259"})
    assert (part.status_code, part.content) == (206, b"\x00\x01\x02\x03")


async def test_links_lead_to_the_balancer_and_the_client_is_known(
    site: Deployed, images: httpx.AsyncClient
) -> None:
    # What a client says of itself counts for nothing.
    lies = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=192.0.2.8;host=evil.example;proto=https",
    }
    (first, *_) = (await images.get("/versions", headers=lies)).json()["versions"]
    assert first["links"][0]["href"] == f"{site.stack.images_url}/v2/"
    created = await images.post("/v2/images", json=NEW_IMAGE, headers=lies)
    assert created.headers["location"] == (
        f"{site.stack.images_url}/v2/images/{created.json()['id']}"
    )
    assert created.json()["self"] == f"/v2/images/{created.json()['id']}"
    logs = "".join(node.log.read_text() for node in site.stack.nodes.values())
    assert "192.0.2" not in logs


async def test_what_is_for_operators_is_not_for_clients(
    site: Deployed, images: httpx.AsyncClient, artifacts: httpx.AsyncClient
) -> None:
    for client in (images, artifacts):
        for path in ("/metrics", "/livez", "/readyz", "/%6civez"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/healthcheck")).status_code == 200
    for node in site.stack.nodes.values():
        if node.command == "api":
            async with httpx.AsyncClient() as past_the_balancer:
                assert (await past_the_balancer.get(f"{node.url}/readyz")).status_code == 200
    # nginx sends files for the services alone; HAProxy knows nothing of the path, nor do these.
    answer_of_kind = {"nginx": {404}, "haproxy": {300, 404}}[site.stack.kind]
    for service, client in (("images", images), ("artifacts", artifacts)):
        folder = site.stack.root / service
        file = next(path for path in folder.rglob("*") if path.is_file())
        assert (await client.get(f"/_store{file}")).status_code in answer_of_kind


async def test_a_long_token_passes(images: httpx.AsyncClient) -> None:
    refused = await images.get("/v2/images", headers={"X-Auth-Token": "x" * 16_000})
    assert refused.status_code == 401


async def test_images_grow_and_artifacts_notice_nothing(
    site: Deployed, images: httpx.AsyncClient, artifacts: httpx.AsyncClient
) -> None:
    stack = site.stack
    others = [node for node in stack.nodes.values() if node.service == "artifacts"]
    before = {node.name: processes(node.pid) for node in others}
    master = stack.balancer.process.pid
    answers: list[int] = []
    grown = asyncio.Event()

    async def ask(url: str) -> None:
        # A connection for each request: one that is idle nginx closes when it takes nodes.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(headers=site.user, limits=limits, timeout=60) as client:
            while not grown.is_set():
                answers.append((await client.get(url)).status_code)
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as asking:
        asking.create_task(ask(f"{stack.artifacts_url}/artifacts/images"))
        asking.create_task(ask(f"{stack.images_url}/v2/images"))
        added = await asyncio.to_thread(stack.add, "images")
        grown.set()
    assert added.name == "images-2"
    assert len(answers) > 2
    assert set(answers) == {200}
    assert {node.name: processes(node.pid) for node in others} == before
    assert stack.balancer.process.pid == master

    asked: dict[Service, tuple[httpx.AsyncClient, str]] = {
        "images": (images, "/v2/images"),
        "artifacts": (artifacts, "/artifacts/images"),
    }
    for service, (client, path) in asked.items():
        nodes = serving_nodes(stack, service)
        assert len(nodes) == 2
        assert await answering(client, path, nodes) == {node.name for node in nodes}


async def test_haproxy_takes_nodes_and_leaves_those_with_a_drain_file(
    site: Deployed, debian: Callable[[str, str], str]
) -> None:
    """In front of the same nodes, of which it knows one of each service at first."""
    debian(balancers.PACKAGES["haproxy"], "haproxy")
    stack = site.stack
    numbers = dict(zip(SERVICES, ports.several_free(2), strict=True))
    fronts: dict[Service, Front] = {service: Front(numbers[service]) for service in SERVICES}
    haproxy = balancers.balancer("haproxy", stack.root / "beside", fronts)
    known = [place for place in stack.places() if place.name.endswith("-1")]
    try:
        await asyncio.to_thread(haproxy.start, known)
        async with httpx.AsyncClient(
            base_url=fronts["images"].url, headers=site.user, timeout=60
        ) as images:
            image = await uploaded(stack, images, [BLOCK] * 8)
            assert (await images.get(f"/v2/images/{image}/file")).content == BLOCK * 8
            for path in ("/livez", "/%6civez"):
                assert (await images.get(path)).status_code == 404
            if "images-2" not in stack.nodes:
                await asyncio.to_thread(stack.add, "images")
            nodes, pid = serving_nodes(stack, "images"), haproxy.process.pid
            assert await answering(images, "/v2/images", nodes) == {"images-1"}
            await asyncio.to_thread(haproxy.follow, stack.places())
            assert await answering(images, "/v2/images", nodes) == {"images-1", "images-2"}
            await asyncio.to_thread(stack.drain, "images-1")
            await asyncio.to_thread(haproxy.follow, stack.places())
            assert await answering(images, "/v2/images", nodes) == {"images-2"}
            assert haproxy.process.pid == pid
    finally:
        await asyncio.to_thread(haproxy.stop)


def test_haproxy_has_nothing_to_say_of_the_samples(debian: Callable[[str, str], str]) -> None:
    program = debian(balancers.PACKAGES["haproxy"], "haproxy")
    done = subprocess.run(
        [
            program,
            "-c",
            "-V",
            *("-f", SAMPLES / "haproxy.cfg"),
            *("-f", SAMPLES / "haproxy-site.cfg"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


def processes(pid: int) -> set[tuple[int, float]]:
    """A process and those that it started: their pids, and when they began."""
    first = psutil.Process(pid)
    return {(one.pid, one.create_time()) for one in [first, *first.children(recursive=True)]}
