"""`make bench`: what the services do beside Glance, Glare and plain tools, in the same run.

`python -m tests.bench [--quick] [--json FILE] [PART …]`
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from dev.places import DevError

from tests.bench import (
    artifacts,
    independence,
    memory,
    page,
    requests,
    servers,
    start,
    stores,
    transfers,
)
from tests.bench.figures import Figure, show

# What is measured against Glance and Glare.
COMPARED: Final[Mapping[str, Callable[..., list[Figure]]]] = {
    "requests": requests.figures,
    "transfers": transfers.figures,
    "memory": memory.figures,
    "start": start.figures,
    "artifacts": artifacts.figures,
}
# What needs none of them; left out of a quick run unless it is named.
APART: Final[Mapping[str, Callable[..., list[Figure]]]] = {
    "stores": stores.figures,
    "independence": independence.figures,
}


def main() -> None:
    """Measure, print, and write the page unless it was quick or not all of a part."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "only", nargs="*", help=f"some of {', '.join((*COMPARED, *APART, *stores.CASES))}"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, a small catalogue")
    parser.add_argument("--folder", type=Path, help="where servers keep their data")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    asked = parser.parse_args()
    unknown = set(asked.only) - {*COMPARED, *APART, *stores.CASES}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    found: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="diptych-bench-", dir=asked.folder) as folder:
            for name, figures in _parts(Path(folder), asked.only, quick=asked.quick):
                found += figures
                if not asked.quick and name not in stores.CASES:
                    page.write(name, figures)
    finally:
        # What was measured before something failed has cost its time.
        print(show(found))
    if asked.json:
        figures = [asdict(one) for one in found]
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


def _parts(
    folder: Path, only: Sequence[str], *, quick: bool
) -> Generator[tuple[str, list[Figure]]]:
    """Each part's name and its figures, one after the other."""
    compared = [name for name in COMPARED if not only or name in only]
    if compared:
        with servers.rig(folder) as rig:
            for name in compared:
                yield name, _timed(name, partial(COMPARED[name], rig, quick=quick))
    for name, part in APART.items():
        if name in only or (not only and not quick):
            yield name, _timed(name, partial(part, folder, quick=quick))
    for name in stores.CASES:
        if name in only:
            yield name, stores.figures(folder, quick=quick, only=[name])


def _timed(name: str, part: Callable[[], list[Figure]]) -> list[Figure]:
    begun = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    figures = part()
    print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    try:
        main()
    except DevError as error:
        sys.exit(str(error))
