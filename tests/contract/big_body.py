"""Moves one large body into a store and out again, in a process of its own, and prints what that cost.

python -m tests.contract.big_body jetstream URL MEBIBYTES
python -m tests.contract.big_body s3 URL MEBIBYTES
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from arc_es.ports import BodyStore
from arc_es.storage.s3 import S3Access, S3BodyStore
from tests.contract.body_stores import PARAMS, jetstream, sealed
from tests.contract.s3_server import BUCKET, KEY_ID, SECRET

MiB = 1024 * 1024
PIECE = os.urandom(64 * 1024)


async def body(mebibytes: int, digest: hashlib._Hash) -> AsyncIterator[bytes]:
    for number in range(mebibytes * MiB // len(PIECE)):
        piece = number.to_bytes(8, "big") + PIECE[8:]
        digest.update(piece)
        yield piece


def resident_kib(field: str) -> int:
    """VmRSS: now; VmHWM: the most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def there_and_back(store: BodyStore, mebibytes: int) -> dict[str, float]:
    sent = hashlib.sha256()
    start = trio.current_time()
    await store.upload(PARAMS, body(mebibytes, sent), mebibytes * MiB)
    uploaded = trio.current_time()
    stored = await sealed(store, PARAMS)
    assert (stored.sha256, stored.size) == (sent.hexdigest(), mebibytes * MiB)
    read_from = trio.current_time()
    got = hashlib.sha256()
    async with store.read(stored.ref) as reading:
        async for chunk in reading.chunks:
            got.update(chunk)
    assert got.digest() == sent.digest()
    end = trio.current_time()
    return {"up_mib_per_second": mebibytes / (uploaded - start), "down_mib_per_second": mebibytes / (end - read_from)}


@asynccontextmanager
async def s3_at(url: str) -> AsyncIterator[BodyStore]:
    yield S3BodyStore(S3Access(BUCKET, endpoint=url, key_id=KEY_ID, secret=SECRET), 1 << 40)


async def main(kind: str, url: str, mebibytes: int) -> None:
    opened: AbstractAsyncContextManager[BodyStore] = jetstream(url) if kind == "jetstream" else s3_at(url)
    async with opened as store:
        await there_and_back(store, 1)
        before = resident_kib("VmRSS")
        forget_peak()
        speeds = await there_and_back(store, mebibytes)
        print(json.dumps({"grown_mib": (resident_kib("VmHWM") - before) / 1024, **speeds}))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
