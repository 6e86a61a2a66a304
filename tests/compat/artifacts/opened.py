"""Requests to services that let in whom nobody knows, keep what was deleted, and have limits."""

from typing import Final

from tests.compat.artifacts.exchanges import (
    ACTIVATE,
    DRAFTED,
    GIVEN,
    by_all,
    delete,
    get,
    show,
)
from tests.compat.artifacts.form import (
    EVERYBODY,
    SAMPLE,
    Step,
    exchange,
    make,
    patch,
    put,
)
from tests.compat.artifacts.quotas import NUMBER, OF_SAMPLE, limited

SETTINGS: Final = {
    "allow_anonymous_access": "true",
    "delayed_delete": "true",
    "max_artifact_number": "6",
    "max_uploaded_data": "1000",
    "default_api_limit": "2",
    "max_api_limit": "3",
}
OF_TYPES: Final = {
    "artifact_type:sample_artifact": {"max_artifact_number": "3", "max_uploaded_data": "20"},
    "artifact_type:images": {"delayed_delete": "false"},
    "artifact_type:heat_environments": {"default_store": "database"},
}
_FIVE: Final = (
    *(make("", of="images", name=str(number)) for number in range(4)),
    make("id"),
)
_AWAY: Final = (*DRAFTED, put("blob"), delete())

_IN_DATABASE: Final = "/artifacts/heat_environments/$id/environment"
_IN_DATABASE_MADE: Final = (
    make("id", of="heat_environments"),
    Step(request=f"PUT {_IN_DATABASE}", body=b"in the database"),
)

OPENED: Final = (
    *by_all("opened: show", *GIVEN, request=f"GET {SAMPLE}/$id"),
    *by_all("opened: list", "active", "public", request=f"GET {SAMPLE}"),
    *by_all("opened: list all", "active", "public", request="GET /artifacts/all"),
    *by_all(
        "opened: describe",
        "public",
        request=f"PATCH {SAMPLE}/$id",
        body=[{"op": "add", "path": "/description", "value": "x"}],
    ),
    *by_all("opened: upload", "drafted", "public", request=f"PUT {SAMPLE}/$id/blob", body=b"x"),
    *by_all("opened: delete", "drafted", "public", request=f"DELETE {SAMPLE}/$id"),
    *(
        exchange(
            f"opened: download by {by}",
            get(f"{SAMPLE}/$id/blob", by),
            *DRAFTED,
            put("blob"),
            *GIVEN["public"][1:],
        )
        for by in EVERYBODY
    ),
    *(
        exchange(f"opened: {path} by {by}", get(path, by))
        for by in ("anonymous", "denied", "admin")
        for path in ("/schemas", "/quotas", "/project-quotas", "/nothing", "/artifacts/nothing")
    ),
    exchange(
        "opened: create, by anonymous",
        Step(request=f"POST {SAMPLE}", by="anonymous", body={"name": "a"}),
    ),
    *(
        exchange(f"opened: list {query}", get(f"/artifacts/images?{query}"), *_FIVE)
        for query in ("", "limit=1", "limit=3", "limit=4", "limit=1000", "limit=0")
    ),
    *(
        exchange(f"opened: {name}", step, *_AWAY, after=f"GET {SAMPLE}/$id")
        for name, step in (
            *(("show deleted", show()), ("download from deleted", get(f"{SAMPLE}/$id/blob"))),
            *(
                ("download from deleted by admin", get(f"{SAMPLE}/$id/blob", "admin")),
                ("show deleted by other", show("other")),
            ),
            *(
                ("upload to deleted", put("blob")),
                ("delete deleted", delete()),
                ("list deleted", get(SAMPLE)),
            ),
            *(
                ("describe deleted", patch(("add", "/description", "x"))),
                ("activate deleted", ACTIVATE),
            ),
            *(
                ("list what is deleted", get(f"{SAMPLE}?status=deleted")),
                ("show deleted of all", get("/artifacts/all/$id")),
            ),
            *(
                ("remove from deleted", delete(f"{SAMPLE}/$id/blob")),
                ("create what was deleted", make("second", string_required="x")),
            ),
            *(
                ("list after a deleted one", get(f"{SAMPLE}?marker=$id")),
                ("nothing of deleted", patch()),
            ),
        )
    ),
    exchange("opened: delete with data", delete(), *DRAFTED, put("blob")),
    exchange("opened: delete at once", delete("/artifacts/images/$id"), make("id", of="images")),
    exchange(
        "opened: create a third", make("third", name="c"), make("id"), make("second", name="b")
    ),
    exchange(
        "opened: create a fourth",
        make("", name="d"),
        make("id"),
        make("second", name="b"),
        make("third", name="c"),
    ),
    exchange(
        "opened: create a fourth of deleted ones",
        make("", name="d"),
        make("id"),
        make("second", name="b"),
        make("third", name="c"),
        delete(),
    ),
    exchange(
        "opened: create a seventh",
        make("", name="d"),
        *(make("", of="images", name=str(number)) for number in range(6)),
    ),
    exchange(
        "opened: create more than is configured",
        make("", name="d"),
        make("id"),
        make("second", name="b"),
        make("third", name="c"),
        limited(**{OF_SAMPLE[NUMBER]: -1}),
    ),
    exchange("opened: upload what there is for the type", put("blob", b"x" * 20), make("id")),
    exchange("opened: upload more than there is for the type", put("blob", b"x" * 21), make("id")),
    exchange("opened: quotas", get("/quotas", "admin"), limited(**{NUMBER: 5})),
    exchange(
        "opened: project-quotas", get("/project-quotas"), limited(**{OF_SAMPLE[NUMBER]: 5, "x": 1})
    ),
    exchange(
        "opened: upload to the database",
        Step(request=f"PUT {_IN_DATABASE}", body=b"x" * 900),
        *_IN_DATABASE_MADE[:1],
    ),
    exchange(
        "opened: upload to the database again",
        Step(request=f"PUT {_IN_DATABASE}", body=b""),
        *_IN_DATABASE_MADE,
    ),
    exchange(
        "opened: upload too much to the database",
        Step(request=f"PUT {_IN_DATABASE}", body=b"x" * 1001),
        *_IN_DATABASE_MADE,
    ),
    exchange("opened: download from the database", get(_IN_DATABASE), *_IN_DATABASE_MADE),
    exchange(
        "opened: delete from the database",
        delete("/artifacts/heat_environments/$id"),
        *_IN_DATABASE_MADE,
    ),
)
