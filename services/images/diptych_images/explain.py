"""What `explain IMAGE` tells an operator: who holds the image, how far it is, what comes next."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from diptych_common.logs import redact
from diptych_store.locations import for_display

from diptych_images.db.explain import Explained

_UNFINISHED: Final = ("waiting", "running")
_MIB: Final = 1024 * 1024


def document(found: Explained) -> dict[str, Any]:
    """All of it for machines; `next` is what `lines` ends with."""
    # The names of columns are of a kind of str that orjson does not take.
    return {str(name): value for name, value in found.items()} | {
        "locations": [
            {**row, "url": row["url"] and for_display(row["url"])} for row in found["locations"]
        ],
        "jobs": [{**row, "error": row["error"] and redact(row["error"])} for row in found["jobs"]],
        "next": [*_next(found)],
    }


def lines(found: Explained) -> Iterator[str]:
    """The same in words, for people: names and messages cannot command their terminals."""
    for line in _lines(found):
        yield "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)


def _lines(found: Explained) -> Iterator[str]:
    name = f" ({found['name']})" if found["name"] else ""
    yield f"Image {found['id']}{name} is {found['status']}."
    if found["deleted_at"] is not None:
        yield f"  deleted {_ago(found['deleted_at'], found)}"
    else:
        owner = found["owner"] or "nobody"
        yield f"  owned by {owner}, last changed {_ago(found['updated_at'], found)}"
    if found["import_task"] is not None:
        yield f"  held by the import of task {found['import_task']}"

    yield "Where its bytes are, or may be:"
    for row in found["locations"]:
        yield f"  {row['store']}: {_location(row, found)}"
    if not found["locations"]:
        yield "  nowhere"

    for row in found["jobs"]:
        yield from _job(row, found)
    for row in found["tasks"]:
        message = f": {row['message']}" if row["message"] else ""
        yield f"Task {row['id']} ({row['type']}), {_when(row['created_at'], found)}:"
        yield f"  {row['status']}{message}"

    yield "What comes next:"
    for line in _next(found):
        yield f"  {line}"


def _location(row: Mapping[str, Any], found: Explained) -> str:
    match row["status"]:
        case "pending" | "discarding":
            doing = "being written" if row["status"] == "pending" else "being removed"
            return f"{doing} since {_when(row['created_at'], found)}; {_lease(row, found)}"
        case "staged":
            return f"staged since {_when(row['created_at'], found)}, waiting for an import"
        case "deleted":
            return "to be removed"
        case _:
            return f"stored, {for_display(row['url'])}"


def _job(row: Mapping[str, Any], found: Explained) -> Iterator[str]:
    yield f"Job {row['id']} ({row['kind']}), {_when(row['created_at'], found)}:"
    of = "" if row["max_attempts"] is None else f" of {row['max_attempts']}"
    ending = ""
    if row["state"] in _UNFINISHED:
        cancelled = ", being cancelled" if row["cancelled"] else ""
        ending = cancelled + (", being undone" if row["ending"] is not None else "")
    yield f"  {row['state']}{ending}, attempt {row['attempts']}{of}"
    if row["state"] == "running":
        yield f"  held by worker {row['worker']}; {_lease(row, found)}"
    if row["state"] == "waiting":
        yield f"  next try {_when(row['run_after'], found)}"
    progress: dict[str, Any] = row["progress"] or {}
    if "done" in progress:
        total = progress.get("total")
        of = "" if total is None else f" of {total // _MIB}"
        yield f"  {progress['done'] // _MIB}{of} MiB"
    if row["error"]:
        yield f"  last error: {redact(row['error'].partition(chr(10))[0])}"


def _next(found: Explained) -> Iterator[str]:
    """What an operator or a user has to do, if anything."""
    for row in found["jobs"]:
        if row["state"] == "running" and row["is_overdue"]:
            yield (
                f"The worker of job {row['id']} was not heard of any more. Another takes it at"
                " once; if none does, no worker runs: see `[jobs] with_worker`."
            )
        elif row["state"] == "running":
            yield f"Nothing: job {row['id']} runs. To stop it: jobs cancel {row['id']}"
        elif row["state"] == "waiting":
            yield (
                f"Nothing: job {row['id']} is tried again {_when(row['run_after'], found)}. If that"
                " is past, no worker runs, or all are busy."
            )
    if any(row["state"] in _UNFINISHED for row in found["jobs"]):
        return
    held = [row for row in found["locations"] if row["lease_until"] is not None]
    if held:
        yield (
            "Nothing: a request is at it. If its process is dead, the reaper removes what it left"
            " when the lease is over."
        )
        return
    if any(row["status"] == "deleted" for row in found["locations"]):
        yield _KEPT
        return
    yield _AT_REST.get(found["status"], "Nothing.")


_AT_REST: Final = {
    "queued": "The image waits for its data: a user uploads, or imports again.",
    "saving": "No upload is under way: the reaper queues the image again.",
    "uploading": "The staged data waits for its import: a user asks for one.",
    "importing": "No job is at it, which cannot be: report this, with what is above.",
    "active": "Nothing: the image is in use.",
    "deactivated": "The image cannot be downloaded until an administrator reactivates it.",
    "pending_delete": "Its bytes go when scrub_time is over; until then: restore",
    "deleted": "Nothing: its bytes are removed.",
}
_KEPT: Final = "Its bytes are still there: no job removes them, for their store is read-only."


def _lease(row: Mapping[str, Any], found: Explained) -> str:
    word = "was over" if row["is_overdue"] else "lasts until"
    return f"its lease {word} {_when(row['lease_until'], found)}"


def _when(moment: str, found: Explained) -> str:
    return _ago(datetime.fromisoformat(moment), found)


def _ago(moment: datetime, found: Explained) -> str:
    seconds = round((found["now"] - moment).total_seconds())
    told = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"{told} ({seconds} s ago)" if seconds >= 0 else f"{told} (in {-seconds} s)"
