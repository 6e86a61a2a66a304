"""Properties that the operator declares in schema-image.json, by HTTP and at the start."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_images.app import create_app
from diptych_images.settings import load
from diptych_images.wire.schemas import STOCK_SITE_PROPERTIES, SiteSchemaError

from tests.images.service import ADMIN, ALICE, PATCH

Make = Callable[..., Awaitable[httpx.AsyncClient]]

TIER = {"type": "string", "enum": ["gold", "silver"], "description": "How fast it is."}
NOTE = {"type": ["null", "string"], "maxLength": 5}


@pytest.fixture
def declaring(custom_api: Make, tmp_path: Path) -> Make:
    """`await declaring({…})`: the service with this document as its file."""

    async def make(document: object) -> httpx.AsyncClient:
        file = tmp_path / "site.json"
        file.write_text(json.dumps(document))
        return await custom_api(DEFAULT__IMAGE_SCHEMA_FILE=str(file))

    return make


async def create(api: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await api.post("/v2/images", json=fields, headers=ALICE)


async def patch(api: httpx.AsyncClient, path: str, *change: dict[str, Any]) -> httpx.Response:
    return await api.patch(path, json=list(change), headers={**ALICE, **PATCH})


async def test_declared_properties_are_in_the_schema_and_no_base(declaring: Make) -> None:
    api = await declaring({"tier": TIER, "note": NOTE})
    schema = (await api.get("/v2/schemas/image", headers=ALICE)).json()
    assert schema["properties"]["tier"] == {**TIER, "is_base": False}
    assert schema["properties"]["note"] == {**NOTE, "is_base": False}
    # The file takes the place of the one that comes with Glance.
    assert "kernel_id" not in schema["properties"]
    assert "required" not in schema


async def test_values_are_held_against_their_declaration(declaring: Make) -> None:
    api = await declaring({"tier": TIER, "note": NOTE})
    assert (await create(api, tier="bronze")).status_code == 400
    assert (await create(api, tier=None)).status_code == 400
    assert (await create(api, note="longer")).status_code == 400
    path = (await create(api, tier="gold", other="free")).json()["self"]
    wrong = {"op": "replace", "path": "/tier", "value": "bronze"}
    assert (await patch(api, path, wrong)).status_code == 400
    right = {"op": "replace", "path": "/tier", "value": "silver"}
    assert (await patch(api, path, right)).json()["tier"] == "silver"


async def test_null_is_shown_as_null_where_it_is_allowed(declaring: Make) -> None:
    api = await declaring({"note": NOTE})
    image = (await create(api, note=None)).json()
    assert image["note"] is None
    assert (await api.get(image["self"], headers=ALICE)).json()["note"] is None


async def test_required_properties_are_asked_for_at_creation_and_cannot_go(
    declaring: Make,
) -> None:
    api = await declaring({"properties": {"tier": TIER, "note": NOTE}, "required": ["tier"]})
    schema = (await api.get("/v2/schemas/image", headers=ALICE)).json()
    assert schema["required"] == ["tier"]
    refused = await create(api, name="x")
    assert refused.status_code == 400
    assert "tier" in refused.json()["message"]
    path = (await create(api, tier="gold")).json()["self"]
    assert (await patch(api, path, {"op": "remove", "path": "/tier"})).status_code == 403
    # In Glance a change of anything else fails, for it does not name what is required.
    note = {"op": "add", "path": "/note", "value": "hi"}
    name = {"op": "replace", "path": "/name", "value": "y"}
    image = (await patch(api, path, note, name)).json()
    assert (image["tier"], image["note"], image["name"]) == ("gold", "hi", "y")
    assert (await patch(api, path, {"op": "remove", "path": "/note"})).status_code == 200


async def test_images_of_tasks_need_what_is_required(declaring: Make) -> None:
    api = await declaring({"properties": {"tier": TIER}, "required": ["tier"]})
    given = {"import_from": "https://example.com/x", "import_from_format": "raw"}
    refused = await api.post("/v2/tasks", json={"type": "import", "input": given}, headers=ADMIN)
    assert refused.status_code == 400
    given["image_properties"] = {"tier": "gold"}  # type: ignore[assignment]
    task = await api.post("/v2/tasks", json={"type": "import", "input": given}, headers=ADMIN)
    assert task.status_code == 201


async def test_the_file_is_found_beside_the_configuration(
    custom_api: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without configuration files it is the working directory that counts.
    monkeypatch.chdir(tmp_path)
    stock = await custom_api()
    schema = (await stock.get("/v2/schemas/image", headers=ALICE)).json()
    assert STOCK_SITE_PROPERTIES.keys() <= schema["properties"].keys()
    (tmp_path / "schema-image.json").write_text(json.dumps({"tier": TIER}))
    own = await custom_api()
    schema = (await own.get("/v2/schemas/image", headers=ALICE)).json()
    assert "tier" in schema["properties"]
    assert "kernel_id" not in schema["properties"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": {"type": "string"}}', "name is a base property"),
        ('{"size": {"type": "string"}}', "size is a base property"),
        ('{"tier": {"type": "integer"}}', "tier must be of type string"),
        ('{"tier": {"type": "string", "pattern": "("}}', "tier"),
        ('{"tier": 5}', "tier is not a JSON object"),
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
        ('{"properties": {}, "required": ["tier"]}', "required but not declared: tier"),
        ('{"properties": {}, "required": ["status"]}', "never a client's: status"),
        ('{"properties": {}, "required": ["locations"]}', "never a client's: locations"),
    ],
)
def test_a_file_that_cannot_work_stops_the_service(text: str, reason: str, tmp_path: Path) -> None:
    conf = tmp_path / "images.conf"
    conf.write_text("[DEFAULT]\nbind_host = 127.0.0.1\n[paste_deploy]\nflavor = trusted\n")
    file = tmp_path / "schema-image.json"
    file.write_text(text)
    with pytest.raises(SiteSchemaError) as refused:
        create_app(load(config_files=[conf], environ={}))
    assert str(refused.value).startswith(f"{file}: ")
    assert reason in str(refused.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    conf = tmp_path / "images.conf"
    conf.write_text("[DEFAULT]\nimage_schema_file = gone.json\n[paste_deploy]\nflavor = trusted\n")
    with pytest.raises(SiteSchemaError, match=r"gone\.json: cannot be read"):
        create_app(load(config_files=[conf], environ={}))
