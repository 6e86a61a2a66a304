"""What the bytes of an image really are, found while they pass, and judged when it counts.

oslo.utils' inspectors look at the stream, the same code that Nova and Cinder judge an image with
later on. Looking needs no knowledge of the image: what is staged is looked at on its way in, when
its formats may not be declared yet, and judged when it is imported.

Source: Glance 33.0, glance/location.py; oslo.utils 10.2, imageutils/format_inspector.py. Unlike
Glance, an image that need not match its declared format must still be safe, and a VMDK descriptor
that only qemu recognises is refused.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from diptych_common.errors import UnsupportedMediaType
from oslo_utils.imageutils.format_inspector import (
    ALL_FORMATS,
    FileInspector,
    GPTInspector,
    ImageFormatError,
    LUKSInspector,
    SafetyCheckFailed,
)

from diptych_images.settings import ImageFormat

log = logging.getLogger(__name__)

# What the inspectors see depends on how a stream is cut, where one part of an image says where
# another is. They are shown pieces of one size, however it came in.
_PIECE = 64 * 1024

# By its first bytes the VMDK inspector tells text from anything else, and in text it looks for a
# descriptor in the first piece only. qemu reads a descriptor of up to 1 MiB: that much of a text
# is shown to the inspectors in one piece.
_TELLTALE = 512
_TEXT_HEAD = 1024 * 1024

# A text that qemu takes for a VMDK and whose extents, files of the host perhaps, it would open. Its
# own `qemu-img convert` pads such a descriptor with NUL, and oslo.utils then takes it for raw.
# Source: qemu 7.2, block/vmdk.c `vmdk_probe`, which looks at no more than _TELLTALE bytes.
_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n")

# What a bigint column holds.
_LARGEST_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Match:
    """A format that the data is of, and what its inspector says of the data.

    `name` is as in oslo.utils ("gpt" is any partition table). `damage` says why the inspector
    cannot vouch for the data, None if it can; `failed` are its safety checks that failed.
    `virtual_size` is in bytes, 0 where the data does not say, None where what it says is no size.
    `vmdk_type` is the createType of a VMDK in lower case, where it has one.
    """

    name: str
    damage: str | None
    failed: tuple[str, ...]
    virtual_size: int | None
    vmdk_type: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What the bytes of an image are, whatever they were declared to be.

    `size` is theirs. Without `matches` they are raw; `undecided` are formats that they may or may
    not be of. `is_descriptor` says that qemu takes them for a VMDK that names other files.
    """

    size: int
    matches: tuple[Match, ...]
    undecided: tuple[str, ...]
    is_descriptor: bool

    def document(self) -> dict[str, Any]:
        """A JSON object that `read` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Findings":
        """The findings that `document` made this of."""
        return cls(
            size=document["size"],
            matches=tuple(
                Match(
                    name=match["name"],
                    damage=match["damage"],
                    failed=tuple(match["failed"]),
                    virtual_size=match["virtual_size"],
                    vmdk_type=match["vmdk_type"],
                )
                for match in document["matches"]
            ),
            undecided=tuple(document["undecided"]),
            is_descriptor=document["is_descriptor"],
        )


class Inspection:
    """Watches the bytes of one image; an observer of `diptych_store.ingest`.

    `update` costs time for the first MiB or so and next to none after it; memory is held for what
    looks like text, up to 1 MiB, and for less than 64 KiB of anything else.
    """

    def __init__(self) -> None:
        self._size = 0
        self._held = bytearray()
        self._piece: int | None = None
        self._is_descriptor = False
        # Every inspector is in one of these, or has found that the image is not of its format.
        self._watching = [kind() for name, kind in ALL_FORMATS.items() if name != "raw"]
        self._ready: list[FileInspector] = []
        self._stopped: list[FileInspector] = []

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the image; `block` is not kept."""
        self._size += len(block)
        if not self._watching:
            return
        self._held += block
        if self._piece is None and len(self._held) >= _TELLTALE:
            self._look_at_head()
        while self._piece is not None and len(self._held) >= self._piece:
            piece = bytes(self._held[: self._piece])
            del self._held[: self._piece]
            self._piece = _PIECE
            self._feed(piece)

    def findings(self) -> Findings:
        """What the image is; after its last byte."""
        if self._piece is None:
            self._look_at_head()
        self._feed(bytes(self._held))
        self._held.clear()
        matches: list[Match] = []
        undecided: list[str] = []
        for inspector in (*self._watching, *self._ready, *self._stopped):
            inspector.finish()
            try:
                is_match = inspector.format_match
            # The VMDK inspector fails in this way on text that is not all ASCII. Glance answers
            # 500 there, and Nova does not boot the image.
            except Exception as error:
                log.warning("Cannot tell whether an image is %s: %s", inspector, error)
                undecided.append(str(inspector))
            else:
                if is_match:
                    matches.append(_match(inspector, is_stopped=inspector in self._stopped))
        return Findings(
            size=self._size,
            matches=tuple(matches),
            undecided=tuple(undecided),
            is_descriptor=self._is_descriptor,
        )

    def _look_at_head(self) -> None:
        head = self._held[:_TELLTALE]
        self._is_descriptor = _DESCRIPTOR.match(head) is not None
        self._piece = _TEXT_HEAD if _is_text(head) else _PIECE

    def _feed(self, piece: bytes) -> None:
        if not piece:
            return
        watching: list[FileInspector] = []
        for inspector in self._watching:
            try:
                inspector.eat_chunk(piece)
            # Whatever a parser trips over in bytes of somebody else's making: they are not of its
            # format, or they are and it cannot vouch for them.
            except Exception as error:
                log.debug("%s: %s", inspector, error)
                if _may_match(inspector):
                    self._stopped.append(inspector)
                continue
            if not inspector.complete or (_measures(inspector) and _may_match(inspector)):
                watching.append(inspector)
            elif _may_match(inspector):
                self._ready.append(inspector)
        self._watching = watching


