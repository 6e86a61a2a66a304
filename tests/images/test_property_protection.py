"""Who may create, read, update and delete which custom properties, by the operator's file."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_common.identity import Identity
from diptych_common.policy import Policy
from diptych_images import policies
from diptych_images.app import create_app
from diptych_images.property_protection import (
    PropertyProtection,
    PropertyProtectionError,
    RuleFormat,
)
from diptych_images.settings import load

from tests.images.service import ADMIN, ALICE, PATCH
from tests.images.sites import Make as MakeSite
from tests.waiting import until

Api = httpx.AsyncClient
Make = Callable[..., Awaitable[Api]]

# Of Alice's project, with a role more than she has.
BILLING = {**ALICE, "X-User-Id": "billing", "X-Roles": "member,reader,Billing"}
V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}

OPEN = "create = @\nread = @\nupdate = @\ndelete = @\n"
CLOSED = "create = !\nread = !\nupdate = !\ndelete = !\n"
SECRET = "create = billing\nread = billing\nupdate = billing\ndelete = billing\n"
FILE = f"""
[^x_secret]
{SECRET}
[^x_fixed]
create = billing
read = @
update = billing
delete = billing

[^x_drop]
create = @
read = billing
update = billing
delete = billing

[^x_blind]
create = @
read = billing
update = @
delete = @

