"""A process that forks services which kill or stop themselves at a given step of their work.

Run as `python -m tests.images.crashing_service FD SERVICE`: FD is a socket of packets, on which
orders come (see `Order`), each with two sockets: where the service listens, and where it tells of
its steps, a line for each (first of all its process id). A forked service is the real application
with its worker; SERVICE is `images` or `artifacts`. Nothing in its code knows of this: a step is

- a statement, before and after; a commit, before and after (by SQLAlchemy's events, and methods of
  asyncpg's connections that are replaced by ones that tell);
- a call to a store, before and after, and each block that is handed to one (the classes of the open
  stores are replaced by ones that tell and then do the same);
- a system call that changes a folder, before; a subprocess, before; a connection, before (by
  Python's audit events).

What only depends on the time is not a step: renewals of leases and looks at an empty queue. The
fork is made by a process without threads or loop, so that it costs no start of an interpreter.
"""

import asyncio
import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import greenlet
import uvicorn
from diptych_common import logs
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading
from diptych_store.registry import Stores
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# Called by clocks, or not at all where a test is quick.
_TIMED = frozenset(
    {
        *("jobs.heartbeat", "jobs.next_due", "jobs.schedule", "jobs.report", "jobs.cancelled"),
        "app.database_answers",
    }
)
# What stores import when they are opened: once here, so that no fork has to.
_DRIVERS = ("filesystem", "s3", "swift")

_TIMED_CALLERS = frozenset({"_renew_until_lost", "_beat", "_stop_cancelled"})

# What carries statements of others.
_CARRIERS = frozenset({"diptych_common.database", "diptych_common.prepared"})

_AUDITED = frozenset(
    {
        *("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"),
        *("shutil.rmtree", "subprocess.Popen", "socket.connect"),
    }
)


