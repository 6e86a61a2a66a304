"""An image between its source and the stores: a file that plug-ins look at and replace."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from diptych_common.errors import UnsupportedMediaType
from diptych_common.jobs import GiveUp
from diptych_store.threads import Threads

from diptych_images.formats import Findings, Inspection, judge
from diptych_images.settings import ImageFormat

T = TypeVar("T")

BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """The bytes of an image in a file of their own, and what the image is declared to be.

    `size` is in bytes, `findings` are of these bytes.
    """

    path: Path
    size: int
    disk_format: str
    container_format: str
    findings: Findings


async def in_steps(work: Generator[None, None, T]) -> T:
    """Run blocking work in a thread of its own, up to a `yield` at a time; what it returns.

    A cancellation takes effect at the next `yield`, and the generator is closed before it goes on.
    """
    threads = Threads("plug-in", count=1)

    def step() -> StopIteration | None:
        try:
            next(work)
        except StopIteration as end:
            return end
        return None

    try:
        while True:
            end = await threads.run(step)
            if end is not None:
                result: T = end.value
                return result
    finally:
        await threads.settle(threads.submit(work.close))
        threads.close()


def inspecting(path: Path) -> Generator[None, None, Findings]:
    """Look at a file's bytes, with a `yield` after each MiB."""
    inspection = Inspection()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            inspection.update(block)
            yield
    return inspection.findings()


def require_soundness(draft: Draft, rules: ImageFormat) -> None:
    """Raise GiveUp where the data is unsafe, or not what the image is declared to be."""
    try:
        judge(
            draft.findings,
            disk_format=draft.disk_format,
            container_format=draft.container_format,
            rules=rules,
        )
    except UnsupportedMediaType as error:
        raise GiveUp(error.message) from error
