"""What a listener of the real oslo.messaging gets from RabbitMQ."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

LISTENER = Path(__file__).parent / "notification_listener.py"

Read = Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def listening(python: Path, url: str, topic: str, *, exchange: str) -> AsyncGenerator[Read]:
    """`await read()`: the next event; `python` is the folder of `oslo_messaging_env`."""
    process = await asyncio.create_subprocess_exec(
        *(str(python / "python"), str(LISTENER), url, exchange, topic),
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdout is not None
    lines = process.stdout

    async def read() -> dict[str, Any]:
        async with asyncio.timeout(60):
            line = await lines.readline()
        assert line, "the listener has ended"
        return json.loads(line)

    try:
        assert await read() == {}
        yield read
    finally:
        process.kill()
        await process.wait()
