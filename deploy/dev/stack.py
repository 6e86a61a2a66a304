"""`make stack`: what docker-compose.yml describes, as plain processes on loopback, until Ctrl-C.

PostgreSQL, Keystone, S3, RabbitMQ, nodes and workers of both services, nginx or HAProxy in front.
Tests take `Stack` and give it the servers that they have.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dev import (
    artifactclient,
    balancers,
    environments,
    guard,
    ports,
    postgres,
    rabbitmq,
    run,
    services,
    terminal,
)
from dev.balancers import Balancer, Front, Place
from dev.keystone import Keystone
from dev.places import STATE, DevError
from dev.ports import LOOPBACK
from dev.rabbitmq import Rabbitmq
from dev.seaweedfs import FULL, Seaweedfs
from dev.services import SERVICES, Sections, Service
from dev.terminal import CLOUDS, Running

STACK = STATE / "stack"
# Seconds that transfers have when their node is stopped.
GRACEFUL_S = 60
_MOST_NODES = 16
_COMMANDS = "add SERVICE, drain NODE, restart NODE, kill NODE"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the nodes stand on; nothing of it is started or stopped by a stack.

    `databases` are the addresses by service, `buckets` names in S3, made when they are needed.
    """

    databases: Mapping[Service, str]
    keystone_url: str
    s3_url: str
    buckets: Mapping[Service, str]
    rabbitmq_url: str


@dataclass(frozen=True, slots=True)
class Node:
    """A process of one service with its workers: one that serves, or one that runs jobs.

    `process` is its guard. While `drain_file` is there, the node's `/healthcheck` is 503.
    """

    name: str
    service: Service
    command: Literal["api", "worker"]
    port: int
    metrics_port: int
    log: Path
    drain_file: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The pid of the service's first process, which gets signals."""
        return guard.child(self.process)

    @property
    def url(self) -> str:
        """The node itself, past the balancer."""
        return f"http://{LOOPBACK}:{self.port}"


