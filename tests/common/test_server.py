"""The server as operators and clients meet it: a program with two workers on loopback."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from diptych_common.connections import MAX_DISCARDED, MAX_HEAD
from diptych_common.server import ServerError, serve

from tests.common.served_app import START

PROGRAM = Path(__file__).with_name("served_app.py")
MIB = 1 << 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def eventually(holds: Callable[[], object], *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {holds}"
        time.sleep(0.05)


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    metrics_port: int
    log: Path

    def connect(self, timeout: float = 20) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def connected(self) -> closing[http.client.HTTPConnection]:
        return closing(self.connect())

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, *pieces: bytes) -> bytes:
        """All that comes back for these bytes, until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            with suppress(ConnectionError):
                for piece in pieces:
                    client.sendall(piece)
            return everything(client)

    def metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metric(self, series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def workers(self) -> set[int]:
        return {
            pid
            for pid in children(self.process.pid)
            if Path(f"/proc/{pid}/comm").read_text() != "diptych-metrics\n"
        }

    def pids(self) -> set[int]:
        """Workers that answer now."""
        return {json.loads(self.get("/sleep/0")[1])["pid"] for _ in range(20)}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def everything(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            received += piece
    return received


def children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


@contextmanager
def serving(folder: Path, **environment: str) -> Generator[Server]:
    port, metrics_port, log = free_port(), free_port(), folder / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "127.0.0.1", str(port), str(metrics_port)],
            stdout=output,
            stderr=output,
            text=True,
            env={**os.environ, **environment},
        )
    server = Server(process, port, metrics_port, log)

    workers = int(environment.get("SERVED_APP_PROCESSES", "2"))

    def all_answer() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            return len(server.pids()) == workers
        return False

    try:
        eventually(all_answer, within_s=60)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_a_large_blob_arrives_whole(server: Server) -> None:
    status, body = server.get(f"/blob/{20 * MIB + 7}")
    assert status == 200
    assert body == bytes(20 * MIB + 7)


def test_a_file_is_passed_whole_and_its_connection_goes_on(server: Server) -> None:
    size = 20 * MIB + 7
    series = 'diptych_http_body_bytes_total{direction="out"}'
    before = server.metric(series)
    with server.connected() as connection:
        for _ in range(2):
            connection.request("GET", f"/file/{size}")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["content-length"]) == (200, str(size))
            assert answer.read() == START + bytes(size - len(START))
        connection.request("GET", "/blob/10")
        assert connection.getresponse().read() == bytes(10)
    eventually(lambda: server.metric(series) >= before + 2 * size + 10)


def test_files_are_passed_to_many_slow_clients_by_one_process(tmp_path: Path) -> None:
    size = 16 * MIB
    with serving(tmp_path, SERVED_APP_PROCESSES="1") as server:
        clients = [server.connect() for _ in range(50)]
        for client in clients:
            client.request("GET", f"/file/{size}")
        answers = [client.getresponse() for client in clients]
        # All of them hold a part, none has the rest, and others are served.
        assert [answer.read(MIB) for answer in answers] == [START[:MIB]] * 50
        assert json.loads(server.get("/last")[1])["closed"] is False
        for answer, client in zip(answers, clients, strict=True):
            assert len(answer.read()) == size - MIB
            client.close()
        eventually(lambda: server.metric('diptych_transfers{direction="out"}') == 0)


def test_part_of_a_blob(server: Server) -> None:
    connection = server.connect()
    connection.request("GET", "/blob/1000", headers={"Range": "bytes=990-"})
    answer = connection.getresponse()
    assert answer.status == 206
    assert answer.headers["content-range"] == "bytes 990-999/1000"
    assert answer.headers["content-length"] == "10"
    assert len(answer.read()) == 10
    connection.request("GET", "/blob/1000", headers={"Range": "bytes=1000-"})
    answer = connection.getresponse()
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */1000"
    connection.close()


def test_head_has_the_length_and_no_body(server: Server) -> None:
    connection = server.connect()
    for _ in range(2):
        connection.request("HEAD", "/blob/1000")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-length"]) == (200, "1000")
        assert answer.read() == b""
    connection.close()


@pytest.mark.parametrize("kind", ["blob", "file"])
def test_a_backend_that_fails_in_the_middle_breaks_the_connection(
    server: Server, kind: str
) -> None:
    connection = server.connect()
    connection.request("GET", f"/{kind}/{4 * MIB}?fail_at={MIB}")
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()
    assert len(broken.value.partial) < 4 * MIB
    connection.close()
    eventually(lambda: "the disk is gone" in server.log.read_text())


