"""Our plug-in for `openstack artifact …`, installed for an `openstack` of another environment."""

import hashlib
import shutil
from pathlib import Path

from dev import environments
from dev.places import CHECKOUT, VENV

_SOURCE = CHECKOUT / "services" / "artifacts" / "client"
HOME = environments.ENVIRONMENTS / "artifactclient"


def installed() -> Path:
    """A folder with what the plug-in's wheel has, as it is now; put it in PYTHONPATH.

    Raises DevError with the installer's own words.
    """
    sources = sorted(path for path in _SOURCE.rglob("*") if path.suffix in (".py", ".toml", ".md"))
    made_from = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = HOME / "made-from"
    with environments.exclusive(environments.ENVIRONMENTS / "artifactclient.lock"):
        if not stamp.exists() or stamp.read_text() != made_from:
            shutil.rmtree(HOME, ignore_errors=True)
            environments.uv(
                # uv would take a wheel that it has kept for one of the same version.
                *("pip", "install", "--quiet", "--offline", "--no-cache"),
                *("--no-deps", "--no-build-isolation", "--python", str(VENV / "bin" / "python")),
                *("--target", str(HOME), str(_SOURCE)),
            )
            stamp.write_text(made_from)
    return HOME
