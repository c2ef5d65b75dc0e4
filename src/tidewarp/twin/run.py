"""A run: the model in step with its inputs, and the digest of what came of it. No I/O, no clock.

The live host, the recovery and the replay all move a twin through this one class, so "a live run is the
replay of its own journal" is not a promise between three implementations.
"""

from __future__ import annotations

import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import simpy

from tidewarp import process, seeds
from tidewarp.codec import Chain, Digest, pack, pack_plain, unpack
from tidewarp.connect.contract import Input, Output, Refusal
from tidewarp.connect.documents import TEXT_MAX, text_of
from tidewarp.connect.gate import Grant
from tidewarp.errors import InstantOverrun, InternalError, ModelError, OperatorError
from tidewarp.process import Environment
from tidewarp.process.cuts import saved
from tidewarp.process.rules import shown
from tidewarp.twin.cuts import Cut
from tidewarp.twin.documents import Checkpoint, Mark
from tidewarp.twin.guard import Unguarded
from tidewarp.units import TICK_MAX, Duration, in_seconds, parse_instant, ticks

__all__ = ["Run", "Standing", "chain_inputs", "tick_at"]

_SHOWN_INPUTS = 5
_WHOLE_INSTANT = 1 << 40  # events
_WINDOW_MIN, _WINDOW_MAX = 16, 8_192  # inputs offered to the model at once
_INPUT_TICK, _RANK, _PARTITION, _OFFSET, _CHANGES = (
    itemgetter(Input._fields.index(name)) for name in ("tick", "rank", "partition", "offset", "changes")
)
_FIRST, _SECOND = itemgetter(0), itemgetter(1)
_TICK = itemgetter(Output._fields.index("tick"))
_RECORD = itemgetter(
    *(Output._fields.index(name) for name in ("id", "stream", "key", "value", "cause", "root", "event"))
)
"""What the chain of outputs takes in of one; its tick is in the id."""
_NOT_THE_AUTHORS = {Path(str(file)).parent for file in (__file__, process.__file__, seeds.__file__, simpy.__file__)}


def tick_at(when: Duration | datetime, epoch_ns: int) -> int:
    """The tick of a virtual time, or of an aware datetime for a twin with this epoch (Unix ns)."""
    if not isinstance(when, datetime):
        return ticks(when)
    if when.tzinfo is None:
        raise OperatorError(f"{when!r}", "an instant needs a time zone", "give tzinfo=datetime.UTC")
    tick = parse_instant(when.isoformat(), UTC) - epoch_ns
    if not -TICK_MAX <= tick < TICK_MAX:
        raise OperatorError(f"{when}", "time is int64 nanoseconds: at most about 292 years", "give a nearer time")
    return tick


def chain_inputs(chain: Chain, sources: Mapping[int, str], inputs: Sequence[Input]) -> None:
    """Add inputs to the chain of inputs: one record for each path that they set. ``sources``: rank -> name."""
    if not inputs:
        return
    changes = list(map(_CHANGES, inputs))
    if max(map(len, changes)) == 1:  # most set one path
        pairs = list(map(_FIRST, changes))
        when = list(map(_INPUT_TICK, inputs))
        names = map(sources.__getitem__, map(_RANK, inputs))
        places = (map(_PARTITION, inputs), map(_OFFSET, inputs))  # zip(*inputs) would make an iterator of each
        rows = zip(when, names, *places, map(_FIRST, pairs), map(_SECOND, pairs), strict=True)
        chain.extend(when, list(map(pack_plain, rows)))
    else:
        records = [
            pack_plain([one.tick, sources[one.rank], one.partition, one.offset, path, value])
            for one in inputs
            for path, value in one.changes
        ]
        chain.extend([one.tick for one in inputs for _ in one.changes], records)


