"""The command line of the images service."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from diptych_common.command_line import (
    AsJson,
    BackgroundJobs,
    ConfigDirs,
    ConfigFiles,
    Patient,
    Service,
    StoreReports,
    commands,
)
from diptych_common.database import Database
from diptych_common.doctor.findings import Examination
from diptych_common.doctor.front import Front
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.purge import Kept
from diptych_common.settings import Loaded
from diptych_store import report
from diptych_store.errors import StoreError
from diptych_store.registry import Stores, open_store
from diptych_store.report import Report

from diptych_images import app as application
from diptych_images import catalogue as files
from diptych_images import deletion, marks, policies, readers, removal, settings
from diptych_images import explain as explanation
from diptych_images.cache import upkeep as caches
from diptych_images.cache.directory import Directory
from diptych_images.db import deletion as deleted_images
from diptych_images.db import explain as everything
from diptych_images.db import tasks
from diptych_images.db.images import ImageRow, is_uuid
from diptych_images.db.metadefs import namespaces
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.db.tables import outbox
from diptych_images.imports import plugins
from diptych_images.settings import ImagesSettings
from diptych_images.wire.metadef import NewNamespace


def _with_leftovers(loaded: Loaded[ImagesSettings]) -> Loaded[ImagesSettings]:
    loaded = settings.with_leftovers(loaded)
    told = (*plugins.missing(loaded.settings), *settings.risks(loaded.settings))
    return dataclasses.replace(loaded, remarks=(*loaded.remarks, *told))


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


def _is_ours(document: Any) -> bool:
    return any(one["id"].startswith("v2.") for one in document["versions"])


def _links_of(document: Any) -> list[str]:
    return [link["href"] for one in document["versions"] for link in one["links"]]


def _front(loaded: Loaded[ImagesSettings]) -> Front:
    return Front(
        is_ours=_is_ours,
        links_of=_links_of,
        upload="/v2/images/00000000-0000-0000-0000-000000000000/file",
        largest=loaded.settings.default.image_size_cap,
    )


def _other_examinations(loaded: Loaded[ImagesSettings]) -> Mapping[str, Examination]:
    from diptych_common.doctor import servers

    found: dict[str, Examination] = {}
    messaging = servers.messaging_of(loaded.settings)
    if messaging is not None:
        found["messaging"] = messaging
    if loaded.settings.paste_deploy.identity == "keystone":
        found["barbican"] = servers.barbican(
            loaded.settings.barbican, loaded.settings.keystone_authtoken, service_type="image"
        )
    return found


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
    kept=(
        Kept("deleted images", deleted_images.count_purgeable, deleted_images.purge),
        Kept("tasks that have ended", tasks.count_ended, tasks.remove_ended),
    ),
    patient=Patient(
        service_type="image",
        flavor=lambda settings: settings.paste_deploy.identity,
        front=_front,
        outbox=outbox,
        others=_other_examinations,
    ),
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


cache = typer.Typer(
    no_args_is_help=True, help="The image cache of this node: what is in its directory."
)
main.add_typer(cache, name="cache")

Images = Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Ids of images.")]


@cache.command("list")
def cache_list(
    config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False
) -> None:
    """Show what is cached, whole or in part, and what is queued."""
    directory = _cache_directory(SERVICE.settings(config_file, config_dir))
    with SERVICE.explained():
        cached, queued = directory.cached(), directory.queued()
        used = directory.used()
    if as_json:
        images = [
            {
                "image_id": one.image.id,
                "size": one.image.size,
                "stored": one.stored,
                "hits": one.hits,
                "last_accessed": one.last_accessed,
                "verified": one.is_verified,
            }
            for one in cached
        ]
        document = {"images": images, "queued": queued, "used": used, "limit": directory.max_size}
        typer.echo(orjson.dumps(document))
        return
    for one in cached:
        part = 100 * one.stored // one.image.size
        last = datetime.fromtimestamp(one.last_accessed, UTC)
        state = "cached" if one.is_verified else f"{part} %"
        typer.echo(
            f"{one.image.id}  {state}  {one.image.size} bytes, {one.hits} hits,"
            f" last used {last:%Y-%m-%d %H:%M:%S} UTC"
        )
    for image in queued:
        typer.echo(f"{image}  queued")
    typer.echo(f"{used} of {directory.max_size} bytes are taken.")


@cache.command("queue")
def cache_queue(
    images: Images, config_file: ConfigFiles = None, config_dir: ConfigDirs = None
) -> None:
    """Have images fetched by the service, after cache_prefetcher_interval, or by `prefetch`."""
    directory = _cache_directory(SERVICE.settings(config_file, config_dir))
    with SERVICE.explained():
        directory.prepare()
        for image in _ids(images):
            directory.enqueue(image)
            typer.echo(f"queued {image}")


@cache.command("prefetch")
def cache_prefetch(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Fetch what is queued, now; exit code 1 if not all of it could be."""
    loaded = SERVICE.settings(config_file, config_dir)
    _cache_directory(loaded)

    async def prefetch() -> tuple[int, list[str]]:
        metrics = Metrics()
        outbound = Outbound(loaded.settings.outbound)
        name = "diptych-images-prefetch"
        async with (
            Database(loaded.settings.database, application_name=name) as db,
            Stores.open(settings.stores(loaded), outbound=outbound) as stores,
            caches.opened(loaded.settings, db, stores, metrics) as upkeep,
        ):
            if upkeep is None:
                return 0, []
            fetched = await upkeep.prefetch()
            return fetched, upkeep.cache.directory.queued()

    with SERVICE.explained():
        SERVICE.configure_logs(loaded)
        fetched, left = asyncio.run(prefetch())
    typer.echo(f"Images fetched: {fetched}.")
    if left:
        typer.echo(f"{SERVICE.name}: Still queued: {', '.join(left)}.", err=True)
        raise typer.Exit(1)


