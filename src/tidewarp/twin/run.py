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
from operator import itemgetter
from pathlib import Path
from typing import Any

import simpy

from tidewarp import process, seeds
from tidewarp.codec import Chain, Digest, pack, pack_plain
from tidewarp.connect.contract import Input, Output, Refusal
from tidewarp.connect.documents import TEXT_MAX, text_of
from tidewarp.connect.gate import Grant
from tidewarp.errors import InternalError, ModelError, OperatorError
from tidewarp.process import Environment
from tidewarp.process.rules import shown
from tidewarp.twin.documents import Mark
from tidewarp.units import TICK_MAX, Duration, in_seconds, parse_instant, ticks

__all__ = ["Run", "chain_inputs", "tick_at"]

_SHOWN_INPUTS = 5
_WINDOW_MIN, _WINDOW_MAX = 16, 8_192  # inputs offered to the model at once
_TICK = itemgetter(Input._fields.index("tick"))
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
    records = [
        pack_plain([tick, sources[rank], partition, offset, path, value])
        for tick, rank, partition, offset, changes, *_ in inputs
        for path, value in changes
    ]
    is_one_each = len(records) == len(inputs)
    chain.extend(
        list(map(_TICK, inputs)) if is_one_each else [one.tick for one in inputs for _ in one.changes], records
    )


class Run:
    """Advances an environment through granted inputs and keeps the chains of inputs and outputs.

    ``at``: all instants below this tick are done. ``lease``: how far the grants reach. ``settled``: nothing
    at or above ``at`` has been touched, so a mark may be made here.
    """

    def __init__(
        self, env: Environment, sources: Mapping[int, str], extra: Callable[[], dict[str, Any]] = dict
    ) -> None:
        self.env = env
        env.causality.sources = sources
        self.at = 0
        self.lease = 0
        self.settled = True
        self.failed = False
        self.applied = 0  # inputs
        self.refused = 0  # inputs that the state of the moment forbade
        self.published = 0  # outputs
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
        self._waiting = (*self._waiting[self._next :], *grant.inputs) if self._due < TICK_MAX else grant.inputs
        self._next = 0
        self.lease = grant.floor

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
            self._advance(min(limit, self.lease), events_max)
        except (InternalError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a process may raise anything, SystemExit and GeneratorExit too
            self.failed = True
            raise self._model_error(error) from error
        return self._drain()

    def _advance(self, target: int, events_max: int) -> None:
        end = self.env.events + self.applied + events_max  # an input costs about as much as an event
        while self.at < target and (left := end - self.env.events - self.applied) > 0:
            due = self._due
            goal = min(due, target)
            self.settled = False
            if self.env.run_slice(goal, left) == "budget":
                break
            self.at = goal
            self.settled = True
            if due < target:
                self._apply(target)

    def _model_error(self, error: BaseException) -> ModelError:
        """Where and when the model raised, and what it had been told last."""
        frames = traceback.extract_tb((error.__cause__ or error).__traceback__)  # SimPy raises a copy of the first
        theirs = [frame for frame in frames if Path(frame.filename).parent not in _NOT_THE_AUTHORS] or frames
        place = (
            f"{theirs[-1].name}, {Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else "unknown place"
        )
        inputs = "; ".join(f"{path}={shown(value)}" for one in self._last_inputs for path, value in one.changes)
        said = f"{type(error).__name__}: {text_of(error)}"
        value = f"{said} (in {place}, at {self.env.now:g} s, after inputs {inputs[:TEXT_MAX] or 'none'})"
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

    def _drain(self, below: int = TICK_MAX) -> list[Output]:
        outputs = [one for one in self.env.drain() if one.tick < below]
        records = [
            pack_plain([name, stream, key, value, cause, root, event])
            for name, _, key, value, cause, root, event, stream in outputs
        ]
        self._outputs.extend([one.tick for one in outputs], records)
        self.published += len(outputs)
        return outputs

    def mark(self, *, final: bool = False) -> Mark:
        """The heads of the chains here; with the run digest where the run ends or stops."""
        digest = self.digest() if final else None
        return Mark(self.at, self.env.events, self._inputs.head(), self._outputs.head(), digest)

    def digest(self) -> str:
        """The run digest (TWRUN1): chain of inputs, chain of outputs, state. Hex."""
        digest = Digest("TWRUN1")
        digest.add(self._inputs.head())
        digest.add(self._outputs.head())
        digest.add(pack(self.state()))
        return digest.hexdigest()

    def state(self) -> dict[str, Any]:
        """The state document: tick, events, registry, streams, resources, and what the model adds."""
        return {**self.env.state(), "model": self._extra()}
