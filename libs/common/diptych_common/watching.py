"""When an operator's files have changed, while the service runs."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Final

# Seconds between looks at the files, and between two looks that must agree before a file is taken:
# one that is being written in place can be valid, and shorter, in the middle.
WATCH_INTERVAL: Final = 5.0
SETTLE_TIME: Final = 1.0

# The places of the files, with what tells one state from another.
Fingerprint = tuple[tuple[str, int, int, int], ...]


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """The state that the files are in. Raises OSError, for one that is gone as well."""
    states = [(str(file), file.stat()) for file in files]
    return tuple((name, state.st_mtime_ns, state.st_size, state.st_ino) for name, state in states)


async def changes(
    look: Callable[[], Fingerprint], seen: Fingerprint, *, interval: float, settle_time: float
) -> AsyncGenerator[Fingerprint]:
    """Each state other than the one before that lasts for `settle_time`, forever.

    `look` is called in a thread, and raises nothing; `seen` is the state that is known.
    """
    while True:
        await asyncio.sleep(interval)
        found = await asyncio.to_thread(look)
        if found == seen:
            continue
        await asyncio.sleep(settle_time)
        if await asyncio.to_thread(look) != found:
            continue
        seen = found
        yield found
