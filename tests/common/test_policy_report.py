"""What `policy sample` and `policy check` tell."""

from pathlib import Path

import pytest
import yaml
from diptych_common import policy_report
from diptych_common.identity import Identity
from diptych_common.policy import Policy
from diptych_common.policy_report import Explanation
from diptych_images.policies import RULES

MEMBER = Identity(user_id="u", project_id="p1", roles=frozenset({"member", "reader"}))


def policy_with(tmp_path: Path, text: str) -> Policy:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return Policy.load(RULES, policy_file=file)


def deciding(explanation: Explanation) -> list[str]:
    """The checks at the ends that decide."""
    if not explanation.decides:
        return []
    if not explanation.parts:
        return [explanation.text]
    return [text for part in explanation.parts for text in deciding(part)]


def test_the_sample_uncommented_is_the_defaults(tmp_path: Path) -> None:
    text = policy_report.sample(RULES)
    assert yaml.safe_load(text) is None
    rules = [line.removeprefix("# ") for line in text.splitlines() if line.startswith('# "')]
    assert yaml.safe_load("\n".join(rules)) == {rule.name: rule.default for rule in RULES}


def test_what_an_operator_may_not_have_meant_is_listed(tmp_path: Path) -> None:
    policy = policy_with(
        tmp_path,
        """
        get_imgae: role:reader
        publicize_image: rule:context_is_admin
        delete_image: rule:amdin or rule:ours
        ours: role:ours
        """,
    )
    assert policy_report.check(policy) == [
        "delete_image: refers to rule:amdin, which is not defined; rule:default stands in",
        "get_imgae: no request asks this rule, and no rule refers to it",
        "publicize_image: is the default, and can be left out",
    ]


def test_a_file_without_surprises_has_no_lines(tmp_path: Path) -> None:
    assert policy_report.check(policy_with(tmp_path, "delete_image: '!'")) == []


@pytest.mark.parametrize(
    ("rule", "target", "holds", "reasons"),
    [
        ("get_image", {"project_id": "p1"}, True, ["role:reader", "project_id:%(project_id)s"]),
        (
            "delete_image",
            {"project_id": "p2"},
            False,
            ["role:admin", "project_id:%(project_id)s"],
        ),
        ("publicize_image", {}, False, ["role:admin"]),
        ("get_task", {}, True, ['""']),
    ],
)
def test_the_parts_that_decide_are_marked(
    rule: str, target: dict[str, object], holds: bool, reasons: list[str]
) -> None:
    policy = Policy.load(RULES)
    explanation = policy_report.explain(policy, rule, MEMBER, target)
    assert explanation.holds is holds is policy.allows(rule, MEMBER, target)
    assert deciding(explanation) == reasons


def test_not_turns_the_reason_around(tmp_path: Path) -> None:
    policy = policy_with(tmp_path, "get_image: not (role:member or role:admin)")
    explanation = policy_report.explain(policy, "get_image", MEMBER, {})
    assert not explanation.holds
    assert deciding(explanation) == ["role:member"]


def test_a_reference_to_nothing_tells_what_stands_in(tmp_path: Path) -> None:
    policy = policy_with(tmp_path, "get_image: rule:nowhere")
    lines = "\n".join(policy_report.explain(policy, "get_image", MEMBER, {}).lines())
    assert "rule:nowhere  (not defined; rule:default stands in)" in lines


def test_a_token_of_another_scope_is_the_reason() -> None:
    who = Identity(user_id="u", roles=frozenset({"admin"}), system_scope="all")
    explanation = policy_report.explain(Policy.load(RULES), "get_image", who, {})
    assert not explanation.holds
    assert "of a project, and this one is of a system" in explanation.why


def test_lines_tell_values_of_caller_and_target() -> None:
    target: dict[str, object] = {"project_id": "p2", "visibility": "private", "member_id": None}
    lines = policy_report.explain(Policy.load(RULES), "get_image", MEMBER, target).lines()
    assert lines[0] == "* denies: rule:get_image  (default)"
    text = "\n".join(lines)
    assert "project_id:%(project_id)s  (the caller has p1, wanted is p2)" in text
    assert "'public':%(visibility)s  (the target has private)" in text
    assert "role:admin  (the caller has member, reader)" in text


def test_roles_bring_those_that_they_imply() -> None:
    assert policy_report.with_implied_roles(["Admin"]) == {"admin", "manager", "member", "reader"}
    assert policy_report.with_implied_roles(["member", "other"]) == {"member", "reader", "other"}


def test_a_target_is_typed_as_pairs() -> None:
    assert policy_report.parse_target(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(ValueError, match="'nonsense' is not attribute=value"):
        policy_report.parse_target(["nonsense"])


def test_where_a_rule_is_from_is_told(tmp_path: Path) -> None:
    policy = policy_with(tmp_path, "context_is_admin: role:boss\nget_image: rule:context_is_admin")
    lines = policy_report.explain(policy, "get_image", MEMBER, {}).lines()
    (file,) = {policy.compiled.origins[name] for name in ("context_is_admin", "get_image")}
    assert file.parent == tmp_path
    assert lines[0] == f"* denies: rule:get_image  (policy file {file})"
    assert lines[1] == f"*   denies: rule:context_is_admin  (policy file {file})"
