"""Blocks on their way in: durable already, and no artifact refers to them yet. Whoever removes blocks asks here first."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Arrivals"]


class Arrivals:
    """The names of blocks that threads of this process have written, or found and use, and have not committed yet."""

    def __init__(self) -> None:
        self._names: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._threads = threading.local()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What this thread adds in the block, stays until the block ends: by then it is committed, or in vain."""
        before = getattr(self._threads, "names", None)
        self._threads.names = names = list[bytes]()
        try:
            yield
        finally:
            self._threads.names = before
            with self._lock:
                self._names.subtract(names)
                self._names += Counter()  # those above zero

    def add(self, name: bytes) -> None:
        """Note that this thread is about to use the block. Without :meth:`kept`, the transaction that is open keeps it."""
        names: list[bytes] | None = getattr(self._threads, "names", None)
        if names is not None:
            names.append(name)
            with self._lock:
                self._names[name] += 1

    @contextmanager
    def departure(self, name: bytes) -> Iterator[bool]:
        """Whether nobody is about to use the block; nobody begins to within the block."""
        with self._lock:
            yield not self._names[name]
