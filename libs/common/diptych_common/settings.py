"""Settings: the groups that both services have, and the reader of INI files and environment.

A service's settings are one frozen pydantic model whose fields are INI sections (`default` is
`[DEFAULT]`) and whose fields' fields are options, with the names that Glance's and Glare's
operators know. Nothing here is global: `load` gives a value that is handed on. What a service's
`config` commands print is in `diptych_common.settings_report`.
"""

import dataclasses
import ipaddress
import os
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    TypedDict,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo

from diptych_common import ini

# --- What groups are made of ------------------------------------------------------------------

GROUP: Final = ConfigDict(frozen=True, extra="forbid")

_BYTES = re.compile(r"(\d+)\s*([KMGT]?)B?", re.IGNORECASE)


def split_commas(value: object) -> object:
    """The items of a text between commas, without blanks around them and a comma at the end."""
    if not isinstance(value, str):
        return value
    text = value.strip().rstrip(",")
    return tuple(item.strip() for item in text.split(",")) if text else ()


_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


def _are_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # 32 bytes in base64 with - and _, as Fernet has them. Whether it can be used is said here,
    # because what reads it later would take some that are not.
    if not all(_KEY.fullmatch(key.get_secret_value()) for key in keys):
        raise ValueError("not a key")
    return keys


def _parse_bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _BYTES.fullmatch(value.strip())
    if match is None:
        raise ValueError("not a size")
    return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


# Items between commas; blanks around them and a comma at the end do not count.
CommaList = Annotated[tuple[str, ...], BeforeValidator(split_commas)]

# Keys that `diptych_common.sealing` takes, between commas.
SecretKeys = Annotated[
    tuple[SecretStr, ...], BeforeValidator(split_commas), AfterValidator(_are_keys)
]

# A number of bytes, or one with KB, MB, GB or TB (powers of 1024), as Glance takes it.
Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(ge=0)]


