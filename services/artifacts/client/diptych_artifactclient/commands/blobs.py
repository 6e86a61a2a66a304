"""`artifact upload|download|location|remove-location`."""

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from osc_lib.command import command

from diptych_artifactclient import progress, transfers
from diptych_artifactclient.client import Artifacts, Document
from diptych_artifactclient.commands.arguments import add_artifact, artifact_id, service
from diptych_artifactclient.errors import ArtifactError, BadArgument

Shown = tuple[Sequence[str], Sequence[Any]]


def _add_blob(parser: argparse.ArgumentParser, what: str) -> None:
    add_artifact(parser, what=what)
    parser.add_argument(
        "--blob-property",
        "-p",
        metavar="<BLOB_PROPERTY>",
        help="Name of the blob field, or folder/key (default: the type's only blob field).",
    )


def _add_transfer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--progress", action="store_true", help="Show a progress bar.")
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="Do not hold what was transferred against its checksum.",
    )


def _blob(client: Artifacts, given: argparse.Namespace) -> str:
    """The blob that is named, or that there is no other. Raises BadArgument."""
    if given.blob_property:
        return str(given.blob_property)
    fields = client.schema(given.type_name)["properties"]
    blobs = [name for name, field in fields.items() if field.get("glareType") == "Blob"]
    if len(blobs) == 1:
        return blobs[0]
    has = f"these: {', '.join(blobs)}" if blobs else "none that is no folder"
    raise BadArgument(
        f"Name one of the blob fields of {given.type_name} with --blob-property. It has {has}."
    )


def _of(artifact: Document, blob: str) -> Document:
    """What the artifact shows of the blob. Raises ArtifactError if that is nothing."""
    field, folder, key = blob.partition("/")
    of_field: Document = artifact[field] or {}
    shown: Document | None = of_field.get(key) if folder else of_field
    if not shown:
        raise ArtifactError(f"The service has no blob {blob} after that.")
    return shown


def _shown(artifact: Document, blob: str) -> Shown:
    row = {"blob_property": blob, **_of(artifact, blob)}
    return tuple(row), tuple(row.values())


class UploadBlob(command.ShowOne):
    """Upload blob"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        _add_blob(parser, what="to upload to")
        parser.add_argument(
            "--file",
            metavar="<FILE_PATH>",
            type=Path,
            help="Local file that contains data to be uploaded (default: standard input).",
        )
        parser.add_argument(
            "--content-type",
            "-C",
            metavar="<CONTENT_TYPE>",
            default="application/octet-stream",
            help="Content-type of the blob (default: application/octet-stream).",
        )
        _add_transfer(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        """Send the data, and see that it arrived."""
        client = service(self)
        with _source(parsed_args.file) as file, progress.bar(wanted=parsed_args.progress) as watch:
            found = artifact_id(client, parsed_args)
            blob = _blob(client, parsed_args)
            data = transfers.Outgoing(file, watch)
            artifact = client.upload(
                parsed_args.type_name, found, blob, data, parsed_args.content_type
            )
        if parsed_args.verify:
            expected = transfers.Checksum("sha256", _of(artifact, blob)["sha256"])
            transfers.compare(data.sha256, expected)
        return _shown(artifact, blob)


@contextmanager
def _source(path: Path | None) -> Generator[BinaryIO]:
    if path is not None:
        try:
            file = path.open("rb")
        except OSError as error:
            raise BadArgument(f"{path} cannot be read: {error.strerror}.") from None
        with file:
            yield file
    elif sys.stdin.isatty():
        raise BadArgument("Name a file with --file, or redirect standard input.")
    else:
        yield sys.stdin.buffer


class DownloadBlob(command.Command):
    """Download blob"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        _add_blob(parser, what="to download from")
        parser.add_argument(
            "--file",
            metavar="<FILE>",
            type=Path,
            help="Local file to save the blob to (default: standard output, unless it is a"
            " terminal). What <FILE>.part has of the blob already is not fetched again.",
        )
        _add_transfer(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Fetch what is missing, and see that it is what was stored."""
        if parsed_args.file is None and sys.stdout.isatty():
            raise BadArgument("Name a file with --file, or redirect standard output.")
        client = service(self)
        found = artifact_id(client, parsed_args)
        blob = _blob(client, parsed_args)
        fetch = partial(client.download, parsed_args.type_name, found, blob)
        with progress.bar(wanted=parsed_args.progress) as watch:
            if parsed_args.file is None:
                transfers.write(fetch, sys.stdout.buffer, verify=parsed_args.verify, watch=watch)
            else:
                transfers.save(fetch, parsed_args.file, verify=parsed_args.verify, watch=watch)


class AddLocation(command.ShowOne):
    """Add external location"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        _add_blob(parser, what="to add a location to")
        parser.add_argument(
            "--url", metavar="<URL>", help="External location that contains the data."
        )
        for algorithm in ("md5", "sha1", "sha256"):
            parser.add_argument(
                f"--{algorithm}", metavar="<CHECKSUM>", help=f"The data's {algorithm}, in hex."
            )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        """Give the blob a location."""
        client = service(self)
        found = artifact_id(client, parsed_args)
        blob = _blob(client, parsed_args)
        named = ("url", "md5", "sha1", "sha256")
        location = {name: getattr(parsed_args, name) for name in named}
        return _shown(client.add_location(parsed_args.type_name, found, blob, location), blob)


class RemoveLocation(command.ShowOne):
    """Remove external location"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        _add_blob(parser, what="to remove the location from")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        """Take the blob's location away."""
        client = service(self)
        found = artifact_id(client, parsed_args)
        blob = _blob(client, parsed_args)
        client.remove_location(parsed_args.type_name, found, blob)
        return ("blob_property",), (blob,)