[.*]
{OPEN}
"""


@pytest.fixture
def protecting(custom_api: Make, tmp_path: Path) -> Make:
    """`await protecting(text)`: the service with this file, and other settings."""

    async def make(text: str = FILE, **options: str) -> Api:
        file = tmp_path / "protections.conf"
        file.write_text(text)
        return await custom_api(DEFAULT__PROPERTY_PROTECTION_FILE=str(file), **options)

    return make


async def create(api: Api, headers: dict[str, str] = ALICE, **fields: Any) -> httpx.Response:
    return await api.post("/v2/images", json=fields, headers=headers)


async def made(api: Api, headers: dict[str, str] = BILLING, **fields: Any) -> str:
    """The path of a new image."""
    created = await create(api, headers, **fields)
    assert created.status_code == 201, created.text
    return created.json()["self"]


async def show(api: Api, path: str, headers: dict[str, str] = ALICE) -> dict[str, Any]:
    return (await api.get(path, headers=headers)).json()


async def patch(
    api: Api, path: str, *operations: tuple[str, ...], headers: dict[str, str] = ALICE
) -> httpx.Response:
    """Operations as (op, name) or (op, name, value)."""
    body = [
        {"op": op, "path": f"/{name}", **({"value": value[0]} if value else {})}
        for op, name, *value in operations
    ]
    return await api.patch(path, json=body, headers={**headers, **PATCH})


# What one may do.


async def test_a_property_that_may_not_be_created_is_refused(protecting: Make) -> None:
    api = await protecting()
    refused = await create(api, x_secret="1")
    assert refused.status_code == 403
    assert refused.json()["message"].startswith("Property x_secret is reserved.")
    assert (await api.get("/v2/images", headers=ALICE)).json()["images"] == []
    path = await made(api, ALICE, free="1")
    assert (await patch(api, path, ("add", "x_secret", "1"))).status_code == 403
    assert (await patch(api, path, ("add", "x_secret", "1"), headers=BILLING)).status_code == 200
    assert (await show(api, path, BILLING))["x_secret"] == "1"


@pytest.mark.parametrize(
    "operation", [("add", "x_fixed", "2"), ("replace", "x_fixed", "2"), ("remove", "x_fixed")]
)
async def test_a_property_that_is_shown_may_be_fixed(
    protecting: Make, operation: tuple[str, ...]
) -> None:
    api = await protecting()
    path = await made(api, x_fixed="1")
    refused = await patch(api, path, ("add", "other", "1"), operation)
    assert refused.status_code == 403
    image = await show(api, path)
    assert image["x_fixed"] == "1"
    assert "other" not in image
    assert (await patch(api, path, operation, headers=BILLING)).status_code == 200
    assert (await show(api, path)).get("x_fixed") in ("2", None)


async def test_base_properties_are_not_protected(protecting: Make) -> None:
    api = await protecting(f"[.*]\n{CLOSED}")
    path = await made(api, ALICE, name="a", tags=["t"], min_disk=1, os_hash_algo="sha256")
    changed = await patch(api, path, ("replace", "name", "b"))
    assert (changed.json()["name"], changed.json()["tags"]) == ("b", ["t"])


async def test_administrators_are_asked_as_everybody_else(protecting: Make) -> None:
    api = await protecting()
    path = await made(api, x_secret="1")
    assert "x_secret" not in await show(api, path, ADMIN)
    assert (await create(api, ADMIN, x_secret="1")).status_code == 403


async def test_roles_of_a_service_that_acts_for_the_caller_count(protecting: Make) -> None:
    api = await protecting()
    service = {**ALICE, "X-Service-Roles": "service,Billing"}
    path = await made(api, service, x_secret="1")
    assert (await show(api, path, service))["x_secret"] == "1"
    assert "x_secret" not in await show(api, path)


# What one may not read.


async def test_what_may_not_be_read_is_in_no_document(protecting: Make) -> None:
    api = await protecting()
    path = await made(api, x_secret="1", free="2")
    assert (await show(api, path, BILLING))["x_secret"] == "1"
    listed = (await api.get("/v2/images", headers=ALICE)).json()["images"]
    changed = (await patch(api, path, ("add", "more", "3"))).json()
    unchanged = (await patch(api, path)).json()
    for image in (await show(api, path), *listed, changed, unchanged):
        assert image["free"] == "2"
        assert "x_secret" not in image
    # One may create what one may not read.
    assert "x_drop" not in (await create(api, x_drop="1")).json()


async def test_what_may_not_be_read_survives_changes(protecting: Make) -> None:
    api = await protecting()
    path = await made(api, x_secret="1", free="2")
    answer = await patch(
        api, path, ("add", "more", "3"), ("remove", "free"), ("replace", "name", "n")
    )
    assert answer.status_code == 200
    assert (await api.put(f"{path}/tags/t", headers=ALICE)).status_code == 204
    image = await show(api, path, BILLING)
    assert (image["x_secret"], image["more"], image["name"]) == ("1", "3", "n")
    assert "free" not in image


async def test_what_may_not_be_read_is_not_told_by_filters(protecting: Make) -> None:
    api = await protecting()
    path = await made(api, x_secret="1", free="2")

    async def found(query: str, headers: dict[str, str]) -> list[str]:
        page = await api.get(f"/v2/images?{query}", headers=headers)
        assert page.status_code == 200
        return [image["self"] for image in page.json()["images"]]

    assert await found("x_secret=1", BILLING) == [path]
    assert await found("free=2", ALICE) == [path]
    for headers in (ALICE, ADMIN):
        for query in ("x_secret=1", "x_secret=0", "x_secret=1&free=2", "x_secret=1&name=x"):
            assert await found(query, headers) == []
    no_marker = "marker=7a3f52a4-5d3c-4c7e-9a0a-3f6b7a0f6d11"
    answer = await api.get(f"/v2/images?x_secret=1&{no_marker}", headers=ALICE)
    assert answer.status_code == 400


@pytest.mark.parametrize("operation", [("replace", "x_secret", "2"), ("remove", "x_secret")])
async def test_what_may_not_be_read_is_not_there_for_changes(
    protecting: Make, operation: tuple[str, ...]
) -> None:
    api = await protecting()
    with_it, without = await made(api, x_secret="1"), await made(api)
    answers = [await patch(api, path, operation) for path in (with_it, without)]
    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].text == answers[1].text
    assert (await show(api, with_it, BILLING))["x_secret"] == "1"


async def test_what_may_not_be_read_nor_updated_is_not_overwritten(protecting: Make) -> None:
    # Glance lets it be, where it may be created.
    api = await protecting()
    path = await made(api, x_drop="1")
    assert (await patch(api, path, ("add", "x_drop", "2"))).status_code == 403
    assert (await show(api, path, BILLING))["x_drop"] == "1"


async def test_what_may_not_be_read_can_be_written_where_that_is_allowed(protecting: Make) -> None:
    api = await protecting()
    path = await made(api, x_blind="1")
    # The old dialect's `add` refuses what is there; that would tell that it is.
    answer = await api.patch(
        path, json=[{"add": "/x_blind", "value": "2"}], headers={**ALICE, **V20}
    )
    assert answer.status_code == 200
    assert "x_blind" not in answer.json()
    assert (await show(api, path, BILLING))["x_blind"] == "2"


async def test_tasks_neither_set_nor_tell_what_is_protected(protecting: Make) -> None:
    api = await protecting(FILE.replace("x_blind", "^name$"))

    def importing(**properties: str) -> dict[str, Any]:
        given = {
            "import_from": "https://example.com/image",
            "import_from_format": "raw",
            "image_properties": properties,
        }
        return {"type": "import", "input": given}

    refused = await api.post("/v2/tasks", json=importing(x_secret="1"), headers=ADMIN)
    assert refused.status_code == 403
    billing = {**ADMIN, "X-Roles": "admin,billing,member,reader"}
    body = importing(name="n", x_secret="1", free="2")
    task = (await api.post("/v2/tasks", json=body, headers=billing)).json()
    assert task["input"] == body["input"]
    shown = await show(api, task["self"], ADMIN)
    assert shown["input"]["image_properties"] == {"name": "n", "free": "2"}
    path = f"/v2/images/{task['image_id']}/tasks"
    (of_image,) = (await api.get(path, headers=ADMIN)).json()["tasks"]
    assert of_image["input"] == shown["input"]


async def test_the_services_own_properties_are_not_protected(
    site: MakeSite, tmp_path: Path
) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(f"[os_glance.*]\n{CLOSED}[.*]\n{CLOSED}")
    here = await site(DEFAULT__PROPERTY_PROTECTION_FILE=str(file))
    image = await here.staged()
    await here.ask(image, "glance-direct", stores=["fast"])
    assert (await here.show(image))["os_glance_importing_to_stores"] == "fast"
    # A name that merely has the word in it is a client's, and no exception.
    assert (await create(here.api, my_os_glance="1")).status_code == 403


# How the file is read.


def of(text: str, folder: Path, rule_format: RuleFormat = "roles") -> PropertyProtection:
    file = folder / "protections.conf"
    file.write_text(text)
    (folder / "policy.yaml").write_text("paid: role:billing\nnobody: '!'\n")
    policy = Policy.load(policies.RULES, policy_file=folder / "policy.yaml")
    return PropertyProtection(file, rule_format, policy)


MEMBER = Identity(user_id="u", project_id="p", roles=frozenset({"member"}))
PAID = Identity(user_id="u", project_id="p", roles=frozenset({"member", "billing"}))


def test_the_first_section_that_matches_counts_and_no_other(tmp_path: Path) -> None:
    # OSSN-0013: sections after the first that matched could allow what it denied.
    closed, opened = f"[^x_]\n{CLOSED}", f"[^x_owner]\n{OPEN}"
    for text, allowed in ((closed + opened, False), (opened + closed, True)):
        protection = of(text, tmp_path)
        for access in ("create", "read", "update", "delete"):
            assert protection.allows(MEMBER, access, "x_owner") is allowed
            assert not protection.allows(MEMBER, access, "x_other")


async def test_the_order_of_sections_holds_over_http(protecting: Make) -> None:
    api = await protecting(f"[^x_]\n{CLOSED}[^x_owner]\n{OPEN}[.*]\n{OPEN}")
    assert (await create(api, x_owner="1")).status_code == 403
    assert (await create(api, y_owner="1")).status_code == 201


def test_the_case_of_properties_counts_and_that_of_roles_does_not(tmp_path: Path) -> None:
    # OSSN-0013 as well: X_secret is another property than x_secret.
    protection = of(f"[^x_secret$]\n{SECRET.replace('billing', 'BILLING')}", tmp_path)
    assert protection.allows(PAID, "read", "x_secret")
    assert not protection.allows(PAID, "read", "X_secret")
    assert not protection.allows(MEMBER, "read", "x_secret")


def test_a_section_is_found_anywhere_in_a_name(tmp_path: Path) -> None:
    protection = of(f"[secret]\n{SECRET}[.*]\n{OPEN}", tmp_path)
    assert not protection.allows(MEMBER, "read", "my_secret_too")
    assert protection.allows(MEMBER, "read", "mine")


@pytest.mark.parametrize("text", ["", f"[^y_]\n{OPEN}"], ids=["no section", "another"])
def test_what_no_section_is_about_is_denied(text: str, tmp_path: Path) -> None:
    assert not of(text, tmp_path).allows(PAID, "read", "x")


@pytest.mark.parametrize(
    ("text", "member", "paid"),
    [
        ("@", True, True),
        ("!", False, False),
        ("", False, False),
        ("billing", False, True),
        (" admin , Billing ", False, True),
        ("billing,", False, True),
        ("billing, @", True, True),
        ("billing, !", False, False),
        ("bill", False, False),
    ],
)
def test_a_permission_names_roles(text: str, member: bool, paid: bool, tmp_path: Path) -> None:
    protection = of(f"[x]\n{OPEN.replace('read = @', f'read = {text}')}", tmp_path)
    assert protection.allows(MEMBER, "read", "x") is member
    assert protection.allows(PAID, "read", "x") is paid


@pytest.mark.parametrize(
    ("text", "member", "paid"),
    [
        ("paid", False, True),
        ("nobody", False, False),
        ("default", True, True),
        ("@", True, True),
        ("!", False, False),
        ("", False, False),
    ],
)
def test_a_permission_names_a_rule(text: str, member: bool, paid: bool, tmp_path: Path) -> None:
    sections = f"[x]\n{OPEN.replace('read = @', f'read = {text}')}"
    protection = of(sections, tmp_path, "policies")
    assert protection.allows(MEMBER, "read", "x") is member
    assert protection.allows(PAID, "read", "x") is paid
    acting = Identity(user_id="u", project_id="p", service_roles=frozenset({"Billing"}))
    assert protection.allows(acting, "read", "x") is paid


async def test_rules_of_the_policy_file_decide(protecting: Make, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("paid: role:billing\n")
    api = await protecting(
        f"[^x_secret]\n{SECRET.replace('billing', 'paid')}[.*]\n{OPEN}",
        DEFAULT__PROPERTY_PROTECTION_RULE_FORMAT="policies",
        OSLO_POLICY__POLICY_FILE=str(tmp_path / "policy.yaml"),
    )
    path = await made(api, x_secret="1")
    assert "x_secret" not in await show(api, path)
    assert (await show(api, path, BILLING))["x_secret"] == "1"
    assert (await create(api, x_secret="1")).status_code == 403


def test_an_import_sets_only_what_its_user_could(tmp_path: Path) -> None:
    protection = of(FILE, tmp_path)
    copied = {"x_secret": "1", "x_fixed": "2", "x_blind": "3", "x_drop": "4", "free": "5"}
    assert protection.settable(MEMBER, copied, beside=["x_drop"]) == {"x_blind": "3", "free": "5"}
    assert protection.settable(PAID, copied, beside=["x_drop"]) == copied


@pytest.mark.parametrize(
    ("text", "rule_format", "reason"),
    [
        (f"[x(]\n{OPEN}", "roles", "[x(] is not a regular expression"),
        ("[x]\ncreate = @\nread = @\nupdate = @\n", "roles", "[x] does not say who may delete"),
        (f"[x]\n{OPEN}delete = !\n", "roles", "cannot be read"),
        (f"[x]\n{OPEN}[x]\n{OPEN}", "roles", "cannot be read"),
        (OPEN, "roles", "cannot be read"),
        (f"[x]\n{OPEN.replace('@', '@, !')}", "roles", "exclude each other"),
        (f"[x]\n{OPEN.replace('@', '@, !')}", "policies", "exclude each other"),
        (f"[x]\n{OPEN.replace('@', 'get_image, default')}", "policies", "expected one rule"),
        (f"[x]\n{OPEN.replace('@', 'mispelled')}", "policies", "has no rule mispelled"),
    ],
)
def test_a_file_that_cannot_work_stops_the_service(
    text: str, rule_format: str, reason: str, tmp_path: Path
) -> None:
    conf = tmp_path / "images.conf"
    conf.write_text(
        "[DEFAULT]\nproperty_protection_file = protections.conf\n"
        f"property_protection_rule_format = {rule_format}\n[paste_deploy]\nflavor = trusted\n"
    )
    file = tmp_path / "protections.conf"
    file.write_text(text)
    with pytest.raises(PropertyProtectionError) as refused:
        create_app(load(config_files=[conf], environ={}))
    assert str(refused.value).startswith(f"{file}: ")
    assert reason in str(refused.value)


def test_a_file_that_is_not_there_stops_the_service(tmp_path: Path) -> None:
    conf = tmp_path / "images.conf"
    conf.write_text(
        "[DEFAULT]\nproperty_protection_file = gone.conf\n[paste_deploy]\nflavor = trusted\n"
    )
    with pytest.raises(PropertyProtectionError, match=r"gone\.conf: cannot be read"):
        create_app(load(config_files=[conf], environ={}))


# Changes of the file.


@asynccontextmanager
async def running(endless: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    task = asyncio.create_task(endless)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_changed_file_is_taken_over_unless_it_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    protection = of(f"[x]\n{CLOSED}", tmp_path)
    file = tmp_path / "protections.conf"
    async with running(protection.watch(interval=0.01, settle_time=0.01)):
        file.write_text(f"[x]\n{OPEN}")
        await until(lambda: protection.allows(MEMBER, "read", "x"))
        file.write_text(f"[x(]\n{CLOSED}")
        await until(lambda: "not a regular expression" in caplog.text)
        assert protection.allows(MEMBER, "read", "x")
        file.unlink()
        await until(lambda: "cannot be read" in caplog.text)
        assert protection.allows(MEMBER, "read", "x")
        file.write_text(f"[x]\n{SECRET}")
        await until(lambda: not protection.allows(MEMBER, "read", "x"))
        assert protection.allows(PAID, "read", "x")


async def test_a_rule_that_went_from_the_policy_allows_nobody(tmp_path: Path) -> None:
    policy_file = tmp_path / "policy.yaml"
    policy_file.write_text("paid: '@'\n")
    file = tmp_path / "protections.conf"
    file.write_text(f"[x]\n{OPEN.replace('@', 'paid')}")
    policy = Policy.load(policies.RULES, policy_file=policy_file)
    protection = PropertyProtection(file, "policies", policy)
    assert protection.allows(PAID, "read", "x")
    async with running(policy.watch(interval=0.01, settle_time=0.01)):
        policy_file.write_text("other: '@'\n")
        await until(lambda: "paid" not in policy.compiled.checks)
    assert not protection.allows(PAID, "read", "x")
