"""Who may do what: the tables of `tests/images/rbac` are true, and no route is missing in them."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from itertools import product

import httpx
import pytest
from dev.routes import places
from diptych_images.policies import RULES

from tests.images.rbac import tables
from tests.images.rbac.asking import (
    ON_IMAGES,
    ON_NAMESPACES,
    ON_THE_SERVICE,
    REQUESTS,
    Request,
    words,
)
from tests.images.rbac.callers import CALLERS
from tests.images.rbac.overrides import OVERRIDES
from tests.images.rbac.place import Place, open_place
from tests.images.rbac.stock import STATUSES, Found
from tests.images.service import ADMIN

Cell = tuple[str, str, str]  # status, visibility, caller

ALL_VISIBILITIES = ("private", "shared", "community", "public")


@pytest.fixture(scope="module")
async def _place(
    _images_schema: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Place]:
    async with open_place(_images_schema[0], tmp_path_factory.mktemp("rbac")) as place:
        yield place


@pytest.fixture
def place(_place: Place, images_database: str) -> Place:
    """The service of the tables, with nothing in it; emptied after the test."""
    _place.stock.templates.clear()
    return _place


async def found_on_images(
    place: Place, request: Request, cells: Iterable[Cell], *, hidden: bool = False
) -> dict[Cell, str]:
    """What each caller is answered, about an image of its own; refused, it has changed nothing."""
    cells = list(cells)
    ids = await place.stock.images([Found(status, seen, hidden) for status, seen, _ in cells])
    before = await place.stock.states(ids)
    found: dict[Cell, str] = {}
    refused: list[str] = []
    for cell, image in zip(cells, ids, strict=True):
        answer = await place.ask(request, cell[2], image_id=image)
        found[cell] = words(request, answer)
        if not answer.is_success:
            refused.append(image)
    after = await place.stock.states(ids)
    assert [image for image in refused if before[image] != after[image]] == []
    return found


def differing(
    found: Mapping[Cell, str], expected: Mapping[Cell, str]
) -> dict[Cell, tuple[str, str]]:
    """The cells where another answer than expected was found: both."""
    return {cell: (word, expected[cell]) for cell, word in found.items() if word != expected[cell]}


def expected_on_images(name: str, cells: Iterable[Cell]) -> dict[Cell, str]:
    table = tables.by_visibility(tables.IMAGES)
    return {
        (status, seen, caller): (
            table[name, seen, caller]
            if status == ON_IMAGES[name].finds
            else tables.in_status(name, status, caller, table[name, seen, caller])
        )
        for status, seen, caller in cells
    }


async def check(place: Place, name: str, cells: Iterable[Cell], *, hidden: bool = False) -> None:
    cells = list(cells)
    found = await found_on_images(place, ON_IMAGES[name], cells, hidden=hidden)
    assert differing(found, expected_on_images(name, cells)) == {}


# ------------------------------------------------------------------------------------------------
# The tables are whole
# ------------------------------------------------------------------------------------------------


def test_every_route_is_asked() -> None:
    asked = {request.operation for request in REQUESTS.values()}
    assert asked == {route.operation for route in places("images")}


def test_every_request_is_in_a_table() -> None:
    assert tables.rows(tables.IMAGES).keys() == ON_IMAGES.keys()
    assert tables.rows(tables.OLD_IMAGES).keys() == ON_IMAGES.keys()
    assert tables.rows(tables.SERVICE).keys() == ON_THE_SERVICE.keys()
    assert tables.rows(tables.OLD_SERVICE).keys() == ON_THE_SERVICE.keys()
    assert tables.rows(tables.NAMESPACES).keys() == ON_NAMESPACES.keys()
    assert tables.rows(tables.STATUSES).keys() <= {"*", *ON_IMAGES}


def test_every_caller_has_a_cell_for_every_visibility() -> None:
    cells = set(tables.by_visibility(tables.IMAGES))
    assert cells == set(product(ON_IMAGES, ALL_VISIBILITIES, CALLERS))
    for table in (tables.SERVICE, tables.NAMESPACES, tables.LISTS):
        assert all(
            row.cells.keys() == CALLERS.keys() for own in tables.rows(table).values() for row in own
        )
    assert all(
        tuple(row.cells) == STATUSES for own in tables.rows(tables.STATUSES).values() for row in own
    )


# ------------------------------------------------------------------------------------------------
# The tables are true
# ------------------------------------------------------------------------------------------------


# All of it is in the long test; here is what differs from its neighbours. A public image is as one
# of the community but in lists, and who is a member is another stranger where it is not shared.
SHORT = [
    (seen, caller)
    for seen, caller in product(("private", "shared", "public"), CALLERS)
    if seen == "shared" or caller not in ("pend", "areadr", "reject")
]


@pytest.mark.parametrize("name", ON_IMAGES)
async def test_an_image_in_each_visibility(place: Place, name: str) -> None:
    await check(place, name, [(ON_IMAGES[name].finds, *cell) for cell in SHORT])


@pytest.mark.parametrize("status", STATUSES)
async def test_an_image_in_each_status(place: Place, status: str) -> None:
    for name, request in ON_IMAGES.items():
        if request.finds == status:
            continue
        # One of the owner's, one who is refused, one who may see it, and whom STATUSES names.
        own = {row.label for row in tables.rows(tables.STATUSES).get(name, ())}
        callers = {"member", "reader", "accept"} | (own & CALLERS.keys())
        await check(place, name, product([status], ["shared"], sorted(callers)))


@pytest.mark.long
@pytest.mark.parametrize("name", ON_IMAGES)
async def test_an_image_in_each_status_and_visibility(place: Place, name: str) -> None:
    await check(place, name, product(STATUSES, ALL_VISIBILITIES, CALLERS))


@pytest.mark.long
@pytest.mark.parametrize("name", ON_IMAGES)
async def test_a_hidden_image_in_each_visibility(place: Place, name: str) -> None:
    cells = product([ON_IMAGES[name].finds], ALL_VISIBILITIES, CALLERS)
    await check(place, name, cells, hidden=True)


@pytest.mark.parametrize("name", ["show", "modify", "download"])
async def test_a_hidden_image_is_like_the_others(place: Place, name: str) -> None:
    await check(place, name, product(["active"], ["public"], CALLERS), hidden=True)


@pytest.mark.parametrize("name", ON_IMAGES)
async def test_nobodys_private_image_is_known_to_administrators_alone(
    place: Place, name: str
) -> None:
    (image,) = await place.stock.images([Found(ON_IMAGES[name].finds, "private")])
    await place.stock.server.execute("UPDATE images SET owner = NULL WHERE id = $1", image)
    for caller in ("member", "accept"):
        answer = await place.ask(ON_IMAGES[name], caller, image_id=image)
        assert (caller, answer.status_code) == (caller, 404)
    assert (await place.api.get(f"/v2/images/{image}", headers=ADMIN)).status_code == 200


async def check_the_service(place: Place, name: str, expected: Mapping[str, str]) -> None:
    request = ON_THE_SERVICE[name]
    before = await place.count()
    found = {
        caller: words(request, await place.ask(request, caller))
        for caller, cell in expected.items()
        if cell != "ok"
    }
    assert await place.count() == before
    for caller in expected.keys() - found.keys():
        found[caller] = words(request, await place.ask(request, caller))
    assert found == expected


@pytest.mark.parametrize("name", ON_THE_SERVICE)
async def test_the_service(place: Place, name: str) -> None:
    (row,) = tables.rows(tables.SERVICE)[name]
    await check_the_service(place, name, row.cells)


async def check_namespaces(place: Place, name: str, callers: Iterable[str]) -> None:
    request = ON_NAMESPACES[name]
    expected = {
        (seen, caller): cell
        for (asked, seen, caller), cell in tables.by_visibility(tables.NAMESPACES).items()
        if asked == name and caller in callers
    }
    common = {
        seen: await place.namespace(seen) for seen in dict.fromkeys(key[0] for key in expected)
    }
    before = await place.namespaces()
    found = {
        (seen, caller): words(request, await place.ask(request, caller, namespace=common[seen]))
        for (seen, caller), cell in expected.items()
        if not (request.changes and cell == "ok")
    }
    assert await place.namespaces() == before
    for seen, caller in expected.keys() - found.keys():
        own = await place.namespace(seen)
        found[seen, caller] = words(request, await place.ask(request, caller, namespace=own))
    assert found == expected


# Namespaces have no members.
@pytest.mark.parametrize("name", ON_NAMESPACES)
async def test_a_namespace_in_each_visibility(place: Place, name: str) -> None:
    callers = {"admin", "system", "member", "reader", "other", "oreadr", "srvc", "anon"}
    await check_namespaces(place, name, callers)


@pytest.mark.long
@pytest.mark.parametrize("name", ON_NAMESPACES)
async def test_a_namespace_in_each_visibility_for_everybody(place: Place, name: str) -> None:
    await check_namespaces(place, name, CALLERS)


LETTERS = {"p": "private", "s": "shared", "c": "community", "u": "public"}


async def test_lists(place: Place) -> None:
    made = [Found(*state) for state in product(STATUSES, ALL_VISIBILITIES, (False, True))]
    images = dict(zip(await place.stock.images(made), made, strict=True))
    found: dict[tuple[str, str], object] = {}
    expected: dict[tuple[str, str], object] = {}
    for query, (row,) in tables.rows(tables.LISTS).items():
        path = "/v2/images?limit=1000" + ("" if query == "(all)" else f"&{query}")
        for caller, cell in row.cells.items():
            page = await place.api.get(path, headers=CALLERS[caller].headers)
            if page.status_code == 200:
                listed = [images[one["id"]] for one in page.json()["images"] if one["id"] in images]
                found[query, caller] = set(listed)
            else:
                found[query, caller] = str(page.status_code)
            expected[query, caller] = (
                cell
                if cell.isdecimal()
                else {
                    Found(status, LETTERS[letter], "os_hidden=true" in query)
                    for status, letter in product(tables.LISTED, cell.strip("-"))
                }
            )
    assert found == expected


@pytest.mark.parametrize("name", REQUESTS)
async def test_without_a_token_nothing_is_answered(api: httpx.AsyncClient, name: str) -> None:
    method, _, path = REQUESTS[name].operation.partition(" ")
    answer = await api.request(method, path.replace("{", "").replace("}", ""))
    assert answer.status_code == 401


# ------------------------------------------------------------------------------------------------
# The rules of older releases
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def _old_place(
    _images_schema: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Place]:
    folder = tmp_path_factory.mktemp("old-rbac")
    options = {"OSLO_POLICY__ENFORCE_NEW_DEFAULTS": "false"}
    async with open_place(_images_schema[0], folder, **options) as place:
        yield place


@pytest.fixture
def old_place(_old_place: Place, images_database: str) -> Place:
    _old_place.stock.templates.clear()
    return _old_place


@pytest.mark.parametrize("name", ON_IMAGES)
async def test_an_image_where_old_defaults_are_allowed(old_place: Place, name: str) -> None:
    request = ON_IMAGES[name]
    expected = {
        (request.finds, seen, caller): cell
        for (asked, seen, caller), cell in tables.by_visibility(tables.OLD_IMAGES).items()
        if asked == name and seen in ("shared", "public")
    }
    assert differing(await found_on_images(old_place, request, expected), expected) == {}


@pytest.mark.parametrize("name", ON_THE_SERVICE)
async def test_the_service_where_old_defaults_are_allowed(old_place: Place, name: str) -> None:
    (row,) = tables.rows(tables.OLD_SERVICE)[name]
    await check_the_service(old_place, name, row.cells)


# ------------------------------------------------------------------------------------------------
# Rules of an operator's own
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERRIDES)
async def test_rules_of_an_operator(place: Place, name: str) -> None:
    rules, table = OVERRIDES[name]
    found: dict[tuple[str, str, str], str] = {}
    expected: dict[tuple[str, str, str], str] = {}
    async with place.under(rules) as under:
        for asked, row in (
            (asked, row) for asked, own in tables.rows(table).items() for row in own
        ):
            for caller, cell in row.cells.items():
                answer = await under.ask(
                    REQUESTS[asked], caller, **await names(place, asked, row.label)
                )
                found[asked, row.label, caller] = words(REQUESTS[asked], answer)
                expected[asked, row.label, caller] = cell
    assert found == expected


async def names(place: Place, asked: str, label: str) -> dict[str, str]:
    """What the request is about: made for it, in the visibility of the row."""
    if asked in ON_NAMESPACES:
        return {"namespace": await place.namespace(label)}
    if asked not in ON_IMAGES:
        return {}
    (visibility,) = tables.VISIBILITIES[label]
    (image,) = await place.stock.images([Found(ON_IMAGES[asked].finds, visibility)])
    return {"image_id": image}


async def test_without_a_token_nothing_is_changed_whatever_the_rules_say(place: Place) -> None:
    codes: dict[str, int] = {}
    async with place.under({rule.name: "@" for rule in RULES}) as under:
        for name, request in REQUESTS.items():
            answer = await under.ask(request, "anon", **await names(place, name, "public"))
            codes[name] = answer.status_code
    changing = {name: codes[name] for name, request in REQUESTS.items() if request.changes}
    # Tasks cannot be deleted by anybody.
    assert changing == {**dict.fromkeys(changing, 403), "delete task": 405}
    assert {codes["show"], codes["download"], codes["see locations"], codes["list tasks"]} == {200}
