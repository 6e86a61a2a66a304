"""The way to PostgreSQL: one pool per process, AUTOCOMMIT reads, explicit write transactions.

Statements live in the `db` modules of each service. Here is what all of them need: connections,
what a broken one means, and how a refusal of the server becomes an answer to a client.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import asyncpg
import orjson
from sqlalchemy import event, text
from sqlalchemy.engine import CursorResult, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from diptych_common import tracing
from diptych_common.errors import ApiError, BadRequest, ServiceUnavailable
from diptych_common.settings import Database as DatabaseSettings

log = logging.getLogger(__name__)

METADATA_NAMING: Final[Mapping[str, str]] = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Give it to every `MetaData(naming_convention=…)`: migrations must be able to name what exists."""

TRY_AGAIN: Final[Mapping[str, str]] = {"Retry-After": "1"}


# A process that is frozen, or whose host has gone, would keep the rows that it has locked for as
# long as TCP believes in it, hours by default: so long nobody could take over its jobs. No
# transaction here waits for anything but the server. Those that wait for each other's rows add up.
_IDLE_IN_TRANSACTION: Final = "5s"

# One that stops between two messages of a statement counts as busy, not idle, and no limit of
# statements ends it: `transaction_timeout` does, which PostgreSQL has from 17 on. A statement that
# takes too long is ended by its own limit before.
_BEYOND_A_STATEMENT_S: Final = 5
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_LIMIT_TRANSACTIONS: Final = """
    SELECT set_config('transaction_timeout', $1, false)
    WHERE current_setting('server_version_num')::int >= 170000
"""


# A connection beyond `max_pool_size` is opened for one use, which costs as much as ten reads. Under
# load one of the others is given back sooner; it is not where many wait for rows.
_GIVEN_BACK_WITHIN_S: Final = 0.02


WANTS_EVENT: Final = "wants_event"
"""The execution option that says of which types events are recorded."""

_SPAN: Final[Mapping[str, str]] = {"db.system.name": "postgresql"}

# For modules that pass a connection on and speak no SQL themselves.
Connection = AsyncConnection

D = TypeVar("D", bound="Direct")


class MigrationRefused(Exception):
    """The schema is not in a state for what was asked; the message says what to do."""


class ConnectionLost(ServiceUnavailable):
    """The connection ended under a statement; what that statement did is unknown."""


class TransactionConflict(ServiceUnavailable):
    """A deadlock or a serialization failure: nothing was changed, the same may work now."""


TROUBLE: Final = (
    *(ServiceUnavailable, SQLAlchemyError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError),  # as `Direct` has them
)
"""All that PostgreSQL may answer at any time, a schema that is not migrated yet included."""

NO_SUCH_TABLE: Final = (ProgrammingError, asyncpg.SyntaxOrAccessError)
"""What it answers about a schema that lacks something."""


