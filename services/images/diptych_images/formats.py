"""What the bytes of an image really are, judged while they pass.

oslo.utils' inspectors look at the stream, the same code that Nova and Cinder judge an image with
later on. Which verdict refuses an upload is decided here.

Source: Glance 33.0, glance/location.py; oslo.utils 10.2, imageutils/format_inspector.py. Unlike
Glance, an image that need not match its declared format must still be safe, and a VMDK descriptor
that only qemu recognises is refused.
"""

import logging
import re
from typing import cast

from diptych_common.errors import UnsupportedMediaType
from oslo_utils.imageutils.format_inspector import (
    ALL_FORMATS,
    FileInspector,
    ImageFormatError,
    SafetyCheckFailed,
    VMDKInspector,
)

from diptych_images.settings import ImageFormat

log = logging.getLogger(__name__)

# By its first bytes the VMDK inspector tells text from anything else, and in text it looks for a
# descriptor in the first piece only. qemu reads a descriptor of up to 1 MiB: that much of a text
# is shown to the inspectors in one piece, however the stream was cut.
_TELLTALE = 512
_TEXT_HEAD = 1024 * 1024

# A text that qemu takes for a VMDK and whose extents, files of the host perhaps, it would open. Its
# own `qemu-img convert` pads such a descriptor with NUL, and oslo.utils then takes it for raw.
# Source: qemu 7.2, block/vmdk.c `vmdk_probe`, which looks at no more than _TELLTALE bytes.
_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n")

# What a bigint column holds.
_LARGEST_SIZE = 2**63 - 1


class Inspection:
    """Watches the bytes of one image; an observer of `diptych_store.ingest`.

    Only images without a container (`bare`) are looked at. `update` costs time for the first MiB
    or so and next to none after it; memory is held for what looks like text, up to 1 MiB.
    """

    def __init__(self, disk_format: str, container_format: str, rules: ImageFormat) -> None:
        self._declared = disk_format
        self._is_bare = container_format == "bare"
        self._rules = rules
        self._size = 0
        self._head: bytearray | None = bytearray()
        self._is_descriptor = False
        # Every inspector is in one of the two, or has found that the image is not of its format.
        self._watching = [kind() for name, kind in ALL_FORMATS.items() if name != "raw"]
        self._stopped: list[FileInspector] = []

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the image; `block` is not kept."""
        if not self._is_bare:
            return
        self._size += len(block)
        if self._head is None:
            self._feed(bytes(block))
            return
        self._head += block
        if len(self._head) >= _TEXT_HEAD or (
            len(self._head) >= _TELLTALE and not _is_text(self._head[:_TELLTALE])
        ):
            self._feed_head()

    def verdict(self) -> int | None:
        """Judge the image, after its last byte; the virtual size in bytes, None if unknown.

        Raises UnsupportedMediaType for an image that is unsafe, that cannot be judged, or that is
        not of the format it was declared with where that is required.
        """
        if not self._is_bare:
            return None
        self._feed_head()
        for inspector in (*self._watching, *self._stopped):
            inspector.finish()
        matches = self._matches()
        found = " and ".join(map(str, matches)) or "raw"
        for inspector in matches:
            self._require_safety(inspector)
        if self._is_descriptor and not any(isinstance(match, VMDKInspector) for match in matches):
            raise UnsupportedMediaType("The data is a VMDK descriptor, which names other files.")
        if self._declared == "raw" and len(matches) <= 1:
            if matches:
                log.warning("An image declared as raw is %s; it is stored as raw.", found)
            return self._size
        if found == self._declared:
            return _virtual_size(matches[0])
        if matches or self._declared in ALL_FORMATS:
            message = f"The data is {found}, not {self._declared} as the image was declared."
            if self._rules.require_image_format_match:
                raise UnsupportedMediaType(message)
            log.warning("%s It is stored all the same, as format matching is off.", message)
        return None

    def _feed_head(self) -> None:
        if self._head is None:
            return
        head, self._head = bytes(self._head), None
        self._is_descriptor = _DESCRIPTOR.match(head[:_TELLTALE]) is not None
        self._feed(head[:_TEXT_HEAD])
        self._feed(head[_TEXT_HEAD:])

    def _feed(self, piece: bytes) -> None:
        if not piece or not self._watching:
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
            # Some measure the whole stream, so what matches goes on watching.
            if not inspector.complete or _may_match(inspector):
                watching.append(inspector)
        self._watching = watching

    def _matches(self) -> list[FileInspector]:
        matches: list[FileInspector] = []
        for inspector in (*self._watching, *self._stopped):
            try:
                if inspector.format_match:
                    matches.append(inspector)
            # The VMDK inspector fails in this way on text that is not all ASCII. Glance answers
            # 500 there, and Nova does not boot the image.
            except Exception as error:
                log.warning("Cannot tell whether an image is %s: %s", inspector, error)
                raise UnsupportedMediaType(
                    f"Whether the data is {inspector} cannot be told."
                ) from error
        # A bootable ISO begins with a partition table; qemu and Glance take it for an ISO.
        if {str(inspector) for inspector in matches} == {"iso", "gpt"}:
            return [inspector for inspector in matches if str(inspector) == "iso"]
        return matches

    def _require_safety(self, inspector: FileInspector) -> None:
        # Where an inspector gave up, its checks have not seen what it could not read.
        if inspector in self._stopped:
            raise UnsupportedMediaType(f"The data is damaged {inspector}.")
        try:
            inspector.safety_check()
        except SafetyCheckFailed as error:
            failed = cast("dict[str, Exception]", error.failures)
            nonfatal = self._rules.gpt_safety_checks_nonfatal
            if str(inspector) == "gpt" and failed.keys() <= set(nonfatal):
                log.warning("A GPT image is stored although checks failed: %s", ", ".join(failed))
                return
            raise UnsupportedMediaType(
                f"The data is {inspector} that failed safety checks: {', '.join(failed)}."
            ) from error
        except ImageFormatError as error:
            raise UnsupportedMediaType(f"The data is damaged {inspector}: {error}.") from error
        if isinstance(inspector, VMDKInspector):
            allowed = {kind.lower() for kind in self._rules.vmdk_allowed_types}
            if inspector.vmdktype not in allowed:
                raise UnsupportedMediaType(f"VMDK {inspector.vmdktype} is not allowed here.")


def _may_match(inspector: FileInspector) -> bool:
    try:
        return inspector.format_match
    except Exception:  # judged, and refused, at the end
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
        raise UnsupportedMediaType(f"The data is damaged {inspector}.") from error
    if not 0 <= size <= _LARGEST_SIZE:
        raise UnsupportedMediaType(f"The data is {inspector} of an impossible size.")
    return size or None
