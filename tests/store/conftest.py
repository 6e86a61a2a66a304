"""A real Ceph, and the conformance suite as a table: driver by case, `--conformance-table`."""

import sys
from collections.abc import Callable

import pytest
from dev import ceph as dev_ceph
from dev.ceph import Ceph
from dev.places import DevError

from tests import servers
from tests.conftest import missing

MARKS = {"passed": "✓", "failed": "✗", "skipped": "-"}


@pytest.hookimpl(tryfirst=True)  # before what is not asked for is deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the slow cases of a suite to `make conformance-all` where another driver has them.

    A class names them by the beginnings of their names, as `slow`.
    """
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        slow: tuple[str, ...] = getattr(item.cls, "slow", ())
        if slow and item.originalname.startswith(slow):
            item.add_marker(pytest.mark.conformance_all)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-table",
        action="store_true",
        help="print which driver of a store passes which case",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not terminalreporter.config.getoption("--conformance-table", default=False):
        return
    drivers: set[str] = set()
    # A case with parameters is one row; its worst outcome counts.
    cases: dict[str, dict[str, str]] = {}
    for outcome in ("skipped", "passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            _, _, name = report.nodeid.partition("::")
            driver, _, case = name.partition("::")
            if not driver.endswith("Conformance"):
                continue
            driver = driver.removeprefix("Test").removesuffix("Conformance")
            drivers.add(driver)
            case = case.partition("[")[0].removeprefix("test_").replace("_", " ")
            cases.setdefault(case, {})[driver] = MARKS[report.outcome]
    terminalreporter.section("conformance of the drivers of stores")
    # The names stand above the columns like stairs, so that the table is narrow however many
    # there are.
    for number, driver in enumerate(sorted(drivers)):
        terminalreporter.line(f"{'│  ' * number}{driver}")
    for case in sorted(cases):
        marks = "".join(f"{cases[case].get(driver, ' '):3}" for driver in sorted(drivers))
        terminalreporter.line(f"{marks}{case}")
    terminalreporter.line("✓ passed   ✗ failed   - the driver cannot (see docs/drivers)")


@pytest.fixture(scope="session")
def ceph_installed(debian: Callable[[str, str], str]) -> None:
    """Ceph's programs can be run, and its bindings imported."""
    if dev_ceph.missing():
        for program in dev_ceph.PROGRAMS:
            debian(" ".join(dev_ceph.PACKAGES), program)
    try:
        sys.path.append(str(dev_ceph.bindings(servers.folder())))
    except DevError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def ceph(ceph_installed: None) -> Ceph:
    """The run's Ceph; the pool `vms` is for clones, others to be made for images."""
    return servers.ceph()


@pytest.fixture(scope="session")
def ceph_pool(ceph: Ceph, worker_id: str) -> str:
    """A pool of this worker's own, to be left empty."""
    name = f"images-{worker_id}"
    ceph.make_pool(name)
    return name


@pytest.fixture(scope="session")
def ceph_gateway(ceph: Ceph) -> Ceph:
    """The same Ceph with its gateway for S3."""
    return servers.ceph_gateway()
