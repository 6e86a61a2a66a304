"""What a type does beside what is declared: its own functions at given moments of an artifact.

The routes call them; the contract:

| Hook | When | May |
| --- | --- | --- |
| `pre_create` | before the artifact is inserted | return fields to set |
| `pre_update` | before the operations of any PATCH that has some | return fields to set |
| `pre_activate`, `pre_deactivate`, | at that operation of a PATCH | return fields to set |
| `pre_reactivate`, `pre_publish` | | |
| `pre_delete` | before the artifact is deleted | |
| `post_…` of these | once the change is committed; not after a PATCH that changed nothing | |
| `pre_upload` | the blob is `saving`, no bytes were read | return other bytes than the client's |
| `post_upload` | the blob is `active` | |
| `pre_add_location`, `post_add_location` | before and after a location is added | |
| `pre_download` | before the blob is opened, or its address told | |
| `post_download` | before the first byte goes out | |

All are given a Call. An ApiError that one raises is the answer; any other exception of the hooks of
uploads and downloads is 400, as in Glare, and of the others 500. What a `pre_` hook raises prevents
what it is before: nothing is changed, and the bytes of an upload are dropped. What a `post_` hook
raises changes the answer only.

The `pre_` hooks of an artifact run in the transaction that holds its row, so they must be short:
what takes longer than a few milliseconds belongs into hooks of uploads, which hold nothing.
Blocking calls belong into threads (`asyncio.to_thread`).

Bytes of downloads are not a hook's to change: their ranges, lengths and digests were promised.

Source: Glare 5.0.1, objects/base.py, the hooks at its end.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from diptych_common.errors import ApiError, BadRequest
from diptych_common.identity import Identity

from diptych_artifacts.types.fields import Value


@dataclass(frozen=True, slots=True)
class Call:
    """What a hook is told.

    `artifact` is the document that clients see: as it is for a `pre_` hook (for `pre_create` with
    what the body asked for), as it became for a `post_` hook. `patch` has the operations of an
    update or a transition. Hooks of blobs have `field`, `key` of a folder ("" for a blob),
    `content_type` of an upload and `url` of a location or of an external blob.
    """

    who: Identity
    type_name: str
    artifact: Mapping[str, Any]
    patch: tuple[Mapping[str, Any], ...] = ()
    field: str = ""
    key: str = ""
    content_type: str | None = None
    url: str | None = None


# What to set beside what was asked for: fields of the type, system ones too. They are coerced and
# validated as a client's values are; an Invalid one is a 400.
Changes: TypeAlias = Mapping[str, Value]

Before: TypeAlias = Callable[[Call], Awaitable[Changes | None]]
Notice: TypeAlias = Callable[[Call], Awaitable[None]]
Upload: TypeAlias = Callable[[Call, AsyncIterator[bytes]], Awaitable[AsyncIterator[bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The functions of a type; None for nothing to do."""

    pre_create: Before | None = None
    post_create: Notice | None = None
    pre_update: Before | None = None
    post_update: Notice | None = None
    pre_activate: Before | None = None
    post_activate: Notice | None = None
    pre_deactivate: Before | None = None
    post_deactivate: Notice | None = None
    pre_reactivate: Before | None = None
    post_reactivate: Notice | None = None
    pre_publish: Before | None = None
    post_publish: Notice | None = None
    pre_delete: Notice | None = None
    post_delete: Notice | None = None
    pre_upload: Upload | None = None
    post_upload: Notice | None = None
    pre_add_location: Notice | None = None
    post_add_location: Notice | None = None
    pre_download: Notice | None = None
    post_download: Notice | None = None


NO_HOOKS: Final = Hooks()


async def changes(hook: Before | None, call: Call) -> Changes:
    """What the hook sets; nothing if there is none. What it raises passes."""
    return {} if hook is None else await hook(call) or {}


async def notify(hook: Notice | None, call: Call) -> None:
    """Call a hook of an artifact, if there is one. What it raises passes."""
    if hook is not None:
        await hook(call)


async def notify_of_blob(hook: Notice | None, call: Call) -> None:
    """Call a hook of an upload, a location or a download; BadRequest for what is no ApiError."""
    try:
        await notify(hook, call)
    except ApiError:
        raise
    except Exception as error:
        raise _refused(call) from error


async def uploaded(
    hook: Upload | None, call: Call, data: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    """The bytes to store. Close it (`aclosing`) where it is left early.

    What `data` raises passes as it is, and ApiErrors of the hook do; BadRequest for the rest,
    whether it is raised at once or in the middle of the bytes.
    """
    if hook is None:
        async for piece in data:
            yield piece
        return
    source = _Source()
    try:
        async for piece in await hook(call, source.watched(data)):
            yield piece
    except ApiError:
        raise
    except Exception as error:
        if error is source.error:
            raise
        raise _refused(call) from error


@dataclass(slots=True)
class _Source:
    """Tells the client's failure, which a hook passes on, from the hook's own."""

    error: Exception | None = field(default=None)

    async def watched(self, data: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        try:
            async for piece in data:
                yield piece
        except Exception as error:
            self.error = error
            raise


def _refused(call: Call) -> BadRequest:
    where = f"{call.field}/{call.key}" if call.key else call.field
    return BadRequest(f"The type {call.type_name} does not take this for {where}.")
