"""The command line of the images service."""

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
from diptych_common.command_line import (
    AsJson,
    BackgroundJobs,
    ConfigDirs,
    ConfigFiles,
    Service,
    StoreReports,
    commands,
)
from diptych_common.database import Database
from diptych_common.outbound import Outbound
from diptych_common.settings import Loaded
from diptych_store import report
from diptych_store.errors import StoreError
from diptych_store.registry import open_store
from diptych_store.report import Report

from diptych_images import app as application
from diptych_images import catalogue as files
from diptych_images import deletion, marks, policies, readers, removal, settings
from diptych_images import explain as explanation
from diptych_images.db import explain as everything
from diptych_images.db.images import ImageRow
from diptych_images.db.metadefs import namespaces
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.imports import plugins
from diptych_images.settings import ImagesSettings
from diptych_images.wire.metadef import NewNamespace


def _with_leftovers(loaded: Loaded[ImagesSettings]) -> Loaded[ImagesSettings]:
    loaded = settings.with_leftovers(loaded)
    return dataclasses.replace(loaded, remarks=(*loaded.remarks, *plugins.missing(loaded.settings)))


def _describe_stores(loaded: Loaded[ImagesSettings]) -> Report:
    return report.describe(settings.stores(loaded))


async def _check_stores(
    loaded: Loaded[ImagesSettings], names: Sequence[str], seconds: float
) -> Report:
    outbound = Outbound(loaded.settings.outbound)
    return await report.check(settings.stores(loaded), names, seconds=seconds, outbound=outbound)


async def _adopt_store(loaded: Loaded[ImagesSettings], name: str) -> str:
    (config,) = report.named(settings.stores(loaded), [name])
    async with Database(loaded.settings.database, application_name="diptych-images-adopt") as db:
        store = await open_store(config)
        try:
            has_marks = await marks.adopt(db, store)
        finally:
            await store.aclose()
    if has_marks:
        return f"Other nodes have to have the directories that store {name} has here."
    return f"Store {name} is not compared between nodes: there is nothing to adopt."


SERVICE = Service(
    name="diptych-images",
    model=settings.ImagesSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=policies.RULES,
    migrations="diptych_images.migrations",
    refusals=(ValueError, StoreError),  # the store library's settings errors are among the first
    with_leftovers=_with_leftovers,
    stores=StoreReports(describe=_describe_stores, check=_check_stores, adopt=_adopt_store),
    jobs=BackgroundJobs(table=jobs_table, can_retry=(removal.JOB, readers.JOB, deletion.JOB)),
)

main = commands(SERVICE)


@main.command()
def worker(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Run background jobs only, until SIGTERM or Ctrl-C."""
    loaded = SERVICE.settings(config_file, config_dir)
    with SERVICE.explained():
        SERVICE.configure_logs(loaded)
        asyncio.run(application.run_worker(loaded))


@main.command()
def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image's id.")],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    as_json: AsJson = False,
) -> None:
    """Tell who holds an image, since when, what failed last, and what comes next."""
    loaded = SERVICE.settings(config_file, config_dir)

    async def found() -> everything.Explained | None:
        name = "diptych-images-explain"
        async with (
            Database(loaded.settings.database, application_name=name) as db,
            db.read() as connection,
        ):
            return await everything.of_image(connection, image)

    with SERVICE.explained():
        explained = asyncio.run(found())
    if explained is None:
        typer.echo(f"{SERVICE.name}: There is and was no image {image}.", err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(orjson.dumps(explanation.document(explained)))
        return
    for line in explanation.lines(explained):
        typer.echo(line)


@main.command()
def scrub(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Delete for good what was deleted longer ago than scrub_time; workers remove the bytes.

    They do it by themselves: this is for images of a Glance's database, and for the impatient.
    """
    loaded = SERVICE.settings(config_file, config_dir)

    async def scrubbed() -> int:
        async with Database(
            loaded.settings.database,
            application_name="diptych-images-scrub",
            wants_event=loaded.settings.wants_event,
        ) as db:
            return await deletion.scrub_all(db, loaded.settings)

    with SERVICE.explained():
        number = asyncio.run(scrubbed())
    typer.echo(f"Images deleted for good: {number}.")


@main.command()
def restore(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image's id.")],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Bring back an image that is pending_delete: its scrub_time is not over."""
    loaded = SERVICE.settings(config_file, config_dir)

    async def restored() -> ImageRow | None:
        async with Database(
            loaded.settings.database,
            application_name="diptych-images-restore",
            wants_event=loaded.settings.wants_event,
        ) as db:
            return await deletion.restore(db, image)

    with SERVICE.explained():
        row = asyncio.run(restored())
    if row is None:
        typer.echo(f"{SERVICE.name}: There is no image {image} that can be restored.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Image {row['id']} is {row['status']} again.")


metadefs = typer.Typer(no_args_is_help=True, help="Metadata definitions in Glance's JSON files.")
main.add_typer(metadefs, name="metadefs")


@metadefs.command()
def load(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, help="The directory, or one file.")
    ],
    merge: Annotated[
        bool, typer.Option("--merge", help="Add to namespaces that are there what they lack.")
    ] = False,
    prefer_new: Annotated[
        bool, typer.Option("--prefer-new", help="With --merge: replace what they have, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make namespaces that are there anew.")
    ] = False,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Load namespaces, all files or none; those that are there stay as they are."""
    if (prefer_new and not merge) or (overwrite and merge):
        raise typer.BadParameter("--prefer-new goes with --merge, --overwrite without it.")
    merged: files.Mode = "prefer_new" if prefer_new else "merge"
    mode: files.Mode = "overwrite" if overwrite else merged if merge else "skip"
    loaded = SERVICE.settings(config_file, config_dir)

    async def put(new: Sequence[NewNamespace]) -> files.Loaded:
        async with _metadefs_database(loaded) as db, db.write() as connection:
            return await files.load(connection, new, mode)

    with SERVICE.explained():
        done = asyncio.run(put(files.read(path)))
    for word, names in (
        ("made", done.created),
        ("changed", done.changed),
        ("left alone", done.skipped),
    ):
        for name in names:
            typer.echo(f"{word} {name}")


@metadefs.command()
def unload(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove all namespaces, protected ones too, and all resource types."""
    loaded = SERVICE.settings(config_file, config_dir)

    async def remove() -> list[str]:
        async with _metadefs_database(loaded) as db, db.write() as connection:
            return await files.unload(connection)

    with SERVICE.explained():
        for name in asyncio.run(remove()):
            typer.echo(f"removed {name}")


@metadefs.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False)],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Write a file for each namespace into a directory, over those that are there."""
    loaded = SERVICE.settings(config_file, config_dir)

    async def found() -> list[namespaces.NamespaceRow]:
        async with _metadefs_database(loaded) as db, db.read() as connection:
            return await namespaces.everything(connection)

    with SERVICE.explained():
        for file in files.write(asyncio.run(found()), directory):
            typer.echo(f"wrote {file}")


def _metadefs_database(loaded: Loaded[ImagesSettings]) -> Database:
    return Database(
        loaded.settings.database,
        application_name="diptych-images-metadefs",
        wants_event=loaded.settings.wants_event,
    )
