"""`python -m arc_es` is `arc-es`."""

from __future__ import annotations

import sys

from arc_es.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
