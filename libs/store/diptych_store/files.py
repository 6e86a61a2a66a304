"""Objects that are files of this host, for those who read them without this process."""

from pathlib import Path

from diptych_store.protocol import ByteRange, LocalPaths, Store


async def local_file(store: Store, location: str, *, size: int) -> Path | None:
    """The file of an object of `size` bytes; None where there is no such file to be told of.

    That is: the store has no files, the object has another size or none, or its path is not one
    that every program understands alike. Reads no byte. Raises as `Store.open`.
    """
    if not isinstance(store, LocalPaths) or size == 0:
        return None
    path = store.local_path(location)
    # Python keeps two slashes at the beginning, and `..`, which nginx refuses.
    if not path.is_absolute() or str(path).startswith("//") or ".." in path.parts:
        return None
    async with store.open(location, ByteRange(0, 0)) as reading:
        return path if reading.size == size else None
