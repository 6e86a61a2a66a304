"""The real Glare: its environment, its settings, its database, and eventlet to serve it."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from dev import environments, guard, ports
from dev.keystone import PASSWORD, Keystone

from tests import databases

TYPES = (
    *("heat_templates", "heat_environments", "murano_packages", "tosca_templates", "images"),
    # Glare's own tests have it, and Glare's package has its tests.
    "sample_artifact",
)

_START_WITHIN_S = 300

_CONFIGURATION = """\
[DEFAULT]
bind_host = {host}
bind_port = {port}
workers = {workers}
log_file = {folder}/glare.log
lock_path = {folder}
enabled_artifact_types = {types}
custom_artifact_types_modules = glare.tests.sample_artifact
{options}
[glance_store]
stores = file,http
default_store = file
filesystem_store_datadir = {folder}/artifacts
[database]
connection = {database}
sqlite_synchronous = false
[paste_deploy]
flavor = {flavor}
config_file = {paste}
[oslo_policy]
policy_file = {folder}/policy.yaml
[oslo_messaging_notifications]
driver = noop
"""

_BY_KEYSTONE = """\
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = glare
password = {password}
project_name = service
user_domain_name = Default
project_domain_name = Default
"""


@dataclass(frozen=True)
class Glare:
    """A running Glare; `process` is its guard."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        guard.stop(self.process)


async def started(
    folder: Path,
    *,
    database: str | None = None,
    keystone: Keystone | None = None,
    flavor: Literal["noauth", ""] = "noauth",
    options: Mapping[str, str] | None = None,
    sections: str = "",
    workers: int = 1,
) -> Glare:
    """Make its tables in an empty database and serve it; it ends with this process.

    Without a `database` it is a file of SQLite's, as in Glare's own tests: of the databases that we
    have only that one lets it do all it can. On PostgreSQL, where `database` is, lists that are
    sorted by a field of the type's own are a 500.

    Without Keystone the flavor `noauth` believes the headers `X-Project-Id`, `X-Roles` and so on of
    everybody who sends `X-Identity-Status: Confirmed`, and the flavor without a name the tokens
    `user:project:role,role`. `options` are more of [DEFAULT], `sections` more of the others.
    """
    binaries = environments.ready("glare")
    port = ports.any_free()
    url = f"http://{ports.LOOPBACK}:{port}"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "policy.yaml").touch()
    configuration = _CONFIGURATION.format(
        folder=folder,
        host=ports.LOOPBACK,
        port=port,
        workers=workers,
        types=",".join(TYPES),
        database=(database or f"sqlite:///{folder}/glare.sqlite").replace("+asyncpg", "+psycopg2"),
        options="\n".join(f"{name} = {value}" for name, value in (options or {}).items()),
        flavor=flavor if keystone is None else "keystone",
        paste=binaries.parent / "etc" / "glare" / "glare-paste.ini",
    )
    if keystone is not None:
        configuration += _BY_KEYSTONE.format(keystone=keystone.url, password=PASSWORD)
    settings = folder / "glare.conf"
    settings.write_text(configuration + sections)
    surroundings = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
    }
    environments.run(
        [str(binaries / "glare-db-manage"), "--config-file", str(settings), "upgrade"],
        environment=surroundings,
    )
    if database is not None:
        await _mend(database)
    log = folder / "output.log"
    process = guard.guarded(
        [str(binaries / "glare-api"), "--config-file", str(settings)],
        log=log,
        environment=surroundings,
    )
    guard.await_start(
        process, lambda: _answers(url), name="Glare", log=log, within_s=_START_WITHIN_S
    )
    return Glare(url, process)


async def _mend(database: str) -> None:
    """Let Glare do what only SQLite allows: it deletes artifacts before what refers to them, and
    its names of quotas are longer than their column.
    """
    async with databases.connection(database) as server:
        await server.execute(
            """
            DO $$
            DECLARE key record;
            BEGIN
                FOR key IN
                    SELECT conrelid::regclass AS of_table, conname AS name,
                           pg_get_constraintdef(oid) AS definition
                    FROM pg_constraint WHERE contype = 'f'
                LOOP
                    EXECUTE format(
                        'ALTER TABLE %1$s DROP CONSTRAINT %2$I, '
                        'ADD CONSTRAINT %2$I %3$s ON DELETE CASCADE',
                        key.of_table, key.name, key.definition
                    );
                END LOOP;
            END $$;
            ALTER TABLE glare_quotas ALTER COLUMN quota_name TYPE varchar(255);
            """
        )


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/versions").status_code == 300
    except httpx.TransportError:
        return False
