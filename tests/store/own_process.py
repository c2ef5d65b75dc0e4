"""A script in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tidewarp

SOURCES = str(Path(tidewarp.__file__).parents[1])


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
