"""`make bench`: figures as ratios against something else on this machine, in the same run.

`python -m tests.bench [--size MIB] [--rounds N] [--json FILE] [STORE …] [artifacts] [independence]`
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import artifacts, independence, stores
from tests.bench.data import BLOCK


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "only",
        nargs="*",
        help="file, s3, swift, rbd, artifacts, independence; all of them by default",
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of the one object")
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    parser.add_argument("--requests", type=int, default=500, help="of each kind, for artifacts")
    parser.add_argument("--processes", type=int, default=1, help="of a service, for artifacts")
    parser.add_argument("--folder", type=Path, help="where servers keep their data")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--seconds", type=float, default=20, help="of each state of independence")
    asked = parser.parse_args()
    of_stores = [one for one in asked.only if one not in ("artifacts", "independence")]
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="diptych-bench-", dir=asked.folder) as folder:
        if not asked.only or of_stores:
            rows = stores.table(
                asked.size * BLOCK, rounds=asked.rounds, folder=Path(folder), only=of_stores
            )
            _print_stores(rows, asked.size, asked.rounds)
            figures += rows
        if not asked.only or "artifacts" in asked.only:
            rows = artifacts.table(
                Path(folder),
                rounds=asked.rounds,
                requests=asked.requests,
                size=asked.size * BLOCK,
                processes=asked.processes,
            )
            _print_artifacts(rows, asked)
            figures += rows
        if not asked.only or "independence" in asked.only:
            rows = independence.table(Path(folder), rounds=asked.rounds, seconds=asked.seconds)
            _print_independence(rows)
            figures += rows
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


def _print_stores(rows: Sequence[Mapping[str, object]], size: int, rounds: int) -> None:
    print(f"One object of {size} MiB, medians of {rounds}; MiB/s, CPU s per GiB.")
    print(f"{'store':16} {'':9} {'ours':>6} {'CPU':>6}   {'plain':>6} {'CPU':>6}   ratio")
    for row in rows:
        print(
            f"{row['store']:16} {row['direction']:9} {row['ours_mib_s']:>6} "
            f"{row['ours_cpu_s_gib']:>6}   {row['tool_mib_s']:>6} {row['tool_cpu_s_gib']:>6}   "
            f"{row['ratio']:>5}  {row['tool']}"
        )


def _print_artifacts(rows: Sequence[Mapping[str, object]], asked: argparse.Namespace) -> None:
    print(
        f"Artifacts, {asked.processes} process(es) each, medians of {asked.rounds}; ms for a "
        "request and ms of the service's CPU for it; ratios are Glare's to ours."
    )
    print(f"{'':18} {'ours':>9} {'CPU':>9}   {'Glare':>9} {'CPU':>9}   {'ratio':>6} {'CPU':>6}")
    for row in rows:
        print(
            f"{row['request']:18} {row['ours_ms']:>9} {row['ours_cpu_ms']:>9}   "
            f"{row['glare_ms']:>9} {row['glare_cpu_ms']:>9}   {row['ratio']:>6} "
            f"{row['cpu_ratio']:>6}"
        )


def _print_independence(rows: Sequence[Mapping[str, object]]) -> None:
    print(
        "A service alone, beside processes that only compute, and beside the other one under load."
    )
    print(f"{'':22} {'':10} {'p50 ms':>8} {'p99 ms':>8}   to burners' p99")
    for row in rows:
        print(
            f"{row['measured']:22} {row['state']:10} {row['p50_ms']:>8} {row['p99_ms']:>8}   "
            f"{row['to_burners']:>6}"
        )


if __name__ == "__main__":
    main()
