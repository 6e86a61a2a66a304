"""What no client should send, sent to the daemon through a plain socket, below any HTTP library.

Never a 500, always an answer in the API's form, and the daemon goes on serving.
"""

import json
import re
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from diptych_common import migrations

from tests import databases
from tests.daemon import Daemon
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, PATCH, configuration

UUID = "11111111-1111-4111-8111-111111111111"
NUL, SURROGATE = "\\u0000", "\\ud800"
LONG = "9" * 5000
EMPTY = {"disk_format": "raw", "container_format": "bare", "k": "v"}
V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
SPACE, DEFINED = "/v2/metadefs/namespaces", "/v2/metadefs/namespaces/Raw"
CHUNKED = {"Transfer-Encoding": "chunked"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Server:
    """The daemon, an image of Alice's without data (`queued`) and one with ten bytes (`active`).

    Also the namespace DEFINED.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.queued = self.new_image()
        self.active = self.new_image()
        stored = self.ask("PUT", f"/v2/images/{self.active}/file", OCTETS, b"0123456789")
        assert stored.status == 204
        defined = self.ask("POST", SPACE, {}, '{"namespace": "Raw"}', who=ADMIN)
        assert defined.status == 201

    def new_image(self) -> str:
        answer = self.ask("POST", "/v2/images", {}, json.dumps(EMPTY))
        return json.loads(answer.body)["id"]

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: str | bytes | None = None,
        *,
        who: dict[str, str] = ALICE,
    ) -> Answer:
        """Send a request as it is given: every text in it goes out as Latin-1, a body as UTF-8."""
        head = {"Host": "x", "Accept": "application/json", **who, **headers}
        content = body.encode() if isinstance(body, str) else body
        if content is not None and "Transfer-Encoding" not in head:
            head.setdefault("Content-Length", str(len(content)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        return self.exchange(request + (content or b""), is_head=method == "HEAD")

    def exchange(self, request: bytes, *, is_head: bool = False) -> Answer:
        """Send bytes and read one answer."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), timeout=10) as connection:
            connection.sendall(request)
            return self.read(connection, is_head=is_head)

    def read(self, connection: socket.socket, *, is_head: bool = False) -> Answer:
        received = b""
        while True:
            head, is_whole, body = received.partition(b"\r\n\r\n")
            if is_whole:
                status_line, *lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                if is_head or len(body) >= int(headers.get("content-length", 0)):
                    return Answer(int(status_line.split()[1]), headers, body)
            piece = connection.recv(65536)
            assert piece, f"the connection was closed after {received!r}"
            received += piece


@pytest.fixture(scope="module")
async def server(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Server]:
    folder = tmp_path_factory.mktemp("bad-input")
    url = await databases.create(postgres_url)
    await migrations.upgrade(url, "diptych_images.migrations")
    daemon = Daemon(configuration(url, folder, DEFAULT__WORKERS="1"), folder / "log")
    daemon.start()
    yield Server(daemon)
    assert daemon.stop() == 0
    await databases.drop(url)


def check_error(answer: Answer, status: int, *, log: Path) -> None:
    """Whether it is the refusal expected, and was no surprise to the daemon."""
    check_form(answer, status)
    assert "Traceback" not in log.read_text(errors="replace")


def check_form(answer: Answer, status: int) -> None:
    """Whether it is the refusal expected, as JSON, or as text where no HTTP was understood."""
    assert answer.status == status, answer
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    if answer.headers["content-type"].startswith("application/json"):
        document = json.loads(answer.body)
        assert document.keys() == {"message", "code", "title"}
        assert document["code"] == f"{status} {document['title']}"
    else:
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.body


CREATE = [
    ("", 400),
    ("null", 400),
    ("1", 400),
    ('"text"', 400),
    ("[]", 400),
    ("{", 400),
    ('{"min_disk": NaN}', 400),
    ('{"min_disk": 1.0}', 400),
    ('{"min_disk": 1e400}', 400),
    ('{"min_disk": -1}', 400),
    ('{"min_disk": true}', 400),
    ('{"min_ram": 2147483648}', 400),
    (f'{{"min_ram": {LONG}}}', 400),
    (f'{{"name": "a{NUL}"}}', 400),
    (f'{{"a{NUL}": "b"}}', 400),
    (f'{{"a": "{NUL}"}}', 400),
    (f'{{"tags": ["{NUL}"]}}', 400),
    (f'{{"name": "{SURROGATE}"}}', 400),
    ("[" * 100_000, 400),
    ('{"a":' * 900 + "1" + "}" * 900, 400),
    ('{"tags":' + "[" * 900 + "]" * 900 + "}", 400),
    (b'{"name": "\xff"}', 400),
    ('{"name": "x"}'.encode("utf-16"), 400),
    ('{"id": 1}', 400),
    (f'{{"id": "{UUID}\\n"}}', 400),
    (f'{{"id": "{{{UUID}}}"}}', 400),
    ('{"owner": 1}', 400),
    ('{"owner": "somebody"}', 403),
    ('{"visibility": {}}', 400),
    ('{"visibility": "public"}', 403),
    ('{"tags": "x"}', 400),
    ('{"tags": [{}]}', 400),
    (f'{{"tags": ["{"é" * 256}"]}}', 400),
    ('{"": "x"}', 400),
    (f'{{"{"k" * 256}": "x"}}', 400),
    (f'{{"k": "{"v" * 65_536}"}}', 400),
    ('{"k": 1}', 400),
    ('{"k": null}', 400),
    ('{"disk_format": []}', 400),
    (f'{{"name": "{"é" * 256}"}}', 400),
    ('{"protected": "true"}', 400),
    ('{"self": {}}', 403),
    ('{"locations": []}', 403),
    ('{"os_glance_x": "1"}', 403),
    (json.dumps({f"k{at}": "v" for at in range(129)}), 413),
    (json.dumps({"tags": ["same"] * 20_001}), 413),
    (b'"' + b"a" * (10 << 20) + b'"', 413),
]


@pytest.mark.parametrize(("body", "status"), CREATE, ids=range(len(CREATE)))
def test_create(server: Server, body: str | bytes, status: int) -> None:
    answer = server.ask("POST", "/v2/images", {}, body)
    check_error(answer, status, log=server.daemon.log)


UPDATE = [
    ("null", 400),
    ("{}", 400),
    ("[1]", 400),
    ("[{}]", 400),
    ('[{"op": ["add"], "path": "/a", "value": "x"}]', 400),
    ('[{"op": "add", "path": 1, "value": "x"}]', 400),
    ('[{"op": "add", "path": "/a"}]', 400),
    ('[{"op": "add", "path": "", "value": "x"}]', 400),
    ('[{"op": "add", "path": "/ ", "value": "x"}]', 400),
    ('[{"op": "add", "path": "//a", "value": "x"}]', 400),
    ('[{"op": "add", "path": "/~2", "value": "x"}]', 400),
    (f'[{{"op": "add", "path": "/a{NUL}", "value": "x"}}]', 400),
    (f'[{{"op": "add", "path": "/a", "value": "{NUL}"}}]', 400),
    ('[{"op": "add", "path": "/a", "value": {}}]', 400),
    ('[{"op": "add", "path": "/a/b/c", "value": "x"}]', 400),
    ('[{"op": "replace", "path": "/min_disk", "value": 1.0}]', 400),
    ('[{"op": "replace", "path": "/tags", "value": [["a"]]}]', 400),
    ('[{"op": "replace", "path": "/tags/0", "value": "a"}]', 400),
    ('[{"op": "replace", "path": "/visibility", "value": {}}]', 400),
    ('[{"op": "replace", "path": "/protected", "value": null}]', 400),
    ('[{"op": "move", "from": "/a", "path": "/b"}]', 400),
    ('[{"op": "add", "path": "/locations/0", "value": {}}]', 400),
    (
        '[{"op": "add", "path": "/locations/-",'
        ' "value": {"url": "file:///etc/passwd", "metadata": {}}}]',
        403,
    ),
    ('[{"op": "replace", "path": "/status", "value": "active"}]', 403),
    ('[{"op": "replace", "path": "/owner", "value": "beta"}]', 403),
    ('[{"op": "remove", "path": "/name"}]', 403),
    ('[{"op": "remove", "path": "/nope"}]', 409),
    (json.dumps([{"op": "add", "path": "/a", "value": "x"}] * 5001), 413),
]


@pytest.mark.parametrize(("body", "status"), UPDATE, ids=range(len(UPDATE)))
def test_update(server: Server, body: str, status: int) -> None:
    answer = server.ask("PATCH", f"/v2/images/{server.queued}", PATCH, body)
    check_error(answer, status, log=server.daemon.log)


QUERIES = [
    ("limit=-1", 400),
    ("limit=1.5", 400),
    ("limit=%C2%B2", 400),
    ("limit=", 400),
    ("limit=1000000000000000000", 200),
    (f"limit={LONG}", 200),
    ("marker=x", 400),
    (f"marker={UUID}", 400),
    ("%ff=1", 400),
    ("a=%ff", 400),
    ("a=%00", 400),
    ("\xff=1", 400),
    ("sort=name:sideways", 400),
    ("sort_key=nope", 400),
    ("sort=name&sort_key=name", 400),
    ("&".join(["sort_key=name"] * 3000), 200),
    ("created_at=gt:x", 400),
    ("created_at=gt:2020-02-30T00:00:00Z", 400),
    ("created_at=lt:0001-01-01T00:00:00%2B14:00", 400),
    ("created_at=gt:9999-12-31T23:59:59Z", 200),
    (f"size_min={LONG}", 400),
    ("size=9223372036854775808", 400),
    ("min_disk=%C2%B2", 400),
    ("nope_min=1", 400),
    ("protected=yes", 400),
    ("os_hidden=maybe", 400),
    ("visibility=x", 400),
    ("member_status=x", 400),
    ("status=in:%22", 400),
    ("status=gt:x", 400),
    ("changes-since=1", 400),
    (f"owner={'x' * 50_000}", 200),
    ("&".join(f"p{at}=v" for at in range(6000)), 200),
    ("&".join(f"tag=t{at}" for at in range(4000)), 200),
    ("&" * 60_000, 200),
    ("%" * 60_000, 200),
]


@pytest.mark.parametrize(("query", "status"), QUERIES, ids=range(len(QUERIES)))
def test_list(server: Server, query: str, status: int) -> None:
    answer = server.ask("GET", f"/v2/images?{query}", {})
    if status == 200:
        assert answer.status == 200
        assert "images" in json.loads(answer.body)
    else:
        check_error(answer, status, log=server.daemon.log)


PATHS = [
    ("GET", "/v2/images/%00", 404),
    ("GET", "/v2/images/%ff", 404),
    ("GET", "/v2/images/\xff", 400),
    ("GET", "/v2/images/%zz", 404),
    ("GET", "/v2/images/..%2f..%2fetc%2fpasswd", 404),
    ("GET", "/v2/images/../../etc/passwd", 404),
    ("GET", "/v2/images/%0d%0aX-Evil:%201", 404),
    ("GET", f"/v2/images/{UUID}%0a", 404),
    ("GET", f"/v2/images/{UUID.replace('-', '')}", 404),
    ("GET", "/v2/images/" + "a" * 50_000, 404),
    ("GET", "/v2/images//", 404),
    ("GET", "/v2//images", 404),
    ("GET", "http://[/v2/images", 400),
    ("GET", "v2/images", 400),
    ("GET", "/v2/schemas/..%2fimages", 404),
    ("GET", "/v2/images/{queued}/members/%00", 400),
    ("GET", "/v2/images/{queued}/members/" + "m" * 5000, 404),
    ("DELETE", "/v2/images/{queued}/members/%00", 400),
    ("PUT", "/v2/images/{queued}/tags/%00", 400),
    ("PUT", "/v2/images/{queued}/tags/" + "t" * 256, 400),
    ("PUT", "/v2/images/{queued}/tags/", 400),
    ("POST", "/v2/images/{queued}/actions/explode", 404),
    ("POST", "/v2/images/{queued}/actions/deactivate", 403),
    ("DELETE", "/v2/images/{queued}/file", 405),
    ("OPTIONS", "/v2/images/{queued}/file", 405),
    ("TRACE", "/v2/images", 405),
    ("CONNECT", "/v2/images", 405),
    ("OPTIONS", "/v2/schemas/image", 405),
    ("PROPFIND", "/v2/nowhere", 501),
    ("EXPLODE", "/v2/images", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS, ids=range(len(PATHS)))
def test_path(server: Server, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path.format(queued=server.queued), {})
    check_error(answer, status, log=server.daemon.log)
    assert "x-evil" not in answer.headers


SIZE = "x-openstack-image-size"
UPLOADS = [
    ({SIZE: "\xb2"}, b"abc", 400),
    ({SIZE: LONG}, b"abc", 400),
    ({SIZE: "-3"}, b"abc", 400),
    ({SIZE: "+3"}, b"abc", 400),
    ({SIZE: ""}, b"abc", 400),
    ({SIZE: "4"}, b"abc", 400),
    ({SIZE: "9" * 20, **CHUNKED}, b"3\r\nabc\r\n0\r\n\r\n", 413),
    ({"X-Image-Meta-Store": "\xe9"}, b"abc", 400),
    ({"X-Image-Meta-Store": "%ff%00"}, b"abc", 400),
    ({"X-Image-Meta-Store": "../fast"}, b"abc", 400),
    ({"Content-Type": "text/\xe9"}, b"abc", 415),
    ({"Content-Length": "-1"}, b"abc", 400),
    ({"Content-Length": "+3"}, b"abc", 400),
    ({"Content-Length": "\xb3"}, b"abc", 400),
    ({"Content-Length": "3, 3"}, b"abc", 400),
    ({"Content-Length": LONG}, b"abc", 400),
    ({"Content-Length": "9223372036854775808"}, b"abc", 413),
    ({"Content-Length": "3", **CHUNKED}, b"3\r\nabc\r\n0\r\n\r\n", 400),
    ({"Content-Length": "3\r\ncontent-length: 4"}, b"abc", 400),
    ({"Transfer-Encoding": "gzip"}, b"abc", 400),
    (CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED, b"-1\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED, b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n", 400),
    (CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED, b"3\nabc\n0\n\n", 400),
    (CHUNKED, b"\r\n", 400),
    (CHUNKED, b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", 400),
]


@pytest.mark.parametrize(("headers", "body", "status"), UPLOADS, ids=range(len(UPLOADS)))
def test_upload(server: Server, headers: dict[str, str], body: bytes, status: int) -> None:
    image = server.new_image()
    answer = server.ask("PUT", f"/v2/images/{image}/file", {**OCTETS, **headers}, body)
    check_error(answer, status, log=server.daemon.log)
    # What had begun by then is undone soon, long before a lease is over.
    deadline = time.monotonic() + 5
    while (
        server.ask("PUT", f"/v2/images/{image}/file", OCTETS, b"right").status != 204
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert server.ask("GET", f"/v2/images/{image}/file", {}).body == b"right"


# Of what an upload is refused for, all but the choice of a store.
STAGES = [case for case in UPLOADS if "X-Image-Meta-Store" not in case[0]]


@pytest.mark.parametrize(("headers", "body", "status"), STAGES, ids=range(len(STAGES)))
def test_stage(server: Server, headers: dict[str, str], body: bytes, status: int) -> None:
    image = server.new_image()
    path = f"/v2/images/{image}/stage"
    check_error(server.ask("PUT", path, {**OCTETS, **headers}, body), status, log=server.daemon.log)
    deadline = time.monotonic() + 5
    while server.ask("PUT", path, OCTETS, b"right").status != 204 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state(server, image) == "uploading"


WEB = '{"method": {"name": "web-download", "uri": "https://example.com/"}}'
STORE = "X-Image-Meta-Store"
IMPORTS: list[tuple[dict[str, str], str | bytes, int]] = [
    ({}, "", 400),
    ({}, "[]", 400),
    ({}, f"[{WEB}]", 400),
    ({}, "null", 400),
    ({}, "{", 400),
    ({}, '{"method":' * 900 + "1" + "}" * 900, 400),
    ({}, f'{{"method": {{"name": {LONG}}}}}', 400),
    ({}, f'{{"method": {{"name": "{NUL}"}}}}', 400),
    ({}, f'{{"method": {{"name": "{SURROGATE}"}}}}', 400),
    ({}, b'{"method": {"name": "\xff"}}', 400),
    ({}, '{"method": {"name": "web-download", "uri": "http://[::1"}}', 400),
    ({}, '{"method": {"name": "web-download", "uri": "http://\\u00e9/"}}', 400),
    ({}, f'{{"method": {{"name": "web-download", "uri": "https://e.com/{NUL}"}}}}', 400),
    ({}, json.dumps({"method": {"name": "web-download", "uri": "x" * 9_000_000}}), 400),
    ({}, b'"' + b"a" * (10 << 20) + b'"', 413),
    ({STORE: "\xe9"}, WEB, 409),
    ({STORE: "%ff%00"}, WEB, 409),
    ({STORE: "../fast"}, WEB, 409),
    ({"Content-Length": "-1"}, WEB, 400),
    ({"X-Openstack-Request-Id": "a" * 65}, WEB, 431),
]


@pytest.mark.parametrize(("headers", "body", "status"), IMPORTS, ids=range(len(IMPORTS)))
def test_import(server: Server, headers: dict[str, str], body: str | bytes, status: int) -> None:
    answer = server.ask("POST", f"/v2/images/{server.queued}/import", headers, body)
    check_error(answer, status, log=server.daemon.log)
    assert state(server, server.queued) == "queued"


TASKS = [f"limit={LONG}", "owner=\xe9", f"owner={'x' * 50_000}", "&" * 60_000, "%" * 60_000]
NOT_TEXT = ["%ff", "a=%ff", "\xff=1", "%00", "a=%00", "marker=%ed%a0%80", "sort_key=%ff"]


@pytest.mark.parametrize("query", TASKS, ids=range(len(TASKS)))
def test_list_of_tasks(server: Server, query: str) -> None:
    answer = server.ask("GET", f"/v2/tasks?{query}", {}, who=ADMIN)
    if answer.status == 200:
        assert json.loads(answer.body)["tasks"] == []
    else:
        check_error(answer, 400, log=server.daemon.log)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/tasks",
        SPACE,
        DEFINED,
        f"{DEFINED}/objects",
        f"{DEFINED}/properties/one",
        f"{DEFINED}/tags",
    ],
)
def test_queries_that_are_no_text(server: Server, path: str) -> None:
    for query in NOT_TEXT:
        check_form(server.ask("GET", f"{path}?{query}", {}, who=ADMIN), 400)


NAMES = [
    ("GET", f"{SPACE}/%00", 404),
    ("DELETE", f"{SPACE}/%00", 404),
    ("GET", f"{SPACE}/%ff", 404),
    ("GET", f"{SPACE}/" + "n" * 50_000, 404),
    ("GET", f"{DEFINED}/objects/%00", 404),
    ("DELETE", f"{DEFINED}/objects/%00", 400),
    ("GET", f"{DEFINED}/properties/%ed%a0%80", 404),
    ("POST", f"{DEFINED}/tags/%00", 400),
    ("POST", f"{DEFINED}/tags/" + "t" * 300, 400),
    ("DELETE", f"{DEFINED}/resource_types/%00", 400),
    ("GET", "/v2/tasks/%00", 404),
    ("GET", "/v2/tasks/" + "t" * 50_000, 404),
    ("DELETE", "/v2/tasks/%00", 405),
    ("DELETE", "/v2/stores/%00/{queued}", 409),
    ("DELETE", "/v2/stores/fast/%00", 404),
    ("GET", "/v2/images/%00/locations", 404),
    ("GET", "/v2/images/%00/tasks", 404),
]


@pytest.mark.parametrize(("method", "path", "status"), NAMES, ids=range(len(NAMES)))
def test_names(server: Server, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path.format(queued=server.queued), {}, who=ADMIN)
    check_error(answer, status, log=server.daemon.log)


def state(server: Server, image: str) -> str:
    return json.loads(server.ask("GET", f"/v2/images/{image}", {}).body)["status"]


HEADERS = [
    ({"Range": "bytes=5-1"}, 416),
    ({"Range": "bytes=99-"}, 416),
    ({"Range": "bytes=\xb2-"}, 416),
    ({"Range": f"bytes={LONG}-"}, 416),
    ({"Range": "bytes=" + "0-0," * 10_000}, 400),
    ({"Range": "bytes=0-0\r\nRange: bytes=1-1"}, 400),
    ({"Content-Range": f"bytes {LONG}-1/3"}, 416),
    ({"Content-Length": "4"}, 400),
    ({"Range": "bytes=0-0,2-3"}, 400),
    ({"Range": "bytes=--1"}, 416),
    ({"Range": "bytes=\x7f"}, 400),
    ({"Transfer-Encoding": "chunked, chunked"}, 400),
    ({"Transfer-Encoding": "\xb2"}, 400),
    ({"X-Openstack-Request-Id": "a" * 65}, 431),
    ({"X-Big": "a" * 70_000}, 431),
    ({"X-" + "n" * 70_000: "a"}, 431),
    ({f"X-{at}": "a" * 20 for at in range(3000)}, 431),
    ({"X-Project-Id": "p" * 5000}, 401),
    ({"X-Project-Id": "\xff"}, 404),
    ({"X-Roles": "\xff"}, 404),
    ({"X-Roles": "," * 5000}, 404),
    ({"X-Project-Id\x00": "x"}, 400),
    ({"X-Nul": "a\x00b"}, 400),
    ({"X-Folded": "a\r\n b"}, 400),
    ({"X-Blank ": "a"}, 400),
    ({"X-Roles": "member\r\nX-Roles: admin"}, 401),
    ({"X-User-Id": "u\r\nX-Project-Id: beta"}, 401),
]


@pytest.mark.parametrize(("headers", "status"), HEADERS, ids=range(len(HEADERS)))
def test_header(server: Server, headers: dict[str, str], status: int) -> None:
    answer = server.ask("GET", f"/v2/images/{server.active}/file", headers)
    check_error(answer, status, log=server.daemon.log)


STRANGE = [
    {"Accept": "\xff"},
    {"Accept": "application/json;q=\xb2"},
    {"Accept": "," * 5000},
    {"Accept-Encoding": "gzip;q=x, \xff"},
    {"Range": "lines=0-1"},
    {"If-Range": "\xff", "Range": "bytes=0-1"},
    {"If-None-Match": '"' * 5000},
    {"If-Modified-Since": "never"},
    {"X-User-Id": "\xe9"},
    {"X-Openstack-Request-Id": "\xff"},
    {"X-Forwarded-For": "\xff", "X-Forwarded-Proto": "gopher"},
    {"X-Auth-Token": "\xff" * 100},
    {"Connection": "close, \xff"},
    {"Cookie": "\xff"},
    {"Content-Encoding": "gzip"},
    {"Expect": "1000-continue"},
    {f"X-{at}": "a" for at in range(3000)},
]


@pytest.mark.parametrize("headers", STRANGE, ids=range(len(STRANGE)))
def test_strange_headers_are_no_reason_to_fail(server: Server, headers: dict[str, str]) -> None:
    answer = server.ask("GET", f"/v2/images/{server.active}/file", headers)
    assert (answer.status, answer.body) == (200, b"0123456789")


CHUNKS = [
    b"3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
    b"3;" + b"e" * 100_000 + b"\r\nabc\r\n0\r\n\r\n",
    b"00000000000000000000003\r\nabc\r\n0\r\n\r\n",
    b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("chunks", CHUNKS, ids=range(len(CHUNKS)))
def test_strange_chunks_are_read_as_they_are_meant(server: Server, chunks: bytes) -> None:
    path = f"/v2/images/{server.new_image()}/file"
    assert server.ask("PUT", path, {**OCTETS, **CHUNKED}, chunks).status == 204
    assert server.ask("GET", path, {}).body == b"abc"


@pytest.mark.parametrize("host", ["", "[", "[::1", "a b", "\xe9", "x:99999", "x:y", "a/b?c#d@e"])
def test_strange_hosts_are_no_reason_to_fail(server: Server, host: str) -> None:
    created = server.ask("POST", "/v2/images", {"Host": host}, "{}")
    assert created.status == 201
    assert re.fullmatch(r"https?://[^\s]+/v2/images/[0-9a-f-]{36}", created.headers["location"])
    assert server.ask("GET", "/", {"Host": host}).status == 300


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\xff\xfe\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2/images HTTP/1.1\nHost: x\n\n",
        b"GET /v2/images HTTP/9.9\r\nHost: x\r\n\r\n",
        b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=range(6),
)
def test_what_is_no_http(server: Server, garbage: bytes) -> None:
    check_error(server.exchange(garbage), 400, log=server.daemon.log)


@pytest.mark.parametrize("path", ["/v2/images", "/v2/images/{queued}", "/v2/images/nothing"])
def test_head_has_no_body(server: Server, path: str) -> None:
    answer = server.ask("HEAD", path.format(queued=server.queued), {})
    assert (answer.status, answer.body) == (405, b"")


UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AA"}


@pytest.mark.parametrize("cut", [0, 10, 100, -14, -6])
def test_wish_for_another_protocol_loses_nothing(server: Server, cut: int) -> None:
    # As Java's client sends every first request.
    image = server.new_image()
    lines = {"Host": "x", **ALICE, **OCTETS, **UPGRADE, **CHUNKED}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    upload = f"PUT /v2/images/{image}/file HTTP/1.1\r\n{head}\r\n".encode()
    upload += b"3\r\nabc\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.daemon.port), timeout=10) as connection:
        connection.sendall(upload[:cut])
        time.sleep(0.02)
        connection.sendall(upload[cut:])
        assert server.read(connection).status == 204
        # The connection goes on to be of use.
        connection.sendall(f"GET /v2/images/{image}/file HTTP/1.1\r\n{head}\r\n0\r\n\r\n".encode())
        assert server.read(connection).body == b"abc"


def test_body_that_awaits_100_continue(server: Server) -> None:
    image = server.new_image()
    lines = {"Host": "x", **ALICE, **OCTETS, "Expect": "100-continue", "Content-Length": "3"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    upload = f"PUT /v2/images/{image}/file HTTP/1.1\r\n{head}\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.daemon.port), timeout=10) as connection:
        connection.sendall(upload)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert server.read(connection).status == 204
    # The second time the answer comes first, and the body is not asked for.
    refused = server.exchange(upload)
    assert (refused.status, refused.headers["connection"]) == (409, "close")


TAKING_JSON = [
    ("POST", "/v2/images"),
    ("PATCH", "/v2/images/{queued}"),
    ("POST", "/v2/images/{queued}/import"),
    ("POST", "/v2/images/{queued}/locations"),
    ("POST", "/v2/images/{queued}/members"),
    ("PUT", "/v2/images/{queued}/members/beta"),
    ("POST", "/v2/tasks"),
    ("POST", SPACE),
    ("PUT", DEFINED),
    ("POST", f"{DEFINED}/resource_types"),
    ("POST", f"{DEFINED}/objects"),
    ("PUT", f"{DEFINED}/objects/one"),
    ("POST", f"{DEFINED}/properties"),
    ("PUT", f"{DEFINED}/properties/one"),
    ("POST", f"{DEFINED}/tags"),
    ("PUT", f"{DEFINED}/tags/one"),
]

# Not JSON, or none that any of them takes.
NO_DOCUMENTS: list[str | bytes] = [
    "",
    " ",
    "{",
    "{}}",
    "{'name': 'x'}",
    '{"name": "x",}',
    '{"name": "x"} {}',
    '{"name": "a\nb"}',
    "null",
    "true",
    "0",
    "-0.0",
    "NaN",
    "-Infinity",
    '{"name": NaN}',
    "1e400",
    '{"name": 1e400}',
    f'{{"name": {LONG}}}',
    f'{{"name": "{NUL}"}}',
    f'{{"{NUL}": {{}}}}',
    f'{{"name": "{SURROGATE}"}}',
    f'[{{"{SURROGATE}": 1}}]',
    b'{"name": "\xff"}',
    b'{"name": "\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"name": "x"}',
    '{"name": "x"}'.encode("utf-16"),
    b"\x1f\x8b\x08\x00",
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '{"name":' * 500 + "1" + "}" * 500,
    '{"properties": {"a": ' + "[" * 200 + "]" * 200 + "}}",
    '{"name": {}, "name": [], "namespace": 1, "member": [], "url": {}, "tags": {}, "method": 1}',
    "[[]]",
    "[null]",
    '[{"op": {}, "path": []}]',
    '["' + "x" * 100_000 + '"]',
]


@pytest.mark.parametrize(
    ("method", "path"), TAKING_JSON, ids=[f"{method} {path}" for method, path in TAKING_JSON]
)
def test_what_is_no_document(server: Server, method: str, path: str) -> None:
    kind = PATCH if method == "PATCH" else {"Content-Type": "application/json"}
    for body in NO_DOCUMENTS:
        check_form(
            server.ask(method, path.format(queued=server.queued), kind, body, who=ADMIN), 400
        )
    assert "Traceback" not in server.daemon.log.read_text(errors="replace")


def test_no_path_keeps_the_log_busy(server: Server) -> None:
    for word in ("password", "://:", "eyJ", "secret=", "%20"):
        server.ask("GET", "/" + word * (60_000 // len(word)), {}, who={})
        begun = time.monotonic()
        assert server.ask("GET", "/livez", {}).status == 200
        assert time.monotonic() - begun < 2


def test_strangers_learn_nothing(server: Server) -> None:
    # The same answer for an image that is another's and for one that is nobody's.
    requests = [
        ("GET", "", {}, None),
        ("PATCH", "", PATCH, "[]"),
        ("PATCH", "", V20, "[]"),
        ("DELETE", "", {}, None),
        ("GET", "/file", {}, None),
        ("HEAD", "/file", {}, None),
        ("PUT", "/file", OCTETS, b"x"),
        ("GET", "/members", {}, None),
        ("POST", "/members", {}, '{"member": "beta"}'),
        ("GET", "/members/beta", {}, None),
        ("PUT", "/members/beta", {}, '{"status": "accepted"}'),
        ("DELETE", "/members/beta", {}, None),
        ("PUT", "/tags/x", {}, None),
        ("DELETE", "/tags/x", {}, None),
        ("POST", "/actions/deactivate", {}, None),
        ("POST", "/actions/reactivate", {}, None),
    ]
    for method, rest, headers, body in requests:
        hidden, absent = (
            server.ask(method, f"/v2/images/{image}{rest}", headers, body, who=BOB)
            for image in (server.active, UUID)
        )
        assert hidden.status == absent.status == 404, (method, rest)
        assert hidden.body.replace(server.active.encode(), UUID.encode()) == absent.body
        assert hidden.headers.keys() == absent.headers.keys()
    assert state(server, server.active) == "active"
    shown = server.ask("GET", f"/v2/images/{server.active}", {}, who=ADMIN)
    assert json.loads(shown.body)["tags"] == []


def test_daemon_serves_as_before(server: Server) -> None:
    listed = httpx.get(f"{server.daemon.url}/v2/images?limit=1", headers=ALICE)
    assert listed.status_code == 200
    assert "Traceback" not in server.daemon.log.read_text(errors="replace")
