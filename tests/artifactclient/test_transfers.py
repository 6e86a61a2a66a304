"""Blobs, up and down: all bytes, the right ones, and none twice."""

import hashlib
import io
import os
import pty
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diptych_artifactclient import progress, transfers
from diptych_artifactclient.errors import ArtifactError, BadArgument, TransferFailed, WrongChecksum
from keystoneauth1.exceptions import ConnectFailure, NotFound

from tests import web
from tests.artifactclient.terminal import Answers, answer, artifacts, document, run, shown

PATH = "/artifacts/images/the-id"
DATA = bytes(range(256)) * 2000
HALF = len(DATA) // 2
ETAG = '"sha256:whatever"'
ARGUMENTS = ("images", "the-id", "--id", "-p", "image")


def checksums(data: bytes = DATA) -> dict[str, str]:
    """The headers that a service tells them in."""
    return {
        "Content-MD5": hashlib.md5(data).hexdigest(),
        "X-Openstack-Glare-Content-SHA1": hashlib.sha1(data).hexdigest(),
        "X-Openstack-Glare-Content-SHA256": hashlib.sha256(data).hexdigest(),
    }


def blob(data: bytes = DATA, *, etag: str | None = ETAG, ends_after: int | None = None) -> Any:
    """Answers as a service does, in parts too; the connection breaks after so many bytes."""

    async def handle(asked: web.Asked, writer: Any) -> None:
        start, status = 0, 200
        headers: dict[str, object] = {**checksums(data), "ETag": etag, "Connection": "close"}
        if "range" in asked.headers and asked.headers.get("if-range") == etag:
            start, status = int(asked.headers["range"].removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if start >= len(data):
                await answer(status=416)(asked, writer)
                return
        headers["Content-Length"] = len(data) - start
        named = {name: value for name, value in headers.items() if value is not None}
        writer.write(web.head(status, **named))
        writer.write(data[start : None if ends_after is None else start + ends_after])
        await writer.drain()

    return handle


def in_turn(*answers: Any) -> Callable[..., Any]:
    """One answer for each request, the last for all that follow."""
    left = list(answers)

    async def handle(asked: web.Asked, writer: Any) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked, writer)

    return handle


@pytest.fixture
def offer(server: web.Web, answers: Answers) -> Callable[..., list[web.Asked]]:
    """Let the blob's path answer like this, in turn; what it was asked."""

    def make(*each: Any) -> list[web.Asked]:
        answers.by_request[f"GET {PATH}/image"] = in_turn(*each)
        return server.asked

    return make


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_PAUSE_S", 0.001)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def download(server: web.Web, file: Path, *more: str) -> None:
    run(server.url, "artifact download", *ARGUMENTS, "--file", str(file), *more)


def ranges(asked: list[web.Asked]) -> list[str | None]:
    return [one.headers.get("range") for one in asked]


def left(file: Path) -> list[str]:
    return sorted(one.name for one in file.parent.iterdir())


def test_a_blob_is_downloaded(server: web.Web, offer: Any, file: Path) -> None:
    asked = offer(blob())
    file.write_bytes(b"an older one")
    download(server, file)
    assert file.read_bytes() == DATA
    assert left(file) == ["file"]
    (only,) = asked
    assert only.headers["x-auth-token"] == "the-token"
    assert only.headers["accept-encoding"] == "identity"


def test_a_broken_connection_is_gone_on_from(server: web.Web, offer: Any, file: Path) -> None:
    asked = offer(blob(ends_after=HALF), blob(ends_after=0), blob(ends_after=0), blob())
    download(server, file)
    assert file.read_bytes() == DATA
    assert left(file) == ["file"]
    first, *others = ranges(asked)
    assert first is None
    # What came of the last block is lost with it.
    assert HALF - (1 << 16) <= int(str(others[0])[6:-1]) <= HALF
    assert len(set(others)) == 1
    assert [one.headers.get("if-range") for one in asked] == [None, *[ETAG] * 3]


