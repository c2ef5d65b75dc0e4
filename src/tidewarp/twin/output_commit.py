"""Output commit: outputs leave once nothing can change them any more, and the journal says so.

The term is of rollback recovery (Strom and Yemini 1985; Elnozahy et al. 2002): what the world has seen cannot be rolled
back. Here a late input may replace an output until GVT has passed it, so outputs are withheld up to there. And a later
life, which knows the journal alone, must not come to another result below what this one has shown; where it could, GVT is
journaled before outputs leave. Sinks with ``release="early"`` are told at once, by records that can be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from tidewarp.clocks import Clock
from tidewarp.connect.contract import Output
from tidewarp.connect.gate import Gate, Passed
from tidewarp.connect.outbox import Outbox
from tidewarp.connect.shell import Inbox
from tidewarp.store import Entry, Journal
from tidewarp.twin.dispatcher import Dispatcher
from tidewarp.twin.documents import RELEASED_IDS, entry
from tidewarp.twin.early import Early
from tidewarp.twin.withheld import Withheld
from tidewarp.units import TICK_MAX, ticks

__all__ = ["OutputCommit", "Told"]

_TELL_S = 0.02  # GVT is journaled so often at most
_AHEAD_S: Final = 1.0  # by the wall: how far ahead GVT is promised where nothing can come in below the clock


@dataclass(frozen=True)
class Told:
    """The journal holds this GVT, or could not take it: ``future`` says so."""

    gvt: int
    future: Future[Any]


class OutputCommit:
    """Decides when an output leaves. :class:`Told` reaches the inbox when the journal holds another GVT, or could not take it.

    ``spend(stage, since_s)`` counts the wall seconds that handing on took. ``released_id``: of the last output that has left;
    none up to it leaves again. ``is_telling``: a GVT is on its way to the journal. ``horizon_cuts``: how often GVT was moved up because too many outputs waited.
    """

    def __init__(
        self,
        gate: Gate,
        outbox: Outbox,
        dispatcher: Dispatcher,
        journal: Journal,
        inbox: Inbox,
        clock: Clock,
        spend: Callable[[str, float], None],
    ) -> None:
        self._gate, self._outbox, self._dispatcher = gate, outbox, dispatcher
        self._journal, self._inbox, self._clock, self._spend = journal, inbox, clock, spend
        self._withheld = Withheld()
        self._early = Early(journal.size) if outbox.early else None
        self._told_gvt = 0  # the journal holds it
        self._told_s = -_TELL_S
        self.released_id = ""
        self.is_telling = False
        self.horizon_cuts = 0

    # ------------------------------------------------------------------ what the run gives
    def begin(self) -> None:
        """A run begins: what the gate knows of GVT by now, the journal has said."""
        self._told_gvt = max(self._told_gvt, self._gate.gvt)

    def take_back(self, released: Mapping[str, str]) -> None:
        """A later life begins: what early sinks hold beyond what is final is void.

        ``released``: what the journal says of those that cannot be asked now.
        """
        if self._early is not None:
            said = self._outbox.last_ids()
            held = [(released if self._outbox.reason(name) else said).get(name, "") for name in self._outbox.early]
            self._tell(self._early.begin(held))

    def take(self, outputs: Sequence[Output]) -> None:
        """New outputs of the run, ascending."""
        if self._tells_gvt:
            # A run that was made anew may stand before instants of which the one before it has told.
            self.withhold([output for output in outputs if output.id > self.released_id])
        else:
            self.take_final(outputs)

    def withhold(self, outputs: Sequence[Output]) -> None:
        """Let them wait for GVT."""
        if self._early is not None:
            self._tell(self._early.tell(outputs, self._told_gvt))
        self._withheld.hold(outputs)

    def take_final(self, outputs: Sequence[Output]) -> None:
        """Outputs that nothing can change any more: they leave at once."""
        if self._early is not None:
            self._tell(self._early.tell(outputs, TICK_MAX, changeable=False))
        self._release(outputs)

    def replace(self, begin: str, outputs: Sequence[Output]) -> None:
        """A repair has made ``outputs`` of what had come behind the output with the id ``begin``."""
        before = [one for one in self._withheld if one.id > begin] if self._early is not None else []
        self._withheld.replace(begin, outputs)
        if self._early is not None:
            self._tell(self._early.correct(before, outputs, self._told_gvt))

    def _tell(self, records: Sequence[Output]) -> None:
        if records:
            self._dispatcher.publish(records, self._clock.now(), early=True)

    def _release(self, outputs: Sequence[Output]) -> None:
        if outputs:
            self.released_id = outputs[-1].id
            if self._early is not None:
                self._early.settle(outputs)
            begin_s = self._clock.now()
            self._dispatcher.publish(outputs, begin_s)
            self._spend("outbox", begin_s)

    # ------------------------------------------------------------------ GVT
    @property
    def _tells_gvt(self) -> bool:
        """Could a later life come to another result above what the journal says? Then it says so before outputs leave."""
        return self._gate.sources.repairs or self._gate.sources.lives or self._gate.sources.has_local

    @property
    def _is_to_tell(self) -> bool:
        """Has GVT passed an output that waits?"""
        first = self._withheld.first_tick
        return first is not None and first < self._gate.gvt

    @property
    def patience_s(self) -> float | None:
        """At most so long may the host sleep, since GVT is to be told then; None: as long as it likes."""
        return _TELL_S if self._is_to_tell and not self.is_telling else None

    def settle(self, at: int, goal: int, factor: float, *, is_repairing: bool) -> None:
        """Release what GVT has passed, once the journal holds that it has.

        The run stands at tick ``at`` and ends at ``goal``, at a pace of ``factor``; ``is_repairing``: it is to be executed
        again from an earlier one.
        """
        self._release(self._withheld.leave(self._told_gvt))
        if not is_repairing:
            self._relieve()
        if not self._is_to_tell or self.is_telling or self._clock.now() - self._told_s < _TELL_S:
            return
        gvt = self._gate.gvt
        if self._gate.sources.arrivals_only and not self._gate.sources.repairs and factor > 0:
            # A later life begins there: not behind the end of this run, nor where the clock waits for what is still to come.
            gvt = max(gvt, min(gvt + ticks(_AHEAD_S / factor), goal, self._gate.watermark))
        self.is_telling, self._told_s = True, self._clock.now()
        future = self._journal.submit([self.record(at, gvt)])
        future.add_done_callback(lambda done: self._inbox.put(Told(gvt, done)))

    def _relieve(self) -> None:
        """Too many outputs wait for the horizon: let GVT pass half of them now. What is later than that is beyond."""
        gvt = self._withheld.relief
        if gvt is None or gvt <= self._gate.gvt:
            return
        before = self._gate.gvt
        self._gate.handle(Passed(min(gvt, self._gate.floor)))
        self.horizon_cuts += self._gate.gvt > before

    def hear(self, told: Told) -> None:
        """Outputs may leave up to there. Raises what the journal raised."""
        told.future.result()
        self.is_telling, self._told_gvt = False, max(self._told_gvt, told.gvt)

    def record(self, at: int, gvt: int | None = None) -> Entry:
        """For the journal: what each sink holds where the run stands at tick ``at``, and GVT (None: as it was told last)."""
        told = {"tick": at, "sinks": self._outbox.last_ids(), "gvt": self._told_gvt if gvt is None else gvt}
        return entry(RELEASED_IDS, at, told)

    def conclude(self, at: int) -> None:
        """A stop at tick ``at`` is final: all outputs leave."""
        if self._withheld.first_tick is not None:
            self._told_gvt = max(self._told_gvt, at)
            self._journal.append([self.record(at)])
            self._release(self._withheld.leave(TICK_MAX))
