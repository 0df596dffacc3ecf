"""The load driver of `arc-es bench`, by the name that the benchmarks here know it by."""

from __future__ import annotations

from arc_es.bench.drive import Answer, Place, Session, drive, percentile, request

__all__ = ["Answer", "Place", "Session", "drive", "percentile", "request"]
