"""What must hold of the history of every command, and of the log of those who were promised something."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from tests.e2e.crowd import STORED_BYTES, Log, announced_digest, large

STATE_OF_END = {"CommandSucceeded": "SUCCEEDED", "CommandFailed": "FAILED", "CommandExpired": "EXPIRED"}

ANNOUNCED = announced_digest(STORED_BYTES)


class Story:
    """One command's life, followed event by event; `violations` says what cannot be."""

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        self.violations: list[str] = []
        self.leases: list[tuple[str, int]] = []
        self.released: list[str] = []
        self.end: dict[str, Any] | None = None
        self.late: list[str] = []
        self._attempt = 1
        self._live: str | None = None
        self._live_until = ""
        self._chain(events)
        if [event["type"] for event in events].count("CommandCreated") != 1 or events[0]["type"] != "CommandCreated":
            self.violations.append("is not created once, first")
        for event in events:
            self._follow(event)

    def _chain(self, events: Sequence[dict[str, Any]]) -> None:
        """Each decision names the digest of the one before it; positions and times only grow."""
        hashes = {event["seq"]: event["hash"] for event in events}
        seqs = list(hashes)
        if seqs != sorted(seqs):
            self.violations.append(f"is out of order: {seqs}")
        before = dict(zip(seqs, [None, *[hashes[seq] for seq in seqs]], strict=False))
        for event in events:
            if event.get("prev") != before[event["seq"]] or event["hash"] != hashes[event["seq"]]:
                self.violations.append(f"has a broken chain at {event['seq']}")

    def _follow(self, event: dict[str, Any]) -> None:
        kind, data = event["type"], event["data"]
        if self.end is not None and kind not in ("LateResponseRecorded", "CommandRedriven"):
            self.violations.append(f"has {kind} after its end")
        match kind:
            case "CommandLeased":
                if self._live is not None:
                    self.violations.append(f"{data['leaseId']} overlaps {self._live}")
                if data["attempt"] != self._attempt:
                    self.violations.append(f"is leased as attempt {data['attempt']}, not {self._attempt}")
                self._live, self._live_until = data["leaseId"], data["expiresAt"]
                self.leases.append((data["leaseId"], data["attempt"]))
            case "LeaseReleased" | "LeaseExpired":
                self._lease_ends(event)
            case "CommandSucceeded" | "CommandFailed" | "CommandExpired":
                self.end = event
            case "LateResponseRecorded":
                if self.end is None:
                    self.violations.append("has a late answer before its end")
                self.late.append(data["sha256"])
            case _:
                pass

    def _lease_ends(self, event: dict[str, Any]) -> None:
        data = event["data"]
        if (data["leaseId"], data["attempt"]) != (self._live, self._attempt):
            self.violations.append(f"ends lease {data} but holds {self._live}, attempt {self._attempt}")
        if event["type"] == "LeaseReleased":
            self.released.append(data["leaseId"])
        elif event["at"] < self._live_until[:19]:
            self.violations.append(f"lease {data['leaseId']} expired at {event['at']}, too early")
        self._live = None
        self._attempt += not data.get("undelivered", False)

    @property
    def answers(self) -> set[str]:
        """The digests of all answers that the history has."""
        data = {} if self.end is None else self.end["data"]
        accepted = data.get("sha256") or data.get("response", {}).get("sha256")
        return {*self.late, *([accepted] if accepted else [])}


def promised_but_not_told(
    command_id: str, status: dict[str, Any], events: Sequence[dict[str, Any]], log: Log, result: bytes | None = None
) -> list[str]:
    """What is wrong with a command; all that was acknowledged about it must be in its history, once.

    result: what its status leads to, if that is not inside.
    """
    story = Story(events)
    wrong = list(story.violations)
    promised = {lease_id: attempt for lease_id, (owner, attempt) in log.leases.items() if owner == command_id}
    for lease_id, attempt in promised.items():
        if story.leases.count((lease_id, attempt)) != 1:
            wrong.append(f"{lease_id} of attempt {attempt} is not once in {story.leases}")
        if lease_id in log.released and story.released.count(lease_id) != 1:
            wrong.append(f"{lease_id} was released and is not in {story.released}")
    if not log.answered[command_id] <= story.answers:
        wrong.append(f"lost answers {log.answered[command_id] - story.answers}")
    if not story.answers <= log.sent[command_id]:
        wrong.append(f"has answers from nowhere {story.answers - log.sent[command_id]}")
    if command_id in log.stored and not story.answers & {hashlib.sha256(large(command_id)).hexdigest(), ANNOUNCED}:
        wrong.append(f"lost an uploaded answer, has {story.answers}")
    if story.end is None or status["state"] != STATE_OF_END[story.end["type"]]:
        wrong.append(f"is {status['state']}, its history says {story.end}")
    elif status["state"] == "SUCCEEDED":
        inside = status["response"]["response"].get("inlineBase64")
        raw = result if inside is None else base64.b64decode(inside)
        if raw is not None and hashlib.sha256(raw).hexdigest() != story.end["data"]["response"]["sha256"]:
            wrong.append("shows another answer than its history")
    return [f"{command_id} {violation}" for violation in wrong]
