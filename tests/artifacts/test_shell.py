"""The artifacts service before any artifact: versions, probes, errors, stores, settings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from diptych_artifacts.app import create_app
from diptych_artifacts.settings import load, stores
from diptych_common.settings import SettingsError
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.rbd import RbdOptions
from diptych_store.options.swift import SwiftOptions

from tests.artifacts.service import ALICE, CustomApi

COMMAND = Path(sys.executable).parent / "diptych-artifacts"

SWIFT = """\
swift_store_auth_address = http://127.0.0.1:1/v3
swift_store_user = service:glare
swift_store_key = secret
"""


@pytest.fixture
async def api(custom_api: CustomApi, tmp_path: Path) -> httpx.AsyncClient:
    return await custom_api(
        DEFAULT__ENABLED_BACKENDS="own:file, web:http",
        GLANCE_STORE__DEFAULT_BACKEND="own",
        OWN__FILESYSTEM_STORE_DATADIR=str(tmp_path / "own"),
    )


async def test_versions_need_no_token(api: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/"), ("GET", "/versions"), ("POST", "/")):
        answer = await api.request(method, path)
        assert answer.status_code == 300
        versions = answer.json()["versions"]
        assert [one["version"] for one in versions] == ["1.0", "1.1"]
        assert versions[0]["media-type"] == "application/vnd.openstack.artifacts-1.0"


async def test_probes(api: httpx.AsyncClient, tmp_path: Path) -> None:
    assert (await api.get("/healthcheck")).text == "OK"
    ready = await api.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {
        "database": "ok",
        "default_store": "ok",
        "drain": "ok",
    }


async def test_a_default_store_that_is_gone_is_not_ready(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "own")
    ready = await api.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {
        "database": "ok",
        "default_store": "failing",
        "drain": "ok",
    }


async def test_errors_are_faults(api: httpx.AsyncClient) -> None:
    assert (await api.get("/artifacts")).status_code == 401
    answer = await api.get("/artifacts", headers=ALICE)
    assert answer.status_code == 404
    assert answer.json()["code"] == 404
    assert answer.json()["title"] == "Not Found"
    assert answer.headers["x-openstack-request-id"].startswith("req-")


def test_stores_are_its_own() -> None:
    """Not Glance's directory, where the images service clears up."""
    options = {store.name: store.options for store in stores(load(environ={})).stores}
    assert options["file"] == FilesystemOptions(
        filesystem_store_datadir="/var/lib/diptych/artifacts"
    )
    assert [*options] == ["file", "http"]


def test_pools_and_containers_are_its_own_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    def told(text: str) -> list[str]:
        file = tmp_path / "artifacts.conf"
        file.write_text(f"[glance_store]\nstores = file, rbd, swift\n{text}")
        options = [one.options for one in stores(load(config_files=[file], environ={})).stores]
        return [
            option.rbd_store_pool
            if isinstance(option, RbdOptions)
            else option.swift_store_container
            for option in options
            if isinstance(option, RbdOptions | SwiftOptions)
        ]

    assert told(SWIFT) == ["artifacts", "glare"]
    assert told(f"{SWIFT}rbd_store_pool = a\nswift_store_container = b\n") == ["a", "b"]


def test_a_bad_option_of_a_store_stops_the_service(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text("[glance_store]\nfilesystem_store_datadir = here\n")
    with pytest.raises(SettingsError) as error:
        create_app(load(config_files=[file], environ={}))
    assert str(error.value).startswith(f"{file}:2: [glance_store] filesystem_store_datadir: ")


def test_what_stores_do_not_use_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text(
        "[paste_deploy]\nflavor = none\n[database]\nconnection = postgresql://x@localhost/x\n"
        "[DEFAULT]\nbind_host = 127.0.0.1\n"
        f"[glance_store]\nfilesystem_store_datadir = {tmp_path}\nmisspelt = 1\n"
        "cinder_volume_type = lvm\n"
    )
    done = subprocess.run(
        [COMMAND, "config", "check", "--config-file", file], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert f"{file}:9: [glance_store] misspelt is unknown" in done.stdout
    assert f"{file}:10: [glance_store] cinder_volume_type is obsolete: " in done.stdout


def test_a_rule_that_asks_for_administrators_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text("[database]\nconnection = postgresql://x@localhost/x\n")

    def allowed(*roles: str) -> bool:
        line = [COMMAND, "policy", "check", "artifact:update", "--target", "owner=p2"]
        target = ["--target", "visibility=private", "--roles", ",".join(roles)]
        told = subprocess.run([*line, *target, "--config-file", file], capture_output=True)
        return told.returncode == 0

    assert allowed("admin")
    assert not allowed("member")


def test_its_stores_are_listed_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text(
        f"[glance_store]\nstores = file\nfilesystem_store_datadir = {tmp_path / 'own'}\n"
    )

    def told(command: str) -> list[dict[str, object]]:
        line = [COMMAND, "stores", command, "--json", "--config-file", file]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    assert [(one["store"], one["places"]) for one in told("list")] == [
        ("file", [str(tmp_path / "own")])
    ]
    assert [(one["store"], one["ok"]) for one in told("check")] == [("file", True)]


async def test_the_version_that_a_request_asks_for(api: httpx.AsyncClient) -> None:
    vendor = "application/vnd.openstack.artifacts-"
    for headers, spoken in (
        ({}, "1.0"),
        ({"OpenStack-API-Version": "artifact 1.1"}, "1.1"),
        ({"openstack-api-version": "ARTIFACT latest"}, "1.1"),
        ({"OpenStack-API-Version": "compute 2.1, artifact 1.1"}, "1.1"),
        ({"OpenStack-API-Version": "compute 2.1"}, "1.0"),
        ({"OpenStack-API-Version": "1.1"}, "1.0"),
        ({"Accept": f"{vendor}1.1"}, "1.1"),
        ({"Accept": f"{vendor}1.0", "OpenStack-API-Version": "artifact 1.1"}, "1.0"),
    ):
        answer = await api.get("/artifacts/images/none", headers={**ALICE, **headers})
        assert answer.status_code == 404
        assert answer.headers["openstack-api-version"] == f"artifact {spoken}"
        assert "openstack-api-version" in answer.headers["vary"]
    for asked, status in (("1", 400), ("1.01", 400), ("x", 400), ("0.9", 400), ("1.2", 406)):
        headers = {**ALICE, "OpenStack-API-Version": f"artifact {asked}"}
        answer = await api.get("/artifacts/images/none", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, status), asked
        if status == 406:
            assert answer.json()["min_version"] == "1.0"
            assert answer.json()["max_version"] == "1.1"
