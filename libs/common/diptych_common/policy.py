"""Who may do what: rules with defaults in code, and an operator's file over them.

Rules are compiled once (`policy_language`) and again when the file changes. What a service's
`policy` commands print is in `diptych_common.policy_report`.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, cast

import yaml

from diptych_common import policy_language, watching
from diptych_common.errors import Forbidden
from diptych_common.identity import Identity
from diptych_common.policy_language import Check, Node, PolicySyntaxError, RuleText

log = logging.getLogger(__name__)

_MAY_BE: Final = policy_language.Attribute(("may_be_admin",), "True")

Scope = Literal["project", "domain", "system"]


@dataclass(frozen=True, slots=True)
class Operation:
    """A request that a rule is asked about; `path` is a template, as `/v2/images/{image_id}`."""

    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that the service asks, and its default.

    `deprecated_default` is the default of older releases, which allows too unless new defaults
    are enforced. `scope_types` are the kinds of token that it is meant for.
    """

    name: str
    default: str
    description: str
    operations: tuple[Operation, ...] = ()
    deprecated_default: str | None = None
    scope_types: tuple[Scope, ...] = ("project",)


class PolicyError(Exception):
    """A policy file that cannot be used; the message names the file, and the rule if it is one."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The rules in force: trees and closures by name; the texts that came from files, and which."""

    trees: Mapping[str, Node]
    checks: Mapping[str, Check]
    overrides: Mapping[str, RuleText]
    origins: Mapping[str, Path]


class Policy:
    """The decisions. Made by `load`; `watch` keeps it up to date with its files."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        policy_file: Path | None,
        policy_dirs: Sequence[Path],
        default_rule: str,
        enforce_scope: bool,
        enforce_new_defaults: bool,
        admin_rule: str | None,
    ) -> None:
        """Reads the files; raises PolicyError. `load` has the meaning of the arguments."""
        self.rules: Mapping[str, Rule] = {rule.name: rule for rule in rules}
        self.default_rule = default_rule
        self.enforces_scope = enforce_scope
        self.enforces_new_defaults = enforce_new_defaults
        self._admin_rule = admin_rule
        self._policy_file = policy_file
        self._policy_dirs = tuple(policy_dirs)
        self._fingerprint = self._look()
        self.compiled = self._read()
        self._last: tuple[Identity, Mapping[str, object]] | None = None

    @classmethod
    def load(
        cls,
        rules: Sequence[Rule],
        *,
        policy_file: Path | None = None,
        policy_dirs: Sequence[Path] = (),
        default_rule: str = "default",
        enforce_scope: bool = True,
        enforce_new_defaults: bool = True,
        admin_rule: str | None = None,
    ) -> "Policy":
        """The policy of `rules`, changed by the file and then by the files of the folders.

        A file or folder that is not there changes nothing, and counts from the moment it is.
        `default_rule` stands in for rules that are referred to but not defined. Where `admin_rule`
        is given, rules may ask for `is_admin`: whether that one allows the caller; and it denies
        callers who may not be administrators, whatever the files make of it. Raises PolicyError.
        """
        return cls(
            rules,
            policy_file=policy_file,
            policy_dirs=policy_dirs,
            default_rule=default_rule,
            enforce_scope=enforce_scope,
            enforce_new_defaults=enforce_new_defaults,
            admin_rule=admin_rule,
        )

    def allows(self, rule: str, who: Identity, target: Mapping[str, object]) -> bool:
        """Whether the caller may. KeyError if there is no such rule."""
        return self.asked(rule, who)(target)

    def asked(self, rule: str, who: Identity) -> Callable[[Mapping[str, object]], bool]:
        """The question whether the caller may, for many targets. KeyError as `allows`."""
        check = self.compiled.checks[rule]
        if self.refuses_scope(rule, who):
            return _nothing
        return partial(check, self.attributes_of(who))

    def require(self, rule: str, who: Identity, target: Mapping[str, object]) -> None:
        """Raise Forbidden unless the caller may."""
        if not self.allows(rule, who, target):
            raise Forbidden(f"Your token does not allow this: rule {rule} denies it.")

    def refuses_scope(self, rule: str, who: Identity) -> bool:
        """Whether the caller's token is of a kind that the rule is not meant for."""
        known = self.rules.get(rule)
        return (
            self.enforces_scope
            and known is not None
            and bool(known.scope_types)
            and scope_of(who) not in known.scope_types
        )

    def attributes_of(self, who: Identity) -> Mapping[str, object]:
        """What rules may ask about the caller."""
        # One request asks many times about one caller: a page of a list, once per row.
        last = self._last
        if last is None or last[0] is not who:
            asked = attributes(who)
            if self._admin_rule is not None:
                asked["may_be_admin"] = who.may_be_admin
                asked["is_admin"] = self.compiled.checks[self._admin_rule](asked, {})
            last = self._last = (who, asked)
        return last[1]

    async def watch(
        self,
        *,
        interval: float = watching.WATCH_INTERVAL,
        settle_time: float = watching.SETTLE_TIME,
    ) -> None:
        """Take over changes of the files, forever; cancel it to stop.

        A change that cannot be used is logged, and the rules stay as they were. So they do when
        the file is gone, for it may be in the middle of being replaced.
        """
        async for seen in watching.changes(
            self._look, self._fingerprint, interval=interval, settle_time=settle_time
        ):
            if not seen:
                log.warning("The policy files are gone; the rules stay as they were.")
                continue
            try:
                self.compiled = await asyncio.to_thread(self._read)
            except PolicyError as error:
                log.error("The policy stays as it was: %s", error)
            else:
                self._last = None  # whether the caller is_admin may have changed
                log.info("The policy was read again.")

    def _files(self) -> list[Path]:
        """The files that are there, in the order in which they count. Raises PolicyError."""
        try:
            files = [self._policy_file] if self._policy_file and self._policy_file.is_file() else []
            for folder in self._policy_dirs:
                if folder.is_dir():
                    files += sorted(
                        path
                        for path in folder.iterdir()
                        if path.is_file() and not path.name.startswith(".")
                    )
        except OSError as error:
            raise PolicyError(f"The policy files cannot be listed: {error}") from error
        return files

    def _look(self) -> watching.Fingerprint:
        """The state that the files are in; one that cannot be told is a state as well."""
        try:
            return watching.fingerprint(self._files())
        except (PolicyError, OSError) as error:
            return ((str(error), 0, 0, 0),)

    def _read(self) -> Compiled:
        overrides: dict[str, RuleText] = {}
        origins: dict[str, Path] = {}
        trees: dict[str, Node] = {}
        for file in self._files():
            for name, text in read_file(file).items():
                overrides[name], origins[name] = text, file
                trees[name] = _parsed(text, name, str(file))
        for rule in self.rules.values():
            if rule.name not in trees:
                trees[rule.name] = self._default(rule)
        enforced = dict(trees)
        if self._admin_rule is not None:
            enforced[self._admin_rule] = policy_language.All((_MAY_BE, trees[self._admin_rule]))
        try:
            checks = policy_language.compile_rules(enforced, default_rule=self.default_rule)
        except PolicySyntaxError as error:
            raise PolicyError(str(error)) from error
        return Compiled(trees, checks, overrides, origins)

    def _default(self, rule: Rule) -> Node:
        current = policy_language.parse(rule.default)
        if self.enforces_new_defaults or rule.deprecated_default is None:
            return current
        return policy_language.Either((current, policy_language.parse(rule.deprecated_default)))


