"""Who may do what, by default policy: the answers to every request of `asking.py`.

The columns are the callers of `callers.py`. `ok` is the answer of a request that succeeds
(`Request.answers`); other numbers are status codes. What is changed on purpose against Glance is
in `differences.py`, with the reason. What a route answers in each of the image's statuses is in
STATUSES, and what an operator's own rules change is in `overrides.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.images.rbac.stock import STATUSES as ALL_STATUSES

VISIBILITIES: Final[Mapping[str, tuple[str, ...]]] = {
    "private": ("private",),
    "shared": ("shared",),
    "open": ("community", "public"),
    "unshared": ("private", "community", "public"),
    "communty": ("community",),
    "public": ("public",),
    # Of namespaces.
    "guarded": ("guarded",),
}

# On an image in the status in which the request succeeds. `open` is community and public.
IMAGES: Final = """
             admin  system mngr   member reader deleg  other  oreadr pend   accept areadr reject nova   srvc   osrvc  anon

# It is seen by whoever has the role reader and to whom it is visible.
show, tasks
    private  ok     404    ok     ok     ok     ok     404    404    404    404    404    404    404    404    404    404
    shared   ok     404    ok     ok     ok     ok     404    404    ok     ok     ok     ok     404    404    404    404
    open     ok     403    ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     404    404    404

# Its bytes need the role member.
download, download head, download from
    private  ok     404    ok     ok     403    ok     404    404    404    404    404    404    404    404    404    404
    shared   ok     404    ok     ok     403    ok     404    404    ok     ok     403    ok     404    404    404    404
    open     ok     403    ok     ok     403    ok     ok     403    ok     ok     403    ok     ok     404    404    404

# Changes are the owner's and administrators' …
modify, modify old dialect, set property, hide, protect, make private, make shared, make community
add tag, remove tag, upload, stage, import staged, import from web, deactivate, reactivate, delete
    private  ok     404    ok     ok     403    ok     404    404    404    404    404    404    404    404    404    403
    shared   ok     404    ok     ok     403    ok     404    404    403    403    403    403    404    404    404    403
    open     ok     403    ok     ok     403    ok     403    403    403    403    403    403    403    404    404    403

# … and these administrators' alone.
make public, give away, copy, leave store, cache, uncache
    private  ok     404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    shared   ok     404    403    403    403    403    404    404    403    403    403    403    404    404    404    403
    open     ok     403    403    403    403    403    403    403    403    403    403    403    403    404    404    403

# Members are of shared images. They see themselves only, and only they answer an offer.
list members
    private  403    404    403    403    403    403    404    404    404    404    404    404    404    404    404    404
    shared   all    404    all    all    all    all    404    404    own    own    own    own    404    404    404    404
    open     403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    404
show accept
    unshared 404    404    404    404    404    404    404    404    404    404    404    404    404    404    404    404
    shared   ok     404    ok     ok     ok     ok     404    404    404    ok     ok     404    404    404    404    404
show pend
    unshared 404    404    404    404    404    404    404    404    404    404    404    404    404    404    404    404
    shared   ok     404    ok     ok     ok     ok     404    404    ok     404    404    404    404    404    404    404
add member
    private  403    404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    shared   ok     404    ok     ok     403    ok     404    404    403    403    403    403    404    404    404    403
    open     403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
remove accept
    private  403    404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    shared   ok     404    ok     ok     403    ok     404    404    404    403    403    404    404    404    404    403
    open     403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
accept for accept
    private  403    404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    shared   ok     404    403    403    403    403    404    404    404    ok     403    404    404    404    404    403
    open     403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
accept for pend
    private  403    404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    shared   ok     404    403    403    403    403    404    404    ok     404    404    404    404    404    404    403
    open     403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403

# Locations are between services; users only add what is on the web. In the last, 400 says that a
# service may, and that there is no such store here.
see locations
    private  ok     404    403    403    403    403    404    404    404    404    404    404    404    404    ok     404
    shared   ok     404    403    403    403    403    404    404    403    403    403    403    404    404    ok     404
    open     ok     403    403    403    403    403    403    403    403    403    403    403    ok     ok     ok     404
