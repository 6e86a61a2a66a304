"""The Dockerfiles and the compose file say what is true of the services.

Built and run they are in tests/deployment.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev.places import CHECKOUT, VENV
from diptych_artifacts.settings import ArtifactsSettings
from diptych_common import server
from diptych_images.settings import ImagesSettings

DOCKERFILES = sorted((CHECKOUT / "deploy" / "docker").glob("*.Dockerfile"))
COMPOSE = CHECKOUT / "docker-compose.yml"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(dockerfile: Path, tools_env: Path) -> None:
    done = subprocess.run([tools_env / "hadolint", dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_valid(tools_env: Path) -> None:
    done = subprocess.run(
        [tools_env / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


OURS = ("images", "artifacts")


def test_the_compose_file_names_files_that_are_there(services: dict[str, Any]) -> None:
    named = [service["build"]["dockerfile"] for service in services.values() if "build" in service]
    named += [service["env_file"] for service in services.values() if "env_file" in service]
    mounted = [volume for service in services.values() for volume in service.get("volumes", ())]
    named += [volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert len(named) > len(services)
    for name in named:
        assert (CHECKOUT / name).exists(), name


def test_images_of_others_are_pinned(services: dict[str, Any]) -> None:
    of_others = {s["image"] for s in services.values() if "build" not in s}
    assert len(of_others) == 4
    for image in of_others:
        _, _, tag = image.rpartition("/")[2].partition(":")
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*", tag), image


def test_clients_reach_nginx_alone(services: dict[str, Any]) -> None:
    published = []
    for name, model in (("images", ImagesSettings), ("artifacts", ArtifactsSettings)):
        port = model().default.bind_port
        published.append(f"127.0.0.1:{port}:{port}")
        assert f"EXPOSE {port}\n" in (CHECKOUT / f"deploy/docker/{name}.Dockerfile").read_text()
        nodes = (CHECKOUT / f"deploy/compose/nginx/{name}.nodes").read_text()
        assert f"server {name}:{port} " in nodes
    assert services["nginx"]["ports"] == published
    others = {name for name, service in services.items() if "ports" in service} - {"nginx"}
    assert others == {"keystone"}


def test_the_services_believe_nginx_and_nobody_else(services: dict[str, Any]) -> None:
    address = services["nginx"]["networks"]["default"]["ipv4_address"]
    for name in OURS:
        variables = (CHECKOUT / f"deploy/compose/{name}.env").read_text()
        assert f"__OSLO_MIDDLEWARE__TRUSTED_PROXIES={address}\n" in variables


def test_nodes_are_several_write_into_volumes_alone_and_are_given_time(
    services: dict[str, Any],
) -> None:
    for name in OURS:
        assert services[name]["deploy"]["replicas"] == 2
        variables = variables_of(services[name])
        default = {"images": ImagesSettings, "artifacts": ArtifactsSettings}[name]().default
        prefix = f"DIPTYCH_{name.upper()}__DEFAULT"
        drains = float(variables.get(f"{prefix}__DRAIN_DELAY", default.drain_delay))
        ends = float(variables.get(f"{prefix}__GRACEFUL_TIMEOUT", default.graceful_timeout))
        needed = drains + ends + server.CLOSING_S
        for one in (name, f"{name}-worker"):
            assert int(services[one]["stop_grace_period"].rstrip("s")) >= needed
        for one in (name, f"{name}-worker", f"{name}-migration"):
            assert services[one]["read_only"] is True
            assert f"{name}:/var/lib/diptych/{name}" in services[one]["volumes"]
    assert services["nginx"]["read_only"] is True


def test_whatever_answers_is_asked_whether_it_is_well(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "build" in service:
            file = CHECKOUT / service["build"]["dockerfile"]
            assert "\nHEALTHCHECK " in file.read_text()
            is_asked = not service.get("healthcheck", {}).get("disable", False)
            assert is_asked is not name.endswith(("-worker", "-migration")), name
        else:
            assert "test" in service["healthcheck"], name


def test_the_services_know_every_variable_of_the_compose_file(services: dict[str, Any]) -> None:
    ours = [service for service in services.values() if "env_file" in service]
    # A worker and a migration have the same as each other.
    different = {(one["image"], tuple(variables_of(one).items())) for one in ours}
    assert len(different) == 4
    for program, variables in different:
        done = subprocess.run(
            [VENV / "bin" / program, "config", "check", "--json"],
            env={**dict(variables), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (program, done.stdout, done.stderr)


def variables_of(service: dict[str, Any]) -> dict[str, str]:
    """What is in the environment of one of our containers."""
    lines = (CHECKOUT / service["env_file"]).read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    return variables | {
        key: value.replace("$", "") for key, value in service["environment"].items()
    }


def test_nginx_takes_the_samples_as_its_container_has_them(
    services: dict[str, Any], tmp_path: Path, debian: Callable[[str, str], str]
) -> None:
    """With what its image has around them, and the containers' names at hand."""
    program = debian("nginx-light", "nginx")
    etc = tmp_path / "etc"
    for volume in services["nginx"]["volumes"]:
        source, target, mode = volume.split(":")
        assert mode == "ro"
        if source.startswith("./"):
            place = etc / Path(target).relative_to("/etc/nginx")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (CHECKOUT / source).is_dir():
                shutil.copytree(CHECKOUT / source, place)
            else:
                shutil.copy(CHECKOUT / source, place)
    for nodes in (etc / "diptych-site").glob("*.nodes"):
        nodes.write_text(nodes.read_text().replace(f"server {nodes.stem}:", "server 127.0.0.1:"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (etc / "nginx.conf").write_text(
        f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{places}include {etc}/conf.d/*.conf;\n}}\n"
    )
    done = subprocess.run(
        [program, "-t", "-p", tmp_path, "-e", tmp_path / "log", "-c", etc / "nginx.conf"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr, done.stderr
