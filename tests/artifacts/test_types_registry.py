"""Which types there are, and how an operator adds some."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dev.documents import ROOT
from diptych_artifacts.settings import Default
from diptych_artifacts.types import registry
from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.base import FIELDS
from diptych_artifacts.types.fields import DeclarationError, Field, coerce
from diptych_artifacts.types.unpacking import Unpack
from diptych_artifacts.wire.schema import schema
from jsonschema import Draft4Validator


def test_the_types_that_are_enabled_where_nothing_is_said() -> None:
    types = registry.load(Default().enabled_artifact_types)
    assert list(types) == [
        "heat_templates",
        "heat_environments",
        "murano_packages",
        "tosca_templates",
        "images",
        "all",
    ]
    assert types["all"] is types.all
    assert types["images"].display_name == "Images"
    assert "secrets" not in types


def test_types_are_in_the_order_in_which_they_are_enabled() -> None:
    types = registry.load(["secrets", "images", "all", "secrets"])
    assert list(types) == ["secrets", "images", "all"]
    assert [one.name for one in types.values() if one.encrypted] == ["secrets"]


def test_a_type_that_is_not_there_cannot_be_enabled() -> None:
    with pytest.raises(DeclarationError, match=r"enabled_artifact_types: .*'lala'"):
        registry.load(["images", "lala"])


def test_a_type_has_the_fields_of_all_before_its_own() -> None:
    images = registry.load(["images"])["images"]
    assert [*images.fields][: len(FIELDS) + 1] == [*FIELDS, "container_format"]


def test_what_an_artifact_cannot_be_created_without() -> None:
    declared = ArtifactType(
        "declared",
        "Declared",
        {
            "needed": Field("Integer", nullable=False),
            "has_one": Field("Integer", nullable=False, default=0),
            "computed": Field("Integer", nullable=False, system=True),
            "optional": Field("Integer"),
            "data": Field("Blob", nullable=False),
        },
    )
    assert declared.required_at_creation == ("name", "needed")


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("", {}, "name: ''"),
        ("a/b", {}, "name: 'a/b'"),
        ("a:b", {}, "name: 'a:b'"),
        ("a" * 201, {}, "name: "),
        ("a", {"name": Field("String")}, "fields.name: every artifact has it"),
        ("a", {"limit": Field("Integer")}, "fields.limit: "),
        ("a", {"type_name": Field("String")}, "fields.type_name: "),
        ("a", {"a.b": Field("String")}, "fields.a.b: "),
        ("a", {"": Field("String")}, "fields.: "),
        ("a", {"of": Field("Version", sortable=True)}, "fields.of: a Version"),
        ("a", {"of": Field("Version", filter_ops=("gt",))}, "fields.of: a Version"),
    ],
)
def test_types_that_cannot_be_are_refused(name: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        ArtifactType(name, "Declared", fields)


@pytest.mark.parametrize(
    ("unpack", "reason"),
    [
        ({"lala": Unpack("folder")}, "unpack.lala"),
        ({"folder": Unpack("folder")}, "unpack.folder"),
        ({"text": Unpack("folder")}, "unpack.text"),
        ({"blob": Unpack("lala")}, "unpack.blob.into"),
        ({"blob": Unpack("blob")}, "unpack.blob.into"),
    ],
)
def test_archives_need_a_blob_and_a_folder(unpack: dict[str, Unpack], reason: str) -> None:
    fields = {"blob": Field("Blob"), "folder": Field("Blob", "dict"), "text": Field("String")}
    ArtifactType("a", "A", fields, unpack={"blob": Unpack("folder")})
    with pytest.raises(DeclarationError, match="unpack: blobs of an encrypted type"):
        ArtifactType("a", "A", fields, encrypted=True, unpack={"blob": Unpack("folder")})
    with pytest.raises(DeclarationError, match=reason):
        ArtifactType("a", "A", fields, unpack=unpack)


@pytest.mark.parametrize(("blob", "folder"), [(False, False), (False, True), (True, True)])
def test_an_archive_that_may_be_changed_needs_a_folder_that_may(blob: bool, folder: bool) -> None:
    fields = {"blob": Field("Blob", mutable=blob), "into": Field("Blob", "dict", mutable=folder)}
    ArtifactType("a", "A", fields, unpack={"blob": Unpack("into")})
    fields = {"blob": Field("Blob", mutable=True), "into": Field("Blob", "dict")}
    with pytest.raises(DeclarationError, match="'into' must be mutable, for 'blob' is"):
        ArtifactType("a", "A", fields, unpack={"blob": Unpack("into")})


# --- Files ----------------------------------------------------------------------------------------


Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("a.toml", text)`: a file in a directory of types, which is returned."""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_the_file_in_the_documentation_declares_a_type(write: Write) -> None:
    page = (ROOT / "docs/operators/artifact-types.md").read_text()
    (text,) = re.findall(r"<!-- a test loads it -->\n```toml\n(.*?)```", page, re.DOTALL)
    types = registry.load(["images", "helm_charts"], directory=write("helm.toml", text))
    charts = types["helm_charts"]
    Draft4Validator.check_schema(schema(charts))
    assert [*charts.fields][len(FIELDS) :] == [
        "chart", "files", "app_version", "maturity", "maintainers", "dependencies",
    ]  # fmt: skip
    assert charts.version == "1.0"
    assert charts.fields["chart"].max_blob_size == 100 * 1024 * 1024
    assert charts.fields["files"].is_folder
    assert charts.fields["files"].system
    assert charts.fields["app_version"].filter_ops == ("like", "eq", "in")
    assert charts.fields["maturity"].default == "experimental"
    assert charts.fields["maintainers"].default == []
    assert charts.fields["maintainers"].max_items == 10
    assert coerce(charts.fields["maintainers"], ["a@b"]) == ["a@b"]
    with pytest.raises(ValueError, match="does not match"):
        coerce(charts.fields["maintainers"], ["nobody"])
    assert charts.unpack == {"chart": Unpack("files", max_ratio=100)}


