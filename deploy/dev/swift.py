"""A real Swift for developers and tests: one replica on loopback, an environment of its own.

The proxy with tempauth also speaks S3; another one, with the same data behind it, asks a Keystone.
There is no memcached, and so but one process of each.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from dev import environments, guard, ports, swift_setup
from dev.keystone import PASSWORD, Keystone

ACCOUNTS = swift_setup.ACCOUNTS
KEYSTONE_USER = swift_setup.KEYSTONE_USER
RESELLER_ROLE = swift_setup.RESELLER_ROLE
GIB = 1 << 30
_SETUP = Path(swift_setup.__file__)
_START_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers listen: the proxies for clients, the others for the proxies."""

    tempauth: int
    keystone: int
    account: int
    container: int
    object: int

    @classmethod
    def any_free(cls) -> "Ports":
        """Five ports that were free a moment ago."""
        return cls(*ports.several_free(5))


class Swift:
    """One Swift on loopback; its accounts and their keys are in `swift_setup`.

    `root` holds everything it keeps. `keystone_url` (with `/v3`) is that of a Keystone that knows
    the user and the role of `prepare_keystone`; without it there is no proxy that asks one.
    `max_file_size` is that of one object in bytes, `s3_minimum_part` that of a part but the last.
    """

    def __init__(
        self,
        root: Path,
        *,
        ports: Ports,
        keystone_url: str | None = None,
        max_file_size: int = 5 * GIB + 2,
        s3_minimum_part: int = 5 << 20,
    ) -> None:
        self.root = root
        self.log = root / "output.log"
        # tempauth: `/auth/v1.0` below, and S3 at the root.
        self.url = f"http://127.0.0.1:{ports.tempauth}"
        self.auth_url = f"{self.url}/auth/v1.0"
        self.keystone_proxy_url = f"http://127.0.0.1:{ports.keystone}"
        self.keystone_url = keystone_url
        self._ports = ports
        self._max_file_size = max_file_size
        self._s3_minimum_part = s3_minimum_part
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, *, owner: int | None = None) -> None:
        """Start, and return when requests are answered: about 3 s.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError
        with the end of its log if it doesn't come up.
        """
        python = environments.ready("swift") / "python"
        listening = asdict(self._ports)
        if self.keystone_url is None:
            del listening["keystone"]
        swift_setup.configure(
            self.root,
            ports=listening,
            keystone_url=self.keystone_url,
            keystone_password=PASSWORD,
            max_file_size=self._max_file_size,
            s3_minimum_part=self._s3_minimum_part,
        )
        self._guard = guard.guarded(
            # -P: the folder of the script has a `swift` of its own, this module.
            [str(python), "-P", "-W", "ignore", str(_SETUP), str(self.root), json.dumps(listening)],
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
            lambda: all(
                ports.answers(f"http://{ports.LOOPBACK}:{port}/healthcheck")
                for port in listening.values()
            ),
            name="Swift",
            log=self.log,
            within_s=_START_WITHIN_S,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the servers do, and to terminate it stops the servers."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Stop serving; what it keeps stays."""
        guard.stop(self._guard)


def prepare_keystone(keystone: Keystone, proxy_url: str) -> None:
    """Add to a Keystone what a Swift needs that asks it; once.

    The user `swift`, who validates tokens; the role ResellerAdmin, whose bearers may act in every
    account; the service `object-store` with its endpoints, in the catalog's region.
    """
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}
    keystone.call("POST", "/roles", {"role": {"name": RESELLER_ROLE}})
    user = {"name": KEYSTONE_USER, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    service = keystone.project_id("service")
    keystone.call("PUT", f"/projects/{service}/users/{user_id}/roles/{roles['service']}")
    document = {"service": {"type": "object-store", "name": "swift"}}
    service_id = keystone.call("POST", "/services", document)["service"]["id"]
    for interface in ("public", "internal", "admin"):
        endpoint = {
            "service_id": service_id,
            "interface": interface,
            "region_id": "RegionOne",
            "url": f"{proxy_url}/v1/AUTH_$(project_id)s",
        }
        keystone.call("POST", "/endpoints", {"endpoint": endpoint})
