"""How much projects may have: artifacts by number, blobs by bytes, of all types and of single ones.

Limits are the settings', where an administrator has set none for the project. They are hard: room
is taken in the transaction of what needs it, for bytes before they flow, and the project is that of
the artifact, whoever adds to it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from diptych_common.database import Connection, Database
from diptych_common.errors import Forbidden, TooLarge

from diptych_artifacts.db import blobs, quotas
from diptych_artifacts.settings import ArtifactsSettings, TypeOptions

NUMBER: Final = "max_artifact_number"
BYTES: Final = "max_uploaded_data"

# How much room is taken at a time for data of which nobody has said how much they are: as much as
# came so far, within these bounds.
SMALLEST_STEP: Final = 1024 * 1024
_LARGEST_STEP: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the bytes of an upload count; `max_folder_size` is None unless it is into a folder.

    `is_replaced`: what the folder has now is dropped when the upload ends, and takes no room of it.
    """

    owner: str
    type_name: str
    artifact_id: str
    field: str
    max_blob_size: int
    max_folder_size: int | None
    is_replaced: bool


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits that the settings have; `options` by type."""

    settings: ArtifactsSettings
    options: Mapping[str, TypeOptions]

    def configured(self) -> dict[str, int]:
        """The limits of the settings by name: those of a type where there are any."""
        default = self.settings.default
        limits = {NUMBER: default.max_artifact_number, BYTES: default.max_uploaded_data}
        for name, option in self.options.items():
            for limit, value in (
                (NUMBER, option.max_artifact_number),
                (BYTES, option.max_uploaded_data),
            ):
                if value != -1:
                    limits[f"{limit}:{name}"] = value
        return limits

    async def require_number(self, connection: Connection, project_id: str, type_name: str) -> None:
        """Raise Forbidden if the project has more artifacts, or more of the type, than it may.

        For a transaction that has added one: of several at a time each but the first has waited
        there for the one before it, and counts what that has added.
        """
        limits = {**self.configured(), **await quotas.of_project(connection, project_id)}
        for name, of_type in ((NUMBER, None), (f"{NUMBER}:{type_name}", type_name)):
            limit = limits.get(name, -1)
            if limit != -1 and await quotas.artifacts_of(connection, project_id, of_type) > limit:
                raise Forbidden(f"Project {project_id} may have {limit} artifacts: quota {name}.")

    async def grant(self, connection: Connection, to: Destination, least: int, *, most: int) -> int:
        """How many bytes may be reserved: `least`, and up to `most` where there is plenty.

        To be reserved in the same transaction, until whose end nobody else takes room of the
        project; it must hold no upload yet. Raises TooLarge if there is not as much.
        """
        await quotas.lock(connection, to.owner)
        limits = {**self.configured(), **await quotas.of_project(connection, to.owner)}
        granted = most
        for name, of_type in ((BYTES, None), (f"{BYTES}:{to.type_name}", to.type_name)):
            limit = limits.get(name, -1)
            if limit != -1:
                left = limit - await quotas.bytes_of(connection, to.owner, of_type)
                if left < least:
                    raise TooLarge(
                        f"Project {to.owner} may have {limit} bytes, of which {max(left, 0)} are"
                        f" left: quota {name}."
                    )
                granted = min(granted, max(least, left // 2))
        if to.max_folder_size is not None:
            there = await blobs.in_field(
                connection, to.artifact_id, to.field, replaced=to.is_replaced
            )
            left = to.max_folder_size - there.size
            if left < least:
                raise TooLarge(
                    f"{to.field} may have {to.max_folder_size} bytes in all, of which"
                    f" {max(left, 0)} are left."
                )
            granted = min(granted, max(least, left // 2))
        return granted


class Room:
    """The room of one upload: as much as came, and more as more comes. `taken` is there already."""

    def __init__(
        self, db: Database, limits: Quotas, to: Destination, blob_id: str, *, taken: int
    ) -> None:
        self._db = db
        self._limits = limits
        self._to = to
        self._blob_id = blob_id
        self._taken = taken

    async def cover(self, size: int) -> None:
        """Have room for as many bytes in all. Raises TooLarge, UploadLost."""
        least = size - self._taken
        if least <= 0:
            return
        step = min(max(self._taken, SMALLEST_STEP), _LARGEST_STEP)
        most = max(least, min(step, self._to.max_blob_size - self._taken))
        async with self._db.write() as connection:
            more = await self._limits.grant(connection, self._to, least, most=most)
            await blobs.reserve(connection, self._blob_id, more)
        self._taken += more

    async def give_back(self, size: int) -> None:
        """Keep room for as many bytes only, where more was taken."""
        if self._taken > size:
            async with self._db.write() as connection:
                await blobs.reserve(connection, self._blob_id, size - self._taken)
            self._taken = size

    async def before(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The same bytes, each piece when there is room for it."""
        received = 0
        async for piece in stream:
            received += len(piece)
            await self.cover(received)
            yield piece
