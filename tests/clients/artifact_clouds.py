"""The clients of artifacts of one user: `openstack`, `glare` and glareclient's library."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.clients.clouds import Cloud, CommandFailed

ARTIFACT_PROCESS = Path(__file__).with_name("artifact_process.py")

# `openstack artifact` of ours and of glareclient's, and the program that comes with that.
Kind = Literal["ours", "glareclient", "glare"]


@dataclass(frozen=True)
class ArtifactCloud(Cloud):
    """An entry of clouds.yaml, a client, and the process that has it."""

    kind: Kind

    def artifact(self, command: str, *arguments: str, stdin: Path | None = None) -> str:
        """What `openstack artifact <command>` prints, or `glare <command>`."""
        words = command.split()
        done = self._carry_out(
            kind="glare" if self.kind == "glare" else "openstack",
            cloud=self.name,
            arguments=(
                ("-".join(words), *arguments)
                if self.kind == "glare"
                else ("--os-cloud", self.name, "artifact", *words, *arguments)
            ),
            stdin=stdin and str(stdin),
        )
        if done["code"] != 0:
            raise CommandFailed(done["err"])
        return done["out"]

    def rows(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        """The rows of the table that a command shows."""
        return json.loads(self.artifact(command, *arguments, "-f", "json"))

    def fields(self, command: str, *arguments: str) -> dict[str, Any]:
        """The values of the artifact that a command shows."""
        return {row["Field"]: row["Value"] for row in self.rows(command, *arguments)}

    def blob(self, command: str, *arguments: str, stdin: Path | None = None) -> dict[str, Any]:
        """The blob that a command shows."""
        return json.loads(self.artifact(command, *arguments, "-f", "json", stdin=stdin))

    def by_session(self, call: str, *arguments: Any, **named: Any) -> Any:
        """`glareclient.Client("1", session=…).<call>(…)`."""
        return self._call("session", call, *arguments, **named)

    def by_token(self, call: str, *arguments: Any, **named: Any) -> Any:
        """`glareclient.Client("1", endpoint, auth_token=…).<call>(…)`, which is other code."""
        return self._call("token", call, *arguments, **named)


def process(
    python: Path, plug_in: Path | None, folder: Path, clouds: Path
) -> subprocess.Popen[str]:
    """Start a process that has one of the clients; ours if there is a `plug_in` to be found."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "OS_CLIENT_CONFIG_FILE": str(clouds),
    }
    if plug_in is not None:
        environ["PYTHONPATH"] = str(plug_in)
    return subprocess.Popen(
        [python, "-W", "ignore", ARTIFACT_PROCESS],
        env=environ,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
