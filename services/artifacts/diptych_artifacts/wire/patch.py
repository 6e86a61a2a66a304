"""PATCH of artifacts: RFC 6902 over the fields of a type, and the states that go with it.

Each operation sees the artifact as the one before it left it, values as they were coerced: to send
operations one by one comes to the same as to send them together.

Source: RFC 6901, RFC 6902; Glare 5.0.1, engine.py and common/utils.py, for what is refused how.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from diptych_common.errors import BadRequest, Forbidden

from diptych_artifacts.db.artifacts import ArtifactRow, Content
from diptych_artifacts.types.base import STATUSES
from diptych_artifacts.types.fields import Invalid, coerce_element, coerce_key, settled
from diptych_artifacts.types.registry import ArtifactType
from diptych_artifacts.wire import artifact as wire

CONTENT_TYPE: Final = "application/json-patch+json"

Op = Literal["add", "remove", "replace", "move", "copy", "test"]
Pointer = tuple[str, ...]
Transition = Literal["activate", "reactivate", "deactivate", "publish"]

_OPS: Final[tuple[Op, ...]] = ("add", "remove", "replace", "move", "copy", "test")
_ESCAPE: Final = re.compile("~([01]?)")
# Each may be a few bytes that make hundreds of values, which are all coerced.
_MOST_COPIES: Final = 100
_END: Final = "-"
# No list is longer than this can tell; and Python does not read numbers of any length.
_INDEX: Final = re.compile("0|[1-9][0-9]{0,8}")


OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            CONTENT_TYPE: {
                "schema": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["op", "path"],
                        "properties": {
                            "op": {"type": "string", "enum": [*_OPS]},
                            "path": {"type": "string"},
                            "from": {"type": "string"},
                            "value": {},
                        },
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "The artifact as it is now.",
            "content": {"application/json": {"schema": wire.OPENAPI_SCHEMA}},
        }
    },
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; `value` of add, replace and test, `source` of move and copy."""

    op: Op
    path: Pointer
    value: Any = None
    source: Pointer = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What an artifact has become so far.

    `values` has every field of its type as clients see it, `fields` what will be stored of those
    that are no columns.
    """

    known: ArtifactType
    values: Mapping[str, Any]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What an operation has made of a draft, and the transition that it asks for, if it is one.

    `is_effective` tells whether the transition changes the state, or finds it so.
    """

    draft: Draft
    transition: Transition | None = None
    is_effective: bool = False


# --- Reading --------------------------------------------------------------------------------------


def parse(body: object) -> tuple[Operation, ...]:
    """The operations of a request's body. Raises BadRequest."""
    if not isinstance(body, list):
        raise BadRequest("A patch is an array of operations.")
    operations = tuple(_operation(one) for one in cast("list[object]", body))
    copies = sum(one.op == "copy" and len(one.path) == 1 for one in operations)
    if copies > _MOST_COPIES:
        raise BadRequest(f"A patch copies to at most {_MOST_COPIES} whole fields.")
    return operations


def _operation(sent: object) -> Operation:
    if not isinstance(sent, dict):
        raise BadRequest("An operation of a patch is an object.")
    told = cast("dict[str, Any]", sent)
    op = told.get("op")
    if op not in _OPS:
        raise BadRequest(f"op must be one of {', '.join(_OPS)}.")
    path = _pointer(told.get("path"), "path")
    if not path:
        raise BadRequest("An artifact cannot be changed as a whole: path must name a field.")
    if op in ("move", "copy"):
        return Operation(op, path, source=_pointer(told.get("from"), "from"))
    if op != "remove" and "value" not in told:
        raise BadRequest(f"The operation {op} needs a value.")
    return Operation(op, path, value=told.get("value"))


def _pointer(text: object, name: str) -> Pointer:
    if not isinstance(text, str):
        raise BadRequest(f"{name} must be a JSON pointer.")
    if not text:
        return ()
    if not text.startswith("/"):
        raise BadRequest(f"{name}: a JSON pointer begins with a slash.")
    return tuple(_ESCAPE.sub(_unescaped, token) for token in text[1:].split("/"))


def _unescaped(escape: re.Match[str]) -> str:
    if not escape[1]:
        raise BadRequest("In JSON pointers ~ is written ~0, and / is ~1.")
    return "~" if escape[1] == "0" else "/"


