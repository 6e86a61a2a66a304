"""What administrators see of a node's cache, and do with it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from diptych_images.cli import main
from typer.testing import CliRunner

from tests.images.caching import BLOCK, Node, a_node, data
from tests.images.service import ADMIN, ALICE, READER, client, opened
from tests.images.test_cli import run
from tests.waiting import until

ABSENT = str(uuid4())
REQUESTS = (
    ("GET", "/v2/cache"),
    ("DELETE", "/v2/cache"),
    ("PUT", "/v2/cache/{image}"),
    ("DELETE", "/v2/cache/{image}"),
    ("GET", "/v2/cache/nodes/{image}"),
    ("POST", "/v2/cache/clean"),
    ("POST", "/v2/cache/prune"),
    ("GET", "/v2/cached_images"),
    ("DELETE", "/v2/cached_images"),
    ("DELETE", "/v2/cached_images/{image}"),
    ("GET", "/v2/queued_images"),
    ("DELETE", "/v2/queued_images"),
    ("PUT", "/v2/queued_images/{image}"),
    ("DELETE", "/v2/queued_images/{image}"),
)


@pytest.fixture
async def node(images_database: str, tmp_path: Path) -> AsyncGenerator[Node]:
    async with a_node(images_database, tmp_path) as found:
        yield found


@pytest.fixture
async def api(node: Node) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(node.environ) as app, client(app) as opened_client:
        yield opened_client


async def state(api: httpx.AsyncClient) -> tuple[list[str], list[str]]:
    """What is cached and what is queued."""
    found = (await api.get("/v2/cache", headers=ADMIN)).json()
    return [one["image_id"] for one in found["cached_images"]], found["queued_images"]


async def test_only_administrators_may(node: Node, api: httpx.AsyncClient) -> None:
    image = (await node.image(b"x")).rpartition("/")[2]
    for method, path in REQUESTS:
        path = path.format(image=image)
        for headers in (ALICE, READER):
            answer = await api.request(method, path, headers=headers)
            assert answer.status_code == 403, path
        assert (await api.request(method, path)).status_code == 401
        assert (await api.request(method, path, headers=ADMIN)).is_success, path


async def test_without_a_cache_there_is_nothing(
    custom_api: Callable[..., Awaitable[httpx.AsyncClient]],
) -> None:
    api = await custom_api()
    image = (await api.post("/v2/images", json={}, headers=ALICE)).json()["id"]
    for method, path in REQUESTS:
        answer = await api.request(method, path.format(image=image), headers=ADMIN)
        assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


async def test_an_image_is_queued_cached_and_dropped(node: Node, api: httpx.AsyncClient) -> None:
    content = data(2.5)
    path = await node.image(content)
    image = path.rpartition("/")[2]
    node.origin.allowed = BLOCK
    assert (await api.put(f"/v2/cache/{image}", headers=ADMIN)).status_code == 202
    assert await state(api) == ([], [image])
    node.origin.let_go()

    async def is_cached() -> bool:
        return await state(api) == ([image], [])

    await until(is_cached)
    assert (await api.get(f"{path}/file", headers=ALICE)).content == content
    assert node.origin.sent == len(content)
    assert (await api.delete(f"/v2/cache/{image}", headers=ADMIN)).status_code == 204
    assert await state(api) == ([], [])


async def test_nodes_are_told(node: Node, api: httpx.AsyncClient) -> None:
    path = await node.image(data(1.5))
    image = path.rpartition("/")[2]
    nodes = f"/v2/cache/nodes/{image}"
    assert (await api.get(nodes, headers=ADMIN)).json() == []
    await api.put(f"/v2/cache/{image}", headers=ADMIN)

    async def is_told() -> bool:
        return (await api.get(nodes, headers=ADMIN)).json() == ["http://node-1.example:9292"]

    await until(is_told)
    absent = await api.get(f"/v2/cache/nodes/{ABSENT}", headers=ADMIN)
    assert absent.status_code == 404


async def test_only_active_images_are_queued(node: Node, api: httpx.AsyncClient) -> None:
    created = (await api.post("/v2/images", json={}, headers=ALICE)).json()["id"]
    assert (await api.put(f"/v2/cache/{created}", headers=ADMIN)).status_code == 400
    for absent in (ABSENT, "..%2Fusage", "x"):
        assert (await api.put(f"/v2/cache/{absent}", headers=ADMIN)).status_code == 404
        assert (await api.delete(f"/v2/cache/{absent}", headers=ADMIN)).status_code == 404
    # The old request asks nobody; what cannot be cached is forgotten.
    assert (await api.put(f"/v2/queued_images/{ABSENT}", headers=ADMIN)).status_code == 200
    assert (await api.put("/v2/queued_images/..%2Fusage", headers=ADMIN)).status_code == 404
    await until(lambda: not list((node.folder / "queue").iterdir()))


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (None, (False, False)),
        ("", (False, False)),
        ("both", (False, False)),
        ("cache", (False, True)),
        ("Queue", (True, False)),
    ],
)
async def test_all_is_cleared_or_a_part_of_it(
    node: Node, api: httpx.AsyncClient, target: str | None, left: tuple[bool, bool]
) -> None:
    cached, queued = await node.image(b"one"), await node.image(b"two")
    await api.get(f"{cached}/file", headers=ALICE)

    async def is_cached() -> bool:
        return bool((await state(api))[0])

    await until(is_cached)
    node.origin.objects.pop(queued.rpartition("/")[2])
    await api.put(f"/v2/cache/{queued.rpartition('/')[2]}", headers=ADMIN)
    headers = ADMIN if target is None else {**ADMIN, "x-image-cache-clear-target": target}
    assert (await api.delete("/v2/cache", headers=headers)).status_code == 204
    found = await state(api)
    assert (bool(found[0]), bool(found[1])) == left


async def test_an_unknown_target_is_refused(api: httpx.AsyncClient) -> None:
    headers = {**ADMIN, "x-image-cache-clear-target": "all"}
    answer = await api.delete("/v2/cache", headers=headers)
    assert answer.status_code == 400
    assert "x-image-cache-clear-target" in answer.text


async def test_clean_and_prune(node: Node, api: httpx.AsyncClient) -> None:
    path = await node.image(data(2.5))
    image = path.rpartition("/")[2]
    await api.get(f"{path}/file", headers=ALICE)

    async def is_cached() -> bool:
        return await state(api) == ([image], [])

    await until(is_cached)
    part = node.folder / "images" / image / "2.part"
    part.write_bytes(b"of a process that died")
    cleaned = await api.post("/v2/cache/clean", headers=ADMIN)
    assert (cleaned.status_code, cleaned.content) == (200, b"")
    assert not part.exists()
    pruned = await api.post("/v2/cache/prune", headers=ADMIN)
    assert pruned.json() == {"total_files_pruned": 0, "total_bytes_pruned": 0}


async def test_the_old_requests(node: Node, api: httpx.AsyncClient) -> None:
    image = (await node.image(data(1.5))).rpartition("/")[2]
    assert (await api.put(f"/v2/queued_images/{image}", headers=ADMIN)).status_code == 200

    async def is_cached() -> bool:
        found = (await api.get("/v2/cached_images", headers=ADMIN)).json()
        return [one["image_id"] for one in found["cached_images"]] == [image]

    async def is_queued_no_more() -> bool:
        found = (await api.get("/v2/queued_images", headers=ADMIN)).json()
        return found == {"queued_images": []}

    await until(is_cached)
    await until(is_queued_no_more)
    dropped = await api.delete("/v2/cached_images", headers=ADMIN)
    assert dropped.json() == {"num_deleted": 1}
    assert (await api.delete("/v2/queued_images", headers=ADMIN)).json() == {"num_deleted": 0}
    for family in ("cached_images", "queued_images"):
        answer = await api.delete(f"/v2/{family}/{image}", headers=ADMIN)
        assert (answer.status_code, answer.json()) == (200, None)


async def test_the_version_is_told(api: httpx.AsyncClient) -> None:
    versions = (await api.get("/versions")).json()["versions"]
    assert (versions[0]["id"], versions[0]["status"]) == ("v2.18", "CURRENT")


async def test_a_directory_out_of_reach_is_503(node: Node, api: httpx.AsyncClient) -> None:
    (node.folder / "queue").rmdir()
    answer = await api.get("/v2/cache", headers=ADMIN)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


def told(environ: Mapping[str, str], *arguments: str) -> str:
    done = CliRunner().invoke(main, ["cache", *arguments], env=environ)
    assert done.exit_code == 0, done.output
    return done.output


async def test_the_commands(node: Node, api: httpx.AsyncClient) -> None:
    content = data(2.5)
    image = (await node.image(content)).rpartition("/")[2]
    ask = node.environ
    assert told(ask, "queue", image) == f"queued {image}\n"
    assert f"{image}  queued\n" in told(ask, "list")
    fetched = await asyncio.to_thread(run, "cache", "prefetch", environ=ask)
    assert (fetched.returncode, fetched.stdout) == (0, "Images fetched: 1.\n")
    assert node.origin.sent == len(content)
    listed = json.loads(told(ask, "list", "--json"))
    assert (listed["images"][0]["image_id"], listed["images"][0]["verified"]) == (image, True)
    assert listed["used"] == node.stored() >= len(content)
    assert f"{image}  cached" in told(ask, "list")
    assert told(ask, "clean") == "Images that something was removed of: 0.\n"
    smaller = {**ask, "DIPTYCH_IMAGES__DEFAULT__IMAGE_CACHE_MAX_SIZE": str(BLOCK)}
    assert told(smaller, "prune") == f"Images removed: 1, of {listed['used']} bytes.\n"
    assert told(ask, "delete", image) == f"not there {image}\n"
    assert told(ask, "clear") == "Images dropped: 0.\nImages not queued any more: 0.\n"
    assert CliRunner().invoke(main, ["cache", "queue", "x"], env=ask).exit_code == 2


def test_without_a_cache_the_commands_say_so() -> None:
    done = CliRunner().invoke(main, ["cache", "list"])
    assert done.exit_code == 1
    assert "image_cache_dir is not set" in done.output
