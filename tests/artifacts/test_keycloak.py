"""Tokens of a real OpenID provider, and all that is no valid token beside them."""

import hmac
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from dev import ports
from dev.openid import Client, Openid, Realm, User
from diptych_artifacts.keycloak import LONGEST_TOKEN
from diptych_artifacts.settings import load
from diptych_common.settings import SettingsError

from tests.artifacts.service import client, configuration, opened
from tests.artifacts.tokens import (
    Key,
    asked,
    base64url,
    claims,
    encoded,
    jwk,
    public,
    rsa_key,
    token,
)

PASSWORD = "correct horse"
ALGORITHMS = {"glare": "RS256", "glare-pss": "PS256", "glare-ec": "ES256", "glare-ed": "EdDSA"}
ALICE = {
    "user": "u-alice",
    "name": "alice",
    "project": "5f2c81",
    "roles": ["member", "offline_access"],
    "anonymous": False,
}
NOBODY = {"roles": [], "anonymous": True}


@dataclass(frozen=True)
class Provider:
    """The provider, and the keys of its realm acme by algorithm."""

    openid: Openid
    keys: dict[str, Key]

    @property
    def key(self) -> Key:
        return self.keys["RS256"]

    def issuer(self, realm: str = "acme") -> str:
        return f"{self.openid.url}/realms/{realm}"

    def claims(self, **changes: Any) -> dict[str, Any]:
        return claims(self.issuer(), **changes)

    def token(self, realm: str = "acme", client: str = "glare", user: str = "alice") -> str:
        return self.openid.log_in(realm, client, user, PASSWORD)["access_token"]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Generator[Provider]:
    keys: dict[str, Key] = {
        "RS256": rsa_key(),
        "PS256": rsa_key(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    users = {
        "u-alice": User("alice", PASSWORD, ["Member", "offline_access"]),
        "u-root": User("root", PASSWORD, ["Admin", "member"]),
    }
    clients = {name: Client("artifacts", algorithm) for name, algorithm in ALGORITHMS.items()}
    clients["other"] = Client("another-service")
    openid = Openid(tmp_path_factory.mktemp("openid"), port=ports.any_free())
    openid.start(
        [
            Realm(
                "acme",
                [jwk(key, kid=f"acme-{name}", algorithm=name) for name, key in keys.items()],
                users,
                clients,
            ),
            # The same names of keys and users: only the issuer tells them apart.
            Realm(
                "umbrella", [jwk(rsa_key(), kid="acme-RS256", algorithm="RS256")], users, clients
            ),
            Realm("foreign", [jwk(rsa_key(), kid="foreign", algorithm="RS256")], users, clients),
        ]
    )
    yield Provider(openid, keys)
    openid.stop()


def settings(provider: Provider, **options: str) -> dict[str, str]:
    return {
        "PASTE_DEPLOY__FLAVOR": "keycloak",
        "KEYCLOAK_OIDC__AUTH_URL": provider.openid.url,
        "KEYCLOAK_OIDC__REALMS": "acme:5f2c81, umbrella",
        "KEYCLOAK_OIDC__AUDIENCE": "artifacts",
        **options,
    }


@pytest.fixture(scope="module")
async def api(provider: Provider) -> AsyncGenerator[httpx.AsyncClient]:
    async with asked(**settings(provider)) as client:
        yield client


async def test_a_user_of_a_realm_is_let_in(api: httpx.AsyncClient, provider: Provider) -> None:
    """With what python-glareclient sends after its own log-in, and as RFC 6750 has it."""
    token = provider.token()
    for headers in (
        {"X-Auth-Token": token},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token}", "X-Auth-Token": token},
        {"Authorization": "Basic YWxpY2U6eA==", "X-Auth-Token": token},
    ):
        assert (await api.get("/schemas", headers=headers)).json() == ALICE


async def test_the_settings_say_which_project_a_realm_is(
    api: httpx.AsyncClient, provider: Provider
) -> None:
    headers = {"X-Auth-Token": provider.token("umbrella")}
    assert (await api.get("/schemas", headers=headers)).json() == ALICE | {"project": "umbrella"}
    headers = {"X-Auth-Token": provider.token("foreign")}
    assert (await api.get("/schemas", headers=headers)).status_code == 401


async def test_the_role_admin_counts_from_realms_that_are_named(
    provider: Provider,
) -> None:
    options = settings(provider, KEYCLOAK_OIDC__ADMIN_REALMS="umbrella")
    async with asked(**options) as api:
        for realm, roles in (("umbrella", ["admin", "member"]), ("acme", ["member"])):
            headers = {"X-Auth-Token": provider.token(realm, user="root")}
            assert (await api.get("/schemas", headers=headers)).json()["roles"] == roles


async def test_no_role_makes_an_administrator_of_a_user_of_other_realms(
    provider: Provider, artifacts_database: str, tmp_path: Path
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("context_is_admin: role:member\n")
    environ = configuration(
        artifacts_database,
        tmp_path,
        OSLO_POLICY__POLICY_FILE=str(rules),
        **settings(provider, KEYCLOAK_OIDC__ADMIN_REALMS="umbrella"),
    )
    ours, theirs = ({"X-Auth-Token": provider.token(realm)} for realm in ("umbrella", "acme"))
    async with opened(environ) as app, client(app) as api:
        for owner, other, status in ((ours, theirs, 404), (theirs, ours, 200)):
            created = await api.post("/artifacts/images", json={"name": "x"}, headers=owner)
            path = f"/artifacts/images/{created.json()['id']}"
            assert (await api.get(path, headers=other)).status_code == status
        for headers, status, seen in ((theirs, 403, 1), (ours, 200, 2)):
            assert (await api.get("/quotas", headers=headers)).status_code == status
            listed = await api.get("/artifacts/images", headers=headers)
            assert len(listed.json()["artifacts"]) == seen


@pytest.mark.parametrize("client", ALGORITHMS)
async def test_algorithms_are_those_of_the_settings(client: str, provider: Provider) -> None:
    headers = {"X-Auth-Token": provider.token(client=client)}
    algorithm = ALGORITHMS[client]
    for allowed in ("RS256", "PS256, ES256,EdDSA"):
        async with asked(**settings(provider, KEYCLOAK_OIDC__ALGORITHMS=allowed)) as api:
            answer = await api.get("/schemas", headers=headers)
            assert answer.status_code == (200 if algorithm in allowed else 401)


async def test_a_token_for_another_service_is_refused(
    api: httpx.AsyncClient, provider: Provider
) -> None:
    headers = {"X-Auth-Token": provider.token(client="other")}
    assert (await api.get("/schemas", headers=headers)).status_code == 401
    async with asked(
        **settings(provider, KEYCLOAK_OIDC__AUDIENCE="artifacts,another-service")
    ) as both:
        assert (await both.get("/schemas", headers=headers)).status_code == 200


async def test_an_id_token_is_no_access_token(provider: Provider) -> None:
    """Also where the client's own name is an audience."""
    answer = provider.openid.log_in("acme", "glare", "alice", PASSWORD)
    async with asked(**settings(provider, KEYCLOAK_OIDC__AUDIENCE="artifacts,glare")) as api:
        statuses = [
            (await api.get("/schemas", headers={"X-Auth-Token": answer[name]})).status_code
            for name in ("access_token", "id_token")
        ]
    assert statuses == [200, 401]


async def test_the_issuer_may_be_another_address_than_that_of_the_keys(
    provider: Provider,
) -> None:
    said = claims("https://sso.example.org/realms/acme")
    headers = {"X-Auth-Token": token(said, provider.key, kid="acme-RS256")}
    options = settings(provider, KEYCLOAK_OIDC__KEYCLOAK_ISS="https://sso.example.org/realms/%s")
    async with asked(**options) as api:
        assert (await api.get("/schemas", headers=headers)).json() == ALICE
        headers = {"X-Auth-Token": provider.token()}
        assert (await api.get("/schemas", headers=headers)).status_code == 401


async def test_a_401_asks_for_a_bearer_token(api: httpx.AsyncClient) -> None:
    for headers in ({}, {"X-Auth-Token": "garbage"}):
        answer = await api.get("/schemas", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "Unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_different_tokens_are_none(api: httpx.AsyncClient, provider: Provider) -> None:
    headers = {
        "X-Auth-Token": provider.token(),
        "Authorization": f"Bearer {provider.token('umbrella')}",
    }
    assert (await api.get("/schemas", headers=headers)).status_code == 401


async def test_anonymous_are_those_without_a_token(provider: Provider) -> None:
    """A token that is not valid is never taken for none: its owner would just see less."""
    async with asked(**settings(provider, DEFAULT__ALLOW_ANONYMOUS_ACCESS="true")) as api:
        assert (await api.get("/schemas")).json() == NOBODY
        assert (await api.get("/schemas", headers={"X-Auth-Token": "x"})).status_code == 401
        assert (await api.get("/schemas", headers={"Authorization": "Bearer"})).status_code == 401
        headers = {"X-Auth-Token": provider.token()}
        assert (await api.get("/schemas", headers=headers)).json() == ALICE


async def test_identity_headers_mean_nothing(api: httpx.AsyncClient, provider: Provider) -> None:
    claimed = {"X-Identity-Status": "Confirmed", "X-Project-Id": "beta", "X-Roles": "admin"}
    assert (await api.get("/schemas", headers=claimed)).status_code == 401
    headers = claimed | {"X-Auth-Token": provider.token()}
    assert (await api.get("/schemas", headers=headers)).json() == ALICE


def with_claims(**changes: Any) -> Callable[[Provider], str]:
    return lambda by: token(by.claims(**changes), by.key, kid="acme-RS256")


def with_header(**changes: Any) -> Callable[[Provider], str]:
    return lambda by: token(by.claims(), by.key, **({"kid": "acme-RS256"} | changes))


def with_payload(payload: object) -> Callable[[Provider], str]:
    return lambda by: token(payload, by.key, kid="acme-RS256")


def unsigned(algorithm: object) -> Callable[[Provider], str]:
    head = {"alg": algorithm, "typ": "JWT", "kid": "acme-RS256"}
    return lambda by: f"{encoded(head)}.{encoded(by.claims())}."


def by_public_key(by: Provider) -> str:
    """Signed with what everybody knows, for verifiers that let the token choose the algorithm."""
    pem = by.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"{encoded({'alg': 'HS256', 'kid': 'acme-RS256'})}.{encoded(by.claims())}"
    return f"{text}.{base64url(hmac.digest(pem, text.encode(), 'sha256'))}"


def by_own_key(by: Provider) -> str:
    """With a key of its own that it brings along, and says where to fetch (CVE-2025-24976)."""
    key = rsa_key()
    own = public(jwk(key, kid="acme-RS256", algorithm="RS256"))
    url = "http://127.0.0.1:1/certs"
    return token(by.claims(), key, kid="acme-RS256", jwk=own, jku=url, x5u=url)


def altered(by: Provider) -> str:
    head, _, signature = token(by.claims(), by.key, kid="acme-RS256").split(".")
    return f"{head}.{encoded(by.claims(realm_access={'roles': ['admin']}))}.{signature}"


def ago(**moments: float) -> Callable[[Provider], str]:
    return lambda by: with_claims(
        **{name: int(time.time() - seconds) for name, seconds in moments.items()}
    )(by)


def cut(pieces: slice) -> Callable[[Provider], str]:
    return lambda by: ".".join(by.token().split(".")[pieces])


def huge(size: int) -> Callable[[Provider], str]:
    return with_claims(realm_access={"roles": ["member"]}, padding="x" * size)


BAD: dict[str, Callable[[Provider], str]] = {
    "garbage": lambda _: "garbage",
    "dots": lambda _: "..",
    "many dots": lambda _: "." * 1000,
    "uuid of Keystone": lambda _: "5f2c81d2a0fe4a5c9b7e1f8f3c2d4b6a",
    "no signature": cut(slice(2)),
    "no header": cut(slice(1, 3)),
    "one part more": lambda by: by.token() + ".x",
    "not base64": lambda by: by.token().replace(".", ".!", 1),
    "not ascii": lambda by: by.token() + "é",
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg missing": unsigned(None),
    "alg a list": unsigned(["RS256"]),
    "alg an object": unsigned({"RS256": 1}),
    "alg unknown": unsigned("RS257"),
    "HS256 with the public key": by_public_key,
    "a key of its own": by_own_key,
    "another key": lambda by: token(by.claims(), rsa_key(), kid="acme-RS256"),
    "the key of another algorithm": with_header(kid="acme-PS256"),
    "PS256 by the RS256 key": with_header(algorithm="PS256"),
    "altered": altered,
    "kid unknown": with_header(kid="acme-RS999"),
    "kid missing": with_header(kid=None),
    "kid a number": with_header(kid=1),
    "kid a list": with_header(kid=["acme-RS256"]),
    "kid a path": with_header(kid="../../../dev/null"),
    "critical extension": with_header(crit=["exp"], exp=1),
    "payload unencoded": with_header(crit=["b64"], b64=False),
    "header typ of an ID token": lambda by: token(
        by.claims(typ=None), by.key, kid="acme-RS256", typ="JWT"
    ),
    "header no object": lambda by: f"{encoded([1])}.{encoded(by.claims())}.AA",
    "header not JSON": lambda by: f"{encoded(b'{')}.{encoded(by.claims())}.AA",
    "header not UTF-8": lambda by: f"{encoded(bytes([255]))}.{encoded(by.claims())}.AA",
    "header deep": lambda by: f"{encoded(b'[' * 5000)}.{encoded(by.claims())}.AA",
    "payload no JSON": with_payload(b"not JSON"),
    "payload empty": with_payload(b""),
    "payload a list": with_payload([1]),
    "payload a string": with_payload("x"),
    "payload null": with_payload(None),
    "payload deep": with_payload(b"[" * 5000),
    "payload not UTF-8": with_payload(b'{"iss": "\xff"}'),
    "issuer missing": with_claims(iss=None),
    "issuer of another host": lambda by: with_claims(iss="http://evil.example/realms/acme")(by),
    "issuer with a slash": lambda by: with_claims(iss=by.issuer() + "/")(by),
    "issuer of another realm": lambda by: with_claims(iss=by.issuer("umbrella"))(by),
    "issuer of a realm not let in": lambda by: with_claims(iss=by.issuer("foreign"))(by),
    "issuer a list": lambda by: with_claims(iss=[by.issuer()])(by),
    "issuer an object": lambda by: with_claims(iss={by.issuer(): 1})(by),
    "audience missing": with_claims(aud=None),
    "audience another": with_claims(aud="account"),
    "audience a part": with_claims(aud="artifact"),
    "audience other case": with_claims(aud="Artifacts"),
    "audience empty": with_claims(aud=[]),
    "audience an object": with_claims(aud={"artifacts": 1}),
    "audience of numbers": with_claims(aud=["artifacts", 1]),
    "expired": ago(exp=60, iat=360),
    "expired long ago": with_claims(exp=1),
    "expiry missing": with_claims(exp=None),
    "expiry a text": with_claims(exp="tomorrow"),
    "expiry a number as text": lambda by: with_claims(exp=str(int(time.time()) + 300))(by),
    "expiry a list": with_claims(exp=[9999999999]),
    "expiry beyond all years": with_claims(exp=10**30),
    "expiry infinite": with_claims(exp=float("inf")),
    "expiry no number": with_claims(exp=float("nan")),
    "not yet valid": ago(nbf=-60),
    "not before a text": with_claims(nbf="soon"),
    "issued in the future": ago(iat=-60),
    "subject missing": with_claims(sub=None),
    "subject empty": with_claims(sub=""),
    "subject a number": with_claims(sub=7),
    "subject long": with_claims(sub="s" * 256),
    "subject with NUL": with_claims(sub="a\0b"),
    "subject no text": with_claims(sub="\ud800"),
    "name no text": with_claims(preferred_username="\ud800"),
    "name a list": with_claims(preferred_username=["alice"]),
    "roles a text": with_claims(realm_access={"roles": "admin"}),
    "roles an object": with_claims(realm_access={"roles": {"admin": True}}),
    "roles null": with_claims(realm_access={"roles": None}),
    "roles of numbers": with_claims(realm_access={"roles": ["member", 1]}),
    "roles nested": with_claims(realm_access={"roles": [["admin"]]}),
    "roles no text": with_claims(realm_access={"roles": ["\udfff"]}),
    "realm_access a list": with_claims(realm_access=["admin"]),
    "realm_access a text": with_claims(realm_access="admin"),
    "an ID token of Keycloak's": with_claims(typ="ID"),
    "a refresh token": with_claims(typ="Refresh"),
    "bound by DPoP": with_claims(typ="DPoP"),
    "bound to a key": with_claims(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
    "typ a list": with_claims(typ=["Bearer"]),
    "over 16 KiB": huge(LONGEST_TOKEN),
    "over 64 KiB": huge(1 << 16),
    "over 1 MiB": huge(1 << 20),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_what_is_no_valid_token_is_401(
    bad: Callable[[Provider], str], api: httpx.AsyncClient, provider: Provider
) -> None:
    presented = bad(provider).encode("latin-1")
    for name, value in ((b"X-Auth-Token", presented), (b"Authorization", b"Bearer " + presented)):
        answer = await api.get("/schemas", headers=[(name, value)])
        assert answer.status_code == 401, answer.text
        assert answer.json()["error"]["message"] == "The token is not valid."


GOOD: dict[str, Callable[[Provider], str]] = {
    "as Keycloak makes them": with_claims(),
    "audience alone": with_claims(aud="artifacts"),
    "no roles": with_claims(realm_access=None),
    "a little late": ago(exp=3),
    "a little early": ago(nbf=-3, iat=-3),
    "by RFC 9068": lambda by: token(
        by.claims(typ=None), by.key, kid="acme-RS256", typ="application/at+jwt"
    ),
    "12 KiB of roles": with_claims(
        realm_access={"roles": ["member", *(f"role-{n:04}" for n in range(600))]}
    ),
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
async def test_a_token_like_the_bad_ones_that_is_valid(
    good: Callable[[Provider], str], api: httpx.AsyncClient, provider: Provider
) -> None:
    answer = await api.get("/schemas", headers={"X-Auth-Token": good(provider)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"] == "u-alice"


async def test_a_weak_key_is_not_believed(tmp_path: Path) -> None:
    """Whoever the realm belongs to: 1,024 bits can be factored."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    openid = Openid(tmp_path / "openid", port=ports.any_free())
    user, client = User("alice", PASSWORD, ["member"]), Client("artifacts")
    keys = [
        jwk(key, kid=kid, algorithm="RS256") for key, kid in ((rsa_key(), "strong"), (weak, "weak"))
    ]
    openid.start([Realm("acme", keys, {"u-alice": user}, {"glare": client})])
    try:
        async with asked(**settings(Provider(openid, {}))) as api:
            said = claims(f"{openid.url}/realms/acme")
            headers = {"X-Auth-Token": token(said, weak, kid="weak")}
            assert (await api.get("/schemas", headers=headers)).status_code == 401
    finally:
        openid.stop()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"REALMS": ""}, "realms is missing"),
        ({"AUDIENCE": ""}, "audience is missing"),
        ({"REALMS": "acme, acme:other"}, "several have the issuer"),
        ({"KEYCLOAK_ISS": "https://sso.example.org"}, "several have the issuer"),
        ({"ADMIN_REALMS": "acmee"}, "admin_realms: not among realms"),
        ({"AUTH_URL": "http://[::1/x"}, "auth_url"),
        ({"CAFILE": "/nowhere.pem"}, "cafile"),
    ],
    ids=itertools.count(),
)
async def test_settings_that_leave_open_whose_tokens_are_taken_stop_the_service(
    options: dict[str, str], reason: str, provider: Provider
) -> None:
    given = {f"KEYCLOAK_OIDC__{name}": value for name, value in options.items()}
    with pytest.raises(ValueError, match=reason):
        async with asked(**settings(provider, **given)):
            pass


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ALGORITHMS", "HS256"),
        ("ALGORITHMS", "RS256, none"),
        ("ALGORITHMS", ""),
        ("REALMS", "acme:a:b"),
        ("REALMS", "acme,,umbrella"),
        ("REALMS", "acme:"),
        ("AUTH_URL", "keycloak.example.org"),
        ("AUTH_URL", "file:///etc/passwd"),
        ("AUTH_URL", "https://sso.example.org/?realm=x"),
        ("PUBLIC_CERT_URL", "https://elsewhere.example/%s"),
        ("KEYS_CACHE_TIME", "0"),
        ("TIMEOUT", "0"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match="keycloak_oidc"):
        load(environ={f"DIPTYCH_ARTIFACTS__KEYCLOAK_OIDC__{option}": value})


def test_options_of_glares_without_effect_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text(
        "[keycloak_oidc]\nauth_url = https://sso.example.org\nmemcached_server = localhost:11211\n"
        "token_cache_time = 60\nuser_info_endpoint_url = /realms/%s/x\nmisspelt = 1\n"
    )
    loaded = load(config_files=[file], environ={})
    assert [one.option for one in loaded.unused] == [
        "memcached_server",
        "token_cache_time",
        "user_info_endpoint_url",
    ]
    assert [one.option for one in loaded.unknown] == ["misspelt"]
