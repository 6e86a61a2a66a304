"""The images service's settings: its own groups, those it shares, and what of Glance it ignores."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

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
    PortList,
    Unsupported,
    option,
)
from diptych_store.settings import (
    REPEATED,
    SECRETS,
    StoresConfig,
    StoreSettingsError,
    store_sections,
)
from pydantic import AfterValidator, BaseModel, BeforeValidator


def _without_brackets(value: object) -> object:
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return value[1:-1]
    return value


_QUOTED = re.compile(r"(['\"]).*\1")


def _without_quotes(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item[1:-1] if _QUOTED.fullmatch(item) else item for item in items)


# As Glance has some of its lists: in brackets, perhaps with quoted items; neither counts.
_BracketedList = Annotated[
    CommaList, AfterValidator(_without_quotes), BeforeValidator(_without_brackets)
]
_BracketedPorts = Annotated[PortList, BeforeValidator(_without_brackets)]

PLUGINS: Final = ("no_op", "inject_image_metadata", "image_decompression", "image_conversion")

HashAlgorithm = Literal["sha512", "sha384", "sha256", "sha1"]

_LONGEST_PROPERTY_NAME = 255


def _known_plugins(names: tuple[str, ...]) -> tuple[str, ...]:
    if not set(names) <= set(PLUGINS):
        raise ValueError("unknown plug-ins")
    return names


def _pairs(items: tuple[str, ...]) -> tuple[str, ...]:
    for name, colon, _ in (item.partition(":") for item in items):
        if not colon or not 0 < len(name.strip()) <= _LONGEST_PROPERTY_NAME:
            raise ValueError("not pairs")
    return items


class Default(common.ServiceDefault, frozen=True):
    """[DEFAULT]: the API itself, and its limits."""

    bind_port: Port = option(9292, "Port to listen on.")
    public_endpoint: str | None = option(
        None,
        "The service's public address for version documents. Unset: what the client asked for.",
    )
    enabled_backends: str | None = option(
        None,
        "Stores as name:type, separated by commas; each has a section of its name. Unset: one of"
        " each type, by [glance_store].",
    )
    enabled_import_methods: Annotated[CommaList, BeforeValidator(_without_brackets)] = option(
        ("glance-direct", "web-download", "copy-image"),
        "Ways besides a plain upload for data to get into an image. Brackets around the list, as"
        " Glance wants them, do not count. glance-download and swift-local, which act with users'"
        " tokens, need [jobs] secret_keys; names of others have no effect.",
    )
    hashing_algorithm: HashAlgorithm = option(
        "sha512",
        "Digest of images, besides MD5, where their creation chooses no os_hash_algo of these.",
    )
    image_size_cap: Bytes = option(1 << 40, "Largest image, in bytes.")
    image_member_quota: int = option(128, "Members of an image; negative: no limit.")
    image_property_quota: int = option(128, "Properties of an image; negative: no limit.")
    image_location_quota: int = option(
        10, "Locations of an image, its copies in stores included; negative: no limit."
    )
    image_tag_quota: int = option(128, "Tags of an image; negative: no limit.")
    property_protection_file: str | None = option(
        None,
        "File that says who may create, read, update and delete which custom properties. Unset:"
        " whoever may do so with the image.",
    )
    property_protection_rule_format: Literal["roles", "policies"] = option(
        "roles", "Whether that file names roles or rules of the policy."
    )
    image_schema_file: str | None = option(
        None,
        "File that declares properties beyond the base ones, in JSON; not in Glance. Unset:"
        " schema-image.json beside the configuration files, and without one what Glance's own"
        " declares.",
    )
    user_storage_quota: Bytes = option(
        0, "Bytes that the images of a project may have in all stores together; 0: no limit."
    )
    use_keystone_limits: bool = option(
        False, "Have Keystone's unified limits count, and user_storage_quota not."
    )
    limit_param_default: int = option(25, "Items on a page where a client does not say.", ge=1)
    api_limit_max: int = option(1000, "Most items on a page.", ge=1)
    node_staging_uri: str | None = option(
        None,
        "Directory where data wait to be imported, as file:// and its path, for a service without"
        " enabled_backends; all nodes have to mount it. Unset: what [os_glance_staging_store] says,"
        " or else the default store has them, whereas Glance has a directory of each node.",
    )
    image_cache_dir: str | None = option(
        None,
        "Directory of this node, shared by its processes, for blocks of images that were downloaded"
        " from stores. Unset: there is no cache.",
    )
    image_cache_max_size: Bytes = option(
        10 << 30, "Most that the cache takes of its disk at any time, in bytes."
    )
    image_cache_block_size: Bytes = option(
        8 << 20,
        "Bytes of a block; what was cached in others goes. Not in Glance.",
        ge=1 << 16,
    )
    image_cache_stall_time: int = option(
        86400, "Seconds after which an image that is cached in part, and does not grow, goes.", ge=0
    )
    image_cache_tidy_interval: float = option(
        60.0,
        "Seconds between two looks for what has to leave the cache: images that were deleted, and"
        " what died. Not in Glance.",
        gt=0,
    )
    cache_prefetcher_interval: float = option(
        300.0,
        "Seconds after which what is queued for the cache and could not be fetched is tried again.",
        gt=0,
    )
    worker_self_reference_url: str | None = option(
        None,
        "URL of this node, told to those who ask which nodes have cached an image. Unset: http, the"
        " host's name and bind_port.",
    )
    delayed_delete: bool = option(
        False,
        "Keep the bytes of deleted images for scrub_time; until it is over `restore IMAGE` brings"
        " them back.",
    )
    scrub_time: int = option(
        0, "Seconds from the deletion of an image to that of its bytes, with delayed_delete.", ge=0
    )
    queued_time_to_live: int = option(
        0,
        "Hours after which an image that has no data and was not changed is deleted, a protected"
        " one too; 0: never. Not in Glance.",
        ge=0,
    )
    show_image_direct_url: bool = option(
        False, "Show direct_url: where the bytes are. Tells every reader about the stores."
    )
    show_multiple_locations: bool = option(
        False,
        "Show locations: where each copy of the bytes is, and let PATCH change them: users those on"
        " the web, administrators and other services any. Tells every reader about the stores, so"
        " not for a service that users reach.",
    )
    do_secure_hash: bool = option(
        True,
        "Take the digest of what is at a registered location, in the background; an image whose"
        " digest was told becomes active when it is found right. Without it, what is told is"
        " taken for true.",
    )
    http_retries: int = option(
        3, "How often a location that does not answer is tried again for its digest.", ge=0
    )
    transport_url: str = option(
        "rabbit://",
        "RabbitMQ's URL: rabbit://user:password@host:port/virtual_host, or several user:password@"
        "host:port separated by commas, which are tried in turn. Without a host: guest on this"
        " host.",
        secret=True,
        expected="a rabbit:// URL",
    )
    control_exchange: str = option("glance", "RabbitMQ's exchange that events are sent to.")
    default_publisher_id: str = option("image.localhost", "Whom events are said to come from.")
    disabled_notifications: CommaList = option(
        (), "Types of events that are not sent, e.g. image.send, and groups of them: image, task."
    )


class ImageFormat(BaseModel):
    """[image_format]: formats that images may declare, and how the bytes are held against that."""

    model_config = GROUP

    container_formats: CommaList = option(
        ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"),
        "Values of container_format.",
        former=("DEFAULT.container_formats",),
    )
    disk_formats: CommaList = option(
        ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"),
        "Values of disk_format.",
        former=("DEFAULT.disk_formats",),
    )
    vmdk_allowed_types: CommaList = option(
        ("streamOptimized", "monolithicSparse"),
        "VMDK subformats; others may name files of the host. Empty: none.",
    )
    require_image_format_match: bool = option(
        True, "Refuse data whose format is not the declared one."
    )
    gpt_safety_checks_nonfatal: CommaList = option(
        (), "Safety checks of GPT images, by name, whose failure is only logged."
    )


class CreateLimit(BaseModel):
    """[create_limit]: how fast a project may create images. Not in Glance."""

    model_config = GROUP

    per_minute: float = option(
        0.0,
        "Images, by POST /v2/images or an import task, that a project may create in a minute, after"
        " which it gets 429; 0: any. Each process counts for itself, so that a project gets at most"
        " as many times that as there are processes, on all hosts.",
        ge=0,
    )
    burst: int = option(
        20, "Images that a project which created none for a while may create at once.", ge=1
    )


class ImportFilteringOpts(BaseModel):
    """[import_filtering_opts]: which URLs imports may open, redirects too, besides [outbound]."""

    model_config = GROUP

    allowed_schemes: _BracketedList = option(("http", "https"), "Schemes that may be opened.")
    disallowed_schemes: _BracketedList = option(
        (), "Schemes that may not be opened; counts while allowed_schemes is empty."
    )
    allowed_hosts: _BracketedList = option(
        (), "Hosts that may be asked, exactly as in URLs. Empty: all but disallowed_hosts."
    )
    disallowed_hosts: _BracketedList = option(
        (), "Hosts that may not be asked; counts while allowed_hosts is empty."
    )
    allowed_ports: _BracketedPorts = option(
        (80, 443),
        "Ports that a URL may name; one that names none passes. Other ports have to be allowed in"
        " [outbound] as well.",
        expected="port numbers separated by commas",
    )
    disallowed_ports: _BracketedPorts = option(
        (),
        "Ports that a URL may not name; counts while allowed_ports is empty.",
        expected="port numbers separated by commas",
    )


class ImportSources(BaseModel):
    """[import_sources]: the downloads of web-download, glance-download and swift-local."""

    model_config = GROUP

    timeout: float = option(
        86400.0,
        "Seconds after which a download is given up, pauses and resumed parts included; 0: never.",
        ge=0,
    )


class GlanceDownloadProperties(BaseModel):
    """[glance_download_properties]: what glance-download copies besides the data."""

    model_config = GROUP

    extra_properties: _BracketedList = option(
        ("hw_", "trait:", "os_distro", "os_secure_boot", "os_type"),
        "Beginnings of the names of properties that are copied. Those that begin with os_glance"
        " never are.",
    )


class ImageImportOpts(BaseModel):
    """[image_import_opts]: what happens to the data of imported images on its way in."""

    model_config = GROUP

    image_import_plugins: Annotated[_BracketedList, AfterValidator(_known_plugins)] = option(
        (),
        "Plug-ins that imported images go through, in this order; images that are copied do not.",
        expected=f"a list separated by commas, of {', '.join(PLUGINS)}",
    )


class ImageConversion(BaseModel):
    """[image_conversion]: the plug-in image_conversion, and the limits that qemu-img has in it.

    All but output_format are not in Glance.
    """

    model_config = GROUP

    output_format: Literal["raw", "qcow2", "vmdk"] = option(
        "raw", "Format that images are converted to, save ISO images, which stay as they are."
    )
    memory_limit: Bytes = option(1 << 30, "Address space of qemu-img, in bytes.")
    cpu_limit: int = option(7200, "Seconds of processor time of a conversion.", ge=1)
    time_limit: float = option(14400.0, "Seconds after which a conversion is given up.", gt=0)
    output_limit: Bytes | None = option(
        None, "Largest result, in bytes; for raw, the image's virtual size. Unset: image_size_cap."
    )


class ImageDecompression(BaseModel):
    """[image_decompression]: the plug-in image_decompression. Not in Glance."""

    model_config = GROUP

    max_ratio: int = option(
        250,
        "How many times as large as its source a result may be. Results of up to 64 MiB may always"
        " be.",
        ge=1,
    )


class InjectMetadataProperties(BaseModel):
    """[inject_metadata_properties]: the plug-in inject_image_metadata."""

    model_config = GROUP

    ignore_user_roles: _BracketedList = option(("admin",), "Roles whose imports get no properties.")
    inject: Annotated[CommaList, AfterValidator(_pairs)] = option(
        (),
        "Properties that imported images get, instead of theirs of the same names.",
        expected="name:value pairs separated by commas, with names of up to 255 characters",
    )


class Task(BaseModel):
    """[task]: what runs in the background."""

    model_config = GROUP

    work_dir: str | None = option(
        None,
        "Folder for the files of plug-ins, with room for as many images as are imported at a time,"
        " twice. Several processes and hosts may have the same. Unset: /var/tmp.",
    )
    task_time_to_live: int = option(
        48,
        "Hours for which a task is shown after its end.",
        ge=0,
        former=("DEFAULT.task_time_to_live",),
    )


class ImagesSettings(common.ServiceSettings, frozen=True):
    """All that the images service can be told."""

    default: Default = Default()
    paste_deploy: common.PasteDeploy = common.PasteDeploy()
    image_format: ImageFormat = ImageFormat()
    create_limit: CreateLimit = CreateLimit()
    import_filtering_opts: ImportFilteringOpts = ImportFilteringOpts()
    import_sources: ImportSources = ImportSources()
    glance_download_properties: GlanceDownloadProperties = GlanceDownloadProperties()
    image_import_opts: ImageImportOpts = ImageImportOpts()
    image_conversion: ImageConversion = ImageConversion()
    image_decompression: ImageDecompression = ImageDecompression()
    inject_metadata_properties: InjectMetadataProperties = InjectMetadataProperties()
    task: Task = Task()
    barbican: common.Barbican = common.Barbican()
    oslo_limit: common.OsloLimit = common.OsloLimit()
    oslo_messaging_notifications: common.MessagingNotifications = common.MessagingNotifications()
    oslo_messaging_rabbit: common.MessagingRabbit = common.MessagingRabbit()

    def wants_event(self, event_type: str) -> bool:
        """Whether events of this type are told to anybody.

        Source: Glance 33.0, notifier.py `_is_notification_enabled`.
        """
        return self.oslo_messaging_notifications.driver != "noop" and not any(
            event_type == disabled or event_type.startswith(f"{disabled}.")
            for disabled in self.default.disabled_notifications
        )

    @property
    def import_methods(self) -> tuple[str, ...]:
        """The import methods that are enabled and can work, in the order of the settings.

        Clients that are told of a method use it, so none is told of one that would fail. Names that
        are not known are left out as well: Glance takes any, and its files are to be taken as they
        are.
        """
        has_keys = bool(self.jobs.secret_keys)
        return tuple(
            name
            for name in dict.fromkeys(self.default.enabled_import_methods)
            if name in IMPORT_METHODS and (has_keys or name not in ACT_FOR_USERS)
        )


IMPORT_METHODS: Final = frozenset(
    {"glance-direct", "web-download", "copy-image", "glance-download", "swift-local"}
)

ACT_FOR_USERS: Final = frozenset({"glance-download", "swift-local"})
"""The import methods whose job needs the caller's token."""

