"""What a host measures of itself while it runs, for the sinks that asked for it: at most once, in no journal, in no digest.

The numbers are taken beside the model, between two slices, every so many wall seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Final

from tidewarp.connect.contract import Observation
from tidewarp.connect.gate import Gate
from tidewarp.connect.outbox import Outbox
from tidewarp.connect.shell import SinkThread
from tidewarp.twin.early import complete_below
from tidewarp.units import TICK_MAX

__all__ = ["STAGES", "Observer"]

STAGES: Final = ("decode", "journal", "model", "outbox")
"""What a host does for an input, in order; how many wall seconds of this life each took is told."""

_RELEASES_MAX: Final = 10_000  # that are remembered of a sink which takes nothing
_PLACES = 6  # of a number of seconds


class Observer:
    """Tells ``sinks`` every ``every_s`` wall seconds, counted from ``now_s``; with none of them, or 0 s, never."""

    def __init__(self, every_s: float, now_s: float, gate: Gate, outbox: Outbox, sinks: Collection[SinkThread]) -> None:
        self.due_s = now_s + every_s if every_s > 0 and sinks else math.inf  # wall time of the next observation
        self._every_s, self._gate, self._outbox, self._sinks = every_s, gate, outbox, sinks
        self._counted: dict[str, tuple[float, int]] = {}  # source -> when it was looked at, and its inputs then
        self._releases: deque[tuple[float, str]] = deque(maxlen=_RELEASES_MAX)  # when an output was the last released

    def look(
        self, now_s: float, tick: int, lag_s: float, gate_lag_s: float, released_id: str, spent_s: Mapping[str, float]
    ) -> None:
        """Measure and tell, at wall time ``now_s``: the run stands at ``tick``, and its first due input is ``gate_lag_s`` late.

        ``spent_s``: wall seconds of each stage.
        """
        self.due_s = now_s + self._every_s
        is_new = not self._releases or self._releases[-1][1] < released_id
        if released_id and is_new and len(self._releases) < _RELEASES_MAX:
            self._releases.append((now_s, released_id))
        values: dict[str, Any] = {
            "system.simulation.lag_seconds": round(lag_s, _PLACES),
            "system.gate.backlog": self._gate.sources.backlog,
            "system.gate.backlog_age_seconds": round(gate_lag_s, _PLACES),
        }
        values |= {f"system.stage.{name}.seconds": round(s, _PLACES) for name, s in spent_s.items()}
        for name, told in self._gate.sources.told().items():
            values |= {f"system.source.{name}.{what}": value for what, value in told.items()}
            values[f"system.source.{name}.rate"] = self._rate(name, now_s, told["inputs"])
        values |= self._of_sinks(now_s)
        rows = [Observation(min(tick, TICK_MAX), path, value) for path, value in values.items()]
        for sink in self._sinks:
            sink.observe(rows)

    def _of_sinks(self, now_s: float) -> dict[str, Any]:
        values: dict[str, Any] = {}
        backlog = self._outbox.backlog
        last_ids = {name: complete_below(last_id) for name, last_id in self._outbox.last_ids().items()}
        delivered = min((last_ids.get(name, "") for name in self._outbox.states()), default="")
        while self._releases and self._releases[0][1] <= delivered:
            self._releases.popleft()
        for name, (state, reason) in self._outbox.states().items():
            since_s = next((at_s for at_s, id_ in self._releases if id_ > last_ids.get(name, "")), now_s)
            place = f"system.outbox.{name}"
            values[f"{place}.backlog"] = backlog.get(name, 0)
            values[f"{place}.age_seconds"] = round(now_s - since_s, _PLACES) if name in backlog else 0.0
            values |= {f"{place}.state": state, f"{place}.reason": reason}
        return values

    def _rate(self, source: str, now_s: float, inputs: int) -> float:
        """Inputs per wall second since it was looked at last."""
        before_s, before = self._counted.get(source, (now_s, inputs))
        self._counted[source] = now_s, inputs
        return round((inputs - before) / (now_s - before_s), 3) if now_s > before_s else 0.0
