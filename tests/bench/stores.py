"""How fast each driver moves one large object, against the plain tool on the same server.

Ours and the plain tool take turns, so that a machine whose speed drifts slows both. What is
compared is a store's driver by itself: digests and inspection, which the services add, are not in
it. A plain tool that is a command of its own is measured with its start.
"""

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev import ceph, environments, ports, swift_setup
from dev.ceph import Ceph
from dev.places import CHECKOUT, DevError
from dev.seaweedfs import Seaweedfs
from dev.swift import Ports, Swift

from tests.bench.data import BLOCK, blocks
from tests.bench.figures import Figure, figure

PART = "stores"
MIB = BLOCK


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one transfer, and the CPU seconds of the client that made it."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """One driver: how we are told of it, and the commands of the plain tool.

    `up` and `down` make a run of the plain tool; a run of `down` counts on one of `up` before.
    `clear` removes what `up` made, where another `up` would not replace it.
    """

    name: str
    tool: str
    config: str
    up: Callable[[], Measured]
    down: Callable[[], Measured]
    clear: Callable[[], Measured] | None = None


def figures(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Figure]:
    """The figures of each driver that can be had here, or of those in `only`."""
    rounds, size = (1, 256 * MIB) if quick else (3, 1024 * MIB)
    made: list[Figure] = []
    source = folder / "source"
    with source.open("wb") as file:
        file.writelines(blocks(size))
    with ExitStack() as stack:
        for name, make in CASES.items():
            if only and name not in only:
                continue
            try:
                case = make(stack, folder, source, size)
            except DevError as error:
                print(f"  {name}: left out, {error}", file=sys.stderr)
                continue
            print(f"  {case.name} …", file=sys.stderr, flush=True)
            made += measured(case, size=size, rounds=rounds)
    return made


def measured(case: Case, *, size: int, rounds: int) -> Iterator[Figure]:
    ups: list[tuple[Measured, Measured]] = []
    downs: list[tuple[Measured, Measured]] = []
    for _ in range(rounds):
        location, our_up = transfer("up", case.config, size)
        _, our_down = transfer("down", case.config, size, location)
        transfer("delete", case.config, size, location)
        ups.append((our_up, case.up()))
        downs.append((our_down, case.down()))
        if case.clear is not None:
            case.clear()
    for direction, pairs in (("upload", ups), ("download", downs)):
        ours, theirs = zip(*pairs, strict=True)
        work = f"{case.name}, {direction} ({case.tool})"
        yield figure(
            *(PART, work, "MiB/s"),
            ours=[size / MIB / one.seconds for one in ours],
            theirs=[size / MIB / one.seconds for one in theirs],
            more_is_better=True,
        )
        yield figure(
            *(PART, work, "CPU s/GiB"),
            ours=[per_gib(one, size) for one in ours],
            theirs=[per_gib(one, size) for one in theirs],
        )


def per_gib(one: Measured, size: int) -> float:
    return one.cpu_s * (1 << 30) / size


def transfer(direction: str, config: str, size: int, location: str = "") -> tuple[str, Measured]:
    command = [sys.executable, "-m", "tests.bench.transfer", direction, config, str(size), location]
    told = json.loads(output(command))
    return told["location"], Measured(told["seconds"], told["cpu_s"])


def plain(*commands: Sequence[str], tells_seconds: bool = False) -> Callable[[], Measured]:
    """A run of a tool: commands one after the other, timed from outside.

    With `tells_seconds` the last prints how long it took, its start left out.
    """

    def run() -> Measured:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        told = [output(one) for one in commands]
        seconds = float(told[-1]) if tells_seconds else time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Measured(seconds, cpu_s)

    return run


def output(command: Sequence[str]) -> str:
    """What the command prints; DevError if it fails."""
    done = subprocess.run(
        command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DevError(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def file_case(stack: ExitStack, folder: Path, source: Path, size: int) -> Case:
    """A directory; `cp`, then `sync` of that file, since an upload is durable when it ends.

    Not within the kernel (`--reflink=never`): an upload's bytes come from elsewhere.
    """
    there = folder / "there"
    there.mkdir()
    return Case(
        name="filesystem",
        tool="cp --reflink=never, sync",
        config=store("file", filesystem_store_datadir=folder / "images"),
        up=plain(
            ["cp", "--reflink=never", str(source), str(there / "x")], ["sync", str(there / "x")]
        ),
        down=plain(["cp", "--reflink=never", str(there / "x"), "/dev/null"]),
    )


def s3_case(stack: ExitStack, folder: Path, source: Path, size: int) -> Case:
    """SeaweedFS; aiobotocore by itself."""
    server = Seaweedfs(folder / "seaweedfs", port=ports.any_free())
    server.start()
    stack.callback(server.stop)
    tool = [sys.executable, "-m", "tests.bench.plain_s3"]
    about = [server.url, server.full.access, server.full.secret, "bench"]
    output([*tool, "make", *about, "", "0"])
    return Case(
        name="S3 (SeaweedFS)",
        tool="aiobotocore",
        config=store(
            "s3",
            s3_store_host=server.url,
            s3_store_access_key=server.full.access,
            s3_store_secret_key=server.full.secret,
            s3_store_bucket="bench",
            s3_store_bucket_url_format="path",
        ),
        up=plain([*tool, "up", *about, "plain", str(size)], tells_seconds=True),
        down=plain([*tool, "down", *about, "plain", str(size)], tells_seconds=True),
    )


def swift_case(stack: ExitStack, folder: Path, source: Path, size: int) -> Case:
    """Swift with tempauth; python-swiftclient's command, which checks MD5 on the way down."""
    server = Swift(folder / "swift", ports=Ports.any_free())
    server.start()
    stack.callback(server.stop)
    account, users = next(iter(swift_setup.ACCOUNTS.items()))
    name, (key, _) = next(iter(users.items()))
    user = f"{account}:{name}"
    tool = [
        str(environments.ready("glance_store") / "swift"),
        *("--auth", server.auth_url, "--user", user, "--key", key),
    ]
    segments = ["--segment-size", str(200 * MIB), "--use-slo", "--segment-container", "plain"]
    return Case(
        name="Swift",
        tool="swift upload --use-slo",
        config=store(
            "swift",
            swift_store_auth_version="1",
            swift_store_auth_address=server.auth_url,
            swift_store_user=user,
            swift_store_key=key,
            swift_store_container="bench",
            swift_store_create_container_on_put="true",
        ),
        up=plain([*tool, "upload", *segments, "--object-name", "x", "plain", str(source)]),
        down=plain([*tool, "download", "plain", "x", "--output", "/dev/null"]),
    )


