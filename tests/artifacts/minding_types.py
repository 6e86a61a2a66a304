"""Types whose hooks meddle: of `minding` by what an artifact's `mind` says.

Of `awaiting`, what is in `meanwhile` happens between the row that a download reads and its data.

`[DEFAULT] custom_artifact_types_modules` names this module.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.hooks import Call, Changes, Hooks
from diptych_common.errors import Conflict, Forbidden

meanwhile: list[Callable[[], Awaitable[None]]] = []


async def _before(call: Call) -> Changes | None:
    mind = call.artifact["mind"]
    if mind == "refuse":
        raise Forbidden("Not this one.")
    if mind == "break":
        return {"number": "not a number"}
    return {"number": len(call.patch), "stamp": str(call.artifact["name"]).upper()}


async def _after(call: Call) -> None:
    if call.artifact["mind"] == "complain":
        raise Conflict("It is done, and that is a pity.")


async def _before_deletion(call: Call) -> None:
    await _before(call)


MINDING: Final = ArtifactType(
    "minding",
    "Minding",
    {
        "mind": Field("String", required_on_activate=False, mutable=True),
        "number": Field("Integer", required_on_activate=False, system=True),
        "stamp": Field("String", required_on_activate=False, system=True),
    },
    hooks=Hooks(
        pre_create=_before,
        post_create=_after,
        pre_update=_before,
        post_update=_after,
        pre_delete=_before_deletion,
        post_delete=_after,
    ),
)


async def _before_download(call: Call) -> None:
    while meanwhile:
        await meanwhile.pop()()


AWAITING: Final = ArtifactType(
    "awaiting",
    "Awaiting",
    {"blob": Field("Blob", required_on_activate=False, mutable=True)},
    hooks=Hooks(pre_download=_before_download),
)
