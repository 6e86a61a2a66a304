"""Signed images by HTTP: verified while their bytes pass, by certificates of a real Barbican.

What no Barbican answers, or not when it is wanted, comes from a server of a few lines.
"""

import asyncio
import gzip
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import ports
from dev.barbican import Barbican
from dev.keystone import Keystone

from tests import databases, web
from tests.images import signing
from tests.images.service import ADMIN, ALICE, OCTETS, PATCH
from tests.images.sites import DATA, STORES, Make, Site
from tests.images.test_imports import DECOMPRESSION, require_whole
from tests.web import Asked, Handle, answer, head

ID = "0f6b7a3e-3f5c-4a2e-9a56-0d1a6a3f2c11"
OTHER = DATA[:-1] + b"!"


@dataclass(frozen=True)
class Signer:
    """A user of Barbican's: the token, and the id of the certificate of `signing.key()`."""

    token: str
    certificate: str

    @property
    def headers(self) -> dict[str, str]:
        return {**ALICE, "X-Auth-Token": self.token}


@pytest.fixture(scope="module")
def demo(keystone: Keystone, barbican: Barbican) -> Signer:
    token = keystone.token("demo", "demo")
    certificate = signing.certificate(signing.key())
    return Signer(token, signing.kept(barbican, token, certificate))


@pytest.fixture
async def here(site: Make, barbican: Barbican) -> Site:
    return await site(BARBICAN__BARBICAN_ENDPOINT=barbican.url)


async def upload(
    here: Site, image: str, data: bytes = DATA, *, headers: Mapping[str, Any]
) -> httpx.Response:
    path = f"/v2/images/{image}/file"
    return await here.api.put(path, content=data, headers={**headers, **OCTETS})


async def require_nothing(here: Site, image: str) -> None:
    """The image is as it was when it was made, and nothing of its data is anywhere."""
    shown = await here.show(image)
    assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
    assert here.files() == []
    assert await here.left() == []


def message_of(refused: httpx.Response) -> str:
    return refused.json()["message"].removesuffix("<br /><br />\n\n\n")


# --- Uploads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key_type", "hash_method"),
    [
        ("RSA-PSS", "SHA-256"),
        ("DSA", "SHA-224"),
        ("ECC_SECP384R1", "SHA-384"),
        # That of os_hash_value, which is taken anyway.
        ("ECC_SECP521R1", "SHA-512"),
    ],
)
async def test_signed_data_becomes_the_image(
    here: Site, barbican: Barbican, demo: Signer, key_type: str, hash_method: str
) -> None:
    certificate = signing.certificate(signing.key(key_type))
    certificate_id = signing.kept(barbican, demo.token, certificate)
    signed = signing.properties(DATA, certificate_id, key_type=key_type, hash_method=hash_method)
    image = await here.make(**signed)
    stored = await upload(here, image, headers=demo.headers)
    assert stored.status_code == 204, stored.text
    shown = await here.show(image)
    assert (shown["status"], shown["size"], shown["os_hash_algo"]) == (
        "active",
        len(DATA),
        "sha512",
    )
    assert {name: shown[name] for name in signed} == signed
    assert here.files() == [f"fast/{image}"]


async def test_other_data_is_refused_and_nothing_is_left(here: Site, demo: Signer) -> None:
    image = await here.make(**signing.properties(DATA, demo.certificate))
    refused = await upload(here, image, OTHER, headers=demo.headers)
    assert refused.status_code == 400
    assert message_of(refused) == (
        "Signature verification failed: the data is not what was signed."
    )
    await require_nothing(here, image)
    assert (await upload(here, image, headers=demo.headers)).status_code == 204
    assert (await here.show(image))["status"] == "active"


async def test_a_wrong_signature_is_told_before_a_wrong_format(here: Site, demo: Signer) -> None:
    signed = signing.properties(DATA, demo.certificate)
    image = await here.make(**signed, disk_format="qcow2")
    assert (await upload(here, image, OTHER, headers=demo.headers)).status_code == 400
    assert (await upload(here, image, headers=demo.headers)).status_code == 415
    await require_nothing(here, image)


