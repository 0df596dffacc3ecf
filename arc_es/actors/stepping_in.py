"""Commands that are left to another node for a moment; when it has not taken one by then, this node steps in."""

from __future__ import annotations

from collections.abc import Callable

import trio


class SteppingIn:
    """Leaves each command for `seconds`. step_in: takes up one that was left for so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left: dict[str, float] = {}
        self._some = trio.Event()
        self.step_in: Callable[[str], None] = lambda command_id: None

    def __contains__(self, command_id: str) -> bool:
        """Whether a command is left to another node now."""
        return command_id in self._left

    def __len__(self) -> int:
        return len(self._left)

    def leave(self, command_id: str) -> None:
        """Leave a command to another node."""
        self._left.pop(command_id, None)  # it goes to the end: the order is that of time
        self._left[command_id] = trio.current_time() + self._seconds
        self._some.set()

    async def run(self) -> None:
        """Step in for ever."""
        while True:
            await self._some.wait()
            while self._left:
                command_id, at = next(iter(self._left.items()))
                if at > trio.current_time():
                    await trio.sleep_until(at)
                elif self._left.pop(command_id, None) is not None:
                    self.step_in(command_id)
            self._some = trio.Event()
