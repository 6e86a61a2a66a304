"""The check of stores leaves nothing behind, whatever happens to it."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from diptych_store import report
from diptych_store.report import Report
from diptych_store.settings import StoresConfig


def directories(folder: Path, **options: str) -> StoresConfig:
    """Two file stores; `options` are those of the second."""
    return StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "fast:file, slow:file"},
            "glance_store": {"default_backend": "fast"},
            "fast": {
                "filesystem_store_datadir": str(folder / "fast"),
                "store_description": "NVMe",
                "weight": "10",
            },
            "slow": {"filesystem_store_datadir": str(folder / "slow"), **options},
        }
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def by_store(told: Report) -> Mapping[str, Any]:
    """The document as a machine reads it."""
    return {one["store"]: one for one in json.loads(json.dumps(told.document))}


async def test_every_step_of_every_store_is_told(tmp_path: Path):
    told = await report.check(directories(tmp_path), seconds=30)
    assert (told.is_well, told.hangs) == (True, False)
    assert files(tmp_path) == []
    found = by_store(told)
    assert [*found] == ["fast", "slow"]
    for one in found.values():
        assert (one["ok"], one["left"], one["type"]) == (True, None, "file")
        assert [step["step"] for step in one["steps"]] == [
            "open", "write", "list attempts", "publish", "read", "read a range", "delete", "close",
        ]  # fmt: skip
        for step in one["steps"]:
            assert step["ms"] >= 0
            assert (step["ok"], step["error"], step["told"], step["advice"]) == (True, None, "", "")
    assert told.lines[0].split() == ["store", "step", "ms", "outcome"]
    assert [line.split()[0] for line in told.lines if not line.startswith(" ")][1:] == [*found]


async def test_stores_are_chosen_by_name(tmp_path: Path):
    told = await report.check(directories(tmp_path), ["slow", "slow"], seconds=30)
    assert [*by_store(told)] == ["slow"]
    assert not (tmp_path / "fast").exists()
    with pytest.raises(ValueError, match="no store tape; there are fast, slow"):
        await report.check(directories(tmp_path), ["fast", "tape"], seconds=30)


async def test_one_that_fails_does_not_keep_the_others_from_being_checked(tmp_path: Path):
    (tmp_path / "slow").write_text("no directory")
    told = await report.check(directories(tmp_path), seconds=30)
    assert not told.is_well
    found = by_store(told)
    assert found["fast"]["ok"]
    (failed,) = found["slow"]["steps"]
    assert (failed["step"], failed["ok"]) == ("open", False)
    assert failed["error"].startswith("Store slow: ")
    assert failed["advice"]
    (line,) = [line for line in told.lines if "FAILED" in line]
    assert failed["error"] in line
    assert [path.name for path in files(tmp_path)] == ["slow"]


async def test_a_store_that_may_only_be_read_is_not_written_to(tmp_path: Path):
    (tmp_path / "slow").mkdir()
    told = await report.check(directories(tmp_path, read_only="true"), ["slow"], seconds=30)
    assert told.is_well
    steps = by_store(told)["slow"]["steps"]
    assert [step["step"] for step in steps] == ["open", "measure", "close"]
    assert steps[1]["told"].endswith(" GiB free")
    assert list((tmp_path / "slow").iterdir()) == []


async def test_the_staging_store_is_checked_too(tmp_path: Path):
    config = StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "ram:memory, os_glance_staging_store:memory"},
            "glance_store": {"default_backend": "ram"},
        }
    )
    assert [*by_store(await report.check(config, seconds=30))] == [
        "ram",
        "os_glance_staging_store",
    ]


async def test_an_interrupted_check_leaves_no_probe(tmp_path: Path):
    """Cancelled after more and more turns of the loop, until the check gets to its end."""
    turns, interrupted = 0, 0
    while True:
        checking = asyncio.create_task(
            report.check(directories(tmp_path), ["fast"], seconds=30), name="check"
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        if checking.done():
            break
        checking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await checking
        interrupted += checking.cancelled()
        assert files(tmp_path) == []
        turns = turns + 1 + turns // 4
    assert interrupted > 5
    assert files(tmp_path) == []


async def test_one_that_takes_too_long_is_given_up_and_leaves_no_probe(tmp_path: Path):
    seconds = 0.0
    given_up = 0
    while True:
        told = await report.check(directories(tmp_path), seconds=seconds)
        assert files(tmp_path) == []
        assert not told.hangs
        if told.is_well:
            break
        for one in by_store(told).values():
            if not one["steps"]:
                given_up += 1
                assert not one["ok"]
                continue
            late = [step["step"] for step in one["steps"] if not step["ok"]]
            assert bool(late) is not one["ok"]
            given_up += len(late)
            for step in one["steps"]:
                assert step["ok"] or step["error"] == "It was not over when it was given up."
        seconds = 1.5 * seconds + 0.0005
    assert given_up


def test_stores_are_listed_as_they_are_configured(tmp_path: Path):
    config = StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "fast:file, web:http"},
            "glance_store": {"default_backend": "fast"},
            "fast": {
                "filesystem_store_datadir": str(tmp_path),
                "store_description": "NVMe of rack 7",
                "weight": "10",
            },
            "os_glance_staging_store": {"filesystem_store_datadir": "/srv/staging"},
        }
    )
    told = report.describe(config)
    place = str(tmp_path.resolve())
    assert [line.split() for line in told.lines] == [
        ["store", "type", "weight", "role", "place", "description"],
        ["fast", "file", "10", "default", place, "NVMe", "of", "rack", "7"],
        ["web", "http", "0", "read-only"],
        ["os_glance_staging_store", "file", "0", "staging", "/srv/staging"],
    ]
    assert by_store(told)["fast"] == {
        "store": "fast",
        "type": "file",
        "default": True,
        "weight": 10,
        "read_only": False,
        "staging": False,
        "description": "NVMe of rack 7",
        "places": [place],
    }
    assert by_store(told)["os_glance_staging_store"]["staging"]
    assert not Path("/srv/staging").exists()


def test_the_default_store_is_listed_as_that_of_staging_where_there_is_no_other():
    told = report.describe(StoresConfig.from_sections({}))
    assert told.lines[1].split()[:5] == ["file", "file", "0", "default,", "staging"]
    assert [one["store"] for one in told.document if one["staging"]] == ["file"]
