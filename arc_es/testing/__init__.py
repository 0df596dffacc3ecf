"""Test kit: a whole service in this process, without sockets or files, with a clock to set and a line to cut.

    async with open_service() as service:
        worker = service.worker(deployment="demo", target="greeter")
        ...
        async with service.caller() as arc, service.working(worker):
            assert await arc.call("demo", "greet", "ada", target="greeter") == "hello ada"

It is the real service on a journal in memory, not a mock of it. On trio it runs in the same loop, so a `MockClock` of
trio's moves it too; elsewhere in a loop and thread of its own. Needs `arc-es`: `arc-es-client` has no service to run.
"""

from __future__ import annotations

from arc_es.testing.service import LocalService, open_service

__all__ = ["LocalService", "open_service"]
