"""The commands and methods that the pinned clients have, and those that the tests here name."""

import ast
import subprocess
from collections.abc import Iterable, Set
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path

# Run by the Python of the clients' environment; `vars`, for a proxy inherits what any service has.
_LISTING = {
    "openstack": (
        "from importlib.metadata import entry_points\n"
        "for found in entry_points(group='openstack.image.v2'):\n"
        "    print(found.name.replace('_', ' '))\n"
    ),
    "glance": (
        "import glanceclient.v2.shell\n"
        "for name in dir(glanceclient.v2.shell):\n"
        "    if name.startswith('do_'):\n"
        "        print(name.removeprefix('do_').replace('_', '-'))\n"
    ),
    "artifact": (
        "from importlib.metadata import entry_points\n"
        "for found in entry_points(group='openstack.artifact.v1'):\n"
        "    print(found.name.removeprefix('artifact_').replace('_', ' '))\n"
    ),
    # Where a word has a hyphen, `openstack` mostly has a space.
    "glare": (
        "from glareclient.shell import GlareShell\n"
        "for name in GlareShell._get_commands():\n"
        "    print(name.replace('-tag', ' tag'))\n"
    ),
    "glareclient": (
        "import glareclient.v1.artifacts, glareclient.v1.versions\n"
        "for part, kind in (\n"
        "    ('artifacts', glareclient.v1.artifacts.Controller),\n"
        "    ('versions', glareclient.v1.versions.VersionController),\n"
        "):\n"
        "    for name in vars(kind):\n"
        "        if not name.startswith('_'):\n"
        "            print(f'{part}.{name}')\n"
    ),
    "sdk": (
        "from openstack.image.v2._proxy import Proxy\n"
        "for name, found in vars(Proxy).items():\n"
        "    if callable(found) and not name.startswith('_'):\n"
        "        print(f'image.{name}')\n"
    ),
}


def offered(client: str, clients_env: Path) -> set[str]:
    """All that a client has for images, or for artifacts."""
    python = clients_env / "python"
    listed = subprocess.run(
        [python, "-W", "ignore", "-c", _LISTING[client]], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.splitlines())


@cache
def _words(modules: str = "test_*.py") -> frozenset[tuple[str, ...]]:
    """The first words in each call and each tuple of this folder's tests."""
    found: set[tuple[str, ...]] = set()
    for module in Path(__file__).parent.glob(modules):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(args=parts) | ast.Tuple(elts=parts):
                    texts = [_text(part) for part in parts]
                case _:
                    continue
            found.add(_first_words(texts))
            # As in `refused(403, "", demo.sdk, "image.delete_image", …)`.
            found |= {(text,) for text in texts if text is not None and "." in text}
    return frozenset(found)


def _text(part: ast.expr) -> str | None:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None


def _first_words(texts: Iterable[str | None]) -> tuple[str, ...]:
    words = dropwhile(lambda text: text is None, texts)
    return tuple(text for text in takewhile(lambda text: text is not None, words) if text)


def first_words(modules: str) -> set[str]:
    """The first words alone, in modules with such a name."""
    return {said[0] for said in _words(modules) if said}


def named(commands: Set[str]) -> set[str]:
    """Those of the commands that a test of this folder gives to a client, word by word."""
    words = _words()
    found: set[str] = set()
    for command in commands:
        parts = tuple(command.split())
        if any(said[: len(parts)] == parts for said in words):
            found.add(command)
    return found
