"""`make setup`: the virtual environment of the product and its tools, exactly as locked.

Runs with the Python that was found on the machine, before anything is installed.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import environments
from dev.places import CHECKOUT, STATE, VENV, DevError

LOCK = CHECKOUT / "requirements.lock"
PACKAGES = (
    "libs/common",
    "libs/store",
    "services/images",
    "services/artifacts",
    "services/artifacts/sample",
    "services/artifacts/client",
)


def set_up() -> None:
    """Make `.venv` what the lock says, with our packages editable in it; quick if it is."""
    sources = [LOCK, *(CHECKOUT / package / "pyproject.toml" for package in PACKAGES)]
    made_from = hashlib.sha256(sys.version.encode())
    for source in sources:
        made_from.update(source.read_bytes())
    stamp = VENV / "made-from"
    with environments.exclusive(STATE / "setup.lock"):
        if stamp.exists() and stamp.read_text() == made_from.hexdigest():
            return
        stamp.unlink(missing_ok=True)
        python = _python()
        print("Installing what requirements.lock names into .venv ...", flush=True)
        _install_uv(python)
        environments.uv("pip", "sync", "--require-hashes", "--python", str(python), str(LOCK))
        editable = [
            part for package in PACKAGES for part in ("--editable", str(CHECKOUT / package))
        ]
        # All they need is in the lock, so that nothing is fetched that isn't pinned.
        environments.uv(
            *("pip", "install", "--python", str(python)),
            *("--offline", "--no-deps", "--no-build-isolation"),
            *editable,
        )
        stamp.write_text(made_from.hexdigest())


def _python() -> Path:
    """The interpreter of `.venv`, which is made if there is none or if it is another Python's."""
    python = VENV / "bin" / "python"
    if not python.exists() or _version(python) != sys.version:
        try:
            environments.run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        except DevError as error:
            raise DevError(
                f"{sys.executable} could not make a virtual environment "
                f"(on Debian and Ubuntu, install python3-venv):\n{error}"
            ) from None
    return python


def _version(python: Path) -> str:
    done = subprocess.run(
        [str(python), "-c", "import sys; print(sys.version, end='')"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def _install_uv(python: Path) -> None:
    """Install the uv that the lock pins, by the pip that every virtual environment begins with."""
    if (VENV / "bin" / "uv").exists():
        return
    entries = LOCK.read_text().replace("\\\n", "").splitlines()
    pinned = next((entry for entry in entries if entry.startswith("uv==")), None)
    if pinned is None:
        raise DevError(f"{LOCK} does not name uv")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned + "\n")
        requirements.flush()
        environments.run(
            [
                *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--requirement", requirements.name),
            ]
        )


if __name__ == "__main__":
    try:
        set_up()
    except DevError as error:
        sys.exit(f"make setup: {error}")
