"""`artifact list|show|create|update|delete`, and what changes status, visibility and tags."""

import argparse
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pprint import pformat
from typing import Any, Final

from cliff.columns import FormattableColumn
from osc_lib.command import command

from diptych_artifactclient.client import Artifacts, Document
from diptych_artifactclient.commands.arguments import (
    add_artifact,
    add_properties,
    add_type,
    artifact_id,
    pair,
    properties,
    service,
)
from diptych_artifactclient.errors import BadArgument

Table = tuple[Sequence[str], Iterable[Sequence[Any]]]

_LISTED: Final = ("id", "name", "version", "owner", "visibility", "status")


class BlobColumn(FormattableColumn[object]):
    """A blob: over several lines for people, as it is for programs."""

    def human_readable(self) -> str:
        """As glareclient shows it."""
        return pformat(self._value)


def fields(client: Artifacts, type_name: str, artifact: Document) -> Table:
    """All that there is of an artifact, with the type of each field."""
    schema = client.schema(type_name)["properties"]
    rows = [
        (
            name,
            BlobColumn(value) if _kind(schema, name) == "Blob" else value,
            _kind(schema, name),
        )
        for name, value in artifact.items()
    ]
    return ("Field", "Value", "Glare type"), rows


def _kind(schema: dict[str, Document], name: str) -> str:
    # Types may show what no schema has.
    return str(schema.get(name, {}).get("glareType", ""))


class ListArtifacts(command.Lister):
    """List of artifacts"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        add_type(parser)
        parser.add_argument(
            "--limit",
            "-l",
            metavar="<LIMIT>",
            type=_count,
            default=20,
            help="Maximum number of artifacts to get (default: 20); 0 for all.",
        )
        parser.add_argument(
            "--page-size",
            "-p",
            metavar="<SIZE>",
            type=_count,
            default=20,
            help="Number of artifacts to request in each paginated request (default: 20).",
        )
        parser.add_argument(
            "--filter",
            "-F",
            metavar="<KEY=VALUE>",
            action="append",
            default=[],
            help="Field and [operator:]value that it has to have; can be repeated.",
        )
        parser.add_argument(
            "--sort",
            "-S",
            metavar="<key>[:<direction>]",
            default="name:asc",
            help="Comma-separated list of sort keys and directions in the form of"
            " <key>[:<asc|desc>] (default: name:asc).",
        )
        parser.add_argument(
            "--marker",
            "-m",
            metavar="<MARKER>",
            help="Id of the last artifact of the list before.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for pages until there are enough."""
        for one in parsed_args.sort.split(","):
            _, _, direction = one.partition(":")
            if direction not in ("", "asc", "desc"):
                raise BadArgument(f"{direction!r} is no direction to sort in: asc and desc are.")
        columns: list[str] = list(_LISTED)
        if parsed_args.type_name == "all":
            columns.insert(3, "type_name")
        found = service(self).list(
            parsed_args.type_name,
            filters=[pair(text) for text in parsed_args.filter],
            sort=parsed_args.sort,
            marker=parsed_args.marker,
            limit=parsed_args.limit or None,
            page_size=parsed_args.page_size or 20,
        )
        heads = [column.capitalize().replace("_", " ") for column in columns]
        return heads, [[one[column] for column in columns] for one in found]


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


class CreateArtifact(command.Lister):
    """Create a new artifact"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        add_type(parser)
        parser.add_argument("name", metavar="<NAME>", help="Name of the artifact.")
        parser.add_argument(
            "--artifact-version",
            "-V",
            metavar="<VERSION>",
            default="0.0.0",
            help="Version of the artifact (default: 0.0.0).",
        )
        add_properties(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Create a draft, show it."""
        client = service(self)
        wanted = {
            **properties(parsed_args),
            "name": parsed_args.name,
            "version": parsed_args.artifact_version,
        }
        created = client.create(parsed_args.type_name, wanted)
        return fields(client, parsed_args.type_name, created)


class DeleteArtifact(command.Command):
    """Delete the artifact"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        add_artifact(parser, what="to delete")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete it with its blobs."""
        client = service(self)
        client.delete(parsed_args.type_name, artifact_id(client, parsed_args))


class _OneArtifact(command.Lister):
    """A command on one artifact, which shows all of it in the end."""

    what: str

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        add_artifact(parser, what=self.what)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Find it, act on it, show it."""
        client = service(self)
        found = artifact_id(client, parsed_args)
        return fields(client, parsed_args.type_name, self.act(client, found, parsed_args))

    @abstractmethod
    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Do it to the artifact with the id `found`; the artifact after it."""


class ShowArtifact(_OneArtifact):
    """Show details artifact"""

    what = "to show"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Nothing more."""
        return client.show(given.type_name, found)


class UpdateArtifact(_OneArtifact):
    """Update the properties of the artifact"""

    what = "to update"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--remove-property",
            "-r",
            metavar="<key>",
            action="append",
            default=[],
            help="Property that will get its default; with dict/key or list/index, what to remove.",
        )
        add_properties(parser)
        return parser

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Change all in one request."""
        wanted = properties(given)
        changes = [_removal(name) for name in given.remove_property if name not in wanted]
        changes += [
            {"op": "add", "path": f"/{name}", "value": value} for name, value in wanted.items()
        ]
        return client.change(given.type_name, found, changes)


def _removal(name: str) -> dict[str, object]:
    field, element, key = name.partition("/")
    if not element:
        return {"op": "replace", "path": f"/{field}", "value": None}
    # A key may have slashes; `~` is taken for the beginning of an escape, as glareclient does.
    return {"op": "remove", "path": f"/{field}/{key.replace('/', '~1')}"}


class ActivateArtifact(_OneArtifact):
    """Activate the artifact"""

    what = "to activate"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Change its status."""
        return client.set(given.type_name, found, status="active")


class DeactivateArtifact(_OneArtifact):
    """Deactivate the artifact"""

    what = "to deactivate"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Change its status."""
        return client.set(given.type_name, found, status="deactivated")


class ReactivateArtifact(_OneArtifact):
    """Reactivate the artifact"""

    what = "to reactivate"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Change its status."""
        return client.set(given.type_name, found, status="active")


class PublishArtifact(_OneArtifact):
    """Publish the artifact"""

    what = "to publish"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Change its visibility."""
        return client.set(given.type_name, found, visibility="public")


class _OneTag(_OneArtifact):
    """A command on one tag."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = command.Lister.get_parser(self, prog_name)
        add_artifact(parser, ("tag", "<TAG>", f"Tag {self.what}."), what="that has the tag")
        return parser


class AddTag(_OneTag):
    """Add tag to artifact"""

    what = "to add"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Add it unless it is there."""
        return client.add_tag(given.type_name, found, given.tag)


class RemoveTag(_OneTag):
    """Remove tag from the artifact"""

    what = "to remove"

    def act(self, client: Artifacts, found: str, given: argparse.Namespace) -> Document:
        """Remove it if it is there."""
        return client.remove_tag(given.type_name, found, given.tag)
