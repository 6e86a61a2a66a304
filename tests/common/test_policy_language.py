"""The language decides as oslo.policy does, and refuses what oslo.policy trips over later."""

from collections.abc import Mapping

import pytest
from diptych_common.policy_language import (
    PolicySyntaxError,
    RuleText,
    compile_rules,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_policy import _checks, _parser, policy

CONF = cfg.ConfigOpts()
CONF([], default_config_files=[], default_config_dirs=[])

WHO: dict[str, object] = {
    "user_id": "u1",
    "project_id": "p1",
    "domain_id": None,
    "roles": frozenset({"member", "reader"}),
    "service_roles": frozenset({"service"}),
    "token": {"user": {"id": "u1", "groups": [{"id": "g1"}, {"id": "g2"}]}},
}
TARGET: dict[str, object] = {
    "project_id": "p1",
    "owner": "p2",
    "none": None,
    "visibility": "public",
    "protected": True,
    "min_disk": 5,
    "wanted": "Member",
}


def decide(
    rule: RuleText,
    *,
    others: Mapping[str, RuleText] | None = None,
    who: Mapping[str, object] = WHO,
    target: Mapping[str, object] = TARGET,
) -> bool:
    rules = {"asked": parse(rule), **{name: parse(text) for name, text in (others or {}).items()}}
    return compile_rules(rules)["asked"](who, target)


def decide_as_oslo(
    rule: RuleText,
    *,
    others: Mapping[str, RuleText] | None = None,
    who: Mapping[str, object] = WHO,
    target: Mapping[str, object] = TARGET,
) -> bool:
    """oslo.policy's decision; it knows lists, not sets."""
    plain = {
        key: sorted(value) if isinstance(value, frozenset) else value for key, value in who.items()
    }
    rules = {name: _parser.parse_rule(text) for name, text in (others or {}).items()}
    enforcer = policy.Enforcer(CONF, rules=rules, use_conf=False)
    return bool(_checks._check(_parser.parse_rule(rule), target, plain, enforcer, "asked"))


CHECKS = (
    "@",
    "!",
    "role:member",
    "role:MEMBER",
    "role:admin",
    "role:%(wanted)s",
    "role:%(missing)s",
    "roles:member",
    "roles:Member",
    "service_roles:service",
    "project_id:%(project_id)s",
    "project_id:%(owner)s",
    "project_id:%(missing)s",
    "project_id:p1",
    "user_id:%(project_id)s",
    "domain_id:%(none)s",
    "domain_id:None",
    "unknown:u1",
    "token.user.id:u1",
    "token.user.groups.id:g2",
    "token.user.groups.id:g3",
    "token.user.missing:u1",
    "'public':%(visibility)s",
    '"public":%(visibility)s',
    "'private':%(visibility)s",
    "True:%(protected)s",
    "False:%(protected)s",
    "5:%(min_disk)s",
    "5:%(min_disk)d",
    "5:%(min_disk)03d",
    "None:%(none)s",
    "'p1-p2':%(project_id)s-%(owner)s",
    "'100%':100%%",
    "rule:allowed",
    "rule:denied",
    "rule:chained",
    "rule:nobody_defined_this",
    "role:rule:x",
    "a:b:c",
)
OTHERS: dict[str, RuleText] = {
    "allowed": "",
    "denied": "!",
    "chained": "rule:allowed and not rule:denied",
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("default", [{}, {"default": ""}, {"default": "role:admin"}])
def test_each_check_decides_as_in_oslo_policy(check: str, default: dict[str, RuleText]) -> None:
    others = OTHERS | default
    assert decide(check, others=others) == decide_as_oslo(check, others=others)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ("", True),
        ("@", True),
        ("!", False),
        ("role:member", True),
        ("role:Member and project_id:%(project_id)s", True),
        ("role:member and project_id:%(owner)s", False),
        ("! or @ and !", False),
        ("@ or ! and !", True),
        ("(@ or !) and !", False),
        ("not ! and @", True),
        ("not (@ and !)", True),
        ("NOT @ OR @", True),
        ("token.user.groups.id:g2", True),
        ([], True),
        ([[]], False),
        ([["role:member", "!"], "role:reader"], True),
        ([["role:member", "!"]], False),
    ],
)
def test_known_decisions(rule: RuleText, allowed: bool) -> None:
    # Said here as well, so that a fault shared with the oracle's use would show.
    assert decide(rule) is allowed
    assert decide_as_oslo(rule) is allowed