def test_the_next_command_goes_on_where_one_ended(server: web.Web, offer: Any, file: Path) -> None:
    offer(blob(ends_after=HALF), answer(status=404))
    with pytest.raises(NotFound):
        download(server, file)
    assert left(file) == ["file.part", "file.part.etag"]
    there = file.with_name("file.part").stat().st_size
    assert HALF - (1 << 16) <= there <= HALF

    server.asked.clear()
    asked = offer(blob())
    download(server, file)
    assert ranges(asked) == [f"bytes={there}-"]
    assert file.read_bytes() == DATA
    assert left(file) == ["file"]


def test_it_is_given_up_in_the_end(server: web.Web, offer: Any, file: Path) -> None:
    asked = offer(blob(ends_after=HALF), blob(ends_after=0))
    with pytest.raises(TransferFailed, match=r"broke off.* kept in .*file\.part; the same command"):
        download(server, file)
    assert len(asked) == 6
    assert left(file) == ["file.part", "file.part.etag"]


def test_another_blob_is_not_joined_to_a_part(server: web.Web, offer: Any, file: Path) -> None:
    offer(blob(ends_after=HALF), answer(status=404))
    with pytest.raises(NotFound):
        download(server, file)
    asked = offer(blob(DATA[::-1], etag='"another"'))
    download(server, file)
    assert "range" in asked[-1].headers
    assert file.read_bytes() == DATA[::-1]
    assert left(file) == ["file"]


def test_a_part_that_is_too_long_is_begun_anew(server: web.Web, offer: Any, file: Path) -> None:
    file.with_name("file.part").write_bytes(DATA)
    file.with_name("file.part.etag").write_text(ETAG)
    asked = offer(blob())
    download(server, file)
    assert ranges(asked) == [f"bytes={len(DATA)}-", None]
    assert file.read_bytes() == DATA


def test_a_part_of_nobody_knows_what_is_begun_anew(server: web.Web, offer: Any, file: Path) -> None:
    file.with_name("file.part").write_bytes(b"x" * 100)
    asked = offer(blob())
    download(server, file)
    assert ranges(asked) == [None]
    assert file.read_bytes() == DATA


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_what_has_no_strong_validator_is_not_joined(
    server: web.Web, offer: Any, file: Path, etag: str | None
) -> None:
    asked = offer(blob(etag=etag, ends_after=HALF))
    with pytest.raises(TransferFailed, match="broke off"):
        download(server, file)
    assert len(asked) == 1
    assert left(file) == []


def test_damaged_data_is_not_kept(server: web.Web, offer: Any, file: Path) -> None:
    damaged = answer(b"x" + DATA[1:], headers={"ETag": ETAG, **checksums()})
    offer(damaged)
    with pytest.raises(WrongChecksum, match="sha256 of what came"):
        download(server, file)
    assert left(file) == []
    download(server, file, "--no-verify")
    assert file.read_bytes() == b"x" + DATA[1:]


def test_a_damaged_part_is_not_kept(server: web.Web, offer: Any, file: Path) -> None:
    file.with_name("file.part").write_bytes(b"x" * HALF)
    file.with_name("file.part.etag").write_text(ETAG)
    offer(blob())
    with pytest.raises(WrongChecksum):
        download(server, file)
    assert left(file) == []


@pytest.mark.parametrize("known", ["Content-MD5", "X-Openstack-Glare-Content-SHA1"])
def test_the_checksum_that_there_is_counts(
    server: web.Web, offer: Any, file: Path, known: str
) -> None:
    right = checksums()[known]
    # An external blob's are what its owner said, or nothing.
    nonsense = {name: "" if name == "Content-MD5" else "None" for name in checksums()}
    offer(
        answer(DATA, headers={**nonsense, known: right.upper()}),
        answer(DATA[1:], headers={**nonsense, known: right}),
        answer(DATA[1:], headers=nonsense),
    )
    download(server, file)
    with pytest.raises(WrongChecksum):
        download(server, file)
    download(server, file)
    assert file.read_bytes() == DATA[1:]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_the_token_stays_with_the_service(
    server: web.Web, offer: Any, file: Path, status: int
) -> None:
    with web.serving_from_a_thread(in_turn(blob(ends_after=HALF), blob())) as other:
        asked = offer(
            answer(status=status, headers={"Location": f"{other.url}/somewhere", **checksums()})
        )
        download(server, file)
    assert file.read_bytes() == DATA
    assert [one.target for one in other.asked] == ["/somewhere"] * 2
    assert [name for one in other.asked for name in one.headers if "token" in name] == []
    # It is asked where the rest is, and that is asked for the rest.
    assert len(asked) == 2
    assert ranges(other.asked)[1] is not None


