"""/schemas, by HTTP; what the schemas are is in test_wire_schema.py."""

import httpx
import jsonschema
import pytest

from tests.artifacts.service import ALICE, TYPES, persona


async def test_every_enabled_type_has_a_schema(api: httpx.AsyncClient) -> None:
    answer = await api.get("/schemas", headers=ALICE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json; charset=UTF-8"
    (schemas,) = answer.json().values()
    assert [*schemas] == [*TYPES.split(","), "all"]
    for name, schema in schemas.items():
        jsonschema.Draft4Validator.check_schema(schema)
        assert (schema["name"], schema["version"]) == (name, "1.0")


async def test_a_schema_of_one_type(api: httpx.AsyncClient) -> None:
    every = (await api.get("/schemas", headers=ALICE)).json()["schemas"]
    for name in ("images", "all"):
        answer = await api.get(f"/schemas/{name}", headers=persona(None))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/schema+json; charset=UTF-8"
        assert answer.json() == {"schemas": {name: every[name]}}


@pytest.mark.parametrize("name", ["secrets", "nothing", "images.json", "x" * 300])
async def test_types_that_are_not_enabled_have_none(api: httpx.AsyncClient, name: str) -> None:
    answer = await api.get(f"/schemas/{name}", headers=ALICE)
    assert answer.status_code == 404
    assert answer.json()["code"] == 404


async def test_policy_can_hide_the_types(custom_api, tmp_path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text('"artifact:type_list": "role:admin"\n')
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(rules))
    for path in ("/schemas", "/schemas/images", "/schemas/nothing"):
        assert (await api.get(path, headers=ALICE)).status_code == 403
