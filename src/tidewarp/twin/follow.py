"""Following a journal: what a recovery and a replay have in common.

A journal's records come in the order of writing, its marks speak of ticks that may lie below the floor of
a record before them. So the marks are read first, and the run halts at each to compare.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tidewarp.codec import RELEASED
from tidewarp.connect.contract import Output
from tidewarp.connect.documents import DEAD, ENDED, INPUTS, PATHS, PathTable, decode_inputs
from tidewarp.connect.gate import FOREVER, Asked, Gate, Grant, Instruction, Passed, Replayed
from tidewarp.errors import Corrupt
from tidewarp.observe import SILENT, Probe, stage
from tidewarp.store import Journal
from tidewarp.twin.documents import MARK, OPEN, RELEASED_IDS, RESUME, STOP, Fact, Mark, facts, marks, shaped
from tidewarp.twin.run import Run

__all__ = ["EVENTS_PER_STEP", "Follower"]

EVENTS_PER_STEP = 20_000  # about 20 ms of a small model: how long a request to stop may wait


class Follower:
    """Moves a run along its journal and compares it with every mark.

    ``first_difference`` is the first mark that differs, as {tick, mark, parts}; ``stopped`` the tick of the stop that
    the journal ends with, None if the run was not ended in order.
    """

    def __init__(
        self,
        journal: Journal,
        gate: Gate,
        run: Run,
        release: Callable[[Sequence[Output]], None],
        *,
        table: PathTable | None = None,
        until: int = FOREVER,
        probe: Probe = SILENT,
    ) -> None:
        self.table = table if table is not None else PathTable()
        self.first_difference: dict[str, Any] | None = None
        self.recorded: Mark | None = None  # of the last stop that was reached
        self.marks = 0  # compared
        self.stopped: int | None = None
        self._journal, self._gate, self._run, self._release = journal, gate, run, release
        self._until, self._probe = until, probe
        last = next(facts(journal, after=max(journal.size - 1, 0)), None)
        # A lease reaches beyond a stop in the middle of it, and so does the floor of a record that was written then.
        self._halt: int = last.value["tick"] if last is not None and last.schema == STOP else FOREVER
        self._marks: deque[tuple[int, Mark]] = deque(marks(journal))

    def released_before(self) -> dict[str, str]:
        """The last output id of each sink, as the journal's RELEASED records have it."""
        last: dict[str, str] = {}
        for fact in facts(self._journal, kinds={RELEASED}):
            with shaped(fact.seq):
                last.update(fact.value["sinks"])  # a sink that was left out for a life keeps its place
        return last

    def follow(self) -> None:
        """To the stop that the journal ends with; without one, to the furthest tick that it speaks of: a floor, a mark."""
        size = self._journal.size
        for fact in facts(self._journal):
            stage("recover")
            with shaped(fact.seq):
                instructions = self._instructions(fact)
            self._perform(instructions)
            self._probe.progress(fact.seq, size)
            if self._run.at >= self._until:
                return

    def follow_on(self) -> None:
        """Further, to the last tick that the journal's inputs determine: where a killed run may have been."""
        if self.stopped is None and self._gate.has_sources:
            limit = self._gate.end if self._gate.finished else FOREVER
            self._perform(self._gate.handle(Asked(min(limit, self._until))))

    def _instructions(self, fact: Fact) -> Sequence[Instruction]:
        """What the gate makes of one fact."""
        value, schema = fact.value, fact.schema
        if schema == PATHS:
            if value["first"] != len(self.table):
                raise Corrupt("its paths", "they do not continue the table", "run tidewarp verify")
            self.table.add(value["paths"])
        elif schema in (INPUTS, DEAD, ENDED):
            self.stopped = None
            return self._gate.handle(self._replayed(fact))
        elif schema in (MARK, STOP):
            self.stopped = value["tick"] if schema == STOP else None
            return self._gate.handle(Passed(value["tick"]))
        elif schema == RESUME:
            self.stopped = None
        elif schema not in (OPEN, RELEASED_IDS):
            raise Corrupt(f"document {schema!r}", "it is not known", "use a newer tidewarp")
        return ()

    def _replayed(self, fact: Fact) -> Replayed:
        value, source = fact.value, fact.value["source"]
        if fact.schema == INPUTS:
            inputs = decode_inputs(value, self._gate.rank(source), self.table)
            return Replayed(source, value["admitted"], inputs)
        if fact.schema == DEAD:
            dead = dict(value["counted"])
            for letter in value["letters"]:
                dead[letter[2]] = dead.get(letter[2], 0) + 1
            kept = sum(len(letter[4]) for letter in value["letters"])
            positions = dict(value["positions"])
            return Replayed(source, value["admitted"], dead=dead, letter_bytes=kept, positions=positions)
        return Replayed(source, value["admitted"], ended=True)

    def _perform(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Grant):
                self._run.grant(instruction)
                self._advance()

    def _advance(self) -> None:
        """To the end of the lease, halting at each mark on the way."""
        end = min(self._run.lease, self._until, self._halt)
        while self._marks and self._marks[0][1].tick <= end:
            seq, mark = self._marks.popleft()
            self._go(mark.tick)
            self._compare(seq, mark)
        self._go(end)

    def _go(self, tick: int) -> None:
        while self._run.at < tick or not self._run.settled:
            self._release(self._run.step(tick, EVENTS_PER_STEP))

    def _compare(self, seq: int, recorded: Mark) -> None:
        found = self._run.mark(final=recorded.digest is not None)
        self.marks += 1
        if recorded.digest is not None:
            self.recorded = recorded
        if self.first_difference is None and found != recorded:
            parts = [name for name, value in recorded.document().items() if found.document()[name] != value]
            self.first_difference = {"tick": recorded.tick, "mark": seq, "parts": parts}
