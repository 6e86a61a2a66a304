"""What fuzzing is made of: schemathesis' requests, and others whose bodies are nearly right.

Their number is for all operations of a service together: IN_EVERY_RUN in every run, nearly always
the same; WHEN_ASKED in `make fuzz`, always others.
"""

import copy
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import jsonschema
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

IN_EVERY_RUN = 5_000
WHEN_ASKED = 20_000

# So many cases of an operation are made up in every run: for nested documents each takes long.
_DISTINCT = 60

# Values of every kind that a body may hold, to stand where another one is expected.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, float("inf"),
    float("nan"), "", " ", "\0", "\ud800", "a\nb", "é" * 256, "x" * 70_000, "../..", "%00", "1e400",
    [], {}, [[]], {"": ""}, {"\0": "\0"}, [None], "file:///etc/passwd", "http://127.0.0.1:1/",
    "9999-12-31T23:59:59Z", "self", "__class__", "$ref",
)  # fmt: skip


class Subjects(Protocol):
    """What requests are about; `changed`: one may have changed what was handed out."""

    def changed(self) -> None: ...

    def unchanged(self) -> None: ...


# A request made of a case, with this body if there is one.
RequestOf = Callable[[Case, object], Awaitable[httpx.Request]]

# What is wrong with an answer that is an error; None if nothing is.
WrongError = Callable[[httpx.Response], str | None]


@dataclass(frozen=True)
class Fuzzed:
    """An operation (`METHOD /path`) of a service, and what its requests are made of.

    `right_bodies` are right ones for it, if it takes JSON. `can_succeed` is false where nothing
    that may be asked is right.
    """

    name: str
    api: httpx.AsyncClient
    document: Mapping[str, Any]
    schema: Any
    subjects: Subjects
    request_of: RequestOf
    wrong_error: WrongError
    right_bodies: Sequence[object] = ()
    can_succeed: bool = True


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """What is within the document: what holds it, and the key or index."""
    for key in list(document if isinstance(document, dict) else range(len(document))):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from places(document[key])


def mutated(document: Any, choose: random.Random) -> Any:
    """The document with no, one or two places changed."""
    document = copy.deepcopy(document)
    for _ in range(choose.choice((0, 0, 0, 1, 2))):
        found = list(places(document))
        if not found:
            break
        holder, key = choose.choice(found)
        match choose.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[choose.choice(("", "\0", "x" * 300, "self", "id"))] = holder[key]
            case 2 if isinstance(holder, list):
                holder.append(holder[key])
            case 3:
                holder[key] = [holder[key]]
            case _:
                holder[key] = choose.choice(NASTY)
    return document


def made_up(operation: Any, mode: GenerationMode, count: int, *, always_same: bool) -> list[Case]:
    """So many cases; they repeat where there are not as many, about other subjects."""
    cases: list[Case] = []

    # Made at once, for what a strategy is built of costs more than what is drawn from it.
    @settings(
        max_examples=min(count, _DISTINCT) if always_same else count,
        derandomize=always_same,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(case=operation.as_strategy(mode))
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return [cases[at % len(cases)] for at in range(count)]


def is_refusable(operation: dict[str, Any]) -> bool:
    """Whether there is something in a request that can be wrong: any text is right in a path."""
    beyond = [one for one in operation.get("parameters", []) if one["in"] != "path"]
    return bool(beyond) or "requestBody" in operation


def weighted(choose: random.Random, choices: Iterable[tuple[Any, int]]) -> Any:
    values, weights = zip(*choices, strict=True)
    return choose.choices(values, weights)[0]


def fault(
    answer: httpx.Response, documented: Mapping[str, Any], wrong_error: WrongError
) -> str | None:
    """What is wrong with an answer."""
    if answer.status_code >= 500:
        return "is the service's fault"
    if "x-openstack-request-id" not in answer.headers:
        return "has no request id"
    if b"Traceback" in answer.content:
        return "holds a traceback"
    if answer.is_error:
        return wrong_error(answer)
    promised = documented.get(str(answer.status_code))
    if promised is None:
        return "is not in the document"
    for content in promised.get("content", {}).values():
        if content["schema"] and content["schema"].get("format") != "binary":
            errors = jsonschema.Draft202012Validator(content["schema"]).iter_errors(answer.json())
            if error := next(errors, None):
                return f"is not as the document says: {error.message[:200]}"
    return None


async def ask_much(
    fuzzed: Fuzzed, choose: random.Random, *, count: int, seed: object, always_same: bool
) -> None:
    """Send `count` requests of schemathesis', and as many with bodies of our own."""
    method, _, path = fuzzed.name.partition(" ")
    operation = fuzzed.document["paths"][path][method.lower()]
    made_of = fuzzed.schema[path][method]
    wrong = count // 2 if is_refusable(operation) else 0
    sent: Counter[int] = Counter()
    faults: list[str] = []

    cases = made_up(made_of, GenerationMode.POSITIVE, count - wrong, always_same=always_same)
    # So many that some succeed whatever is drawn, which is not the same in every set of tests.
    own = [
        (cases[at % len(cases)], mutated(choose.choice(fuzzed.right_bodies), choose))
        for at in range(count if fuzzed.right_bodies else 0)
    ]
    if wrong:
        cases += made_up(made_of, GenerationMode.NEGATIVE, wrong, always_same=always_same)
    for case, body in [*((case, None) for case in cases), *own]:
        request = await fuzzed.request_of(case, body)
        answer = await fuzzed.api.send(request)
        sent[answer.status_code] += 1
        if found := fault(answer, operation["responses"], fuzzed.wrong_error):
            faults.append(
                f"{answer.status_code} {answer.text[:300]!r} {found}: {method} {request.url}"
                f" {request.headers} {request.content[:1000]!r}"
            )
        if answer.is_success and method not in ("GET", "HEAD"):
            fuzzed.subjects.changed()
        else:
            fuzzed.subjects.unchanged()

    assert faults == [], "\n".join([f"seed {seed}: {len(faults)} of {sent.total()}", *faults[:20]])
    assert sent.total() >= count
    succeeded = sum(times for status, times in sent.items() if 200 <= status < 400)
    assert bool(succeeded) is fuzzed.can_succeed, sent
