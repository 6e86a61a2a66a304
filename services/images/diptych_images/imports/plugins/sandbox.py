"""Programs of others on users' data, held apart: limits, no network, killed with whoever asked."""

import asyncio
import json
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from diptych_store.tasks import finished, gathered

from diptych_images.imports.plugins import confine

_CONFINE: Final = confine.__file__

# More than any description of an image needs; a program that says more has gone astray.
_LONGEST_OUTPUT = 1024 * 1024


class Stopped(Exception):
    """The program had to be ended; the message says what it did: "took more than 5 s"."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use: bytes of address space, seconds of processor and of time.

    `file_size` is the most bytes that any file it writes may have.
    """

    memory: int
    cpu_s: int
    time_s: float
    file_size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended by itself; `status` is negative where a signal ended it."""

    status: int
    output: bytes
    errors: str


async def run(program: str, *arguments: str, folder: Path, limits: Limits) -> Ended:
    """Run a program, named by its absolute path, with `folder` as its working directory.

    It has no environment and no network as far as the system lets processes leave it, its files
    are nobody else's to read, and it dies when this process does. Raises Stopped at the limits of
    time and output. A cancellation kills it and all that it started, and waits for its end.
    """
    told = {
        "parent": os.getpid(),
        "memory": limits.memory,
        "cpu": limits.cpu_s,
        "file_size": limits.file_size,
    }
    process = await asyncio.create_subprocess_exec(
        # Neither this process's environment nor anything beside the script may change what runs.
        *(sys.executable, "-I", "-S", _CONFINE, json.dumps(told), program, *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.time_s):
            return await _outcome(process)
    except TimeoutError:
        raise Stopped(f"took more than {limits.time_s:g} s") from None
    finally:
        await finished(_end(process))


async def _outcome(process: Process) -> Ended:
    output, errors = await gathered(
        2, [partial(_said, stream) for stream in (process.stdout, process.stderr)]
    )
    return Ended(
        status=await process.wait(), output=output, errors=errors.decode("utf-8", "replace")
    )


async def _said(stream: StreamReader | None) -> bytes:
    said = b""
    while stream is not None and (piece := await stream.read(64 * 1024)):
        said += piece
        if len(said) > _LONGEST_OUTPUT:
            raise Stopped("said more than it should have to")
    return said


async def _end(process: Process) -> None:
    """Kill the process with all that it started, unless they have ended, and wait for it."""
    pipes = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    if process.returncode is None or not all(pipe.at_eof() for pipe in pipes):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # What it wrote is read, for otherwise its pipes would stay open.
    await process.communicate()
