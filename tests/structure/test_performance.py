"""The page of figures has a place for all that is aimed at, and the bench fills it."""

import pytest

from tests.bench import page
from tests.bench.figures import AIMS, figure


def test_the_page_names_every_aim():
    text = page.PAGE.read_text()
    assert page.with_aims(text) == text, "run `python -m tests.bench.page`"


@pytest.mark.parametrize("part", sorted({part for part, _, _ in AIMS}))
def test_figures_have_their_place(part: str):
    text = page.PAGE.read_text()
    measured = [
        figure(part, work, unit, ours=[1, 2, 6], theirs=[3])
        for of_part, work, unit in AIMS
        if of_part == part
    ]
    made = page.with_figures(text, part, measured)
    for one in measured:
        assert f"| {one.unit} | 2.00 | 3.00 | {one.ratio:.2f}x |  | {one.aim} |" in made
    before, after = f"<!-- figures: {part} -->", "<!-- end -->"
    assert made.partition(before)[0] == text.partition(before)[0]
    assert (
        made.partition(before)[2].partition(after)[2]
        == text.partition(before)[2].partition(after)[2]
    )
