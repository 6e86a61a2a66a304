"""Where identities come from, by the flavors that Glare has: `[paste_deploy] flavor`.

`keystone`, `trusted` and `none` are those of both services.
"""

from collections.abc import Callable
from dataclasses import replace

from diptych_common import service
from diptych_common.authentication import (
    LONGEST_ID,
    Identify,
    read_headers,
    trusted,
    trusted_headers,
)
from diptych_common.errors import Unauthorized
from diptych_common.identity import ANONYMOUS, Identity
from diptych_common.metrics import Metrics
from diptych_common.service import Identification
from starlette.types import Scope

from diptych_artifacts.settings import ArtifactsSettings


def identification(settings: ArtifactsSettings, *, metrics: Metrics) -> Identification:
    """How callers are identified. ValueError where the settings leave open who would be believed.

    Where anonymous access is on, a request without a token is anonymous; one with a token that is
    not valid gets 401, save with `keystone`, which Glare too asks only for what it makes of it.
    """
    match settings.paste_deploy.flavor:
        case "keycloak":
            # A tenth of the time that the service takes to start.
            from diptych_artifacts.keycloak import Keycloak

            keycloak = Keycloak(
                settings.keycloak_oidc,
                on_lookup=lambda outcome: metrics.token_lookups.labels(outcome).inc(),
            )
            # RFC 6750. The client learns neither where tokens are made nor what was wrong with its.
            return Identification(keycloak.identify, keycloak, "Bearer", forgiving=False)
        case "noauth":
            return Identification(_believed(settings, by_headers), forgiving=False)
        case "trustedauth":
            return Identification(_believed(settings, by_token), forgiving=False)
        case source:
            return service.identification(
                settings, source, service_type="artifact", metrics=metrics
            )


def _believed(settings: ArtifactsSettings, read: Callable[[Scope], Identity | None]) -> Identify:
    # Without a proxy that is named, only one on this host is believed. Glare believes everyone.
    return trusted(
        bind_host=settings.default.bind_host,
        proxies=settings.oslo_middleware.trusted_proxies,
        read=read,
    )


def by_headers(scope: Scope) -> Identity | None:
    """The identity that headers claim, None without `X-Identity-Status: Confirmed`.

    With that, a request without a user and project is let in as `ANONYMOUS`. The project is
    `X-Project-Id` or `X-Tenant-Id`; Unauthorized if the two differ.

    Source: Glare 5.0.1, api/middleware/context.py `ContextMiddleware`; its functional tests.
    """
    headers = read_headers(scope)
    if headers.one("x-identity-status") != "Confirmed":
        return None
    who = trusted_headers(scope) or ANONYMOUS
    tenant = headers.identifier("x-tenant-id")
    if tenant is None or tenant == who.project_id:
        return who
    if who.project_id is not None:
        raise Unauthorized("The headers X-Project-Id and X-Tenant-Id differ.")
    return replace(who, project_id=tenant)


def by_token(scope: Scope) -> Identity | None:
    """The identity of a token `user:project:roles`, None where the project is `none`.

    Roles are separated by commas; user and roles may be empty. Unauthorized for any other token,
    and without one.

    Source: Glare 5.0.1, api/middleware/context.py `TrustedAuthMiddleware`.
    """
    token = read_headers(scope).one("x-auth-token")
    parts = [part.strip() for part in (token or "").split(":")]
    if len(parts) != 3 or not parts[1] or max(map(len, parts[:2])) > LONGEST_ID:
        raise Unauthorized("This request needs a token of the form user:project:roles.")
    user, project, roles = parts
    if project.lower() == "none":
        return None
    return Identity(
        user_id=user or None,
        project_id=project,
        roles=frozenset(role.strip().lower() for role in roles.split(",") if role.strip()),
    )
