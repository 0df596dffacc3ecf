"""Which body store the settings ask for."""

from __future__ import annotations

import logging

from arc_es.config import Config
from arc_es.nats_bridge import Bridge
from arc_es.ports import BodyStore, BodyStoreError
from arc_es.storage.object_store import Take, open_object_store, unlimited
from arc_es.storage.s3 import S3Access, S3BodyStore

S3_SCHEME = "s3://"

log = logging.getLogger("arc_es.storage")


async def open_body_store(config: Config, bridge: Bridge, take: Take = unlimited) -> BodyStore:
    """The body store of the configuration, seen to: in the journal's NATS, or with a provider that speaks S3.

    take: takes room of what NATS has. A provider has its own.

    A provider that does not answer now is no reason not to start: small bodies need none.

    Raises:
        BodyStoreMismatch: it is not as configured, or not as this version needs it.
        JournalUnavailable: NATS cannot be reached.
    """
    if not config.body_store.startswith(S3_SCHEME):
        return await open_object_store(
            bridge, replicas=config.replicas, bytes_max=config.body_store_bytes_max, take=take
        )
    store = S3BodyStore(s3_access(config), config.storage_bytes_max)
    try:
        await store.check()
    except BodyStoreError as error:
        log.warning("%s Large bodies are refused until it can.", error)
    return store


def s3_access(config: Config) -> S3Access:
    """Where `body_store = "s3://bucket/prefix"` is."""
    bucket, _, prefix = config.body_store.removeprefix(S3_SCHEME).partition("/")
    return S3Access(
        bucket=bucket,
        prefix=prefix.strip("/"),
        endpoint=config.s3_endpoint,
        region=config.s3_region,
        key_id=config.s3_access_key_id or "",
        secret=config.s3_secret_access_key or "",
    )