def test_the_python_in_the_documentation_declares_a_type() -> None:
    page = (ROOT / "docs/operators/artifact-types.md").read_text()
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    values: dict[str, Any] = {}
    exec(text, values)
    Draft4Validator.check_schema(schema(values["HELM_CHARTS"]))


def test_a_file_may_be_json_and_declare_all_there_is(write: Write) -> None:
    text = {
        "name": "every",
        "display_name": "Everything",
        "version": "3.0",
        "encrypted": False,
        "fields": {
            "string": {
                "kind": "String",
                "mutable": True,
                "required_on_activate": False,
                "nullable": False,
                "sortable": True,
                "default": "abc",
                "filter_ops": [],
                "description": "Text.",
                "metadata": {"group": ["a", {"b": None}]},
                "validators": {
                    "Regex": "^[a-z]+$",
                    "MaxStrLen": 20,
                    "MinStrLen": 2,
                    "ForbiddenChars": ["x"],
                },
            },
            "id_of": {"kind": "String", "validators": {"UUID": True}},
            "number": {
                "kind": "Float",
                "validators": {"MaxNumberSize": 2, "MinNumberSize": 0.5, "AllowedValues": [1, 1.5]},
            },
            "list": {
                "kind": "Integer",
                "shape": "list",
                "default": [1, 2],
                "validators": {"MinListSize": 1, "MaxListSize": 5, "Unique": "convert_to_set"},
                "element_validators": {"AllowedValues": [1, 2, 3]},
            },
            "dict": {
                "kind": "Boolean",
                "shape": "dict",
                "default": None,
                "validators": {
                    "AllowedDictKeys": ["a", "b"],
                    "RequiredDictKeys": ["a"],
                    "MaxDictSize": 2,
                    "MinDictSize": 1,
                    "MaxDictKeyLen": 1,
                    "MinDictKeyLen": 1,
                },
            },
            "blob": {"kind": "Blob", "max_blob_size": 5},
            "folder": {"kind": "Blob", "shape": "dict", "max_folder_size": 10, "system": True},
        },
        "unpack": {"blob": {"into": "folder", "max_ratio": 7}},
    }
    every = registry.load(["every"], directory=write("every.json", json.dumps(text)))["every"]
    Draft4Validator.check_schema(schema(every))
    assert every.unpack["blob"].max_ratio == 7
    assert every.fields["string"].metadata == {"group": ["a", {"b": None}]}
    assert coerce(every.fields["list"], [3, 1, 3]) == [3, 1]
    assert every.fields["dict"].default is None
    assert schema(every)["properties"]["dict"]["properties"] == {
        "a": {"type": "boolean"},
        "b": {"type": ["boolean", "null"]},
    }
    # Never with `unpack`.
    sealed = {**text, "encrypted": True, "unpack": {}}
    assert registry.load(["every"], directory=write("every.json", json.dumps(sealed)))[
        "every"
    ].encrypted


