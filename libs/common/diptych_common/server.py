"""Serving an application: one listening socket, workers that accept from it, a supervisor.

The supervisor opens the sockets, makes the application, and forks a worker for each process that
is asked for, another for each that dies, and one that sums their metrics. It runs nothing of the
application itself.

Workers are forks because what is imported and made before a fork is done once, and is in memory
once: two workers of the images service that imported it each for themselves took 283 MiB with the
supervisor, forks take 122, idle. So that a fork is safe, the supervisor has one thread and no event
loop, and the application has opened nothing by then.
"""

import asyncio
import ctypes
import errno
import gc
import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import uvicorn

from diptych_common import metrics as metrics_of
from diptych_common.application import Application
from diptych_common.connections import CloseAfterRefusal, Connections, GuardedConnection
from diptych_common.metrics import Listener

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # <linux/prctl.h>
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Seconds. Proxies keep idle connections for 60 s by default; were the server the first to close
# one, a request could meet the closing.
_KEEP_ALIVE_S = 75

# Seconds that a worker has after `graceful_timeout` to close what it holds, before it is killed.
CLOSING_S = 20.0

# Seconds that a connection which was made just before the end has for its first request, and how
# often it is looked for.
_FIRST_REQUEST_S, _LOOKS = 1.0, 100

# Objects that were made since and are still there when the youngest are looked at (Python: 700).
_COLLECTED_AT = 10_000

# Seconds: the first and the longest pause before a worker that died young is started again.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_YOUNG_S = 10.0


class ServerError(Exception):
    """The server cannot start, or its workers cannot; the message is for the operator."""


