"""The images service's rules are Glance's."""

import pytest
from diptych_common.errors import Forbidden
from diptych_common.identity import Identity
from diptych_common.policy import Policy
from diptych_images.policies import RULES, require_owner

# Source: images API inventory, "Policy rules".
NAMES = [
    "default",
    "context_is_admin",
    "service_api",
    "add_image",
    "delete_image",
    "get_image",
    "get_images",
    "modify_image",
    "publicize_image",
    "communitize_image",
    "download_image",
    "download_from_store",
    "upload_image",
    "copy_image",
    "deactivate",
    "reactivate",
    "delete_image_location",
    "get_image_location",
    "set_image_location",
    "add_image_location",
    "fetch_image_location",
    "add_member",
    "delete_member",
    "get_member",
    "get_members",
    "modify_member",
    "list_cached_nodes",
    "manage_image_cache",
    "cache_image",
    "cache_list",
    "cache_delete",
    "cache_clean",
    "cache_prune",
    "stores_info_detail",
    "tasks_api_access",
    "get_task",
    "get_tasks",
    "add_task",
    "modify_task",
    "metadef_default",
    "metadef_admin",
    "get_metadef_namespace",
    "get_metadef_namespaces",
    "get_metadef_object",
    "get_metadef_objects",
    "get_metadef_property",
    "get_metadef_properties",
    "get_metadef_tag",
    "get_metadef_tags",
    "list_metadef_resource_types",
    "get_metadef_resource_type",
    "add_metadef_namespace",
    "modify_metadef_namespace",
    "delete_metadef_namespace",
    "add_metadef_object",
    "modify_metadef_object",
    "delete_metadef_object",
    "add_metadef_property",
    "modify_metadef_property",
    "remove_metadef_property",
    "add_metadef_resource_type_association",
    "remove_metadef_resource_type_association",
    "add_metadef_tag",
    "add_metadef_tags",
    "modify_metadef_tag",
    "delete_metadef_tag",
    "delete_metadef_tags",
]


def identity(*roles: str, project: str = "own") -> Identity:
    return Identity(user_id="u", project_id=project, roles=frozenset(roles))


ADMIN = identity("admin", "manager", "member", "reader", project="admins")
MEMBER = identity("member", "reader")
READER = identity("reader")
STRANGER = identity("member", "reader", project="other")
SERVICE = identity("service", project="services")


def image(visibility: str = "private", *, shared_with: str | None = None) -> dict[str, object]:
    return {
        "project_id": "own",
        "owner": "own",
        "visibility": visibility,
        "member_id": shared_with,
    }


def test_every_rule_of_glance_is_there_once() -> None:
    assert sorted(rule.name for rule in RULES) == sorted(NAMES)


@pytest.mark.parametrize(
    ("rule", "who", "target", "allowed"),
    [
        ("get_image", READER, image(), True),
        ("get_image", STRANGER, image(), False),
        ("get_image", STRANGER, image("public"), True),
        ("get_image", STRANGER, image("shared", shared_with="other"), True),
        ("get_image", identity("member"), image(), False),
        ("get_image", SERVICE, image(), False),
        ("get_image", ADMIN, image(), True),
        ("add_image", MEMBER, image(), True),
        ("add_image", MEMBER, image() | {"owner": "other"}, False),
        ("add_image", ADMIN, image() | {"owner": "other"}, True),
        ("add_image", READER, image(), False),
        ("modify_image", MEMBER, image(), True),
        ("modify_image", READER, image(), False),
        ("modify_image", STRANGER, image("public"), False),
        ("publicize_image", MEMBER, image(), False),
        ("publicize_image", ADMIN, image(), True),
        ("communitize_image", MEMBER, image(), True),
        ("download_image", READER, image(), False),
        ("download_image", MEMBER, image(), True),
        ("download_image", STRANGER, image("community"), True),
        ("modify_member", MEMBER, image("shared", shared_with="other"), False),
        ("modify_member", STRANGER, image("shared", shared_with="other"), True),
        ("get_members", READER, image("shared"), True),
        ("fetch_image_location", ADMIN, {}, True),
        ("fetch_image_location", SERVICE, {}, True),
        ("fetch_image_location", MEMBER, {}, False),
        ("stores_info_detail", SERVICE, {}, True),
        ("stores_info_detail", MEMBER, {}, False),
        ("copy_image", MEMBER, image(), False),
        ("tasks_api_access", MEMBER, {}, False),
        ("get_metadef_namespace", STRANGER, image("public"), True),
        ("add_metadef_tag", MEMBER, image(), False),
        ("add_metadef_tag", ADMIN, image(), True),
    ],
)
def test_the_persona_matrix(
    rule: str, who: Identity, target: dict[str, object], allowed: bool
) -> None:
    assert Policy.load(RULES).allows(rule, who, target) is allowed


def test_old_defaults_let_everybody_in_but_not_everywhere() -> None:
    policy = Policy.load(RULES, enforce_new_defaults=False)
    assert policy.allows("get_image", identity(project="other"), image())
    assert policy.allows("modify_image", STRANGER, image("public"))
    assert not policy.allows("publicize_image", STRANGER, image("public"))


def test_under_old_defaults_changes_need_the_owner_or_an_administrator() -> None:
    policy = Policy.load(RULES, enforce_new_defaults=False)
    require_owner(policy, MEMBER, "own")
    require_owner(policy, ADMIN, "own")
    require_owner(policy, ADMIN, None)
    for owner in ("own", None):
        with pytest.raises(Forbidden):
            require_owner(policy, STRANGER, owner)
    with pytest.raises(Forbidden):
        require_owner(policy, Identity(roles=frozenset({"member"})), None)


def test_under_new_defaults_the_rules_alone_decide() -> None:
    require_owner(Policy.load(RULES), STRANGER, "own")
