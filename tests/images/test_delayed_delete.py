"""Images that are deleted later, brought back, or deleted because nobody gave them data."""

import subprocess

from diptych_images import deletion
from diptych_images.db.images import ImageRow

from tests import databases
from tests.daemon import COMMAND
from tests.images.rows import open_database
from tests.images.service import ADMIN, ALICE, BOB, OCTETS
from tests.images.sites import DATA, Make, Site
from tests.images.workers import working
from tests.waiting import until

DELAYED = {"DEFAULT__DELAYED_DELETE": "true", "DEFAULT__SCRUB_TIME": "3600"}


def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=site.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def delete(site: Site, image: str) -> None:
    answer = await site.api.delete(f"/v2/images/{image}", headers=ALICE)
    assert answer.status_code == 204, answer.text


async def restore(site: Site, image: str) -> ImageRow | None:
    """As the command does it."""
    async with open_database(site.database) as db:
        return await deletion.restore(db, image)


async def status(site: Site, image: str) -> str:
    async with databases.connection(site.database) as server:
        return str(await server.fetchval("SELECT status FROM images WHERE id = $1", image))


async def deleted_hours_ago(site: Site, hours: int) -> None:
    async with databases.connection(site.database) as server:
        await server.execute(
            "UPDATE images SET deleted_at = deleted_at - make_interval(hours => $1)", hours
        )


async def in_two(site: Site) -> str:
    image = await site.active()
    await site.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await site.work()
    return image


async def test_a_deleted_image_is_gone_and_its_bytes_are_not(site: Make) -> None:
    here = await site(**DELAYED)
    image = await in_two(here)
    events = await here.events()
    await delete(here, image)
    assert await status(here, image) == "pending_delete"
    assert (await here.events())[len(events) :] == ["image.delete"]
    path = f"/v2/images/{image}"
    for method, url, content in (
        ("GET", path, None),
        ("DELETE", path, None),
        ("GET", f"{path}/file", None),
        ("GET", f"{path}/members", None),
        ("GET", f"{path}/tasks", None),
        ("PUT", f"{path}/file", b"x"),
        ("POST", f"{path}/actions/reactivate", None),
        ("DELETE", f"/v2/stores/fast/{image}", None),
    ):
        answer = await here.api.request(method, url, content=content, headers={**ADMIN, **OCTETS})
        assert answer.status_code == 404, (method, url)
    for query in ("", "?status=pending_delete", "?visibility=all"):
        listed = await here.api.get(f"/v2/images{query}", headers=ADMIN)
        assert listed.json()["images"] == []
    again = await here.api.post("/v2/images", json={"id": image}, headers=ADMIN)
    assert again.status_code == 409
    # A job that is tried too early changes nothing: what counts is when it was deleted.
    await here.work()
    assert await status(here, image) == "pending_delete"
    assert here.files() == [f"fast/{image}", f"cheap/{image}"]


async def test_when_its_time_is_over_the_bytes_go_from_all_stores(site: Make) -> None:
    here = await site(**{**DELAYED, "DEFAULT__SCRUB_TIME": "0"})
    image = await in_two(here)
    await delete(here, image)
    events = await here.events()
    await here.work()
    assert await status(here, image) == "deleted"
    assert here.files() == []
    assert await here.events() == events
    # OSSN-0075 (CVE-2016-4383): nobody gets the id of an image that somebody may still use.
    again = await here.api.post("/v2/images", json={"id": image}, headers=ADMIN)
    assert again.status_code == 409


async def test_what_waits_to_be_deleted_takes_no_room(site: Make) -> None:
    here = await site(**DELAYED, DEFAULT__USER_STORAGE_QUOTA=str(len(DATA)))
    await delete(here, await here.active())
    second = await here.active()
    third = await here.make()
    full = await here.api.put(f"/v2/images/{third}/file", content=b"x", headers={**ALICE, **OCTETS})
    assert full.status_code == 413
    assert await status(here, second) == "active"


async def test_what_has_no_bytes_is_deleted_at_once(site: Make) -> None:
    here = await site(**DELAYED)
    queued, staged = await here.make(), await here.staged()
    for image in (queued, staged):
        await delete(here, image)
        assert await status(here, image) == "deleted"
    await here.work()
    assert here.files() == []


