"""Opening the bytes of an image: at the best of its locations that opens, or as a file."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from diptych_store.errors import BadLocation, RangeOutside, ReadDenied, StoreError, Unreachable
from diptych_store.errors import NotFound as NoObject
from diptych_store.files import local_file
from diptych_store.protocol import ByteRange, Reading, Store
from diptych_store.registry import Stores

from diptych_images.db.images import ImageRow, LocationRow

log = logging.getLogger(__name__)


async def first_that_opens(
    stack: AsyncExitStack,
    stores: Stores,
    row: ImageRow,
    asked: ByteRange,
    acting: Callable[[Store], Store],
    preferred: Sequence[str] = (),
) -> tuple[Store, Reading] | None:
    """The best location that opens, of preferred stores first; None if the bytes are nowhere.

    Raises the last error of a store that could not answer, for then the bytes may be there.
    """
    failure: StoreError | None = None
    for location in _best_first(stores, row, preferred):
        try:
            # By the URL where the store was renamed or is not configured any more.
            store = stores.by_location(location["url"], {"store": location["store"]})
            opening = acting(store).open(location["url"], asked)
            reading = await stack.enter_async_context(opening)
        except NoObject as error:
            log.error("Image %s is not in store %s: %s", row["id"], location["store"], error)
        except RangeOutside:
            # The range is within the image, so the object is not the image.
            failure = _damaged(row, location["store"])
        except (Unreachable, ReadDenied, BadLocation) as error:
            failure = error
            log.warning("Image %s did not open in %s: %s", row["id"], location["store"], error)
        else:
            if reading.size == row["size"]:
                return store, reading
            # Never bytes of another length than the image's: the client would take them for it.
            failure = _damaged(row, store.name)
    if failure is not None:
        raise failure
    return None


async def file_of(
    stores: Stores, row: ImageRow, size: int, preferred: Sequence[str] = ()
) -> tuple[Store, Path] | None:
    """The file that is the best location of an image; None where that is no file, or not whole.

    Asks no store but that one, so that what is not in a file costs nothing more to open.
    """
    best = _best_first(stores, row, preferred)[0]
    try:
        store = stores.by_location(best["url"], {"store": best["store"]})
        path = await local_file(store, best["url"], size=size)
    except StoreError:
        # Whoever opens it next says what the matter is, and tries other locations.
        return None
    return None if path is None else (store, path)


def _best_first(stores: Stores, row: ImageRow, preferred: Sequence[str]) -> list[LocationRow]:
    ranks = {name: rank for rank, name in enumerate(preferred)}
    by_weight = stores.in_read_order(row["locations"])
    return sorted(by_weight, key=lambda one: ranks.get(one["store"], len(ranks)))


def _damaged(row: ImageRow, store: str) -> StoreError:
    log.error("Image %s has a wrong size in store %s", row["id"], store)
    return Unreachable(f"Image {row['id']} is damaged in store {store}.")
