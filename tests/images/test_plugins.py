"""Which plug-ins there are, what their options are, and which properties images get."""

from pathlib import Path

import pytest
from diptych_common.jobs import GiveUp
from diptych_common.settings import SettingsError
from diptych_images.imports.plugins import injected, needs_file, transform
from diptych_images.settings import PLUGINS, ImagesSettings, load

from tests.images.corpus import qcow2
from tests.images.drafts import draft, settings


def read(tmp_path: Path, text: str) -> ImagesSettings:
    file = tmp_path / "images.conf"
    file.write_text(text)
    return load(config_files=[file], environ={}).settings


# --- Options --------------------------------------------------------------------------------------


def test_by_default_there_are_no_plugins(tmp_path: Path) -> None:
    options = read(tmp_path, "")

    assert options.image_import_opts.image_import_plugins == ()
    assert options.image_conversion.output_format == "raw"
    assert options.inject_metadata_properties.ignore_user_roles == ("admin",)
    assert options.inject_metadata_properties.inject == ()
    assert not needs_file(options)


@pytest.mark.parametrize(
    "written",
    [
        "[no_op,image_decompression,image_conversion,inject_image_metadata]",
        "no_op, image_decompression, image_conversion, inject_image_metadata,",
        "['no_op', 'image_decompression', \"image_conversion\", inject_image_metadata]",
    ],
)
def test_plugins_are_listed_as_glance_lists_them(written: str, tmp_path: Path) -> None:
    options = read(tmp_path, f"[image_import_opts]\nimage_import_plugins = {written}\n")

    assert set(options.image_import_opts.image_import_plugins) == set(PLUGINS)
    assert options.image_import_opts.image_import_plugins[:2] == ("no_op", "image_decompression")


@pytest.mark.parametrize(
    ("section", "line", "words"),
    [
        (
            "image_import_opts",
            "image_import_plugins = [no_op, ovf_process]",
            "a list separated by commas, of no_op, inject_image_metadata, image_decompression,"
            " image_conversion",
        ),
        ("image_conversion", "output_format = vhd", "one of raw, qcow2, vmdk"),
        ("image_conversion", "cpu_limit = 0", "a whole number from 1"),
        ("image_conversion", "output_limit = much", "a number of bytes"),
        ("inject_metadata_properties", "inject = windows", "name:value pairs"),
        ("inject_metadata_properties", "inject = a:1,:2", "name:value pairs"),
        ("inject_metadata_properties", f"inject = {'x' * 256}:2", "name:value pairs"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(
    section: str, line: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, f"[{section}]\n{line}\n")

    assert f"[{section}] {line}: expected {words}" in str(refused.value)


def test_options_of_glances_that_have_no_effect_are_told(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text(
        "[image_import_opts]\nmax_parallel_stores = 4\n"
        "[taskflow_executor]\nconversion_format = raw\n"
        "[task]\ntask_executor = taskflow\ntask_time_to_leave = 3\n"
    )

    loaded = load(config_files=[file], environ={})

    assert {one.option for one in loaded.unused} == {
        "max_parallel_stores",
        "conversion_format",
        "task_executor",
    }
    assert [one.option for one in loaded.unknown] == ["task_time_to_leave"]


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ((), False),
        (("no_op", "inject_image_metadata"), False),
        (("image_decompression",), True),
        (("no_op", "image_conversion"), True),
    ],
)
def test_a_file_is_needed_by_what_reads_it(plugins: tuple[str, ...], expected: bool) -> None:
    assert needs_file(settings(*plugins)) is expected


# --- Data -----------------------------------------------------------------------------------------


async def test_every_plugin_that_may_be_configured_is_there(tmp_path: Path) -> None:
    made = draft(tmp_path, b"disk")

    result = await transform(made, tmp_path, settings(*PLUGINS), limit=100)

    assert result == made


async def test_what_no_plugin_touches_is_judged(tmp_path: Path) -> None:
    for plugins in ((), ("no_op", "inject_image_metadata"), ("image_decompression",)):
        with pytest.raises(GiveUp, match="backing_file"):
            await transform(
                draft(tmp_path, qcow2(backing=8), "qcow2"), tmp_path, settings(*plugins), limit=100
            )


# --- Properties -----------------------------------------------------------------------------------


def injecting(*pairs: str, ignored: tuple[str, ...] = ("admin",)) -> ImagesSettings:
    group = {"inject": pairs, "ignore_user_roles": ignored}
    return settings("inject_image_metadata", inject_metadata_properties=group)


def test_images_get_properties() -> None:
    options = injecting("os_type:linux", " note : at 10:30 ", "empty:")

    assert injected(options, ["member", "reader"]) == {
        "os_type": "linux",
        "note": "at 10:30",
        "empty": "",
    }


def test_images_of_some_get_none() -> None:
    assert injected(injecting("a:1"), ["member", "admin"]) == {}
    assert injected(injecting("a:1"), ["member", "Admin"]) == {"a": "1"}
    assert injected(injecting("a:1", ignored=("x", "y")), ["y"]) == {}
    assert injected(injecting("a:1", ignored=()), ["admin"]) == {"a": "1"}


def test_images_get_no_reserved_properties(caplog: pytest.LogCaptureFixture) -> None:
    assert injected(injecting("os_glance_failed_import:fast", "os_glancex:1", "a:1"), []) == {
        "a": "1"
    }
    assert "os_glance_failed_import" in caplog.text


def test_without_the_plugin_images_get_nothing() -> None:
    group = {"inject": ("a:1",)}

    assert injected(settings("no_op", inject_metadata_properties=group), []) == {}


def test_pairs_are_read_as_glance_writes_them(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        "[image_import_opts]\nimage_import_plugins = [inject_image_metadata]\n"
        "[inject_metadata_properties]\nignore_user_roles = [admin,service]\n"
        "inject = k1:v1, k2:v2\n",
    )

    assert options.inject_metadata_properties.ignore_user_roles == ("admin", "service")
    assert injected(options, ["member"]) == {"k1": "v1", "k2": "v2"}
