"""What is Swift's own: how objects lie there, in whose account, and who may read them there."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import httpx
import pytest
from dev.keystone import Keystone
from dev.swift import Swift
from diptych_store.drivers.swift import SwiftStore
from diptych_store.drivers.swift.auth import Access, Tokens
from diptych_store.drivers.swift.writing import Limits
from diptych_store.errors import (
    AttemptLost,
    BadLocation,
    Full,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.swift import SwiftOptions
from diptych_store.protocol import AccessLists, ActsForUsers, ByteRange
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests import servers
from tests.store.conformance import (
    MIB,
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    put,
    some_bytes,
)
from tests.store.swift_container import Cloud, Container, make_cloud
from tests.waiting import until

DATA = some_bytes(2 * MIB + 1234)


@pytest.fixture
async def container(swift: Swift) -> AsyncIterator[Container]:
    async with Container(swift) as container:
        await container.make()
        yield container


@pytest.fixture
async def store(container: Container) -> AsyncIterator[SwiftStore]:
    async with aclosing(container.store()) as store:
        yield store


# How objects lie there.


async def test_an_object_has_its_id_for_a_name_and_its_segments_beside_it(
    container: Container, store: SwiftStore
):
    attempt = attempt_at()
    prefix = f".segments/{attempt.key}/{attempt.token}/"
    segments = [f"{prefix}0000000{number}" for number in (1, 2, 3)]
    await store.write(attempt, in_blocks(DATA), size=None)
    marker = f".attempts/{attempt.key}/{attempt.token}"
    assert await container.everything() == [marker, *segments]
    location = await store.publish(attempt)
    assert location == f"swift+config://ref1/{container.name}/{attempt.key}"
    assert await container.everything() == [*segments, attempt.key]
    answer = await container.call("HEAD", attempt.key)
    assert answer.headers["X-Static-Large-Object"] == "True"
    assert answer.headers["Content-Length"] == str(len(DATA))
    await store.delete(location)


async def dynamic_object(container: Container, key: str) -> None:
    """As glance_store lays out an image of several segments."""
    for number, start in enumerate(range(0, len(DATA), MIB), 1):
        part = DATA[start : start + MIB]
        answer = await container.call("PUT", f"{key}-{number:05}", content=part)
        assert answer.status_code == 201
    manifest = {"X-Object-Manifest": f"{container.name}/{key}-"}
    assert (await container.call("PUT", key, headers=manifest)).status_code == 201


async def test_a_large_object_of_glances_is_read_and_deleted_whole(
    container: Container, store: SwiftStore
):
    key, other = str(uuid.uuid4()), str(uuid.uuid4())
    await dynamic_object(container, key)
    await dynamic_object(container, other)
    location = f"swift+config://ref1/{container.name}/{key}"
    assert await get(store, location) == DATA
    assert await get(store, location, ByteRange(MIB - 5, 10)) == DATA[MIB - 5 : MIB + 5]
    await store.delete(location)
    with pytest.raises(NotFound):
        await get(store, location)
    neighbour = f"swift+config://ref1/{container.name}/{other}"
    assert await get(store, neighbour) == DATA
    await store.delete(neighbour)


async def test_a_manifest_over_others_objects_takes_them_not_along(
    container: Container, store: SwiftStore
):
    key = str(uuid.uuid4())
    await container.call("PUT", "precious", content=b"data")
    manifest = {"X-Object-Manifest": f"{container.name}/prec"}
    await container.call("PUT", key, headers=manifest)
    await store.delete(f"swift+config://ref1/{container.name}/{key}")
    assert await container.everything() == ["precious"]
    await container.call("DELETE", "precious")


async def test_a_plain_object_of_glances_is_read_copied_and_deleted(
    container: Container, store: SwiftStore
):
    key = str(uuid.uuid4())
    await container.call("PUT", key, content=b"an image")
    location = f"swift+config://ref1/{container.name}/{key}"
    assert await get(store, location) == b"an image"
    assert await get(store, location, ByteRange(3, 2)) == b"im"
    attempt = attempt_at()
    assert await store.copy(attempt, store, location) == 8
    copy = await store.publish(attempt)
    await store.delete(location)
    assert await get(store, copy) == b"an image"
    await store.delete(copy)


async def test_a_large_object_of_glances_is_copied_by_its_segments(
    container: Container, store: SwiftStore
):
    key, attempt = str(uuid.uuid4()), attempt_at()
    await dynamic_object(container, key)
    location = f"swift+config://ref1/{container.name}/{key}"
    assert await store.copy(attempt, store, location) == len(DATA)
    copy = await store.publish(attempt)
    await store.delete(location)
    assert await get(store, copy) == DATA
    await store.delete(copy)


async def test_an_object_is_opened_by_every_old_location(container: Container, store: SwiftStore):
    location = await put(store, b"x")
    key = location.rpartition("/")[2]
    address = container.server.auth_url.removeprefix("http://")
    for old in (
        f"swift+http://test:tester:testing@{address}/{container.name}/{key}",
        f"swift+http://test%3Atester:wr/ong@{address}/{container.name}/{key}",
        f"swift+http://{address}/{container.name}/{key}",
    ):
        assert await get(store, old) == b"x"
    await store.delete(f"swift+http://test:tester:changed@{address}/{container.name}/{key}")
    with pytest.raises(NotFound):
        await get(store, location)


async def test_several_containers_by_the_beginning_of_the_id(container: Container):
    key = str(uuid.uuid4())
    async with aclosing(container.store(swift_store_multiple_containers_seed=3)) as seeded:
        location = await put(seeded, b"x", key=key)
        assert location == f"swift+config://ref1/{container.name}_{key[:3]}/{key}"
        assert f"{container.name}_{key[:3]}" in await container.containers()
        attempt = attempt_at()
        await seeded.write(attempt, in_blocks(b"y"), size=1)
        assert await begun_attempts(seeded) == [attempt]
        await seeded.discard(attempt)
    # The number may change: what was written before is found all the same.
    async with aclosing(container.store(swift_store_multiple_containers_seed=5)) as changed:
        assert await get(changed, location) == b"x"
        await changed.delete(location)


@given(
    size=st.integers(0, 4 << 40),
    usual=st.integers(1, 5000).map(lambda number: number * MIB),
    is_known=st.booleans(),
)
def test_segments_grow_so_that_a_manifest_holds_them(size: int, usual: int, is_known: bool):
    limits, left, number = Limits(), size, 0
    while left > 0:
        number += 1
        segment = limits.segment_size(number, usual=usual, size=size if is_known else None)
        assert min(usual, limits.max_file_size) <= segment <= limits.max_file_size
        left -= segment
    # Of unknown size there is room for 600 GiB at least, whatever the usual size of a segment is.
    if is_known or (size <= 600 << 30 and usual >= 200 * MIB):
        assert number <= limits.max_segments


async def test_segments_are_no_larger_than_the_cluster_allows():
    server = servers.private_swift(f"small-{uuid.uuid4().hex[:8]}", max_file_size=2 * MIB)
    await asyncio.to_thread(server.start)
    try:
        async with Container(server) as container:
            await container.make()
            more: dict[str, Any] = {"swift_store_large_object_chunk_size": 200}
            async with aclosing(container.store(**more)) as store:
                data = some_bytes(5 * MIB)
                attempt = attempt_at()
                await store.write(attempt, in_blocks(data), size=None)
                assert len(await container.everything()) == 1 + 3
                location = await store.publish(attempt)
                assert await get(store, location) == data
                await store.delete(location)
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_late_write_to_a_discarded_attempt_is_given_up_at_the_next_segment(
    container: Container, store: SwiftStore
):
    attempt, taken = attempt_at(), 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal taken
        for number in range(20):
            taken = number
            if number == 3:
                await store.discard(attempt)
            yield some_bytes(MIB, number)

    with pytest.raises(AttemptLost):
        await store.write(attempt, blocks(), size=None)
    assert taken < 20


async def test_what_a_source_lacks_is_no_lost_attempt(container: Container, store: SwiftStore):
    async def blocks() -> AsyncIterator[bytes]:
        yield some_bytes(MIB + 1)
        raise NotFound("The source is gone.")

    with pytest.raises(NotFound, match="source"):
        await store.write(attempt_at(), blocks(), size=None)
    assert await container.everything() == []


# What goes wrong.


async def test_a_container_that_is_missing_is_no_missing_image(swift: Swift):
    container = Container(swift)
    location = f"swift+config://ref1/{container.name}/{uuid.uuid4()}"
    more: dict[str, Any] = {"swift_store_create_container_on_put": False}
    async with aclosing(container.store(**more)) as store:
        with pytest.raises(Unreachable, match="no container"):
            await put(store, b"x")
        with pytest.raises(Unreachable, match="no container"):
            await get(store, location)
        with pytest.raises(Unreachable, match="no container"):
            await store.delete(location)


async def test_a_quota_is_a_full_store(container: Container, store: SwiftStore):
    assert await store.free() is None
    await container.call("POST", headers={"X-Container-Meta-Quota-Bytes": str(3 * MIB)})
    assert await store.free() == 3 * MIB
    location = await put(store, DATA)
    left = await store.free()
    assert left is not None
    # The manifest takes some room as well.
    assert 3 * MIB - len(DATA) - 2000 < left <= 3 * MIB - len(DATA)
    attempt = attempt_at()
    with pytest.raises(Full):
        await store.write(attempt, in_blocks(DATA), size=None)
    with pytest.raises(Full):
        await store.write(attempt, in_blocks(DATA[:MIB]), size=None)
    assert await begun_attempts(store) == []
    await store.delete(location)


def test_a_store_shown_to_a_developer_shows_no_secret(container: Container):
    store = container.store(
        swift_store_key="canary", swift_temp_url_key="canary", swift_store_auth_version="3"
    )
    assert "canary" not in repr(vars(store))
    assert "canary" not in repr(store._references)


@pytest.mark.parametrize(
    "more",
    [
        {"swift_store_key": "canary-password"},
        {"swift_store_auth_address": "http://127.0.0.1:1/canary-password/v3"},
        {"swift_store_auth_version": "3", "swift_store_key": "canary-password"},
        {
            "swift_store_auth_version": "3",
            "swift_store_application_credential_id": "id",
            "swift_store_application_credential_secret": "canary-secret",
        },
        {"swift_store_endpoint": "http://127.0.0.1:1/v1/canary-password"},
    ],
    ids=["key", "address", "no Keystone", "application", "endpoint"],
)
async def test_no_error_tells_a_secret(container: Container, more: dict[str, Any]):
    key = str(uuid.uuid4())
    address = container.server.auth_url.removeprefix("http://")
    location = f"swift+http://test:tester:canary-password@{address}/{container.name}/{key}"
    if "swift_store_auth_address" in more:
        location = f"swift+config://ref1/{container.name}/{key}"
    async with aclosing(container.store(**more)) as store:
        said = [repr(store)]
        for call in (put(store, b"x"), get(store, location), store.delete(location)):
            with pytest.raises((ReadDenied, WriteDenied, Unreachable)) as raised:
                await call
            error: BaseException | None = raised.value
            while error is not None:
                said += [str(error), repr(error)]
                error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    assert not re.search("canary", " ".join(said))


KEYSTONE = {"swift_store_auth_address": "http://127.0.0.1/v3"}
PASSWORD = {**KEYSTONE, "swift_store_user": "service:glance", "swift_store_key": "canary"}
APPLICATION = {
    **KEYSTONE,
    "swift_store_application_credential_id": "id",
    "swift_store_application_credential_secret": "canary",
}


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, "swift_store_auth_address"),
        (KEYSTONE, "swift_store_user"),
        ({**PASSWORD, "swift_store_key": ""}, "swift_store_key"),
        ({**PASSWORD, "swift_store_user": "glance"}, "swift_store_user"),
        (
            {**APPLICATION, "swift_store_application_credential_id": ""},
            "swift_store_application_credential_id",
        ),
        (
            {**APPLICATION, "swift_store_application_credential_secret": ""},
            "swift_store_application_credential_secret",
        ),
        ({**PASSWORD, "swift_store_auth_address": "http://[1:2]/v3"}, "swift_store_auth_address"),
        ({**PASSWORD, "swift_store_endpoint": "http://host:99999/v1/a"}, "swift_store_endpoint"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], refused: str):
    for works in (
        PASSWORD,
        APPLICATION,
        {**PASSWORD, "swift_store_auth_version": "1", "swift_store_user": "glance"},
        {"swift_store_config_file": "/etc/swift.conf"},
    ):
        SwiftOptions.model_validate(works)
    with pytest.raises(ValidationError) as raised:
        SwiftOptions.model_validate(options)
    [error] = raised.value.errors(include_input=False)
    assert (error["loc"] or (error.get("ctx", {}).get("option"),)) == (refused,)
    assert "canary" not in str(raised.value)


def test_a_file_of_credentials_that_is_missing_is_said_at_once():
    with pytest.raises(StoreError, match="/nowhere"):
        SwiftStore("here", SwiftOptions(swift_store_config_file="/nowhere"))


async def test_a_key_that_is_not_ascii_is_refused_like_any_other(container: Container):
    async with aclosing(container.store(swift_store_key="schlüssel")) as store:
        with pytest.raises(WriteDenied):
            await put(store, b"x")


async def test_without_a_key_there_are_no_temporary_urls(swift: Swift):
    async with Container(swift) as container, aclosing(container.store()) as store:
        attempt, location = attempt_at(), await put(store, b"x")
        with pytest.raises(ReadDenied, match="temporary"):
            await store.presign_get(location, expires=timedelta(minutes=1))
        with pytest.raises(WriteDenied, match="temporary"):
            await store.presign_put(attempt, expires=timedelta(minutes=1))
        await store.discard(attempt)
        await store.delete(location)


async def test_parts_that_nobody_has_sent_are_not_published(
    container: Container, store: SwiftStore
):
    attempt = attempt_at()
    urls = [
        await store.presign_put(attempt, part=part, expires=timedelta(minutes=1))
        for part in (1, 2, 3)
    ]
    with pytest.raises(AttemptLost):
        await store.publish(attempt)
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in (urls[0], urls[2]):
            assert (await client.put(url, content=b"x")).status_code == 201
        with pytest.raises(Unreachable, match="missing"):
            await store.publish(attempt)
        # What comes by URL after the attempt has gone is found by a sweep.
        await store.discard(attempt)
        assert (await client.put(urls[1], content=b"x")).status_code == 201
    assert await begun_attempts(store) == [attempt]
    await store.discard(attempt)


# Keystone.


@pytest.fixture(scope="session")
def cloud(keystone: Keystone, swift: Swift) -> Cloud:
    return make_cloud(keystone, swift)


async def read_directly(location: str, token: str | None) -> int:
    url = location.removeprefix("swift+")
    headers = {} if token is None else {"X-Auth-Token": token}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return (await client.get(url, headers=headers)).status_code


async def test_a_password_of_keystones(cloud: Cloud):
    async with aclosing(SwiftStore("here", cloud.options())) as store:
        assert not isinstance(store, ActsForUsers | AccessLists)
        location = await put(store, DATA)
        assert await get(store, location) == DATA
        await store.delete(location)


async def test_an_application_credential(cloud: Cloud):
    token = cloud.keystone.token(cloud.user, "service")
    created = cloud.keystone.call(
        "POST",
        f"/users/{cloud.user_id}/application_credentials",
        {"application_credential": {"name": uuid.uuid4().hex}},
        token=token,
    )["application_credential"]
    options = cloud.options(
        swift_store_user="",
        swift_store_key="",
        swift_store_application_credential_id=created["id"],
        swift_store_application_credential_secret=created["secret"],
    )
    async with aclosing(SwiftStore("here", options)) as store:
        location = await put(store, DATA)
        assert await get(store, location) == DATA
        await store.delete(location)


async def test_those_who_need_a_token_at_a_time_wait_for_one_answer():
    answers: list[asyncio.Future[Access]] = []

    async def obtain() -> Access:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    tokens = Tokens(obtain, renew_before_s=60)
    callers = [asyncio.create_task(tokens.access()) for _ in range(5)]
    await until(lambda: bool(answers))
    answers[0].set_exception(Unreachable("no answer"))
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [(type(one), str(one)) for one in errors] == [(Unreachable, "no answer")] * 5
    # Who asks after that has another.
    callers = [asyncio.create_task(tokens.access()) for _ in range(5)]
    await until(lambda: len(answers) == 2)
    answers[1].set_result(Access("http://swift", "token"))
    assert {one.token for one in await asyncio.gather(*callers)} == {"token"}
    assert len(answers) == 2


async def test_a_revoked_token_is_replaced(cloud: Cloud):
    async with aclosing(SwiftStore("here", cloud.options())) as store:
        access = await store._tokens["ref1"].access()
        cloud.keystone.call("DELETE", "/auth/tokens", subject=access.token)
        location = await put(store, DATA)
        assert await get(store, location) == DATA
        await store.delete(location)


async def test_an_endpoint_that_the_catalog_does_not_have(cloud: Cloud):
    for more in ({"swift_store_region": "Nowhere"}, {"swift_store_service_type": "nothing"}):
        async with aclosing(SwiftStore("here", cloud.options(**more))) as store:
            with pytest.raises(Unreachable, match="catalog"):
                await put(store, b"x")


async def test_an_image_is_in_the_account_of_its_project(cloud: Cloud):
    project = cloud.keystone.project_id("demo")
    async with aclosing(cloud.store()) as store:
        acting = store.acting_for(project, token=cloud.keystone.token("demo", "demo"))
        assert isinstance(acting, ActsForUsers)
        key = str(uuid.uuid4())
        location = await put(acting, DATA, key=key)
        container = f"{store._options.swift_store_container}_{key}"
        url = f"{cloud.swift.keystone_proxy_url}/v1/AUTH_{project}"
        assert location == f"swift+{url}/{container}/{key}"
        assert store.recognises(location)
        assert await get(acting, location) == DATA
        assert await get(store, location) == DATA
        # Its owner reads it without this service, strangers do not.
        assert await read_directly(location, cloud.keystone.token("demo", "demo")) == 200
        assert await read_directly(location, cloud.keystone.token("other", "other")) == 403
        assert await read_directly(location, None) == 401
        stranger = store.acting_for(
            cloud.keystone.project_id("other"), token=cloud.keystone.token("other", "other")
        )
        with pytest.raises(ReadDenied):
            await get(stranger, location)
        await store.delete(location)
        # The container goes with the image.
        token = cloud.keystone.token("demo", "demo")
        assert await read_directly(f"swift+{url}/{container}", token) == 404
        with pytest.raises(NotFound):
            await get(store, location)


async def test_members_read_without_this_service(cloud: Cloud):
    project, other = cloud.keystone.project_id("demo"), cloud.keystone.project_id("other")
    async with aclosing(cloud.store()) as store:
        acting = store.acting_for(project, token=cloud.keystone.token("demo", "demo"))
        location = await put(acting, DATA)
        token = cloud.keystone.token("other", "other")
        for projects, public, status in (
            ([other], False, 200),
            (["somebody"], False, 403),
            ([], True, 200),
            ([], False, 403),
        ):
            await store.allow_reading(location, projects=projects, public=public)
            assert await read_directly(location, token) == status
            # Nobody gets in without a token, whatever is public.
            assert await read_directly(location, None) == 401
        await store.allow_reading(location, projects=[other], public=False)
        member = store.acting_for(other, token=token)
        assert await get(member, location) == DATA
        with pytest.raises(WriteDenied):
            await member.delete(location)
        await store.delete(location)


async def test_admin_projects_have_every_container(cloud: Cloud):
    project, other = cloud.keystone.project_id("demo"), cloud.keystone.project_id("other")
    async with aclosing(cloud.store(swift_store_admin_tenants=other)) as store:
        acting = store.acting_for(project, token=cloud.keystone.token("demo", "demo"))
        location = await put(acting, b"x")
        token = cloud.keystone.token("other", "other")
        assert await read_directly(location, token) == 200
        await store.allow_reading(location, projects=[], public=False)
        assert await read_directly(location, token) == 200
        await store.delete(location)


async def test_the_service_finds_a_dead_attempt_by_the_project(cloud: Cloud):
    project = cloud.keystone.project_id("demo")
    async with aclosing(cloud.store()) as store:
        acting = store.acting_for(project, token=cloud.keystone.token("demo", "demo"))
        attempt = attempt_at()
        await acting.write(attempt, in_blocks(DATA), size=None)
        service = store.acting_for(project, token=None)
        assert await begun_attempts(service) == [attempt]
        await service.discard(attempt, published=True)
        assert await begun_attempts(service) == []
        with pytest.raises(AttemptLost):
            await acting.publish(attempt)


async def test_an_upload_outlasts_the_users_token(cloud: Cloud):
    project = cloud.keystone.project_id("demo")
    token = cloud.keystone.token("demo", "demo")
    cloud.keystone.call("DELETE", "/auth/tokens", subject=token)
    async with aclosing(cloud.store()) as store:
        acting = store.acting_for(project, token=token)
        location = await put(acting, DATA)
        # A new download is the user's alone.
        with pytest.raises(ReadDenied):
            await get(acting, location)
        await store.delete(location)


async def test_a_user_without_rights_gets_none_from_the_service(cloud: Cloud):
    project = cloud.keystone.project_id("demo")
    async with aclosing(cloud.store()) as store:
        reader = store.acting_for(project, token=cloud.keystone.token("reader", "demo"))
        with pytest.raises(WriteDenied):
            await put(reader, b"x")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/v1/AUTH_x",
        "{proxy}/v2/AUTH_x",
        "{proxy}/v1/OTHER_x",
        "https://a/v1/AUTH_x",
    ],
)
async def test_no_token_goes_to_another_cluster(cloud: Cloud, url: str):
    key = str(uuid.uuid4())
    url = url.format(proxy=cloud.swift.keystone_proxy_url)
    async with aclosing(cloud.store()) as store:
        container = f"{store._options.swift_store_container}_{key}"
        location = f"swift+{url}/{container}/{key}"
        with pytest.raises(BadLocation):
            await get(store, location)
        with pytest.raises(BadLocation):
            await store.delete(location)
        own = f"{cloud.swift.keystone_proxy_url}/v1/AUTH_x"
        more: dict[str, Any] = {
            "swift_store_endpoint": own,
            "swift_store_container": store._options.swift_store_container,
        }
    async with aclosing(cloud.store(**more)) as told:
        assert not told.recognises(location)
        assert told.recognises(f"swift+{own}/{container}/{key}")


async def test_images_of_the_single_account_stay_readable(cloud: Cloud):
    options = cloud.options()
    async with (
        aclosing(SwiftStore("before", options)) as before,
        aclosing(cloud.store(swift_store_container=options.swift_store_container)) as after,
    ):
        location = await put(before, b"x")
        assert await get(after, location) == b"x"
        await after.delete(location)


async def test_a_copy_from_one_account_to_another(cloud: Cloud):
    project = cloud.keystone.project_id("demo")
    async with aclosing(cloud.store()) as store:
        service = store.acting_for(project, token=None)
        location = await put(store, DATA)
        attempt = attempt_at()
        assert await service.copy(attempt, store, location) == len(DATA)
        copied = await service.publish(attempt)
        assert f"AUTH_{project}" in copied
        await store.delete(location)
        assert await get(store, copied) == DATA
        # With the user's own rights nothing can be had from the service's account.
        location = await put(store, DATA)
        user = store.acting_for(project, token=cloud.keystone.token("demo", "demo"))
        assert await user.copy(attempt_at(), store, location) is None
        await store.delete(location)
        await store.delete(copied)


# Glance's own library.
