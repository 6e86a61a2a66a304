"""The options of the http store."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from diptych_store.options.common import DriverOptions


class HttpOptions(DriverOptions):
    """Objects behind http and https URLs, to be read only.

    Where requests may go is not the store's to say: that is `[outbound]` of the service.
    """

    NEVER_WRITES: ClassVar[bool] = True
    UNUSED: ClassVar[Mapping[str, str]] = {
        "https_insecure": "certificates are always checked; name a private authority's file in"
        " https_ca_certificates_file",
        "http_proxy_information": "a proxy looks names up by itself, and what was not looked up"
        " here cannot be vetted",
    }

    https_ca_certificates_file: str = Field(
        default="",
        description="File with the authorities that certificates are checked against. Empty: those"
        " of `[outbound] cafile`.",
    )

    def authorities(self) -> Mapping[str, str]:
        """See DriverOptions.authorities."""
        return {"https_ca_certificates_file": self.https_ca_certificates_file}
