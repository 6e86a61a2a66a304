"""What can go wrong with a store; each service maps these to its own answers in one table.

    StoreError
    ├── NotFound       there is no such object
    ├── AlreadyThere   the key holds another attempt's object; it was not touched
    ├── AttemptLost    the place of this attempt is gone: somebody reaped it
    ├── Full           no room, or a quota of the backend
    ├── WriteDenied    the backend refuses to write (rights, read-only)
    ├── ReadDenied     the backend refuses to read
    ├── RangeOutside   the range begins beyond the end of the object
    ├── BadLocation    a location that this store cannot have made
    ├── InUse          the backend refuses to delete while something depends on the object
    ├── Unreachable    no answer, or a broken one; trying again may help
    ├── SizeMismatch       the stream is not as long as was announced
    └── SizeLimitExceeded  the stream is longer than the caller allows

The last two are about the bytes that come in, not about a backend; they stand here so that one
table serves a whole upload.
"""


class StoreError(Exception):
    """An error of a store. The message names the store and the key and never a credential."""


class NotFound(StoreError):
    """There is no such object."""


class AlreadyThere(StoreError):
    """The key holds another attempt's object; it was not touched."""


class AttemptLost(StoreError):
    """The place of this attempt is gone: somebody reaped it."""


class Full(StoreError):
    """No room, or a quota of the backend."""


class WriteDenied(StoreError):
    """The backend refuses to write."""


class ReadDenied(StoreError):
    """The backend refuses to read."""


class RangeOutside(StoreError):
    """The range begins beyond the end of the object; `size` is the object's, in bytes."""

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class BadLocation(StoreError):
    """A location that this store cannot have made."""


class InUse(StoreError):
    """The backend refuses to delete while something depends on the object."""


class Unreachable(StoreError):
    """No answer from the backend, or a broken one; trying again may help."""


class SizeMismatch(StoreError):
    """The stream is shorter or longer than was announced; nothing of it was kept."""


class SizeLimitExceeded(StoreError):
    """The stream is longer than `limit` bytes; nothing of it was kept."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit
