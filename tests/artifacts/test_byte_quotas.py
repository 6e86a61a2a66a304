"""Quotas of bytes: never exceeded, by however many uploads at a time, and given back at once."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests import databases
from tests.artifacts.sending import path_of
from tests.artifacts.service import ADMIN, ALICE, BOB, LOCATION, OCTETS, CustomApi
from tests.artifacts.uploads import Paused, chunks, rows

UPLOAD = {**ALICE, **OCTETS}


@pytest.fixture
async def limited(custom_api: CustomApi) -> httpx.AsyncClient:
    """A project may have 10,000 bytes, in `sample_artifact` 6,000 of them."""
    return await custom_api(
        DEFAULT__MAX_UPLOADED_DATA="10000", types={"sample_artifact": {"max_uploaded_data": "6000"}}
    )


_NUMBERS = count()


async def new(
    api: httpx.AsyncClient, kind: str = "sample_artifact", who: dict[str, str] = ALICE
) -> dict[str, Any]:
    body = {"name": f"n{next(_NUMBERS)}"}
    created = await api.post(f"/artifacts/{kind}", json=body, headers=who)
    assert created.status_code == 201, created.text
    return created.json()


async def put(
    api: httpx.AsyncClient, artifact: dict[str, Any], data: Any, *, blob: str = "blob"
) -> int:
    kind = "images" if blob == "image" else "sample_artifact"
    answer = await api.put(path_of(artifact, blob, kind=kind), content=data, headers=UPLOAD)
    return answer.status_code


async def test_a_quota_is_used_up_to_the_last_byte(limited: httpx.AsyncClient) -> None:
    artifact, image = await new(limited), await new(limited, "images")
    assert await put(limited, artifact, bytes(6001)) == 413
    assert await put(limited, artifact, bytes(6000)) == 200
    # The type's is used up, the project's is not.
    assert await put(limited, await new(limited), b"x") == 413
    assert await put(limited, await new(limited), chunks(b"x")) == 413
    assert await put(limited, await new(limited), b"") == 200
    assert await put(limited, image, bytes(4001), blob="image") == 413
    assert await put(limited, image, chunks(bytes(4001)), blob="image") == 413
    assert await put(limited, image, chunks(bytes(4000)), blob="image") == 200
    # What is elsewhere takes no room, and another project has its own.
    where = {"url": "http://example.com/x", "md5": None}
    located = await limited.put(
        path_of(await new(limited), "blob"), json=where, headers={**ALICE, **LOCATION}
    )
    assert located.status_code == 200
    theirs = await new(limited, who=BOB)
    stored = await limited.put(path_of(theirs, "blob"), content=b"x", headers={**BOB, **OCTETS})
    assert stored.status_code == 200


async def test_what_goes_gives_its_room_back(limited: httpx.AsyncClient) -> None:
    artifact = await new(limited)
    assert await put(limited, artifact, bytes(6000)) == 200
    other = await new(limited)
    assert await put(limited, other, b"x") == 413
    gone = await limited.delete(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    assert gone.status_code == 204
    # Though the job that removes the bytes has not run.
    assert await put(limited, other, bytes(6000)) == 200


async def test_room_is_taken_before_bytes_come(
    limited: httpx.AsyncClient, artifacts_database: str
) -> None:
    artifact, other = await new(limited), await new(limited)
    async with Paused(limited, path_of(artifact, "blob"), bytes(5000)):
        assert await rows(artifacts_database) == [("saving", 5000)]
        assert await put(limited, other, bytes(1001)) == 413
        assert await put(limited, other, bytes(1000)) == 200
    # And given back when nothing comes of it.
    assert await put(limited, await new(limited), bytes(5000)) == 200


async def test_the_quota_is_that_of_the_artifacts_owner(limited: httpx.AsyncClient) -> None:
    """With Glare an administrator's upload is judged by the administrator's project."""
    artifact = await new(limited)
    headers = {**ADMIN, **OCTETS}
    path = path_of(artifact, "blob")
    assert (await limited.put(path, content=bytes(5000), headers=headers)).status_code == 200
    assert await put(limited, await new(limited), bytes(1001)) == 413
    own = await new(limited, who=ADMIN)
    stored = await limited.put(path_of(own, "blob"), content=bytes(6000), headers=headers)
    assert stored.status_code == 200


async def test_an_administrator_sets_other_limits(
    limited: httpx.AsyncClient, artifacts_database: str
) -> None:
    async def set_quota(name: str, value: int) -> None:
        async with databases.connection(artifacts_database) as server:
            await server.execute(
                "INSERT INTO quotas VALUES ('alpha', $1, $2)"
                " ON CONFLICT (project_id, name) DO UPDATE SET value = excluded.value",
                name,
                value,
            )

    await set_quota("max_uploaded_data:sample_artifact", -1)
    assert await put(limited, await new(limited), bytes(9000)) == 200
    await set_quota("max_uploaded_data", 0)
    assert await put(limited, await new(limited), bytes(1)) == 413
    assert await put(limited, await new(limited), chunks(bytes(1))) == 413
    await set_quota("max_uploaded_data", -1)
    assert await put(limited, await new(limited), bytes(90_000)) == 200
    await set_quota("max_uploaded_data", 99_001)
    assert await put(limited, await new(limited), bytes(1)) == 200
    assert await put(limited, await new(limited), bytes(1)) == 413


@pytest.mark.parametrize("is_announced", [True, False])
async def test_uploads_at_the_edge_do_not_exceed_it(
    limited: httpx.AsyncClient, artifacts_database: str, is_announced: bool
) -> None:
    artifacts = [await new(limited) for _ in range(64)]

    def body() -> bytes | AsyncIterator[bytes]:
        return bytes(137) if is_announced else chunks(bytes(137), 50)

    statuses = await asyncio.gather(*(put(limited, one, body()) for one in artifacts))
    there = await rows(artifacts_database)
    assert there == [("active", 137)] * statuses.count(200)
    assert set(statuses) == {200, 413}
    assert statuses.count(200) * 137 <= 6000
    if is_announced:
        assert statuses.count(200) == 6000 // 137


async def test_what_is_of_unknown_length_takes_room_by_and_by(
    custom_api: CustomApi, artifacts_database: str
) -> None:
    api = await custom_api(DEFAULT__MAX_UPLOADED_DATA=str(8 << 20))
    first, second = await new(api, "images"), await new(api, "images")
    path = path_of(first, "image", kind="images")
    async with Paused(api, path, bytes(3 << 20), is_announced=False) as upload:
        # Not all that is left, as Glare would.
        assert await put(api, second, bytes(4 << 20), blob="image") == 200
        ((_, _), (_, reserved)) = await rows(artifacts_database)
        assert reserved is not None
        assert reserved < 4 << 20
        assert (await upload.answer()).status_code == 200
    assert await rows(artifacts_database) == [("active", 3 << 20), ("active", 4 << 20)]
