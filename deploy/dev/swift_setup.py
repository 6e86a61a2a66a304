"""What is done inside Swift's own environment: write its configuration, serve it, be its cache.

Run by `dev.swift` with that environment's Python. Everything of Swift's is imported late, so that
`dev.swift` can use the rest from here. Nothing else of ours is imported.
"""
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

import json
import os
import pwd
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

SERVERS = ("account", "container", "object")
# account: {user: (key, groups)}
ACCOUNTS = {
    "test": {"tester": ("testing", ".admin"), "reader": ("testing-reader", "")},
    "test2": {"tester2": ("testing2", ".admin")},
    "admin": {"admin": ("admin", ".admin .reseller_admin")},
}
# The account of the service in Keystone: its own user, in project service.
KEYSTONE_USER = "swift"
RESELLER_ROLE = "ResellerAdmin"

_SWIFT = """\
[swift-hash]
swift_hash_path_prefix = dev
swift_hash_path_suffix = dev
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_file_size = {max_file_size}
"""
# The time-outs are for machines with too much to do: with Swift's own, a listing lacks an object
# now and then (no updater runs here), or a server that was slow is left alone for a minute.
_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {root}
devices = {root}/devices
mount_check = false
workers = 0
log_level = WARNING
log_address = {root}/no-syslog
disable_fallocate = true
fallocate_reserve = 0
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
"""
_SERVER = """\
[pipeline:main]
pipeline = healthcheck {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
replication_server = false
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
[filter:healthcheck]
use = egg:swift#healthcheck
"""
_PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl {auth} copy \
container-quotas account-quotas slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
conn_timeout = 30
node_timeout = 60
error_suppression_limit = 1000000
# Seconds, 60 by default. Swift forgets what it has cached before it sets a container's readers, so
# who reads meanwhile may have the old ones cached again.
recheck_container_existence = 1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = call:swift_setup:cache_filter
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""
_TEMPAUTH = """\
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
min_segment_size = {s3_minimum_part}
[filter:tempauth]
use = egg:swift#tempauth
"""
_KEYSTONE = """\
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone_url}
auth_url = {keystone_url}
auth_type = password
username = {keystone_user}
password = {keystone_password}
project_name = service
user_domain_id = default
project_domain_id = default
delay_auth_decision = true
cache = swift.cache
include_service_catalog = false
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
reseller_admin_role = {reseller_role}
"""


def configure(
    root: Path,
    *,
    ports: Mapping[str, int],
    keystone_url: str | None,
    keystone_password: str,
    max_file_size: int,
    s3_minimum_part: int,
) -> None:
    """Write all configuration files; everything that Swift keeps will be in `root`.

    `ports` are by server (see SERVERS) and by kind of proxy: `tempauth`, and `keystone` if there
    is a `keystone_url`.
    """
    (root / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    (root / "swift.conf").write_text(_SWIFT.format(max_file_size=max_file_size))
    user = pwd.getpwuid(os.geteuid()).pw_name

    def write(name: str, text: str, **values: object) -> None:
        common = _COMMON.format(port=ports[name], user=user, root=root)
        (root / f"{name}.conf").write_text(common + text.format(**values))

    for kind in SERVERS:
        write(kind, _SERVER, kind=kind)
    users = "".join(
        f"user_{account}_{name} = {key} {groups}\n"
        for account, accounts_users in ACCOUNTS.items()
        for name, (key, groups) in accounts_users.items()
    )
    write(
        "tempauth",
        _PROXY + _TEMPAUTH + users,
        auth="s3api tempauth",
        s3_minimum_part=s3_minimum_part,
    )
    if keystone_url is not None:
        write(
            "keystone",
            _PROXY + _KEYSTONE,
            auth="authtoken keystoneauth",
            keystone_url=keystone_url,
            keystone_user=KEYSTONE_USER,
            keystone_password=keystone_password,
            reseller_role=RESELLER_ROLE,
        )


def serve(root: Path, ports: Mapping[str, int]) -> int:
    """Serve until told to stop; all servers stop when one does. Return the exit code."""
    # `swift_dir` moves the rings only: policies and limits are read from this file on import.
    from swift.common import utils

    utils.SWIFT_CONF_FILE = str(root / "swift.conf")
    # Imported before the forks, the libraries are loaded once.
    import swift.account.server
    import swift.common.wsgi
    import swift.container.server
    import swift.obj.server
    import swift.proxy.server

    # For `call:swift_setup:cache_filter`; the folder of this script has a `swift` of its own.
    sys.modules["swift_setup"] = sys.modules["__main__"]
    _make_rings(root, ports)
    children: set[int] = set()
    for name in ports:
        child = os.fork()
        if child == 0:
            _end_with_parent()
            application = f"{name if name in SERVERS else 'proxy'}-server"
            configuration = str(root / f"{name}.conf")
            # Verbose: to our output as well, since nobody reads the system log.
            os._exit(swift.common.wsgi.run_wsgi(configuration, application, verbose=True))
        children.add(child)

    def stop(_signal: int, _frame: object) -> None:
        for child in children:
            os.kill(child, signal.SIGKILL)  # What they have acknowledged is on the disk.
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    ended, status = os.wait()
    children.discard(ended)
    for child in children:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) or 1


def cache_filter(_global: Mapping[str, str], **_local: str):
    """A paste filter that gives the requests of this process a memcached of their own.

    tempauth keeps its tokens there, so it cannot do without.
    """
    cache = Cache()

    def with_cache(application):
        def handle(environ, start_response):
            environ["swift.cache"] = cache
            return application(environ, start_response)

        return handle

    return with_cache


class Cache:
    """What Swift uses of memcached, in a dictionary; values go through JSON as they do there."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, str | bytes]] = {}

    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        """Keep a value for `time` seconds, see `_deadline`."""
        # keystonemiddleware's values are bytes.
        kept = value if isinstance(value, bytes) else json.dumps(value)
        self._kept[key] = (_deadline(time), kept)

    def get(self, key, raise_on_error=False):
        """A kept value or None."""
        deadline, value = self._kept.get(key, (0, "null"))
        if deadline > time.time():
            return value if isinstance(value, bytes) else json.loads(value)
        self._kept.pop(key, None)
        return None

    def incr(self, key, delta=1, time=0):
        """Add to a kept number, which begins at 0 and never falls below; return it."""
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key, delta=1, time=0):
        """See incr."""
        return self.incr(key, -int(delta), time)

    def delete(self, key, server_key=None):
        """Forget a value."""
        self._kept.pop(key, None)

    def set_multi(self, mapping, server_key, serialize=True, time=0, min_compress_len=0):
        """Keep several values."""
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys, server_key):
        """Kept values or None, in the order of the keys."""
        return [self.get(key) for key in keys]


def _deadline(seconds: float) -> float:
    # Like memcached: none, so many seconds from now, or from 30 days on a time of day.
    if not seconds:
        return float("inf")
    return seconds if seconds > 30 * 24 * 3600 else time.time() + seconds


def _make_rings(root: Path, ports: Mapping[str, int]) -> None:
    # swift-ring-builder would be started nine times for this.
    from swift.common.ring import RingBuilder

    for kind in SERVERS:
        builder = RingBuilder(4, 1, 0)
        builder.add_dev(
            {
                "device": "d1",
                "ip": "127.0.0.1",
                "meta": "",
                "port": ports[kind],
                "region": 1,
                "replication_ip": "127.0.0.1",
                "replication_port": ports[kind],
                "weight": 1,
                "zone": 1,
            }
        )
        builder.rebalance()
        builder.get_ring().save(str(root / f"{kind}.ring.gz"))


def _end_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
