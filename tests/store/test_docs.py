"""The pages of the drivers, and the operators' page about stores, say what the code does."""

import re
from pathlib import Path

import pytest
from diptych_store import errors
from diptych_store.options.common import CommonOptions, DriverOptions
from diptych_store.settings import DRIVERS
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"file": "filesystem"}
# Those that a deployment can have; the memory store is for tests.
KINDS = [kind for kind in DRIVERS if kind != "memory"]


def page(kind: str) -> str:
    return (DOCS / "drivers" / f"{PAGES.get(kind, kind)}.md").read_text()


def default_of(field: FieldInfo) -> str:
    """A default as the pages write it."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value in ("", (), None):
        return "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)


def options_of(*models: type[BaseModel]) -> dict[str, str]:
    return {
        name: default_of(field) for model in models for name, field in model.model_fields.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_documented_with_its_default(kind: str):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.+?) \|$", page(kind), re.MULTILINE)
    written = {option: default.strip("`") for option, default, _ in rows}
    documented = {option: "empty" if it == "unset" else it for option, it in written.items()}
    assert documented == options_of(DRIVERS[kind], CommonOptions)


@pytest.mark.parametrize("kind", KINDS)
def test_options_without_effect_are_documented_too(kind: str):
    assert [option for option in DRIVERS[kind].UNUSED if f"`{option}`" not in page(kind)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_says_what_an_operator_asks(kind: str):
    headings = re.findall(r"^## (.*)$", page(kind), re.MULTILINE)
    for needed in ("Options", "What it needs", "What goes wrong", "Capabilities"):
        assert any(heading.startswith(needed) for heading in headings), needed
    assert f"`enabled_backends` is `{kind}`" in page(kind)


def test_no_page_is_about_a_driver_that_is_not_there():
    pages = {path.stem for path in (DOCS / "drivers").glob("*.md")}
    assert pages == {PAGES.get(kind, kind) for kind in KINDS}


def test_the_operators_page_names_every_type_and_error():
    text = (DOCS / "operators" / "stores.md").read_text()
    for kind in KINDS:
        assert f"[`{kind}`](../drivers/{PAGES.get(kind, kind)}.md)" in text
    documented = re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)
    for name, error in vars(errors).items():
        if isinstance(error, type) and error.__base__ is errors.StoreError:
            assert name in documented


def test_options_are_described_for_operators():
    for model in (CommonOptions, *DRIVERS.values()):
        for name, field in model.model_fields.items():
            assert field.description, name


def test_an_option_is_known_under_one_meaning():
    """A name that two drivers had would be right in [backend_defaults] for one of them only."""
    seen: dict[str, type[DriverOptions]] = {}
    for model in DRIVERS.values():
        for name in (*model.model_fields, *model.UNUSED):
            assert name not in CommonOptions.model_fields
            assert seen.setdefault(name, model) is model
