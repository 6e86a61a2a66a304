"""What came of killing services: told by the tests, put together at the end of the run."""

from collections import Counter
from dataclasses import asdict, dataclass
from statistics import quantiles

import pytest

_PROPERTY = "kills"


@dataclass(frozen=True, slots=True)
class Kill:
    """A service that was killed: in what, at which step, and how long it could be told after."""

    operation: str
    step: str
    settled_s: float


def record(request: pytest.FixtureRequest, kills: list[Kill]) -> None:
    """Have the kills of a test, after each of which all came right, among the figures."""
    request.node.user_properties.append((_PROPERTY, [asdict(kill) for kill in kills]))


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures, if anything was killed."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
    ]
    kills = [
        Kill(**one)
        for report in reports
        for name, value in report.user_properties
        if name == _PROPERTY
        for one in value
    ]
    if not kills:
        return
    seconds = sorted(kill.settled_s for kill in kills)
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    longest = max(kills, key=lambda kill: kill.settled_s)
    steps = len({(kill.operation, kill.step) for kill in kills})
    terminalreporter.section("kills after which everything came right")
    for operation, count in sorted(Counter(kill.operation for kill in kills).items()):
        terminalreporter.line(f"{count:6}  {operation}")
    terminalreporter.line(
        f"{len(kills)} kills at {steps} named steps: lost 0, orphans 0, stuck 0; settled after"
        f" {cuts[49]:.1f} s (p50), {cuts[98]:.1f} s (p99), {longest.settled_s:.1f} s at most"
        f" ({longest.operation}, {longest.step})"
    )
