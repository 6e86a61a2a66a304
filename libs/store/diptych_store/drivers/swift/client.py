"""Requests to Swift: the one place where they are made, tried again, and their errors named."""

import json
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, cast, get_origin
from urllib.parse import urlsplit

import httpx

from diptych_store.calls import OnCall, told
from diptych_store.drivers.swift import auth
from diptych_store.drivers.swift.auth import Access, Tokens
from diptych_store.drivers.swift.references import Reference
from diptych_store.drivers.swift.writing import Limits
from diptych_store.errors import Full, NotFound, ReadDenied, StoreError, Unreachable, WriteDenied
from diptych_store.options.swift import SwiftOptions
from diptych_store.retries import Retries, retried

T = TypeVar("T")

_RETRIES = Retries(3)
_NO_RETRIES = Retries(0)
# The operations that only read: what they are refused is reading.
_READING = frozenset({"open", "list", "measure", "presign"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, its body read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Account:
    """An account of the cluster, and as whom it is used.

    `place` tells its storage URL, given the service's own access. With `user_token` it is used
    with that; where a user's own account is written to, the service's token follows when the
    user's has expired (`outlasts_user`).
    """

    def __init__(
        self,
        tokens: Tokens,
        place: Callable[[Access], str],
        *,
        user_token: str | None = None,
        outlasts_user: bool = False,
    ) -> None:
        self._tokens = tokens
        self._place = place
        self._user_token = user_token
        self._outlasts_user = outlasts_user

    async def access(self) -> Access:
        """The account's storage URL and a token that is good for it.

        Raises ReadDenied, Unreachable, and what `place` raises.
        """
        own = await self._tokens.access()
        return Access(
            storage_url=self._place(own),
            token=self._user_token or own.token,
            project_id=own.project_id,
        )

    def refused(self, token: str) -> bool:
        """The token was refused; whether there may be another."""
        if token != self._user_token:
            self._tokens.refused(token)
            return True
        if self._outlasts_user:
            self._user_token = None
        return self._outlasts_user

    def outlasting_user(self) -> "Account":
        """The same account; once the user's token has expired, used with the service's."""
        return Account(self._tokens, self._place, user_token=self._user_token, outlasts_user=True)


class Client:
    """The connections of one store to Swift and to its authority."""

    def __init__(self, name: str, options: SwiftOptions, *, on_call: OnCall) -> None:
        self._name = name
        self._options = options
        self._on_call = on_call
        self._limits: Limits | None = None
        verify: ssl.SSLContext | bool = not options.swift_store_auth_insecure
        if verify and options.swift_store_cacert:
            verify = ssl.create_default_context(cafile=options.swift_store_cacert)
        self._http = httpx.AsyncClient(
            verify=verify,
            # The environment's proxies are not meant for a store's own network.
            trust_env=False,
            timeout=httpx.Timeout(options.swift_store_timeout, connect=10, pool=None),
            # Transfers hold their connection, so a limit could lock them out of the next request.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            headers={"Accept-Encoding": "identity", "User-Agent": "diptych"},
        )

    def tokens(self, reference: Reference) -> Tokens:
        """The tokens of a reference's credentials; asks nobody yet."""

        async def obtained() -> Access:
            with told(self._on_call, "authenticate"):
                try:
                    return await auth.obtain(self._http, reference, self._options)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise Unreachable(
                        f"Store {self._name}: no token: {type(error).__name__}."
                    ) from None
                except (ReadDenied, Unreachable) as error:
                    raise type(error)(f"Store {self._name}: {error}") from None

        # Not tried again here: whatever needs the token is.
        return Tokens(
            obtained,
            renew_before_s=self._options.swift_store_expire_soon_interval,
        )

    async def call(
        self,
        operation: str,
        account: Account,
        method: str,
        path: str,
        *,
        subject: str,
        ok: Collection[int] = (),
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        answer_within_s: float = 0,
    ) -> Answer:
        """Send a request, again after Unreachable unless its content is a stream.

        Any 2xx and the statuses `ok` are an answer, all others an error about `subject`: 404 is
        NotFound, 413 and 507 Full, 401 and 403 a denial, the rest Unreachable. A token that is
        refused is renewed once. `answer_within_s` is added to the usual time-out.
        """
        can_be_repeated = isinstance(content, bytes | None)

        async def send(access: Access, accepted: Collection[int]) -> Answer:
            request = self._request(
                access, method, path, params=params, headers=headers, content=content
            )
            if answer_within_s:
                read_s = self._options.swift_store_timeout + answer_within_s
                request.extensions["timeout"]["read"] = read_s
            with told(self._on_call, operation), self._translated(operation, subject):
                response = await self._http.send(request)
                self._check(response, operation, subject, accepted)
                return Answer(response.status_code, response.headers, response.content)

        async def once() -> Answer:
            access = await self.access(operation, account)
            if can_be_repeated:
                answer = await send(access, {*ok, HTTPStatus.UNAUTHORIZED})
                if answer.status != HTTPStatus.UNAUTHORIZED:
                    return answer
                if account.refused(access.token):
                    access = await self.access(operation, account)
            return await send(access, ok)

        return await retried(once, _RETRIES if can_be_repeated else _NO_RETRIES)

    @asynccontextmanager
    async def download(
        self,
        account: Account,
        path: str,
        *,
        subject: str,
        headers: Mapping[str, str],
        ok: Collection[int] = (),
    ) -> AsyncGenerator[httpx.Response, None]:
        """GET an object, its body still to come; entered with an answer as that of `call`.

        Leaving closes the connection unless the body was read to its end.
        """

        async def send(accepted: Collection[int]) -> tuple[httpx.Response, Access]:
            access = await self.access("open", account)
            request = self._request(access, "GET", path, headers=headers)
            with told(self._on_call, "open"), self._translated("open", subject):
                response = await self._http.send(request, stream=True)
                try:
                    self._check(response, "open", subject, accepted)
                except BaseException:
                    await response.aclose()
                    raise
                return response, access

        response, access = await send({*ok, HTTPStatus.UNAUTHORIZED})
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            await response.aclose()
            account.refused(access.token)
            response, _ = await send(ok)
        try:
            yield response
        finally:
            await response.aclose()

    async def blocks(
        self, response: httpx.Response, *, size: int, subject: str
    ) -> AsyncIterator[bytes]:
        """The body in blocks of `size`, as it is on the wire; raises Unreachable where it breaks.

        A broken one is told as a call that failed.
        """
        blocks = response.aiter_raw(size)
        while True:
            try:
                block = await anext(blocks, None)
            except httpx.HTTPError as error:
                with told(self._on_call, "open"):
                    raise Unreachable(
                        f"Store {self._name}: reading {subject} broke off: {type(error).__name__}."
                    ) from None
            if block is None:
                return
            yield block

    async def head(
        self, operation: str, account: Account, path: str, *, subject: str
    ) -> Mapping[str, str] | None:
        """The headers of an object, container or account as its latest replica has them, or None.

        None means that there is no such thing.
        """
        answer = await self.call(
            operation,
            account,
            "HEAD",
            path,
            subject=subject,
            headers={"X-Newest": "true"},
            ok={HTTPStatus.NOT_FOUND},
        )
        return None if answer.status == HTTPStatus.NOT_FOUND else answer.headers

    async def listing(
        self, operation: str, account: Account, path: str, *, prefix: str, subject: str
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """What a container, or an account, lists under a prefix, in pages; nothing of none."""
        after = ""
        while True:
            answer = await self.call(
                operation,
                account,
                "GET",
                path,
                subject=subject,
                params={"format": "json", "prefix": prefix, "marker": after},
                ok={HTTPStatus.NOT_FOUND},
            )
            if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.NO_CONTENT):
                return
            page = decoded(answer, list[dict[str, Any]])
            for entry in page:
                yield entry
            if not page:
                return
            after = str(page[-1]["name"])

    async def info(self, access: Access) -> Mapping[str, Any]:
        """What the cluster tells of itself under /info; empty where it tells nothing."""
        parts = urlsplit(access.storage_url)
        with told(self._on_call, "info"), self._translated("info", "the cluster"):
            response = await self._http.get(f"{parts.scheme}://{parts.netloc}/info")
        if not response.is_success:
            return {}
        try:
            found = response.json()
        except ValueError:
            return {}
        return cast(dict[str, Any], found) if isinstance(found, dict) else {}

    async def limits(self, account: Account) -> Limits:
        """The cluster's limits, asked for once; Swift's own defaults where it doesn't tell."""
        if self._limits is None:
            found = await self.info(await self.access("write", account))
            usual = Limits()
            swift, slo = found.get("swift", {}), found.get("slo", {})
            self._limits = Limits(
                max_file_size=int(swift.get("max_file_size", usual.max_file_size)),
                max_segments=int(slo.get("max_manifest_segments", usual.max_segments)),
            )
        return self._limits

    async def access(self, operation: str, account: Account) -> Access:
        """The account's access; a refusal is one of the operation."""
        try:
            return await account.access()
        except ReadDenied as error:
            if operation in _READING:
                raise
            raise WriteDenied(str(error)) from None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def _request(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> httpx.Request:
        try:
            return self._http.build_request(
                method,
                access.storage_url + path,
                params=params,
                headers={"X-Auth-Token": access.token, **(headers or {})},
                content=content,
            )
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise Unreachable(
                f"Store {self._name}: the storage URL is none, or the token is not ASCII."
            ) from None

    def _check(
        self, response: httpx.Response, operation: str, subject: str, ok: Collection[int]
    ) -> None:
        status = response.status_code
        if response.is_success or status in ok:
            return
        about = f"Store {self._name}: {operation} of {subject} was answered with {status}."
        raise _error(status, about, is_reading=operation in _READING)

    @contextmanager
    def _translated(self, operation: str, subject: str) -> Generator[None]:
        """Name what httpx raises, without the address that its words may have."""
        try:
            yield
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unreachable(
                f"Store {self._name}: {operation} of {subject} had no answer "
                f"({type(error).__name__})."
            ) from None


def decoded(answer: Answer, kind: type[T]) -> T:
    """The JSON document of an answer, of that kind; raises Unreachable for anything else."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, get_origin(kind) or kind):
        raise Unreachable("Swift's answer is not the document that was asked for.")
    return cast(T, document)


def _error(status: int, message: str, *, is_reading: bool) -> StoreError:
    match status:
        case HTTPStatus.NOT_FOUND:
            return NotFound(message)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return ReadDenied(message) if is_reading else WriteDenied(message)
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.INSUFFICIENT_STORAGE:
            return Full(message)
        case _:
            return Unreachable(message)
