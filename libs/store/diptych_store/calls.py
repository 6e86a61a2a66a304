"""What a driver tells of its calls to the backend: how long each took, and how it failed."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from diptych_store.errors import StoreError


class OnCall(Protocol):
    """Told of each call to a backend when it has ended."""

    def __call__(self, operation: str, seconds: float, error: StoreError | None, /) -> None:
        """Take note; `operation` is one of the driver's few names, `error` what the call raised.

        Called from the event loop or from a thread of the store's; must not block.
        """
        ...


def tell_nobody(operation: str, seconds: float, error: StoreError | None, /) -> None:
    """An OnCall for a store that nobody measures."""


@contextmanager
def told(on_call: OnCall, operation: str) -> Generator[None]:
    """Measure what is done in the context: one call to the backend, errors translated already."""
    begun = time.perf_counter()
    try:
        yield
    except StoreError as error:
        on_call(operation, time.perf_counter() - begun, error)
        raise
    on_call(operation, time.perf_counter() - begun, None)
