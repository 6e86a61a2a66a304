"""What operators are told of a store's errors is what clients get."""

import re
from pathlib import Path

from diptych_images.api.errors import STORE_ANSWERS

PAGE = Path(__file__).parents[2] / "docs" / "operators" / "stores.md"


def test_the_table_of_answers_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (\d{3})\b.* \|$", PAGE.read_text(), re.MULTILINE)
    assert {name: int(status) for name, status in rows} == {
        error.__name__: answer.status for error, answer in STORE_ANSWERS.items()
    }
