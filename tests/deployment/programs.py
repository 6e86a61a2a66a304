"""The services' command lines, held against what deployment files tell them."""

from collections.abc import Mapping, Sequence
from typing import Any

import diptych_artifacts.cli
import diptych_images.cli
from diptych_common.command_line import Service
from diptych_common.settings import ServiceSettings
from typer.testing import CliRunner

SERVICES: Mapping[str, Service[Any]] = {
    "images": diptych_images.cli.SERVICE,
    "artifacts": diptych_artifacts.cli.SERVICE,
}
_COMMANDS = {"images": diptych_images.cli.main, "artifacts": diptych_artifacts.cli.main}


def settings(service: str, environ: Mapping[str, str]) -> ServiceSettings:
    """What the service makes of the variables; fails on one that it does not know or use."""
    loaded = SERVICES[service].load(environ=environ)
    SERVICES[service].create_app(loaded)
    loaded = SERVICES[service].with_leftovers(loaded)
    assert (loaded.unknown, loaded.unused) == ((), ())
    return loaded.settings


def require_command(service: str, arguments: Sequence[str]) -> None:
    """Fail unless the service's program has the command with these options."""
    done = CliRunner().invoke(_COMMANDS[service], [*arguments, "--help"])
    assert done.exit_code == 0, done.output
    words = [word for word in arguments if not word.startswith("-")]
    assert " ".join(words[:2] if words[0] == "db" else words[:1]) in done.output