_REGISTRY = "there is no registry"
_JUST_IN_TIME = "a certificate is read while the user's token is valid"
_BARBICAN = "certificates are read from Barbican, see [barbican]"
_JOBS = "jobs are run from the database"

# What Glance's files may hold that has no effect here, so that a file can be given as it is.
UNUSED: Final[common.Unused] = common.merged(
    OSLO,
    {
        "DEFAULT": {
            "image_cache_driver": "the cache's directory says itself what is in it",
            "image_cache_sqlite_db": "the cache's directory says itself what is in it",
            "scrub_pool_size": "bytes are removed by jobs, as many at a time as [jobs] concurrency",
            "wakeup_time": "an image is scrubbed when its scrub_time is over",
            "daemon": "images are scrubbed by jobs, or `scrub` once",
            "restore": "see the command restore",
            "metadata_encryption_key": "location URLs are stored without credentials",
            "digest_algorithm": "signatures name their own hash",
            "allow_additional_image_properties": Unsupported(
                "custom properties are always allowed", harmless=("true",)
            ),
            "enable_v1_api": Unsupported("version 1 is gone", harmless=("false",)),
            "enable_v2_api": Unsupported("version 2 is what is served", harmless=("true",)),
            **dict.fromkeys(
                (
                    *("enable_v1_registry", "enable_v2_registry", "registry_host"),
                    *("registry_port", "data_api"),
                ),
                _REGISTRY,
            ),
            "owner_is_tenant": Unsupported("images belong to projects", harmless=("true",)),
            "admin_role": Unsupported(
                "the rule context_is_admin says who is an administrator", harmless=("admin",)
            ),
            "location_strategy": Unsupported(
                "stores are ordered by weight", harmless=("location_order",)
            ),
        },
        "cinder": {"*": "there are no stores of type cinder here"},
        "os_brick": {"*": "there are no stores of type cinder here"},
        "barbican": {
            "auth_endpoint": "Keystone is where [keystone_authtoken] says",
            "retry_delay": "no keys are made",
            "number_of_retries": "no keys are made",
            "send_service_user_token": _JUST_IN_TIME,
            "cafile": "see verify_ssl_path",
            "insecure": "see verify_ssl",
            "certfile": "users are known by their tokens",
            "keyfile": "users are known by their tokens",
            "tls_ciphers": Unsupported("the system's library decides"),
            "tls_min_version": Unsupported("the system's library decides"),
            "collect_timing": "[metrics] has the times of requests",
            "split_loggers": "there is one log",
        },
        "barbican_service_user": {"*": _JUST_IN_TIME},
        "image_import_opts": {"max_parallel_stores": "all stores are fed at once, from one read"},
        "key_manager": {
            "backend": Unsupported(
                _BARBICAN,
                harmless=(
                    "barbican",
                    "castellan.key_manager.barbican_key_manager.barbicankeymanager",
                ),
            ),
            "auth_url": "Keystone is where [keystone_authtoken] says",
            "*": "certificates are read with the user's token",
        },
        "oslo_limit": {"*": "limits are asked for with the options of this section that are known"},
        "service_user": {
            "send_service_user_token": Unsupported(
                "other services are asked with the user's token alone", harmless=("false",)
            ),
            "*": "other services are asked with the user's token alone",
        },
        "task": {"task_executor": _JOBS, "eventlet_executor_pool_size": _JOBS},
        "taskflow_executor": {
            "conversion_format": Unsupported("see [image_conversion] output_format"),
            "*": _JOBS,
        },
        "vault": {"*": _BARBICAN},
    },
)


