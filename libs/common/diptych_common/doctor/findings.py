"""What examinations find, and how they are run: all at a time, none for ever."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from sqlalchemy.exc import DBAPIError

from diptych_common.errors import ApiError
from diptych_common.logs import redact

log = logging.getLogger(__name__)

Level = Literal["ok", "warning", "failure"]

_WIDTHS: Final = (8, 22)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is, in words without a secret, and what to do where it is not well."""

    about: str
    level: Level
    told: str
    advice: str = ""

    def __str__(self) -> str:
        """One line."""
        level, about = (
            text.ljust(width) for text, width in zip((self.level, self.about), _WIDTHS, strict=True)
        )
        return f"{level} {about} {self.told}{' ' if self.advice else ''}{self.advice}"


class Ended(Exception):
    """What else the examination would have asked makes no sense: why has been told."""


@dataclass(slots=True)
class Notes:
    """What an examination has found so far; each of its questions may take `seconds`.

    `hangs` if one did not end in time, so that something of it may go on in a thread.
    """

    seconds: float
    findings: list[Finding] = field(default_factory=list[Finding])
    hangs: bool = False

    def ok(self, about: str, told: str) -> None:
        """Note what is well."""
        self.findings.append(Finding(about, "ok", told))

    def warn(self, about: str, told: str, advice: str) -> None:
        """Note what may do harm."""
        self.findings.append(Finding(about, "warning", told, advice))

    def fail(self, about: str, told: str, advice: str) -> None:
        """Note what keeps the service from doing its work."""
        self.findings.append(Finding(about, "failure", told, advice))

    @asynccontextmanager
    async def asking(
        self, about: str, advice: str, *, troubles: tuple[type[Exception], ...] = ()
    ) -> AsyncGenerator[None]:
        """Ask one thing within the time; raises Ended when that fails, which is noted.

        The words of what is in `troubles` are told, of all else only what it is: they may hold
        anything.
        """
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except Ended:
            raise
        except TimeoutError:
            self.hangs = True
            self.fail(about, f"There was no answer within {self.seconds:g} s.", advice)
            raise Ended from None
        except troubles as trouble:
            self.fail(about, words_of(trouble), advice)
            raise Ended from None
        except Exception as error:
            # Its words may hold anything, so only the log has them.
            log.exception("What was asked about %s failed", about)
            self.fail(about, f"It failed with {type(error).__name__}; the log has more.", advice)
            raise Ended from None


Examination = Callable[[Notes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order of the examinations: see `command_line.Report`."""

    findings: Sequence[Finding]
    hangs: bool

    @property
    def lines(self) -> Sequence[str]:
        """A line for each finding, and one for all."""
        return [*map(str, self.findings), self._sum()]

    @property
    def document(self) -> object:
        """A list with an object for each finding."""
        return [asdict(one) for one in self.findings]

    @property
    def is_well(self) -> bool:
        """Whether nothing keeps the service from doing its work."""
        return self._count("failure") == 0

    def _count(self, level: Level) -> int:
        return sum(one.level == level for one in self.findings)

    def _sum(self) -> str:
        return f"{self._count('failure')} failures, {self._count('warning')} warnings."


async def examined(examinations: Mapping[str, Examination], *, seconds: float) -> Diagnosis:
    """Run all of them at a time; what one meets changes nothing for the others."""
    notes = {about: Notes(seconds) for about in examinations}
    await asyncio.gather(
        *(_examine(about, run, notes[about]) for about, run in examinations.items())
    )
    return Diagnosis(
        findings=[finding for one in notes.values() for finding in one.findings],
        hangs=any(one.hangs for one in notes.values()),
    )


async def _examine(about: str, run: Examination, notes: Notes) -> None:
    try:
        await run(notes)
    except Ended:
        pass
    except Exception as error:
        # A mistake of ours: the other examinations go on all the same.
        log.exception("%s could not be examined", about)
        notes.fail(about, f"It could not be examined: {type(error).__name__}; see the log.", "")


def words_of(error: Exception) -> str:
    """What an error says in one line, without secrets: what caused it, where it only hides that."""
    innermost: BaseException = error
    if isinstance(error, ApiError | DBAPIError):
        *_, innermost = _causes(error)
    text = " ".join(redact(str(innermost)).split())
    return (text or type(innermost).__name__).rstrip(".") + "."


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
