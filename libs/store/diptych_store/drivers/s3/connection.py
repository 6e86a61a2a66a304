"""The client of one S3 store: opened late, used through one function, its errors translated."""

import asyncio
import functools
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from diptych_store.calls import OnCall, told
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    Full,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.s3 import S3Options

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

T = TypeVar("T")

# Bytes a second, below which sending a body is given up.
_SLOWEST = 64 * 1024
_REGION = re.compile(r"s3[.-]([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com(?:\.cn)?")
_AWS = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?")
# In a host name of a certificate for `*.s3.…` a dot would be one level too many.
_IN_A_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
# How the client stumbles over answers that are none of S3's.
_NONSENSE = (ResponseParserError, AttributeError, LookupError, TypeError, ValueError)
NOT_ANSWERED = (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError, *_NONSENSE)
_CODE = re.compile(r"[A-Za-z0-9.]{1,60}")


class ConditionFailed(AlreadyThere):
    """What was asked for with a condition is not as the condition says."""


class NoObject(NotFound):
    """The key has no object."""


class NoUpload(AttemptLost):
    """The multipart upload is gone: aborted, or completed."""


class NoBucket(Unreachable):
    """There is no such bucket. Not NotFound: then a mistake would look like lost objects."""


class Unsupported(Unreachable):
    """The server does not know what it was asked for."""


class Refused(Unreachable):
    """The server takes the request for a mistake."""


class OutsideOfObject(StoreError):
    """The range begins beyond the end of the object."""


class Connection:
    """Makes requests with the credentials of the options and with nothing else.

    Neither the environment nor the files below `~/.aws` have a say, no proxy is used and no
    metadata service asked.
    """

    def __init__(self, name: str, options: S3Options, on_call: OnCall) -> None:
        self.endpoint = _endpoint(options.s3_store_host)
        self.bucket = options.s3_store_bucket
        self.region = _region(self.endpoint, options.s3_store_region_name)
        self.sends_checksums = (
            options.s3_store_enable_data_integrity_protection
            and options.s3_store_request_checksum_calculation == "when_supported"
        )
        self._name = name
        self._options = options
        self._on_call = on_call
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._client: S3Client | None = None

    async def call(
        self,
        operation: str,
        call: "Callable[[S3Client], Awaitable[T]]",
        *,
        key: str = "",
        writing: bool = False,
    ) -> T:
        """Make one request; `operation` is what it is called where calls are measured.

        `key` is named in errors, `writing` says which right was missing if one was. Raises the
        errors of stores and those of this module.
        """
        client = await self.client()
        with told(self._on_call, operation):
            try:
                return await call(client)
            except ClientError as error:
                # Not as the cause: a traceback would show the server's words, unread.
                raise self._refused(error, key=key, writing=writing) from None
            except NOT_ANSWERED as error:
                raise self.broken(error) from error

    def broken(self, error: Exception) -> Unreachable:
        """What to raise where no answer came, or only a part of one."""
        match error:
            case SSLError():
                words = "the server's certificate is not trusted, or it speaks no TLS"
            case ConnectTimeoutError() | EndpointConnectionError():
                words = "no connection to the server could be made"
            case TimeoutError() | ReadTimeoutError():
                words = "the server did not answer in time"
            case FlexibleChecksumError():
                words = "the bytes that came are not those of their checksum"
            case _ if isinstance(error, _NONSENSE):
                words = "the server's answer is none of S3"
            case _:
                words = f"the connection to the server broke ({type(error).__name__})"
        return Unreachable(f"Store {self._name}: {words}.")

    async def client(self) -> "S3Client":
        """The client, opened by the first who asks; makes no request. Raises Unreachable."""
        async with self._lock:
            if self._client is None:
                session = await asyncio.to_thread(_session)
                try:
                    self._client = await self._stack.enter_async_context(self._opening(session))
                except (BotoCoreError, OSError, ValueError) as error:
                    raise Unreachable(
                        f"Store {self._name}: no client can be made with its options"
                        f" ({type(error).__name__})."
                    ) from error
                if not self._is_at_aws():
                    cast("Any", self._client.meta.events).register_last(
                        "before-parameter-build.s3", _never_redirected
                    )
            return self._client

    async def aclose(self) -> None:
        """Close all connections."""
        async with self._lock:
            self._client = None
            await self._stack.aclose()

    def _opening(self, session: AioSession) -> "AbstractAsyncContextManager[S3Client]":
        options = self._options
        checksums = options.s3_store_enable_data_integrity_protection
        config = AioConfig(
            signature_version="s3v4",
            s3={
                "addressing_style": self._style(),
                # The body is covered by a Content-MD5 that is signed, or by TLS; to hash it here
                # would stop the event loop for as long as that takes.
                "payload_signing_enabled": False,
            },
            request_checksum_calculation=(
                options.s3_store_request_checksum_calculation if checksums else "when_required"
            ),
            response_checksum_validation=(
                options.s3_store_response_checksum_validation if checksums else "when_required"
            ),
            connect_timeout=options.s3_store_connect_timeout,
            read_timeout=options.s3_store_read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1 + options.s3_store_retries},
            # As many as there are readers: one who reads slowly must not keep others waiting.
            max_pool_connections=0,
            proxies={},
            http_session_cls=_Http,
        )
        return cast("Any", session).create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=options.s3_store_access_key.get_secret_value(),
            aws_secret_access_key=options.s3_store_secret_key.get_secret_value(),
            verify=options.s3_store_cacert or True,
            config=config,
        )

    def _style(self) -> str:
        style = self._options.s3_store_bucket_url_format
        if style != "auto":
            return style
        in_host = self._is_at_aws() and _IN_A_HOST_NAME.fullmatch(self.bucket)
        return "virtual" if in_host else "path"

    def _is_at_aws(self) -> bool:
        return _AWS.fullmatch(urlsplit(self.endpoint).hostname or "") is not None

    def _refused(self, error: ClientError, *, key: str, writing: bool) -> StoreError:
        answer = cast("Mapping[str, Any]", error.response)
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # An answer to HEAD has no body, so the status stands for a code.
        known = _ERRORS.get(code) or _ERRORS.get(str(status))
        if known is None:
            known = (Unreachable, "the server failed") if status >= 500 else _NOT_UNDERSTOOD
        kind, words = known
        if kind is _Denied:
            kind = WriteDenied if writing else ReadDenied
        shown = code if _CODE.fullmatch(code) else str(status)
        return kind(f"Store {self._name}: {words.format(bucket=self.bucket, key=key)} ({shown}).")


