"""What an operator is told of an image."""

import asyncio
import json
from typing import Any
from uuid import uuid4

from diptych_images import explain
from diptych_images.db import explain as everything

from tests import databases, web
from tests.images.rows import open_database
from tests.images.service import ALICE
from tests.images.sites import DATA, Make, Site
from tests.images.test_cli import run
from tests.images.workers import working
from tests.waiting import until


async def told(here: Site, image: str) -> str:
    async with open_database(here.database) as db, db.read() as connection:
        found = await everything.of_image(connection, image)
    assert found is not None
    json.dumps(explain.document(found), default=str)
    return "\n".join(explain.lines(found))


async def test_an_image_at_rest_needs_nothing(site: Make) -> None:
    here = await site()
    queued, active, staged = await here.make(), await here.active(), await here.staged()
    text = await told(here, queued)
    assert f"Image {queued} (i) is queued." in text
    assert "owned by alpha" in text
    assert "a user uploads, or imports again" in text
    assert "fast: stored, file://" in await told(here, active)
    assert "os_glance_staging_store: staged since" in await told(here, staged)


async def test_a_name_does_not_command_the_terminal(site: Make) -> None:
    here = await site()
    text = await told(here, await here.make(name="i\x1b[2J\nImage"))
    assert "(i\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}Image) is queued." in text


async def test_who_is_at_an_import_and_how_far(site: Make) -> None:
    here = await site()
    image = await here.make()
    half = here.folder / "half"

    async def answer(_: web.Asked, writer: Any) -> None:
        writer.write(web.head(content_length=len(DATA)) + DATA[:100_000])
        await writer.drain()
        half.touch()
        await writer.wait_closed()

    async with web.serving(answer) as server, working(here.environ):
        await here.ask(image, "web-download", method_uri=server.url, stores=["cheap"])
        await until(half.exists)
        text = await told(here, image)
        task = await here.task(image)
        await here.api.delete(f"/v2/images/{image}", headers=ALICE)
        await until(here.is_over)
    assert f"held by the import of task {task['id']}" in text
    assert "cheap: being written since" in text
    assert "its lease lasts until" in text
    assert "(import)" in text
    assert "running, attempt 1 of" in text
    assert "held by worker" in text
    assert "jobs cancel" in text
    assert server.url not in text
    text = await told(here, image)
    assert "is deleted" in text
    assert "cancelled, attempt 1 of" in text
    assert "failure: The image was deleted." in text
    assert "nowhere" in text


async def test_when_an_import_that_failed_is_tried_again(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(b"no", status=503)) as server, working(here.environ):
        await here.ask(image, "web-download", method_uri=server.url)

        text = ""

        async def is_waiting_again() -> bool:
            nonlocal text
            text = await told(here, image)
            return "next try" in text and "last error" in text

        await until(is_waiting_again)
    assert "last error: SourceFailed: The server answered 503." in text
    assert "is tried again" in text
    async with databases.connection(here.database) as database:
        await database.execute(
            "UPDATE jobs SET state = 'running', worker = 'w', run_after = now(),"
            " lease_until = now() - interval '1 min' WHERE kind = 'import'"
        )
    text = await told(here, image)
    assert "its lease was over" in text
    assert "was not heard of any more" in text


async def test_the_command_tells_of_images_that_were_there_once(site: Make) -> None:
    here = await site()
    image = await here.active()
    await here.api.delete(f"/v2/images/{image}", headers=ALICE)
    known = await asyncio.to_thread(run, "explain", image, "--json", environ=here.environ)
    assert known.returncode == 0, known.stderr
    document = json.loads(known.stdout)
    assert document["status"] == "deleted"
    assert [row["status"] for row in document["locations"]] == ["deleted"]
    (job,) = document["jobs"]
    assert (job["kind"], job["state"]) == ("remove_bytes", "waiting")
    unknown = await asyncio.to_thread(run, "explain", str(uuid4()), environ=here.environ)
    assert unknown.returncode == 1
    assert "There is and was no image" in unknown.stderr
