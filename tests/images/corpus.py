"""Disk images of every kind: good, dangerous, damaged, and several things at once.

`BY_HAND` are made here byte by byte, `BY_QEMU` by qemu-img. Each says what oslo.utils finds in it:
the formats that match, with `!` the safety checks that fail or `damaged` where it cannot tell, and
`?` where it fails to say whether it matches; nothing of it means `raw`.
"""

import gzip
import io
import lzma
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

MIB = 1024 * 1024
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """An image's bytes and what they are.

    Where more is refused here than by oslo.utils, `stricter` is the reason, and `expected` what
    is found here.
    """

    data: bytes
    expected: str
    stricter: str | None = None


# --- What images are made of ----------------------------------------------------------------------


def qcow2(
    *,
    version: int = 3,
    backing: int = 0,
    features: int = 0,
    size: int = 5 * MIB,
    cluster_bits: int = 16,
    l1_size: int = 0,
    refcount_clusters: int = 0,
    length: int = MIB,
) -> bytes:
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, cluster_bits, size)
    tables = struct.pack(">IIQQI", 0, l1_size, 0x30000, 0x10000, refcount_clusters)
    whole = (header + tables).ljust(72, b"\x00") + struct.pack(">Q", features)
    return whole.ljust(length, b"\x00")


def mbr(*entries: tuple[int, int], flag: int = 0, chs: tuple[int, int, int] = (0, 2, 0)) -> bytes:
    """A boot sector whose partitions are (type, first sector); type 0xEE is a GPT's."""
    sector = bytearray(SECTOR)
    for at, (kind, lba) in enumerate(entries):
        sector[446 + 16 * at : 462 + 16 * at] = struct.pack(
            "<B3BB3BII", flag, *chs, kind, 255, 255, 255, lba, 100
        )
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def gpt(start: bytes) -> bytes:
    """A disk that begins with this sector, and a GUID partition table's header after it."""
    return (start + b"EFI PART\x00\x00\x01\x00").ljust(64 * 1024, b"\x00")


def iso(*, start: bytes = b"", mark: bytes = b"CD001", kind: int = 1, blocks: int = 300) -> bytes:
    descriptor = bytearray(2048)
    descriptor[:6] = bytes([kind]) + mark
    descriptor[80:84] = struct.pack("<L", blocks)
    descriptor[128:130] = struct.pack("<H", 2048)
    return start.ljust(32 * 1024, b"\x00") + bytes(descriptor).ljust(64 * 1024, b"\x00")


def luks(*, version: int = 1, payload: int = 8) -> bytes:
    header = struct.pack(
        ">6sH32s32s32sII20s32sI",
        b"LUKS\xba\xbe", version, b"aes", b"xts", b"sha256", payload, 32, b"", b"", 0,
    )  # fmt: skip
    return header.ljust(8192, b"\x00")


def vhd(*, size: int = 7 * MIB) -> bytes:
    return (b"conectix".ljust(40, b"\x00") + struct.pack(">Q", size)).ljust(4096, b"\x00")


def vdi(*, size: int = 7 * MIB) -> bytes:
    header = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\x00")
    return (header + struct.pack("<I", 0xBEDA107F)).ljust(368, b"\x00") + struct.pack(
        "<Q", size
    ).ljust(4096, b"\x00")


_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le


def vhdx(
    *,
    regions: int = 1,
    region: bytes = _METADATA_REGION,
    region_mark: bytes = b"regi",
    at: int = 512 * 1024,
    mark: bytes = b"metadata",
    entries: int = 1,
    item: bytes = _DISK_SIZE,
    length: int = 8,
    size: int = 7 * MIB,
) -> bytes:
    table = region_mark + struct.pack("<III", 0, regions, 0) + region
    table += struct.pack("<QII", at, MIB, 1)
    metadata = (mark + struct.pack("<HH", 0, entries)).ljust(32, b"\x00")
    metadata += item + struct.pack("<III", 0x10000, length, 0)
    image = bytearray(MIB)
    image[:8] = b"vhdxfile"
    image[192 * 1024 : 192 * 1024 + len(table)] = table
    image[512 * 1024 : 512 * 1024 + len(metadata)] = metadata
    image[576 * 1024 : 576 * 1024 + 8] = struct.pack("<Q", size)
    return bytes(image)


