"""Refusals: an intent was understood and the answer is no. Nothing was written.

The docstring of each class is its default message. `code` is stable and public (`arc.v1` 1.6).
"""

from __future__ import annotations

from typing import ClassVar


class Rejected(Exception):
    """The request was understood and refused."""

    code: ClassVar[str] = "INVALID_COMMAND"

    def __init__(self, message: str | None = None, *, details: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.details = details
        super().__init__(self.message)


class InvalidCommand(Rejected):
    """The command cannot be accepted."""

    code = "INVALID_COMMAND"


class InvalidStateTransition(Rejected):
    """The command is not in a state that allows this."""

    code = "INVALID_STATE_TRANSITION"


class CommandExists(Rejected):
    """A command has this id; its params and its response come from those who run it."""

    code = "INVALID_STATE_TRANSITION"


class CommandNotFound(Rejected):
    """There is no command with this id."""

    code = "COMMAND_NOT_FOUND"


class LeaseNotFound(Rejected):
    """This lease does not exist, has ended, or was replaced by a newer one."""

    code = "LEASE_NOT_FOUND"


class NotLeasable(Rejected):
    """Somebody else holds the command, or it cannot be leased now."""

    code = "INVALID_STATE_TRANSITION"


class UploadNotExpected(Rejected):
    """The command does not wait for its params; they can no longer change."""

    code = "CONFLICT"


class IdempotencyConflict(Rejected):
    """The idempotency key was used before with other params; use a new key, or send the same params."""

    code = "CONFLICT"


class KeyWindowOver(Rejected):
    """The command that held this idempotency key is older than the window; the key is free again."""

    code = "CONFLICT"


class TargetIdInvalid(Rejected):
    """A target id must not contain ':' and must not be longer than 1024 bytes."""

    code = "COMMAND_TARGET_ID_INVALID"


class TargetNotFound(Rejected):
    """The deployment has no such target."""

    code = "COMMAND_TARGET_NOT_FOUND"


class TargetAmbiguous(Rejected):
    """The deployment has several targets; name one with targetResourceId."""

    code = "COMMAND_TARGET_AMBIGUOUS"


class NoTargets(Rejected):
    """The deployment has no target that could run the command."""

    code = "NO_COMMAND_TARGETS"


class DeploymentNotFound(Rejected):
    """There is no declared deployment with this id."""

    code = "DEPLOYMENT_NOT_FOUND"


class TokenNotFound(Rejected):
    """There is no token with this id."""

    code = "TOKEN_NOT_FOUND"


class TokenIdTaken(Rejected):
    """A token with this id was made before; nothing was made. Try again."""

    code = "CONFLICT"


class ImpossibleHistory(Exception):
    """The stored events of a command contradict the transition table: a bug, or a damaged journal. Never handled."""
