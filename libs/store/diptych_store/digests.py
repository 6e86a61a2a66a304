"""Which digests are taken of the bytes that pass."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from diptych_store.protocol import Block


class Hash(Protocol):
    """What is used of `hashlib`'s objects."""

    def update(self, data: Block, /) -> None:
        """Take in more bytes; lets other threads run meanwhile."""
        ...

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in lower-case hexadecimal."""
        ...


@dataclass(frozen=True, slots=True)
class Digests:
    """The names of the algorithms, as hashlib has them; a repeated name is computed once.

    Raises ValueError for a name that this Python does not have, or whose digest has no length of
    its own (SHAKE).
    """

    names: tuple[str, ...] = ("md5", "sha512")

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in hashlib.algorithms_available:
                raise ValueError(f"There is no digest algorithm {name}.")
            if hashlib.new(name, usedforsecurity=False).digest_size == 0:
                raise ValueError(f"The digest algorithm {name} has no length of its own.")

    def begin(self) -> dict[str, Hash]:
        """A fresh hash for each name."""
        # Not for security: a FIPS build refuses MD5 otherwise, and the API has to answer with it.
        return {name: hashlib.new(name, usedforsecurity=False) for name in self.names}
