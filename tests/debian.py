"""Programs of Debian's: found where they are, installed where we may."""

import os
import shutil
import subprocess

from dev import environments
from dev.places import STATE

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(packages: str, name: str) -> str | None:
    """The program's path, installed with apt if we are root; None where it is not to be had."""
    with environments.exclusive(STATE / "apt.lock"):
        found = shutil.which(name, path=_PATH)
        if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
            # A machine that is new has no package lists yet.
            if not _apt_get("install", "--no-install-recommends", *packages.split()):
                _apt_get("update")
                _apt_get("install", "--no-install-recommends", *packages.split())
            found = shutil.which(name, path=_PATH)
    return found


def _apt_get(*arguments: str) -> bool:
    done = subprocess.run(
        ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
