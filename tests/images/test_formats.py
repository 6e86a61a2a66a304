"""What an upload's bytes are taken for, and which of them are refused."""

import json
import os
import struct
import subprocess
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from diptych_common.errors import UnsupportedMediaType
from diptych_images.formats import Findings, Inspection, judge, likeliest
from diptych_images.settings import ImageFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_utils.imageutils import format_inspector

from tests.images.corpus import (
    FLAT,
    GPT,
    HYBRID,
    MIB,
    RAW,
    SECRET,
    iso,
    luks,
    mbr,
    qcow2,
    vmdk_text,
)

STRICT = ImageFormat()
LENIENT = ImageFormat(require_image_format_match=False)


def inspect(
    data: bytes,
    declared: str,
    *,
    container: str = "bare",
    rules: ImageFormat = STRICT,
    cuts: Sequence[int] = (),
) -> int | None:
    inspection = Inspection()
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(borders):
        # As ingest does it: a buffer that is used again as soon as `update` returns.
        block = bytearray(data[start:end])
        inspection.update(memoryview(block))
        block[:] = b"\xff" * len(block)
    # Staged images are judged by what was kept of the look at them.
    kept = json.loads(json.dumps(inspection.findings().document()))
    return judge(Findings.read(kept), disk_format=declared, container_format=container, rules=rules)


# --- images by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "declared", "virtual_size"),
    [
        (b"", "raw", 0),
        (b"x", "raw", 1),
        (RAW, "raw", len(RAW)),
        (b"\x00" * 3 * MIB, "raw", 3 * MIB),
        (b"text of all sorts\n" * 100, "raw", 1800),
        (qcow2(), "qcow2", 5 * MIB),
        (qcow2(version=2), "qcow2", 5 * MIB),
        (iso(), "iso", 300 * 2048),
        (iso(start=mbr((0x83, 1))), "iso", 300 * 2048),
        (GPT, "gpt", len(GPT)),
        (luks(), "luks", 8192 - 8 * 512),
        (b"conectix".ljust(40, b"\x00") + struct.pack(">Q", 7 * MIB).ljust(999), "vhd", 7 * MIB),
    ],
)
def test_what_is_what_it_says_is_measured(
    data: bytes, declared: str, virtual_size: int | None
) -> None:
    assert inspect(data, declared) == virtual_size


@pytest.mark.parametrize("declared", ["ami", "ari", "aki", "ploop"])
def test_what_nobody_can_recognise_is_stored_unmeasured(declared: str) -> None:
    assert inspect(RAW, declared) is None


