"""A real RabbitMQ for tests: one node on loopback, of Debian's package, with its own epmd."""

import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

from dev import guard, places, ports
from dev.places import DevError

PACKAGE = "rabbitmq-server"
# Not /usr/sbin/rabbitmq-server: that one starts a node in Debian's own place, whatever it is asked.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER = "dev"
# With characters that a URL gives a meaning; of a slash, oslo.messaging makes no URL for kombu.
PASSWORD = "dev-secret:of@the?broker"
# Bytes; what is larger is refused.
LARGEST_MESSAGE = 1 << 20
_START_WITHIN_S = 90
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Rabbitmq:
    """One RabbitMQ on loopback that lets in USER with PASSWORD; `root` has what it keeps."""

    def __init__(self, root: Path, *, port: int) -> None:
        self.root = root
        self.port = port
        self.log = root / "output.log"
        self.guards: list[subprocess.Popen[bytes]] = []

    def url(self, *, port: int | None = None) -> str:
        """The address as oslo.messaging has it; `port` is that of something in between."""
        password = quote(PASSWORD, safe="")
        return f"rabbit://{USER}:{password}@{ports.LOOPBACK}:{port or self.port}/"

    def start(self, *, owner: int | None = None) -> None:
        """Start, or start again, and return when it lets clients in: about 5 s.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError.
        """
        account = places.unprivileged()
        self.root.mkdir(mode=0o755, exist_ok=True)
        for name, text in self._files().items():
            (self.root / name).write_text(text)
        places.give(self.root, account)
        # One that the node started itself would outlive it, for all users of the machine.
        epmd_port, distribution = ports.several_free(2)
        environment = {
            "PATH": _PATH,
            "HOME": str(self.root),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": ports.LOOPBACK,
        }
        epmd = guard.guarded(
            ["epmd"], log=self.log, environment=environment, owner=owner, account=account
        )
        self.guards.append(epmd)
        server = guard.guarded(
            [str(PROGRAM)],
            log=self.log,
            environment={**environment, **self._environment(distribution)},
            owner=owner,
            account=account,
        )
        self.guards.append(server)
        try:
            guard.await_start(
                server, self._answers, name="RabbitMQ", log=self.log, within_s=_START_WITHIN_S
            )
        except DevError:
            self.stop()
            raise

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard of the node: it ends when the node does."""
        return guard.started(self.guards[-1] if self.guards else None)

    def stop(self) -> None:
        """Stop it."""
        while self.guards:
            guard.stop(self.guards.pop())

    def _files(self) -> dict[str, str]:
        return {
            "rabbitmq.conf": f"""\
listeners.tcp.1 = {ports.LOOPBACK}:{self.port}
default_user = {USER}
default_pass = {PASSWORD}
vm_memory_high_watermark.absolute = 512MiB
disk_free_limit.absolute = 10MB
max_message_size = {LARGEST_MESSAGE}
log.console = true
log.file = false
log.console.level = warning
""",
            "advanced.config": "[].",
            "enabled_plugins": "[].",
        }

    def _environment(self, distribution: int) -> dict[str, str]:
        return {
            "RABBITMQ_NODENAME": "dev@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": ports.LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.root / "db"),
            "RABBITMQ_LOG_BASE": str(self.root / "log"),
            "RABBITMQ_PID_FILE": str(self.root / "pid"),
            "RABBITMQ_SCHEMA_DIR": str(self.root / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.root / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.root / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.root / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.root / "advanced.config"),
            # Few schedulers, and none that waits by turning round.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
                " -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def _answers(self) -> bool:
        try:
            with socket.create_connection((ports.LOOPBACK, self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False
