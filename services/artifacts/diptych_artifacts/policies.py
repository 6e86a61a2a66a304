"""The artifacts service's rules: names, defaults, and the requests that ask them.

Names and defaults are Glare's, so that its policy files keep their meaning; where a default
differs, the reason stands beside it.
"""

from typing import Final

from diptych_common.policy import Operation, Rule

_ADMIN = "rule:context_is_admin"
_OWNER = "rule:admin_or_owner"

_TYPE = "/artifacts/{type_name}"
_ARTIFACT = f"{_TYPE}/{{artifact_id}}"
_BLOB = f"{_ARTIFACT}/{{blob}}"


def _rule(name: str, default: str, description: str, *operations: str) -> Rule:
    """A rule; operations are written `METHOD /path`."""
    return Rule(
        name=name,
        default=default,
        description=description,
        operations=tuple(Operation(*operation.split(" ", 1)) for operation in operations),
    )


ADMIN_RULE: Final = "context_is_admin"
"""Whom it allows, for those rules may say `is_admin:True`."""

RULES: Final[tuple[Rule, ...]] = (
    _rule("context_is_admin", "role:admin", "Who is an administrator of the service."),
    _rule(
        "admin_or_owner",
        "is_admin:True or project_id:%(owner)s",
        "Administrators, and the project that an artifact belongs to.",
    ),
    _rule(
        "artifact:type_list",
        "",
        "See the types of artifacts.",
        "GET /schemas",
        "GET /schemas/{type_name}",
    ),
    _rule("artifact:create", "", "Create an artifact.", f"POST {_TYPE}"),
    _rule("artifact:get", "", "See an artifact.", f"GET {_ARTIFACT}"),
    _rule("artifact:list", "", "List artifacts.", f"GET {_TYPE}"),
    _rule(
        "artifact:get_any_artifact",
        _ADMIN,
        "See artifacts of all projects, by their ids.",
        f"GET {_ARTIFACT}",
    ),
    _rule(
        "artifact:list_all_artifacts",
        _ADMIN,
        "See artifacts of all projects in lists.",
        f"GET {_TYPE}",
    ),
    _rule(
        "artifact:update_public",
        f"'public':%(visibility)s and {_ADMIN} or not 'public':%(visibility)s",
        "Change an artifact as far as it is public.",
    ),
    _rule(
        "artifact:update",
        f"{_OWNER} and rule:artifact:update_public",
        "Change an artifact.",
        f"PATCH {_ARTIFACT}",
    ),
    _rule("artifact:activate", _OWNER, "Make an artifact active.", f"PATCH {_ARTIFACT}"),
    _rule("artifact:deactivate", _ADMIN, "Deactivate an artifact.", f"PATCH {_ARTIFACT}"),
    _rule(
        "artifact:reactivate",
        _ADMIN,
        "Make an artifact active again.",
        f"PATCH {_ARTIFACT}",
    ),
    _rule("artifact:publish", _ADMIN, "Make an artifact public.", f"PATCH {_ARTIFACT}"),
    _rule(
        "artifact:delete_public",
        f"'public':%(visibility)s and {_ADMIN} or not 'public':%(visibility)s",
        "Delete an artifact as far as it is public.",
    ),
    _rule(
        "artifact:delete_deactivated",
        f"'deactivated':%(status)s and {_ADMIN} or not 'deactivated':%(status)s",
        "Delete an artifact as far as it is deactivated.",
    ),
    _rule(
        "artifact:delete",
        f"{_OWNER} and rule:artifact:delete_public and rule:artifact:delete_deactivated",
        "Delete an artifact.",
        f"DELETE {_ARTIFACT}",
    ),
    _rule("artifact:upload", _OWNER, "Upload data.", f"PUT {_BLOB}"),
    _rule(
        "artifact:set_location",
        _OWNER,
        "Give a blob an address elsewhere.",
        f"PUT {_BLOB}",
    ),
    _rule(
        "artifact:set_internal_location",
        _ADMIN,
        "Name the object of a store that is a blob's data.",
        f"PUT {_BLOB}",
    ),
    _rule(
        "artifact:delete_blob",
        _OWNER,
        "Take the address elsewhere away from a blob.",
        f"DELETE {_BLOB}",
    ),
    _rule(
        "artifact:download_deactivated",
        f"'deactivated':%(status)s and {_ADMIN} or not 'deactivated':%(status)s",
        "Download as far as the artifact is deactivated.",
    ),
    _rule(
        "artifact:download",
        # Glare's lets nobody but the owner have the data of a public artifact, against what its
        # manual says.
        f"({_OWNER} or 'public':%(visibility)s) and rule:artifact:download_deactivated",
        "Download data.",
        f"GET {_BLOB}",
    ),
    _rule(
        "artifact:download_from_any_artifact",
        _ADMIN,
        "Download data of artifacts of all projects.",
        f"GET {_BLOB}",
    ),
    _rule("artifact:set_quotas", _ADMIN, "Set the quotas of projects.", "PUT /quotas"),
    _rule("artifact:list_all_quotas", _ADMIN, "See all quotas.", "GET /quotas"),
    _rule(
        "artifact:list_project_quotas",
        f"project_id:%(project_id)s or {_ADMIN}",
        "See the quotas of a project.",
        "GET /project-quotas",
        "GET /project-quotas/{project_id}",
    ),
)
