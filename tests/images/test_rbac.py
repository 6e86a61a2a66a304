"""Who may do what with default policy: every action by every persona, as one table.

Each cell is asked of a new image of the project alpha. The table is Glance's with its current
defaults; a second one shows where the older defaults are allowed beside them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.images.service import ADMIN, ALICE, OCTETS, PATCH, ROLES, persona


@dataclass(frozen=True)
class Persona:
    """A caller, and what the image is to it; only a shared image has members: beta and gamma."""

    headers: dict[str, str]
    visibility: str = "shared"
    members: tuple[str, ...] = ("beta", "gamma")


_SERVICE_USER = {**persona("beta"), "X-Roles": f"{ROLES['member']},service"}

PERSONAS: Final = {
    "admin": Persona(ADMIN),
    "mngr": Persona(persona("alpha", "manager")),
    "member": Persona(ALICE),
    "reader": Persona(persona("alpha", "reader")),
    # Of the other project, beta, with the role member …
    "priv": Persona(persona("beta"), "private"),
    "other": Persona(persona("beta"), members=("gamma",)),
    "friend": Persona(persona("beta")),
    "comm": Persona(persona("beta"), "community"),
    "publ": Persona(persona("beta"), "public"),
    # … and with no more than the role reader.
    "rfrnd": Persona(persona("beta", "reader")),
    "rcomm": Persona(persona("beta", "reader"), "community"),
    "rpubl": Persona(persona("beta", "reader"), "public"),
    # The role service gives no rights to images, not even in the owner's project; other roles do.
    "srvc": Persona(persona("alpha", "service")),
    "srvmb": Persona(_SERVICE_USER, "public"),
    "nobody": Persona({}),
}

TABLE: Final = """
                      admin mngr member reader priv other friend comm publ rfrnd rcomm rpubl srvc srvmb nobody
list                  in    in   in     in     out  out   out    out  in   out   out   in    403  in    401
list accepted         in    in   in     in     out  out   in     out  in   in    out   in    403  in    401
list pending          in    in   in     in     out  out   in     out  out  in    out   out   403  out   401
list community        out   out  out    out    out  out   out    in   out  out   in    out   403  out   401
show                  200   200  200    200    404  404   200    200  200  200   200   200   404  200   401
create                201   201  201    403    201  201   201    201  201  403   403   403   403  201   401
create public         201   403  403    403    403  403   403    403  403  403   403   403   403  403   401
create community      201   201  201    403    201  201   201    201  201  403   403   403   403  201   401
create for another    201   403  403    403    403  403   403    403  403  403   403   403   403  403   401
modify                200   200  200    403    404  404   403    403  403  403   403   403   404  403   401
modify old dialect    200   200  200    403    404  404   403    403  403  403   403   403   404  403   401
make public           200   403  403    403    404  404   403    403  403  403   403   403   404  403   401
make community        200   200  200    403    404  404   403    403  403  403   403   403   404  403   401
make private          200   200  200    403    404  404   403    403  403  403   403   403   404  403   401
give away             200   403  403    403    404  404   403    403  403  403   403   403   404  403   401
add tag               204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
remove tag            204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
delete                204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
upload                204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
stage                 204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
web-download          202   202  202    403    404  404   403    403  403  403   403   403   404  403   401
copy to a store       202   403  403    403    404  404   403    403  403  403   403   403   404  403   401
tasks of image        200   200  200    200    404  404   200    200  200  200   200   200   404  200   401
list tasks            200   403  403    403    403  403   403    403  403  403   403   403   403  403   401
create task           201   403  403    403    403  403   403    403  403  403   403   403   403  403   401
download              200   200  200    403    404  404   200    200  200  403   403   403   404  200   401
download head         200   200  200    403    404  404   200    200  200  403   403   403   404  200   401
download deactivated  200   403  403    403    404  404   403    403  403  403   403   403   404  403   401
deactivate            204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
reactivate            204   204  204    403    404  404   403    403  403  403   403   403   404  403   401
add member            200   200  200    403    404  404   403    403  403  403   403   403   404  403   401
remove member         204   204  204    403    404  404   404    403  403  404   403   403   404  403   401
list members          all   all  all    all    404  404   own    403  403  own   403   403   404  403   401
show member beta      200   200  200    200    404  404   200    404  404  200   404   404   404  404   401
show member gamma     200   200  200    200    404  404   404    404  404  404   404   404   404  404   401
answer for beta       200   403  403    403    404  404   200    403  403  403   403   403   404  403   401
answer for gamma      200   403  403    403    404  404   404    403  403  404   403   403   404  403   401
import methods        200   200  200    200    200  200   200    200  200  200   200   200   200  200   401
stores                200   200  200    200    200  200   200    200  200  200   200   200   200  200   401
stores in detail      200   403  403    403    403  403   403    403  403  403   403   403   200  200   401
schemas               200   200  200    200    200  200   200    200  200  200   200   200   200  200   401
"""  # noqa: E501

# What older releases allowed, everybody may do again; but changes are still the owner's.
TABLE_OF_OLD_DEFAULTS: Final = """
                      admin member reader priv other friend comm publ rfrnd rcomm rpubl srvc srvmb nobody
