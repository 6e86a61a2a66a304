"""Who is asking: a frozen value made once per request and passed on by argument."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, as Keystone (or a trusted proxy) vouches for it.

    `roles` and `service_roles` hold role names; `roles` are lower-cased, as Glance matches them.
    `service_roles` come from a valid `X-Service-Token`. `system_scope` is "all" or None. A caller
    without a token has no user, project and roles, and `is_anonymous` is true. Who may not be an
    administrator is none, whatever the roles and the policy: see `Policy.load`, `admin_rule`.
    """

    user_id: str | None = None
    user_name: str | None = None
    user_domain_id: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()
    service_user_id: str | None = None
    service_project_id: str | None = None
    system_scope: str | None = None
    may_be_admin: bool = True
    expires_at: datetime | None = field(default=None, compare=False)

    @property
    def is_anonymous(self) -> bool:
        """True for a request without a token, where the service admits such."""
        return self.user_id is None and self.project_id is None and not self.roles


ANONYMOUS = Identity()
