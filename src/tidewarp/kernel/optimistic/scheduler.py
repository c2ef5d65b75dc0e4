"""Turns of several PEs in one thread, in any order that threads could have taken.

A turn has three steps (look, receive, step), between which other PEs may move and a GVT round may begin; letters wait in one
queue for each pair of PEs, of bounded length; with a seed a PE may leave a part of what it has seen for later. Everything
is drawn from the seed, so each interleaving can be had again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tidewarp.kernel.optimistic.entries import Letter
from tidewarp.kernel.optimistic.gvt import NEVER, Mark, Rounds
from tidewarp.kernel.optimistic.pe import ProcessingElement
from tidewarp.seeds import Stream

__all__ = ["Scheduler"]


class Scheduler:
    """Takes turns between ``pes``; ``ring`` letters fit between two of them, ``batch`` events are a step's work.

    A GVT round begins every ``gvt_interval`` turns of each PE, and at once when nobody finds work. ``seed`` None: round robin.
    """

    def __init__(
        self,
        pes: Sequence[ProcessingElement],
        rounds: Rounds,
        *,
        ring: int,
        batch: int,
        gvt_interval: int,
        seed: int | None,
    ) -> None:
        n = len(pes)
        self.pes = pes
        self.rounds = rounds
        self._ring = ring
        self._batch = batch
        self._interval = gvt_interval * n
        self._stream = None if seed is None else Stream(seed, "schedule")
        self._rings: list[list[deque[Letter]]] = [[deque() for _ in range(n)] for _ in range(n)]  # [target][source]
        self._seen: list[list[deque[Letter]]] = [[deque() for _ in range(n)] for _ in range(n)]  # drained, not received
        self._phase = [0] * n
        self._place = -1
        self._burst = 0
        self._turns = 0
        self._idle = 0  # turns in a row without anything to do

    def turn(self, horizon: int) -> bool:
        """One PE does its next step, or (without a seed) its next turn; True if that has finished a GVT round."""
        rounds = self.rounds
        n = len(self.pes)
        if not rounds.missing and (self._turns >= self._interval or self._idle >= n):
            rounds.begin()
            self._turns = 0
        missing = rounds.missing
        if self._stream is None:
            self._place = pe = (self._place + 1) % n
            for _ in range(3):
                self._move(pe, horizon)
        else:
            self._move(self._draw(self._stream), horizon)
        return missing > 0 and not rounds.missing

    def _draw(self, stream: Stream) -> int:
        """The next PE: one has 1 to 64 steps in a row, so that the others fall behind and their messages come late."""
        if not self._burst:
            self._place = stream.below(len(self.pes))
            self._burst = 1 << stream.below(7)
        self._burst -= 1
        return self._place

    def _move(self, place: int, horizon: int) -> None:
        pe = self.pes[place]
        phase = self._phase[place]
        self._phase[place] = (phase + 1) % 3
        if phase == 0:
            pe.look()
        elif phase == 1:
            pe.receive(self._delivery(place))
        else:
            executed = pe.statistics.executed
            self._carry(
                pe.step(
                    horizon, self._batch, room=lambda target: self._room(place, target), transit=self._transit(place)
                )
            )
            self._turns += 1
            self._idle = self._idle + 1 if pe.statistics.executed == executed else 0

    def _room(self, source: int, target: int) -> int:
        return self._ring - len(self._rings[target][source])

    def _carry(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._rings[letter.target][letter.source].append(letter)

    def _delivery(self, place: int) -> list[Letter]:
        """Drain the rings to a PE; what it gets of that now."""
        letters: list[Letter] = []
        for ring, seen in zip(self._rings[place], self._seen[place], strict=True):
            seen.extend(ring)
            ring.clear()
            letters.extend(seen.popleft() for _ in range(self._portion(len(seen))))
        return letters

    def _portion(self, waiting: int) -> int:
        stream = self._stream
        if stream is None or not waiting or stream.below(2):
            return waiting
        return stream.below(waiting + 1)

    def _transit(self, place: int) -> Mark:
        return min((letter.mark for seen in self._seen[place] for letter in seen), default=NEVER)

    @property
    def letters(self) -> int:
        """How many letters are on their way, or wait for room to leave."""
        carried = sum(len(queue) for side in (self._rings, self._seen) for queues in side for queue in queues)
        return carried + sum(pe.queued for pe in self.pes)

    def rewind(self) -> None:
        """Undo in all PEs what is not committed, and deliver what that sends until all is quiet."""
        while True:
            for place, pe in enumerate(self.pes):
                for queues in (self._seen[place], self._rings[place]):  # a channel's older letters first
                    for queue in queues:
                        pe.receive(queue)
                        queue.clear()
                pe.undo_all()
                self._carry(pe.flush())
            if not self.letters:
                break
        self.lower_gvt(min(pe.low() for pe in self.pes))

    def lower_gvt(self, mark: Mark) -> None:
        """GVT stands at ``mark`` at most: nothing from there on is committed. Legal between two rounds only.

        GVT never goes back, but for what was final and could not be committed because the ledger is full.
        """
        if mark < self.rounds.gvt:
            self.rounds.retreat(mark)
        for place, pe in enumerate(self.pes):
            pe.look()
            self._phase[place] = 1

    def holders(self) -> list[str]:
        """Per PE what it waits for, in words."""
        return [f"PE {pe.number}: {pe.waits_for()}, {self._waiting(pe.number)}" for pe in self.pes]

    def _waiting(self, place: int) -> str:
        count = sum(len(queue) for queues in (self._rings[place], self._seen[place]) for queue in queues)
        return f"{count} letters not received"
