"""The real Glance: its environment, its settings, its database, and what serves it."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from dev import environments, guard, ports
from dev.keystone import PASSWORD, Keystone

_START_WITHIN_S = 300

_CONFIGURATION = """\
[DEFAULT]
log_file = {folder}/glance.log
use_stderr = false
worker_self_reference_url = {url}
enabled_backends = {backends}
enabled_import_methods = [glance-direct,web-download,copy-image]
{options}
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = {folder}/fast
[cheap]
filesystem_store_datadir = {folder}/cheap
[third]
filesystem_store_datadir = {folder}/third
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[database]
connection = {database}
[paste_deploy]
flavor = {flavor}
config_file = {paste}
[oslo_policy]
policy_file = {folder}/policy.yaml
[oslo_concurrency]
lock_path = {folder}/locks
[oslo_messaging_notifications]
driver = noop
"""

_BY_KEYSTONE = """\
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = glance
password = {password}
project_name = service
user_domain_name = Default
project_domain_name = Default
service_token_roles = service
service_token_roles_required = true
"""

# Whoever may speak to it says who he is, as our `trusted` flavor has it; and URIs of all ports can
# be named.
_BY_HEADERS = """\
[import_filtering_opts]
allowed_ports = []
"""
# As Glance's own sample for uWSGI has it (httpd/glance-api-uwsgi.ini), but for `http-socket`, which
# has no router between client and worker, and no log of requests.
_UWSGI = """\
[uwsgi]
module = glance.wsgi.api:application
http-socket = {address}
processes = {processes}
socket-timeout = 30
http-auto-chunked = true
http-chunked-input = true
http-raw-body = true
lazy-apps = true
add-header = Connection: close
buffer-size = 65535
thunder-lock = true
enable-threads = true
exit-on-reload = true
die-on-term = true
master = true
disable-logging = true
"""
_HEADERS_FLAVOR = """
[composite:glance-api-headers]
paste.composite_factory = glance.api:root_app_factory
/: by-headers

[pipeline:by-headers]
pipeline = versionnegotiation context rootapp
"""


@dataclass(frozen=True)
class Glance:
    """A running Glance; `process` is its guard."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        guard.stop(self.process)


def started(
    folder: Path,
    *,
    database: str,
    keystone: Keystone | None,
    backends: str = "fast:file, cheap:file",
    options: Mapping[str, str] | None = None,
    sections: str = "",
    processes: int | None = None,
) -> Glance:
    """Make its tables in an empty database and serve it; it ends with this process.

    uWSGI serves it with so many `processes`; without, waitress by four threads of one.

    Without Keystone it believes the headers `X-Project-Id`, `X-Roles` and so on of everybody who
    sends `X-Identity-Status: Confirmed`. `options` are more of [DEFAULT], `sections` more of the
    others.
    """
    binaries = environments.ready("glance")
    port = ports.any_free()
    url = f"http://{ports.LOOPBACK}:{port}"
    for name in ("fast", "cheap", "third", "staging", "tasks", "locks"):
        (folder / name).mkdir(parents=True)
    (folder / "policy.yaml").touch()
    paste = folder / "paste.ini"
    stock = binaries.parent / "etc" / "glance" / "glance-api-paste.ini"
    paste.write_text(stock.read_text() + _HEADERS_FLAVOR)
    configuration = _CONFIGURATION.format(
        folder=folder,
        url=url,
        database=database.replace("+asyncpg", "+psycopg2"),
        backends=backends,
        options="\n".join(f"{name} = {value}" for name, value in (options or {}).items()),
        flavor="headers" if keystone is None else "keystone",
        paste=paste,
    )
    configuration += (
        _BY_HEADERS
        if keystone is None
        else _BY_KEYSTONE.format(keystone=keystone.url, password=PASSWORD)
    )
    (folder / "glance-api.conf").write_text(configuration + sections)
    surroundings = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "OS_GLANCE_CONFIG_DIR": str(folder),
        "PYTHONWARNINGS": "ignore",
    }
    environments.run(
        [
            *(str(binaries / "glance-manage"), "--config-file", str(folder / "glance-api.conf")),
            *("db", "sync"),
        ],
        environment=surroundings,
    )
    log = folder / "output.log"
    address = f"{ports.LOOPBACK}:{port}"
    if processes is None:
        command = [
            *(str(binaries / "waitress-serve"), f"--listen={address}"),
            *("--threads=4", "glance.wsgi.api:application"),
        ]
    else:
        uwsgi = folder / "uwsgi.ini"
        uwsgi.write_text(_UWSGI.format(address=address, processes=processes))
        command = [str(binaries / "pyuwsgi"), "--ini", str(uwsgi)]
    process = guard.guarded(command, log=log, environment=surroundings)
    guard.await_start(
        process, lambda: _answers(url), name="Glance", log=log, within_s=_START_WITHIN_S
    )
    return Glance(url, process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/versions").status_code == 200
    except httpx.TransportError:
        return False