class Standing(NamedTuple):
    """Where a run stands between two slices: all that a host in another process has to know. As of :class:`Run`."""

    at: int
    settled: bool
    failed: bool
    next_tick: int
    stop_tick: int
    applied: int
    refused: int
    published: int
    events: int
    undeliverable: int
    ahead: int
    now: float  # s, of the environment
    topology: int  # of the registry: another number, other paths
    behind: int
    cuts: int  # that nobody has taken yet
    last_id: str  # of the last output; its tick may be ``at``: that is its time, rounded


Extra = Callable[[], dict[str, Any]]
Again = Callable[[dict[str, Any], str], tuple[Environment, Extra]]
"""The model built anew from the document of a cut, behind the output of this id: its environment and its ``extra``."""


class Run:
    """Advances an environment through granted inputs and keeps the chains of inputs and outputs.

    ``at``: all instants below this tick are done. ``lease``: how far the grants reach. ``settled``: but for the first
    ``ahead`` inputs there, which no other can come before, nothing
    at or above ``at`` has been touched, so a mark may be made here.
    """

    def __init__(
        self,
        env: Environment,
        sources: Mapping[int, str],
        extra: Extra = dict,
        again: Again | None = None,
    ) -> None:
        self.env = env
        env.causality.sources = sources
        self.at = 0
        self.lease = 0
        self.settled = True
        self.ahead = 0
        self.failed = False
        self.applied = 0  # inputs
        self.refused = 0  # inputs that the state of the moment forbade
        self.published = 0  # outputs
        self.guard = Unguarded()  # around the model's code
        self.cuts: list[Cut] = []  # since they were taken last
        self.cuts_from = TICK_MAX  # nobody wants them up to this tick
        self.again = again
        self.behind = 0  # what lies below this tick is in the cut from which it goes on
        self._early: list[Output] = []  # outputs that no step has given yet
        self._last_id = ""  # of the last output
        self._last_inputs: deque[Input] = deque(maxlen=_SHOWN_INPUTS)  # what an error message shows
        self._sources = sources
        self._extra = extra
        self._waiting: Sequence[Input] = ()  # granted, ascending
        self._next = 0  # the first of them that is not applied
        self._window = _WINDOW_MIN
        self._inputs = Chain()
        self._outputs = Chain()

    def grant(self, grant: Grant) -> None:
        """Take over a lease with its inputs."""
        inputs = grant.inputs
        if inputs and inputs[0].tick < self.behind:
            inputs = inputs[bisect_left(inputs, (self.behind,)) :]
        self._waiting = (*self._waiting[self._next :], *inputs) if self._due < TICK_MAX else inputs
        self._next = 0
        self.lease = grant.floor

    @property
    def events(self) -> int:
        """Events that the environment has processed."""
        return self.env.events

    @property
    def undeliverable(self) -> int:
        """Publications whose value had no canonical form."""
        return self.env.undeliverable

    def standing(self) -> Standing:
        """Where it stands, for a host in another process."""
        return Standing(
            self.at,
            self.settled,
            self.failed,
            self.next_tick,
            self.stop_tick,
            self.applied,
            self.refused,
            self.published,
            self.events,
            self.undeliverable,
            self.ahead,
            self.env.now,
            self.env.registry.topology,
            self.behind,
            len(self.cuts),
            self._last_id,
        )

    def forget(self) -> None:
        """Give back what is granted and not applied, and the lease: for a copy that is granted anew."""
        self._waiting, self._next, self.lease = (), 0, self.at

    def close(self) -> None:
        """Nothing: one in a process of its own has more to do."""

    @property
    def _due(self) -> int:
        """Tick of the next input; TICK_MAX if none is granted."""
        return self._waiting[self._next].tick if self._next < len(self._waiting) else TICK_MAX

    @property
    def next_tick(self) -> int:
        """When something happens next: an input or an event of the model; TICK_MAX if nothing does."""
        event_s = self.env.peek()
        event = ticks(event_s) if event_s < in_seconds(TICK_MAX) else TICK_MAX
        return max(self.at, min(event, self._due))

    @property
    def stop_tick(self) -> int:
        """The nearest tick where the run can stop: above everything that has happened."""
        if self.settled:
            return self.at
        tick = max(self.at, ticks(self.env.now))
        while in_seconds(tick) <= self.env.now:
            tick += 1
        return min(tick, self.lease)  # above 104 days the end of a lease may be the same float: no instant is between

    def refuse_failed(self) -> None:
        """Raise ModelError if the model has raised before."""
        if self.failed:
            raise ModelError("this twin", "its model raised, so its state is torn", "open its journal again")

    def step(self, limit: int, events_max: int) -> list[Output]:
        """Go on towards ``min(limit, lease)``, for about ``events_max`` events; the outputs of it, ascending.

        Raises:
            ModelError: a process of the model raised. The run is of no further use: its present instant is torn.
        """
        self.refuse_failed()
        try:
            with self.guard:
                self._advance(min(limit, self.lease), events_max)
            if self.guard.broken is not None:  # and the model caught the error
                raise self.guard.broken
        except (InternalError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a process may raise anything, SystemExit and GeneratorExit too
            self.failed = True
            if self.guard.broken is not None:
                raise self.guard.broken from None
            raise self._model_error(error) from error
        return self._drain()

    def _advance(self, target: int, events_max: int) -> None:
        end = self.env.events + self.applied + events_max  # an input costs about as much as an event
        while self.at < target and (left := end - self.env.events - self.applied) > 0:
            due = self._due
            goal = min(due, target)
            self.settled, self.ahead = False, 0
            ended = self.env.run_slice(goal, left)
            if ended == "cut":
                self._cut()
            if ended in ("budget", "cut"):
                break
            if goal == TICK_MAX:  # nobody says how far: it stands behind the last event
                self.at, self.settled = self.stop_tick, True
                self.env.run_slice(self.at)
                break
            self.at = goal
            self.settled = True
            if due < target:
                self._apply(target)
        while self.settled and self._due == self.at == self.lease:
            before = self.applied
            self._apply(self.at + 1)
            self.settled = True
            self.ahead += self.applied - before

    def _model_error(self, error: BaseException) -> ModelError:
        """Where and when the model raised, what made it happen, and what it had been told last."""
        frames = traceback.extract_tb((error.__cause__ or error).__traceback__)  # SimPy raises a copy of the first
        theirs = [frame for frame in frames if Path(frame.filename).parent not in _NOT_THE_AUTHORS]
        theirs = [] if isinstance(error, InstantOverrun) else theirs or frames  # that one names the process itself
        place = f"in {theirs[-1].name}, {Path(theirs[-1].filename).name}:{theirs[-1].lineno}, " if theirs else ""
        inputs = "; ".join(f"{path}={shown(value)}" for one in self._last_inputs for path, value in one.changes)
        said = f"{type(error).__name__}: {text_of(error)}"
        cause, root = self.env.causality.resolved(self.env.causality.failed)
        caused = f"caused by {cause}, " if cause in ("", root) else f"caused by {cause} of {root}, "
        why = f"{caused if cause else ''}after inputs {inputs[:TEXT_MAX] or 'none'}"
        value = f"{said} ({place}at {self.env.now:g} s, {why})"
        return ModelError(
            value,
            "a model's process must not raise",
            "mend the model, then begin a new journal, or go on with this one: --resume --accept-model (accept_model=True)",
        )

    def _apply(self, target: int) -> None:
        """The inputs that are due, and those behind them below ``target`` up to the next event of the model.

        They are offered in windows: where each input wakes the model, all the others would be copied for each.
        """
        end = bisect_left(self._waiting, (target,), lo=self._next)
        inputs = self._waiting[self._next : min(end, self._next + self._window)]
        refusals: list[Refusal] = []
        self.settled = False
        applied = inputs[: self.env.apply_ahead(inputs, refusals)]
        self._window = min(4 * self._window, _WINDOW_MAX) if len(applied) == len(inputs) else _WINDOW_MIN
        chain_inputs(self._inputs, self._sources, applied)
        self._last_inputs.extend(applied[-_SHOWN_INPUTS:])
        self.at = applied[-1].tick
        self._next += len(applied)
        self.applied += len(applied)
        self.refused += len(refusals)

    def salvage(self) -> list[Output]:
        """After a failure: the outputs of the instants that were completed; ``at`` moves up to the torn one."""
        tick = ticks(self.env.now)
        while in_seconds(tick) > self.env.now:
            tick -= 1
        self.at = max(self.at, tick)
        return self._drain(below=self.at)

    # ------------------------------------------------------------------ cuts
    def _cut(self) -> None:
        """Go on from a document of what is here, as a life does that begins there."""
        self._early = self._drain()
        env, tick = self.env, ticks(self.env.now)
        while in_seconds(tick) <= env.now:
            tick += 1
        data = pack({"environment": saved(env), **self._extra()})
        heads = self._inputs.head(), self._outputs.head()
        counts = self.applied, self.refused, self.published
        reference = sha256(data).hexdigest()
        cut = Cut(Checkpoint(tick, env.events, *heads, *counts, self._last_id, reference), data)
        if tick > self.cuts_from:
            self.cuts.append(cut)
        self._go_on(cut)

    def _go_on(self, cut: Cut) -> None:
        if self.again is None:
            raise ModelError("twin.cut()", "this run has no twin that could build its model anew", "open it as a twin")
        paths = self.env.registry.topology
        self.env, self._extra = self.again(unpack(cut.data), cut.checkpoint.last_id)
        self.env.causality.sources = self._sources
        self.env.registry.topology += paths  # who looks at it learns that these are others
        self._inputs = Chain(head=cut.checkpoint.inputs, count=self._inputs.count)
        self._outputs = Chain(head=cut.checkpoint.outputs, count=self._outputs.count)

    def restore(self, cut: Cut) -> list[Output]:
        """Begin here, in a run in which nothing has happened; the outputs of the rest of its instant.

        Inputs that are granted and lie before the cut are left out from now on. Raises ModelError.
        """
        at = cut.checkpoint
        self._go_on(cut)
        self.applied, self.refused, self.published, self._last_id = at.applied, at.refused, at.published, at.last_id
        self.behind = self.lease = at.tick
        self.at, self.settled = at.tick - 1, False
        return self.step(at.tick, _WHOLE_INSTANT)

    def take_cuts(self) -> list[Cut]:
        """The cuts since the last call, above tick ``cuts_from``."""
        cuts, self.cuts = self.cuts, []
        return cuts

    def _drain(self, below: int = TICK_MAX) -> list[Output]:
        outputs = self.env.drain()
        if outputs and outputs[-1].tick >= below:
            del outputs[bisect_left(outputs, below, key=_TICK) :]
        self._outputs.extend(list(map(_TICK, outputs)), list(map(pack_plain, map(_RECORD, outputs))))
        self.published += len(outputs)
        if outputs:
            self._last_id = outputs[-1].id
        early, self._early = self._early, []
        if early and early[-1].tick >= below:  # of an instant whose cut failed
            del early[bisect_left(early, below, key=_TICK) :]
        return [*early, *outputs] if early else outputs

    def mark(self, *, final: bool = False) -> Mark:
        """The heads of the chains here; with the run digest where the run ends or stops."""
        digest = self.digest() if final else None
        return Mark(self.at, self.env.events, self._inputs.head(), self._outputs.head(), digest, self.ahead)

    def digest(self) -> str:
        """The run digest (TWRUN1): chain of inputs, chain of outputs, state. Hex."""
        digest = Digest("TWRUN1")
        digest.add(self._inputs.head())
        digest.add(self._outputs.head())
        digest.add(pack(self.state()))
        return digest.hexdigest()

    def state(self) -> dict[str, Any]:
        """The state document: tick, events, registry, streams, resources, and what the model adds."""
        with self.guard:
            added = self._extra()
        return {**self.env.state(), "model": added}
