"""Where each method of importing has the bytes from, and what is done to them before the stores.

A method returns the stores that failed; what has landed is in `Import.landed`. Raises GiveUp,
SourceFailed, ImageGone, and whatever else may pass.
"""

import hashlib
import logging
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from diptych_common.errors import (
    BadRequest,
    ServiceUnavailable,
    Unauthorized,
    UnsupportedMediaType,
)
from diptych_common.identity import Identity
from diptych_common.jobs import GiveUp
from diptych_store.digests import Digests
from diptych_store.errors import BadLocation, SizeLimitExceeded, SizeMismatch
from diptych_store.ingest import Ingested, ingest
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import Attempt, Copies, Store
from diptych_store.registry import open_store
from diptych_store.settings import StoreConfig

from diptych_images import signatures
from diptych_images.db.images import ImageRow
from diptych_images.db.imports import Bytes, Staged
from diptych_images.formats import Findings, Inspection, judge, likeliest
from diptych_images.imports import plugins
from diptych_images.imports.equipment import Import
from diptych_images.imports.plugins import Draft
from diptych_images.imports.remote import glance_download, remote_image, swift_local, token_of
from diptych_images.imports.sources import Source, SourceFailed
from diptych_images.imports.targets import (
    Accepted,
    Failures,
    Origin,
    OriginGone,
    from_object,
    from_stream,
    opened,
    too_large,
)
from diptych_images.imports.web import web_download
from diptych_images.signatures import Signature
from diptych_images.wire.imports import swift_object

log = logging.getLogger(__name__)


async def from_staging(run: Import, staged: Staged | None, names: Collection[str]) -> Failures:
    """Import what is staged; without plug-ins nothing of it is looked at again."""
    if staged is None:
        raise GiveUp("Nothing is staged.")
    try:
        store = run.equipment.stores.by_location(staged.url, {"store": staged.store})
    except BadLocation as error:
        log.error("Image %s: %s", run.order.image_id, error)
        raise SourceFailed("The staging store is not the one that has the data.") from error
    origin = Origin(store, staged.url, "The staging store", temporary=True)
    findings = Findings.read(staged.about["findings"])
    digests: Mapping[str, str] = staged.about["digests"]
    disk_format, container_format = _declared(run.image)
    try:
        if plugins.needs_file(run.equipment.settings):
            async with _scratch(run) as (folder, scratch):
                await _fetched(run, origin, scratch)
                draft = Draft(
                    path=folder / run.order.image_id,
                    size=findings.size,
                    disk_format=disk_format,
                    container_format=container_format,
                    findings=findings,
                )
                return await _transformed(
                    run, draft, folder, scratch, names, signature=_signature(run)
                )
        known = _accepted(run, findings.size, digests, findings, disk_format, container_format)
        signature = _signature(run)

        def accept(size: int, found: Mapping[str, str]) -> Accepted:
            _same(known, digests, "The staged data is damaged.", size, found)
            _verify(signature, found)
            return known

        return await from_object(
            run,
            names,
            origin,
            # What is signed is read, so that the bytes that stores get are those that are verified.
            known=known if signature is None else None,
            accept=accept,
            digests=Digests((*digests, *_signed_digest(signature))),
        )
    except OriginGone as error:
        raise GiveUp(str(error)) from error


