"""What no file of the project says: where it was written, and where packages are fetched from."""

import re
import subprocess

import pytest
from dev.documents import ROOT

# Each with why. A bracket keeps a pattern from being found in this file.
FORBIDDEN = {
    r"(?<![\w.])/wor[k]/": "a folder of one machine",
    r"(?<![\w.])/hom[e]/[a-z]": "a folder of one machine",
    r"\.\./share[d]": "notes that are not part of the project",
    r"pyp[i]\.org|pythonhoste[d]\.org": "who installs chooses the package index",
    r"npmj[s]\.|crate[s]\.io|prox[y]\.golang\.org": "who installs chooses the package index",
    r"^\s*--?(extra-)?index[-]url|^\s*--find[-]links": "who installs chooses the package index",
    r"https?://\S+\.wh[l]\b": "a lock that names an address",
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_says(pattern: str) -> None:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    forbidden = re.compile(pattern, re.MULTILINE)
    found: list[str] = []
    for name in filter(None, names):
        path = ROOT / name
        # A file that is deleted and not yet committed is listed too.
        text = path.read_text(errors="replace") if path.is_file() else ""
        found += [f"{name}: {match[0]}" for match in forbidden.finditer(text)]
    assert found == [], FORBIDDEN[pattern]


def test_the_patterns_find_what_they_are_for() -> None:
    said = [
        "".join(parts)
        for parts in (
            ("cd /wor", "k/main"),
            ("/hom", "e/somebody"),
            ("see ../share", "d/notes.md"),
            ("https://pyp", "i.org/simple"),
            ("https://registry.npmj", "s.org"),
            ("--index", "-url https://example.org"),
            ("https://example.org/x-1.0-py3-none-any.wh", "l"),
        )
    ]
    for text, pattern in zip(said, FORBIDDEN, strict=True):
        assert re.search(pattern, text)
