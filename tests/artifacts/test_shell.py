"""The artifacts service so far: its versions, its probes, and an error for everything else."""

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from diptych_artifacts.app import create_app
from diptych_artifacts.settings import load, stores
from diptych_common.settings import SettingsError
from diptych_store.options.filesystem import FilesystemOptions
from starlette.types import Receive, Scope, Send

COMMAND = Path(sys.executable).parent / "diptych-artifacts"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[httpx.AsyncClient]:
    app = create_app(
        load(
            environ={
                "DIPTYCH_ARTIFACTS__PASTE_DEPLOY__FLAVOR": "trusted",
                "DIPTYCH_ARTIFACTS__DEFAULT__BIND_HOST": "127.0.0.1",
                "DIPTYCH_ARTIFACTS__DEFAULT__ENABLED_BACKENDS": "own:file, web:http",
                "DIPTYCH_ARTIFACTS__GLANCE_STORE__DEFAULT_BACKEND": "own",
                "DIPTYCH_ARTIFACTS__OWN__FILESYSTEM_STORE_DATADIR": str(tmp_path / "own"),
            }
        )
    )
    async with app.api.router.lifespan_context(app.api) as state:

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(call)
        async with httpx.AsyncClient(transport=transport, base_url="http://artifacts") as client:
            yield client


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
    assert ready.json()["checks"] == {"default_store": "ok", "drain": "ok"}


async def test_a_default_store_that_is_gone_is_not_ready(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "own")
    ready = await api.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"default_store": "failing", "drain": "ok"}


async def test_errors_are_faults(api: httpx.AsyncClient) -> None:
    assert (await api.get("/artifacts")).status_code == 401
    caller = {"X-User-Id": "u", "X-Project-Id": "p", "X-Roles": "member"}
    answer = await api.get("/artifacts", headers=caller)
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


def test_a_bad_option_of_a_store_stops_the_service(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text("[glance_store]\nfilesystem_store_datadir = here\n")
    with pytest.raises(SettingsError) as error:
        create_app(load(config_files=[file], environ={}))
    assert str(error.value).startswith(f"{file}:2: [glance_store] filesystem_store_datadir: ")


def test_what_stores_do_not_use_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "artifacts.conf"
    file.write_text(
        "[paste_deploy]\nflavor = none\n[DEFAULT]\nbind_host = 127.0.0.1\n"
        f"[glance_store]\nfilesystem_store_datadir = {tmp_path}\nmisspelt = 1\n"
        "cinder_volume_type = lvm\n"
    )
    done = subprocess.run(
        [COMMAND, "config", "check", "--config-file", file], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert f"{file}:7: [glance_store] misspelt is unknown" in done.stdout
    assert f"{file}:8: [glance_store] cinder_volume_type has no effect: " in done.stdout


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
