import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.drivers.memory import MemoryStore
from diptych_store.errors import RangeOutside, StoreError
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import WHOLE, ByteRange
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.conformance import get, put, some_bytes

SIZES = st.integers(0, 9000)
RANGES = st.builds(ByteRange, st.integers(0, 10_000), st.none() | st.integers(0, 10_000))


@given(size=SIZES, range=RANGES)
def test_a_range_is_a_slice_or_outside(size: int, range: ByteRange):
    data = bytes(size)
    end = None if range.length is None else range.start + range.length
    if range.start < size or (size == 0 and range == WHOLE):
        assert range.length_within(size) == len(data[range.start : end])
    else:
        with pytest.raises(RangeOutside) as raised:
            range.length_within(size)
        assert raised.value.size == size


@given(size=SIZES, range=RANGES)
@settings(max_examples=60, deadline=None)
async def test_every_driver_reads_the_same_part(
    size: int, range: ByteRange, tmp_path_factory: pytest.TempPathFactory
):
    """With blocks smaller than the object, so that the ends of blocks and ranges meet."""
    data = some_bytes(size)
    directory = await FilesystemStore.open_directory(
        "here",
        FilesystemOptions(
            filesystem_store_datadir=str(tmp_path_factory.mktemp("images")),
            filesystem_store_chunk_size=4096,
        ),
    )
    outcomes: list[bytes | type[StoreError]] = []
    for store in (MemoryStore("here"), directory):
        location = await put(store, data)
        try:
            outcomes.append(await get(store, location, range))
        except RangeOutside as error:
            outcomes.append(type(error))
        await store.delete(location)
        await store.aclose()
    end = None if range.length is None else range.start + range.length
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] in (data[range.start : end], RangeOutside)


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1), (-5, 3)])
def test_a_range_is_not_negative(start: int, length: int | None):
    with pytest.raises(ValueError, match="negative"):
        ByteRange(start, length)