def vmdk_text(kind: str, extent: str, *, comment: str = "", more: str = "") -> bytes:
    return (
        f'# Disk DescriptorFile\n{comment}version=1\ncreateType="{kind}"\n{more}RW 2048 {extent}\n'
    ).encode()


def vmdk_header(
    *, version: int = 1, at: int = 1, sectors: int = 4, directory: int = 21, capacity: int = 2048
) -> bytes:
    header = struct.pack(
        "<4sIIQQQQIQQ", b"KDMV", version, 3, capacity, 128, at, sectors, 512, 0, directory
    )
    return header.ljust(SECTOR, b"\x00")


SPARSE = vmdk_text("monolithicSparse", 'SPARSE "disk.vmdk"')
_AT_END = 2**64 - 1


def vmdk(text: bytes = SPARSE, **header: int) -> bytes:
    """A VMDK in one file."""
    described = vmdk_header(**header) + text.ljust(4 * SECTOR, b"\x00")
    return described.ljust(64 * 1024, b"\x00")


def vmdk_stream(*, footer: bytes | None = None, kind: int = 3, end: int = 0) -> bytes:
    """A VMDK to be streamed, whose footer counts and not its header."""
    text = vmdk_text("streamOptimized", 'SPARSE "disk.vmdk"')
    begin = vmdk(text, version=3, directory=_AT_END)
    marker = struct.pack("<QII", 1, 0, kind).ljust(SECTOR, b"\x00")
    last = struct.pack("<QII", end, 0, 0).ljust(SECTOR, b"\x00")
    return begin + marker + (footer or vmdk_header(version=3)) + last


def fat() -> bytes:
    sector = bytearray(mbr((0x0C, 2048)))
    sector[0x10], sector[0x15] = 2, 0xF8
    return bytes(sector).ljust(4096, b"\x00")


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("disk.raw"), data)
    return file.getvalue()


# --- By hand --------------------------------------------------------------------------------------

RAW = bytes(range(256)) * 1024
FLAT = vmdk_text("monolithicFlat", 'FLAT "/etc/passwd" 0')
GPT = gpt(mbr((0xEE, 1)))
HYBRID = gpt(mbr((0xEE, 1), (0x83, 2048)))

_FIRST_PIECE = "oslo.utils looks for a descriptor in the first piece that it reads only"
_ONLY_QEMU = "qemu takes it for a VMDK and opens the files that it names"

