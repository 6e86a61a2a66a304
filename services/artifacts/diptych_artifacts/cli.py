"""The command line of the artifacts service."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

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
from diptych_common.doctor.findings import Examination, Notes
from diptych_common.doctor.front import Front
from diptych_common.errors import ServiceUnavailable
from diptych_common.outbound import Outbound
from diptych_common.settings import Loaded
from diptych_store import report
from diptych_store.report import Report

from diptych_artifacts import app as application
from diptych_artifacts import deletion, policies, removal, rotation, settings, wrapping_keys
from diptych_artifacts.db import envelopes
from diptych_artifacts.db.envelopes import Count
from diptych_artifacts.db.tables import jobs as jobs_table
from diptych_artifacts.db.tables import outbox
from diptych_artifacts.rotation import Rotated
from diptych_artifacts.settings import ArtifactsSettings
from diptych_artifacts.wrapping_keys import WrappingKeys


def _describe_stores(loaded: Loaded[ArtifactsSettings]) -> Report:
    return report.describe(settings.stores(loaded))


async def _check_stores(
    loaded: Loaded[ArtifactsSettings], names: Sequence[str], seconds: float
) -> Report:
    outbound = Outbound(loaded.settings.outbound)
    return await report.check(settings.stores(loaded), names, seconds=seconds, outbound=outbound)


def _is_ours(document: Any) -> bool:
    beginning = "application/vnd.openstack.artifacts-"
    return any(one["media-type"].startswith(beginning) for one in document["versions"])


def _front(loaded: Loaded[ArtifactsSettings]) -> Front:
    return Front(
        is_ours=_is_ours,
        links_of=lambda _: [],  # those of the document of versions lead to manuals
        upload="/artifacts/images/00000000-0000-0000-0000-000000000000/image",
        largest=loaded.settings.default.max_artifact_size,
    )


def _other_examinations(loaded: Loaded[ArtifactsSettings]) -> Mapping[str, Examination]:
    from diptych_common.doctor import servers

    found: dict[str, Examination] = {}
    messaging = servers.messaging_of(loaded.settings)
    if messaging is not None:
        found["messaging"] = messaging
    if loaded.settings.secrets.keys:
        found["wrapping keys"] = _examine_keys(loaded)
    return found


def _examine_keys(loaded: Loaded[ArtifactsSettings]) -> Examination:
    async def examine(notes: Notes) -> None:
        about = "wrapping keys"
        advice = "See secrets status; [secrets] keys needs all keys that wrap something."
        async with WrappingKeys(loaded.settings) as keys:
            async with notes.asking(about, advice, troubles=(ServiceUnavailable,)):
                await keys.ready()
            async with (
                notes.asking(about, advice, troubles=(ServiceUnavailable,)),
                _secrets_database(loaded) as db,
                db.read() as connection,
            ):
                counts = await envelopes.counts(connection, ())
            unknown = sum(
                one.blobs for one in counts if one.name is not None and one.name not in keys.names
            )
        if unknown:
            told = (
                f"{unknown} blobs cannot be read: their keys are wrapped by keys that are not set."
            )
            notes.fail(about, told, advice)
        else:
            notes.ok(about, f"There are {len(keys.names)}, and all that wrap something.")

    return examine


SERVICE = Service(
    name="diptych-artifacts",
    model=settings.ArtifactsSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=policies.RULES,
    migrations="diptych_artifacts.migrations",
    refusals=(ValueError,),  # the store library's among them
    with_leftovers=settings.with_leftovers,
    stores=StoreReports(describe=_describe_stores, check=_check_stores),
    named=settings.SECTIONS_OF_TYPES,
    admin_rule=policies.ADMIN_RULE,
    jobs=BackgroundJobs(table=jobs_table, can_retry=(removal.JOB,)),
    patient=Patient(
        service_type="artifact",
        flavor=lambda settings: settings.paste_deploy.flavor,
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
def scrub(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove artifacts that were deleted longer ago than scrub_time; workers remove the bytes.

    They do it by themselves, every wakeup_time seconds: this is for the impatient.
    """
    loaded = SERVICE.settings(config_file, config_dir)

    async def scrubbed() -> int:
        async with Database(
            loaded.settings.database, application_name="diptych-artifacts-scrub"
        ) as db:
            return await deletion.scrub_all(db, loaded.settings)

    with SERVICE.explained():
        number = asyncio.run(scrubbed())
    typer.echo(f"Artifacts removed: {number}.")


