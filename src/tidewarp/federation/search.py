"""Where do two journals part? Doubling steps back from a difference, then bisection between the two."""

from __future__ import annotations

__all__ = ["CommonSearch"]


class CommonSearch:
    """Finds the last record that two journals share, from one at which they ``differ``; record 0, the genesis, they share.

    Ask both for the hash at :attr:`probe` and :meth:`tell` whether they are the same, until it is None. With n records behind the
    last shared one that is about 2 log2(n) questions, however long the journals are.
    """

    def __init__(self, differ: int) -> None:
        self.common = 0
        self._differ = differ
        self._step: int | None = 1  # None: from here on by bisection

    @property
    def probe(self) -> int | None:
        """The record to compare next; None when :attr:`common` is the last that both have."""
        if self._differ == self.common + 1:
            return None
        if self._step is None:
            return (self.common + self._differ) // 2
        return max(self._differ - self._step, 1)

    def tell(self, same: bool) -> None:
        """Is the record at :attr:`probe` the same?"""
        probe = self.probe
        if probe is None:
            return
        if same:
            self.common, self._step = probe, None
        else:
            self._differ = probe
            self._step = None if self._step is None else 2 * self._step
