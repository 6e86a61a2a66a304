"""The options of the rbd store."""

from diptych_store.options.common import DriverOptions


class RbdOptions(DriverOptions):
    """A pool of a Ceph cluster."""
