"""The two kinds of host, and how each puts late inputs in their place.

``inline``  the model runs in the process that opened it. A repair makes the run anew from the journal.
``forked``  it runs in a process of its own. A repair goes on from a fork snapshot, or from the journal where none is old enough.
``auto``    forked where a source repairs and the system can fork, else inline.

Both give one digest, and the same outputs with the same ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tidewarp.connect.contract import Input, Output
from tidewarp.connect.gate import Grant
from tidewarp.errors import MissingExtra, ModelError, OperatorError
from tidewarp.store import Journal
from tidewarp.twin.follow import EVENTS_PER_STEP, Follower, differs
from tidewarp.twin.forked import ForkedRun, Release
from tidewarp.twin.run import Run
from tidewarp.twin.simulation import Simulation

if TYPE_CHECKING:
    from tidewarp.twin.session import Twin

__all__ = ["HOSTS", "Rebuild", "Rebuilt", "forked", "forks", "inline"]

HOSTS: Final = ("auto", "inline", "forked")


class Rebuilt(NamedTuple):
    """A run that was executed again, from behind the output with the id ``begin`` to where it had stood; ``outputs``: from
    there on, not released yet. With an ``error``, the model raised on the way, and it stands there.
    """

    run: Run | ForkedRun
    begin: str
    outputs: Sequence[Output]
    error: ModelError | None = None


Rebuild = Callable[[int, Sequence[Input], str], Rebuilt]
"""``rebuild(tick, late, released_id)``: with the late inputs, none of them below ``tick``, in their place."""


def forks(host: str, repairs: bool) -> bool:
    """Is this one of HOSTS the forked one, for a twin of which a source repairs or none does? Raises OperatorError."""
    if host not in HOSTS:
        raise OperatorError(f"host={host!r}", f"one of {', '.join(HOSTS)}", "choose one of them")
    can_fork = hasattr(os, "fork")
    if host == "forked" and not can_fork:
        raise MissingExtra("host='forked'", "this system has no fork", "open with host='inline'")
    return can_fork and (host == "forked" or (host == "auto" and repairs))


def forked(twin: Twin, journal: Journal) -> tuple[ForkedRun, Rebuild]:
    """The run of a wired twin in a process of its own, and its way to repair. Raises OperatorError."""

    def follow(simulation: Simulation, floor: int, at: int, ahead: int, release: Release) -> None:
        _follow(journal, twin._anew(), simulation, floor, at, release)
        if floor == twin._gate.floor and twin._gate.ahead:  # they are among the inputs below any higher one
            if ahead:
                simulation.grant(Grant(floor, twin._gate.ahead[:ahead]))
                release(simulation.step(at, EVENTS_PER_STEP))
            simulation.grant(Grant(floor, twin._gate.ahead[ahead:]))

    def rebuild(tick: int, late: Sequence[Input], released_id: str) -> Rebuilt:
        return Rebuilt(run, *run.repair(tick, late, released_id))

    run = ForkedRun(twin._run, lambda: twin._anew()._run, follow, lambda: twin._gate.gvt)
    return run, rebuild


def inline(twin: Twin, journal: Journal) -> tuple[Run, Rebuild]:
    """The run of a wired twin here, and its way to repair."""

    def rebuild(tick: int, late: Sequence[Input], released_id: str) -> Rebuilt:
        fresh = twin._anew()
        outputs: list[Output] = []

        def release(some: Sequence[Output]) -> None:
            outputs.extend(output for output in some if output.id > released_id)

        met = None
        try:
            _follow(journal, fresh, fresh._run, twin._gate.floor, twin._run.at, release)
        except ModelError as error:
            if not fresh._run.failed:
                raise
            met = error
            release(fresh._run.salvage())
        else:
            fresh._run.grant(Grant(twin._gate.floor, twin._gate.ahead))
        twin._take_over(fresh)
        return Rebuilt(fresh._run, "", outputs, met)

    return twin._run, rebuild


def _follow(journal: Journal, fresh: Twin, run: Run | Simulation, floor: int, at: int, release: Release) -> None:
    """All inputs of the journal below ``floor``, by the gate of a twin that has no other work; the run comes to ``at``."""
    follower = Follower(journal, fresh._gate, run, release, halt=at)
    follower.follow()
    follower.follow_to(floor)
    if follower.first_difference is not None:
        raise differs(follower.first_difference, ())
