"""What the public can see of each command, as digests that two versions of the program can be compared by.

Written in the words of the public interface and not in those of our classes: a version may change how it keeps a state,
and must not change what it says about one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from arc_es.domain.state import PUBLIC_STATE, TERMINAL, Leased, Pending, attempt_of
from arc_es.summaries import redriven_as
from arc_es.views import ReadModels, Row

FORMAT: Final = 1
DIGEST_CHARS: Final = 32


class DigestFileUnusable(Exception):
    """A file is no digest file; the message says why."""


@dataclass(frozen=True, slots=True)
class Digests:
    """Of what: stream and position. By which version. entries: name of a thing -> digest of what is said about it."""

    stream: str
    position: int
    version: str
    entries: Mapping[str, str]


def digests(models: ReadModels) -> dict[str, str]:
    """A digest for each command, each queue and each declaration."""
    return {name: _digest(said) for name, said in _all(models)}


def _digest(said: object) -> str:
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(raw).hexdigest()[:DIGEST_CHARS]


def _all(models: ReadModels) -> Iterator[tuple[str, object]]:
    for command_id, row in models.status.items():
        yield command_id, of_command(row)
    far = 2**62
    for counts in (*models.pending.queues(far), *models.pushes.queues(far)):
        name = f"queue {counts.deployment_id} {counts.target_id}"
        said: list[object] = [counts.pending, counts.delayed, counts.leased, counts.oldest_pending_at]
        if counts.paused or counts.leases_max is not None:
            said += [counts.paused, counts.leases_max]
        yield name, said
    for name in models.deployments.declared():
        yield f"deployment {name}", orjson.dumps(models.deployments.get(name).declared).decode()


def of_command(row: Row) -> dict[str, Any]:
    """What a status, a list and an explanation say about a command."""
    state = row.state
    facts, options, route = state.facts, state.facts.options, state.facts.route
    said: dict[str, Any] = {
        "state": PUBLIC_STATE[type(state)],
        "attempt": attempt_of(state),
        "deploymentId": route.deployment_id,
        "target": [route.target_id, route.target_type],
        "command": route.command,
        "delivery": route.delivery,
        "maxAttempts": route.max_attempts,
        "createdAt": facts.created_at,
        "deadline": facts.deadline,
        "notBefore": options.not_before,
        "priority": options.priority,
        "labels": dict(options.labels),
        "idempotencyKey": options.idempotency_key,
        "params": [facts.params_place, facts.params_size, row.params_at],
        "version": row.version,
    }
    if options.redrive_of is not None:
        said["redriveOf"] = options.redrive_of
    if isinstance(state, TERMINAL):
        said |= {"completedAt": state.ended_at, "answer": row.answer_at, "late": len(state.late)}
        if (newest := redriven_as(state)) is not None:
            said["redrivenAs"] = newest
    elif isinstance(state, Leased):
        said |= {"leaseId": state.lease_id, "leaseExpiresAt": state.expires_at, "agent": state.agent}
    elif isinstance(state, Pending):
        said["availableAt"] = state.available_at
    return said


def save(path: Path, found: Digests) -> None:
    """Write a digest file: one line that says of what, then one a thing. Raises OSError."""
    with path.open("wb") as file:
        head = {"format": FORMAT, "stream": found.stream, "position": found.position, "version": found.version}
        file.write(orjson.dumps(head) + b"\n")
        for name, value in found.entries.items():
            file.write(f"{value} {name}\n".encode())


def saved(path: Path) -> Digests:
    """Read a digest file.

    Raises:
        DigestFileUnusable: it is none.
    """
    try:
        with path.open("rb") as file:
            head = orjson.loads(file.readline())
            if head["format"] != FORMAT:
                raise DigestFileUnusable(f"{path} has format {head['format']}, wanted {FORMAT}")
            lines = (line.decode().rstrip("\n") for line in file)
            entries = {line[DIGEST_CHARS + 1 :]: line[:DIGEST_CHARS] for line in lines}
        return Digests(head["stream"], head["position"], head["version"], entries)
    except OSError as error:
        raise DigestFileUnusable(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DigestFileUnusable(f"{path} is no digest file") from error


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every name of which the two do not say the same, and what is the matter: changed, missing or new."""
    for name, value in before.items():
        if name not in after:
            yield name, "missing"
        elif after[name] != value:
            yield name, "changed"
    for name in after:
        if name not in before:
            yield name, "new"
