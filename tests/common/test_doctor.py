"""What single examinations find: of databases, of Keystone, of what is at an address."""

from datetime import timedelta
from typing import Any

import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone
from dev.rabbitmq import Rabbitmq
from diptych_common import events, jobs, migrations
from diptych_common.doctor import database, findings, front, identity, servers
from diptych_common.doctor.database import compare_clocks
from diptych_common.doctor.findings import Ended, Examination, Finding, Level, Notes
from diptych_common.doctor.front import Front
from diptych_common.settings import Database as DatabaseSettings
from diptych_common.settings import KeystoneAuthtoken, MessagingNotifications, MessagingRabbit
from pydantic import SecretStr

from tests import databases, web
from tests.common import job_tables

# Of a service that no document is of.
NOBODY = Front(is_ours=lambda _: False, links_of=lambda _: [], upload="/upload", largest=1 << 40)


async def found(examination: Examination, *, seconds: float = 60) -> dict[str, Finding]:
    diagnosis = await findings.examined({"it": examination}, seconds=seconds)
    return {one.about: one for one in diagnosis.findings}


def levels(found: dict[str, Finding]) -> dict[str, Level]:
    return {about: one.level for about, one in found.items()}


def of_database(url: str, *, revisions: str | None = None) -> Examination:
    return database.examination(
        DatabaseSettings(connection=url),
        name="doctor",
        revisions=revisions,
        jobs_table=job_tables.jobs,
        outbox=None,
    )


@pytest.fixture
async def jobs_database(empty_database: str) -> str:
    async with job_tables.opened(empty_database):
        return empty_database


async def change(url: str, statement: str) -> None:
    async with databases.connection(url) as connection:
        await connection.execute(statement)


async def test_a_database_in_another_encoding_is_no_use(postgres_url: str) -> None:
    url = databases.address(postgres_url, "doctor_ascii")
    await change(
        postgres_url,
        "CREATE DATABASE doctor_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
    )
    try:
        told = await found(of_database(url))
    finally:
        await databases.drop(url)
    assert told["database"].level == "failure"
    assert "SQL_ASCII" in told["database"].told


