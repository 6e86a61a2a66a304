"""The conformance suite as a table: driver by case, with `--conformance-table`."""

import pytest

pytest.register_assert_rewrite("tests.store.conformance")

MARKS = {"passed": "✓", "failed": "✗", "skipped": "-"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-table",
        action="store_true",
        help="print which driver of a store passes which case",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not terminalreporter.config.getoption("--conformance-table", default=False):
        return
    drivers: list[str] = []
    # A case with parameters is one row; its worst outcome counts.
    cases: dict[str, dict[str, str]] = {}
    for outcome in ("skipped", "passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            _, _, name = report.nodeid.partition("::")
            driver, _, case = name.partition("::")
            if not driver.endswith("Conformance"):
                continue
            driver = driver.removeprefix("Test").removesuffix("Conformance")
            if driver not in drivers:
                drivers.append(driver)
            case = case.partition("[")[0].removeprefix("test_").replace("_", " ")
            cases.setdefault(case, {})[driver] = MARKS[report.outcome]
    width = max(map(len, cases), default=0)
    terminalreporter.section("conformance of the drivers of stores")
    terminalreporter.line(f"{'':{width}}  {'  '.join(drivers)}")
    for case in sorted(cases):
        marks = (f"{cases[case].get(driver, ''):^{len(driver)}}" for driver in drivers)
        terminalreporter.line(f"{case:{width}}  {'  '.join(marks)}")
    terminalreporter.line("✓ passed   ✗ failed   - the driver cannot (see docs/drivers)")
