"""`make run`: PostgreSQL, Keystone and both services on loopback, until Ctrl-C.

Everything they keep is in `.dev` and is there again at the next start.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from dev import artifactclient, environments, guard, ports, postgres, services, terminal
from dev.keystone import Keystone
from dev.places import STATE
from dev.ports import LOOPBACK, Port
from dev.services import SERVICES, Service
from dev.terminal import CLOUDS, Running

RUN = STATE / "run"
FOR_A_DEVELOPER = {"log_line_prefix": "%m [%p] %d ", "jit": "off"}
SECRET_KEY = STATE / "images-secret-key"


def _start(running: ExitStack) -> None:
    running.enter_context(terminal.only_one())
    RUN.mkdir(parents=True, exist_ok=True)
    wanted = ports.wanted()
    for port in wanted.values():
        ports.require_free(port)
    installed = install()

    began = time.monotonic()
    database = postgres.Server(
        installed,
        data=installed.state / "postgres",
        port=wanted["postgres"].number,
        options=FOR_A_DEVELOPER,
    )
    keystone = Keystone(
        STATE / "keystone",
        port=wanted["keystone"].number,
        endpoints={
            "image": f"http://{LOOPBACK}:{wanted['images'].number}",
            "artifact": f"http://{LOOPBACK}:{wanted['artifacts'].number}",
        },
    )
    print("Starting PostgreSQL and Keystone ...", flush=True)
    running.callback(database.stop)
    running.callback(keystone.stop)
    with ThreadPoolExecutor() as pool:
        for started in (pool.submit(database.start), pool.submit(keystone.start)):
            started.result()

    print("Starting the services ...", flush=True)
    daemons: list[Running] = []
    for name in SERVICES:
        configuration = _configure(name, wanted, database, keystone)
        database.ensure_database(f"diptych_{name}")
        services.upgrade(name, configuration)
        daemons.append(_daemon(name, configuration, running))
    for daemon in daemons:
        port = wanted[daemon.name]
        services.await_answer(daemon.guard, port.number, name=port.purpose, log=daemon.log)
    clouds = terminal.write_clouds(RUN, keystone)
    _announce(wanted, installed, keystone, clouds, took_s=time.monotonic() - began)
    watched = [
        *daemons,
        Running("PostgreSQL", database.log, database.process),
        Running("Keystone", keystone.log, keystone.process),
    ]
    terminal.watch(watched)


def install() -> postgres.Binaries:
    """Install what isn't of a deployment's own parts: PostgreSQL, Keystone and the clients."""
    print("Installing PostgreSQL, Keystone and the clients, if they aren't yet ...", flush=True)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(environments.ready, name) for name in ("keystone", "clients")]
        plug_in = pool.submit(artifactclient.installed)
        installed = postgres.binaries()
        for other in (*others, plug_in):
            other.result()
    return installed


def _configure(
    name: Service, wanted: Mapping[str, Port], database: postgres.Server, keystone: Keystone
) -> Path:
    """Write the configuration file of one service."""
    written = services.sections(
        name,
        keystone_url=keystone.url,
        database_url=database.url(f"diptych_{name}"),
        port=wanted[name].number,
        metrics_port=wanted[f"{name}_metrics"].number,
    )
    # A second one of images, so that there is something to import into two and to copy between.
    folders = {"fast": STATE / name} | (
        {"cheap": STATE / "images-cheap"} if name == "images" else {}
    )
    for store, folder in folders.items():
        folder.mkdir(mode=0o700, exist_ok=True)
        written[store] = {"filesystem_store_datadir": folder}
    written["DEFAULT"]["graceful_timeout"] = 5
    written["DEFAULT"]["enabled_backends"] = ", ".join(f"{store}:file" for store in folders)
    written["glance_store"] = {"default_backend": "fast"}
    if name == "images":
        written["jobs"] = {"secret_keys": services.secret_key(SECRET_KEY)}
    return services.configure(RUN / f"{name}.conf", written)


def _daemon(name: Service, configuration: Path, running: ExitStack) -> Running:
    log = RUN / f"{name}.log"
    log.unlink(missing_ok=True)
    process = services.start(name, "api", configuration, log=log)
    running.callback(guard.stop, process)
    return Running(name, log, process)


def _announce(
    wanted: Mapping[str, Port],
    installed: postgres.Binaries,
    keystone: Keystone,
    clouds: Path,
    *,
    took_s: float,
) -> None:
    clients = environments.ENVIRONMENTS / "clients" / "bin"
    elsewhere = ""
    if installed.state != STATE:
        elsewhere = f"; its files are in {installed.state}, where {_name(installed)} can reach them"
    print(
        f"""
Diptych is up ({took_s:.1f} s).

  images       http://{LOOPBACK}:{wanted["images"].number}
  artifacts    http://{LOOPBACK}:{wanted["artifacts"].number}
  keystone     {keystone.url}
  postgresql   {LOOPBACK}:{wanted["postgres"].number}{elsewhere}
  metrics      http://{LOOPBACK}:{wanted["images_metrics"].number}/metrics (images)
               http://{LOOPBACK}:{wanted["artifacts_metrics"].number}/metrics (artifacts)
  logs, configuration files   {RUN}

In another terminal:

  export OS_CLIENT_CONFIG_FILE={shlex.quote(str(clouds))}
  export PATH={shlex.quote(str(clients))}:$PATH
  export PYTHONPATH={shlex.quote(str(artifactclient.HOME))}
  openstack --os-cloud diptych image create --file disk.qcow2 \\
      --disk-format qcow2 --container-format bare demo
  openstack --os-cloud diptych image list
  openstack --os-cloud diptych image save --file copy.qcow2 demo
  openstack --os-cloud diptych image create --import --file disk.qcow2 \\
      --disk-format qcow2 --container-format bare imported
  openstack --os-cloud diptych artifact create images demo \\
      -p disk_format=qcow2 -p container_format=bare
  openstack --os-cloud diptych artifact upload images demo --file disk.qcow2 --progress
  openstack --os-cloud diptych artifact list images
  openstack --os-cloud diptych artifact download images demo --file copy.qcow2

Clouds: {", ".join(f"{cloud} (project {project})" for cloud, (_, project) in CLOUDS.items())}.
For `glance`, which reads no clouds.yaml:  . {shlex.quote(str(RUN / "openrc"))}

Ctrl-C stops everything; the data stays.""",
        flush=True,
    )


def _name(installed: postgres.Binaries) -> str:
    return installed.account.name if installed.account else "you"


if __name__ == "__main__":
    sys.exit(terminal.run("make run", _start))