add web location
    private  ok     404    ok     ok     403    ok     404    404    404    404    404    404    404    404    ok     403
    shared   ok     404    ok     ok     403    ok     404    404    403    403    403    403    404    404    ok     403
    open     ok     403    ok     ok     403    ok     403    403    403    403    403    403    ok     ok     ok     403
add store location
    private  403    404    403    403    403    400    404    404    404    404    404    404    404    404    400    403
    shared   403    404    403    403    403    400    404    404    403    403    403    403    404    404    400    403
    open     403    403    403    403    403    400    403    403    403    403    403    403    400    400    400    403
"""  # noqa: E501

# What the answers of IMAGES become in each status: `ok` is for those whom IMAGES lets through, 403
# for those whom it refuses so, a caller's row for that caller alone; `=` is what IMAGES has. `*` is
# for every request, as far as the request has no such row of its own.
STATUSES: Final = """
             queued saving uploading importing active deactivated killed pending_delete deleted

# A deleted image does not exist any more. Without a token nothing is changed, whatever it is.
*
    ok       ok     ok     ok        ok        ok     ok          ok     404            404
    403      403    403    403       403       403    403         403    404            404
    404      404    404    404       404       404    404         404    404            404
    system   =      =      =         =         =      =           =      404            404
    anon     =      =      =         =         =      =           =      =              =

# There are no bytes before it is active, and a deactivated one's are for administrators.
download, download head, download from
    ok       204    204    204       204       ok     403         204    404            404
    admin    204    204    204       204       ok     ok          204    404            404

upload, stage
    ok       ok     409    409       409       409    409         409    404            404
deactivate, reactivate
    ok       403    403    403       403       ok     ok          403    404            404
leave store
    ok       409    409    409       409       ok     409         409    404            404

cache
    ok       400    400    400       400       ok     400         400    404            404

# Of these the status is looked at first, if the image may be seen.
import staged
    ok       409    409    ok        409       409    409         409    404            404
    403      409    409    403       409       409    409         409    404            404
import from web
    ok       ok     409    409       409       409    409         409    404            404
    403      403    409    409       409       409    409         409    404            404
copy
    ok       409    409    409       409       ok     409         409    404            404
    403      409    409    409       409       403    409         409    404            404
add web location, add store location
    ok       ok     409    409       409       409    409         409    404            404
    400      400    409    409       409       409    409         409    404            404
    403      403    409    409       409       409    409         409    404            404
"""

SERVICE: Final = """
             admin  system mngr   member reader deleg  other  oreadr pend   accept areadr reject nova   srvc   osrvc  anon

create, create private, create community
             ok     403    ok     ok     403    ok     ok     403    ok     ok     403    ok     ok     403    403    403
create public, create for another
             ok     403    403    403    403    403    403    403    403    403    403    403    403    403    403    403
list, list namespaces, list all types
             ok     403    ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     403    403    403
import methods, stores, usage, schema
             ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok
stores in detail
             ok     403    403    403    403    403    403    403    403    403    403    403    ok     ok     ok     403
list tasks, create task, show task, delete task, create namespace
list cache, clear cache, clean cache, prune cache, who has cached
list cached, clear cached, drop cached, list queued, clear queued, queue, drop queued
             ok     403    403    403    403    403    403    403    403    403    403    403    403    403    403    403
"""  # noqa: E501

# Inside a namespace of the project alpha; a guarded one is public and `protected`.
NAMESPACES: Final = """
             admin  system mngr   member reader deleg  other  oreadr pend   accept areadr reject nova   srvc   osrvc  anon

show namespace, list types, list objects, show object, list properties, show property, list tags
show tag
    private  ok     404    ok     ok     ok     ok     404    404    404    404    404    404    404    404    404    404
    public   ok     403    ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok     404    404    404
update namespace, associate type, create object, update object, create property, update property
create tag, update tag, create tags
    private  ok     404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    public   ok     403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
