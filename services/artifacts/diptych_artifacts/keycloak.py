"""OpenID Connect access tokens (Keycloak's) turned into identities, by their signatures.

Nobody is asked about a token: a realm's public keys are fetched and remembered, and tokens are
verified here, again whenever the keys have been fetched again. The keys come from where the
settings say and from nowhere else; what a token says of keys or addresses (`jku`, `x5u`, `jwk`) is
not looked at, and its issuer only chooses among the realms of the settings.

Source of names and claims: Glare 5.0.1, api/middleware/keycloak_auth.py; Keycloak's "Securing
applications"; RFC 8725 for what is refused.
"""

import asyncio
import hmac
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Self
from urllib.parse import quote

import httpx
import jwt
import orjson
from diptych_common.authentication import LONGEST_ID, Headers, read_headers
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.identity import Identity
from diptych_common.keystone import KNOWN_TOKENS, RETRY_AFTER, Bounded, CannotAsk, Lookup
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import Scope

from diptych_artifacts.settings import KeycloakOidc

log = logging.getLogger(__name__)

LONGEST_TOKEN: Final = 16 * 1024
"""Bytes of a token beyond which it is not looked at. Keycloak's have some 1,500, and each role adds
its name."""

LONGEST_REMEMBERED: Final = 4096
"""Bytes of a token beyond which it is verified each time: `KNOWN_TOKENS` must fit into memory."""

MOST_KEYS_BYTES: Final = 256 * 1024
"""Bytes of a realm's keys."""

LEEWAY_S: Final = 10
"""By how much this clock and Keycloak's may differ."""

ADMINISTRATOR: Final = "admin"
"""The role that only counts from `admin_realms`."""

# Seconds since 1970 at the end of the last year that a datetime can have.
_LAST_MOMENT: Final = 253402300799

# Without control characters and halves of surrogate pairs, which nothing here could write down.
_Text = Annotated[str, Field(pattern=r"^\P{C}*$")]
_Id = Annotated[_Text, Field(min_length=1, max_length=LONGEST_ID)]


class _RealmAccess(BaseModel):
    roles: list[_Text] = Field(default_factory=list[_Text])


class _Claims(BaseModel):
    """What an identity is made of. Values of other types are not converted but refused."""

    model_config = ConfigDict(strict=True)

    sub: _Id
    exp: Annotated[int, Field(le=_LAST_MOMENT)]
    preferred_username: _Text | None = None
    realm_access: _RealmAccess = _RealmAccess()
    typ: str | None = None
    cnf: Any = None


@dataclass(slots=True)
class _Realm:
    """A realm, and what is known of its keys. Times are of the clock that is asked for them."""

    name: str
    project_id: str
    issuer: str
    keys_url: str
    keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict[str, jwt.PyJWK])
    fetched_at: float = float("-inf")
    asked_at: float = float("-inf")
    last_failed: bool = False


@dataclass(frozen=True, slots=True)
class _Verified:
    """Whom a token stands for, as far as `keys` are those of the realm."""

    who: Identity
    realm: _Realm
    keys: Mapping[str, jwt.PyJWK]


