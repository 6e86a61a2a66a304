"""Servers that are not who they should be, or answer what no store would."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from diptych_store.drivers.s3 import S3Store
from diptych_store.drivers.swift import SwiftStore
from diptych_store.errors import StoreError, Unreachable
from diptych_store.options.swift import SwiftOptions

from tests import web
from tests.store import s3_bucket
from tests.store.conformance import get

S3 = {
    "s3_store_access_key": "access",
    "s3_store_secret_key": "canary-secret",
    "s3_store_bucket": "images",
    "s3_store_retries": 0,
}
SWIFT = {
    "swift_store_user": "test:tester",
    "swift_store_key": "canary-secret",
    "swift_store_auth_version": "1",
    "swift_store_retry_get_count": 0,
}


def s3_store(url: str, cafile: str) -> tuple[S3Store, str]:
    options = {**S3, "s3_store_host": url, "s3_store_cacert": cafile}
    return s3_bucket.store_of(options), f"s3+{url}/images/8f3a"


def swift_store(url: str, cafile: str) -> tuple[SwiftStore, str]:
    options = {**SWIFT, "swift_store_auth_address": f"{url}/auth/v1.0"}
    store = SwiftStore(
        "cloud", SwiftOptions.model_validate({**options, "swift_store_cacert": cafile})
    )
    return store, "swift+config://ref1/glance/8f3a"


@pytest.mark.parametrize(
    ("certificate", "authority", "is_asked"),
    [
        ("good", "ca.pem", True),
        ("good", "other-ca.pem", False),
        ("wrong-name", "ca.pem", False),
        ("expired", "ca.pem", False),
    ],
)
@pytest.mark.parametrize("open_store", [s3_store, swift_store])
async def test_nothing_is_told_to_a_server_whose_certificate_is_not_right(
    certificates: Path,
    open_store: Callable[[str, str], tuple[S3Store | SwiftStore, str]],
    certificate: str,
    authority: str,
    is_asked: bool,
) -> None:
    """OSSA-2013-018 (CVE-2013-4111)."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / f"{certificate}.pem")
    async with web.serving(web.answer(b"", 500), tls=tls) as server:
        url = f"https://127.0.0.1:{server.port}"
        store, location = open_store(url, str(certificates / authority))
        async with aclosing(store):
            with pytest.raises(Unreachable):
                await get(store, location)
    assert bool(server.asked) is is_asked


def laughs() -> str:
    """A billion words in less than a kilobyte."""
    entities = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "canary" * 10}">' for n in range(9)
    )
    return f"<!DOCTYPE r [{entities}]>"


DECLARED = {
    "entities in entities": laughs(),
    "one long entity": f'<!DOCTYPE r [<!ENTITY e8 "{"canary" * 20_000}">]>',
    "a file": '<!DOCTYPE r [<!ENTITY e8 SYSTEM "{file}">]>',
    "a file by a parameter": '<!DOCTYPE r [<!ENTITY % p SYSTEM "{file}"> %p;]>',
    "an address": '<!DOCTYPE r [<!ENTITY e8 SYSTEM "{url}/entity">]>',
    "a definition elsewhere": '<!DOCTYPE r SYSTEM "{url}/definition">',
}


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("status", [200, 500])
async def test_xml_of_a_server_reaches_nothing_and_grows_to_nothing(
    tmp_path: Path, declared: str, status: int
) -> None:
    """CVE-2013-1664, CVE-2013-1665, CVE-2022-47950: entities in XML that somebody else wrote."""
    file = tmp_path / "secret"
    file.write_text("canary")
    body = ""

    async def handle(asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        await web.answer(body.encode(), status, content_type="application/xml")(asked, writer)

    async with web.serving(handle) as server:
        head = DECLARED[declared].format(file=file.as_uri(), url=server.url)
        text = "&e8;" * 2000 if "e8" in head else "x"
        body = (
            f'<?xml version="1.0"?>{head}<ListMultipartUploadsResult><Code>{text}</Code>'
            f"<Upload><Key>.attempts/{text}</Key><UploadId>{text}</UploadId></Upload>"
            "</ListMultipartUploadsResult>"
        )
        options = {**S3, "s3_store_host": server.url}
        async with aclosing(s3_bucket.store_of(options)) as store:
            told: list[object] = []
            try:
                told += [one async for one in store.attempts(older_than=timedelta(days=-1))]
            except StoreError as error:
                told.append(error)
    assert "canary" not in str(told)
    assert len(str(told)) < 1000
    assert [one.target for one in server.asked if not one.target.startswith("/images?")] == []
