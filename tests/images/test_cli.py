"""The command line of the images service, as an operator types it."""

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
from dev import ports

from tests.daemon import COMMAND, Daemon, working
from tests.images.service import ALICE, OCTETS, configuration
from tests.waiting import until


def run(
    *arguments: str | Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **(environ or {}), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_schema_is_made_step_by_step(empty_database: str) -> None:
    environ = {"DIPTYCH_IMAGES__DATABASE__CONNECTION": empty_database}
    assert run("db", "check", environ=environ).returncode == 3
    assert run("db", "purge", environ=environ).stderr.endswith("run: db upgrade\n")
    assert run("db", "contract", environ=environ).returncode == 2
    assert run("db", "expand", environ=environ).stdout.endswith("expand: done.\n")
    assert run("db", "contract", environ=environ).stdout == "contract: done.\n"
    assert run("db", "upgrade", environ=environ).stdout == "The schema is up to date.\n"
    assert run("db", "check", environ=environ).returncode == 0
    assert run("db", "current", environ=environ).stdout.strip()


def test_a_database_out_of_reach_is_told_without_its_password() -> None:
    environ = {"DIPTYCH_IMAGES__DATABASE__CONNECTION": "postgresql://u:sesame@127.0.0.1:1/x"}
    told = run("db", "check", environ=environ)
    assert told.returncode == 2
    assert told.stderr.startswith("diptych-images: ")
    assert "Traceback" not in told.stderr
    assert "sesame" not in told.stderr


def test_settings_that_cannot_be_used_stop_every_command(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text("[DEFAULT]\nimage_size_cap = lots\nworkers = 0\n")
    for command in (("api",), ("worker",), ("doctor",), ("config", "show"), ("db", "check")):
        told = run(*command, "--config-file", file)
        assert told.returncode == 2
        assert f"{file}:2: [DEFAULT] image_size_cap = lots: expected" in told.stderr
        assert f"{file}:3: [DEFAULT] workers = 0: expected" in told.stderr


def test_what_a_file_sets_without_effect_is_listed(tmp_path: Path) -> None:
    environ = configuration("postgresql://localhost/x", tmp_path)
    file = tmp_path / "images.conf"
    file.write_text("[DEFAULT]\nnonsense = 1\n[fast]\nmisspelt = 1\n")
    told = run("config", "check", "--config-file", file, environ=environ)
    assert told.returncode == 1
    assert f"{file}:2: [DEFAULT] nonsense is unknown" in told.stdout
    assert "[fast] misspelt is unknown" in told.stdout
    file.write_text("")
    assert run("config", "check", "--config-file", file, environ=environ).returncode == 0


def test_a_program_that_a_plugin_does_not_find_is_told(tmp_path: Path) -> None:
    plugins = {"IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "[image_conversion]"}
    environ = configuration("postgresql://localhost/x", tmp_path, **plugins)
    told = run("config", "check", environ={**environ, "PATH": str(tmp_path)})
    assert told.returncode == 0
    assert "image_conversion needs qemu-img" in told.stdout


def test_settings_that_give_something_away_are_told(tmp_path: Path) -> None:
    """OSSN-0065, OSSN-0090, OSSA-2013-018."""
    risky = {"DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true", "KEYSTONE_AUTHTOKEN__INSECURE": "true"}
    for options, told in ((risky, ["show_multiple_locations", "insecure"]), ({}, [])):
        environ = configuration("postgresql://localhost/x", tmp_path, **options)
        done = run("config", "check", environ=environ)
        assert done.returncode == 0
        remarks = [line for line in done.stdout.splitlines() if not line.endswith(" is used")]
        assert [line.split()[1] for line in remarks] == told


def test_effective_settings_hide_secrets() -> None:
    environ = {
        "DIPTYCH_IMAGES__DATABASE__CONNECTION": "postgresql://u:sesame@localhost/x",
        "DIPTYCH_IMAGES__KEYSTONE_AUTHTOKEN__PASSWORD": "sesame",
    }
    for options in ((), ("--json",)):
        shown = run("config", "show", *options, environ=environ)
        assert shown.returncode == 0
        assert "sesame" not in shown.stdout
    assert json.loads(shown.stdout)["DEFAULT"]["bind_port"] == 9292


def test_a_decision_is_explained() -> None:
    owner = ("policy", "check", "modify_image", "--project", "p", "--target", "project_id=p")
    allowed = run(*owner, "--roles", "member")
    assert allowed.returncode == 0
    denied = run(*owner, "--roles", "reader")
    assert denied.returncode == 1
    assert "role:member" in denied.stdout
    assert run("policy", "check", "no_such_rule").returncode == 2


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = configuration("postgresql://localhost/x", tmp_path, DEFAULT__BIND_PORT=str(port))
        told = run("api", environ=environ)
    assert told.returncode == 2
    assert str(port) in told.stderr
    assert "Traceback" not in told.stderr


async def test_a_worker_of_its_own_does_the_jobs(empty_database: str, tmp_path: Path) -> None:
    environ = configuration(empty_database, tmp_path)
    assert run("db", "upgrade", environ=environ).returncode == 0
    daemon = Daemon(environ, tmp_path / "log")
    daemon.start()
    stored = tmp_path / "fast"
    try:
        async with httpx.AsyncClient(base_url=daemon.url, headers=ALICE) as http:
            body = {"disk_format": "raw", "container_format": "bare"}
            image = (await http.post("/v2/images", json=body)).json()
            uploaded = await http.put(image["file"], content=b"x", headers=OCTETS)
            assert uploaded.status_code == 204
            assert (await http.delete(image["self"])).status_code == 204
        assert (stored / image["id"]).exists()
        (job,) = json.loads(run("jobs", "list", "--json", environ=environ).stdout)
        assert (job["kind"], job["state"]) == ("remove_bytes", "waiting")
        port = ports.any_free()
        told = f"http://127.0.0.1:{port}/metrics"
        metrics = {
            "DIPTYCH_IMAGES__METRICS__ENABLED": "true",
            "DIPTYCH_IMAGES__METRICS__WORKER_BIND_PORT": str(port),
        }
        done = (
            'diptych_store_call_seconds_count{operation="delete",outcome="ok",store="fast"}',
            'diptych_job_seconds_count{kind="remove_bytes",outcome="succeeded"} 1.0',
        )
        with working({**environ, **metrics}, tmp_path / "worker.log"):
            await until(lambda: not (stored / image["id"]).exists())
            await until(lambda: all(line in httpx.get(told).text for line in done))
    finally:
        daemon.stop()
