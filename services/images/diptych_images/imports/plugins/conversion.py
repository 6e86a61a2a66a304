"""The plug-in `image_conversion`: images become the one format that the operator wants.

qemu-img reads and writes them, a program with a history of doing what images tell it. So it sees
an image only after the inspectors have, is told what to open instead of finding out, and runs in a
sandbox.

Source: Glance 33.0, async_/flows/plugins/image_conversion.py: what is converted, what is left, and
what is refused. Unlike there, an image with a partition table may also be declared `gpt`.
"""

import asyncio
import errno
import json
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from diptych_common.jobs import GiveUp

from diptych_images.formats import decisive
from diptych_images.imports.plugins.draft import Draft, in_steps, inspecting, require_soundness
from diptych_images.imports.plugins.sandbox import Ended, Limits, Stopped, run
from diptych_images.settings import ImageConversion, ImageFormat, ImagesSettings

log = logging.getLogger(__name__)

PROGRAM: Final = "qemu-img"

# What can be read, by the inspectors' names for it, and qemu's name.
_DRIVERS: Final = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vhd": "vpc",
    "vhdx": "vhdx",
    "vmdk": "vmdk",
    "vdi": "vdi",
}

# To describe an image takes a moment; one that takes longer is meant to.
_DESCRIBING_CPU_S = 10
_DESCRIBING_TIME_S = 60.0


async def convert(draft: Draft, folder: Path, settings: ImagesSettings, *, limit: int) -> Draft:
    """The image in the wanted format, in another file of `folder`; the draft's own file is gone.

    What has that format already, and an ISO, is left as it is. `limit` is the most bytes that the
    result may have. Raises GiveUp for what is unsafe, not of the declared format, or cannot be
    converted within the limits.
    """
    options = settings.image_conversion
    limit = min(limit, options.output_limit or limit)
    source = _readable_format(draft, settings.image_format)
    if source == "iso":
        return draft
    program = shutil.which(PROGRAM)
    if program is None:
        raise GiveUp("Images are to be converted here, but the program for it is not installed.")
    opening = "json:" + json.dumps(
        {
            "driver": _DRIVERS[source],
            "file": {"driver": "file", "filename": str(draft.path)},
            # No other file, whatever the image says.
            "backing": None,
        }
    )
    described = await _described(program, opening, folder, options)
    virtual_size = _require_self_contained(described, source, draft.path, settings.image_format)
    target = options.output_format
    if source == target:
        # A partition table may have been declared as such.
        return draft if draft.disk_format == target else replace(draft, disk_format=target)
    if target == "raw" and virtual_size > limit:
        raise GiveUp(
            f"As raw the image would have {virtual_size} bytes; {limit} are allowed at most."
        )

    path = folder / f"{draft.path.name}.{target}"
    arguments = ["convert", "-O", target, *_target_options(target, settings.image_format)]
    # Behind a slash a name has no protocol in it for qemu.
    arguments += [opening, f"./{path.name}"]
    limits = Limits(
        memory=options.memory_limit,
        cpu_s=options.cpu_limit,
        time_s=options.time_limit,
        file_size=limit,
    )
    try:
        ended = await run(program, *arguments, folder=folder, limits=limits)
    except Stopped as error:
        raise GiveUp(f"The image could not be converted to {target}: it {error}.") from error
    _require_success(ended, target, limits)
    findings = await in_steps(inspecting(path))
    await asyncio.to_thread(draft.path.unlink)
    return Draft(
        path=path,
        size=findings.size,
        disk_format=target,
        container_format="bare",
        findings=findings,
    )


def _readable_format(draft: Draft, rules: ImageFormat) -> str:
    """The one format that the data is of, as the inspectors call it; "raw" for any disk.

    Raises GiveUp if it is not safe, not the declared one, or none that can be converted.
    """
    # In whatever container it is said to be: what comes out has none.
    require_soundness(replace(draft, container_format="bare"), rules)
    found = " and ".join(match.name for match in decisive(draft.findings)) or "raw"
    if found not in (draft.disk_format, "gpt"):
        raise GiveUp(
            f"The data is {found}, not {draft.disk_format} as the image was declared, and cannot be"
            " converted."
        )
    if found == "gpt":
        if draft.disk_format not in ("raw", "gpt"):
            raise GiveUp(f"The data is a raw disk, not {draft.disk_format}.")
        return "raw"
    if found not in _DRIVERS and found != "iso":
        raise GiveUp(f"Images of format {found} cannot be converted.")
    return found


