"""The wire of faults.py does what it is told; the cases of the stores stand on it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.store.conformance import some_bytes
from tests.store.faults import Answer, Break, Fault, Garbage, Slow, Wire, WrongLength
from tests.waiting import until

DATA = some_bytes(300_000)


class Echo(BaseHTTPRequestHandler):
    """Answers with what was sent, and with DATA where nothing was."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.bodies.append(body)  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body or DATA)))
        self.end_headers()
        self.wfile.write(body or DATA)

    do_GET = do_PUT

    def parse_request(self) -> bool:
        is_good = super().parse_request()
        if is_good and self.command == "GET":
            self.headers["Content-Length"] = "0"
        return is_good

    def log_message(self, format: str, *args: object) -> None:
        pass


class EchoServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.bodies: list[bytes] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke off is what the tests are about."""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def wire(server: EchoServer) -> Iterator[Wire]:
    with Wire.to("127.0.0.1", server.server_port) as wire:
        yield wire


@pytest.fixture
def client(wire: Wire) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{wire.port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=0.5) as client:
        yield client


def check(client: httpx.Client) -> None:
    assert client.get("/").content == DATA
    assert client.put("/", content=DATA[:1000]).content == DATA[:1000]


def test_all_goes_through(client: httpx.Client, wire: Wire, server: EchoServer):
    check(client)
    assert client.put("/", content=iter([b"in ", b"chunks"])).content == b"in chunks"
    assert server.bodies[1:] == [DATA[:1000], b"in chunks"]
    assert [one.method for one in wire.requests] == ["GET", "PUT", "PUT"]
    assert (wire.connections, wire.struck) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "error", "bodies"),
    [
        (Break("request", 0, "reset"), httpx.TransportError, []),
        (Break("request", 0, "close"), httpx.RemoteProtocolError, []),
        (Break("request", 0, "stall"), httpx.ReadTimeout, []),
        (Break("request", None, "reset"), httpx.ReadError, [b"x" * 9]),
        (Break("answer", None, "reset"), httpx.ReadError, [b"x" * 9]),
        (Break("answer", None, "close"), httpx.RemoteProtocolError, [b"x" * 9]),
        (Break("answer", None, "stall"), httpx.ReadTimeout, [b"x" * 9]),
        (Break("answer", 0, "close"), httpx.RemoteProtocolError, [b"x" * 9]),
        (Break("answer", 5, "reset"), httpx.ReadError, [b"x" * 9]),
        (Break("answer", 5, "close"), httpx.RemoteProtocolError, [b"x" * 9]),
        (Break("answer", 5, "stall"), httpx.ReadTimeout, [b"x" * 9]),
        (WrongLength(by=5), httpx.RemoteProtocolError, [b"x" * 9]),
        (Garbage(), httpx.RemoteProtocolError, []),
    ],
    ids=repr,
)
def test_one_exchange_breaks(
    client: httpx.Client,
    wire: Wire,
    server: EchoServer,
    fault: Fault,
    error: type[Exception],
    bodies: list[bytes],
):
    wire.inflict(fault)
    with pytest.raises(error):
        client.put("/", content=b"x" * 9)
    assert wire.struck == 1
    asyncio.run(until(lambda: server.bodies == bodies and wire.exchanges == 0))
    check(client)
    assert wire.struck == 1


def test_a_long_request_breaks_off(client: httpx.Client, wire: Wire, server: EchoServer):
    wire.inflict(Break("request", 100_000, "reset"))
    with pytest.raises(httpx.TransportError):
        client.put("/", content=DATA * 100)
    check(client)
    assert DATA * 100 not in server.bodies


def test_the_server_is_not_asked(client: httpx.Client, wire: Wire, server: EchoServer):
    wire.inflict(Answer(503, b"later", (("Retry-After", "1"),)), skip=1, times=2)
    check_first = client.get("/")
    assert check_first.content == DATA
    for _ in range(2):
        answer = client.put("/", content=DATA)
        assert (answer.status_code, answer.content) == (503, b"later")
        assert answer.headers["Retry-After"] == "1"
    check(client)
    assert DATA not in server.bodies
    assert wire.struck == 2


def test_only_some_exchanges_are_meant(client: httpx.Client, wire: Wire):
    wire.inflict(Answer(500), times=None, when=lambda request: request.target == "/bad")
    assert [client.get(path).status_code for path in ("/", "/bad", "/", "/bad")] == [
        *(200, 500, 200, 500)
    ]
    wire.heal()
    assert client.get("/bad").status_code == 200


def test_a_shorter_length_is_told_than_comes(client: httpx.Client, wire: Wire):
    wire.inflict(WrongLength(by=-5))
    assert client.put("/", content=b"x" * 9, headers={"Connection": "close"}).content == b"x" * 4
    check(client)


def test_an_answer_comes_slowly(client: httpx.Client, wire: Wire):
    begun = time.monotonic()
    wire.inflict(Slow(delay_s=0.1, bytes_per_s=1_000_000))
    assert client.get("/").content == DATA
    # Never less, however busy the machine.
    assert time.monotonic() - begun > 0.1 + 0.3


def test_connections_are_refused(client: httpx.Client, wire: Wire):
    check(client)
    wire.refuse()
    assert wire.connections == 0
    with pytest.raises(httpx.TransportError):
        client.get("/")
    with pytest.raises(httpx.ConnectError):
        client.get("/")
    wire.listen()
    check(client)
