"""The artifacts service's settings: its own groups, those it shares, and sections of types."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from diptych_common import delivery
from diptych_common import settings as common
from diptych_common.delivery import Delivery
from diptych_common.oslo_options import OSLO
from diptych_common.settings import (
    GROUP,
    Bytes,
    CommaList,
    Elsewhere,
    Loaded,
    Port,
    option,
)
from diptych_store.settings import (
    REPEATED,
    SECRETS,
    StoresConfig,
    StoreSettingsError,
    store_sections,
)
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)

LARGEST_INTEGER: Final = 2**63 - 1
"""What fits bigint, so that the database can keep and compare it."""

# -1: no limit.
Limit = Annotated[int, Field(ge=-1, le=LARGEST_INTEGER)]


class Default(common.ServiceDefault, frozen=True):
    """[DEFAULT]: the API itself."""

    bind_port: Port = option(9494, "Port to listen on.")
    enabled_backends: str | None = option(
        None,
        "Stores as name:type, separated by commas; each has a section of its name. Unset: one of"
        " each type, by [glance_store].",
    )
    enabled_artifact_types: CommaList = option(
        (
            "heat_templates",
            "heat_environments",
            "murano_packages",
            "tosca_templates",
            "images",
        ),
        "Types of artifacts that are served; the type `all`, which lists them together, always is."
        " An unknown one stops the service.",
    )
    custom_artifact_types_modules: CommaList = option(
        (), "Python modules that declare types, besides installed packages that do."
    )
    artifact_types_directory: str | None = option(
        None, "Folder with files that declare types. Not in Glare."
    )
    max_uploaded_data: Limit = option(
        -1,
        "Bytes that a project may have in blobs; -1: no limit.",
    )
    max_artifact_number: Limit = option(-1, "Artifacts that a project may have; -1: no limit.")
    upload_idle_timeout: float = option(
        60.0,
        "Seconds that an upload may send nothing; then it is answered 408 and undone. Not in"
        " Glare.",
        gt=0,
    )
    max_artifact_size: Bytes = option(
        1024 * 1024,
        "Bytes that one artifact's JSON may have, of name, description, tags and the fields of its"
        " type without blobs; 0: no limit. A page of a list may hold as much for each of its"
        " artifacts, so up to max_api_limit times as much. Not in Glare.",
    )
    delayed_delete: bool = option(
        False, "Keep artifacts that were deleted until `scrub_time` is over."
    )
    default_api_limit: int = option(25, "Items on a page where a client does not say.", ge=1)
    max_api_limit: int = option(1000, "Most items on a page.", ge=1)
    glare_publisher_id: str = option("artifact.localhost", "Who events say that they are from.")
    transport_url: str = option(
        "rabbit://",
        "RabbitMQ's URL: rabbit://user:password@host:port/virtual_host, or several user:password@"
        "host:port separated by commas, which are tried in turn. Without a host: guest on this"
        " host.",
        secret=True,
        expected="a rabbit:// URL",
    )
    control_exchange: str = option("glare", "Exchange that events are published on.")


class Scrubber(BaseModel):
    """[scrubber]: when artifacts whose deletion is delayed go for good."""

    model_config = GROUP

    scrub_time: int = option(0, "Seconds that they stay.", ge=0)
    wakeup_time: int = option(300, "Seconds between looks for such as are due.", ge=1)


_KEY_OF_SECRETS = re.compile(
    r"barbican:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|(?!barbican:)[A-Za-z0-9._-]{1,64}:[A-Za-z0-9+/]{43}="
)


def _are_keys_of_secrets(entries: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    texts = [entry.get_secret_value() for entry in entries]
    if not all(_KEY_OF_SECRETS.fullmatch(text) for text in texts):
        raise ValueError("not a key")
    # Those from Barbican are named by all of it, the others by what is before the colon.
    names = {text if text.startswith("barbican:") else text.partition(":")[0] for text in texts}
    if len(names) < len(texts):
        raise ValueError("two keys of one name")
    return entries


class Secrets(BaseModel):
    """[secrets]: the keys under which blobs of encrypted types are stored. Not in Glare."""

    model_config = GROUP

    keys: Annotated[
        tuple[SecretStr, ...],
        BeforeValidator(common.split_commas),
        AfterValidator(_are_keys_of_secrets),
    ] = option(
        (),
        "Wrapping keys: each as name:key, or as barbican:ID for one that Barbican has, the same for"
        " all processes. The first one wraps the keys of new blobs, any of them unwraps. Unset: a"
        " type whose blobs are encrypted cannot be enabled.",
        secret=True,
        expected="keys as `secrets key` prints them, or barbican: and the id of a secret, separated"
        " by commas, each once",
    )


class Metrics(common.Metrics):
    """[metrics]: Prometheus metrics, on a listener of their own."""

    # Not the images service's, so that both run on one host as they are.
    bind_port: Port = option(9495, "Port of the listener; 0 lets the system choose one.")


class PasteDeploy(BaseModel):
    """[paste_deploy]: where identities come from, by Glare's flavors."""

    model_config = GROUP

    flavor: Literal["keystone", "keycloak", "noauth", "trustedauth", "trusted", "none"] = option(
        "keystone",
        "`keystone`: tokens are validated by Keystone. `keycloak`: tokens of OpenID Connect are"
        " verified, see [keycloak_oidc]. `noauth`: a proxy in front tells who is asking by headers;"
        " `trustedauth`: it does so by a token user:project:roles. `trusted` and `none` as in the"
        " images service. Where Glare has none, and so trusts everyone, it is `keystone` here.",
    )