@pytest.mark.parametrize("path", ["/stuck", f"/blob/{1 << 40}", f"/file/{1 << 40}"])
def test_a_client_that_goes_away_frees_what_it_held(path: str, tmp_path: Path) -> None:
    with serving(tmp_path, SERVED_APP_PROCESSES="1") as server:
        connection = server.connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.read(10)
        assert json.loads(server.get("/last")[1])["closed"] is False
        answer.close()
        connection.close()
        eventually(lambda: json.loads(server.get("/last")[1])["closed"])
        eventually(lambda: server.metric('diptych_transfers{direction="out"}') == 0)


def test_an_unexpected_error_is_the_services_500(server: Server) -> None:
    status, body = server.get("/boom")
    assert status == 500
    assert b"secret" not in body
    eventually(lambda: "a secret detail" in server.log.read_text())


def test_metrics_are_summed_over_the_workers(server: Server) -> None:
    series = 'diptych_http_request_seconds_count{method="GET",route="/last",status="2xx"}'
    before, asked = server.metric(series), list[int]()

    def both_were_asked() -> bool:
        asked.append(json.loads(server.get("/last")[1])["pid"])
        return len({*asked}) == 2

    eventually(both_were_asked)
    # A request is counted after its answer has gone.
    eventually(lambda: server.metric(series) == before + len(asked))


def test_gauges_are_summed_over_the_workers(server: Server) -> None:
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        client.request("GET", f"/blob/{1 << 40}")
        client.getresponse().read(1)
    eventually(lambda: server.metric('diptych_transfers{direction="out"}') == 6)
    for client in clients:
        client.close()
    eventually(lambda: server.metric('diptych_transfers{direction="out"}') == 0)


def test_a_killed_worker_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
    series = 'diptych_http_request_seconds_count{method="GET",route="/blob/{size}",status="2xx"}'
    with serving(tmp_path) as server:
        before = server.workers()
        for _ in range(20):
            server.get("/blob/1")
        stuck = server.connect()
        stuck.request("GET", "/stuck")
        stuck.getresponse().read(10)
        assert server.metric("diptych_http_requests_in_flight") == 1
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.workers() and not server.workers() & before)
        eventually(lambda: len(server.pids()) == 2, within_s=60)
        assert server.metric(series) == 20
        assert server.metric("diptych_http_requests_in_flight") == 0
        stuck.close()
        assert server.log.read_text().count("ended (SIGKILL); starting another") == 2


def test_sigterm_finishes_requests_and_accepts_no_more(tmp_path: Path) -> None:
    with serving(tmp_path, SERVED_APP_GRACE="20") as server:
        slow: list[tuple[int, bytes]] = []
        asking = threading.Thread(target=lambda: slow.append(server.get("/sleep/3")))
        asking.start()
        eventually(lambda: server.metric("diptych_http_requests_in_flight") == 1)
        server.process.terminate()

        def is_refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(is_refused, within_s=2)
        assert asking.is_alive()
        asking.join(20)
        assert [status for status, _ in slow] == [200]
        assert server.process.wait(20) == 0
        assert server.log.read_text().count("lifespan closed") == 2


def test_sigterm_ends_requests_that_take_too_long(tmp_path: Path) -> None:
    with serving(tmp_path, SERVED_APP_GRACE="1") as server, server.connected() as connection:
        connection.request("GET", "/stuck")
        connection.getresponse().read(10)
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < 15
        assert server.log.read_text().count("lifespan closed") == 2


