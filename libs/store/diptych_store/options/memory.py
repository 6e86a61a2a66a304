"""The options of the memory store: none."""

from diptych_store.options.common import DriverOptions


class MemoryOptions(DriverOptions):
    """Nothing to set."""
