"""The clients of one user: `openstack`, `glance`, openstacksdk and glanceclient."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT_PROCESS = Path(__file__).with_name("client_process.py")


class CommandFailed(AssertionError):
    """A command ended with another code than 0; the text is what it wrote on standard error."""


class Raised(Exception):
    """What a client's library raised: `name` of the class, `names` with its bases."""

    def __init__(self, names: list[str], message: str, trace: str) -> None:
        super().__init__(message)
        self.name = names[0]
        self.names = names
        self.message = message
        self.add_note(trace)


@dataclass(frozen=True)
class Cloud:
    """An entry of clouds.yaml, and a process that carries out what its user orders."""

    name: str
    process: subprocess.Popen[str]

    def openstack(self, *arguments: str, typed: str | None = None) -> str:
        """What `openstack` prints; a line is `typed` where it asks for one."""
        return self._script("openstack", "--os-cloud", self.name, *arguments, typed=typed)

    def shown(self, *arguments: str, typed: str | None = None) -> Any:
        """What `openstack … -f json` prints, decoded."""
        return json.loads(self.openstack(*arguments, "-f", "json", typed=typed))

    def sdk(self, call: str, *arguments: Any, **named: Any) -> Any:
        """`openstack.connect(…).<call>(…)`: dicts for resources, a list for a generator."""
        return self._call("sdk", call, *arguments, **named)

    def glanceclient(self, call: str, *arguments: Any, **named: Any) -> Any:
        """`glanceclient.Client(…).<call>(…)` with a session, as OpenStack's services make it."""
        return self._call("glanceclient", call, *arguments, **named)

    def old_glanceclient(self, call: str, *arguments: Any, **named: Any) -> Any:
        """The same with an endpoint and a token, which goes through other code."""
        return self._call("old_glanceclient", call, *arguments, **named)

    def _call(self, kind: str, call: str, *arguments: Any, **named: Any) -> Any:
        done = self._carry_out(
            kind=kind, cloud=self.name, call=call, arguments=arguments, named=named
        )
        assert done["code"] == 0, done["err"]
        outcome = json.loads(done["out"].splitlines()[-1])
        if "error" in outcome:
            raise Raised(outcome["error"], outcome["message"], outcome["trace"])
        return outcome["value"]

    def _script(
        self, kind: str, *arguments: str, stdin: Path | None = None, typed: str | None = None
    ) -> str:
        done = self._carry_out(
            kind=kind, arguments=arguments, stdin=stdin and str(stdin), typed=typed
        )
        if done["code"] != 0:
            raise CommandFailed(done["err"])
        return done["out"]

    def _carry_out(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"stdin": None, **order}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class PasswordCloud(Cloud):
    """A cloud whose user has a password: `glance` reads its options, and no clouds.yaml."""

    options: tuple[str, ...]

    def glance(self, *arguments: str, stdin: Path | None = None) -> str:
        """What `glance` prints; it takes data from `stdin` where that is given."""
        return self._script("glance", *self.options, *arguments, stdin=stdin)

    def glance_shown(self, *arguments: str, stdin: Path | None = None) -> dict[str, str]:
        """The table of properties that `glance` prints."""
        return dict(rows(self.glance(*arguments, stdin=stdin)))


def rows(table: str) -> list[list[str]]:
    """The cells of a table as `glance` draws it, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