BY_HAND: dict[str, Sample] = {
    # Nothing in particular.
    "nothing": Sample(b"", "raw"),
    "one byte": Sample(b"x", "raw"),
    "zeros": Sample(bytes(MIB), "raw"),
    "bytes of all kinds": Sample(RAW, "raw"),
    "text": Sample(b"text of all sorts\n" * 100, "raw"),
    "text in UTF-8": Sample("Größe\n".encode() * 100, "raw"),
    "gzip": Sample(gzip.compress(qcow2(backing=8), mtime=0), "raw"),
    "xz": Sample(lzma.compress(qcow2(backing=8)), "raw"),
    "zip": Sample(zipped(qcow2(backing=8)), "raw"),
    # qcow2
    "qcow2": Sample(qcow2(), "qcow2"),
    "qcow2, version 2": Sample(qcow2(version=2), "qcow2"),
    "qcow2, version 2 with feature bits": Sample(qcow2(version=2, features=1 << 40), "qcow2"),
    "qcow2, backing file": Sample(qcow2(backing=0x200), "qcow2!backing_file"),
    "qcow2, backing file at the far end": Sample(qcow2(backing=2**64 - 1), "qcow2!backing_file"),
    "qcow2, version 2 with backing file": Sample(
        qcow2(version=2, backing=0x200), "qcow2!backing_file"
    ),
    "qcow2, data file": Sample(qcow2(features=0b100), "qcow2!data_file"),
    "qcow2, dirty and corrupt": Sample(qcow2(features=0b11), "qcow2"),
    "qcow2, compression type": Sample(qcow2(features=0b1000), "qcow2"),
    "qcow2, extended entries": Sample(qcow2(features=1 << 4), "qcow2!unknown_features"),
    "qcow2, feature 9": Sample(qcow2(features=1 << 9), "qcow2!unknown_features"),
    "qcow2, feature 40": Sample(qcow2(features=1 << 40), "qcow2!unknown_features"),
    "qcow2, feature 63": Sample(qcow2(features=1 << 63), "qcow2!unknown_features"),
    "qcow2, everything at once": Sample(
        qcow2(backing=8, features=2**64 - 1), "qcow2!backing_file,data_file,unknown_features"
    ),
    "qcow": Sample(qcow2(version=1), "qcow2!unknown_features"),
    "qcow2 of the future": Sample(qcow2(version=4), "qcow2!unknown_features"),
    "qcow2, huge table": Sample(qcow2(l1_size=2**32 - 1), "qcow2"),
    "qcow2, huge reference counts": Sample(qcow2(refcount_clusters=2**32 - 1), "qcow2"),
    "qcow2, clusters of 2^63": Sample(qcow2(cluster_bits=63), "qcow2"),
    "qcow2, a pebibyte": Sample(qcow2(size=2**50), "qcow2"),
    "qcow2, 2^63 bytes": Sample(qcow2(size=2**63), "qcow2"),
    "qcow2, no bytes": Sample(qcow2(size=0), "qcow2"),
    "qcow2, the header only": Sample(qcow2(length=SECTOR), "qcow2"),
    "qcow2, cut in its header": Sample(qcow2()[:511], "raw"),
    "qcow2, cut after its mark": Sample(b"QFI\xfb", "raw"),
    "qcow2's mark, then anything": Sample(
        b"QFI\xfb" + RAW, "qcow2!backing_file,unknown_features"
    ),
    "nearly qcow2": Sample(b"QFI\xfa" + qcow2()[4:], "raw"),
    # QED
    "qed": Sample(b"QED\x00".ljust(4096, b"\x00"), "qed!banned"),
    "qed, cut in its header": Sample(b"QED\x00".ljust(100, b"\x00"), "raw"),
    # VHD
    "vhd": Sample(vhd(), "vhd"),
    "vhd of 2^64 bytes": Sample(vhd(size=2**64 - 1), "vhd"),
    "vhd, cut in its header": Sample(vhd()[:100], "vhd!damaged"),
    "vhd, fixed": Sample(RAW + vhd()[:SECTOR], "raw"),
    "vhd, misspelt": Sample(b"conectiX" + vhd()[8:], "raw"),
    # VHDX
    "vhdx": Sample(vhdx(), "vhdx"),
    "vhdx of 2^64 bytes": Sample(vhdx(size=2**64 - 1), "vhdx"),
    "vhdx, zeros after its mark": Sample(b"vhdxfile".ljust(MIB, b"\x00"), "vhdx!damaged"),
    "vhdx, cut before its regions": Sample(vhdx()[: 100 * 1024], "vhdx!damaged"),
    "vhdx, cut in its metadata": Sample(vhdx()[: 512 * 1024 + 40], "vhdx!damaged"),
    "vhdx, regions without end": Sample(vhdx(regions=2**32 - 1), "vhdx!damaged"),
    "vhdx, 2048 regions": Sample(vhdx(regions=2048), "vhdx!damaged"),
    "vhdx, 2047 regions": Sample(vhdx(regions=2047, region=bytes(16)), "vhdx"),
    "vhdx, regions misspelt": Sample(vhdx(region_mark=b"egir"), "vhdx!damaged"),
    "vhdx, no metadata": Sample(vhdx(region=bytes(16)), "vhdx"),
    "vhdx, metadata beyond the end": Sample(vhdx(at=2**40), "vhdx!damaged"),
    "vhdx, metadata misspelt": Sample(vhdx(mark=b"atadatem"), "vhdx!damaged"),
    "vhdx, 2048 metadata entries": Sample(vhdx(entries=2048), "vhdx"),
    "vhdx, no size": Sample(vhdx(item=bytes(16)), "vhdx"),
    "vhdx, a size of 4 bytes": Sample(vhdx(length=4), "vhdx"),
    "vhdx, a size of no bytes": Sample(vhdx(length=0), "vhdx"),
    # VMDK
    "vmdk": Sample(vmdk(), "vmdk"),
    "vmdk, version 3": Sample(vmdk(version=3), "vmdk"),
    "vmdk of 2^73 bytes": Sample(vmdk(capacity=2**64 - 1), "vmdk"),
    "vmdk, version 4": Sample(vmdk(version=4), "vmdk!damaged"),
    "vmdk, the mark only": Sample(b"KDMV".ljust(4096, b"\x00"), "vmdk!damaged"),
    "vmdk, cut in its header": Sample(vmdk()[:40], "vmdk!damaged"),
    "vmdk, cut in its descriptor": Sample(vmdk()[: 2 * SECTOR], "vmdk!damaged"),
    "vmdk, descriptor elsewhere": Sample(vmdk(at=2), "vmdk!damaged"),
    "vmdk, no descriptor": Sample(vmdk(b""), "vmdk!descriptor"),
    "vmdk, descriptor of no sectors": Sample(vmdk(sectors=0), "vmdk!descriptor"),
    "vmdk, descriptor without end": Sample(vmdk(sectors=2**40), "vmdk!damaged"),
    "vmdk, descriptor not in ASCII": Sample(vmdk(SPARSE + b"#\xff\n"), "vmdk!descriptor"),
    "vmdk, flat": Sample(vmdk(FLAT), "vmdk!descriptor"),
    "vmdk, a type of 70 letters": Sample(
        vmdk(vmdk_text("s" * 70, 'SPARSE "disk.vmdk"')), "vmdk!descriptor"
    ),
    "vmdk, no type": Sample(vmdk(b"# Disk DescriptorFile\n"), "vmdk!descriptor"),
    "vmdk, an extent elsewhere": Sample(
        vmdk(vmdk_text("monolithicSparse", 'SPARSE "../disk.vmdk"')), "vmdk!descriptor"
    ),
    "vmdk, no extent": Sample(vmdk(b'createType="monolithicSparse"\n'), "vmdk!descriptor"),
    "vmdk, a line of another kind": Sample(vmdk(SPARSE + b"do as I say\n"), "vmdk!descriptor"),
    "vmdk, an extent of another name": Sample(
        vmdk(vmdk_text("monolithicSparse", 'SPARSE "other.vmdk"')), "vmdk"
    ),
    "vmdk, a parent": Sample(
        vmdk(
            vmdk_text(
                "monolithicSparse",
                'SPARSE "disk.vmdk"',
                more='CID=1\nparentCID=2\nparentFileNameHint="/etc/passwd"\n',
            )
        ),
        "vmdk",
    ),
    "vmdk to stream": Sample(vmdk_stream(), "vmdk"),
    "vmdk to stream, footer of another version": Sample(
        vmdk_stream(footer=vmdk_header(version=1)), "vmdk!footer"
    ),
    "vmdk to stream, footer with another descriptor": Sample(
        vmdk_stream(footer=vmdk_header(version=3, at=7)), "vmdk!footer"
    ),
    "vmdk to stream, footer with another footer": Sample(
        vmdk_stream(footer=vmdk_header(version=3, directory=_AT_END)), "vmdk!footer"
    ),
    "vmdk to stream, footer misspelt": Sample(
        vmdk_stream(footer=b"VDMK" + vmdk_header(version=3)[4:]), "vmdk!footer"
    ),
    "vmdk to stream, wrong marker": Sample(vmdk_stream(kind=1), "vmdk!footer"),
    "vmdk to stream, wrong end": Sample(vmdk_stream(end=1), "vmdk!footer"),
    "vmdk to stream, cut": Sample(vmdk_stream()[:-1], "vmdk!footer"),
    "vmdk to stream, its head only": Sample(vmdk_stream()[:1200], "vmdk!damaged"),
    "vmdk of ESX": Sample(b"COWD".ljust(4096, b"\x00"), "raw"),
    "vmdk descriptor": Sample(FLAT, "vmdk!descriptor"),
    "vmdk descriptor of several files": Sample(
        vmdk_text("twoGbMaxExtentSparse", 'SPARSE "a-s001.vmdk"'), "vmdk!descriptor"
    ),
    "vmdk descriptor, sparse": Sample(SPARSE, "vmdk"),
    "vmdk descriptor, behind a long comment": Sample(
        vmdk_text("monolithicFlat", 'FLAT "/etc/passwd" 0', comment="# all work\n" * 40_000),
        "vmdk!descriptor",
        stricter=_FIRST_PIECE,
    ),
    "vmdk descriptor, cut": Sample(FLAT[:30], "raw"),
    "vmdk descriptor, padded": Sample(
        FLAT.ljust(SECTOR, b"\x00"), "raw", stricter=_ONLY_QEMU
    ),
    "vmdk descriptor, padded, of another platform": Sample(
        b"#\r\n  \r\n\n" + FLAT.replace(b"\n", b"\r\n").ljust(4096, b"\x00"),
        "raw",
        stricter=_ONLY_QEMU,
    ),
    "vmdk descriptor, no type": Sample(
        b"# Disk DescriptorFile\nversion=1\n" * 3, "raw", stricter=_ONLY_QEMU
    ),
    "vmdk descriptor, text that is no text": Sample(
        b"# Disk DescriptorFile\n" * 100 + "é".encode(), "vmdk?"
    ),
    # VDI
    "vdi": Sample(vdi(), "vdi"),
    "vdi of 2^64 bytes": Sample(vdi(size=2**64 - 1), "vdi"),
    "vdi, cut in its header": Sample(vdi()[:300], "raw"),
    # ISO 9660 and UDF
    "iso": Sample(iso(), "iso"),
    "udf 2": Sample(iso(mark=b"NSR02"), "iso"),
    "udf 3": Sample(iso(mark=b"NSR03"), "iso"),
    "iso, another descriptor first": Sample(iso(kind=0), "iso"),
    "iso of no blocks": Sample(iso(blocks=0), "iso"),
    "iso, cut in its descriptor": Sample(iso()[: 33 * 1024], "raw"),
    "iso that boots": Sample(iso(start=mbr((0x83, 1))), "gpt+iso"),
    "iso with a GPT": Sample(iso(start=GPT[:1024]), "gpt+iso"),
    "iso with a hybrid partition table": Sample(iso(start=HYBRID[:1024]), "gpt!mbr+iso"),
    # Partition tables
    "gpt": Sample(GPT, "gpt"),
    "mbr": Sample(gpt(mbr((0x83, 2048))), "gpt"),
    "mbr, four partitions": Sample(gpt(mbr(*[(0x83, 2048)] * 4, flag=0x80)), "gpt"),
    "mbr, one sector": Sample(mbr((0x83, 2048)), "gpt"),
    "mbr, cut": Sample(mbr((0x83, 2048))[:511], "raw"),
    "mbr, wrong flag": Sample(gpt(mbr((0x83, 2048), flag=1)), "gpt!mbr"),
    "mbr, no partitions": Sample(gpt(mbr()), "gpt!mbr"),
    "gpt, hybrid": Sample(HYBRID, "gpt!mbr"),
    "gpt, not the first partition": Sample(gpt(mbr((0, 0), (0xEE, 1))), "gpt!mbr"),
    "gpt, wrong geometry": Sample(gpt(mbr((0xEE, 1), chs=(0, 1, 0))), "gpt!mbr"),
    "gpt, wrong start": Sample(gpt(mbr((0xEE, 2))), "gpt!mbr"),
    "gpt without a protective mbr": Sample(gpt(bytes(SECTOR)), "raw"),
    "fat": Sample(fat(), "raw"),
    # LUKS
    "luks": Sample(luks(), "luks"),
    "luks 2": Sample(luks(version=2), "luks!version"),
    "luks, cut in its header": Sample(luks()[:300], "luks!damaged"),
    "luks, cut after its mark": Sample(b"LUKS\xba\xbe", "luks!damaged"),
    "luks, data beyond the end": Sample(luks(payload=1000), "luks"),
    # Several things at once.
    "qcow2 and iso": Sample(iso(start=qcow2()[:4096]), "iso+qcow2"),
    "qcow2 with a backing file, and iso": Sample(
        iso(start=qcow2(backing=8)[:4096]), "iso+qcow2!backing_file"
    ),
    "qcow2 and mbr": Sample(qcow2()[:446] + mbr((0x83, 2048))[446:], "gpt+qcow2"),
    "qed and iso": Sample(iso(start=b"QED\x00"), "iso+qed!banned"),
    "luks and gpt": Sample(luks()[:446] + GPT[446:], "gpt+luks"),
    "vhd and gpt": Sample(vhd()[:446] + GPT[446:], "gpt+vhd"),
    "vdi and gpt": Sample(vdi()[:446] + GPT[446:], "gpt+vdi"),
    "vmdk and iso": Sample(iso(start=vmdk()[:4096]), "iso+vmdk"),
    "qcow2, mbr and iso": Sample(
        iso(start=qcow2()[:446] + mbr((0x83, 2048))[446:]), "gpt+iso+qcow2"
    ),
    "vdi within a qcow2's header": Sample(
        qcow2()[:64] + vdi()[64:], "qcow2+vdi"
    ),
}  # fmt: skip