secrets = typer.Typer(
    no_args_is_help=True, help="The keys that wrap the keys of encrypted blobs: [secrets] keys."
)
main.add_typer(secrets, name="secrets")


@secrets.command()
def key() -> None:
    """Print a new key for [secrets] keys, with a name of its own."""
    typer.echo(wrapping_keys.new_key(now=datetime.now(UTC)))


@secrets.command()
def status(
    config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False
) -> None:
    """Count the blobs by the key that wraps theirs; exit code 1 if one of these keys is not set."""
    loaded = SERVICE.settings(config_file, config_dir)

    async def counted() -> Sequence[Count]:
        types = application.load_types(loaded)
        encrypted = {name for name, one in types.items() if one.encrypted}
        async with _secrets_database(loaded) as db, db.read() as connection:
            return await envelopes.counts(connection, encrypted)

    with SERVICE.explained():
        names = WrappingKeys(loaded.settings).names
        counts = asyncio.run(counted())
    wraps = {one.name: one for one in counts if one.name is not None}
    listed = [wraps.pop(name, Count(name, 0, 0)) for name in names]
    clear = next((one for one in counts if one.name is None), Count(None, 0, 0))
    if as_json:
        document = {
            "keys": [_count(one) for one in listed],
            "unknown": [_count(one) for one in wraps.values()],
            "not_encrypted": {"blobs": clear.blobs, "size": clear.size},
        }
        typer.echo(orjson.dumps(document))
    else:
        for one in listed:
            does = "wraps and unwraps" if one.name == names[0] else "unwraps"
            typer.echo(f"{one.name}  {does}: {one.blobs} blobs of {one.size} bytes")
        for one in wraps.values():
            typer.echo(f"{one.name}  is not set: {one.blobs} blobs of {one.size} bytes")
        if clear.blobs:
            typer.echo(f"Not encrypted, of types that are: {clear.blobs} of {clear.size} bytes")
        if not listed:
            typer.echo("No keys are set.")
    raise typer.Exit(1 if wraps else 0)


@secrets.command()
def rotate(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Wrap all blobs' keys anew with the first of the keys; exit code 1 if one cannot be.

    No blob is read or written. The service may run; what is broken off can be begun again.
    """
    loaded = SERVICE.settings(config_file, config_dir)

    async def rotated() -> Rotated:
        async with _secrets_database(loaded) as db, WrappingKeys(loaded.settings) as keys:
            return await rotation.rotate(db, keys)

    if not loaded.settings.secrets.keys:
        typer.echo(
            f"{SERVICE.name}: [secrets] keys is not set: there is no key to wrap with.", err=True
        )
        raise typer.Exit(1)
    with SERVICE.explained():
        done = asyncio.run(rotated())
    typer.echo(f"Keys of blobs wrapped anew: {done.wrapped}.")
    if done.unknown:
        typer.echo(f"{SERVICE.name}: Wrapped by keys that are not set: {done.unknown}.", err=True)
    if done.unreadable:
        typer.echo(f"{SERVICE.name}: Not opened by their keys: {done.unreadable}.", err=True)
    if done.unknown or done.unreadable:
        raise typer.Exit(1)


def _count(one: Count) -> dict[str, object]:
    return {"name": one.name, "blobs": one.blobs, "size": one.size}


def _secrets_database(loaded: Loaded[ArtifactsSettings]) -> Database:
    return Database(loaded.settings.database, application_name="diptych-artifacts-secrets")
