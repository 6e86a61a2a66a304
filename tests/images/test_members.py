"""Whom an image is offered to, by HTTP. What each caller may is in test_rbac."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jsonschema
import pytest

from tests.images.service import ADMIN, ALICE, BOB, READER, persona

Make = Callable[..., Awaitable[dict[str, Any]]]
STATUSES = ("pending", "accepted", "rejected", "all")
GAMMA = persona("gamma")


async def test_an_offer_is_made_answered_and_withdrawn(
    api: httpx.AsyncClient, make_image: Make
) -> None:
    image = await make_image()
    members = f"{image['self']}/members"
    added = await api.post(members, json={"member": "beta"}, headers=ALICE)
    assert added.status_code == 200
    entry = added.json()
    schema = (await api.get("/v2/schemas/member", headers=ALICE)).json()
    jsonschema.validate(entry, schema)
    assert (entry["member_id"], entry["image_id"], entry["status"], entry["schema"]) == (
        "beta",
        image["id"],
        "pending",
        "/v2/schemas/member",
    )
    await api.post(members, json={"member": "gamma"}, headers=ALICE)
    for who, seen in ((ALICE, ["beta", "gamma"]), (BOB, ["beta"]), (GAMMA, ["gamma"])):
        page = (await api.get(members, headers=who)).json()
        assert [each["member_id"] for each in page["members"]] == seen
        assert page["schema"] == "/v2/schemas/members"
    assert (await api.get(f"{members}/beta", headers=BOB)).json() == entry
    assert (await api.get(f"{members}/gamma", headers=BOB)).status_code == 404
    # An offer that waits can be used already.
    assert (await api.get(image["self"], headers=BOB)).status_code == 200

    answered = await api.put(f"{members}/beta", json={"status": "rejected"}, headers=BOB)
    assert (answered.status_code, answered.json()["status"]) == (200, "rejected")
    assert (await api.get(image["self"], headers=BOB)).status_code == 200
    for_another = await api.put(f"{members}/gamma", json={"status": "accepted"}, headers=BOB)
    assert for_another.status_code == 404
    by_admin = await api.put(f"{members}/beta", json={"status": "accepted"}, headers=ADMIN)
    assert by_admin.status_code == 200
    # A member can say no, and not go.
    assert (await api.delete(f"{members}/beta", headers=BOB)).status_code == 403
    assert (await api.delete(f"{members}/beta", headers=ALICE)).status_code == 204
    assert (await api.get(image["self"], headers=BOB)).status_code == 404
    again = await api.post(members, json={"member": "beta"}, headers=ALICE)
    assert again.json()["status"] == "pending"


@pytest.mark.parametrize(
    ("method", "below", "body", "status"),
    [
        ("POST", "", None, 400),
        ("POST", "", {}, 400),
        ("POST", "", [], 400),
        ("POST", "", {"member": ""}, 400),
        ("POST", "", {"member": 1}, 400),
        ("POST", "", {"member": "x" * 256}, 400),
        ("POST", "", {"member": "beta"}, 409),
        ("PUT", "/beta", {"status": "accepted"}, 403),
        ("DELETE", "/delta", None, 404),
        ("GET", "/delta", None, 404),
    ],
)
async def test_what_an_owner_cannot_do(
    api: httpx.AsyncClient,
    make_image: Make,
    method: str,
    below: str,
    body: object,
    status: int,
) -> None:
    image = await make_image()
    members = f"{image['self']}/members"
    await api.post(members, json={"member": "beta"}, headers=ALICE)
    arguments: dict[str, Any] = {} if body is None else {"json": body}
    refused = await api.request(method, f"{members}{below}", headers=ALICE, **arguments)
    assert refused.status_code == status, refused.text


@pytest.mark.parametrize("body", [None, {}, [], {"status": "perhaps"}, {"status": None}])
async def test_an_answer_is_one_of_three(
    api: httpx.AsyncClient, make_image: Make, body: object
) -> None:
    image = await make_image()
    members = f"{image['self']}/members"
    await api.post(members, json={"member": "beta"}, headers=ALICE)
    arguments: dict[str, Any] = {} if body is None else {"json": body}
    refused = await api.put(f"{members}/beta", headers=BOB, **arguments)
    assert refused.status_code == 400


async def test_only_a_shared_image_has_members(api: httpx.AsyncClient, make_image: Make) -> None:
    image = await make_image()
    members = f"{image['self']}/members"
    await api.post(members, json={"member": "beta"}, headers=ALICE)
    patch = {**ALICE, "Content-Type": "application/openstack-images-v2.1-json-patch"}

    async def make(visibility: str) -> None:
        body = [{"op": "replace", "path": "/visibility", "value": visibility}]
        assert (await api.patch(image["self"], json=body, headers=patch)).status_code == 200

    await make("private")
    for method, below, status in (
        ("POST", "", 403),
        ("GET", "", 403),
        ("GET", "/beta", 404),
        ("DELETE", "/beta", 403),
    ):
        body: dict[str, Any] = {"json": {"member": "delta"}} if method == "POST" else {}
        answer = await api.request(method, f"{members}{below}", headers=ALICE, **body)
        assert answer.status_code == status, (method, below)
    assert (await api.get(image["self"], headers=BOB)).status_code == 404
    await make("shared")
    assert (await api.get(image["self"], headers=BOB)).status_code == 200


async def test_an_offer_shows_in_no_list_unless_it_is_accepted(
    api: httpx.AsyncClient, make_image: Make
) -> None:
    """OSSN-0005 (CVE-2013-4354): whoever likes could put images into others' lists."""
    image = await make_image()
    members = f"{image['self']}/members"
    assert (await api.post(members, json={"member": "beta"}, headers=ALICE)).status_code == 200

    async def lists() -> list[str]:
        found: list[str] = []
        queries = ("", "visibility=shared", *(f"member_status={one}" for one in STATUSES))
        for query in queries:
            page = (await api.get(f"/v2/images?{query}", headers=BOB)).json()
            found += [query] * len(page["images"])
        return found

    assert await lists() == ["member_status=pending", "member_status=all"]
    # What a member thinks of an offer the owner cannot say.
    mine = await api.put(f"{members}/beta", json={"status": "accepted"}, headers=ALICE)
    assert mine.status_code == 403
    for status, listed in (
        ("rejected", ["member_status=rejected", "member_status=all"]),
        (
            "accepted",
            ["", "visibility=shared", "member_status=accepted", "member_status=all"],
        ),
        ("pending", ["member_status=pending", "member_status=all"]),
    ):
        done = await api.put(f"{members}/beta", json={"status": status}, headers=BOB)
        assert done.status_code == 200
        assert await lists() == listed
    assert (await api.get(members, headers=READER)).status_code == 200
