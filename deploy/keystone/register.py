#!/usr/bin/env python3
"""Makes Keystone know a service: its user, roles, endpoints and, for images, unified limits.

    register.py images --url https://images.example.org --region RegionOne

Needs openstacksdk, which whoever has the `openstack` command has, and an administrator, given as to
that command: OS_CLOUD with clouds.yaml, or OS_AUTH_URL and the like. What is there already stays as
it is, but for endpoints with another address; so it may be run as often as one likes, for each
region, and again with a new address. The password of a new user is taken from the variable that the
service itself takes it from, DIPTYCH_IMAGES__KEYSTONE_AUTHTOKEN__PASSWORD.
"""
# pyright: basic, reportMissingImports=false

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What the services' policies name, besides admin, who runs this. Keystone makes all of them when it
# is bootstrapped, older releases but for `service`.
ROLES = ("reader", "member", "service")
UNLIMITED = -1
INTERFACES = ("public", "internal", "admin")


@dataclass(frozen=True, slots=True)
class Kind:
    """A service as Keystone has it.

    `credential` is the variable with its user's password, `limits` are those it asks Keystone for.
    """

    type: str
    name: str
    description: str
    credential: str
    limits: tuple[str, ...] = ()


KINDS = {
    "images": Kind(
        type="image",
        name="glance",
        description="Images",
        credential="DIPTYCH_IMAGES__KEYSTONE_AUTHTOKEN__PASSWORD",
        limits=(
            "image_size_total",
            "image_stage_total",
            "image_count_total",
            "image_count_uploading",
        ),
    ),
    "artifacts": Kind(
        type="artifact",
        name="glare",
        description="Artifacts",
        credential="DIPTYCH_ARTIFACTS__KEYSTONE_AUTHTOKEN__PASSWORD",
    ),
}


