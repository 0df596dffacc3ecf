"""GET /events: the feed in pages, as CloudEvents, and live (extensions, "Audit").

A live reader is the task of its request: it asks the feed for a page, sends it, and asks again once the client has
taken it. So a slow client slows down nobody but itself, and costs one page of memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

import orjson
import trio
from quart import Blueprint, Request, Response

from arc_es.codec import EVENT_TYPES
from arc_es.domain import limits
from arc_es.feed import Feed, Page, Told, Wanted
from arc_es.http.api import Api, Caller
from arc_es.http.connection import header_of, until_disconnected
from arc_es.http.problems import JSON, json_response
from arc_es.ports import JournalError
from arc_es.wire import parse_time, wrong_shape

EVENT_STREAM: Final = "text/event-stream"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
LIMIT_DEFAULT: Final = 100
POSITION_MAX: Final = 2**63 - 1
RETRY_MS: Final = 2_000
"""How soon a client of a live feed should come back after its end."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request for the feed, read."""

    after: int
    limit: int
    wanted: Wanted


def feed_blueprint(api: Api) -> Blueprint:
    """GET /events."""
    blueprint = Blueprint("feed", __name__)
    feed = api.service.feed

    @blueprint.get("/events")
    async def events(request: Request) -> Response:
        caller = await api.caller(request, "read")
        asked = await _question(api, request, caller)
        kind = _kind(header_of(request, b"accept") or "")
        if kind == EVENT_STREAM:
            feed.need_reader()
            response = Response(_live(api, request, asked), content_type=EVENT_STREAM)
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Accel-Buffering"] = "no"  # a buffering proxy would hold events back
            return response
        page = await feed.page(asked.after, asked.wanted, asked.limit, limits.FEED_PAGE_BYTES_MAX)
        return _cloud_events(api, request, page) if kind == CLOUD_EVENTS else _page(page)

    return blueprint


def _kind(accept: str) -> str:
    """The first media type of an Accept header that is one of ours; JSON otherwise."""
    offered = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return next((one for one in offered if one in (EVENT_STREAM, CLOUD_EVENTS)), JSON)


async def _question(api: Api, request: Request, caller: Caller) -> Question:
    """Raises WireError 422, Refusal 403 and CommandNotFound."""
    given = request.args
    position = header_of(request, b"last-event-id") or given.get("after")
    after = 0 if position is None else min(_count(position, "after"), POSITION_MAX)
    limit = min(max(_count(given.get("limit", str(LIMIT_DEFAULT)), "limit"), 1), limits.FEED_PAGE_EVENTS_MAX)
    since, kind = given.get("since"), given.get("type")
    if kind is not None and kind not in EVENT_TYPES:
        raise wrong_shape("type must be the name of an event")
    deployment_id, command_id = given.get("deploymentId"), given.get("commandId")
    if deployment_id is not None:
        caller.must_cover(deployment_id)
    if command_id is not None:
        await api.covered(caller, command_id)
    if since is not None:
        after = max(after, await api.service.feed.before(parse_time(since, "since")))
    return Question(after, limit, Wanted(caller.grant, deployment_id, command_id, kind))


def _count(given: str, name: str) -> int:
    if not given.isdecimal() or len(given) > len(str(POSITION_MAX)):
        raise wrong_shape(f"{name} must be a non-negative integer")
    return int(given)


# --- pages


def _page(page: Page) -> Response:
    events = b",".join(event for told in page.decisions for event in told.events)
    end = b"true" if page.is_end else b"false"
    return Response(b'{"events":[%b],"next":%d,"end":%b}' % (events, page.next, end), content_type=JSON)


def _cloud_events(api: Api, request: Request, page: Page) -> Response:
    source = api.base_url(request)
    events = [cloud_event(source, orjson.loads(event)) for told in page.decisions for event in told.events]
    response = json_response(events)
    response.content_type = CLOUD_EVENTS
    response.headers["Arc-Next"] = str(page.next)
    response.headers["Arc-End"] = "true" if page.is_end else "false"
    if not page.is_end:
        query = urlencode({**request.args, "after": page.next})
        response.headers["Link"] = f'<{source}/events?{query}>; rel="next"'
    return response


def cloud_event(source: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as CloudEvents 1.0 has it. Names of extension attributes may have lower-case letters and digits only,
    and integers 32 bits, so positions are strings."""
    found = {
        "specversion": "1.0",
        "id": f"{event['seq']}-{event['index']}",
        "source": source,
        "type": event["type"],
        "subject": event.get("commandId"),
        "time": event["at"],
        "datacontenttype": JSON,
        "data": event["data"],
        "seq": str(event["seq"]),
        "decisionid": event["id"],
        "deploymentid": event.get("deploymentId"),
        "byid": event["by"]["id"],
        "bykind": event["by"]["kind"],
        "prev": event.get("prev"),
        "hash": event["hash"],
    }
    return {name: value for name, value in found.items() if value is not None}


# --- live


async def _live(api: Api, request: Request, asked: Question) -> AsyncGenerator[bytes, None]:
    """Server-sent events, until the client leaves, its token ends, it falls too far behind, or the service drains."""
    feed = api.service.feed
    at, told_id, was_at_end = asked.after, asked.after, False
    with feed.reading():
        yield b"retry: %d\n\n" % RETRY_MS
        silent_until = trio.current_time() + limits.FEED_SILENCE_SECONDS_MAX
        while not feed.draining and await api.identified(request) is not None:
            if was_at_end and not feed.keeps(at):
                yield b": you are too slow; come back with Last-Event-ID\n\n"
                return
            try:
                page = await feed.page(at, asked.wanted, limits.FEED_PAGE_EVENTS_MAX, limits.SEND_BYTES)
            except JournalError:
                yield b": the journal cannot be read now; come back with Last-Event-ID\n\n"
                return
            at, was_at_end = page.next, was_at_end or page.is_end
            if page.decisions or trio.current_time() >= silent_until:
                yield b"".join(map(_server_sent, page.decisions)) or _alive(at, told_id)
                told_id = page.decisions[-1].position if page.decisions else at
                silent_until = trio.current_time() + limits.FEED_SILENCE_SECONDS_MAX
            if page.is_end:
                await _news(feed, request, at, silent_until)


async def _news(feed: Feed, request: Request, at: int, deadline: float) -> None:
    """Wait for something new after a position, or until the deadline. Raises ClientGone."""
    await until_disconnected(request, partial(feed.news, at, deadline))
    if trio.current_time() < deadline and not feed.draining:
        await trio.sleep(limits.FEED_PAUSE_SECONDS)  # what comes close together goes out together


def _server_sent(told: Told) -> bytes:
    """One decision. Only its last event has an id: who saw less gets all of it again."""
    *others, last = told.events
    return b"".join([*(b"data: %b\n\n" % event for event in others), b"id: %d\ndata: %b\n\n" % (told.position, last)])


def _alive(at: int, told_id: int) -> bytes:
    """A comment after a long silence; if events were passed over meanwhile, with an id that spares reading them again.
    A block without data is no event, but its id counts (HTML, 9.2.6)."""
    return b": alive\n\n" if at == told_id else b": alive\nid: %d\n\n" % at
