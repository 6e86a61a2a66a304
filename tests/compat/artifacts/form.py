"""What an exchange about artifacts is: a request, who sends it, and what it finds.

In paths, headers and bodies `$id`, `$second` and so on are ids of artifacts that the state of the
exchange has made, each service its own; `$absent` is one that nobody has. `$demo` and `$other` are
projects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SAMPLE: Final = "/artifacts/sample_artifact"

JSON: Final = "application/json"
PATCH: Final = "application/json-patch+json"
LOCATION: Final = "application/vnd+openstack.glare-custom-location+json"
OCTETS: Final = "application/octet-stream"

PERSONAS: Final[Mapping[str, Mapping[str, str]]] = {
    name: {
        "X-Identity-Status": "Confirmed",
        "X-User-Id": f"user-{name}",
        **({"X-Project-Id": project} if project else {}),
        **({"X-Roles": role} if role else {}),
    }
    for name, project, role in (
        ("owner", "$demo", "member"),
        ("colleague", "$demo", "member"),
        ("other", "$other", "member"),
        ("admin", "admin", "admin"),
        ("nobody", "$other", ""),
        ("without project", "", "member"),
    )
} | {"anonymous": {}, "denied": {"X-Identity-Status": "Invalid"}}

EVERYBODY: Final = tuple(PERSONAS)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request: `body` is sent as JSON, or as it is if it's bytes; None is no body.

    Chunks are sent without their length. The artifact that is made gets the name `makes`.
    """

    request: str
    by: str = "owner"
    body: Any = None
    chunks: Sequence[bytes] = ()
    headers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    makes: str = ""


@dataclass(frozen=True, kw_only=True)
class Exchange(Step):
    """A request that is compared, and the state that it finds: what these steps have made.

    `after` is what an administrator sees afterwards; that is compared too.
    """

    name: str
    given: Sequence[Step] = ()
    after: str = ""


def make(called: str, /, *, of: str = "sample_artifact", by: str = "owner", **fields: Any) -> Step:
    """Make an artifact, named "a" unless `fields` say otherwise; `$called` is its id then."""
    return Step(
        request=f"POST /artifacts/{of}",
        by=by,
        body={"name": "a", **fields},
        makes=called,
    )


def put(place: str, data: bytes = b"data", media: str = OCTETS, by: str = "owner") -> Step:
    """Upload to the place below `$id`."""
    return Step(
        request=f"PUT {SAMPLE}/$id/{place}", by=by, body=data, headers={"Content-Type": media}
    )


def locate(place: str, by: str = "owner", **body: Any) -> Step:
    """Tell where the data of the place below `$id` is."""
    document = {"url": "http://127.0.0.1:1/x", "md5": None, **body}
    return Step(
        request=f"PUT {SAMPLE}/$id/{place}",
        by=by,
        body=document,
        headers={"Content-Type": LOCATION},
    )


def patch(
    *operations: Any, name: str = "id", by: str = "owner", of: str = "sample_artifact"
) -> Step:
    """Change `$name`; `("add", "/name", value)` is an operation."""
    return Step(
        request=f"PATCH /artifacts/{of}/${name}",
        by=by,
        body=[operation(one) for one in operations],
    )


def operation(said: Any) -> Any:
    """An operation as the document has it."""
    if not isinstance(said, tuple):
        return said
    return dict(zip(("op", "path", "value"), said, strict=False))


def exchange(name: str, step: Step, *given: Step, after: str | None = None) -> Exchange:
    """The step as an exchange."""
    return Exchange(
        name=name,
        request=step.request,
        by=step.by,
        body=step.body,
        chunks=step.chunks,
        headers=step.headers,
        makes=step.makes,
        given=given,
        after=_shown(step, given) if after is None else after,
    )


def _shown(step: Step, given: Sequence[Step]) -> str:
    """What is looked at afterwards, if nothing is said of it: the first artifact."""
    if step.request.startswith(("GET", "HEAD")):
        return ""
    for one in (*given, step):
        if one.makes:
            return f"GET {one.request.removeprefix('POST ').partition('?')[0]}/${one.makes}"
    return ""


def told(value: Any) -> str:
    """A value, briefly; for names of exchanges."""
    text = ascii(value)
    return text if len(text) < 60 else f"{text[:20]}... of {len(text)}"
