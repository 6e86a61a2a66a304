"""The services as container images, built from the Dockerfiles and run; only if somebody asks."""

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from dev.places import CHECKOUT

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = "localhost/python:3.11-slim"


@dataclass(frozen=True, slots=True)
class Containers:
    """buildah and podman over one storage of their own, with BASE in it."""

    build: Callable[..., str]
    run: Callable[..., str]


@pytest.fixture(scope="session")
def containers(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str]
) -> Generator[Containers]:
    """Both programs, with a Debian with Python that stands in for the official base image."""
    if os.geteuid() != 0:
        pytest.skip("buildah needs root here")
    buildah, podman = debian("buildah", "buildah"), debian("podman", "podman")
    # crun does not take every machine's control groups.
    runc = debian("runc", "runc")
    debian("mmdebstrap", "mmdebstrap")
    place = tmp_path_factory.mktemp("containers")
    storage = ["--root", place / "storage", "--runroot", place / "run"]
    storage += ["--storage-driver", "vfs"]
    engine = ["--runtime", runc, "--cgroup-manager=cgroupfs", "--events-backend=file"]

    def build(*arguments: str | Path) -> str:
        return _output([buildah, *storage, *arguments], place)

    def run(*arguments: str | Path) -> str:
        return _output([podman, *storage, *engine, *arguments], place)

    _make_base(place, build)
    yield Containers(build, run)
    run("rm", "--all", "--force", "--time=0")
    run("volume", "rm", "--all", "--force")
    shutil.rmtree(place)


def _output(command: list[str | Path], place: Path) -> str:
    surroundings = {**os.environ, "TMPDIR": str(place), "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def _make_base(place: Path, build: Callable[..., str]) -> None:
    archive = place / "base.tar"
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase"),
            "--include=python3,python3-venv,ca-certificates",
            '--customize-hook=ln -sf python3 "$1/usr/bin/python"',
            '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            *("bookworm", archive),
        ],
        check=True,
        capture_output=True,
    )
    container = build("from", "scratch")
    build("add", "--quiet", container, archive, "/")
    # As in the official image, pip is no package of Debian's.
    pip = (
        "cd /usr/local/lib/python3*/dist-packages;"
        " python3 -m zipfile -e /usr/share/python-wheels/pip-*.whl .;"
        " printf '#!/bin/sh\\nexec python3 -m pip \"$@\"\\n' > /usr/local/bin/pip;"
        " chmod +x /usr/local/bin/pip"
    )
    build("run", container, "--", "sh", "-ec", pip)
    if CERTIFICATES.exists():
        # Where the registries are reached through an authority of the site's own.
        build("copy", "--quiet", container, CERTIFICATES, CERTIFICATES)
        build(
            *("config", "--env", f"SSL_CERT_FILE={CERTIFICATES}"),
            *("--env", f"PIP_CERT={CERTIFICATES}", container),
        )
    build("commit", "--quiet", "--rm", container, BASE)
    archive.unlink()


@pytest.fixture(scope="session")
def built(containers: Containers) -> Callable[..., str]:
    """`built("images", …)`: the image that the Dockerfile makes, with other arguments."""

    # Not buildah's own cache: without a file system of layers it copies everything for each step.
    @cache
    def build(dockerfile: str, *arguments: str) -> str:
        tag = f"localhost/diptych-{dockerfile}:{'other' if arguments else 'latest'}"
        containers.build(
            *("bud", "--network=host", "--pull=never", "--format=docker", *arguments),
            *("--file", CHECKOUT / "deploy" / "docker" / f"{dockerfile}.Dockerfile"),
            *("--tag", tag, CHECKOUT),
        )
        return tag

    return build
