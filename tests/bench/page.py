"""docs/performance.md: the text is written by hand, its tables are of the last whole run.

`python -m tests.bench.page` writes the table of aims anew, without measuring anything.
"""

import os
import platform
import re
from collections.abc import Sequence
from typing import Final

from dev.places import CHECKOUT, DevError

from tests.bench.figures import AIMS, COLUMNS, Figure, cells

PAGE: Final = CHECKOUT / "docs" / "performance.md"


def write(part: str, figures: Sequence[Figure]) -> None:
    """Put the figures of a part in the place of those that the page has."""
    PAGE.write_text(with_figures(PAGE.read_text(), part, figures))


def with_figures(text: str, part: str, figures: Sequence[Figure]) -> str:
    """The page with these figures between the marks of the part; DevError if it has no marks."""
    return _between(text, f"figures: {part}", _table(figures))


def with_aims(text: str) -> str:
    """The page with all aims that there are."""
    rows = [("part", "work", "unit", "aim"), ("---", "---", "---", "---")]
    rows += [
        (part, work, unit, ", ".join(aim.text for aim in aims))
        for (part, work, unit), aims in AIMS.items()
    ]
    return _between(text, "aims", "\n".join([*(f"| {' | '.join(row)} |" for row in rows), ""]))


def _between(text: str, mark: str, new: str) -> str:
    marks = re.compile(f"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
    made, found = marks.subn(lambda match: f"{match[1]}\n{new}\n{match[2]}", text)
    if found != 1:
        raise DevError(f"{PAGE.name} has no place for {mark}")
    return made


def _table(figures: Sequence[Figure]) -> str:
    rows = [COLUMNS, tuple("---:" if 2 <= at <= 4 else "---" for at in range(len(COLUMNS)))]
    work = ""
    for one in figures:
        row = cells(one)
        rows.append(row if one.work != work else ("", *row[1:]))
        work = one.work
    lines = [f"| {' | '.join(row)} |" for row in rows]
    where = (
        f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}."
    )
    notes = [f"- {one.work}, {one.unit}: {one.notes}" for one in figures if one.notes]
    return "\n".join([where, "", *lines, *(["", *notes] if notes else []), ""])


if __name__ == "__main__":
    PAGE.write_text(with_aims(PAGE.read_text()))
