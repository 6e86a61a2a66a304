"""Defaults, the operator's files over them, scopes, and taking changes over."""

import asyncio
import itertools
import json
import timeit
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from diptych_common.errors import Forbidden
from diptych_common.identity import ANONYMOUS, Identity
from diptych_common.policy import Policy, PolicyError, Rule, attributes, read_file
from diptych_images.policies import RULES
from oslo_config import cfg
from oslo_policy import policy as oslo

from tests.waiting import until

MEMBER = Identity(user_id="u", project_id="p1", roles=frozenset({"member", "reader"}))
ADMIN = Identity(
    user_id="a", project_id="p9", roles=frozenset({"admin", "manager", "member", "reader"})
)

PERSONAS = {
    "admin": ADMIN,
    "admin only": Identity(user_id="a", project_id="p1", roles=frozenset({"admin"})),
    "manager": Identity(
        user_id="m", project_id="p1", roles=frozenset({"manager", "member", "reader"})
    ),
    "member": MEMBER,
    "member only": Identity(user_id="u", project_id="p1", roles=frozenset({"member"})),
    "other member": Identity(user_id="v", project_id="p2", roles=frozenset({"member", "reader"})),
    "reader": Identity(user_id="r", project_id="p1", roles=frozenset({"reader"})),
    "service": Identity(
        user_id="s",
        project_id="services",
        roles=frozenset({"service"}),
        service_roles=frozenset({"service"}),
    ),
    "user with a service token": Identity(
        user_id="u",
        project_id="p1",
        roles=frozenset({"member", "reader"}),
        service_roles=frozenset({"service"}),
    ),
    "no roles": Identity(user_id="n", project_id="p1"),
    "custom role": Identity(user_id="c", project_id="p1", roles=frozenset({"image_viewer"})),
    "unscoped": Identity(user_id="u", roles=frozenset({"member", "reader"})),
    "system admin": Identity(
        user_id="a", roles=frozenset({"admin", "member", "reader"}), system_scope="all"
    ),
    "system reader": Identity(user_id="a", roles=frozenset({"reader"}), system_scope="all"),
    "domain admin": Identity(
        user_id="a", domain_id="d", roles=frozenset({"admin", "member", "reader"})
    ),
    "anonymous": ANONYMOUS,
}

TARGETS: list[dict[str, object]] = [
    {},
    *(
        {
            "project_id": owner,
            "owner": owner,
            "member_id": member,
            "visibility": visibility,
            "image_id": "7f0f1d4e-7a3b-4a43-8ad0-3b1e2d1f4c55",
            "protected": False,
        }
        for owner, member, visibility in itertools.product(
            ["p1", "p2", None],
            ["p1", None],
            ["private", "shared", "community", "public"],
        )
    ),
    {"project_id": "p1"},
    {"project_id": "p1", "owner": "p2", "visibility": "private"},
]


def oslo_enforcer(
    rules: tuple[Rule, ...], policy_file: Path, *, enforce_new_defaults: bool = True
) -> oslo.Enforcer:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    enforcer = oslo.Enforcer(conf, policy_file=str(policy_file))
    conf.set_override("enforce_new_defaults", enforce_new_defaults, group="oslo_policy")
    conf.set_override("policy_dirs", [], group="oslo_policy")
    enforcer.suppress_default_change_warnings = True
    enforcer.suppress_deprecation_warnings = True
    for rule in rules:
        old = None
        if rule.deprecated_default is not None:
            old = oslo.DeprecatedRule(
                rule.name,
                rule.deprecated_default,
                deprecated_reason="a test",
                deprecated_since="a release",
            )
        enforcer.register_default(
            oslo.RuleDefault(
                rule.name, rule.default, deprecated_rule=old, scope_types=[*rule.scope_types]
            )
        )
    enforcer.load_rules()
    return enforcer


def oslo_decides(
    enforcer: oslo.Enforcer, rule: str, who: Identity, target: Mapping[str, object]
) -> bool:
    creds = {
        key: sorted(value) if isinstance(value, frozenset) else value
        for key, value in attributes(who).items()
    }
    return bool(enforcer.authorize(rule, dict(target), creds))


