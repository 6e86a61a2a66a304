"""The one way to open a URL that a user had a hand in.

A URL is taken apart once, here, and from then on only its parts are used, so that no second reader
can understand it differently. A host's name is looked up once, every address that it has is vetted,
and the connection goes to one of the very addresses that were vetted, while the Host header and TLS
keep the name. Every redirect begins anew. There are no proxies, no cookies, no credentials from
files and no decompression here: a body is passed on as it comes.

    Refused (PermissionError)   it must not go there
    └── TooLarge                the answer is longer than the caller allows
    ValueError                  this is no URL
    ConnectionError             no answer, or a broken one
    └── BadCertificate          the server could not show that it is the one that was meant
    TimeoutError                no answer in time
    └── TooSlow                 an answer that comes, but too slowly
"""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeVar
from urllib.parse import urljoin

import h11

from diptych_common.settings import Outbound as OutboundSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host's name, for connections to a port; raises OSError where it has none."""

Connect = Callable[[str, int, ssl.SSLContext | None, str], Awaitable[Connection]]
"""Opens a connection to an address and port, with TLS for the host named last; raises OSError."""

MOST_HEAD: Final = 64 * 1024
"""Bytes until the body begins, interim answers included."""

MOST_HEADERS: Final = 200
MOST_ADDRESSES: Final = 8
"""Addresses of one host that are tried."""

_BLOCK: Final = 256 * 1024
_LOOKUPS: Final = 16
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TURN: Final = 256
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

# Headers that are for this module alone to say.
_OURS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "te", "transfer-encoding"}
)
# What a caller sends to another origin than the one it named: nothing that could be a credential.
_CARRIED: Final = frozenset({"accept", "if-match", "if-none-match", "if-range", "range"})

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<userinfo>[^/?#]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{0,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?"
)
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*")

# Not public: what IANA's special-purpose registries keep from global reach, and what is given to
# neither hosts nor anybody. Of IPv6, all beyond 2000::/3 besides.
_NOT_PUBLIC: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # Public by its number, and the metadata service of every virtual machine in Azure.
        "168.63.129.16/32",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3ffe::/16",
        "3fff::/20",
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")