async def test_an_image_that_lacks_a_property_is_not_verified(site: Make) -> None:
    # As in Glance; nobody is asked for the certificate.
    here = await site(BARBICAN__BARBICAN_ENDPOINT=f"http://127.0.0.1:{ports.any_free()}")
    signed = signing.properties(DATA, ID)
    for name in signed:
        image = await here.make(**{other: signed[other] for other in signed if other != name})
        assert (await upload(here, image, OTHER, headers=ALICE)).status_code == 204
        assert (await here.show(image))["status"] == "active"


async def test_certificates_that_do_not_count(
    here: Site, barbican: Barbican, demo: Signer, keystone: Keystone
) -> None:
    pem = signing.certificate(signing.key())
    expired = signing.certificate(signing.key(), days=(-2, -1))
    other = keystone.token("other", "other")
    cases = {
        ID: f"Barbican has no certificate {ID}.",
        signing.kept(barbican, other, pem): "Barbican does not let you read certificate",
        signing.kept(barbican, demo.token, expired): "the certificate is valid from",
        signing.kept(barbican, demo.token, b"hello"): "no X.509 certificate in PEM",
        signing.kept(barbican, demo.token, pem, secret_type="opaque"): "is no certificate",
        signing.kept(
            barbican, demo.token, signing.certificate(signing.key("DSA"))
        ): "the key of the certificate is not for RSA-PSS",
    }
    for certificate_id, message in cases.items():
        image = await here.make(**signing.properties(DATA, certificate_id))
        refused = await upload(here, image, headers=demo.headers)
        assert refused.status_code == 400
        assert message in message_of(refused)
        await require_nothing(here, image)


async def test_what_barbican_keeps_without_a_payload_is_no_certificate(
    here: Site, barbican: Barbican, demo: Signer
) -> None:
    async with httpx.AsyncClient(base_url=barbican.url) as direct:
        made = await direct.post(
            "/v1/secrets",
            json={"secret_type": "certificate"},
            headers={"X-Auth-Token": demo.token},
        )
    empty = made.raise_for_status().json()["secret_ref"].rpartition("/")[2]
    image = await here.make(**signing.properties(DATA, empty))
    refused = await upload(here, image, headers=demo.headers)
    assert (refused.status_code, message_of(refused)) == (
        400,
        f"What Barbican has as {empty} is no certificate.",
    )


async def test_nonsense_is_refused_before_anybody_is_asked(site: Make) -> None:
    async with web.serving(answer(status=500)) as server:
        here = await site(BARBICAN__BARBICAN_ENDPOINT=server.url)
        wrong = {**signing.properties(DATA, ID), "img_signature_hash_method": "MD5"}
        image = await here.make(**wrong)
        refused = await upload(here, image, headers={**ALICE, "X-Auth-Token": "a-token"})
        assert refused.status_code == 400
        assert "img_signature_hash_method must be one of" in message_of(refused)
        assert server.connections == 0
        await require_nothing(here, image)


# --- Barbican, or none ------------------------------------------------------------------------


def keeping(payload: bytes = b"", *, description: bytes | None = None, **headers: object) -> Handle:
    """Answers as a Barbican that has one secret."""
    if description is None:
        document = {"secret_type": "certificate", "content_types": {"default": "text/plain"}}
        description = json.dumps(document).encode()

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == f"/v1/secrets/{ID}":
            await answer(description)(asked, writer)
        else:
            assert asked.target == f"/v1/secrets/{ID}/payload"
            assert asked.headers["accept"] == "text/plain"
            await answer(payload, 200, **headers)(asked, writer)

    return handle