@dataclass(slots=True)
class Stack:
    """Nodes of both services behind a balancer; made by `start`, ended by `stop`.

    `nodes` are named `images-1`, `images-worker-1`, `artifacts-1` and so on.
    """

    root: Path
    parts: Parts
    kind: balancers.Kind
    fronts: Mapping[Service, Front]
    processes: int
    options: Mapping[Service, Sections]
    owner: int | None
    balancer: Balancer
    nodes: dict[str, Node] = field(default_factory=dict)
    _drained: set[str] = field(default_factory=set)

    @property
    def images_url(self) -> str:
        """The images service behind the balancer."""
        return self.fronts["images"].url

    @property
    def artifacts_url(self) -> str:
        """The artifacts service behind the balancer."""
        return self.fronts["artifacts"].url

    def open(self, counts: Mapping[Service, int]) -> None:
        """Start so many nodes of each service, its worker, and the balancer; once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._migrate, SERVICES))
        begun = [
            self._begin(service, "api") for service in SERVICES for _ in range(counts[service])
        ]
        for service in SERVICES:
            self._begin(service, "worker")
        for node in begun:
            self._await(node)
        self.balancer.start(self.places(), owner=self.owner)

    def add(self, service: Service) -> Node:
        """Start one more node that serves, and return when the balancer has taken it."""
        node = self._begin(service, "api")
        self._await(node)
        self.balancer.follow(self.places())
        return node

    def drain(self, name: str) -> None:
        """Let a node finish what it has begun, and give it nothing more; until it is restarted."""
        self.nodes[name].drain_file.touch()
        self._drained.add(name)
        self.balancer.follow(self.places())

    def restart(self, name: str, *, is_announced: bool = True) -> Node:
        """Stop a node as an operator would, drained first, and start it again; or start a dead one.

        What runs on it has GRACEFUL_S. Returns when the balancer has taken it back; if the restart
        is not announced, the balancer is told nothing, and has to notice by itself.
        """
        node = self.nodes[name]
        serves = node.command == "api"
        if node.process.poll() is None:
            if serves and is_announced and name not in self._drained:
                self.drain(name)
            # Not by the guard, which is less patient.
            os.kill(node.pid, signal.SIGTERM)
            node.process.wait()
        node = self._start(node)
        if serves:
            node.drain_file.unlink(missing_ok=True)
            self._await(node)
            self._drained.discard(name)
            if is_announced:
                self.balancer.follow(self.places())
        return node

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once; the balancer is told nothing."""
        process = self.nodes[name].process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop all of it."""
        self.balancer.stop()
        for node in self.nodes.values():
            if node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes.values():
            node.process.wait()

    def places(self) -> list[Place]:
        """The nodes as the balancer should know them."""
        return [
            Place(node.name, node.service, node.port, is_drained=node.name in self._drained)
            for node in self.nodes.values()
            if node.command == "api"
        ]

    def configuration(self, name: str) -> Path:
        """Where the configuration file of a node is, or of a service."""
        return self.root / f"{name}.conf"

    def _migrate(self, service: Service) -> None:
        written = self._sections(service, port=0, metrics_port=0)
        services.upgrade(service, services.configure(self.configuration(service), written))

    def _begin(self, service: Service, command: Literal["api", "worker"]) -> Node:
        stem = f"{service}-worker" if command == "worker" else service
        count = sum(node.name.rpartition("-")[0] == stem for node in self.nodes.values())
        name = f"{stem}-{count + 1}"
        port, metrics_port = ports.several_free(2)
        drain_file = self.root / f"{name}.drain"
        drain_file.unlink(missing_ok=True)
        written = self._sections(service, port=port, metrics_port=metrics_port)
        written["healthcheck"] = {"disable_by_file_path": drain_file}
        configuration = services.configure(self.configuration(name), written)
        log = self.root / f"{name}.log"
        log.unlink(missing_ok=True)
        process = services.start(service, command, configuration, log=log, owner=self.owner)
        node = Node(name, service, command, port, metrics_port, log, drain_file, process)
        self.nodes[name] = node
        return node

    def _start(self, node: Node) -> Node:
        process = services.start(
            node.service,
            node.command,
            self.configuration(node.name),
            log=node.log,
            owner=self.owner,
        )
        self.nodes[node.name] = replace(node, process=process)
        return self.nodes[node.name]

    def _await(self, node: Node) -> None:
        services.await_answer(node.process, node.port, path="/livez", name=node.name, log=node.log)

    def _sections(self, service: Service, *, port: int, metrics_port: int) -> Sections:
        written = services.sections(
            service,
            keystone_url=self.parts.keystone_url,
            database_url=self.parts.databases[service],
            port=port,
            metrics_port=metrics_port,
        )
        added: list[Sections] = [
            {
                "DEFAULT": {
                    "workers": self.processes,
                    "graceful_timeout": GRACEFUL_S,
                    "enabled_backends": "local:file, objects:s3",
                    "transport_url": self.parts.rabbitmq_url,
                },
                "glance_store": {"default_backend": "local"},
                "local": {"filesystem_store_datadir": _store(self.root, service)},
                "objects": {
                    "s3_store_host": self.parts.s3_url,
                    "s3_store_access_key": FULL.access,
                    "s3_store_secret_key": FULL.secret,
                    "s3_store_bucket": self.parts.buckets[service],
                    "s3_store_create_bucket_on_put": "true",
                },
                "jobs": {"with_worker": "false", "poll_interval": 1},
                "oslo_middleware": {"enable_proxy_headers_parsing": "true"},
                "oslo_messaging_notifications": {"driver": "messagingv2"},
            },
            self.options.get(service, {}),
        ]
        if self.kind == "nginx":
            added.append({"DEFAULT": {"x_accel_redirect": balancers.STORED}})
        if service == "images":
            added.append({"jobs": {"secret_keys": services.secret_key(self.root / "secret-key")}})
        for sections in added:
            for section, options in sections.items():
                written[section] = {**written.get(section, {}), **options}
        return written


def start(
    root: Path,
    parts: Parts,
    *,
    images: int = 2,
    artifacts: int = 2,
    kind: balancers.Kind = "nginx",
    listening: Mapping[Service, int] | None = None,
    processes: int = 2,
    options: Mapping[Service, Sections] | None = None,
    owner: int | None = None,
) -> Stack:
    """Start so many nodes of each service and a worker of each, and a balancer in front of them.

    `root` is a folder for what they keep, `listening` the balancer's ports (free ones, if None),
    `processes` are those of each node, `options` are added to a service's configuration. All of
    it stops by itself when the process `owner` (our own, if None) is gone. DevError if something
    doesn't come up; nothing is left running then.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening = listening or dict(zip(SERVICES, ports.several_free(len(SERVICES)), strict=True))
    for service in SERVICES:
        _store(root, service).mkdir(mode=0o700, exist_ok=True)
    fronts: dict[Service, Front] = {
        service: Front(listening[service], [_store(root, service)]) for service in SERVICES
    }
    stack = Stack(
        root=root,
        parts=parts,
        kind=kind,
        fronts=fronts,
        processes=processes,
        options=options or {},
        owner=owner,
        balancer=balancers.balancer(kind, root / kind, fronts),
    )
    with ExitStack() as undoing:
        undoing.callback(stack.stop)
        stack.open({"images": images, "artifacts": artifacts})
        undoing.pop_all()
    return stack


def _store(root: Path, service: Service) -> Path:
    """The directory of the file store, which all nodes of the service share."""
    return root / service