@pytest.mark.parametrize("data", [qcow2(), iso(), GPT, luks(), iso(start=mbr((0x83, 1)))])
def test_any_safe_format_may_be_declared_raw(data: bytes) -> None:
    assert inspect(data, "raw") == len(data)


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (qcow2(), "qcow2"),
        (iso(start=mbr((0x83, 1))), "iso"),
        (RAW, "raw"),
        (GPT, "raw"),
        (luks(), "raw"),
        # Of two formats: it is refused whatever it is declared to be.
        (iso(start=qcow2()[:4096]), "raw"),
    ],
)
def test_the_format_is_guessed_of_what_nobody_declared(data: bytes, format: str) -> None:
    inspection = Inspection()
    inspection.update(data)
    assert likeliest(inspection.findings(), STRICT) == format


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (RAW, "qcow2"),
        (b"", "qcow2"),
        (b"QFI\xfb", "qcow2"),
        (qcow2(), "vmdk"),
        (qcow2(), "ami"),
        (GPT, "ploop"),
        (iso(start=qcow2()[:4096]), "qcow2"),
        (iso(start=qcow2()[:4096]), "iso"),
        (iso(start=qcow2()[:4096]), "raw"),
    ],
)
def test_a_mismatch_is_refused_unless_matching_is_off(data: bytes, declared: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        inspect(data, declared)
    assert inspect(data, declared, rules=LENIENT) is None


UNSAFE = {
    "backing file": qcow2(backing=0x200),
    "data file": qcow2(features=0b100),
    "unknown features": qcow2(features=1 << 40),
    "qcow1": qcow2(version=1),
    "qcow2 of the future": qcow2(version=4),
    "qed": b"QED\x00".ljust(4096, b"\x00"),
    "hybrid partition table": HYBRID,
    "no partition": mbr().ljust(4096, b"\x00"),
    "luks2": luks(version=2),
    "flat vmdk": FLAT,
    "flat vmdk behind a long comment": vmdk_text(
        "monolithicFlat", 'FLAT "/etc/passwd" 0', comment="# all work and no play\n" * 40_000
    ),
    "flat vmdk, padded": FLAT.ljust(512, b"\x00"),
    "flat vmdk, padded, of another platform": b"#\r\n  \r\n\n"
    + FLAT.replace(b"\n", b"\r\n").ljust(4096, b"\x00"),
    "vmdk of several files": vmdk_text("twoGbMaxExtentSparse", 'SPARSE "a-s001.vmdk"'),
    "vmdk with a path": vmdk_text("monolithicSparse", 'SPARSE "../a.vmdk"'),
    "vmdk without extents": b'# Disk DescriptorFile\ncreateType="monolithicSparse"\n' + b" " * 99,
    "vmdk with a bad version": struct.pack("<4sI", b"KDMV", 9).ljust(4096, b"\x00"),
    "vmdk without a descriptor": struct.pack("<4sI", b"KDMV", 1).ljust(4096, b"\x00"),
    "vhdx that ends too soon": b"vhdxfile".ljust(MIB, b"\x00"),
    "text that is no text": b"# Disk DescriptorFile\n" * 100 + "é".encode(),
    "two formats, one with a backing file": iso(start=qcow2(backing=8)[:4096]),
}


@pytest.mark.parametrize("name", sorted(UNSAFE))
@pytest.mark.parametrize("rules", [STRICT, LENIENT], ids=["strict", "lenient"])
@pytest.mark.parametrize("declared", ["raw", "qcow2", "vmdk", "ami", "gpt", "luks"])
def test_the_unsafe_is_refused_however_it_is_declared(
    name: str, declared: str, rules: ImageFormat
) -> None:
    with pytest.raises(UnsupportedMediaType):
        inspect(UNSAFE[name], declared, rules=rules)


@pytest.mark.parametrize("data", [qcow2(size=2**63), luks(payload=1000)])
def test_an_impossible_size_is_refused(data: bytes) -> None:
    declared = "qcow2" if data.startswith(b"QFI") else "luks"
    with pytest.raises(UnsupportedMediaType, match="impossible"):
        inspect(data, declared)


def test_a_lone_vmdk_descriptor_is_no_image() -> None:
    data = vmdk_text("monolithicSparse", 'SPARSE "a.vmdk"', comment="# padding\n" * 10)

    with pytest.raises(UnsupportedMediaType):
        inspect(data, "vmdk")


def test_checks_of_a_partition_table_can_be_waived() -> None:
    waived = ImageFormat(gpt_safety_checks_nonfatal=("mbr",))
    other = ImageFormat(gpt_safety_checks_nonfatal=("other",))

    assert inspect(HYBRID, "gpt", rules=waived) == len(HYBRID)
    assert inspect(HYBRID, "raw", rules=waived) == len(HYBRID)
    with pytest.raises(UnsupportedMediaType):
        inspect(HYBRID, "gpt", rules=other)
    with pytest.raises(UnsupportedMediaType):
        inspect(qcow2(backing=1), "qcow2", rules=waived)


@pytest.mark.parametrize("container", ["ovf", "ova", "docker", "compressed", "ami"])
def test_what_is_wrapped_is_not_judged(container: str) -> None:
    for data in (RAW, qcow2(backing=1), FLAT):
        assert inspect(data, "qcow2", container=container) is None


def test_messages_name_what_was_found_and_what_failed() -> None:
    with pytest.raises(UnsupportedMediaType, match="qcow2, not vmdk"):
        inspect(qcow2(), "vmdk")
    with pytest.raises(UnsupportedMediaType, match="backing_file"):
        inspect(qcow2(backing=1), "qcow2")


# --- images by qemu-img ---------------------------------------------------------------------------


BY_QEMU: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # name: declared format, qemu's name of it, further arguments
    "qcow2": ("qcow2", "qcow2", ()),
    "qcow2 of old": ("qcow2", "qcow2", ("-o", "compat=0.10")),
    "qcow2, lazy and zstd": ("qcow2", "qcow2", ("-o", "lazy_refcounts=on,compression_type=zstd")),
    "vmdk": ("vmdk", "vmdk", ("-o", "subformat=monolithicSparse")),
    "vmdk to stream": ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
    "vdi": ("vdi", "vdi", ()),
    "vhdx": ("vhdx", "vhdx", ()),
    "vhdx, fixed": ("vhdx", "vhdx", ("-o", "subformat=fixed")),
    "vhd": ("vhd", "vpc", ("-o", "force_size=on")),
    "raw": ("raw", "raw", ()),
    "parallels": ("ploop", "parallels", ()),
}