list                  in    in     in     out  out   out    out  in   out   out   in    in   in    401
show                  200   200    200    404  404   200    200  200  200   200   200   200  200   401
create                201   201    201    201  201   201    201  201  201   201   201   201  201   401
create public         201   403    403    403  403   403    403  403  403   403   403   403  403   401
create for another    201   403    403    403  403   403    403  403  403   403   403   403  403   401
modify                200   200    200    404  404   403    403  403  403   403   403   200  403   401
make public           200   403    403    404  404   403    403  403  403   403   403   403  403   401
make community        200   200    200    404  404   403    403  403  403   403   403   200  403   401
give away             200   403    403    404  404   403    403  403  403   403   403   403  403   401
add tag               204   204    204    404  404   403    403  403  403   403   403   204  403   401
remove tag            204   204    204    404  404   403    403  403  403   403   403   204  403   401
delete                204   204    204    404  404   403    403  403  403   403   403   204  403   401
upload                204   204    204    404  404   403    403  403  403   403   403   204  403   401
stage                 204   204    204    404  404   403    403  403  403   403   403   204  403   401
web-download          202   202    202    404  404   403    403  403  403   403   403   202  403   401
copy to a store       202   403    403    404  404   403    403  403  403   403   403   403  403   401
tasks of image        200   200    200    404  404   200    200  200  200   200   200   200  200   401
create task           201   403    403    403  403   403    403  403  403   403   403   403  403   401
download              200   200    200    404  404   200    200  200  200   200   200   200  200   401
download deactivated  200   403    403    404  404   403    403  403  403   403   403   403  403   401
deactivate            204   204    204    404  404   403    403  403  403   403   403   204  403   401
reactivate            204   204    204    404  404   403    403  403  403   403   403   204  403   401
add member            200   200    200    404  404   403    403  403  403   403   403   200  403   401
remove member         204   204    204    404  404   404    403  403  404   403   403   204  403   401
list members          all   all    all    404  404   own    403  403  own   403   403   all  403   401
show member gamma     200   200    200    404  404   404    404  404  404   404   404   200  404   401
answer for beta       200   403    403    404  404   200    403  403  200   403   403   403  403   401
answer for gamma      200   403    403    404  404   404    403  403  404   403   403   403  403   401
stores in detail      200   403    403    403  403   403    403  403  403   403   403   200  200   401
"""  # noqa: E501


def rows(table: str) -> list[Any]:
    head, *lines = table.strip("\n").splitlines()
    action_width = len(head) - len(head.lstrip())
    return [
        pytest.param(
            line[:action_width].strip(),
            dict(zip(head.split(), line[action_width:].split(), strict=True)),
            id=line[:action_width].strip(),
        )
        for line in lines
    ]


# ------------------------------------------------------------------------------------------------
# Actions
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One cell: who asks, and for which image."""

    api: httpx.AsyncClient
    headers: dict[str, str]
    image: Mapping[str, Any]

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send the caller's request, and see that nothing has changed if it is refused.

        A path without a leading slash is below the image's.
        """
        whole = path if path.startswith("/") else f"{self.image['self']}/{path}".rstrip("/")
        headers = {**self.headers, **arguments.pop("headers", {})}
        before = await self.state()
        answer = await self.api.request(method, whole, headers=headers, **arguments)
        assert answer.is_success or await self.state() == before
        return answer

    async def state(self) -> tuple[Any, Any]:
        """The image and its members, as an administrator sees them."""
        image = await self.api.get(self.image["self"], headers=ADMIN)
        members = await self.api.get(f"{self.image['self']}/members", headers=ADMIN)
        return image.json(), members.json()

    async def owner_asks(self, method: str, path: str, **arguments: Any) -> None:
        """Prepare the image, in the name of its owner."""
        await must(self.api, method, f"{self.image['self']}/{path}", ALICE, **arguments)


# What asks no rule, and so does not look at the token's scope.
WITHOUT_RULE: Final = ("import methods", "stores", "schemas")

URI: Final = "https://example.com/image"

Action = Callable[[Case], Awaitable[str]]


async def must(
    api: httpx.AsyncClient, method: str, path: str, who: dict[str, str], **arguments: Any
) -> httpx.Response:
    headers = {**who, **arguments.pop("headers", {})}
    answer = await api.request(method, path, headers=headers, **arguments)
    assert answer.is_success, answer.text
    return answer


def sending(method: str, path: str, **arguments: Any) -> Action:
    async def act(case: Case) -> str:
        return str((await case.ask(method, path, **arguments)).status_code)

    return act


def patching(path: str, value: str) -> Action:
    operation = {"op": "replace", "path": path, "value": value}
    return sending("PATCH", "", json=[operation], headers=PATCH)


def listing(query: str, *, answer: str | None = None) -> Action:
    async def act(case: Case) -> str:
        if answer is not None and "beta" in await members_of(case):
            await must(
                *(case.api, "PUT", f"{case.image['self']}/members/beta", persona("beta")),
                json={"status": answer},
            )
        page = await case.ask("GET", f"/v2/images?{query}")
        if page.status_code != 200:
            return str(page.status_code)
        return "in" if case.image["id"] in [i["id"] for i in page.json()["images"]] else "out"

    return act


async def members_of(case: Case) -> list[str]:
    if case.image["visibility"] != "shared":
        return []
    found = await must(case.api, "GET", f"{case.image['self']}/members", ALICE)
    return [entry["member_id"] for entry in found.json()["members"]]


def with_data(action: Action, *, deactivated: bool = False) -> Action:
    async def act(case: Case) -> str:
        await case.owner_asks("PUT", "file", content=b"bytes", headers=OCTETS)
        if deactivated:
            await case.owner_asks("POST", "actions/deactivate")
        return await action(case)

    return act


async def list_members(case: Case) -> str:
    answer = await case.ask("GET", "members")
    if answer.status_code != 200:
        return str(answer.status_code)
    seen = [entry["member_id"] for entry in answer.json()["members"]]
    return {("beta", "gamma"): "all", ("beta",): "own"}.get(tuple(seen), repr(seen))


ACTIONS: Final[Mapping[str, Action]] = {
    "list": listing(""),
    "list accepted": listing("", answer="accepted"),
    "list pending": listing("visibility=shared&member_status=pending"),
    "list community": listing("visibility=community"),
    "show": sending("GET", ""),
    "create": sending("POST", "/v2/images", json={"name": "x"}),
    "create public": sending("POST", "/v2/images", json={"visibility": "public"}),
    "create community": sending("POST", "/v2/images", json={"visibility": "community"}),
    "create for another": sending("POST", "/v2/images", json={"owner": "delta"}),
    "modify": patching("/name", "new"),
    "modify old dialect": sending(
        *("PATCH", ""),
        content=b'[{"replace": "/name", "value": "new"}]',
        headers={"Content-Type": "application/openstack-images-v2.0-json-patch"},
    ),
    "make public": patching("/visibility", "public"),
    "make community": patching("/visibility", "community"),
    "make private": patching("/visibility", "private"),
    "give away": patching("/owner", "delta"),
    "add tag": sending("PUT", "tags/new"),
    "remove tag": sending("DELETE", "tags/old"),
    "delete": sending("DELETE", ""),
    "upload": sending("PUT", "file", content=b"bytes", headers=OCTETS),
    "stage": sending("PUT", "stage", content=b"bytes", headers=OCTETS),
    "web-download": sending(
        "POST", "import", json={"method": {"name": "web-download", "uri": URI}}
    ),
    "copy to a store": with_data(
        sending("POST", "import", json={"method": {"name": "copy-image"}, "stores": ["cheap"]})
    ),
    "tasks of image": sending("GET", "tasks"),
    "list tasks": sending("GET", "/v2/tasks"),
    "create task": sending(
        "POST", "/v2/tasks", json={"type": "import", "input": {"import_from": URI}}
    ),
    "download": with_data(sending("GET", "file")),
    "download head": with_data(sending("HEAD", "file")),
    "download deactivated": with_data(sending("GET", "file"), deactivated=True),
    "deactivate": with_data(sending("POST", "actions/deactivate")),
    "reactivate": with_data(sending("POST", "actions/reactivate"), deactivated=True),
    "add member": sending("POST", "members", json={"member": "delta"}),
    "remove member": sending("DELETE", "members/gamma"),
    "list members": list_members,
    "show member beta": sending("GET", "members/beta"),
    "show member gamma": sending("GET", "members/gamma"),
    "answer for beta": sending("PUT", "members/beta", json={"status": "accepted"}),
    "answer for gamma": sending("PUT", "members/gamma", json={"status": "accepted"}),
    "import methods": sending("GET", "/v2/info/import"),
    "stores": sending("GET", "/v2/info/stores"),
    "stores in detail": sending("GET", "/v2/info/stores/detail"),
    "schemas": sending("GET", "/v2/schemas/image"),
}


# ------------------------------------------------------------------------------------------------
# The tables are true
# ------------------------------------------------------------------------------------------------


async def image_for(api: httpx.AsyncClient, who: Persona) -> Mapping[str, Any]:
    body = {
        "owner": "alpha",
        "visibility": who.visibility,
        "disk_format": "raw",
        "container_format": "bare",
        "tags": ["old"],
    }
    image = (await must(api, "POST", "/v2/images", ADMIN, json=body)).json()
    if who.visibility == "shared":
        for member in who.members:
            await must(api, "POST", f"{image['self']}/members", ALICE, json={"member": member})
    return image


async def outcome(api: httpx.AsyncClient, action: str, who: Persona) -> str:
    return await ACTIONS[action](Case(api, who.headers, await image_for(api, who)))


@pytest.mark.parametrize(("action", "expected"), rows(TABLE))
async def test_who_may_do_what(
    api: httpx.AsyncClient, action: str, expected: dict[str, str]
) -> None:
    assert expected.keys() == PERSONAS.keys()
    found = {name: await outcome(api, action, PERSONAS[name]) for name in expected}
    assert found == expected


@pytest.fixture
async def old_api(
    custom_api: Callable[..., Awaitable[httpx.AsyncClient]],
) -> httpx.AsyncClient:
    return await custom_api(OSLO_POLICY__ENFORCE_NEW_DEFAULTS="false")


@pytest.mark.parametrize(("action", "expected"), rows(TABLE_OF_OLD_DEFAULTS))
async def test_who_may_do_what_where_old_defaults_are_allowed(
    old_api: httpx.AsyncClient, action: str, expected: dict[str, str]
) -> None:
    found = {name: await outcome(old_api, action, PERSONAS[name]) for name in expected}
    assert found == expected


def test_every_action_is_in_the_table() -> None:
    assert [row.id for row in rows(TABLE)] == list(ACTIONS)


# What needs the image to be known, each refused in another place of the code.
ON_AN_IMAGE = [
    name
    for name in ACTIONS
    if name != "schemas"
    and not name.startswith(
        ("create", "list", "import", "stores", "copy", "download", "deactivate", "reactivate")
    )
]


@pytest.mark.parametrize("action", ON_AN_IMAGE)
async def test_nobodys_private_image_is_known_to_administrators_alone(
    api: httpx.AsyncClient, action: str
) -> None:
    body = {"owner": None, "visibility": "private"}
    image = (await must(api, "POST", "/v2/images", ADMIN, json=body)).json()
    assert image["owner"] is None
    assert await ACTIONS[action](Case(api, ALICE, image)) == "404"


@pytest.mark.parametrize("action", [name for name in ACTIONS if name not in WITHOUT_RULE])
async def test_a_token_for_the_system_is_refused(api: httpx.AsyncClient, action: str) -> None:
    headers = {**persona(None, "admin"), "OpenStack-System-Scope": "all"}
    case = Case(api, headers, await image_for(api, PERSONAS["publ"]))
    expected = "404" if action.startswith("show member") else "403"
    assert await ACTIONS[action](case) == expected
