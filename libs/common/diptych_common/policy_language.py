"""The language of policy rules: text → tree → closure.

It is oslo.policy's, and decisions are the same. Where oslo.policy logs a line and then denies, or
fails on the first request, a rule is refused here when it is read: `PolicySyntaxError`. Those are
rules that do not parse, name no key, have a malformed `%`, refer to themselves, or ask a remote
server (`http:`, `https:`). A value of the wrong type for its `%` conversion denies.

    rule      := "" | or-expression          "" allows
    or-…      := and-… ("or" and-…)*
    and-…     := not-… ("and" not-…)*
    not-…     := "not" not-… | "(" or-expression ")" | check
    check     := "@" | "!" | rule:NAME | role:PATTERN | KEY:PATTERN

PATTERN may hold `%(attribute)s` of the target. KEY is a literal (`'public'`, `True`, `12`) or a
dotted path into the caller's attributes; a check on a list holds if it holds for one item.

Source: oslo.policy 6.0, `_parser` and `_checks`.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

# How deep `not` and parentheses may nest, and references may lead on. Rules of people stay in
# single digits; what is deeper could exhaust the stack in the middle of a request.
MAX_DEPTH: Final = 50

# Attributes of the caller, attributes of the object → allowed?
Check = Callable[[Mapping[str, object], Mapping[str, object]], bool]

# A rule as a policy file has it: text, or the old form: a list (or) of lists (and) of checks.
RuleText = str | Sequence[str | Sequence[str]]


class PolicySyntaxError(Exception):
    """A rule that cannot be understood; the message has the rule and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Constant:
    """`@` and `!`, and the empty rule."""

    allows: bool
    text: str


@dataclass(frozen=True, slots=True)
class Reference:
    """`rule:NAME`."""

    name: str


@dataclass(frozen=True, slots=True)
class Role:
    """`role:PATTERN`."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Literal:
    """`'literal':PATTERN`; `value` is what the pattern must come to."""

    key: str
    value: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """`path.of.key:PATTERN`."""

    path: tuple[str, ...]
    pattern: str


@dataclass(frozen=True, slots=True)
class Not:
    """`not X`."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class All:
    """`X and Y`."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """`X or Y`."""

    parts: tuple["Node", ...]


Node = Constant | Reference | Role | Literal | Attribute | Not | All | Either


def text_of(check: Role | Literal | Attribute) -> str:
    """The check as a rule has it."""
    match check:
        case Role(pattern):
            return f"role:{pattern}"
        case Literal(key, _, pattern):
            return f"{key}:{pattern}"
        case Attribute(path, pattern):
            return f"{'.'.join(path)}:{pattern}"


# --- Text → tree ------------------------------------------------------------------------------


def parse(rule: RuleText) -> Node:
    """The tree of a rule. Raises PolicySyntaxError."""
    return _parse_text(rule) if isinstance(rule, str) else _parse_lists(rule)


def _parse_text(rule: str) -> Node:
    if not rule:
        return Constant(True, "")
    tokens = _Tokens(rule)
    tree = _parse_or(tokens)
    if tokens.here is not None:
        raise PolicySyntaxError(f"{rule!r}: {tokens.here!r} is not expected there")
    return tree


def _parse_lists(rule: Sequence[str | Sequence[str]]) -> Node:
    if not rule:
        return Constant(True, "[]")
    alternatives = [[item] if isinstance(item, str) else item for item in rule if item]
    if not alternatives:
        return Constant(False, "[[]]")
    nodes = [_join(All, [_parse_check(text, text) for text in item]) for item in alternatives]
    return _join(Either, nodes)


def _join(kind: type[All] | type[Either], nodes: Sequence[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else kind(tuple(nodes))


class _Tokens:
    """The words of a rule, with one to look at."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self._words = _words(rule)
        self.here: str | None = next(self._words, None)

    def take(self) -> str:
        """The word here, moving on to the next."""
        if self.here is None:
            raise PolicySyntaxError(f"{self.rule!r}: something is missing at the end")
        word, self.here = self.here, next(self._words, None)
        return word

    def take_if(self, word: str) -> bool:
        """Move on if this word is here."""
        if self.here is None or self.here.lower() != word:
            return False
        self.take()
        return True


