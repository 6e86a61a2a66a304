"""`config check` knows every option of the real Glance and of the real Glare."""

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dev import environments
from diptych_artifacts.cli import main as artifacts
from diptych_images.cli import main as images
from typer import Typer
from typer.testing import CliRunner

_OSLO = (
    *("oslo.concurrency", "oslo.db", "oslo.log", "oslo.messaging", "oslo.middleware.cors"),
    *("oslo.middleware.healthcheck", "oslo.middleware.http_proxy_to_wsgi", "oslo.policy"),
    *("keystonemiddleware.auth_token", "oslo.reports", "osprofiler", "oslo.service.wsgi"),
    *("oslo.service.sslutils", "oslo.middleware.sizelimit"),
)
_OF_GLANCE = (
    *("glance", "glance.api", "glance.cache", "glance.manage", "glance.scrubber"),
    *("glance.store", "glance.multi_store", "castellan.config", "oslo.limit", *_OSLO),
)
_OF_GLARE = ("glare", "glance.store", *_OSLO)

# What the option lists do not have, for it is the plug-in's of an `auth_type`.
_CREDENTIALS = {
    ("keystone_authtoken", "auth_url"): "http://127.0.0.1:7777/",
    ("keystone_authtoken", "username"): "x",
    ("keystone_authtoken", "password"): "x",
    ("keystone_authtoken", "project_name"): "x",
    ("keystone_authtoken", "user_domain_name"): "x",
    ("keystone_authtoken", "project_domain_name"): "x",
}
_DATABASE = {("database", "connection"): "postgresql://127.0.0.1:7777/x"}
# Sections that were renamed before there was any Glance of today.
_GONE = ("amqp1",)
# Values that the lists do not tell, or that are no use here; empty: unset.
_INSTEAD = {
    ("DEFAULT", "transport_url"): "rabbit://guest:guest@127.0.0.1:7777/",
    ("DEFAULT", "workers"): "1",
    ("barbican", "barbican_api_version"): "v1",
    ("database", "connection"): "postgresql://127.0.0.1:7777/x",
    ("keystone_authtoken", "auth_type"): "password",
    ("oslo_limit", "system_scope"): "all",
    ("oslo_messaging_notifications", "driver"): "messagingv2",
    ("oslo_messaging_notifications", "transport_url"): "rabbit://guest:guest@127.0.0.1:7777/",
    ("paste_deploy", "flavor"): "keystone",
    # Stores are those of [glance_store], which has one directory.
    ("DEFAULT", "enabled_backends"): "",
    ("glance_store", "filesystem_store_datadirs"): "",
    # There are no such files.
    ("DEFAULT", "property_protection_file"): "",
    ("barbican", "verify_ssl_path"): "",
    ("glance_store", "filesystem_store_metadata_file"): "",
    ("glance_store", "https_ca_certificates_file"): "",
    ("keystone_authtoken", "cafile"): "",
    ("keystone_authtoken", "certfile"): "",
    ("keystone_authtoken", "keyfile"): "",
    ("keycloak_oidc", "cafile"): "",
    ("keycloak_oidc", "certfile"): "",
    ("keycloak_oidc", "keyfile"): "",
    ("oslo_messaging_rabbit", "ssl_ca_file"): "",
}


@dataclass(frozen=True)
class Option:
    """An option of a real service, a value that it may have, and its former places."""

    section: str
    name: str
    value: str
    former: list[tuple[str | None, str | None]]


