"""Read models: pure folds of recorded decisions, in memory.

They import `arc_es.domain` and the standard library only.
"""

from projections.models import Projections

__all__ = ["Projections"]
