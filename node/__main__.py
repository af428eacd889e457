"""The installed command, also as `python -m node`."""

from __future__ import annotations

import sys

from node.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
