"""What a service's `policy sample | check` print, and the policy page of the manual."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from diptych_common import policy_language
from diptych_common.identity import Identity
from diptych_common.policy import Policy, Rule, scope_of
from diptych_common.policy_language import (
    All,
    Attribute,
    Constant,
    Either,
    Literal,
    Node,
    Not,
    Reference,
    Role,
)

_WIDTH: Final = 100


def sample(rules: Sequence[Rule]) -> str:
    """A policy file with every rule commented out, its default and the requests that ask it."""
    lines: list[str] = []
    for rule in rules:
        about = [rule.description, *(f"{one.method} {one.path}" for one in rule.operations)]
        for text in about:
            lines += textwrap.wrap(
                text,
                _WIDTH - 2,
                initial_indent="# ",
                subsequent_indent="# ",
                break_long_words=False,
            )
        lines += [f'# "{rule.name}": "{rule.default}"', ""]
    return "\n".join(lines)


def document(rules: Sequence[Rule]) -> str:
    """The rules as a Markdown table."""
    lines = ["| Rule | Default | Asked by | |", "| --- | --- | --- | --- |"]
    for rule in rules:
        asked = "<br>".join(f"`{one.method} {one.path}`" for one in rule.operations)
        default = f"`{rule.default}`" if rule.default else "everybody"
        cells = [f"`{rule.name}`", default, asked, rule.description]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def check(policy: Policy) -> list[str]:
    """A line for everything in the operator's files that they may not have meant.

    The files are valid, or there would be no `policy`.
    """
    trees, overrides = policy.compiled.trees, policy.compiled.overrides
    referred = {name for tree in trees.values() for name in _references(tree)}
    lines: list[str] = []
    for name in sorted(overrides):
        if name not in policy.rules and name not in referred:
            lines.append(f"{name}: no request asks this rule, and no rule refers to it")
        elif name in policy.rules and trees[name] == policy_language.parse(
            policy.rules[name].default
        ):
            lines.append(f"{name}: is the default, and can be left out")
        lines += [
            f"{name}: refers to rule:{other}, which is not defined; rule:{policy.default_rule}"
            f" {'stands in' if policy.default_rule in trees else 'neither, so it denies'}"
            for other in sorted(_references(trees[name]) - trees.keys())
        ]
    return lines


def _references(tree: Node) -> set[str]:
    match tree:
        case Reference(name):
            return {name}
        case Not(part):
            return _references(part)
        case All(parts) | Either(parts):
            return set[str]().union(*(_references(part) for part in parts))
        case _:
            return set()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A part of a rule, whether it holds, why, and the parts it is made of.

    `decides` is true where the outcome of the whole would not be told by the parts beside it:
    following these from the top gives the reason of the decision.
    """

    text: str
    holds: bool
    why: str = ""
    parts: tuple["Explanation", ...] = ()
    decides: bool = True

    def lines(self, indent: int = 0) -> list[str]:
        """The explanation as an indented tree; `*` marks the parts that decide."""
        why = f"  ({self.why})" if self.why else ""
        mark = "*" if self.decides else " "
        verdict = "allows" if self.holds else "denies"
        line = f"{mark} {'  ' * indent}{verdict}: {self.text}{why}"
        return [line, *(below for part in self.parts for below in part.lines(indent + 1))]


def explain(policy: Policy, rule: str, who: Identity, target: Mapping[str, object]) -> Explanation:
    """Why the policy decides as it does; `holds` is what `policy.allows` says.

    KeyError if there is no such rule.
    """
    tree = policy.compiled.trees[rule]
    if policy.refuses_scope(rule, who):
        scopes = " or ".join(policy.rules[rule].scope_types)
        why = f"the rule is for tokens of a {scopes}, and this one is of a {scope_of(who)}"
        return Explanation(rule, holds=False, why=why)
    inner = _explain(tree, policy, policy.attributes_of(who), target, decides=True)
    why = _origin(policy, rule)
    return Explanation(f"rule:{rule}", holds=inner.holds, why=why, parts=(inner,))


