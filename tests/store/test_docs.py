import re
from pathlib import Path

from diptych_store.options.common import CommonOptions
from diptych_store.options.filesystem import FilesystemOptions

DRIVERS = Path(__file__).parents[2] / "docs" / "drivers"


def test_every_option_of_the_filesystem_store_is_documented_with_its_default():
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*?) \|$",
        (DRIVERS / "filesystem.md").read_text(),
        re.MULTILINE,
    )
    documented = {option: default.strip("`") for option, default, _ in rows}
    expected = {
        name: {"": "empty", "False": "false", "True": "true"}.get(
            str(field.default), str(field.default)
        )
        for model in (FilesystemOptions, CommonOptions)
        for name, field in model.model_fields.items()
    }
    assert documented == expected