def test_sigterm_answers_503_where_the_time_is_over(tmp_path: Path) -> None:
    head = b"PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
    with (
        serving(tmp_path, SERVED_APP_GRACE="1", SERVED_APP_PROCESSES="1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(head)
        eventually(lambda: server.metric("diptych_http_requests_in_flight") == 1)
        server.process.terminate()
        answer = b""
        client.settimeout(0.01)
        # It sends on until it is answered, as clients do, and must not be cut off before.
        while b"\r\n\r\n503" not in answer:
            client.sendall(bytes(1000))
            with suppress(TimeoutError):
                piece = client.recv(65536)
                assert piece, answer
                answer += piece
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in answer
        assert b"\r\nconnection: close\r\n" in answer
        assert b"\r\nx-openstack-request-id: req-" in answer
        client.close()
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log.read_text().partition("Cancel 1 running")[0]


def test_a_server_that_drains_is_unhealthy_and_closes_what_it_answers(tmp_path: Path) -> None:
    with (
        serving(tmp_path, SERVED_APP_DRAIN="3", SERVED_APP_PROCESSES="1") as server,
        server.connected() as idle,
        server.connected() as begun,
    ):
        idle.request("GET", "/livez")
        assert idle.getresponse().read()
        begun.putrequest("POST", "/change")
        begun.putheader("Content-Length", "3")
        begun.endheaders(b"a")
        server.process.terminate()
        eventually(lambda: server.get("/healthcheck") == (503, b"STOPPING"))
        assert server.get("/healthcheck", method="HEAD")[0] == 503
        status, body = server.get("/readyz")
        assert (status, json.loads(body)["checks"]) == (503, {"drain": "failing"})
        assert server.get("/livez")[0] == 200
        # On connections that were there before as on new ones.
        begun.send(b"bc")
        idle.request("GET", "/sleep/0")
        for connection in (begun, idle):
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
            answer.read()
        # Not where the body has not come: what is unread would reset the connection.
        with server.connected() as early:
            early.putrequest("PUT", "/refused")
            early.putheader("Content-Length", "10")
            early.endheaders(b"1")
            answer = early.getresponse()
            assert (answer.status, answer.headers["connection"]) == (409, None)
            answer.read()
            early.send(b"234567890")
            early.putrequest("GET", "/livez")
            early.endheaders()
            assert early.getresponse().headers["connection"] == "close"
        assert server.process.wait(20) == 0


def test_no_connection_is_lost_when_the_server_stops(tmp_path: Path) -> None:
    """A client is answered, or refused before it has sent anything."""
    with serving(tmp_path) as server:
        answered, lost = list[int](), list[Exception]()

        def ask_until_refused() -> None:
            while True:
                try:
                    connecting = socket.create_connection(("127.0.0.1", server.port), timeout=20)
                except ConnectionRefusedError:
                    return
                except OSError as error:
                    lost.append(error)
                    return
                try:
                    with connecting:
                        connection = http.client.HTTPConnection("127.0.0.1", server.port)
                        connection.sock = connecting
                        connection.request("POST", "/change", body=b"x" * 100)
                        answered.append(connection.getresponse().status)
                except (OSError, http.client.HTTPException) as error:
                    lost.append(error)

        asking = [threading.Thread(target=ask_until_refused) for _ in range(6)]
        for one in asking:
            one.start()
        eventually(lambda: len(answered) > 200)
        server.process.terminate()
        for one in asking:
            one.join(30)
        assert not lost
        assert set(answered) == {200}
        assert server.process.wait(20) == 0


def test_what_started_it_is_told_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as starter:
        starter.settimeout(20)
        starter.bind(str(tmp_path / "notify"))
        with serving(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            assert starter.recv(100) == b"READY=1"
            server.process.send_signal(signal.SIGTERM)
            assert starter.recv(100) == b"STOPPING=1"
            assert server.process.wait(20) == 0


def test_a_second_signal_ends_everything(tmp_path: Path) -> None:
    with serving(tmp_path, SERVED_APP_GRACE="3600") as server, server.connected() as connection:
        connection.request("GET", "/stuck")
        connection.getresponse().read(10)
        server.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        assert server.end() == 0


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        # As a terminal does: to the whole group.
        for pid in (*server.workers(), server.process.pid):
            os.kill(pid, signal.SIGINT)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log.read_text()


def test_no_worker_outlives_its_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(10)
        eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


def test_metrics_that_fail_at_their_birth_do_not_end_the_service(tmp_path: Path) -> None:
    environment = {"SERVED_APP_PROCESSES": "1", "SERVED_APP_STARTS_IN": "1"}
    with serving(tmp_path, **environment, SERVED_APP_ENDS_FORK="2") as server:
        assert "Process of metrics" in server.log.read_text()
        assert server.get("/sleep/0")[0] == 200
        eventually(lambda: "diptych_" in answered(server.metrics))


def answered(ask: Callable[[], str]) -> str:
    with suppress(OSError):
        return ask()
    return ""


def test_a_port_in_use_is_named(server: Server) -> None:
    for port, metrics_port in ((server.port, free_port()), (free_port(), server.metrics_port)):
        ended = subprocess.run(
            [sys.executable, str(PROGRAM), "127.0.0.1", str(port), str(metrics_port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        taken = port if port == server.port else metrics_port
        assert ended.returncode == 1
        assert ended.stderr.strip() == f"Port {taken} of 127.0.0.1 is in use by another program."


def test_an_application_that_cannot_be_made_ends_the_server() -> None:
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), "127.0.0.1", str(free_port()), str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SERVED_APP_FAILS": "1"},
    )
    assert ended.returncode == 1
    assert ended.stderr.endswith("RuntimeError: no such setting\n")


def test_a_metrics_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    def never_made() -> NoReturn:
        raise AssertionError

    missing = tmp_path / "missing"
    with pytest.raises(ServerError, match=re.escape(str(missing))):
        serve(
            never_made,
            host="127.0.0.1",
            port=free_port(),
            processes=1,
            metrics=("127.0.0.1", free_port()),
            metrics_folder=str(missing),
        )


def test_nothing_is_left_in_memory_folders(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        # Other tests' servers have theirs at the same time.
        [own] = {
            file.parent
            for pid in server.workers()
            for file in Path("/dev/shm").glob(f"diptych-metrics-*/*_{pid}.db")
        }
        assert server.end() == 0
        assert not own.exists()


def test_the_server_does_not_name_its_software(server: Server) -> None:
    answer = server.raw(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"uvicorn" not in answer.lower()


def test_an_early_refusal_is_heard_by_a_client_that_sends_first(server: Server) -> None:
    connection = server.connect()
    connection.request("PUT", "/refused", body=bytes(8 * MIB))
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (409, b"409: Not now.")
    # And the connection is still good.
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_refused_body_is_not_read_for_ever(server: Server) -> None:
    head = b"PUT /refused HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head)
        assert client.recv(65536).startswith(b"HTTP/1.1 409")
        sent = 0
        with suppress(ConnectionError):
            while sent < MAX_DISCARDED + 64 * MIB:
                sent += client.send(bytes(MIB))
    assert sent < MAX_DISCARDED + 64 * MIB


def test_a_refusal_instead_of_100_continue_closes_the_connection(server: Server) -> None:
    head = b"PUT /%s HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
    answer = server.raw(head % b"refused")
    assert answer.startswith(b"HTTP/1.1 409")
    assert b"connection: close" in answer
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head % b"upload")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"12345")
        client.shutdown(socket.SHUT_WR)
        assert b'{"taken":5}' in everything(client)


@pytest.mark.parametrize(
    "request_",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n"
        b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET /livez HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: Server, request_: bytes) -> None:
    answer = server.raw(request_)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"x-openstack-request-id: req-" in answer


def test_garbage_never_gets_into_another_answer(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        client.sendall(b"NONSENSE\r\n\r\n")
        answer += everything(client)
    assert answer.partition(b"\r\n\r\n")[2] in (b"", b"x" * 10)


@pytest.mark.parametrize(
    "piece", [b"x-long: " + b"y" * 200_000, b"x: y\r\n" * 30_000, b"GET /" + b"z" * 200_000]
)
def test_a_head_without_an_end_is_refused(server: Server, piece: bytes) -> None:
    begin = b"" if piece.startswith(b"GET") else b"GET /livez HTTP/1.1\r\n"
    pieces = [piece[at : at + 8192] for at in range(0, len(piece), 8192)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(begin)
        sent = 0
        with suppress(ConnectionError):
            for part in pieces:
                sent += client.send(part)
                time.sleep(0.005)
        assert sent < len(piece)
        assert everything(client)[:12] in (b"HTTP/1.1 431", b"")


def test_a_head_below_the_limit_is_fine(server: Server) -> None:
    token = "t" * (MAX_HEAD - 4096)
    assert server.get("/livez", **{"X-Auth-Token": token})[0] == 200


def test_trailers_are_not_headers(server: Server) -> None:
    answer = server.raw(
        b"PUT /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    assert b'{"taken":3}' in answer


def test_requests_sent_ahead_are_answered_in_order(server: Server) -> None:
    answer = server.raw(
        b"GET /blob/3 HTTP/1.1\r\nhost: x\r\n\r\n"
        b"PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"
        b"GET /nope HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert statuses == [b"200", b"200", b"404"]
    assert b'{"taken":2}' in answer


@pytest.mark.parametrize("cut", [0, 1, -1, -MIB])
def test_what_comes_right_after_a_long_body_is_the_next_request(server: Server, cut: int) -> None:
    body = START[: 2 * MIB + 3]
    long = b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    last = b"GET /blob/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    sent = long + long + last
    answers = server.raw(sent[: len(long) + cut], sent[len(long) + cut :])
    assert answers.count(b'{"taken":%d}' % len(body)) == 2
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert answers.endswith(b"\r\n\r\n" + bytes(3))


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    answer = server.raw(b"GET /blob/3 HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n\0\0\0")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_connections_that_say_nothing_are_closed(server: Server) -> None:
    def connect(*sent: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=120)
        for piece in sent:
            client.sendall(piece)
        return client

    refused = b"PUT /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    begun = time.monotonic()
    with (
        connect() as silent,
        connect(b"GET /livez HTTP/1.1\r\nx-slow: ") as slow,
        connect(b"GET /sleep/40 HTTP/1.1\r\nhost: x\r\n\r\nGET /livez HT") as ahead,
        connect(refused, b"a") as stalled,
    ):
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""
        assert 25 < time.monotonic() - begun < 39
        assert ahead.recv(12) == b"HTTP/1.1 200"
        assert stalled.recv(12) == b"HTTP/1.1 409"
        # A body that nobody reads any more: as long as an idle connection, and no longer.
        stalled.sendall(b"b")
        begun = time.monotonic()
        everything(stalled)
        assert 60 < time.monotonic() - begun < 90