# --- By qemu-img ----------------------------------------------------------------------------------

SECRET = ("--object", "secret,id=key,data=geheim")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How qemu-img makes an image, and what it is.

    `arguments` have the places SOURCE, a raw disk of 2 MiB, IMAGE and FOLDER. `cut` is what is
    expected of the first half of it, where that is not the same.
    """

    arguments: tuple[str, ...]
    expected: str
    cut: str | None = None


def _converted(kind: str, *options: str) -> tuple[str, ...]:
    return ("convert", "-f", "raw", "-O", kind, *options, "SOURCE", "IMAGE")


def _created(kind: str, *options: str) -> tuple[str, ...]:
    return ("create", "-f", kind, *options, "IMAGE", "5M")


BY_QEMU: dict[str, Recipe] = {
    "raw": Recipe(_converted("raw"), "raw"),
    "qcow": Recipe(_converted("qcow"), "qcow2!unknown_features"),
    "qcow2": Recipe(_converted("qcow2"), "qcow2"),
    "qcow2 of old": Recipe(_converted("qcow2", "-o", "compat=0.10"), "qcow2"),
    "qcow2, compressed": Recipe(_converted("qcow2", "-c"), "qcow2"),
    "qcow2, lazy and zstd": Recipe(
        _converted("qcow2", "-o", "lazy_refcounts=on,compression_type=zstd"), "qcow2"
    ),
    "qcow2, small clusters": Recipe(_converted("qcow2", "-o", "cluster_size=512"), "qcow2"),
    "qcow2, allocated": Recipe(_created("qcow2", "-o", "preallocation=metadata"), "qcow2"),
    "qcow2, extended entries": Recipe(
        _created("qcow2", "-o", "extended_l2=on"), "qcow2!unknown_features"
    ),
    "qcow2, backing file": Recipe(
        ("create", "-f", "qcow2", "-F", "raw", "-b", "SOURCE", "IMAGE"), "qcow2!backing_file"
    ),
    "qcow2, data file": Recipe(
        _created("qcow2", "-o", "data_file=FOLDER/data.raw"), "qcow2!data_file"
    ),
    # Not by LUKS, for whose keys qemu takes seconds.
    "qcow2, encrypted": Recipe(
        _created("qcow2", *SECRET, "-o", "encrypt.format=aes,encrypt.key-secret=key"),
        "qcow2",
    ),
    "qed": Recipe(_converted("qed"), "qed!banned"),
    "vmdk": Recipe(_converted("vmdk"), "vmdk"),
    "vmdk to stream": Recipe(_converted("vmdk", "-o", "subformat=streamOptimized"), "vmdk"),
    "vmdk, flat": Recipe(_created("vmdk", "-o", "subformat=monolithicFlat"), "vmdk!descriptor"),
    "vmdk, sparse in several files": Recipe(
        _created("vmdk", "-o", "subformat=twoGbMaxExtentSparse"), "vmdk!descriptor"
    ),
    "vmdk, flat in several files": Recipe(
        _created("vmdk", "-o", "subformat=twoGbMaxExtentFlat"), "vmdk!descriptor"
    ),
    "vdi": Recipe(_converted("vdi"), "vdi"),
    "vdi, static": Recipe(_converted("vdi", "-o", "static=on"), "vdi"),
    "vhd": Recipe(_converted("vpc", "-o", "force_size=on"), "vhd"),
    "vhd, fixed": Recipe(_converted("vpc", "-o", "subformat=fixed,force_size=on"), "raw"),
    "vhdx": Recipe(_converted("vhdx"), "vhdx"),
    "vhdx, fixed": Recipe(_converted("vhdx", "-o", "subformat=fixed"), "vhdx"),
    "parallels": Recipe(_converted("parallels"), "raw"),
}


def make(name: str, run: Callable[..., str], source: Path, folder: Path) -> bytes:
    """The image that qemu-img makes of the recipe; `folder` is for its files."""
    image = folder / "image.img"
    places = {"SOURCE": str(source), "IMAGE": str(image), "FOLDER": str(folder)}
    arguments = BY_QEMU[name].arguments
    for place, value in places.items():
        arguments = tuple(argument.replace(place, value) for argument in arguments)
    run(*arguments)
    return image.read_bytes()
