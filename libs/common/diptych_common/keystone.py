"""Keystone tokens turned into identities, by asking Keystone v3.

Identity headers on the wire mean nothing here: everything in an `Identity` comes out of Keystone's
own answer. Where a decision is said to be keystonemiddleware's, it is that of release 13,
`auth_token`.
"""

import asyncio
import hmac
import logging
import secrets
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Generic, Literal, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.types import Scope

from diptych_common import access_rules, tracing
from diptych_common.authentication import read_headers
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.identity import Identity
from diptych_common.proxies import PREFIX
from diptych_common.settings import KeystoneAuthtoken

logger = logging.getLogger(__name__)

Lookup = Literal["hit", "miss", "negative", "error"]

REFUSED_S: Final = 5.0
"""How long a token that Keystone does not know is refused without asking again."""

KNOWN_TOKENS: Final = 4096
"""Validated tokens kept by one process; refused ones are counted apart, so that a flood of
made-up tokens pushes none of these out."""

MOST_RULES: Final = 32
"""Access rules beyond which a token is not remembered: users write as many as they like, and what
is remembered of `KNOWN_TOKENS` tokens must fit into memory."""

LONGEST_TOKEN: Final = 8192
"""Bytes of a token header beyond which nobody is asked: web servers before Keystone stop there."""

DEFAULT_TIMEOUT_S: Final = 10.0
RENEW_BEFORE: Final = timedelta(seconds=30)
RETRY_AFTER: Final = {"Retry-After": "5"}


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str


class _Domain(BaseModel):
    id: str | None = None


class _InDomain(BaseModel):
    id: str
    name: str | None = None
    domain: _Domain = _Domain()


class _AccessRule(BaseModel):
    method: str
    path: str
    service: str


class _ApplicationCredential(BaseModel):
    access_rules: list[_AccessRule] | None = None


class Endpoint(BaseModel):
    """Where a service is, as a token's catalog says it."""

    model_config = ConfigDict(frozen=True)

    interface: str
    url: str
    region: str | None = None
    region_id: str | None = None


class _CatalogEntry(BaseModel):
    type: str
    endpoints: list[Endpoint] = Field(default_factory=list[Endpoint])


class _TokenDocument(BaseModel):
    """What Keystone says about a token, as far as anything here depends on it."""

    expires_at: AwareDatetime
    user: _InDomain
    project: _InDomain | None = None
    domain: _Domain | None = None
    system: dict[str, bool] | None = None
    roles: list[_Named] = Field(default_factory=list[_Named])
    application_credential: _ApplicationCredential | None = None
    catalog: list[_CatalogEntry] = Field(default_factory=list[_CatalogEntry])

    @property
    def access_rules(self) -> list[_AccessRule] | None:
        """None means unrestricted; an empty list allows nothing."""
        credential = self.application_credential
        return None if credential is None else credential.access_rules


class _TokenAnswer(BaseModel):
    token: _TokenDocument


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that Keystone vouched for. `roles` are as Keystone spells them.

    `allowed` is None for a token without access rules; else pairs of method and path pattern, only
    those for this service.
    """

    who: Identity
    roles: frozenset[str]
    expires_at: datetime
    allowed: tuple[tuple[str, str], ...] | None

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= datetime.now(UTC)

    def allows(self, method: str, path: str) -> bool:
        return self.allowed is None or any(
            method == rule_method and access_rules.covers(pattern, path)
            for rule_method, pattern in self.allowed
        )


@dataclass(frozen=True, slots=True)
class _OwnToken:
    """The service's own token, and where its catalog says that tokens are validated."""

    value: str
    expires_at: datetime
    validation_url: str


class CannotAsk(Exception):
    """Keystone gave no answer that says anything about the question; the message is for the log."""


V = TypeVar("V")


