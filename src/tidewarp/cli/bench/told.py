"""What the commands that measure say alike: the machine that it was on, and rows of a table whose figures may be missing."""

from __future__ import annotations

import os
import platform
import sqlite3
import string
from collections.abc import Mapping
from importlib import metadata
from typing import Any

__all__ = ["machine", "shown"]


def machine(*packages: str) -> dict[str, Any]:
    """The member ``machine`` of an answer, with the versions of ``packages``."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{package: metadata.version(package) for package in packages},
        "sqlite": sqlite3.sqlite_version,
    }


def shown(form: str, figures: Mapping[str, Any]) -> str | None:
    """``form`` with the figures that it names; None where one of them was not measured."""
    names = [name for _, name, *_ in string.Formatter().parse(form) if name]
    return form.format_map(figures) if all(figures.get(name) is not None for name in names) else None
