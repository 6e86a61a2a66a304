"""The servers that the other tests share hold what is promised of them."""

import os
import signal
import socket

import asyncpg
import pytest
from dev.keystone import Keystone
from dev.postgres import Server

from tests import databases


async def test_an_empty_database_is_really_empty(empty_database: str) -> None:
    async with databases.connection(empty_database) as database:
        assert (
            await database.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            == 0
        )
        await database.execute("CREATE TABLE mine (id int)")


def test_a_synchronous_test_gets_a_database_too(empty_database: str) -> None:
    assert empty_database.startswith("postgresql+asyncpg://")


async def test_statements_are_counted_as_the_server_saw_them(empty_database: str) -> None:
    async with (
        databases.connection(empty_database) as database,
        databases.statements(empty_database) as seen,
    ):
        await database.fetchval("SELECT 1")
        await database.fetchval("SELECT 1")
        async with database.transaction():
            await database.execute("CREATE TABLE mine (id int)")
    assert sorted(seen.texts) == [
        "BEGIN",
        "COMMIT",
        "CREATE TABLE mine (id int)",
        "SELECT $1",
        "SELECT $1",
    ]


async def test_images_database_is_migrated(images_database: str) -> None:
    async with databases.connection(images_database) as database:
        assert await database.fetchval("SELECT count(*) FROM images") == 0


async def test_a_killed_private_server_comes_back(private_postgres: Server) -> None:
    url = await databases.create(private_postgres.url(), "kept")
    os.kill(private_postgres.pid, signal.SIGKILL)
    private_postgres.start()
    async with databases.connection(url) as database:
        assert await database.fetchval("SELECT current_database()") == "kept"


def test_the_password_of_the_server_is_asked_for(private_postgres: Server) -> None:
    import asyncio
    import concurrent.futures

    async def connect() -> None:
        await asyncpg.connect(
            private_postgres.url().replace("+asyncpg", "").replace(private_postgres.password, "x")
        )

    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        pytest.raises(asyncpg.InvalidPasswordError),
    ):
        pool.submit(asyncio.run, connect()).result()


def test_tokens_of_every_scope(keystone: Keystone) -> None:
    def scope(token: str) -> set[str]:
        return set(keystone.call("GET", "/auth/tokens", token=token, subject=token)["token"]) & {
            "project",
            "domain",
            "system",
        }

    assert scope(keystone.token("demo", "demo")) == {"project"}
    assert scope(keystone.token("admin", domain="Default")) == {"domain"}
    assert scope(keystone.token("admin", system=True)) == {"system"}
    assert scope(keystone.token("loner")) == set()


def test_other_machines_are_out_of_reach() -> None:
    with socket.socket() as probe, pytest.raises(RuntimeError, match=r"192\.0\.2\.1"):
        probe.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)
