import re
from pathlib import Path

from diptych_store.settings import CommonSettings, FilesystemSettings

DRIVERS = Path(__file__).parents[2] / "docs" / "drivers"


def test_every_option_of_the_filesystem_store_is_documented_with_its_default():
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*?) \|$",
        (DRIVERS / "filesystem.md").read_text(),
        re.MULTILINE,
    )
    documented = {option: default.strip("`") for option, default, _ in rows}
    expected = {
        name: {"": "empty", "False": "false"}.get(str(field.default), str(field.default))
        for model in (FilesystemSettings, CommonSettings)
        for name, field in model.model_fields.items()
    }
    assert documented == expected
