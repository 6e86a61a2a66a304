"""What exchanges may find: the states of the images and namespaces that are theirs."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha512
from typing import Any, Final

from tests.compat.form import Step, Until
from tests.compat.metadefs import NAMESPACES

DATA: Final = b"diptych " * 100
# Three quarters of the storage quota, where there is one.
MOST: Final = b"x" * 300_000
DIGEST: Final = sha512(DATA).hexdigest()
V2_1: Final = "application/openstack-images-v2.1-json-patch"
V2_0: Final = "application/openstack-images-v2.0-json-patch"


def post(**fields: Any) -> Step:
    """A new image of the owner's; an administrator makes the public ones."""
    admins = fields.get("visibility") == "public"
    image = {
        "id": "$id",
        "name": "web",
        "disk_format": "raw",
        "container_format": "bare",
        **({"owner": "$owner"} if admins else {}),
        **fields,
    }
    return Step(
        request="POST /v2/images",
        by="admin" if admins else "owner",
        body={name: value for name, value in image.items() if value != ""},
    )


FILE = Step(request="PUT /v2/images/$id/file", body=DATA)
STAGE = Step(request="PUT /v2/images/$id/stage", body=DATA)
SHARE = Step(request="POST /v2/images/$id/members", body={"member": "$member"})
_ACCEPT = Step(
    request="PUT /v2/images/$id/members/$member", body={"status": "accepted"}, by="member"
)
_DEACTIVATE = Step(request="POST /v2/images/$id/actions/deactivate")
_IMPORT = Step(request="POST /v2/images/$id/import", body={"method": {"name": "glance-direct"}})
_COPY = Step(
    request="POST /v2/images/$id/import",
    body={"method": {"name": "copy-image"}, "stores": ["cheap"]},
    by="admin",
)
DETAILS = {"tags": ["a", "b"], "os_distro": "debian", "colour": "red", "min_ram": 7}

_LOCATED: Final = (
    post(),
    Step(request="POST /v2/images/$id/locations", body={"url": "$web"}),
    Until("os_hash_value", DIGEST),
    Until("os_glance_import_task", None),
)


STATES: Final[dict[str, Sequence[Step | Until]]] = {
    "nothing": (),
    "queued": (post(),),
    "nameless": (post(name=""),),
    "formless": (post(disk_format="", container_format=""),),
    "detailed": (post(**DETAILS),),
    "protected": (post(protected=True),),
    "hidden": (post(os_hidden=True),),
    "queued private": (post(visibility="private"),),
    "queued public": (post(visibility="public"),),
    "queued community": (post(visibility="community"),),
    "queued shared": (post(), SHARE),
    "active": (post(), FILE),
    "private": (post(visibility="private"), FILE),
    "community": (post(visibility="community"), FILE),
    "public": (post(visibility="public"), FILE),
    "shared": (post(), FILE, SHARE),
    "accepted": (post(), FILE, SHARE, _ACCEPT),
    "shared with two": (
        *(post(), FILE, SHARE),
        Step(request="POST /v2/images/$id/members", body={"member": "$stranger"}),
    ),
    "deactivated": (post(), FILE, SHARE, _DEACTIVATE),
    "uploading": (post(), STAGE),
    "imported": (
        post(),
        STAGE,
        _IMPORT,
        Until("status", "active"),
        Until("os_glance_import_task", None),
    ),
    "in two stores": (
        post(),
        FILE,
        _COPY,
        Until("stores", ["cheap", "fast"]),
        Until("os_glance_import_task", None),
    ),
    "deleted": (post(), Step(request="DELETE /v2/images/$id")),
    "three": (
        post(name="a", tags=["$id", "x"], min_disk=1),
        post(id="$second", name="b", tags=["$id"], colour="red"),
        post(id="$third", name="c", tags=["$id", "x"], disk_format="iso", min_disk=2),
        FILE,
    ),
    # Of services that show locations and have small quotas.
    "located": _LOCATED,
    "located twice": (
        *_LOCATED,
        Step(
            request="PATCH /v2/images/$id",
            body=[{"op": "add", "path": "/locations/-", "value": {"url": "$web2", "metadata": {}}}],
            headers={"Content-Type": V2_1},
        ),
    ),
    "located and shared": (*_LOCATED, SHARE),
    "nearly full": (
        replace(post(), by="stranger"),
        replace(post(id="$second"), by="stranger"),
        Step(request="PUT /v2/images/$second/file", by="stranger", body=MOST),
    ),
    "at its limits": (post(tags=["a", "b", "c"], p="x", q="x", r="x"), SHARE),
    **NAMESPACES,
}