_ALGORITHM = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
_REALM = re.compile(r"[^:\s]{1,255}(:[^:\s]{1,255})?")


def _are_realms(items: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_REALM.fullmatch(item) for item in items):
        raise ValueError("not realms")
    return items


class KeycloakOidc(BaseModel):
    """[keycloak_oidc]: whose OpenID Connect tokens are taken, with paste_deploy flavor keycloak."""

    model_config = GROUP

    auth_url: str = option(
        "http://127.0.0.1:8080/auth",
        "Keycloak's address for this service, without /realms: its keys are fetched there.",
        pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$",
        expected="an http:// or https:// URL",
    )
    keycloak_iss: str | None = option(
        None,
        "Issuer that tokens name, with %s for the realm: Keycloak's address for users, where that"
        " is another one. Unset: auth_url and /realms/%s.",
    )
    public_cert_url: str = option(
        "/realms/%s/protocol/openid-connect/certs",
        "Where the keys of a realm are, below auth_url; %s is the realm.",
        pattern=r"^/[^\s]*$",
        expected="a path",
    )
    realms: Annotated[CommaList, AfterValidator(_are_realms)] = option(
        (),
        "Realms whose users are let in, each as realm:project with the id of the project that they"
        " act in, or as realm where the project has that name. Must be set.",
        expected="realm:project or realm, separated by commas",
    )
    admin_realms: CommaList = option(
        (),
        "Those of the realms whose users can be administrators of the whole service, as the rule"
        " context_is_admin says. In others who administers the realm could become that by giving"
        " out a role.",
    )
    audience: CommaList = option(
        (),
        "What tokens must be made for: one of these is to be in their `aud`. Must be set.",
    )
    algorithms: Annotated[tuple[_ALGORITHM, ...], BeforeValidator(common.split_commas)] = option(
        ("RS256",),
        "Algorithms that tokens may be signed with.",
        min_length=1,
        expected=f"some of {', '.join(get_args(_ALGORITHM))}, separated by commas",
    )
    keys_cache_time: float = option(
        600.0,
        "Seconds that a realm's keys are remembered. They are fetched anew from its half on, so"
        " that Keycloak may be away for the other half.",
        gt=0,
    )
    keys_refetch_interval: float = option(
        5.0,
        "Seconds between fetches of a realm's keys, whatever keys tokens name, and after one that"
        " failed.",
        ge=0,
    )
    timeout: float = option(10.0, "Seconds that a fetch of keys may take.", gt=0)
    cafile: str | None = option(
        None, "File with the authorities that Keycloak's certificate is checked against."
    )
    certfile: str | None = option(None, "Client certificate for Keycloak.")
    keyfile: str | None = option(None, "Key of the client certificate.")
    insecure: bool = option(False, "Do not check Keycloak's certificate.")


class ArtifactsSettings(common.ServiceSettings, frozen=True):
    """All that the artifacts service can be told."""

    default: Default = Default()
    paste_deploy: PasteDeploy = PasteDeploy()
    keycloak_oidc: KeycloakOidc = KeycloakOidc()
    metrics: Metrics = Metrics()
    scrubber: Scrubber = Scrubber()
    secrets: Secrets = Secrets()
    barbican: common.Barbican = common.Barbican()
    oslo_messaging_notifications: common.MessagingNotifications = common.MessagingNotifications()
    oslo_messaging_rabbit: common.MessagingRabbit = common.MessagingRabbit()

    def wants_event(self, event_type: str) -> bool:
        """Whether events of this type are told to anybody."""
        return self.oslo_messaging_notifications.driver != "noop"


TYPE_PREFIX: Final = "artifact_type:"

DATABASE_STORE: Final = "database"
"""The `default_store` of a type that keeps blobs in PostgreSQL."""


class TypeOptions(BaseModel):
    """[artifact_type:NAME]: what holds for one type, besides what holds for all."""

    model_config = GROUP

    max_uploaded_data: Limit = option(
        -1,
        "Bytes that a project may have in blobs of the type; -1: no limit.",
    )
    max_artifact_number: Limit = option(
        -1,
        "Artifacts of the type that a project may have; -1: no limit.",
    )
    delayed_delete: bool | None = option(
        None, "Keep those that were deleted for a while. Unset: as [DEFAULT] says."
    )
    default_store: str | None = option(
        None,
        "Store of the type's blobs, by name, or `database`. Unset: the service's default store.",
        expected="the name of a store, or database",
    )