class Database:
    """A pool of connections; open it in the lifespan of a process, never before a fork.

    No connection is made until the first statement, so that a service starts while PostgreSQL
    is down and answers 503 until it is up. `on_in_use` is told the number of connections in use
    whenever it changes. `wants_event` says of which types events are recorded on its connections.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        application_name: str = "diptych",
        on_in_use: Callable[[int], None] | None = None,
        wants_event: Callable[[str], bool] | None = None,
    ) -> None:
        self.dsn = dsn(settings.connection)
        self.wants_event = wants_event or _anything
        # A pooler in transaction mode hands each transaction to another server connection: what
        # was prepared on one is unknown to the next, and nothing can be listened for.
        self.can_listen = settings.statement_cache_size > 0
        cached = {
            # asyncpg's own cache, of what `prepared.Prepared` runs. Ours are few and long-lived;
            # asyncpg would prepare each anew every five minutes, and one of over 15 KB every time.
            "statement_cache_size": settings.statement_cache_size,
            "max_cached_statement_lifetime": 0,
            "max_cacheable_statement_size": 0,
        }
        server_settings = {"application_name": application_name}
        if self.can_listen:  # a pooler refuses what it does not know; there it is the server's
            server_settings["idle_in_transaction_session_timeout"] = _IDLE_IN_TRANSACTION
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            # SQLAlchemy's default is a transaction around everything, reads included: BEGIN,
            # SELECT, ROLLBACK are three round trips.
            isolation_level="AUTOCOMMIT",
            pool_size=settings.max_pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout,
            pool_recycle=settings.connection_recycle_time,
            pool_use_lifo=True,
            # Parameters are users' data, and an unexpected error is logged with its statement.
            hide_parameters=True,
            json_serializer=to_json,
            json_deserializer=orjson.loads,
            # With the connection, so that nobody who records an event has to ask first.
            execution_options={WANTS_EVENT: self.wants_event},
            connect_args={
                "dsn": self.dsn,
                "timeout": settings.connect_timeout,
                "command_timeout": settings.statement_timeout or None,
                "prepared_statement_cache_size": settings.statement_cache_size,
                "server_settings": server_settings,
                **cached,
            },
        )
        self._application_name = application_name
        if self.can_listen and settings.statement_timeout:
            longest = f"{settings.statement_timeout + _BEYOND_A_STATEMENT_S}s"
            event.listen(self._engine.sync_engine, "connect", _limiting_transactions(longest))
        event.listen(self._engine.sync_engine, "handle_error", _answer, retval=True)
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        self._turns = asyncio.Semaphore(settings.max_pool_size)
        # Counted here: the pool's events of checkout and checkin are not in pairs when a request
        # is cancelled while it connects.
        self._in_use = 0
        self._on_in_use = on_in_use

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; one in use is closed when it is given back."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection on which each statement is its own transaction: one round trip each.

        For statements that may run twice: one that meets a connection which died in the pool
        runs again, once, on a new one. Raises ServiceUnavailable while PostgreSQL is out of reach.
        """
        with tracing.span("database read", **_SPAN):
            async with self._out_of_pool(_Reading) as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """One READ COMMITTED transaction: committed when the block ends, rolled back if it raises.

        Two round trips beside the statements' own. Never keep it open while bytes flow or another
        service answers. Raises TransactionConflict on a deadlock; ConnectionLost while the block
        ends means that nobody knows whether the change was made.
        """
        with tracing.span("database write", **_SPAN):
            async with self._out_of_pool(_Writing) as connection:
                try:
                    yield connection
                except BaseException:
                    await connection.give_up()
                    raise
                await connection.commit()

    @asynccontextmanager
    async def _out_of_pool(self, kind: type[D]) -> AsyncGenerator[D]:
        has_turn = await self._turn()
        try:
            connection = kind(self._engine)
            with _reaching():
                await connection.start()
            self._count(1)
            try:
                yield connection
            finally:
                self._count(-1)
                await connection.give_back()
        finally:
            if has_turn:
                self._turns.release()

    async def _turn(self) -> bool:
        """Wait a moment for one of the connections that stay open; False if none was given back."""
        if not self._turns.locked():
            return await self._turns.acquire()
        try:
            async with asyncio.timeout(_GIVEN_BACK_WITHIN_S):
                return await self._turns.acquire()
        except TimeoutError:
            return False

    def _count(self, change: int) -> None:
        self._in_use += change
        if self._on_in_use is not None:
            self._on_in_use(self._in_use)

    async def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Call `heard` with the text of each NOTIFY on `channel`, until the connection ends.

        Also calls it once at the start, with an empty text: what was notified before is not told
        again. On a connection of its own. Raises ServiceUnavailable when there is none (any more).
        """
        ended = asyncio.Event()

        def told(_connection: object, _pid: int, _channel: str, words: str) -> None:
            heard(words)

        def lost(_connection: object) -> None:
            ended.set()

        try:
            connection = await connect(self.dsn, application_name=self._application_name)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _out_of_reach(error) from error
        try:
            connection.add_termination_listener(lost)
            await connection.add_listener(channel, told)
            heard("")
            await ended.wait()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _out_of_reach(error) from error
        finally:
            connection.terminate()
        raise ConnectionLost("The connection that listens was lost.")

    async def ping(self) -> None:
        """One round trip to the server; raises ServiceUnavailable."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))


