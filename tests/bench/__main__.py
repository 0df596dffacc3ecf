"""All benchmarks, each in a process of its own: `make bench`, or `make bench ARGS="create wake"` for some."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "create",
    "lifecycle",
    "workers",
    "loop",
    "batch",
    "push",
    "bodies",
    "auth",
    "wake",
    "idle",
    "replay",
    "restart",
    "fold",
    "pauses",
    "feed",
    "verify",
    "journal",
    "finding",
    "memory",
)


def main() -> int:
    """Run the named ones, or all; the exit status says whether all ran."""
    names = sys.argv[1:] or BENCHMARKS
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        missing, there = ", ".join(sorted(unknown)), ", ".join(BENCHMARKS)
        print(f"There is no benchmark {missing}; there are {there}.", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        print(f"\n--- {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
