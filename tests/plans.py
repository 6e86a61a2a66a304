"""How PostgreSQL goes about a statement, as it tells by EXPLAIN."""

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

_NUMBERS = count(1)


@asynccontextmanager
async def prepared(
    connection: AsyncConnection, statement: str, parameters: Sequence[object]
) -> AsyncGenerator[str]:
    """The EXECUTE of the statement with these parameters, prepared for as long as this is open."""
    types = dict(re.findall(r"\$(\d+)::(TIMESTAMP WITH TIME ZONE|[A-Z]+(?:\[\])?)", statement))
    names = [types[str(number + 1)] for number in range(len(parameters))]
    values = [f"{as_literal(value)}::{name}" for value, name in zip(parameters, names, strict=True)]
    page = f"page_{next(_NUMBERS)}"
    await connection.exec_driver_sql(f"PREPARE {page} ({', '.join(names)}) AS {statement}")
    yield f"EXECUTE {page} ({', '.join(values)})"
    await connection.exec_driver_sql(f"DEALLOCATE {page}")


def nodes(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The plan and all that it consists of, as EXPLAIN's JSON has them."""
    yield dict(plan)
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def as_literal(value: object) -> str:
    """A parameter as it is written in SQL."""
    match value:
        case None:
            return "NULL"
        case bool() | int():
            return str(value)
        case list():
            return f"ARRAY[{', '.join(as_literal(item) for item in value)}]"
        case _:
            return f"'{value}'"
