"""What the machine gives without a service: an ASGI route that does nothing, and one statement.

`python -m tests.bench.bare DATABASE ID SECONDS PROCESSES` asks PostgreSQL for one image by its key
and prints how often that was answered in a second.
"""

import asyncio
import multiprocessing
import sys
import time

import asyncpg
from starlette.types import Receive, Scope, Send

_ANSWER = b'{"id": "%s"}' % (b"x" * 1000)
_CONNECTIONS = 4


async def route(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 1 KiB of JSON, whatever was asked."""
    if scope["type"] != "http":
        return
    length = str(len(_ANSWER)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def _ask(url: str, image_id: str, seconds: float) -> int:
    async def one(until: float) -> int:
        connection = await asyncpg.connect(url)
        statement = await connection.prepare("SELECT * FROM images WHERE id = $1")
        asked = 0
        while time.monotonic() < until:
            await statement.fetchrow(image_id)
            asked += 1
        await connection.close()
        return asked

    async def all_of_them() -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(one(until) for _ in range(_CONNECTIONS))))

    return asyncio.run(all_of_them())


def main(database: str, image_id: str, seconds: str, processes: str) -> None:
    url = database.replace("postgresql+asyncpg://", "postgresql://")
    with multiprocessing.get_context("spawn").Pool(int(processes)) as pool:
        asked = pool.starmap(_ask, [(url, image_id, float(seconds))] * int(processes))
    print(sum(asked) / float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