@pytest.mark.parametrize("name", sorted(BY_QEMU))
def test_qemus_images_are_recognised_and_measured(
    name: str, qemu_img: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    declared, qemus, arguments = BY_QEMU[name]
    path = tmp_path / "image"
    qemu_img("convert", "-f", "raw", "-O", qemus, *arguments, str(source), str(path))
    data = path.read_bytes()
    info = json.loads(qemu_img("info", "--output=json", "-f", qemus, str(path)))

    expected = None if declared == "ploop" else info["virtual-size"]
    for step in (len(data), MIB, 64 * 1024, 100_003):
        assert inspect(data, declared, cuts=range(0, len(data), step)) == expected
    assert inspect(data, "raw") == len(data)
    detected = format_inspector.detect_file_format(str(path))
    assert str(detected) == ("raw" if declared == "ploop" else declared)


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "-f", "qcow2", "-F", "raw", "-b", "SOURCE", "IMAGE"),
        ("create", "-f", "qcow2", "-o", "data_file=FOLDER/data.raw", "IMAGE", "5M"),
        ("create", "-f", "qcow2", "-o", "extended_l2=on", "IMAGE", "5M"),
        ("create", "-f", "qed", "IMAGE", "5M"),
        ("create", "-f", "vmdk", "-o", "subformat=monolithicFlat", "IMAGE", "5M"),
        ("create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "IMAGE", "5M"),
        ("create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "IMAGE", "5M"),
    ],
    ids=lambda arguments: " ".join(arguments[2:5]),
)
def test_what_qemu_makes_and_nobody_can_vouch_for_is_refused(
    arguments: Sequence[str], qemu_img: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "image.img"
    places = {"SOURCE": str(source), "IMAGE": str(path), "FOLDER": str(tmp_path)}
    for place, value in places.items():
        arguments = [argument.replace(place, value) for argument in arguments]
    qemu_img(*arguments)
    data = path.read_bytes()

    for declared in ("raw", "qcow2", "vmdk", "ami"):
        with pytest.raises(UnsupportedMediaType):
            inspect(data, declared, rules=LENIENT)


@pytest.mark.parametrize(
    ("allowed", "made", "is_stored"),
    [
        (("streamOptimized",), "streamOptimized", True),
        (("STREAMOPTIMIZED",), "streamOptimized", True),
        (("streamOptimized",), "monolithicSparse", False),
        ((), "streamOptimized", False),
        # Allowing a subformat does not make it safe.
        (("monolithicFlat",), "monolithicFlat", False),
    ],
)
def test_the_operator_chooses_among_safe_vmdks(
    allowed: tuple[str, ...],
    made: str,
    is_stored: bool,
    qemu_img: Callable[..., str],
    source: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "image.vmdk"
    qemu_img("convert", "-O", "vmdk", "-o", f"subformat={made}", str(source), str(path))
    data = path.read_bytes()
    rules = ImageFormat(vmdk_allowed_types=allowed)

    assert json.loads(qemu_img("info", "--output=json", str(path)))["format"] == "vmdk"
    if is_stored:
        assert inspect(data, "vmdk", rules=rules) == 20 * MIB
        return
    for declared in ("vmdk", "raw"):
        with pytest.raises(UnsupportedMediaType):
            inspect(data, declared, rules=rules)


def test_an_encrypted_image_is_luks(qemu_img: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "image.luks"
    create = ("create", *SECRET, "-f", "luks", "-o", "key-secret=key,iter-time=10", str(path), "5M")
    for _ in range(9):
        # qemu gives up ("Unable to get accurate CPU usage") when the kernel moves it at a bad time.
        with suppress(subprocess.CalledProcessError):
            qemu_img(*create)
            break

    assert inspect(path.read_bytes(), "luks") == 5 * MIB


# --- any bytes ------------------------------------------------------------------------------------

SEEDS = [
    qcow2()[:70_000], iso(), iso(start=qcow2()[:4096]), GPT, HYBRID, luks(), FLAT,
    iso(start=mbr((0x83, 1))), b"vhdxfile".ljust(300_000, b"\x00"), RAW[:70_000],
    FLAT.ljust(512, b"\x00"),
    struct.pack("<4sIIQQQQIQQ", b"KDMV", 1, 0, 8, 1, 1, 1, 0, 0, 2**64 - 1).ljust(512, b"\x00")
    + FLAT.replace(b"monolithicFlat", b"monolithicSparse").replace(b"/", b"").ljust(4096, b"\x00"),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for at, value in draw(
        st.lists(
            st.tuples(st.integers(0, 600) | st.integers(0, len(data) - 1), st.integers(0, 255))
        )
    ):
        data[min(at, len(data) - 1)] = value
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


def qemu_takes_it_for_a_descriptor(data: bytes) -> bool:
    *lines, _ = data[:512].split(b"\n")
    for line in lines:
        text = line.removesuffix(b"\r")
        if not text.startswith(b"#") and text.strip(b" "):
            return text in (b"version=1", b"version=2", b"version=3")
    return False


def oslos_verdict(data: bytes, declared: str) -> Any:
    """The table of accepted formats, on what oslo.utils finds in the data read in one piece.

    Where it finds nothing in what qemu takes for a VMDK, qemu's word counts.
    """

    class Source:
        def read(self, size: int) -> bytes:
            return data

    wrapper = format_inspector.InspectWrapper(Source())  # pyright: ignore[reportArgumentType]
    if data:
        wrapper.read(len(data))
    wrapper.close()
    found = {str(inspector): inspector for inspector in wrapper.formats or ()}
    if set(found) == {"iso", "gpt"}:
        found.pop("gpt")
    for inspector in found.values():
        inspector.safety_check()
        if inspector in wrapper._errored_inspectors:
            return "damaged"
    if "vmdk" not in found and qemu_takes_it_for_a_descriptor(data):
        return "descriptor"
    if len(found) > 1:
        return "mismatch"
    (name,) = found
    if declared == "raw":
        return len(data)
    if name == declared:
        size = found[name].virtual_size
        return size or None if 0 <= size < 2**63 else "impossible"
    if name == "raw" and declared not in format_inspector.ALL_FORMATS:
        return None
    return "mismatch"


@settings(deadline=None, max_examples=200)
@given(
    data=damaged() | st.binary(max_size=2000),
    declared=st.sampled_from(["raw", "qcow2", "iso", "gpt", "luks", "vmdk", "vhdx", "ami"]),
    cuts=st.lists(st.integers(1, 70_000) | st.integers(1, 600), max_size=5),
)
def test_any_bytes_in_any_pieces_are_judged_as_oslo_judges_them(
    data: bytes, declared: str, cuts: list[int]
) -> None:
    try:
        expected = oslos_verdict(data, declared)
    # Whatever goes wrong there ends in a refusal here.
    except Exception as error:
        expected = error
    try:
        verdict = inspect(data, declared, cuts=cuts)
    except UnsupportedMediaType:
        assert isinstance(expected, str | Exception)
    else:
        assert verdict == expected


def test_a_long_stream_costs_no_memory() -> None:
    inspection = Inspection()
    block = os.urandom(MIB)
    inspection.update(block)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(64):
            inspection.update(block)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 64 * 1024
    assert inspection.findings().size == 65 * MIB


def test_only_text_is_held_back() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        slow = [Inspection() for _ in range(20)]
        for inspection in slow:
            for _ in range(10):
                inspection.update(b"\x00" * 64 * 1024)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 4 * MIB
