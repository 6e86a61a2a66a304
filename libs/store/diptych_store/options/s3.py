"""The options of the s3 store."""

from diptych_store.options.common import DriverOptions


class S3Options(DriverOptions):
    """Buckets of a server that speaks S3."""
