"""What a node needs to prove things, and the parts that it is made into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from arc_es.actors.turns import Turns
from arc_es.domain.recorded import Key
from arc_es.keyring import CheckpointSeeds, checkpoint_seeds
from arc_es.ports import BodyStore, Clock, Journal
from arc_es.proof.checkpoints import Checkpoints
from arc_es.proof.export import Exports
from arc_es.proof.log import LogTree
from arc_es.proof.tiles import Tiles, in_directory, seed
from arc_es.summaries import CommandIndex
from arc_es.views import CheckpointsView

TREE_DIR: Final = "log-tree"
"""In the data dir: hashes of the log, which can be made again."""


@dataclass(frozen=True, slots=True)
class Proving:
    """The key, the files of the log's tree, and where a history is stored."""

    seeds: CheckpointSeeds
    tiles: Tiles
    subject_of: Callable[[Key], str]

    @classmethod
    def of_data_dir(
        cls, data_dir: Path, subject_of: Callable[[Key], str], own: Callable[[Path], Path] = lambda folder: folder
    ) -> Self:
        """What lies in a data dir; made if it is missing. own: the part of a folder that only this process uses.

        Raises:
            KeyFileError, OSError.
        """
        folder = data_dir / TREE_DIR
        seed(own(folder), folder)
        return cls(checkpoint_seeds(data_dir), Tiles(in_directory(own(folder))), subject_of)

    def parts(
        self,
        journal: Journal,
        index: CommandIndex,
        view: CheckpointsView,
        turns: Turns,
        clock: Clock,
        store: BodyStore,
        every_seconds: float,
    ) -> tuple[Checkpoints, Exports]:
        """What signs checkpoints, and what proves with them."""
        tree = LogTree(journal, view, self.tiles, self.subject_of)
        checkpoints = Checkpoints(
            view=view,
            turns=turns,
            clock=clock,
            tree=tree,
            seeds=self.seeds,
            every_seconds=every_seconds,
            has_room=lambda: journal.spacious,
        )
        return checkpoints, Exports(journal, index, view, checkpoints, tree, store)