def _words(rule: str) -> Iterator[str]:
    for chunk in rule.split():
        # Parentheses count only at the ends of a word, for `%(name)s` has them inside.
        word = chunk.lstrip("(")
        yield from "(" * (len(chunk) - len(word))
        bare = word.rstrip(")")
        if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"":
            raise PolicySyntaxError(f"{rule!r}: {word} is a quoted text, not a check")
        if bare:
            yield bare
        yield from ")" * (len(word) - len(bare))


def _parse_or(tokens: _Tokens, depth: int = 0) -> Node:
    parts = [_parse_and(tokens, depth)]
    while tokens.take_if("or"):
        parts.append(_parse_and(tokens, depth))
    return _join(Either, parts)


def _parse_and(tokens: _Tokens, depth: int) -> Node:
    parts = [_parse_not(tokens, depth)]
    while tokens.take_if("and"):
        parts.append(_parse_not(tokens, depth))
    return _join(All, parts)


def _parse_not(tokens: _Tokens, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise PolicySyntaxError(f"{tokens.rule!r}: nested more than {MAX_DEPTH} deep")
    if tokens.take_if("not"):
        return Not(_parse_not(tokens, depth + 1))
    if tokens.take_if("("):
        inner = _parse_or(tokens, depth + 1)
        if not tokens.take_if(")"):
            raise PolicySyntaxError(f"{tokens.rule!r}: a parenthesis is not closed")
        return inner
    return _parse_check(tokens.take(), tokens.rule)


def _parse_check(text: str, rule: str) -> Node:
    if text in ("@", "!"):
        return Constant(text == "@", text)
    kind, colon, pattern = text.partition(":")
    if not colon:
        raise PolicySyntaxError(f"{rule!r}: {text!r} is not a check, which has the form kind:match")
    if kind in ("http", "https"):
        raise PolicySyntaxError(f"{rule!r}: rules that ask another server are not supported")
    if kind == "rule":
        return Reference(pattern)
    try:
        _ = pattern % _AnyTarget()
    except (TypeError, ValueError) as error:
        raise PolicySyntaxError(f"{rule!r}: {pattern!r}: {error}") from error
    if kind == "role":
        return Role(pattern)
    try:
        return Literal(kind, str(ast.literal_eval(kind)), pattern)
    except ValueError:  # a name, not a literal
        return Attribute(tuple(kind.split(".")), pattern)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise PolicySyntaxError(f"{rule!r}: {kind!r} is neither a literal nor a name") from error


class _AnyTarget(dict[str, object]):
    """A target with every attribute, to try a pattern on: 0 goes with every conversion."""

    def __missing__(self, key: str) -> object:
        return 0


# --- Tree → closure ---------------------------------------------------------------------------


def compile_rules(rules: Mapping[str, Node], *, default_rule: str = "default") -> dict[str, Check]:
    """One closure for each rule.

    A reference to a rule that is not there means `default_rule`; if that is not there either, it
    denies. Raises PolicySyntaxError if rules refer to each other in a circle, or too far.
    """
    compiled: dict[str, Check] = {}
    pending: list[str] = []

    def checked(name: str) -> Check:
        target = name if name in rules else default_rule
        if target not in rules:
            return _deny
        if target in pending:
            circle = " → ".join([*pending[pending.index(target) :], target])
            raise PolicySyntaxError(f"Rules refer to each other in a circle: {circle}")
        if len(pending) > MAX_DEPTH:
            chain = " → ".join(pending[:5])
            raise PolicySyntaxError(f"Rules refer on more than {MAX_DEPTH} times: {chain} → …")
        if target not in compiled:
            pending.append(target)
            compiled[target] = compile_rule(rules[target], checked)
            pending.pop()
        return compiled[target]

    for name in rules:
        checked(name)
    return compiled


def compile_rule(rule: Node, referred: Callable[[str], Check]) -> Check:
    """The closure of one tree; `referred` gives those of the rules that it refers to."""
    match rule:
        case Constant(allows):
            return _allow if allows else _deny
        case Reference(name):
            return referred(name)
        case Role(pattern):
            return _compile_role(pattern)
        case Literal(_, value, pattern):
            return _compile_literal(value, pattern)
        case Attribute(path, pattern):
            return _compile_attribute(path, pattern)
        case Not(part):
            return _compile_not(compile_rule(part, referred))
        case All(parts):
            return _compile_all(tuple(compile_rule(part, referred) for part in parts))
        case Either(parts):
            return _compile_either(tuple(compile_rule(part, referred) for part in parts))


def _allow(_who: Mapping[str, object], _target: Mapping[str, object]) -> bool:
    return True


def _deny(_who: Mapping[str, object], _target: Mapping[str, object]) -> bool:
    return False


def _compile_not(check: Check) -> Check:
    return lambda who, target: not check(who, target)


def _compile_all(checks: tuple[Check, ...]) -> Check:
    def all_hold(who: Mapping[str, object], target: Mapping[str, object]) -> bool:
        for check in checks:  # noqa: SIM110 - a generator would take three times as long
            if not check(who, target):
                return False
        return True

    return all_hold


def _compile_either(checks: tuple[Check, ...]) -> Check:
    def one_holds(who: Mapping[str, object], target: Mapping[str, object]) -> bool:
        for check in checks:  # noqa: SIM110 - as above
            if check(who, target):
                return True
        return False

    return one_holds


def _compile_role(pattern: str) -> Check:
    if "%" not in pattern:
        role = pattern.lower()
        return lambda who, _target: role in cast("frozenset[str]", who["roles"])
    expand = pattern_of(pattern)

    def has_role(who: Mapping[str, object], target: Mapping[str, object]) -> bool:
        wanted = expand(target)
        return wanted is not None and wanted.lower() in cast("frozenset[str]", who["roles"])

    return has_role


def _compile_literal(value: str, pattern: str) -> Check:
    expand = pattern_of(pattern)
    return lambda _who, target: expand(target) == value


def _compile_attribute(path: tuple[str, ...], pattern: str) -> Check:
    expand = pattern_of(pattern)
    if len(path) == 1:
        (key,) = path

        def equals(who: Mapping[str, object], target: Mapping[str, object]) -> bool:
            wanted = expand(target)
            return wanted is not None and key in who and _is(who[key], (), wanted)

        return equals

    def found(who: Mapping[str, object], target: Mapping[str, object]) -> bool:
        wanted = expand(target)
        return wanted is not None and _is(who, path, wanted)

    return found


def _is(value: object, path: tuple[str, ...], wanted: str) -> bool:
    """Whether the value at the path, or one item of a list there, reads as `wanted`.

    The text of a value counts, so that None reads as `None`, as oslo.policy compares.
    """
    if isinstance(value, (list, tuple, frozenset, set)):
        items = cast("Sequence[object]", value)
        return any(_is(item, path, wanted) for item in items)
    if not path:
        return str(value) == wanted
    if not isinstance(value, Mapping) or path[0] not in value:
        return False
    return _is(cast("Mapping[str, object]", value)[path[0]], path[1:], wanted)


_WHOLE_ATTRIBUTE = re.compile(r"%\(([^()%]*)\)s")


def pattern_of(pattern: str) -> Callable[[Mapping[str, object]], str | None]:
    """A function from a target to the pattern's text; None if the target lacks an attribute."""
    if "%" not in pattern:
        return lambda _target: pattern
    whole = _WHOLE_ATTRIBUTE.fullmatch(pattern)
    if whole is None:

        def expand(target: Mapping[str, object]) -> str | None:
            try:
                return pattern % target
            except (KeyError, TypeError, ValueError):
                return None

        return expand

    # Nearly every pattern is one attribute; `%` would take twice as long.
    key = whole[1]

    def attribute(target: Mapping[str, object]) -> str | None:
        try:
            value = target[key]
        except KeyError:
            return None
        return value if type(value) is str else str(value)

    return attribute
