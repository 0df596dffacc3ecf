"""Settings of the body store: what is refused before anything starts, and which store comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from arc_es.config import Config, ConfigError, load
from arc_es.storage.choice import open_body_store, s3_access
from arc_es.storage.object_store import ObjectStore
from arc_es.storage.s3 import S3BodyStore
from tests.contract.body_stores import PARAMS, connected, content
from tests.contract.nats_process import NatsProcess
from tests.contract.s3_server import BUCKET, KEY_ID, SECRET, S3Server

KEYS = {"ARC_S3_ACCESS_KEY_ID": KEY_ID, "ARC_S3_SECRET_ACCESS_KEY": SECRET}


def settings(**environ: str) -> Config:
    return load(environ=environ, toml=Path("/dev/null"))


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize(
    "place", ["s3", "file:///tmp", "s3://", "s3://a", "s3://bucket/../up", "s3://bucket//x", "S3://b"]
)
def test_a_store_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="body_store"):
        settings(ARC_BODY_STORE=place, **KEYS)


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_s3_needs_both_keys(missing: str) -> None:
    keys = {name: value for name, value in KEYS.items() if name != missing}
    with pytest.raises(ConfigError, match=missing):
        settings(ARC_BODY_STORE="s3://bucket", **keys)


@pytest.mark.parametrize(
    "endpoint", ["http://s3.example.org", "s3.example.org", "https://", "https://a:b@s3.example.org"]
)
def test_an_endpoint_that_would_show_secrets_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="s3_endpoint"):
        settings(ARC_BODY_STORE="s3://bucket", ARC_S3_ENDPOINT=endpoint, **KEYS)


@pytest.mark.parametrize(
    ("place", "bucket", "prefix"), [("s3://my-bucket", "my-bucket", ""), ("s3://b-1/a/b/", "b-1", "a/b")]
)
def test_bucket_and_prefix(place: str, bucket: str, prefix: str) -> None:
    access = s3_access(settings(ARC_BODY_STORE=place, **KEYS))
    assert (access.bucket, access.prefix, access.endpoint, access.key_id) == (bucket, prefix, None, KEY_ID)


async def test_the_configured_store_is_opened(nats: NatsProcess, s3_server: S3Server) -> None:
    await s3_server.start()
    s3 = {
        "ARC_BODY_STORE": f"s3://{BUCKET}/x",
        "ARC_S3_ENDPOINT": f"http://127.0.0.1:{s3_server.port}",
        **KEYS,
    }
    with trio.fail_after(30):
        async with connected(nats.url) as bridge:
            for config, kind in ((settings(), ObjectStore), (settings(**s3), S3BodyStore)):
                store = await open_body_store(config, bridge)
                assert isinstance(store, kind)
                assert await content(store, (await store.keep(PARAMS, b"bytes")).ref) == b"bytes"


async def test_a_provider_that_is_away_is_only_told(
    nats: NatsProcess, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = f"http://127.0.0.1:{s3_server.port}"  # nobody listens there
    config = settings(ARC_BODY_STORE=f"s3://{BUCKET}", ARC_S3_ENDPOINT=endpoint, **KEYS)
    with trio.fail_after(60):
        async with connected(nats.url) as bridge:
            assert isinstance(await open_body_store(config, bridge), S3BodyStore)
    assert "cannot be used" in caplog.text
    assert SECRET not in caplog.text
