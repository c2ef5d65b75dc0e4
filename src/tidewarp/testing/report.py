"""What a kill trial says at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tidewarp.observe import STAGES
from tidewarp.testing.lives import START

__all__ = ["Failure", "Report", "summed"]


@dataclass(frozen=True)
class Failure:
    """What was wrong after the kills (places, in order) of one run. ``check`` is a word of the docstring of ``kill``."""

    run: int
    check: str
    message: str
    kills: tuple[str, ...]

    def __str__(self) -> str:
        return f"run {self.run}, killed at {', '.join(self.kills) or 'no place'}: {self.check}: {self.message}"


@dataclass
class Report:
    """What a trial did: how many kills at which place, in how many lives of how many runs, and what was wrong.

    ``places``: a stage of ``observe.STAGES`` or "start" -> kills; of a command "by time" and "by size".
    ``wall_s``: host seconds.
    """

    mode: str
    seed: int
    places: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    lives: int = 0
    wall_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many lives were killed."""
        return sum(self.places.values())

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The report that ``dataclasses.asdict`` made ``document`` of, JSON in between."""
        failures = [Failure(**{**one, "kills": tuple(one["kills"])}) for one in document["failures"]]
        return cls(**{**document, "failures": failures})

    def table(self) -> str:
        """Place and kills, a line each, in the order of an input's way; then the totals and the failures."""
        order = {place: n for n, place in enumerate((START, *STAGES))}
        places = sorted(self.places.items(), key=lambda one: (order.get(one[0], len(order)), one[0]))
        lines = [f"kills, {self.mode}, seed {self.seed}:", *(f"  {place:<16}{count:6}" for place, count in places)]
        totals = f"{self.kills} kills in {self.lives} lives of {self.runs} runs"
        lines.append(f"  {totals}, {len(self.failures)} wrong, {self.wall_s:.0f} s")
        return "\n".join([*lines, *(f"  {failure}" for failure in self.failures)])


def summed(reports: Sequence[Report]) -> Report:
    """One report of several workers on one trial; ``wall_s`` is left 0."""
    total = Report(reports[0].mode, reports[0].seed)
    for report in reports:
        total.places = {
            place: total.places.get(place, 0) + report.places.get(place, 0)
            for place in {**total.places, **report.places}
        }
        total.runs += report.runs
        total.lives += report.lives
        total.failures += report.failures
    return total
