"""The options of the s3 store."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from diptych_store.options.common import DriverOptions, check_address

MIB = 1024 * 1024
# A name or an address, with a port and a path if need be; credentials have options of their own.
_HOST = r"^(https?://)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?(/[^\s@?#]*)?$"
_REGION = r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)?$"
# The labels of a host's name, as botocore wants them.
_NAME = re.compile(r"(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?")


def _address(value: str) -> str:
    host = re.sub(r"^https?://|[:/].*$", "", check_address(value))
    if not host.startswith("[") and _NAME.fullmatch(host) is None:
        raise ValueError("the name of a host")
    return value


Checksums = Literal["when_required", "when_supported"]


class S3Options(DriverOptions):
    """A bucket of a server that speaks S3.

    Source: glance_store 5.7, _drivers/s3.py, for names and defaults; the time-outs and retries are
    our own.
    """

    s3_store_host: Annotated[str, Field(pattern=_HOST), AfterValidator(_address)] = Field(
        description="The server: `https://s3.example.org`, a port if it has one. Without a scheme "
        "it is http. Locations name it: see there before it is changed."
    )
    s3_store_access_key: Annotated[SecretStr, Field(min_length=1)] = Field(
        description="The access key. No other source of credentials is looked at."
    )
    s3_store_secret_key: Annotated[SecretStr, Field(min_length=1)] = Field(
        description="The secret key."
    )
    s3_store_bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")] = Field(
        description="The bucket. Each store needs one of its own."
    )
    s3_store_create_bucket_on_put: bool = Field(
        default=False, description="Make the bucket when the first object is written."
    )
    s3_store_bucket_url_format: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Where the bucket stands in a URL: in the `path`, in the host name "
        "(`virtual`); `auto`: in the host name at AWS, else in the path.",
    )
    s3_store_region_name: Annotated[str, Field(pattern=_REGION)] = Field(
        default="",
        description="The region; empty: what a host name of AWS tells, else `us-east-1`.",
    )
    s3_store_cacert: str = Field(
        default="",
        description="A file with the certificates of authorities that sign the server's; empty: "
        "those that come with botocore.",
    )
    s3_store_large_object_size: Annotated[int, Field(ge=0)] = Field(
        default=100,
        description="Shown in MiB to those who may see details, and without effect: every object "
        "is uploaded in parts.",
    )
    s3_store_large_object_chunk_size: Annotated[int, Field(ge=5, le=5120)] = Field(
        default=10,
        description="MiB of a part where the size of the object is known, more if 10,000 of these "
        "are not enough.",
    )
    s3_store_thread_pools: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10,
        description="Parts in memory at a time, in each process, beside one of every upload.",
    )
    s3_store_enable_data_integrity_protection: bool = Field(
        default=False,
        description="Let the next two options count. Many servers other than AWS refuse what "
        "`when_supported` sends.",
    )
    s3_store_request_checksum_calculation: Checksums = Field(
        default="when_required",
        description="Send checksums of S3's newer kind: `when_required` or `when_supported`.",
    )
    s3_store_response_checksum_validation: Checksums = Field(
        default="when_required",
        description="Compare them in answers: `when_required` or `when_supported`.",
    )
    s3_store_connect_timeout: Annotated[float, Field(gt=0)] = Field(
        default=10, description="Seconds for a connection to be made."
    )
    s3_store_read_timeout: Annotated[float, Field(gt=0)] = Field(
        default=60, description="Seconds without a byte of an answer after which it is given up."
    )
    s3_store_retries: Annotated[int, Field(ge=0, le=20)] = Field(
        default=4,
        description="How often a request is repeated that was not answered, or with 5xx or "
        "SlowDown; a broken download is taken up again as often, counted from its last byte.",
    )

    def places(self) -> Mapping[str, str]:
        """See DriverOptions.places: server and bucket, by http or https."""
        host = re.sub(r"^https?://", "", self.s3_store_host).strip("/")
        authority, slash, path = host.partition("/")
        authority = re.sub(r":(80|443)$", "", authority.lower())
        return {f"{authority}{slash}{path}/{self.s3_store_bucket}": "s3_store_bucket"}

    def authorities(self) -> Mapping[str, str]:
        """See DriverOptions.authorities."""
        return {"s3_store_cacert": self.s3_store_cacert}

    def properties(self) -> Mapping[str, object]:
        """See DriverOptions.properties. Sizes are in bytes, as Glance shows them."""
        return {
            "s3_store_large_object_size": self.s3_store_large_object_size * MIB,
            "s3_store_large_object_chunk_size": self.s3_store_large_object_chunk_size * MIB,
            "s3_store_thread_pools": self.s3_store_thread_pools,
        }