@dataclass(frozen=True, slots=True)
class Order:
    """What a service is to be: its settings, and where in its work something happens to it.

    `at` is the step at which it gets `signal`, by its number (from 0) or its name, the first time;
    None: never. Steps count from the first request with a method out of `armed_by` on; from the
    start, if there is none.
    """

    environ: dict[str, str]
    log: str
    at: int | str | None
    signal: int = signal.SIGKILL
    armed_by: tuple[str, ...] = ("PUT", "POST", "DELETE")
    config_files: tuple[str, ...] = ()

    def packed(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode()


class Steps:
    """Counts the steps of this process, and tells their names as they come."""

    def __init__(self, order: Order, report: socket.socket) -> None:
        self.armed = not order.armed_by
        self._order = order
        self._report = report
        self._count = 0
        self._signalled = False
        self._lock = threading.Lock()

    def tell(self, line: str) -> None:
        self._report.sendall(f"{line}\n".encode())

    def reached(self, name: str) -> None:
        """Take note of a step; at the one that was ordered this does not return soon, or ever."""
        if not self.armed:
            return
        with self._lock:
            number = self._count
            self._count += 1
            self.tell(name)
        if self._order.at in (number, name) and not self._signalled:
            self._signalled = True
            os.kill(os.getpid(), self._order.signal)


def watch_statements(steps: Steps) -> None:
    """Make steps of what this process sends to PostgreSQL."""

    # By connection of asyncpg's: the step that it is at, the first of its transaction, and the
    # transaction that it has committed.
    told: WeakKeyDictionary[Any, dict[str, str | None]] = WeakKeyDictionary()

    def before(driver: Any) -> None:
        info = told.setdefault(driver, {})
        names = _callers()
        name = names[0] if names else "?"
        if name in _TIMED or any(one.partition(".")[2] in _TIMED_CALLERS for one in names):
            name = None
        info["step"] = name
        if name and name != "jobs.claim":
            info.setdefault("begun", name)
            steps.reached(f"before {name}")

    def after(driver: Any, rows: int) -> None:
        info = told[driver]
        name = info["step"]
        if name == "jobs.claim" and rows <= 0:
            info["step"] = None
        elif name:
            info.setdefault("begun", name)
            steps.reached(f"after {name}")

    def before_execution(connection: Any, *_: object) -> None:
        before(connection.connection.driver_connection)

    def after_execution(connection: Any, cursor: Any, *_: object) -> None:
        after(connection.connection.driver_connection, cursor.rowcount)

    driver: Any = asyncpg.Connection
    fetch, execute = driver.fetch, driver.execute

    async def telling_fetch(self: Any, statement: str, *values: object) -> list[Any]:
        before(self)
        rows = await fetch(self, statement, *values)
        after(self, len(rows))
        return rows

    async def telling_execute(self: Any, statement: str, *values: object) -> str:
        info = told.get(self, {})
        if statement == "COMMIT" and (name := info.get("begun")):
            info["committed"] = name
            steps.reached(f"before commit of {name}")
        return await execute(self, statement, *values)

    def checkin(connection: Any, _: object) -> None:
        info = told.get(connection.driver_connection, {}) if connection is not None else {}
        info.pop("begun", None)
        if name := info.pop("committed", None):
            steps.reached(f"after commit of {name}")

    event.listen(Engine, "before_cursor_execute", before_execution)
    event.listen(Engine, "after_cursor_execute", after_execution)
    # What `diptych_common.database` sends beneath SQLAlchemy.
    driver.fetch = telling_fetch
    driver.execute = telling_execute
    event.listen(Pool, "checkin", checkin)


def _callers() -> list[str]:
    """The functions of ours that wait for this statement, as module.function, innermost first."""
    # SQLAlchemy's are in a greenlet, whose parent waits.
    parent = greenlet.getcurrent().parent
    frame: FrameType | None = parent.gr_frame if parent else sys._getframe(1)
    names: list[str] = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("diptych_") and module not in _CARRIERS:
            names.append(f"{module.rpartition('.')[2]}.{frame.f_code.co_name}")
        frame = frame.f_back
    return names


def watch_system(steps: Steps) -> None:
    """Make steps of system calls that change folders, and of subprocesses and connections."""

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name in _AUDITED and steps.armed:
            # A connection to the database or the test is no step of the work.
            if name == "socket.connect" and not _callers_are_ours():
                return
            steps.reached(f"before {name}")

    sys.addaudithook(audit)


def _callers_are_ours() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")) == "diptych_common.outbound":
            return True
        frame = frame.f_back
    return False


def watch_stores(steps: Steps, stores: Stores) -> None:
    """Make steps of the calls to all stores, the one for staging included."""
    every = {id(store): store for store in (stores.staging, *map(stores.__getitem__, stores.names))}
    for store in every.values():
        # Not wrapped: drivers ask each other what they are.
        store.__class__ = _telling(type(store), steps)


def _telling(kind: Any, steps: Steps) -> type:
    """The class of a store, with methods that tell before and after what they do."""

    async def write(
        self: Any, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        steps.reached(f"before {self.name}.write")
        written = await kind.write(self, attempt, handed(self.name, blocks), size=size)
        steps.reached(f"after {self.name}.write")
        return written

    async def handed(name: str, blocks: AsyncIterator[Block]) -> AsyncIterator[Block]:
        number = 0
        async for block in blocks:
            steps.reached(f"before block {number} for {name}")
            yield block
            number += 1
        steps.reached(f"after the last block for {name}")

    @asynccontextmanager
    async def open(self: Any, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading]:
        steps.reached(f"before {self.name}.open")
        async with kind.open(self, location, range) as reading:
            steps.reached(f"after {self.name}.open")
            yield reading

    def telling(operation: str) -> Any:
        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            steps.reached(f"before {self.name}.{operation}")
            outcome = await getattr(kind, operation)(self, *arguments, **options)
            steps.reached(f"after {self.name}.{operation}")
            return outcome

        return call

    operations = [name for name in ("publish", "discard", "delete", "copy") if hasattr(kind, name)]
    methods = {name: telling(name) for name in operations}
    return type(kind.__name__, (kind,), {"write": write, "open": open, **methods})


def watched(app: ASGIApp, steps: Steps, armed_by: tuple[str, ...]) -> ASGIApp:
    """The application, watched from the moment when its stores are open."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                watch_stores(steps, scope["state"]["resources"].stores)
            await send(message)

        if scope["type"] == "lifespan":
            await app(scope, receive, told)
            return
        if scope["method"] in armed_by:
            steps.armed = True
        await app(scope, receive, send)

    return call


def serve(service: str, order: Order, listening: socket.socket, report: socket.socket) -> None:
    """Be a service until the end comes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    steps = Steps(order, report)
    steps.tell(str(os.getpid()))
    logs.configure(service=f"diptych-{service}")
    watch_statements(steps)
    watch_system(steps)
    application, settings = _modules(service)
    files = [Path(file) for file in order.config_files]
    app = application.create_app(settings.load(environ=order.environ, config_files=files))
    config = uvicorn.Config(
        watched(app, steps, tuple(order.armed_by)), lifespan="on", ws="none", access_log=False
    )
    asyncio.run(uvicorn.Server(config).serve([listening]))


def _modules(service: str) -> tuple[Any, Any]:
    names = ("app", "settings")
    application, settings = (importlib.import_module(f"diptych_{service}.{name}") for name in names)
    return application, settings


def main(control: socket.socket, service: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _modules(service)
    for driver in _DRIVERS:
        importlib.import_module(f"diptych_store.drivers.{driver}")
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 2)
        if not packet:
            return
        if not os.fork():
            control.close()
            try:
                listening, report = (socket.socket(fileno=one) for one in descriptors)
                serve(service, Order(**json.loads(packet)), listening, report)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
