"""The same transfer by aiobotocore alone: parts of 8 MiB, three in flight, nothing checked.

`python -m tests.bench.plain_s3 make|up|down ENDPOINT ACCESS SECRET BUCKET KEY BYTES` prints the
seconds from the first request to the last; `make` makes the bucket.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.bench.data import BLOCK, blocks

PART = 8 * BLOCK
IN_FLIGHT = 3


def parts(size: int) -> Iterator[bytes]:
    part = bytearray()
    for block in blocks(size):
        part += block
        if len(part) == PART:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


async def up(client: Any, bucket: str, key: str, size: int) -> None:
    about = {"Bucket": bucket, "Key": key}
    upload = (await client.create_multipart_upload(**about))["UploadId"]
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def send(number: int, part: bytes) -> dict[str, object]:
        try:
            answer = await client.upload_part(
                **about, UploadId=upload, PartNumber=number, Body=part
            )
        finally:
            slots.release()
        return {"PartNumber": number, "ETag": answer["ETag"]}

    sending: list[asyncio.Task[dict[str, object]]] = []
    for number, part in enumerate(parts(size), 1):
        await slots.acquire()
        sending.append(asyncio.create_task(send(number, part)))
    sent = await asyncio.gather(*sending)
    await client.complete_multipart_upload(
        **about, UploadId=upload, MultipartUpload={"Parts": sent}
    )


async def down(client: Any, bucket: str, key: str, size: int) -> None:
    answer = await client.get_object(Bucket=bucket, Key=key)
    read = 0
    async for piece in answer["Body"].iter_chunks(BLOCK):
        read += len(piece)
    if read != size:
        raise SystemExit(f"{read} bytes came instead of {size}")


async def run(
    direction: str, endpoint: str, access: str, secret: str, bucket: str, key: str, size: int
) -> float:
    async with get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        config=AioConfig(s3={"addressing_style": "path"}),
    ) as typed_client:
        client: Any = typed_client
        if direction == "make":
            await client.create_bucket(Bucket=bucket)
        await client.head_bucket(Bucket=bucket)
        begun = time.perf_counter()
        if direction != "make":
            await (up if direction == "up" else down)(client, bucket, key, size)
        return time.perf_counter() - begun


def main(
    direction: str, endpoint: str, access: str, secret: str, bucket: str, key: str, size: str
) -> None:
    print(asyncio.run(run(direction, endpoint, access, secret, bucket, key, int(size))))


if __name__ == "__main__":
    main(*sys.argv[1:])
