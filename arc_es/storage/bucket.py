"""Buckets in NATS: the standard layout of a JetStream object store, so that `nats object` reads them, too.

    $O.<bucket>.C.<ref>                      the bytes of one upload, in chunks; written once, under a fresh ref
    $O.<bucket>.M.<base64url of a name>      where the bytes of a name are: one message, which replaces the one before

Source: NATS ADR-20, "JetStream based Object Stores"; its `nuid` of the bytes is our ref.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import orjson

from arc_es.ports import BodyStoreError

DUPLICATE_WINDOW_SECONDS: Final = 120
_DIGEST: Final = "SHA-256="


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a meta message says: the bytes of `name` are the chunks of `ref`. size: bytes. sha256: lower-case hex."""

    name: str
    ref: str
    size: int
    chunks: int
    sha256: str

    def encode(self, bucket: str) -> bytes:
        """The meta message."""
        digest = base64.urlsafe_b64encode(bytes.fromhex(self.sha256)).decode()
        return orjson.dumps(
            {
                "name": self.name,
                "bucket": bucket,
                "nuid": self.ref,
                "size": self.size,
                "chunks": self.chunks,
                "digest": _DIGEST + digest,
                "mtime": "0001-01-01T00:00:00Z",  # readers take the time of the message
            }
        )


def decode_pointer(payload: bytes) -> Pointer | None:
    """The pointer in a meta message; None in one that says "deleted", as `nats object rm` leaves behind.

    Raises:
        BodyStoreError: it is no meta message of ours.
    """
    try:
        meta = orjson.loads(payload)
        if meta.get("deleted"):
            return None
        digest = base64.urlsafe_b64decode(meta["digest"].removeprefix(_DIGEST)).hex()
        return Pointer(str(meta["name"]), str(meta["nuid"]), int(meta["size"]), int(meta["chunks"]), digest)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BodyStoreError("The bucket holds a meta message that is not ours") from error


@dataclass(frozen=True, slots=True)
class Bucket:
    """The names of one bucket."""

    name: str

    @property
    def stream(self) -> str:
        """The stream that it is."""
        return f"OBJ_{self.name}"

    @property
    def chunks(self) -> str:
        """Before the ref of all bytes."""
        return f"$O.{self.name}.C."

    @property
    def meta(self) -> str:
        """Before what says where the bytes of a name are."""
        return f"$O.{self.name}.M."

    def meta_subject(self, name: str) -> str:
        """Where the pointer of a name is."""
        return self.meta + base64.urlsafe_b64encode(name.encode()).decode()

    def chunk_subject(self, ref: str) -> str:
        """Where the bytes of a ref are."""
        return self.chunks + ref

    def stream_config(self, replicas: int, bytes_max: int) -> dict[str, Any]:
        """The stream of the bucket, in the server's words. bytes_max -1: no limit but the server's."""
        return {
            "name": self.stream,
            "subjects": [self.chunks + ">", self.meta + ">"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_msgs": -1,
            "max_bytes": bytes_max,
            "max_age": 0,
            "max_msg_size": -1,
            "max_msgs_per_subject": -1,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "compression": "none",
            "duplicate_window": DUPLICATE_WINDOW_SECONDS * 1_000_000_000,
            "num_replicas": replicas,
            "metadata": {"arc_es.schema": "1", "arc_es.owner": "arc_es"},
        }


BODIES: Final = Bucket("ARC")
"""The bodies of commands. Names are slot paths (the newest complete upload) and refs (what was sealed)."""