async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dripping(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head(content_length=1000))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def gone(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("handle", "status"),
    [
        (answer(status=500), 503),
        (answer(status=503), 503),
        (answer(status=429), 503),
        (answer(status=401), 400),
        (answer(status=302, location="http://127.0.0.1:1/"), 503),
        (silent, 503),
        (dripping, 503),
        (gone, 503),
        (answer(b"<html>"), 503),
        (answer(b"[]"), 503),
        (
            keeping(
                description=b'{"secret_type":"certificate","content_types":{"default":"\xc3\xa4"}}'
            ),
            503,
        ),
        (
            keeping(description=b'{"secret_type":"certificate","content_types":{"default":"\\n"}}'),
            503,
        ),
        (keeping(description=b" " * 70_000), 400),
        (keeping(b" " * 70_000), 400),
        (keeping(b"x", content_length=None, transfer_encoding="chunked"), 503),
        (keeping(gzip.compress(b"x"), content_encoding="gzip"), 400),
        (keeping(b"x" * 10), 400),
    ],
    ids=[
        *("500", "503", "429", "401", "302", "silent", "dripping", "gone", "html", "list"),
        *("letter", "line end"),
        *("large", "large payload", "cut", "packed", "junk"),
    ],
)
async def test_answers_of_barbican_that_are_none(site: Make, handle: Handle, status: int) -> None:
    async with web.serving(handle) as server:
        timeout = "0.5" if handle in (silent, dripping) else "20"
        here = await site(
            BARBICAN__BARBICAN_ENDPOINT=f"{server.url}/v1/", BARBICAN__TIMEOUT=timeout
        )
        image = await here.make(**signing.properties(DATA, ID))
        refused = await upload(here, image, headers={**ALICE, "X-Auth-Token": "a-token"})
        assert refused.status_code == status, refused.text
        assert ("retry-after" in refused.headers) == (status == 503)
        assert "a-token" not in refused.text
        assert {one.headers["x-auth-token"] for one in server.asked} == {"a-token"}
        await require_nothing(here, image)


async def test_a_token_goes_nowhere_else(site: Make) -> None:
    async with web.serving(answer(b"{}")) as other:
        elsewhere = answer(status=307, location=f"{other.url}/v1/secrets/{ID}")
        async with web.serving(elsewhere) as server:
            here = await site(BARBICAN__BARBICAN_ENDPOINT=server.url)
            image = await here.make(**signing.properties(DATA, ID))
            refused = await upload(here, image, headers={**ALICE, "X-Auth-Token": "a-token"})
            assert refused.status_code == 503
        assert other.connections == 0


async def test_a_barbican_that_is_down_may_come_back(site: Make) -> None:
    port = ports.any_free()
    here = await site(BARBICAN__BARBICAN_ENDPOINT=f"http://127.0.0.1:{port}")
    image = await here.make(**signing.properties(DATA, ID))
    refused = await upload(here, image, headers={**ALICE, "X-Auth-Token": "a-token"})
    assert refused.status_code == 503
    assert message_of(refused) == (
        "Barbican, which has the certificate of the image's signature, cannot be asked."
    )
    await require_nothing(here, image)


@pytest.mark.parametrize(
    ("options", "headers", "message"),
    [
        # No Keystone either, whose catalog could tell where Barbican is.
        ({}, {"X-Auth-Token": "a-token"}, "this cloud has no Barbican"),
        ({"BARBICAN__BARBICAN_ENDPOINT": "http://127.0.0.1:1"}, {}, "is read with your token"),
        (
            {"BARBICAN__BARBICAN_ENDPOINT": "http://127.0.0.1:1"},
            {"X-Auth-Token": b"tok\xe9n"},
            "is read with your token",
        ),
    ],
    ids=["nowhere", "no token", "odd token"],
)
async def test_without_barbican_or_a_token_there_is_no_certificate(
    site: Make, options: dict[str, str], headers: dict[str, Any], message: str
) -> None:
    here = await site(**options)
    image = await here.make(**signing.properties(DATA, ID))
    refused = await upload(here, image, headers={**ALICE, **headers})
    assert refused.status_code == 400
    assert message in message_of(refused)
    await require_nothing(here, image)


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, 503), ({"CA": "ca.pem"}, 204), ({"CA": "other-ca.pem"}, 503), ({"SSL": "false"}, 204)],
    ids=["system", "authority", "another", "unchecked"],
)
async def test_barbicans_own_certificate_is_checked(
    site: Make, certificates: Path, options: dict[str, str], status: int
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / "good.pem")
    given = {}
    if "CA" in options:
        given["BARBICAN__VERIFY_SSL_PATH"] = str(certificates / options["CA"])
    if "SSL" in options:
        given["BARBICAN__VERIFY_SSL"] = options["SSL"]
    async with web.serving(keeping(signing.certificate(signing.key())), tls=tls) as server:
        url = f"https://127.0.0.1:{server.port}"
        here = await site(BARBICAN__BARBICAN_ENDPOINT=url, **given)
        image = await here.make(**signing.properties(DATA, ID))
        stored = await upload(here, image, headers={**ALICE, "X-Auth-Token": "a-token"})
        assert stored.status_code == status, stored.text
        assert bool(server.asked) == (status == 204)


