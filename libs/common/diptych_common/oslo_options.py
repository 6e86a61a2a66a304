"""Options of OpenStack's own libraries that have no effect here, and why.

Source: the option lists of oslo.log, oslo.db, oslo.messaging, oslo.middleware, oslo.policy,
oslo.concurrency, oslo.reports, oslo.service, osprofiler, keystonemiddleware and glance_store, as
Glance 33.0 and Glare 5.0.1 have them.
"""

from typing import Final

from diptych_common.settings import Unsupported, Unused

_ONE_DATABASE = "there is one database, PostgreSQL"
_RETRIES = "a lost connection is replaced once; beyond that a request is answered 503"
_LIBRARY = "the library that it tuned is not used"
_MEMORY = "tokens are remembered by each process"
_JOURNAL = "standard error goes to the journal"
_FORMAT = "the format is fixed"
_REOPENED = "the file is opened again when it was moved away"
_UNLIMITED = "log lines are not limited"
_NOBODY = "rules that ask another server are refused"
_PKI = "PKI tokens are gone"
_PROXY = "a proxy in front ends TLS"
_BODIES = "documents are limited, and data by the service's own options"
_SYSTEM = "the system's own setting counts"
_TRACING = "traces are OpenTelemetry's, see [tracing]"

OSLO: Final[Unused] = {
    "DEFAULT": {
        "backlog": "the system's own limit counts",
        "tcp_keepidle": _SYSTEM,
        "max_header_line": "the server's own limit counts",
        "http_keepalive": Unsupported("connections are kept", harmless=("true",)),
        "client_socket_timeout": "a proxy in front ends idle connections",
        "secure_proxy_ssl_header": "see enable_proxy_headers_parsing of [oslo_middleware]",
        "api_paste_config": "the middleware is fixed",
        "wsgi_log_format": _FORMAT,
        "wsgi_default_pool_size": "see workers",
        "wsgi_keep_alive": Unsupported("connections are kept", harmless=("true",)),
        "wsgi_server_debug": "see debug",
        **dict.fromkeys(("cert_file", "key_file", "ca_file"), Unsupported(_PROXY)),
        "pydev_worker_debug_host": "a debugger is attached from outside",
        "pydev_worker_debug_port": "a debugger is attached from outside",
        **dict.fromkeys(
            (
                *("executor_thread_pool_size", "rpc_thread_pool_size", "rpc_response_timeout"),
                "rpc_backend",
                *("rpc_ping_enabled", "rpc_conn_pool_size", "conn_pool_min_size", "conn_pool_ttl"),
            ),
            _LIBRARY,
        ),
        "lock_path": "processes meet in the database",
        **dict.fromkeys(
            ("log_config_append", "log_config", "log-config"),
            Unsupported("logging is set up by debug, use_json and log_file"),
        ),
        **dict.fromkeys(
            (
                "logging_context_format_string",
                "logging_default_format_string",
                "logging_debug_format_suffix",
                "logging_exception_prefix",
                "logging_user_identity_format",
                "log_date_format",
                "instance_format",
                "instance_uuid_format",
            ),
            _FORMAT,
        ),
        "log_color": Unsupported(_FORMAT, harmless=("false",)),
        "default_log_levels": "debug raises the service's own level only",
        "use_stderr": "unset log_file logs to standard error",
        "use_syslog": Unsupported(_JOURNAL, harmless=("false",)),
        "use_journal": _JOURNAL,
        "syslog_log_facility": _JOURNAL,
        "use_eventlog": Unsupported(_JOURNAL, harmless=("false",)),
        "log_options": "see `config show`",
        "log_rotation_type": Unsupported(_REOPENED, harmless=("none",)),
        **dict.fromkeys(
            (
                *("log_rotate_interval", "log_rotate_interval_type"),
                *("max_logfile_count", "max_logfile_size_mb"),
            ),
            _REOPENED,
        ),
        "watch_log_file": "the file is always watched",
        "publish_errors": Unsupported("errors are in the log", harmless=("false",)),
        "rate_limit_burst": _UNLIMITED,
        "rate_limit_except_level": _UNLIMITED,
        "rate_limit_interval": Unsupported(_UNLIMITED, harmless=("0",)),
        "sql_max_retries": _RETRIES,
        "sql_retry_interval": _RETRIES,
        "sql_connection_debug": Unsupported("see debug", harmless=("0",)),
        "sql_connection_trace": Unsupported("see debug", harmless=("false",)),
        "db_backend": Unsupported(_ONE_DATABASE, harmless=("sqlalchemy",)),
        "max_request_body_size": _BODIES,
        "osapi_max_request_body_size": _BODIES,
        "fatal_deprecations": "there is nothing deprecated",
        "verbose": "see debug",
    },
    "database": {
        "asyncio_connection": _ONE_DATABASE,
        "asyncio_slave_connection": Unsupported(_ONE_DATABASE),
        "slave_connection": Unsupported(_ONE_DATABASE),
        "backend": Unsupported(_ONE_DATABASE, harmless=("sqlalchemy",)),
        "use_tpool": _LIBRARY,
        "connection_debug": Unsupported("see debug", harmless=("0",)),
        "connection_trace": Unsupported("see debug", harmless=("false",)),
        "connection_parameters": Unsupported("they are part of connection"),
        "min_pool_size": "connections are opened when they are needed",
        **dict.fromkeys(
            (
                *("db_inc_retry_interval", "db_max_retries", "db_max_retry_interval"),
                *("db_retry_interval", "max_retries", "retry_interval", "use_db_reconnect"),
                *("sql_max_retries", "reconnect_interval"),
            ),
            _RETRIES,
        ),
        **dict.fromkeys(
            (
                *("mysql_enable_ndb", "mysql_sql_mode", "mysql_wsrep_sync_wait"),
                *("sqlite_synchronous", "synchronous_reader"),
            ),
            _ONE_DATABASE,
        ),
    },
    "keystone_authtoken": {
        "auth_version": Unsupported(
            "version 3 is what Keystone has", harmless=("3", "v3", "3.0", "v3.0")
        ),
        "auth_section": Unsupported("the options are read from this section only"),
        **dict.fromkeys(
            (
                *("memcached_servers", "memcache_servers", "memcache_security_strategy"),
                "memcache_secret_key",
                *("memcache_pool_dead_retry", "memcache_pool_maxsize"),
                *("memcache_pool_socket_timeout", "memcache_pool_unused_timeout"),
                *("memcache_pool_conn_get_timeout", "memcache_use_advanced_pool"),
                *("memcache_sasl_enabled", "memcache_username", "memcache_password"),
                *("memcache_tls_enabled", "memcache_tls_cafile", "memcache_tls_certfile"),
                *("memcache_tls_keyfile", "memcache_tls_allowed_ciphers", "cache"),
                "revocation_cache_time",
            ),
            _MEMORY,
        ),
        "enforce_token_bind": Unsupported(
            "tokens are not bound", harmless=("disabled", "permissive")
        ),
        "include_service_catalog": "the catalog is not needed",
        "hash_algorithms": _PKI,
        "signing_dir": _PKI,
        "check_revocations_for_cached": _PKI,
        **dict.fromkeys(
            ("auth_host", "auth_port", "auth_protocol", "auth_admin_prefix", "identity_uri"),
            Unsupported("see auth_url"),
        ),
        "admin_token": Unsupported("see auth_type"),
    },
    "oslo_policy": dict.fromkeys(
        (
            *("remote_content_type", "remote_ssl_verify_server_crt", "remote_ssl_ca_crt_file"),
            *("remote_ssl_client_crt_file", "remote_ssl_client_key_file", "remote_timeout"),
        ),
        _NOBODY,
    ),
    "oslo_middleware": {"max_request_body_size": _BODIES},
    "healthcheck": {"backends": "the checks are fixed; see /readyz"},
    "paste_deploy": {"config_file": "the middleware is fixed"},
    "oslo_concurrency": {"*": "processes meet in the database"},
    "oslo_messaging_amqp": {"*": _LIBRARY},
    "oslo_messaging_kafka": {"*": _LIBRARY},
    "oslo_messaging_notifications": {"retry": "events wait until they are delivered"},
    "oslo_messaging_rabbit": {
        **dict.fromkeys(
            (
                *("conn_pool_min_size", "conn_pool_ttl", "direct_mandatory_flag"),
                *("enable_cancel_on_failover", "heartbeat_in_pthread", "heartbeat_rate"),
                *("hostname", "kombu_compression", "kombu_failover_strategy"),
                *("kombu_missing_consumer_retry_timeout", "kombu_reconnect_timeout"),
                "kombu_reconnect_delay",
                *("kombu_reconnect_splay", "processname", "rabbit_interval_max"),
                *("rabbit_login_method", "rabbit_qos_prefetch_count", "rabbit_retry_backoff"),
                *("rabbit_retry_interval", "rabbit_stream_fanout", "rabbit_transient_queues_ttl"),
                *("rabbit_transient_quorum_queue", "rpc_conn_pool_size", "use_queue_manager"),
            ),
            _LIBRARY,
        ),
        **dict.fromkeys(
            ("ssl_version", "kombu_ssl_version"),
            Unsupported("the newest that both sides know is taken"),
        ),
        "ssl_enforce_fips_mode": Unsupported("the system's library decides", harmless=("false",)),
    },
    "oslo_messaging_zmq": {"*": _LIBRARY},
    "oslo_reports": {"*": _LIBRARY},
    "profiler": {
        "enabled": Unsupported(_TRACING, harmless=("false",)),
        "*": _TRACING,
    },
    "profiler_jaeger": {"*": _TRACING},
    "profiler_otlp": {"*": _TRACING},
    "ssl": {
        **dict.fromkeys(("ca_file", "cert_file", "key_file"), Unsupported(_PROXY)),
        "*": _PROXY,
    },
    "wsgi": {"*": "see workers and [jobs]"},
    # What the lists of glance_store call the sections of stores, after the type of each.
    **{
        section: {"*": "stores have sections of the names that enabled_backends gives them"}
        for section in (
            *("file", "glance.store.http.store", "glance.store.rbd.store"),
            *("glance.store.s3.store", "glance.store.swift.store"),
            "glance.store.vmware_datastore.store",
        )
    },
}