_HEAD = 'name = "t"\ndisplay_name = "T"\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", "name = ", "cannot be read: "),
        ("a.json", "{", "cannot be read: "),
        ("a.json", "[]", "the whole: "),
        ("a.json", "[" * 100_000, "cannot be read: "),
        ("a.json", '{"name": "a", "name": "b"}', "more than once"),
        ("a.toml", 'name = "t"', "display_name: "),
        ("a.toml", _HEAD, "fields: "),
        ("a.toml", f"{_HEAD}lala = 1\n[fields]", "lala: "),
        ("a.toml", 'name = "a/b"\ndisplay_name = "T"\n[fields]', "name: "),
        ("a.toml", f"{_HEAD}[fields.a]", "fields.a.kind: "),
        ("a.toml", f'{_HEAD}[fields.a]\nkind = "Text"', "fields.a.kind: "),
        ("a.toml", f'{_HEAD}[fields.a]\nkind = "String"\nshap = "list"', "fields.a.shap: "),
        ("a.toml", f'{_HEAD}[fields.a]\nkind = "String"\nmutable = 1', "fields.a.mutable: "),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "Blob"\nshape = "list"',
            "fields.a: shape: lists of blobs",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "String"\nshape = "dict"\nsortable = true',
            "fields.a: sortable: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "String"\nsortable = true\nvalidators.MaxStrLen = 256',
            "fields.a: sortable: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "Link"\nfilter_ops = ["gt"]',
            "fields.a: filter_ops: 'gt'",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "Link"\nfilter_ops = ["is"]',
            "fields.a.filter_ops.0: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "String"\nvalidators.Regex = "("',
            "fields.a: validators.Regex: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "String"\nvalidators.Rege = "a"',
            "fields.a.validators.Rege: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "String"\nvalidators.MaxStrLen = "5"',
            "fields.a.validators.MaxStrLen: ",
        ),
        (
            "a.toml",
            f'{_HEAD}[fields.a]\nkind = "Float"\nmetadata.since = 2020-01-01',
            "fields.a.metadata.since",
        ),
        ("a.toml", f'{_HEAD}[fields.a]\nkind = "Float"\ndefault = "x"', "fields.a: default: "),
        ("a.toml", f'{_HEAD}[fields.name]\nkind = "String"', "fields.name: every artifact"),
        ("a.toml", f"{_HEAD}[fields]\n[unpack.a]\ninto = 'b'", "unpack.a: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(
    write: Write, name: str, text: str, reason: str
) -> None:
    directory = write(name, text)
    # Whether its type is enabled or not.
    with pytest.raises(DeclarationError) as refused:
        registry.load(["images"], directory=directory)
    told = str(refused.value)
    assert told.startswith(f"{directory / name}: ")
    assert reason in told


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"artifact_types_directory: .*/lala"):
        registry.load([], directory=tmp_path / "lala")


def test_other_files_of_the_directory_are_left_alone(write: Write) -> None:
    write("README", "Not a type.")
    assert "all" in registry.load([], directory=write("a.toml~", "neither"))


