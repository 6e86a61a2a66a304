"""The bytes that are sent around: random, so that nothing on the way can make them fewer."""

import random
from collections.abc import Iterator

BLOCK = 1024 * 1024
_DIFFERENT = 16


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes, always the same, in blocks of 1 MiB; 16 different ones in turn."""
    source = random.Random(1)
    different = [source.randbytes(BLOCK) for _ in range(_DIFFERENT)]
    for start in range(0, size, BLOCK):
        block = different[start // BLOCK % _DIFFERENT]
        yield block[: size - start]
