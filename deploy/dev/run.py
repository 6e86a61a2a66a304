"""`make run`: PostgreSQL, Keystone and both services on loopback, until Ctrl-C.

Everything they keep is in `.dev` and is there again at the next start.
"""

import base64
import fcntl
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev import artifactclient, environments, guard, ports, postgres
from dev.keystone import PASSWORD, Keystone
from dev.places import STATE, VENV, DevError
from dev.ports import LOOPBACK, Port

RUN = STATE / "run"
SECRET_KEY = STATE / "images-secret-key"
_START_WITHIN_S = 60
_FOR_A_DEVELOPER = {"log_line_prefix": "%m [%p] %d ", "jit": "off"}
# cloud: (user, project); the first is the one that openrc speaks for.
CLOUDS = {
    "diptych": ("demo", "demo"),
    "diptych-other": ("other", "other"),
    "diptych-admin": ("admin", "admin"),
}


class _Stopped(Exception):
    """Ctrl-C, or a signal that means the same."""


@dataclass(frozen=True, slots=True)
class _Running:
    name: str
    log: Path
    guard: subprocess.Popen[bytes]


def main() -> int:
    """Start all, say where it is, wait; the exit code."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _stop)
    try:
        with ExitStack() as running:
            _start(running)
    except _Stopped:
        print("\nStopped. `make run` brings it all back as it was.")
        return 0
    except DevError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


def _stop(_signal: int, _frame: object) -> None:
    # A second Ctrl-C must not interrupt the stopping; who is impatient can still use SIGKILL.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise _Stopped


def _start(running: ExitStack) -> None:
    running.enter_context(only_one())
    wanted = ports.wanted()
    for port in wanted.values():
        ports.require_free(port)
    installed = _install()

    began = time.monotonic()
    database = postgres.Server(
        installed,
        data=installed.state / "postgres",
        port=wanted["postgres"].number,
        options=_FOR_A_DEVELOPER,
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
    configurations = {
        name: _configure(name, wanted, database, keystone) for name in ("images", "artifacts")
    }
    for name, configuration in configurations.items():
        database.ensure_database(f"diptych_{name}")
        _upgrade(f"diptych-{name}", configuration)
    daemons = [_daemon(name, path, running) for name, path in configurations.items()]
    for daemon in daemons:
        _await(daemon, wanted[daemon.name])
    clouds = _write_clouds(keystone)
    _announce(wanted, installed, keystone, clouds, took_s=time.monotonic() - began)
    watched = [
        *daemons,
        _Running("PostgreSQL", database.log, database.process),
        _Running("Keystone", keystone.log, keystone.process),
    ]
    _watch(watched)


@contextmanager
def only_one() -> Generator[None]:
    """Be the only one who uses what `make run` keeps; DevError if another does."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (STATE / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DevError("it is running already, in another terminal") from None
        yield


def _install() -> postgres.Binaries:
    print("Installing PostgreSQL, Keystone and the clients, if they aren't yet ...", flush=True)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(environments.ready, name) for name in ("keystone", "clients")]
        plug_in = pool.submit(artifactclient.installed)
        installed = postgres.binaries()
        for other in (*others, plug_in):
            other.result()
    return installed


def _configure(
    name: str, wanted: Mapping[str, Port], database: postgres.Server, keystone: Keystone
) -> Path:
    """Write the configuration file of one service, in Glance's words, as an operator would."""
    user, kind = {"images": ("glance", "image"), "artifacts": ("glare", "artifact")}[name]
    sections: dict[str, dict[str, object]] = {
        "DEFAULT": {
            "bind_host": LOOPBACK,
            "bind_port": wanted[name].number,
            "workers": 2,
            "graceful_timeout": 5,
        },
        "keystone_authtoken": {
            "www_authenticate_uri": keystone.url,
            "auth_url": keystone.url,
            "auth_type": "password",
            "username": user,
            "password": PASSWORD,
            "project_name": "service",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
            "service_type": kind,
            "service_token_roles": "service",
            "service_token_roles_required": "true",
        },
        "paste_deploy": {"flavor": "keystone"},
        "metrics": {"bind_port": wanted[f"{name}_metrics"].number},
    }
    # A second one of images, so that there is something to import into two and to copy between.
    folders = {"fast": STATE / name} | (
        {"cheap": STATE / "images-cheap"} if name == "images" else {}
    )
    for store, folder in folders.items():
        folder.mkdir(mode=0o700, exist_ok=True)
        sections[store] = {"filesystem_store_datadir": folder}
    sections["DEFAULT"]["enabled_backends"] = ", ".join(f"{store}:file" for store in folders)
    sections["glance_store"] = {"default_backend": "fast"}
    sections["database"] = {"connection": database.url(f"diptych_{name}")}
    if name == "images":
        sections["jobs"] = {"secret_keys": _secret_key()}
    text = "\n".join(
        f"[{section}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for section, options in sections.items()
    )
    return _write(RUN / f"{name}.conf", "# Written anew by each `make run`.\n\n" + text)


def _secret_key() -> str:
    """A key of this checkout's own: what one run sealed, the next one opens."""
    if not SECRET_KEY.exists():
        _write(SECRET_KEY, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return SECRET_KEY.read_text()


def _upgrade(program: str, configuration: Path) -> None:
    command = [str(VENV / "bin" / program), "db", "upgrade", "--config-file", str(configuration)]
    environments.run(command)


def _daemon(name: str, configuration: Path, running: ExitStack) -> _Running:
    log = RUN / f"{name}.log"
    log.unlink(missing_ok=True)
    process = guard.guarded(
        [str(VENV / "bin" / f"diptych-{name}"), "api", "--config-file", str(configuration)],
        log=log,
        environment={"PATH": f"{VENV / 'bin'}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    running.callback(guard.stop, process)
    return _Running(name, log, process)


def _await(daemon: _Running, port: Port) -> None:
    url = f"http://{LOOPBACK}:{port.number}/healthcheck"
    guard.await_start(
        daemon.guard,
        lambda: ports.answers(url),
        name=port.purpose,
        log=daemon.log,
        within_s=_START_WITHIN_S,
    )


def _write_clouds(keystone: Keystone) -> Path:
    """Write clouds.yaml, and openrc for clients that don't read that; return the former's path."""
    lines = ["# Written anew by each `make run`.", "clouds:"]
    for cloud, (user, project) in CLOUDS.items():
        lines += [
            f"  {cloud}:",
            "    auth:",
            f"      auth_url: {keystone.url}",
            f"      username: {user}",
            f"      password: {PASSWORD}",
            f"      project_name: {project}",
            "      user_domain_name: Default",
            "      project_domain_name: Default",
            "    region_name: RegionOne",
            "    identity_api_version: 3",
        ]
    user, project = CLOUDS["diptych"]
    variables = {
        "OS_AUTH_URL": keystone.url,
        "OS_USERNAME": user,
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
        "OS_IDENTITY_API_VERSION": "3",
    }
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    _write(RUN / "openrc", "\n".join(exports) + "\n")
    return _write(RUN / "clouds.yaml", "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


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


def _watch(watched: list[_Running]) -> None:
    """Wait for a signal, or for one of them to end, which it should not: DevError."""
    while True:
        for one in watched:
            if one.guard.poll() is not None:
                raise DevError(
                    f"{one.name} has ended, so the rest was stopped; {guard.last_words(one.log)}"
                )
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
