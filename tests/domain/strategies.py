"""Hypothesis strategies: bodies, intents from small pools (so that they meet), any event, any decision."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, get_args

from hypothesis import strategies as st

from arc_es.domain import events as e
from arc_es.domain import intents as i
from arc_es.domain.ids import Delivery, ResourceType, Target
from arc_es.domain.limits import IDEMPOTENCY_WINDOW, SECOND, UPLOAD_WINDOW
from arc_es.domain.recorded import Agent, Decision, Principal

LEASE_IDS: Final = ("lease_a", "lease_b")
LEASE_SECONDS: Final = (1, 2, 60)
PAUSES: Final = (0, 0, 0, 0, 0, 1, SECOND - 1, SECOND, SECOND + 1, 2 * SECOND, 60 * SECOND, UPLOAD_WINDOW)
"""Steps of time, in microseconds: on, just before and just after the ends of leases, deadlines and windows."""

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
jitters = st.floats(0, 1)
delays = st.sampled_from([0, 1, SECOND, 90 * SECOND])
text = st.text(st.characters(codec="utf-8"), max_size=12)
names = st.sampled_from(["dep_7", "report/build", "naïve ключ", "a:b", ""])
micros = st.integers(0, 2**53)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


resource_types: st.SearchStrategy[ResourceType] = st.sampled_from(get_args(ResourceType))
deliveries: st.SearchStrategy[Delivery] = st.sampled_from(get_args(Delivery))
bodies = st.builds(
    e.Body,
    place=st.sampled_from(get_args(e.BodyPlace)),
    size=st.integers(0, 2**40),
    sha256=digests,
    base64=optional(st.sampled_from(["", "bnVsbA=="])),
    ref=optional(text),
)
retries = st.builds(
    e.RetryPolicy,
    initial_seconds=st.floats(0, 600),
    max_seconds=st.floats(0, 86_400),
    factor=st.floats(1, 1e9),
)
traces = st.builds(e.TraceContext, traceparent=text, tracestate=optional(text))

# --- intents

_short_answers = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
leases = st.sampled_from(LEASE_IDS)
seconds = st.sampled_from(LEASE_SECONDS)
answers = st.builds(e.Body, place=st.just("message"), size=st.just(3), sha256=_short_answers)

_holding: st.SearchStrategy[i.Intent] = st.one_of(
    st.builds(i.Lease, lease_id=leases, seconds=seconds, target_type=st.just("worker"), agent=st.just("a-17")),
    st.builds(i.Dispatch, lease_id=leases, seconds=seconds),
    st.builds(i.Renew, lease_id=leases, seconds=seconds),
    st.builds(i.Release, lease_id=leases, delay=delays, undelivered=st.sampled_from([False, False, True])),
    st.builds(i.RejectDelivery, lease_id=leases, reason=st.just("status 503"), jitter=jitters),
    st.builds(i.CompleteUpload, params=answers),
    st.builds(i.Tick, jitter=jitters),
)
_ending: st.SearchStrategy[i.Intent] = st.one_of(
    st.builds(i.RespondSuccess, response=answers),
    st.builds(
        i.RespondError,
        code=st.just("HANDLER_ERROR"),
        message=text,
        details=optional(text),
        sha256=_short_answers,
        size=st.just(3),
    ),
    st.builds(i.Cancel, reason=text),
    st.builds(i.Redrive, redriven_as=st.sampled_from(["cmd_2", "cmd_3"]), newest=st.sampled_from([None, "cmd_2"])),
    st.builds(i.LoseParams),
    st.builds(i.Erase, reason=text, messages=st.integers(1, 9)),
)
intents = st.integers(0, 9).flatmap(lambda n: _ending if n == 9 else _holding)
"""Mostly what keeps a command alive, else every life would be short."""


@st.composite
def creates(draw: st.DrawFn, now: int) -> i.Create:
    """A create that is accepted at `now`: pull or push, with or without deadline, retry, upload, key."""
    uploads = draw(st.booleans())
    key = draw(optional(st.just("order:42")))
    return i.Create(
        deployment_id="dep_7",
        command="report/build",
        target=Target("indexer", "worker"),
        delivery=draw(deliveries),
        params=None if uploads else draw(answers),
        upload_size=draw(optional(st.just(3))) if uploads else None,
        deadline=draw(optional(st.sampled_from([now + 1, now + 2 * SECOND, now + 2 * IDEMPOTENCY_WINDOW]))),
        idempotency_key=key,
        params_digest=None if key is None else "d" * 64,
        max_attempts=draw(st.integers(1, 4)),
        retry=draw(optional(retries)),
        priority=draw(st.integers(-100, 100)),
        not_before=draw(optional(st.sampled_from([now - 1, now, now + SECOND]))),
        redrive_of=draw(st.sampled_from([None, None, "cmd_0"])),
    )


schedules = st.lists(st.tuples(st.sampled_from(PAUSES), intents), min_size=8, max_size=40)

# --- events

_EVENT_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "targets": st.lists(
        st.builds(
            e.DeclaredTarget,
            resource_id=names,
            resource_type=resource_types,
            delivery=deliveries,
            push=optional(
                st.builds(
                    e.PushSettings,
                    url=text,
                    token=optional(text),
                    timeout_seconds=st.sampled_from([180, 1, 3600]),
                    token_sealed=optional(text),
                )
            ),
        ),
        max_size=3,
    ).map(tuple),
    "params": bodies,
    "response": bodies,
    "body": optional(bodies),
    "retry": optional(retries),
    "trace": optional(traces),
    "labels": st.dictionaries(text, text, max_size=3),
    "idempotency_conflict": st.sampled_from(["reject", "replay"]),
    "model": deliveries,
    "delivery": deliveries,
    "resource_type": resource_types,
    "target_type": resource_types,
    "origin": st.sampled_from(get_args(e.FailureOrigin)),
    "status": st.sampled_from(["success", "error"]),
    "sha256": digests,
    "params_digest": optional(digests),
}
_BY_TYPE: Final[dict[str, st.SearchStrategy[Any]]] = {
    "str": names,
    "str | None": optional(text),
    "bool": st.booleans(),
    "int": st.integers(0, 1000),
    "int | None": optional(st.integers(0, 2**40)),
    "Micros": micros,
    "Micros | None": optional(micros),
}


def event_strategy(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any event of this class, every field of it drawn."""
    special = dict(_EVENT_FIELDS)
    if cls is e.CommandCreated:
        special |= {"params": optional(bodies), "target_type": optional(resource_types)}
    if cls is e.PayloadStored:
        special |= {"params": optional(bodies), "response": optional(bodies), "sha256": optional(digests)}
    if cls is e.TokenCreated:
        special |= {
            "scope": st.sampled_from(get_args(e.TokenScope)),
            "deployments": optional(st.lists(names, max_size=3).map(tuple)),
            "targets": optional(st.lists(st.builds(Target, names, optional(resource_types)), max_size=3).map(tuple)),
        }
    if cls is e.CommandExpired:
        special["reason"] = st.sampled_from(get_args(e.ExpiryReason))
    for field in fields(cls):
        if field.name not in special:
            special[field.name] = _BY_TYPE[str(field.type)]
    return st.builds(cls, **{field.name: special[field.name] for field in fields(cls)})


principals = st.builds(
    Principal,
    id=names,
    kind=st.sampled_from(["admin", "receiver"]),
    address=optional(text),
    user_agent=optional(text),
    request_id=optional(text),
    agent=optional(st.builds(Agent, text, optional(text), st.dictionaries(text, text, max_size=2))),
)


def decisions(events: st.SearchStrategy[Any]) -> st.SearchStrategy[Decision]:
    return st.builds(
        Decision,
        id=text,
        at=micros,
        by=principals,
        events=st.lists(events, min_size=1, max_size=3).map(tuple),
        prev=optional(digests),
    )
