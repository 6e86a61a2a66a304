"""Whether the stores take, give and remove objects, and have room for more."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from diptych_common.doctor.findings import Examination, Notes

# Bytes below which a store is said to be nearly full.
_LITTLE: Final = 1 << 30


class Outcome(Protocol):
    """What came of one store: `error` is None where all went well.

    `told` is in words, `free` in bytes, None where nobody knows.
    """

    @property
    def store(self) -> str:
        """The store's name."""
        ...

    @property
    def told(self) -> str:
        """What was tried, in words."""
        ...

    @property
    def error(self) -> str | None:
        """What went wrong."""
        ...

    @property
    def advice(self) -> str:
        """What to do about it."""
        ...

    @property
    def free(self) -> int | None:
        """Bytes that there is room for."""
        ...


class Outcomes(Protocol):
    """What came of all of them; `hangs` if a call is still under way that cannot be ended."""

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """One for each store."""
        ...

    @property
    def hangs(self) -> bool:
        """Whether the process has to be ended by force."""
        ...


def examination(check: Callable[[float], Coroutine[Any, Any, Outcomes]]) -> Examination:
    """Of all stores, by a check that gives each of them so many seconds."""

    async def examine(notes: Notes) -> None:
        found = await check(notes.seconds)
        notes.hangs |= found.hangs
        for one in found.outcomes:
            _note(notes, one)

    return examine


def _note(notes: Notes, outcome: Outcome) -> None:
    about = f"store {outcome.store}"
    told = outcome.told
    if outcome.free is not None:
        told += f" {outcome.free / 2**30:.1f} GiB are free."
    if outcome.error is not None:
        notes.fail(about, outcome.error, outcome.advice)
    elif outcome.free is not None and outcome.free < _LITTLE:
        notes.warn(about, told, "Make room there, or let another store be the default.")
    else:
        notes.ok(about, told)
