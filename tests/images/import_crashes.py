"""Services that are killed, or stopped, in operations on images, and what must hold afterwards.

In each run a forked service (`tests.images.crashing_service`) is asked to do an operation and dies
on its way; then another service, with the same settings, finds what is left, and within the lease
and half a minute more nothing may tell of the death.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import httpx

from tests import databases
from tests.daemon import Service
from tests.images.crashing_service import Order
from tests.images.operations import (
    DATA,
    GONE,
    Case,
    Operation,
    Source,
    check_bytes,
    ok,
    state_of,
)
from tests.images.slots import SCRATCH, SETTLED_WITHIN_S, Slot, serving
from tests.kills import Kill
from tests.waiting import until

ROOT = Path(__file__).parents[2]

# What a worker says when it finds that its job is another's.
LOST = ("was lost while it ran", "is not held under fence")


class Served(Protocol):
    """Where a service is to run: its settings, and the file that has what it says."""

    @property
    def environ(self) -> dict[str, str]: ...

    @property
    def log(self) -> Path: ...


class Victim:
    """A forked service, and what it has told of its steps."""

    def __init__(self, port: int, report: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = 0
        self.steps: list[str] = []
        self.stepped = asyncio.Event()
        self._reading = asyncio.create_task(self._read(report))

    async def _read(self, report: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=report)
        with suppress(ConnectionError):
            while line := (await reader.readline()).decode().strip():
                if self.pid:
                    self.steps.append(line)
                else:
                    self.pid = int(line)
                self.stepped.set()
        writer.close()

    @property
    def is_dead(self) -> bool:
        return self._reading.done()

    async def died(self, *, within_s: float = 60) -> None:
        """Wait for its death."""
        await asyncio.wait_for(asyncio.shield(self._reading), within_s)

    async def reached(self, step: str) -> None:
        """Wait until it has come to a step of this name."""
        async with asyncio.timeout(60):
            while step not in self.steps:
                self.stepped.clear()
                await self.stepped.wait()

    async def kill(self) -> None:
        """Kill it, wherever it is."""
        if not self.is_dead:
            os.kill(self.pid, signal.SIGKILL)
        await self.died()


class Forge:
    """The process that forks services."""

    def __init__(self, control: socket.socket, service: Service) -> None:
        self._control = control
        self._service = service

    @classmethod
    @asynccontextmanager
    async def lit(cls, log: Path, service: Service = "images") -> AsyncGenerator["Forge"]:
        """Start it, and end it with all that it forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.images.crashing_service"),
                *(str(theirs.fileno()), service),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'deploy'}"},
                pass_fds=[theirs.fileno()],
                stdout=output,
                stderr=output,
            )
            theirs.close()
            try:
                yield cls(ours, service)
            finally:
                ours.close()
                await process.wait()

    async def fork(
        self,
        slot: Served,
        at: int | str | None,
        *,
        with_signal: int = signal.SIGKILL,
        worker: bool = True,
        armed_by: Sequence[str] = ("PUT", "POST", "DELETE"),
        config_files: Sequence[Path] = (),
    ) -> Victim:
        """A service in this slot to which the signal comes at that step."""
        with_worker = f"DIPTYCH_{self._service.upper()}__JOBS__WITH_WORKER"
        order = Order(
            environ={**slot.environ, with_worker: str(worker).lower()},
            log=str(slot.log),
            at=at,
            signal=with_signal,
            armed_by=tuple(armed_by),
            config_files=tuple(map(str, config_files)),
        )
        listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with listening, theirs:
            socket.send_fds(self._control, [order.packed()], [listening.fileno(), theirs.fileno()])
            port = listening.getsockname()[1]
        victim = Victim(port, ours)
        async with asyncio.timeout(60):
            while not victim.pid:
                victim.stepped.clear()
                await victim.stepped.wait()
        return victim


