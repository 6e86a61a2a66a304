"""Bytes of blobs, up and down: in blocks, counted and digested on their way."""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import requests
from keystoneauth1.exceptions import ConnectFailure, HttpServerError, RequestedRangeNotSatisfiable

from diptych_artifactclient.errors import TransferFailed, WrongChecksum

# Of what is sent, and of what is received: a broken connection loses no more than that.
_SENT = 1 << 20
_BLOCK = 1 << 16
# How often it is tried again in a row without a byte more.
_TRIES = 5
_PAUSE_S = 0.5


class Digest(Protocol):
    """As hashlib makes them."""

    def update(self, data: bytes, /) -> None: ...  # noqa: D102

    def hexdigest(self) -> str: ...  # noqa: D102


# (bytes that are there, all that there will be or None if that isn't known)
Watch = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Checksum:
    """What the whole blob's bytes make, by one of hashlib's algorithms, in hex."""

    algorithm: str
    value: str


@dataclass(frozen=True)
class Content:
    """An answer with the bytes of a blob from `start` on.

    `size` is of the whole blob. An answer has an `etag` only if parts of the blob can be joined by
    it, and a `checksum` if the service knows one.
    """

    answer: requests.Response
    start: int
    size: int | None
    etag: str | None
    checksum: Checksum | None


def content(answer: requests.Response, checksum: Checksum | None = None) -> Content:
    """What the answer's head says of the bytes. Raises TransferFailed if it is no such answer."""
    headers = answer.headers
    etag = headers.get("ETag", "")
    start, size = 0, headers.get("Content-Length")
    if answer.status_code == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if told is None:
            raise TransferFailed(f"{answer.url} does not say which part of the blob it sends.")
        start, size = int(told[1]), told[2]
    elif answer.status_code != 200:
        raise TransferFailed(f"{answer.url} has no data to offer (HTTP {answer.status_code}).")
    return Content(
        answer,
        start,
        None if size is None else int(size),
        # RFC 9110, 13.1.5: a weak one says nothing of single bytes.
        etag if etag.startswith('"') else None,
        checksum or _checksum(answer),
    )


def elsewhere(answer: requests.Response, headers: dict[str, str], *, verify: Any) -> Content:
    """The bytes that an answer sends to for, asked for as by a stranger: without the user's token.

    Redirections are followed from there. Raises TransferFailed.
    """
    try:
        found = requests.get(
            answer.headers["Location"], headers=headers, stream=True, verify=verify, timeout=60
        )
        if found.status_code == 416:
            raise RequestedRangeNotSatisfiable
        found.raise_for_status()
    except requests.RequestException as error:
        raise TransferFailed(f"The blob is kept outside the service, and there: {error}") from error
    return content(found, _checksum(answer))


def _checksum(answer: requests.Response) -> Checksum | None:
    """The strongest that the service names; for external blobs it may name none, or nonsense."""
    named = {
        "sha256": "X-Openstack-Glare-Content-SHA256",
        "sha1": "X-Openstack-Glare-Content-SHA1",
        # In hex, as Glare has it, not as RFC 1864 has it.
        "md5": "Content-MD5",
    }
    for algorithm, header in named.items():
        value = answer.headers.get(header, "").lower()
        length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
        if re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
            return Checksum(algorithm, value)
    return None


class Outgoing:
    """Data to send: iterated over once, block by block.

    `len` is what requests takes for Content-Length; None sends data of unknown length. `sent` is
    how many bytes went, or are on their way, and `sha256` is of them.
    """

    def __init__(self, file: BinaryIO, watch: Watch) -> None:
        self.len = _length(file)
        self.sent = 0
        self.sha256 = hashlib.sha256()
        self._file = file
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(self._wanted()):
            self.sha256.update(block)
            self.sent += len(block)
            yield block
            self._watch(self.sent, self.len)
        if self.len is not None and self.sent < self.len:
            # The service would wait for the rest.
            raise TransferFailed(f"The file has become shorter: {self.sent} of {self.len} bytes.")

    def _wanted(self) -> int:
        return _SENT if self.len is None else min(_SENT, self.len - self.sent)


def _length(file: BinaryIO) -> int | None:
    """From where the file stands to its end; None for pipes and such."""
    status = os.fstat(file.fileno())
    return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None


Open = Callable[[int, str | None], Content]


