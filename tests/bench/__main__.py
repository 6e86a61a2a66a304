"""`make bench`: figures as ratios against something else on this machine, in the same run.

`python -m tests.bench [--size MIB] [--rounds N] [--json FILE] [STORE …]`
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.bench import stores
from tests.bench.data import BLOCK


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("only", nargs="*", help="file, s3, swift, rbd; all of them by default")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the one object")
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    parser.add_argument("--folder", type=Path, help="where servers keep their data")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="diptych-bench-", dir=asked.folder) as folder:
        rows = stores.table(
            asked.size * BLOCK, rounds=asked.rounds, folder=Path(folder), only=asked.only
        )
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"One object of {asked.size} MiB, medians of {asked.rounds}; MiB/s, CPU s per GiB.")
    print(f"{'store':16} {'':9} {'ours':>6} {'CPU':>6}   {'plain':>6} {'CPU':>6}   ratio")
    for row in rows:
        print(
            f"{row['store']:16} {row['direction']:9} {row['ours_mib_s']:>6} "
            f"{row['ours_cpu_s_gib']:>6}   {row['tool_mib_s']:>6} {row['tool_cpu_s_gib']:>6}   "
            f"{row['ratio']:>5}  {row['tool']}"
        )


if __name__ == "__main__":
    main()