async def from_other_stores(run: Import, names: Collection[str]) -> Failures:
    """Copy from where the image is: the default store, then the others as they are read."""
    row, stores = run.image, run.equipment.stores
    if row["size"] is None:
        raise GiveUp("The image has no data.")
    known = Accepted(
        Bytes(
            size=row["size"],
            virtual_size=row["virtual_size"],
            checksum=row["checksum"],
            os_hash_algo=row["os_hash_algo"],
            os_hash_value=row["os_hash_value"],
        )
    )
    digests = {"md5": row["checksum"], row["os_hash_algo"] or "": row["os_hash_value"]}
    expected = {name: value for name, value in digests.items() if name and value}
    # What is signed is read and compared with what was verified, whatever the stores could copy by
    # themselves. Glance verifies the signature again: nobody who may not read its certificate can
    # copy an image then, and nobody at all once the certificate is gone.
    is_read = signatures.is_signed(row["properties"])
    in_order = stores.in_read_order(row["locations"])
    in_order.sort(key=lambda location: location["store"] != stores.default.name)
    troubles: list[SourceFailed] = []
    for location in in_order:
        missing = [name for name in names if name not in run.landed]
        place = f"Store {location['store']}"
        try:
            store = stores.by_location(location["url"], {"store": location["store"]})
            return await from_object(
                run,
                missing,
                Origin(store, location["url"], place),
                known=None if is_read else known,
                accept=partial(_same, known, expected, f"{place} has damaged data."),
                digests=Digests(tuple(expected)),
            )
        except BadLocation as error:
            log.warning("Image %s: %s", row["id"], error)
            troubles.append(OriginGone(f"{place} is not configured any more."))
        except SourceFailed as trouble:
            log.warning("Image %s: %s", row["id"], trouble)
            troubles.append(trouble)
    for trouble in troubles:
        if not isinstance(trouble, OriginGone):
            raise trouble
    raise GiveUp(" ".join(map(str, troubles)) or "The image's data is in no store.")


async def from_web(run: Import, names: Collection[str]) -> Failures:
    """Import what is at a URI."""
    request, equipment = run.order.request, run.equipment
    source = web_download(equipment.outbound, request.uri or "", settings=equipment.settings)
    disk_format, container_format = _declared_if_known(run)
    expected = dict([request.expected]) if request.expected is not None else {}
    async with source as opened_source:
        return await _from_source(
            run,
            names,
            opened_source,
            disk_format=disk_format,
            container_format=container_format,
            expected=expected,
            signature=_signature(run),
        )


async def from_region(run: Import, names: Collection[str]) -> Failures:
    """Import an image of another region, with its formats and some of its properties."""
    request, equipment = run.order.request, run.equipment
    token = token_of(run.context.secret())
    image = await remote_image(
        equipment.outbound,
        region=request.glance_region or "",
        image_id=request.glance_image_id or "",
        interface=request.glance_service_interface,
        token=token,
        settings=equipment.settings,
    )
    disk_format = image.disk_format or run.image["disk_format"]
    container_format = image.container_format or run.image["container_format"]
    if disk_format is None or container_format is None:
        raise GiveUp("Neither image has a disk_format and a container_format.")
    rules = run.equipment.settings.image_format
    if disk_format not in rules.disk_formats or container_format not in rules.container_formats:
        raise GiveUp(f"Images may not be {disk_format[:20]} in {container_format[:20]} here.")
    known = hashlib.algorithms_available
    properties = equipment.protection.settable(
        Identity(project_id=run.order.project_id, roles=frozenset(run.order.roles)),
        image.properties,
        beside=run.image["properties"],
    )
    # The image's own, or one that comes with the other.
    signature = await _read_signature(run, {**run.image["properties"], **properties}, token)
    async with glance_download(
        equipment.outbound, image, token=token, settings=equipment.settings
    ) as source:
        return await _from_source(
            run,
            names,
            source,
            disk_format=disk_format,
            container_format=container_format,
            expected={name: value for name, value in image.digests.items() if name in known},
            properties=properties,
            signature=signature,
        )


async def from_swift(run: Import, names: Collection[str]) -> Failures:
    """Import an object of the user's own account."""
    request, equipment = run.order.request, run.equipment
    container, name = swift_object(request.swift_location)
    disk_format, container_format = _declared_if_known(run)
    source = swift_local(
        equipment.outbound,
        container=container,
        name=name,
        token=token_of(run.context.secret()),
        settings=equipment.settings,
    )
    async with source as opened_source:
        return await _from_source(
            run,
            names,
            opened_source,
            disk_format=disk_format,
            container_format=container_format,
            signature=_signature(run),
        )


