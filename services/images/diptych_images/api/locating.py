"""What is at a location that a client names, and whether this client may name it."""

from collections.abc import Iterable, Mapping

from diptych_common.errors import BadRequest, Forbidden, ServiceUnavailable, TooLarge
from diptych_common.identity import Identity
from diptych_store.errors import BadLocation, StoreError, Unreachable
from diptych_store.locations import without_credentials
from diptych_store.protocol import LocalPaths

from diptych_images.api.resources import Resources
from diptych_images.db.images import LocationRow
from diptych_images.imports.web import check_uri
from diptych_images.wire import locations as wire
from diptych_images.wire.locations import Found

_WEB = ("http", "https")


def is_service(who: Identity) -> bool:
    """Whether it is another service that asks, be it for a user."""
    return "service" in who.roles or "service" in who.service_roles


def check_formats(row: Mapping[str, object]) -> None:
    """Raise BadRequest for an image that cannot become active, because its formats are not set."""
    for name in ("container_format", "disk_format"):
        if row[name] is None:
            raise BadRequest(f"{name} must be set before an image gets its data.")


def check_named(url: str, res: Resources, *, anywhere: bool) -> None:
    """Raise BadRequest or Forbidden for a URL that the caller may not name; asks nobody.

    What is not on the web is read, and deleted, with the service's own rights, and a user has none
    there: only those whom an operator trusts with every store (`anywhere`) may name it. So nobody
    gets at another project's object by registering it (OSSN-0065, OSSN-0090).
    """
    is_web = wire.scheme(url) in _WEB
    if not is_web and not anywhere:
        raise Forbidden("Only other services can register a location that is not on the web.")
    if is_web and not any(info.type == "http" for info in res.stores.info.values()):
        raise Forbidden("There is no store for locations on the web.")
    if is_web:
        check_uri(url, res.settings)


def check_beside(locations: Iterable[LocationRow], *, anywhere: bool) -> None:
    """Raise Forbidden for a caller who may not give these locations of an image another one.

    Not in Glance. Nobody compares the new bytes with those that the image has, so an owner could
    have its readers get others under the same digest (OSSN-0065). Where all of them are on the web
    the owner had the bytes in hand all along.
    """
    schemes = {one["url"].partition(":")[0] for one in locations}
    if not anywhere and not schemes <= set(_WEB):
        raise Forbidden("Only other services can give an image with data another location.")


def check_some_store(url: str, res: Resources) -> None:
    """Raise BadRequest for a URL that is not on the web, and no location of any of our stores."""
    if wire.scheme(url) in _WEB:
        return
    try:
        res.stores.by_location(url)
    except BadLocation:
        raise wire.invalid() from None


async def find(url: str, res: Resources, *, store: str | None = None) -> Found:
    """Look at what is there, after `check_named`; asks the backend, so not in a transaction.

    `store` is what the client takes the store's name for. Raises BadRequest for what is no
    location of any store, or nothing is there.
    """
    kept = _kept(url)
    named = {"store": store} if store in res.stores.names else None
    try:
        place = res.stores.by_location(kept, named)
    except BadLocation:
        raise wire.invalid() from None
    info = res.stores.info[place.name]
    if isinstance(place, LocalPaths):
        raise wire.invalid()
    try:
        async with place.open(kept) as reading:
            size = reading.size
    except Unreachable as failure:
        if not info.never_writes:
            raise ServiceUnavailable(
                f"Store {place.name} did not answer.", headers={"Retry-After": "5"}
            ) from failure
        raise BadRequest("The location is invalid: it did not answer.") from failure
    except StoreError as failure:
        raise BadRequest("The location is invalid: it cannot be read.") from failure
    if size == 0:
        raise BadRequest("The location is invalid: there are no bytes.")
    limit = res.settings.default.image_size_cap
    # What other services register is theirs to limit.
    if info.never_writes and size > limit:
        raise TooLarge(f"An image can have {limit} bytes.")
    told: dict[str, object] = {"store": place.name} if res.stores.is_multiple else {}
    return Found(store=place.name, url=kept, size=size, is_removed=not info.never_writes, told=told)


def _kept(url: str) -> str:
    """The URL as it is stored: never with a credential in front of the host.

    The query of an address on the web stays, though it is not shown: without it there is nothing.
    """
    shown = without_credentials(url)
    if not shown:
        raise wire.invalid()
    if wire.scheme(url) not in _WEB:
        return shown
    if not url.startswith(shown):
        raise BadRequest("The location is invalid: it holds a password.")
    return url
