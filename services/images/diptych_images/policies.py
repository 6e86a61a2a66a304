"""The images service's rules: names, defaults, and the requests that ask them.

Names and defaults are those of Glance 33.0, so that its policy files keep their meaning.
"""

from typing import Final

from diptych_common.errors import Forbidden
from diptych_common.identity import Identity
from diptych_common.policy import Operation, Policy, Rule

_ADMIN = "rule:context_is_admin"
_MEMBER = "role:member and project_id:%(project_id)s"
_READER = "role:reader and project_id:%(project_id)s"
_SHARED_WITH = "project_id:%(member_id)s"
_PUBLIC = "'public':%(visibility)s"
_VISIBLE = (
    f"project_id:%(project_id)s or {_SHARED_WITH} or 'community':%(visibility)s or {_PUBLIC}"
    " or 'shared':%(visibility)s"
)

_ADMIN_OR_MEMBER = f"{_ADMIN} or ({_MEMBER})"
_ADMIN_OR_READER = f"{_ADMIN} or ({_READER})"
_DOWNLOADER = f"{_ADMIN} or (role:member and ({_VISIBLE}))"
_MEMBERS_READER = f"{_ADMIN} or role:reader and (project_id:%(project_id)s or {_SHARED_WITH})"
_NAMESPACE_READER = f"{_ADMIN} or (role:reader and (project_id:%(project_id)s or {_PUBLIC}))"

# What older releases allowed: everybody, unless the operator's file says otherwise.
_OLD = "rule:default"
_OLD_METADEF = "rule:metadef_default"

_IMAGE = "/v2/images/{image_id}"
_MEMBERS = f"{_IMAGE}/members"
_NAMESPACES = "/v2/metadefs/namespaces"
_NAMESPACE = f"{_NAMESPACES}/{{namespace}}"


def _rule(
    name: str, default: str, description: str, *operations: str, old: str | None = None
) -> Rule:
    """A rule; operations are written `METHOD /path`."""
    return Rule(
        name=name,
        default=default,
        description=description,
        operations=tuple(Operation(*operation.split(" ", 1)) for operation in operations),
        deprecated_default=old,
    )


