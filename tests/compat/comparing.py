"""What of two answers has to be the same: status, headers, and the values in the body."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx

ABSENT: Final = "(absent)"

# Of the connection and the server, not of the API.
_UNCOMPARED_HEADERS: Final = frozenset(
    {"date", "server", "connection", "keep-alive", "transfer-encoding"}
)
# These Glance takes from its database as they come.
_IN_NO_ORDER: Final = frozenset(
    {"tags", "members", "objects", "required", "resource_type_associations"}
)
# Where files are is each service's own; of an image's several locations Glance takes any first.
_FILE = re.compile(r"file://[^\s\",]*")
_SITE = re.compile(r"http://127\.0\.0\.1:\d+/(disk|other)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_RAW_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"<(title|h1)>(.*?)</\1>", re.DOTALL)


def answer(response: httpx.Response, *, ids: Iterable[str]) -> dict[str, Any]:
    """The answer as `{"status": 200, "header etag": …, "body.images[0].name": …}`.

    What differs from one server to the next is replaced by what it is: times, addresses, and ids
    other than `ids`. Of errors only the form is kept, the words are each service's own.
    """
    base = f"http://{response.request.url.netloc.decode()}"
    known = frozenset(ids)

    def plain(value: str) -> str:
        value = _SITE.sub("(site)", _FILE.sub("(file)", value))
        value = _TIME.sub("(time)", value)
        value = _RAW_TIME.sub("(raw time)", value)
        value = _UUID.sub(lambda found: found[0] if found[0] in known else "(id)", value)
        return value.replace(base, "(address)")

    parts: dict[str, Any] = {"status": response.status_code}
    media = response.headers.get("content-type", "")
    for name, value in response.headers.items():
        # The length of a document follows from its values, some of which are not compared.
        is_document = bool(response.content) or response.request.method == "HEAD"
        if name == "content-length" and media != "application/octet-stream" and is_document:
            continue
        if name not in _UNCOMPARED_HEADERS:
            value = value.replace("charset=utf-8", "charset=UTF-8")
            parts[f"header {name}"] = plain(value)
    if not response.content:
        return parts
    for path, value in _body(response, media):
        parts[f"body{path}"] = plain(value) if isinstance(value, str) else value
    return parts


def different(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The parts that are not the same, with both values; only the status where that differs."""
    found = {
        part: (theirs.get(part, ABSENT), ours.get(part, ABSENT))
        for part in [*theirs, *(part for part in ours if part not in theirs)]
        if not _same(theirs.get(part, ABSENT), ours.get(part, ABSENT))
    }
    return {"status": found["status"]} if "status" in found else found


def _same(one: Any, other: Any) -> bool:
    # In Python, True is 1 and 1 is 1.0; not in JSON.
    return type(one) is type(other) and one == other


def _body(response: httpx.Response, media: str) -> Iterable[tuple[str, Any]]:
    failed = response.status_code >= 400
    if media.startswith("application/json"):
        document = response.json()
        if failed and isinstance(document, dict) and "message" in document:
            document["message"] = "(words)"
        return _leaves("", document)
    if media.startswith("text/html"):
        return [(f" {name}", text.strip()) for name, text in _TAG.findall(response.text)]
    if failed:
        return [(" first line", response.text.partition("\n")[0].strip())]
    return [("", response.content)]


def _leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            # The words are each service's own.
            if name == "description" and isinstance(item, str):
                item = "(words)"
            if name in _IN_NO_ORDER and isinstance(item, list):
                item = sorted(item, key=str)
            if name == "stores" and isinstance(item, str):
                item = ",".join(sorted(item.split(",")))
            yield from _leaves(f"{path}.{name}", item)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(f"{path}[{number}]", item)
    else:
        yield path, json.loads(json.dumps(value))
