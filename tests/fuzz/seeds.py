"""A valid body for each endpoint that takes one: what the fuzzer spoils. An endpoint that is new needs one here."""

from __future__ import annotations

from typing import Any, Final

INLINE: Final = {"mode": "inline", "inlineBase64": "eyJhIjoxfQ=="}
TARGET: Final = {"resourceId": "indexer", "resourceType": "daemon"}
CREATE: Final = {
    "deploymentId": "fuzz",
    "command": "do/it",
    "params": INLINE,
    "deadline": "2126-03-01T10:05:00Z",
    "idempotencyKey": "key",
    "targetResourceId": "indexer",
    "notBefore": "2026-03-01T10:05:00+02:00",
    "priority": 5,
    "labels": {"team": "blue"},
    "maxAttempts": 3,
}
LEASE: Final = {
    "deploymentId": "fuzz",
    "target": TARGET,
    "maxLeases": 2,
    "leaseSeconds": 60,
    "waitSeconds": 0,
    "agent": {"id": "agent-1", "version": "1.0"},
}
SUCCESS: Final = {"status": "success", "response": INLINE}
FAILURE: Final = {"status": "error", "code": "DB_DOWN", "message": "no", "details": "at all"}
LOOP: Final = {
    "complete": [
        {"commandId": "cmd_1", "leaseId": "lease_1", "response": SUCCESS},
        {"commandId": "cmd_2", "leaseId": "lease_2", "response": FAILURE},
    ],
    "renew": [{"leaseId": "lease_1", "leaseSeconds": 30}],
    "agent": {"id": "agent-1", "version": "1.0", "labels": {"zone": "b"}},
}
DECLARATION: Final = {
    "targets": [TARGET | {"delivery": "pull"}, {"resourceId": "mailer", "resourceType": "worker", "delivery": "pull"}],
    "strict": False,
    "attemptLimit": 3,
    "retry": {"firstDelaySeconds": 1, "maxDelaySeconds": 5, "factor": 2},
}
TOKEN: Final = {
    "scope": "receiver",
    "deployments": ["fuzz"],
    "targets": [TARGET],
    "ttlSeconds": 60,
    "command": "do/it",
}

BODIES: Final[dict[str, list[Any]]] = {
    "creating.create": [CREATE, {"deploymentId": "fuzz", "command": "c", "params": {"mode": "storage", "size": 3}}],
    "creating.batch": [{"commands": [CREATE, {"deploymentId": "fuzz", "command": "c", "params": INLINE}]}],
    "commands.respond": [SUCCESS, FAILURE, {"status": "success", "response": {"mode": "storage", "size": 3}}],
    "commands.upload_complete": [{"size": 3}],
    "commands.put_payload": [{"params": INLINE, "response": SUCCESS}],
    "leases.lease": [LEASE | LOOP, LEASE, {"deploymentId": "fuzz", "maxLeases": 1}],
    "erasing.erase": [{"reason": "asked for"}, None],
    "commands.cancel": [{"reason": "no longer needed"}, None],
    "leases.release": [{"leaseId": "lease_1"}, {"delaySeconds": 1}, None],
    "leases.renew": [{"leaseSeconds": 30}],
    "discovery.bootstrap": [
        {"deploymentId": "fuzz", "role": "sender"},
        {"deploymentId": "fuzz", "role": "receiver", "target": "indexer"},
    ],
    "deployments.declare": [DECLARATION],
    "controls.pause": [{"target": "indexer", "reason": "r"}, None],
    "controls.resume": [{"target": "indexer"}, None],
    "controls.limit": [{"target": "indexer", "maxConcurrent": 2}],
    "redriving.redrive": [None],
    "redriving.redrive_found": [None],
    "tokens.mint": [TOKEN],
    "bodies.upload": [None, "abc"],
    "tokens.revoke": [None],
}
