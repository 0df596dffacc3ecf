"""One decision for each event class, as written to golden/v2: first with every field set, then with required ones only.

Never edit a golden file. After a new version is made, add golden/v3 beside it, and keep decoding the old ones.
New event class: add it here and run `python -m tests.domain.golden_events`, which writes only files that are missing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from arc_es.codec import encode
from arc_es.domain.events import (
    Body,
    CheckpointKeyAdded,
    CheckpointSigned,
    CommandArchived,
    CommandCreated,
    CommandDispatched,
    CommandErased,
    CommandExpired,
    CommandFailed,
    CommandLeased,
    CommandRedriven,
    CommandSucceeded,
    ConcurrencyLimited,
    DeclaredTarget,
    DeliveryFailed,
    DeliveryPaused,
    DeliveryResumed,
    DeploymentDeclared,
    Event,
    LateResponseRecorded,
    LeaseExpired,
    LeaseReleased,
    LeaseRenewed,
    PayloadStored,
    PushSettings,
    RetryPolicy,
    TargetObserved,
    TokenCreated,
    TokenRevoked,
    TraceContext,
    UploadCompleted,
)
from arc_es.domain.ids import Target
from arc_es.domain.recorded import SERVICE, Agent, Decision, Principal

_AT: Final = 1_767_225_600_000_001
_BY: Final = Principal("tok_1", "receiver", "192.0.2.7", "operator", "req_1")
_SHA: Final = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"
_IN_EVENT: Final = Body(place="event", size=4, sha256=_SHA, base64="bnVsbA==")
_IN_STORE: Final = Body(place="store", size=200_000, sha256=_SHA)
_PUBLIC_KEY: Final = "arc-es/0f1e2d3c+5e0a9a1b+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
_KEY_NOTE: Final = f"arc-es/0f1e2d3c/key\n{_PUBLIC_KEY}\n\n\u2014 arc-es/0f1e2d3c XgqaG3R0\n"
_CHECKPOINT: Final = (
    "arc-es/0f1e2d3c\n41\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u2014 arc-es/0f1e2d3c XgqaG3R0\n"
)
_RETRY: Final = RetryPolicy(initial_seconds=0.5, max_seconds=60.0, factor=2.0)

_EVENTS: Final[tuple[tuple[Event, ...], ...]] = (
    (
        DeploymentDeclared(
            model="push",
            targets=(
                DeclaredTarget(
                    resource_id="indexer",
                    resource_type="worker",
                    delivery="push",
                    push=PushSettings(url="http://192.0.2.9:7000/commands", token="t0k3n", timeout_seconds=30),
                ),
                DeclaredTarget(resource_id="bücher", resource_type="container"),
            ),
            project_id="proj_1",
            max_attempts=5,
            retry=_RETRY,
            idempotency_conflict="replay",
        ),
        DeploymentDeclared(model="pull", targets=()),
    ),
    (TargetObserved(resource_id="indexer", resource_type="daemon"),),
    (
        CommandCreated(
            deployment_id="dep_7",
            command="report/build",
            target_id="indexer",
            target_type="worker",
            delivery="push",
            params=_IN_EVENT,
            upload_size=4,
            upload_until=_AT + 86_400_000_000,
            deadline=_AT + 300_000_000,
            idempotency_key="order:42",
            params_digest=_SHA,
            max_attempts=3,
            retry=_RETRY,
            priority=-5,
            not_before=_AT + 1,
            labels={"team": "ops", "größe": "L"},
            trace=TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="a=1"),
        ),
        CommandCreated(deployment_id="dep_7", command="report/build", target_id="default", target_type=None),
    ),
    (UploadCompleted(params=_IN_STORE),),
    (
        CommandLeased(lease_id="lease_1", attempt=2, expires_at=_AT, target_type="worker", agent="a-17"),
        CommandLeased(lease_id="lease_1", attempt=1, expires_at=_AT, target_type="daemon"),
    ),
    (LeaseRenewed(lease_id="lease_1", expires_at=_AT),),
    (
        LeaseReleased(lease_id="lease_1", attempt=2, available_at=_AT),
        LeaseReleased(lease_id="lease_1", attempt=1),
    ),
    (
        LeaseExpired(lease_id="lease_1", attempt=2, available_at=_AT),
        LeaseExpired(lease_id="lease_1", attempt=1),
    ),
    (CommandDispatched(lease_id="lease_1", attempt=1, expires_at=_AT),),
    (
        DeliveryFailed(lease_id="lease_1", attempt=1, reason="status 503", available_at=_AT),
        DeliveryFailed(lease_id="lease_1", attempt=1, reason="connection refused"),
    ),
    (CommandSucceeded(attempt=1, response=_IN_EVENT),),
    (
        CommandFailed(
            attempt=1,
            origin="agent",
            code="HANDLER_ERROR",
            message="no disk",
            details="/var: 0 bytes",
            sha256=_SHA,
            body=_IN_STORE,
        ),
        CommandFailed(attempt=20, origin="attempts", code="MAX_ATTEMPTS_EXCEEDED", message=""),
    ),
    (CommandExpired(attempt=1, reason="deadline"),),
    (
        LateResponseRecorded(status="error", size=9, sha256=_SHA, code="HANDLER_TIMEOUT"),
        LateResponseRecorded(status="success", size=0, sha256=_SHA),
    ),
    (
        PayloadStored(
            params=_IN_EVENT,
            response=_IN_EVENT,
            code="DB_DOWN",
            message="no connection",
            details="pool exhausted",
            sha256=_SHA,
            body=_IN_STORE,
        ),
        PayloadStored(params=_IN_STORE),
    ),
    (
        TokenCreated(
            scope="receiver",
            sha256=_SHA,
            deployments=("dep_7", "bücher"),
            targets=(Target("indexer", "daemon"),),
            command="report/build",
            name="night shift",
            expires_at=_AT,
        ),
        TokenCreated(scope="admin", sha256=_SHA),
    ),
    (TokenRevoked(),),
    (CheckpointKeyAdded(origin="arc-es/0f1e2d3c", public_key=_PUBLIC_KEY, note=_KEY_NOTE),),
    (CheckpointSigned(size=41, position=57, note=_CHECKPOINT),),
    (CommandArchived(segment="000000000007-2-74234e98afe7.jsonl.zst", sha256=_SHA, messages=3),),
    (CommandRedriven(redriven_as="cmd_2"),),
    (DeliveryPaused(target_id="indexer", reason="database moves"), DeliveryPaused()),
    (DeliveryResumed(target_id="indexer"), DeliveryResumed()),
    (ConcurrencyLimited(target_id="indexer", leases_max=3), ConcurrencyLimited(target_id="indexer")),
    (
        CommandErased(reason="asked for by the customer, case 17", messages=4, unproven=2),
        CommandErased(reason="", messages=4),
    ),
)

GOLDEN: Final = {
    type(events[0]).__name__: Decision(f"dec_{number}", _AT, _BY, events, None if number == 0 else _SHA)
    for number, events in enumerate(_EVENTS)
}


_REF: Final = "arc/commands/cmd_1/params/1767225600-9f86d081884c7d65"
_SEALED: Final = "siv1.9f86d081884c7d65.q83vEjRWeJCrze8SNFZ4kA"

MORE: Final = {
    "DeploymentDeclared.sealed": Decision(
        "dec_sealed",
        _AT,
        _BY,
        (
            DeploymentDeclared(
                model="push",
                targets=(
                    DeclaredTarget(
                        resource_id="indexer",
                        resource_type="worker",
                        delivery="push",
                        push=PushSettings(url="http://192.0.2.9:7000/commands", token_sealed=_SEALED),
                    ),
                ),
            ),
        ),
    ),
    "DeploymentDeclared.cap": Decision(
        "dec_cap", _AT, _BY, (DeploymentDeclared(model="pull", targets=(), max_leases_without_target=10),)
    ),
    "CommandCreated.redrive": Decision(
        "dec_redrive",
        _AT,
        _BY,
        (
            CommandCreated(
                deployment_id="dep_7",
                command="report/build",
                target_id="default",
                target_type=None,
                redrive_of="cmd_1",
            ),
        ),
    ),
    "LeaseReleased.undelivered": Decision(
        "dec_undelivered", _AT, SERVICE, (LeaseReleased(lease_id="lease_1", attempt=1, undelivered=True),)
    ),
    "LeaseRenewed.agent": Decision(
        "dec_agent",
        _AT,
        replace(_BY, agent=Agent("a-17", "1.2", {"zone": "b"})),
        (LeaseRenewed(lease_id="lease_1", expires_at=_AT),),
    ),
    "UploadCompleted.ref": Decision(
        "dec_ref", _AT, _BY, (UploadCompleted(params=Body(place="store", size=200_000, sha256=_SHA, ref=_REF)),), _SHA
    ),
}
"""What optional fields look like that came later than the golden file of their event."""

SALT: Final = "0f1e2d3c4b5a69788796a5"


def write_missing() -> None:
    """Write the golden files that do not exist yet."""
    folder = Path(__file__).parent / "golden" / "v2"
    folder.mkdir(exist_ok=True)
    for name, decision in (GOLDEN | MORE).items():
        path = folder / f"{name}.json"
        if not path.exists():
            path.write_bytes(encode(decision, SALT))


if __name__ == "__main__":
    write_missing()
