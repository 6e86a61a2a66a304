"""Who asks, in the tables of `rbac/tables.py`: the columns.

Everything that is asked about belongs to the project alpha. Its images are offered to the projects
pend, accept and reject, which have answered as they are called; they stay members when an image is
not shared, and are nothing to it then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.images.service import ROLES, persona

OWNER: Final = "alpha"
MEMBERS: Final[Mapping[str, str]] = {
    "pend": "pending",
    "accept": "accepted",
    "reject": "rejected",
}


@dataclass(frozen=True)
class Caller:
    """A column: what the caller is, and the headers that tell the service so."""

    is_: str
    headers: Mapping[str, str]


# The services that act for others have their own roles beside those of the user (or no user).
_NOVA: Final = {**persona("beta"), "X-Roles": f"{ROLES['member']},service"}
_SERVICE_TOKEN: Final = {"X-Service-Roles": "service", "X-Service-User-Id": "nova"}

CALLERS: Final[Mapping[str, Caller]] = {
    "admin": Caller("administrator, with a project that has no part in it", persona("x", "admin")),
    "system": Caller(
        "administrator whose token is for the system, not for a project",
        {**persona(None, "admin"), "OpenStack-System-Scope": "all"},
    ),
    "mngr": Caller("manager in the owner's project", persona(OWNER, "manager")),
    "member": Caller("member of the owner's project", persona(OWNER)),
    "reader": Caller("reader in the owner's project", persona(OWNER, "reader")),
    "deleg": Caller(
        "member of the owner's project for whom another service asks, with its own token beside",
        {**persona(OWNER), **_SERVICE_TOKEN},
    ),
    "other": Caller("member of a project that has no part in it", persona("beta")),
    "oreadr": Caller("reader in that project", persona("beta", "reader")),
    "pend": Caller("member of the project that has not answered the offer", persona("pend")),
    "accept": Caller("member of the project that has accepted it", persona("accept")),
    "areadr": Caller("reader in that project", persona("accept", "reader")),
    "reject": Caller("member of the project that has rejected it", persona("reject")),
    "nova": Caller("other service, with the roles of a member in a project of its own", _NOVA),
    "srvc": Caller("other service, with no role but service", persona("services", "service")),
    "osrvc": Caller("the same with the owner's project", persona(OWNER, "service")),
    "anon": Caller("nobody, where `allow_anonymous_access` is set", {}),
}
