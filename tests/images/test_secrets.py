"""What must stay secret, planted everywhere and looked for in all that the daemon tells."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx

from tests.images.daemon import Daemon
from tests.images.service import configuration

CANARY = "canary"


class Parrot(BaseHTTPRequestHandler):
    """A broken Keystone: whatever it is told, it answers with that, and with `status`."""

    status = 200

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._answer(str(self.headers).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self, body: bytes) -> None:
        self.send_response(Parrot.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Subject-Token", f"{CANARY}-of-the-service")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def parrot() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v3"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_secrets_are_told_nobody(postgres_url: str, tmp_path: Path) -> None:
    refused = re.sub(r"//.*@", f"//postgres:{CANARY}-of-the-database@", postgres_url)
    told: list[str] = []
    with parrot() as keystone:
        environ = configuration(
            refused,
            tmp_path,
            DEFAULT__WORKERS="1",
            DEFAULT__DEBUG="true",
            JOBS__WITH_WORKER="true",
            PASTE_DEPLOY__FLAVOR="keystone",
            KEYSTONE_AUTHTOKEN__AUTH_URL=keystone,
            KEYSTONE_AUTHTOKEN__USERNAME="images",
            KEYSTONE_AUTHTOKEN__PASSWORD=f"{CANARY}-of-keystone",
            KEYSTONE_AUTHTOKEN__PROJECT_NAME="service",
        )
        daemon = Daemon(environ, tmp_path / "log")
        daemon.start()
        try:
            with httpx.Client(base_url=daemon.url) as http:
                for Parrot.status in (401, 201, 500):
                    for token in (f"{CANARY}-{Parrot.status}", f"gAAAAAB{CANARY * 5}", CANARY * 99):
                        headers = {"X-Auth-Token": token, "X-Service-Token": token, "Cookie": token}
                        answer = http.get("/v2/images", headers=headers)
                        assert answer.status_code == 503
                        told += [str(answer.headers), answer.text]
                answer = http.get("/readyz", headers={"Authorization": f"Basic {CANARY}"})
                assert answer.status_code == 503
                told += [str(answer.headers), answer.text]
            log = daemon.log.read_text()
            port = re.search(r"Metrics on \S+ port (\d+)", log)
            assert port is not None
            told.append(httpx.get(f"http://127.0.0.1:{port[1]}/metrics").text)
        finally:
            daemon.stop()
    told.append(daemon.log.read_text())
    # That the secrets were used shows in the complaints about them.
    assert "password authentication failed" in told[-1]
    assert "this service's own credentials" in told[-1]
    assert [text for text in told if CANARY in text] == []
