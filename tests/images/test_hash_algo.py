"""The digest of an image's bytes, by the algorithm that its creation chooses."""

import hashlib
from typing import Any

import httpx
import pytest

from tests.images.service import ADMIN, ALICE, OCTETS, PATCH
from tests.images.sites import DATA, Make

FORMATS = {"disk_format": "raw", "container_format": "bare"}


async def created(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/v2/images", json={**FORMATS, **fields}, headers=ALICE)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def uploaded(api: httpx.AsyncClient, image: dict[str, Any]) -> dict[str, Any]:
    path = image["self"]
    stored = await api.put(f"{path}/file", content=DATA, headers={**ALICE, **OCTETS})
    assert stored.status_code == 204, stored.text
    return (await api.get(path, headers=ALICE)).json()


def hashed(image: dict[str, Any]) -> tuple[str, str]:
    return image["os_hash_algo"], image["os_hash_value"]


def of_data(algorithm: str) -> tuple[str, str]:
    return algorithm, hashlib.new(algorithm, DATA).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
async def test_an_upload_is_hashed_as_was_chosen(api, algorithm: str) -> None:
    image = await created(api, os_hash_algo=algorithm)
    assert hashed(image) == (algorithm, None)
    active = await uploaded(api, image)
    assert hashed(active) == of_data(algorithm)
    assert active["checksum"] == hashlib.md5(DATA).hexdigest()


@pytest.mark.parametrize("chosen", [{}, {"os_hash_algo": None}], ids=["absent", "null"])
async def test_without_a_choice_the_setting_counts(custom_api, chosen: dict[str, None]) -> None:
    api = await custom_api(DEFAULT__HASHING_ALGORITHM="sha384")
    image = await created(api, **chosen)
    assert hashed(image) == (None, None)
    assert hashed(await uploaded(api, image)) == of_data("sha384")


@pytest.mark.parametrize("algorithm", ["md5", "SHA256", "sha3_256", "shake_128", "", 256])
async def test_other_algorithms_are_refused(api, algorithm: object) -> None:
    body = {**FORMATS, "os_hash_algo": algorithm}
    refused = await api.post("/v2/images", json=body, headers=ALICE)
    assert refused.status_code == 400
    assert (await api.get("/v2/images", headers=ALICE)).json()["images"] == []


async def test_the_choice_is_made_once(api) -> None:
    image = await created(api, os_hash_algo="sha256")
    change = [{"op": "replace", "path": "/os_hash_algo", "value": "sha1"}]
    refused = await api.patch(image["self"], json=change, headers={**ALICE, **PATCH})
    assert refused.status_code == 403
    assert (await api.get(image["self"], headers=ALICE)).json() == image


async def test_an_upload_that_failed_leaves_the_choice(custom_api) -> None:
    api = await custom_api(DEFAULT__IMAGE_SIZE_CAP=str(len(DATA)))
    image = await created(api, os_hash_algo="sha256")
    too_much = await api.put(
        f"{image['self']}/file", content=DATA + b"x", headers={**ALICE, **OCTETS}
    )
    assert too_much.status_code == 413
    assert hashed(await uploaded(api, image)) == of_data("sha256")


async def test_a_staged_image_and_its_copies_are_hashed_as_was_chosen(site: Make) -> None:
    here = await site()
    image = await here.staged(os_hash_algo="sha256")
    await here.ask(image, "glance-direct", stores=["fast"])
    await here.work()
    assert hashed(await here.show(image)) == of_data("sha256")
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await here.work()
    shown = await here.show(image)
    assert shown["stores"] == "cheap,fast"
    assert hashed(shown) == of_data("sha256")


async def test_an_import_that_failed_leaves_the_choice(site: Make) -> None:
    here = await site()
    image = await here.staged(os_hash_algo="sha256", disk_format="qcow2")
    await here.ask(image, "glance-direct", stores=["fast"])
    await here.work()
    failed = await here.show(image)
    assert (failed["status"], *hashed(failed)) == ("queued", "sha256", None)
    change = [{"op": "replace", "path": "/disk_format", "value": "raw"}]
    await here.api.patch(failed["self"], json=change, headers={**ALICE, **PATCH})
    assert hashed(await uploaded(here.api, failed)) == of_data("sha256")


async def test_an_import_that_landed_and_was_taken_back_leaves_the_choice(site: Make) -> None:
    here = await site()
    image = await here.staged(os_hash_algo="sha256")
    # What is in the image's place in one store has the import taken back from the others.
    other = here.folder / "cheap" / image
    other.write_bytes(b"x")
    await here.ask(image, "glance-direct", all_stores=True)
    await here.work()
    other.unlink()
    failed = await here.show(image)
    assert (failed["status"], *hashed(failed)) == ("queued", "sha256", None)
    assert hashed(await uploaded(here.api, failed)) == of_data("sha256")