def rbd_case(stack: ExitStack, folder: Path, source: Path, size: int) -> Case:
    """Ceph, everything in memory; `rbd import` and `rbd export`."""
    server = Ceph(folder / "ceph", port=Ceph.free_port())
    # For the transfers, which are processes of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), str(ceph.bindings(folder))]
    )
    server.start()
    stack.callback(server.stop)
    tool = ["rbd", "--conf", str(server.conf), "--no-progress"]
    return Case(
        name="RBD",
        tool="rbd import, rbd export",
        config=store(
            "rbd",
            rbd_store_ceph_conf=server.conf,
            rbd_store_user="glance",
            rbd_store_pool="images",
        ),
        up=plain([*tool, "import", str(source), "images/plain"]),
        down=plain(["sh", "-c", f"exec {shlex.join(tool)} export images/plain - > /dev/null"]),
        clear=plain([*tool, "remove", "images/plain"]),
    )


def store(kind: str, **options: object) -> str:
    """The INI text of a single store."""
    lines = [f"{name} = {value}" for name, value in options.items()]
    return "\n".join(["[glance_store]", f"stores = {kind}", f"default_store = {kind}", *lines])


CASES: Final[Mapping[str, Callable[[ExitStack, Path, Path, int], Case]]] = {
    "file": file_case,
    "s3": s3_case,
    "swift": swift_case,
    "rbd": rbd_case,
}
