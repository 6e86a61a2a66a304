"""Networks to open URLs in: one that refuses every connection, one that leads back to loopback."""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from diptych_common.outbound import Outbound
from diptych_common.settings import Outbound as OutboundSettings

from tests.web import Web

PUBLIC = "93.184.216.34"
PUBLIC_6 = "2606:2800:220:1:248:1893:25c8:1946"


class Refusing:
    """A network where names have the addresses given, and no connection is ever taken."""

    def __init__(self, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names = names or {}
        self.asked: list[str] = []
        self.connected: list[tuple[str, int, str]] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.names[host]

    async def connect(
        self, address: str, port: int, tls: ssl.SSLContext | None, name: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connected.append((address, port, name))
        raise ConnectionRefusedError

    def outbound(self, **options: Any) -> Outbound:
        return Outbound(OutboundSettings(**options), resolve=self.resolve, connect=self.connect)


class Leading(Refusing):
    """A network where whatever address is asked, a server on loopback answers."""

    def __init__(self, web: Web, names: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(names or {"example.org": [PUBLIC], "other.example": [PUBLIC]})
        self.web = web

    async def connect(
        self, address: str, port: int, tls: ssl.SSLContext | None, name: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connected.append((address, port, name))
        return await asyncio.open_connection(
            "127.0.0.1", self.web.port, ssl=tls, server_hostname=name if tls else None
        )


def on_loopback(**options: Any) -> Outbound:
    """The real network, with loopback allowed."""
    allowed: dict[str, Any] = {"allowed_networks": ("127.0.0.0/8",), "allowed_ports": ()}
    return Outbound(OutboundSettings(**(allowed | options)))


async def fetched(outbound: Outbound, url: str, **how: Any) -> bytes:
    async with outbound.open(url, **how) as found:
        return b"".join([block async for block in found.blocks])