async def test_authorities_that_are_none_are_told_at_the_start(site: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[barbican\] verify_ssl_path"):
        await site(BARBICAN__VERIFY_SSL_PATH=str(tmp_path / "none"))


# --- Imports ----------------------------------------------------------------------------------


async def test_staged_data_is_read_and_verified(here: Site, demo: Signer) -> None:
    image = await here.staged(DATA, **signing.properties(DATA, demo.certificate))
    await here.ask(image, "glance-direct", headers=demo.headers, stores=["cheap", "third"])
    async with databases.connection(here.database) as server:
        (job,) = await server.fetch("SELECT payload, secret FROM jobs WHERE kind = 'import'")
        # Public things only: the certificate was read when the import was asked for.
        assert demo.token not in job["payload"]
        assert job["secret"] is None
    # Not the rename that data without a signature comes by.
    assert ("os_glance_staging_store", "open") in await here.work()
    require_whole(await here.show(image))
    assert here.files() == [f"cheap/{image}", f"third/{image}"]


async def test_staged_data_that_was_not_signed_goes(here: Site, demo: Signer) -> None:
    image = await here.staged(OTHER, **signing.properties(DATA, demo.certificate))
    await here.ask(image, "glance-direct", headers=demo.headers, all_stores=True)
    await here.work()
    await require_nothing(here, image)
    task = await here.task(image)
    assert (task["status"], task["message"]) == (
        "failure",
        "Signature verification failed: the data is not what was signed."
        " The staged data was removed: stage it again, then import it.",
    )


async def test_staged_data_that_is_swapped_is_not_what_was_staged(here: Site, demo: Signer) -> None:
    # CVE-2015-8234: what is verified are the bytes that are stored.
    image = await here.staged(OTHER, **signing.properties(DATA, demo.certificate))
    (staged,) = here.files("staging")
    (here.folder / staged).write_bytes(DATA)
    await here.ask(image, "glance-direct", headers=demo.headers)
    await here.work()
    await require_nothing(here, image)
    assert "The staged data is damaged." in (await here.task(image))["message"]


@pytest.mark.parametrize("data", [DATA, OTHER], ids=["signed", "other"])
async def test_a_download_is_verified_as_it_passes(here: Site, demo: Signer, data: bytes) -> None:
    async with web.serving(answer(data)) as server:
        image = await here.make(**signing.properties(DATA, demo.certificate))
        await here.ask(
            image, "web-download", headers=demo.headers, method_uri=server.url, all_stores=True
        )
        await here.work()
        assert len(server.asked) == 1
    if data == DATA:
        require_whole(await here.show(image))
        assert here.files() == [f"{store}/{image}" for store in STORES]
    else:
        await require_nothing(here, image)
        assert "the data is not what was signed" in (await here.task(image))["message"]


@pytest.mark.parametrize("method", ["glance-direct", "web-download"])
async def test_what_plug_ins_make_of_it_is_what_is_signed(
    site: Make, barbican: Barbican, demo: Signer, method: str
) -> None:
    here = await site(**DECOMPRESSION, BARBICAN__BARBICAN_ENDPOINT=barbican.url)
    packed = gzip.compress(DATA)
    for signed in (DATA, packed):
        properties = signing.properties(signed, demo.certificate)
        async with web.serving(answer(packed)) as server:
            if method == "glance-direct":
                image = await here.staged(packed, **properties)
                await here.ask(image, method, headers=demo.headers)
            else:
                image = await here.make(**properties)
                await here.ask(image, method, headers=demo.headers, method_uri=server.url)
            await here.work()
        if signed == DATA:
            require_whole(await here.show(image))
            assert here.files() == [f"fast/{image}"]
            await here.api.delete(f"/v2/images/{image}", headers=ALICE)
            await here.work()
        else:
            await require_nothing(here, image)


async def test_an_import_without_a_certificate_is_refused_at_once(here: Site, demo: Signer) -> None:
    image = await here.staged(DATA, **signing.properties(DATA, ID))
    body = {"method": {"name": "glance-direct"}}
    path = f"/v2/images/{image}/import"
    refused = await here.api.post(path, json=body, headers=demo.headers)
    assert (refused.status_code, message_of(refused)) == (
        400,
        f"Barbican has no certificate {ID}.",
    )
    # What is staged can be imported when the property is right.
    assert (await here.show(image))["status"] == "uploading"
    change = [
        {"op": "replace", "path": "/img_signature_certificate_uuid", "value": demo.certificate}
    ]
    patched = await here.api.patch(
        f"/v2/images/{image}", content=json.dumps(change), headers={**ALICE, **PATCH}
    )
    assert patched.status_code == 200, patched.text
    await here.ask(image, "glance-direct", headers=demo.headers)
    await here.work()
    require_whole(await here.show(image))


async def test_a_signature_that_changes_meanwhile_is_not_taken_for_the_other(site: Make) -> None:
    begun: dict[str, Any] = {}
    known = keeping(signing.certificate(signing.key()))

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        # While the certificate is read for it.
        change = [{"op": "remove", "path": "/img_signature"}]
        headers = {**ALICE, **PATCH}
        await begun["api"].patch(begun["path"], content=json.dumps(change), headers=headers)
        await known(asked, writer)

    async with web.serving(handle) as server:
        here = await site(BARBICAN__BARBICAN_ENDPOINT=server.url)
        image = await here.staged(DATA, **signing.properties(DATA, ID))
        begun |= {"api": here.api, "path": f"/v2/images/{image}"}
        body = {"method": {"name": "glance-direct"}}
        headers = {**ALICE, "X-Auth-Token": "a-token"}
        refused = await here.api.post(f"{begun['path']}/import", json=body, headers=headers)
        assert (refused.status_code, message_of(refused)) == (
            409,
            f"The signature of image {image} was changed by another request.",
        )
    assert (await here.show(image))["status"] == "uploading"
    await here.ask(image, "glance-direct")
    await here.work()
    require_whole(await here.show(image))


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "not signed"])
async def test_a_copy_of_a_signed_image_is_compared_with_what_was_verified(
    site: Make, is_signed: bool
) -> None:
    # Nobody is asked for the certificate again, which may be nobody's who copies.
    async with web.serving(keeping(signing.certificate(signing.key()))) as server:
        here = await site(BARBICAN__BARBICAN_ENDPOINT=server.url)
        properties = signing.properties(DATA, ID) if is_signed else {}
        image = await here.make(**properties)
        headers = {**ALICE, "X-Auth-Token": "a-token"}
        assert (await upload(here, image, headers=headers)).status_code == 204
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    called = await here.work()
    assert ("fast", "open") in called or not is_signed
    assert (await here.show(image))["stores"] == "cheap,fast"

    for store in ("fast", "cheap"):
        (here.folder / store / image).write_bytes(OTHER)
    await here.ask(image, "copy-image", headers=ADMIN, stores=["third"])
    await here.work()
    shown = await here.show(image)
    assert shown["status"] == "active"
    assert shown["stores"] == ("cheap,fast" if is_signed else "cheap,fast,third")


async def test_a_task_verifies_the_image_that_it_makes(here: Site, demo: Signer) -> None:
    async with web.serving(answer(OTHER)) as server:
        fields = {
            "name": "by task",
            "disk_format": "raw",
            "container_format": "bare",
            **signing.properties(DATA, demo.certificate),
        }
        body = {
            "type": "import",
            "input": {
                "import_from": server.url,
                "import_from_format": "raw",
                "image_properties": fields,
            },
        }
        headers = {**ADMIN, "X-Auth-Token": demo.token}
        begun = await here.api.post("/v2/tasks", json=body, headers=headers)
        assert begun.status_code == 201, begun.text
        await here.work()
    task = (await here.api.get(begun.json()["self"], headers=ADMIN)).json()
    assert task["status"] == "failure"
    assert "the data is not what was signed" in task["message"]
    assert (await here.api.get("/v2/images", headers=ADMIN)).json()["images"] == []
    assert here.files() == []
