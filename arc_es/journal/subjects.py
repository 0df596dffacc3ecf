"""Histories as NATS subjects, and back.

    arc.event.command.<deployment>.<command>        the decisions of one command
    arc.event.deployment.<deployment>               the decisions of one deployment
    arc.event.payload.<id>                          the decisions about what is stored under an id without a command
    arc.event.token.<id>                            the decisions about one access token
    arc.event.log.<name>                            the keys of the log, or its checkpoints of one day
    arc.body.<deployment>.<command>.<kind>          a body too large for an event, one position before its event
    arc.body.<deployment>.<command>.erased          what is left of an erased command, right before `CommandErased`
    arc.body.<id>.<kind>                            the same for an id without a command

An id that is a safe token stands as it is; any other is `=` and its base64url without padding. No safe token starts
with `=`, so the two never meet.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Final

from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, LogKey, PayloadKey, TokenKey
from arc_es.ports import BesideKind, JournalCorrupt

STREAM: Final = "ARC"
ALL: Final = "arc.>"
EVENTS: Final = "arc.event.>"
ERASURES: Final = "arc.body.*.*.erased"

COMMAND_SUBJECT: Final = rb"arc\.event\.command\.([^. ]+)\.([^. ]+)"
"""A pattern for the subjects of commands; its groups are for `command_key`."""

_SAFE: Final = re.compile(r"[A-Za-z0-9_-]+")
_COMMAND: Final = "arc.event.command."
_DEPLOYMENT: Final = "arc.event.deployment."
_PAYLOAD: Final = "arc.event.payload."
_TOKENS: Final = "arc.event.token."
_LOG: Final = "arc.event.log."


@lru_cache(maxsize=4096)
def to_token(name: str) -> str:
    """The subject token of an id."""
    if _SAFE.fullmatch(name):
        return name
    return "=" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


@lru_cache(maxsize=4096)
def from_token(token: str) -> str:
    """The id in a subject token.

    Raises:
        JournalCorrupt: no id has this token.
    """
    if not token.startswith("="):
        return token
    try:
        padded = token[1:] + "=" * (-len(token[1:]) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise JournalCorrupt(f"The subject token {token!r} is not one of ours") from error


def event_subject(key: Key) -> str:
    """Where the decisions of a history are stored."""
    if isinstance(key, CommandKey):
        return f"{_COMMAND}{to_token(key.deployment_id)}.{to_token(key.command_id)}"
    if isinstance(key, PayloadKey):
        return _PAYLOAD + to_token(key.command_id)
    if isinstance(key, TokenKey):
        return _TOKENS + to_token(key.token_id)
    if isinstance(key, LogKey):
        return _LOG + to_token(key.name)
    return _DEPLOYMENT + to_token(key.deployment_id)


def body_subject(key: Key, kind: BesideKind) -> str:
    """Where a body of a history is stored. Deployments, tokens and the log have none."""
    if isinstance(key, DeploymentKey | TokenKey | LogKey):
        raise TypeError(f"The history of a {type(key).__name__} has no bodies")
    if isinstance(key, PayloadKey):
        return f"arc.body.{to_token(key.command_id)}.{kind}"
    return f"arc.body.{to_token(key.deployment_id)}.{to_token(key.command_id)}.{kind}"


def bodies_subject(key: CommandKey) -> str:
    """Where all bodies of a command are stored."""
    return f"arc.body.{to_token(key.deployment_id)}.{to_token(key.command_id)}.*"


def command_key(deployment: bytes, command: bytes) -> CommandKey:
    """The history of a command, from the two tokens of its subject that name it. Raises as `from_token`."""
    names = deployment.decode(), command.decode()
    if b"=" in (deployment[:1], command[:1]):
        return CommandKey(*map(from_token, names))
    return CommandKey(*names)


def key_of_body(subject: str) -> CommandKey:
    """The command that the subject of a body names. Raises JournalCorrupt."""
    _, _, deployment, command, _ = subject.split(".")
    return CommandKey(from_token(deployment), from_token(command))


def key_of(subject: str) -> Key:
    """The history that an event subject names.

    Raises:
        JournalCorrupt: it names none that this version knows.
    """
    if subject.startswith(_COMMAND):
        deployment, separator, command = subject[len(_COMMAND) :].partition(".")
        if separator and "." not in command:
            return CommandKey(
                deployment if deployment[0] != "=" else from_token(deployment),
                command if command[0] != "=" else from_token(command),
            )
    elif subject.startswith(_DEPLOYMENT) and "." not in subject[len(_DEPLOYMENT) :]:
        return DeploymentKey(from_token(subject[len(_DEPLOYMENT) :]))
    elif subject.startswith(_PAYLOAD) and "." not in subject[len(_PAYLOAD) :]:
        return PayloadKey(from_token(subject[len(_PAYLOAD) :]))
    elif subject.startswith(_TOKENS) and "." not in subject[len(_TOKENS) :]:
        return TokenKey(from_token(subject[len(_TOKENS) :]))
    elif subject.startswith(_LOG) and "." not in subject[len(_LOG) :]:
        return LogKey(from_token(subject[len(_LOG) :]))
    raise JournalCorrupt(f"The stream holds the subject {subject}, which this version does not know")
