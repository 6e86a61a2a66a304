"""The bytes that are sent around: random, so that nothing on the way can make them fewer."""

import functools
import random
from collections.abc import Iterator

BLOCK = 1024 * 1024
_DIFFERENT = 16


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes, always the same, in blocks of 1 MiB; 16 different ones in turn."""
    for start in range(0, size, BLOCK):
        block = _block(start // BLOCK % _DIFFERENT)
        yield block if size - start >= BLOCK else block[: size - start]


@functools.cache
def _block(number: int) -> bytes:
    return random.Random(number).randbytes(BLOCK)