class Keycloak:
    """Verifies the access tokens of the realms of the settings; an async context manager.

    Opening it contacts nobody, so that a daemon starts while Keycloak is down. Keys are remembered
    for `keys_cache_time` and fetched anew from its half on while requests go on with those there
    are, so that Keycloak may be away that long. Requests that need the same realm's keys share one
    fetch. A key that is not known is looked for at Keycloak, though not more often than each
    `keys_refetch_interval`, whatever tokens are made up.

    `on_lookup` hears of every token: hit (decided by the keys there were), miss (keys were fetched
    for it), negative (it is not valid), error (there are no keys to decide by).

    ValueError for settings that leave open whose tokens are taken.
    """

    def __init__(
        self,
        settings: KeycloakOidc,
        *,
        on_lookup: Callable[[Lookup], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not settings.audience:
            raise ValueError("[keycloak_oidc] audience is missing")
        self._settings = settings
        self._on_lookup = on_lookup
        self._clock = clock
        self._realms = _realms(settings)
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._digest_key = secrets.token_bytes(32)
        self._verified: Bounded[_Verified] = Bounded(KNOWN_TOKENS)
        self._client = httpx.AsyncClient(
            verify=_tls(settings),
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=2),
            follow_redirects=False,
            # Who sets a proxy could hand out keys.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """Ready at once; nothing is asked before the first token comes."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up fetches under way and close the connections."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        await self._client.aclose()

    async def identify(self, scope: Scope) -> Identity | None:
        """Who the token of a request stands for; None if it has none.

        The token is in `X-Auth-Token` or behind `Authorization: Bearer`. Unauthorized if it is not
        valid here, ServiceUnavailable where that can't be told without keys that Keycloak does not
        hand out.
        """
        presented = _presented(read_headers(scope))
        if presented is None:
            return None
        # Not by the token: what is in memory should be of no use to who reads it.
        digest = hmac.digest(self._digest_key, presented.encode("latin-1"), "sha256")
        known = self._verified.get(digest)
        if known is not None and known.realm.keys is known.keys and not self._ages(known.realm):
            self._count("hit")
            return known.who
        try:
            verified, lookup = await self._verify(presented)
        except (jwt.PyJWTError, ValidationError) as error:
            # Not the error itself: it quotes the token.
            log.debug("Refused a token: %s", type(error).__name__)
            self._count("negative")
            raise Unauthorized("The token is not valid.") from None
        self._count(lookup)
        expires_at = verified.who.expires_at
        if len(presented) <= LONGEST_REMEMBERED and expires_at is not None:
            remaining = expires_at - datetime.now(UTC)
            self._verified.put(digest, verified, seconds=remaining.total_seconds())
        return verified.who

    async def _verify(self, token: str) -> tuple[_Verified, Lookup]:
        """What a token comes to, and whether its key was there.

        PyJWTError or ValidationError if it stands for nobody.
        """
        if len(token) > LONGEST_TOKEN or not token.isascii():
            raise jwt.DecodeError
        claimed = jwt.decode_complete(token, options={"verify_signature": False})
        header, issuer = claimed["header"], claimed["payload"].get("iss")
        realm = self._realms.get(issuer) if isinstance(issuer, str) else None
        if realm is None:
            raise jwt.InvalidIssuerError
        if header.get("alg") not in self._settings.algorithms:
            raise jwt.InvalidAlgorithmError
        key, lookup = await self._key(realm, header.get("kid"))
        keys = realm.keys
        claims = _Claims.model_validate(
            jwt.decode(
                token,
                key,
                algorithms=self._settings.algorithms,
                audience=self._settings.audience,
                issuer=realm.issuer,
                leeway=LEEWAY_S,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "enforce_minimum_key_length": True,
                },
            )
        )
        if not _is_access_token(header, claims):
            raise jwt.InvalidTokenError
        who = _identity(claims, realm, may_administer=realm.name in self._settings.admin_realms)
        return _Verified(who, realm, keys), lookup

    async def _key(self, realm: _Realm, kid: str | None) -> tuple[jwt.PyJWK, Lookup]:
        """The realm's key of that name, and whether it was there; InvalidKeyError if it has none.

        Without a name none is looked for: to try each would let a token choose how much is done.
        """
        if kid is None:
            raise jwt.InvalidKeyError
        key = self._known(realm, kid)
        # Decided before anything is awaited: the keys there are do, even if they are just ageing.
        fetch = None
        if key is None or self._ages(realm):
            fetch = self._fetching(realm)
        if key is not None:
            return key, "hit"
        if fetch is not None:
            # Shielded: the client that asked first may go away while others wait for the keys.
            await asyncio.shield(fetch)
        key = self._known(realm, kid)
        if key is not None:
            return key, "miss"
        if realm.last_failed or self._age(realm) > self._settings.keys_cache_time:
            self._count("error")
            raise ServiceUnavailable(
                "The identity service can't be reached, so the token can't be checked.",
                headers=RETRY_AFTER,
            )
        raise jwt.InvalidKeyError

    def _known(self, realm: _Realm, kid: str) -> jwt.PyJWK | None:
        if self._age(realm) > self._settings.keys_cache_time:
            return None
        return realm.keys.get(kid)

    def _ages(self, realm: _Realm) -> bool:
        return self._age(realm) > self._settings.keys_cache_time / 2

    def _age(self, realm: _Realm) -> float:
        return self._clock() - realm.fetched_at

    def _fetching(self, realm: _Realm) -> asyncio.Task[None] | None:
        """The fetch of a realm's keys that is under way, or a new one; None if it is too early."""
        fetch = self._fetches.get(realm.name)
        if fetch is None:
            if self._clock() - realm.asked_at < self._settings.keys_refetch_interval:
                return None
            fetch = asyncio.create_task(self._fetch(realm))
            self._fetches[realm.name] = fetch
            fetch.add_done_callback(partial(self._fetched, realm.name))
        return fetch

    def _fetched(self, name: str, _fetch: object) -> None:
        del self._fetches[name]

    async def _fetch(self, realm: _Realm) -> None:
        """Replace what is known of a realm's keys; where that fails they stay as they were."""
        try:
            realm.keys = _usable(await self._body(realm.keys_url), self._settings.algorithms)
        except CannotAsk as error:
            realm.last_failed = True
            log.error("There are no keys of the realm %s: %s", realm.name, error)
        else:
            realm.last_failed = False
            realm.fetched_at = self._clock()
        finally:
            realm.asked_at = self._clock()

    async def _body(self, url: str) -> bytes:
        """What is at the address, as it comes; CannotAsk.

        Once, not again after a failure: clients wait for it. Redirects are not followed: the keys
        would be somebody else's.
        """
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._client.stream(
                    "GET",
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ) as response,
            ):
                if response.status_code != 200:
                    raise CannotAsk(f"GET {url}: it answered {response.status_code}")
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MOST_KEYS_BYTES:
                        raise CannotAsk(f"GET {url}: over {MOST_KEYS_BYTES} bytes")
                return bytes(body)
        except (TimeoutError, httpx.TimeoutException):
            raise CannotAsk(f"GET {url}: no answer within {self._settings.timeout:g} s") from None
        except httpx.RequestError as error:
            raise CannotAsk(f"GET {url}: {type(error).__name__}: {error}") from error

    def _count(self, lookup: Lookup) -> None:
        if self._on_lookup is not None:
            self._on_lookup(lookup)


