"""The description of the API for programs, /openapi.json, and one page of it for people, /docs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diptych_common.errors import MethodNotAllowed
from diptych_common.proxies import PREFIX
from diptych_common.responses import RenderError

_DOCUMENT: Final = "/openapi.json"
_PAGE: Final = "/docs"

# The page loads nothing and runs nothing.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_STYLE: Final = """\
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .3rem 0; }
summary code { font-size: 1rem; }
b { display: inline-block; width: 4.5rem; }
pre { background: #8882; padding: .7rem; overflow: auto; }
table { border-spacing: .8rem .1rem; }
td { vertical-align: top; }
details { border-bottom: 1px solid #8884; }
:root { color-scheme: light dark; }
"""


class ApiPages:
    """Answers the two paths without asking who is there, and hands everything else on.

    Both are made when they are first asked for. The page is ours, with no script and nothing from
    other hosts.
    """

    def __init__(
        self, app: ASGIApp, *, title: str, routers: Sequence[APIRouter], render_error: RenderError
    ) -> None:
        self._app = app
        self._title = title
        self._routers = routers
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the document or the page, or hand the request on."""
        if scope["type"] != "http" or scope["path"] not in (_DOCUMENT, _PAGE):
            await self._app(scope, receive, send)
            return
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            error = MethodNotAllowed("This can only be read.", headers={"Allow": "GET, HEAD"})
            return self._render_error(scope, error)
        if scope["path"] == _PAGE:
            headers = {"Content-Security-Policy": _POLICY}
            return HTMLResponse(self._page, headers=headers)
        # Where the paths begin for this client.
        servers = [{"url": scope.get(PREFIX) or "/"}]
        body = orjson.dumps({**self._document, "servers": servers})
        return Response(body, media_type="application/json")

    @cached_property
    def _document(self) -> Mapping[str, Any]:
        return described(title=self._title, routers=self._routers)

    @cached_property
    def _page(self) -> str:
        operations = "".join(_operations(self._document))
        title = escape(f"{self._title} API")
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
            # Relative: the page may be below a prefix.
            f'<p>For programs: <a href="{_DOCUMENT[1:]}">{_DOCUMENT}</a></p>{operations}'
            "</body></html>"
        )


def described(*, title: str, routers: Sequence[APIRouter]) -> dict[str, Any]:
    """The OpenAPI document of all routes.

    An operation is summed up by the first line of its function's docstring, and described by the
    rest, without the paragraphs that tell developers a source.
    """
    routes = [route for router in routers for route in router.routes]
    document = get_openapi(title=title, version="v2", routes=routes)
    for methods in document["paths"].values():
        for operation in methods.values():
            first, *others = operation.pop("description", "").split("\n\n")
            operation["summary"] = " ".join(first.split()).removesuffix(".")
            rest = [paragraph for paragraph in others if not paragraph.startswith("Source")]
            if rest:
                operation["description"] = "\n\n".join(rest)
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield (
                f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code>"
                f" {escape(operation['summary'])}</summary>"
            )
            if "description" in operation:
                yield f"<p>{escape(operation['description'])}</p>"
            yield from _parameters(operation.get("parameters", ()))
            if "requestBody" in operation:
                yield from _contents("The body", operation["requestBody"])
            for status, answer in sorted(operation["responses"].items()):
                told = "An error" if status == "default" else f"{status}: {answer['description']}"
                yield from _contents(told, answer)
            yield "</details>"


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield "<table>"
    for each in parameters:
        told = each.get("description", "")
        words = (each["name"], each["in"], _kind(each["schema"]), told)
        yield f"<tr>{''.join(f'<td>{escape(word)}</td>' for word in words)}</tr>"
    yield "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "items" in schema:
        return f"several: {_kind(schema['items'])}"
    return schema.get("format") or schema["type"]


def _contents(what: str, holder: Mapping[str, Any]) -> Iterator[str]:
    contents = holder.get("content", {})
    if not contents:
        yield f"<p>{escape(what)}</p>"
    for media_type, content in contents.items():
        yield f"<p>{escape(what)} ({escape(media_type)})</p>"
        if content["schema"]:
            text = orjson.dumps(content["schema"], option=orjson.OPT_INDENT_2).decode()
            yield f"<pre>{escape(text, quote=False)}</pre>"