def _joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    words = st.sampled_from([" and ", " or ", "  AND ", "\tor\n"])
    return st.one_of(
        st.tuples(parts, words, parts).map("".join),
        parts.map(lambda part: f"({part})"),
        parts.map(lambda part: f"( {part} )"),
        parts.map(lambda part: f"not {part}"),
        parts.map(lambda part: f"not ({part})"),
    )


@given(st.recursive(st.sampled_from(CHECKS), _joined, max_leaves=12))
def test_combinations_decide_as_in_oslo_policy(rule: str) -> None:
    assert decide(rule, others=OTHERS) == decide_as_oslo(rule, others=OTHERS)


@given(st.lists(st.one_of(st.sampled_from(CHECKS), st.lists(st.sampled_from(CHECKS), max_size=3))))
def test_lists_decide_as_in_oslo_policy(rule: list[str | list[str]]) -> None:
    assert decide(rule, others=OTHERS) == decide_as_oslo(rule, others=OTHERS)


@given(st.lists(st.sampled_from([*CHECKS, "(", ")", "and", "or", "not", "bare", "'quoted'"])))
def test_what_oslo_policy_can_parse_is_what_parses_here(words: list[str]) -> None:
    # oslo.policy denies with a rule that it cannot parse, and says so in the log only.
    rule = " ".join(words)
    try:
        decided = decide(rule, others=OTHERS)
    except PolicySyntaxError:
        # A word that is no check denies there, so that `not` before it allows.
        assert decide_as_oslo(rule, others=OTHERS) is False or "bare" in words
    else:
        assert decided == decide_as_oslo(rule, others=OTHERS)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("   ", "missing"),
        ("role:a role:b", "role:b"),
        ("role:a and", "missing"),
        ("or role:a", "'or'"),
        ("(role:a", "not closed"),
        ("role:a)", r"'\)'"),
        ("()", r"'\)'"),
        ("admin", "kind:match"),
        ("'role:admin'", "quoted"),
        ("http://policy.example/check", "another server"),
        ("role:a or https://policy.example/%(id)s", "another server"),
        ("project_id:%(owner)", "incomplete format"),
        ("project_id:100%", "incomplete format"),
        ("project_id:%(owner)y", "unsupported format"),
        ("12ab:x", "neither a literal nor a name"),
        (":x", "neither a literal nor a name"),
        ([["role:a", "nonsense"]], "kind:match"),
        ("(" * 51 + "@" + ")" * 51, "nested more than 50 deep"),
        ("not " * 51 + "@", "nested more than 50 deep"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_text(rule: RuleText, reason: str) -> None:
    with pytest.raises(PolicySyntaxError, match=reason) as error:
        parse(rule)
    assert "nonsense" in str(error.value) or str(rule) in str(error.value)


@pytest.mark.parametrize(
    "rules",
    [
        {"a": "rule:a"},
        {"a": "rule:b", "b": "role:x or not rule:c", "c": "rule:a"},
        {"default": "rule:nowhere"},
    ],
)
def test_rules_that_refer_to_each_other_in_a_circle_are_refused(rules: dict[str, str]) -> None:
    with pytest.raises(PolicySyntaxError, match="circle"):
        compile_rules({name: parse(text) for name, text in rules.items()})


def test_rules_that_refer_on_and_on_are_refused() -> None:
    rules = {f"r{number}": parse(f"rule:r{number + 1}") for number in range(60)}
    with pytest.raises(PolicySyntaxError, match="more than 50 times"):
        compile_rules(rules)


def test_what_may_nest_decides() -> None:
    assert decide("(" * 50 + "@" + ")" * 50) is True
    assert decide("not " * 50 + "!") is False


def test_a_value_of_the_wrong_type_denies() -> None:
    assert decide("5:%(min_disk)d", target={"min_disk": "five"}) is False


def test_a_path_into_a_plain_value_denies() -> None:
    assert decide("project_id.id:p1") is False
    assert decide("domain_id.id:None") is False