# Where the last 32 bits are an IPv4 address: mapped, compatible, translated, NAT64.
_ENDS_IN_IPV4: Final = tuple(
    IPv6Network(text)
    for text in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
# What stands before the IPv4 address that an interface's id ends in (ISATAP, RFC 5214).
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


class Refused(PermissionError):
    """It must not go there. The message may be shown to the user: it names no address."""


class TooLarge(Refused):
    """The answer is longer than the caller allows."""


class BadCertificate(ConnectionError):
    """The server could not show that it is the one that was meant."""


class UnknownHost(ConnectionError):
    """The name service knows that there is no such host; it would say so again."""


class TooSlow(TimeoutError):
    """An answer that comes, but too slowly."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `host` is in lower case, an address in its shortest spelling.

    `path` is what follows the authority, query included. `port_is_given` says that the URL has the
    port, which is the scheme's otherwise.
    """

    scheme: str
    host: str
    port: int
    path: str
    port_is_given: bool = False

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The URL without what follows the authority."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """The URL; what follows the authority may hold secrets."""
        return self.origin + self.path

    @property
    def address(self) -> Address | None:
        """The address that the host is; None for a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def parse(url: str) -> Target:
    """Take a URL apart; ValueError for what is none, Refused for credentials in it.

    Stricter than browsers: printable ASCII only (names of other scripts in their `xn--` form, no
    backslash), IPv4 addresses as four decimal numbers only, no zone of an IPv6 address. A dot at
    the end of a name is dropped, and so is the fragment.
    """
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("This is not a URL with a scheme and a host.")
    if match["userinfo"] is not None:
        raise Refused("A URL with a user's name or password in it is not opened.")
    scheme = match["scheme"].lower()
    port = int(match["port"] or _DEFAULT_PORTS.get(scheme, 0))
    if match["port"] and not 0 < port < 65536:
        raise ValueError("A port is a number from 1 to 65535.")
    return Target(
        scheme=scheme,
        host=_host(match["host"].lower()),
        port=port,
        path=(match["path"] or "/") + (match["query"] or ""),
        port_is_given=bool(match["port"]),
    )


def _check_characters(url: str) -> None:
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("A URL has printable ASCII characters only, and no space or backslash.")


def _host(text: str) -> str:
    name = text.removesuffix(".")
    labels = name.split(".")
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        if _NUMBER.fullmatch(labels[-1]):
            # 127.1, 0x7f.1 and 2130706433 are addresses to the C library and names to others.
            return str(IPv4Address(name))
    except ValueError:
        raise ValueError(
            "An address in a URL is written as 192.0.2.1 or [2001:db8::1] and in no other way."
        ) from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("This cannot be the name of a host.")
    return name


@dataclass(frozen=True, slots=True)
class Filter:
    """What an operator lets through for one purpose, beyond the rules for all: Glance's lists.

    Where an allow list is not empty, the deny list of the same kind does not count. A URL that
    names no port passes the lists of ports. Names are compared exactly, in lower case.

    Source: Glance 33.0, `[import_filtering_opts]`.
    """

    allowed_schemes: frozenset[str] = frozenset()
    disallowed_schemes: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    disallowed_hosts: frozenset[str] = frozenset()
    allowed_ports: frozenset[int] = frozenset()
    disallowed_ports: frozenset[int] = frozenset()

    def check(self, target: Target) -> None:
        """Raise Refused unless the lists let it through."""
        if not _passes(target.scheme, self.allowed_schemes, self.disallowed_schemes):
            raise Refused(f"URLs of {target.scheme} are not opened for this.")
        if not _passes(target.host, self.allowed_hosts, self.disallowed_hosts):
            raise Refused(f"The host {target.host} is not asked for this.")
        if target.port_is_given and not _passes(
            target.port, self.allowed_ports, self.disallowed_ports
        ):
            raise Refused(f"Port {target.port} is not asked for this.")


def _passes(value: object, allowed: frozenset[object], denied: frozenset[object]) -> bool:
    return value in allowed if allowed else value not in denied


EVERYTHING: Final = Filter()
"""Lets through what the rules for all do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules for all requests to where a user wants them to go.

    `hosts` may be asked at any address, at the `ports` or at those in `ports_of_hosts`; `trusted`
    hosts at any address, at exactly that port.
    """

    hosts: frozenset[str] = frozenset()
    ports_of_hosts: frozenset[tuple[str, int]] = frozenset()
    trusted: frozenset[tuple[str, int]] = frozenset()
    allowed_networks: tuple[Network, ...] = ()
    denied_networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset()

    @classmethod
    def read(cls, settings: OutboundSettings) -> "Rules":
        """The rules as `[outbound]` has them; ValueError names what cannot be read."""
        targets = [_read("allowed_hosts", _allowed_host, one) for one in settings.allowed_hosts]
        return cls(
            hosts=frozenset(target.host for target in targets),
            ports_of_hosts=frozenset(
                (target.host, target.port) for target in targets if target.port_is_given
            ),
            allowed_networks=tuple(
                _read("allowed_networks", ip_network, one) for one in settings.allowed_networks
            ),
            denied_networks=tuple(
                _read("denied_networks", ip_network, one) for one in settings.denied_networks
            ),
            ports=frozenset(_read("allowed_ports", _port, one) for one in settings.allowed_ports),
        )

    def check(self, target: Target) -> None:
        """Raise Refused for what needs no look-up to be told."""
        if target.scheme not in _DEFAULT_PORTS:
            raise Refused(f"Only http and https are opened, not {target.scheme}.")
        if (
            self.ports
            and target.port not in self.ports
            and (target.host, target.port) not in self.ports_of_hosts | self.trusted
        ):
            raise Refused(f"Port {target.port} is not among those that may be asked.")
        address = target.address
        if address is not None:
            self.check_addresses(target, [address])

    def check_addresses(self, target: Target, addresses: Sequence[Address]) -> None:
        """Raise Refused if one of the host's addresses may not be asked."""
        if target.host in self.hosts or (target.host, target.port) in self.trusted:
            return
        for address in addresses:
            if not all(map(self._may_be_asked, (address, *_embedded(address)))):
                # Users are not told the address: they could map the network with names.
                logger.info("Refused a request to %s: %s may not be asked", target.host, address)
                raise Refused(f"The host {target.host} is not at an address that may be asked.")

    def _may_be_asked(self, address: Address) -> bool:
        if _is_in(address, self.allowed_networks):
            return True
        return _is_public(address) and not _is_in(address, self.denied_networks)


def _read(option: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except (ValueError, Refused):
        raise ValueError(f"[outbound] {option}: {text} is none") from None


def _allowed_host(text: str) -> Target:
    target = parse(f"http://{text}")
    if target.path != "/":
        raise ValueError("not a host")
    return target


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError("not a port")
    return port


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6:
        return False
    return not _is_in(address, _NOT_PUBLIC)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses in an IPv6 address: packets to it may come to be packets to those."""
    if isinstance(address, IPv4Address) or int(address) <= 0xFFFF:
        return ()
    number = int(address)
    if address in _6TO4:
        return (IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        # The server's, and the client's with every bit turned over.
        return (IPv4Address(number >> 64 & 0xFFFFFFFF), IPv4Address(~number & 0xFFFFFFFF))
    if _is_in(address, _ENDS_IN_IPV4) or number >> 32 & 0xFFFFFFFF in _ISATAP:
        return (IPv4Address(number & 0xFFFFFFFF),)
    return ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, its body still to come.

    `headers` have lower-case names; those that came several times are joined by commas. `url` is
    where the last redirect led: what follows its host may hold secrets. `blocks` are the body's
    bytes as they come, raising ConnectionError (also where the body is shorter than announced),
    TimeoutError and TooLarge.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    blocks: AsyncGenerator[bytes, None]


class Outbound:
    """Opens URLs that a user had a hand in, within the operator's rules.

    One connection for each request, none kept. ValueError where `[outbound]` cannot be used.
    `resolve` and `connect` stand in for the system's.
    """

    def __init__(
        self,
        settings: OutboundSettings,
        *,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._settings = settings
        self._rules = Rules.read(settings)
        self._tls: dict[str | None, ssl.SSLContext] = {}
        if settings.cafile is not None:
            try:
                self._tls[None] = _trusting(settings.cafile)
            except OSError as error:
                raise ValueError(
                    f"[outbound] cafile: {error.strerror or 'not a CA file'}"
                ) from error
        # Threads of its own: look-ups in a dead name server must hold up nobody else's.
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")
        self._resolve = resolve or self._look_up
        self._connect = connect or _connect

    def trusting(self, url: str) -> "Outbound":
        """The same, but the URL's host may be asked at the URL's port, wherever it is.

        For what the operator has named elsewhere than in `[outbound]`. Raises ValueError and
        Refused for what `parse` does not take.
        """
        target = parse(url)
        trusting = copy(self)
        trusting._rules = replace(
            self._rules, trusted=self._rules.trusted | {(target.host, target.port)}
        )
        return trusting

    def check(self, url: str, *, filter: Filter = EVERYTHING) -> None:
        """Vet what can be vetted without asking anybody: raises ValueError and Refused.

        `open` vets all of it again, and the addresses of a name.
        """
        self._check(parse(url), filter)

    def _check(self, target: Target, filter: Filter) -> None:
        self._rules.check(target)
        filter.check(target)

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int | None = None,
        filter: Filter = EVERYTHING,
        cafile: str | None = None,
    ) -> AsyncGenerator[Answer]:
        """Send a request, follow redirects, and give the answer, whatever its status.

        On entry raises ValueError, Refused, ConnectionError, TimeoutError, and TooLarge for an
        answer that announces more than `max_bytes`. Redirects of GET and HEAD are followed;
        another origin gets none of `headers` but those that choose the part and the version. From
        https to http none is followed. `cafile` are the authorities instead of the operator's.

        The connection is closed on leaving, however much was read.
        """
        target = parse(url)
        deadline = asyncio.get_running_loop().time() + (
            self._settings.transfer_timeout or float("inf")
        )
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._settings.answer_timeout):
                    self._check(target, filter)
                    carried = {name.lower(): value for name, value in (headers or {}).items()}
                    for _ in range(self._settings.max_redirects + 1):
                        addresses = await self._addresses(target)
                        tls = await self._trust(cafile) if target.scheme == "https" else None
                        connection = await self._connected(target, addresses, tls)
                        exchange = _Exchange(connection, target, self._settings, deadline)
                        stack.push_async_callback(exchange.aclose)
                        answer = await exchange.ask(method, carried, content, max_bytes)
                        onward = _redirection(target, method, answer)
                        if onward is None:
                            break
                        await stack.aclose()
                        self._check(onward, filter)
                        if onward.origin != target.origin:
                            carried = {name: carried[name] for name in _CARRIED & carried.keys()}
                        target = onward
                    else:
                        raise Refused(
                            f"There were more than {self._settings.max_redirects} redirects, the"
                            f" last of {target.host}."
                        )
            except TimeoutError as error:
                raise TimeoutError(
                    str(error)
                    or f"{target.host} did not answer within {self._settings.answer_timeout:g} s."
                ) from None
            await stack.enter_async_context(aclosing(answer.blocks))
            yield answer

    async def _trust(self, cafile: str | None) -> ssl.SSLContext:
        if cafile not in self._tls:
            try:
                # In a thread: the system's authorities take 30 ms to be read.
                self._tls[cafile] = await asyncio.to_thread(_trusting, cafile)
            except OSError as error:
                raise ConnectionError(f"The CA file {cafile} cannot be used.") from error
        return self._tls[cafile]

    async def _addresses(self, target: Target) -> Sequence[Address]:
        """The addresses of the host, every one of them vetted."""
        if target.address is not None:
            return [target.address]  # vetted with the URL
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                found = await self._resolve(target.host, target.port)
        except TimeoutError:
            raise TimeoutError(f"Nobody knew the host {target.host} in time.") from None
        except OSError as error:
            message = f"The host {target.host} is not known."
            is_final = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            raise (UnknownHost if is_final else ConnectionError)(message) from error
        addresses = [ip_address(one) for one in dict.fromkeys(found)]
        if not addresses:
            raise ConnectionError(f"The host {target.host} is not known.")
        self._rules.check_addresses(target, addresses)
        return addresses

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._lookups, find)
        return [str(address[0]) for *_, address in found]

    async def _connected(
        self, target: Target, addresses: Sequence[Address], tls: ssl.SSLContext | None
    ) -> Connection:
        failure: OSError = ConnectionError()
        for address in addresses[:MOST_ADDRESSES]:
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    return await self._connect(str(address), target.port, tls, target.host)
            except TimeoutError:
                failure = TimeoutError(f"{target.authority} did not take a connection in time.")
            except ssl.CertificateError as error:
                raise BadCertificate(f"The certificate of {target.host} is not valid.") from error
            except OSError as error:
                failure = ConnectionError(f"There is no connection to {target.authority}.")
                failure.__cause__ = error
        raise failure


async def _connect(address: str, port: int, tls: ssl.SSLContext | None, name: str) -> Connection:
    return await asyncio.open_connection(
        address, port, limit=_BLOCK, ssl=tls, server_hostname=name if tls else None
    )


def _trusting(cafile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _redirection(target: Target, method: str, answer: Answer) -> Target | None:
    """Where the answer redirects to, None for one that is to be taken as it is."""
    location = answer.headers.get("location")
    if answer.status not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
        return None
    try:
        # urljoin drops tabs and line ends, so what has any must not come so far.
        _check_characters(location)
        onward = parse(urljoin(target.url, location))
    except ValueError:
        raise Refused(f"{target.host} redirects to what is no URL.") from None
    if (target.scheme, onward.scheme) == ("https", "http"):
        raise Refused(f"{target.host} redirects from https to http.")
    return onward


class _Exchange:
    """A request and its answer, on a connection of their own."""

    def __init__(
        self, connection: Connection, target: Target, settings: OutboundSettings, deadline: float
    ) -> None:
        self._reader, self._writer = connection
        self._target = target
        self._settings = settings
        self._deadline = deadline
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD)

    async def aclose(self) -> None:
        # Not closed but aborted: nothing is owed to the other side, which may be reading nothing.
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def ask(
        self,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None,
        max_bytes: int | None,
    ) -> Answer:
        try:
            request = h11.Request(
                method=method,
                target=self._target.path,
                headers=[
                    ("Host", self._target.authority),
                    ("User-Agent", "Diptych"),
                    *((name, value) for name, value in headers.items() if name not in _OURS),
                    *([] if content is None else [("Content-Length", str(len(content)))]),
                    # The bytes are wanted, not what they were packed into for the journey.
                    ("Accept-Encoding", "identity"),
                    ("Connection", "close"),
                ],
            )
            message = b"".join(
                self._http.send(event) or b""
                for event in (request, h11.Data(data=content or b""), h11.EndOfMessage())
            )
        except h11.LocalProtocolError as error:
            raise ValueError(f"This cannot be sent as a request: {error}.") from error
        try:
            self._writer.write(message)
            await self._writer.drain()
            response = await self._head()
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"{self._target.host} gave no answer of HTTP.") from error
        except OSError as error:
            raise self._broken(error) from error
        received = _joined(response.headers)
        announced = received.get("content-length", "")
        if max_bytes is not None and announced.isdigit() and int(announced) > max_bytes:
            raise TooLarge(f"{self._target.host} answers with more than {max_bytes} bytes.")
        return Answer(
            status=response.status_code,
            headers=received,
            url=self._target.url,
            blocks=self._body(max_bytes),
        )

    async def _head(self) -> h11.Response:
        taken = 0
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                if len(event.headers) > MOST_HEADERS:
                    raise ConnectionError(f"{self._target.host} answers with too many headers.")
                return event
            # Interim answers are passed over, but for 101, which nobody asked for.
            if event is h11.NEED_DATA and taken <= MOST_HEAD:
                data = await self._reader.read(MOST_HEAD // 4)
                taken += len(data)
                self._http.receive_data(data)
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise ConnectionError(f"{self._target.host} gave no answer that can be used.")

    async def _body(self, max_bytes: int | None) -> AsyncGenerator[bytes]:
        """What came at a time as one block, however it was cut in chunks."""
        loop = asyncio.get_running_loop()
        waited_s, waited_for, total, events = 0.0, 0, 0, 0
        pieces: list[bytes] = []
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    pieces.append(event.data)
                    total += len(event.data)
                    if max_bytes is not None and total > max_bytes:
                        raise TooLarge(
                            f"{self._target.host} answers with more than {max_bytes} bytes."
                        )
                    events += 1
                    if events % _TURN == 0:
                        # Chunks of a byte each must not keep the event loop to themselves.
                        await asyncio.sleep(0)
                    continue
                if pieces:
                    block = b"".join(pieces)
                    pieces.clear()
                    yield block
                if event is not h11.NEED_DATA:
                    return
                begun = loop.time()
                data = await self._more()
                waited_s += loop.time() - begun
                waited_for += len(data)
                if waited_s >= self._settings.read_timeout:
                    if waited_for < self._settings.min_rate * waited_s:
                        raise TooSlow(f"{self._target.host} sends too slowly.")
                    waited_s, waited_for = 0.0, 0
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"The answer of {self._target.host} broke off.") from error

    async def _more(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(
                min(self._deadline, loop.time() + self._settings.read_timeout)
            ):
                return await self._reader.read(_BLOCK)
        except TimeoutError:
            raise TimeoutError(f"{self._target.host} sent nothing in time.") from None
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> ConnectionError:
        return ConnectionError(f"The connection to {self._target.host} broke.")


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
