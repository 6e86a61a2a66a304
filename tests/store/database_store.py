"""The artifacts service's store in PostgreSQL, opened apart from the service."""

from diptych_artifacts.db.blob_store import DatabaseStore
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from diptych_store.calls import OnCall, tell_nobody


class OwnDatabaseStore(DatabaseStore):
    """One that closes its database with itself."""

    def __init__(self, db: Database, *, read_only: bool, on_call: OnCall) -> None:
        super().__init__("database", db, read_only=read_only, on_call=on_call)
        self._own = db

    async def aclose(self) -> None:
        await self._own.close()


def store_at(
    url: str, on_call: OnCall = tell_nobody, *, read_only: bool = False
) -> OwnDatabaseStore:
    """The store in the migrated database at this address."""
    db = Database(DatabaseSettings(connection=url))
    return OwnDatabaseStore(db, read_only=read_only, on_call=on_call)


async def open_there(url: str, on_call: OnCall) -> OwnDatabaseStore:
    """As `store_at`, for tests/store/crashing.py."""
    return store_at(url, on_call)
