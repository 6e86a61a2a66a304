"""The options of the http store."""

from typing import ClassVar

from diptych_store.options.common import DriverOptions


class HttpOptions(DriverOptions):
    """Objects behind http and https URLs, to be read only."""

    NEVER_WRITES: ClassVar[bool] = True