class Bounded(Generic[V]):
    """Values for a while: each until its own deadline, the least recently used dropped first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def get(self, key: bytes) -> V | None:
        """The value, None if there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        deadline, value = entry
        if deadline <= time.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: V, *, seconds: float) -> None:
        """Keep the value for so long; 0 or less: not at all."""
        if seconds <= 0:
            return
        self._entries[key] = (time.monotonic() + seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


def challenge(settings: KeystoneAuthtoken) -> str:
    """The `WWW-Authenticate` value that tells a client where tokens are issued."""
    return f'Keystone uri="{settings.www_authenticate_uri or settings.auth_url}"'


class Keystone:
    """Validates tokens with Keystone v3 over HTTP; an async context manager.

    Opening it contacts nobody, so that a daemon starts while Keystone is down. Valid tokens are
    remembered by a keyed digest for `token_cache_time` seconds and never past their expiry, and
    requests with the same unknown token share one exchange. Revocation is therefore noticed
    after `token_cache_time` at the latest. `service_type` is this service's in the catalog, where
    the settings name none: access rules of application credentials are matched with it.

    `on_lookup` hears of every token looked up: "hit" and "negative" are answered from memory,
    "miss" by Keystone, "error" by nobody.

    ValueError where the settings lack what the chosen `auth_type` needs.
    """

    def __init__(
        self,
        settings: KeystoneAuthtoken,
        *,
        service_type: str,
        on_lookup: Callable[[Lookup], None] | None = None,
    ) -> None:
        self._settings = settings
        self._service_type = settings.service_type or service_type
        self._on_lookup = on_lookup
        self._service_token_roles = frozenset(settings.service_token_roles)
        self._credentials = _credentials(settings)
        self._timeout_s = settings.http_connect_timeout or DEFAULT_TIMEOUT_S
        self._digest_key = secrets.token_bytes(32)
        self._known: Bounded[_Token] = Bounded(KNOWN_TOKENS)
        self._refused: Bounded[Literal[True]] = Bounded(KNOWN_TOKENS)
        self._exchanges: dict[bytes, asyncio.Task[_Token | Literal["refused", "unreachable"]]] = {}
        self._own: _OwnToken | None = None
        self._own_lock = asyncio.Lock()
        self._own_refused_until = 0.0
        self._discovered: dict[str, str] = {}
        self._client = httpx.AsyncClient(
            verify=tls(settings),
            timeout=self._timeout_s,
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
            # A proxy named by the environment would see every token of the cloud.
            trust_env=False,
        )
        # At DEBUG httpcore writes the headers of responses, X-Subject-Token among them.
        logging.getLogger("httpcore").setLevel(logging.INFO)

    async def __aenter__(self) -> Self:
        """Ready at once; nothing is asked before the first token comes."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up exchanges under way and close the connections."""
        exchanges = list(self._exchanges.values())
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)
        await self._client.aclose()

    async def identify(self, scope: Scope) -> Identity | None:
        """Who the tokens of a request stand for; None if it has no user token.

        Unauthorized if the user token is not valid, is expired without a service that vouches
        for it, or its access rules do not cover this request; also if the service token is not
        valid, unless `delay_auth_decision` is set: then it counts for nothing.
        ServiceUnavailable if Keystone can't be asked.

        Keystone is asked once for each of the two tokens (twice where it has access rules), and
        not at all for tokens that are remembered.
        """
        headers = read_headers(scope)
        presented = headers.one("x-auth-token") or headers.one("x-storage-token")
        service = await self._service(headers.one("x-service-token"))
        if presented is None:
            return None
        # With service_token_roles_required=false any token passes as a service token, but only a
        # service's may stretch a user's.
        vouched = service is not None and not self._service_token_roles.isdisjoint(service.roles)
        token = await self._validated(presented, allow_expired=vouched)
        # keystonemiddleware waives access rules for any X-Service-Token, valid or not, where the
        # decision is delayed, as Glance has it: a user could then lift the rules himself.
        if not vouched and not token.allows(scope["method"], _public_path(scope)):
            raise Unauthorized("The application credential does not allow this request.")
        if service is None:
            return token.who
        return replace(
            token.who,
            service_roles=service.roles,
            service_user_id=service.who.user_id,
            service_project_id=service.who.project_id,
        )

    async def endpoints(self, token: str, service_type: str) -> Sequence[Endpoint]:
        """Where the services of this type are, by the catalog of a user's token.

        Unauthorized if the token is not valid (any more), ServiceUnavailable if Keystone can't be
        asked. Nothing of it is remembered: Keystone is asked each time.
        """
        # With the service's own token: an application credential's access rules need not allow
        # its owner to ask Keystone for the catalog.
        try:
            document = await self._document(token, allow_expired=False, catalog=True)
        except CannotAsk as error:
            logger.error("Keystone can't be asked for a catalog: %s", error)
            raise _unavailable("there is no telling where other services are") from None
        if document is None:
            raise Unauthorized("The token is not valid.")
        return [
            endpoint
            for entry in document.catalog
            if entry.type == service_type
            for endpoint in entry.endpoints
        ]

    async def own_token(self, *, refused: str | None = None) -> str:
        """The service's own token, for other services; another one than `refused`. CannotAsk."""
        own = await self._own_token(stale=None)
        if own.value == refused:
            own = await self._own_token(stale=own)
        return own.value

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """The body of Keystone's answer to a question with the service's own token; CannotAsk.

        `path` is below `/v3`, and without a slash before it.
        """
        own = await self._own_token(stale=None)
        response = await self._got(own, path, parameters)
        if response.status_code == 401:
            own = await self._own_token(stale=own)
            response = await self._got(own, path, parameters)
        if response.status_code != 200:
            raise CannotAsk(f"it answered {response.status_code} to GET {path}")
        return response.content

    async def _got(
        self, own: _OwnToken, path: str, parameters: Mapping[str, str] | None
    ) -> httpx.Response:
        headers = {"X-Auth-Token": own.value, "Accept": "application/json"}
        url = f"{own.validation_url.removesuffix('/auth/tokens')}/{path}"
        try:
            return await self._sent("GET", url, headers=headers, params=parameters)
        except CannotAsk:
            # The catalog may name another endpoint by now.
            self._own = None
            raise

    async def _service(self, presented: str | None) -> _Token | None:
        if presented is None:
            return None
        try:
            token = await self._validated(presented, allow_expired=False)
            if self._settings.service_token_roles_required and self._service_token_roles.isdisjoint(
                token.roles
            ):
                raise Unauthorized("The service token has none of the roles of a service.")
        except Unauthorized:
            if not self._settings.delay_auth_decision:
                raise
            return None
        return token

    async def _validated(self, value: str, *, allow_expired: bool) -> _Token:
        if len(value) > LONGEST_TOKEN or not value.isascii() or not value.isprintable():
            raise Unauthorized("The token is not valid.")
        token = await self._looked_up(value, allow_expired=allow_expired)
        if token is None or (token.is_expired and not allow_expired):
            raise Unauthorized("The token is not valid.")
        return token

    async def _looked_up(self, value: str, *, allow_expired: bool) -> _Token | None:
        digest = hmac.digest(self._digest_key, value.encode("ascii"), "sha256")
        known = self._known.get(digest)
        if known is not None and not known.is_expired:
            self._count("hit")
            return known
        # What Keystone says of a token depends on whether an expired one will do.
        key = digest + (b"e" if allow_expired else b"v")
        if self._refused.get(key):
            self._count("negative")
            return None
        exchange = self._exchanges.get(key)
        if exchange is None:
            exchange = asyncio.create_task(
                self._exchange(value, digest=digest, key=key, allow_expired=allow_expired)
            )
            self._exchanges[key] = exchange
            exchange.add_done_callback(partial(self._finished, key))
        # Shielded: the client that asked first may go away while others wait for the answer.
        answer = await asyncio.shield(exchange)
        self._count("error" if answer == "unreachable" else "miss")
        if answer == "unreachable":
            raise _unavailable("the token can't be checked")
        return None if answer == "refused" else answer

    def _count(self, lookup: Lookup) -> None:
        if self._on_lookup is not None:
            self._on_lookup(lookup)

    def _finished(self, key: bytes, _exchange: object) -> None:
        del self._exchanges[key]

    async def _exchange(
        self, value: str, *, digest: bytes, key: bytes, allow_expired: bool
    ) -> _Token | Literal["refused", "unreachable"]:
        try:
            document = await self._document(value, allow_expired=allow_expired, catalog=False)
            if document is not None and document.access_rules is not None:
                document = await self._document(value, allow_expired=allow_expired, catalog=True)
        except CannotAsk as error:
            logger.error("Keystone can't validate tokens: %s", error)
            return "unreachable"
        if document is None:
            self._refused.put(key, True, seconds=REFUSED_S)
            return "refused"
        token = self._token(document)
        if token is None:
            return "refused"
        if token.allowed is None or len(token.allowed) <= MOST_RULES:
            remaining = token.expires_at - datetime.now(UTC)
            self._known.put(
                digest,
                token,
                seconds=min(self._settings.token_cache_time, remaining.total_seconds()),
            )
        return token

    def _token(self, document: _TokenDocument) -> _Token | None:
        """None for access rules that nobody can judge here: they must not be taken for none."""
        rules = document.access_rules
        allowed = None
        if rules is not None:
            service_type = self._service_type
            if all(entry.type != service_type for entry in document.catalog):
                logger.warning(
                    "Refused an application credential with access rules: service_type (%s) in "
                    "[keystone_authtoken] is not a service type of its catalog.",
                    service_type,
                )
                return None
            allowed = tuple(
                (rule.method, rule.path) for rule in rules if rule.service == service_type
            )
        roles = frozenset(role.name for role in document.roles)
        project = document.project
        who = Identity(
            user_id=document.user.id,
            user_name=document.user.name,
            user_domain_id=document.user.domain.id,
            project_id=None if project is None else project.id,
            project_name=None if project is None else project.name,
            project_domain_id=None if project is None else project.domain.id,
            domain_id=None if document.domain is None else document.domain.id,
            roles=frozenset(role.lower() for role in roles),
            system_scope="all" if (document.system or {}).get("all") else None,
            expires_at=document.expires_at,
        )
        return _Token(who=who, roles=roles, expires_at=document.expires_at, allowed=allowed)

    async def _document(
        self, value: str, *, allow_expired: bool, catalog: bool
    ) -> _TokenDocument | None:
        """What Keystone says of a token, None if it does not accept it; CannotAsk otherwise."""
        parameters: dict[str, str] = {}
        if allow_expired:
            parameters["allow_expired"] = "1"
        if not catalog:
            parameters["nocatalog"] = "1"
        own = await self._own_token(stale=None)
        response = await self._validation(own, value, parameters)
        if response.status_code == 401:
            # It is our own token that Keystone doesn't take any more.
            own = await self._own_token(stale=own)
            response = await self._validation(own, value, parameters)
        match response.status_code:
            case 200:
                return _parsed(response).token
            # The last three: a web server before Keystone that minds the length of the header.
            case 404 | 400 | 413 | 431:
                return None
            case status:
                raise CannotAsk(f"it answered {status} to a validation")

    async def _validation(
        self, own: _OwnToken, value: str, parameters: Mapping[str, str]
    ) -> httpx.Response:
        headers = {
            "X-Auth-Token": own.value,
            "X-Subject-Token": value,
            "OpenStack-Identity-Access-Rules": "1",
            "Accept": "application/json",
        }
        try:
            return await self._sent("GET", own.validation_url, headers=headers, params=parameters)
        except CannotAsk:
            # The catalog may name another endpoint by now.
            self._own = None
            raise

    async def _own_token(self, *, stale: _OwnToken | None) -> _OwnToken:
        """The service's own token, made anew if there is none, it nears its end, or is `stale`."""
        async with self._own_lock:
            own = self._own
            if own is None or own is stale or own.expires_at - datetime.now(UTC) < RENEW_BEFORE:
                self._own = own = await self._authenticated()
            return own

    async def _authenticated(self) -> _OwnToken:
        if time.monotonic() < self._own_refused_until:
            raise CannotAsk("it refused this service's own credentials a moment ago")
        base = await self._v3(self._settings.auth_url or "")
        response = await self._sent("POST", f"{base}/auth/tokens", json={"auth": self._credentials})
        if response.status_code == 401:
            # Keystone locks users out after so many failures; requests must not bring that about.
            self._own_refused_until = time.monotonic() + REFUSED_S
        token = response.headers.get("X-Subject-Token")
        if response.status_code != 201 or token is None:
            raise CannotAsk(
                f"it answered {response.status_code} to this service's own credentials in "
                "[keystone_authtoken]"
            )
        document = _parsed(response).token
        endpoint = self._endpoint(document.catalog)
        if endpoint is not None:
            base = await self._v3(endpoint)
        return _OwnToken(
            value=token, expires_at=document.expires_at, validation_url=f"{base}/auth/tokens"
        )

    def _endpoint(self, catalog: Sequence[_CatalogEntry]) -> str | None:
        interface = (self._settings.interface or "internal").removesuffix("URL")
        region = self._settings.region_name
        for entry in catalog:
            for endpoint in entry.endpoints if entry.type == "identity" else ():
                if endpoint.interface == interface and (
                    region is None or region in (endpoint.region, endpoint.region_id)
                ):
                    return endpoint.url
        logger.warning(
            "The catalog has no %s endpoint for the identity service in region %s; tokens are "
            "validated at auth_url.",
            interface,
            region,
        )
        return None

    async def _v3(self, url: str) -> str:
        """Where the v3 API is below `url`, which may already be that; no slash at its end."""
        url = url.rstrip("/")
        if urlsplit(url).path.endswith("/v3"):
            return url
        if url not in self._discovered:
            response = await self._sent("GET", url + "/", headers={"Accept": "application/json"})
            self._discovered[url] = _v3_link(url + "/", response) or f"{url}/v3"
        return self._discovered[url]

    async def _sent(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: object = None,
    ) -> httpx.Response:
        """Keystone's answer below 500, after repeats where the connection or Keystone failed.

        A timeout is not repeated: the client has waited long enough. Redirects are not followed,
        they would take tokens along.
        """
        reason = ""
        for attempt in range(self._settings.http_request_max_retries + 1):
            if attempt:
                await asyncio.sleep(0.25 * 2 ** (attempt - 1))
            try:
                with tracing.span("keystone", **{"http.request.method": method}):
                    async with asyncio.timeout(self._timeout_s):
                        response = await self._client.request(
                            method, url, headers=headers, params=params, json=json
                        )
            except (TimeoutError, httpx.TimeoutException):
                reason = f"no answer within {self._timeout_s:g} s"
                break
            except (httpx.RequestError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 500:
                    return response
                reason = f"it answered {response.status_code}"
        raise CannotAsk(f"{method} {url}: {reason}")


def _unavailable(consequence: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The identity service can't be reached, so {consequence}.", headers=RETRY_AFTER
    )


def _parsed(response: httpx.Response) -> _TokenAnswer:
    try:
        return _TokenAnswer.model_validate_json(response.content)
    except ValidationError as error:
        # Not the error itself: it quotes the document.
        raise CannotAsk(
            f"its answer is not a token document ({error.error_count()} faults)"
        ) from None


def _v3_link(url: str, response: httpx.Response) -> str | None:
    """The address of v3 out of a version document, None if there is none to be found."""
    try:
        document = orjson.loads(response.content)
        versions = document["versions"]["values"]
        href: str = next(
            link["href"]
            for version in versions
            if version["id"].startswith("v3")
            for link in version["links"]
            if link["rel"] == "self"
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    found = urljoin(url, href).rstrip("/")
    # Keystone behind a TLS proxy that it does not know of calls itself http.
    return None if url.startswith("https:") and not found.startswith("https:") else found


def _public_path(scope: Scope) -> str:
    """The path as the client wrote it, prefix of the proxy included, in one spelling.

    Decoded and encoded again, so that the rules are matched against what the router sees.
    """
    path: str = scope["path"]
    prefix: str = scope.get(PREFIX, scope.get("root_path", ""))
    if prefix and not path.startswith(prefix):
        path = prefix + path
    return quote(path, safe="/~!$&'()*+,;=:@")


def tls(settings: KeystoneAuthtoken) -> ssl.SSLContext | bool:
    """Whom these settings trust to be Keystone, as httpx takes it; OSError for unusable files."""
    if settings.insecure and not settings.certfile:
        return False
    context = ssl.create_default_context(cafile=settings.cafile)
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certfile:
        context.load_cert_chain(settings.certfile, settings.keyfile)
    return context


def _credentials(settings: KeystoneAuthtoken) -> dict[str, object]:
    """The `auth` document with which the service asks for its own token.

    Source: Identity API v3, "Authentication and token management".
    """
    if not settings.auth_url:
        raise ValueError("[keystone_authtoken] auth_url is missing")
    match settings.auth_type:
        case "v3applicationcredential":
            return _application_credential(settings)
        case "password" | "v3password":
            return _password(settings)


def _application_credential(settings: KeystoneAuthtoken) -> dict[str, object]:
    secret = settings.application_credential_secret
    if secret is None:
        raise ValueError("[keystone_authtoken] application_credential_secret is missing")
    credential: dict[str, object] = {"secret": secret.get_secret_value()}
    if settings.application_credential_id:
        credential["id"] = settings.application_credential_id
    elif settings.application_credential_name:
        credential["name"] = settings.application_credential_name
        credential["user"] = _user(settings)
    else:
        raise ValueError(
            "[keystone_authtoken] needs application_credential_id, or application_credential_name "
            "and the user"
        )
    methods = ["application_credential"]
    return {"identity": {"methods": methods, "application_credential": credential}}


def _password(settings: KeystoneAuthtoken) -> dict[str, object]:
    if settings.password is None:
        raise ValueError("[keystone_authtoken] password is missing")
    user = {**_user(settings), "password": settings.password.get_secret_value()}
    credentials: dict[str, object] = {
        "identity": {"methods": ["password"], "password": {"user": user}}
    }
    if settings.system_scope:
        credentials["scope"] = {"system": {"all": True}}
    elif settings.project_id:
        credentials["scope"] = {"project": {"id": settings.project_id}}
    elif settings.project_name:
        domain = _domain(settings, settings.project_domain_id, settings.project_domain_name)
        credentials["scope"] = {"project": {"name": settings.project_name, "domain": domain}}
    return credentials


def _user(settings: KeystoneAuthtoken) -> dict[str, object]:
    if settings.user_id:
        return {"id": settings.user_id}
    if not settings.username:
        raise ValueError("[keystone_authtoken] username is missing")
    domain = _domain(settings, settings.user_domain_id, settings.user_domain_name)
    return {"name": settings.username, "domain": domain}


def _domain(settings: KeystoneAuthtoken, by_id: str | None, by_name: str | None) -> dict[str, str]:
    if by_id:
        return {"id": by_id}
    if by_name:
        return {"name": by_name}
    if settings.default_domain_name and not settings.default_domain_id:
        return {"name": settings.default_domain_name}
    return {"id": settings.default_domain_id or "default"}
