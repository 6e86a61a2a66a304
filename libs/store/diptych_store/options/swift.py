"""The options of the swift store."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from diptych_store.options.common import DriverOptions, check_address

MIB = 1024 * 1024


def _version(value: object) -> object:
    # What Glance accepted once: Keystone's v2 is gone, and its files were read as v3 already.
    return {"2": "3", "2.0": "3", "3.0": "3", "1.0": "1"}.get(str(value), value)


def _items(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _address(value: str) -> str:
    return check_address(value) if value else value


Url = Annotated[str, Field(pattern=r"^(https?://[^\s?#@]+)?$"), AfterValidator(_address)]


class SwiftOptions(DriverOptions):
    """Containers of OpenStack Swift."""

    UNUSED: ClassVar[Mapping[str, str]] = {
        "swift_store_use_trusts": "the service's own rights outlast a user's token",
        "swift_store_ssl_compression": "TLS is never compressed",
        "swift_buffer_on_upload": "segments are sent as they come",
        "swift_upload_buffer_dir": "segments are sent as they come",
        "swift_store_project_name": "an application credential is bound to its project",
        "swift_store_project_id": "an application credential is bound to its project",
    }

    swift_store_auth_address: Url = Field(
        default="", description="Keystone's address, or that of tempauth for version 1."
    )
    swift_store_auth_version: Annotated[Literal["1", "3"], BeforeValidator(_version)] = Field(
        default="3", description="3: Keystone; 1: tempauth, for trying things out."
    )
    swift_store_user: str = Field(
        default="", description="`project:user` of the service, both by name."
    )
    swift_store_key: SecretStr = Field(default=SecretStr(""), description="Its password.")
    swift_store_application_credential_id: str = Field(
        default="", description="Id of an application credential, instead of user and key."
    )
    swift_store_application_credential_secret: SecretStr = Field(
        default=SecretStr(""), description="Its secret."
    )
    swift_store_config_file: str = Field(
        default="",
        description="A file with credentials, one section for each reference, instead of user, "
        "key and address here.",
    )
    default_swift_reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = Field(
        default="ref1",
        description="The reference that new locations name, and whose credentials write. Give "
        "each store one of its own.",
    )
    swift_store_region: str = Field(default="", description="Region of the endpoint; empty: any.")
    swift_store_endpoint: Url = Field(
        default="", description="The storage URL, account included, instead of the catalog's."
    )
    swift_store_endpoint_type: Literal["publicURL", "internalURL", "adminURL"] = Field(
        default="publicURL", description="Which endpoint of the catalog."
    )
    swift_store_service_type: str = Field(
        default="object-store", description="Type of the service in the catalog."
    )
    swift_store_container: Annotated[str, Field(pattern=r"^[^/\s]{1,200}$")] = Field(
        default="glance", description="The container, or what the names of several begin with."
    )
    swift_store_multiple_containers_seed: Annotated[int, Field(ge=0, le=32)] = Field(
        default=0,
        description="Spread images over containers named after so many first characters of their "
        "ids; 0: one container.",
    )
    swift_store_create_container_on_put: bool = Field(
        default=False, description="Make a container that is missing."
    )
    swift_store_large_object_chunk_size: Annotated[int, Field(ge=1)] = Field(
        default=200, description="Size of a segment in MiB."
    )
    swift_store_large_object_size: Annotated[int, Field(ge=1)] = Field(
        default=5120, description="No effect: every object is a manifest with segments."
    )
    swift_store_multi_tenant: bool = Field(
        default=False, description="Keep images in the accounts of their projects."
    )
    swift_store_admin_tenants: Annotated[tuple[str, ...], BeforeValidator(_items)] = Field(
        default=(),
        description="Projects (ids) that may read and write all containers of a multi-tenant "
        "store; separated by commas.",
    )
    swift_store_retry_get_count: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="How often a download that broke off goes on where it did."
    )
    swift_store_expire_soon_interval: Annotated[int, Field(ge=0)] = Field(
        default=60, description="Seconds before a token's end at which a new one is asked for."
    )
    swift_store_cacert: str = Field(
        default="", description="File of CA certificates; empty: those that come with the client."
    )
    swift_store_auth_insecure: bool = Field(
        default=False, description="Do not check the servers' certificates."
    )
    swift_store_timeout: Annotated[float, Field(gt=0)] = Field(
        default=60, description="Seconds without a byte after which a call is given up."
    )
    swift_temp_url_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key of temporary URLs as it is set on the account; empty: it is looked up.",
    )

    @model_validator(mode="after")
    def _says_as_whom(self) -> Self:
        if self.swift_store_config_file:
            return self  # all of this is in there
        _need("swift_store_auth_address", self.swift_store_auth_address)
        id = self.swift_store_application_credential_id
        secret = self.swift_store_application_credential_secret.get_secret_value()
        if id or secret:
            _need("swift_store_application_credential_id", id)
            _need("swift_store_application_credential_secret", secret)
            return self
        _need("swift_store_user", self.swift_store_user)
        _need("swift_store_key", self.swift_store_key.get_secret_value())
        project, _, user = self.swift_store_user.partition(":")
        if self.swift_store_auth_version == "3" and not (project and user):
            _need("swift_store_user", "", "`project:user`")
        return self

    def authorities(self) -> Mapping[str, str]:
        """See DriverOptions.authorities."""
        return {
            "swift_store_cacert": "" if self.swift_store_auth_insecure else self.swift_store_cacert
        }

    def places(self) -> Mapping[str, str]:
        """See DriverOptions.places."""
        project = self.swift_store_user.partition(":")[0]
        account = (
            self.swift_store_endpoint
            or f"account of {project or self.swift_store_application_credential_id} "
            f"at {self.swift_store_auth_address.rstrip('/').removesuffix('/v3')}"
        )
        if self.swift_store_config_file:
            account = f"account of {self.default_swift_reference} in {self.swift_store_config_file}"
        return {f"container {self.swift_store_container}, {account}": "swift_store_container"}

    def properties(self) -> Mapping[str, object]:
        """See DriverOptions.properties. Sizes are in bytes, as Glance shows them."""
        return {
            "container": self.swift_store_container,
            "large_object_size": self.swift_store_large_object_size * MIB,
            "large_object_chunk_size": self.swift_store_large_object_chunk_size * MIB,
        }


def _need(option: str, value: str, expected: str = "a value") -> None:
    if not value:
        raise PydanticCustomError(
            "credentials", "{expected}", {"option": option, "expected": expected}
        )
