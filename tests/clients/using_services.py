"""Nova, Cinder and Ironic as users of the images service: processes with the code of one each."""

import json
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.clouds import Raised

PROCESS = Path(__file__).with_name("service_process.py")


@dataclass(frozen=True)
class Who:
    """The user whom a service works for."""

    user_id: str
    project_id: str
    token: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """One of the services; `image_url` is where its users' catalog has the images service."""

    process: subprocess.Popen[str]
    image_url: str
    region: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> "Service":
        """The service with other options; `glance__num_retries` is one of the group glance."""
        given = {name.replace("__", "."): value for name, value in options.items()}
        return Service(self.process, self.image_url, self.region, {**self.options, **given})

    def __call__(self, who: Who, call: str, *arguments: Any, **named: Any) -> Any:
        """What the method gives back, as JSON has it; Raised with what it raised."""
        endpoint = {"region": self.region}
        for interface in ("public", "internal", "admin"):
            endpoint[f"{interface}URL"] = self.image_url
        image = {"type": "image", "name": "glance", "endpoints": [endpoint]}
        order = {
            "call": call,
            "who": {
                "user_id": who.user_id,
                "project_id": who.project_id,
                "token": who.token,
                "roles": who.roles,
                "catalog": [image],
            },
            "arguments": arguments,
            "named": named,
            "options": dict(self.options),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        outcome = json.loads(self.process.stdout.readline())
        if "error" in outcome:
            raise Raised(outcome["error"], outcome["message"], outcome["trace"])
        return outcome["value"]


@contextmanager
def running(name: str, python: Path, configuration: str, folder: Path) -> Generator[Any]:
    """A process with this service's code and configuration, until the context is left."""
    folder.mkdir()
    file = folder / f"{name}.conf"
    file.write_text(configuration)
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        # Threads instead of eventlet, as the services are started by now.
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true",
    }
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [python, "-W", "ignore", PROCESS, name, file],
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