FILES = {
    "none": None,
    "fully custom roles": """
        "default": "role:admin"
        "context_is_admin": "role:cloud_image_admin or role:admin"
        "get_image": "role:image_viewer or rule:own"
        "own": "project_id:%(owner)s or tenant:%(project_id)s"
        "get_images": "role:image_viewer"
        "modify_image": "rule:nobody_defined_this"
        "download_image": "not role:image_viewer and (rule:own or 'public':%(visibility)s)"
        "publicize_image": "role:image_publicize_admin"
        "communitize_image": "!"
        "add_image": [["role:member", "user:u"], ["role:admin"]]
        "copy_image": "'public':%(visibility)s"
    """,
    "an old policy.json": json.dumps(
        {
            "context_is_admin": "role:admin",
            "default": "",
            "get_image": "",
            "get_images": "",
            "modify_image": "",
            "publicize_image": "",
            "download_image": "rule:default",
            "add_member": [["rule:context_is_admin"], ["tenant:%(owner)s"]],
            "metadef_default": "!",
        },
        indent=4,
    ),
}


@pytest.mark.parametrize("enforce_new_defaults", [True, False])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_every_decision_is_that_of_oslo_policy(
    text: str | None, enforce_new_defaults: bool, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text)
    ours = Policy.load(RULES, policy_file=file, enforce_new_defaults=enforce_new_defaults)
    theirs = oslo_enforcer(RULES, file, enforce_new_defaults=enforce_new_defaults)
    different = [
        (rule.name, persona, target)
        for rule in RULES
        for persona, who in PERSONAS.items()
        for target in TARGETS
        if ours.allows(rule.name, who, target) != oslo_decides(theirs, rule.name, who, target)
    ]
    assert different == []


RULE = Rule(name="touch", default="role:member", description="Touch.")
DEFAULT = Rule(name="default", default="", description="Stands in.")


def policy_of(tmp_path: Path, text: str | None, *rules: Rule) -> Policy:
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text)
    return Policy.load(rules or (RULE, DEFAULT), policy_file=file)


def test_require_raises_forbidden_with_the_rule(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, None)
    policy.require("touch", MEMBER, {})
    with pytest.raises(Forbidden, match="rule touch"):
        policy.require("touch", ANONYMOUS, {})


def test_a_rule_that_the_service_does_not_have_is_a_bug_and_never_allowed(tmp_path: Path) -> None:
    # `default` allows everybody, and must not stand in for a misspelt rule in a route.
    with pytest.raises(KeyError):
        policy_of(tmp_path, None).allows("tuoch", MEMBER, {})


def test_tokens_of_other_scopes_are_refused_unless_scope_is_not_enforced() -> None:
    system = Identity(user_id="a", roles=frozenset({"member"}), system_scope="all")
    domain = Identity(user_id="a", roles=frozenset({"member"}), domain_id="d")
    strict = Policy.load((RULE,))
    lenient = Policy.load((RULE,), enforce_scope=False)
    for who in (system, domain):
        assert strict.refuses_scope("touch", who)
        assert not strict.allows("touch", who, {})
        assert lenient.allows("touch", who, {})
    assert strict.allows("touch", MEMBER, {})


