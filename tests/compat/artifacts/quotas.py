"""The requests about quotas."""

from typing import Any, Final

from tests.compat.artifacts.exchanges import (
    ACTIVE,
    DEACTIVATED,
    PUBLIC,
    delete,
    get,
)
from tests.compat.artifacts.form import (
    EVERYBODY,
    SAMPLE,
    Exchange,
    Step,
    exchange,
    locate,
    make,
    patch,
    put,
    told,
)


def _set(*projects: tuple[str, dict[str, Any]], by: str = "admin") -> Step:
    return Step(
        request="PUT /quotas",
        by=by,
        body=[
            {
                "project_id": project,
                "project_quotas": [
                    {"quota_name": name, "quota_value": value} for name, value in quotas.items()
                ],
            }
            for project, quotas in projects
        ],
    )


def _quota(name: str, body: Any, **rest: Any) -> Exchange:
    return exchange(
        f"quotas: {name}",
        Step(request="PUT /quotas", by="admin", body=body, **rest),
        after="GET /quotas",
    )


def limited(**quotas: Any) -> Step:
    return _set(("$demo", quotas))


def _one(name: Any = "max_artifact_number", value: Any = 1, project: Any = "$demo") -> Any:
    return [{"project_id": project, "project_quotas": [{"quota_name": name, "quota_value": value}]}]


NUMBER: Final = "max_artifact_number"
BYTES: Final = "max_uploaded_data"
OF_SAMPLE: Final = {name: f"{name}:sample_artifact" for name in (NUMBER, BYTES)}

QUOTAS: Final = (
    *(exchange(f"quotas: list, by {by}", get("/quotas", by)) for by in EVERYBODY),
    exchange(
        "quotas: list some", get("/quotas", "admin"), _set(("$demo", {NUMBER: 5}), ("b", {"x": 1}))
    ),
    *(
        exchange(f"quotas: {path}, by {by}", get(path, by), _set(("$demo", {NUMBER: 5, "x": 7})))
        for path in ("/project-quotas", "/project-quotas/$demo", "/project-quotas/other")
        for by in EVERYBODY
    ),
    *(exchange(f"quotas: set, by {by}", _set(("$demo", {NUMBER: 5}), by=by)) for by in EVERYBODY),
    *(
        _quota(name, body)
        for name, body in (
            *(("nothing", []), ("an object", {}), ("a text", "x"), ("null", b"null")),
            *(("broken JSON", b"["), ("no bytes", b""), ("a list of nothing", [{}])),
            *((f"value {value!r}", _one(value=value)) for value in (0, -1, -2, "5", None, 1.5)),
            *((f"value {value!r}", _one(value=value)) for value in (True, 2**31, 2**63, 2.0)),
            *((f"name {told(name)}", _one(name)) for name in ("", "x", 7, None, "a:b", "a:b:c")),
            *((f"name of {size}", _one("n" * size)) for size in (255, 256)),
            *(
                (f"project {told(it)}", _one(project=it))
                for it in ("", 7, None, "p" * 255, "p" * 256)
            ),
            ("no name", [{"project_id": "a", "project_quotas": [{"quota_value": 1}]}]),
            ("no value", [{"project_id": "a", "project_quotas": [{"quota_name": "x"}]}]),
            ("no project", [{"project_quotas": []}]),
            ("no quotas", [{"project_id": "$demo"}]),
            ("an object as quotas", [{"project_id": "$demo", "project_quotas": {}}]),
            ("more", [{"project_id": "a", "project_quotas": [], "x": 1}]),
            (
                "more of one",
                [
                    {
                        "project_id": "a",
                        "project_quotas": [{"quota_name": "x", "quota_value": 1, "y": 2}],
                    }
                ],
            ),
            ("one twice", [*_one(value=1), *_one(value=2)]),
        )
    ),
    _quota("as text", _one(), headers={"Content-Type": "text/plain"}),
    _quota("without a type", _one(), headers={"Content-Type": None}),
    exchange(
        "quotas: replace",
        _set(("$demo", {BYTES: 7})),
        *(_set(("$demo", {NUMBER: 5}), ("other", {NUMBER: 6})),),
        after="GET /quotas",
    ),
    exchange("quotas: remove", _set(("$demo", {})), limited(**{NUMBER: 5}), after="GET /quotas"),
    *(
        exchange(
            f"quotas: create with {quotas}",
            make("third", name="c"),
            make("id"),
            make("second", name="b", of="images"),
            limited(**quotas),
        )
        for quotas in (
            *({NUMBER: 0}, {NUMBER: 1}, {NUMBER: 2}, {NUMBER: 3}, {NUMBER: -1}),
            *({OF_SAMPLE[NUMBER]: 1}, {OF_SAMPLE[NUMBER]: 2}, {f"{NUMBER}:images": 1}),
            *({NUMBER: -1, OF_SAMPLE[NUMBER]: 1}, {NUMBER: 1, OF_SAMPLE[NUMBER]: 9}),
        )
    ),
    exchange(
        "quotas: create by another project",
        make("second", by="other"),
        make("id"),
        limited(**{NUMBER: 1}),
    ),
    exchange(
        "quotas: create after one was deleted",
        make("second"),
        make("id"),
        limited(**{NUMBER: 1}),
        delete(),
    ),
    exchange("quotas: a taken name over quota", make("second"), make("id"), limited(**{NUMBER: 1})),
    exchange(
        "quotas: a bad field over quota",
        make("second", name="b", int1="x"),
        make("id"),
        limited(**{NUMBER: 1}),
    ),
    *(
        exchange(
            f"quotas: upload {size} with {quotas}",
            put("blob", b"x" * size),
            make("id"),
            put("small_blob", b"12345"),
            limited(**quotas),
        )
        for quotas in (
            *(
                {BYTES: 10},
                {OF_SAMPLE[BYTES]: 10},
                {BYTES: -1},
                {BYTES: 0},
                {f"{BYTES}:images": 0},
            ),
            {BYTES: 20, OF_SAMPLE[BYTES]: 10},
        )
        for size in (5, 6)
    ),
    exchange(
        "quotas: upload again within",
        put("blob", b"x" * 10),
        make("id"),
        put("blob", b"x" * 10),
        limited(**{BYTES: 15}),
    ),
    exchange("quotas: locate over quota", locate("blob"), make("id"), limited(**{BYTES: 0})),
    exchange(
        "quotas: upload no bytes over quota", put("blob", b""), make("id"), limited(**{BYTES: 0})
    ),
    exchange(
        "quotas: upload after a deletion",
        Step(request=f"PUT {SAMPLE}/$second/blob", body=b"x" * 10),
        make("id"),
        put("blob", b"x" * 10),
        make("second", name="b"),
        limited(**{BYTES: 10}),
        delete(),
        after="",
    ),
    exchange(
        "quotas: upload by admin",
        put("blob", b"x" * 10, by="admin"),
        make("id"),
        limited(**{BYTES: 5}),
    ),
    exchange(
        "quotas: upload to public",
        put("blob", b"x" * 10, by="admin"),
        *PUBLIC,
        limited(**{BYTES: 5}),
    ),
    exchange(
        "quotas: upload to frozen over quota",
        put("dict_of_blobs/a", b"x" * 10),
        *ACTIVE,
        limited(**{BYTES: 5}),
    ),
    exchange(
        "quotas: upload to deactivated over quota",
        put("blob", b"x" * 10),
        *DEACTIVATED,
        limited(**{BYTES: 5}),
    ),
    exchange(
        "quotas: patch over quota", patch(("add", "/str1", "x")), make("id"), limited(**{NUMBER: 0})
    ),
)
