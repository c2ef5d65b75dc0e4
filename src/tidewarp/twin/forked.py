"""A run in a process of its own, with fork snapshots: it goes back for late inputs, and outlives its process.

A late input and the death of the process are one case: a copy of the newest snapshot that the event has not overtaken
takes the place of the run, and is granted again what came since, a late input in its place. The host keeps these inputs
for as long as a snapshot needs them. Where no snapshot is old enough, a copy of the *nursery*, a process in which nothing
has happened yet, follows the journal.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Final, TypeVar

from tidewarp.clocks import WallClock
from tidewarp.connect.contract import Input, Output
from tidewarp.connect.gate import Grant
from tidewarp.errors import ModelError, OperatorError
from tidewarp.twin.cuts import Cut
from tidewarp.twin.documents import Mark
from tidewarp.twin.follow import EVENTS_PER_STEP
from tidewarp.twin.run import Run
from tidewarp.twin.simulation import Died, Simulation, launch, wait_for
from tidewarp.twin.snapshots import Due, GrantedInputs, Snapshots
from tidewarp.units import TICK_MAX, in_seconds

__all__ = ["ForkedRun", "Release"]

Release = Callable[[Sequence[Output]], None]
"""Takes outputs, ascending."""

INPUTS_MAX: Final = 500_000
"""Inputs that are kept for snapshots. When there are more, the oldest snapshot goes."""
SNAPSHOT_BYTES_MAX: Final = 1 << 30
"""Of all snapshots together; likewise."""
_SLICE_EVENTS = 2_000  # at most: only between two slices a snapshot can be taken
_DEATHS_MAX = 3  # without the clock having moved in between
_LOG = logging.getLogger("tidewarp.twin")
T = TypeVar("T")


def _of_simulation(name: str) -> property:
    return property(attrgetter(f"_simulation.{name}"), doc="As of a run.")


class ForkedRun:
    """As :class:`~tidewarp.twin.run.Run`, for a host. What the model does to its objects is seen in its process alone.

    Args:
        run: wired, and nothing has happened yet. It stays so: its environment becomes a picture of the simulation's.
        fresh: gives another one like it, should the nursery be lost.
        follow: ``follow(simulation, floor, at, ahead, release)`` grants it the journal's inputs below ``floor``, and brings
            it to tick ``at``, behind the first ``ahead`` inputs there.
        gvt: no input comes in below it any more.

    Raises:
        OperatorError: there can be no more processes.
    """

    at, settled, failed = map(_of_simulation, ("at", "settled", "failed"))
    next_tick, stop_tick = map(_of_simulation, ("next_tick", "stop_tick"))
    applied, refused, published = map(_of_simulation, ("applied", "refused", "published"))
    events, undeliverable, ahead, behind = map(_of_simulation, ("events", "undeliverable", "ahead", "behind"))

    def __init__(
        self,
        run: Run,
        fresh: Callable[[], Run],
        follow: Callable[[Simulation, int, int, int, Release], None],
        gvt: Callable[[], int],
    ) -> None:
        self.env = run.env
        self.cuts_from = run.cuts_from
        self.lease = run.lease  # as granted: a simulation that comes to where another one stood may have less of it
        self._fresh, self._follow, self._gvt = fresh, follow, gvt
        self._clock = WallClock()
        self._wired = run.env.registry.topology
        self._pictured: int | None = self._wired  # the topology that the host's registry has; None: of another past
        self._snapshots: Snapshots[Simulation] = Snapshots()
        self._due = Due()
        self._inputs = GrantedInputs()  # as far as a snapshot may need them
        self._last_id = ""  # of the last output that was handed over
        self._is_again = False  # is the run doing what it had done before?
        self._deaths = 0  # at tick _died_at
        self._died_at = -1
        self._digest = ""  # here; "": it was not asked for
        self._is_closed = False
        self._nursery = launch(run)
        try:
            self._simulation = self._nursery.fork()
        except Died as error:
            wait_for(self._nursery)
            rule = "its process was ended by somebody as it began"
            raise OperatorError("the simulation", rule, "look at the limits of memory, then open it again") from error

    # ------------------------------------------------------------------ as a run
    def grant(self, grant: Grant) -> None:
        """Take over a lease with its inputs."""
        self._inputs.append(grant.inputs)
        self._simulation.grant(grant)
        self.lease = grant.floor

    def step(self, limit: int, events_max: int) -> list[Output]:
        """As of a run. Takes a snapshot behind the slice, if one is due."""
        self._digest = ""
        outputs = self._surely(lambda: self._slice(limit, events_max))
        if self._is_again:
            outputs = [output for output in outputs if output.id > self._last_id]
            self._is_again = not outputs
        if outputs:
            self._last_id = outputs[-1].id
        with suppress(Died):  # what it is asked next will notice
            self._look_around()
        return outputs

    def salvage(self) -> list[Output]:
        """After a failure: the outputs of the instants that were completed."""
        return [output for output in self._simulation.salvage() if output.id > self._last_id]

    def mark(self, *, final: bool = False) -> Mark:
        """As of a run."""
        return self._surely(lambda: self._simulation.mark(final=final))

    def digest(self) -> str:
        """The run digest, hex. The host's registry and clock show those of the simulation from here on."""
        if not self._digest:
            self._digest, values = self._surely(lambda: self._simulation.digest())
            self.env.registry.show(values)
            self.env._now, self.env.events = self._simulation.standing.now, self.events
        return self._digest

    def close(self) -> None:
        """End all processes, and wait until they are gone. Safe to call twice."""
        self._end(self._snapshots.drop_above(-1))
        self._end([self._simulation])
        wait_for(self._nursery)
        self._is_closed = True

    def take_cuts(self) -> list[Cut]:
        """As of a run; after it went back, some of them once more."""
        return self._surely(lambda: self._simulation.take_cuts())

    def restore(self, cut: Cut) -> list[Output]:
        """As of a run. Should the nursery be lost at this moment, the run begins at its beginning."""
        try:
            outputs = self._nursery.restore(cut)
        except Died:
            self._lose(None)
            outputs = []
        self._end([self._simulation])
        self._simulation = self._nursery.fork()
        self.lease = self._simulation.lease
        self._wired = self._simulation.standing.topology
        return outputs

    # ------------------------------------------------------------------ going back
    def repair(self, tick: int, late: Sequence[Input], released_id: str) -> tuple[str, list[Output], ModelError | None]:
        """Put ``late``, none of it below ``tick``, in its place, and come to where the run stands now.

        Returns the id of the last output before where it was executed again, the outputs from there on that are
        above ``released_id``, and the error if the model raised on the way: then it stands there, and these are all.

        Raises:
            ModelError: the model comes out differently from what the journal holds of it.
            OperatorError: there can be no more processes, or they die again and again.
        """
        begin, met = self._simulation.standing.last_id, None
        self._inputs.insert(late)
        self._end(self._snapshots.drop_above(tick))
        self._end([self._simulation])
        self._due.repaired()
        self._deaths, self._died_at = 0, -1  # from here on it is other work
        outputs: list[Output] = []

        def release(some: Sequence[Output]) -> None:
            outputs.extend(output for output in some if output.id > released_id)

        def forget(behind: str) -> None:
            nonlocal begin
            begin = min(begin, behind)
            outputs[:] = [output for output in outputs if output.id <= behind]

        try:
            self._restart(release, forget)
        except ModelError as error:
            if not self.failed:
                raise
            met = error
            release(self._simulation.salvage())
        self._last_id, self._is_again = outputs[-1].id if outputs else released_id, False
        return begin, outputs, met

    def _surely(self, ask: Callable[[], T]) -> T:
        """What ``ask`` gives; by another process, if the present one is no more."""
        while True:
            try:
                return ask()
            except Died:
                if self._is_closed:
                    raise OperatorError("this twin", "it is closed, and its process has ended", "ask before") from None
                self._count_death()
                self._restart(lambda _: None, lambda _: None)
                self._is_again = True

    def _restart(self, release: Release, forget: Callable[[str], None]) -> None:
        """Let a copy of the newest snapshot come to where the run stands.

        ``release`` gets the outputs. ``forget(id)`` hears that those above it will come once more: it is the last before the copy.
        """
        at: int = self.at
        lease, ahead = self.lease, self.ahead
        while True:
            base = self._newest_usable()
            try:
                copy = (base or self._nursery).fork()
            except Died:
                self._lose(base)
                continue
            forget(copy.standing.last_id)
            self._simulation = copy
            if self._pictured != self._wired:
                self._pictured = None
            try:
                if copy.at >= self._inputs.begin:
                    granted = self._inputs.since(copy.at, copy.ahead)
                    lacking = max(0, ahead - (copy.ahead if copy.at == at else 0))
                    done = bisect_left(granted, (at,)) + lacking
                    copy.grant(Grant(at, granted[:done]))  # inputs are applied ahead only where a lease ends
                    self._go(at, ahead, release)
                    copy.grant(Grant(lease, granted[done:]))
                else:
                    copy.lease_max = lease
                    self._follow(copy, lease, at, ahead, release)
                    copy.lease_max = TICK_MAX
                return
            except Died:
                self._count_death()

    def _go(self, at: int, ahead: int, release: Release) -> None:
        while self.at < at or not self.settled or self.ahead < ahead:
            release(self._slice(at, EVENTS_PER_STEP))
            self._look_around()

    def _slice(self, limit: int, events_max: int) -> list[Output]:
        if self._due.is_due and not self.settled:
            limit = min(limit, self.stop_tick)  # a snapshot is taken where nothing is half done
        begun_s = self._clock.now()
        outputs = self._simulation.step(limit, min(events_max, _SLICE_EVENTS))
        self._due.spend(self._clock.now() - begun_s)
        return outputs

    def _newest_usable(self) -> Simulation | None:
        newest = self._snapshots[-1] if len(self._snapshots) else None
        return newest if newest is not None and newest.at >= self._inputs.begin else None

    def _lose(self, snapshot: Simulation | None) -> None:
        """It was killed in its sleep."""
        if snapshot is not None:
            self._end(self._snapshots.drop_above(snapshot.at - 1))
        else:
            wait_for(self._nursery)
            self._nursery = launch(self._fresh())

    def _count_death(self) -> None:
        self._simulation.end()
        self._deaths = 1 if self.at > self._died_at else self._deaths + 1
        self._died_at = max(self.at, self._died_at)
        what = f"the simulation process {self._simulation.pid} was ended by somebody at {in_seconds(self.at):.3f} s"
        if self._deaths > _DEATHS_MAX:
            rule = f"it was so {self._deaths} times in a row"
            raise OperatorError(what, rule, "look for limits of memory and crashes of libraries, then --resume")
        _LOG.warning("%s; it is restarted from a snapshot or from the journal", what)

    # ------------------------------------------------------------------ snapshots
    def _look_around(self) -> None:
        """After a slice: new paths, and a snapshot if it is worth it. Raises Died."""
        topology = self._simulation.standing.topology
        if topology != self._pictured:
            self.env.registry.mirror(self._simulation.rules())
            self._pictured = topology
        if self._due.is_due and self.settled:
            self._take_snapshot()
        if len(self._inputs) > INPUTS_MAX:
            self._forget_inputs()

    def _take_snapshot(self) -> None:
        begun_s = self._clock.now()
        try:
            copy = self._simulation.fork()
        except OperatorError as error:
            _LOG.warning("%s", error)
            self._due.taken(float("inf"))
            return
        snapshots, gvt = self._snapshots, self._gvt()
        self._end(snapshots.add(copy, gvt))
        if len(snapshots) > 1:
            snapshots[-2].weigh()  # by now it has pages of its own
        while len(snapshots) > 1 and sum(one.bytes for one in snapshots) > SNAPSHOT_BYTES_MAX:
            self._end([snapshots.thin_out()])
        if snapshots[0].at <= gvt or self._inputs.begin > 0:  # else the nursery may still be asked
            self._inputs.forget_below(snapshots[0].at)
        self._due.taken(self._clock.now() - begun_s)

    def _forget_inputs(self) -> None:
        """There are too many: those of the oldest snapshots, or of the nursery."""
        while len(self._inputs) > INPUTS_MAX and len(self._snapshots):
            self._end([self._snapshots.drop_oldest()])
            self._inputs.forget_below(self._snapshots[0].at if len(self._snapshots) else self.lease)
        if len(self._inputs) > INPUTS_MAX:
            self._inputs.forget_below(self.lease)

    def _end(self, simulations: Sequence[Simulation]) -> None:
        for simulation in simulations:
            simulation.end()
