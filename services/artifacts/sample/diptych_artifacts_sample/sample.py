"""The type `sample_artifact`: a field of every kind, and most of what can be declared of fields."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.hooks import Call, Hooks
from diptych_artifacts.types.validators import (
    AllowedDictKeys,
    AllowedValues,
    MaxDictKeyLen,
    MaxDictSize,
    MaxListSize,
    MaxNumberSize,
    MaxStrLen,
    MinNumberSize,
    Regex,
    Unique,
)
from diptych_common.errors import BadRequest

REFUSED: Final = b"invalid_data"


async def _refuse_invalid_data(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A hook that looks at the beginning before anything is stored."""
    head = b""
    async for piece in data:
        head += piece
        if len(head) > len(REFUSED):
            break
    if head == REFUSED:
        raise BadRequest("This data is known to be invalid.")
    return _with_head(head, data)


async def _with_head(head: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    if head:
        yield head
    async for piece in rest:
        yield piece


def _meta_information(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"__some_meta_information__": str(document["name"]).upper()}


SAMPLE_ARTIFACT: Final = ArtifactType(
    "sample_artifact",
    "Sample Artifact",
    {
        "blob": Field("Blob", required_on_activate=False, mutable=True, description="I am Blob"),
        "small_blob": Field("Blob", required_on_activate=False, mutable=True, max_blob_size=10),
        "link1": Field("Link", required_on_activate=False),
        "link2": Field("Link", required_on_activate=False),
        "bool1": Field("Boolean", required_on_activate=False, default=False, filter_ops=("eq",)),
        "bool2": Field("Boolean", required_on_activate=False, default=False, filter_ops=("eq",)),
        "int1": Field("Integer", required_on_activate=False, sortable=True),
        "int2": Field("Integer", required_on_activate=False, sortable=True),
        "float1": Field("Float", required_on_activate=False, sortable=True),
        "float2": Field("Float", required_on_activate=False, sortable=True),
        "str1": Field(
            "String",
            required_on_activate=False,
            sortable=True,
            filter_ops=("like", "eq", "neq", "in"),
        ),
        "list_of_str": Field("String", "list", required_on_activate=False, filter_ops=("eq", "in")),
        "list_of_int": Field(
            "Integer", "list", required_on_activate=False, filter_ops=("eq", "in")
        ),
        "dict_of_str": Field("String", "dict", required_on_activate=False, filter_ops=("eq", "in")),
        "dict_of_int": Field(
            "Integer", "dict", required_on_activate=False, filter_ops=("eq", "in")
        ),
        "dict_of_links": Field(
            "Link", "dict", required_on_activate=False, mutable=True, filter_ops=("eq",)
        ),
        "list_of_links": Field(
            "Link", "list", required_on_activate=False, mutable=True, filter_ops=("eq",)
        ),
        "dict_of_blobs": Field(
            "Blob",
            "dict",
            required_on_activate=False,
            max_folder_size=2000,
            validators=[MaxDictKeyLen(1000)],
        ),
        "string_mutable": Field("String", required_on_activate=False, mutable=True),
        "string_regex": Field(
            "String", required_on_activate=False, validators=[Regex("^([0-9a-fA-F]){8}$")]
        ),
        "string_required": Field("String"),
        "string_validators": Field(
            "String",
            required_on_activate=False,
            validators=[AllowedValues(["aa", "bb", "c" * 11]), MaxStrLen(10)],
        ),
        "int_validators": Field(
            "Integer", required_on_activate=False, validators=[MinNumberSize(10), MaxNumberSize(20)]
        ),
        "list_validators": Field(
            "String",
            "list",
            required_on_activate=False,
            filter_ops=(),
            validators=[MaxListSize(3), Unique()],
        ),
        "dict_validators": Field(
            "String",
            "dict",
            required_on_activate=False,
            default=None,
            filter_ops=(),
            validators=[AllowedDictKeys(["abc", "def", "ghi", "jkl"]), MaxDictSize(3)],
        ),
        "system_attribute": Field("String", system=True, sortable=True, default="default"),
        "metadata_attribute": Field(
            "String",
            default="default",
            metadata={"metadata1": "value1", "metadata2": "blahblahblah"},
        ),
    },
    hooks=Hooks(pre_upload=_refuse_invalid_data),
    extras=_meta_information,
)
