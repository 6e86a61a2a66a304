"""The options of the swift store."""

from diptych_store.options.common import DriverOptions


class SwiftOptions(DriverOptions):
    """Containers of OpenStack Swift."""
