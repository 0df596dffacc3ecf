"""All access tokens ever made, for every request that brings one."""

from __future__ import annotations

from collections.abc import Iterable

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import TokenCreated, TokenRevoked
from arc_es.domain.recorded import Recorded, TokenKey
from arc_es.domain.tokens import Token, evolve_token
from projections.plain import Plain, made, plain


class TokensProjection:
    """token id -> token, version of its history."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._versions: dict[str, int] = {}

    def get(self, token_id: str) -> Token | None:
        """The token with this id, also one that is revoked or has expired."""
        return self._tokens.get(token_id)

    def version(self, token_id: str) -> int:
        """The version of the token's own history, 0 if it was never made."""
        return self._versions.get(token_id, 0)

    def all(self) -> Iterable[tuple[str, Token]]:
        """Ids and tokens, in order of their making."""
        return self._tokens.items()

    def apply_recorded(self, key: TokenKey, recorded: Recorded) -> None:
        """Fold one decision about a token.

        Raises:
            ImpossibleHistory: the decision was applied before, or holds an event that cannot happen to this token.
        """
        name = key.token_id
        if recorded.position <= self.version(name):
            raise ImpossibleHistory(f"Message {recorded.position} of token {name} is applied twice or out of order")
        token = self.get(name)
        for event in recorded.events:
            if not isinstance(event, TokenCreated | TokenRevoked) or isinstance(event, TokenCreated) != (token is None):
                raise ImpossibleHistory(f"{type(event).__name__} cannot happen to token {name} now")
            token = evolve_token(token, event, recorded.at)
        if token is not None:
            self._tokens[name] = token
            self._versions[name] = recorded.position

    def dump(self) -> Plain:
        """All tokens as plain data."""
        return [(name, self._versions[name], plain(token)) for name, token in self._tokens.items()]

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        for name, version, token in data:
            self._tokens[name] = made(token)
            self._versions[name] = version