async def _from_source(
    run: Import,
    names: Collection[str],
    source: Source,
    *,
    disk_format: str | None,
    container_format: str,
    expected: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    signature: Signature | None = None,
) -> Failures:
    """Straight into the stores, unless a plug-in wants the bytes first.

    Without `disk_format` the image gets that which its bytes look like.
    """
    expected = expected or {}
    settings = run.equipment.settings
    inspection = Inspection()
    if plugins.needs_file(settings):
        async with _scratch(run) as (folder, scratch):
            received = await _received(run, source, scratch, inspection, expected)
            findings = inspection.findings()
            draft = Draft(
                path=folder / run.order.image_id,
                size=received.size,
                disk_format=disk_format or likeliest(findings, settings.image_format),
                container_format=container_format,
                findings=findings,
            )
            return await _transformed(
                run, draft, folder, scratch, names, signature=signature, properties=properties
            )

    def accept(size: int, digests: Mapping[str, str]) -> Accepted:
        _require(expected, digests)
        _verify(signature, digests)
        findings = inspection.findings()
        becomes = disk_format or likeliest(findings, settings.image_format)
        return _accepted(run, size, digests, findings, becomes, container_format, properties)

    return await from_stream(
        run,
        names,
        source,
        accept=accept,
        digests=Digests(("md5", _algorithm(run), *expected, *_signed_digest(signature))),
        observers=[inspection],
        limit=settings.default.image_size_cap,
    )


# --- Plug-ins ---------------------------------------------------------------------------------


@asynccontextmanager
async def _scratch(run: Import) -> AsyncGenerator[tuple[Path, Store]]:
    """A folder of this run's own that is a store as well, so that bytes get in and out of it."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(plugins.scratch(run.equipment.settings))
        options = FilesystemOptions(
            filesystem_store_datadir=str(folder), filesystem_store_shared=False
        )
        store = await open_store(StoreConfig(name="scratch", type="file", options=options))
        stack.push_async_callback(store.aclose)
        yield folder, store


async def _fetched(run: Import, origin: Origin, scratch: Store) -> None:
    """Put the object into the scratch folder, under the image's id."""
    attempt = Attempt(key=run.order.image_id, token=str(uuid4()))
    copied = None
    if isinstance(scratch, Copies):
        copied = await scratch.copy(attempt, origin.store, origin.url)
    if copied is None:
        async with opened(origin) as source:
            await _ingested(run, source, scratch, attempt, Digests(()), [])
    await scratch.publish(attempt)


async def _received(
    run: Import,
    source: Source,
    scratch: Store,
    inspection: Inspection,
    expected: Mapping[str, str],
) -> Ingested:
    attempt = Attempt(key=run.order.image_id, token=str(uuid4()))
    received = await _ingested(
        run, source, scratch, attempt, Digests(tuple(expected)), [inspection]
    )
    _require(expected, received.digests)
    await scratch.publish(attempt)
    return received


async def _ingested(
    run: Import,
    source: Source,
    scratch: Store,
    attempt: Attempt,
    digests: Digests,
    observers: list[Inspection],
) -> Ingested:
    run.progress.done, run.progress.total = 0, source.size
    limit = run.equipment.settings.default.image_size_cap
    try:
        return await ingest(
            run.progress.counted(source.blocks),
            scratch,
            attempt,
            size=source.size,
            limit=limit,
            digests=digests,
            observers=observers,
            pool=run.equipment.blocks,
        )
    except SizeLimitExceeded as error:
        raise GiveUp(too_large(limit)) from error
    except SizeMismatch as error:
        raise SourceFailed("The data did not have the size that was announced.") from error


