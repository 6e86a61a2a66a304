"""Statements compiled once, that run on asyncpg's own connection: the way of those that run often.

For each execution SQLAlchemy makes a key to find the statement's text by, a context, a result, and
greenlets to wait in. Of a request that shows one row that was measured to be two fifths.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple, cast

import orjson
from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_common.database import Direct, to_json

_Process = Callable[[Any], Any]

_DIALECT: Final = PGDialect_asyncpg(json_serializer=to_json, json_deserializer=orjson.loads)


class _Parameter(NamedTuple):
    """`value` is what the statement itself holds, unless the caller `is_asked` for one."""

    name: str
    is_asked: bool
    value: object
    process: _Process | None

    def of(self, values: Mapping[str, object]) -> object:
        value = values[self.name] if self.is_asked else self.value
        return value if self.process is None else self.process(value)


class _Compiled(NamedTuple):
    text: str
    parameters: tuple[_Parameter, ...]
    # Those columns whose values are not yet what asyncpg makes of them.
    columns: tuple[tuple[str, _Process], ...]


class Prepared:
    """A statement that is compiled when it first runs, and never again.

    What is in it by value stays as it is; each `bindparam` gets its value when it runs. None can be
    the list of an `in_`, whose text depends on its length: compare with `any_` of an array.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement

    async def rows(
        self, connection: AsyncConnection, values: Mapping[str, object]
    ) -> list[dict[str, Any]]:
        """The rows, by the names of their columns. One round trip; `connection` is a `Database`'s.

        Raises what `execute` would, but asyncpg's own errors where the server's are no answer to a
        client.
        """
        text, parameters, columns = self._compiled
        found = await cast(Direct, connection).fetch(
            text, *[parameter.of(values) for parameter in parameters]
        )
        rows = [dict(record) for record in found]
        for name, process in columns:
            for row in rows:
                row[name] = process(row[name])
        return rows

    async def row(
        self, connection: AsyncConnection, values: Mapping[str, object]
    ) -> dict[str, Any] | None:
        """The one row that there is at most."""
        rows = await self.rows(connection, values)
        return rows[0] if rows else None

    @cached_property
    def _compiled(self) -> _Compiled:
        compiled = self._statement.compile(dialect=_DIALECT)
        parameters = tuple(
            _Parameter(
                name,
                compiled.binds[name].required,
                compiled.binds[name].effective_value,
                compiled.binds[name].type.dialect_impl(_DIALECT).bind_processor(_DIALECT),
            )
            for name in compiled.positiontup or ()
        )
        columns = tuple(
            (str(column.key), process)
            for column in self._statement.exported_columns
            if (process := column.type.dialect_impl(_DIALECT).result_processor(_DIALECT, None))
        )
        return _Compiled(compiled.string, parameters, columns)
