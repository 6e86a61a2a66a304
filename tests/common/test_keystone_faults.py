"""What a real Keystone can't be made to do: fail, hang, lie, and count who asked what."""

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.keystone import REFUSED_S, Keystone, Lookup
from diptych_common.settings import KeystoneAuthtoken

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Stub:
    """A Keystone of a few lines: every token is its user's id, `garbage…` is unknown.

    `faults` are taken by validations one after the other, before anything else.
    """

    url: str = ""
    own_token: str = "own-1"
    own_lifetime: timedelta = timedelta(hours=1)
    lifetime: timedelta = timedelta(hours=1)
    delay: float = 0
    accepts_credentials: bool = True
    catalog: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    faults: list[Callable[[asyncio.StreamWriter], Awaitable[bool]]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    credentials: list[Any] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        method, target, _ = request_line.split()
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = target.partition("?")[0]
        self.calls[f"{method} {path}"] += 1
        if (method, path) == ("GET", "/v3/auth/tokens") and self.faults:
            return await self.faults.pop(0)(writer)
        await asyncio.sleep(self.delay)
        status, extra, content = self._answer(method, path, headers, body)
        await reply(writer, status, content, extra)
        return True

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        match method, path:
            case "POST", "/v3/auth/tokens":
                self.credentials.append(json.loads(body))
                if not self.accepts_credentials:
                    return 401, {}, b"{}"
                token = self._document("service", self.own_lifetime) | {"catalog": self.catalog}
                return 201, {"X-Subject-Token": self.own_token}, encoded(token)
            case "GET", "/v3/auth/tokens":
                subject = headers["x-subject-token"]
                if headers["x-auth-token"] != self.own_token:
                    return 401, {}, b"{}"
                if subject.startswith("garbage"):
                    return 404, {}, b"{}"
                return 200, {}, encoded(self._document(subject, self.lifetime))
            case "GET", "/":
                links = [{"rel": "self", "href": f"{self.url}/v3/"}]
                versions = {"versions": {"values": [{"id": "v3.14", "links": links}]}}
                return 300, {}, json.dumps(versions).encode()
            case _:
                return 404, {}, b"{}"

    def _document(self, subject: str, lifetime: timedelta) -> dict[str, Any]:
        return {
            "user": {"id": subject, "name": subject, "domain": {"id": "default"}},
            "roles": [{"id": "1", "name": "member"}],
            "expires_at": (datetime.now(UTC) + lifetime).isoformat(),
        } | self.documents.get(subject, {})

    @property
    def validations(self) -> int:
        return self.calls["GET /v3/auth/tokens"]

    @property
    def authentications(self) -> int:
        return self.calls["POST /v3/auth/tokens"]


def encoded(token: dict[str, Any]) -> bytes:
    return json.dumps({"token": token}).encode()


async def reply(
    writer: asyncio.StreamWriter,
    status: int,
    content: bytes = b"{}",
    headers: dict[str, str] | None = None,
) -> None:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    await writer.drain()


def answering(status: int, content: bytes = b"{}") -> Callable[[Any], Awaitable[bool]]:
    async def fault(writer: asyncio.StreamWriter) -> bool:
        await reply(writer, status, content)
        return True

    return fault


async def hanging(_writer: asyncio.StreamWriter) -> bool:
    await asyncio.sleep(30)
    return False


async def hanging_up(_writer: asyncio.StreamWriter) -> bool:
    return False


async def hanging_up_in_the_middle(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    return False


async def speaking_something_else(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()
    return False


async def dripping(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)
    return False


@asynccontextmanager
async def serving(stub: Stub, tls: ssl.SSLContext | None = None) -> AsyncGenerator[asyncio.Server]:
    server = await asyncio.start_server(stub.handle, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    stub.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
async def stub() -> AsyncGenerator[Stub]:
    stub = Stub()
    async with serving(stub):
        yield stub


@dataclass
class Asked:
    """A `Keystone` to ask about tokens, and what its lookups came to."""

    keystone: Keystone
    lookups: Counter[Lookup]

    async def user_of(self, token: str, *, service: str | None = None) -> str | None:
        headers = [(b"x-auth-token", token.encode())]
        if service is not None:
            headers.append((b"x-service-token", service.encode()))
        scope = {"type": "http", "method": "GET", "path": "/v2/images", "headers": headers}
        who = await self.keystone.identify(scope)
        return None if who is None else who.user_id


@asynccontextmanager
async def asking(url: str, **changes: object) -> AsyncGenerator[Asked]:
    options: dict[str, object] = {
        "auth_url": f"{url}/v3",
        "username": "glance",
        "password": "s3cret",
        "project_name": "service",
        "http_request_max_retries": 0,
        "http_connect_timeout": 5,
    }
    group = KeystoneAuthtoken.model_validate(options | changes)
    lookups: Counter[Lookup] = Counter()
    async with Keystone(
        group, service_type="image", on_lookup=lambda lookup: lookups.update([lookup])
    ) as keystone:
        yield Asked(keystone, lookups)


@pytest.mark.parametrize(
    "fault",
    [
        answering(500),
        answering(503),
        answering(403),
        answering(302),
        answering(200, b"<html>It works!</html>"),
        answering(200, b'{"token": {}}'),
        answering(200, b'{"token": {"user": {"id": "x"}, "expires_at": "2999-01-01T00:00:00"}}'),
        answering(200, b"[]"),
        hanging,
        hanging_up,
        hanging_up_in_the_middle,
        speaking_something_else,
        dripping,
    ],
)
async def test_whatever_keystone_does_wrong_is_503(
    fault: Callable[[Any], Awaitable[bool]], stub: Stub
) -> None:
    stub.faults = [fault]
    async with asking(stub.url, http_connect_timeout=0.5) as asked:
        with pytest.raises(ServiceUnavailable) as caught:
            await asked.user_of("alice")
        assert int(caught.value.headers["Retry-After"]) > 0
        assert asked.lookups == {"error": 1}
        # It is not held against the token.
        assert await asked.user_of("alice") == "alice"


async def test_nobody_at_keystones_port_is_503() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with asking(f"http://127.0.0.1:{unused.getsockname()[1]}") as asked:
            with pytest.raises(ServiceUnavailable):
                await asked.user_of("alice")


@pytest.mark.parametrize("fault", [answering(500), answering(502), hanging_up])
async def test_a_failed_exchange_is_repeated(
    fault: Callable[[Any], Awaitable[bool]], stub: Stub
) -> None:
    stub.faults = [fault, fault]
    async with asking(stub.url, http_request_max_retries=2) as asked:
        assert await asked.user_of("alice") == "alice"
    assert stub.validations == 3


async def test_a_timeout_is_not_repeated(stub: Stub) -> None:
    stub.faults = [hanging, hanging]
    async with asking(stub.url, http_request_max_retries=3, http_connect_timeout=0.3) as asked:
        with pytest.raises(ServiceUnavailable):
            await asked.user_of("alice")
    assert stub.validations == 1


@pytest.mark.parametrize("status", [400, 404, 413, 431])
async def test_a_token_that_keystone_can_make_nothing_of_is_401(status: int, stub: Stub) -> None:
    stub.faults = [answering(status)]
    async with asking(stub.url) as asked:
        with pytest.raises(Unauthorized):
            await asked.user_of("alice")


async def test_a_known_token_is_served_while_keystone_is_down(stub: Stub) -> None:
    async with asking(stub.url, token_cache_time=1) as asked:
        await asked.user_of("alice")
        stub.faults = [answering(500), answering(500)]
        assert await asked.user_of("alice") == "alice"
        with pytest.raises(ServiceUnavailable):
            await asked.user_of("bob")
        await asyncio.sleep(1.1)
        with pytest.raises(ServiceUnavailable):
            await asked.user_of("alice")
        assert asked.lookups == {"miss": 1, "hit": 1, "error": 2}


async def test_a_token_is_not_remembered_beyond_its_expiry(stub: Stub) -> None:
    stub.lifetime = timedelta(seconds=1)
    async with asking(stub.url) as asked:
        await asked.user_of("alice")
        await asyncio.sleep(1.1)
        stub.faults = [answering(404)]
        with pytest.raises(Unauthorized):
            await asked.user_of("alice")
    assert stub.validations == 2


async def test_a_token_that_expired_on_the_way_is_refused(stub: Stub) -> None:
    stub.lifetime = timedelta(seconds=-1)
    async with asking(stub.url) as asked:
        with pytest.raises(Unauthorized):
            await asked.user_of("alice")


@pytest.mark.parametrize("cache_time", [0, -1])
async def test_remembering_can_be_switched_off(cache_time: int, stub: Stub) -> None:
    async with asking(stub.url, token_cache_time=cache_time) as asked:
        await asked.user_of("alice")
        await asked.user_of("alice")
    assert stub.validations == 2


async def test_an_expired_token_with_a_service_token_is_asked_about_each_time(stub: Stub) -> None:
    stub.documents["nova"] = {"roles": [{"name": "service"}]}
    stub.documents["alice"] = {"expires_at": "2020-01-01T00:00:00Z"}
    async with asking(stub.url) as asked:
        assert await asked.user_of("alice", service="nova") == "alice"
        with pytest.raises(Unauthorized):
            await asked.user_of("alice")
        assert await asked.user_of("alice", service="nova") == "alice"
    assert stub.validations == 4


async def test_a_token_with_very_many_access_rules_is_judged_but_not_remembered(
    stub: Stub,
) -> None:
    rule = {"method": "GET", "service": "image", "path": "/v2/images"}
    for name, count in (("few", 32), ("many", 33)):
        stub.documents[name] = {
            "application_credential": {"access_rules": [rule] * count},
            "catalog": [{"type": "image", "endpoints": []}],
        }
    async with asking(stub.url) as asked:
        for name in ("few", "few", "many", "many"):
            assert await asked.user_of(name) == name
        assert asked.lookups == {"miss": 3, "hit": 1}


async def test_a_refused_token_is_asked_about_once(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await asked.user_of("garbage")
        assert asked.lookups == {"miss": 1, "negative": 2}
    assert stub.validations == 1


@pytest.mark.long
async def test_a_refusal_is_soon_forgotten(stub: Stub) -> None:
    stub.faults = [answering(404)]
    async with asking(stub.url) as asked:
        with pytest.raises(Unauthorized):
            await asked.user_of("alice")
        await asyncio.sleep(REFUSED_S + 0.1)
        assert await asked.user_of("alice") == "alice"


@pytest.mark.long
async def test_refused_tokens_push_out_no_known_ones(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        await asked.user_of("alice")
        for number in range(4200):
            with pytest.raises(Unauthorized):
                await asked.user_of(f"garbage{number}")
        await asked.user_of("alice")
        assert asked.lookups == {"miss": 4201, "hit": 1}
        # The oldest of them are forgotten, so there are not ever more of them.
        with pytest.raises(Unauthorized):
            await asked.user_of("garbage0")
        assert asked.lookups["miss"] == 4202


async def test_requests_with_the_same_token_share_one_exchange(stub: Stub) -> None:
    stub.delay = 0.1
    async with asking(stub.url) as asked:
        users = await asyncio.gather(*(asked.user_of("alice") for _ in range(50)))
        assert users == ["alice"] * 50
    assert stub.validations == 1


async def test_a_client_that_goes_away_takes_nothing_from_the_others(stub: Stub) -> None:
    stub.delay = 0.2
    async with asking(stub.url) as asked:
        first = asyncio.create_task(asked.user_of("alice"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(asked.user_of("alice"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "alice"
        with pytest.raises(asyncio.CancelledError):
            await first
    assert stub.validations == 1


async def test_closing_ends_exchanges_under_way(stub: Stub) -> None:
    stub.faults = [hanging]
    async with asking(stub.url) as asked:
        waiting = asyncio.create_task(asked.user_of("alice"))
        await asyncio.sleep(0.3)
        assert stub.validations == 1
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_concurrent_requests_never_see_each_others_identity(stub: Stub) -> None:
    names = [f"user-{number % 500}" for number in range(2000)]
    async with asking(stub.url) as asked:
        assert await asyncio.gather(*(asked.user_of(name) for name in names)) == names


async def test_a_proxy_of_the_environment_sees_no_tokens(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Stub()
    async with serving(proxy):
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with asking(stub.url) as asked:
            assert await asked.user_of("alice") == "alice"
    assert not proxy.calls


async def test_an_own_token_that_keystone_forgot_is_made_anew(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        await asked.user_of("alice")
        stub.own_token = "own-2"
        users = await asyncio.gather(*(asked.user_of(f"user-{number}") for number in range(10)))
        assert users == [f"user-{number}" for number in range(10)]
    # One renewal, whoever of the ten noticed first.
    assert stub.authentications == 2


async def test_an_own_token_is_made_anew_before_it_expires(stub: Stub) -> None:
    stub.own_lifetime = timedelta(seconds=20)
    async with asking(stub.url) as asked:
        await asked.user_of("alice")
        stub.own_lifetime = timedelta(hours=1)
        await asked.user_of("bob")
        await asked.user_of("carol")
    assert stub.authentications == 2


async def test_an_own_token_that_is_never_good_enough_is_503(stub: Stub) -> None:
    stub.faults = [answering(401), answering(401)]
    async with asking(stub.url) as asked:
        with pytest.raises(ServiceUnavailable):
            await asked.user_of("alice")
    assert (stub.validations, stub.authentications) == (2, 2)


async def test_wrong_credentials_do_not_lock_the_service_user_out(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.accepts_credentials = False
    async with asking(stub.url) as asked:
        for name in ("alice", "bob", "carol"):
            with pytest.raises(ServiceUnavailable):
                await asked.user_of(name)
    assert stub.authentications == 1
    assert "own credentials" in caplog.text
    assert "s3cret" not in caplog.text


async def test_tokens_are_validated_at_the_catalogs_internal_endpoint(stub: Stub) -> None:
    inside = Stub()
    async with serving(inside):
        stub.catalog = [
            {"type": "image", "endpoints": [endpoint("internal", "http://127.0.0.1:1")]},
            {
                "type": "identity",
                "endpoints": [
                    endpoint("public", "http://127.0.0.1:1/v3"),
                    endpoint("internal", "http://127.0.0.1:1/v3", region="Elsewhere"),
                    # Without a version: found by asking.
                    endpoint("internal", inside.url, region="Here"),
                ],
            },
        ]
        async with asking(stub.url, region_name="Here", interface="internalURL") as asked:
            assert await asked.user_of("alice") == "alice"
    assert (stub.validations, inside.validations) == (0, 1)
    assert inside.calls["GET /"] == 1


async def test_without_such_an_endpoint_tokens_are_validated_at_auth_url(stub: Stub) -> None:
    stub.catalog = [{"type": "identity", "endpoints": [endpoint("public", "http://127.0.0.1:1")]}]
    async with asking(stub.url) as asked:
        assert await asked.user_of("alice") == "alice"


async def test_an_endpoint_that_moved_is_found_again(stub: Stub) -> None:
    first, second = Stub(), Stub()
    async with serving(second), serving(first):
        stub.catalog = [
            {"type": "identity", "endpoints": [endpoint("internal", f"{first.url}/v3")]}
        ]
        async with asking(stub.url) as asked:
            await asked.user_of("alice")
            first.faults = [hanging_up]
            stub.catalog[0]["endpoints"] = [endpoint("internal", f"{second.url}/v3")]
            with pytest.raises(ServiceUnavailable):
                await asked.user_of("bob")
            assert await asked.user_of("bob") == "bob"
    assert second.validations == 1


def endpoint(interface: str, url: str, *, region: str = "RegionOne") -> dict[str, str]:
    return {"interface": interface, "url": url, "region": region, "region_id": region}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_v3_is_found_below_auth_url(slash: str, stub: Stub) -> None:
    async with asking(stub.url, auth_url=stub.url + slash) as asked:
        await asked.user_of("alice")
        await asked.user_of("bob")
    assert stub.calls["GET /"] == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            {
                "user": {"name": "glance", "domain": {"id": "default"}, "password": "s3cret"},
                "project": {"name": "service", "domain": {"id": "default"}},
            },
        ),
        (
            {"user_domain_name": "Users", "project_domain_name": "Projects"},
            {
                "user": {"name": "glance", "domain": {"name": "Users"}, "password": "s3cret"},
                "project": {"name": "service", "domain": {"name": "Projects"}},
            },
        ),
        (
            {"default_domain_name": "Ours", "project_domain_id": "p"},
            {
                "user": {"name": "glance", "domain": {"name": "Ours"}, "password": "s3cret"},
                "project": {"name": "service", "domain": {"id": "p"}},
            },
        ),
        (
            {"user_id": "g", "project_id": "s", "default_domain_id": "d"},
            {"user": {"id": "g", "password": "s3cret"}, "project": {"id": "s"}},
        ),
        (
            {"project_name": None, "default_domain_id": "d"},
            {"user": {"name": "glance", "domain": {"id": "d"}, "password": "s3cret"}},
        ),
    ],
)
async def test_user_and_project_are_named_as_the_settings_have_them(
    changes: dict[str, object], expected: dict[str, Any], stub: Stub
) -> None:
    async with asking(stub.url, **changes) as asked:
        await asked.user_of("alice")
    auth = stub.credentials[0]["auth"]
    assert auth["identity"] == {"methods": ["password"], "password": {"user": expected["user"]}}
    assert auth.get("scope", {}).get("project") == expected.get("project")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"auth_url": None}, "auth_url"),
        ({"username": None}, "username"),
        ({"password": None}, "password"),
        ({"auth_type": "v3applicationcredential"}, "application_credential_secret"),
        (
            {"auth_type": "v3applicationcredential", "application_credential_secret": "x"},
            "application_credential_id",
        ),
        (
            {
                "auth_type": "v3applicationcredential",
                "application_credential_secret": "x",
                "application_credential_name": "x",
                "username": None,
            },
            "username",
        ),
    ],
)
async def test_a_missing_setting_is_named(changes: dict[str, object], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        async with asking("http://127.0.0.1:1", **changes):
            pass


@pytest.mark.parametrize(
    ("certificate", "changes", "accepted"),
    [
        ("good", {"cafile": "ca.pem"}, True),
        ("good", {}, False),
        ("good", {"cafile": "other-ca.pem"}, False),
        ("wrong-name", {"cafile": "ca.pem"}, False),
        ("expired", {"cafile": "ca.pem"}, False),
        ("wrong-name", {"insecure": True}, True),
        ("expired", {"insecure": False, "cafile": "ca.pem"}, False),
    ],
)
async def test_keystones_certificate_is_checked(
    certificate: str, changes: dict[str, Any], accepted: bool, certificates: Path
) -> None:
    if "cafile" in changes:
        changes = changes | {"cafile": str(certificates / changes["cafile"])}
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / f"{certificate}.pem")
    stub = Stub()
    async with serving(stub, tls), asking(stub.url, **changes) as asked:
        if accepted:
            assert await asked.user_of("alice") == "alice"
        else:
            with pytest.raises(ServiceUnavailable):
                await asked.user_of("alice")
            assert not stub.calls


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_client_certificate_is_shown(insecure: bool, certificates: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    tls.load_cert_chain(certificates / "good.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority = str(certificates / "ca.pem")
    own = str(certificates / "good.pem")
    stub = Stub()
    async with serving(stub, tls):
        async with asking(
            stub.url, cafile=authority, certfile=own, keyfile=own, insecure=insecure
        ) as asked:
            assert await asked.user_of("alice") == "alice"
        async with asking(stub.url, cafile=authority) as asked:
            with pytest.raises(ServiceUnavailable):
                await asked.user_of("alice")