async def test_a_restored_image_is_as_it_was(site: Make) -> None:
    here = await site(**DELAYED)
    image = await in_two(here)
    path = f"/v2/images/{image}"
    await here.api.post(f"{path}/members", json={"member": "beta"}, headers=ALICE)
    before = await here.show(image, BOB)
    await delete(here, image)
    assert (await here.api.get(path, headers=BOB)).status_code == 404
    told = command(here, "restore", image)
    assert (told.returncode, told.stdout) == (0, f"Image {image} is active again.\n")
    assert (await here.events())[-1] == "image.update"
    assert await here.show(image, BOB) | {"updated_at": ""} == before | {"updated_at": ""}
    got = await here.api.get(f"{path}/file", headers=ALICE)
    assert got.content == DATA
    # The job that was to scrub it is cancelled, and nothing of it is done.
    await deleted_hours_ago(here, 2)
    await here.work()
    assert here.files() == [f"fast/{image}", f"cheap/{image}"]
    assert await restore(here, image) is None
    assert await restore(here, "no image") is None


async def test_an_image_that_was_restored_is_deleted_again(site: Make) -> None:
    here = await site(**DELAYED)
    image = await here.active()
    await delete(here, image)
    assert await restore(here, image)
    await delete(here, image)
    await deleted_hours_ago(here, 2)
    await here.work()
    assert await status(here, image) == "deleted"
    assert here.files() == []


async def test_a_deactivated_image_comes_back_deactivated(site: Make) -> None:
    """Else whoever may delete it and has it restored may download it."""
    here = await site(**DELAYED)
    image = await here.active()
    await here.api.post(f"/v2/images/{image}/actions/deactivate", headers=ADMIN)
    before = await here.show(image)
    await delete(here, image)
    assert await restore(here, image)
    assert await here.show(image) | {"updated_at": ""} == before | {"updated_at": ""}
    async with databases.connection(here.database) as server:
        payloads = await server.fetch("SELECT payload::text FROM outbox")
    assert not [row[0] for row in payloads if "os_glance_status" in row[0]]


async def test_a_copy_that_is_under_way_is_not_restored(site: Make) -> None:
    here = await site(**DELAYED)
    image = await here.active()
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await delete(here, image)
    assert await restore(here, image)
    await here.work()
    shown = await here.show(image)
    assert (shown["stores"], shown["os_glance_importing_to_stores"]) == ("fast", "")
    assert "os_glance_import_task" not in shown
    assert here.files() == [f"fast/{image}"]


async def test_the_command_scrubs_what_no_job_is_for(site: Make) -> None:
    here = await site(**DELAYED)
    old, young = await here.active(), await here.active()
    await delete(here, old)
    await deleted_hours_ago(here, 2)
    await delete(here, young)
    async with databases.connection(here.database) as server:
        await server.execute("DELETE FROM jobs")
    told = command(here, "scrub")
    assert (told.returncode, told.stdout) == (0, "Images deleted for good: 1.\n")
    assert [await status(here, one) for one in (old, young)] == ["deleted", "pending_delete"]
    await here.work()
    assert here.files() == [f"fast/{young}"]


async def test_a_worker_scrubs_what_no_job_is_for(site: Make) -> None:
    here = await site(**DELAYED)
    image = await here.active()
    await delete(here, image)
    await deleted_hours_ago(here, 2)
    async with databases.connection(here.database) as server:
        await server.execute("DELETE FROM jobs")

    async def is_scrubbed() -> bool:
        return await status(here, image) == "deleted"

    async with working(here.environ):
        await until(is_scrubbed)
    await here.work()
    assert here.files() == []


async def test_images_that_nobody_gives_data_expire(site: Make) -> None:
    here = await site(DEFAULT__QUEUED_TIME_TO_LIVE="2")
    old, protected, young = await here.make(), await here.make(protected=True), await here.make()
    staged, active = await here.staged(), await here.active()
    async with databases.connection(here.database) as server:
        await server.execute(
            "UPDATE images SET updated_at = updated_at - interval '3 hours' WHERE id <> $1", young
        )
    events = await here.events()

    async def are_expired() -> bool:
        return await status(here, old) == await status(here, protected) == "deleted"

    async with working(here.environ):
        await until(are_expired)
    assert (await here.events())[len(events) :] == ["image.delete"] * 2
    kept = [await status(here, one) for one in (young, staged, active)]
    assert kept == ["queued", "uploading", "active"]
    assert (await here.api.get(f"/v2/images/{old}", headers=ALICE)).status_code == 404


async def test_nothing_expires_unless_it_is_told_to(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with databases.connection(here.database) as server:
        await server.execute("UPDATE images SET updated_at = updated_at - interval '9 years'")

        async def is_looked_for() -> bool:
            return bool(
                await server.fetchval(
                    "SELECT count(*) FROM jobs"
                    " WHERE kind = 'expire' AND state = 'waiting' AND run_after > now()"
                )
            )

        async with working(here.environ):
            await until(is_looked_for)
    assert await status(here, image) == "queued"