def listed(environment: str, lists: tuple[str, ...]) -> list[Option]:
    """The options in these lists."""
    python = environments.ready(environment) / "python"
    script = Path(__file__).parent / "options_of.py"
    done = subprocess.run(
        [python, "-W", "ignore", script, *lists], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [Option(*one) for one in json.loads(done.stdout)]


def values_of(known: list[Option]) -> dict[tuple[str, str], str]:
    """What a file may set all of them to at the same time."""
    values = {(one.section, one.name): one.value for one in known}
    values |= {where: value for where, value in _INSTEAD.items() if where in values}
    return values | {
        where: "" for where in values if where[1] == "default_store" and ":" in where[0]
    }


def checked(service: Typer, folder: Path, values: dict[tuple[str, str], str]) -> dict[str, Any]:
    """What `config check` says of a file with these options."""
    sections: dict[str, list[str]] = {}
    for (section, name), value in values.items():
        sections.setdefault(section, []).append(f"{name} = {value}")
    file = folder / "service.conf"
    file.write_text(
        "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines))
    )
    done = CliRunner().invoke(service, ["config", "check", "--json", "--config-file", str(file)])
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


_SERVICES = pytest.mark.parametrize(
    ("environment", "service", "lists"),
    [("glance", images, _OF_GLANCE), ("glare", artifacts, _OF_GLARE)],
    ids=["glance", "glare"],
)


@_SERVICES
def test_every_option_is_in_the_report_once(
    environment: str, service: Typer, lists: tuple[str, ...], tmp_path: Path
) -> None:
    known = listed(environment, lists)
    assert len(known) > 350
    values = values_of(known) | _CREDENTIALS
    told = checked(service, tmp_path, values)["options"]
    assert Counter((one["section"], one["option"]) for one in told) == Counter([*values])
    unknown = [(one["section"], one["option"]) for one in told if one["outcome"] == "unknown"]
    assert unknown == []
    assert {one["outcome"] for one in told} == {"used", "obsolete", "unsupported"}
    assert all(one["reason"] for one in told if one["outcome"] != "used")

    # The same by all the names that these options have had.
    formerly = {
        (section or one.section, name): values[one.section, one.name]
        for one in known
        for section, name in one.former
        if name is not None and section not in _GONE
        if (section or one.section, name) not in values
    }
    told = checked(service, tmp_path, formerly | _CREDENTIALS | _DATABASE)["options"]
    unknown = [(one["section"], one["option"]) for one in told if one["outcome"] == "unknown"]
    assert unknown == []
    assert "renamed" in {one["outcome"] for one in told}


def test_the_sample_that_comes_with_glance_has_nothing_unknown(tmp_path: Path) -> None:
    text = (environments.ready("glance").parent / "etc/glance/glance-api.conf").read_text()
    values: dict[tuple[str, str], str] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif found := re.fullmatch(r"#([a-z0-9_]+) = ?(.*)", line):
            values[section, found[1]] = found[2].replace("<None>", "")
    values["database", "pool_timeout"] = "30"
    values |= {where: value for where, value in _INSTEAD.items() if where in values}
    told = checked(images, tmp_path, values | _CREDENTIALS)["options"]
    assert len(told) > 490
    # Only what the sample gives as an example, and not as the default.
    lost = [one["option"] for one in told if one["outcome"] in ("unknown", "unsupported")]
    assert lost == ["conversion_format"]


def test_a_value_that_cannot_be_honoured_is_told(tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    for value, code, outcome in (("False", 1, "unsupported"), ("True", 0, "obsolete")):
        lines = (
            "[DEFAULT]",
            f"allow_additional_image_properties = {value}",
            "workers = 3",
            "[database]",
            "connection = postgresql://127.0.0.1:7777/x",
            "sql_idle_timeout = 60",
            "[paste_deploy]",
            "flavor = none",
        )
        file.write_text("\n".join(lines))
        done = CliRunner().invoke(images, ["config", "check", "--config-file", str(file)])
        assert done.exit_code == code
        assert done.stdout.splitlines() == [
            f"{file}:2: [DEFAULT] allow_additional_image_properties is {outcome}: custom"
            " properties are always allowed",
            f"{file}:3: [DEFAULT] workers is used",
            f"{file}:5: [database] connection is used",
            f"{file}:6: [database] sql_idle_timeout is renamed: it is [database]"
            " connection_recycle_time",
            f"{file}:8: [paste_deploy] flavor is used",
        ]