async def test_a_database_that_cannot_be_written_to_is_no_use(jobs_database: str) -> None:
    name = jobs_database.rpartition("/")[2]
    await change(jobs_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    told = await found(of_database(jobs_database))
    assert told["database"].level == "failure"
    assert "read-only" in told["database"].told


async def test_a_database_that_does_not_let_us_in_is_told(postgres_url: str) -> None:
    nowhere = databases.address(postgres_url, "no_such_database")
    told = await found(of_database(nowhere))
    assert levels(told) == {"database": "failure"}
    assert told["database"].told == 'database "no_such_database" does not exist.'


async def test_a_database_without_the_schema_is_told(empty_database: str) -> None:
    told = await found(of_database(empty_database, revisions="diptych_images.migrations"))
    assert told["schema"].level == "failure"
    assert "db expand" in told["schema"].advice
    assert told["workers"].level == "failure"


async def test_a_schema_that_a_newer_release_has_expanded_is_a_warning(empty_database: str) -> None:
    await migrations.upgrade(empty_database, "diptych_artifacts.migrations")
    await change(empty_database, "UPDATE alembic_version SET version_num = '9999_expand'")
    told = await found(of_database(empty_database, revisions="diptych_artifacts.migrations"))
    assert told["schema"].level == "warning"
    await change(empty_database, "UPDATE alembic_version SET version_num = '9999_contract'")
    told = await found(of_database(empty_database, revisions="diptych_artifacts.migrations"))
    assert told["schema"].level == "failure"


async def test_workers_are_told_by_what_they_leave_undone(jobs_database: str) -> None:
    examination = of_database(jobs_database)
    assert (await found(examination))["workers"].told == "None has ever run."
    async with job_tables.opened(jobs_database) as db:
        async with db.write() as connection:
            await jobs.schedule(connection, job_tables.jobs, "sweep", timedelta(hours=1))
        assert levels(await found(examination))["workers"] == "ok"
        late = "UPDATE jobs SET run_after = now() - interval '3 minutes'"
        await change(jobs_database, late)
        told = await found(examination)
        assert told["workers"].level == "failure"
        assert "jobs" not in told
        await change(jobs_database, "UPDATE jobs SET run_after = now() + interval '1 hour'")
        async with db.write() as connection:
            await jobs.enqueue(connection, job_tables.jobs, "import", {})
        await change(
            jobs_database,
            "UPDATE jobs SET state = 'running', lease_until = now() - interval '11 minutes'"
            " WHERE kind = 'import'",
        )
        told = await found(examination)
    assert told["workers"] == Finding("workers", "ok", "0 jobs run, 1 wait for their turn.")
    assert told["jobs"].level == "warning"


async def test_events_that_nobody_delivers_are_told(jobs_database: str) -> None:
    async with job_tables.opened(jobs_database) as db, db.write() as connection:
        await events.emit(connection, job_tables.outbox, "image.delete", {})
    examination = database.examination(
        DatabaseSettings(connection=jobs_database),
        name="doctor",
        revisions=None,
        jobs_table=None,
        outbox=job_tables.outbox,
    )
    assert levels(await found(examination))["events"] == "ok"
    await change(jobs_database, "UPDATE outbox SET created_at = now() - interval '1 hour'")
    assert levels(await found(examination))["events"] == "warning"


@pytest.mark.parametrize(
    ("ahead", "uncertain", "level"),
    [
        (0.5, 0.0, "ok"),
        (-1.9, 0.0, "ok"),
        (3.0, 2.0, "ok"),
        (3.0, 0.5, "warning"),
        (-30.0, 0.0, "warning"),
        (62.0, 1.0, "failure"),
        (-90.0, 1.0, "failure"),
    ],
)
def test_clocks_that_differ_are_told(ahead: float, uncertain: float, level: Level) -> None:
    notes = Notes(1)
    compare_clocks(notes, "clock", ahead, uncertain_s=uncertain)
    assert [one.level for one in notes.findings] == [level]


def authtoken(keystone: Keystone, **options: Any) -> KeystoneAuthtoken:
    given: dict[str, Any] = {
        "auth_url": keystone.url,
        "username": "glance",
        "password": SecretStr(PASSWORD),
        "project_name": "service",
        **options,
    }
    return KeystoneAuthtoken(**given)


async def of_keystone(settings: KeystoneAuthtoken) -> dict[str, Finding]:
    return await found(identity.examination(settings, service_type="image", front=NOBODY))


async def test_credentials_that_keystone_refuses_are_told(keystone: Keystone) -> None:
    wrong = SecretStr("canary-of-a-password")
    told = await of_keystone(authtoken(keystone, password=wrong, http_request_max_retries=0))
    assert levels(told) == {
        "keystone": "ok",
        "clock of keystone": "ok",
        "credentials": "failure",
    }
    assert "401" in told["credentials"].told
    assert "canary" not in str(told)


async def test_a_user_who_may_not_validate_tokens_is_told(keystone: Keystone) -> None:
    told = await of_keystone(authtoken(keystone, username="demo", project_name="demo"))
    assert told["credentials"].level == "ok"
    assert told["token validation"].level == "warning"
    assert "role service" in told["token validation"].advice


async def test_a_catalog_without_this_service_is_told(keystone: Keystone) -> None:
    told = await of_keystone(authtoken(keystone, service_type="image-of-nobody"))
    assert told["catalog"].level == "warning"


async def test_an_endpoint_where_something_else_answers_is_told(keystone: Keystone) -> None:
    # Keystone itself answers with versions as well.
    settings = authtoken(keystone, service_type="identity")
    told = await of_keystone(settings)
    assert told["catalog"].level == "ok"
    assert told["internal endpoint"].level == "failure"
    assert "not as this service does" in told["internal endpoint"].told


async def test_a_keystone_whose_clock_is_wrong_is_told() -> None:
    an_hour_ago = web.answer(b"", Date="Sat, 01 Jan 2000 00:00:00 GMT")
    async with web.serving(an_hour_ago) as server:
        settings = KeystoneAuthtoken(auth_url=server.url, http_request_max_retries=0)
        told = await of_keystone(settings)
    assert told["clock of keystone"].level == "failure"
    assert "behind" in told["clock of keystone"].told


async def test_rabbitmq_is_asked_for_admission(rabbitmq: Rabbitmq) -> None:
    def of(url: str) -> Examination:
        told = MessagingNotifications(driver="messagingv2")
        return servers.messaging(told, MessagingRabbit(), transport_url=url)

    right = rabbitmq.url()
    assert levels(await found(of(right))) == {"rabbitmq": "ok"}
    gone = f"rabbit://guest:canary@127.0.0.1:{ports.any_free()}/"
    told = await found(of(gone))
    assert levels(told) == {"rabbitmq": "failure"}
    assert "canary" not in str(told)


async def test_a_mistake_in_one_examination_does_not_end_the_others() -> None:
    async def mistaken(notes: Notes) -> None:
        notes.ok("mistaken", "So far so good.")
        raise KeyError("canary")

    async def ended(_: Notes) -> None:
        raise Ended

    async def sound(notes: Notes) -> None:
        async with notes.asking("sound", "advice"):
            pass
        notes.ok("sound", "It is.")
        async with notes.asking("unsound", "advice"):
            raise RuntimeError("canary")

    diagnosis = await findings.examined(
        {"mistaken": mistaken, "ended": ended, "sound": sound}, seconds=1
    )
    assert [(one.about, one.level) for one in diagnosis.findings] == [
        ("mistaken", "ok"),
        ("mistaken", "failure"),
        ("sound", "ok"),
        ("unsound", "failure"),
    ]
    assert "canary" not in str(diagnosis)
    assert not diagnosis.is_well


@pytest.mark.parametrize(
    ("status", "level"), [(411, "warning"), (401, "ok"), (502, "failure"), (200, "ok")]
)
async def test_what_a_proxy_answers_to_uploads_is_told(status: int, level: Level) -> None:
    ours = Front(
        is_ours=lambda document: document == {}, links_of=lambda _: [], upload="/u", largest=9
    )
    answers = {"GET": web.answer(b"{}"), "PUT": web.answer(b"", status)}

    async def handle(asked: web.Asked, writer: Any) -> None:
        await answers[asked.method](asked, writer)

    async with web.serving(handle) as server:
        told = await found(front.examination(server.url, ours, None))
    assert told["proxy"].level == "ok"
    assert told["uploads"].level == level