def _nothing(_: Mapping[str, object]) -> bool:
    return False


def scope_of(who: Identity) -> Scope:
    """What kind of token the caller has; unscoped ones count as a project's.

    Source: oslo.policy 6.0, `Enforcer._enforce_scope`.
    """
    if who.system_scope:
        return "system"
    return "domain" if who.domain_id else "project"


def attributes(who: Identity) -> dict[str, object]:
    """What rules may ask about a caller, by the names that policy files use.

    Source: oslo.context 6.5 `to_policy_values`, and Glance 33.0 for `user` and `tenant`.
    """
    return {
        "user_id": who.user_id,
        "user": who.user_id,
        "user_domain_id": who.user_domain_id,
        "project_id": who.project_id,
        "tenant": who.project_id,
        "project_domain_id": who.project_domain_id,
        "domain_id": who.domain_id,
        "system_scope": who.system_scope,
        # oslo.policy sets this one only for a token of system scope.
        **({"system": who.system_scope} if who.system_scope else {}),
        "roles": who.roles,
        "is_admin_project": True,
        "service_user_id": who.service_user_id,
        "service_project_id": who.service_project_id,
        "service_roles": who.service_roles,
    }


def read_file(file: Path) -> dict[str, RuleText]:
    """The rules of one YAML or JSON file, not parsed yet. Raises PolicyError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{file}: cannot be read: {error}") from error
    try:
        # JSON is YAML but for its tabs, and old files have those.
        document: object = json.loads(text)
    except ValueError:
        document = _yaml(text, file)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise PolicyError(f"{file}: expected rules by name, found {type(document).__name__}")
    rules = cast("dict[object, object]", document)
    return {str(name): _rule_text(value, str(name), file) for name, value in rules.items()}


def _yaml(text: str, file: Path) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PolicyError(f"{file}: is neither YAML nor JSON: {error}") from error


def _rule_text(value: object, name: str, file: Path) -> RuleText:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(
        _is_alternative(item) for item in cast("list[object]", value)
    ):
        return cast(RuleText, value)
    # oslo.policy takes a rule without a value for one that allows everybody.
    raise PolicyError(
        f"{file}: rule {name} is neither text nor a list;"
        ' write "" to allow everybody, "!" to allow nobody'
    )


def _is_alternative(item: object) -> bool:
    if isinstance(item, list):
        return all(isinstance(check, str) for check in cast("list[object]", item))
    return isinstance(item, str)


def _parsed(text: RuleText, name: str, file: str) -> Node:
    try:
        return policy_language.parse(text)
    except PolicySyntaxError as error:
        raise PolicyError(f"{file}: rule {name}: {error}") from error
