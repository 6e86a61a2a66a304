"""Nodes that are restarted, and killed, while clients go on: who notices, and what is left."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from dev import balancers
from dev.services import SERVICES, Sections, Service
from dev.stack import Stack

from tests import databases, servers
from tests.images.stores import Bucket
from tests.stack import load
from tests.stack.deployed import Deployed, deployed
from tests.waiting import until

# Work that nobody does any more, and bytes that nobody waits for.
_LEFT: dict[Service, str] = {
    "images": """
        SELECT 'image ' || status FROM images WHERE status IN ('saving', 'importing')
        UNION ALL SELECT 'location ' || status FROM image_locations
        UNION ALL SELECT 'task ' || status FROM tasks WHERE status IN ('pending', 'processing')
        UNION ALL SELECT 'job ' || kind FROM jobs
            WHERE period IS NULL AND state IN ('waiting', 'running')
    """,
    "artifacts": """
        SELECT 'blob ' || status FROM blobs
        UNION ALL SELECT 'job ' || kind FROM jobs
            WHERE period IS NULL AND state IN ('waiting', 'running')
    """,
}
_LEASE_S = 4
# Longer than nginx leaves a node alone that refused connections (fail_timeout): the node that was
# restarted before is used again when the next one refuses.
_DRAIN_S = 6
# Within which a proxy closes its connections to a node that was killed.
_NOTICED_WITHIN_S = 1.0
_OPTIONS: Sections = {
    "DEFAULT": {"x_accel_redirect": "/_store", "drain_delay": _DRAIN_S},
    "jobs": {"lease": _LEASE_S, "reaper_interval": 1},
}


def options(store: str) -> dict[Service, Sections]:
    """For both services; the store of new data is `local` (files) or `objects` (S3)."""
    return {name: {**_OPTIONS, "glance_store": {"default_backend": store}} for name in SERVICES}


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str], rabbitmq: object
) -> AsyncGenerator[Deployed]:
    debian(balancers.PACKAGES["nginx"], "nginx")
    root = tmp_path_factory.mktemp("rolling") / "nginx"
    async with deployed(root, options=options("local")) as running:
        yield running


def going_on(site: Deployed):
    return load.going_on(site.url("images"), site.url("artifacts"), site.user)


def all_was_done(report: load.Report, *, times: int = 1) -> bool:
    return all(report.done[work] >= times for work in load.WORK)


async def nothing_is_left(site: Deployed, *, store: str = "local") -> None:
    """Delete what there is, and wait until nothing of it, and of what failed, is anywhere."""
    await load.forget_all(site.url("images"), site.url("artifacts"), site.user)

    async def left() -> list[str]:
        found: list[str] = []
        for service in SERVICES:
            async with databases.connection(site.stack.parts.databases[service]) as server:
                found += [row[0] for row in await server.fetch(_LEFT[service])]
            if store == "objects":
                bucket = Bucket(servers.seaweedfs(), site.stack.parts.buckets[service])
                found += await bucket.everything()
            folder = site.stack.root / service
            found += [
                str(path) for path in folder.rglob("*") if path.is_file() and path.name != ".mark"
            ]
        return found

    async def is_nothing() -> bool:
        return not await left()

    try:
        await until(is_nothing, within_s=30)
    except AssertionError:
        pytest.fail(f"left behind: {await left()}")


async def restart_all(stack: Stack, *, is_announced: bool) -> None:
    """Every process of both services, of each service one after the other."""

    def restart(*services: Service) -> None:
        for name in [node.name for node in stack.nodes.values() if node.service in services]:
            stack.restart(name, is_announced=is_announced)
            if stack.kind == "haproxy":
                # Its checks come seconds apart: the next node must not leave before this is back.
                stack.balancer.follow(stack.places())

    if stack.kind == "haproxy":
        await asyncio.to_thread(restart, *SERVICES)
    else:
        await asyncio.gather(*(asyncio.to_thread(restart, service) for service in SERVICES))


async def test_a_rolling_restart_fails_no_request(site: Deployed) -> None:
    async with going_on(site) as report:
        await restart_all(site.stack, is_announced=False)
        await until(lambda: all_was_done(report), within_s=60)
    assert not report.failures
    await nothing_is_left(site)


async def test_a_killed_node_fails_only_its_own_requests(site: Deployed) -> None:
    killed = ["images-1", "images-worker-1", "artifacts-1"]
    async with going_on(site) as report:
        await until(lambda: all_was_done(report), within_s=60)
        await asyncio.gather(*(asyncio.to_thread(site.stack.kill, name) for name in killed))
        noticed_at = time.monotonic() + _NOTICED_WITHIN_S
        await asyncio.to_thread(site.stack.restart, "images-worker-1")
        report.done.clear()
        await until(lambda: all_was_done(report), within_s=90)
    late = [str(failure) for failure in report.failures if failure.began > noticed_at]
    assert not late
    await nothing_is_left(site)


@pytest.mark.long
@pytest.mark.parametrize("store", ["local", "objects"])
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_rounds_of_restarts_fail_no_request(
    kind: balancers.Kind,
    store: str,
    tmp_path: Path,
    debian: Callable[[str, str], str],
    rabbitmq: object,
    record_property: Callable[[str, object], None],
) -> None:
    debian(balancers.PACKAGES[kind], kind)
    async with deployed(tmp_path / kind, kind=kind, options=options(store)) as site:
        async with going_on(site) as report:
            for number in range(4):
                # Announced, nginx would be told by a reload, which closes connections of clients.
                is_announced = kind == "haproxy" and number % 2 == 0
                await restart_all(site.stack, is_announced=is_announced)
            await until(lambda: all_was_done(report, times=5), within_s=120)
        record_property("done", report.counted())
        assert not report.failures
        await nothing_is_left(site, store=store)
