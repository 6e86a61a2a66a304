"""Every request gets an `Identity` before any route runs, or ends with 401.

`Authentication` is the ASGI middleware; it asks one `Identify` function: that of a `Keystone`
(`diptych_common.keystone`), or one of those here: `trusted`, for a proxy that has checked the
token itself, and `administrator`, for a service without authentication.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych_common.errors import ApiError, Unauthorized
from diptych_common.identity import ANONYMOUS, Identity
from diptych_common.proxies import is_within, peer, trusted_networks
from diptych_common.responses import RenderError

Identify = Callable[[Scope], Awaitable[Identity | None]]


class Authentication:
    """ASGI middleware that puts the caller's `Identity` into `scope["state"]["who"]`.

    A request without an identity ends here with 401, before its body is read; where
    `allow_anonymous` is set it goes on as `ANONYMOUS`, with `forgiving` also when its token is not
    valid (Glance does the same). What is open to everybody is answered further out. Every 401 that
    passes on its way out gets `www_authenticate`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        identify: Identify,
        allow_anonymous: bool,
        forgiving: bool = True,
        render_error: RenderError,
        www_authenticate: str | None,
    ) -> None:
        self._app = app
        self._identify = identify
        self._allow_anonymous = allow_anonymous
        self._forgiving = forgiving
        self._render_error = render_error
        self._challenge = None if www_authenticate is None else www_authenticate.encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify the caller, then hand over to the application or answer with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._challenging(send)
        try:
            who = await self._who(scope)
        except ApiError as error:
            await self._render_error(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["who"] = who
        await self._app(scope, receive, send)

    async def _who(self, scope: Scope) -> Identity:
        try:
            who = await self._identify(scope)
        except Unauthorized:
            if not (self._allow_anonymous and self._forgiving):
                raise
            return ANONYMOUS
        if who is not None:
            return who
        if not self._allow_anonymous:
            raise Unauthorized("This request needs a token, and has none.")
        return ANONYMOUS

    def _challenging(self, send: Send) -> Send:
        challenge = self._challenge
        if challenge is None:
            return send

        async def send_with_challenge(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                headers = [*message.get("headers", ()), (b"www-authenticate", challenge)]
                message = {**message, "headers": headers}
            await send(message)

        return send_with_challenge


async def administrator(_scope: Scope) -> Identity:
    """Identify everyone as an administrator without a project: a service without authentication.

    Source: Glance 33.0, the pipeline of an empty `[paste_deploy] flavor`.
    """
    return _ADMINISTRATOR


LONGEST_ID: Final = 255
"""Characters that the columns of owners and users hold."""

_ADMINISTRATOR: Final = Identity(
    roles=frozenset({"admin", "manager", "member", "reader", "service"})
)


def trusted(
    *,
    bind_host: str,
    proxies: Sequence[str] = (),
    read: Callable[[Scope], Identity | None] | None = None,
) -> Identify:
    """Identify callers by the headers that a proxy sets after it has checked the token itself.

    `read` makes an identity of them; unset, it is `trusted_headers`. `proxies` are the addresses or
    networks of such proxies. ValueError where one of them is neither, and where the service would
    listen on anything but loopback without naming one: then everyone who reaches the port could be
    anyone. The peer's address is checked at each request.
    """
    if not proxies and not _is_loopback(bind_host):
        raise ValueError(
            f"identity headers can't be trusted on {bind_host}: bind to a loopback address, "
            "or name the proxies that set them"
        )
    networks = trusted_networks(proxies)

    async def identify(scope: Scope) -> Identity | None:
        nearest = peer(scope)
        if nearest is None or not is_within(nearest, networks):
            raise Unauthorized("Identity headers are not accepted from this address.")
        return (read or trusted_headers)(scope)

    return identify


def trusted_headers(scope: Scope) -> Identity | None:
    """The identity that the headers of a request claim, None if they claim none.

    The names are those that keystonemiddleware sets for the application behind it. Unauthorized if
    one comes twice (a proxy that adds its own must drop the client's), and for an id that no
    service could write down.
    """
    headers = read_headers(scope)
    if headers.one("x-identity-status") not in (None, "Confirmed"):
        return None
    who = Identity(
        user_id=headers.identifier("x-user-id"),
        user_name=headers.one("x-user-name"),
        user_domain_id=headers.one("x-user-domain-id"),
        project_id=headers.identifier("x-project-id"),
        project_name=headers.one("x-project-name"),
        project_domain_id=headers.one("x-project-domain-id"),
        domain_id=headers.one("x-domain-id"),
        roles=frozenset(role.lower() for role in headers.listed("x-roles")),
        service_roles=frozenset(headers.listed("x-service-roles")),
        service_user_id=headers.one("x-service-user-id"),
        service_project_id=headers.one("x-service-project-id"),
        system_scope=headers.one("openstack-system-scope"),
    )
    return None if who.is_anonymous else who


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Headers:
    """Request headers by their lower-case names, every occurrence kept."""

    values: Mapping[str, Sequence[str]]

    def one(self, name: str) -> str | None:
        """The value of a header without the space around it; None if absent or empty.

        Unauthorized if it comes twice: which of the two was checked by whom is anyone's guess.
        """
        values = self.values.get(name, ())
        if len(values) > 1:
            raise Unauthorized(f"The header {name} comes more than once.")
        return (values[0].strip() or None) if values else None

    def identifier(self, name: str) -> str | None:
        """The same for an id. Unauthorized for one that is longer than what columns hold."""
        value = self.one(name)
        if value is not None and len(value) > LONGEST_ID:
            raise Unauthorized(f"The header {name} has more than {LONGEST_ID} characters.")
        return value

    def listed(self, name: str) -> list[str]:
        """The parts of a header between commas, without empty ones."""
        value = self.one(name)
        return [] if value is None else [part.strip() for part in value.split(",") if part.strip()]


def read_headers(scope: Scope) -> Headers:
    """All headers of a request."""
    values: dict[str, list[str]] = {}
    raw: Sequence[tuple[bytes, bytes]] = scope["headers"]
    for name, value in raw:
        values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return Headers(values)
