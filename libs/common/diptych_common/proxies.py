"""What the proxies in front of the service tell of a request, and which of them are believed."""

import ipaddress
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

# Where `/v2` begins for clients: links are made with it, and routes are met without it. The name is
# Starlette's; its `root_path` would be taken off a path that happens to begin with it.
PREFIX: Final = "app_root_path"

_OLDER: Final = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_ELEMENT = re.compile(r'(?:[^,"]|"[^"]*")+')
# Anchored: else each letter of a long word would be a beginning.
_PAIR = re.compile(r'(?:^|;)\s*([A-Za-z]+)\s*=\s*("[^"]*"|[^;"]*)')


def networks(addresses: Sequence[str]) -> Networks:
    """Networks or single addresses, as they are written. ValueError where one is neither."""
    return [ipaddress.ip_network(address, strict=False) for address in addresses]


def trusted_networks(proxies: Sequence[str]) -> Networks:
    """Where the proxies are that are believed: on this host if none is named."""
    return networks(proxies or ("127.0.0.0/8", "::1/128"))


def is_within(host: str, of: Networks) -> bool:
    """Whether `host` is an address in one of the networks; IPv4 in IPv6 counts as IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in of)


def peer(scope: Scope) -> str | None:
    """The address at the other end of the connection, whoever the client is said to be."""
    told = scope.get("state", {}).get("peer")
    if told is not None:
        return cast(str, told)
    client = cast("tuple[str, int] | None", scope.get("client"))
    return None if client is None else client[0]


class ProxyHeaders:
    """Takes scheme, host, prefix and client of a request from what a trusted proxy says of it.

    `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` count, or `Forwarded` (RFC 7239) where there
    is none of the first three. Of several values the last one counts, which is that of the proxy
    next to us; the client is the last address in the chain that is no trusted proxy's. What is
    not of its form does not count. From other addresses nothing counts, and the log says so, once
    in a process.

    oslo.middleware prefers `Forwarded` and the first value, and believes everyone. Proxies that
    write only `X-Forwarded-…`, as most do, hand on a `Forwarded` of the client's as it is, and
    those that append leave the client's value in front: both would be the client's word.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self._app = app
        self._trusted = trusted_networks(trusted)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Change the scope, then hand over."""
        if scope["type"] == "http" and scope.get("client") is not None:
            headers = Headers(scope=scope)
            if is_within(scope["client"][0], self._trusted):
                self._believe(scope, headers)
            elif not self._has_warned and _is_proxied(headers):
                self._has_warned = True
                log.warning(
                    "What %s says of the client does not count: it is not among the"
                    " trusted_proxies of [oslo_middleware]",
                    scope["client"][0],
                )
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope, headers: Headers) -> None:
        if any(name in headers for name in _OLDER[:3]) or "forwarded" not in headers:
            chain = list(_values(headers, "x-forwarded-for"))
            scheme, host = _last(headers, "x-forwarded-proto"), _last(headers, "x-forwarded-host")
        else:
            hops = [
                {name.lower(): value.strip().strip('"') for name, value in _PAIR.findall(element)}
                for element in _ELEMENT.findall(",".join(headers.getlist("forwarded")))
            ]
            chain = [hop["for"] for hop in hops if "for" in hop]
            last = hops[-1] if hops else {}
            scheme, host = last.get("proto", ""), last.get("host", "")

        if scheme.lower() in ("http", "https"):
            scope["scheme"] = scheme.lower()
        if _HOST.fullmatch(host):
            scope["headers"] = list(scope["headers"])
            MutableHeaders(scope=scope)["host"] = host
        prefix = _last(headers, "x-forwarded-prefix").rstrip("/")
        if _PREFIX.fullmatch(prefix) and not {"..", "."} & set(prefix.split("/")):
            scope[PREFIX] = prefix
        self._find_client(scope, chain)

    def _find_client(self, scope: Scope, chain: Sequence[str]) -> None:
        """Put the client's address into the scope, and the peer's beside it."""
        nearest: str = scope["client"][0]
        found = nearest
        for hop in reversed(chain):
            address = _address(hop)
            if address is None or not is_within(found, self._trusted):
                break
            found = address
        if found != nearest:
            scope.setdefault("state", {})["peer"] = nearest
            scope["client"] = (found, 0)


def is_proxied(scope: Scope) -> bool:
    """Whether the request came through a proxy that says so."""
    return _is_proxied(Headers(scope=scope))


def _is_proxied(headers: Headers) -> bool:
    return "forwarded" in headers or any(name in headers for name in _OLDER)


def _values(headers: Headers, name: str) -> Iterator[str]:
    for value in headers.getlist(name):
        yield from (item.strip() for item in value.split(","))


def _last(headers: Headers, name: str) -> str:
    return next(iter(reversed(list(_values(headers, name)))), "")


def _address(hop: str) -> str | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` or `2001:db8::1`."""
    if hop.startswith("["):
        host = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        host = hop.partition(":")[0]
    else:
        host = hop
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