async def _described(
    program: str, opening: str, folder: Path, options: ImageConversion
) -> Mapping[str, Any]:
    """What qemu-img says that the image is."""
    limits = Limits(
        memory=options.memory_limit,
        cpu_s=min(_DESCRIBING_CPU_S, options.cpu_limit),
        time_s=min(_DESCRIBING_TIME_S, options.time_limit),
        file_size=0,
    )
    arguments = ("info", "--output=json", opening)
    try:
        ended = await run(program, *arguments, folder=folder, limits=limits)
    except Stopped as error:
        raise GiveUp(f"The image could not be examined: qemu-img {error}.") from error
    try:
        described: object = json.loads(ended.output) if ended.status == 0 else None
    except ValueError:
        described = None
    if not isinstance(described, dict):
        log.warning("qemu-img info ended with %s: %s", ended.status, ended.errors.strip())
        raise GiveUp("The image could not be examined: qemu-img cannot read it.")
    return cast("Mapping[str, Any]", described)


def _require_self_contained(
    described: Mapping[str, Any], source: str, path: Path, rules: ImageFormat
) -> int:
    """The virtual size in bytes; raises GiveUp where qemu-img sees more than the inspectors do.

    Source of what is refused: Glance 33.0, which leaves out extents and encryption.
    """
    if described.get("format") != _DRIVERS[source]:
        raise GiveUp(f"The data is {source}, but qemu-img takes it for something else.")
    if "backing-filename" in described:
        raise GiveUp("An image that names a backing file cannot be converted.")
    if described.get("encrypted"):
        raise GiveUp("An encrypted image cannot be converted.")
    specific: Mapping[str, Any] = described.get("format-specific", {}).get("data", {})
    if specific.get("data-file") is not None:
        raise GiveUp("An image that names a data file cannot be converted.")
    if source == "vmdk":
        kind = str(specific.get("create-type", "unknown"))
        if kind.lower() not in {allowed.lower() for allowed in rules.vmdk_allowed_types}:
            raise GiveUp(f"VMDK {kind} is not allowed here.")
        if any(extent.get("filename") != str(path) for extent in specific.get("extents", ())):
            raise GiveUp("A VMDK that consists of several files cannot be converted.")
    virtual_size: int = described["virtual-size"]
    return virtual_size


def _target_options(target: str, rules: ImageFormat) -> list[str]:
    """Arguments of `qemu-img convert`: of VMDKs, a kind that may be stored here."""
    if target != "vmdk":
        return []
    allowed = {kind.lower() for kind in rules.vmdk_allowed_types}
    kinds = ("monolithicSparse", "streamOptimized")
    kind = next((kind for kind in kinds if kind.lower() in allowed), kinds[0])
    return ["-o", f"subformat={kind}"]


def _require_success(ended: Ended, target: str, limits: Limits) -> None:
    """Raise GiveUp for a conversion that would fail again, OSError for one that may not."""
    if ended.status == 0:
        return
    log.warning("qemu-img convert ended with %s: %s", ended.status, ended.errors.strip())
    failed = f"The image could not be converted to {target}:"
    if ended.status == -signal.SIGXCPU:
        raise GiveUp(f"{failed} it took more than {limits.cpu_s} s of a processor.")
    # One thread of it dies of the signal, another is told.
    if ended.status == -signal.SIGXFSZ or os.strerror(errno.EFBIG) in ended.errors:
        raise GiveUp(f"{failed} the result has more than {limits.file_size} bytes.")
    if os.strerror(errno.ENOSPC) in ended.errors:
        raise OSError(errno.ENOSPC, "No space for a converted image")
    # Somebody else killed it: an administrator, or the system that ran out of memory.
    if ended.status == -signal.SIGKILL:
        raise ChildProcessError("qemu-img was killed")
    raise GiveUp(f"{failed} it is damaged, or needs more memory than is allowed.")