async def _transformed(
    run: Import,
    draft: Draft,
    folder: Path,
    scratch: Store,
    names: Collection[str],
    *,
    signature: Signature | None,
    properties: Mapping[str, str] | None = None,
) -> Failures:
    """Take the image through the plug-ins and put what they make of it into the stores.

    What they make is what must be signed, as in Glance: it is what is downloaded.
    """
    settings = run.equipment.settings
    draft = await plugins.transform(draft, folder, settings, limit=settings.default.image_size_cap)

    def accept(size: int, digests: Mapping[str, str]) -> Accepted:
        _verify(signature, digests)
        return _accepted(
            run,
            size,
            digests,
            draft.findings,
            draft.disk_format,
            draft.container_format,
            properties,
        )

    return await from_object(
        run,
        names,
        Origin(scratch, f"file://{draft.path}", "The scratch folder", temporary=True),
        known=None,
        accept=accept,
        digests=Digests(("md5", _algorithm(run), *_signed_digest(signature))),
    )


# --- What the bytes are -----------------------------------------------------------------------


def _declared(row: ImageRow) -> tuple[str, str]:
    disk_format, container_format = row["disk_format"], row["container_format"]
    if disk_format is None or container_format is None:
        raise GiveUp("The image needs a disk_format and a container_format.")
    return disk_format, container_format


def _declared_if_known(run: Import) -> tuple[str | None, str]:
    """As `_declared`; nobody may have said the disk_format of an image that is made by a task."""
    row = run.image
    container_format = row["container_format"]
    if run.order.remove_image and row["disk_format"] is None and container_format is not None:
        return None, container_format
    return _declared(row)


def _algorithm(run: Import) -> str:
    """The algorithm of `os_hash_algo`: the image's, if it was chosen or used before."""
    return run.image["os_hash_algo"] or run.equipment.settings.default.hashing_algorithm


def _accepted(
    run: Import,
    size: int,
    digests: Mapping[str, str],
    findings: Findings,
    disk_format: str,
    container_format: str,
    properties: Mapping[str, str] | None = None,
) -> Accepted:
    """What the image becomes with these bytes; raises GiveUp with the words of the verdict."""
    settings = run.equipment.settings
    try:
        virtual_size = judge(
            findings,
            disk_format=disk_format,
            container_format=container_format,
            rules=settings.image_format,
        )
    except UnsupportedMediaType as error:
        raise GiveUp(error.message) from error
    algorithm = _algorithm(run)
    if algorithm not in digests:
        # The setting was another when the data was staged.
        algorithm = next(name for name in digests if name != "md5")
    return Accepted(
        Bytes(
            size=size,
            virtual_size=virtual_size,
            checksum=digests["md5"],
            os_hash_algo=algorithm,
            os_hash_value=digests[algorithm],
        ),
        {
            "disk_format": disk_format,
            "container_format": container_format,
            "properties": {**(properties or {}), **plugins.injected(settings, run.order.roles)},
        },
    )


def _signature(run: Import) -> Signature | None:
    """That which the request read the certificate of."""
    return None if run.order.signature is None else Signature.read(run.order.signature)


async def _read_signature(
    run: Import, properties: Mapping[str, str | None], token: str
) -> Signature | None:
    """That which an image with these properties must bear; raises GiveUp and SourceFailed."""
    try:
        return await run.equipment.barbican.signature(properties, token=token)
    except ServiceUnavailable as error:
        raise SourceFailed(error.message) from error
    except (BadRequest, Unauthorized) as error:
        raise GiveUp(error.message) from error


def _signed_digest(signature: Signature | None) -> tuple[str, ...]:
    return () if signature is None else (signature.digest,)


def _verify(signature: Signature | None, digests: Mapping[str, str]) -> None:
    if signature is None:
        return
    try:
        signature.check(digests)
    except BadRequest as error:
        raise GiveUp(error.message) from error


def _require(expected: Mapping[str, str], digests: Mapping[str, str]) -> None:
    for name, value in expected.items():
        if digests[name] != value:
            raise GiveUp(f"The data does not have the {name} digest that it should have.")


def _same(
    known: Accepted,
    expected: Mapping[str, str],
    message: str,
    size: int,
    digests: Mapping[str, str],
) -> Accepted:
    """Accept bytes that were known, if they are the same; raises OriginGone."""
    if size != known.bytes.size or any(digests[name] != expected[name] for name in expected):
        raise OriginGone(message)
    return known
