"""What a service's `config sample | check | show` print, and the settings page of the manual."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final, cast

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from diptych_common.logs import HIDDEN, redact
from diptych_common.settings import Loaded, expected, notes_of

_WIDTH: Final = 100

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


def check(loaded: Loaded[BaseModel]) -> list[str]:
    """A line for every option that is unknown or has no effect, and for every remark.

    Empty: the files are read exactly as they were meant.
    """
    unknown = [
        f"{one.file}: [{one.section}] {one.option} is unknown and ignored" for one in loaded.unknown
    ]
    unused = [
        f"{one.file}: [{one.section}] {one.option} has no effect: {one.reason}"
        for one in loaded.unused
    ]
    return [*unknown, *unused, *loaded.remarks]


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