class Refused(Exception):
    """It cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Keystone, as far as it is read and changed here; `is_dry`: nothing is changed.

    An id that is None is that of something that is not there yet.
    """

    identity: Any
    is_dry: bool
    changes: list[str]

    def found(self, kind: str, **where: str | None) -> dict[str, Any] | None:
        """The one that fits; None if there is none. Raises Refused if there are several."""
        if None in where.values():
            return None
        several = self.call("GET", f"/{kind}s", params=where)[f"{kind}s"]
        if len(several) > 1:
            ids = ", ".join(one["id"] for one in several)
            raise Refused(f"There are {len(several)} of kind {kind} with {where}: {ids}.")
        return several[0] if several else None

    def ensure(self, kind: str, what: str, where: Mapping[str, str | None], **more: Any) -> Any:
        """The id of what is there, or else of what is made of `where` and `more`."""
        there = self.found(kind, **where)
        if there is not None:
            return there["id"]
        document = {kind: {**where, **more}}
        made = self.change(f"created {kind} {what}", "POST", f"/{kind}s", json=document)
        return None if made is None else made[kind]["id"]

    def change(self, what: str, method: str, path: str, **how: Any) -> Any:
        """Do it and note it; None where nothing is answered, or done."""
        self.changes.append(what)
        return None if self.is_dry else self.call(method, path, **how)

    def call(self, method: str, path: str, **how: Any) -> Any:
        """One call of Keystone's API; None for an answer without a body. Raises Refused."""
        answer = self.identity.request(path, method, **how)
        if answer.status_code >= 400:
            raise Refused(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None


def register(keystone: Directory, options: argparse.Namespace) -> None:
    """Make what is missing, and endpoints what the options say."""
    kind = KINDS[options.service]
    roles = {role: keystone.ensure("role", role, {"name": role}) for role in ROLES}
    user = _user(keystone, options, kind, roles)
    service = keystone.ensure(
        "service",
        f"{kind.name} of type {kind.type}",
        {"type": kind.type},
        name=kind.name,
        description=kind.description,
    )
    if options.region not in {one["id"] for one in keystone.call("GET", "/regions")["regions"]}:
        region = {"region": {"id": options.region}}
        keystone.change(f"created region {options.region}", "POST", "/regions", json=region)
    for interface in INTERFACES:
        _endpoint(keystone, options, service, interface)
    if kind.limits:
        # Limits of other projects are told to nobody else.
        _grant(keystone, f"/system/users/{user}", user, "reader", roles, "the system")
    for name in kind.limits:
        _limit(keystone, options, service, name)


def _user(
    keystone: Directory, options: argparse.Namespace, kind: Kind, roles: Mapping[str, str | None]
) -> str | None:
    """The service's user, who may validate tokens. A password that is there is left alone."""
    domain = keystone.found("domain", name=options.domain)
    if domain is None:
        raise Refused(f"There is no domain {options.domain}.")
    in_domain = {"domain_id": domain["id"]}
    project = keystone.ensure("project", options.project, {"name": options.project, **in_domain})
    name = options.user or kind.name
    where = {"name": name, **in_domain}
    password = os.environ.get(kind.credential)
    if keystone.found("user", **where) is None and not password:
        raise Refused(f"There is no user {name} yet: give its password in {kind.credential}.")
    user = keystone.ensure("user", name, where, password=password)
    path = f"/projects/{project}/users/{user}"
    _grant(keystone, path, user and project, "service", roles, f"project {options.project}")
    return user


def _grant(
    keystone: Directory,
    path: str,
    known: str | None,
    role: str,
    roles: Mapping[str, str | None],
    where: str,
) -> None:
    """Give the role; `known` is None if what the path names is not there yet."""
    if known is not None and roles[role] is not None:
        # What a role implies is not asked about: it may come to imply less.
        held = keystone.call("GET", f"{path}/roles")["roles"]
        if role in {one["name"] for one in held}:
            return
    keystone.change(f"granted role {role} on {where}", "PUT", f"{path}/roles/{roles[role]}")


def _endpoint(
    keystone: Directory, options: argparse.Namespace, service: str | None, interface: str
) -> None:
    url = getattr(options, f"{interface}_url") or options.url
    where = {"service_id": service, "interface": interface, "region_id": options.region}
    name = f"{interface} {url} in {options.region}"
    there = keystone.found("endpoint", **where)
    if there is None:
        keystone.ensure("endpoint", name, where, url=url)
    elif there["url"] != url:
        document = {"endpoint": {"url": url}}
        what = f"updated endpoint {name}, which was {there['url']}"
        keystone.change(what, "PATCH", f"/endpoints/{there['id']}", json=document)


def _limit(
    keystone: Directory, options: argparse.Namespace, service: str | None, name: str
) -> None:
    """Register the limit: one that is not registered is 0 to a service that asks for it."""
    where = {"service_id": service, "region_id": options.region, "resource_name": name}
    wanted = dict(options.limit).get(name)
    there = keystone.found("registered_limit", **where)
    if there is None:
        number = UNLIMITED if wanted is None else wanted
        document = {"registered_limits": [{**where, "default_limit": number}]}
        what = f"created limit {name} of {number} in {options.region}"
        keystone.change(what, "POST", "/registered_limits", json=document)
    elif wanted is not None and there["default_limit"] != wanted:
        document = {"registered_limit": {"default_limit": wanted}}
        what = f"updated limit {name} to {wanted}, which was {there['default_limit']}"
        keystone.change(what, "PATCH", f"/registered_limits/{there['id']}", json=document)


def _named_number(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("service", choices=KINDS)
    parser.add_argument("--url", required=True, help="the service's address, without /v2")
    for interface in INTERFACES:
        parser.add_argument(f"--{interface}-url", help="another address for this interface")
    parser.add_argument("--region", default=os.environ.get("OS_REGION_NAME", "RegionOne"))
    parser.add_argument("--user", help="the service's user; default: glance, glare")
    parser.add_argument("--project", default="service", help="its project; default: service")
    parser.add_argument("--domain", default="Default", help="the domain of both")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_named_number,
        metavar="NAME=NUMBER",
        help=f"a registered limit of images; else those that are missing become {UNLIMITED}: none",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args(arguments)
    for name, _ in options.limit:
        if name not in KINDS[options.service].limits:
            parser.error(f"{options.service} has no limit {name}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Register a service and print what was changed; the exit code."""
    options = parse(arguments)
    import openstack
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    changes: list[str] = []
    try:
        register(Directory(openstack.connect().identity, options.dry_run, changes), options)
    except (Refused, ClientException, SDKException) as error:
        print(f"register.py: {error}", file=sys.stderr)
        return 1
    finally:
        for change in changes:
            print(f"would have {change}" if options.dry_run else change)
    if not changes:
        print("nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