def _presented(headers: Headers) -> str | None:
    """The token of a request, None if it has none."""
    token = headers.one("x-auth-token")
    scheme, _, credentials = (headers.one("authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        return token
    bearer = credentials.strip()
    if token not in (None, bearer):
        raise Unauthorized("The request has two different tokens.")
    return bearer


def _is_access_token(header: Mapping[str, Any], claims: _Claims) -> bool:
    """Whether a token was made for services, by itself (not for a client, as ID tokens are).

    Keycloak says so by the claim `typ`, RFC 9068 by the header of that name. Tokens bound to a key
    of their holder (`cnf`, RFC 7800) are refused, for nothing here asks to see that key.
    """
    if claims.cnf is not None:
        return False
    if claims.typ is not None:
        return claims.typ == "Bearer"
    return str(header.get("typ")).lower().removeprefix("application/") == "at+jwt"


def _identity(claims: _Claims, realm: _Realm, *, may_administer: bool) -> Identity:
    roles = frozenset(role.lower() for role in claims.realm_access.roles)
    return Identity(
        user_id=claims.sub,
        user_name=claims.preferred_username,
        user_domain_id=realm.name,
        project_id=realm.project_id,
        project_name=realm.name,
        project_domain_id=realm.name,
        roles=roles if may_administer else roles - {ADMINISTRATOR},
        may_be_admin=may_administer,
        expires_at=datetime.fromtimestamp(claims.exp, UTC),
    )


def _realms(settings: KeycloakOidc) -> dict[str, _Realm]:
    """The realms of the settings by their issuers, exactly as tokens must name them."""
    if not settings.realms:
        raise ValueError("[keycloak_oidc] realms is missing")
    base = settings.auth_url.rstrip("/")
    issuers = settings.keycloak_iss or f"{base}/realms/%s"
    realms: dict[str, _Realm] = {}
    for item in settings.realms:
        name, _, project_id = item.partition(":")
        realm = _Realm(
            name=name,
            project_id=project_id or name,
            issuer=issuers.replace("%s", name),
            keys_url=base + settings.public_cert_url.replace("%s", quote(name, safe="")),
        )
        try:
            httpx.URL(realm.keys_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"[keycloak_oidc] auth_url: {error}") from error
        if realm.issuer in realms:
            raise ValueError(f"[keycloak_oidc] realms: several have the issuer {realm.issuer}")
        realms[realm.issuer] = realm
    unknown = {*settings.admin_realms} - {realm.name for realm in realms.values()}
    if unknown:
        raise ValueError(f"[keycloak_oidc] admin_realms: not among realms: {sorted(unknown)}")
    return realms


def _usable(body: bytes, algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """The keys of a JWK set that signatures may be checked with, by name. CannotAsk without any.

    Others are left out: for encryption, of other algorithms, secret ones.
    """
    try:
        keys = jwt.PyJWKSet.from_dict(orjson.loads(body)).keys
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise CannotAsk(f"the answer is no set of keys ({type(error).__name__})") from None
    usable = {
        key.key_id: key
        for key in keys
        if isinstance(key.key_id, str)
        and key.public_key_use in (None, "sig")
        and key.algorithm_name in algorithms
    }
    if not usable:
        raise CannotAsk(f"no key is for signatures by {', '.join(algorithms)}")
    return usable


def _tls(settings: KeycloakOidc) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.cafile)
        if settings.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.certfile:
            context.load_cert_chain(settings.certfile, settings.keyfile)
    except OSError as error:
        raise ValueError(f"[keycloak_oidc] cafile or certfile: {error}") from error
    return context
