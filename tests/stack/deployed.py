"""A stack for tests: nodes of its own behind a balancer of its own, on the run's servers."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
from dev import balancers, stack
from dev.services import SERVICES, Sections, Service
from dev.stack import Node, Parts, Stack

from tests import databases, servers

OCTETS = {"Content-Type": "application/octet-stream"}
NEW_IMAGE = {"disk_format": "raw", "container_format": "bare"}
_REQUESTS = re.compile(
    r'^diptych_http_request_seconds_count\{.*route="/(?:v2|artifacts).*\} ([0-9.e+]+)$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Deployed:
    """A running stack, and the headers of a user of project demo.

    `told` names the topic and the exchange of the events of both services.
    """

    stack: Stack
    told: str
    user: Mapping[str, str]

    def url(self, service: Service) -> str:
        return self.stack.fronts[service].url


@asynccontextmanager
async def deployed(
    root: Path,
    *,
    kind: balancers.Kind = "nginx",
    images: int = 2,
    artifacts: int = 2,
    options: Mapping[Service, Sections] | None = None,
) -> AsyncGenerator[Deployed]:
    """Start a stack with its files in `root`, one process a node, and stop it.

    `options` are added to the configuration of a service: section, option, value.
    """
    run = uuid4().hex[:8]
    told = f"stack-{run}"
    keystone, s3 = servers.keystone(), servers.seaweedfs()
    urls: dict[Service, str] = {
        service: await databases.create(servers.postgres_url()) for service in SERVICES
    }
    parts = Parts(
        databases=urls,
        keystone_url=keystone.url,
        s3_url=s3.url,
        buckets={service: f"{service}-{run}" for service in SERVICES},
        rabbitmq_url=servers.rabbitmq().url(),
    )
    ours: dict[Service, Sections] = {
        service: {
            **(given := (options or {}).get(service, {})),
            "DEFAULT": {**given.get("DEFAULT", {}), "control_exchange": told},
            "oslo_messaging_notifications": {"topics": told},
        }
        for service in SERVICES
    }
    started = await asyncio.to_thread(
        stack.start,
        root,
        parts,
        kind=kind,
        images=images,
        artifacts=artifacts,
        processes=1,
        options=ours,
    )
    try:
        user = {"X-Auth-Token": await asyncio.to_thread(keystone.token, "demo", "demo")}
        yield Deployed(started, told, user)
    finally:
        await asyncio.to_thread(started.stop)
        for url in urls.values():
            await databases.drop(url)


async def served(node: Node) -> float:
    """How many requests for images or artifacts the node has answered."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{node.metrics_port}/metrics")
    assert answer.status_code == 200
    return sum(float(count) for count in _REQUESTS.findall(answer.text))
