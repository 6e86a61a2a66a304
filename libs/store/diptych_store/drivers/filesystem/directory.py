"""One directory of a store: where its files are, and what is done to their names.

Every method is for a thread of the store's, and raises OSError where it says nothing else.
"""

import contextlib
import logging
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from diptych_store.drivers.filesystem.files import is_owned, is_same, sync_directory
from diptych_store.errors import AlreadyThere, AttemptLost, BadLocation, NotFound, Unreachable
from diptych_store.locations import attempt_name, attempt_named, check_key
from diptych_store.protocol import Attempt

log = logging.getLogger(__name__)

_ATTEMPTS = ".attempts"
_MARK = ".mark"


class Directory:
    """`<path>/<key>` are objects, `<path>/.attempts/<token>.<key>` are to be some.

    `store` is the name of the store, for messages.
    """

    def __init__(self, path: str, *, priority: int, store: str, read_only: bool) -> None:
        self.path = path
        self.priority = priority
        self._store = store
        self._read_only = read_only
        self._attempts = f"{path}/{_ATTEMPTS}"

    def file(self, key: str) -> str:
        """The path of an object; raises BadLocation. Asks nobody."""
        return f"{self.path}/{check_key(key)}"

    def place(self, attempt: Attempt) -> str:
        """The path of an attempt's file; raises BadLocation. Asks nobody."""
        return f"{self._attempts}/{attempt_name(attempt)}"

    def prepare(self, *, file_mode: int) -> None:
        """Make the directory where it is missing and try what is needed; raises Unreachable.

        Where new files have rights for the group or for others, these get the right to pass.
        """
        if self._read_only:
            if not Path(self.path).is_dir():
                raise Unreachable(f"Store {self._store}: there is no directory {self.path}.")
            return
        Path(self._attempts).mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(self.path)
        self._let_pass(file_mode)
        self._try_link()

    def check_mounted(self) -> None:
        """Raise Unreachable rather than call an object missing because its disk is.

        A file system that is not mounted looks like an empty directory. An object that is taken
        for missing would be answered as `no data`, or its row be dropped and its bytes forgotten.
        """
        if not Path(self.path if self._read_only else self._attempts).is_dir():
            raise Unreachable(f"Store {self._store}: its directory is gone; is it mounted?")

    def room(self) -> int:
        """The bytes that an unprivileged user may still write."""
        about = os.statvfs(self.path)
        return about.f_bavail * about.f_frsize

    def has(self, key: str) -> bool:
        """Whether an object of the key is there; raises Unreachable."""
        return self._is_there(self.file(key))

    def has_begun(self, attempt: Attempt) -> bool:
        """Whether the attempt's file is there; raises Unreachable."""
        return self._is_there(self.place(attempt))

    def link(self, attempt: Attempt) -> None:
        """Make the attempt's file the object of its key: atomic, durable, never over another.

        The attempt's own name stays until `forget`. Raises AlreadyThere, AttemptLost, Unreachable.
        """
        place, final = self.place(attempt), self.file(attempt.key)
        try:
            os.link(place, final, follow_symlinks=False)
        except FileExistsError:
            # Over NFS a link that was made may be answered so when the request had to be repeated.
            if not is_same(place, final):
                raise AlreadyThere(
                    f"Store {self._store} already holds an object {attempt.key}."
                ) from None
        except FileNotFoundError:
            self.check_mounted()
            raise AttemptLost(
                f"Store {self._store}: the attempt at writing {attempt.key} was discarded."
            ) from None
        sync_directory(self.path)

    def unlink(self, attempt: Attempt) -> None:
        """Take back what `link` did."""
        if is_same(self.place(attempt), self.file(attempt.key)):
            _remove(self.file(attempt.key))
            sync_directory(self.path)

    def forget(self, attempt: Attempt) -> None:
        """Remove the attempt's own name after `link`."""
        _remove(self.place(attempt))

    def discard(self, attempt: Attempt) -> None:
        """Remove the attempt's own name, durably: a `link` that comes later fails."""
        try:
            os.unlink(self.place(attempt))  # noqa: PTH108 - beside os.link
        except FileNotFoundError:
            self.check_mounted()
        sync_directory(self._attempts)

    def discard_object(self, attempt: Attempt) -> None:
        """Remove the object of the key unless it is known to be another attempt's."""
        final = self.file(attempt.key)
        if is_owned(final, attempt.token):
            _remove(final)
            sync_directory(self.path)

    def delete(self, key: str) -> None:
        """Delete an object; raises NotFound, BadLocation, Unreachable."""
        try:
            os.unlink(self.file(key))  # noqa: PTH108 - beside os.link
        except FileNotFoundError:
            self.check_mounted()
            raise NotFound(f"Store {self._store} has no object {key}.") from None
        except IsADirectoryError:
            raise BadLocation(f"Store {self._store}: {key} is not a file.") from None
        sync_directory(self.path)

    def begun(self, *, before: float) -> Iterator[Attempt]:
        """The attempts that were last written to before that time of the epoch."""
        if self._read_only:
            return
        with os.scandir(self._attempts) as entries:
            for entry in entries:
                # The one is not ours, the other was published or discarded a moment ago.
                with contextlib.suppress(BadLocation, FileNotFoundError):
                    attempt = attempt_named(entry.name)
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        yield attempt

    def mark(self) -> str | None:
        """The id in the directory, made where there is none; a read-only store makes none."""
        self.check_mounted()
        if not self._read_only and not os.path.lexists(f"{self.path}/{_MARK}"):
            self._make_mark()
        with contextlib.suppress(FileNotFoundError):
            return Path(f"{self.path}/{_MARK}").read_text(encoding="utf-8").strip()
        return None

    def _make_mark(self) -> None:
        # Written whole under another name, one that a sweep removes if this process dies: of many
        # who come at once one makes the mark, and nobody reads half of it.
        place = f"{self._attempts}/{uuid.uuid4()}{_MARK}"
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{uuid.uuid4()}\n".encode())
            os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(place, f"{self.path}/{_MARK}", follow_symlinks=False)
        finally:
            os.close(descriptor)
            os.unlink(place)  # noqa: PTH108 - beside os.link
        sync_directory(self.path)

    def _is_there(self, path: str) -> bool:
        if os.path.lexists(path):
            return True
        self.check_mounted()
        return False

    def _let_pass(self, file_mode: int) -> None:
        # Source: glance_store 5.7, _drivers/filesystem.py `_set_exec_permission`.
        passing = (stat.S_IXGRP if file_mode & stat.S_IRWXG else 0) | (
            stat.S_IXOTH if file_mode & stat.S_IRWXO else 0
        )
        mode = stat.S_IMODE(Path(self.path).stat().st_mode)
        if file_mode > 0 and mode | passing != mode:
            try:
                Path(self.path).chmod(mode | passing)
            except PermissionError:
                log.warning(
                    "Store %s: %s cannot be opened to those who may read its files",
                    self._store,
                    self.path,
                )

    def _try_link(self) -> None:
        """Refuse at the start what would fail at the end of the first upload."""
        place = f"{self._attempts}/{uuid.uuid4()}.probe"
        with open(place, "xb"):  # noqa: PTH123 - an exclusive, empty file
            pass
        try:
            os.link(place, f"{place}.link")
            os.unlink(f"{place}.link")  # noqa: PTH108 - beside its os.link
        except OSError as error:
            raise Unreachable(
                f"Store {self._store}: the file system of {self.path} has no hard links "
                f"({error.strerror})."
            ) from error
        finally:
            os.unlink(place)  # noqa: PTH108 - beside its os.link


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - beside os.link