def test_external_data_is_held_against_what_the_service_says(
    server: web.Web, offer: Any, file: Path
) -> None:
    with web.serving_from_a_thread(answer(b"other data")) as other:
        offer(answer(status=301, headers={"Location": other.url, **checksums()}))
        with pytest.raises(WrongChecksum):
            download(server, file)
    assert left(file) == []


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/", "file:///etc/passwd"])
def test_external_data_that_cannot_be_had(
    server: web.Web, offer: Any, file: Path, location: str
) -> None:
    offer(answer(status=301, headers={"Location": location, **checksums()}))
    with pytest.raises(TransferFailed, match="kept outside the service"):
        download(server, file)
    assert left(file) == []


def test_an_answer_without_data_is_no_blob(server: web.Web, offer: Any, file: Path) -> None:
    offer(answer(status=204))
    with pytest.raises(TransferFailed, match="HTTP 204"):
        download(server, file)
    offer(answer(b"x", status=206))
    with pytest.raises(TransferFailed, match="which part"):
        download(server, file)


def test_what_cannot_be_written_again_is_written_once(server: web.Web, offer: Any) -> None:
    library = artifacts(server.url)

    def written(*each: Any) -> bytes:
        offer(*each)
        file = io.BytesIO()
        transfers.write(
            lambda start, etag: library.download("images", "the-id", "image", start, etag),
            file,
            verify=True,
            watch=lambda _done, _total: None,
        )
        return file.getvalue()

    assert written(blob()) == DATA
    assert written(blob(ends_after=HALF), blob()) == DATA
    with pytest.raises(TransferFailed, match="cannot continue"):
        written(blob(ends_after=HALF), blob(etag='"another"'))
    with pytest.raises(TransferFailed, match="broke off"):
        written(blob(etag=None, ends_after=HALF))


def test_a_device_is_written_to_as_it_is(server: web.Web, offer: Any) -> None:
    offer(blob())
    read, write = os.pipe()
    with os.fdopen(write), os.fdopen(read, "rb") as pipe:
        offer(blob(b"little"))
        download(server, Path(f"/proc/self/fd/{write}"))
        assert pipe.read(6) == b"little"
    assert not Path(f"/proc/self/fd/{write}.part").exists()


def uploaded(data: bytes = DATA) -> Any:
    """The answer to an upload: the artifact with this data."""
    stored = {"size": len(data), "status": "active", "sha256": hashlib.sha256(data).hexdigest()}
    return document({"image": stored, "folder": {"a/b": stored}})


def test_a_file_is_uploaded(server: web.Web, answers: Answers, file: Path) -> None:
    file.write_bytes(DATA)
    answers.by_request |= {f"PUT {PATH}/image": uploaded(), f"PUT {PATH}/folder/a/b": uploaded()}
    row = shown(server.url, "artifact upload", *ARGUMENTS, "--file", str(file))
    assert row["blob_property"] == "image"
    assert row["size"] == len(DATA)
    row = shown(
        server.url,
        *("artifact upload", "images", "the-id", "--id", "-p", "folder/a/b"),
        *("--file", str(file), "-C", "text/plain"),
    )
    assert row["blob_property"] == "folder/a/b"
    assert [one.headers["content-type"] for one in server.asked] == [
        "application/octet-stream",
        "text/plain",
    ]
    assert all(one.content == DATA for one in server.asked)


def test_what_is_stored_under_another_key_is_told(
    server: web.Web, answers: Answers, file: Path
) -> None:
    file.write_bytes(DATA)
    answers.by_request[f"PUT {PATH}/folder/a//b"] = uploaded()
    with pytest.raises(ArtifactError, match="no blob folder/a//b"):
        run(server.url, "artifact upload", *ARGUMENTS[:-1], "folder/a//b", "--file", str(file))


