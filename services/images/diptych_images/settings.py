"""The images service's settings: its own groups, those it shares, and what of Glance it ignores."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from diptych_common import delivery
from diptych_common import settings as common
from diptych_common.delivery import Delivery
from diptych_common.settings import (
    GROUP,
    Bytes,
    CommaList,
    Elsewhere,
    Loaded,
    Port,
    PortList,
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
    task_time_to_live: int = option(48, "Hours for which a task is shown after its end.", ge=0)


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

_NOT_YET = "not supported yet"
_ONE_DATABASE = "there is one database, PostgreSQL"
_RETRIES = "a lost connection is replaced once; beyond that a request is answered 503"
_LIBRARY = "the library that it tuned is not used"
_JUST_IN_TIME = "a certificate is read while the user's token is valid"
_BARBICAN = "certificates are read from Barbican, see [barbican]"

# What Glance's files may hold that has no effect here, so that a file can be given as it is.
UNUSED: Final[common.Unused] = {
    "DEFAULT": {
        "image_cache_driver": "the cache's directory says itself what is in it",
        "image_cache_sqlite_db": "the cache's directory says itself what is in it",
        "scrub_pool_size": "bytes are removed by jobs, as many at a time as [jobs] concurrency",
        "wakeup_time": "an image is scrubbed when its scrub_time is over",
        "restore": "see the command restore",
        "metadata_encryption_key": "location URLs are stored without credentials",
        "digest_algorithm": "signatures name their own hash",
        "allow_additional_image_properties": "custom properties are always allowed",
        "enable_v1_api": "version 1 is gone",
        "enable_v2_api": "version 2 is what is served",
        "enable_v1_registry": "there is no registry",
        "enable_v2_registry": "there is no registry",
        "registry_host": "there is no registry",
        "registry_port": "there is no registry",
        "data_api": "there is no registry",
        "owner_is_tenant": "images belong to projects",
        "admin_role": "the rule context_is_admin says who is an administrator",
        "location_strategy": "stores are ordered by weight",
        "backlog": "the system's own limit counts",
        "tcp_keepidle": "the system's own setting counts",
        "max_header_line": "the server's own limit counts",
        "http_keepalive": "connections are kept",
        "client_socket_timeout": "a proxy in front ends idle connections",
        "secure_proxy_ssl_header": "see enable_proxy_headers_parsing of [oslo_middleware]",
        "pydev_worker_debug_host": "a debugger is attached from outside",
        "pydev_worker_debug_port": "a debugger is attached from outside",
        "executor_thread_pool_size": _LIBRARY,
        "rpc_response_timeout": _LIBRARY,
        "log_config_append": "logging is set up by debug, use_json and log_file",
        "logging_context_format_string": "the format is fixed",
        "logging_default_format_string": "the format is fixed",
        "logging_debug_format_suffix": "the format is fixed",
        "logging_exception_prefix": "the format is fixed",
        "logging_user_identity_format": "the format is fixed",
        "log_date_format": "the format is fixed",
        "default_log_levels": "debug raises the service's own level only",
        "use_stderr": "unset log_file logs to standard error",
        "use_syslog": "standard error goes to the journal",
        "use_journal": "standard error goes to the journal",
        "syslog_log_facility": "standard error goes to the journal",
        "use_eventlog": "standard error goes to the journal",
        "log_color": "the format is fixed",
        "log_options": "see `config show`",
        "log_rotate_interval": "the file is opened again when it was moved away",
        "log_rotate_interval_type": "the file is opened again when it was moved away",
        "log_rotation_type": "the file is opened again when it was moved away",
        "max_logfile_count": "the file is opened again when it was moved away",
        "max_logfile_size_mb": "the file is opened again when it was moved away",
        "watch_log_file": "the file is always watched",
        "publish_errors": "errors are in the log",
        "instance_format": "the format is fixed",
        "instance_uuid_format": "the format is fixed",
        "rate_limit_burst": "log lines are not limited",
        "rate_limit_except_level": "log lines are not limited",
        "rate_limit_interval": "log lines are not limited",
        "fatal_deprecations": "there is nothing deprecated",
        "verbose": "see debug",
    },
    "database": {
        "asyncio_connection": _ONE_DATABASE,
        "asyncio_slave_connection": _ONE_DATABASE,
        "backend": _ONE_DATABASE,
        "connection_debug": "see debug",
        "connection_parameters": "they are part of connection",
        "connection_trace": "see debug",
        "db_inc_retry_interval": _RETRIES,
        "db_max_retries": _RETRIES,
        "db_max_retry_interval": _RETRIES,
        "db_retry_interval": _RETRIES,
        "max_retries": _RETRIES,
        "min_pool_size": "connections are opened when they are needed",
        "mysql_sql_mode": _ONE_DATABASE,
        "mysql_wsrep_sync_wait": _ONE_DATABASE,
        "retry_interval": _RETRIES,
        "slave_connection": _ONE_DATABASE,
        "sqlite_synchronous": _ONE_DATABASE,
        "synchronous_reader": _ONE_DATABASE,
        "use_db_reconnect": _RETRIES,
    },
    "keystone_authtoken": {
        "auth_version": "version 3 is what Keystone has",
        "auth_section": "the options are read from this section only",
        "memcached_servers": "tokens are remembered by each process",
        "memcache_security_strategy": "tokens are remembered by each process",
        "memcache_secret_key": "tokens are remembered by each process",
        "memcache_pool_dead_retry": "tokens are remembered by each process",
        "memcache_pool_maxsize": "tokens are remembered by each process",
        "memcache_pool_socket_timeout": "tokens are remembered by each process",
        "memcache_pool_unused_timeout": "tokens are remembered by each process",
        "memcache_pool_conn_get_timeout": "tokens are remembered by each process",
        "memcache_use_advanced_pool": "tokens are remembered by each process",
        "cache": "tokens are remembered by each process",
        "enforce_token_bind": "tokens are not bound",
        "include_service_catalog": "the catalog is not needed",
        "hash_algorithms": "PKI tokens are gone",
        "signing_dir": "PKI tokens are gone",
        "check_revocations_for_cached": "PKI tokens are gone",
    },
    "oslo_policy": {
        "remote_content_type": "rules that ask another server are refused",
        "remote_ssl_verify_server_crt": "rules that ask another server are refused",
        "remote_ssl_ca_crt_file": "rules that ask another server are refused",
        "remote_ssl_client_crt_file": "rules that ask another server are refused",
        "remote_ssl_client_key_file": "rules that ask another server are refused",
        "remote_timeout": "rules that ask another server are refused",
    },
    "oslo_middleware": {
        "max_request_body_size": "documents are limited, images by image_size_cap",
    },
    "healthcheck": {
        "backends": "the checks are fixed; see /readyz",
    },
    "paste_deploy": {"config_file": "the middleware is fixed"},
    "barbican": {
        "auth_endpoint": "Keystone is where [keystone_authtoken] says",
        "retry_delay": "no keys are made",
        "number_of_retries": "no keys are made",
        "send_service_user_token": _JUST_IN_TIME,
        "cafile": "see verify_ssl_path",
        "insecure": "see verify_ssl",
        "certfile": "users are known by their tokens",
        "keyfile": "users are known by their tokens",
        "collect_timing": _LIBRARY,
        "split_loggers": _LIBRARY,
    },
    "barbican_service_user": {"*": _JUST_IN_TIME},
    "cinder": {"*": _NOT_YET},
    "image_import_opts": {"max_parallel_stores": "all stores are fed at once, from one read"},
    "key_manager": {
        "backend": _BARBICAN,
        "auth_url": "Keystone is where [keystone_authtoken] says",
        "*": "certificates are read with the user's token",
    },
    "oslo_concurrency": {"*": _LIBRARY},
    "oslo_limit": {"*": "limits are asked for with the options of this section that are known"},
    "oslo_messaging_amqp": {"*": _LIBRARY},
    "oslo_messaging_kafka": {"*": _LIBRARY},
    "oslo_messaging_notifications": {"retry": "events wait until they are delivered"},
    "oslo_messaging_rabbit": dict.fromkeys(
        (
            "conn_pool_min_size",
            "conn_pool_ttl",
            "direct_mandatory_flag",
            "enable_cancel_on_failover",
            "heartbeat_rate",
            "hostname",
            "kombu_compression",
            "kombu_failover_strategy",
            "kombu_missing_consumer_retry_timeout",
            "kombu_reconnect_delay",
            "kombu_reconnect_splay",
            "processname",
            "rabbit_interval_max",
            "rabbit_login_method",
            "rabbit_qos_prefetch_count",
            "rabbit_retry_backoff",
            "rabbit_retry_interval",
            "rabbit_stream_fanout",
            "rabbit_transient_queues_ttl",
            "rabbit_transient_quorum_queue",
            "rpc_conn_pool_size",
            "ssl_enforce_fips_mode",
            "ssl_version",
            "use_queue_manager",
        ),
        _LIBRARY,
    ),
    "oslo_messaging_zmq": {"*": _LIBRARY},
    "oslo_reports": {"*": _LIBRARY},
    "profiler": {"*": _NOT_YET},
    "service_user": {"*": _NOT_YET},
    "task": {
        "task_executor": "jobs are run from the database",
        "eventlet_executor_pool_size": "jobs are run from the database",
    },
    "taskflow_executor": {"*": "jobs are run from the database"},
    "vault": {"*": _BARBICAN},
    "wsgi": {"*": "see workers and [jobs]"},
}


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