delete namespace, dissociate type, delete object, clear objects, delete property, clear properties
delete tag, clear tags
    private  ok    404    403    403    403    403    404    404    404    404    404    404    404    404    404    403
    public   ok    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
    guarded  403    403    403    403    403    403    403    403    403    403    403    403    403    404    404    403
"""  # noqa: E501

# Which of alpha's images are listed for: p(rivate), s(hared), c(ommunity) and (p)u(blic) ones.
LISTS: Final = """
             admin  system mngr   member reader deleg  other  oreadr pend   accept areadr reject nova   srvc   osrvc  anon

(all), os_hidden=true, owner=alpha
             psu    403    pscu   pscu   pscu   pscu   u      u      u      su     su     u      u      403    403    403
visibility=all, os_hidden=true&visibility=all, owner=alpha&visibility=all
             pscu   403    pscu   pscu   pscu   pscu   cu     cu     cu     scu    scu    cu     cu     403    403    403
visibility=private
             p      403    p      p      p      p      -      -      -      -      -      -      -      403    403    403
visibility=shared
             s      403    s      s      s      s      -      -      -      s      s      -      -      403    403    403
visibility=community
             c      403    c      c      c      c      c      c      c      c      c      c      c      403    403    403
visibility=public
             u      403    u      u      u      u      u      u      u      u      u      u      u      403    403    403
member_status=all
             psu    403    pscu   pscu   pscu   pscu   u      u      su     su     su     su     u      403    403    403
member_status=pending
             psu    403    pscu   pscu   pscu   pscu   u      u      su     u      u      u      u      403    403    403
member_status=rejected
             psu    403    pscu   pscu   pscu   pscu   u      u      u      u      u      su     u      403    403    403
visibility=shared&member_status=pending
             s      403    s      s      s      s      -      -      s      -      -      -      -      403    403    403
visibility=shared&member_status=all
             s      403    s      s      s      s      -      -      s      s      s      s      -      403    403    403
status=deleted, status=pending_delete, status=killed
             -      403    -      -      -      -      -      -      -      -      -      -      -      403    403    403
"""  # noqa: E501

# IMAGES where `enforce_new_defaults` is off: what older releases allowed, everybody may do again,
# but changes are still the owner's. Who is not here is answered as in IMAGES.
OLD_IMAGES: Final = """
             admin  member reader other  oreadr accept areadr srvc   osrvc  anon

show, tasks, download, download head
    private  ok     ok     ok     404    404    404    404    404    ok     404
    shared   ok     ok     ok     404    404    ok     ok     404    ok     404
    open     ok     ok     ok     ok     ok     ok     ok     ok     ok     ok
download from
    private  ok     ok     403    404    404    404    404    404    403    404
    shared   ok     ok     403    404    404    ok     403    404    403    404
    open     ok     ok     403    ok     403    ok     403    403    403    403
modify, modify old dialect, set property, hide, protect, make private, make shared, make community
add tag, remove tag, upload, stage, import staged, import from web, deactivate, reactivate, delete
leave store
    private  ok     ok     ok     404    404    404    404    404    ok     403
    shared   ok     ok     ok     404    404    403    403    404    ok     403
    open     ok     ok     ok     403    403    403    403    403    ok     403
make public, give away, copy, cache, uncache
    private  ok     403    403    404    404    404    404    404    403    403
    shared   ok     403    403    404    404    403    403    404    403    403
    open     ok     403    403    403    403    403    403    403    403    403
list members
    private  403    403    403    404    404    404    404    404    403    404
    shared   all    all    all    404    404    own    own    404    all    404
    open     403    403    403    403    403    403    403    403    403    403
show accept
    unshared 404    404    404    404    404    404    404    404    404    404
    shared   ok     ok     ok     404    404    ok     ok     404    ok     404
show pend
    unshared 404    404    404    404    404    404    404    404    404    404
    shared   ok     ok     ok     404    404    404    404    404    ok     404
