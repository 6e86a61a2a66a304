"""How much projects may have, and room taken for what they add.

Limits are the setting `user_storage_quota` or Keystone's unified limits, never both. They are hard:
room is taken in the transaction of what needs it, for bytes before they flow. The project is that
of the image, whoever adds to it; an image of nobody has no limits.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from diptych_common.database import Connection, Database
from diptych_common.errors import Gone, TooLarge
from diptych_common.keystone import Keystone
from diptych_common.limits import UnifiedLimits

from diptych_images.db import usage
from diptych_images.db.usage import Usage
from diptych_images.settings import ImagesSettings

STEP: Final = 64 * 1024 * 1024
"""How much room is taken at a time for data of which nobody has said how much they are."""

_MIB: Final = 1024 * 1024

Kind = Literal["size", "staged"]
"""Where bytes go: into the stores of images, or into staging."""

# By limit: what of a Usage it is about, and how many of those one is. Source: Glance 33.0,
# quota/keystone.py.
_ABOUT: Final[Mapping[str, tuple[Literal["size", "staged", "images", "uploading"], int]]] = {
    "image_size_total": ("size", _MIB),
    "image_stage_total": ("staged", _MIB),
    "image_count_total": ("images", 1),
    "image_count_uploading": ("uploading", 1),
    "user_storage_quota": ("size", 1),
}
UNIFIED: Final = tuple(name for name in _ABOUT if name != "user_storage_quota")


@dataclass(frozen=True, slots=True)
class Level:
    """Limits by name, below 0 none, of what these projects have together."""

    projects: tuple[str, ...]
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quota:
    """What limits a project: its own level, then those that it shares with others.

    No levels: nothing does, and nothing here costs a statement. `lock` is what all take who add
    to what is counted there.
    """

    project_id: str = ""
    lock: str = ""
    levels: tuple[Level, ...] = ()

    async def require(
        self,
        connection: Connection,
        *,
        size: int | None = None,
        staged: int | None = None,
        images: int | None = None,
        uploading: int | None = None,
    ) -> None:
        """Raise TooLarge unless there is room for as much more; 0: unless it is used up by far.

        Nobody takes it until the transaction ends, so it is for a transaction that adds just that,
        and that holds no rows yet.
        """
        adding = {"size": size, "staged": staged, "images": images, "uploading": uploading}
        if not self._limits(*(name for name, more in adding.items() if more is not None)):
            return
        await usage.lock(connection, self.lock)
        for level in self.levels:
            used = await usage.of(connection, level.projects)
            for name, limit in level.limits.items():
                about, unit = _ABOUT[name]
                more = adding[about]
                if limit >= 0 and more is not None and getattr(used, about) + more > limit * unit:
                    raise self._over(name, limit, used, more)

    async def take(
        self, connection: Connection, attempt: str, kind: Kind, least: int, *, most: int, among: int
    ) -> int:
        """Reserve room for an attempt: `least` bytes, and up to `most` if there is as much.

        `among` as many attempts what is left is shared. How many bytes were reserved, 0 if the
        attempt is over. Raises TooLarge.
        """
        await usage.lock(connection, self.lock)
        granted = most
        for level in self.levels:
            used = await usage.of(connection, level.projects)
            for name, limit in level.limits.items():
                about, unit = _ABOUT[name]
                if about != kind or limit < 0:
                    continue
                left = limit * unit - getattr(used, about)
                if left < least:
                    raise self._over(name, limit, used, least)
                granted = min(granted, max(least, left // among))
        return granted if await usage.reserve(connection, attempt, granted) else 0

    def limits_bytes(self, kind: Kind) -> bool:
        """Whether bytes that go there are limited."""
        return self._limits(kind)

    def _limits(self, *about: str) -> bool:
        return any(
            _ABOUT[name][0] in about and limit >= 0
            for level in self.levels
            for name, limit in level.limits.items()
        )

    def _over(self, name: str, limit: int, used: Usage, more: int) -> TooLarge:
        about, unit = _ABOUT[name]
        # As clients know it from Glance, whose unit of bytes is the MiB.
        return TooLarge(
            f"Project {self.project_id} is over a limit for [Resource {name} is over limit of"
            f" {limit} due to current usage {getattr(used, about) // unit} and delta"
            f" {-(-more // unit)}]"
        )


UNLIMITED: Final = Quota()


class Quotas:
    """The quotas of projects, as the settings have them; `unified` are Keystone's, if these count.

    Where neither is configured, each project's is UNLIMITED.
    """

    def __init__(self, settings: ImagesSettings, unified: UnifiedLimits | None) -> None:
        self._storage = settings.default.user_storage_quota
        self._unified = unified

    async def of(self, project_id: str | None) -> Quota:
        """What limits the project. Raises ServiceUnavailable if Keystone does not say.

        Not for within a transaction: Keystone may be slow.
        """
        if project_id is None:
            return UNLIMITED
        if self._unified is None:
            if not self._storage:
                return UNLIMITED
            level = Level((project_id,), {"user_storage_quota": self._storage})
            return Quota(project_id, project_id, (level,))
        limits = await self._unified.of(project_id)
        levels = (Level((project_id,), limits.own),)
        if limits.shared is None:
            return Quota(project_id, project_id, levels)
        # The lock of the domain is enough: all its projects take it.
        levels += (Level(limits.sharing, limits.shared),)
        return Quota(project_id, f"domain {limits.domain_id}", levels)

    async def used(
        self, db: Database, project_id: str | None
    ) -> Mapping[str, tuple[int, int]] | None:
        """Usage and limit by unified limit, in its unit; None where these do not count."""
        if self._unified is None or project_id is None:
            return None
        limits = (await self._unified.of(project_id)).own
        async with db.read() as connection:
            found = await usage.of(connection, [project_id])
        return {
            name: (getattr(found, _ABOUT[name][0]) // _ABOUT[name][1], limits[name])
            for name in UNIFIED
        }


def unified_limits(settings: ImagesSettings) -> tuple[Keystone, UnifiedLimits] | None:
    """Keystone as it is asked for limits, to be opened; None if the settings want none.

    ValueError where these lack what Keystone wants to know of this service.
    """
    if not settings.default.use_keystone_limits:
        return None
    options = settings.oslo_limit
    credentials = {"auth_url", "username", "user_id", "password", "system_scope"} | {
        "user_domain_name",
        "user_domain_id",
    }
    given = {name: value for name in credentials if (value := getattr(options, name)) is not None}
    keystone = Keystone(settings.keystone_authtoken.model_copy(update=given), service_type="image")
    return keystone, UnifiedLimits(keystone, options, UNIFIED)


class Room:
    """The room of attempts at one image, each of which gets the same bytes.

    `taken` is how much is reserved for all of them so far.
    """

    def __init__(
        self, db: Database, quota: Quota, kind: Kind, attempts: Sequence[str], *, taken: int = 0
    ) -> None:
        self._db = db
        self._quota = quota
        self._kind: Kind = kind
        self._taken = dict.fromkeys(attempts, taken if quota.limits_bytes(kind) else None)

    async def cover(self, size: int, *, step: int = 0) -> None:
        """Have room for as many bytes in all; raises TooLarge, and Gone if no attempt is left.

        Where there is not enough yet, up to `step` bytes more are taken at once.
        """
        short = [
            (attempt, taken)
            for attempt, taken in self._taken.items()
            if taken is not None and taken < size
        ]
        for at, (attempt, taken) in enumerate(short):
            least = size - taken
            # One transaction for each: see `usage.reserve`.
            async with self._db.write() as connection:
                more = await self._quota.take(
                    connection,
                    attempt,
                    self._kind,
                    least,
                    most=max(least, step),
                    among=len(short) - at,
                )
            if more:
                self._taken[attempt] = taken + more
            else:
                del self._taken[attempt]
        if not self._taken:
            raise Gone("The image was deleted or taken over while data was written.")

    async def before(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The same bytes, each piece when there is room for it."""
        received = 0
        async for piece in stream:
            received += len(piece)
            await self.cover(received, step=STEP)
            yield piece
