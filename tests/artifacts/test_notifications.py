"""Events of artifacts on their way to RabbitMQ: what a listener of oslo.messaging reads."""

from pathlib import Path
from uuid import uuid4

from dev.rabbitmq import Rabbitmq
from diptych_artifacts.settings import load

from tests.artifacts.sending import ACTIVATE, DEACTIVATE, PUBLISH, REQUIRED, changed, path_of
from tests.artifacts.service import ADMIN, ALICE, LOCATION, OCTETS, client, configuration, opened
from tests.listening import listening

# What payloads have in Glare. Source: Glare 5.0.1, objects/base.py.
OF_AN_ARTIFACT = {
    *("type", "id", "description", "name", "version", "visibility", "status", "owner"),
    *("created_at", "updated_at", "activated_at"),
}


async def test_oslo_messaging_reads_every_event_with_glares_payload(
    artifacts_database: str, tmp_path: Path, rabbitmq: Rabbitmq, oslo_messaging_env: Path
) -> None:
    topic, exchange = f"notifications-{uuid4().hex[:8]}", f"glare-{uuid4().hex[:8]}"
    environ = configuration(
        artifacts_database,
        tmp_path,
        DEFAULT__GLARE_PUBLISHER_ID="artifact.node-7",
        DEFAULT__CONTROL_EXCHANGE=exchange,
        OSLO_MESSAGING_NOTIFICATIONS__DRIVER="messagingv2",
        OSLO_MESSAGING_NOTIFICATIONS__TRANSPORT_URL=rabbitmq.url(),
        OSLO_MESSAGING_NOTIFICATIONS__TOPICS=topic,
        JOBS__WITH_WORKER="true",
        JOBS__POLL_INTERVAL="0.2",
    )
    expected = [
        *("create", "upload", "set_location", "delete_blob"),
        *("update", "activate", "update", "deactivate", "update", "reactivate", "publish"),
        "delete",
    ]
    async with (
        listening(oslo_messaging_env, rabbitmq.url(), topic, exchange=exchange) as read,
        opened(environ) as app,
        client(app) as api,
    ):
        body = {"name": "x", **REQUIRED}
        created = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
        path = path_of(created.json())
        for answer in (
            await api.put(f"{path}/blob", content=b"data", headers={**ALICE, **OCTETS}),
            await api.put(
                f"{path}/dict_of_blobs/x",
                json={"url": "http://files.example/x", "md5": None},
                headers={**ALICE, **LOCATION},
            ),
            await api.delete(f"{path}/dict_of_blobs/x", headers=ALICE),
        ):
            assert answer.status_code == 200, answer.text
        await changed(api, path, ACTIVATE)
        await changed(api, path, DEACTIVATE, headers=ADMIN)
        await changed(api, path, ACTIVATE, PUBLISH, headers=ADMIN)
        assert (await api.delete(path, headers=ADMIN)).status_code == 204
        told = [await read() for _ in expected]
    # A listener has several threads: what comes close together it may tell in any order.
    actions = [event["event_type"].removeprefix("artifact.artifact:") for event in told]
    assert sorted(actions) == sorted(expected)
    assert {event["publisher_id"] for event in told} == {"artifact.node-7"}
    assert {event["priority"] for event in told} == {"INFO"}
    for event in told:
        assert event["payload"].keys() == OF_AN_ARTIFACT
        assert event["payload"]["id"] == created.json()["id"]
        assert event["payload"]["owner"] == "alpha"
    of = dict(zip(actions, told, strict=True))
    assert of["create"]["payload"]["status"] == "drafted"
    assert of["activate"]["payload"]["status"] == "active"
    assert of["deactivate"]["payload"]["status"] == "deactivated"
    assert of["delete"]["payload"]["visibility"] == "public"


def test_where_nothing_is_said_events_come_from_where_glares_do() -> None:
    default = load(environ={}).settings.default
    assert (default.control_exchange, default.glare_publisher_id) == ("glare", "artifact.localhost")
