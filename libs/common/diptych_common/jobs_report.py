"""What a service's `jobs list | show` print; rows are those of `jobs.find` and `jobs.listed`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import orjson

from diptych_common.logs import HIDDEN, redact

_HEAD: Final = ("ID", "KIND", "STATE", "ATTEMPTS", "WHEN", "PROGRESS", "ERROR")
_ERROR_WIDTH: Final = 60

# A signed URL is a credential, and nobody knows by which names its signatures go.
_QUERY: Final = re.compile(r"(://[^\s\"'?#]{0,2048}+\?)[^\s\"']+")


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each job, below a heading, in columns."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    for line in lines:
        yield "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()


def details(row: Mapping[str, Any]) -> Iterator[str]:
    """A line for each thing that is known of a job."""
    width = max(len(name) for name in row) + 2
    for name, value in document(row).items():
        if value is not None:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            yield f"{name + ':':<{width}}{text}"


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    """The job as JSON has it, without secrets; times are in UTC, a period is in seconds."""
    # The names are of a kind of str that orjson does not take.
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    match value:
        case datetime():
            return _time(value)
        case timedelta():
            return value.total_seconds()
        case str():
            return _without_secrets(value)
        case Mapping():
            items = cast("Mapping[str, object]", value).items()
            return {name: _plain(one) for name, one in items}
        case list():
            return [_plain(one) for one in cast("list[object]", value)]
        case _:
            return value


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    of = "" if row["max_attempts"] is None else f"/{row['max_attempts']}"
    error = _without_secrets((row["error"] or "").partition("\n")[0])
    return (
        str(row["id"]),
        row["kind"],
        _state(row),
        f"{row['attempts']}{of}",
        _when(row),
        _progress(row["progress"]),
        error if len(error) <= _ERROR_WIDTH else f"{error[: _ERROR_WIDTH - 1]}…",
    )


def _state(row: Mapping[str, Any]) -> str:
    state: str = row["state"]
    if row["finished_at"] is not None:
        return state
    if row["ending"] is not None:
        return f"{state}, to be undone"
    return f"{state}, to be cancelled" if row["cancelled"] else state


def _when(row: Mapping[str, Any]) -> str:
    if row["finished_at"] is not None:
        return f"ended {_time(row['finished_at'])}"
    if row["lease_until"] is not None:
        return f"lease until {_time(row['lease_until'])}"
    return f"due {_time(row['run_after'])}"


def _progress(progress: Mapping[str, Any] | None) -> str:
    if not progress or "done" not in progress:
        return ""
    done, total = progress["done"], progress.get("total")
    return f"{done} B" if not total else f"{done} of {total} B ({100 * done // total} %)"


def _without_secrets(text: str) -> str:
    return _QUERY.sub(rf"\1{HIDDEN}", redact(text))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
