"""What of two answers about artifacts has to be the same."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx

# Of the connection and the server, not of the API.
_UNCOMPARED_HEADERS: Final = frozenset(
    {"date", "server", "connection", "keep-alive", "transfer-encoding"}
)
# Glare keeps them in no order.
_IN_NO_ORDER: Final = frozenset({"tags", "required", "enum"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Errors that were none of Glare's own, told in the form of a library of its.
FOREIGN: Final = "(not a fault of Glare's)"


def answer(response: httpx.Response, *, names: Mapping[str, str]) -> dict[str, Any]:
    """The answer as `{"status": 200, "header vary": …, "body.artifacts[0].name": …}`.

    What differs from one server to the next is replaced by what it is: times, addresses, and ids;
    those of `names` by their names. Of errors only the form is kept, the words are each service's
    own.
    """
    base = f"http://{response.request.url.netloc.decode()}"
    called = {value: f"${name}" for name, value in names.items()}

    def plain(value: str) -> str:
        value = _TIME.sub("(time)", value)
        value = _UUID.sub(lambda found: called.get(found[0], "(id)"), value)
        return value.replace(base, "(address)")

    parts: dict[str, Any] = {"status": response.status_code}
    media = response.headers.get("content-type", "")
    failed = response.status_code >= 400
    document = _document(response, media)
    if failed and not (isinstance(document, dict) and "error" in document):
        parts["body"] = FOREIGN
        if "allow" in response.headers:
            parts["header allow"] = _sorted(response.headers["allow"])
        return parts
    for name, value in response.headers.items():
        # The length of a document follows from its values, some of which are not compared.
        if name == "content-length" and document is not None:
            continue
        if name == "allow":
            value = _sorted(value)
        if name not in _UNCOMPARED_HEADERS:
            parts[f"header {name}"] = plain(value.replace("charset=utf-8", "charset=UTF-8"))
    if document is None:
        if response.content:
            parts["body"] = response.content
        return parts
    for path, value in _leaves("", document, failed=failed):
        parts[f"body{path}"] = plain(value) if isinstance(value, str) else value
    return parts


def _sorted(verbs: str) -> str:
    return ", ".join(sorted(verbs.split(", ")))


def comparable(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Of our answer what can be compared with theirs: of a foreign error the status only."""
    if theirs.get("body") != FOREIGN:
        return dict(ours)
    kept = {name: value for name, value in ours.items() if name in theirs}
    return {**kept, "body": FOREIGN}


def _document(response: httpx.Response, media: str) -> Any:
    """What is said in JSON, if it's that; what users have uploaded is none."""
    if "json" not in media or not response.content or "content-md5" in response.headers:
        return None
    return response.json()


def _leaves(path: str, value: Any, *, failed: bool) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            # The words are each service's own.
            if failed and name in ("message", "explanation"):
                item = "(words)"
            if failed and name == "traceback":
                continue
            if name == "description" and isinstance(item, str) and "properties" in path:
                item = "(words)"
            if name in _IN_NO_ORDER and isinstance(item, list):
                item = sorted(item, key=str)
            yield from _leaves(f"{path}.{name}", item, failed=failed)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(f"{path}[{number}]", item, failed=failed)
    else:
        yield path, json.loads(json.dumps(value))