def test_a_type_that_is_declared_twice_is_an_error_where_it_is_enabled(write: Write) -> None:
    directory = write("a.toml", f"{_HEAD}[fields]")
    write("b.toml", f"{_HEAD}[fields]")
    write("images.json", '{"name": "images", "display_name": "I", "fields": {}}')
    registry.load(["heat_templates"], directory=directory)
    with pytest.raises(DeclarationError, match=r"type t is declared .*a\.toml and .*b\.toml"):
        registry.load(["t"], directory=directory)
    with pytest.raises(DeclarationError, match=r"built in and .*images\.json"):
        registry.load(["images"], directory=directory)


# --- Packages and modules -------------------------------------------------------------------------


def test_installed_packages_declare_types() -> None:
    names = [
        "sample_artifact", "hooks_artifact", "non_nullable_fields_artifact", "unpacking_artifact",
    ]  # fmt: skip
    types = registry.load(names)
    assert list(types) == [*names, "all"]
    for one in types.values():
        Draft4Validator.check_schema(schema(one))


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """`package("t = declaring:T", text)`: an installed package with this entry point and module."""

    def install(entry_point: str, text: str) -> None:
        information = tmp_path / "declaring-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Name: declaring\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{entry_point}\n")
        (tmp_path / "declaring.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("declaring", None)


_DECLARING = """
from diptych_artifacts.types.images import IMAGES
from diptych_artifacts.types.artifact_type import ArtifactType

T = ArtifactType("t", "T", {})
"""


@pytest.mark.parametrize(
    ("entry_point", "text", "reason"),
    [
        (
            "t = declaring:T",
            "raise ImportError('no such thing')",
            "cannot be loaded: no such thing",
        ),
        ("t = declaring:T", "", "cannot be loaded: "),
        ("t = declaring:T", "T = {}", "is no ArtifactType"),
        ("t = declaring:T", _DECLARING.replace('"t"', '"other"'), "another name, other"),
        ("t = declaring:T", _DECLARING.replace('"t"', '"a/b"'), "cannot be loaded: name: 'a/b'"),
    ],
)
def test_packages_that_declare_nothing_good_are_refused(
    package: Callable[[str, str], None], entry_point: str, text: str, reason: str
) -> None:
    package(entry_point, text)
    registry.load(["images"])
    with pytest.raises(DeclarationError, match=reason) as refused:
        registry.load(["t"])
    assert "entry point t = declaring:T of diptych.artifact_types" in str(refused.value)


def test_a_package_and_a_file_cannot_declare_the_same(
    package: Callable[[str, str], None], tmp_path: Path
) -> None:
    package("t = declaring:T", _DECLARING)
    assert registry.load(["t"])["t"].display_name == "T"
    directory = tmp_path / "types"
    directory.mkdir()
    (directory / "t.toml").write_text(f"{_HEAD}[fields]")
    with pytest.raises(DeclarationError, match=r"entry point declaring:T and .*t\.toml"):
        registry.load(["t"], directory=directory)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """`module(text)`: the name of a module with this text."""

    def write(text: str) -> str:
        (tmp_path / "declaring.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return "declaring"

    yield write
    sys.modules.pop("declaring", None)


def test_modules_declare_types(module: Callable[[str], str]) -> None:
    types = registry.load(["t", "images"], modules=[module(_DECLARING)])
    assert list(types) == ["t", "images", "all"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "cannot be imported: division by zero"),
        ("from diptych_artifacts.types.images import IMAGES", "has no ArtifactType"),
        (
            "from diptych_artifacts.types.fields import Field\nField('Blob', 'list')",
            "cannot be imported: shape: lists of blobs",
        ),
    ],
)
def test_modules_that_declare_nothing_good_are_refused(
    module: Callable[[str], str], text: str, reason: str
) -> None:
    with pytest.raises(
        DeclarationError, match=f"custom_artifact_types_modules: declaring .*{reason}"
    ):
        registry.load(["images"], modules=[module(text)])


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeclarationError, match="custom_artifact_types_modules: lala cannot"):
        registry.load([], modules=["lala"])
