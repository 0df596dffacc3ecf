"""Settings of push: which pusher, and how many pushes at once; and how many workers."""

from __future__ import annotations

import pytest

from arc_es.config import Config, ConfigError, load
from arc_es.dispatch.http import HttpPusher
from arc_es.dispatch.null import NullPusher
from arc_es.serving import open_pusher


@pytest.mark.parametrize(("push", "kind"), [("http", HttpPusher), ("null", NullPusher)])
async def test_the_setting_names_the_pusher(push: str, kind: type[object]) -> None:
    async with open_pusher(load(environ={"ARC_PUSH": push})) as pusher:
        assert isinstance(pusher, kind)


def test_http_is_the_default() -> None:
    assert Config().push == "http"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("push", "lambda"),
        ("push", "HTTP"),
        ("pushes_max", "0"),
        ("pushes_per_target_max", "-1"),
        ("workers", "0"),
        ("workers", "65"),
    ],
)
def test_other_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load(environ={f"ARC_{name.upper()}": value})