def load(
    *,
    config_files: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded[ImagesSettings]:
    """Read the settings: see `diptych_common.settings.load_service`. Raises SettingsError."""
    return common.load_service(
        ImagesSettings,
        "images",
        config_files=config_files,
        config_dirs=config_dirs,
        environ=environ,
        unused=UNUSED,
        read_elsewhere=Elsewhere(store_sections, repeated=REPEATED, secret=SECRETS),
    )


def stores(loaded: Loaded[ImagesSettings]) -> StoresConfig:
    """What the settings say of the stores. Raises SettingsError."""
    try:
        return StoresConfig.from_sections(
            loaded.sections, node_staging_uri=loaded.settings.default.node_staging_uri
        )
    except StoreSettingsError as error:
        raise loaded.refusal(
            (one.section, one.option, one.expected) for one in error.problems
        ) from error


def risks(settings: ImagesSettings) -> list[str]:
    """What the settings give away that advisories warn of; it stops nothing."""
    found: list[str] = []
    if settings.default.show_multiple_locations:
        found.append(
            "[DEFAULT] show_multiple_locations shows readers where images are, and lets owners name"
            " other places: users should not reach this service (OSSN-0065, OSSN-0090)"
        )
    if settings.keystone_authtoken.insecure:
        found.append(
            "[keystone_authtoken] insecure sends tokens and the service's password to whoever"
            " answers in Keystone's place (OSSA-2013-018)"
        )
    return found


def delivers(loaded: Loaded[ImagesSettings]) -> Delivery | None:
    """How events are delivered; None: there are none. Raises SettingsError."""
    settings = loaded.settings
    told = settings.oslo_messaging_notifications
    try:
        return delivery.configured(
            told,
            settings.oslo_messaging_rabbit,
            transport_url=settings.default.transport_url,
            exchange=settings.default.control_exchange,
            publisher_id=settings.default.default_publisher_id,
        )
    except ValueError as error:
        section = "oslo_messaging_notifications" if told.transport_url else "DEFAULT"
        raise loaded.refusal([(section, "transport_url", str(error))]) from None


def with_leftovers(loaded: Loaded[ImagesSettings]) -> Loaded[ImagesSettings]:
    """The settings with the options of stores that have no effect. Raises SettingsError."""
    return loaded.with_leftovers(
        (one.section, one.option, one.reason) for one in stores(loaded).unused
    )