@cache.command("delete")
def cache_delete(
    images: Images, config_file: ConfigFiles = None, config_dir: ConfigDirs = None
) -> None:
    """Drop images from the cache and from what is queued."""
    directory = _cache_directory(SERVICE.settings(config_file, config_dir))
    with SERVICE.explained():
        for image in _ids(images):
            was_there = directory.drop(image) | directory.unqueue(image)
            typer.echo(f"{'dropped' if was_there else 'not there'} {image}")


@cache.command("clear")
def cache_clear(
    only_cache: Annotated[bool, typer.Option("--cache", help="Only what is cached.")] = False,
    only_queue: Annotated[bool, typer.Option("--queue", help="Only what is queued.")] = False,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Drop all that is cached and queued."""
    directory = _cache_directory(SERVICE.settings(config_file, config_dir))
    with SERVICE.explained():
        if only_cache or not only_queue:
            typer.echo(f"Images dropped: {directory.drop_all()}.")
        if only_queue or not only_cache:
            typer.echo(f"Images not queued any more: {directory.unqueue_all()}.")


@cache.command("clean")
def cache_clean(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove what died and what stalled for longer than image_cache_stall_time."""
    loaded = SERVICE.settings(config_file, config_dir)
    directory = _cache_directory(loaded)
    with SERVICE.explained():
        number = directory.clean(loaded.settings.default.image_cache_stall_time)
    typer.echo(f"Images that something was removed of: {number}.")


@cache.command("prune")
def cache_prune(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Shrink the cache to image_cache_max_size: for a limit that was just lowered."""
    directory = _cache_directory(SERVICE.settings(config_file, config_dir))
    with SERVICE.explained():
        directory.recount()
        number, size = directory.prune()
    typer.echo(f"Images removed: {number}, of {size} bytes.")


def _cache_directory(loaded: Loaded[ImagesSettings]) -> Directory:
    directory = caches.directory_of(loaded.settings)
    if directory is None:
        typer.echo(f"{SERVICE.name}: image_cache_dir is not set: there is no cache.", err=True)
        raise typer.Exit(1)
    return directory


def _ids(texts: Sequence[str]) -> list[str]:
    for text in texts:
        if not is_uuid(text):
            raise typer.BadParameter(f"{text} is no id of an image.")
    return [text.lower() for text in texts]
