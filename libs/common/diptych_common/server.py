"""Serving an application: one listening socket, workers that accept from it, a supervisor.

The supervisor opens the sockets, starts the workers, starts another for each that dies, and sums
their metrics. It runs nothing of the application itself.
"""

import ctypes
import errno
import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from diptych_common.connections import CloseAfterRefusal, GuardedConnection
from diptych_common.metrics import MULTIPROCESS_VARIABLE, Listener

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# Seconds. Proxies keep idle connections for 60 s by default; were the server the first to close
# one, a request could meet the closing.
_KEEP_ALIVE_S = 75

# Seconds that a worker has after `graceful_timeout` to close what it holds, before it is killed.
_CLOSING_S = 20.0

# Seconds: the first and the longest pause before a worker that died young is started again.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_YOUNG_S = 10.0


class ServerError(Exception):
    """The server cannot start, or its workers cannot; the message is for the operator."""


def serve(
    factory: Callable[[], ASGIApp],
    *,
    host: str,
    port: int,
    processes: int,
    metrics: tuple[str, int] | None = None,
    metrics_folder: str | None = None,
    graceful_timeout: float = 60,
    setup: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; to be called from the main thread.

    `factory` and `setup` (which a worker calls first: logging) are pickled, and run in each of
    `processes` workers. `metrics` is the address on which Prometheus finds the workers' sums;
    None keeps it shut. Their files are in a temporary folder within `metrics_folder` (default: in
    memory), which goes at the end.

    On SIGTERM new connections are refused at once, requests go on for at most `graceful_timeout`
    seconds and are cancelled then; a second signal ends everything. A worker that dies is
    replaced. Workers end, as on SIGTERM, when the supervisor dies in whatever way.

    Raises ServerError when an address or `metrics_folder` cannot be had, or no worker gets as
    far as serving.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(closing(_listen(host, port)))
        listener = None
        if metrics is not None:
            folder = Path(stack.enter_context(_metrics_folder(metrics_folder)))
            listener = stack.enter_context(closing(_open_listener(metrics, folder)))
        order = _Order(
            factory=factory,
            setup=setup,
            graceful_timeout=graceful_timeout,
            supervisor=os.getpid(),
        )
        signals = stack.enter_context(_Signals())
        workers = _Workers(order, listening, listener, processes)
        log.info("Listening on %s port %d, %d workers", host, listening.getsockname()[1], processes)
        if listener is not None:
            log.info("Metrics on %s port %d", listener.host, listener.port)
        try:
            workers.keep_until(signals)
        finally:
            # Connections that nobody will accept must be refused, not wait in the backlog.
            listening.close()
            workers.stop(signals)


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is told; pickled."""

    factory: Callable[[], ASGIApp]
    setup: Callable[[], None] | None
    graceful_timeout: float
    supervisor: int


def _work(order: _Order, listening: socket.socket, ready: socket.socket) -> None:
    """Be a worker; a byte through `ready` says that it serves."""
    _end_with(order.supervisor)
    if order.setup is not None:
        order.setup()
    config = uvicorn.Config(
        partial(_make, order.factory),
        factory=True,
        loop="uvloop",
        http=GuardedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Forwarded headers are believed from nobody unless a middleware says from whom.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(order.graceful_timeout),
    )
    # After Ctrl-C uvicorn raises the signal again when all is done.
    with suppress(KeyboardInterrupt):
        _Server(config, ready).run([listening])


class _Server(uvicorn.Server):
    """Says when it accepts connections."""

    def __init__(self, config: uvicorn.Config, ready: socket.socket) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.send(b"1")


def _make(factory: Callable[[], ASGIApp]) -> ASGIApp:
    try:
        return CloseAfterRefusal(factory())
    except Exception:
        log.exception("The application cannot be made")
        raise SystemExit(STARTUP_FAILURE) from None


def _end_with(supervisor: int) -> None:
    """Get SIGTERM when the supervisor dies, even of a SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "prctl")
    if os.getppid() != supervisor:
        raise SystemExit("The supervisor has gone already.")


@dataclass(slots=True)
class _Slot:
    """The place of one worker: the process in it, and when the next one may start."""

    process: SpawnProcess | None = None
    ready: socket.socket | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    pause_s: float = field(default=_FIRST_PAUSE_S)


