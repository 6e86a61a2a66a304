"""Distributions of one version, each of which needs no more than it says."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from dev.documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = {
    "diptych-common": ROOT / "libs/common",
    "diptych-store": ROOT / "libs/store",
    "diptych-images": ROOT / "services/images",
    "diptych-artifacts": ROOT / "services/artifacts",
    "diptych-artifacts-sample": ROOT / "services/artifacts/sample",
    "diptych-artifactclient": ROOT / "services/artifacts/client",
}

# In the standard library of later Pythons than the oldest that is supported.
NEWER = {"compression"}


@cache
def project(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text())["project"]


@cache
def locked() -> dict[str, str]:
    """Versions by name; markers do not matter, as a name is locked in one version only."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert len({name for name, _ in pins}) == len(pins)
    return {canonicalize_name(name): version for name, version in pins}


def needs(name: str) -> dict[str, list[Requirement]]:
    """All that has to be installed for a distribution, with everyone's requirement of it."""
    return _closure(project(name).get("dependencies", []))


def may_need(name: str) -> dict[str, list[Requirement]]:
    """The same with all that a deployment may choose: drivers import their clients late."""
    extras = project(name).get("optional-dependencies", {}).values()
    return _closure([*project(name).get("dependencies", []), *chain.from_iterable(extras)])


def _closure(dependencies: Sequence[str]) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    pending = [Requirement(text) for text in dependencies]
    while pending:
        requirement = pending.pop()
        one = canonicalize_name(requirement.name)
        known = {extra for each in found.get(one, []) for extra in each.extras}
        is_new = one not in found or not requirement.extras <= known
        found.setdefault(one, []).append(requirement)
        if is_new:
            texts = (
                _dependencies(one, requirement.extras)
                if one in FOLDERS
                else metadata.requires(one) or []
            )
            for each in map(Requirement, texts):
                extras = ["", *requirement.extras]
                if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras):
                    pending.append(each)
    return found


def _dependencies(name: str, extras: Iterable[str]) -> list[str]:
    optional = project(name).get("optional-dependencies", {})
    chosen = [optional[extra] for extra in extras]
    return [*project(name).get("dependencies", []), *chain.from_iterable(chosen)]


def test_all_have_one_version_and_ask_for_it() -> None:
    (version,) = {project(name)["version"] for name in FOLDERS}
    for name in FOLDERS:
        ours = [each for each in project(name).get("dependencies", []) if "diptych-" in each]
        assert ours == [f"{each.partition('==')[0]}=={version}" for each in ours]
        assert metadata.version(name) == version, "run `make setup`"


def test_they_stand_on_each_other_as_they_should() -> None:
    ours = {name: {each for each in needs(name) if each in FOLDERS} for name in FOLDERS}
    libraries = {"diptych-common", "diptych-store"}
    assert ours == {
        "diptych-common": set(),
        "diptych-store": set(),
        "diptych-images": libraries,
        "diptych-artifacts": libraries,
        "diptych-artifacts-sample": {*libraries, "diptych-artifacts"},
        "diptych-artifactclient": set(),
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_the_lock_has_all_that_a_distribution_needs(name: str) -> None:
    assert needs(name)
    for one, requirements in needs(name).items():
        if one not in FOLDERS:
            for requirement in requirements:
                assert requirement.specifier.contains(locked()[one]), requirement


@pytest.mark.parametrize("name", FOLDERS)
def test_a_distribution_imports_nothing_that_it_does_not_need(name: str) -> None:
    sources = (FOLDERS[name] / name.replace("-", "_")).rglob("*.py")
    imported = {module for source in sources for module in _imports(source)}
    installed = metadata.packages_distributions()
    allowed = {name, *may_need(name)}
    for module in imported - sys.stdlib_module_names - NEWER:
        owners = {canonicalize_name(owner) for owner in installed.get(module, [])}
        owners |= {each for each in FOLDERS if each.replace("-", "_") == module}
        assert owners & allowed, f"{module} is imported and not declared"


def _imports(source: Path) -> set[str]:
    """The packages that are imported when the module runs, not only when its types are checked."""
    names: set[str] = set()
    tree = ast.parse(source.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    for source in FOLDERS.values():
        build = ("build", "--wheel", "--no-build-isolation", "--python", sys.executable)
        uv(*build, "--out-dir", folder, source)
    return {name: next(folder.glob(f"{name.replace('-', '_')}-*.whl")) for name in FOLDERS}


def alone(service: str, wheels: dict[str, Path], home: Path, *more: str) -> Path:
    """An environment with the service, the libraries and what others wrote; its `bin` folder."""
    uv("venv", "--python", sys.executable, home)
    names = ("diptych-common", "diptych-store", f"diptych-{service}", *more)
    parts = [wheels[name] for name in names]
    uv("pip", "install", "--no-deps", "--python", home / "bin/python", *parts)
    # What others wrote comes from here, where the lock has put it. Our own packages do not: they
    # are here by way of .pth files, and those of a folder that a .pth file names are not read.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


@pytest.mark.parametrize(
    ("service", "other"), [("images", "artifacts"), ("artifacts", "images")], ids=lambda each: each
)
def test_a_service_is_installed_without_the_other(
    wheels: dict[str, Path], tmp_path: Path, service: str, other: str
) -> None:
    programs = alone(service, wheels, tmp_path)
    where = run(programs / "python", "-c", f"import diptych_{service}; print(diptych_{service})")
    assert str(tmp_path) in where
    with pytest.raises(AssertionError, match=f"No module named 'diptych_{other}'"):
        run(programs / "python", "-c", f"import diptych_{other}")
    assert "Serve the API" in run(programs / f"diptych-{service}", "--help")


@pytest.mark.parametrize("service", ["images", "artifacts"])
def test_the_wheels_have_the_migrations(
    wheels: dict[str, Path], tmp_path: Path, empty_database: str, service: str
) -> None:
    program = alone(service, wheels, tmp_path) / f"diptych-{service}"
    connection = {f"DIPTYCH_{service.upper()}__DATABASE__CONNECTION": empty_database}
    run(program, "db", "upgrade", environment=connection)
    run(program, "db", "check", environment=connection)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("service", ["images", "artifacts"])
def test_a_service_passes_its_tests_without_the_other(
    wheels: dict[str, Path], tmp_path: Path, service: str
) -> None:
    programs = alone(service, wheels, tmp_path, "diptych-artifacts-sample")
    folder = ROOT / "tests" / service
    ignored = [f"--ignore={file}" for file in folder.glob("test_*.py") if _needs_both(file)]
    assert len(ignored) < len(list(folder.glob("test_*.py"))) / 4
    told = run(
        *(programs / "python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"),
        *("-p", "no:cacheprovider", *ignored, str(folder)),
        environment={"PYTHONPATH": str(ROOT / "deploy")},
        cwd=ROOT,
    )
    assert " passed" in told


def _needs_both(file: Path) -> bool:
    """Whether a module of tests looks at the repository as a whole, or at both services."""
    text = file.read_text()
    other = "artifacts" if file.parent.name == "images" else "images"
    names = ("dev.routes", "dev.documents", f"diptych_{other}", f"tests.{other}", "import_crashes")
    return any(name in text for name in names)


def uv(*arguments: str | Path) -> None:
    run(Path(sys.executable).with_name("uv"), "--quiet", "--offline", *arguments)


def run(
    *command: str | Path, environment: dict[str, str] | None = None, cwd: Path = Path("/")
) -> str:
    taken = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_")
    ours = {k: v for k, v in os.environ.items() if not k.startswith(taken)}
    done = subprocess.run(
        command,
        env={**ours, **(environment or {})},
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
