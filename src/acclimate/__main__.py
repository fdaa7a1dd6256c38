"""``python -m acclimate``."""

from __future__ import annotations

import sys

from acclimate.cli import main

if __name__ == "__main__":
    sys.exit(main())
