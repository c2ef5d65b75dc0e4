"""What a server counts, and how much of something there is at the moment: by name and label, safe from several threads."""

from __future__ import annotations

import threading
from collections import Counter

from tidewarp.federation.exposition import Counts

__all__ = ["Metrics"]


class Metrics:
    """Numbers that only grow, and levels. ``label`` is as in :data:`~tidewarp.federation.exposition.Counts`; none comes from a peer."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._levels: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, n: int = 1, label: str = "") -> None:
        """Count ``n`` more."""
        with self._lock:
            self._counts[name, label] += n

    def shift(self, name: str, n: int) -> None:
        """There is so much more of it, or less."""
        with self._lock:
            self._levels[name, ""] += n

    def levels(self) -> Counts:
        """How much there is of each, now."""
        with self._lock:
            return dict(self._levels)

    def counts(self) -> Counts:
        """All of them, as they are now."""
        with self._lock:
            return dict(self._counts)