def serve(
    factory: Callable[[], Application],
    *,
    host: str,
    port: int,
    processes: int,
    metrics: tuple[str, int] | None = None,
    metrics_folder: str | None = None,
    graceful_timeout: float = 60,
    drain_delay: float = 0,
) -> None:
    """Serve until SIGTERM or SIGINT; to be called from the main thread, when it is the only one.

    `factory` is called once, and what it raises passes. Each of `processes` workers has a copy of
    what it made, a worker that replaces another too: until its lifespan begins, the application
    must have no connections, threads or event loop. `metrics` is the address on which Prometheus
    finds the workers' sums; None keeps it shut. Their files are in a temporary folder within
    `metrics_folder` (default: in memory), which goes at the end.

    On SIGTERM the application is told to `stop`, and for `drain_delay` seconds nothing else
    changes but that each answer closes its connection. Then new connections are refused, requests
    go on for at most `graceful_timeout` seconds and are cancelled; a second signal ends everything.
    A worker that dies is replaced. Workers end, as on SIGTERM, when the supervisor dies in whatever
    way. What started the process is told when the first worker serves, and when it stops.

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
            application=factory(),
            listening=listening,
            listener=listener,
            graceful_timeout=graceful_timeout,
            drain_delay=drain_delay,
            supervisor=os.getpid(),
            signals=stack.enter_context(_Signals()),
        )
        workers = _Workers(order, processes)
        log.info("Listening on %s port %d, %d workers", host, listening.getsockname()[1], processes)
        if listener is not None:
            log.info("Metrics on %s port %d", listener.host, listener.port)
        # A collector writes into each object that it looks at, and a page that is written to is no
        # longer shared: what is here by now, it lets alone in all processes.
        gc.freeze()
        try:
            workers.keep_until_signal()
        finally:
            # Connections that nobody will accept must be refused, not wait in the backlog. It
            # listens until the last worker has closed it, too.
            listening.close()
            workers.stop()
            gc.unfreeze()


@dataclass(frozen=True, slots=True)
class _Order:
    """What a forked process is told."""

    application: Application
    listening: socket.socket
    listener: Listener | None
    graceful_timeout: float
    drain_delay: float
    supervisor: int
    signals: "_Signals"


def _work(order: _Order, ready: socket.socket) -> None:
    """Be a worker; a byte through `ready` says that it serves."""
    order.signals.forget()
    _end_with(order.supervisor)
    # A supervisor that was killed is started again while its workers finish their requests: they
    # must not keep its address.
    if order.listener is not None:
        order.listener.close()
    config = uvicorn.Config(
        CloseAfterRefusal(order.application),
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
        _Server(config, ready, order).run([order.listening])


def _tell_metrics(order: _Order, listener: Listener) -> None:
    """Be the process that answers Prometheus, and be called so by ps and top."""
    _prctl(_PR_SET_NAME, b"diptych-metrics")
    order.signals.forget()
    # Ctrl-C is for the workers; it tells of them until the supervisor ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(order.supervisor)
    order.listening.close()
    listener.serve()


class _Server(uvicorn.Server):
    """Says when it accepts connections, and loses none when it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: socket.socket,
        order: _Order,
    ) -> None:
        super().__init__(config)
        self._connections = self.server_state = Connections()
        self._ready = ready
        self._order = order

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays. Else each full collection looks at all of it, and the rows of one
        # list of 1000 bring about several: most of what the list took.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECTED_AT, *gc.get_threshold()[1:])
        self._ready.send(b"1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._order.application.stop()
        self._connections.drain()
        # Nobody stops a service whose supervisor was killed: the next one needs the address.
        if os.getppid() == self._order.supervisor:
            await self._tick_for(self._order.drain_delay)
        await self._close_listeners(sockets or [])
        for _ in range(_LOOKS):
            if not self._connections.has_strangers:
                break
            await asyncio.sleep(_FIRST_REQUEST_S / _LOOKS)
        await super().shutdown(sockets)

    async def _tick_for(self, seconds: float) -> None:
        """Go on as before, but for a second Ctrl-C."""
        deadline = time.monotonic() + seconds
        while not self.force_exit and (remaining := deadline - time.monotonic()) > 0:
            await self.on_tick(0)  # answers have the time in `Date`
            await asyncio.sleep(min(remaining, 0.5))

    async def _close_listeners(self, sockets: list[socket.socket]) -> None:
        """Refuse new connections, but keep those that wait to be accepted: they would be reset."""
        waiting = [one.dup() for one in sockets]
        for server in self.servers:
            server.close()
        accepted: list[socket.socket] = []
        for one in waiting:
            one.setblocking(False)
            # An error, such as of a connection that was made and broken, ends the looking too.
            with closing(one), suppress(OSError):
                while True:
                    accepted.append(one.accept()[0])
        loop = asyncio.get_running_loop()
        for one in accepted:
            one.setblocking(False)
            with suppress(OSError):  # it has gone again
                await loop.connect_accepted_socket(self._connection, one)

    def _connection(self) -> GuardedConnection:
        return GuardedConnection(self.config, self.server_state, self.lifespan.state)


def _end_with(supervisor: int) -> None:
    """Get SIGTERM when the supervisor dies, even of a SIGKILL."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != supervisor:
        raise SystemExit("The supervisor has gone already.")


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "prctl")


@dataclass(slots=True)
class _Slot:
    """The place of one process: the one in it, and when the next one may start.

    `listener` is what the process tells of metrics; None for a worker.
    """

    listener: Listener | None = None
    process: ForkProcess | None = None
    ready: socket.socket | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    pause_s: float = field(default=_FIRST_PAUSE_S)


class _Workers:
    """The worker processes of one supervisor, and the one that sums their metrics."""

    def __init__(self, order: _Order, processes: int) -> None:
        self._order = order
        self._signals = order.signals
        self._workers = [_Slot() for _ in range(processes)]
        # The workers', and that of metrics: it tells of them until the last has ended.
        self._slots = [*self._workers]
        if order.listener is not None:
            self._slots.append(_Slot(order.listener))
        self._any_was_ready = False

    def keep_until_signal(self) -> None:
        """Keep every slot filled until a signal comes; ServerError if no worker was ever ready."""
        while self._signals.count == 0:
            for slot in self._slots:
                if slot.process is None and slot.due_at <= time.monotonic():
                    self._start(slot)
            self._wait(self._next_due_s())
            for slot in self._slots:
                self._look_at(slot)

    def stop(self) -> None:
        """End all workers: politely, and by force after the time they have, or a second signal."""
        _tell_starter("STOPPING=1")
        has_s = self._order.drain_delay + self._order.graceful_timeout + CLOSING_S
        deadline = time.monotonic() + has_s
        self._end(self._workers, deadline)
        self._end(self._slots, deadline)

    def _end(self, slots: Sequence[_Slot], deadline: float) -> None:
        seen = self._signals.count
        for slot in slots:
            if slot.process is not None:
                slot.process.terminate()
        while alive := [slot.process for slot in slots if slot.process is not None]:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self._signals.count > seen:
                log.warning("Killing %d processes that have not ended", len(alive))
                for process in alive:
                    process.kill()
            self._wait(max(remaining, 1.0))
            for slot in self._slots:
                self._bury(slot)

    def _start(self, slot: _Slot) -> None:
        context = get_context("fork")
        # A signal must not come to a worker that would still take it for the supervisor.
        with _signals_blocked():
            if slot.listener is not None:
                told = (self._order, slot.listener)
                slot.process = context.Process(target=_tell_metrics, args=told)
                slot.process.start()
            else:
                slot.ready, other_end = socket.socketpair()
                slot.process = context.Process(target=_work, args=(self._order, other_end))
                slot.process.start()
                other_end.close()
        slot.started_at = time.monotonic()

    def _look_at(self, slot: _Slot) -> None:
        """Note that a worker is ready, or plan the next process when one has died."""
        process = slot.process
        if process is None:
            return
        if slot.ready is not None and connection.wait([slot.ready], 0):
            if slot.ready.recv(1) != b"" and not self._any_was_ready:
                self._any_was_ready = True
                _tell_starter("READY=1")
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
        # down those that serve. Without metrics the service does its work.
        if slot.listener is None and not self._any_was_ready and code > 0:
            raise ServerError("A worker could not start; the reason is in the log.")
        kind = "Worker" if slot.listener is None else "Process of metrics"
        log.error("%s %s ended (%s); starting another", kind, pid, _cause(code))
        slot.due_at = now + slot.pause_s
        slot.pause_s = min(slot.pause_s * 2, _LONGEST_PAUSE_S)

    def _bury(self, slot: _Slot) -> None:
        process = slot.process
        if process is None or process.exitcode is None:
            return
        if self._order.listener is not None and process.pid is not None:
            self._order.listener.forget(process.pid)
        process.close()
        slot.process = None
        if slot.ready is not None:
            slot.ready.close()
            slot.ready = None

    def _next_due_s(self) -> float | None:
        due = [slot.due_at for slot in self._slots if slot.process is None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _wait(self, timeout_s: float | None) -> None:
        signals = self._signals
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
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # pyright: ignore[reportArgumentType]
        signal.set_wakeup_fd(-1)
        self.wakeup.close()
        self._writing.close()

    def forget(self) -> None:
        """In a process that was forked: take signals as they were taken before all this."""
        self.__exit__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _note(self, *_: object) -> None:
        self.count += 1


@contextmanager
def _signals_blocked() -> Generator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _tell_starter(state: str) -> None:
    """Tell what started the service how it is: systemd, with `Type=notify`, waits for that.

    Source: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as starter:
        try:
            starter.sendto(state.encode(), address)
        except OSError as error:
            # Whether it serves does not depend on who hears of it.
            log.warning("Nobody is told %s: %s", state, error)


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
    with (
        tempfile.TemporaryDirectory(prefix="diptych-metrics-", dir=parent) as folder,
        metrics_of.shared(folder),
    ):
        yield folder
