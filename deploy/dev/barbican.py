"""A real Barbican for tests: SQLite, one process, an environment of its own, tokens by Keystone."""

import os
import subprocess
from pathlib import Path

from dev import barbican_setup, environments, guard, ports
from dev.keystone import PASSWORD, Keystone

_SETUP = Path(barbican_setup.__file__)
_START_WITHIN_S = 120


class Barbican:
    """One Barbican on loopback; `root` holds everything it keeps.

    `keystone_url` (with `/v3`) is that of a Keystone that knows the user of `prepare_keystone`.
    """

    def __init__(self, root: Path, *, port: int, keystone_url: str) -> None:
        self.root = root
        self.log = root / "output.log"
        self.url = f"http://{ports.LOOPBACK}:{port}"
        self.keystone_url = keystone_url
        self._port = port
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, *, owner: int | None = None) -> None:
        """Start, and return when requests are answered: about 3 s.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError
        with the end of its log if it doesn't come up.
        """
        python = environments.ready("barbican") / "python"
        barbican_setup.configure(
            self.root, url=self.url, keystone_url=self.keystone_url, keystone_password=PASSWORD
        )
        self._guard = guard.guarded(
            [
                # -P: the folder of the script has a `barbican` of its own, this module.
                *(str(python), "-P", "-W", "ignore", str(_SETUP)),
                *(str(self.root), ports.LOOPBACK, str(self._port)),
            ],
            log=self.log,
            environment={
                "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                "HOME": str(self.root),
                "LC_ALL": "C.UTF-8",
            },
            owner=owner,
        )
        guard.await_start(
            self._guard,
            lambda: ports.answers(self.url),
            name="Barbican",
            log=self.log,
            within_s=_START_WITHIN_S,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the server does, and to terminate it stops the server."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Stop serving; what it keeps stays."""
        guard.stop(self._guard)


def prepare_keystone(keystone: Keystone, url: str) -> None:
    """Add to a Keystone what a Barbican needs that asks it; once.

    The user `barbican`, who validates tokens, and the service `key-manager` with its endpoints.
    """
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}
    user = {"name": barbican_setup.KEYSTONE_USER, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    service = keystone.project_id("service")
    keystone.call("PUT", f"/projects/{service}/users/{user_id}/roles/{roles['service']}")
    document = {"service": {"type": "key-manager", "name": "barbican"}}
    service_id = keystone.call("POST", "/services", document)["service"]["id"]
    for interface in ("public", "internal", "admin"):
        endpoint = {
            "service_id": service_id,
            "interface": interface,
            "region_id": "RegionOne",
            "url": url,
        }
        keystone.call("POST", "/endpoints", {"endpoint": endpoint})
