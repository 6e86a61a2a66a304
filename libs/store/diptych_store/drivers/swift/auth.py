"""Who a store is to Swift: tokens from Keystone v3 or tempauth, renewed before they end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from diptych_store.drivers.swift.references import Reference
from diptych_store.errors import ReadDenied, Unreachable
from diptych_store.options.swift import SwiftOptions

# Of the lifetime that tempauth and Keystone give at least; a shorter one is renewed at half time.
_FOREVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Access:
    """A token and the account that it is for; good until `deadline` of the monotonic clock.

    `project_id` is empty where there are no projects (tempauth).
    """

    storage_url: str
    token: str = field(repr=False)
    project_id: str = ""
    deadline: float = float("inf")


class Tokens:
    """The current access by one reference's credentials.

    Callers at a time share one request, its failure too: an authority that is silent is waited for
    by all of them together, not by one after the other.
    """

    def __init__(self, obtain: Callable[[], Awaitable[Access]], *, renew_before_s: float) -> None:
        self._obtain = obtain
        self._renew_before_s = renew_before_s
        self._lock = asyncio.Lock()
        self._current: Access | None = None
        self._latest_failure: ReadDenied | Unreachable | None = None

    async def access(self) -> Access:
        """An access that will do for now. Raises ReadDenied and Unreachable."""
        known = self._latest_failure
        async with self._lock:
            if self._current is None or self._current.deadline < time.monotonic():
                failure = self._latest_failure
                if failure is not None and failure is not known:
                    raise type(failure)(str(failure))
                try:
                    obtained = await self._obtain()
                except (ReadDenied, Unreachable) as error:
                    # Without what the error holds on to.
                    self._latest_failure = type(error)(str(error))
                    raise
                remaining_s = obtained.deadline - time.monotonic()
                margin_s = min(self._renew_before_s, remaining_s / 2)
                self._current = Access(
                    storage_url=obtained.storage_url,
                    token=obtained.token,
                    project_id=obtained.project_id,
                    deadline=obtained.deadline - margin_s,
                )
            return self._current

    def refused(self, token: str) -> None:
        """The token was refused: the next caller gets another, unless there is one already."""
        if self._current is not None and self._current.token == token:
            self._current = None


async def obtain(http: httpx.AsyncClient, reference: Reference, options: SwiftOptions) -> Access:
    """A new token, one request. Raises ReadDenied, Unreachable and httpx's TransportError."""
    if reference.version == "1":
        return await _from_tempauth(http, reference, options)
    return await _from_keystone(http, reference, options)


async def _from_tempauth(
    http: httpx.AsyncClient, reference: Reference, options: SwiftOptions
) -> Access:
    user = f"{reference.project}:{reference.user}" if reference.project else reference.user
    answer = await http.get(
        reference.address,
        # As bytes, for what is not ASCII in them.
        headers={b"X-Auth-User": user.encode(), b"X-Auth-Key": reference.key.encode()},
    )
    _check(answer)
    storage_url = options.swift_store_endpoint or answer.headers.get("X-Storage-Url", "")
    token = answer.headers.get("X-Auth-Token", "")
    if not storage_url or not token:
        raise Unreachable("The answer to the request for a token has none.")
    lifetime = answer.headers.get("X-Auth-Token-Expires", "")
    lifetime_s = float(lifetime) if lifetime.isdecimal() else _FOREVER_S
    return Access(
        storage_url=storage_url.rstrip("/"),
        token=token,
        deadline=time.monotonic() + lifetime_s,
    )


async def _from_keystone(
    http: httpx.AsyncClient, reference: Reference, options: SwiftOptions
) -> Access:
    begun = time.monotonic()
    answer = await http.post(_tokens_url(reference.address), json={"auth": _request(reference)})
    _check(answer)
    try:
        document: Mapping[str, Any] = answer.json()["token"]
        issued = datetime.fromisoformat(document["issued_at"])
        # The difference of two times by Keystone's clock: it needn't agree with ours.
        lifetime_s = (datetime.fromisoformat(document["expires_at"]) - issued).total_seconds()
        project_id = str(document.get("project", {}).get("id", ""))
        storage_url = options.swift_store_endpoint or _endpoint(
            document.get("catalog", ()), options
        )
        token = answer.headers["X-Subject-Token"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreachable("Keystone's answer to the request for a token has none.") from None
    return Access(
        storage_url=storage_url.rstrip("/"),
        token=token,
        project_id=project_id,
        deadline=begun + lifetime_s,
    )


def _tokens_url(address: str) -> str:
    base = address.removesuffix("/v2.0").removesuffix("/v3")
    return f"{base}/v3/auth/tokens"


def _request(reference: Reference) -> Mapping[str, object]:
    if reference.application_id:
        credential = {"id": reference.application_id, "secret": reference.application_secret}
        methods = ["application_credential"]
        return {"identity": {"methods": methods, "application_credential": credential}}
    user = {
        "name": reference.user,
        "domain": reference.user_domain.document(),
        "password": reference.key,
    }
    project = {"name": reference.project, "domain": reference.project_domain.document()}
    return {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": project},
    }


def _endpoint(catalog: Sequence[Mapping[str, Any]], options: SwiftOptions) -> str:
    interface = options.swift_store_endpoint_type.removesuffix("URL")
    region = options.swift_store_region
    for service in catalog:
        if service["type"] != options.swift_store_service_type:
            continue
        for endpoint in service["endpoints"]:
            regions = ("", endpoint.get("region_id"), endpoint.get("region"))
            if endpoint["interface"] == interface and region in regions:
                return str(endpoint["url"])
    raise Unreachable(
        f"Keystone's catalog has no {interface} endpoint of type "
        f"{options.swift_store_service_type}" + (f" in region {region}." if region else ".")
    )


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    if answer.status_code in (401, 403):
        raise ReadDenied("The credentials were refused.")
    raise Unreachable(f"The request for a token was answered with {answer.status_code}.")
