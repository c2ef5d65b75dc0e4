"""Following a journal: what a recovery and a replay have in common.

A journal's records come in the order of writing, its marks speak of ticks that may lie below the floor of
a record before them. So a second reader runs ahead to the next mark, and the run halts there to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tidewarp.connect.contract import Output
from tidewarp.connect.documents import PathTable
from tidewarp.connect.gate import Asked, Gate, Grant, Instruction, Passed, Replayed
from tidewarp.observe import SILENT, Probe, stage
from tidewarp.store import Journal
from tidewarp.twin.collector import collector_paused
from tidewarp.twin.documents import Mark, Stopped
from tidewarp.twin.facts import Dead, Ended, Inputs, Marks, What, facts, shaped, stop_at_end
from tidewarp.twin.run import Run
from tidewarp.units import TICK_MAX

__all__ = ["EVENTS_PER_STEP", "Follower"]

EVENTS_PER_STEP = 20_000  # about 20 ms of a small model: how long a request to stop may wait


class Follower:
    """Moves a run along its journal and compares it with every mark.

    ``table`` takes the journal's paths; ``until`` is the tick at which a replay ends (exclusive). ``release`` gets the
    outputs. ``first_difference`` is the first mark that differs, as {tick, mark, parts}.
    """

    def __init__(
        self,
        journal: Journal,
        gate: Gate,
        run: Run,
        release: Callable[[Sequence[Output]], None],
        *,
        table: PathTable | None = None,
        until: int = TICK_MAX,
        probe: Probe = SILENT,
    ) -> None:
        self.first_difference: dict[str, Any] | None = None
        self.recorded: Mark | None = None  # of the last stop that was reached
        self.compared = 0  # marks
        self._journal, self._gate, self._run, self._release = journal, gate, run, release
        self._table, self._until, self._probe = table, until, probe
        stop = stop_at_end(journal)
        self._is_stopped = stop is not None
        # A lease reaches beyond a stop in the middle of it, and so does the floor of a record that was written then.
        self._end = until if stop is None else min(until, stop)
        self._marks = Marks(journal)

    def follow(self) -> None:
        """To the stop that the journal ends with; without one, to the furthest tick that it speaks of: a floor, a mark."""
        size = self._journal.size
        for fact in facts(self._journal, table=self._table, rank=self._gate.rank):
            stage("recover")
            with shaped(fact.seq), collector_paused():
                instructions = self._instructions(fact.what)
            self._perform(instructions)
            self._probe.progress(fact.seq, size)
            if self._run.at >= self._until:
                return

    def follow_on(self) -> None:
        """Further, to the last tick that the journal's inputs determine: where a killed run may have been."""
        if not self._is_stopped and self._gate.has_sources:
            limit = self._gate.end if self._gate.finished else TICK_MAX
            self._perform(self._gate.handle(Asked(min(limit, self._until))))

    def _instructions(self, what: What) -> Sequence[Instruction]:
        """What the gate makes of one fact."""
        match what:
            case Inputs():
                return self._gate.handle(Replayed(what.source, what.admitted, what.inputs))
            case Dead():
                kept = sum(len(letter.head) for letter in what.letters)
                positions = dict(what.positions)
                return self._gate.handle(
                    Replayed(what.source, what.admitted, dead=what.by_rule(), letter_bytes=kept, positions=positions)
                )
            case Ended():
                return self._gate.handle(Replayed(what.source, what.admitted, ended=True))
            case Mark() | Stopped():
                return self._gate.handle(Passed(what.tick))
        return ()

    def _perform(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Grant):
                self._run.grant(instruction)
                self._advance()

    def _advance(self) -> None:
        """To the end of the lease, halting at each mark on the way."""
        end = min(self._run.lease, self._end)
        for seq, mark in self._marks.up_to(end):
            self._go(mark.tick)
            self._compare(seq, mark)
        self._go(end)

    def _go(self, tick: int) -> None:
        while self._run.at < tick or not self._run.settled:
            self._release(self._run.step(tick, EVENTS_PER_STEP))

    def _compare(self, seq: int, recorded: Mark) -> None:
        found = self._run.mark(final=recorded.digest is not None)
        self.compared += 1
        if recorded.digest is not None:
            self.recorded = recorded
        if self.first_difference is None and found != recorded:
            parts = [name for name, value in recorded.document().items() if found.document()[name] != value]
            self.first_difference = {"tick": recorded.tick, "mark": seq, "parts": parts}
