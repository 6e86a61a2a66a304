"""Our two services as operators run them: a configuration file in Glance's words, and a command."""

import base64
import secrets
import subprocess
from pathlib import Path
from typing import Final, Literal

from dev import environments, guard, ports
from dev.keystone import PASSWORD
from dev.places import VENV

Service = Literal["images", "artifacts"]
# Of one configuration file: section, option, value.
Sections = dict[str, dict[str, object]]

SERVICES: Final[tuple[Service, ...]] = ("images", "artifacts")
# service: its user in Keystone, its type in the catalog.
_KEYSTONE: Final = {"images": ("glance", "image"), "artifacts": ("glare", "artifact")}
_START_WITHIN_S = 60


def sections(
    service: Service, *, keystone_url: str, database_url: str, port: int, metrics_port: int
) -> Sections:
    """What every configuration of a service has here, without its stores.

    It listens on loopback, and asks Keystone who is asking.
    """
    user, kind = _KEYSTONE[service]
    return {
        "DEFAULT": {"bind_host": ports.LOOPBACK, "bind_port": port, "workers": 2},
        "database": {"connection": database_url},
        "keystone_authtoken": {
            "www_authenticate_uri": keystone_url,
            "auth_url": keystone_url,
            "auth_type": "password",
            "username": user,
            "password": PASSWORD,
            "project_name": "service",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
            "service_type": kind,
            "service_token_roles": "service",
            "service_token_roles_required": "true",
        },
        "paste_deploy": {"flavor": "keystone"},
        "metrics": {"bind_port": metrics_port},
    }


def write(path: Path, text: str) -> Path:
    """Write a file that only we may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def configure(path: Path, written: Sections) -> Path:
    """Write a configuration file."""
    text = "\n".join(
        f"[{section}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for section, options in written.items()
    )
    return write(path, "# Written anew at each start.\n\n" + text)


def secret_key(kept: Path) -> str:
    """The key in this file, which is made if there is none: what one run sealed, the next opens."""
    if not kept.exists():
        write(kept, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return kept.read_text()


def upgrade(service: Service, configuration: Path) -> None:
    """Bring the service's database up to date; DevError."""
    program = str(VENV / "bin" / f"diptych-{service}")
    environments.run([program, "db", "upgrade", "--config-file", str(configuration)])


def start(
    service: Service,
    command: Literal["api", "worker"],
    configuration: Path,
    *,
    log: Path,
    owner: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start one process of the service with all its workers; return its guard."""
    return guard.guarded(
        [str(VENV / "bin" / f"diptych-{service}"), command, "--config-file", str(configuration)],
        log=log,
        environment={"PATH": f"{VENV / 'bin'}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        owner=owner,
    )


def await_answer(
    started: subprocess.Popen[bytes], port: int, *, name: str, log: Path, path: str = "/healthcheck"
) -> None:
    """Wait until what `start` started on the port answers; DevError with the end of its log."""
    url = f"http://{ports.LOOPBACK}:{port}{path}"
    guard.await_start(
        started, lambda: ports.answers(url), name=name, log=log, within_s=_START_WITHIN_S
    )