def test_damage_on_the_way_up_is_told(server: web.Web, answers: Answers, file: Path) -> None:
    file.write_bytes(b"sent")
    answers.by_request[f"PUT {PATH}/image"] = uploaded(b"stored")
    arguments = (*ARGUMENTS, "--file", str(file))
    with pytest.raises(WrongChecksum):
        run(server.url, "artifact upload", *arguments)
    # A type may store other bytes than it is sent.
    run(server.url, "artifact upload", *arguments, "--no-verify")


def test_a_file_that_shrinks_meanwhile_is_told(file: Path) -> None:
    file.write_bytes(DATA)
    with file.open("rb") as opened:
        outgoing = transfers.Outgoing(opened, lambda _done, _total: None)
        file.write_bytes(b"less")
        with pytest.raises(TransferFailed, match=f"4 of {len(DATA)} bytes"):
            list(outgoing)


def test_no_more_is_sent_than_was_announced(file: Path) -> None:
    file.write_bytes(DATA)
    with file.open("rb") as opened:
        opened.seek(HALF)
        outgoing = transfers.Outgoing(opened, lambda _done, _total: None)
        file.write_bytes(DATA + b"more")
        assert outgoing.len == len(DATA) - HALF
        assert b"".join(outgoing) == DATA[HALF:]


def test_a_connection_that_ends_meanwhile_is_told(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(100 << 20)

    def refuse() -> None:
        connection, _ = listening.accept()
        connection.recv(5 << 20)
        # At once, with data unread.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        refusing = threading.Thread(target=refuse)
        refusing.start()
        with pytest.raises(TransferFailed, match="ended the connection within"):
            run(url, "artifact upload", *ARGUMENTS, "--file", str(file))
        refusing.join()
    with pytest.raises(ConnectFailure, match="Unable to establish connection"):
        run(url, "artifact upload", *ARGUMENTS, "--file", str(file))


def test_there_is_something_to_send(server: web.Web, file: Path) -> None:
    with pytest.raises(BadArgument, match="cannot be read: No such file"):
        run(server.url, "artifact upload", *ARGUMENTS, "--file", str(file))
    assert server.asked == []


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ({"one": "Blob", "two": "Blob"}, "It has these: one, two"),
        ({"folder": "BlobDict"}, "It has none that is no folder"),
    ],
)
def test_the_blob_is_named_unless_there_is_only_one(
    server: web.Web, answers: Answers, file: Path, types: dict[str, str], words: str
) -> None:
    file.write_bytes(DATA)

    def schema(fields: dict[str, str]) -> dict[str, object]:
        properties = {name: {"glareType": kind} for name, kind in fields.items()}
        return {"schemas": {"images": {"properties": properties}}}

    answers.by_request["GET /schemas/images"] = schema(types)
    arguments = ("images", "the-id", "--id", "--file", str(file))
    with pytest.raises(BadArgument, match=words):
        run(server.url, "artifact upload", *arguments)
    answers.by_request |= {
        "GET /schemas/images": schema({"name": "String", "image": "Blob", "folder": "BlobDict"}),
        f"PUT {PATH}/image": uploaded(),
    }
    run(server.url, "artifact upload", *arguments)


def test_progress_is_shown_on_a_terminal() -> None:
    code = (
        "from diptych_artifactclient import progress\n"
        "with progress.bar(wanted=True) as watch:\n"
        "    for part in range(1, 5):\n"
        "        watch(part << 20, 4 << 20)\n"
        "with progress.bar(wanted=True) as watch:\n"
        "    watch(1536, None)\n"
        "with progress.bar(wanted=False) as watch:\n"
        "    watch(77, None)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    ours, terminal = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert f"[{'=' * 29}>] 100% of 4 MiB\r\n" in drawn
    assert "\r1.5 KiB\r\n" in drawn
    assert "77" not in drawn
    assert done.stdout == b""
    # Elsewhere it would be noise.
    silent = subprocess.run(command, capture_output=True, check=True)
    assert silent.stderr == b""


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 10, f"[>{' ' * 29}] 0% of 10 B"),
        (5, 10, f"[{'=' * 14}>{' ' * 15}] 50% of 10 B"),
        (11, 10, f"[{'=' * 29}>] 100% of 10 B"),
        (0, 0, "0 B"),
        (3 << 50, None, "3072 TiB"),
    ],
)
def test_a_bar(done: int, total: int | None, text: str) -> None:
    assert progress.line(done, total) == text