async def connect(dsn: str, *, application_name: str) -> Any:
    """A connection of asyncpg's own, outside every pool; the caller closes it."""
    untyped: Any = asyncpg
    return await untyped.connect(
        dsn, timeout=10, server_settings={"application_name": application_name}
    )


_HOST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


def dsn(address: str) -> str:
    """The address as asyncpg reads it, which is libpq's form: sslmode, several hosts, sockets.

    Also takes SQLAlchemy's form with a driver (`postgresql+psycopg2://`), as Glance's files have
    it; the driver is always asyncpg. Raises ValueError for another database and for a port that is
    no number, without the address in the message: it holds a password.
    """
    scheme, separator, rest = address.partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or dialect not in ("postgresql", "postgres"):
        raise ValueError("[database] connection must begin with postgresql://")
    # asyncpg would say this at the first statement, and quote what it took for the port: the
    # password, where that has a slash.
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].split(",")
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError(
            "[database] connection must begin with postgresql://user:password@host:port/, where"
            " special characters of the password are percent-encoded"
        )
    return f"postgresql://{rest}"


class Direct(AsyncConnection):
    """A connection on which statements can also be run beneath SQLAlchemy.

    It sends no BEGIN, COMMIT and ROLLBACK of its own accord: to SQLAlchemy it is AUTOCOMMIT.
    """

    async def give_back(self) -> None:
        """Close it, which no cancelling keeps it from."""
        pool = cast(AsyncAdaptedQueuePool, self.sync_engine.pool)
        if self.sync_connection is None or self.invalidated or pool.overflow() > 0:
            # In a task of its own, for the driver's connection may be closed as well.
            await self.__aexit__(None, None, None)
        else:
            # It goes back into the pool, for which nobody waits.
            self.sync_connection.close()

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        """asyncpg's records of a statement with its parameters `$1`, `$2`, ….

        Errors are those that `execute` raises, but one of the server that is no answer to a client
        is asyncpg's own. For `prepared.Prepared`.
        """
        return await self._run("fetch", statement, *values)

    async def _run(self, method: str, *arguments: object) -> Any:
        """Call a method of asyncpg's connection; errors as of `fetch`."""
        assigned = self.sync_connection
        if assigned is None or assigned.invalidated:
            driver: Any = (await self.get_raw_connection()).driver_connection
        else:
            # What `get_raw_connection` does, without a greenlet.
            driver = assigned.connection.driver_connection
        try:
            return await getattr(driver, method)(*arguments)
        except Exception as error:
            answer, is_lost = _answer_to(error, is_closed=driver.is_closed())
            if is_lost:
                await self.invalidate(error)
            if answer is None:
                raise
            raise answer from error
        except BaseException as error:
            # Cancelled: what the server makes of the statement is unknown.
            await self.invalidate(error)
            raise


class _Reading(Direct):
    """Replaces itself once if it turns out to be dead."""

    _replaced = False

    async def execute(self, *args: Any, **kwargs: Any) -> CursorResult[Any]:
        try:
            return await super().execute(*args, **kwargs)
        except ConnectionLost as error:
            await self._replace(error)
        with _reaching():
            return await super().execute(*args, **kwargs)

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        try:
            return await super().fetch(statement, *values)
        except ConnectionLost as error:
            await self._replace(error)
        with _reaching():
            return await super().fetch(statement, *values)

    async def _replace(self, error: ConnectionLost) -> None:
        if self._replaced:
            raise error
        self._replaced = True
        # Closes the transaction that SQLAlchemy believes in; nothing is sent.
        await self.rollback()


class _Writing(Direct):
    """Begins a transaction with its first statement; `commit` or `give_up` ends it."""

    _has_begun = False

    async def execute(self, *args: Any, **kwargs: Any) -> CursorResult[Any]:
        await self._begin()
        return await super().execute(*args, **kwargs)

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        await self._begin()
        return await super().fetch(statement, *values)

    async def _begin(self) -> None:
        if self._has_begun:
            self._require_the_same()
        else:
            self._has_begun = True
            await self._run("execute", _BEGIN)

    def _require_the_same(self) -> None:
        # SQLAlchemy would go on with another connection, outside of the transaction.
        if self.invalidated:
            raise ConnectionLost("The database is out of reach; try again.", headers=TRY_AGAIN)

    async def commit(self) -> None:
        """Commit what was begun; nothing is sent if nothing was."""
        if self._has_begun:
            self._require_the_same()
            await self._run("execute", "COMMIT")

    async def give_up(self) -> None:
        """Roll back what was begun. A connection on which that fails is closed."""
        if not self._has_begun or self.invalidated:
            return
        try:
            await self._run("execute", "ROLLBACK")
        except Exception as error:
            log.warning("A transaction is left to the server to roll back: %s", error)
            await self.invalidate(error)