def _are_networks(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        ipaddress.ip_network(item, strict=False)
    return items


# Networks, or single addresses, between commas.
NetworkList = Annotated[CommaList, AfterValidator(_are_networks)]

Port = Annotated[int, Field(ge=0, le=65535)]

_URI_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


def _is_uri_prefix(value: str) -> str:
    prefix = value.rstrip("/")
    if not _URI_PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise ValueError("not a prefix")
    return prefix


# The beginning of paths in URLs, without a slash at its end.
UriPrefix = Annotated[str, AfterValidator(_is_uri_prefix)]

# Ports between commas.
PortList = Annotated[tuple[Port, ...], BeforeValidator(split_commas)]


class OptionNotes(TypedDict):
    """What the reader and the printed documents know of an option beyond its pydantic field."""

    former: tuple[str, ...]
    secret: bool
    expected: str | None


def option(
    default: Any,
    description: str,
    *,
    former: Sequence[str] = (),
    secret: bool = False,
    expected: str | None = None,
    **constraints: Any,
) -> Any:
    """An option of a group.

    `former` are older names, in the same section, or `SECTION.option`; the current name wins.
    `secret` values are printed nowhere; a URL's credentials are hidden wherever it is printed.
    `expected` says what a value looks like where the type does not say it.
    """
    notes: OptionNotes = {"former": tuple(former), "secret": secret, "expected": expected}
    return Field(
        default,
        description=description,
        repr=not secret,
        json_schema_extra=cast("dict[str, Any]", notes),
        **constraints,
    )


def notes_of(field: FieldInfo) -> OptionNotes:
    """The notes given to `option`."""
    return cast(OptionNotes, field.json_schema_extra)


# --- The groups that both services have -------------------------------------------------------


class Database(BaseModel):
    """[database]: the PostgreSQL server, and how many connections each process keeps."""

    model_config = GROUP

    connection: str = option(
        "",
        "PostgreSQL's URL, e.g. postgresql://user:password@host/database. A driver's name after"
        " the scheme is allowed and ignored.",
        secret=True,
        former=("DEFAULT.sql_connection", "sql_connection", "sql.connection"),
        expected="a postgresql:// URL",
    )
    max_pool_size: int = option(
        5,
        "Connections that a process keeps open.",
        ge=1,
        former=("DEFAULT.sql_max_pool_size", "sql_max_pool_size"),
    )
    max_overflow: int = option(
        50,
        "Connections that a process may open beyond max_pool_size under load.",
        ge=0,
        former=("DEFAULT.sql_max_overflow", "sqlalchemy_max_overflow"),
    )
    pool_timeout: float = option(
        30.0,
        "Seconds that a request waits for a connection before it is answered 503.",
        gt=0,
        former=("sqlalchemy_pool_timeout",),
    )
    connect_timeout: float = option(
        10.0, "Seconds to wait for the server when a connection is opened.", gt=0
    )
    statement_timeout: float = option(
        60.0, "Seconds after which a statement is given up; 0 means never.", ge=0
    )
    statement_cache_size: int = option(
        100,
        "Prepared statements kept by a connection. Must be 0 behind a pooler that gives every"
        " transaction another server connection (pgbouncer in transaction mode).",
        ge=0,
    )
    connection_recycle_time: int = option(
        3600,
        "Seconds after which an idle connection is replaced when next used.",
        ge=1,
        former=("idle_timeout", "sql_idle_timeout", "DEFAULT.sql_idle_timeout", "sql.idle_timeout"),
    )


class OsloLimit(BaseModel):
    """[oslo_limit]: whose unified limits count, and who this service is when it asks for them."""

    model_config = GROUP

    endpoint_id: str | None = option(
        None,
        "Endpoint of this service in Keystone, whose service and region the limits were set for."
        " Unset: the one that the next options find.",
    )
    endpoint_service_type: str = option("image", "Type of this service in Keystone.")
    endpoint_service_name: str | None = option(None, "Name of this service in Keystone.")
    endpoint_region_name: str | None = option(None, "Region of the endpoint.")
    endpoint_interface: str = option("public", "Interface of the endpoint.")
    auth_url: str | None = option(
        None, "Keystone's address. Unset, as all that follow: as in [keystone_authtoken]."
    )
    username: str | None = option(None, "User who may read all limits.", former=("user-name",))
    user_id: str | None = option(None, "The user, by id.", former=("user-id",))
    password: SecretStr | None = option(None, "Password of the user.", secret=True)
    user_domain_name: str | None = option(
        None, "Domain of the user, by name.", former=("user-domain-name",)
    )
    user_domain_id: str | None = option(
        None, "Domain of the user, by id.", former=("user-domain-id",)
    )
    system_scope: Literal["all"] = option(
        "all", "Limits of all projects are told only to who acts on the whole system."
    )


class KeystoneAuthtoken(BaseModel):
    """[keystone_authtoken]: how tokens are validated, and who this service is to Keystone."""

    model_config = GROUP

    www_authenticate_uri: str | None = option(
        None,
        "Keystone's address for clients, told in the WWW-Authenticate header of a 401. Unset:"
        " auth_url.",
        former=("auth_uri",),
    )
    auth_url: str | None = option(
        None, "Keystone's address for this service, with or without /v3.", former=("auth-url",)
    )
    auth_type: Literal["password", "v3password", "v3applicationcredential"] = option(
        "password", "How this service authenticates itself.", former=("auth_plugin",)
    )
    username: str | None = option(
        None, "User of this service.", former=("user-name", "user_name", "admin_user")
    )
    user_id: str | None = option(None, "User of this service, by id.", former=("user-id",))
    password: SecretStr | None = option(
        None, "Password of the user.", secret=True, former=("admin_password",)
    )
    user_domain_name: str | None = option(
        None, "Domain of the user, by name.", former=("user-domain-name",)
    )
    user_domain_id: str | None = option(
        None, "Domain of the user, by id.", former=("user-domain-id",)
    )
    project_name: str | None = option(
        None,
        "Project that this service acts in, by name.",
        former=("project-name", "tenant_name", "tenant-name", "admin_tenant_name"),
    )
    project_id: str | None = option(
        None,
        "Project that this service acts in, by id.",
        former=("project-id", "tenant_id", "tenant-id"),
    )
    system_scope: Literal["all"] | None = option(
        None, "all: this service acts on the whole system and in no project."
    )
    project_domain_name: str | None = option(
        None, "Domain of the project, by name.", former=("project-domain-name",)
    )
    project_domain_id: str | None = option(
        None, "Domain of the project, by id.", former=("project-domain-id",)
    )
    default_domain_name: str | None = option(
        None, "Domain of user and project where neither is said, by name."
    )
    default_domain_id: str | None = option(
        None, "Domain of user and project where neither is said, by id."
    )
    application_credential_id: str | None = option(
        None, "Application credential, with auth_type v3applicationcredential."
    )
    application_credential_name: str | None = option(
        None, "Application credential by name; the user must be given as well."
    )
    application_credential_secret: SecretStr | None = option(
        None, "Secret of the application credential.", secret=True
    )
    cafile: str | None = option(
        None, "File with the authorities that Keystone's certificate is checked against."
    )
    certfile: str | None = option(None, "Client certificate for Keystone.")
    keyfile: str | None = option(None, "Key of the client certificate.")
    insecure: bool = option(False, "Do not check Keystone's certificate.")
    http_connect_timeout: float | None = option(
        None, "Seconds to wait for an answer of Keystone; unset: 10.", gt=0
    )
    http_request_max_retries: int = option(
        3, "How often a call to Keystone that could not be made is made again.", ge=0
    )
    service_token_roles: CommaList = option(
        ("service",), "Roles that make a token a service token."
    )
    service_token_roles_required: bool = option(
        True, "Refuse a service token that carries none of service_token_roles."
    )
    token_cache_time: float = option(
        60.0,
        "Seconds that a validated token is remembered, never past its expiry. A token revoked"
        " meanwhile stays valid as long. 0 or less: tokens are not remembered.",
    )
    service_type: str | None = option(
        None,
        "Service type that the access rules of application credentials must name. Unset: this"
        " service's own.",
    )
    interface: str = option(
        "internal", "Interface of Keystone in its own catalog.", former=("valid_interfaces",)
    )
    region_name: str | None = option(None, "Region of Keystone in its own catalog.")
    delay_auth_decision: bool = option(
        False,
        "Ignore a service token that cannot be used instead of answering 401, as Glance does.",
    )


_HTTP_URL = re.compile(r"https?://[^/?#\s@]+(/[^?#\s]*)?", re.IGNORECASE)


def _is_url(value: str | None) -> str | None:
    if value is not None and not _HTTP_URL.fullmatch(value):
        raise ValueError("not a URL")
    return value


class Barbican(BaseModel):
    """[barbican]: the key manager; what is asked of it is each service's own."""

    model_config = GROUP

    barbican_endpoint: Annotated[str | None, AfterValidator(_is_url)] = option(
        None,
        "Barbican's address, with or without /v1. Unset: that of the service key-manager in the"
        " catalog of the token that it is asked with.",
        expected="an http:// or https:// URL",
    )
    barbican_api_version: Literal["v1"] | None = option(None, "Version of Barbican's API.")
    barbican_endpoint_type: Literal["public", "internal", "admin"] = option(
        "public", "Interface of Barbican in the catalog."
    )
    barbican_region_name: str | None = option(
        None,
        "Region of Barbican in the catalog. Unset: [keystone_authtoken] region_name, or else the"
        " first that the catalog names.",
    )
    verify_ssl: bool = option(True, "Check Barbican's certificate.")
    verify_ssl_path: str | None = option(
        None,
        "File with the authorities that it is checked against. Unset: [keystone_authtoken] cafile,"
        " or else the system's.",
    )
    timeout: float = option(
        10.0, "Seconds to wait for Barbican's whole answer; transfers begin after it.", gt=0
    )


class OsloPolicy(BaseModel):
    """[oslo_policy]: where the operator's rules are, and how strictly defaults are taken."""

    model_config = GROUP

    policy_file: str = option(
        "policy.yaml",
        "YAML or JSON file of rules, absolute or beside a configuration file. Read again when it"
        " changes; a broken file leaves the rules as they were.",
        former=("DEFAULT.policy_file",),
    )
    policy_dirs: CommaList = option(
        ("policy.d",),
        "Folders with more such files; they are read after policy_file, in the order of their"
        " names, and later rules win.",
        former=("DEFAULT.policy_dirs",),
    )
    policy_default_rule: str = option(
        "default", "Rule that stands in for one that a rule refers to and nobody defined."
    )
    enforce_scope: bool = option(
        True, "Refuse system-scoped and domain-scoped tokens where a rule is for projects."
    )
    enforce_new_defaults: bool = option(
        True, "Take only the current defaults; false also allows what older releases allowed."
    )


class OsloMiddleware(BaseModel):
    """[oslo_middleware]: the proxies in front of the service."""

    model_config = GROUP

    enable_proxy_headers_parsing: bool = option(
        False,
        "Take the client's address, scheme, host and path prefix from the X-Forwarded-For, -Proto,"
        " -Host and -Prefix, or else the Forwarded, of trusted_proxies. They show in links and in"
        " the log.",
    )
    trusted_proxies: NetworkList = option(
        (),
        "Addresses or networks of the proxies that are believed: in what they tell of the client,"
        " and, with a paste_deploy flavor that takes identities from them, of who is asking. Empty:"
        " those on this host, and with such a flavor the service must listen on a loopback"
        " address.",
        expected="networks or addresses separated by commas",
    )


class Cors(BaseModel):
    """[cors]: which web pages of other origins may call the API."""

    model_config = GROUP

    allowed_origin: CommaList = option(
        (), "Origins, e.g. https://horizon.example.org; * allows any. Empty: CORS is off."
    )
    allow_credentials: bool = option(True, "Let browsers send cookies and client certificates.")
    expose_headers: CommaList = option(
        (
            "X-Image-Meta-Checksum",
            "X-Auth-Token",
            "X-Subject-Token",
            "X-Service-Token",
            "X-OpenStack-Request-ID",
        ),
        "Response headers that a page may read.",
    )
    max_age: int = option(3600, "Seconds that a browser may remember a preflight answer.", ge=0)
    allow_methods: CommaList = option(
        ("GET", "PUT", "POST", "DELETE", "PATCH"), "Methods that a page may use."
    )
    allow_headers: CommaList = option(
        (
            "Content-MD5",
            "X-Image-Meta-Checksum",
            "X-Storage-Token",
            "Accept-Encoding",
            "X-Auth-Token",
            "X-Identity-Status",
            "X-Roles",
            "X-Service-Catalog",
            "X-User-Id",
            "X-Tenant-Id",
            "X-OpenStack-Request-ID",
        ),
        "Request headers that a page may send.",
    )


class MessagingNotifications(BaseModel):
    """[oslo_messaging_notifications]: how events reach those who wait for them."""

    model_config = GROUP

    driver: Literal["noop", "log", "messaging", "messagingv2"] = option(
        "noop",
        "`messagingv2`: events are sent to RabbitMQ, in oslo.messaging's envelope; `messaging`: the"
        " same without the envelope. `log`: they are written to the log. `noop`: there are none.",
        former=("DEFAULT.notification_driver",),
    )
    transport_url: str | None = option(
        None,
        "RabbitMQ's URL for events. Unset: [DEFAULT] transport_url.",
        secret=True,
        former=("DEFAULT.notification_transport_url",),
        expected="a rabbit:// URL",
    )
    topics: CommaList = option(
        ("notifications",),
        "Topics that each event is sent to: to the queue <topic>.<priority>, e.g."
        " notifications.info.",
        former=("DEFAULT.notification_topics", "rpc_notifier2.topics"),
    )


class MessagingRabbit(BaseModel):
    """[oslo_messaging_rabbit]: the connection to RabbitMQ, and what its queues are declared as."""

    model_config = GROUP

    ssl: bool = option(False, "Connect with TLS.", former=("rabbit_use_ssl",))
    ssl_ca_file: str | None = option(
        None,
        "File with the authorities that RabbitMQ's certificate is checked against. Unset: those of"
        " the system.",
        former=("kombu_ssl_ca_certs",),
    )
    ssl_cert_file: str | None = option(
        None, "Client certificate for RabbitMQ.", former=("kombu_ssl_certfile",)
    )
    ssl_key_file: str | None = option(
        None, "Key of the client certificate.", former=("kombu_ssl_keyfile",)
    )
    ssl_enforce_hostname_verification: bool = option(
        True, "Check that RabbitMQ's certificate is for the host of the URL."
    )
    heartbeat_timeout_threshold: int = option(
        60, "Seconds after which a silent server is taken for dead; 0: never.", ge=0
    )
    amqp_durable_queues: bool = option(
        False,
        "Queues and their exchange outlive a restart of RabbitMQ. As all services that declare"
        " them have it.",
        former=("DEFAULT.amqp_durable_queues", "DEFAULT.rabbit_durable_queues"),
    )
    amqp_auto_delete: bool = option(
        False,
        "Queues and their exchange go when nobody uses them any more.",
        former=("DEFAULT.amqp_auto_delete",),
    )
    rabbit_ha_queues: bool = option(
        False, "Declare queues as mirrored.", former=("DEFAULT.rabbit_ha_queues",)
    )
    rabbit_quorum_queue: bool = option(False, "Declare quorum queues, which are durable.")
    rabbit_quorum_delivery_limit: int = option(
        0, "Deliveries of a message of a quorum queue; 0: not declared.", ge=0
    )
    rabbit_quorum_max_memory_length: int = option(
        0,
        "Messages of a quorum queue in memory; 0: not declared.",
        ge=0,
        former=("rabbit_quroum_max_memory_length",),
    )
    rabbit_quorum_max_memory_bytes: int = option(
        0,
        "Bytes of a quorum queue in memory; 0: not declared.",
        ge=0,
        former=("rabbit_quroum_max_memory_bytes",),
    )


class Healthcheck(BaseModel):
    """[healthcheck]: what load balancers ask."""

    model_config = GROUP

    path: str = option("/healthcheck", "Path of the check.")
    detailed: bool = option(False, "Tell more about the process; not for public addresses.")
    disable_by_file_path: str | None = option(
        None, "While this file exists the check answers 503, so that traffic drains away."
    )
    disable_by_file_paths: CommaList = option(
        (),
        "The same by port: port:path, separated by commas.",
    )
    enable_by_file_paths: CommaList = option(
        (), "While one of these files is missing the check answers 503."
    )
    allowed_source_ranges: NetworkList = option(
        (),
        "Networks or addresses that the checks answer; others get 404. Empty: everyone.",
        expected="networks or addresses separated by commas",
    )
    ignore_proxied_requests: bool = option(
        False, "Answer 404 to checks that came through a proxy that says so by a header."
    )


class Http(BaseModel):
    """[http]: what answers come with. Not in Glance."""

    model_config = GROUP

    compress: bool = option(
        False,
        "Compress documents of over 1 KB with gzip for clients that accept it; data of images never"
        " are.",
    )
    openapi: bool = option(
        False, "Serve the OpenAPI document at /openapi.json and a page of it at /docs, to everyone."
    )


class PasteDeploy(BaseModel):
    """[paste_deploy]: where identities come from, by Glance's flavors."""

    model_config = GROUP

    flavor: Annotated[str, BeforeValidator(lambda value: _known_flavor(value))] = option(
        "keystone",
        "`keystone`: tokens are validated by Keystone. `trusted`: a proxy in front tells who is"
        " asking by headers. `none`: everyone is an administrator. Glance's `keystone+caching` and"
        " `keystone+cachemanagement` mean `keystone`.",
        expected="keystone, trusted or none, alone or joined by + with caching or cachemanagement",
    )

    @property
    def identity(self) -> Literal["keystone", "trusted", "none"]:
        """The part of the flavor that says where identities come from."""
        (mode,) = _IDENTITY_FLAVORS.intersection(self.flavor.split("+"))
        return cast(Literal["keystone", "trusted", "none"], mode)


_IDENTITY_FLAVORS = frozenset({"keystone", "trusted", "none"})
_OTHER_FLAVORS = frozenset({"caching", "cachemanagement"})


def _known_flavor(value: object) -> object:
    parts = str(value).strip().split("+")
    # A file of Glance's without `keystone` means that everyone is an administrator. That must be
    # said in so many words here, so `caching` alone is refused.
    if len(_IDENTITY_FLAVORS.intersection(parts)) != 1 or set(parts) - _IDENTITY_FLAVORS - (
        _OTHER_FLAVORS
    ):
        raise ValueError("not a flavor")
    return value


class Metrics(BaseModel):
    """[metrics]: Prometheus metrics, on a listener of their own."""

    model_config = GROUP

    enabled: bool = option(True, "Collect and serve metrics.")
    bind_host: str = option("127.0.0.1", "Address of the listener.")
    bind_port: Port = option(9293, "Port of the listener; 0 lets the system choose one.")
    worker_bind_port: Port | None = option(
        None,
        "Port of the listener of a `worker` process. Unset: none, because several may run on one"
        " host.",
    )
    directory: str | None = option(
        None, "Folder for the counters of the worker processes. Unset: a temporary one."
    )


class Tracing(BaseModel):
    """[tracing]: traces for OpenTelemetry; needs the extra `otel`."""

    model_config = GROUP

    enabled: bool = option(False, "Send spans of requests and jobs to a collector.")
    endpoint: str | None = option(
        None,
        "Where the collector takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces. Unset:"
        " as the environment's OTEL_EXPORTER_OTLP_ variables say.",
    )
    sample_ratio: float = option(
        1.0,
        "Share of the requests that are traced, where the caller has not decided.",
        ge=0,
        le=1,
    )


class Jobs(BaseModel):
    """[jobs]: background work."""

    model_config = GROUP

    with_worker: bool = option(
        True, "Run jobs inside the API processes too; false where workers run apart."
    )
    lease: int = option(
        30,
        "Seconds after which the work of a process that was not heard of is given to another.",
        ge=1,
    )
    secret_keys: SecretKeys = option(
        (),
        "Keys for users' tokens that wait in the database with a job, the same for all processes."
        " The first one seals, all of them open: put a new one in front, and take the old one away"
        " when no job is left that it was used for. Unset: what needs such a token is refused.",
        secret=True,
        expected="keys as `jobs key` prints them, separated by commas",
    )
    concurrency: int = option(
        16, "Jobs that a process runs at a time; imports are at most half of them.", ge=1
    )
    poll_interval: float = option(
        5.0, "Seconds between looks at the queue when the database does not call.", gt=0
    )
    reaper_interval: int = option(
        60, "Seconds between looks for uploads whose process has died.", ge=1
    )


class Outbound(BaseModel):
    """[outbound]: where requests may go whose URL a user had a hand in."""

    model_config = GROUP

    allowed_hosts: CommaList = option(
        (),
        "Hosts that may be asked wherever they are, as names in URLs, exactly; host:port allows"
        " that port of the host as well.",
        expected="host names or addresses, each with a port or without, separated by commas",
    )
    allowed_networks: CommaList = option(
        (),
        "Networks or addresses that may be asked although they are not public, or in"
        " denied_networks.",
        expected="networks or addresses separated by commas",
    )
    denied_networks: CommaList = option(
        (),
        "Networks or addresses that may not be asked, besides all that are not public: for public"
        " addresses of the cloud's own.",
        expected="networks or addresses separated by commas",
    )
    allowed_ports: CommaList = option(
        ("80", "443"),
        "Ports that may be asked. Empty: any.",
        expected="port numbers separated by commas",
    )
    max_redirects: int = option(5, "Redirects that are followed, each vetted like the first.", ge=0)
    cafile: str | None = option(
        None,
        "File with the authorities that certificates are checked against. Unset: the system's.",
    )
    connect_timeout: float = option(
        10.0,
        "Seconds for the look-up of a name, and again for a connection with its TLS handshake.",
        gt=0,
    )
    answer_timeout: float = option(
        60.0, "Seconds until an answer begins, redirects included.", gt=0
    )
    read_timeout: float = option(60.0, "Seconds to wait for more of an answer.", gt=0)
    min_rate: int = option(
        1024,
        "Bytes a second that an answer must come with, over each read_timeout of waiting for it;"
        " 0: any.",
        ge=0,
    )
    transfer_timeout: float = option(
        86400.0, "Seconds after which an answer is given up however fast it comes; 0: never.", ge=0
    )


class ServiceDefault(BaseModel, frozen=True, extra="forbid"):
    """[DEFAULT]: the API itself, as far as it is the same in both services."""

    bind_host: str = option("0.0.0.0", "Address to listen on.")
    bind_port: Port
    workers: int = option(2, "Processes that serve requests.", ge=1)
    graceful_timeout: float = option(
        600.0, "Seconds that running transfers get to finish when the service is stopped.", ge=0
    )
    drain_delay: float = option(
        0.0,
        "Seconds for which a service that is stopped still takes connections, so that proxies send"
        " nothing more to it before it refuses them: /healthcheck and /readyz answer 503 meanwhile,"
        " and each answer closes its connection.",
        ge=0,
    )
    x_accel_redirect: UriPrefix = option(
        "",
        "Beginning of the paths below which nginx has the files of stores, in `internal` locations:"
        " downloads from such stores are answered with X-Accel-Redirect, and nginx sends the file."
        " Only to trusted_proxies that ask for it with `X-Sendfile-Type: X-Accel-Redirect`. Empty:"
        " never.",
        expected="a path such as /_store",
    )
    allow_anonymous_access: bool = option(
        False, "Serve reads without a token, as far as the policy allows."
    )
    max_request_id_length: int = option(
        64, "Longest request id taken from a client, in characters.", ge=1
    )
    debug: bool = option(False, "Log more.")
    log_file: str | None = option(
        None, "Log to this file. Unset: to standard error.", former=("logfile",)
    )
    log_dir: str | None = option(
        None, "Folder of log_file, where that is a relative name.", former=("logdir",)
    )
    use_json: bool = option(False, "Log one JSON object a line.")


class ServiceSettings(BaseModel, frozen=True, extra="forbid"):
    """The sections that both services have; each adds its own."""

    default: ServiceDefault
    database: Database = Database()
    keystone_authtoken: KeystoneAuthtoken = KeystoneAuthtoken()
    oslo_policy: OsloPolicy = OsloPolicy()
    oslo_middleware: OsloMiddleware = OsloMiddleware()
    cors: Cors = Cors()
    healthcheck: Healthcheck = Healthcheck()
    http: Http = Http()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    jobs: Jobs = Jobs()
    outbound: Outbound = Outbound()


# --- The reader -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UnknownOption:
    """An assignment that no part of the service knows; `option` is "*" for a whole section."""

    file: str
    section: str
    option: str


@dataclass(frozen=True, slots=True)
class UnusedOption:
    """An assignment of Glance's or Glare's that has no effect here, and why.

    It is obsolete where nothing is lost by that, unsupported where it asks for what is not to be
    had.
    """

    file: str
    section: str
    option: str
    reason: str
    kind: Literal["obsolete", "unsupported"] = "obsolete"


@dataclass(frozen=True, slots=True)
class RenamedOption:
    """An assignment by a former name; the two last are what the option is now."""

    file: str
    section: str
    option: str
    new_section: str
    new_option: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that cannot be used, and what was expected. `value` is None where it is secret."""

    file: str
    section: str
    option: str
    value: str | None
    expected: str

    def __str__(self) -> str:
        """One line for an operator."""
        given = "" if self.value is None else f" = {self.value}"
        return f"{self.file}: [{self.section}] {self.option}{given}: expected {self.expected}"


class SettingsError(Exception):
    """The settings cannot be used; the message has a line for each reason.

    `problems` are the bad values; empty if a file could not be read at all.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


T = TypeVar("T", bound=BaseModel)
T_co = TypeVar("T_co", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why what an option asks for is not to be had; its values in `harmless` ask for nothing."""

    reason: str
    harmless: tuple[str, ...] = ()

    def kind_of(self, value: str) -> Literal["obsolete", "unsupported"]:
        """What an assignment of this value is. Case does not count."""
        is_harmless = not value or value.lower() in self.harmless
        return "obsolete" if is_harmless else "unsupported"


# Section → option ("*" for all others) → why it has no effect; a text: and nothing is lost by that.
Unused = Mapping[str, Mapping[str, str | Unsupported]]


def merged(*several: Unused) -> Unused:
    """All of them in one; of the same option the last one counts."""
    sections: dict[str, dict[str, str | Unsupported]] = {}
    for one in several:
        for section, options in one.items():
            sections.setdefault(section, {}).update(options)
    return sections


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Sections whose options are checked and used by another part of the service (stores).

    `sections` names them, given all sections so far. `repeated` are their options that may be
    given several times, of which every value counts, in all files and in their order; `secret`
    those that are never shown.
    """

    sections: Callable[[Mapping[str, Mapping[str, str]]], Collection[str]]
    repeated: frozenset[str] = frozenset()
    secret: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Loaded(Generic[T_co]):
    """What was read.

    `sections` has every assignment as text, the last one of each option, for parts that read
    their own sections (stores); names of options are as written, of sections as the reader knows
    them. Of options that are repeated there, every value is a line of the text. `places` says where
    each of them stands, by section and option; `elsewhere` names the sections of such parts, and
    `secret` their options that are not to be shown. `remarks` are things that an operator should
    know and that stop nothing.
    """

    settings: T_co
    sections: Mapping[str, Mapping[str, str]] = dataclasses.field(repr=False)  # it holds passwords
    places: Mapping[tuple[str, str], str] = dataclasses.field(repr=False)
    elsewhere: tuple[str, ...]
    secret: frozenset[str]
    unknown: tuple[UnknownOption, ...]
    unused: tuple[UnusedOption, ...]
    renamed: tuple[RenamedOption, ...]
    remarks: tuple[str, ...]
    files: tuple[Path, ...]
    directories: tuple[Path, ...]

    def resolve(self, name: str) -> Path:
        """Where a file named in the settings is.

        Absolute names as they are; others beside the configuration files and in the configuration
        folders, the last given first. If none has it: where it would be looked for first.
        """
        path = Path(name).expanduser()
        places = [*reversed(self.directories), *(file.parent for file in reversed(self.files))]
        candidates = [place / path for place in places] or [path.absolute()]
        return next((candidate for candidate in candidates if candidate.exists()), candidates[0])

    def refusal(self, refused: Iterable[tuple[str, str, str]]) -> SettingsError:
        """The error for values that the part which reads a section elsewhere cannot use.

        Each is section, option, and what was expected.
        """
        problems = [
            Problem(
                file=self.places.get((section, name), "(not set)"),
                section=section,
                option=name,
                value=None,
                expected=expected,
            )
            for section, name, expected in refused
        ]
        return SettingsError("\n".join(map(str, problems)), problems)

    def with_leftovers(self, leftovers: Iterable[tuple[str, str, str | None]]) -> "Loaded[T_co]":
        """The same with what the part which reads a section elsewhere did not use.

        Each is section, option, and why it has no effect, None if that part does not know it.
        """
        unknown, unused = [*self.unknown], [*self.unused]
        for section, name, reason in leftovers:
            file = self.places.get((section, name), "(not set)")
            if reason is None:
                unknown.append(UnknownOption(file, section, name))
            else:
                unused.append(UnusedOption(file, section, name, reason))
        return dataclasses.replace(self, unknown=tuple(unknown), unused=tuple(unused))


def load(
    model: type[T],
    *,
    config_files: Sequence[Path],
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    env_prefix: str,
    unused: Unused | None = None,
    read_elsewhere: Elsewhere | None = None,
) -> Loaded[T]:
    """Read the files, then the `*.conf` of the folders in the order of their names, then `environ`.

    The later assignment wins. Environment variables are `<env_prefix>__SECTION__OPTION`, with
    `DEFAULT` for that section and `_` for what a variable's name cannot have. `environ` is the
    process's if None.

    Raises SettingsError with everything that is wrong, not the first thing.

    Source of the format: oslo.config 10.7. Unlike there nothing is substituted for `$name`.
    """
    raw: ini.Sections = {}
    files = _all_files(config_files, config_dirs)
    _read_files(files, raw)
    variables = os.environ if environ is None else environ
    groups = {_section_name(field): field for field in model.model_fields}

    def merge(known: Sequence[str]) -> ini.Sections:
        return _canonical(_with_environment(raw, variables, env_prefix, known), known)

    sections, elsewhere, repeated = merge([*groups]), tuple[str, ...](), frozenset[str]()
    if read_elsewhere:
        # Merged again, because a variable may name a store whose options are in other variables.
        elsewhere = tuple(read_elsewhere.sections(_plain(sections)))
        sections = merge([*groups, *elsewhere])
        repeated = read_elsewhere.repeated
    repeatable = {(section, name) for section in elsewhere for name in repeated}

    document, sources, renamed = _document(model, groups, sections)
    settings = _validate(model, groups, document, sources)
    unknown, not_used = _leftovers(sections, sources, groups, elsewhere, unused or {})
    remarks = _substitutions(sections) + _repetitions(sections, apart_from=repeatable)
    return Loaded(
        settings=settings,
        sections=_plain(sections, repeatable),
        places={
            (section, name): values[-1].source
            for section, options in sections.items()
            for name, values in options.items()
        },
        elsewhere=elsewhere,
        secret=read_elsewhere.secret if read_elsewhere else frozenset(),
        unknown=unknown,
        unused=not_used,
        renamed=renamed,
        remarks=tuple(remarks),
        files=tuple(files),
        directories=tuple(config_dirs),
    )


def load_service(
    model: type[T],
    name: str,
    *,
    config_files: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    unused: Unused | None = None,
    read_elsewhere: Elsewhere | None = None,
) -> Loaded[T]:
    """As `load`, for the service `name` ("images"), whose variables begin with `DIPTYCH_IMAGES`.

    Without files it reads `/etc/diptych/images.conf`, without folders `/etc/diptych/images.conf.d`,
    where they exist.
    """
    file, folder = Path(f"/etc/diptych/{name}.conf"), Path(f"/etc/diptych/{name}.conf.d")
    return load(
        model,
        config_files=config_files or ([file] if file.exists() else []),
        config_dirs=config_dirs or ([folder] if folder.is_dir() else []),
        environ=environ,
        env_prefix=f"DIPTYCH_{name.upper()}",
        unused=unused,
        read_elsewhere=read_elsewhere,
    )


def _section_name(field: str) -> str:
    return "DEFAULT" if field == "default" else field


def _all_files(config_files: Sequence[Path], config_dirs: Sequence[Path]) -> list[Path]:
    files = list(config_files)
    for folder in config_dirs:
        if not folder.is_dir():
            raise SettingsError(f"{folder}: is not a folder")
        files += sorted(folder.glob("*.conf"))
    return files


def _read_files(files: Sequence[Path], into: ini.Sections) -> None:
    errors: list[str] = []
    for file in files:
        try:
            ini.read(file, into)
        except ini.IniError as error:
            errors.append(str(error))
    if errors:
        raise SettingsError("\n".join(errors))


def _in_variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _with_environment(
    raw: ini.Sections, environ: Mapping[str, str], prefix: str, known: Sequence[str]
) -> ini.Sections:
    """`raw` with the variables on top; a variable's section is one that is there, if any fits."""
    merged = {
        section: {name: list(values) for name, values in options.items()}
        for section, options in raw.items()
    }
    by_variable = {_in_variable(name): name for name in [*raw, *known]}
    for variable in sorted(environ):
        if not variable.startswith(f"{prefix}__"):
            continue
        section, _, name = variable.removeprefix(f"{prefix}__").rpartition("__")
        if not section or not name:
            raise SettingsError(
                f"environment {variable}: expected {prefix}__SECTION__OPTION, e.g."
                f" {prefix}__DATABASE__CONNECTION"
            )
        options = merged.setdefault(by_variable.get(section, section.lower()), {})
        value = ini.Value(environ[variable].strip(), f"environment {variable}")
        # Last, so that it wins, and with those of the same name.
        options.setdefault(name.lower(), []).append(value)
    return merged


def _canonical(raw: ini.Sections, known: Sequence[str]) -> ini.Sections:
    """`raw` with known sections spelled as known: case does not count, save for DEFAULT."""
    spelling = {name.lower(): name for name in known if name != "DEFAULT"}
    sections: ini.Sections = {}
    for section, options in raw.items():
        name = section if section == "DEFAULT" else spelling.get(section.lower(), section)
        into = sections.setdefault(name, {})
        for option_name, values in options.items():
            into.setdefault(option_name, []).extend(values)
    return sections


def _plain(
    sections: ini.Sections, repeatable: Collection[tuple[str, str]] = ()
) -> dict[str, dict[str, str]]:
    return {
        section: {
            name: "\n".join(value.text for value in values)
            if (section, name) in repeatable
            else values[-1].text
            for name, values in options.items()
        }
        for section, options in sections.items()
    }


def _group_of(model: type[BaseModel], field: str) -> type[BaseModel]:
    return cast("type[BaseModel]", model.model_fields[field].annotation)


_Places = dict[tuple[str, str], ini.Value]


def _document(
    model: type[BaseModel], groups: Mapping[str, str], sections: ini.Sections
) -> tuple[dict[str, dict[str, object]], _Places, tuple[RenamedOption, ...]]:
    """The texts by field, which assignments they came from, and those by former names.

    The places have an entry for the option's own name, and one for each former name that was
    found, so that neither is taken for unknown.
    """
    document: dict[str, dict[str, object]] = {}
    places: _Places = {}
    renamed: list[RenamedOption] = []
    for section, group_field in groups.items():
        values: dict[str, object] = document.setdefault(group_field, {})
        for name, field in _group_of(model, group_field).model_fields.items():
            found = sections.get(section, {}).get(name)
            for former in notes_of(field)["former"]:
                old_section, _, old_name = former.rpartition(".")
                old = sections.get(old_section or section, {}).get(old_name)
                if old is None:
                    continue
                places[old_section or section, old_name] = old[-1]
                renamed.append(
                    RenamedOption(old[-1].source, old_section or section, old_name, section, name)
                )
                found = found or old
            if found is None:
                continue
            places[section, name] = found[-1]
            text = found[-1].text
            # `option =` in a file is how templates leave an option unset.
            values[name] = None if text == "" and _may_be_none(field) else text
    return document, places, tuple(renamed)


def _may_be_none(field: FieldInfo) -> bool:
    return types.NoneType in get_args(field.annotation)


def _validate(
    model: type[T],
    groups: Mapping[str, str],
    document: dict[str, dict[str, object]],
    places: _Places,
) -> T:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        section_of = {field: section for section, field in groups.items()}
        problems = [
            _problem(model, section_of, places, cast("tuple[str, ...]", one["loc"]))
            for one in error.errors(include_url=False, include_context=False)
        ]
        unique = tuple(dict.fromkeys(problems))
        raise SettingsError("\n".join(str(problem) for problem in unique), unique) from None


def _problem(
    model: type[BaseModel],
    section_of: Mapping[str, str],
    places: _Places,
    location: tuple[str, ...],
) -> Problem:
    group_field, name = location[0], location[1]
    section = section_of[group_field]
    field = _group_of(model, group_field).model_fields[name]
    value = places.get((section, name))
    return Problem(
        file=value.source if value else "(default)",
        section=section,
        option=name,
        value=None if value is None or notes_of(field)["secret"] else value.text,
        expected=expected(field),
    )


def expected(field: FieldInfo) -> str:
    """What a value of this option looks like, in words."""
    said = notes_of(field)["expected"]
    words = said or _type_in_words(field.annotation, field.metadata)
    bounds = _bounds(field)
    return f"{words} {bounds}" if bounds else words


def _type_in_words(annotation: object, metadata: Sequence[object] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        (inner,) = [part for part in get_args(annotation) if part is not types.NoneType]
        return _type_in_words(inner)
    if origin is tuple:
        return "a list separated by commas"
    if origin is Annotated:
        return _type_in_words(get_args(annotation)[0], get_args(annotation)[1:])
    if any(isinstance(item, BeforeValidator) and item.func is _parse_bytes for item in metadata):
        return "a number of bytes, or one with KB, MB, GB or TB"
    words: Mapping[object, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(annotation, "a text")


def _bounds(field: FieldInfo) -> str:
    words: list[str] = []
    for constraint in field.metadata:
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below")):
            bound = getattr(constraint, name, None)
            if bound is not None:
                words.append(f"{word} {bound}")
    return " ".join(words)


def _leftovers(
    sections: ini.Sections,
    places: _Places,
    groups: Mapping[str, str],
    elsewhere: Collection[str],
    unused: Unused,
) -> tuple[tuple[UnknownOption, ...], tuple[UnusedOption, ...]]:
    unknown: list[UnknownOption] = []
    not_used: list[UnusedOption] = []
    for section, options in sections.items():
        if section in elsewhere:
            continue
        reasons = unused.get(section, unused.get(section.lower(), {}))
        for name, values in options.items():
            if (section, name) in places:
                continue
            file = values[-1].source
            match reasons.get(name, reasons.get("*")):
                case None:
                    unknown.append(UnknownOption(file, section, name))
                case Unsupported() as why:
                    kind = why.kind_of(values[-1].text)
                    not_used.append(UnusedOption(file, section, name, why.reason, kind))
                case reason:
                    not_used.append(UnusedOption(file, section, name, reason))
    return tuple(unknown), tuple(not_used)


_SUBSTITUTION = re.compile(r"\$(\$|\{?[_a-z])|\\\$")


def _substitutions(sections: ini.Sections) -> list[str]:
    return [
        f"{values[-1].source}: [{section}] {name} has a $, which is taken as it is; oslo.config"
        " would put another option's value there, or make one $ of two"
        for section, options in sections.items()
        for name, values in options.items()
        if _SUBSTITUTION.search(values[-1].text)
    ]


def _repetitions(sections: ini.Sections, *, apart_from: Collection[tuple[str, str]]) -> list[str]:
    def file(value: ini.Value) -> str:
        return value.source.rpartition(":")[0]

    return [
        f"{values[-1].source}: [{section}] {name} is given more than once in this file; the last"
        " one counts"
        for section, options in sections.items()
        for name, values in options.items()
        if len(values) > 1 and file(values[-1]) and file(values[-1]) == file(values[-2])
        if (section, name) not in apart_from
    ]