RULES: Final[tuple[Rule, ...]] = (
    _rule("default", "", "Stands in for rules that a rule refers to and nobody defined."),
    _rule("context_is_admin", "role:admin", "Who is an administrator of the service."),
    _rule("service_api", "role:service or role:admin", "Other services, acting as themselves."),
    # Images
    _rule(
        "add_image",
        f"{_ADMIN} or ({_MEMBER} and project_id:%(owner)s)",
        "Create an image.",
        "POST /v2/images",
        old=_OLD,
    ),
    _rule("delete_image", _ADMIN_OR_MEMBER, "Delete an image.", f"DELETE {_IMAGE}", old=_OLD),
    _rule(
        "get_image",
        f"{_ADMIN} or (role:reader and ({_VISIBLE}))",
        "See an image. Where it denies, other requests on the image answer 404.",
        f"GET {_IMAGE}",
        f"GET {_IMAGE}/tasks",
        old=_OLD,
    ),
    _rule("get_images", _ADMIN_OR_READER, "List images.", "GET /v2/images", old=_OLD),
    _rule(
        "modify_image",
        _ADMIN_OR_MEMBER,
        "Change an image, its tags, or how its data gets into it.",
        f"PATCH {_IMAGE}",
        f"PUT {_IMAGE}/tags/{{tag}}",
        f"DELETE {_IMAGE}/tags/{{tag}}",
        f"PUT {_IMAGE}/stage",
        f"POST {_IMAGE}/import",
        old=_OLD,
    ),
    _rule("publicize_image", _ADMIN, "Make an image public.", "POST /v2/images", f"PATCH {_IMAGE}"),
    _rule(
        "communitize_image",
        _ADMIN_OR_MEMBER,
        "Make an image a community image.",
        "POST /v2/images",
        f"PATCH {_IMAGE}",
        old=_OLD,
    ),
    _rule("download_image", _DOWNLOADER, "Download an image.", f"GET {_IMAGE}/file", old=_OLD),
    _rule(
        "download_from_store",
        _DOWNLOADER,
        "Choose the stores that an image is downloaded from.",
        f"GET {_IMAGE}/file?prefer={{stores}}",
    ),
    _rule("upload_image", _ADMIN_OR_MEMBER, "Upload data.", f"PUT {_IMAGE}/file", old=_OLD),
    _rule("copy_image", _ADMIN, "Copy an image to other stores.", f"POST {_IMAGE}/import"),
    _rule(
        "deactivate",
        _ADMIN_OR_MEMBER,
        "Deactivate an image.",
        f"POST {_IMAGE}/actions/deactivate",
        old=_OLD,
    ),
    _rule(
        "reactivate",
        _ADMIN_OR_MEMBER,
        "Reactivate an image.",
        f"POST {_IMAGE}/actions/reactivate",
        old=_OLD,
    ),
    # Locations
    _rule(
        "delete_image_location",
        _ADMIN,
        "Remove a location of an image.",
        f"PATCH {_IMAGE}",
        "DELETE /v2/stores/{store}/{image_id}",
        old=_OLD,
    ),
    _rule(
        "get_image_location",
        _ADMIN_OR_READER,
        "Know a location of an image, in order to remove it.",
        "DELETE /v2/stores/{store}/{image_id}",
        old=_OLD,
    ),
    _rule(
        "set_image_location",
        _ADMIN_OR_MEMBER,
        "Add or replace locations of an image.",
        f"PATCH {_IMAGE}",
        old=_OLD,
    ),
    _rule(
        "add_image_location",
        f"rule:service_api or ({_MEMBER} and project_id:%(owner)s)",
        "Register a location of a queued image.",
        f"POST {_IMAGE}/locations",
    ),
    _rule(
        "fetch_image_location",
        "rule:service_api",
        "See the locations of an image.",
        f"GET {_IMAGE}/locations",
    ),
    # Members
    _rule("add_member", _ADMIN_OR_MEMBER, "Offer an image.", f"POST {_MEMBERS}", old=_OLD),
    _rule(
        "delete_member",
        _ADMIN_OR_MEMBER,
        "Withdraw the offer of an image.",
        f"DELETE {_MEMBERS}/{{member_id}}",
        old=_OLD,
    ),
    _rule(
        "get_member",
        _MEMBERS_READER,
        "See one member of an image.",
        f"GET {_MEMBERS}/{{member_id}}",
        old=_OLD,
    ),
    _rule("get_members", _MEMBERS_READER, "List members.", f"GET {_MEMBERS}", old=_OLD),
    _rule(
        "modify_member",
        f"{_ADMIN} or (role:member and {_SHARED_WITH})",
        "Accept or reject the offer of an image.",
        f"PUT {_MEMBERS}/{{member_id}}",
        old=_OLD,
    ),
    # The cache
    _rule(
        "manage_image_cache",
        _ADMIN,
        "Manage the cache by its old requests.",
        "GET /v2/cached_images",
        "DELETE /v2/cached_images",
        "DELETE /v2/cached_images/{image_id}",
        "GET /v2/queued_images",
        "DELETE /v2/queued_images",
        "PUT /v2/queued_images/{image_id}",
        "DELETE /v2/queued_images/{image_id}",
    ),
    _rule("cache_image", _ADMIN, "Put an image into the cache.", "PUT /v2/cache/{image_id}"),
    _rule("cache_list", _ADMIN, "List what is cached.", "GET /v2/cache"),
    _rule(
        "cache_delete",
        _ADMIN,
        "Drop from the cache.",
        "DELETE /v2/cache",
        "DELETE /v2/cache/{image_id}",
    ),
    _rule("cache_clean", _ADMIN, "Remove broken cache entries.", "POST /v2/cache/clean"),
    _rule("cache_prune", _ADMIN, "Shrink the cache to its size.", "POST /v2/cache/prune"),
    _rule(
        "list_cached_nodes",
        _ADMIN,
        "See which nodes have cached an image.",
        "GET /v2/cache/nodes/{image_id}",
    ),
    # Discovery and tasks
    _rule(
        "stores_info_detail",
        f"{_ADMIN} or rule:service_api",
        "See stores with their properties.",
        "GET /v2/info/stores/detail",
    ),
    _rule(
        "tasks_api_access",
        _ADMIN,
        "Use the tasks API.",
        "GET /v2/tasks",
        "POST /v2/tasks",
        "GET /v2/tasks/{task_id}",
        "DELETE /v2/tasks/{task_id}",
    ),
    _rule("get_task", "rule:default", "See a task; asked after tasks_api_access."),
    _rule("get_tasks", "rule:default", "List tasks; asked after tasks_api_access."),
    _rule("add_task", "rule:default", "Create a task; asked after tasks_api_access."),
    _rule("modify_task", "rule:default", "Never asked; known so that old files can name it."),
    # Metadata definitions
    _rule("metadef_default", "", "Stood for reading definitions in older releases."),
    _rule("metadef_admin", "role:admin", "Who may change definitions."),
    *(
        _rule(name, _NAMESPACE_READER, description, *operations, old=_OLD_METADEF)
        for name, description, *operations in (
            ("get_metadef_namespace", "See a namespace.", f"GET {_NAMESPACE}"),
            ("get_metadef_object", "See an object.", f"GET {_NAMESPACE}/objects/{{object}}"),
            (
                "get_metadef_objects",
                "List objects.",
                f"GET {_NAMESPACE}/objects",
                f"GET {_NAMESPACE}",
            ),
            (
                "list_metadef_resource_types",
                "List resource types.",
                "GET /v2/metadefs/resource_types",
                f"GET {_NAMESPACES}",
                f"GET {_NAMESPACE}",
                f"GET {_NAMESPACE}/resource_types",
            ),
            (
                "get_metadef_resource_type",
                "List a namespace's resource types.",
                f"GET {_NAMESPACE}/resource_types",
            ),
            (
                "get_metadef_property",
                "See a property.",
                f"GET {_NAMESPACE}/properties/{{property}}",
            ),
            (
                "get_metadef_properties",
                "List properties.",
                f"GET {_NAMESPACE}/properties",
                f"GET {_NAMESPACE}",
            ),
            ("get_metadef_tag", "See a tag.", f"GET {_NAMESPACE}/tags/{{tag}}"),
            ("get_metadef_tags", "List tags.", f"GET {_NAMESPACE}/tags", f"GET {_NAMESPACE}"),
        )
    ),
    _rule(
        "get_metadef_namespaces",
        _ADMIN_OR_READER,
        "List namespaces.",
        f"GET {_NAMESPACES}",
        old=_OLD_METADEF,
    ),
    *(
        _rule(name, "rule:metadef_admin", description, *operations)
        for name, description, *operations in (
            ("add_metadef_namespace", "Create a namespace.", f"POST {_NAMESPACES}"),
            ("modify_metadef_namespace", "Change a namespace.", f"PUT {_NAMESPACE}"),
            (
                "delete_metadef_namespace",
                "Delete a namespace, or all of a kind that is in it.",
                f"DELETE {_NAMESPACE}",
                f"DELETE {_NAMESPACE}/objects",
                f"DELETE {_NAMESPACE}/properties",
                f"DELETE {_NAMESPACE}/tags",
            ),
            ("add_metadef_object", "Create an object.", f"POST {_NAMESPACE}/objects"),
            (
                "modify_metadef_object",
                "Change an object.",
                f"PUT {_NAMESPACE}/objects/{{object}}",
            ),
            (
                "delete_metadef_object",
                "Delete an object.",
                f"DELETE {_NAMESPACE}/objects/{{object}}",
            ),
            (
                "add_metadef_resource_type_association",
                "Tie a resource type to a namespace.",
                f"POST {_NAMESPACE}/resource_types",
            ),
            (
                "remove_metadef_resource_type_association",
                "Untie a resource type from a namespace.",
                f"DELETE {_NAMESPACE}/resource_types/{{resource_type}}",
            ),
            ("add_metadef_property", "Create a property.", f"POST {_NAMESPACE}/properties"),
            (
                "modify_metadef_property",
                "Change a property.",
                f"PUT {_NAMESPACE}/properties/{{property}}",
            ),
            (
                "remove_metadef_property",
                "Delete a property.",
                f"DELETE {_NAMESPACE}/properties/{{property}}",
            ),
            ("add_metadef_tag", "Create a tag.", f"POST {_NAMESPACE}/tags/{{tag}}"),
            ("add_metadef_tags", "Create several tags.", f"POST {_NAMESPACE}/tags"),
            ("modify_metadef_tag", "Change a tag.", f"PUT {_NAMESPACE}/tags/{{tag}}"),
            ("delete_metadef_tag", "Delete a tag.", f"DELETE {_NAMESPACE}/tags/{{tag}}"),
            ("delete_metadef_tags", "Delete all tags.", f"DELETE {_NAMESPACE}/tags"),
        )
    ),
)


def require_owner(policy: Policy, who: Identity, owner: str | None) -> None:
    """Raise Forbidden if old defaults are allowed and the caller neither owns nor administers.

    Old defaults allow everybody to change everything that they see, and old policy files say so
    too. What held strangers off was a check in the code, on every change of an image and of a
    member's answer, which is that member's own; this is it. With `enforce_new_defaults` the rules
    alone decide.

    Source: Glance 33.0, api/v2/policy.py `check_is_image_mutable`.
    """
    if policy.enforces_new_defaults or policy.allows("context_is_admin", who, {}):
        return
    if owner is None or owner != who.project_id:
        raise Forbidden("This belongs to another project than yours.")
