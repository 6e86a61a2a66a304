"""What an artifact's document is made of."""

from datetime import UTC, datetime

import pytest
from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.wire.artifact import values_of
from diptych_artifacts_sample.sample import SAMPLE_ARTIFACT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = ArtifactRow(
    id="f1f8e3a4-6c6c-4a0b-8f53-4f1b2fd5e5a1",
    type_name="sample_artifact",
    name="a",
    version="1.0.0",
    owner="p",
    status="drafted",
    visibility="private",
    description=None,
    display_type_name=None,
    tags=[],
    fields={},
    created_at=NOW,
    updated_at=NOW,
    activated_at=None,
    deleted_at=None,
    blobs=[],
    saving=False,
)


@pytest.mark.parametrize("name", ["dict_of_blobs", "dict_of_str", "metadata"])
def test_what_is_empty_is_each_artifacts_own(name: str) -> None:
    changed = values_of(ROW, SAMPLE_ARTIFACT)
    assert changed[name] == {}
    changed[name]["a"] = "b"
    assert values_of(ROW, SAMPLE_ARTIFACT)[name] == {}
