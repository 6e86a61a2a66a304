"""What load balancers and orchestrators ask: `/healthcheck` as oslo has it, `/livez`, `/readyz`."""

import asyncio
import gc
import logging
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diptych_common.errors import MethodNotAllowed, NotFound, qualities_of
from diptych_common.middleware import is_stopping
from diptych_common.proxies import is_proxied, is_within, networks
from diptych_common.responses import RenderError, json_response

Check = Callable[[Scope], Awaitable[None]]

LIVE = "/livez"
READY = "/readyz"

log = logging.getLogger(__name__)

_CHECK_TIMEOUT_S = 5.0

# Anybody may ask, and a check costs a round trip to the database: it is made once a second at most.
_FRESH_S = 1.0


class Health:
    """Answers the three paths, and hands everything else on; asks nobody who they are.

    `/healthcheck` (at `path`) is 200 `OK` (HEAD: 204) unless the drain file exists, then 503
    `DISABLED BY FILE`, as text, JSON or HTML by `Accept`. The drain file is `disable_by_file_path`,
    or the entry of `disable_by_file_paths` (`port:path`) for the port that was asked. While one of
    `enable_by_file_paths` is not there it is 503 `FILE PATH MISSING`, and `STOPPING` while the
    process still takes requests before it stops, which oslo does not have. `detailed`
    adds the interpreter's state to JSON; stacks of threads, which oslo shows too, tell a stranger
    too much.
    `/livez` says that the event loop turns, no more: a store that is down is no reason to be
    restarted. `/readyz` runs all `checks`, which raise when something is out of reach, and is 503
    when one does, takes over 5 s, or `/healthcheck` is; only the log says what the matter is.

    To clients outside of `allowed_source_ranges` all three are 404, as they are to those that a
    proxy's header tells of where `ignore_proxied_requests` is set. oslo hands these on to the
    application, where they would be a 300, which some load balancers take for a success.

    Source: oslo.middleware 8.1 `healthcheck`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        checks: Mapping[str, Check],
        render_error: RenderError,
        path: str = "/healthcheck",
        detailed: bool = False,
        disable_by_file_path: str | None = None,
        disable_by_file_paths: Sequence[str] = (),
        enable_by_file_paths: Sequence[str] = (),
        allowed_source_ranges: Sequence[str] = (),
        ignore_proxied_requests: bool = False,
    ) -> None:
        self._app = app
        self._checks = checks
        self._render_error = render_error
        self._answers = {path: self._health, LIVE: self._live, READY: self._ready}
        self._detailed = detailed
        self._drain_file = disable_by_file_path
        self._drain_files = dict(entry.split(":", 1) for entry in disable_by_file_paths)
        self._needed_files = tuple(enable_by_file_paths)
        self._ranges = networks(allowed_source_ranges)
        self._ignore_proxied = ignore_proxied_requests
        self._results: dict[str, str] = {}
        self._checked_at = float("-inf")
        self._checking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a probe, or hand the request on."""
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        if not self._may_ask(scope):
            response = self._render_error(scope, NotFound("There is nothing at this path."))
        elif scope["method"] in ("GET", "HEAD"):
            response = await answer(scope)
        else:
            error = MethodNotAllowed(
                "Probes only GET or HEAD this.", headers={"Allow": "GET, HEAD"}
            )
            response = self._render_error(scope, error)
        await response(scope, receive, send)

    async def _health(self, scope: Scope) -> Response:
        status, reason = 200, "OK"
        if self._is_drained(scope):
            status, reason = 503, "DISABLED BY FILE"
        elif self._lacks_file():
            status, reason = 503, "FILE PATH MISSING"
        elif is_stopping(scope):
            status, reason = 503, "STOPPING"
        if scope["method"] == "HEAD":
            return Response(status_code=204 if status == 200 else 503)
        match _best_offer(Headers(scope=scope).get("accept", "")):
            case "application/json":
                return json_response(self._document(reason), status=status)
            case "text/html":
                page = (
                    "<HTML><HEAD><TITLE>Healthcheck Status</TITLE></HEAD>"
                    f"<BODY><H2>Result:</H2>{escape(reason)}</BODY></HTML>"
                )
                return HTMLResponse(page, status_code=status)
            case _:
                return PlainTextResponse(reason, status_code=status)

    def _document(self, reason: str) -> dict[str, object]:
        if not self._detailed:
            return {"detailed": False, "reasons": [reason]}
        return {
            "detailed": True,
            "reasons": [{"reason": reason, "details": "", "class": "HealthcheckResult"}],
            "python_version": sys.version,
            "platform": platform.platform(),
            "now": datetime.now(UTC).isoformat(sep=" "),
            "gc": {"counts": gc.get_count(), "threshold": gc.get_threshold()},
        }

    async def _live(self, _: Scope) -> Response:
        return json_response({"status": "ok"})

    async def _ready(self, scope: Scope) -> Response:
        async with self._checking:
            if time.monotonic() - self._checked_at > _FRESH_S:
                found = await asyncio.gather(
                    *(_outcome(name, check, scope) for name, check in self._checks.items())
                )
                self._results = dict(zip(self._checks, found, strict=True))
                self._checked_at = time.monotonic()
        is_out = self._is_drained(scope) or self._lacks_file() or is_stopping(scope)
        results = {**self._results, "drain": "failing" if is_out else "ok"}
        is_ready = set(results.values()) == {"ok"}
        document = {"status": "ok" if is_ready else "failing", "checks": results}
        return json_response(document, status=200 if is_ready else 503)

    def _is_drained(self, scope: Scope) -> bool:
        port = str((scope.get("server") or (None, None))[1])
        files = (self._drain_file, self._drain_files.get(port))
        return any(Path(file).exists() for file in files if file)

    def _lacks_file(self) -> bool:
        return not all(Path(file).exists() for file in self._needed_files)

    def _may_ask(self, scope: Scope) -> bool:
        if self._ignore_proxied and is_proxied(scope):
            return False
        client = scope.get("client")
        return not self._ranges or (client is not None and is_within(client[0], self._ranges))


async def _outcome(name: str, check: Check, scope: Scope) -> str:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await check(scope)
    except Exception as error:
        # Whatever it is, a probe is to be told that this part does not work.
        log.warning("%s is not ready: %s", name, error or type(error).__name__)
        return "failing"
    return "ok"


_OFFERS = ("text/plain", "text/html", "application/json")


def _best_offer(accept: str) -> str:
    """The offer that `accept` likes best; the first of equals, and text where it likes none."""
    qualities = qualities_of(accept)

    def liked(offer: str) -> float:
        any_of_kind = f"{offer.partition('/')[0]}/*"
        known = [name for name in (offer, any_of_kind, "*/*") if name in qualities]
        return qualities[known[0]] if known else 0.0

    return max(_OFFERS, key=liked)
