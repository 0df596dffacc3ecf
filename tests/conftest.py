"""Rules for all tests: an unexpected ERROR log record fails a test; Hypothesis does little at a desk, more in CI."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

CI = os.environ.get("CI", "") not in ("", "0", "false")

# No deadlines: the machines are shared and noisy, and a slow example is no bug. too_slow likewise.
settings.register_profile("desk", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI takes the same examples each time: red there can be repeated, and never means bad luck. A desk looks for new ones.
settings.register_profile(
    "ci",
    max_examples=100,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if CI else "desk")


class _Collect(logging.Handler):
    """Keeps what is ERROR or worse. On the root logger, and of loggers that do not propagate there is none of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def no_error_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing may be logged as ERROR unless the test is marked `expects_errors`."""
    collect = _Collect()
    root = logging.getLogger()
    root.addHandler(collect)
    try:
        yield
    finally:
        root.removeHandler(collect)
    if collect.messages and request.node.get_closest_marker("expects_errors") is None:
        pytest.fail("ERROR was logged:\n" + "\n".join(collect.messages), pytrace=False)
