"""Events on their way to RabbitMQ: what a listener of oslo.messaging reads, and what must not be.

How they are written is tested with the routes that do.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractChannel
from dev import ports
from dev.rabbitmq import LARGEST_MESSAGE, PASSWORD, Rabbitmq
from diptych_common import amqp, delivery
from diptych_common.amqp import Broker
from diptych_common.database import Database
from diptych_common.events import Event, Refused, Unsent
from diptych_common.settings import MessagingNotifications, MessagingRabbit
from diptych_images.db.tables import outbox
from diptych_images.settings import load

from tests import databases
from tests.daemon import COMMAND, Daemon
from tests.images.service import ADMIN, ALICE, OCTETS, client, configuration, opened
from tests.listening import Read, listening
from tests.waiting import until

IMAGE = {"name": "x", "disk_format": "raw", "container_format": "bare"}
OF_AN_UPLOAD = [
    "image.create",
    "image.update",
    "image.prepare",
    "image.upload",
    "image.activate",
    "image.update",
]

# What payloads have in Glance. Source: Glance 33.0, notifier.py.
DELETION = {"deleted", "deleted_at"}
TIMES = {"created_at", "updated_at", *DELETION}
OF_AN_IMAGE = {
    *("id", "name", "status", "min_disk", "min_ram", "protected", "checksum", "owner"),
    *("disk_format", "container_format", "size", "virtual_size", "is_public", "visibility"),
    *("properties", "tags", *TIMES),
}
LISTS = {"os_glance_importing_to_stores", "os_glance_failed_import"}
OF_A_MEMBER = {"image_id", "member_id", "status", *TIMES}
OF_A_TASK = {"id", "type", "status", "result", "owner", "message", "expires_at", *TIMES}
OF_A_NAMESPACE = {
    *("namespace", "namespace_old", "display_name", "protected", "visibility", "owner"),
    *("description", *TIMES),
}
NAMES = {"namespace", "name", "name_old"}
OF_AN_OBJECT = {*NAMES, "properties", "required", "description", *TIMES}
OF_A_PROPERTY = {
    *("type", "title", "description", "default", "minimum", "maximum", "enum", "pattern"),
    *("minLength", "maxLength", "confidential", "items", "uniqueItems", "minItems", "maxItems"),
    *("additionalItems", *NAMES, *DELETION),
}
OF_A_RESOURCE_TYPE = {*NAMES, "prefix", "properties_target", *TIMES}
OF_A_TAG = {*NAMES, *TIMES}
PAYLOADS = {
    "image.create": OF_AN_IMAGE,
    "image.update": OF_AN_IMAGE,
    "image.prepare": {*OF_AN_IMAGE, *LISTS, "backend"},
    # Ours says here, too, which of several stores it is.
    "image.upload": {*OF_AN_IMAGE, *LISTS, "backend"},
    "image.activate": OF_AN_IMAGE,
    "image.send": {
        *("bytes_sent", "image_id", "owner_id", "receiver_tenant_id", "receiver_user_id"),
    },
    "image.delete": OF_AN_IMAGE,
    **{f"image.member.{what}": OF_A_MEMBER for what in ("create", "update", "delete")},
    # Nobody can delete a task: Glance never sends task.delete.
    **{f"task.{what}": OF_A_TASK for what in ("create", "run", "processing", "success", "failure")},
    **{
        f"metadef_namespace.{what}": OF_A_NAMESPACE
        for what in (
            *("create", "update", "delete", "delete_objects", "delete_properties"),
            "delete_tags",
        )
    },
    **{f"metadef_object.{what}": OF_AN_OBJECT for what in ("create", "update", "delete")},
    **{f"metadef_property.{what}": OF_A_PROPERTY for what in ("create", "update", "delete")},
    **{f"metadef_tag.{what}": OF_A_TAG for what in ("create", "update", "delete")},
    **{f"metadef_resource_type.{what}": OF_A_RESOURCE_TYPE for what in ("create", "delete")},
}


@pytest.fixture
def topic() -> str:
    return f"notifications-{uuid4().hex[:8]}"


def sending(database: str, folder: Path, url: str, topic: str, **options: str) -> dict[str, str]:
    """The service with a worker, and with events that go to this broker and topic."""
    return configuration(
        database,
        folder,
        OSLO_MESSAGING_NOTIFICATIONS__DRIVER="messagingv2",
        OSLO_MESSAGING_NOTIFICATIONS__TRANSPORT_URL=url,
        OSLO_MESSAGING_NOTIFICATIONS__TOPICS=topic,
        **{"JOBS__WITH_WORKER": "true", "JOBS__POLL_INTERVAL": "0.2", **options},
    )


@asynccontextmanager
async def channel_to(rabbitmq: Rabbitmq) -> AsyncGenerator[AbstractChannel]:
    (server,) = amqp.parse(rabbitmq.url()).servers
    connection = await aio_pika.connect(
        host=server.host, port=server.port or 0, login=server.user, password=server.password
    )
    async with connection:
        yield await connection.channel()


@asynccontextmanager
async def reading(rabbitmq: Rabbitmq, queue: str) -> AsyncGenerator[Read]:
    """`await read()`: the next event of a queue, which somebody has declared or will."""
    async with channel_to(rabbitmq) as channel:
        declared = await channel.declare_queue(queue)
        async with declared.iterator(no_ack=True) as messages:

            async def read() -> dict[str, Any]:
                async with asyncio.timeout(60):
                    message = await anext(messages)
                return json.loads(json.loads(message.body)["oslo.message"])

            yield read


async def upload(api: httpx.AsyncClient, data: bytes, headers: Mapping[str, str] = ALICE) -> str:
    """The path of an image with its data."""
    created = await api.post("/v2/images", json=IMAGE, headers=headers)
    path = created.json()["self"]
    stored = await api.put(f"{path}/file", content=data, headers={**headers, **OCTETS})
    assert stored.status_code == 204, stored.text
    return path


async def waiting(database: str) -> list[dict[str, Any]]:
    async with databases.connection(database) as server:
        rows = await server.fetch("SELECT * FROM outbox ORDER BY id")
    return [{**row, "payload": json.loads(row["payload"])} for row in rows]


async def until_delivered(database: str) -> None:
    async def is_empty() -> bool:
        return not await waiting(database)

    await until(is_empty, within_s=60)


async def done(api: httpx.AsyncClient, method: str, path: str, body: object = None) -> Any:
    answer = await api.request(method, path, json=body, headers=ADMIN)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def unannounced(data: bytes) -> AsyncGenerator[bytes]:
    """A body of unknown length."""
    yield data


async def life_of_images(api: httpx.AsyncClient) -> str:
    """Do all that there are events of images for; the path of one that was uploaded."""
    path = await upload(api, b"bytes", ADMIN)
    assert (await api.get(f"{path}/file", headers=ADMIN)).content == b"bytes"
    await done(api, "POST", f"{path}/members", {"member": "beta"})
    await done(api, "PUT", f"{path}/members/beta", {"status": "accepted"})
    await done(api, "DELETE", f"{path}/members/beta")
    too_large = await done(api, "POST", "/v2/images", IMAGE)
    refused = await api.put(
        f"{too_large['self']}/file", content=unannounced(b"x" * 101), headers={**ADMIN, **OCTETS}
    )
    assert refused.status_code == 413
    for disk_format, status in (("qcow2", "failure"), ("raw", "success")):
        image = await done(api, "POST", "/v2/images", {**IMAGE, "disk_format": disk_format})
        staged = await api.put(
            f"{image['self']}/stage", content=b"not qcow2", headers={**ADMIN, **OCTETS}
        )
        assert staged.status_code == 204, staged.text
        asked = {"method": {"name": "glance-direct"}}
        await done(api, "POST", f"{image['self']}/import", asked)
        await until(lambda path=image["self"], status=status: has_task(api, path, status))
    await done(api, "DELETE", too_large["self"])
    return path


async def has_task(api: httpx.AsyncClient, path: str, status: str) -> bool:
    tasks = (await done(api, "GET", f"{path}/tasks"))["tasks"]
    return [task["status"] for task in tasks] == [status]


async def life_of_metadefs(api: httpx.AsyncClient) -> None:
    """Do all that there are events of metadefs for."""
    spaces = "/v2/metadefs/namespaces"
    await done(api, "POST", spaces, {"namespace": "Old"})
    await done(api, "PUT", f"{spaces}/Old", {"namespace": "Space"})
    space = f"{spaces}/Space"
    schema = {"title": "Size", "type": "integer"}
    for kind, body in (("objects", {}), ("properties", schema)):
        for name in ("One", "Two"):
            await done(api, "POST", f"{space}/{kind}", {"name": name, **body})
        await done(api, "PUT", f"{space}/{kind}/One", {"name": "Three", **body})
        await done(api, "DELETE", f"{space}/{kind}/Three")
        await done(api, "DELETE", f"{space}/{kind}")
    await done(api, "POST", f"{space}/tags/One")
    await done(api, "PUT", f"{space}/tags/One", {"name": "Two"})
    await done(api, "DELETE", f"{space}/tags/Two")
    await done(api, "POST", f"{space}/tags", {"tags": [{"name": "Four"}]})
    await done(api, "DELETE", f"{space}/tags")
    await done(api, "POST", f"{space}/resource_types", {"name": "OS::Type"})
    await done(api, "DELETE", f"{space}/resource_types/OS::Type")
    await done(api, "DELETE", space)


async def test_oslo_messaging_reads_every_event_with_glances_payload(
    images_database: str,
    tmp_path: Path,
    rabbitmq: Rabbitmq,
    oslo_messaging_env: Path,
    topic: str,
) -> None:
    environ = sending(
        images_database,
        tmp_path,
        rabbitmq.url(),
        topic,
        DEFAULT__IMAGE_SIZE_CAP="100",
        DEFAULT__NODE_STAGING_URI=f"file://{tmp_path}/staging",
    )
    told: list[dict[str, Any]] = []
    async with (
        listening(oslo_messaging_env, rabbitmq.url(), topic, exchange="glance") as read,
        opened(environ) as app,
        client(app) as api,
    ):
        path = await life_of_images(api)
        await life_of_metadefs(api)
        while not told or told[-1]["event_type"] != "metadef_namespace.delete":
            told.append(await read())
        await until_delivered(images_database)
    payloads = {event["event_type"]: event["payload"] for event in told if event["payload"]}
    texts = [event for event in told if isinstance(event["payload"], str)]
    for event in told:
        if event not in texts:
            assert event["payload"].keys() == PAYLOADS[event["event_type"]], event
    assert {event["event_type"] for event in told} == PAYLOADS.keys()
    assert {event["publisher_id"] for event in told} == {"image.localhost"}
    assert all(event["context"]["request_id"].startswith("req-") for event in told)
    assert len({event["metadata"]["message_id"] for event in told}) == len(told)

    (text, *more) = [event for event in told if event["priority"] == "ERROR"]
    assert [text] == texts
    assert not more
    assert text["event_type"] == "image.upload"
    assert "could not be stored" in text["payload"]

    image_id = path.rpartition("/")[2]
    of_one = [event for event in told if event["payload"] and image_id in str(event["payload"])]
    assert [event["event_type"] for event in of_one] == [
        *OF_AN_UPLOAD,
        "image.send",
        "image.member.create",
        "image.member.update",
        "image.member.delete",
    ]
    assert [event["payload"]["status"] for event in of_one[:6]] == [
        *("queued", "saving", "saving", "active", "active", "active")
    ]
    assert of_one[2]["payload"]["backend"] == "fast"
    assert of_one[6]["payload"] == {
        "bytes_sent": 5,
        "image_id": image_id,
        "owner_id": "service",
        "receiver_tenant_id": "service",
        "receiver_user_id": "admin-of-service",
    }
    assert payloads["image.delete"]["deleted"] is True


@asynccontextmanager
async def relay(target: int, *, port: int = 0, at_most: int = 1 << 40) -> AsyncGenerator[int]:
    """A port that leads to another; after `at_most` bytes of clients it passes nothing on."""
    left = at_most
    held = asyncio.Event()

    async def passing(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        nonlocal left
        with suppress(ConnectionError):
            while data := await reader.read(1024):
                if counted:
                    left -= len(data)
                if left < 0:
                    await held.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(
            passing(reader, onward, counted=True), passing(there, writer, counted=False)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        held.set()
        await server.wait_closed()


async def fill(database: str, number: int, *, first: int = 0, size: int = 1000) -> None:
    """Let `number` events wait, whose payloads are numbered from `first` on."""
    async with databases.connection(database) as server:
        await server.execute(
            "INSERT INTO outbox (event_type, priority, payload)"
            " SELECT 'image.update', 'INFO', jsonb_build_object('number', n, 'pad',"
            " repeat('x', $3)) FROM generate_series($1::int, $1 + $2::int - 1) n",
            *(first, number, size),
        )


async def test_all_events_arrive_though_the_worker_is_killed_among_them(
    images_database: str, tmp_path: Path, rabbitmq: Rabbitmq, topic: str
) -> None:
    await fill(images_database, 300)
    async with (
        reading(rabbitmq, f"{topic}.info") as read,
        relay(rabbitmq.port, at_most=250_000) as port,
    ):
        url = rabbitmq.url(port=port)
        environ = sending(images_database, tmp_path, url, topic, JOBS__LEASE="3")
        log = tmp_path / "worker.log"
        with log.open("wb") as written:
            victim = await asyncio.create_subprocess_exec(
                *(COMMAND, "worker"),
                env={**os.environ, **environ, "DIPTYCH_IMAGES__METRICS__ENABLED": "false"},
                stdout=written,
                stderr=written,
            )
        try:
            # The first hundred and more have passed: it waits for a confirmation for good.
            told = [await read() for _ in range(102)]
        finally:
            victim.kill()
            await victim.wait()
        assert 0 < len(await waiting(images_database)) < 300, log.read_text()
        environ = sending(images_database, tmp_path, rabbitmq.url(), topic, JOBS__LEASE="3")
        async with opened(environ):
            while told[-1]["payload"]["number"] != 299:
                told.append(await read())
            await until_delivered(images_database)
    numbers = [event["payload"]["number"] for event in told]
    # In order, but for what the second one sent again.
    assert list(dict.fromkeys(numbers)) == list(range(300))
    assert len({event["message_id"] for event in told}) == 300


async def test_events_wait_for_a_broker_that_is_down_and_its_password_is_told_nobody(
    images_database: str,
    tmp_path: Path,
    rabbitmq: Rabbitmq,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = ports.any_free()
    url = rabbitmq.url(port=port)
    environ = sending(images_database, tmp_path, url, topic)
    caplog.set_level("DEBUG")
    async with (
        databases.connection(images_database) as server,
        opened(environ) as app,
        client(app) as api,
    ):
        await upload(api, b"bytes")

        async def is_told() -> bool:
            told = await server.fetchval("SELECT error FROM jobs WHERE kind = 'deliver'")
            return "RabbitMQ at 127.0.0.1 took no events" in (told or "")

        await until(is_told)
        assert [row["event_type"] for row in await waiting(images_database)] == OF_AN_UPLOAD
        async with relay(rabbitmq.port, port=port):
            await until_delivered(images_database)
        jobs = str(await server.fetch("SELECT * FROM jobs"))
    shown = repr(load(environ=environ).sections)
    assert "took no events" in caplog.text
    escaped = url.split(":")[2].partition("@")[0]
    for secret in (PASSWORD, escaped):
        assert secret not in caplog.text + jobs
    assert escaped in shown, "or this test would look for something else"


def event(number: int, payload: Mapping[str, Any] | None = None) -> Event:
    return Event(
        id=number,
        message_id=str(uuid4()),
        event_type="image.update",
        priority="INFO",
        payload=payload or {"number": number},
        request_id=None,
        created_at=datetime.now(UTC),
    )


async def publish(broker: Broker, events: Sequence[Event]) -> int:
    contents = [amqp.enveloped(amqp.message(one, publisher_id="image.here")) for one in events]
    return await broker.publish([("INFO", content) for content in contents])


def broker_at(
    url: str, topic: str, *, timeout_s: float = 30, options: MessagingRabbit | None = None
) -> Broker:
    return Broker(
        amqp.parse(url),
        options or MessagingRabbit(),
        exchange="glance",
        topics=[topic],
        timeout_s=timeout_s,
    )


async def test_a_broker_that_hangs_is_left() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with broker_at(f"rabbit://u:p@127.0.0.1:{port}/", "t", timeout_s=0.2) as broker:
            with pytest.raises(Unsent, match="TimeoutError"):
                await publish(broker, [event(1)])


@asynccontextmanager
async def behind_tls(rabbitmq: Rabbitmq, certificate: Path) -> AsyncGenerator[str]:
    """The address of the broker behind something that takes TLS off, as load balancers do."""

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", rabbitmq.port)
        with suppress(OSError):
            await asyncio.gather(passed_on(reader, inner_writer), passed_on(inner_reader, writer))

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with await asyncio.start_server(between, "127.0.0.1", 0, ssl=tls) as server:
        yield f"{rabbitmq.url(port=server.sockets[0].getsockname()[1])}?ssl=1"


async def test_a_broker_shows_a_certificate_for_its_host(
    rabbitmq: Rabbitmq, topic: str, certificates: Path
) -> None:
    """OSSN-0096: whoever had any certificate of the authority could read all events."""
    options = MessagingRabbit(ssl_ca_file=str(certificates / "ca.pem"))
    async with (
        behind_tls(rabbitmq, certificates / "good.pem") as url,
        broker_at(url, topic, options=options) as broker,
    ):
        assert await publish(broker, [event(1)]) == 1
    for name, ca_file in (("wrong-name", "ca"), ("good", "other-ca")):
        options = MessagingRabbit(ssl_ca_file=str(certificates / f"{ca_file}.pem"))
        async with (
            behind_tls(rabbitmq, certificates / f"{name}.pem") as url,
            broker_at(url, topic, options=options) as broker,
        ):
            with pytest.raises(Unsent):
                await publish(broker, [event(2)])


async def test_the_next_server_is_asked_when_one_is_down(rabbitmq: Rabbitmq, topic: str) -> None:
    down = f"u:p@127.0.0.1:{ports.any_free()}"
    url = rabbitmq.url().replace("rabbit://", f"rabbit://{down},")
    async with broker_at(url, topic) as broker:
        with pytest.raises(Unsent):
            await publish(broker, [event(1)])
        assert await publish(broker, [event(1), event(2)]) == 2


async def test_the_next_run_of_the_job_asks_the_next_server(rabbitmq: Rabbitmq, topic: str) -> None:
    down = f"u:p@127.0.0.1:{ports.any_free()}"
    opened_for = delivery.configured(
        MessagingNotifications(driver="messagingv2", topics=(topic,)),
        MessagingRabbit(),
        transport_url=rabbitmq.url().replace("rabbit://", f"rabbit://{down},"),
        exchange="glance",
        publisher_id="image.here",
    )
    assert opened_for is not None
    with pytest.raises(Unsent):
        async with opened_for() as send:
            await send([event(1)])
    for _ in range(2):
        async with opened_for() as send:
            assert await send([event(1)]) == 1


async def test_a_queue_that_was_deleted_is_declared_again(rabbitmq: Rabbitmq, topic: str) -> None:
    async with channel_to(rabbitmq) as channel, broker_at(rabbitmq.url(), topic) as broker:
        assert await publish(broker, [event(1)]) == 1
        await channel.queue_delete(f"{topic}.info")
        with pytest.raises(Unsent, match="PublishError"):
            await publish(broker, [event(2)])
        assert await publish(broker, [event(2)]) == 1
        queue = await channel.get_queue(f"{topic}.info")
        message = await queue.get(no_ack=True)
    assert message is not None
    assert message.content_type == "application/json"
    assert json.loads(json.loads(message.body)["oslo.message"])["payload"] == {"number": 2}


async def test_a_queue_that_was_declared_otherwise_is_taken(rabbitmq: Rabbitmq, topic: str) -> None:
    async with channel_to(rabbitmq) as channel, broker_at(rabbitmq.url(), topic) as broker:
        queue = await channel.declare_queue(f"{topic}.info", durable=True)
        assert await publish(broker, [event(1), event(2)]) == 2
        assert await queue.get(no_ack=True)


async def test_an_event_that_no_broker_takes_keeps_no_other_from_being_delivered(
    images_database: str, tmp_path: Path, rabbitmq: Rabbitmq, topic: str
) -> None:
    async with broker_at(rabbitmq.url(), topic) as broker:
        with pytest.raises(Refused):
            await publish(broker, [event(1, {"pad": "x" * LARGEST_MESSAGE})])
    await fill(images_database, 3)
    await fill(images_database, 1, first=3, size=LARGEST_MESSAGE)
    await fill(images_database, 3, first=4)
    async with (
        reading(rabbitmq, f"{topic}.info") as read,
        opened(sending(images_database, tmp_path, rabbitmq.url(), topic)),
    ):
        await until_delivered(images_database)
        numbers = [0]
        while numbers[-1] != 6:
            numbers.append((await read())["payload"]["number"])
    assert list(dict.fromkeys(numbers)) == [0, 1, 2, 4, 5, 6]


async def test_what_waits_is_measured(images_database: str) -> None:
    settings = load(environ={"DIPTYCH_IMAGES__DATABASE__CONNECTION": images_database}).settings
    await fill(images_database, 3)
    async with databases.connection(images_database) as server:
        await server.execute("UPDATE outbox SET created_at = now() - interval '1 hour'")
    measured: list[tuple[int, float]] = []
    async with Database(settings.database) as db:
        measuring = asyncio.create_task(
            delivery.measure(db, outbox, lambda number, age: measured.append((number, age)))
        )
        await until(lambda: bool(measured))
        measuring.cancel()
    ((number, age),) = measured
    assert number == 3
    assert 3600 <= age < 3700


async def test_a_part_that_is_downloaded_is_told_as_what_was_asked_for(
    api: httpx.AsyncClient, images_database: str
) -> None:
    path = await upload(api, b"0123456789")
    await api.get(f"{path}/file", headers={**ALICE, "Range": "bytes=2-4"})
    await api.head(f"{path}/file", headers=ALICE)
    told = [row for row in await waiting(images_database) if row["event_type"] == "image.send"]
    assert [(row["priority"], row["payload"]["bytes_sent"]) for row in told] == [("INFO", 3)]


async def test_a_client_that_breaks_off_is_told_with_what_it_was_sent(
    images_database: str, tmp_path: Path
) -> None:
    async with opened(configuration(images_database, tmp_path)) as app, client(app) as api:
        path = await upload(api, bytes(5 << 20))
        gone = asyncio.Event()
        sizes: list[int] = []

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                sizes.append(len(message["body"]))
                if len(sizes) == 2:
                    gone.set()
                    await asyncio.sleep(0.5)  # the server would wait for the client to read

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": f"{path}/file",
            "root_path": "",
            "raw_path": f"{path}/file".encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in ALICE.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 9292),
        }
        await app(scope, receive, send)
    told = [row for row in await waiting(images_database) if row["event_type"] == "image.send"]
    assert len(sizes) == 2
    assert [(row["priority"], row["payload"]["bytes_sent"]) for row in told] == [
        ("ERROR", sizes[0])
    ]


async def test_a_failed_upload_is_told_and_that_the_image_is_queued_again(
    custom_api: Callable[..., Awaitable[httpx.AsyncClient]], images_database: str
) -> None:
    api = await custom_api(DEFAULT__IMAGE_SIZE_CAP="4")
    path = (await api.post("/v2/images", json=IMAGE, headers=ALICE)).json()["self"]
    refused = await api.put(
        f"{path}/file", content=unannounced(b"12345"), headers={**ALICE, **OCTETS}
    )
    assert refused.status_code == 413
    told = await waiting(images_database)
    assert [(row["event_type"], row["priority"]) for row in told] == [
        ("image.create", "INFO"),
        ("image.update", "INFO"),
        ("image.prepare", "INFO"),
        ("image.upload", "ERROR"),
        ("image.update", "INFO"),
    ]
    assert path.rpartition("/")[2] in told[3]["payload"]
    assert told[4]["payload"]["status"] == "queued"


async def test_without_a_driver_there_are_no_events(
    custom_api: Callable[..., Awaitable[httpx.AsyncClient]], images_database: str
) -> None:
    api = await custom_api(OSLO_MESSAGING_NOTIFICATIONS__DRIVER="noop", JOBS__WITH_WORKER="true")
    path = await upload(api, b"bytes")
    assert (await api.get(f"{path}/file", headers=ALICE)).content == b"bytes"
    assert await waiting(images_database) == []
    async with databases.connection(images_database) as server:
        assert not await server.fetch("SELECT id FROM jobs WHERE kind = 'deliver'")


@pytest.mark.parametrize(
    ("disabled", "left"),
    [
        ("image.update, image.send", ["create", "prepare", "upload", "activate", "delete"]),
        ("image", []),
        (
            "image.up",
            ["create", "update", "prepare", "upload", "activate", "update", "send", "delete"],
        ),
    ],
)
async def test_events_can_be_disabled_by_type_and_group(
    custom_api: Callable[..., Awaitable[httpx.AsyncClient]],
    images_database: str,
    disabled: str,
    left: list[str],
) -> None:
    api = await custom_api(DEFAULT__DISABLED_NOTIFICATIONS=disabled)
    path = await upload(api, b"bytes")
    await api.get(f"{path}/file", headers=ALICE)
    await api.delete(path, headers=ALICE)
    told = [row["event_type"].removeprefix("image.") for row in await waiting(images_database)]
    assert told == left


async def test_events_go_to_the_log(
    images_database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = configuration(
        images_database,
        tmp_path,
        DEFAULT__DEFAULT_PUBLISHER_ID="image.somewhere",
        JOBS__WITH_WORKER="true",
    )
    async with opened(environ) as app, client(app) as api:
        await api.post("/v2/images", json=IMAGE, headers=ALICE)
        await until_delivered(images_database)
    [line] = [
        record.getMessage()
        for record in caplog.records
        if record.name == "oslo.messaging.notification.image.create"
    ]
    assert json.loads(line)["payload"]["name"] == "x"
    assert json.loads(line)["publisher_id"] == "image.somewhere"


@pytest.mark.long
async def test_events_outlive_a_restart_of_the_broker(
    images_database: str, tmp_path: Path, topic: str, private_rabbitmq: Rabbitmq
) -> None:
    broker = private_rabbitmq
    environ = sending(images_database, tmp_path, broker.url(), topic)
    async with opened(environ) as app, client(app) as api:
        await upload(api, b"bytes")
        await until_delivered(images_database)
        await asyncio.to_thread(broker.stop)
        await upload(api, b"bytes")
        assert len(await waiting(images_database)) >= len(OF_AN_UPLOAD)
        await asyncio.to_thread(broker.start)
        async with reading(broker, f"{topic}.info") as read:
            told = [await read() for _ in OF_AN_UPLOAD]
        await until_delivered(images_database)
    assert [one["event_type"] for one in told] == OF_AN_UPLOAD


@pytest.mark.long
async def test_a_client_that_leaves_a_real_daemon_is_told_with_what_it_was_sent(
    images_database: str, tmp_path: Path
) -> None:
    size = 64 << 20
    daemon = Daemon(configuration(images_database, tmp_path), tmp_path / "log")
    daemon.start()
    try:
        async with httpx.AsyncClient(base_url=daemon.url) as api:
            path = await upload(api, bytes(size))
            async with api.stream("GET", f"{path}/file", headers=ALICE) as answer:
                read = len(await anext(answer.aiter_raw(1 << 20)))

            async def is_told() -> bool:
                return (await waiting(images_database))[-1]["event_type"] == "image.send"

            await until(is_told)
    finally:
        daemon.stop()
    told = (await waiting(images_database))[-1]
    assert told["priority"] == "ERROR"
    # Besides what it has read, what the buffers of both sockets and of the server hold.
    assert read <= told["payload"]["bytes_sent"] < read + (16 << 20)