SECTIONS_OF_TYPES: Final = {f"{TYPE_PREFIX}NAME": TypeOptions}

# Where artifacts go when nothing is said. Pool and container are Glare's; were any of these that of
# the images service, each would take the other's attempts for its own left-overs.
_PLACES: Final = {
    "filesystem_store_datadir": "/var/lib/diptych/artifacts",
    "rbd_store_pool": "artifacts",
    "swift_store_container": "glare",
}

# What Glare's files may hold that has no effect here, so that a file can be given as it is.
UNUSED: Final[common.Unused] = common.merged(
    OSLO,
    {
        "DEFAULT": {
            "digest_algorithm": "blobs have all three digests that the API shows",
            "public_endpoint": "links are paths",
        },
        "scrubber": {
            "scrub_pool_size": "bytes are removed by jobs, as many at a time as [jobs] concurrency",
            "daemon": "artifacts are scrubbed by a recurring job, or `scrub` once",
        },
        "keycloak_oidc": dict.fromkeys(
            ("user_info_endpoint_url", "memcached_server", "token_cache_time"),
            "tokens are verified here, by their signatures",
        ),
    },
)


def load(
    *,
    config_files: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded[ArtifactsSettings]:
    """Read the settings: see `diptych_common.settings.load_service`. Raises SettingsError."""
    return common.load_service(
        ArtifactsSettings,
        "artifacts",
        config_files=config_files,
        config_dirs=config_dirs,
        environ=environ,
        unused=UNUSED,
        read_elsewhere=Elsewhere(_other_sections, repeated=REPEATED, secret=SECRETS),
    )


def _other_sections(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    return store_sections(sections) | _type_sections(sections)


def _type_sections(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {name for name in sections if name.startswith(TYPE_PREFIX)}


def types(loaded: Loaded[ArtifactsSettings]) -> dict[str, TypeOptions]:
    """What the settings say of single types, by type. Raises SettingsError."""
    options = TypeOptions.model_fields
    found: dict[str, TypeOptions] = {}
    refused: list[tuple[str, str, str]] = []
    known = {None, DATABASE_STORE, *(store.name for store in stores(loaded).stores)}
    for section in sorted(_type_sections(loaded.sections)):
        texts = {
            name: text
            for name, text in loaded.sections[section].items()
            if name in options and text
        }
        try:
            of_type = TypeOptions.model_validate(texts)
        except ValidationError as error:
            wrong = [str(one["loc"][0]) for one in error.errors(include_url=False)]
        else:
            found[section.removeprefix(TYPE_PREFIX)] = of_type
            wrong = [] if of_type.default_store in known else ["default_store"]
        refused += [(section, name, common.expected(options[name])) for name in wrong]
    if refused:
        raise loaded.refusal(refused)
    return found


def stores(loaded: Loaded[ArtifactsSettings]) -> StoresConfig:
    """What the settings say of the stores. Raises SettingsError."""
    try:
        config = StoresConfig.from_sections(loaded.sections, defaults=_PLACES)
    except StoreSettingsError as error:
        raise loaded.refusal(
            (one.section, one.option, one.expected) for one in error.problems
        ) from error
    if any(one.name == DATABASE_STORE for one in config.every):
        expected = f"other names of stores: {DATABASE_STORE} is one that the service itself has"
        raise loaded.refusal([(*config.where_types_are, expected)])
    return config


def delivers(loaded: Loaded[ArtifactsSettings]) -> Delivery | None:
    """How events are delivered; None: there are none. Raises SettingsError."""
    settings = loaded.settings
    told = settings.oslo_messaging_notifications
    try:
        return delivery.configured(
            told,
            settings.oslo_messaging_rabbit,
            transport_url=settings.default.transport_url,
            exchange=settings.default.control_exchange,
            publisher_id=settings.default.glare_publisher_id,
        )
    except ValueError as error:
        section = "oslo_messaging_notifications" if told.transport_url else "DEFAULT"
        raise loaded.refusal([(section, "transport_url", str(error))]) from None


def with_leftovers(loaded: Loaded[ArtifactsSettings]) -> Loaded[ArtifactsSettings]:
    """The settings with what sections of stores and types have without effect.

    Raises SettingsError.
    """
    types(loaded)
    of_stores = ((one.section, one.option, one.reason) for one in stores(loaded).unused)
    of_types = (
        (section, name, None)
        for section in _type_sections(loaded.sections)
        for name in loaded.sections[section]
        if name not in TypeOptions.model_fields
    )
    return loaded.with_leftovers([*of_stores, *of_types])
