"""``python -m tidewarp`` is the command ``tidewarp``."""

from __future__ import annotations

from tidewarp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
