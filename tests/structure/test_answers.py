"""docs/security.md and docs/acceptance.md name tests that there are."""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dev.documents import ROOT

SECURITY, ACCEPTANCE = "docs/security.md", "docs/acceptance.md"
NOT_OURS = "What does not concern it"
TEST = re.compile(r"`(tests/[^`]+)`")
ADVISORY = re.compile(r"\b(?:CVE-\d{4}-\d{4,}|OSSA-\d{4}-\d{3}|OSSN-\d{4})\b")


@dataclass(frozen=True)
class Entry:
    """A point of a page: the heading that it is under, what it says, the tests that it names."""

    heading: str
    text: str
    tests: tuple[str, ...]


def entries(page: str) -> Iterator[Entry]:
    for part in (ROOT / page).read_text().split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        for point in re.split(r"^- ", body, flags=re.MULTILINE)[1:]:
            text = " ".join(TEST.sub("", point).split())
            yield Entry(heading, text, tuple(TEST.findall(point)))


ENTRIES = [*entries(SECURITY), *entries(ACCEPTANCE)]


@functools.cache
def decorators_in(module: str) -> dict[str, str]:
    """The tests of a module, `Class::test` for those in a class, each with its decorators."""
    found: dict[str, str] = {}
    for node in ast.parse((ROOT / module).read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for each in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = " ".join(ast.unparse(one) for one in each.decorator_list)
                found[prefix + each.name] = marks
    return found


@pytest.mark.parametrize("page", [SECURITY, ACCEPTANCE])
def test_a_page_names_tests_that_run(page: str) -> None:
    named = {test for entry in entries(page) for test in entry.tests}
    assert len(named) > 50
    missing: list[str] = []
    for test in sorted(named):
        module, _, name = test.partition("::")
        marks = decorators_in(module).get(name) if (ROOT / module).is_file() else None
        # Others than `make test` runs.
        if marks is None or re.match(r"pytest\.mark\.(long|crash|compat)\b", marks):
            missing.append(test)
    assert missing == []


def test_every_point_names_a_test_or_says_why_not() -> None:
    for entry in ENTRIES:
        assert entry.text
        assert bool(entry.tests) is (entry.heading != NOT_OURS), entry.text


def test_nothing_is_said_twice() -> None:
    texts = [entry.text for entry in ENTRIES]
    assert len(texts) == len(set(texts))
    advisories = [id for entry in entries(SECURITY) for id in ADVISORY.findall(entry.text)]
    assert len(advisories) == len(set(advisories))


def test_every_advisory_that_is_cited_is_on_the_page() -> None:
    listed = {id for entry in entries(SECURITY) for id in ADVISORY.findall(entry.text)}
    assert len(listed) > 60
    names = subprocess.run(
        ["git", "ls-files", "-z", "libs", "services", "tests", "docs"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    cited = {
        id
        for name in filter(None, names)
        # A file that is deleted and not yet committed is listed too.
        if (ROOT / name).suffix in (".py", ".md") and (ROOT / name).is_file()
        for id in ADVISORY.findall((ROOT / name).read_text())
    }
    assert cited - listed == set()
