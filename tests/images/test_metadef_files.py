"""`diptych-images metadefs`: definitions to files and back."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from diptych_common.database import Database
from diptych_images import catalogue
from diptych_images.settings import load

from tests import databases
from tests.daemon import COMMAND
from tests.images.definitions import NAMESPACES, SIZE, WHOLE, without_times
from tests.images.service import ADMIN, configuration

OTHER: dict[str, Any] = {
    "namespace": "OS::Other/one",
    "visibility": "private",
    "protected": True,
    "resource_type_associations": [{"name": "OS::Nova::Flavor"}],
}
LISTS = {"resource_type_associations": [], "properties": {}, "objects": [], "tags": []}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(images_database: str, tmp_path: Path) -> Command:
    """`command("load", folder)` runs `diptych-images metadefs load` on the test's database."""
    environ = {**os.environ, **configuration(images_database, tmp_path)}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "metadefs", *arguments],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def files(folder: Path, *documents: object) -> Path:
    """The folder with these documents and a file that is none."""
    folder.mkdir(exist_ok=True)
    (folder / "README").write_text("not read")
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(json.dumps(document))
    return folder


async def test_definitions_go_to_files_and_back(
    api, command: Command, images_database: str, tmp_path: Path
) -> None:
    source = files(tmp_path / "source", WHOLE, OTHER)
    loaded = command("load", source)
    assert (loaded.returncode, loaded.stdout) == (0, "made OS::Other/one\nmade Whole\n")
    shown = (await api.get(f"{NAMESPACES}/Whole", headers=ADMIN)).json()
    assert without_times(shown) == WHOLE

    target = tmp_path / "target"
    exported = command("export", target)
    assert exported.returncode == 0, exported.stderr
    written = {file.name: json.loads(file.read_text()) for file in target.iterdir()}
    assert written == {
        "whole.json": WHOLE,
        "os-other-one.json": {**LISTS, **OTHER, "owner": "admin"},
    }

    unloaded = command("unload")
    assert (unloaded.returncode, unloaded.stdout) == (
        0,
        "removed OS::Other/one\nremoved Whole\n",
    )
    async with databases.connection(images_database) as connection:
        for table in ("namespaces", "resource_types"):
            assert await connection.fetch(f"SELECT * FROM metadef_{table}") == []


@pytest.mark.parametrize(
    ("mode", "told", "description", "size", "tags"),
    [
        ("skip", "skipped", "Old.", "Old size", ["old"]),
        ("merge", "changed", "Old.", "Old size", ["old", "one", "two"]),
        (
            "prefer_new",
            "changed",
            WHOLE["description"],
            SIZE["title"],
            ["old", "one", "two"],
        ),
        ("overwrite", "changed", WHOLE["description"], SIZE["title"], ["one", "two"]),
    ],
)
async def test_what_is_there_is_kept_or_not(
    api,
    images_database: str,
    tmp_path: Path,
    mode: catalogue.Mode,
    told: str,
    description: str,
    size: str,
    tags: list[str],
) -> None:
    old = {
        "namespace": "Whole",
        "description": "Old.",
        "properties": {"size": {"title": "Old size", "type": "string"}},
        "resource_type_associations": [{"name": "OS::Glance::Image"}],
        "tags": [{"name": "old"}],
    }
    assert (await api.post(NAMESPACES, json=old, headers=ADMIN)).status_code == 201
    new = catalogue.read(files(tmp_path / "source", WHOLE))
    settings = load(environ=configuration(images_database, tmp_path)).settings
    database = Database(settings.database, application_name="metadefs")
    async with database as db, db.write() as connection:
        loaded = await catalogue.load(connection, new, mode)
    assert {kind: names for kind, names in asdict(loaded).items() if names} == {told: ("Whole",)}
    shown = (await api.get(f"{NAMESPACES}/Whole", headers=ADMIN)).json()
    assert shown["description"] == description
    assert shown["properties"]["size"]["title"] == size
    assert [tag["name"] for tag in shown["tags"]] == tags


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"namespace": "x", "visibility": "shared"}', "visibility does not satisfy enum"),
        ('{"namespace": "x", "self": "y"}', "self is read-only"),
        ("{", "not JSON"),
        (json.dumps(WHOLE), "another file has namespace Whole too"),
    ],
    ids=["schema", "read-only", "json", "twice"],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    folder = files(tmp_path / "source", WHOLE)
    wrong = folder / "x.json"
    wrong.write_text(text)
    with pytest.raises(catalogue.CatalogueError, match=told) as refused:
        catalogue.read(folder)
    assert str(tmp_path) in str(refused.value)


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(catalogue.CatalogueError, match="has no"):
        catalogue.read(tmp_path)


def test_each_namespace_has_a_file_of_its_own(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"namespace": name, "display_name": None, "description": None, "visibility": "public",
         "protected": False, "owner": None, **{kind: [] for kind in LISTS}}
        for name in ("../a b", "A/B", "...", "a-b")
    ]  # fmt: skip
    written = catalogue.write(rows, tmp_path / "new")
    assert [file.name for file in written] == [
        "a-b.json",
        "a-b-2.json",
        "namespace.json",
        "a-b-3.json",
    ]
