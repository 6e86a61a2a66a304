"""`diptych-images stores …`, as an operator types it, with stores at real servers."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Generator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dev.ports import any_free
from dev.seaweedfs import AccessKey, Seaweedfs
from dev.swift import Swift
from diptych_images.cli import main
from diptych_store.settings import SECRETS
from typer.testing import CliRunner

from tests.daemon import COMMAND
from tests.images.service import configuration
from tests.images.stores import Bucket, Container


def stores(
    *command: str, environ: Mapping[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "stores", *command],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def checked(*names: str, environ: Mapping[str, str], code: int = 0) -> dict[str, Any]:
    done = stores("check", "--json", *names, environ=environ, code=code)
    return {one["store"]: one for one in json.loads(done.stdout)}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
async def bucket(s3: Seaweedfs) -> AsyncGenerator[Bucket]:
    bucket = Bucket(s3)
    await bucket.make()
    yield bucket
    await bucket.remove()


@pytest.fixture
async def container(swift: Swift) -> AsyncGenerator[Container]:
    container = Container(swift)
    yield container
    await container.remove()


def environment(
    folder: Path, *several: Mapping[str, str], default: str = "fast", **kinds: str
) -> dict[str, str]:
    """Stores by name and type beside the directories `fast` and `cheap`."""
    backends = ", ".join(f"{name}:{kind}" for name, kind in kinds.items())
    options = {name: value for some in several for name, value in some.items()}
    return configuration(
        "postgresql://nobody@localhost/x",
        folder,
        DEFAULT__ENABLED_BACKENDS=f"fast:file, cheap:file, {backends}",
        GLANCE_STORE__DEFAULT_BACKEND=default,
        **options,
    )


async def test_stores_of_every_type_are_checked(
    bucket: Bucket, container: Container, tmp_path: Path
) -> None:
    environ = environment(
        tmp_path,
        bucket.options("bucket"),
        container.options("container"),
        bucket="s3",
        container="swift",
        web="http",
    )
    found = checked(environ=environ)
    assert {name: one["ok"] for name, one in found.items()} == dict.fromkeys(
        ("fast", "cheap", "bucket", "container", "web"), True
    )
    for name in ("fast", "bucket", "container"):
        steps = [step["step"] for step in found[name]["steps"]]
        assert [step for step in steps if step != "list attempts"] == [
            "open", "write", "publish", "read", "read a range", "delete", "close",
        ]  # fmt: skip
    assert await bucket.everything() == []
    assert await container.everything() == []
    assert files(tmp_path) == []


async def test_a_table_says_where_it_hurts_and_what_may_help(
    bucket: Bucket, container: Container, tmp_path: Path
) -> None:
    wrong_key = AccessKey(bucket.server.full.access, "canary/of+a:wrong@key")
    nowhere = f"http://127.0.0.1:{any_free()}"
    environ = environment(
        tmp_path,
        bucket.options("good"),
        Bucket(bucket.server).options("no_bucket"),
        # Each store needs a place of its own; rights are looked at before it is.
        Bucket(bucket.server, key=wrong_key).options("wrong_key"),
        Bucket(bucket.server, key=bucket.server.read_only).options("no_right"),
        Bucket(bucket.server, url=nowhere).options("down", s3_store_retries="0"),
        container.options("no_container", swift_store_create_container_on_put="false"),
        Container(container.server, key="canary-of-a-wrong-password").options("wrong_password"),
        good="s3",
        no_bucket="s3",
        wrong_key="s3",
        no_right="s3",
        down="s3",
        no_container="swift",
        wrong_password="swift",
    )
    table = stores("check", environ=environ, code=1)
    assert "canary" not in table.stdout + table.stderr
    assert "Traceback" not in table.stderr
    failures, name = dict[str, str](), ""
    for line, advice in pairwise(table.stdout.splitlines()):
        name = line.split(" ")[0] or name
        step, failed, words = line.removeprefix(name).partition(" FAILED: ")
        if failed:
            assert step.split()[0] == "write"
            assert advice.startswith("    ")
            failures[name] = words
    assert [*failures] == [
        "no_bucket", "wrong_key", "no_right", "down", "no_container", "wrong_password",
    ]  # fmt: skip
    for name, words in {
        "no_bucket": "there is no bucket images-",
        "wrong_key": "the server refuses the signature",
        "no_right": "the server denies access to bucket",
        "down": "no connection to the server could be made",
        "no_container": "there is no container images-",
        "wrong_password": "The credentials were refused",
    }.items():
        assert words in failures[name]
    assert await bucket.everything() == []


@contextlib.contextmanager
def silent_server() -> Generator[socket.socket]:
    """One that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_one_that_hangs_is_given_up_and_the_others_are_checked(
    s3: Seaweedfs, tmp_path: Path
) -> None:
    with silent_server() as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        environ = environment(tmp_path, Bucket(s3, url=url).options("silent"), silent="s3")
        found = checked("--timeout", "8", environ=environ, code=1)
    assert {name: one["ok"] for name, one in found.items()} == {
        "fast": True,
        "cheap": True,
        "silent": False,
    }
    late = [step for step in found["silent"]["steps"] if not step["ok"]]
    assert [(step["step"], step["error"]) for step in late] == [
        ("write", "It was not over when it was given up.")
    ]


def test_a_check_that_is_interrupted_leaves_nothing(s3: Seaweedfs, tmp_path: Path) -> None:
    with silent_server() as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        environ = environment(tmp_path, Bucket(s3, url=url).options("silent"), silent="s3")
        with subprocess.Popen(
            [COMMAND, "stores", "check"],
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            server.settimeout(30)
            server.accept()[0].close()
            process.send_signal(signal.SIGTERM)
            # What it cleans up is refused and not waited for.
            server.close()
            told, complaint = process.communicate(timeout=60)
    assert (told, complaint) == (b"", b"Interrupted.\n")
    assert process.returncode == 128 + signal.SIGTERM
    assert files(tmp_path) == []


async def test_a_directory_that_was_replaced_is_adopted(
    images_database: str, tmp_path: Path
) -> None:
    def node(folder: str) -> dict[str, str]:
        return configuration(images_database, tmp_path / folder)

    for folder in ("one", "other"):
        told = stores("adopt", "fast", environ=node(folder)).stdout
        assert told.startswith("Other nodes have to have the directories")
    done = stores("adopt", "tape", environ=node("one"), code=2)
    assert "There is no store tape; there are fast, cheap." in done.stderr


def test_no_command_prints_a_secret_of_a_store(tmp_path: Path) -> None:
    canaries = {f"ONE__{name.upper()}": f"canary-of-{name}" for name in SECRETS}
    needed = {"ONE__S3_STORE_HOST": "https://s3.example.org", "ONE__S3_STORE_BUCKET": "images"}
    environ = environment(tmp_path, needed, canaries, one="s3")
    for command, told in {
        "stores list": "images",
        "stores list --json": "images",
        "config show": "images",
        "config check": "only stores of type swift have it",
    }.items():
        done = CliRunner().invoke(main, command.split(), env=environ)
        assert done.exit_code == 0
        assert told in done.output
        assert "canary" not in done.output
