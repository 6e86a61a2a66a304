"""What none of our distributions does, for it has cost other services their hosts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from dev.documents import ROOT

# Sent to a shell, or turned into code or objects, a value of a client's could be a program.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn",
    "asyncio.create_subprocess_shell", "subprocess.getoutput", "subprocess.getstatusoutput",
    "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for folder in ("libs", "services") for path in (ROOT / folder).rglob("*.py"))


def findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The lines where something is that should not be, and what it is."""
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield node.lineno, "assert"
            case ast.Call(func=called, keywords=keywords):
                if (name := ast.unparse(called)) in FORBIDDEN:
                    yield node.lineno, name
                if any(word.arg == "shell" for word in keywords):
                    yield node.lineno, "shell"
            case _:
                pass


def test_no_check_is_an_assertion_and_nothing_gets_to_a_shell() -> None:
    """OSSN-0048 (`python -O` leaves out assertions), OSSA-2014-012 (CVE-2014-0162)."""
    assert len(modules()) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in modules()
        for line, what in findings(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def f(x):\n    assert x", "assert"),
        ("subprocess.run(x, shell=True)", "shell"),
        ("os.system(x)", "os.system"),
        ("y = pickle.loads(x)", "pickle.loads"),
    ],
)
def test_the_check_sees_what_it_is_for(source: str, what: str) -> None:
    assert [found for _, found in findings(ast.parse(source))] == [what]