class Killing:
    """Runs operations in slots, each with a death at a step."""

    def __init__(self, forge: Forge, source: Source) -> None:
        self.forge = forge
        self.source = source

    async def count(self, slot: Slot, operation: Operation) -> list[str]:
        """The names of an operation's steps when nothing dies."""
        slot = slot.having(operation.options)
        case, victim, _ = await self._act(slot, operation, None)
        async with serving(slot, worker=False) as http:
            assert await state_of(case, http) == operation.done, operation.name
        return victim.steps

    async def kill(
        self, slot: Slot, operation: Operation, at: int | str, *, then: int | None = None
    ) -> Kill | None:
        """Kill the service at a step of the operation, and see to it that all comes right.

        With `then`, who finds what it left is killed as well, at that step of its work from its
        start on. None if there were fewer steps this time, so that nothing was killed.
        """
        slot = slot.having(operation.options)
        case, victim, answered = await self._act(slot, operation, at)
        since = time.monotonic()
        if len(victim.steps) <= at if isinstance(at, int) else at not in victim.steps:
            return None
        where = victim.steps[-1]
        begun = operation.has_task and await self._has_task(slot)
        await slot.unpark()
        try:
            if then is not None:
                case.gate.set()
                heir = await self._inherit(slot, then)
                if len(heir.steps) <= then:
                    return None
                where += f", then {heir.steps[then]}"
            async with serving(slot) as http:
                case.gate.set()
                await slot.settle()
                killed = Kill(operation.name, where, time.monotonic() - since)
                await self._check(case, operation, http, has_to_be_done=answered or begun)
        except AssertionError as error:
            error.add_note(f"{operation.name}, killed at step {at}: {where}")
            error.add_note(slot.log.read_text()[-20_000:])
            raise
        return killed

    async def count_inherited(self, slot: Slot, operation: Operation, at: int) -> list[str]:
        """The names of the steps of who finds what a service left that was killed there."""
        slot = slot.having(operation.options)
        case, _, _ = await self._act(slot, operation, at)
        await slot.unpark()
        case.gate.set()
        return (await self._inherit(slot, None)).steps

    async def _inherit(self, slot: Slot, at: int | None) -> Victim:
        heir = await self.forge.fork(slot, at, armed_by=())
        try:
            await self._end(slot, heir)
        finally:
            await heir.kill()
        return heir

    async def _check(
        self, case: Case, operation: Operation, http: httpx.AsyncClient, *, has_to_be_done: bool
    ) -> None:
        """Fail unless the image is as it was asked to be, or was before; then it can be again."""
        state = await state_of(case, http)
        if has_to_be_done:
            assert state == operation.done
        elif state not in (operation.done, *operation.may_be):
            assert state == operation.start
            await self._act_again(case, operation, http)
            state = await state_of(case, http)
            assert state == operation.done
        if state.status == "active":
            await check_bytes(case, http)
        if state == operation.done != GONE:
            async with databases.connection(case.slot.url) as database:
                tasks = await database.fetch("SELECT status, message FROM tasks")
            assert all(task["status"] == "success" for task in tasks), tasks

    async def _act_again(self, case: Case, operation: Operation, http: httpx.AsyncClient) -> None:
        """Ask for the same again; once more if the short lease ended on a machine this busy."""
        answer = await operation.act(case, http)
        await case.slot.settle()
        if answer.status_code == 410:
            assert await state_of(case, http) == operation.start
            answer = await operation.act(case, http)
            await case.slot.settle()
        ok(answer)

    async def stop(self, slot: Slot, operation: Operation, at: str) -> None:
        """Stop the service at a step, have another do its work, and wake it: it changes nothing.

        The step has to be one of the job's, since otherwise nobody does that work.
        """
        slot = slot.having(operation.options)
        case = await self._prepare(slot, operation)
        victim = await self.forge.fork(
            slot, at, with_signal=signal.SIGSTOP, armed_by=operation.armed_by
        )
        try:
            async with httpx.AsyncClient(base_url=victim.url, timeout=60) as http:
                asking = asyncio.create_task(operation.act(case, http))
                await victim.reached(at)
                # Its answer may be stopped as well.
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await slot.unpark()
            # As long as it lives, its scratch files are its own.
            shared = slot.without(SCRATCH)
            async with serving(slot) as http:
                await shared.settle()
                assert await state_of(case, http) == operation.done
                await slot.park()
            before = await shared.everything()
            os.kill(victim.pid, signal.SIGCONT)
            await until(lambda: any(words in slot.log.read_text() for words in LOST))
            # It has nothing to do from then on: whatever it does, it does at once.
            await asyncio.sleep(1)
            assert await shared.everything() == before
            await slot.settle()
            async with serving(slot, worker=False) as http:
                await check_bytes(case, http)
        except AssertionError as error:
            error.add_note(f"{operation.name}, stopped {at}: {victim.steps}")
            error.add_note(slot.log.read_text()[-20_000:])
            raise
        finally:
            await victim.kill()

    async def _act(
        self, slot: Slot, operation: Operation, at: int | str | None
    ) -> tuple[Case, Victim, bool]:
        """Have a victim do it; whether it said so. It is dead in the end in any case."""
        case = await self._prepare(slot, operation)
        victim = await self.forge.fork(slot, at, armed_by=operation.armed_by)
        try:
            async with httpx.AsyncClient(base_url=victim.url, timeout=60) as http:
                try:
                    answered = ok(await operation.act(case, http)).is_success
                except httpx.TransportError:
                    answered = False
                    await victim.died()
            await self._end(slot, victim)
            assert at is not None or not victim.is_dead, slot.log.read_text()
        finally:
            await victim.kill()
        return case, victim, answered

    async def _prepare(self, slot: Slot, operation: Operation) -> Case:
        await slot.clear()
        case = Case(slot, DATA, operation.given(DATA), self.source, operation.disk_format)
        if not operation.slow_source:
            case.gate.set()
        # What is prepared is not to be lost to a short lease.
        patient = slot.having({"JOBS__LEASE": "60"})
        async with serving(patient, worker=False) as http:
            await operation.prepare(case, http)
        await slot.park()
        return case

    async def _end(self, slot: Slot, victim: Victim) -> None:
        """Wait until the victim is dead, or has done everything."""
        settling = asyncio.create_task(slot.settle())
        dying = asyncio.create_task(victim.died(within_s=2 * SETTLED_WITHIN_S))
        await asyncio.wait([settling, dying], return_when=asyncio.FIRST_COMPLETED)
        if victim.is_dead:
            settling.cancel()
        else:
            dying.cancel()
        await asyncio.gather(settling, dying, return_exceptions=True)
        if not settling.cancelled():
            settling.result()
        # The last steps come when all is settled already.
        with suppress(TimeoutError):
            await victim.died(within_s=0.5)

    async def _has_task(self, slot: Slot) -> bool:
        async with databases.connection(slot.url) as database:
            return bool(await database.fetchval("SELECT count(*) > 0 FROM tasks"))
