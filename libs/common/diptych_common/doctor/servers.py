"""Whether RabbitMQ and Barbican let the service in."""

import asyncio
from typing import Protocol

from diptych_common import amqp, keystone
from diptych_common.barbican import Barbican, CannotAsk, NoBarbican, Refused, TooLarge
from diptych_common.doctor.findings import Ended, Examination, Notes
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.events import Unsent
from diptych_common.settings import Barbican as BarbicanSettings
from diptych_common.settings import KeystoneAuthtoken, MessagingNotifications, MessagingRabbit

_BROKER = "Is the server up, and are host, user, password and virtual host of transport_url right?"
_BARBICAN = "Is Barbican up, and is its endpoint right: [barbican], or in Keystone's catalog?"


class _Default(Protocol):
    @property
    def transport_url(self) -> str: ...


class Notifying(Protocol):
    """The settings of a service that sends events."""

    @property
    def default(self) -> _Default:
        """[DEFAULT]."""
        ...

    @property
    def oslo_messaging_notifications(self) -> MessagingNotifications:
        """How they are sent."""
        ...

    @property
    def oslo_messaging_rabbit(self) -> MessagingRabbit:
        """The connection."""
        ...


def messaging_of(settings: Notifying) -> Examination | None:
    """Of the servers that the service sends events to; None if it sends them elsewhere."""
    notifications = settings.oslo_messaging_notifications
    if notifications.driver not in ("messaging", "messagingv2"):
        return None
    return messaging(
        notifications,
        settings.oslo_messaging_rabbit,
        transport_url=settings.default.transport_url,
    )


def messaging(
    notifications: MessagingNotifications, rabbit: MessagingRabbit, *, transport_url: str
) -> Examination:
    """Of the servers that events are sent to; for a `driver` of messaging.

    `transport_url` is that of [DEFAULT].
    """

    async def examine(notes: Notes) -> None:
        transport = amqp.parse(notifications.transport_url or transport_url)

        async def asked(server: amqp.Server) -> Notes:
            into = Notes(notes.seconds)
            try:
                async with into.asking("rabbitmq", _BROKER, troubles=(Unsent,)):
                    await amqp.greet(server, transport, rabbit)
            except Ended:
                return into
            into.ok("rabbitmq", f"{server.host} lets this service in.")
            return into

        for found in await asyncio.gather(*map(asked, transport.servers)):
            notes.findings += found.findings
            notes.hangs |= found.hangs

    return examine


def barbican(
    settings: BarbicanSettings, authtoken: KeystoneAuthtoken, *, service_type: str
) -> Examination:
    """Of Barbican, where there is one: whether it takes this service's own token."""

    async def examine(notes: Notes) -> None:
        about = "barbican"
        async with Barbican(settings, authtoken, service_type=service_type) as unopened:
            troubles = (CannotAsk, TooLarge, keystone.CannotAsk, Unauthorized, ServiceUnavailable)
            async with notes.asking(about, _BARBICAN, troubles=troubles):
                try:
                    token = await unopened.own_token()
                    address = await unopened.address(token)
                except NoBarbican:
                    notes.ok(about, "There is none: signatures of images cannot be checked.")
                    return
                try:
                    await unopened.get(
                        f"{address}/secrets?limit=0", token, accept="application/json"
                    )
                except Refused as refused:
                    if refused.status != 403:  # whose roles may not list: it knows who asks
                        notes.fail(about, f"{address} answers {refused.status}.", _BARBICAN)
                        return
            notes.ok(about, f"{address} takes this service's token.")

    return examine
