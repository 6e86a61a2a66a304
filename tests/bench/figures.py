"""Figures as plain values, what they ought to be, and one table of them.

`AIMS` says which figures there must be at least: `docs/performance.md` has a row for each.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Figure:
    """One thing that was measured: `ours` and `theirs` in `unit`, medians of rounds.

    `work` is what was asked for, within a `part` of the bench. `ratio` says how many times better
    ours is, whether more is better or less. `raw` is what the machine gives without a service, as
    `raw_name` does it. `is_met` is None where there is no `aim`.
    """

    part: str
    work: str
    unit: str
    ours: float
    theirs: float | None = None
    raw: float | None = None
    raw_name: str = ""
    ratio: float | None = None
    aim: str = ""
    is_met: bool | None = None
    notes: str = ""


@dataclass(frozen=True)
class Aim:
    """What a figure ought to be, in words and as a test of it."""

    text: str
    holds: Callable[[Figure], bool]


def times(least: float) -> Aim:
    """So many times better than theirs."""
    return Aim(f"≥ {least:g}x", lambda one: one.ratio is not None and one.ratio >= least)


def at_most(most: float) -> Aim:
    """Ours no more than this, in the figure's unit."""
    return Aim(f"≤ {most:g}", lambda one: one.ours <= most)


def of_raw(least: float) -> Aim:
    """Ours at least this part of what the machine gives."""
    return Aim(
        f"≥ {100 * least:g} % of raw", lambda one: bool(one.raw) and one.ours / one.raw >= least
    )


# (part, work, unit): aims
AIMS: Final[Mapping[tuple[str, str, str], Sequence[Aim]]] = {
    ("requests", "show image", "requests/s"): [times(10)],
    ("requests", "show image", "CPU ms"): [at_most(0.4)],
    ("requests", "list, 25 of 1k", "CPU ms"): [times(20)],
    ("requests", "list, 25 of 100k", "requests/s"): [times(80)],
    ("requests", "by property, 100k", "requests/s"): [times(80)],
    ("requests", "by tag, 100k", "requests/s"): [times(80)],
    ("requests", "deep page, 100k", "requests/s"): [times(80)],
    ("requests", "by name, 100k", "requests/s"): [times(10)],
    ("requests", "1M against 1k", "times as long"): [at_most(1.3)],
    ("requests", "list, limit=1000", "CPU ms"): [times(40)],
    ("requests", "create + delete", "CPU ms"): [times(8)],
    ("transfers", "upload, one stream", "GiB/s"): [times(2), of_raw(0.78)],
    ("transfers", "upload, 8 streams", "GiB/s"): [times(1.2), of_raw(0.8)],
    ("transfers", "download, one stream", "GiB/s"): [times(1.1)],
    ("transfers", "download, one stream", "CPU s/GiB"): [times(1)],
    ("transfers", "download, 8 streams", "GiB/s"): [times(1.1)],
    ("transfers", "download, 8 streams", "CPU s/GiB"): [times(1)],
    ("transfers", "download through nginx, one stream", "GiB/s"): [of_raw(0.95)],
    ("transfers", "download through nginx, 8 streams", "GiB/s"): [of_raw(0.95)],
    ("transfers", "show, p50 during 8 uploads", "ms"): [at_most(10)],
    ("memory", "idle, 2 processes", "MiB"): [at_most(160)],
    ("memory", "100 slow uploads", "MiB each"): [at_most(2)],
    ("memory", "100 slow downloads", "MiB each"): [at_most(2)],
    ("memory", "growth by lists of 1000", "%"): [at_most(1)],
    ("start", "first answer of /healthcheck", "s"): [at_most(0.7)],
    ("start", "first list", "s"): [at_most(0.7)],
    ("artifacts", "show artifact", "requests/s"): [times(10)],
    ("artifacts", "list of artifacts", "requests/s"): [times(10)],
    ("artifacts", "create artifact", "requests/s"): [times(10)],
    ("artifacts", "upload a blob", "MiB/s"): [times(2)],
}


def figure(
    part: str,
    work: str,
    unit: str,
    *,
    ours: Sequence[float],
    theirs: Sequence[float] = (),
    raw: float | None = None,
    raw_name: str = "",
    more_is_better: bool = False,
    notes: str = "",
) -> Figure:
    """The figure of several rounds, held against its aims in AIMS."""
    own = statistics.median(ours)
    other = statistics.median(theirs) if theirs else None
    if other is None:
        ratio = None
    elif more_is_better:
        ratio = own / max(other, 1e-9)
    else:
        ratio = other / max(own, 1e-9)
    one = Figure(part, work, unit, own, other, raw, raw_name, ratio, notes=notes)
    aims = AIMS.get((part, work, unit), ())
    if not aims:
        return one
    return Figure(
        *(part, work, unit, own, other, raw, raw_name, ratio),
        aim=", ".join(aim.text for aim in aims),
        is_met=all(aim.holds(one) for aim in aims),
        notes=notes,
    )


COLUMNS: Final = ("work", "unit", "ours", "theirs", "ratio", "raw limit", "aim", "met")


def cells(one: Figure) -> tuple[str, ...]:
    """A figure as the cells of a row, for COLUMNS."""
    return (
        one.work,
        one.unit,
        short(one.ours),
        short(one.theirs),
        f"{short(one.ratio)}x" if one.ratio is not None else "",
        f"{short(one.raw)} ({one.raw_name})" if one.raw is not None else "",
        one.aim,
        {True: "yes", False: "no", None: ""}[one.is_met],
    )


def short(value: float | None) -> str:
    """Three digits of a number."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def show(figures: Sequence[Figure]) -> str:
    """The table for a terminal, a block for each part."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    part = work = ""
    for one in figures:
        if one.part != part:
            rows.append((f"[{one.part}]", *[""] * (len(COLUMNS) - 1)))
            part = one.part
        row = cells(one)
        rows.append(row if one.work != work else ("", *row[1:]))
        work = one.work
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.rjust(width) if 2 <= at <= 4 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    notes = [f"{one.work}, {one.unit}: {one.notes}" for one in figures if one.notes]
    return "\n".join([*lines, *notes])
