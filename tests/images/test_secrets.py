"""What must stay secret, planted everywhere and looked for in all that the daemon tells."""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone
from dev.seaweedfs import AccessKey, Seaweedfs
from dev.swift import Swift
from diptych_common import migrations

from tests import databases
from tests.daemon import Daemon
from tests.images.service import ADMIN, OCTETS, configuration
from tests.images.stores import Bucket, Container
from tests.images.test_cli import run

CANARY = "canary"


class Parrot(BaseHTTPRequestHandler):
    """A broken Keystone: whatever it is told, it answers with that, and with `status`."""

    status = 200

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._answer(str(self.headers).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self, body: bytes) -> None:
        self.send_response(Parrot.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Subject-Token", f"{CANARY}-of-the-service")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def parrot() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v3"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_secrets_are_told_nobody(postgres_url: str, tmp_path: Path) -> None:
    refused = re.sub(r"//.*@", f"//postgres:{CANARY}-of-the-database@", postgres_url)
    told: list[str] = []
    with parrot() as keystone:
        environ = configuration(
            refused,
            tmp_path,
            DEFAULT__WORKERS="1",
            DEFAULT__DEBUG="true",
            JOBS__WITH_WORKER="true",
            PASTE_DEPLOY__FLAVOR="keystone",
            KEYSTONE_AUTHTOKEN__AUTH_URL=keystone,
            KEYSTONE_AUTHTOKEN__USERNAME="images",
            KEYSTONE_AUTHTOKEN__PASSWORD=f"{CANARY}-of-keystone",
            KEYSTONE_AUTHTOKEN__PROJECT_NAME="service",
        )
        daemon = Daemon(environ, tmp_path / "log")
        daemon.start()
        try:
            with httpx.Client(base_url=daemon.url) as http:
                for Parrot.status in (401, 201, 500):
                    for token in (f"{CANARY}-{Parrot.status}", f"gAAAAAB{CANARY * 5}", CANARY * 99):
                        headers = {"X-Auth-Token": token, "X-Service-Token": token, "Cookie": token}
                        answer = http.get("/v2/images", headers=headers)
                        assert answer.status_code == 503
                        told += [str(answer.headers), answer.text]
                answer = http.get("/readyz", headers={"Authorization": f"Basic {CANARY}"})
                assert answer.status_code == 503
                told += [str(answer.headers), answer.text]
            log = daemon.log.read_text()
            port = re.search(r"Metrics on \S+ port (\d+)", log)
            assert port is not None
            told.append(httpx.get(f"http://127.0.0.1:{port[1]}/metrics").text)
        finally:
            daemon.stop()
    told.append(daemon.log.read_text())
    # That the secrets were used shows in the complaints about them.
    assert "password authentication failed" in told[-1]
    assert "this service's own credentials" in told[-1]
    assert [text for text in told if CANARY in text] == []


OLD_ROWS = {
    "s3": f"s3://{CANARY}-old-access:{CANARY}/old/secret@s3.example/bucket/",
    "swift": f"swift+http://{CANARY}-old-user:{CANARY}-old-key@swift.example/v1/images/",
    "web": f"http://{CANARY}-old-user:{CANARY}-old-password@127.0.0.1:9/images/",
}


@pytest.fixture
async def stores(s3: Seaweedfs, swift: Swift) -> AsyncGenerator[dict[str, Bucket | Container]]:
    """A good store, one whose secret is wrong and one that is away, of S3 and of Swift."""
    away = ports.any_free()
    nowhere = f"http://127.0.0.1:{away}"
    buckets = Bucket(s3), Bucket(s3)
    container = Container(swift)
    for bucket in buckets:
        await bucket.make()
    away_key = AccessKey(f"{CANARY}-away", f"{CANARY}+away")
    yield {
        "good": buckets[0],
        "wrong": replace(buckets[1], key=AccessKey(f"{CANARY}-access", f"{CANARY}/secret")),
        "away": Bucket(s3, url=nowhere, key=away_key),
        "kept": container,
        "refused": Container(swift, key=f"{CANARY}-key"),
        "absent": Container(swift, auth_url=f"{nowhere}/auth", key=f"{CANARY}-absent"),
    }
    for backend in (*buckets, container):
        await backend.remove()


@pytest.mark.timeout(300)
async def test_the_secrets_of_stores_are_told_nobody(
    empty_database: str,
    tmp_path: Path,
    stores: dict[str, Bucket | Container],
    keystone: Keystone,
) -> None:
    application_credential = new_application_credential(keystone)
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    options: dict[str, str] = {}
    for name, store in stores.items():
        options |= store.options(name)
    backends = ["fast:file", "web:http", "cloud:swift"]
    backends += [f"{name}:{store.kind}" for name, store in stores.items()]
    environ = configuration(
        empty_database,
        tmp_path,
        **options,
        DEFAULT__ENABLED_BACKENDS=",".join(backends),
        DEFAULT__WORKERS="1",
        DEFAULT__DEBUG="true",
        DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
        JOBS__WITH_WORKER="true",
        CLOUD__SWIFT_STORE_AUTH_ADDRESS=keystone.url,
        CLOUD__SWIFT_STORE_APPLICATION_CREDENTIAL_ID=application_credential["id"],
        CLOUD__SWIFT_STORE_APPLICATION_CREDENTIAL_SECRET=application_credential["secret"],
        CLOUD__SWIFT_STORE_CONTAINER=stores["kept"].name,
        CLOUD__SWIFT_STORE_CREATE_CONTAINER_ON_PUT="true",
        CLOUD__SWIFT_TEMP_URL_KEY=f"{CANARY}-of-temporary-urls",
    )
    told: list[str] = []
    daemon = Daemon(environ, tmp_path / "log")
    daemon.start()
    try:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as http:

            async def ask(method: str, path: str, **more: Any) -> httpx.Response:
                headers = {**ADMIN, "X-Auth-Token": f"{CANARY}-token", **more.pop("headers", {})}
                answer = await http.request(method, path, headers=headers, **more)
                told.extend((str(answer.headers), answer.text))
                return answer

            async def image() -> dict[str, Any]:
                body = {"disk_format": "raw", "container_format": "bare"}
                return (await ask("POST", "/v2/images", json=body)).json()

            statuses: dict[str, int] = {}
            for name in ("cloud", *stores):
                made = await image()
                headers = {**OCTETS, "X-Image-Meta-Store": name}
                put = await ask("PUT", made["file"], headers=headers, content=bytes(9 << 20))
                statuses[name] = put.status_code
                await ask("GET", made["self"])
                await ask("GET", made["file"], headers={"Range": "bytes=1-2"})
                await ask("DELETE", made["self"])
            assert statuses == {
                "cloud": 204,
                "good": 204,
                "wrong": 503,
                "away": 503,
                "kept": 204,
                "refused": 503,
                "absent": 503,
            }
            for store in ("good", "wrong", "kept", "refused", "web", "gone"):
                for url in OLD_ROWS.values():
                    path = await old_row(empty_database, store, url)
                    shown = await ask("GET", path)
                    assert shown.status_code == 200
                    assert "direct_url" in shown.json()
                    await ask("GET", f"{path}/file")
                    await ask("GET", f"{path}/file", headers={"Range": "bytes=0-0"})
                    await ask("HEAD", f"{path}/file")
                    await ask("DELETE", path)
            for path in ("/v2/images", "/v2/info/stores", "/v2/info/stores/detail", "/readyz"):
                await ask("GET", path)
            log = daemon.log.read_text()
            port = re.search(r"Metrics on \S+ port (\d+)", log)
            assert port is not None
            told.append((await http.get(f"http://127.0.0.1:{port[1]}/metrics")).text)
            assert "diptych_store" in told[-1]
    finally:
        daemon.stop()
    # What needs no server is looked at in test_store_commands.
    for done in await asyncio.gather(
        *(
            asyncio.to_thread(run, *command.split(), environ=environ)
            for command in ("stores check", "stores check --json")
        )
    ):
        # It came as far as to the stores.
        assert {name for name in stores if name not in done.stdout} == set()
        told += [done.stdout, done.stderr]
    told.append(daemon.log.read_text())
    assert [name for name in stores if f"Store {name}" not in told[-1]] == ["good", "kept"]
    rows = await everything_in(empty_database)
    assert "image.delete" in "".join(rows)
    told += rows
    never = {
        CANARY,
        Seaweedfs.full.secret,
        application_credential["secret"],
        *(str(store.key) for store in stores.values() if isinstance(store, Container)),
    }
    assert [text for text in told if any(secret in text for secret in never)] == []


def new_application_credential(keystone: Keystone) -> dict[str, str]:
    """One of a new user, a member of a new project."""
    name = f"user-{secrets.token_hex(6)}"
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}
    project = {"name": name, "domain_id": "default"}
    project_id = keystone.call("POST", "/projects", {"project": project})["project"]["id"]
    user = {"name": name, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    keystone.call("PUT", f"/projects/{project_id}/users/{user_id}/roles/{roles['member']}")
    made = keystone.call(
        "POST",
        f"/users/{user_id}/application_credentials",
        {"application_credential": {"name": name}},
        token=keystone.token(name, name),
    )
    return made["application_credential"]


async def old_row(database: str, store: str, url: str) -> str:
    """The path of an active image whose bytes are where a Glance of old put them."""
    image = str(uuid4())
    async with databases.connection(database) as server:
        await server.execute(
            "INSERT INTO images (id, status, owner, size) VALUES ($1, 'active', 'alpha', 3)", image
        )
        await server.execute(
            "INSERT INTO image_locations (image_id, store, url, status)"
            " VALUES ($1, $2, $3, 'active')",
            image,
            store,
            url + image,
        )
    return f"/v2/images/{image}"


async def everything_in(database: str) -> list[str]:
    """All rows of all tables, save for the locations of old."""
    async with databases.connection(database) as server:
        tables = await server.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [
            row["whole"]
            for table in tables
            for row in await server.fetch(
                f'SELECT whole::text FROM "{table["tablename"]}" AS whole'
            )
            if table["tablename"] != "image_locations" or f"{CANARY}-old" not in row["whole"]
        ]