class _Http(AIOHTTPSession):
    """Sends a request, and gives up when that takes too long.

    The client has time-outs for a connection to be made and for bytes to come, and none for a
    server that takes no more of a body.
    """

    async def send(self, request: Any) -> Any:
        """Make one try."""
        # To complete an upload, by POST, may take minutes in which blanks are all that comes.
        body = int(request.headers.get("Content-Length", 0)) if request.method == "PUT" else 0
        allowed_s = sum(self._time_outs()) + body / _SLOWEST if body else None
        try:
            async with asyncio.timeout(allowed_s):
                return await cast("Any", super()).send(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from None

    def _time_outs(self) -> tuple[float, float]:
        time_out = cast("aiohttp.ClientTimeout", self._timeout)
        return time_out.sock_connect or 0, time_out.sock_read or 0


class _Denied(StoreError):
    """Stands for ReadDenied or WriteDenied."""


_NO_OBJECT = (NoObject, "there is no object {key}")
_NO_RIGHT = (_Denied, "the server denies access to bucket {bucket}")
_CLOCK = (Unreachable, "the clock of this host and that of the server differ too much")
_FULL = (Full, "there is no room, or a quota is used up")
_ELSEWHERE = (Unreachable, "bucket {bucket} is in another region, or at another host")
_CONDITION = (ConditionFailed, "{key} is not as it was expected to be")
_UNKNOWN = (Unsupported, "the server does not know what it was asked for")
_NOT_UNDERSTOOD = (Refused, "the server refuses the request")
_RANGE = (OutsideOfObject, "the range begins beyond the end of {key}")
# By the codes of S3 and by the status of answers without one, with what is said to people.
_ERRORS: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchKey": _NO_OBJECT,
    "404": _NO_OBJECT,
    "NoSuchUpload": (NoUpload, "the attempt at writing {key} was discarded"),
    "NoSuchBucket": (NoBucket, "there is no bucket {bucket}"),
    "PreconditionFailed": _CONDITION,
    "ConditionalRequestConflict": _CONDITION,
    "412": _CONDITION,
    "InvalidRange": _RANGE,
    "416": _RANGE,
    "AccessDenied": _NO_RIGHT,
    "401": _NO_RIGHT,
    "403": _NO_RIGHT,
    "InvalidAccessKeyId": (_Denied, "the server does not know the access key"),
    "SignatureDoesNotMatch": (_Denied, "the server refuses the signature; is the secret key right"),
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "301": _ELSEWHERE,
    "307": _ELSEWHERE,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "EntityTooLarge": (Full, "the object, or one of its parts, is too large for the server"),
    "413": _FULL,
    "507": _FULL,
    "EntityTooSmall": (WriteDenied, "a part of {key} that is not the last is too small"),
    "NotImplemented": _UNKNOWN,
    "MethodNotAllowed": _UNKNOWN,
    "405": _UNKNOWN,
    "501": _UNKNOWN,
    "SlowDown": (Unreachable, "the server asks for fewer requests"),
    "503": (Unreachable, "the server asks for fewer requests, or fails"),
}


def _endpoint(host: str) -> str:
    scheme = "" if host.startswith(("http://", "https://")) else "http://"
    return f"{scheme}{host}".rstrip("/")


def _region(endpoint: str, configured: str) -> str:
    match = _REGION.fullmatch(urlsplit(endpoint).hostname or "")
    return configured or (match[1] if match else "us-east-1")


def _never_redirected(context: dict[str, Any], **_: object) -> None:
    """Keep the client from asking where a bucket is: elsewhere than at AWS nobody can answer.

    It asks with a request that is redirected, and so asks again without end.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


@functools.cache
def _session() -> AioSession:
    """A session that knows botocore's defaults and neither variables nor files of this host.

    One for all stores, whose credentials it does not know either: it is slow to make, a tenth of a
    second of parsing, so it is made in a thread.
    """
    known = cast("Mapping[str, tuple[Any, ...]]", cast("Any", AioSession).SESSION_VARIABLES)
    variables: dict[str, tuple[Any, ...]] = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in known.items()
    }
    for file in ("config_file", "credentials_file"):
        variables[file] = (None, None, os.devnull, None)
    session = AioSession(session_vars=variables)
    session.warm_up_loader_caches("s3")
    return session