def judge(
    findings: Findings, *, disk_format: str, container_format: str, rules: ImageFormat
) -> int | None:
    """Hold an image against what it was declared; its virtual size in bytes, None if unknown.

    Only images without a container (`bare`) are judged. Raises UnsupportedMediaType for one that
    is unsafe, whose safety cannot be told, or that is not of the format it was declared with where
    that is required.
    """
    if container_format != "bare":
        return None
    for name in findings.undecided:
        raise UnsupportedMediaType(f"Whether the data is {name} cannot be told.")
    matches = decisive(findings)
    for match in matches:
        _require_safety(match, rules)
    if findings.is_descriptor and not any(match.name == "vmdk" for match in matches):
        raise UnsupportedMediaType("The data is a VMDK descriptor, which names other files.")
    found = " and ".join(match.name for match in matches) or "raw"
    if disk_format == "raw" and len(matches) <= 1:
        if matches:
            log.warning("An image declared as raw is %s; it is stored as raw.", found)
        return findings.size
    if found == disk_format:
        size = matches[0].virtual_size
        if size is None:
            raise UnsupportedMediaType(f"The data is {found} of an unknown or impossible size.")
        return size or None
    if matches or disk_format in ALL_FORMATS:
        message = f"The data is {found}, not {disk_format} as the image was declared."
        if rules.require_image_format_match:
            raise UnsupportedMediaType(message)
        log.warning("%s It is stored all the same, as format matching is off.", message)
    return None


def decisive(findings: Findings) -> tuple[Match, ...]:
    """The formats that count: a bootable ISO begins with a partition table, and is an ISO.

    So do qemu and Glance take it.
    """
    if {match.name for match in findings.matches} == {"iso", "gpt"}:
        return tuple(match for match in findings.matches if match.name == "iso")
    return findings.matches


def likeliest(findings: Findings, rules: ImageFormat) -> str:
    """The disk_format for an image of which nobody has said one; whether it is safe says `judge`.

    What may not be declared here is raw, like what is of no format: so is what has partitions.
    """
    names = [match.name for match in decisive(findings)]
    return names[0] if len(names) == 1 and names[0] in rules.disk_formats else "raw"


def _require_safety(match: Match, rules: ImageFormat) -> None:
    name = match.name
    if match.damage is not None:
        raise UnsupportedMediaType(f"The data is damaged {name}: {match.damage}.")
    if match.failed:
        failed = ", ".join(match.failed)
        if name != "gpt" or not set(match.failed) <= set(rules.gpt_safety_checks_nonfatal):
            raise UnsupportedMediaType(f"The data is {name} that failed safety checks: {failed}.")
        log.warning("A GPT image is stored although checks failed: %s", failed)
    if name == "vmdk":
        allowed = {kind.lower() for kind in rules.vmdk_allowed_types}
        if match.vmdk_type not in allowed:
            raise UnsupportedMediaType(f"VMDK {match.vmdk_type} is not allowed here.")


def _match(inspector: FileInspector, *, is_stopped: bool) -> Match:
    damage: str | None = None
    failed: tuple[str, ...] = ()
    # Where an inspector gave up, its checks have not seen what it could not read.
    if is_stopped:
        damage = "what it says of itself cannot be read"
    else:
        try:
            inspector.safety_check()
        except SafetyCheckFailed as error:
            failed = tuple(cast("dict[str, Exception]", error.failures))
        except ImageFormatError as error:
            damage = str(error)
    return Match(
        name=str(inspector),
        damage=damage,
        failed=failed,
        virtual_size=_virtual_size(inspector),
        # Only the VMDK inspector has it, and only once it has seen a descriptor.
        vmdk_type=cast("str | None", getattr(inspector, "vmdktype", None)),
    )


def _measures(inspector: FileInspector) -> bool:
    """Whether the virtual size is told by the length of the stream."""
    return isinstance(inspector, GPTInspector | LUKSInspector)


def _may_match(inspector: FileInspector) -> bool:
    try:
        return inspector.format_match
    except Exception:  # told, and refused, at the end
        return True


def _is_text(head: bytearray) -> bool:
    return head.isascii() and all(
        character.isprintable() or character.isspace() for character in head.decode("ascii")
    )


def _virtual_size(inspector: FileInspector) -> int | None:
    try:
        size = inspector.virtual_size
    # A VMDK that is nothing but a descriptor has no header to read a size from.
    except Exception as error:
        log.debug("%s: %s", inspector, error)
        return None
    return size if 0 <= size <= _LARGEST_SIZE else None
