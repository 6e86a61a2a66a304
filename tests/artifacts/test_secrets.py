"""Blobs of encrypted types: what clients see is as ever, what lies anywhere is nobody's to read."""

import asyncio
import base64
import hashlib
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import ports
from dev.barbican import Barbican
from dev.keystone import PASSWORD, Keystone
from diptych_artifacts import rotation
from diptych_artifacts.app import create_app
from diptych_artifacts.cli import main
from diptych_artifacts.encryption import Unreadable
from diptych_artifacts.rotation import Rotated
from diptych_artifacts.settings import load
from diptych_artifacts.wrapping_keys import WrappingKeys
from diptych_common.database import Database
from diptych_common.settings import SettingsError
from typer.testing import CliRunner, Result

from tests import databases, web
from tests.artifacts.service import ADMIN, ALICE, BOB, LOCATION, OCTETS, CustomApi, configuration
from tests.web import Asked

FRAME, TAG = 64 * 1024, 16
MARK = b"the password is swordfish; "
SECRET = MARK * (200_000 // len(MARK))
ONE = "one:" + base64.b64encode(b"1" * 32).decode()
TWO = "two:" + base64.b64encode(b"2" * 32).decode()
ONLY_SECRETS = {"DEFAULT__ENABLED_ARTIFACT_TYPES": "secrets"}


def options(*keys: str, **more: str) -> dict[str, str]:
    return {**ONLY_SECRETS, "SECRETS__KEYS": ", ".join(keys), **more}


async def made(api: httpx.AsyncClient, name: str = "a secret") -> str:
    """The path of the payload of a new artifact of Alice's."""
    created = await api.post("/artifacts/secrets", json={"name": name}, headers=ALICE)
    assert created.status_code == 201, created.text
    return f"/artifacts/secrets/{created.json()['id']}/payload"


async def kept(api: httpx.AsyncClient, data: bytes = SECRET, name: str = "a secret") -> str:
    path = await made(api, name)
    stored = await api.put(path, content=data, headers={**ALICE, **OCTETS})
    assert stored.status_code == 200, stored.text
    return path


async def read(api: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    return await api.get(path, headers={**ALICE, **headers})


def objects(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def envelopes(url: str) -> dict[str, dict[str, Any]]:
    async with databases.connection(url) as server:
        rows = await server.fetch("SELECT id::text, encryption::text FROM blobs")
    return {row["id"]: json.loads(row["encryption"]) for row in rows}


async def dump(url: str) -> str:
    """All rows of all tables, in PostgreSQL's words."""
    async with databases.connection(url) as server:
        names = await server.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        )
        tables = [await server.fetch(f'SELECT t::text FROM "{name[0]}" t') for name in names]
    return "\n".join(row[0] for rows in tables for row in rows)


def message_of(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


# --- Up and down ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3_000_000])
async def test_clients_see_what_they_have_stored(custom_api: CustomApi, size: int) -> None:
    api = await custom_api(**options(ONE))
    data = (b"%07d " * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield data[start : start + 50_000]

    for content in (data, pieces()):
        path = await made(api, f"of {type(content)}")
        stored = await api.put(path, content=content, headers={**ALICE, **OCTETS})
        assert stored.status_code == 200, stored.text
        payload = stored.json()["payload"]
        assert payload == {
            "url": path,
            "status": "active",
            "size": size,
            "md5": hashlib.md5(data).hexdigest(),
            "sha1": hashlib.sha1(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "external": False,
            "content_type": "application/octet-stream",
        }
        answer = await read(api, path)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-length"] == str(size)
        assert answer.headers["content-md5"] == payload["md5"]


async def test_parts_and_validators(custom_api: CustomApi) -> None:
    api = await custom_api(**options(ONE))
    path = await kept(api)
    for asked, start, end in (
        ("0-0", 0, 1),
        (f"{FRAME - 1}-{FRAME}", FRAME - 1, FRAME + 1),
        (f"{FRAME}-{2 * FRAME - 1}", FRAME, 2 * FRAME),
        (f"{2 * FRAME + 5}-", 2 * FRAME + 5, len(SECRET)),
        ("-7", len(SECRET) - 7, len(SECRET)),
        ("5-999999999", 5, len(SECRET)),
    ):
        answer = await read(api, path, Range=f"bytes={asked}")
        assert answer.status_code == 206, asked
        assert answer.content == SECRET[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(SECRET)}"
    beyond = await read(api, path, Range=f"bytes={len(SECRET)}-")
    assert beyond.status_code == 416
    head = await api.head(path, headers=ALICE)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(SECRET))
    etag = head.headers["etag"]
    assert etag == f'"sha256:{hashlib.sha256(SECRET).hexdigest()}"'
    assert (await read(api, path, **{"If-None-Match": etag})).status_code == 304
    assert (await read(api, path, **{"If-Range": etag, "Range": "bytes=1-2"})).status_code == 206


async def test_others_and_locations_are_refused(custom_api: CustomApi) -> None:
    """What lies elsewhere is not encrypted by this service."""
    api = await custom_api(**options(ONE))
    path = await kept(api)
    assert (await api.get(path, headers=BOB)).status_code == 404
    path = await made(api, "elsewhere")
    for headers, body in (
        (ALICE, {"url": "http://example.org/secret", "md5": None}),
        (ADMIN, {"url": "http://example.org/secret", "location_type": "internal"}),
        (ADMIN, {"url": "http://example.org/secret", "md5": None}),
    ):
        refused = await api.put(path, json=body, headers={**headers, **LOCATION})
        assert refused.status_code in (400, 403), refused.text
    assert message_of(refused) == "Blobs of secrets are encrypted here: none can lie elsewhere."
    assert (await read(api, path)).status_code == 404


async def test_a_broken_upload_leaves_what_was_there(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    api = await custom_api(**options(ONE))
    path = await kept(api, MARK)
    for content, headers in ((SECRET, {"Content-Length": "300000"}), (bytes(11 << 20), {})):
        refused = await api.put(path, content=content, headers={**ALICE, **OCTETS, **headers})
        assert refused.status_code in (400, 413), refused.text
        assert (await read(api, path)).content == MARK
    assert len(await envelopes(artifacts_database)) == len(objects(tmp_path / "fast")) == 1
    again = await api.put(path, content=SECRET, headers={**ALICE, **OCTETS})
    assert again.json()["payload"]["size"] == len(SECRET)
    assert (await read(api, path)).content == SECRET


VAULT = """
name = "vault"
display_name = "Vault"
{}

[fields.doors]
kind = "Blob"
shape = "dict"
mutable = true
"""


async def test_a_type_of_the_operators_becomes_encrypted(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    """What was stored before is read as it is, and counted, until it is uploaded again."""
    (tmp_path / "types").mkdir()
    declared = {
        "DEFAULT__ENABLED_ARTIFACT_TYPES": "vault",
        "DEFAULT__ARTIFACT_TYPES_DIRECTORY": str(tmp_path / "types"),
    }
    (tmp_path / "types/vault.toml").write_text(VAULT.format(""))
    api = await custom_api(**declared)
    created = await api.post("/artifacts/vault", json={"name": "v"}, headers=ALICE)
    path = f"/artifacts/vault/{created.json()['id']}/doors"
    await api.put(f"{path}/a", content=MARK, headers={**ALICE, **OCTETS})

    (tmp_path / "types/vault.toml").write_text(VAULT.format("encrypted = true"))
    with pytest.raises(SettingsError, match=r"\[secrets\] keys: .* has vault, whose blobs are"):
        await custom_api(**declared)
    api = await custom_api(**declared, SECRETS__KEYS=ONE)
    await api.put(f"{path}/b/c", content=MARK, headers={**ALICE, **OCTETS})
    assert [(await read(api, f"{path}/{key}")).content for key in ("a", "b/c")] == [MARK, MARK]

    async def told() -> Result:
        return await run(
            "secrets",
            "status",
            database=artifacts_database,
            folder=tmp_path,
            keys=(ONE,),
            **declared,
        )

    assert (await told()).stdout.splitlines() == [
        f"one  wraps and unwraps: 1 blobs of {len(MARK)} bytes",
        f"Not encrypted, of types that are: 1 of {len(MARK)} bytes",
    ]
    await api.put(f"{path}/a", content=MARK, headers={**ALICE, **OCTETS})
    assert (await told()).stdout == f"one  wraps and unwraps: 2 blobs of {2 * len(MARK)} bytes\n"


@pytest.mark.parametrize("store", ["fast", "database"])
async def test_nothing_that_lies_anywhere_tells_the_secret(
    custom_api: CustomApi,
    artifacts_database: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    store: str,
) -> None:
    caplog.set_level("DEBUG")
    in_store = {"ARTIFACT_TYPE:SECRETS__DEFAULT_STORE": store}
    api = await custom_api(**options(ONE, **in_store))
    answers = [await read(api, await kept(api))]
    answers.append(await read(api, await kept(api, MARK, "another"), Range="bytes=3-"))
    assert [answer.content for answer in answers] == [SECRET, MARK[3:]]
    files = [path.read_bytes() for path in objects(tmp_path / "fast")]
    rows = await dump(artifacts_database)
    assert len(files) == (2 if store == "fast" else 0)
    assert (len(rows) > len(SECRET)) == (store == "database")
    # `encryption` is there, so the table of blobs is among what was looked at.
    assert rows.count("AES-256-GCM") == 2
    for found in (*files, rows.encode(), caplog.text.encode()):
        for words in (
            b"swordfish",
            b"1" * 32,
            ONE.partition(":")[2].encode(),
            b"swordfish".hex().encode(),
        ):
            assert words not in found
    kept_keys = [one["wrapped_key"] for one in (await envelopes(artifacts_database)).values()]
    assert len(set(kept_keys)) == 2
    assert not any(key in caplog.text for key in kept_keys)


# --- What is not as it was stored --------------------------------------------------------------


async def test_changed_bytes_are_not_given_out(
    custom_api: CustomApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = await custom_api(**options(ONE))
    path = await kept(api)
    (file,) = objects(tmp_path / "fast")
    there = file.read_bytes()
    frames = [there[at : at + FRAME + TAG] for at in range(0, len(there), FRAME + TAG)]
    for changed in (
        b"\0" + there[1:],
        b"".join([frames[1], frames[0], *frames[2:]]),
        b"".join(frames[:-1]),
        there + frames[-1],
        there[:-1],
        b"",
    ):
        file.write_bytes(changed)
        for headers in ({}, {"Range": "bytes=1-2"}):
            refused = await read(api, path, **headers)
            assert refused.status_code == 500
            assert message_of(refused) == "The blob cannot be decrypted: it is not what was stored."
    assert "are not those that were sealed for it" in caplog.text
    # A part that lies in a frame which is as it was.
    file.write_bytes(there[:-1] + b"\0")
    assert (await read(api, path, Range="bytes=1-2")).content == SECRET[1:3]
    assert (await read(api, path, Range="bytes=-1")).status_code == 500
    file.write_bytes(there)
    assert (await read(api, path)).content == SECRET


async def test_a_blob_is_no_other_blob(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    """Whoever can write to the store, or to the database as well, cannot exchange two secrets."""
    api = await custom_api(**options(ONE))
    first, second = await kept(api), await kept(api, SECRET[::-1], "another")
    one, two = objects(tmp_path / "fast")
    aside = tmp_path / "aside"
    for source, to in ((one, aside), (two, one), (aside, two)):
        shutil.move(source, to)
    for path in (first, second):
        assert (await read(api, path)).status_code == 500
    async with databases.connection(artifacts_database) as server:
        await server.execute(
            "UPDATE blobs b SET encryption = o.encryption FROM blobs o WHERE b.id <> o.id"
        )
    for path in (first, second):
        assert (await read(api, path)).status_code == 500


async def test_a_change_far_within_breaks_the_connection(
    custom_api: CustomApi, tmp_path: Path
) -> None:
    api = await custom_api(**options(ONE))
    data = SECRET * 30
    path = await kept(api, data)
    (file,) = objects(tmp_path / "fast")
    with file.open("r+b") as writing:
        writing.seek(-TAG - 1, 2)
        writing.write(b"\0")
    # In this process there is no server to break the connection.
    with pytest.raises(Unreadable):
        await read(api, path)


# --- Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        "one",
        "one:short",
        ONE.partition(":")[2],
        f"{ONE}, {ONE}",
        "barbican:none",
        f"barbican:{ONE.partition(':')[2]}",
        "a b:" + ONE.partition(":")[2],
    ],
)
def test_keys_that_are_none_stop_the_service_and_are_not_printed(keys: str) -> None:
    with pytest.raises(SettingsError, match=r"\[secrets\] keys: expected keys as") as error:
        load(environ={"DIPTYCH_ARTIFACTS__SECRETS__KEYS": keys})
    assert ONE.partition(":")[2] not in str(error.value)


def test_without_a_key_an_encrypted_type_stops_the_service(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        create_app(load(environ=configuration("postgresql://h/d", tmp_path, **ONLY_SECRETS)))
    assert "[secrets] keys: expected a key, as `diptych-artifacts secrets key`" in str(error.value)
    assert "enabled_artifact_types has secrets, whose blobs are encrypted" in str(error.value)


async def run(
    *arguments: str, database: str, folder: Path, keys: tuple[str, ...] = (), **more: str
) -> Result:
    """What the command line tells; not in a process of its own, which takes seconds to start."""
    environ = configuration(database, folder, **{**options(*keys), **more})
    # In a thread, for it has an event loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environ)


async def test_the_command_line_makes_keys_checks_them_and_hides_them(
    artifacts_database: str, tmp_path: Path
) -> None:
    async def told(*arguments: str, keys: tuple[str, ...] = ()) -> Result:
        return await run(*arguments, database=artifacts_database, folder=tmp_path, keys=keys)

    refused = await told("config", "check")
    assert refused.exit_code == 2
    assert "[secrets] keys: expected a key" in refused.stderr
    made_key = (await told("secrets", "key")).stdout.strip()
    assert (await told("config", "check", keys=(made_key,))).exit_code == 0
    shown = await told("config", "show", keys=(made_key,))
    assert (shown.exit_code, made_key.partition(":")[2] in shown.stdout) == (0, False)


async def test_a_key_that_was_taken_away_may_come_back(
    custom_api: CustomApi, caplog: pytest.LogCaptureFixture
) -> None:
    path = await kept(await custom_api(**options(ONE)))
    api = await custom_api(**options(TWO))
    refused = await read(api, path)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert message_of(refused) == "The key that the blob is encrypted under is not at hand."
    assert "is wrapped by 'one', which [secrets] keys does not have" in caplog.text
    assert (await read(await custom_api(**options(TWO, ONE)), path)).content == SECRET
    # Another key under the old name.
    api = await custom_api(**options(ONE.partition(":")[0] + ":" + TWO.partition(":")[2]))
    assert (await read(api, path)).status_code == 500


# --- Rotation ----------------------------------------------------------------------------------


async def rotated(database: str, folder: Path, *keys: str) -> Rotated:
    settings = load(environ=configuration(database, folder, **options(*keys))).settings
    async with (
        Database(settings.database, application_name="rotate") as db,
        WrappingKeys(settings) as wrapping_keys,
    ):
        return await rotation.rotate(db, wrapping_keys, batch_size=2)


async def test_rotation_wraps_keys_anew_and_touches_no_bytes(
    custom_api: CustomApi,
    artifacts_database: str,
    tmp_path: Path,
) -> None:
    old = await custom_api(**options(ONE))
    both = await custom_api(**options(TWO, ONE))
    paths = [await kept(old, MARK + b"%d" % number, f"secret {number}") for number in range(5)]
    paths.append(await kept(both, MARK + b"5", "secret 5"))
    before = {path: path.read_bytes() for path in objects(tmp_path / "fast")}
    kept_before = await envelopes(artifacts_database)

    async def told(*arguments: str, keys: tuple[str, ...] = ()) -> Result:
        return await run(*arguments, database=artifacts_database, folder=tmp_path, keys=keys)

    counted = await told("secrets", "status", "--json", keys=(TWO, ONE))
    assert json.loads(counted.stdout)["keys"] == [
        {"name": "two", "blobs": 1, "size": len(MARK) + 1},
        {"name": "one", "blobs": 5, "size": 5 * (len(MARK) + 1)},
    ]
    # Several batches, by two at a time.
    done = await asyncio.gather(*(rotated(artifacts_database, tmp_path, TWO, ONE) for _ in "ab"))
    assert sum(one.wrapped for one in done) == 5
    assert await rotated(artifacts_database, tmp_path, TWO, ONE) == Rotated()

    assert {path: path.read_bytes() for path in objects(tmp_path / "fast")} == before
    kept_after = await envelopes(artifacts_database)
    assert {one["key_id"] for one in kept_after.values()} == {"two"}
    assert sum(kept_before[blob] == kept_after[blob] for blob in kept_before) == 1
    # The one that knows both goes on, and so does one that knows the new key only.
    for api in (both, await custom_api(**options(TWO))):
        read_now = [(await read(api, path)).content for path in paths]
        assert read_now == [MARK + b"%d" % number for number in range(6)]
    status = await told("secrets", "status", keys=(TWO, ONE))
    assert status.stdout.splitlines() == [
        f"two  wraps and unwraps: 6 blobs of {6 * (len(MARK) + 1)} bytes",
        "one  unwraps: 0 blobs of 0 bytes",
    ]
    assert status.exit_code == 0


async def test_what_cannot_be_wrapped_anew_stays_and_is_told(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    api = await custom_api(**options(ONE))
    for number in range(3):
        await kept(api, MARK, f"secret {number}")
    blob_id = min(await envelopes(artifacts_database))
    async with databases.connection(artifacts_database) as server:
        await server.execute(
            "UPDATE blobs SET encryption = jsonb_set(encryption, '{wrapped_key}', '\"AAAA\"')"
            " WHERE id = $1",
            blob_id,
        )

    async def told(*arguments: str, keys: tuple[str, ...] = ()) -> Result:
        return await run(*arguments, database=artifacts_database, folder=tmp_path, keys=keys)

    lost = await told("secrets", "rotate", keys=(TWO,))
    assert (lost.exit_code, lost.stdout) == (1, "Keys of blobs wrapped anew: 0.\n")
    assert "Wrapped by keys that are not set: 3." in lost.stderr
    status = await told("secrets", "status", keys=(TWO,))
    assert status.exit_code == 1
    assert f"one  is not set: 3 blobs of {3 * len(MARK)} bytes" in status.stdout
    partly = await told("secrets", "rotate", keys=(TWO, ONE))
    assert (partly.exit_code, partly.stdout) == (1, "Keys of blobs wrapped anew: 2.\n")
    assert "Not opened by their keys: 1." in partly.stderr
    keyless = await told("secrets", "rotate")
    assert keyless.exit_code == 1
    assert "[secrets] keys is not set" in keyless.stderr


# --- Barbican ----------------------------------------------------------------------------------


def store_in(barbican: Barbican, token: str, payload: bytes) -> str:
    """The id of a new secret."""
    document = {
        "secret_type": "symmetric",
        "payload": base64.b64encode(payload).decode(),
        "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64",
    }
    request = urllib.request.Request(
        f"{barbican.url}/v1/secrets",
        json.dumps(document).encode(),
        {"X-Auth-Token": token, "Content-Type": "application/json"},
    )
    with ports.direct.open(request) as answer:
        return json.load(answer)["secret_ref"].rpartition("/")[2]


def credentials(keystone: Keystone) -> dict[str, str]:
    return {
        "KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "KEYSTONE_AUTHTOKEN__USERNAME": "glare",
        "KEYSTONE_AUTHTOKEN__PASSWORD": PASSWORD,
        "KEYSTONE_AUTHTOKEN__PROJECT_NAME": "service",
        "KEYSTONE_AUTHTOKEN__DEFAULT_DOMAIN_ID": "default",
    }


async def test_a_key_of_barbicans(
    custom_api: CustomApi,
    artifacts_database: str,
    tmp_path: Path,
    keystone: Keystone,
    barbican: Barbican,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Found by the catalog, fetched once; and then rotated to one of the settings."""
    key = bytes(range(32))
    name = f"barbican:{store_in(barbican, keystone.token('glare', 'service'), key)}"
    api = await custom_api(**options(name, **credentials(keystone)))
    path = await kept(api)
    assert (await read(api, path)).content == SECRET
    (envelope,) = (await envelopes(artifacts_database)).values()
    assert envelope["key_id"] == name
    assert base64.b64encode(key).decode() not in caplog.text

    # Down for a process that has the key, and for one that has not.
    away = {"BARBICAN__BARBICAN_ENDPOINT": f"http://127.0.0.1:{ports.any_free()}"}
    api = await custom_api(**options(name, **credentials(keystone), **away))
    refused = await read(api, path)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    other = await made(api, "another")
    refused = await api.put(other, content=SECRET, headers={**ALICE, **OCTETS})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert len(objects(tmp_path / "fast")) == len(await envelopes(artifacts_database)) == 1
    assert "cannot be had: Barbican cannot be asked at http://127.0.0.1:" in caplog.text

    done = await run(
        "secrets",
        "rotate",
        database=artifacts_database,
        folder=tmp_path,
        keys=(ONE, name),
        **credentials(keystone),
    )
    assert (done.exit_code, done.stdout) == (0, "Keys of blobs wrapped anew: 1.\n")
    assert (await read(await custom_api(**options(ONE)), path)).content == SECRET


async def test_what_barbican_has_is_no_key(
    custom_api: CustomApi,
    keystone: Keystone,
    barbican: Barbican,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = keystone.token("glare", "service")
    missing = "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"
    foreign = store_in(barbican, keystone.token("demo", "demo"), b"d" * 32)
    short = store_in(barbican, token, b"k" * 16)
    for secret, reason in (
        (missing, "Barbican answered 404"),
        (foreign, "Barbican answered 403"),
        (short, "is no key of 32 bytes"),
    ):
        api = await custom_api(**options(f"barbican:{secret}", **credentials(keystone)))
        path = await made(api, secret)
        refused = await api.put(path, content=SECRET, headers={**ALICE, **OCTETS})
        assert refused.status_code == 503, secret
        assert reason in caplog.text
        assert (await read(api, path)).status_code == 404
    api = await custom_api(**options(f"barbican:{missing}"))
    refused = await api.put(await made(api), content=SECRET, headers={**ALICE, **OCTETS})
    assert refused.status_code == 503
    assert "needs credentials in [keystone_authtoken]" in caplog.text


async def test_a_barbican_that_stumbles(custom_api: CustomApi, keystone: Keystone) -> None:
    """It forgets the service's token, as when its password is changed, then fails, then is well."""
    turns = iter([(b"", 401), (b"", 500), (b"", 401), (b"s" * 32, 200)])

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body, status = next(turns)
        await web.answer(body, status)(asked, writer)

    async with web.serving(handle) as server:
        name = "barbican:0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"
        where = {"BARBICAN__BARBICAN_ENDPOINT": f"{server.url}/v1/"}
        api = await custom_api(**options(name, **where, **credentials(keystone)))
        path = await made(api)
        refused = await api.put(path, content=MARK, headers={**ALICE, **OCTETS})
        assert refused.status_code == 503
        # Fetched once for both.
        for _ in range(2):
            stored = await api.put(path, content=MARK, headers={**ALICE, **OCTETS})
            assert stored.status_code == 200, stored.text
    assert {asked.target for asked in server.asked} == {
        "/v1/secrets/0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d/payload"
    }
    first, second, third, fourth = (asked.headers["x-auth-token"] for asked in server.asked)
    assert first != second == third != fourth
