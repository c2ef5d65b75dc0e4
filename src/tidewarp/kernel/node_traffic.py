"""Twin nodes as Time Warp PEs, one each, taken in turns by one thread; the letters between them, and GVT.

All repair is the machine's (:mod:`tidewarp.kernel.optimistic.pe`). Without a seed a letter arrives at once and the least
event of all is next; with one, letters are held back and nodes chosen as the seed says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from tidewarp.errors import InternalError, ModelError
from tidewarp.kernel.node_events import Key
from tidewarp.kernel.node_runtime import NodeExecutor, NodeState
from tidewarp.kernel.optimistic.entries import ANTI, POSITIVE, Entry, Letter
from tidewarp.kernel.optimistic.gvt import FAILED, NEVER, PENDING, Mark, Rounds
from tidewarp.kernel.optimistic.pe import EXTERNAL, ProcessingElement
from tidewarp.kernel.optimistic.rollback import Kp
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.records import Event
from tidewarp.seeds import Stream

__all__ = ["Traffic"]

OUTSIDE = -1  # the number of the PE that injected events seem to come from
FOREVER = 2**63


class _Open(Window):
    """A window without an end and without a breaker: the engine of nodes decides what may run."""

    @property
    def ticks(self) -> int:
        """More than there are."""
        return FOREVER

    def look(self, executed: int, rolled_back: int) -> None:
        """There is nothing to adapt."""

    def end_round(self, executed: int, rolled_back: int) -> None:
        """There is nothing to shut."""


class Traffic:
    """PEs, letters on their way, and the next event of each node."""

    def __init__(
        self, nodes: Sequence[NodeState], executor: NodeExecutor, final: bool, schedule_seed: int | None, gvt: Mark
    ) -> None:
        count = len(nodes)
        self.rounds = Rounds(count)
        self.rounds.gvt = gvt
        self.stream = None if schedule_seed is None else Stream(schedule_seed, "schedule")
        self.firsts: list[Key | None] = [None] * count
        self.flight: dict[tuple[int, int], deque[Letter]] = {}
        window = _Open(FOREVER, 1, False)
        self.pes = [
            ProcessingElement(i, range(count), {i: Kp(final)}, executor, self.rounds, window=window)
            for i in range(count)
        ]
        self._nodes = nodes
        self._earlier = [node.rollback_count for node in nodes]  # rollbacks of a life before this one
        self._heap: list[Key] = []  # the next event of each node, and some that were
        self._heaped: set[Key] = set()
        self._dirty: set[int] = set()
        self._failed: set[int] = set()
        self._injected = 0

    # --- letters ----------------------------------------------------------------------------------

    def inject(self, event: Event) -> int:
        """Give an event to its node; returns the number by which it can be cancelled until it is committed."""
        self._injected = number = self._injected + 1
        self._receive(Letter(POSITIVE, OUTSIDE, event[2], number, event[0], event[1], event, EXTERNAL))
        return number

    def retract(self, key: Key, number: int) -> None:
        """Cancel an injected event that is not committed."""
        self._receive(Letter(ANTI, OUTSIDE, key[2], number, key[0], key[1], None, EXTERNAL))

    def _receive(self, letter: Letter) -> None:
        self.pes[letter.target].receive((letter,))
        self._dirty.add(letter.target)

    def settle(self) -> None:
        """Undo what new letters demand; without a seed deliver what that sends, too."""
        while self._dirty:
            self._repair(self._dirty.pop())
        if self.stream is None:
            self.quiesce()

    def quiesce(self) -> None:
        """Deliver every letter and undo what that demands, until nothing is on its way."""
        while self._dirty or self.flight:
            while self._dirty:
                self._repair(self._dirty.pop())
            if self.flight:
                self._deliver(next(iter(self.flight)))

    def deliver_some(self) -> bool:
        """With a seed: deliver as many letters as it says, of any channels. True if any arrived."""
        assert self.stream is not None
        arrived = False
        while self.flight and self.stream.below(2):
            self.deliver_one()
            arrived = True
        return arrived

    def deliver_one(self) -> bool:
        """Deliver the next letter of a channel that the seed chooses; False if nothing is on its way."""
        if not self.flight:
            return False
        place = 0 if self.stream is None else self.stream.below(len(self.flight))
        self._deliver(list(self.flight)[place])
        while self._dirty:
            self._repair(self._dirty.pop())
        return True

    def _deliver(self, channel: tuple[int, int]) -> None:
        queue = self.flight[channel]
        self._receive(queue.popleft())
        if not queue:
            del self.flight[channel]

    def _repair(self, node: int) -> None:
        self._carry(self.pes[node].step(0, 0))
        self._touch(node)

    def _carry(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self.flight.setdefault((letter.source, letter.target), deque()).append(letter)

    # --- executing --------------------------------------------------------------------------------

    def lowest(self) -> Key | None:
        """The key of the least event that is not executed; None if there is none."""
        heap = self._heap
        while heap and self.firsts[heap[0][2]] != heap[0]:
            self._heaped.discard(heappop(heap))
        return heap[0] if heap else None

    def execute(self, node: int) -> Entry:
        """Execute the next event of a node, which may run; returns it."""
        pe = self.pes[node]
        pe.look()
        executed = pe.statistics.executed
        self._carry(pe.step(FOREVER, 1))
        if pe.statistics.executed != executed + 1:
            raise InternalError(f"node {node} at {self.firsts[node]}", "its next event may run", "please report this")
        self._touch(node)
        entry = pe.kps[0].executed[-1]
        if self.stream is None:
            self.quiesce()
        return entry

    def _touch(self, node: int) -> None:
        """Note what a node would do next, after anything was done to it."""
        pe = self.pes[node]
        entry = pe.first()
        key = None if entry is None else entry.event[:5]
        self.firsts[node] = key
        if key is not None and key not in self._heaped:
            self._heaped.add(key)
            heappush(self._heap, key)
        if pe.kps[0].failed is None:
            self._failed.discard(node)
        else:
            self._failed.add(node)
        self._nodes[node].rollback_count = self._earlier[node] + pe.statistics.rollbacks

    def executed(self, node: int) -> Sequence[Entry]:
        """The executed and uncommitted events of a node, in key order."""
        return self.pes[node].kps[0].executed

    @property
    def backlog(self) -> int:
        """How many events are not executed, on their way included."""
        on_way = sum(letter.kind == POSITIVE for queue in self.flight.values() for letter in queue)
        return on_way + sum(pe.backlog for pe in self.pes)

    # --- GVT --------------------------------------------------------------------------------------

    def failure(self) -> tuple[Mark, ModelError] | None:
        """The first held error of a handler, and where it stands."""
        found = [kp.failed for node in self._failed if (kp := self.pes[node].kps[0]).failed is not None]
        first = min(found, key=lambda entry: entry.mark, default=None)
        if first is None:
            return None
        assert first.error is not None
        return (*first.mark, FAILED), first.error

    def low(self) -> Mark:
        """The least mark of anything unfinished, as a round would find it now; settle before asking."""
        marks = [letter.mark for queue in self.flight.values() for letter in queue]
        if (key := self.lowest()) is not None:
            marks.append((key[0], key[1], PENDING))
        if (failure := self.failure()) is not None:
            marks.append(failure[0])
        return min(marks, default=NEVER)

    def move_gvt(self, bound: Mark) -> None:
        """A GVT round; the result is ``bound``, or less if something unfinished lies below, and never goes back."""
        self.settle()
        rounds = self.rounds
        rounds.bound = max(bound, rounds.gvt)
        transit = min((letter.mark for queue in self.flight.values() for letter in queue), default=NEVER)
        rounds.begin()
        for pe in self.pes:
            pe.look()
            self._carry(pe.step(0, 0, transit=transit))

    def release(self) -> list[list[Entry]]:
        """What GVT has passed, of each node in key order."""
        return [pe.final() for pe in self.pes]

    def collect(self) -> None:
        """Let go of what is committed."""
        for pe in self.pes:
            pe.collect()