add member, remove accept
    private  403    403    403    404    404    404    404    404    403    403
    shared   ok     ok     ok     404    404    403    403    404    ok     403
    open     403    403    403    403    403    403    403    403    403    403
accept for accept
    private  403    403    403    404    404    404    404    404    403    403
    shared   ok     403    403    404    404    ok     ok     404    403    403
    open     403    403    403    403    403    403    403    403    403    403
accept for pend
    private  403    403    403    404    404    404    404    404    403    403
    shared   ok     403    403    404    404    404    404    404    403    403
    open     403    403    403    403    403    403    403    403    403    403
see locations
    private  ok     403    403    404    404    404    404    404    ok     404
    shared   ok     403    403    404    404    403    403    404    ok     404
    open     ok     403    403    403    403    403    403    ok     ok     403
add web location
    private  ok     ok     403    404    404    404    404    404    ok     403
    shared   ok     ok     403    404    404    403    403    404    ok     403
    open     ok     ok     403    403    403    403    403    ok     ok     403
add store location
    private  403    403    403    404    404    404    404    404    400    403
    shared   403    403    403    404    404    403    403    404    400    403
    open     403    403    403    403    403    403    403    400    400    403
"""

OLD_SERVICE: Final = """
             admin  member reader other  oreadr accept areadr srvc   osrvc  anon

create, create private, create community
             ok     ok     ok     ok     ok     ok     ok     ok     ok     403
create public, create for another
             ok     403    403    403    403    403    403    403    403    403
list, list namespaces, list all types
             ok     ok     ok     ok     ok     ok     ok     ok     ok     ok
import methods, stores, usage, schema
             ok     ok     ok     ok     ok     ok     ok     ok     ok     ok
stores in detail
             ok     403    403    403    403    403    403    ok     ok     403
list tasks, create task, show task, delete task, create namespace
list cache, clear cache, clean cache, prune cache, who has cached
list cached, clear cached, drop cached, list queued, clear queued, queue, drop queued
             ok     403    403    403    403    403    403    403    403    403
"""

# The statuses of images that are listed, in whatever visibility.
LISTED: Final = tuple(
    status for status in ALL_STATUSES if status not in ("killed", "pending_delete", "deleted")
)


@dataclass(frozen=True)
class Row:
    """A line: the word in front of it, and what stands below each head."""

    label: str
    cells: Mapping[str, str]


@cache
def rows(table: str) -> dict[str, list[Row]]:
    """The rows of each request in the table, in its order."""
    lines = [line for line in table.splitlines() if line.strip() and not line.startswith("#")]
    head = lines.pop(0).split()
    found: dict[str, list[Row]] = {}
    names: list[str] = []
    is_row_before = False
    for line in lines:
        is_row = line.startswith(" ")
        if is_row:
            label, cells = line[:13].strip(), line[13:].split()
            row = Row(label, dict(zip(head, cells, strict=True)))
            for name in names:
                found.setdefault(name, []).append(row)
        else:
            names = ([] if is_row_before else names) + line.split(", ")
        is_row_before = is_row
    return found


@cache
def by_visibility(table: str) -> dict[tuple[str, str, str], str]:
    """The cells of IMAGES, OLD_IMAGES or NAMESPACES by request, visibility and caller."""
    return {
        (name, visibility, caller): cell
        for name, own in rows(table).items()
        for row in own
        for visibility in VISIBILITIES[row.label]
        for caller, cell in row.cells.items()
    }


def in_status(name: str, status: str, caller: str, cell: str) -> str:
    """What the cell of IMAGES is in this status, by STATUSES."""
    table = rows(STATUSES)
    own = {row.label: row.cells for row in table.get(name, ())}
    general = {row.label: row.cells for row in table["*"]}
    said = next(
        found[label][status]
        for found, label in (
            *((own, caller), (general, caller), (own, cell), (general, cell)),
            # Words beside `ok`, for those who are let through.
            *((own, "ok"), (general, "ok")),
        )
        if label in found
    )
    return cell if said in ("ok", "=") else said