def save(fetch: Open, path: Path, *, verify: bool, watch: Watch) -> None:
    """Write a blob to `path`, by way of `path.part`, going on from where an earlier try ended.

    `fetch(start, etag)` opens it. The part stays where the blob can be continued: `path.part.etag`
    says of which blob it is. Raises TransferFailed; WrongChecksum, with the part removed.
    """
    if path.exists() and not path.is_file():
        # A device or a pipe is not replaced by a file.
        with path.open("wb") as device:
            write(fetch, device, verify=verify, watch=watch)
        return
    part = path.with_name(f"{path.name}.part")
    note = path.with_name(f"{path.name}.part.etag")
    etag = note.read_text() if part.exists() and note.exists() else None
    try:
        with part.open("w+b" if etag is None else "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            _receive(fetch, _Received(file, note, etag, size), verify=verify, watch=watch)
    except WrongChecksum:
        part.unlink()
        note.unlink(missing_ok=True)
        raise
    except TransferFailed as error:
        if note.exists():
            raise TransferFailed(
                f"{error} What came is kept in {part}; the same command goes on from there."
            ) from error
        part.unlink()
        raise
    part.replace(path)
    note.unlink(missing_ok=True)


def write(fetch: Open, file: BinaryIO, *, verify: bool, watch: Watch) -> None:
    """Write a blob to what cannot be read, or written anew. Raises as `save`, after the bytes."""
    _receive(fetch, _Received(file, None), verify=verify, watch=watch)


@dataclass
class _Received:
    """What is there of a blob. With a `note`, which keeps the `etag`, it can be begun anew."""

    file: BinaryIO
    note: Path | None
    etag: str | None = None
    position: int = 0
    digest: Digest | None = None

    def join(self, got: Content) -> None:
        """Make the file one that the answer's bytes go on from."""
        if got.start != self.position:
            if self.note is None or got.start:
                raise TransferFailed("The download broke off, and the service cannot continue it.")
            self.file.seek(0)
            self.file.truncate()
            self.position, self.digest = 0, None
        self.etag = got.etag
        if self.note is not None:
            if got.etag is None:
                self.note.unlink(missing_ok=True)
            else:
                self.note.write_text(got.etag)
        if self.digest is None and got.checksum is not None:
            self.digest = hashlib.new(got.checksum.algorithm, usedforsecurity=False)
            if self.position:
                self.file.seek(0)
                while block := self.file.read(_SENT):
                    self.digest.update(block)

    def add(self, block: bytes) -> None:
        """Take the next bytes."""
        self.file.write(block)
        self.position += len(block)
        if self.digest is not None:
            self.digest.update(block)


def _receive(fetch: Open, received: _Received, *, verify: bool, watch: Watch) -> None:
    """Fetch what is missing. Where the connection breaks, it is tried again from there."""
    fruitless = 0
    was_opened = False
    while True:
        before = received.position
        try:
            got = _opened(fetch, received)
            was_opened = True
            with got.answer:
                received.join(got)
                for block in got.answer.iter_content(_BLOCK):
                    received.add(block)
                    watch(received.position, got.size)
            if got.size is not None and received.position != got.size:
                raise requests.ConnectionError(f"{received.position} of {got.size} bytes came")
            break
        except (requests.RequestException, ConnectFailure, HttpServerError) as error:
            if not was_opened:
                raise
            fruitless = 0 if received.position > before else fruitless + 1
            if received.etag is None or fruitless == _TRIES:
                raise TransferFailed(f"The download broke off: {error}.") from error
        time.sleep(_PAUSE_S * 2**fruitless)
    if verify and got.checksum is not None and received.digest is not None:
        compare(received.digest, got.checksum)


def _opened(fetch: Open, received: _Received) -> Content:
    try:
        return fetch(received.position, received.etag)
    except RequestedRangeNotSatisfiable:
        # What is there is all of the blob, or more: to see which, it is fetched from the beginning.
        return fetch(0, None)


def compare(digest: Digest, expected: Checksum) -> None:
    """Raise WrongChecksum unless the bytes are those that were expected."""
    if digest.hexdigest() != expected.value:
        raise WrongChecksum(
            f"The {expected.algorithm} of what came is {digest.hexdigest()}, not {expected.value}:"
            " it was damaged on its way, or where it was kept."
        )