class _Workers:
    """The worker processes of one supervisor."""

    def __init__(
        self, order: _Order, listening: socket.socket, listener: Listener | None, processes: int
    ) -> None:
        self._order = order
        self._listening = listening
        self._listener = listener
        self._slots = [_Slot() for _ in range(processes)]
        self._any_was_ready = False

    def keep_until(self, signals: "_Signals") -> None:
        """Keep every slot filled until a signal comes; ServerError if none was ever ready."""
        while signals.count == 0:
            for slot in self._slots:
                if slot.process is None and slot.due_at <= time.monotonic():
                    self._start(slot)
            self._wait(signals, self._next_due_s())
            for slot in self._slots:
                self._look_at(slot)

    def stop(self, signals: "_Signals") -> None:
        """End all workers: politely, and by force after the time they have, or a second signal."""
        seen = signals.count
        deadline = time.monotonic() + self._order.graceful_timeout + _CLOSING_S
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()
        while alive := [slot.process for slot in self._slots if slot.process is not None]:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or signals.count > seen:
                log.warning("Killing %d workers that have not ended", len(alive))
                for process in alive:
                    process.kill()
            self._wait(signals, max(remaining, 1.0))
            for slot in self._slots:
                self._bury(slot)

    def _start(self, slot: _Slot) -> None:
        context = get_context("spawn")
        slot.ready, other_end = socket.socketpair()
        slot.process = context.Process(
            target=_work, args=(self._order, self._listening, other_end), daemon=False
        )
        slot.process.start()
        other_end.close()
        slot.started_at = time.monotonic()

    def _look_at(self, slot: _Slot) -> None:
        """Note that a worker is ready, or plan the next one when it has died."""
        process = slot.process
        if process is None:
            return
        if slot.ready is not None and connection.wait([slot.ready], 0):
            self._any_was_ready |= slot.ready.recv(1) != b""
            slot.ready.close()
            slot.ready = None
        pid, code = process.pid, process.exitcode
        if code is None:
            return
        now = time.monotonic()
        if now - slot.started_at >= _YOUNG_S:
            slot.pause_s = _FIRST_PAUSE_S
        self._bury(slot)
        # Later failures are retried: one worker that the database does not let in must not take
        # down those that serve.
        if not self._any_was_ready and code > 0:
            raise ServerError("A worker could not start; the reason is in the log.")
        log.error("Worker %s ended (%s); starting another", pid, _cause(code))
        slot.due_at = now + slot.pause_s
        slot.pause_s = min(slot.pause_s * 2, _LONGEST_PAUSE_S)

    def _bury(self, slot: _Slot) -> None:
        process = slot.process
        if process is None or process.exitcode is None:
            return
        if self._listener is not None and process.pid is not None:
            self._listener.forget(process.pid)
        process.close()
        slot.process = None
        if slot.ready is not None:
            slot.ready.close()
            slot.ready = None

    def _next_due_s(self) -> float | None:
        due = [slot.due_at for slot in self._slots if slot.process is None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _wait(self, signals: "_Signals", timeout_s: float | None) -> None:
        watched: list[socket.socket | int] = [signals.wakeup]
        for slot in self._slots:
            if slot.process is not None:
                watched.append(slot.process.sentinel)
            if slot.ready is not None:
                watched.append(slot.ready)
        if signals.wakeup in connection.wait(watched, timeout_s):
            signals.wakeup.recv(4096)


class _Signals:
    """Counts SIGTERM and SIGINT, and makes `wakeup` readable with each."""

    def __init__(self) -> None:
        self.count = 0
        self.wakeup, self._writing = socket.socketpair()
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "_Signals":
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # pyright: ignore[reportArgumentType]
        signal.set_wakeup_fd(-1)
        self.wakeup.close()
        self._writing.close()

    def _note(self, *_: object) -> None:
        self.count += 1


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server(
            (host, port),
            family=family,
            backlog=2048,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise _no_address(host, port, error) from error
    # Accepted connections inherit these. A peer that vanished without a word is found in two
    # minutes, and what its request held is freed.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    return listening


def _open_listener(address: tuple[str, int], folder: Path) -> Listener:
    try:
        return Listener(*address, folder=folder)
    except OSError as error:
        raise _no_address(*address, error) from error


def _no_address(host: str, port: int, error: OSError) -> ServerError:
    if error.errno == errno.EADDRINUSE:
        return ServerError(f"Port {port} of {host} is in use by another program.")
    return ServerError(f"Cannot listen on port {port} of {host}: {error.strerror or error}.")


@contextmanager
def _metrics_folder(parent: str | None) -> Generator[str]:
    """A new folder for the workers' metrics, named in their environment."""
    if parent is not None and not os.access(parent, os.W_OK):
        raise ServerError(f"The folder for metrics, {parent}, is not there or not writable.")
    memory = "/dev/shm"  # noqa: S108 - nothing secret, and the folder is this user's own
    if parent is None and os.access(memory, os.W_OK):
        parent = memory
    previous = os.environ.get(MULTIPROCESS_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="diptych-metrics-", dir=parent) as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        try:
            yield folder
        finally:
            if previous is None:
                del os.environ[MULTIPROCESS_VARIABLE]
            else:
                os.environ[MULTIPROCESS_VARIABLE] = previous
