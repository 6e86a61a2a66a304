"""A real Keystone for developers and tests: SQLite, one process, an environment of its own.

Making Keystone's database takes some seconds, so it is done once and kept as a template; after that
a new Keystone is a copy of two folders.
"""

import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev import environments, guard, keystone_setup, ports
from dev.places import LOCKS, STATE

PASSWORD = keystone_setup.PASSWORD
_SETUP = Path(keystone_setup.__file__)
_START_WITHIN_S = 120


class Keystone:
    """One Keystone on loopback; its users and projects are in `keystone_setup`.

    `root` holds everything it keeps; a folder that isn't there yet is made from the template.
    `endpoints` maps service types (`image`, `artifact`) to the addresses in the catalog.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int,
        endpoints: Mapping[str, str],
        token_seconds: int = 86400,
    ) -> None:
        self.root = root
        self.url = f"http://{ports.LOOPBACK}:{port}/v3"
        self.log = root / "output.log"
        self._port = port
        self._endpoints = {"identity": self.url, **endpoints}
        self._token_seconds = token_seconds
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, *, owner: int | None = None) -> None:
        """Start, and return when requests are answered: about 2 s, 5 more if there's no template.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError
        with the end of its log if it doesn't come up.
        """
        python = environments.ready("keystone") / "python"
        if not self.root.exists():
            arriving = self.root.with_name(f"{self.root.name}.arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            shutil.copytree(_template(python), arriving)
            arriving.rename(self.root)
        keystone_setup.configure(self.root, token_seconds=self._token_seconds)
        # Ports may differ from one start to the next.
        keystone_setup.set_endpoints(self.root, self._endpoints)
        self._guard = guard.guarded(
            [*_inside(python), "serve", ports.LOOPBACK, str(self._port)],
            log=self.log,
            environment=_surroundings(self.root),
            owner=owner,
        )
        guard.await_start(
            self._guard,
            lambda: ports.answers(self.url),
            name="Keystone",
            log=self.log,
            within_s=_START_WITHIN_S,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the server does, and to terminate it stops the server."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Stop serving; what it knows stays."""
        guard.stop(self._guard)

    def user_id(self, name: str) -> str:
        """The id of one of the users that were made with the database."""
        return self._ids()["users"][name]

    def project_id(self, name: str) -> str:
        """The id of one of the projects that were made with the database."""
        return self._ids()["projects"][name]

    def token(
        self,
        user: str,
        project: str | None = None,
        *,
        domain: str | None = None,
        system: bool = False,
    ) -> str:
        """A new token for the project, the domain (by name) or the system; unscoped if none."""
        scope: dict[str, Any] | None = None
        if project is not None:
            scope = {"project": {"name": project, "domain": {"id": "default"}}}
        elif domain is not None:
            scope = {"domain": {"name": domain}}
        elif system:
            scope = {"system": {"all": True}}
        return self.authenticate(
            {
                "methods": ["password"],
                "password": {
                    "user": {"name": user, "domain": {"id": "default"}, "password": PASSWORD}
                },
            },
            scope=scope or "unscoped",
        )

    def authenticate(self, identity: Mapping[str, Any], *, scope: object = None) -> str:
        """A new token by any of Keystone's methods; `identity` and `scope` as its API has them."""
        auth: dict[str, Any] = {"identity": identity}
        if scope is not None:
            auth["scope"] = scope
        request = self._request("POST", "/auth/tokens", {"auth": auth}, token=None)
        with ports.direct.open(request) as answer:
            token: str = answer.headers["X-Subject-Token"]
            return token

    def call(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        token: str | None = None,
        subject: str | None = None,
    ) -> Any:
        """One call of Keystone's API below /v3, by the administrator unless `token` is given.

        `subject` is the token that the call is about. Returns the decoded document, None for an
        empty answer; raises urllib's HTTPError.
        """
        token = token or self.token("admin", "admin")
        request = self._request(method, path, document, token=token)
        if subject is not None:
            request.add_header("X-Subject-Token", subject)
        with ports.direct.open(request) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def expired(self, token: str) -> str:
        """The same token, expired an hour ago but otherwise as good; takes about two seconds."""
        python = environments.ready("keystone") / "python"
        done = subprocess.run(
            [*_inside(python), "age", token],
            env=_surroundings(self.root),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()[-1]

    def _request(
        self, method: str, path: str, document: object, *, token: str | None
    ) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Auth-Token"] = token
        body = None if document is None else json.dumps(document).encode()
        return urllib.request.Request(self.url + path, body, headers, method=method)

    def _ids(self) -> dict[str, dict[str, str]]:
        ids: dict[str, dict[str, str]] = json.loads((self.root / "ids.json").read_text())
        return ids


def _template(python: Path) -> Path:
    """The folder to copy, made by the first who asks; made anew when what it is made by changed."""
    made_by = _SETUP.read_bytes() + (LOCKS / "keystone.lock").read_bytes()
    template = STATE / f"keystone-template-{hashlib.sha256(made_by).hexdigest()[:12]}"
    with environments.exclusive(STATE / "keystone-template.lock"):
        if not template.exists():
            for older in STATE.glob("keystone-template-*"):
                shutil.rmtree(older)
            template.mkdir(mode=0o700)
            try:
                keystone_setup.configure(template)
                environments.run(
                    [*_inside(python), "initialize", str(template)],
                    environment=_surroundings(template),
                )
            except BaseException:
                shutil.rmtree(template)
                raise
    return template


def _inside(python: Path) -> list[str]:
    # -P: the folder of the script has a `keystone` of its own, this module.
    return [str(python), "-P", "-W", "ignore", str(_SETUP)]


def _surroundings(root: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(root),
        "LC_ALL": "C.UTF-8",
        "OS_KEYSTONE_CONFIG_DIR": str(root),
        "OS_KEYSTONE_CONFIG_FILES": str(root / "keystone.conf"),
    }
