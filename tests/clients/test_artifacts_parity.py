"""Ours has all that glareclient has, and all that either has is tried here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import artifactclient
from dev.keystone import Keystone

from tests.clients import commands
from tests.clients.artifact_clouds import ArtifactCloud
from tests.clients.artifact_services import ArtifactService

PARSERS = Path(__file__).with_name("artifact_parsers.py")
OURS_ONLY = {"artifact quota list", "artifact quota set", "artifact quota show"}
MORE_OPTIONS = {"artifact upload": {"verify"}, "artifact download": {"verify"}}


def parsers(environment: Path, plug_in: Path | None = None) -> dict[str, dict[str, Any]]:
    """What each command takes: its arguments in their order, by name."""
    listed = subprocess.run(
        [environment / "python", "-W", "ignore", PARSERS],
        env={"PYTHONPATH": str(plug_in)} if plug_in else {},
        capture_output=True,
        check=True,
    )
    return json.loads(listed.stdout)


def test_every_command_takes_what_glareclients_takes(
    clients_env: Path, glareclient_env: Path
) -> None:
    ours = parsers(clients_env, artifactclient.installed())
    theirs = parsers(glareclient_env)
    assert len(theirs) == 17
    assert ours.keys() - theirs.keys() == OURS_ONLY
    for command, wanted in theirs.items():
        offered = ours[command]
        assert {name: offered.get(name) for name in wanted} == wanted, command
        assert offered.keys() - wanted.keys() == MORE_OPTIONS.get(command, set())
        positional = [name for name, one in wanted.items() if not one["options"]]
        assert [name for name, one in offered.items() if not one["options"]] == positional


@pytest.mark.parametrize("client", ["artifact", "glare", "glareclient"])
def test_each_command_is_tried(client: str, glareclient_env: Path) -> None:
    offered = commands.offered(client, glareclient_env)
    assert len(offered) > 15
    assert offered - commands.first_words("test_artifacts*.py") == set()


@pytest.mark.long
def test_what_the_repairs_mend_is_still_broken(
    glareclient_env: Path,
    artifact_service: ArtifactService,
    artifacts_http: httpx.Client,
    keystone: Keystone,
    name: str,
    tmp_path: Path,
) -> None:
    """`glare` as it is installed, without what `glareclient_repairs` does."""

    def glare(*arguments: str) -> tuple[int, str]:
        where = ("--os-glare-url", artifact_service.url)
        token = ("--auth-token", keystone.token("demo", "demo"))
        command = [glareclient_env / "glare", *where, *token, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    made = artifacts_http.post("/artifacts/images", json={"name": name}).raise_for_status().json()
    blob = f"/artifacts/images/{made['id']}/image"
    octets = {"Content-Type": "application/octet-stream"}
    artifacts_http.put(blob, content=b"data", headers=octets).raise_for_status()
    assert glare("show", "images", name)[0] == 0
    code, said = glare("list", "images", "-F", f"name={name}", "-l", "1")
    assert (code, "generator raised StopIteration" in said) == (1, True)
    code, said = glare("download", "images", name, "--file", str(tmp_path / "file"))
    assert (code, "has no attribute 'next'" in said) == (1, True)


def test_both_show_the_same(
    our_client: ArtifactCloud, glareclient: ArtifactCloud, artifacts_http: httpx.Client, name: str
) -> None:
    """But for blobs in formats for programs: ours are objects, theirs Python's text of them."""
    body = {"name": name, "tags": ["ü"], "metadata": {"a": "b, c"}}
    made = artifacts_http.post("/artifacts/images", json=body).raise_for_status().json()
    blob = f"/artifacts/images/{made['id']}/image"
    templates = artifacts_http.post("/artifacts/heat_templates", json={**body, "tags": ["one"]})
    templates.raise_for_status()
    octets = {"Content-Type": "application/octet-stream"}
    artifacts_http.put(blob, content=b"data", headers=octets).raise_for_status()
    for arguments in (
        ("list", "images", "-F", f"name={name}"),
        ("list", "all", "-F", f"name={name}"),
        ("show", "images", name),
        ("schema", "heat-template"),
        ("type-list",),
        ("remove tag", "heat-template", name, "two"),
    ):
        for shape in ("table", "csv", "json", "value") if "all" in arguments else ("table",):
            ours = our_client.artifact(*arguments, "-f", shape)
            assert ours.split() == glareclient.artifact(*arguments, "-f", shape).split()