@contextmanager
def _reaching() -> Generator[None]:
    try:
        yield
    except (OSError, PoolTimeout, DBAPIError) as error:
        raise _out_of_reach(error) from error


def _anything(_event_type: str) -> bool:
    return True


def _out_of_reach(error: Exception) -> ServiceUnavailable:
    log.error("The database is out of reach: %s", error)
    return ServiceUnavailable("The database is out of reach; try again.", headers=TRY_AGAIN)


def _refuse_closed(driver_connection: Any, *_: object) -> None:
    """Replace a pooled connection that the server closed meanwhile.

    Costs nothing: asyncpg has been told by the event loop. A ping (`pool_pre_ping`) would be a
    round trip before every statement.
    """
    if driver_connection.driver_connection.is_closed():
        raise DisconnectionError


LOST: Final = frozenset(
    {
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "25006",  # read_only_sql_transaction: the server was demoted; connect to its successor
    }
)


def _answer(context: ExceptionContext) -> ApiError | None:
    """What a client is told about an error of the server; None leaves the error as it is."""
    error = context.original_exception
    if not isinstance(error, Exception):
        # Cancelled: SQLAlchemy drops the connection, and the cancellation must stay what it is.
        return None
    answer, is_lost = _answer_to(error, is_closed=context.is_disconnect)
    context.is_disconnect |= is_lost
    return answer


def _answer_to(error: Exception, *, is_closed: bool) -> tuple[ApiError | None, bool]:
    """The same for an error of asyncpg's, and whether the connection is of no use any more."""
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    if isinstance(error, TimeoutError):
        # asyncpg has asked the server to stop, but nobody waits for the end of that.
        late = ServiceUnavailable("The database takes too long; try again.", headers=TRY_AGAIN)
        return late, True
    if (
        is_closed
        or sqlstate in LOST
        or sqlstate.startswith("08")
        or isinstance(error, OSError)
        # A statement prepared before a migration changed its columns.
        or type(error).__name__ == "InvalidCachedStatementError"
    ):
        log.warning("A connection to the database was lost: %s", error)
        lost = ConnectionLost("The database is out of reach; try again.", headers=TRY_AGAIN)
        return lost, True
    return _refusal(error, sqlstate), False


def _refusal(error: Exception, sqlstate: str) -> ApiError | None:
    if sqlstate in ("40001", "40P01"):
        return TransactionConflict(
            "The change collided with another one; try again.", headers=TRY_AGAIN
        )
    if sqlstate in ("57014", "55P03") or sqlstate.startswith("53"):
        log.error("The database refused a statement: %s", error)
        return ServiceUnavailable("The database is overloaded; try again.", headers=TRY_AGAIN)
    if sqlstate in ("22021", "22P05"):
        return BadRequest("A text must not hold the character U+0000.")
    if sqlstate == "54000":  # program_limit_exceeded: a text beyond what an index takes
        return BadRequest("A text is too long.")
    return None


def _limiting_transactions(longest: str) -> Callable[[Any, object], None]:
    """What is called with a new connection, to have the server end longer transactions on it."""

    def execute(driver: Any) -> Any:
        return driver.execute(_LIMIT_TRANSACTIONS, longest)

    def limit(connection: Any, _: object) -> None:
        try:
            connection.run_async(execute)
        except BaseException as error:
            # The pool forgets a connection whose beginning failed, and does not close it.
            connection.driver_connection.terminate()
            if isinstance(error, Exception):
                raise ConnectionError(f"The new connection was lost: {error}") from error
            raise

    return limit


def to_json(value: object) -> str:
    """How values are written into columns of JSON."""
    return orjson.dumps(value).decode()
