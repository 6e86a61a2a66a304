import json
import random
import re
import subprocess
import time
from itertools import product
from pathlib import Path

from diptych_common.access_rules import PathPattern, covers
from hypothesis import given
from hypothesis import strategies as st

PATTERNS = (
    "/v2/images",
    "/v2/images/*",
    "/v2/images/{image_id}",
    "/v2/images/{image_id}/file",
    "/v2/images/**",
    "/v2/**/file",
    "/**",
    "/v2/*/file",
    "/v2/images/a*",
    "/v2/images/{a}-{b}",
    "/v2/images/*/members/*",
    "/v2/images***",
    "",
)
PATHS = (
    "/",
    "/v2/images",
    "/v2/images/",
    "/v2/images/a",
    "/v2/images/ab",
    "/v2/images/a-b",
    "/v2/images/-",
    "/v2/images/a/file",
    "/v2/images//file",
    "/v2/images/a/members/b",
    "/v2/file",
    "/v2/x/file",
    "/image/v2/images/a",
    "/V2/images",
    "/v2/images/%41",
)


def test_paths_are_matched_as_keystonemiddleware_does(keystonemiddleware_env: Path) -> None:
    pairs = list(product(PATHS, PATTERNS))
    done = subprocess.run(
        [
            str(keystonemiddleware_env / "python"),
            str(Path(__file__).with_name("keystonemiddleware_oracle.py")),
            "paths",
        ],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = dict(zip(pairs, json.loads(done.stdout), strict=True))
    assert {(path, pattern): covers(pattern, path) for path, pattern in pairs} == expected
    assert len(set(expected.values())) == 2


@given(
    st.lists(st.sampled_from(["a", "b", "/", ".", "*", "**", "{x}"]), max_size=8),
    st.text("ab/.x", max_size=8),
)
def test_paths_are_matched_as_the_equivalent_regular_expression_does(
    items: list[str], path: str
) -> None:
    pattern = "".join(items)
    pieces = re.findall(r"\*\*|\*|\{[^}]*\}|.", pattern)
    expression = "".join(
        ".*" if piece == "**" else "[^/]+" if piece[0] in "*{" else re.escape(piece)
        for piece in pieces
    )
    assert PathPattern(pattern).matches(path) == bool(re.fullmatch(expression, path))


def test_a_dot_is_a_dot() -> None:
    # keystonemiddleware takes the literal part of a pattern for a regular expression.
    assert PathPattern("/v2.0/x").matches("/v2.0/x")
    assert not PathPattern("/v2.0/x").matches("/v2a0/x")


def test_a_hostile_pattern_costs_no_more_than_the_path_is_long() -> None:
    pattern = PathPattern("/" + "*{a}" * 50 + "/**" * 8 + "z")
    path = "/" + "".join(random.Random(1).choices("ab/", k=5000))
    started = time.process_time()
    assert not pattern.matches(path)
    assert time.process_time() - started < 1
