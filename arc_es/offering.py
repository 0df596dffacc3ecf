"""Who is told first that a command may be delivered: this node, or another one on the same journal.

Every node sees every command become deliverable. If all of them tried at once, all but one would try in vain; if one of
them were responsible, its death would delay commands. So one goes first, and the others step in if it does not.

* Pulled: among the nodes where an agent waits for it, one by the command's id. A node where nobody waits is not asked.
* Pushed: the node that stored the event which made it deliverable, because a create waits there for its first push.
  What becomes deliverable by time alone: one of all nodes, by the command's id.
"""

from __future__ import annotations

from arc_es.actors.directory import Directory
from arc_es.actors.peers import Peers
from arc_es.actors.waiters import Waiters
from arc_es.domain.recorded import CommandKey
from arc_es.pushing import Pushing
from arc_es.views import ReadModels


class Offering:
    """Offers what may be delivered to the agents who wait here, or to the pushes, when it is this node's turn."""

    def __init__(
        self, models: ReadModels, waiters: Waiters, pushing: Pushing, peers: Peers, directory: Directory
    ) -> None:
        self._models = models
        self._waiters = waiters
        self._pushing = pushing
        self._peers = peers
        self._directory = directory
        self.pulls = waiters.left_to_others
        self.pushes = pushing.left_to_others
        self.pulls.step_in = waiters.offer
        self.pushes.step_in = pushing.offer

    def by_event(self, command_id: str) -> None:
        """An event has made a command deliverable."""
        self._offer(command_id, by_time=False)

    def by_time(self, command_id: str) -> None:
        """Its rest is over."""
        self._offer(command_id, by_time=True)

    def reopened(self, deployment_id: str) -> None:
        """Targets of a deployment may be delivered to again."""
        self._waiters.reopened(deployment_id)
        self._pushing.reopened(deployment_id)

    def _offer(self, command_id: str, *, by_time: bool) -> None:
        row = self._models.status.get(command_id)
        if row is None:
            return
        route = row.state.facts.route
        if route.delivery == "push":
            is_ours = CommandKey(route.deployment_id, command_id) in self._directory
            if self._peers.alone or is_ours or (by_time and self._peers.is_first(command_id)):
                self._pushing.offer(command_id)
            else:
                self.pushes.leave(command_id)
        elif self._peers.others_wait(command_id, route, here=self._waiters.any_waits(route)):
            self.pulls.leave(command_id)
        else:
            self._waiters.offer(command_id)