def test_two_callers_in_turn_are_not_taken_for_each_other() -> None:
    policy = Policy.load((RULE,))
    for _ in range(3):
        assert policy.allows("touch", MEMBER, {})
        assert not policy.allows("touch", ANONYMOUS, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("touch: [", "neither YAML nor JSON"),
        ("- touch", "expected rules by name"),
        ("touch: role:a and", "rule touch"),
        ("touch: http://x/y", "another server"),
        ("touch:", "rule touch is neither text nor a list"),
        ("touch: true", "rule touch is neither text nor a list"),
        ("touch: [[1]]", "rule touch is neither text nor a list"),
        ("touch: rule:a\na: rule:touch", "circle"),
    ],
)
def test_a_broken_file_is_refused_and_named(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=reason):
        policy_of(tmp_path, text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_changes_nothing(text: str, tmp_path: Path) -> None:
    assert policy_of(tmp_path, text).allows("touch", MEMBER, {})


def test_json_with_tabs_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{\n\t"touch":\t"!"\n}')
    assert read_file(file) == {"touch": "!"}


def test_files_of_folders_win_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (tmp_path / "policy.yaml").write_text("touch: '!'\nlook: '@'\n")
    (folder / "20.yaml").write_text("touch: role:twenty")
    (folder / "10.yaml").write_text("touch: role:ten")
    (folder / ".30.yaml").write_text("touch: role:hidden")
    policy = Policy.load(
        (RULE,), policy_file=tmp_path / "policy.yaml", policy_dirs=[folder, tmp_path / "nowhere"]
    )
    assert policy.compiled.overrides == {"touch": "role:twenty", "look": "@"}


@asynccontextmanager
async def watching(policy: Policy, *, settle_time: float = 0.01) -> AsyncGenerator[None]:
    task = asyncio.create_task(policy.watch(interval=0.01, settle_time=settle_time))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def becomes(policy: Policy, allowed: bool) -> None:
    await until(lambda: policy.allows("touch", MEMBER, {}) is allowed)


def replace(file: Path, text: str) -> None:
    """Put a new file in the place, as editors and configuration tools do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_a_changed_file_is_taken_over(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "touch: '!'")
    async with watching(policy):
        assert not policy.allows("touch", MEMBER, {})
        replace(tmp_path / "policy.yaml", "touch: '@'")
        await becomes(policy, True)
        (tmp_path / "policy.yaml").write_text("touch: role:nobody")
        await becomes(policy, False)


async def test_a_file_that_appears_later_is_taken_over(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, None)
    async with watching(policy):
        replace(tmp_path / "policy.yaml", "touch: '!'")
        await becomes(policy, False)


async def test_a_broken_change_leaves_the_rules_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(tmp_path, "touch: '!'")
    async with watching(policy):
        replace(tmp_path / "policy.yaml", "touch: (role:a")
        await until(lambda: "not closed" in caplog.text)
        assert not policy.allows("touch", MEMBER, {})
        replace(tmp_path / "policy.yaml", "touch: '@'")
        await becomes(policy, True)


async def test_a_file_that_is_gone_leaves_the_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(tmp_path, "touch: '!'")
    async with watching(policy):
        (tmp_path / "policy.yaml").unlink()
        await until(lambda: "are gone" in caplog.text)
        assert not policy.allows("touch", MEMBER, {})


async def test_a_file_in_the_middle_of_being_written_is_not_taken(tmp_path: Path) -> None:
    # Truncated and written in place, it is empty for a moment, and an empty file is valid.
    policy = policy_of(tmp_path, "touch: '!'")
    async with watching(policy, settle_time=1.0):
        file = tmp_path / "policy.yaml"
        file.write_text("")
        await asyncio.sleep(0.1)
        file.write_text("touch: role:nobody")
        for _ in range(120):
            assert not policy.allows("touch", MEMBER, {})
            await asyncio.sleep(0.01)


async def test_a_folder_that_cannot_be_listed_is_refused_and_later_leaves_the_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "policy.d"
    policy = Policy.load((RULE,), policy_dirs=[folder])
    async with watching(policy):
        # A name too long for the file system: an error that root gets as well.
        folder.symlink_to("x" * 300)
        await until(lambda: "cannot be listed" in caplog.text)
        assert policy.allows("touch", MEMBER, {})
        with pytest.raises(PolicyError, match="cannot be listed"):
            Policy.load((RULE,), policy_dirs=[folder])
        folder.unlink()
        folder.mkdir()
        (folder / "a.yaml").write_text("touch: '!'")
        await becomes(policy, False)


def test_a_decision_costs_a_fraction_of_oslo_policys(tmp_path: Path) -> None:
    # The reason why rules are compiled, and the caller's attributes kept from one row to the next.
    ours = Policy.load(RULES)
    theirs = oslo_enforcer(RULES, tmp_path / "policy.yaml")
    target = TARGETS[5]

    def seconds(decide: Callable[[], object]) -> float:
        return min(timeit.repeat(decide, number=200, repeat=5))

    fast = seconds(lambda: ours.allows("get_image", MEMBER, target))
    slow = seconds(lambda: oslo_decides(theirs, "get_image", MEMBER, target))
    assert fast * 10 < slow


def test_who_may_not_be_an_administrator_is_none(tmp_path: Path) -> None:
    """Whatever the files make of the rule, and of those that stand on it."""
    file = tmp_path / "policy.yaml"
    file.write_text("admin: role:archivist or not role:nobody\n")
    rules = [
        Rule(name=name, default=default, description="")
        for name, default in (
            *(("admin", "role:admin"), ("referring", "rule:admin"), ("asking", "is_admin:True")),
            *(("others", "not rule:admin"), ("theirs", "role:archivist")),
        )
    ]
    roles = frozenset({"admin", "archivist"})
    for policy in (
        Policy.load(rules, admin_rule="admin"),
        Policy.load(rules, policy_file=file, admin_rule="admin"),
    ):
        for may_be_admin in (True, False, True):
            who = Identity(user_id="u", project_id="p", roles=roles, may_be_admin=may_be_admin)
            for rule in ("admin", "referring", "asking"):
                assert policy.allows(rule, who, {}) is may_be_admin, rule
            assert policy.allows("others", who, {}) is not may_be_admin
            assert policy.allows("theirs", who, {})