# --- Applying -------------------------------------------------------------------------------------


def begin(row: ArtifactRow, known: ArtifactType) -> Draft:
    """The artifact before anything is changed."""
    return Draft(known, wire.values_of(row, known), row["fields"])


def setting(draft: Draft, changes: Mapping[str, Any]) -> Draft:
    """The draft with other values of fields; null is for the default. Raises BadRequest."""
    for name, value in changes.items():
        coerced = wire.checked(draft.known, name, value)
        draft = _keeping(draft, name, None if value is None else coerced)
    return draft


def apply(draft: Draft, operation: Operation) -> Step:
    """What an operation makes of an artifact. Raises BadRequest, Forbidden."""
    op, path, value = operation.op, operation.path, operation.value
    if op in ("move", "copy"):
        value = _find(draft.values, operation.source)
    elif op == "test" and not _is_same(_find(draft.values, path), value):
        raise BadRequest(f"{_shown(path)} has another value.")
    if op == "remove":
        return Step(_removed(draft, path))
    if op == "move":
        draft = _removed(draft, operation.source)
    name = path[0]
    field = draft.known.fields.get(name)
    if field is None:
        raise BadRequest(f"The type {draft.known.name} has no field {name[:255]!r}.")
    place = None if op == "test" else _place(draft.values[name], path, adds=op != "replace")
    if field.holds_blobs:
        raise BadRequest(f"{name} is changed by uploads, not by a patch.")
    if draft.values["status"] == "deleted":
        raise Forbidden("The artifact is deleted.")
    if name == "status":
        return _to_status(draft, value)
    if name == "visibility":
        return _to_visibility(draft, value)
    _require_changeable(draft, name)
    if op == "test":
        # What stays as it is may be what the field would not take today.
        return Step(draft)
    if place is None:
        return Step(setting(draft, {name: value}))
    return Step(_with_element(draft, name, place, value, adds=op != "replace"))


def _place(whole: object, pointer: Pointer, *, adds: bool) -> str | int | None:
    """The key or the index in the field that the pointer names; None for the field as a whole.

    Raises BadRequest if there is none, or, where one is added, could be none.
    """
    if len(pointer) == 1:
        return None
    token = pointer[1]
    if len(pointer) == 2 and isinstance(whole, dict) and (adds or token in whole):
        return token
    if len(pointer) == 2 and isinstance(whole, list):
        length = len(cast("list[object]", whole))
        index = length if adds and token == _END else _index(token)
        if index < length or (adds and index == length):
            return index
    raise BadRequest(f"There is no {_shown(pointer)}.")


def _with_element(draft: Draft, name: str, place: str | int, value: object, *, adds: bool) -> Draft:
    """The draft with a value at a place of a list or a dict.

    The other elements are left alone: thousands of operations would otherwise take seconds.
    """
    field = draft.known.fields[name]
    whole = draft.values[name]
    try:
        element = coerce_element(field, value)
        if isinstance(place, str):
            coerced = settled(field, {**whole, coerce_key(field, place): element})
        else:
            rest = whole[place if adds else place + 1 :]
            coerced = settled(field, [*whole[:place], element, *rest])
    except Invalid as error:
        raise BadRequest(f"{draft.known.name}, {name}: {error}") from error
    return _keeping(draft, name, coerced)


def _removed(draft: Draft, pointer: Pointer) -> Draft:
    """The draft without an element of one of its lists or dicts."""
    _find(draft.values, pointer)
    name, *rest = pointer or ("",)
    field = draft.known.fields.get(name)
    if field is None or field.holds_blobs or len(rest) != 1:
        raise BadRequest(f"{_shown(pointer)} cannot be removed: elements of lists and dicts can.")
    _require_changeable(draft, name)
    (token,) = rest
    whole = draft.values[name]
    try:
        if isinstance(whole, dict):
            within = cast("dict[str, Any]", whole)
            left = settled(field, {key: within[key] for key in within if key != token})
        else:
            index = int(token)
            left = settled(field, [*whole[:index], *whole[index + 1 :]])
    except Invalid as error:
        raise BadRequest(f"{draft.known.name}, {name}: {error}") from error
    return _keeping(draft, name, left)


