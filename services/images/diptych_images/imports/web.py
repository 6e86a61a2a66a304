"""web-download: data from wherever on the web a user says, as far as the operator allows."""

from contextlib import AbstractAsyncContextManager

from diptych_common.errors import BadRequest
from diptych_common.outbound import Filter, Outbound, Refused, Rules, parse
from diptych_store.retries import Retries

from diptych_images.imports.sources import RETRIES, Request, Source, download
from diptych_images.settings import ImagesSettings


def import_filter(settings: ImagesSettings) -> Filter:
    """What `[import_filtering_opts]` lets through."""
    lists = settings.import_filtering_opts
    return Filter(
        allowed_schemes=_lowered(lists.allowed_schemes),
        disallowed_schemes=_lowered(lists.disallowed_schemes),
        allowed_hosts=_lowered(lists.allowed_hosts),
        disallowed_hosts=_lowered(lists.disallowed_hosts),
        allowed_ports=frozenset(lists.allowed_ports),
        disallowed_ports=frozenset(lists.disallowed_ports),
    )


def _lowered(items: tuple[str, ...]) -> frozenset[str]:
    return frozenset(item.lower() for item in items)


def check_uri(uri: str, settings: ImagesSettings) -> None:
    """Raise BadRequest for a URI that will not be opened, as far as it can be told offline.

    Names of hosts are looked up, and their addresses vetted, when it is opened.
    """
    try:
        target = parse(uri)
        import_filter(settings).check(target)
        Rules.read(settings.outbound).check(target)
    except (Refused, ValueError) as error:
        raise BadRequest(f"The URI cannot be imported from: {error}") from error


def web_download(
    outbound: Outbound, uri: str, *, settings: ImagesSettings, retries: Retries = RETRIES
) -> AbstractAsyncContextManager[Source]:
    """What is at the URI, see `download`."""
    return download(
        outbound,
        Request(uri, filter=import_filter(settings)),
        limit=settings.default.image_size_cap,
        timeout_s=settings.import_sources.timeout,
        retries=retries,
    )
