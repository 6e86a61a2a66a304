"""What a service's `config sample | check | show` print, and the settings page of the manual."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from diptych_common.logs import HIDDEN, redact
from diptych_common.settings import Loaded, expected, notes_of

_WIDTH: Final = 100
_IGNORED: Final = "nobody reads it"

# Options of sections that other parts read, if somebody misspells the name of a secret one.
_SECRET_OPTION: Final = re.compile(r"(?i)password|secret|token|key")


# Sections that may come several times, each under a name of the operator's, and their options.
Named = Mapping[str, type[BaseModel]]


def sample(model: type[BaseModel], *, named: Named | None = None) -> str:
    """A commented INI file with every option, its description, and its default."""
    lines: list[str] = []
    for section, summary, options in (*_sections(model), *_named_sections(named or {})):
        lines += [f"[{section}]", *_comment(summary), ""]
        for name, field in options:
            lines += [
                *_comment(field.description or ""),
                *_comment(f"Takes {expected(field)}."),
                f"# {name} = {_text(field.default)}".rstrip(),
                "",
            ]
    return "\n".join(lines)


def effective(loaded: Loaded[BaseModel]) -> dict[str, dict[str, object]]:
    """The values in force by section, as JSON has them; secrets and URLs' credentials are hidden.

    Sections that other parts read are given as they are written.
    """
    return {
        **{
            section: {
                name: _without_secrets(getattr(_group(loaded.settings, section), name), field)
                for name, field in options
            }
            for section, _, options in _sections(type(loaded.settings))
        },
        **{
            section: {
                name: HIDDEN
                if text and (name in loaded.secret or _SECRET_OPTION.search(name))
                else redact(text)
                for name, text in loaded.sections[section].items()
            }
            for section in loaded.elsewhere
            if section in loaded.sections
        },
    }


def show(loaded: Loaded[BaseModel]) -> str:
    """The values in force as an INI file, hidden as by `effective`."""
    lines: list[str] = []
    for section, options in effective(loaded).items():
        lines += [f"[{section}]"]
        lines += [f"{name} = {_text(value)}".rstrip() for name, value in options.items()]
        lines += [""]
    return "\n".join(lines)


Outcome = Literal["used", "renamed", "obsolete", "unsupported", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an assignment; `reason` says why, and is empty for one that is used."""

    file: str
    section: str
    option: str
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        """One line."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.file}: [{self.section}] {self.option} is {self.outcome}{why}"


def verdicts(loaded: Loaded[BaseModel]) -> list[Verdict]:
    """What becomes of each option that is set anywhere, in the order of the files.

    Of one that is set several times the last one counts. An unsupported one asks for what is not to
    be had, an obsolete one for what needs no asking.
    """
    found = {
        (one.section, one.option): one
        for one in (
            *(
                Verdict(one.file, one.section, one.option, "unknown", _IGNORED)
                for one in loaded.unknown
            ),
            *(
                Verdict(one.file, one.section, one.option, one.kind, one.reason)
                for one in loaded.unused
            ),
            *(
                Verdict(
                    *(one.file, one.section, one.option, "renamed"),
                    reason=f"it is [{one.new_section}] {one.new_option}",
                )
                for one in loaded.renamed
            ),
        )
    }
    return [
        found.pop((section, option), Verdict(file, section, option, "used"))
        for (section, option), file in loaded.places.items()
    ]


def check(loaded: Loaded[BaseModel]) -> list[str]:
    """A line for every option that is not used under its name, and for every remark.

    Empty: the files are read exactly as they were meant.
    """
    told = [one for one in verdicts(loaded) if one.outcome != "used"]
    return [*map(str, told), *loaded.remarks]


def document(model: type[BaseModel], *, named: Named | None = None) -> str:
    """The options as Markdown: a third-level heading and a table for each section."""
    lines: list[str] = []
    for section, summary, options in (*_sections(model), *_named_sections(named or {})):
        lines += [f"### [{section}]", "", summary, "", "| Option | Default | Takes | |"]
        lines.append("| --- | --- | --- | --- |")
        for name, field in options:
            default = _text(field.default)
            cells = [
                f"`{name}`",
                f"`{default}`" if default else "",
                expected(field),
                field.description or "",
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _sections(
    model: type[BaseModel],
) -> Iterator[tuple[str, str, list[tuple[str, FieldInfo]]]]:
    """Name, summary and options of each section."""
    for name, field in model.model_fields.items():
        group = cast("type[BaseModel]", field.annotation)
        section = "DEFAULT" if name == "default" else name
        yield section, _summary(group), list(group.model_fields.items())


def _named_sections(
    named: Named,
) -> Iterator[tuple[str, str, list[tuple[str, FieldInfo]]]]:
    for section, group in named.items():
        yield section, _summary(group), list(group.model_fields.items())


def _summary(group: type[BaseModel]) -> str:
    _, _, summary = " ".join((group.__doc__ or "").split()).partition(": ")
    return summary[:1].upper() + summary[1:]


def _group(settings: BaseModel, section: str) -> BaseModel:
    return cast(BaseModel, getattr(settings, "default" if section == "DEFAULT" else section))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 2, initial_indent="# ", subsequent_indent="# ")


def _without_secrets(value: object, field: FieldInfo) -> object:
    if isinstance(value, SecretStr):
        return HIDDEN
    if not isinstance(value, str):
        return HIDDEN if value and notes_of(field)["secret"] else value
    # What is secret but a URL still tells which server it is.
    is_shown = not notes_of(field)["secret"] or "://" in value or not value
    return redact(value) if is_shown else HIDDEN


def _text(value: object) -> str:
    """The value as an INI file has it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(str(item) for item in cast("tuple[object, ...]", value))
        case float():
            return f"{value:g}"
        case str():
            return value.replace("\n", "\n    ")  # the next lines of a value are indented
        case _:
            return str(value)
