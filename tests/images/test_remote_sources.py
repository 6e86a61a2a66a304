"""Where glance-download and swift-local take bytes from: real services of a real catalog.

What no real service would answer comes from a server of a few lines that the catalog names, too.
"""

import asyncio
import hashlib
import json
import random
import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone
from dev.swift import Swift
from diptych_common.jobs import GiveUp
from diptych_common.outbound import Outbound
from diptych_common.settings import Outbound as OutboundSettings
from diptych_images.imports.remote import (
    RemoteImage,
    glance_download,
    remote_image,
    swift_local,
    token_of,
)
from diptych_images.imports.sources import SourceFailed
from diptych_images.settings import ImagesSettings, load
from diptych_store.retries import Retries

from tests.common.networks import Leading
from tests.common.ssrf import FORBIDDEN_ADDRESSES, in_url
from tests.daemon import Daemon
from tests.images.service import OCTETS, configuration
from tests.store.faults import Break, Wire
from tests.web import Asked, Handle, Web, answer, head, serving

DATA = random.Random(5).randbytes(700_013)
AT_ONCE = Retries(count=3, first_s=0.001, longest_s=0.001)


def by_keystone(keystone: Keystone) -> dict[str, str]:
    return {
        "PASTE_DEPLOY__FLAVOR": "keystone",
        "KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "KEYSTONE_AUTHTOKEN__USERNAME": "glance",
        "KEYSTONE_AUTHTOKEN__PASSWORD": PASSWORD,
        "KEYSTONE_AUTHTOKEN__PROJECT_NAME": "service",
    }