def _origin(policy: Policy, rule: str) -> str:
    file = policy.compiled.origins.get(rule)
    return "default" if file is None else f"policy file {file}"


# Roles that Keystone's bootstrap lets imply others: whoever has the one has the other.
_IMPLIED: Final = {"admin": "manager", "manager": "member", "member": "reader"}


def with_implied_roles(roles: Iterable[str]) -> frozenset[str]:
    """The roles that a token has for somebody who was given these, in lower case."""
    found: set[str] = set()
    for role in roles:
        name: str | None = role.lower()
        while name is not None and name not in found:
            found.add(name)
            name = _IMPLIED.get(name)
    return frozenset(found)


def parse_target(pairs: Iterable[str]) -> dict[str, object]:
    """A target from `attribute=value` as a person types it. ValueError names what is not one.

    Rules compare texts, so `True` and `None` are written as Python does.
    """
    target: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} is not attribute=value")
        target[name] = value
    return target


def _explain(
    tree: Node,
    policy: Policy,
    who: Mapping[str, object],
    target: Mapping[str, object],
    *,
    decides: bool,
) -> Explanation:
    def inside(part: Node, *, decides: bool) -> Explanation:
        return _explain(part, policy, who, target, decides=decides)

    match tree:
        case Constant(allows, text):
            return Explanation(text or '""', holds=allows, decides=decides)
        case Not(part):
            inner = inside(part, decides=decides)
            return Explanation("not", holds=not inner.holds, parts=(inner,), decides=decides)
        case Reference(name):
            return _explain_reference(name, policy, who, target, decides=decides)
        case All(parts) | Either(parts):
            # One that denies settles `and`, one that allows settles `or`; else all of them do.
            settles = isinstance(tree, Either)
            plain = [inside(part, decides=decides) for part in parts]
            settled = any(part.holds == settles for part in plain)
            told = tuple(
                part if part.holds == settles or not settled else inside(node, decides=False)
                for node, part in zip(parts, plain, strict=True)
            )
            holds = settled == settles
            word = "or" if settles else "and"
            return Explanation(word, holds=holds, parts=told, decides=decides)
        case Role() | Literal() | Attribute():
            holds = policy_language.compile_rule(tree, _no_rules)(who, target)
            return Explanation(
                policy_language.text_of(tree),
                holds=holds,
                why=_compared(tree, who, target),
                decides=decides,
            )


def _explain_reference(
    name: str,
    policy: Policy,
    who: Mapping[str, object],
    target: Mapping[str, object],
    *,
    decides: bool,
) -> Explanation:
    trees = policy.compiled.trees
    actual = name if name in trees else policy.default_rule
    why = _origin(policy, name) if name in trees else f"not defined; rule:{actual} stands in"
    if actual not in trees:
        why = "not defined"
        return Explanation(f"rule:{name}", holds=False, why=why, decides=decides)
    inner = _explain(trees[actual], policy, who, target, decides=decides)
    return Explanation(f"rule:{name}", holds=inner.holds, why=why, parts=(inner,), decides=decides)


def _no_rules(name: str) -> policy_language.Check:
    raise KeyError(name)


def _compared(
    tree: Role | Literal | Attribute, who: Mapping[str, object], target: Mapping[str, object]
) -> str:
    wanted = policy_language.pattern_of(tree.pattern)(target)
    if wanted is None:
        return "the target lacks that attribute"
    match tree:
        case Role():
            roles = ", ".join(sorted(cast("frozenset[str]", who["roles"])))
            return f"the caller has {roles or 'no roles'}"
        case Literal():
            return f"the target has {wanted}"
        case Attribute(path):
            value = who.get(path[0]) if len(path) == 1 else "…"
            return f"the caller has {value}, wanted is {wanted}"
