"""Images that become another format on their way in, and those that qemu-img never sees."""

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diptych_common.jobs import GiveUp
from diptych_images.imports.plugins import Draft, missing, transform
from diptych_images.imports.plugins.sandbox import Stopped

from tests.images.corpus import BY_HAND, GPT, MIB, iso, make, qcow2
from tests.images.drafts import draft, settings

pytestmark = pytest.mark.usefixtures("qemu_img")

# With something in the middle and nothing at the end.
DISK = os.urandom(MIB // 2) + bytes(MIB) + os.urandom(MIB // 4) + bytes(MIB // 4)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(DISK)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "import, with a comma: and a colon"
    path.mkdir()
    return path


async def converted(
    folder: Path,
    data: bytes,
    disk_format: str,
    container_format: str = "bare",
    *,
    limit: int = 1 << 40,
    image_format: dict[str, Any] | None = None,
    **options: Any,
) -> Draft:
    made = draft(folder, data, disk_format, container_format)
    groups = {"image_conversion": options, "image_format": image_format or {}}
    return await transform(made, folder, settings("image_conversion", **groups), limit=limit)


def by_qemu(name: str, qemu_img: Callable[..., str], raw: Path) -> bytes:
    return make(name, qemu_img, raw, raw.parent)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


READABLE = {
    "qcow2": "qcow2",
    "qcow2 of old": "qcow2",
    "qcow2, compressed": "qcow2",
    "qcow2, lazy and zstd": "qcow2",
    "vmdk": "vmdk",
    "vmdk to stream": "vmdk",
    "vdi": "vdi",
    "vdi, static": "vdi",
    "vhd": "vhd",
    "vhdx": "vhdx",
    "vhdx, fixed": "vhdx",
}


@pytest.mark.parametrize("name", READABLE)
async def test_any_disk_becomes_raw(
    name: str, qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    data = by_qemu(name, qemu_img, raw)

    result = await converted(folder, data, READABLE[name])

    assert result.path.read_bytes() == DISK
    assert (result.size, result.disk_format, result.container_format) == (len(DISK), "raw", "bare")
    assert files(folder) == [result.path]
    assert result.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("target", ["qcow2", "vmdk"])
@pytest.mark.parametrize("name", ["raw", "vdi", "qcow2 of old", "vmdk to stream"])
async def test_any_disk_becomes_what_the_operator_wants(
    name: str, target: str, qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    declared = {"raw": "raw", "qcow2 of old": "qcow2", "vmdk to stream": "vmdk"}.get(name, name)
    data = by_qemu(name, qemu_img, raw)

    result = await converted(folder, data, declared, output_format=target)

    if declared == target:
        assert result.path.read_bytes() == data
        return
    (match,) = result.findings.matches
    assert (result.disk_format, match.name, match.virtual_size) == (target, target, len(DISK))
    assert result.size == result.path.stat().st_size
    qemu_img("compare", "-f", "raw", "-F", target, str(raw), str(result.path))


async def test_a_disk_of_partitions_is_raw(
    qemu_img: Callable[..., str], tmp_path: Path, folder: Path
) -> None:
    same = await converted(folder, GPT, "raw")
    assert same.path.read_bytes() == GPT

    other = await converted(folder, GPT, "raw", output_format="qcow2")
    (tmp_path / "raw").write_bytes(GPT)
    qemu_img("compare", "-F", "qcow2", str(tmp_path / "raw"), str(other.path))


async def test_a_disk_that_was_declared_to_have_partitions_is_raw(folder: Path) -> None:
    result = await converted(folder, GPT, "gpt")

    assert (result.disk_format, result.path.read_bytes()) == ("raw", GPT)


async def test_an_iso_stays(folder: Path) -> None:
    for data in (iso(), iso(start=GPT[:1024])):
        result = await converted(folder, data, "iso")

        assert (result.disk_format, result.path.read_bytes()) == ("iso", data)


async def test_what_is_converted_has_no_container(
    qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    data = by_qemu("qcow2", qemu_img, raw)

    result = await converted(folder, data, "qcow2", "ovf")

    assert (result.disk_format, result.container_format) == ("raw", "bare")


@pytest.mark.parametrize(
    ("allowed", "made"),
    [
        (("monolithicSparse", "streamOptimized"), "monolithicSparse"),
        (("streamoptimized",), "streamOptimized"),
    ],
)
async def test_a_vmdk_is_of_a_kind_that_is_allowed(
    allowed: tuple[str, ...], made: str, qemu_img: Callable[..., str], folder: Path
) -> None:
    result = await converted(
        folder, DISK, "raw", output_format="vmdk", image_format={"vmdk_allowed_types": allowed}
    )

    described = json.loads(qemu_img("info", "--output=json", str(result.path)))
    assert described["format-specific"]["data"]["create-type"] == made


async def test_what_was_compressed_is_converted(
    qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    made = draft(folder, gzip.compress(by_qemu("qcow2", qemu_img, raw)), "qcow2")
    options = settings("image_decompression", "no_op", "image_conversion")

    result = await transform(made, folder, options, limit=1 << 30)

    assert result.path.read_bytes() == DISK
    assert files(folder) == [result.path]


async def test_the_order_is_the_operators(
    qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    made = draft(folder, gzip.compress(by_qemu("qcow2", qemu_img, raw)), "qcow2")
    options = settings("image_conversion", "image_decompression")

    with pytest.raises(GiveUp, match="raw, not qcow2"):
        await transform(made, folder, options, limit=1 << 30)


# --- What qemu-img never sees ---------------------------------------------------------------------


@pytest.fixture
def was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether somebody called qemu-img, in whose place is a program that fails."""
    trace = tmp_path / "called"
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n: > "{trace}"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return trace.exists


UNSEEN: dict[str, tuple[str, str]] = {
    # sample: declared format, words
    "qcow2, backing file": ("qcow2", "backing_file"),
    "qcow2, data file": ("qcow2", "data_file"),
    "qcow2, feature 40": ("qcow2", "unknown_features"),
    "qcow": ("qcow2", "unknown_features"),
    "qcow2, 2^63 bytes": ("qcow2", "impossible size"),
    "qed": ("qed", "banned"),
    "vmdk, flat": ("vmdk", "descriptor"),
    "vmdk descriptor": ("vmdk", "descriptor"),
    "vmdk descriptor, padded": ("raw", "descriptor"),
    "vmdk to stream, wrong end": ("vmdk", "footer"),
    "vhdx, cut in its metadata": ("vhdx", "damaged"),
    "gpt, hybrid": ("raw", "mbr"),
    "luks": ("luks", "luks cannot be converted"),
    "qcow2": ("raw", "is qcow2, not raw"),
    "raw": ("qcow2", "is raw, not qcow2"),
    "vdi": ("vhd", "is vdi, not vhd"),
    "iso": ("raw", "is iso, not raw"),
    "gpt": ("qcow2", "not qcow2"),
    "zeros": ("ami", "is raw, not ami"),
    "qcow2 and iso": ("qcow2", "iso and qcow2|qcow2 and iso"),
}


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize("name", UNSEEN)
async def test_qemu_sees_only_what_is_safe_and_as_declared(
    name: str, is_strict: bool, was_called: Callable[[], bool], folder: Path
) -> None:
    declared, words = UNSEEN[name]
    data = DISK if name == "raw" else BY_HAND[name].data
    rules = {"require_image_format_match": is_strict, "disk_formats": (declared,)}

    with pytest.raises(GiveUp, match=words):
        await converted(folder, data, declared, image_format=rules, output_format="vmdk")

    assert not was_called()


async def test_qemu_would_have_been_seen(was_called: Callable[[], bool], folder: Path) -> None:
    with pytest.raises(GiveUp, match="cannot read it"):
        await converted(folder, qcow2(), "qcow2")

    assert was_called()


async def test_without_qemu_nothing_is_converted_and_everybody_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))

    (warning,) = missing(settings("image_conversion"))
    assert "qemu-utils" in warning
    assert missing(settings("image_decompression")) == []
    with pytest.raises(GiveUp, match="not installed"):
        await converted(folder, qcow2(), "qcow2")


def test_with_qemu_there_is_nothing_to_tell() -> None:
    assert missing(settings("image_conversion")) == []


# --- What qemu-img finds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "declared", "words"),
    [
        ("vmdk, a parent", "vmdk", "backing file|cannot read it"),
        ("qcow2, huge table", "qcow2", "cannot read it"),
        ("qcow2, huge reference counts", "qcow2", "cannot read it"),
        ("qcow2, clusters of 2^63", "qcow2", "cannot read it"),
        ("vmdk of 2^73 bytes", "vmdk", "impossible size"),
        ("vdi", "vdi", "cannot read it"),
        ("vhdx", "vhdx", "cannot read it"),
        ("vhd", "vhd", "cannot read it"),
    ],
)
async def test_what_qemu_finds_wrong_is_refused(
    name: str, declared: str, words: str, folder: Path
) -> None:
    with pytest.raises(GiveUp, match=words):
        await converted(folder, BY_HAND[name].data, declared)


async def test_the_encrypted_is_refused(
    qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    data = by_qemu("qcow2, encrypted", qemu_img, raw)

    with pytest.raises(GiveUp, match="encrypted"):
        await converted(folder, data, "qcow2")


async def test_a_backing_file_of_a_vmdk_is_refused(
    qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    parent = raw.with_name("parent.vmdk")
    child = raw.with_name("child.vmdk")
    qemu_img("convert", "-O", "vmdk", str(raw), str(parent))
    qemu_img("create", "-f", "vmdk", "-b", str(parent), "-F", "vmdk", str(child))

    with pytest.raises(GiveUp, match="backing file"):
        await converted(folder, child.read_bytes(), "vmdk")


async def test_a_disk_within_a_disk_is_judged_when_it_comes_out(
    qemu_img: Callable[..., str], tmp_path: Path, folder: Path
) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_bytes(qcow2(backing=8))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", str(inner), str(outer))

    with pytest.raises(GiveUp, match="backing_file"):
        await converted(folder, outer.read_bytes(), "qcow2")


# --- Limits ---------------------------------------------------------------------------------------


async def test_a_pebibyte_of_nothing_is_refused(
    qemu_img: Callable[..., str], tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "huge"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", str(path), "1P")

    with pytest.raises(GiveUp, match=f"would have {2**50} bytes; {2**40} are allowed"):
        await converted(folder, path.read_bytes(), "qcow2")


@pytest.mark.parametrize("limit", [len(DISK), len(DISK) - 1])
async def test_a_result_has_the_size_that_images_may_have(
    limit: int, qemu_img: Callable[..., str], raw: Path, folder: Path
) -> None:
    data = by_qemu("qcow2", qemu_img, raw)

    for work in (
        converted(folder, data, "qcow2", limit=limit),
        converted(folder, data, "qcow2", output_limit=limit),
    ):
        if limit == len(DISK):
            assert (await work).size == limit
            continue
        with pytest.raises(GiveUp, match="allowed at most"):
            await work


async def test_a_result_that_grows_too_large_is_refused(folder: Path) -> None:
    with pytest.raises(GiveUp, match=f"more than {MIB // 2} bytes"):
        await converted(folder, DISK, "raw", output_format="qcow2", output_limit=MIB // 2)

    assert all(path.stat().st_size <= len(DISK) for path in files(folder))


async def test_a_conversion_that_takes_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(GiveUp, match="took more than") as refused:
        await converted(folder, DISK, "raw", output_format="qcow2", time_limit=0.001)

    assert isinstance(refused.value.__cause__, Stopped)


async def test_a_conversion_that_needs_too_much_memory_is_refused(folder: Path) -> None:
    with pytest.raises(GiveUp, match="cannot read it"):
        await converted(folder, qcow2(), "qcow2", memory_limit=32 * MIB)


async def test_a_conversion_that_is_cancelled_leaves_nothing_running(folder: Path) -> None:
    running = asyncio.create_task(converted(folder, DISK, "raw", output_format="qcow2"))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_reasons_name_no_place_on_the_host(folder: Path) -> None:
    refusals = [
        converted(folder, BY_HAND["qcow2, huge table"].data, "qcow2"),
        converted(folder, qcow2(), "qcow2", memory_limit=32 * MIB),
        converted(folder, DISK, "raw", output_format="vmdk", output_limit=MIB // 2),
    ]
    for refusal in refusals:
        with pytest.raises(GiveUp) as refused:
            await refusal
        assert "/" not in str(refused.value)
        assert "\n" not in str(refused.value)
