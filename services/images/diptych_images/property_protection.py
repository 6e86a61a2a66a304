"""Who may create, read, update and delete which custom properties, by an operator's file.

The file is Glance's: its sections are regular expressions, of which the first that is found in the
name of a property counts, in the order of the file. Properties that no section is about are
denied to everybody. The service's own properties (`os_glance…`) are not subject to it.

Source: Glance 33.0, common/property_utils.py; its configuration guide, "Property protections".
"""

import asyncio
import configparser
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from diptych_common import watching
from diptych_common.identity import Identity
from diptych_common.policy import Policy
from diptych_common.settings import Loaded

from diptych_images.settings import ImagesSettings
from diptych_images.wire.image import RESERVED_PREFIX
from diptych_images.wire.patch import Access

log = logging.getLogger(__name__)

RuleFormat = Literal["roles", "policies"]

_ACCESSES: Final[tuple[Access, ...]] = get_args(Access)

# Everybody or nobody, those with one of these roles (lower-cased), or whom this rule allows.
Permission = bool | frozenset[str] | str


class PropertyProtectionError(ValueError):
    """A file that cannot be used; the message names it, and the section if it is one."""


@dataclass(frozen=True, slots=True)
class Section:
    """What may be done with properties in whose name the pattern is found, and by whom."""

    pattern: re.Pattern[str]
    permissions: Mapping[Access, Permission]


def read(file: Path, rule_format: RuleFormat, policy: Policy) -> tuple[Section, ...]:
    """The sections of the file in their order. Raises PropertyProtectionError."""
    # Without interpolation: a percent sign in a name is one.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise PropertyProtectionError(f"{file}: cannot be read: {error}") from error
    sections: list[Section] = []
    for name in parser.sections():
        try:
            pattern = re.compile(name)
        except re.error as error:
            raise PropertyProtectionError(
                f"{file}: [{name}] is not a regular expression: {error}"
            ) from error
        if name.startswith(RESERVED_PREFIX):
            log.warning("%s: [%s] has no effect: such properties are the service's.", file, name)
            continue
        permissions: dict[Access, Permission] = {}
        for access in _ACCESSES:
            text = parser.get(name, access, fallback=None)
            if text is None:
                raise PropertyProtectionError(f"{file}: [{name}] does not say who may {access}.")
            try:
                permissions[access] = _permission(text, rule_format, policy)
            except ValueError as error:
                raise PropertyProtectionError(f"{file}: [{name}] {access}: {error}") from error
        sections.append(Section(pattern, permissions))
    return tuple(sections)


def _permission(text: str, rule_format: RuleFormat, policy: Policy) -> Permission:
    """Raises ValueError for what is no permission; an empty one is nobody's."""
    names = {part.strip() for part in text.split(",")} - {""}
    if {"@", "!"} <= names:
        raise ValueError("@ (everybody) and ! (nobody) exclude each other.")
    if rule_format == "policies" and len(names) > 1:
        raise ValueError("expected one rule of the policy.")
    if "@" in names:
        return True
    if "!" in names or not names:
        return False
    if rule_format == "roles":
        return frozenset(name.lower() for name in names)
    (rule,) = names
    # In Glance a name that is misspelled stands for the rule `default`, which allows everybody.
    if rule not in policy.compiled.checks:
        raise ValueError(f"the policy has no rule {rule}.")
    return rule


class PropertyProtection:
    """The decisions. Made by `load`; `watch` keeps it up to date with its file."""

    def __init__(self, file: Path | None, rule_format: RuleFormat, policy: Policy) -> None:
        """Without a file everything is allowed. Raises PropertyProtectionError."""
        self._file = file
        self._format: RuleFormat = rule_format
        self._policy = policy
        self._fingerprint = self._look()
        self._sections = None if file is None else read(file, rule_format, policy)

    def allows(self, who: Identity, access: Access, name: str) -> bool:
        """Whether the caller may do this with custom properties of this name.

        Administrators are asked as everybody else. A role of a service that acts for the caller
        counts as one of the caller's.
        """
        sections = self._sections
        if sections is None or name.startswith(RESERVED_PREFIX):
            return True
        for section in sections:
            if section.pattern.search(name):
                return self._permits(section.permissions[access], who)
        return False

    def unreadable(self, who: Identity, names: Iterable[str]) -> frozenset[str]:
        """Those of the names whose properties the caller must not know of."""
        if self._sections is None:
            return frozenset()
        return frozenset(name for name in names if not self.allows(who, "read", name))

    def settable(
        self, who: Identity, properties: Mapping[str, str], *, beside: Collection[str]
    ) -> dict[str, str]:
        """Those of the properties that the caller can set on an image that has `beside`."""
        settable: dict[str, str] = {}
        for name, value in properties.items():
            if self.allows(who, "update" if name in beside else "create", name):
                settable[name] = value
            else:
                log.info("Property %s is protected and was not set", name)
        return settable

    def _permits(self, permission: Permission, who: Identity) -> bool:
        if isinstance(permission, bool):
            return permission
        roles = who.roles
        if who.service_roles:
            roles |= {role.lower() for role in who.service_roles}
        if isinstance(permission, frozenset):
            return not permission.isdisjoint(roles)
        # The policy has a file of its own, from which the rule may be gone by now.
        if permission not in self._policy.compiled.checks:
            return False
        caller = replace(who, roles=roles) if who.service_roles else who
        return self._policy.allows(permission, caller, {})

    async def watch(
        self,
        *,
        interval: float = watching.WATCH_INTERVAL,
        settle_time: float = watching.SETTLE_TIME,
    ) -> None:
        """Take over changes of the file, forever; cancel it to stop.

        A change that cannot be used is logged, and what was protected stays so; also when the
        file is gone, for it may be in the middle of being replaced.
        """
        if self._file is None:
            return
        async for _ in watching.changes(
            self._look, self._fingerprint, interval=interval, settle_time=settle_time
        ):
            try:
                self._sections = await asyncio.to_thread(
                    read, self._file, self._format, self._policy
                )
            except PropertyProtectionError as error:
                log.error("The property protections stay as they were: %s", error)
            else:
                log.info("The property protections were read again.")

    def _look(self) -> watching.Fingerprint:
        try:
            return () if self._file is None else watching.fingerprint([self._file])
        except OSError:
            return ()


def load(loaded: Loaded[ImagesSettings], policy: Policy) -> PropertyProtection:
    """The property protections that the settings name. Raises PropertyProtectionError."""
    default = loaded.settings.default
    file = default.property_protection_file
    return PropertyProtection(
        None if file is None else loaded.resolve(file),
        default.property_protection_rule_format,
        policy,
    )
