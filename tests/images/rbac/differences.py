"""Where the tables differ on purpose from what the real Glance answers, with the reasons.

`tests/compat/test_rbac.py` holds Glance against the tables and this. What is not listed is a fault;
so is what is listed and does not occur.
"""

from dataclasses import dataclass
from typing import Final

from tests.images.rbac.asking import ON_NAMESPACES, REQUESTS
from tests.images.rbac.callers import CALLERS

_EVERYBODY: Final = frozenset(CALLERS)


@dataclass(frozen=True)
class Difference:
    """What Glance has in place of our word in the cells of these requests and callers."""

    theirs: str
    ours: str
    reason: str
    asked: frozenset[str] = frozenset(REQUESTS)
    callers: frozenset[str] = _EVERYBODY

    def covers(self, *, asked: str, caller: str, theirs: str, ours: str) -> bool:
        """Whether it is this that was found."""
        return (
            self.theirs == theirs
            and self.ours in (ours, "*")
            and asked in self.asked
            and caller in self.callers
        )


_OF_MEMBERS: Final = frozenset(
    {"list members", "add member", "remove accept", "accept for accept", "accept for pend"}
)
_ON_THE_WEB: Final = frozenset({"import from web", "add web location", "create task"})

DIFFERENCES: Final = (
    Difference(
        *("404", "403", "a token of the wrong scope is told so where that gives nothing away"),
        callers=frozenset({"system"}),
    ),
    Difference(
        *("403", "404", "who may not see an image does not learn that it is there"),
        asked=_OF_MEMBERS
        | {"make public", "make community", "give away", "download", "download from"},
        callers=frozenset({"system", "srvc", "osrvc", "anon"}),
    ),
    Difference(
        *("404", "403", "a list has nothing whose existence could be hidden"),
        asked=frozenset({"list namespaces", "list all types", "create namespace"}),
        callers=frozenset({"srvc", "osrvc", "anon"}),
    ),
    Difference(
        *("404", "403", "without a token nothing is changed, whatever it is"),
        asked=frozenset(ON_NAMESPACES) | {"add web location", "add store location"},
        callers=frozenset({"anon"}),
    ),
    Difference("405", "*", "HEAD is served, too", asked=frozenset({"download head"})),
    Difference(
        *("ok", "400", "Glance accepts what no store of it could read, and its task fails"),
        asked=frozenset({"add store location"}),
    ),
    Difference(
        *("400", "ok", "addresses of the machine itself cannot be allowed by Glance's operator"),
        asked=_ON_THE_WEB,
    ),
    Difference(
        *("409", "404", "who may not see an image does not learn its status"),
        asked=frozenset(
            {"import staged", "import from web", "copy", "add web location", "add store location"}
        ),
        callers=frozenset({"system", "srvc", "osrvc", "anon"}),
    ),
)
