"""All sources of a twin together: which there are, and what holds for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tidewarp.connect.gate.lateness import Habit
from tidewarp.connect.gate.local import LOCAL, local_source
from tidewarp.connect.gate.messages import Policy
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import OperatorError

__all__ = ["Sources"]


class Sources:
    """Those that the model connects, in order of rank; and ``local``: what the program itself sets."""

    def __init__(self) -> None:
        self.local = local_source()
        self._connected: dict[str, SourceState] = {}

    def __len__(self) -> int:
        return len(self._connected)

    def __iter__(self) -> Iterator[SourceState]:
        return iter(self._connected.values())

    def __getitem__(self, name: str) -> SourceState:
        return self._connected[name]

    def register(self, name: str, policy: Policy) -> int:
        """Make a source known; its rank. Raises OperatorError for a name that is taken."""
        if name in self._connected:
            raise OperatorError(f"source {name!r}", "each source has a name of its own", "give connect(name=...)")
        rank = len(self) + 1
        self._connected[name] = SourceState(name, rank, policy)
        return rank

    def find(self, name: str) -> SourceState:
        """The source of a record. Raises OperatorError if the model does not connect it."""
        if name == LOCAL and self.takes_local:
            return self.local
        try:
            return self._connected[name]
        except KeyError:
            raise OperatorError(
                f"source {name!r}", "the journal has inputs of it and the model does not connect it", "connect it"
            ) from None

    def rank(self, name: str) -> int:
        """The rank of a source. Raises OperatorError if the model does not connect it."""
        return self.find(name).rank

    @property
    def all(self) -> tuple[SourceState, ...]:
        """With ``local``, which comes last."""
        return (*self, self.local)

    @property
    def has_local(self) -> bool:
        """Has the program itself set anything, in this life or an earlier one?"""
        return bool(self.local.positions)

    @property
    def takes_local(self) -> bool:
        """May the program set anything? Not where a source of the model has that name."""
        return LOCAL not in self._connected

    @property
    def repairs(self) -> bool:
        """Is there a source whose late inputs are put in their place below the floor?"""
        return any(source.policy.late == "repair" for source in self)

    @property
    def lives(self) -> bool:
        """Is there a source that the clock does not wait for?"""
        return any(not source.policy.wait or source.policy.idle_s is not None for source in self)

    @property
    def arrivals_only(self) -> bool:
        """Does every source that the clock does not wait for send what happens when it comes?"""
        return all(source.policy.wait or source.policy.time == "arrival" for source in self)

    @property
    def finished(self) -> bool:
        """Have all sources ended, durably? False if there is none."""
        return len(self) > 0 and all(source.ended for source in self)

    @property
    def horizon(self) -> int:
        """How far below the clock an input may still come in."""
        return max((source.horizon for source in self), default=0)

    @property
    def reach_back(self) -> int:
        """Likewise in any life."""
        return max((source.reach_back for source in self), default=0)

    @property
    def backlog(self) -> int:
        """Inputs that are admitted and not yet granted, of all sources."""
        return sum(source.outstanding for source in self.all)

    def counts(self) -> dict[str, int]:
        """Totals over all sources, by name: of inputs, of what was special about them, and of dead letters and gaps."""
        total: Counter[str] = Counter()
        for source in self.all:
            total += source.counts
            total["dead_letters"] += sum(source.dead.values())
        names = ("inputs", "late", "repaired", "clamped", "dropped", "coalesced", "duplicates", "dead_letters", "gaps")
        return {name: total[name] for name in names}

    def shed(self) -> dict[str, int]:
        """Source -> messages that its full queue let go, of the sources that shed."""
        return {name: one.counts["shed"] for name, one in self._connected.items() if one.policy.full != "block"}

    def dead(self) -> dict[str, int]:
        """Dead letters by rule, over all sources."""
        total: Counter[str] = Counter()
        for source in self:
            total += source.dead
        return dict(sorted(total.items()))

    def fail(self, name: str, reason: str) -> None:
        """The source met an error that ends the run: what :meth:`told` says of it from now on."""
        source = self._connected[name]
        source.failed, source.reason = True, reason

    def habits(self) -> dict[str, Habit]:
        """Source -> how late its messages are as a rule, of the sources that are."""
        found = {name: source.lateness.habit for name, source in self._connected.items()}
        return {name: habit for name, habit in found.items() if habit is not None}

    def before_epoch(self) -> dict[str, int]:
        """Source -> tick of the last thing that it sent, of those that have sent nothing of tick 0 or later."""
        highest = {name: max(source.highest.values(), default=0) for name, source in self._connected.items()}
        return {name: tick for name, tick in highest.items() if tick < 0}

    def told(self) -> dict[str, dict[str, Any]]:
        """Source -> its state, the reason why it is down or has failed, and its counts."""
        names = ("inputs", "late", "repaired", "dropped", "duplicates", "gaps")
        return {
            name: {
                "state": source.state,
                "reason": source.reason,
                **{count: source.counts[count] for count in names},
                "dead": sum(source.dead.values()),
            }
            for name, source in self._connected.items()
        }
