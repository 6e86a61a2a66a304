"""What both services stand on, made from their settings: middleware in its order, and policy."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from fastapi import APIRouter
from starlette.middleware import Middleware

from diptych_common import authentication, tracing
from diptych_common.authentication import Authentication, Identify
from diptych_common.compression import Compression
from diptych_common.health import LIVE, READY, Check, Health
from diptych_common.keystone import Keystone, challenge
from diptych_common.metrics import Metrics
from diptych_common.middleware import AccessLog, Cors, LastResort, RequestId
from diptych_common.openapi import ApiPages
from diptych_common.policy import Policy, Rule
from diptych_common.proxies import ProxyHeaders
from diptych_common.responses import RenderError
from diptych_common.settings import Loaded, ServiceSettings


@dataclass(frozen=True, slots=True)
class Identification:
    """How callers are identified: `opened` is what must be open for it.

    `challenge` is the `WWW-Authenticate` of every 401, if there is one. `forgiving` says whether a
    token that is not valid counts as none where anonymous access is on.
    """

    identify: Identify
    opened: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)
    challenge: str | None = None
    forgiving: bool = True


@dataclass(frozen=True, slots=True)
class Stack:
    """`middleware` from the outermost to the innermost; `opened` is for the lifespan to enter."""

    middleware: Sequence[Middleware]
    opened: AbstractAsyncContextManager[object]


def middleware_stack(
    settings: ServiceSettings,
    *,
    identification: Identification,
    metrics: Metrics,
    render_error: RenderError,
    checks: Mapping[str, Check],
    versions: Middleware,
    title: str,
    routers: Sequence[APIRouter],
) -> Stack:
    """The middleware of a service; `versions` is its own, and answers before a token is needed.

    `checks` are those of `/readyz`; `title` and `routers` are for the OpenAPI document. ValueError
    where the settings contradict each other.
    """
    health = settings.healthcheck
    proxies = settings.oslo_middleware
    probes = frozenset({health.path, LIVE, READY})
    tracing.check(settings.tracing)
    middleware = [
        # Everything that follows can name the request.
        Middleware(
            RequestId,
            max_length=settings.default.max_request_id_length,
            render_error=render_error,
        ),
        *([Middleware(tracing.Requests, probes=probes)] if settings.tracing.enabled else []),
        # What is logged, and the links in answers, name the client and what it asked for.
        *(
            [Middleware(ProxyHeaders, trusted=proxies.trusted_proxies)]
            if proxies.enable_proxy_headers_parsing
            else []
        ),
        # One line and one observation for whatever happens further in.
        Middleware(AccessLog, metrics=metrics, probes=probes),
        # A preflight carries no token.
        *([Middleware(Cors, **dict(settings.cors))] if settings.cors.allowed_origin else []),
        *([Middleware(Compression)] if settings.http.compress else []),
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
            enable_by_file_paths=health.enable_by_file_paths,
            allowed_source_ranges=health.allowed_source_ranges,
            ignore_proxied_requests=health.ignore_proxied_requests,
        ),
        *(
            [Middleware(ApiPages, title=title, routers=routers, render_error=render_error)]
            if settings.http.openapi
            else []
        ),
        versions,
        # From here on there is an identity, and a stranger was turned away with its body unread.
        Middleware(
            Authentication,
            identify=identification.identify,
            allow_anonymous=settings.default.allow_anonymous_access,
            forgiving=identification.forgiving,
            render_error=render_error,
            www_authenticate=identification.challenge,
        ),
    ]
    return Stack(middleware, identification.opened)


def identification(
    settings: ServiceSettings,
    source: Literal["keystone", "trusted", "none"],
    *,
    service_type: str,
    metrics: Metrics,
) -> Identification:
    """How callers are identified by the sources that both services have."""
    match source:
        case "keystone":
            counters = cache(metrics.token_lookups.labels)
            keystone = Keystone(
                settings.keystone_authtoken,
                service_type=service_type,
                on_lookup=lambda outcome: counters(outcome).inc(),
            )
            return Identification(
                keystone.identify, keystone, challenge(settings.keystone_authtoken)
            )
        case "trusted":
            # Without a proxy that is named, only one on this host is believed.
            proxies = settings.oslo_middleware.trusted_proxies
            identify = authentication.trusted(bind_host=settings.default.bind_host, proxies=proxies)
            return Identification(identify)
        case "none":
            return Identification(authentication.administrator)


def load_policy(
    rules: Sequence[Rule], loaded: Loaded[ServiceSettings], *, admin_rule: str | None = None
) -> Policy:
    """The policy of a service with these rules, as the settings change it; see `Policy.load`.

    Raises PolicyError.
    """
    options = loaded.settings.oslo_policy
    return Policy.load(
        rules,
        policy_file=loaded.resolve(options.policy_file),
        policy_dirs=[loaded.resolve(folder) for folder in options.policy_dirs],
        default_rule=options.policy_default_rule,
        enforce_scope=options.enforce_scope,
        enforce_new_defaults=options.enforce_new_defaults,
        admin_rule=admin_rule,
    )
