"""Reads an object as others do, with nats-py's own object store, and prints names and digest. Not our code on purpose.

python -m tests.contract.nats_object URL BUCKET NAME
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

import nats


async def main(url: str, bucket: str, name: str) -> None:
    client = await nats.connect(url)
    store = await client.jetstream().object_store(bucket)
    found = await store.get(name)
    names = [info.name for info in await store.list()]
    print(json.dumps({"sha256": hashlib.sha256(found.data or b"").hexdigest(), "names": names}))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
