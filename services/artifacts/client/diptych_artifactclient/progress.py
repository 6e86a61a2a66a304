"""How far a transfer is, drawn on a terminal."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from diptych_artifactclient.transfers import Watch

_WIDTH = 30
_DRAWN_EVERY_S = 0.1
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@contextmanager
def bar(*, wanted: bool) -> Generator[Watch]:
    """What shows on standard error how far it is, if that is wanted and a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    drawn_at = 0.0
    shown = ""
    latest = ""

    def draw() -> None:
        nonlocal shown
        if latest != shown:
            sys.stderr.write(f"\r{latest.ljust(len(shown))}")
            sys.stderr.flush()
            shown = latest

    def watch(done: int, total: int | None) -> None:
        nonlocal drawn_at, latest
        latest = line(done, total)
        if time.monotonic() - drawn_at >= _DRAWN_EVERY_S:
            draw()
            drawn_at = time.monotonic()

    try:
        yield watch
    finally:
        draw()
        if shown:
            sys.stderr.write("\n")


def line(done: int, total: int | None) -> str:
    """The bar as text; without a total, the number of bytes only."""
    if not total:
        return readable(done)
    part = min(done / total, 1)
    return f"[{'=' * round(part * (_WIDTH - 1)) + '>':<{_WIDTH}}] {part:.0%} of {readable(total)}"


def readable(size: int) -> str:
    """`1.5 MiB`."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{size / 1024**power:.1f}".removesuffix(".0") + f" {_UNITS[power]}"