def _run(running: ExitStack) -> None:
    """Start what `make stack` was asked for, and watch over it."""
    kind = _kind()
    counts = {service: _count(service) for service in SERVICES}
    wanted = ports.wanted(ports.STACK)
    _require_programs(kind)
    running.enter_context(terminal.only_one())
    for port in wanted.values():
        ports.require_free(port, command="make stack")
    installed = run.install()
    environments.ready("seaweedfs")

    began = time.monotonic()
    STACK.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = postgres.Server(
        installed,
        data=installed.state / "postgres-stack",
        port=wanted["postgres"].number,
        options={**run.FOR_A_DEVELOPER, "max_connections": "500"},
    )
    keystone = Keystone(
        STACK / "keystone",
        port=wanted["keystone"].number,
        endpoints={
            "image": f"http://{LOOPBACK}:{wanted['images'].number}",
            "artifact": f"http://{LOOPBACK}:{wanted['artifacts'].number}",
        },
    )
    s3 = Seaweedfs(STACK / "s3", port=wanted["s3"].number)
    # Beside PostgreSQL's data: it runs as the same user, who may not reach the rest.
    broker = Rabbitmq(installed.state / "rabbitmq-stack", port=wanted["rabbitmq"].number)
    print("Starting PostgreSQL, Keystone, SeaweedFS and RabbitMQ ...", flush=True)
    with ThreadPoolExecutor() as pool:
        for part in (database, keystone, s3, broker):
            running.callback(part.stop)
        for started in [pool.submit(part.start) for part in (database, keystone, s3, broker)]:
            started.result()

    print("Starting the services ...", flush=True)
    for service in SERVICES:
        database.ensure_database(f"diptych_{service}")
    stack = start(
        STACK,
        Parts(
            databases={service: database.url(f"diptych_{service}") for service in SERVICES},
            keystone_url=keystone.url,
            s3_url=s3.url,
            buckets={service: service for service in SERVICES},
            rabbitmq_url=broker.url(),
        ),
        images=counts["images"],
        artifacts=counts["artifacts"],
        kind=kind,
        listening={service: wanted[service].number for service in SERVICES},
    )
    running.callback(stack.stop)
    clouds = terminal.write_clouds(STACK, keystone)
    _announce(stack, keystone, clouds, took_s=time.monotonic() - began)
    watched = [
        Running("PostgreSQL", database.log, database.process),
        Running("Keystone", keystone.log, keystone.process),
        Running("SeaweedFS", s3.log, s3.process),
        Running("RabbitMQ", broker.log, broker.process),
        Running(kind, stack.balancer.log, stack.balancer.process),
    ]
    terminal.watch(watched, obey=lambda line: _obey(stack, line))


def _kind() -> balancers.Kind:
    asked = os.environ.get("PROXY") or "nginx"
    for kind in balancers.PACKAGES:
        if asked == kind:
            return kind
    raise DevError(f"PROXY={asked!r} is neither of {', '.join(balancers.PACKAGES)}")


def _count(service: Service) -> int:
    variable = service.upper()
    text = os.environ.get(variable) or "2"
    if not text.isdecimal() or not 0 < int(text) <= _MOST_NODES:
        raise DevError(f"{variable}={text!r} is not a number of nodes (1 to {_MOST_NODES})")
    return int(text)


def _require_programs(kind: balancers.Kind) -> None:
    missing = [] if balancers.program(kind) else [balancers.PACKAGES[kind]]
    if not rabbitmq.PROGRAM.exists():
        missing.append(rabbitmq.PACKAGE)
    if missing:
        raise DevError(
            f"this needs Debian's {' and '.join(missing)}, which are not installed: "
            f"apt-get install {' '.join(missing)}"
        )


def _obey(stack: Stack, line: str) -> None:
    """Do what a user types: a verb of Stack and what it is for."""
    verb, _, name = line.partition(" ")
    if verb == "add" and name in SERVICES:
        node = stack.add("images" if name == "images" else "artifacts")
        print(f"{node.name} serves at {node.url}, and behind the balancer.", flush=True)
    elif verb in ("drain", "restart", "kill") and name in stack.nodes:
        {"drain": stack.drain, "restart": stack.restart, "kill": stack.kill}[verb](name)
        print(f"{name}: {verb} is done.", flush=True)
    elif line:
        raise DevError(f"{line!r} is none of: {_COMMANDS}")


def _announce(stack: Stack, keystone: Keystone, clouds: Path, *, took_s: float) -> None:
    clients = environments.ENVIRONMENTS / "clients" / "bin"
    nodes = "\n".join(
        f"    {node.name:20} pid {node.pid:<8}"
        + (f" {node.url}, metrics on port {node.metrics_port}" if node.command == "api" else "")
        for node in stack.nodes.values()
    )
    print(
        f"""
The stack is up ({took_s:.1f} s).

  images       {stack.images_url}    ({stack.kind}, so is the next)
  artifacts    {stack.artifacts_url}
  keystone     {keystone.url}
  nodes
{nodes}
  logs, configuration files   {stack.root}

In another terminal:

  export OS_CLIENT_CONFIG_FILE={shlex.quote(str(clouds))}
  export PATH={shlex.quote(str(clients))}:$PATH
  export PYTHONPATH={shlex.quote(str(artifactclient.HOME))}
  openstack --os-cloud diptych image list
  openstack --os-cloud diptych artifact list images

Clouds: {", ".join(f"{cloud} (project {project})" for cloud, (_, project) in CLOUDS.items())}.

Here: {_COMMANDS}. Ctrl-C stops everything; the data stays.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(terminal.run("make stack", _run))
