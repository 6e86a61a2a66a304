"""Statuses and visibilities: which may follow which, and who may say so."""

from typing import Any, Final

import httpx
import pytest

from tests.artifacts.sending import (
    ACTIVATE,
    DEACTIVATE,
    PUBLISH,
    REQUIRED,
    changed,
    patch,
    path_of,
    replace,
    shown,
)
from tests.artifacts.service import ADMIN, ALICE, BOB, CustomApi

WHO: Final = {"owner": ALICE, "other": BOB, "admin": ADMIN}
TARGETS: Final = ("drafted", "active", "deactivated", "deleted", "nonsense", None)

# By the status from which, and the caller: what each of TARGETS is answered with.
PRIVATE: Final = {
    ("drafted", "owner"): (200, 200, 403, 403, 400, 400),
    ("drafted", "other"): (404, 404, 404, 404, 404, 404),
    ("drafted", "admin"): (200, 200, 403, 403, 400, 400),
    ("active", "owner"): (403, 200, 403, 403, 400, 400),
    ("active", "other"): (404, 404, 404, 404, 404, 404),
    ("active", "admin"): (403, 200, 200, 403, 400, 400),
    ("deactivated", "owner"): (400, 403, 403, 403, 400, 400),
    ("deactivated", "other"): (404, 404, 404, 404, 404, 404),
    ("deactivated", "admin"): (400, 200, 200, 403, 400, 400),
    ("deleted", "owner"): (403, 403, 403, 403, 403, 403),
    ("deleted", "other"): (404, 404, 404, 404, 404, 404),
    ("deleted", "admin"): (403, 403, 403, 403, 403, 403),
}
PUBLIC: Final = {
    ("active", "owner"): (403, 403, 403, 403, 403, 403),
    ("active", "other"): (403, 403, 403, 403, 403, 403),
    ("active", "admin"): (403, 200, 200, 403, 400, 400),
    ("deactivated", "owner"): (403, 403, 403, 403, 403, 403),
    ("deactivated", "other"): (403, 403, 403, 403, 403, 403),
    ("deactivated", "admin"): (400, 200, 200, 403, 400, 400),
    ("deleted", "admin"): (403, 403, 403, 403, 403, 403),
}

# The same for visibilities.
SEEN: Final = ("private", "public", "shared", None)
VISIBILITIES: Final = {
    ("private", "drafted", "owner"): (200, 403, 400, 400),
    ("private", "drafted", "admin"): (200, 403, 400, 400),
    ("private", "active", "owner"): (200, 403, 400, 400),
    ("private", "active", "other"): (404, 404, 404, 404),
    ("private", "active", "admin"): (200, 200, 400, 400),
    ("private", "deactivated", "owner"): (200, 403, 400, 400),
    ("private", "deactivated", "admin"): (200, 403, 400, 400),
    ("private", "deleted", "admin"): (403, 403, 403, 403),
    ("public", "active", "owner"): (403, 403, 403, 403),
    ("public", "active", "other"): (403, 403, 403, 403),
    ("public", "active", "admin"): (403, 200, 400, 400),
    ("public", "deactivated", "admin"): (403, 403, 400, 400),
}

DELETIONS: Final = {
    ("private", "drafted", "owner"): 204,
    ("private", "drafted", "other"): 404,
    ("private", "drafted", "admin"): 204,
    ("private", "active", "owner"): 204,
    ("private", "active", "other"): 404,
    ("private", "active", "admin"): 204,
    ("private", "deactivated", "owner"): 403,
    ("private", "deactivated", "other"): 404,
    ("private", "deactivated", "admin"): 204,
    ("private", "deleted", "owner"): 204,
    ("private", "deleted", "other"): 404,
    ("private", "deleted", "admin"): 204,
    ("public", "active", "owner"): 403,
    ("public", "active", "other"): 403,
    ("public", "active", "admin"): 204,
    ("public", "deactivated", "owner"): 403,
    ("public", "deactivated", "admin"): 204,
}


@pytest.fixture
async def api(custom_api: CustomApi) -> httpx.AsyncClient:
    return await custom_api(DEFAULT__DELAYED_DELETE="true")


