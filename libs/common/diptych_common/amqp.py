"""The way to RabbitMQ: events as oslo.messaging sends notifications, each confirmed by the broker.

Sources: oslo.messaging 18.3, notify/notifier.py, _drivers/{amqp,amqpdriver,impl_rabbit}.py.
"""

import asyncio
import ssl
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import aio_pika
import orjson
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, ChannelPreconditionFailed

from diptych_common.events import Event, Priority, Refused, Unsent
from diptych_common.settings import MessagingRabbit

_CLOSE_TIMEOUT_S: Final = 5.0
_PORT: Final = 5672
_TLS_PORT: Final = 5671
_TRUE: Final = ("1", "true", "yes", "on")
_TROUBLE: Final = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Server:
    """A broker of a cluster; `port` None is the usual one."""

    host: str
    port: int | None
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transport:
    """What a transport URL says; `tls` None: it does not say."""

    servers: tuple[Server, ...]
    virtual_host: str
    tls: bool | None


def parse(url: str) -> Transport:
    """Read oslo.messaging's `rabbit://user:password@host:port,…/virtual_host`.

    Raises ValueError, without the URL in the message: it holds a password.
    """
    # A password with a slash or a bracket must not come back in an error of the library.
    try:
        parts = urlsplit(url)
        servers = tuple(_server(each) for each in parts.netloc.split(",") if each)
        asked = parse_qs(parts.query).get("ssl")
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if parts.scheme != "rabbit":
        raise ValueError(_EXPECTED)
    return Transport(
        servers or (_server("localhost"),),
        unquote(parts.path[1:]) or "/",
        None if asked is None else asked[-1].lower() in _TRUE,
    )


_EXPECTED: Final = (
    "transport_url must be rabbit://user:password@host:port/virtual_host, where special characters"
    " of the password are percent-encoded"
)


def _server(text: str) -> Server:
    credentials, _, address = text.rpartition("@")
    user, _, password = credentials.partition(":")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, ""
    return Server(
        host=host.strip("[]"),
        port=int(port) if port else None,
        user=unquote(user) or "guest",
        password=unquote(password) if credentials else "guest",
    )


def message(event: Event, *, publisher_id: str) -> dict[str, object]:
    """The event as oslo.messaging's notifier makes it, before it is put into an envelope."""
    context = {} if event.request_id is None else {"_context_request_id": event.request_id}
    return {
        "message_id": event.message_id,
        "publisher_id": publisher_id,
        "event_type": event.event_type,
        "priority": event.priority,
        "payload": event.payload,
        "timestamp": str(event.created_at.astimezone(UTC).replace(tzinfo=None)),
        # Where a listener of oslo.messaging has seen it before, it drops the message.
        "_unique_id": UUID(event.message_id).hex,
        **context,
    }


def enveloped(content: Mapping[str, object]) -> dict[str, str]:
    """The message in the envelope of version 2."""
    return {"oslo.version": "2.0", "oslo.message": orjson.dumps(content).decode()}