def settings(keystone: Keystone, **options: str) -> ImagesSettings:
    given = {"IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "", **by_keystone(keystone), **options}
    return load(
        environ={f"DIPTYCH_IMAGES__{name}": value for name, value in given.items()}
    ).settings


def outbound(**options: Any) -> Outbound:
    """As operators have it by default: loopback is forbidden, but for what the catalog names."""
    return Outbound(OutboundSettings(**options))


def make_region(keystone: Keystone, service: str, **urls: str) -> str:
    """A new region whose service of this type has these URLs, by interface."""
    region = f"Region-{secrets.token_hex(4)}"
    keystone.call("POST", "/regions", {"region": {"id": region}})
    [found] = keystone.call("GET", f"/services?type={service}")["services"]
    for interface, url in urls.items():
        endpoint = {
            "service_id": found["id"],
            "interface": interface,
            "region_id": region,
            "url": url,
        }
        keystone.call("POST", "/endpoints", {"endpoint": endpoint})
    return region


@pytest.fixture(scope="module")
def token(keystone: Keystone) -> str:
    return keystone.token("demo", "demo")


# glance-download, from another of our own kind.


@dataclass
class Elsewhere:
    """An image service in a region of its own, behind a wire, and an active image of demo's."""

    wire: Wire
    region: str
    image: str


@pytest.fixture(scope="module")
def _elsewhere(
    keystone: Keystone,
    token: str,
    _images_schema: tuple[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[tuple[Wire, str, Daemon]]:
    folder = tmp_path_factory.mktemp("elsewhere")
    options = {"DEFAULT__WORKERS": "1", **by_keystone(keystone)}
    daemon = Daemon(configuration(_images_schema[0], folder, **options), folder / "log")
    daemon.start()
    with Wire.to("127.0.0.1", daemon.port) as wire:
        url = f"http://127.0.0.1:{wire.port}"
        yield wire, make_region(keystone, "image", public=f"{url}/", internal=f"{url}/v2"), daemon
    assert daemon.stop() == 0


@pytest.fixture
def elsewhere(
    _elsewhere: tuple[Wire, str, Daemon], token: str, images_database: str
) -> Generator[Elsewhere]:
    wire, region, daemon = _elsewhere
    with httpx.Client(base_url=daemon.url, headers={"X-Auth-Token": token}) as there:
        fields = {
            "disk_format": "raw",
            "container_format": "bare",
            "hw_disk_bus": "scsi",
            "trait:CUSTOM": "required",
            "os_distro": "debian",
            "os_version": "12",
            "own": "x",
        }
        image = there.post("/v2/images", json=fields).raise_for_status().json()
        there.put(image["file"], content=DATA, headers=OCTETS).raise_for_status()
    wire.heal()
    yield Elsewhere(wire, region, image["id"])
    wire.heal()


async def test_an_image_of_another_region_is_found_and_downloaded(
    keystone: Keystone, token: str, elsewhere: Elsewhere
) -> None:
    here = settings(keystone)
    for region, interface in ((elsewhere.region.lower(), "public"), (elsewhere.region, "internal")):
        image = await remote_image(
            outbound(),
            region=region,
            image_id=elsewhere.image,
            interface=interface,
            token=token,
            settings=here,
        )
        assert (image.disk_format, image.container_format) == ("raw", "bare")
        assert image.size == len(DATA)
        assert image.properties == {
            "hw_disk_bus": "scsi",
            "trait:CUSTOM": "required",
            "os_distro": "debian",
        }
        assert image.digests == {
            "md5": hashlib.md5(DATA).hexdigest(),
            "sha512": hashlib.sha512(DATA).hexdigest(),
        }
        assert await downloaded(image, token=token, settings=here) == DATA
    path = f"/v2/images/{elsewhere.image}"
    assert [one.target for one in elsewhere.wire.requests] == [path, f"{path}/file"] * 2
    assert {one.headers["x-auth-token"] for one in elsewhere.wire.requests} == {token}


async def downloaded(
    image: RemoteImage,
    *,
    token: str,
    settings: ImagesSettings,
    outbound: Outbound | None = None,
) -> bytes:
    opening = glance_download(
        outbound or Outbound(OutboundSettings()),
        image,
        token=token,
        settings=settings,
        retries=AT_ONCE,
    )
    async with opening as source:
        assert source.size == image.size
        return b"".join([block async for block in source.blocks])


async def test_a_broken_download_of_an_image_goes_on(
    keystone: Keystone, token: str, elsewhere: Elsewhere
) -> None:
    here = settings(keystone)
    image = await found(elsewhere.region, elsewhere.image, token=token, settings=here)
    fault = Break("answer", after=100_000, how="close")
    elsewhere.wire.inflict(fault, times=2, when=lambda one: one.target.endswith("/file"))
    assert await downloaded(image, token=token, settings=here) == DATA
    _, first, *others = elsewhere.wire.requests
    assert "range" not in first.headers
    assert [one.headers["range"] for one in others] == ["bytes=100000-", "bytes=200000-"]


async def found(
    region: str,
    image_id: str,
    *,
    token: str,
    settings: ImagesSettings,
    outbound: Outbound | None = None,
) -> RemoteImage:
    return await remote_image(
        outbound or Outbound(OutboundSettings()),
        region=region,
        image_id=image_id,
        interface="public",
        token=token,
        settings=settings,
    )


async def test_properties_are_copied_by_the_beginnings_that_the_operator_chose(
    keystone: Keystone, token: str, elsewhere: Elsewhere
) -> None:
    here = settings(keystone, GLANCE_DOWNLOAD_PROPERTIES__EXTRA_PROPERTIES="[os_, own]")
    image = await found(elsewhere.region, elsewhere.image, token=token, settings=here)
    # And nothing that is no custom property: os_hidden, os_hash_algo, owner.
    assert image.properties == {"os_distro": "debian", "os_version": "12", "own": "x"}


async def test_what_is_not_in_that_region_is_given_up(
    keystone: Keystone, token: str, elsewhere: Elsewhere
) -> None:
    here = settings(keystone)
    with pytest.raises(GiveUp, match="has no public image service in region Nowhere"):
        await found("Nowhere", elsewhere.image, token=token, settings=here)
    with pytest.raises(GiveUp, match="has no admin image service"):
        await remote_image(
            outbound(),
            region=elsewhere.region,
            image_id=elsewhere.image,
            interface="admin",
            token=token,
            settings=here,
        )
    assert elsewhere.wire.requests == []
    with pytest.raises(GiveUp, match=f"service of region {elsewhere.region} answered 404"):
        await found(elsewhere.region, str(uuid4()), token=token, settings=here)


async def test_an_image_without_data_is_given_up(
    keystone: Keystone, token: str, elsewhere: Elsewhere
) -> None:
    headers = {"X-Auth-Token": token}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{elsewhere.wire.port}", headers=headers
    ) as there:
        image = (await there.post("/v2/images", json={})).raise_for_status().json()
    with pytest.raises(GiveUp, match="is queued, not active"):
        await found(elsewhere.region, image["id"], token=token, settings=settings(keystone))


@pytest.mark.parametrize(
    "options",
    [
        {"IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "[80,443]"},
        {"IMPORT_FILTERING_OPTS__DISALLOWED_HOSTS": "127.0.0.1"},
        {"IMPORT_FILTERING_OPTS__ALLOWED_SCHEMES": "https"},
    ],
    ids=str,
)
async def test_the_operators_filters_count_for_image_services(
    keystone: Keystone, token: str, elsewhere: Elsewhere, options: dict[str, str]
) -> None:
    image = await found(elsewhere.region, elsewhere.image, token=token, settings=settings(keystone))
    elsewhere.wire.heal()
    filtered = settings(keystone, **options)
    with pytest.raises(GiveUp):
        await found(elsewhere.region, elsewhere.image, token=token, settings=filtered)
    with pytest.raises(GiveUp):
        await downloaded(image, token=token, settings=filtered)
    assert elsewhere.wire.requests == []


async def test_a_token_that_is_no_longer_valid_is_told(keystone: Keystone) -> None:
    revoked = keystone.token("demo", "demo")
    keystone.call("DELETE", "/auth/tokens", subject=revoked)
    with pytest.raises(GiveUp, match="Your token is not valid any more"):
        await found("RegionOne", str(uuid4()), token=revoked, settings=settings(keystone))


async def test_a_keystone_that_is_down_may_be_back(keystone: Keystone, token: str) -> None:
    here = settings(
        keystone,
        KEYSTONE_AUTHTOKEN__AUTH_URL=f"http://127.0.0.1:{ports.any_free()}/v3",
        KEYSTONE_AUTHTOKEN__HTTP_REQUEST_MAX_RETRIES="0",
    )
    with pytest.raises(SourceFailed, match="The identity service can't be reached"):
        await found("RegionOne", str(uuid4()), token=token, settings=here)


async def test_without_a_keystone_there_is_no_catalog(token: str) -> None:
    with pytest.raises(GiveUp, match="has no Keystone"):
        await found("RegionOne", str(uuid4()), token=token, settings=ImagesSettings())


# glance-download, from a service that is none of ours.


@dataclass
class Foreign:
    """An image service that answers as it is told."""

    web: Web
    region: str
    handle: Handle


@pytest.fixture(scope="module")
async def _foreign(keystone: Keystone) -> AsyncGenerator[Foreign]:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await foreign.handle(asked, writer)

    async with serving(handle) as web:
        region = make_region(keystone, "image", public=f"{web.url}/image")
        foreign = Foreign(web, region, answer())
        yield foreign


@pytest.fixture
def foreign(_foreign: Foreign) -> Foreign:
    _foreign.web.asked.clear()
    return _foreign


def document(**fields: object) -> Handle:
    shown = {
        "id": "x",
        "status": "active",
        "size": len(DATA),
        "disk_format": "qcow2",
        "container_format": "bare",
    }
    return answer(json.dumps(shown | fields).encode())


async def test_an_image_of_a_glance_has_what_the_glance_says(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    foreign.handle = document(
        checksum="AB12",
        os_hash_algo=None,
        os_hash_value=None,
        os_glance_import_task="x",
        os_glance_importing_to_stores="x",
        hw_number=7,
        hw_null=None,
        hw_disk_bus="ide",
    )
    options = {"GLANCE_DOWNLOAD_PROPERTIES__EXTRA_PROPERTIES": "hw_, os_glance, os_"}
    image = await found(
        foreign.region, "a/../b", token=token, settings=settings(keystone, **options)
    )
    assert image.properties == {"hw_disk_bus": "ide"}
    assert image.digests == {"md5": "ab12"}
    assert [one.target for one in foreign.web.asked] == ["/image/v2/images/a%2F..%2Fb"]


@pytest.mark.parametrize(
    ("handle", "error", "message"),
    [
        (answer(b"<html>"), SourceFailed, "answered with what is no image"),
        (answer(b"[]"), SourceFailed, "answered with what is no image"),
        (answer(b'{"status": "active", "size": "x"}'), SourceFailed, "what is no image"),
        (document(size=None), GiveUp, "does not tell the size"),
        (document(status="deactivated"), GiveUp, "is deactivated, not active"),
        (answer(b"", 401), GiveUp, "answered 401"),
        (answer(b"", 503), SourceFailed, "answered 503"),
        (document(hw_long="x" * (5 << 20)), GiveUp, "has more than"),
    ],
)
async def test_what_is_no_image_is_told_apart(
    keystone: Keystone,
    token: str,
    foreign: Foreign,
    handle: Handle,
    error: type[Exception],
    message: str,
) -> None:
    foreign.handle = handle
    with pytest.raises(error, match=message):
        await found(foreign.region, "x", token=token, settings=settings(keystone))


def known(foreign: Foreign) -> RemoteImage:
    return RemoteImage(
        disk_format="raw",
        container_format="bare",
        size=len(DATA),
        properties={},
        digests={},
        service="The image service of region X",
        data=f"{foreign.web.url}/image/v2/images/x/file",
    )


async def test_data_of_another_size_than_the_images_is_given_up(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    foreign.handle = answer(DATA[1:])
    with pytest.raises(GiveUp, match=f"has {len(DATA) - 1} bytes for an image of {len(DATA)}"):
        await downloaded(known(foreign), token=token, settings=settings(keystone))


async def test_data_without_a_length_has_the_images(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
    foreign.handle = answer(body, content_length=None, transfer_encoding="chunked")
    assert await downloaded(known(foreign), token=token, settings=settings(keystone)) == DATA


async def test_no_data_is_given_up(keystone: Keystone, token: str, foreign: Foreign) -> None:
    foreign.handle = answer(b"", 204)
    with pytest.raises(GiveUp, match="answered 204"):
        await downloaded(known(foreign), token=token, settings=settings(keystone))


async def hanging(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dripping(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head(content_length=len(DATA)))
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("handle", "options", "error", "reason"),
    [
        (answer(b"", 302, location="http://10.0.0.1/"), {}, GiveUp, "may not be asked, or leads"),
        (
            answer(DATA[1:], content_length=len(DATA), accept_ranges="none"),
            {},
            SourceFailed,
            "cannot be reached, or broke off",
        ),
        (answer(DATA, content_length="x"), {}, SourceFailed, "cannot be reached, or broke off"),
        (hanging, {"answer_timeout": 0.1}, SourceFailed, "did not answer in time"),
        (dripping, {"read_timeout": 0.5, "min_rate": 100_000}, SourceFailed, "sends too slowly"),
    ],
)
async def test_where_a_service_is_is_not_told(
    keystone: Keystone,
    token: str,
    foreign: Foreign,
    handle: Handle,
    options: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    foreign.handle = handle
    with pytest.raises(error, match=f"^The image service of region X {reason}") as told:
        await downloaded(
            known(foreign),
            token=token,
            settings=settings(keystone),
            outbound=outbound(**options),
        )
    assert "127.0.0.1" not in str(told.value)
    assert "10.0.0.1" not in str(told.value)


# Where the token must not go.


async def test_a_service_that_leads_astray_is_not_followed(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    """It is trusted where the catalog says that it is, and nowhere else on its host."""
    here = settings(keystone)
    async with serving(answer(DATA)) as other:
        for place in (
            other.url,
            f"http://127.0.0.2:{foreign.web.port}/",
            f"http://localhost:{foreign.web.port}/",
            "http://127.0.0.1/",
            *(f"http://{in_url(address)}/" for address in FORBIDDEN_ADDRESSES),
        ):
            foreign.handle = answer(b"", 302, location=place)
            with pytest.raises(GiveUp):
                await downloaded(known(foreign), token=token, settings=here)
        foreign.handle = answer(b"", 302, location=other.url)
        with pytest.raises(GiveUp):
            await found(foreign.region, "x", token=token, settings=here)
        assert other.connections == 0


async def test_a_host_of_the_catalog_that_is_found_at_any_address_is_trusted(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    """And the host that it leads to is not, were it at the same address."""
    network = Leading(foreign.web, {"glance.example": ["10.0.0.1"], "other.example": ["10.0.0.1"]})
    image = RemoteImage("raw", "bare", len(DATA), {}, {}, "It", "http://glance.example:9292/file")
    here = settings(keystone)
    foreign.handle = answer(DATA)
    assert await downloaded(image, token=token, settings=here, outbound=network.outbound()) == DATA
    for place in ("http://other.example:9292/", "http://glance.example/", "http://10.0.0.1:9292/"):
        network.connected.clear()
        foreign.handle = answer(b"", 307, location=place)
        with pytest.raises(GiveUp):
            await downloaded(image, token=token, settings=here, outbound=network.outbound())
        assert network.connected == [("10.0.0.1", 9292, "glance.example")]


async def test_a_token_is_not_carried_to_another_origin(
    keystone: Keystone, token: str, foreign: Foreign
) -> None:
    """Not even to one that may be asked: an object store with a signed address, say."""

    async def cut(asked: Asked, writer: asyncio.StreamWriter) -> None:
        start = int(asked.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        told = {"content_length": len(DATA) - start}
        if start:
            told |= {"content_range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
        writer.write(head(206 if start else 200, **told) + DATA[start : start + 400_000])
        await writer.drain()

    async with serving(cut) as other:
        foreign.handle = answer(b"", 302, location=f"{other.url}/signed")
        allowing = outbound(allowed_hosts=(f"127.0.0.1:{other.port}",))
        here = settings(keystone)
        data = await downloaded(known(foreign), token=token, settings=here, outbound=allowing)
    assert data == DATA
    # Each time by way of the service that the token is for.
    assert [one.headers.get("x-auth-token") for one in foreign.web.asked] == [token, token]
    assert [one.headers.get("range") for one in other.asked] == [None, "bytes=400000-"]
    assert ["x-auth-token" in one.headers for one in other.asked] == [False, False]


# swift-local.


@dataclass
class Account:
    """demo's account in Swift behind a wire, in a region of its own."""

    wire: Wire
    settings: ImagesSettings
    http: httpx.AsyncClient
    container: str

    async def put(self, name: str, data: bytes = DATA, **headers: str) -> None:
        path = f"/{quote(self.container)}/{quote(name)}"
        (await self.http.put(path, content=data, headers=headers)).raise_for_status()

    async def download(self, name: str, token: str) -> bytes:
        opening = swift_local(
            outbound(),
            container=self.container,
            name=name,
            token=token,
            settings=self.settings,
            retries=AT_ONCE,
        )
        async with opening as source:
            assert source.size == len(DATA)
            return b"".join([block async for block in source.blocks])


@pytest.fixture(scope="module")
def _wired_swift(keystone: Keystone, swift: Swift) -> Generator[tuple[Wire, str]]:
    port = int(swift.keystone_proxy_url.rpartition(":")[2])
    with Wire.to("127.0.0.1", port) as wire:
        path = "/v1/AUTH_$(project_id)s"
        region = make_region(
            keystone,
            "object-store",
            # What is nearer is asked, though nobody answers at the other.
            public=f"http://127.0.0.1:{ports.any_free()}{path}",
            internal=f"http://127.0.0.1:{wire.port}{path}",
        )
        yield wire, region


@pytest.fixture
async def account(
    keystone: Keystone, swift: Swift, token: str, _wired_swift: tuple[Wire, str]
) -> AsyncGenerator[Account]:
    wire, region = _wired_swift
    here = settings(keystone, KEYSTONE_AUTHTOKEN__REGION_NAME=region)
    url = f"{swift.keystone_proxy_url}/v1/AUTH_{keystone.project_id('demo')}"
    container = f"images of {secrets.token_hex(4)} & ü"
    headers = {"X-Auth-Token": token}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        (await http.put(f"/{quote(container)}")).raise_for_status()
        wire.heal()
        yield Account(wire, here, http, container)
        listing = (await http.get(f"/{quote(container)}?format=json")).json()
        for one in listing:
            await http.delete(f"/{quote(container)}/{quote(one['name'])}")
        (await http.delete(f"/{quote(container)}")).raise_for_status()
    wire.heal()


@pytest.mark.parametrize("name", ["disk.img", "a b/ü//c?d#e%2F.img", "folder/"])
async def test_an_object_of_the_users_account_is_downloaded(
    account: Account, token: str, name: str
) -> None:
    await account.put(name)
    assert await account.download(name, token) == DATA
    (asked,) = account.wire.requests
    assert asked.headers["x-auth-token"] == token


async def test_a_broken_download_of_an_object_goes_on(account: Account, token: str) -> None:
    await account.put("disk.img")
    account.wire.inflict(Break("answer", after=100_000, how="close"), times=2)
    assert await account.download("disk.img", token) == DATA
    first, *others = account.wire.requests
    assert "range" not in first.headers
    etag = f'"{hashlib.md5(DATA).hexdigest()}"'
    assert [(one.headers["range"], one.headers["if-match"]) for one in others] == [
        ("bytes=100000-", etag),
        ("bytes=200000-", etag),
    ]


async def test_an_object_that_changed_meanwhile_is_not_patched_together(
    account: Account, token: str
) -> None:
    await account.put("disk.img")
    account.wire.inflict(Break("answer", after=100_000, how="close"))
    opening = swift_local(
        outbound(),
        container=account.container,
        name="disk.img",
        token=token,
        settings=account.settings,
        retries=AT_ONCE,
    )
    async with opening as source:
        await anext(source.blocks)
        await account.put("disk.img", DATA[::-1])
        with pytest.raises(SourceFailed):
            async for _ in source.blocks:
                pass


async def test_a_large_object_by_its_prefix_is_not_resumed(account: Account, token: str) -> None:
    """Nothing in its answer says whether its segments are still the same."""
    await account.put("parts/1", DATA[:300_000])
    await account.put("parts/2", DATA[300_000:])
    manifest = f"{quote(account.container)}/parts/"
    await account.put("disk.img", b"", **{"X-Object-Manifest": manifest})
    assert await account.download("disk.img", token) == DATA
    account.wire.inflict(Break("answer", after=100_000, how="close"))
    with pytest.raises(SourceFailed):
        await account.download("disk.img", token)
    assert len(account.wire.requests) == 2


async def test_an_object_that_is_not_there_is_given_up(account: Account, token: str) -> None:
    with pytest.raises(GiveUp, match="The object store answered 404"):
        await account.download("nothing.img", token)


@pytest.mark.parametrize("name", ["..", "a/../../../AUTH_other/c/o", "./a", "a/."])
async def test_a_name_that_leads_out_of_the_account_is_refused(
    account: Account, token: str, name: str
) -> None:
    with pytest.raises(GiveUp, match="cannot be imported"):
        await account.download(name, token)
    assert account.wire.requests == []


async def test_it_is_the_account_of_the_tokens_project(
    account: Account, keystone: Keystone
) -> None:
    await account.put("disk.img")
    with pytest.raises(GiveUp, match="The object store answered 404"):
        await account.download("disk.img", keystone.token("other", "other"))


async def test_without_a_region_of_ours_there_has_to_be_one(
    account: Account, keystone: Keystone, token: str
) -> None:
    account.settings = settings(keystone)  # RegionOne has an object store, and the test's region
    with pytest.raises(GiveUp, match="object stores in several regions"):
        await account.download("disk.img", token)
    account.settings = settings(keystone, KEYSTONE_AUTHTOKEN__REGION_NAME="Nowhere")
    with pytest.raises(GiveUp, match="has no object store here"):
        await account.download("disk.img", token)


# The secret of a job.


def test_a_token_is_taken_while_it_lasts() -> None:
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert token_of({"token": "t", "expires_at": later.isoformat()}) == "t"
    assert token_of({"token": "t"}) == "t"


@pytest.mark.parametrize("secret", [None, {}, {"token": ""}])
def test_no_token_is_told(secret: dict[str, str] | None) -> None:
    with pytest.raises(GiveUp, match="Your token was not kept"):
        token_of(secret)


def test_an_expired_token_is_told() -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(GiveUp, match="Your token expired"):
        token_of({"token": "t", "expires_at": before.isoformat()})