def _find(whole: object, pointer: Pointer) -> Any:
    """What is at a pointer. Raises BadRequest if there is nothing."""
    found = whole
    for token in pointer:
        if isinstance(found, dict) and token in found:
            found = cast("dict[str, object]", found)[token]
        elif isinstance(found, list) and _index(token) < len(cast("list[object]", found)):
            found = cast("list[object]", found)[_index(token)]
        else:
            raise BadRequest(f"There is no {_shown(pointer)}.")
    return found


def _index(token: str) -> int:
    if not _INDEX.fullmatch(token):
        raise BadRequest(f"{token[:255]!r} is no index of an element that there is.")
    return int(token)


def _is_same(one: object, other: object) -> bool:
    """Whether two values are equal as JSON has it, where 1 is 1.0 and not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        mine, yours = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return mine.keys() == yours.keys() and all(_is_same(mine[key], yours[key]) for key in mine)
    if isinstance(one, list) and isinstance(other, list):
        items, others = cast("list[object]", one), cast("list[object]", other)
        return len(items) == len(others) and all(map(_is_same, items, others))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _require_changeable(draft: Draft, name: str) -> None:
    field = draft.known.fields[name]
    status = draft.values["status"]
    if status not in ("drafted", "active"):
        raise Forbidden(f"The artifact is {status}: nothing but its status can be changed.")
    if field.system:
        raise Forbidden(f"{name} is set by the service.")
    if status == "active" and not field.mutable:
        raise Forbidden(f"{name} cannot be changed any more: the artifact is active.")


def _keeping(draft: Draft, name: str, coerced: Any) -> Draft:
    """The draft with another value of a field, or with its default in place of an empty one."""
    fields = {key: kept for key, kept in draft.fields.items() if key != name}
    if wire.is_nothing(coerced):
        coerced = draft.known.fields[name].default
    else:
        fields |= wire.stored({name: coerced})
    return Draft(draft.known, {**draft.values, name: coerced}, fields)


# --- States ---------------------------------------------------------------------------------------


def _to_status(draft: Draft, status: object) -> Step:
    now = draft.values["status"]
    if status not in STATUSES:
        raise BadRequest(f"status must be one of {', '.join(STATUSES)}.")
    if status == "deleted":
        raise Forbidden("Artifacts are deleted by DELETE.")
    if status == "drafted":
        if now == "active":
            raise Forbidden("The artifact is active and cannot be drafted again.")
        if now == "deactivated":
            # As Glare answers; its 400 to the other is a mistake.
            raise BadRequest("The artifact is deactivated and cannot be drafted again.")
        return Step(draft)
    transition: Transition
    if status == "deactivated":
        if now == "drafted":
            raise Forbidden("Only an active artifact can be deactivated.")
        transition = "deactivate"
    elif now == "deactivated":
        transition = "reactivate"
    else:
        transition = "activate"
        if now == "drafted":
            _require_complete(draft)
    changed = Draft(draft.known, {**draft.values, "status": status}, draft.fields)
    return Step(changed, transition, is_effective=status != now)


def _require_complete(draft: Draft) -> None:
    for name, field in draft.known.fields.items():
        if field.required_on_activate and draft.values[name] is None:
            raise Forbidden(f"The artifact cannot be active without {name}.")


def _to_visibility(draft: Draft, visibility: object) -> Step:
    now = draft.values["visibility"]
    if visibility == "private":
        if now != "private":
            raise Forbidden("A public artifact cannot be private again.")
        return Step(draft)
    if visibility != "public":
        raise BadRequest("visibility must be private or public.")
    if draft.values["status"] != "active":
        raise Forbidden("Only an active artifact can be public.")
    changed = Draft(draft.known, {**draft.values, "visibility": "public"}, draft.fields)
    return Step(changed, "publish", is_effective=now != "public")


# --- Writing --------------------------------------------------------------------------------------


def new_links(before: Draft, after: Draft) -> frozenset[str]:
    """The ids of artifacts that links name which were not there before."""
    changed = {
        name: value
        for name, value in after.values.items()
        if after.known.fields[name].kind == "Link" and value != before.values[name]
    }
    known = after.known
    return wire.linked_artifacts(changed, known) - wire.linked_artifacts(
        {name: before.values[name] for name in changed}, known
    )


def content(draft: Draft) -> Content:
    """The columns that a draft comes to."""
    return wire.content(draft.values, draft.fields)


def _shown(pointer: Pointer) -> str:
    return f"/{'/'.join(pointer)}"[:255]
