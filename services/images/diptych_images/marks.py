"""Whether all nodes have the same places behind their stores, found out when a process starts.

A directory that is each node's own, or is not mounted, looks like the shared one: images would be
found on the node that took them, and their bytes be forgotten by the others. So the first node that
starts notes the marks that it reads in a store, and one that reads others refuses to start.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from diptych_common.database import TROUBLE, Database
from diptych_common.logs import operator
from diptych_store.errors import StoreError
from diptych_store.protocol import Marks, Store
from diptych_store.registry import Stores
from diptych_store.settings import STAGING

from diptych_images.db import stores as marks_of_stores

log = logging.getLogger(__name__)

# Seconds that a start waits for a store or a database that does not answer, and then the pause
# between two tries while the service runs.
_PATIENCE_S = 10.0
_PAUSE_S = 30.0


class NotShared(ValueError):
    """This node has another place behind a store than the others; the message says what to do."""


@asynccontextmanager
async def compared(db: Database, stores: Stores) -> AsyncGenerator[None]:
    """Compare the marks of all stores with those noted; raises NotShared.

    What cannot be compared, because the store or the database does not answer, is compared while
    the context lasts: the service starts without either. If a store turns out then to be another
    one, this process is told to end, as by SIGTERM.
    """
    marked = [store for store in stores.every if isinstance(store, Marks)]
    tasks = [asyncio.create_task(_is_same(db, store)) for store in marked]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE_S)
        _refuse_others(tasks)
        for store, task in zip(marked, tuple(tasks), strict=True):
            if not task.done() or not task.result():
                log.warning("Store %s is compared with other nodes' later", store.name)
                tasks.append(asyncio.create_task(_compare_later(db, store, task)))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refuse_others(tasks: Iterable[asyncio.Task[bool]]) -> None:
    ended = (task.exception() for task in tasks if task.done())
    refusals = [str(error) for error in ended if isinstance(error, NotShared)]
    if refusals:
        # In words of its own: a server tells of a failed start with a traceback.
        for refusal in refusals:
            operator.error("%s", refusal)
        raise NotShared("\n".join(refusals))


async def adopt(db: Database, store: Store) -> bool:
    """Note the marks that this node reads, whatever was noted: the store has moved on purpose.

    False if the store has none. Raises StoreError and ServiceUnavailable.
    """
    marks = await store.marks() if isinstance(store, Marks) else frozenset[str]()
    if marks:
        async with db.write() as connection:
            await marks_of_stores.replace_marks(connection, store.name, marks, node=_node())
    return bool(marks)


async def _compare_later(db: Database, store: Store, first: asyncio.Task[bool]) -> bool:
    try:
        is_same = await first
        while not is_same:
            await asyncio.sleep(_PAUSE_S)
            is_same = await _is_same(db, store)
    except NotShared as refusal:
        operator.error("%s", refusal)
        signal.raise_signal(signal.SIGTERM)
        return False
    log.info("Store %s is the same as other nodes'", store.name)
    return True


async def _is_same(db: Database, store: Store) -> bool:
    """Whether the store's marks are those noted; False if that cannot be told. Raises NotShared."""
    try:
        marks = await store.marks() if isinstance(store, Marks) else frozenset[str]()
        if not marks:
            return True
        async with db.write() as connection:
            noted = await marks_of_stores.note_marks(connection, store.name, marks, node=_node())
    except (StoreError, *TROUBLE) as failure:
        log.warning("Store %s cannot be compared with other nodes': %s", store.name, failure)
        return False
    if marks <= {*noted["marks"]}:
        return True
    instead = (
        "to have staged data in the default store, configure none for them"
        if store.name == STAGING
        else "if each is to have its own, set filesystem_store_shared = false for the store"
    )
    raise NotShared(
        f"Store {store.name}: node {_node()} has another directory than the one that node"
        f" {noted['node']} noted on {noted['noted_at']:%Y-%m-%d %H:%M} UTC. Mount the same one on"
        f" all nodes; or, {instead}; or, if the directory was replaced on purpose, run"
        f" `diptych-images stores adopt {store.name}`."
    )


def _node() -> str:
    return socket.gethostname()
