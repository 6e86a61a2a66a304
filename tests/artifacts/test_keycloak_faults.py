"""What a real provider can't be made to do: fail, hang, lie, change keys, and count who asked."""

import asyncio
import gzip
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from diptych_artifacts.keycloak import MOST_KEYS_BYTES, Keycloak
from diptych_artifacts.settings import KeycloakOidc
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.keystone import Lookup

from tests.artifacts.tokens import asked, claims, encoded, jwk, public, rsa_key, token
from tests.waiting import open_sockets, until

ISSUER = "https://sso.example.org/realms/acme"
KEYS = {kid: rsa_key() for kid in ("k1", "k2")}
PATH = "/realms/acme/protocol/openid-connect/certs"

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]


def key_set(*kids: str) -> bytes:
    keys = [public(jwk(KEYS[kid], kid=kid, algorithm="RS256")) for kid in kids]
    return json.dumps({"keys": keys}).encode()


@dataclass
class Stub:
    """Hands out keys; `faults` are taken by requests one after the other, before anything else.

    While `held` is set, requests wait.
    """

    url: str = ""
    body: bytes = field(default_factory=lambda: key_set("k1"))
    faults: list[Fault] = field(default_factory=list[Fault])
    asked: list[str] = field(default_factory=list[str])
    going: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.asked.append(head.split()[1])
                await self.going.wait()
                if self.faults:
                    await self.faults.pop(0)(writer)
                    return
                await reply(writer, 200, self.body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def reply(
    writer: asyncio.StreamWriter, status: int, content: bytes = b"{}", **headers: str
) -> None:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    await writer.drain()


def answering(status: int, content: bytes = b"{}", **headers: str) -> Fault:
    async def fault(writer: asyncio.StreamWriter) -> None:
        await reply(writer, status, content, **headers)

    return fault


async def hanging(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def hanging_up(_writer: asyncio.StreamWriter) -> None:
    pass


async def speaking_something_else(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()


async def dripping(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flooding(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(2 * MOST_KEYS_BYTES >> 10):
        writer.write(b" " * 1024)
        await writer.drain()


async def flooding_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(20_000):
        writer.write(b"X-%d: %s\r\n" % (number, b"x" * 50))
        await writer.drain()


@asynccontextmanager
async def serving(stub: Stub, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Stub]:
    server = await asyncio.start_server(stub.handle, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    stub.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stub.going.set()
    try:
        yield stub
    finally:
        server.close()


@pytest.fixture
async def stub() -> AsyncGenerator[Stub]:
    async with serving(Stub()) as stub:
        yield stub


@dataclass
class Asked:
    """A `Keycloak` to show tokens to, what its lookups came to, and the time by its clock."""

    keycloak: Keycloak
    lookups: Counter[Lookup]
    now: float = 0.0

    async def user(self, kid: str = "k1") -> str | None:
        """Who the bearer of a token by the key is; k9 is a key that nobody has."""
        return await self.shown(token(claims(ISSUER), KEYS.get(kid, KEYS["k1"]), kid=kid))

    async def shown(self, presented: str) -> str | None:
        who = await self.keycloak.identify(
            {"type": "http", "headers": [(b"x-auth-token", presented.encode())]}
        )
        return None if who is None else who.user_id


@asynccontextmanager
async def asking(url: str, **changes: object) -> AsyncGenerator[Asked]:
    options: dict[str, object] = {
        "auth_url": url,
        "keycloak_iss": "https://sso.example.org/realms/%s",
        "realms": "acme",
        "audience": "artifacts",
        "keys_cache_time": 600,
        "keys_refetch_interval": 5,
    }
    lookups: Counter[Lookup] = Counter()
    made = Keycloak(
        KeycloakOidc.model_validate(options | changes),
        on_lookup=lambda lookup: lookups.update([lookup]),
        clock=lambda: asked.now,
    )
    asked = Asked(made, lookups)
    async with made:
        yield asked


FAULTS: dict[str, Fault] = {
    "500": answering(500),
    "503": answering(503),
    "404": answering(404),
    "401": answering(401),
    "204": answering(204, b""),
    "elsewhere": answering(302, Location="http://localhost:1/keys"),
    "html": answering(200, b"<html>It works!</html>"),
    "list": answering(200, b"[]"),
    "null": answering(200, b"null"),
    "no keys": answering(200, b'{"keys": []}'),
    "keys no list": answering(200, b'{"keys": {"k1": {"kty": "RSA"}}}'),
    "junk for keys": answering(200, b'{"keys": [1, null, "k1", [], {}, {"kty": 7}]}'),
    "a key without numbers": answering(200, b'{"keys": [{"kty": "RSA", "kid": "k1"}]}'),
    "a key of odd types": answering(
        200, b'{"keys": [{"kty": "RSA", "kid": "k1", "alg": ["RS256"], "n": 1, "e": 2}]}'
    ),
    "a secret key": answering(
        200, b'{"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": "c2VjcmV0"}]}'
    ),
    "a key for encryption": answering(200, key_set("k1").replace(b'"use": "sig"', b'"use": "enc"')),
    "a key of another algorithm": answering(200, key_set("k1").replace(b"RS256", b"RS384")),
    "a key without a name": answering(200, key_set("k1").replace(b'"kid"', b'"kit"')),
    "deep": answering(200, b"[" * 100_000),
    "compressed": answering(200, gzip.compress(key_set("k1")), Content_Encoding="gzip"),
    "too long": answering(200, key_set("k1") + b" " * MOST_KEYS_BYTES),
    "hanging up": hanging_up,
    "something else": speaking_something_else,
    "flooding": flooding,
    "flooding headers": flooding_headers,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whatever_keycloak_does_wrong_is_503(fault: Fault, stub: Stub) -> None:
    stub.faults = [fault]
    async with asking(stub.url) as asked:
        with pytest.raises(ServiceUnavailable) as caught:
            await asked.user()
        assert int(caught.value.headers["Retry-After"]) > 0
        # It is not asked again at once, but then it is.
        with pytest.raises(ServiceUnavailable):
            await asked.user()
        assert stub.asked == [PATH]
        asked.now += 5
        assert await asked.user() == "u-alice"
    assert stub.asked == [PATH, PATH]
    assert asked.lookups == {"error": 2, "miss": 1}


@pytest.mark.parametrize("fault", [hanging, dripping])
async def test_a_keycloak_that_takes_its_time_is_503(fault: Fault, stub: Stub) -> None:
    stub.faults = [fault]
    async with asking(stub.url, timeout=0.3) as asked:
        with pytest.raises(ServiceUnavailable):
            await asked.user()
        with pytest.raises(ServiceUnavailable):
            await asked.user()
    assert stub.asked == [PATH]


async def test_nobody_at_keycloaks_port_is_503_with_a_body() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        options = {
            "PASTE_DEPLOY__FLAVOR": "keycloak",
            "KEYCLOAK_OIDC__AUTH_URL": f"http://127.0.0.1:{unused.getsockname()[1]}",
            "KEYCLOAK_OIDC__KEYCLOAK_ISS": "https://sso.example.org/realms/%s",
            "KEYCLOAK_OIDC__REALMS": "acme",
            "KEYCLOAK_OIDC__AUDIENCE": "artifacts",
            # Nor is who can't be checked taken for nobody.
            "DEFAULT__ALLOW_ANONYMOUS_ACCESS": "true",
        }
        headers = {"X-Auth-Token": token(claims(ISSUER), KEYS["k1"])}
        async with asked(**options) as api:
            answer = await api.get("/schemas", headers=headers)
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "ServiceUnavailable"
    assert int(answer.headers["retry-after"]) > 0


async def test_keys_are_remembered(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        for _ in range(3):
            assert await asked.user() == "u-alice"
    assert stub.asked == [PATH]
    assert asked.lookups == {"miss": 1, "hit": 2}


async def test_a_token_is_verified_anew_when_there_are_other_keys(stub: Stub) -> None:
    presented = token(claims(ISSUER), KEYS["k1"])
    async with asking(stub.url) as asked:
        for _ in range(3):
            assert await asked.shown(presented) == "u-alice"
        asked.now = 5
        stub.body = key_set("k2")
        assert await asked.user("k2") == "u-alice"
        with pytest.raises(Unauthorized):
            await asked.shown(presented)
    assert asked.lookups == {"miss": 2, "hit": 2, "negative": 1}


async def test_a_token_with_very_many_roles_is_verified_each_time(stub: Stub) -> None:
    roles = {"roles": [f"role-{number:05}" for number in range(500)]}
    presented = token(claims(ISSUER, realm_access=roles), KEYS["k1"])
    async with asking(stub.url) as asked:
        for _ in range(2):
            assert await asked.shown(presented) == "u-alice"
        assert len(asked.keycloak._verified) == 0


async def test_an_altered_token_is_not_taken_for_the_one_before(stub: Stub) -> None:
    presented = token(claims(ISSUER), KEYS["k1"])
    head, _, signature = presented.split(".")
    said = encoded(claims(ISSUER, sub="u-root"))
    async with asking(stub.url) as asked:
        assert await asked.shown(presented) == "u-alice"
        with pytest.raises(Unauthorized):
            await asked.shown(f"{head}.{said}.{signature}")


async def test_nobody_is_asked_before_the_first_token(stub: Stub) -> None:
    async with asking(stub.url):
        pass
    assert stub.asked == []


async def test_keys_are_renewed_while_requests_go_on(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        assert await asked.user() == "u-alice"
        asked.now = 301
        stub.body = key_set("k2")
        stub.going.clear()
        assert await asked.user() == "u-alice"
        assert await asked.user() == "u-alice"
        await until(lambda: len(stub.asked) == 2)
        stub.going.set()
        await until(lambda: not asked.keycloak._fetches)
        # The key that is gone is not taken any more.
        assert await asked.user("k2") == "u-alice"
        with pytest.raises(Unauthorized):
            await asked.user("k1")
    assert len(stub.asked) == 2


async def test_keycloak_may_be_away_until_its_keys_are_too_old(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        assert await asked.user() == "u-alice"
        stub.faults = [answering(500), answering(500), answering(500)]
        asked.now = 301
        assert await asked.user() == "u-alice"
        await until(lambda: not asked.keycloak._fetches)
        # Which key it may have got meanwhile nobody can tell.
        with pytest.raises(ServiceUnavailable):
            await asked.user("k9")
        asked.now = 600
        assert await asked.user() == "u-alice"
        await until(lambda: not asked.keycloak._fetches)
        asked.now = 606
        with pytest.raises(ServiceUnavailable):
            await asked.user()
        asked.now = 612
        assert await asked.user() == "u-alice"


async def test_a_new_key_is_looked_for_once_in_a_while(stub: Stub) -> None:
    async with asking(stub.url) as asked:
        assert await asked.user("k1") == "u-alice"
        asked.now = 5
        stub.body = key_set("k1", "k2")
        assert await asked.user("k2") == "u-alice"
        assert len(stub.asked) == 2
        # Made-up keys make for no more fetches, and disturb nobody.
        for _ in range(10):
            with pytest.raises(Unauthorized):
                await asked.user("k9")
            assert await asked.user("k1") == "u-alice"
        assert len(stub.asked) == 2
        asked.now = 10
        for _ in range(10):
            with pytest.raises(Unauthorized):
                await asked.user("k9")
        assert len(stub.asked) == 3


async def test_requests_at_a_time_share_one_fetch(stub: Stub) -> None:
    stub.going.clear()
    async with asking(stub.url) as asked:
        together = [asyncio.create_task(asked.user()) for _ in range(50)]
        await until(lambda: bool(stub.asked))
        stub.going.set()
        assert await asyncio.gather(*together) == ["u-alice"] * 50
    assert stub.asked == [PATH]


async def test_they_share_its_failure_too(stub: Stub) -> None:
    stub.faults = [hanging]
    async with asking(stub.url, timeout=0.3) as asked:
        answers = await asyncio.gather(*(asked.user() for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {ServiceUnavailable}
    assert stub.asked == [PATH]


async def test_who_asked_first_may_go_away(stub: Stub) -> None:
    stub.going.clear()
    async with asking(stub.url) as asked:
        first = asyncio.create_task(asked.user())
        await until(lambda: bool(stub.asked))
        second = asyncio.create_task(asked.user())
        first.cancel()
        await asyncio.wait([first])
        stub.going.set()
        assert await second == "u-alice"
    assert stub.asked == [PATH]


async def test_closing_ends_what_is_under_way(stub: Stub) -> None:
    stub.going.clear()
    before = open_sockets()
    async with asking(stub.url) as asked:
        waiting = asyncio.create_task(asked.user())
        await until(lambda: bool(stub.asked))
    assert await asyncio.gather(waiting, return_exceptions=True) != ["u-alice"]
    stub.going.set()
    await until(lambda: open_sockets() <= before)


async def test_realms_do_not_share_keys(stub: Stub) -> None:
    async with asking(stub.url, realms="umbrella, acme") as asked:
        assert await asked.user() == "u-alice"
    assert stub.asked == [PATH]


async def test_a_realms_name_stays_one_part_of_the_path(stub: Stub) -> None:
    async with asking(stub.url, realms="a/b?c#d", public_cert_url="/x/%s/certs") as asked:
        said = claims("https://sso.example.org/realms/a/b?c#d")
        presented = token(said, KEYS["k1"])
        await asked.keycloak.identify({"headers": [(b"x-auth-token", presented.encode())]})
    assert stub.asked == ["/x/a%2Fb%3Fc%23d/certs"]


async def test_no_proxy_of_the_environment_is_used(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with asking(stub.url) as asked:
        assert await asked.user() == "u-alice"


@pytest.mark.parametrize(
    ("certificate", "changes", "accepted"),
    [
        ("good", {"cafile": "ca.pem"}, True),
        ("good", {}, False),
        ("good", {"insecure": True}, True),
        ("wrong-name", {"cafile": "ca.pem"}, False),
    ],
)
async def test_keycloaks_certificate_is_checked(
    certificate: str, changes: dict[str, Any], accepted: bool, certificates: Path
) -> None:
    if "cafile" in changes:
        changes = changes | {"cafile": str(certificates / changes["cafile"])}
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / f"{certificate}.pem")
    async with serving(Stub(), tls) as stub, asking(stub.url, **changes) as asked:
        if accepted:
            assert await asked.user() == "u-alice"
        else:
            with pytest.raises(ServiceUnavailable):
                await asked.user()
            assert stub.asked == []


async def test_a_client_certificate_is_shown(certificates: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    tls.load_cert_chain(certificates / "good.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority, own = str(certificates / "ca.pem"), str(certificates / "good.pem")
    async with serving(Stub(), tls) as stub:
        async with asking(stub.url, cafile=authority, certfile=own, keyfile=own) as asked:
            assert await asked.user() == "u-alice"
        async with asking(stub.url, cafile=authority) as asked:
            with pytest.raises(ServiceUnavailable):
                await asked.user()
