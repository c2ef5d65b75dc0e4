"""Following a journal: what a recovery and a replay have in common.

A journal's records come in the order of writing, its marks speak of ticks that may lie below the floor of
a record before them. So a second reader runs ahead to the next mark, and the run halts there to compare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tidewarp.collector import collector_paused
from tidewarp.connect.contract import Output
from tidewarp.connect.documents import PathTable
from tidewarp.connect.gate import Asked, Gate, Grant, Instruction, Passed, Replayed, Settled, buried
from tidewarp.errors import ModelError
from tidewarp.observe import SILENT, Probe, stage
from tidewarp.twin.documents import Checkpoint, Mark, Opened, Released, Resumed, Stopped
from tidewarp.twin.facts import Dead, Ended, Inputs, Lacking, Marks, Records, Shed, What, facts, shaped, stop_at_end
from tidewarp.units import TICK_MAX, in_seconds

if TYPE_CHECKING:
    from tidewarp.twin.forked import ForkedRun
    from tidewarp.twin.run import Run
    from tidewarp.twin.simulation import Simulation

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
        journal: Records,
        gate: Gate,
        run: Run | Simulation | ForkedRun,
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
        self._halt = min(until, halt)
        self._marks = Marks(journal)
        self._is_read = False  # all of the journal
        self._gvt = 0  # the highest that the journal holds; inputs behind it in the journal may lie below it

    def follow(self) -> None:
        """To the stop that the journal ends with; without one, to the furthest tick that it speaks of: a floor, a mark."""
        size = self._journal.size
        for fact in facts(self._journal, table=self._table, rank=self._gate.sources.rank):
            stage("recover")
            with shaped(fact.seq), collector_paused():
                instructions = self._instructions(fact.what)
            self._perform(instructions)
            self._probe.progress(fact.seq, size)
            if self._run.at >= self._until:
                return
        self._is_read = True
        self._perform(self._gate.handle(Passed(min(self._gvt, self._end))))

    @cached_property
    def _stop(self) -> int | None:
        """The tick of the stop that the journal ends with. Asked late, since what a standby follows grows till then."""
        return stop_at_end(self._journal)

    @property
    def _end(self) -> int:
        """A lease reaches beyond a stop in the middle of it, and so does the floor of a record that was written then."""
        knows_all = self._is_read or self._marks.taken
        return self._halt if not knows_all or self._stop is None else min(self._halt, self._stop)

    def follow_ahead(self, *, all_of_it: bool) -> None:
        """Apply what the program itself has set where the journal stops: with the marks behind it, or ``all_of_it``."""
        if self._run.at != self._gate.floor:
            return
        granted = [one for one in self._gate.handle(Settled()) if isinstance(one, Grant)]
        grant = granted[0] if granted else Grant(self._run.at, ())
        for seq, mark in self._marks.up_to(self._run.at + 1):
            grant = self._part(grant, mark)
            self._compare(seq, mark)
        if all_of_it and grant.inputs:
            self._run.grant(grant)
            self._release(self._run.step(grant.floor, EVENTS_PER_STEP))

    def follow_to(self, floor: int) -> None:
        """Grant the run all inputs below ``floor``."""
        self._perform(self._gate.handle(Passed(floor)))

    def follow_on(self) -> None:
        """Further, to the last tick that the journal's inputs determine: where a killed run may have been."""
        if self._stop is None and self._gate.sources:
            # How far the clock of a live twin was by the wall, no input says.
            limit = self._gate.end if self._gate.sources.finished or self._gate.sources.lives else TICK_MAX
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
            case Shed():
                return self._gate.handle(_of_shed(what))
            case Ended():
                return self._gate.handle(Replayed(what.source, what.admitted, ended=True))
            case Mark() | Stopped() | Checkpoint():
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
                self._advance(instruction)

    def _advance(self, grant: Grant) -> None:
        """To the end of the lease, halting at each mark on the way."""
        for seq, mark in self._marks.up_to(min(grant.floor, self._halt)):
            if mark.tick >= self._run.behind:
                grant = self._part(grant, mark)
                self._compare(seq, mark)
        self._run.grant(grant)
        self._go(min(grant.floor, self._end))

    def _part(self, grant: Grant, mark: Mark) -> Grant:
        """Bring the run to where the mark was made; what is left of the grant."""
        ahead = self._run.ahead if self._run.at == mark.tick else 0  # by an earlier mark there
        count = bisect_left(grant.inputs, (mark.tick,)) + max(0, mark.ahead - ahead)
        self._run.grant(Grant(mark.tick, grant.inputs[:count]))
        self._go(mark.tick)
        if mark.ahead > ahead:
            self._release(self._run.step(mark.tick, EVENTS_PER_STEP))
        return Grant(grant.floor, grant.inputs[count:])

    def _go(self, tick: int) -> None:
        while self._run.at < tick or not self._run.settled:
            self._release(self._run.step(tick, EVENTS_PER_STEP))

    def _compare(self, seq: int, recorded: Mark) -> None:
        found = self._run.mark(final=recorded.digest is not None)
        self.compared += 1
        if recorded.digest is not None:
            self.recorded = recorded
        if self.first_difference is None and found != recorded:
            parts = [name for name in Mark.__struct_fields__ if getattr(found, name) != getattr(recorded, name)]
            self.first_difference = {"tick": recorded.tick, "mark": seq, "parts": parts}


def _of_letters(what: Dead) -> Replayed:
    return Replayed(
        what.source,
        what.admitted,
        dead=what.by_rule(),
        letter_bytes=sum(len(letter.head) for letter in what.letters),
        positions=dict(what.positions),
        ids=[buried(letter.id, letter.sha256) for letter in what.letters if letter.id],
    )


def _of_shed(what: Shed) -> Replayed:
    return Replayed(what.source, what.admitted, positions=dict(what.positions), ids=what.ids, shed=what.counted)


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
