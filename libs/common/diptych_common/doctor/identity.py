"""Whether Keystone knows this service, and tells clients where it is."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx

from diptych_common.doctor.database import compare_clocks
from diptych_common.doctor.findings import Ended, Examination, Notes
from diptych_common.doctor.front import Front, answers, verifying
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.keystone import CannotAsk, Endpoint, Keystone, tls
from diptych_common.settings import KeystoneAuthtoken

_REACH = "Is Keystone up, and is [keystone_authtoken] auth_url right?"
_CREDENTIALS = (
    "Check user, password, project and their domains in [keystone_authtoken], and that the user is"
    " enabled."
)
_ROLES = "Give the user of [keystone_authtoken] the role service in its project."

# Roles that Keystone by default lets validate tokens of others; its own name of the rule is
# service_or_admin, to which its release 2024.1 adds readers of the whole system.
_VALIDATORS = frozenset({"admin", "service"})


def examination(settings: KeystoneAuthtoken, *, service_type: str, front: Front) -> Examination:
    """Of Keystone, its clock, our credentials and rights there, and our endpoints in the catalog.

    `service_type` is this service's in the catalog; `front` says who has to answer there.
    """

    async def examine(notes: Notes) -> None:
        await _reach(notes, settings)
        async with notes.asking("credentials", _CREDENTIALS, troubles=(CannotAsk, ValueError)):
            keystone = Keystone(settings, service_type=service_type)
        async with keystone:
            endpoints = await _known(notes, keystone, settings.service_type or service_type)
        await _catalog(notes, endpoints, settings, service_type, front)

    return examine


async def _reach(notes: Notes, settings: KeystoneAuthtoken) -> None:
    troubles = (httpx.HTTPError, httpx.InvalidURL, OSError)
    async with (
        notes.asking("keystone", _REACH, troubles=troubles),
        # A proxy named by the environment is not on the service's way either.
        httpx.AsyncClient(verify=tls(settings), timeout=notes.seconds, trust_env=False) as client,
    ):
        before, began = time.time(), time.perf_counter()
        answer = await client.get(settings.auth_url or "")
        took = time.perf_counter() - began
    told = f"{settings.auth_url} answers {answer.status_code} in {took * 1000:.0f} ms."
    if answer.status_code >= 500:
        notes.fail("keystone", told, _REACH)
        raise Ended
    notes.ok("keystone", told)
    date = answer.headers.get("date")
    if date is None:
        return
    try:
        clock = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    # The header has whole seconds, cut off.
    compare_clocks(notes, "clock of keystone", clock - before, uncertain_s=took + 1)


async def _known(notes: Notes, keystone: Keystone, service_type: str) -> Sequence[Endpoint]:
    """The endpoints of this service; Ended where Keystone does not know us."""
    async with notes.asking("credentials", _CREDENTIALS, troubles=(CannotAsk,)):
        token = await keystone.own_token()
    notes.ok("credentials", "Keystone takes this service's own.")
    about = "token validation"
    async with notes.asking(about, _ROLES, troubles=(Unauthorized, ServiceUnavailable)):
        who = await keystone.identify(_request_with(token))
        endpoints = await keystone.endpoints(token, service_type)
    if who is None or who.roles.isdisjoint(_VALIDATORS):
        told = "This service's user has neither the role service nor admin: by its default rules"
        notes.warn(about, f"{told} Keystone validates nobody's tokens for it but its own.", _ROLES)
    else:
        notes.ok(about, "Keystone validates tokens for this service.")
    return endpoints


def _request_with(token: str) -> dict[str, object]:
    """A request as ASGI has it, by whoever has the token."""
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"x-auth-token", token.encode("ascii"))],
    }


async def _catalog(
    notes: Notes,
    endpoints: Sequence[Endpoint],
    settings: KeystoneAuthtoken,
    service_type: str,
    front: Front,
) -> None:
    about = "catalog"
    region = settings.region_name
    ours = [one for one in endpoints if region in (None, one.region, one.region_id)]
    if not ours:
        where = "" if region is None else f" in region {region}"
        told = f"It has no endpoint of type {settings.service_type or service_type}{where}."
        notes.warn(about, told, "Make service and endpoints in Keystone: clients look there.")
        return
    told = ", ".join(sorted({one.interface for one in ours}))
    notes.ok(about, f"It has endpoints of this service: {told}.")
    context = verifying(settings.cafile)
    several = [Notes(notes.seconds) for _ in ours]
    await asyncio.gather(
        *(
            _endpoint(into, f"{one.interface} endpoint", one.url, front, context)
            for into, one in zip(several, ours, strict=True)
        )
    )
    for into in several:
        notes.findings += into.findings
        notes.hangs |= into.hangs


async def _endpoint(
    notes: Notes, about: str, url: str, front: Front, context: ssl.SSLContext
) -> None:
    with suppress(Ended):
        await answers(notes, about, url, front, context)