async def make(api: httpx.AsyncClient, status: str, visibility: str, number: int) -> str:
    """The path of an artifact of Alice's in that state."""
    body = {"name": f"n{number}", "description": "here", **REQUIRED}
    created = await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)
    path = path_of(created.json())
    operations: list[dict[str, Any]] = []
    if status != "drafted":
        operations.append(dict(ACTIVATE))
    if visibility == "public":
        operations.append(dict(PUBLISH))
    if status == "deactivated":
        operations.append(dict(DEACTIVATE))
    await changed(api, path, *operations, headers=ADMIN)
    if status == "deleted":
        assert (await api.delete(path, headers=ADMIN)).status_code == 204
    return path


async def test_statuses(api: httpx.AsyncClient) -> None:
    number = 0
    for visibility, table in (("private", PRIVATE), ("public", PUBLIC)):
        for (status, who), expected in table.items():
            path = None
            for target, answered in zip(TARGETS, expected, strict=True):
                number += 1
                path = path or await make(api, status, visibility, number)
                answer = await patch(api, path, replace("/status", target), headers=WHO[who])
                assert answer.status_code == answered, (visibility, status, who, target)
                now = (await shown(api, path))["status"]
                assert now == (target if answered == 200 else status)
                if now != status:
                    path = None


async def test_visibilities(api: httpx.AsyncClient) -> None:
    number = 0
    for (visibility, status, who), expected in VISIBILITIES.items():
        path = None
        for target, answered in zip(SEEN, expected, strict=True):
            number += 1
            path = path or await make(api, status, visibility, number)
            answer = await patch(api, path, replace("/visibility", target), headers=WHO[who])
            assert answer.status_code == answered, (visibility, status, who, target)
            now = (await shown(api, path))["visibility"]
            assert now == (target if answered == 200 else visibility)
            if now != visibility:
                path = None


async def test_deletions(api: httpx.AsyncClient) -> None:
    for number, ((visibility, status, who), answered) in enumerate(DELETIONS.items()):
        path = await make(api, status, visibility, number)
        answer = await api.delete(path, headers=WHO[who])
        assert answer.status_code == answered, (visibility, status, who)
        after = await api.get(path, headers=ADMIN)
        if answered == 204 and status == "deleted":
            assert after.status_code == 404
        else:
            assert after.json()["status"] == ("deleted" if answered == 204 else status)


async def test_an_active_artifact_has_what_its_type_requires(api: httpx.AsyncClient) -> None:
    created = await api.post("/artifacts/sample_artifact", json={"name": "x"}, headers=ALICE)
    path = path_of(created.json())
    given = replace("/string_required", "given")
    for operations, status in (
        ([ACTIVATE], 403),
        ([ACTIVATE, given], 403),
        ([given, replace("/string_required", None), ACTIVATE], 403),
        ([given, replace("/metadata_attribute", None), ACTIVATE], 200),
        ([ACTIVATE], 200),
    ):
        assert (await patch(api, path, *operations)).status_code == status
    after = await shown(api, path)
    assert after["status"] == "active"
    assert after["activated_at"] == after["updated_at"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("images", {"container_format": "bare", "disk_format": "raw"}),
        ("murano_packages", {"display_name": "x"}),
    ],
)
async def test_types_that_need_no_data(
    api: httpx.AsyncClient, kind: str, fields: dict[str, Any]
) -> None:
    created = await api.post(f"/artifacts/{kind}", json={"name": "x"}, headers=ALICE)
    path = path_of(created.json(), kind=kind)
    assert (await patch(api, path, ACTIVATE)).status_code == 403
    given = [replace(f"/{name}", value) for name, value in fields.items()]
    assert (await changed(api, path, *given, ACTIVATE))["status"] == "active"


@pytest.mark.parametrize("kind", ["heat_templates", "heat_environments"])
async def test_types_that_need_data(api: httpx.AsyncClient, kind: str) -> None:
    created = await api.post(f"/artifacts/{kind}", json={"name": "x"}, headers=ALICE)
    path = path_of(created.json(), kind=kind)
    assert (await patch(api, path, ACTIVATE)).status_code == 403
    field = "template" if kind == "heat_templates" else "environment"
    octets = {**ALICE, "Content-Type": "application/octet-stream"}
    put = await api.put(f"{path}/{field}", content=b"data", headers=octets)
    assert put.status_code == 200, put.text
    assert (await changed(api, path, ACTIVATE))["status"] == "active"
