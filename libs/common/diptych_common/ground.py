"""The middleware that both services stand on, made from their settings, in one order."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from starlette.middleware import Middleware

from diptych_common import authentication
from diptych_common.authentication import Authentication, Identify
from diptych_common.health import LIVE, READY, Check, Health
from diptych_common.keystone import Keystone, challenge
from diptych_common.metrics import Metrics
from diptych_common.middleware import AccessLog, Cors, LastResort, RequestId
from diptych_common.responses import RenderError
from diptych_common.settings import Cors as CorsSettings
from diptych_common.settings import (
    Database,
    Healthcheck,
    KeystoneAuthtoken,
    OsloMiddleware,
    OsloPolicy,
    PasteDeploy,
)
from diptych_common.settings import Metrics as MetricsSettings


class ServiceDefault(Protocol):
    """What both services have in [DEFAULT]."""

    @property
    def bind_host(self) -> str: ...
    @property
    def bind_port(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def graceful_timeout(self) -> float: ...
    @property
    def allow_anonymous_access(self) -> bool: ...
    @property
    def max_request_id_length(self) -> int: ...
    @property
    def debug(self) -> bool: ...
    @property
    def use_json(self) -> bool: ...
    @property
    def log_file(self) -> str | None: ...
    @property
    def log_dir(self) -> str | None: ...


class ServiceSettings(Protocol):
    """The groups that both services' settings have."""

    @property
    def default(self) -> ServiceDefault: ...
    @property
    def database(self) -> Database: ...
    @property
    def keystone_authtoken(self) -> KeystoneAuthtoken: ...
    @property
    def oslo_policy(self) -> OsloPolicy: ...
    @property
    def oslo_middleware(self) -> OsloMiddleware: ...
    @property
    def paste_deploy(self) -> PasteDeploy: ...
    @property
    def cors(self) -> CorsSettings: ...
    @property
    def healthcheck(self) -> Healthcheck: ...
    @property
    def metrics(self) -> MetricsSettings: ...


@dataclass(frozen=True, slots=True)
class Ground:
    """`middleware` from the outermost to the innermost; `opened` is for the lifespan to enter."""

    middleware: Sequence[Middleware]
    opened: AbstractAsyncContextManager[object]


def lay(
    settings: ServiceSettings,
    *,
    service_type: str,
    metrics: Metrics,
    render_error: RenderError,
    checks: Mapping[str, Check],
    versions: Middleware,
) -> Ground:
    """The middleware of a service; `versions` is its own, and answers before a token is needed.

    `checks` are those of `/readyz`. ValueError where the settings contradict each other.
    """
    identify, opened, www_authenticate = _identification(
        settings, service_type=service_type, metrics=metrics
    )
    health = settings.healthcheck
    middleware = [
        # Everything that follows can name the request.
        Middleware(
            RequestId,
            max_length=settings.default.max_request_id_length,
            render_error=render_error,
        ),
        # One line and one observation for whatever happens further in.
        Middleware(AccessLog, metrics=metrics, probes=frozenset({health.path, LIVE, READY})),
        # A preflight carries no token.
        *([Middleware(Cors, **dict(settings.cors))] if settings.cors.allowed_origin else []),
        # An error in any of those below still has a body and a request id.
        Middleware(LastResort, render_error=render_error),
        Middleware(
            Health,
            checks=checks,
            render_error=render_error,
            path=health.path,
            detailed=health.detailed,
            disable_by_file_path=health.disable_by_file_path,
            disable_by_file_paths=health.disable_by_file_paths,
        ),
        versions,
        # From here on there is an identity, and a stranger was turned away with its body unread.
        Middleware(
            Authentication,
            identify=identify,
            allow_anonymous=settings.default.allow_anonymous_access,
            render_error=render_error,
            www_authenticate=www_authenticate,
        ),
    ]
    return Ground(middleware, opened)


def _identification(
    settings: ServiceSettings, *, service_type: str, metrics: Metrics
) -> tuple[Identify, AbstractAsyncContextManager[object], str | None]:
    """Where identities come from, what must be opened for that, and the challenge of a 401."""
    match settings.paste_deploy.identity:
        case "keystone":
            keystone = Keystone(
                settings.keystone_authtoken,
                service_type=service_type,
                on_lookup=lambda outcome: metrics.token_lookups.labels(outcome).inc(),
            )
            return keystone.identify, keystone, challenge(settings.keystone_authtoken)
        case "trusted":
            # Without a proxy that is named, only one on this host is believed.
            proxies = settings.oslo_middleware.trusted_proxies
            identify = authentication.trusted(bind_host=settings.default.bind_host, proxies=proxies)
            return identify, nullcontext(), None
        case "none":
            return authentication.administrator, nullcontext(), None
