"""What several commands are told: types, artifacts, properties."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, Protocol, cast

from diptych_artifactclient.client import Artifacts
from diptych_artifactclient.errors import BadArgument
from diptych_artifactclient.plugin import API_NAME

_TYPES = (
    "images",
    "heat_templates",
    "heat_environments",
    "tosca_templates",
    "murano_packages",
    "secrets",
)
_WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s][^",]*?))\s*(?:,|$)')


class _Commanded(Protocol):
    @property
    def app(self) -> Any: ...


def service(command: _Commanded) -> Artifacts:
    """The service of the cloud that the command is for."""
    return cast(Artifacts, getattr(command.app.client_manager, API_NAME))


def type_name(given: str) -> str:
    """A type as the service names it, for `heat-template`, say; an unknown one as it is."""
    name = given.replace("-", "_")
    return next((known for known in _TYPES if name in (known, known.removesuffix("s"))), given)


def add_type(parser: argparse.ArgumentParser) -> None:
    """The type, first."""
    parser.add_argument(
        "type_name", metavar="<TYPE_NAME>", type=type_name, help="Name of artifact type."
    )


def add_artifact(parser: argparse.ArgumentParser, *more: tuple[str, str, str], what: str) -> None:
    """The type and one artifact by its name; and `more` by positions, (name, metavar, help)."""
    add_type(parser)
    parser.add_argument(
        "name", metavar="<NAME>", help=f"Name of the artifact {what}; with --id, its id."
    )
    for name, metavar, explained in more:
        parser.add_argument(name, metavar=metavar, help=explained)
    parser.add_argument(
        "--artifact-version",
        "-V",
        metavar="<VERSION>",
        default="latest",
        help="Version of the artifact (default: the latest one).",
    )
    parser.add_argument(
        "--id", "-i", action="store_true", help="Take the name for the id of the artifact."
    )


def artifact_id(client: Artifacts, given: argparse.Namespace) -> str:
    """The id of the artifact that is named; without --id, the service is asked for it."""
    if given.id:
        return str(given.name)
    return str(client.find(given.type_name, given.name, given.artifact_version)["id"])


def add_properties(parser: argparse.ArgumentParser) -> None:
    """Values of fields."""
    for option, short, explained in (
        ("--property", "-p", "Simple artifact property."),
        ("--list", "-l", "Artifact list property: key=value,value (quoted where one has a comma)."),
        ("--dict", "-d", "Artifact dict property: key=name:value,name:value."),
    ):
        parser.add_argument(
            option, short, metavar="<key=value>", action="append", default=[], help=explained
        )


def properties(given: argparse.Namespace) -> dict[str, object]:
    """The fields that are given values, as the service takes them. Raises BadArgument."""
    fields: dict[str, object] = dict(pair(text) for text in given.property)
    for text in given.list:
        key, value = pair(text)
        fields[key] = separated(value)
    for text in given.dict:
        key, value = pair(text)
        fields[key] = dict(pair(entry, ":") for entry in separated(value))
    return fields


def pair(text: str, separator: str = "=") -> tuple[str, str]:
    """What stands before and after the first separator. Raises BadArgument if there is none."""
    key, found, value = text.partition(separator)
    if not found or not key:
        raise BadArgument(f"{text!r} is not key{separator}value.")
    return key, value


def separated(text: str) -> Sequence[str]:
    """What stands between commas; in double quotes a comma is one, and a backslash escapes.

    Raises BadArgument.
    """
    values: list[str] = []
    position = 0
    while position < len(text) or (values and text[position - 1] == ","):
        found = _WORD.match(text, position)
        if found is None:
            raise BadArgument(f"{text!r} is no list of values between commas.")
        quoted, plain = found.groups()
        values.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        position = found.end()
    return values
