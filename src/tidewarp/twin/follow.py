"""Following a journal: what a recovery and a replay have in common.

A journal's records come in the order of writing, its marks speak of ticks that may lie below the floor of
a record before them. So a second reader runs ahead to the next mark, and the run halts there to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidewarp.connect.contract import Output
from tidewarp.connect.documents import PathTable
from tidewarp.connect.gate import Asked, Gate, Grant, Instruction, Passed, Replayed
from tidewarp.errors import ModelError
from tidewarp.observe import SILENT, Probe, stage
from tidewarp.store import Journal
from tidewarp.twin.collector import collector_paused
from tidewarp.twin.documents import Mark, Opened, Released, Resumed, Stopped
from tidewarp.twin.facts import Dead, Ended, Inputs, Lacking, Marks, What, facts, shaped, stop_at_end
from tidewarp.twin.run import Run
from tidewarp.units import TICK_MAX, in_seconds

__all__ = ["EVENTS_PER_STEP", "Follower", "differs"]

EVENTS_PER_STEP = 20_000  # about 20 ms of a small model: how long a request to stop may wait


class Follower:
    """Moves a run along its journal and compares it with every mark.

    ``table`` takes the journal's paths; ``until`` is the tick at which a replay ends (exclusive); at ``halt`` the run stands
    still, while the journal is read on. ``release`` gets the outputs. ``anchor`` is where the last life began: tick and
    Unix ns, 0 if the journal does not say. ``first_difference`` is the first mark that differs, as {tick, mark, parts}.
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
        halt: int = TICK_MAX,
        probe: Probe = SILENT,
    ) -> None:
        self.first_difference: dict[str, Any] | None = None
        self.recorded: Mark | None = None  # of the last stop that was reached
        self.compared = 0  # marks
        self.anchor = (0, 0)
        self._journal, self._gate, self._run, self._release = journal, gate, run, release
        self._table, self._until, self._probe = table, until, probe
        stop = stop_at_end(journal)
        self._is_stopped = stop is not None
        # A lease reaches beyond a stop in the middle of it, and so does the floor of a record that was written then.
        self._end = min(until, halt) if stop is None else min(until, halt, stop)
        self._marks = Marks(journal)
        self._gvt = 0  # the highest that the journal holds; inputs behind it in the journal may lie below it

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

        self._perform(self._gate.handle(Passed(min(self._gvt, self._end))))

    def follow_to(self, floor: int) -> None:
        """Grant the run all inputs below ``floor``."""
        self._perform(self._gate.handle(Passed(floor)))

    def follow_on(self) -> None:
        """Further, to the last tick that the journal's inputs determine: where a killed run may have been."""
        if not self._is_stopped and self._gate.has_sources:
            limit = self._gate.end if self._gate.finished else TICK_MAX
            self._perform(self._gate.handle(Asked(min(limit, self._until))))

    def _instructions(self, what: What) -> Sequence[Instruction]:
        """What the gate makes of one fact."""
        match what:
            case Inputs():
                ids = [one.id for one in what.inputs if one.id]
                return self._gate.handle(Replayed(what.source, what.admitted, what.inputs, ids=ids))
            case Dead():
                return self._gate.handle(_of_letters(what))
            case Lacking():
                return self._gate.handle(Replayed(what.source, what.admitted, positions=dict(what.positions), gaps=1))
            case Ended():
                return self._gate.handle(Replayed(what.source, what.admitted, ended=True))
            case Mark() | Stopped():
                return self._gate.handle(Passed(what.tick))
            case Opened():
                self.anchor = (0, what.unix_ns)
            case Resumed():
                self.anchor = (what.tick, what.unix_ns)
            case Released():
                self._gvt = max(self._gvt, what.gvt)
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


def _of_letters(what: Dead) -> Replayed:
    return Replayed(
        what.source,
        what.admitted,
        dead=what.by_rule(),
        letter_bytes=sum(len(letter.head) for letter in what.letters),
        positions=dict(what.positions),
        ids=[letter.id for letter in what.letters if letter.id],
    )


def differs(difference: Mapping[str, Any], changed: Sequence[str]) -> ModelError:
    """The error of a run that differs from its journal; ``changed`` names the files of the model that changed."""
    if changed:
        action = f"begin a new journal: what changed in {', '.join(changed)} alters the past"
    else:
        action = "look for the order of sets, id(), time, random, files; run tidewarp replay for the whole comparison"
    return ModelError(
        f"the mark at {in_seconds(difference['tick']):.3f} s (record {difference['mark']}): "
        f"{', '.join(difference['parts'])} came out differently",
        "a model is a function of its inputs and its seed",
        action,
    )