class Broker:
    """A connection to the first server that takes one; made when it is needed, and made again.

    A server that confirms nothing for `timeout_s` is left.
    """

    def __init__(
        self,
        transport: Transport,
        rabbit: MessagingRabbit,
        *,
        exchange: str,
        topics: Sequence[str],
        timeout_s: float = 30,
    ) -> None:
        self._transport = transport
        self._rabbit = rabbit
        self._exchange = exchange
        self._topics = topics
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._declared: set[str] = set()
        # Which server is asked next.
        self._next = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def publish(self, messages: Sequence[tuple[Priority, Mapping[str, object]]]) -> int:
        """Send each to the queue of its priority in every topic; how many the server has for sure.

        They are the first so many. Raises Unsent if there is none: it may be sent again then, and
        goes to the next server. Raises Refused for a single message that no server will ever take.
        """
        server = self._transport.servers[self._next]
        sending: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._declare({priority for priority, _ in messages}, server)
                # Not one after the other: a server that writes to disk confirms many at a time.
                sending = [asyncio.create_task(self._send(*message)) for message in messages]
                await asyncio.gather(*sending)
        except _TROUBLE as error:
            await self._stop(sending)
            self._next = (self._next + 1) % len(self._transport.servers)
            sent = next((n for n, one in enumerate(sending) if not _has_succeeded(one)), 0)
            if sent > 0:
                return sent
            # Not its text: what libraries say of a connection may hold its URL.
            words = f"RabbitMQ at {server.host} took no events: {type(error).__name__}."
            if isinstance(error, ChannelPreconditionFailed) and len(sending) == 1:
                raise Refused(words) from None
            raise Unsent(words) from None
        except asyncio.CancelledError:
            await self._stop(sending)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # aiormq cancels what waits for a server that it takes for dead.
            raise Unsent(f"RabbitMQ at {server.host} took no events: it is silent.") from None
        return len(messages)

    async def _send(self, priority: Priority, content: Mapping[str, object]) -> None:
        message = aio_pika.Message(
            orjson.dumps(content),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        if self._channel is None:
            raise ChannelInvalidStateError("The connection is closed.")
        exchange = await self._channel.get_exchange(self._exchange, ensure=False)
        for topic in self._topics:
            # A queue that somebody has deleted is declared again, not passed over.
            await exchange.publish(message, _queue(topic, priority), mandatory=True)

    async def _stop(self, sending: Sequence[asyncio.Task[None]]) -> None:
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await self._close()

    async def _declare(self, priorities: Collection[Priority], server: Server) -> None:
        """Have the exchange, and the queues of these priorities bound to it.

        The publisher declares them, as oslo.messaging's does, so that nothing is lost before the
        first listener has come. What somebody has declared otherwise is taken as it is.
        """
        durable = self._rabbit.amqp_durable_queues or self._rabbit.rabbit_quorum_queue
        auto_delete = self._rabbit.amqp_auto_delete
        channel = await self._open_channel(server)
        wanted = {_queue(topic, priority) for topic in self._topics for priority in priorities}
        for queue in sorted(wanted - self._declared):
            try:
                await channel.declare_exchange(
                    self._exchange,
                    aio_pika.ExchangeType.TOPIC,
                    durable=durable,
                    auto_delete=auto_delete,
                )
            except ChannelPreconditionFailed:
                channel = await self._open_channel(server)
            try:
                declared = await channel.declare_queue(
                    queue,
                    durable=durable,
                    auto_delete=auto_delete,
                    arguments=_queue_arguments(self._rabbit),
                )
            except ChannelPreconditionFailed:
                channel = await self._open_channel(server)
                declared = await channel.get_queue(queue)
            await declared.bind(self._exchange, routing_key=queue)
            self._declared.add(queue)

    async def _open_channel(self, server: Server) -> AbstractChannel:
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        if self._connection is None or self._connection.is_closed:
            # A server that was started anew may have forgotten what was declared.
            self._declared.clear()
            self._connection = await _connect(server, self._transport, self._rabbit)
        opened = self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await opened.initialize()
        self._channel = opened
        return opened

    async def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            # It may be broken already, in whatever way.
            with suppress(*_TROUBLE):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await connection.close()


async def greet(server: Server, transport: Transport, rabbit: MessagingRabbit) -> None:
    """Connect to a server and leave again; raises Unsent when it does not let us in."""
    try:
        connection = await _connect(server, transport, rabbit)
        await connection.close()
    except _TROUBLE as error:
        raise Unsent(f"{server.host} does not let us in: {type(error).__name__}.") from None


async def _connect(
    server: Server, transport: Transport, rabbit: MessagingRabbit
) -> AbstractConnection:
    tls = rabbit.ssl if transport.tls is None else transport.tls
    return await aio_pika.connect(
        host=server.host,
        port=server.port or (_TLS_PORT if tls else _PORT),
        login=server.user,
        password=server.password,
        virtualhost=transport.virtual_host,
        ssl=tls,
        ssl_context=_tls_context(rabbit) if tls else None,
        heartbeat=rabbit.heartbeat_timeout_threshold,
    )


def _queue(topic: str, priority: Priority) -> str:
    """The name of a queue, which is its routing key too."""
    return f"{topic}.{priority.lower()}"


def _has_succeeded(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _queue_arguments(rabbit: MessagingRabbit) -> dict[str, Any]:
    mirrored = {"x-ha-policy": "all"} if rabbit.rabbit_ha_queues else {}
    if not rabbit.rabbit_quorum_queue:
        return {**mirrored}
    limits = {
        "x-delivery-limit": rabbit.rabbit_quorum_delivery_limit,
        "x-max-in-memory-length": rabbit.rabbit_quorum_max_memory_length,
        "x-max-in-memory-bytes": rabbit.rabbit_quorum_max_memory_bytes,
    }
    declared = {name: limit for name, limit in limits.items() if limit}
    return {**mirrored, "x-queue-type": "quorum", **declared}


def _tls_context(rabbit: MessagingRabbit) -> ssl.SSLContext:
    # Unlike in oslo.messaging, the certificate is checked without a file of authorities too.
    context = ssl.create_default_context(cafile=rabbit.ssl_ca_file)
    context.check_hostname = rabbit.ssl_enforce_hostname_verification
    if rabbit.ssl_cert_file is not None:
        context.load_cert_chain(rabbit.ssl_cert_file, rabbit.ssl_key_file)
    return context
