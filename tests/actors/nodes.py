"""Nodes without HTTP, as many as a test wants on one journal, and the requests that they get."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from arc_es.bootstrap import Node, assemble
from arc_es.config import Config
from arc_es.domain.ids import Micros, Target
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, Principal
from arc_es.journal.memory import MemoryJournal
from arc_es.wire import CreateRequest, InlineBody, SuccessResponse
from arc_es.wire_leases import LeaseRequest
from tests.http.driver import Clock

BY = Principal("tester", "admin")


class RunningClock(Clock):
    """A clock that goes with trio's, and can still be set forward."""

    def now(self) -> Micros:
        return self.at + round(trio.current_time() * SECOND)


@asynccontextmanager
async def running(
    journal: MemoryJournal, clock: Clock, count: int = 1, **settings: Any
) -> AsyncGenerator[list[Node], None]:
    """Nodes that share a journal and a clock."""
    nodes = [assemble(journal, Config(**settings), clock=clock) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        yield nodes
        nursery.cancel_scope.cancel()


def inline(raw: bytes) -> InlineBody:
    return InlineBody(raw, base64.b64encode(raw).decode())


def create_request(**more: Any) -> CreateRequest:
    plain: dict[str, Any] = {
        "deployment_id": "dep",
        "command": "report/build",
        "params": inline(b"{}"),
        "deadline": None,
        "idempotency_key": None,
        "target_id": "indexer",
    }
    return CreateRequest(**(plain | more))


def lease_request(**more: Any) -> LeaseRequest:
    plain: dict[str, Any] = {
        "deployment_id": "dep",
        "target": Target("indexer", "daemon"),
        "leases_max": 1,
        "lease_seconds": 30,
        "wait_seconds": 0,
        "agent": None,
    }
    return LeaseRequest(**(plain | more))


def answer(raw: bytes) -> SuccessResponse:
    return SuccessResponse(inline(raw))


async def create(node: Node, **more: Any) -> str:
    command_id, _ = await node.service.create(create_request(**more), BY)
    return command_id


async def lease(node: Node, **more: Any) -> list[str]:
    return [granted.command_id for granted in await node.service.lease(lease_request(**more), BY)]


async def event_types(node: Node, command_id: str) -> list[str]:
    return [type(event).__name__ for _, decision in await node.service.history(command_id) for event in decision.events]


async def changed(node: Node, command_id: str) -> None:
    await node.follower.changed(CommandKey("dep", command_id))
