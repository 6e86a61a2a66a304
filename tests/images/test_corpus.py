"""A corpus of disk images: what is found in each is what oslo.utils finds, check by check."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from diptych_common.errors import UnsupportedMediaType
from diptych_images.formats import Findings, Inspection, judge
from diptych_images.settings import ImageFormat
from oslo_utils.imageutils import format_inspector

from tests.images.corpus import BY_HAND, BY_QEMU, MIB, make

# The sizes of the pieces that a stream may come in; single bytes are for what is short.
PIECES = (64 * MIB, MIB, 64 * 1024, 4096, 1000, 511)
SHORT = 8192


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "source.raw"
    path.write_bytes(os.urandom(MIB // 4).ljust(2 * MIB, b"\x00"))
    return path


@pytest.fixture(autouse=True)
def _quiet() -> None:
    # Inspectors log each failed check.
    logging.getLogger("oslo_utils").setLevel(logging.CRITICAL)


def looked_at(data: bytes, piece: int) -> Findings:
    inspection = Inspection()
    for at in range(0, len(data), piece):
        inspection.update(data[at : at + piece])
    return inspection.findings()


def in_words(findings: Findings) -> str:
    """As `corpus` has it."""
    words = [
        match.name
        + ("!damaged" if match.damage is not None else "!" * bool(match.failed))
        + ",".join(sorted(match.failed))
        for match in findings.matches
    ]
    words += [f"{name}?" for name in findings.undecided]
    return "+".join(sorted(words)) or "raw"


def oslos_words(path: Path) -> str:
    """The same by oslo.utils, from pieces of the size in which `detect_file_format` reads."""
    with path.open("rb") as file:
        wrapper = format_inspector.InspectWrapper(file)
        while wrapper.read(4096):
            pass
        wrapper.close()
    words = [
        word
        for inspector in wrapper._inspectors
        if str(inspector) != "raw"
        if (word := _oslos_word(inspector, stopped=inspector in wrapper._errored_inspectors))
    ]
    return "+".join(sorted(words)) or "raw"


def _oslos_word(inspector: format_inspector.FileInspector, *, stopped: bool) -> str | None:
    try:
        if not inspector.format_match:
            return None
    except AttributeError:
        return f"{inspector}?"
    if stopped:
        return f"{inspector}!damaged"
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        return f"{inspector}!{','.join(sorted(error.failures))}"
    except format_inspector.ImageFormatError:
        return f"{inspector}!damaged"
    return str(inspector)


def detected(path: Path) -> str:
    """The formats by `detect_file_format`, which stops at the first piece that tells."""
    try:
        return str(format_inspector.detect_file_format(str(path)))
    except format_inspector.ImageFormatError as error:
        return "+".join(sorted(str(error).rpartition(": ")[2].split(",")))
    except AttributeError:
        return "vmdk?"


def names(words: str) -> str:
    return "+".join(word.partition("!")[0] for word in words.split("+"))


def hold(data: bytes, expected: str, path: Path, *, stricter: str | None = None) -> None:
    path.write_bytes(data)
    findings = {piece: looked_at(data, piece) for piece in PIECES}
    if len(data) <= SHORT:
        findings |= {piece: looked_at(data, piece) for piece in (1, 3)}

    assert {piece: in_words(found) for piece, found in findings.items()} == dict.fromkeys(
        findings, expected
    )
    (found,) = set(findings.values())
    assert found.size == len(data)
    if not stricter:
        assert oslos_words(path) == expected
        assert detected(path) == names(expected)
        return
    assert oslos_words(path) == detected(path) == "raw"
    with pytest.raises(UnsupportedMediaType):
        judge(found, disk_format="raw", container_format="bare", rules=ImageFormat())


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_made_by_hand_is_what_oslo_takes_it_for(name: str, tmp_path: Path) -> None:
    sample = BY_HAND[name]

    hold(sample.data, sample.expected, tmp_path / "image", stricter=sample.stricter)


@pytest.mark.parametrize("name", BY_QEMU)
def test_what_qemu_makes_is_what_oslo_takes_it_for(
    name: str, qemu_img: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    recipe = BY_QEMU[name]
    data = make(name, qemu_img, source, tmp_path)

    hold(data, recipe.expected, tmp_path / "whole")
    # A download that ended too soon.
    hold(data[: len(data) // 2], recipe.cut or recipe.expected, tmp_path / "half")


def test_no_sample_is_there_twice() -> None:
    assert len({sample.data for sample in BY_HAND.values()}) == len(BY_HAND)
    assert len(BY_HAND) + len(BY_QEMU) >= 60
