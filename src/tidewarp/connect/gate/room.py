"""Where the messages of a source that sheds wait: not decoded, not stamped, not in the journal.

So what is let go has never been an input, and a replay has to know nothing of it. Its position moves in the transaction
that journals its neighbours: it is not read a second time, and nothing that waits is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidewarp.connect.contract import Raw

__all__ = ["Gone", "Room"]


@dataclass
class Gone:
    """Messages that were let go, in their place among those that wait."""

    count: int = 0
    positions: dict[int, int] = field(default_factory=dict)  # partition -> the last of them

    def add(self, raw: Raw) -> None:
        """One more, behind those before it."""
        self.count += 1
        self.positions[raw.partition] = raw.offset

    def join(self, later: Gone) -> None:
        """And these, which stand behind them."""
        self.count += later.count
        self.positions.update(later.positions)


class Room:
    """Room for ``count_max`` messages and ``bytes_max`` of payload. Full: the oldest go (``oldest``), or nobody comes in.

    ``arrived``: partition -> last offset that came, whatever became of it.
    """

    def __init__(self, count_max: int, bytes_max: int, *, oldest: bool) -> None:
        self.arrived: dict[int, int] = {}
        self._count_max, self._bytes_max, self._oldest = count_max, bytes_max, oldest
        self._count = self._bytes = 0
        self._waiting: deque[Raw | Gone] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, raws: Sequence[Raw]) -> int:
        """Let these wait behind the others; how many messages had to go."""
        gone = 0
        for raw in raws:
            self.arrived[raw.partition] = raw.offset
            if self._is_too_much(self._count + 1, self._bytes + len(raw.payload)) and not self._oldest:
                if not self._waiting or isinstance(self._waiting[-1], Raw):
                    self._waiting.append(Gone())
                self._waiting[-1].add(raw)  # type: ignore[union-attr]  # a Gone, as the line above saw to
                gone += 1
                continue
            self._waiting.append(raw)
            self._count += 1
            self._bytes += len(raw.payload)
        return gone + self._let_oldest_go()

    def take(self, limit: int) -> tuple[list[Raw], Gone]:
        """At most ``limit`` of those that wait, in order, and all that was let go before, among and right behind them."""
        raws: list[Raw] = []
        gone = Gone()
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Gone):
                gone.join(first)
            elif len(raws) < limit:
                raws.append(first)
                self._leave(first)
            else:
                break
            self._waiting.popleft()
        return raws, gone

    def _is_too_much(self, count: int, size: int) -> bool:
        return count > self._count_max or size > self._bytes_max

    def _let_oldest_go(self) -> int:
        gone, count = Gone(), 0
        while self._is_too_much(self._count, self._bytes):
            first = self._waiting.popleft()
            if isinstance(first, Gone):
                gone.join(first)
                continue
            self._leave(first)
            gone.add(first)
            count += 1
        if count:
            self._waiting.appendleft(gone)
        return count

    def _leave(self, raw: Raw) -> None:
        self._count -= 1
        self._bytes -= len(raw.payload)
