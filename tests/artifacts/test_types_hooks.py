"""What hooks are told, what they may change, and what their exceptions mean."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from diptych_artifacts.types import hooks, registry
from diptych_artifacts.types.base import FIELDS
from diptych_artifacts.types.hooks import Call
from diptych_artifacts_sample.hooks import FOLDER
from diptych_common.errors import BadRequest, Conflict, TooLarge
from diptych_common.identity import Identity

TYPES = registry.load(["sample_artifact", "hooks_artifact"])

CALL = Call(Identity(), "sample_artifact", {"name": "a"}, field="blob")


async def pieces(*all_: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in all_:
        yield piece
    if error is not None:
        raise error


async def uploaded(hook: hooks.Upload | None, data: AsyncIterator[bytes]) -> bytes:
    async with aclosing(hooks.uploaded(hook, CALL, data)) as stream:
        return b"".join([piece async for piece in stream])


async def test_bytes_pass_where_there_is_no_hook() -> None:
    assert await uploaded(None, pieces(b"a", b"b")) == b"ab"


async def test_a_hook_may_store_other_bytes() -> None:
    async def shouted(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in data:
            yield piece.upper()

    async def hook(call: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        assert call is CALL
        return shouted(data)

    assert await uploaded(hook, pieces(b"a", b"b")) == b"AB"


async def test_what_a_hook_of_uploads_raises_is_a_bad_request() -> None:
    async def at_once(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        raise KeyError("a bug")

    async def in_the_middle(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return pieces(b"a", error=ValueError("not a chart"))

    for hook in (at_once, in_the_middle):
        with pytest.raises(BadRequest, match="sample_artifact does not take this for blob"):
            await uploaded(hook, pieces(b"a"))


async def test_what_a_hook_answers_is_the_answer() -> None:
    async def hook(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return pieces(b"a", error=Conflict("not now"))

    with pytest.raises(Conflict, match="not now"):
        await uploaded(hook, pieces(b"a"))


@pytest.mark.parametrize("error", [TooLarge("too much"), ConnectionError("the client is gone")])
async def test_what_the_client_does_is_not_the_hooks(error: Exception) -> None:
    async def through(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in data:
            yield piece

    async def hook(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return through(data)

    with pytest.raises(type(error)) as raised:
        await uploaded(hook, pieces(b"a", error=error))
    assert raised.value is error


async def test_what_other_hooks_raise() -> None:
    async def hook(_: Call) -> None:
        raise KeyError("a bug")

    async def refuse(_: Call) -> None:
        raise Conflict("not now")

    with pytest.raises(KeyError):
        await hooks.notify(hook, CALL)
    with pytest.raises(BadRequest):
        await hooks.notify_of_blob(hook, CALL)
    with pytest.raises(Conflict):
        await hooks.notify_of_blob(refuse, CALL)
    await hooks.notify(None, CALL)
    await hooks.notify_of_blob(None, CALL)


async def test_what_hooks_set() -> None:
    async def hook(_: Call) -> hooks.Changes:
        return {"str1": "b"}

    async def nothing(_: Call) -> None:
        return None

    assert await hooks.changes(hook, CALL) == {"str1": "b"}
    assert await hooks.changes(nothing, CALL) == {}
    assert await hooks.changes(None, CALL) == {}


async def test_the_sample_refuses_its_invalid_data_however_it_comes() -> None:
    hook = TYPES["sample_artifact"].hooks.pre_upload
    for data in (pieces(b"invalid_data"), pieces(b"inv", b"", b"alid_", b"data")):
        with pytest.raises(BadRequest, match="known to be invalid"):
            await uploaded(hook, data)
    for good in ((b"invalid_data", b"?"), (b"invalid_dat",), (), (b"a" * 100, b"b")):
        assert await uploaded(hook, pieces(*good)) == b"".join(good)


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


async def test_the_hooks_type_leaves_a_mark_at_each(marks: Path) -> None:
    type_hooks = TYPES["hooks_artifact"].hooks
    moments = ("create", "update", "activate", "deactivate", "reactivate", "publish")
    for moment in moments:
        set_ = await hooks.changes(getattr(type_hooks, f"pre_{moment}"), CALL)
        assert set_ == {f"temp_file_path_{moment}": str(marks / moment)}
        assert set_.keys() <= TYPES["hooks_artifact"].fields.keys() - FIELDS.keys()
        await hooks.notify(getattr(type_hooks, f"post_{moment}"), CALL)
    assert await uploaded(type_hooks.pre_upload, pieces(b"a")) == b"a"
    await hooks.notify_of_blob(type_hooks.post_upload, CALL)
    for moment in ("delete", "add_location", "download"):
        await hooks.notify_of_blob(getattr(type_hooks, f"pre_{moment}"), CALL)
        await hooks.notify_of_blob(getattr(type_hooks, f"post_{moment}"), CALL)
    for moment in (*moments, "upload", "delete", "add_location", "download"):
        lines = (marks / moment).read_text().splitlines()
        assert lines == [f"pre_{moment}_hook was called", f"post_{moment}_hook was called"]


async def test_without_a_folder_there_are_no_marks(
    marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER)
    assert await hooks.changes(TYPES["hooks_artifact"].hooks.pre_create, CALL) == {}
    assert not any(marks.iterdir())  # noqa: ASYNC240
