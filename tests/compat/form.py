"""What an exchange is: a request, who sends it, and what it finds.

In paths and bodies `$id`, `$second` and `$third` are ids of the exchange's own images, the same on
both sides, `$absent` is one that nobody has; `$owner`, `$member` and `$stranger` are projects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

PERSONAS: Final = {
    # persona: (user, project, roles)
    "owner": ("demo", "demo", ("member",)),
    "manager": ("manager", "demo", ("manager",)),
    "reader": ("reader", "demo", ("reader",)),
    "member": ("other", "other", ("member",)),
    "member reader": ("compat-reader", "other", ("reader",)),
    "stranger": ("compat-stranger", "compat", ("member",)),
    "service": ("compat-service", "service", ("service",)),
    "nova": ("compat-nova", "compat", ("member", "service")),
    "admin": ("admin", "admin", ("admin",)),
    # No token, and one that Keystone does not know.
    "anonymous": None,
    "forger": None,
}
EVERYBODY: Final = tuple(name for name in PERSONAS if name not in ("manager", "forger"))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request: `body` is sent as JSON, or as it is if it's bytes; None is no body."""

    request: str
    by: str = "owner"
    body: Any = None
    headers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


@dataclass(frozen=True)
class Until:
    """A pause, while what was accepted is done: until the image's field has this value."""

    name: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Exchange(Step):
    """A request that is compared, and the state (of STATES) that it finds.

    `after` is what an administrator sees of it afterwards, when `then` has come; that is compared
    too.
    """

    name: str
    given: str = "nothing"
    after: str = "GET /v2/images/$id"
    then: Sequence[Until] = ()


def one(name: str, request: str, given: str = "nothing", **rest: Any) -> tuple[Exchange, ...]:
    return (Exchange(name=name, request=request, given=given, **rest),)


def by_all(
    name: str,
    request: str,
    *givens: str,
    personas: Sequence[str] = EVERYBODY,
    **rest: Any,
) -> tuple[Exchange, ...]:
    """The request by each persona in each state."""
    return tuple(
        Exchange(name=f"{name}, {given}, by {by}", request=request, given=given, by=by, **rest)
        for given in givens
        for by in personas
    )
