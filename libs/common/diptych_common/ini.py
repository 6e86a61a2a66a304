"""Read INI files as oslo.config reads them, keeping for every value where it was written.

Neither `configparser` nor a TOML reader will do: operators' files repeat options and sections,
hold `%` and `$` in passwords, and wrap lists over indented lines.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Value:
    """The text of one assignment and its place, `/path/of/file:line` or `environment NAME`."""

    text: str
    source: str


# Section → option → its values in the order of their appearance.
Sections = dict[str, dict[str, list[Value]]]


class IniError(Exception):
    """A file that cannot be read or understood; the message names file and line.

    It does not quote the line, which may be the rest of a secret.
    """


def read(path: Path, into: Sections) -> None:
    """Add the assignments of a file to `into`; those already there stay before the new ones.

    Section names are kept as written. Raises IniError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IniError(f"{path}: cannot be read: {error}") from error
    parse(text.split("\n"), into, name=str(path))


def parse(lines: Iterable[str], into: Sections, *, name: str) -> None:
    """Add the assignments of `lines` to `into`; `name` stands for the file in messages.

    The first of `=` and `:` ends an option's name; one pair of quotes around a value is removed;
    an indented line continues the value before it, even if it looks like a comment; `#` and `;`
    begin a comment only at the start of a line. Nothing is substituted: `%` and `$` are themselves.

    Source: oslo.config 10.7, iniparser.
    """
    section: dict[str, list[Value]] | None = None
    current: tuple[str, list[str], int] | None = None

    def flush() -> None:
        nonlocal current
        if current is None or section is None:
            return
        option, parts, number = current
        section.setdefault(option, []).append(Value("\n".join(parts), f"{name}:{number}"))
        current = None

    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip()
        if line.startswith((" ", "\t")):
            if current is None:
                raise IniError(f"{name}:{number}: an indented line continues nothing")
            current[1].append(line.lstrip())
            continue
        flush()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            if not line.endswith("]") or len(line) == 2:
                raise IniError(f"{name}:{number}: expected [section]")
            section = into.setdefault(line[1:-1], {})
            continue
        option, value = _split(line, f"{name}:{number}")
        if section is None:
            raise IniError(f"{name}:{number}: {option} stands before the first [section]")
        current = (option, [value], number)
    flush()


def _split(line: str, place: str) -> tuple[str, str]:
    ends = [end for end in (line.find("="), line.find(":")) if end >= 0]
    if not ends:
        raise IniError(f"{place}: expected option = value")
    option, value = line[: min(ends)].strip(), line[min(ends) + 1 :].strip()
    if not option:
        raise IniError(f"{place}: an assignment without a name")
    if value[:1] in ("'", '"') and value[0] == value[-1]:
        value = value[1:-1]
    return option, value
