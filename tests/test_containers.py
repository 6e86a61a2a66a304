"""The Dockerfiles and the compose file say what is true of the services; buildah builds them."""

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev.places import CHECKOUT, VENV
from diptych_artifacts.settings import ArtifactsSettings
from diptych_images.settings import ImagesSettings

DOCKERFILES = sorted((CHECKOUT / "deploy" / "docker").glob("*.Dockerfile"))
COMPOSE = CHECKOUT / "docker-compose.yml"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = "localhost/python:3.11-slim"


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


def test_the_compose_file_names_files_that_are_there(services: dict[str, Any]) -> None:
    named = [service["build"]["dockerfile"] for service in services.values() if "build" in service]
    named += [service["env_file"] for service in services.values() if "env_file" in service]
    assert named
    for name in named:
        assert (CHECKOUT / name).is_file()


def test_the_compose_file_publishes_the_services_ports(services: dict[str, Any]) -> None:
    for name, model in (("images", ImagesSettings), ("artifacts", ArtifactsSettings)):
        port = model().default.bind_port
        assert f"127.0.0.1:{port}:{port}" in services[name]["ports"]
        assert f"EXPOSE {port}\n" in (CHECKOUT / f"deploy/docker/{name}.Dockerfile").read_text()


def test_the_services_know_every_variable_of_the_compose_file(services: dict[str, Any]) -> None:
    for name in services.keys() - {"postgres", "keystone"}:
        service = services[name]
        variables = dict(
            line.split("=", 1)
            for line in (CHECKOUT / service["env_file"]).read_text().splitlines()
            if not line.startswith("#")
        )
        variables |= {key: value.replace("$", "") for key, value in service["environment"].items()}
        program = service["image"]
        done = subprocess.run(
            [VENV / "bin" / program, "config", "check", "--json"],
            env={**variables, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def buildah(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str]
) -> Generator[Callable[..., str]]:
    """buildah, with a Debian with Python that stands in for the official base image."""
    if os.geteuid() != 0:
        pytest.skip("buildah needs root here")
    program = debian("buildah", "buildah")
    debian("mmdebstrap", "mmdebstrap")
    place = tmp_path_factory.mktemp("buildah")
    storage = ["--root", place / "storage", "--runroot", place / "run"]
    storage += ["--storage-driver", "vfs"]
    surroundings = {**os.environ, "TMPDIR": str(place), "BUILDAH_ISOLATION": "chroot"}

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [program, *storage, *arguments],
            env=surroundings,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    _make_base(place, run)
    yield run
    shutil.rmtree(place)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_it_builds_and_its_program_starts(dockerfile: Path, buildah: Callable[..., str]) -> None:
    buildah(
        *("bud", "--network=host", "--pull=never", "--format=docker"),
        *("--file", dockerfile, "--tag", f"diptych-{dockerfile.stem}", CHECKOUT),
    )
    container = buildah("from", "--pull=never", f"localhost/diptych-{dockerfile.stem}")
    assert buildah("run", container, "--", "id", "-u") != "0"
    if dockerfile.stem == "keystone":
        return
    other = {"images": "artifacts", "artifacts": "images"}[dockerfile.stem]
    installed = buildah(
        *("run", container, "--", "python", "-c"),
        "import importlib.metadata as m; print(*(d.name for d in m.distributions()))",
    ).split()
    assert f"diptych-{dockerfile.stem}" in installed
    assert not {f"diptych-{other}", "pytest", "ruff", "uv"} & set(installed)
    program = f"diptych-{dockerfile.stem}"
    assert "Serve the API" in buildah("run", container, "--", program, "--help")


def _make_base(place: Path, buildah: Callable[..., str]) -> None:
    archive = place / "base.tar"
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase"),
            "--include=python3,python3-venv,python3-pip,ca-certificates",
            '--customize-hook=ln -sf python3 "$1/usr/bin/python"',
            '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            *("bookworm", archive),
        ],
        check=True,
        capture_output=True,
    )
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, archive, "/")
    if CERTIFICATES.exists():
        # Where the registries are reached through an authority of the site's own.
        buildah("copy", "--quiet", container, CERTIFICATES, CERTIFICATES)
        buildah(
            *("config", "--env", f"SSL_CERT_FILE={CERTIFICATES}"),
            *("--env", f"PIP_CERT={CERTIFICATES}", container),
        )
    buildah("commit", "--quiet", "--rm", container, BASE)
    archive.unlink()
