"""A SimPy environment that a host can drive in slices and feed with journaled inputs.

A plain SimPy model runs on it event for event as on ``simpy.Environment``: nothing of ours is ever scheduled
into the model's queue. Added are slices, inputs between instants, encoded outputs, random streams and a
document of the state. An *instant* is all events of one time.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal

import simpy
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import NORMAL, URGENT, Event, EventPriority, Initialize, Process, ProcessGenerator, Timeout

from tidewarp import units
from tidewarp.connect.contract import Input, Output, Refusal
from tidewarp.errors import InstantOverrun, InternalError, ModelError
from tidewarp.process.causality import NO_ORIGIN, Causality, makers
from tidewarp.process.cuts import CutDue
from tidewarp.process.outputs import Outputs
from tidewarp.process.registry import Complaint, SimulationRegistry
from tidewarp.process.sampler import Sampler
from tidewarp.seeds import Stream

if TYPE_CHECKING:
    from tidewarp.process.buffers import Buffer
    from tidewarp.process.resources import DynamicResource

__all__ = ["INSTANT_EVENTS_MAX", "SLICE_OUTPUTS_MAX", "Environment"]

INSTANT_EVENTS_MAX: Final = 1_000_000
"""Events that one instant may have."""
SLICE_OUTPUTS_MAX: Final = 2_000
"""Outputs after which a slice with a budget ends, at the end of their instant: they wait in memory until it does."""
_NO_BUDGET: Final = 1 << 62
_FOREVER: Final = math.nan  # no time lies at or above it, not even infinity
_RUN: Final = simpy.Environment.run.__code__
_new_event, _new_process = Initialize.__new__, Process.__new__


class Environment(simpy.Environment):
    """``initial_time`` is float seconds >= 0; ``seed`` names the random streams; ``epoch_ns`` is tick 0 as Unix ns.

    Attributes:
        registry: the values of this environment.
        events: events processed so far, the one in hand included; not raised by a pause of ``run(until)``.
        writable: may the registry be changed now? While building, and while events or inputs are processed.
        resources: the resources, containers and stores by path.

    Start processes with :meth:`process`: one made as ``simpy.Process`` is not kept alive.
    """

    def __init__(self, initial_time: float = 0, *, seed: int = 0, epoch_ns: int = 0) -> None:
        if not 0 <= initial_time < math.inf:
            raise ModelError(f"initial_time {initial_time!r}", "time begins at 0 s or later", "move the epoch instead")
        super().__init__(initial_time)
        self.causality = Causality()
        self._current = self.causality.current
        # SimPy binds these early only for its own class; every subclass silently pays a descriptor call per event.
        for name in ("event", "all_of", "any_of"):
            setattr(self, name, getattr(self, name))
        self._schedule, timeout = makers(self, self._current)
        if type(self).schedule is _SCHEDULE:  # else somebody has put his own there
            self.schedule = self._schedule  # type: ignore[method-assign]
            if type(self).timeout is _TIMEOUT:
                self.timeout = timeout  # type: ignore[method-assign]
        self._outputs = Outputs()
        self._publish = self._outputs.publisher(self)
        if type(self).publish_event is _PUBLISH:
            self.publish_event = self._publish  # type: ignore[method-assign]
        self.seed = seed
        self.epoch_ns = epoch_ns
        self.events = 0
        self.sealed = False
        self.writable = True
        self.cutting = False  # has a cut been asked for in this instant?
        self.cut_at: float | None = None  # time of the cut from which this environment goes on
        self.resources: dict[str, DynamicResource | Buffer] = {}
        self.registry = SimulationRegistry(self)
        self._streams: dict[str, Stream] = {}
        self._samplers: dict[str, Sampler] = {}
        # A process that waits for an event nobody else holds is a cycle of garbage: the collector would close its
        # generator, and run its `finally`, at a moment that depends on memory. So each is held until it ends.
        self._live: set[Process] = set()
        self._hold, self._let_go = self._live.add, self._live.discard  # bound once: many processes are short

    @property
    def tick(self) -> int:
        """The clock in ticks (ns)."""
        return units.ticks(float(self._now))

    @property
    def undeliverable(self) -> int:
        """Publications whose value had no canonical form."""
        return self._outputs.undeliverable

    @property
    def cause(self) -> str | None:
        """Id of the input, process or publication that made what runs now happen; None if nothing runs."""
        return self.causality.now()[0] or None

    @property
    def root(self) -> str | None:
        """Id of the first cause: an input, or a process that was started while nothing ran; None if nothing runs."""
        return self.causality.now()[1] or None

    def schedule(self, event: Event, priority: EventPriority = NORMAL, delay: float = 0) -> None:
        """Schedule ``event`` after ``delay`` seconds, as SimPy does. For subclasses: an object has a faster one."""
        self._schedule(event, priority, delay)

    def timeout(self, delay: float = 0, value: Any = None) -> Timeout:
        """An event after ``delay`` seconds >= 0, as SimPy's; NaN is refused. For subclasses, as :meth:`schedule`."""
        if not delay >= 0:
            raise ValueError(f"Negative delay {delay}")
        return Timeout(self, delay, value)

    def process(self, generator: ProcessGenerator) -> Process:
        """Start ``generator`` as a process, and hold it until it ends."""
        is_root = self._current[0] is NO_ORIGIN
        if is_root:
            self.causality.begin(generator)
        try:
            process = self._started(generator)
        finally:
            if is_root:
                self._current[0] = NO_ORIGIN
        self._hold(process)
        process.callbacks.append(self._let_go)
        return process

    def _started(self, generator: ProcessGenerator) -> Process:
        """As ``Process(self, generator)``, its two constructors written out: a line starts a process for each job."""
        if not hasattr(generator, "throw"):
            return Process(self, generator)  # refuses it
        process = _new_process(Process)
        process.env = self
        process.callbacks = []
        process._generator = generator
        process._target = begin = _new_event(Initialize)
        begin.env = self
        begin.callbacks = [process._resume]
        begin._value = None
        begin._ok = True
        self.schedule(begin, URGENT)
        return process

    def stream(self, name: str) -> Stream:
        """The random stream of this name; its place in the sequence is part of the state."""
        if name not in self._streams:
            self._streams[name] = Stream(self.seed, name)
        return self._streams[name]

    def sampler(self, name: str) -> Sampler:
        """The sampler on the random stream of this name; the same object for the same name."""
        sampler = self._samplers.get(name)
        if sampler is None:
            sampler = self._samplers[name] = Sampler(self.stream(name))
        return sampler

    def seal(self) -> None:
        """The model is built: from here on only inputs and the model itself change values. Slices and inputs seal too."""
        self.sealed = True
        self.writable = False

    def step(self) -> None:
        """Process one event, as SimPy does, and count it. SimPy's ``run`` is given all the steps at once.

        Raises:
            EmptySchedule: there is no event.
            Exception: a failed event that nobody handled, as in SimPy.
        """
        # `run` itself is not overridden: a frame of ours would stand in the traceback of every failure. What takes
        # the place of `step` (a tracer, a subclass) is no such caller, and gets its one event per call.
        is_run = _is_called_by_run(inspect.currentframe())
        if not self._queue:
            raise EmptySchedule
        writable, self.writable = self.writable, True
        try:
            if is_run:
                self._process_before(_FOREVER, _NO_BUDGET, fail=self._fail_in_run)
            else:
                self._process_one()
        finally:
            self.writable = writable
            self._current[0] = NO_ORIGIN

    def _process_one(self) -> None:
        self.events += 1
        event = self._queue[0][3]
        event.callbacks = [each for callback in event.callbacks for each in (self._make_current, callback)]
        try:
            super().step()
        except StopSimulation:
            self.events -= 1  # what is left of the event was put back
            raise

    def _make_current(self, event: Event) -> None:
        self._current[0] = getattr(event, "_origin", NO_ORIGIN)

    def _fail_in_run(self, event: Event) -> None:
        """Leave the failure to SimPy's ``step``, next called by SimPy's ``run``: the traceback is the one users know."""
        if _copy(event._value) is event._value:
            raise event._value  # SimPy could not make its copy either
        event.callbacks = [self._restore_step]
        heappush(self._queue, (self._now, EventPriority(-1), -1, event))  # before all others; no number is used up
        self.step = super().step  # type: ignore[method-assign]  # for one call, on this object

    def _restore_step(self, _: Event) -> None:
        del self.step

    def run_slice(self, limit_tick: int, events_max: int | None = None) -> Literal["limit", "budget", "empty", "cut"]:
        """Process all events before ``limit_tick`` (ns, exclusive), or stop after the instant that spends
        ``events_max`` (then SLICE_OUTPUTS_MAX outputs are too many as well).

        Where a slice ends has no influence on the model. "limit": the next event is not before the limit; "empty": there
        is none; in both cases the clock then stands at the limit, or stays where it is if that is later or TICK_MAX. "budget":
        there may be more to do before the limit. "cut": an instant is over at whose end the run is cut (see ``cuts``): this
        environment is of no further use. A stop that was meant for ``run(until)`` does not stop a slice.

        Raises:
            InstantOverrun: more than INSTANT_EVENTS_MAX events at one time.
            Exception: a failed event that nobody handled, as in SimPy.
        """
        if events_max is not None and events_max < 1:
            raise InternalError(f"budget of {events_max} events", "a slice processes at least one", "report this")
        limit = units.in_seconds(limit_tick)
        self.seal()
        self.writable = True
        try:
            spent = self._slice(limit, self.events + (_NO_BUDGET if events_max is None else events_max))
        except CutDue:
            return "cut"
        except BaseException:
            self.causality.failed = self._current[0]
            raise
        finally:
            self.writable = False
            self._current[0] = NO_ORIGIN
        if spent:
            return "budget"
        if self._now < limit and limit_tick < units.TICK_MAX:
            self._now = limit
        return "limit" if self._queue else "empty"

    def _slice(self, limit: float, events_end: int) -> bool:
        now: float | None = None
        while True:
            try:
                return self._process_before(limit, events_end, now)
            except StopSimulation:
                now = self._now  # still in this instant

    def _process_before(
        self, limit: float, events_end: int, now: float | None = None, fail: Callable[[Event], None] | None = None
    ) -> bool:
        """The hot loop: SimPy's ``step`` written out, with a limit. True: ended by the count of events or of outputs."""
        queue, current = self._queue, self._current
        outputs: Sequence[Output] = self._outputs.held if events_end < _NO_BUDGET else ()
        outputs_end = len(outputs) + SLICE_OUTPUTS_MAX
        done = self.events
        overrun = done + INSTANT_EVENTS_MAX
        event: Any = None
        resumed: Any = ()
        while queue:
            at = queue[0][0]
            if at != now:
                if at >= limit:
                    return False
                if done >= events_end or len(outputs) >= outputs_end:
                    return True
                now = at
                overrun = done + INSTANT_EVENTS_MAX
            elif done >= overrun:
                raise _overrun(at, event, resumed)
            event = heappop(queue)[3]
            self._now = at
            done += 1
            self.events = done
            resumed = event.callbacks
            event.callbacks = None
            try:
                origin = event._origin
            except AttributeError:  # somebody put it into the queue with his own hands
                origin = NO_ORIGIN
            try:
                for callback in resumed:
                    current[0] = origin  # the one before may have published
                    callback(event)
            except StopSimulation:
                event.callbacks = resumed[resumed.index(callback) + 1 :]
                current[0] = origin
                self.schedule(event, EventPriority(-1))
                self.events = done - 1
                raise
            if not event._ok and not hasattr(event, "_defused"):
                if fail is None:
                    current[0] = origin  # who failed may have had no callbacks
                    raise _copy(event._value)
                fail(event)
                return False
        return False

    def apply(self, inputs: Sequence[Input]) -> list[Refusal]:
        """Move the clock to the inputs' one tick and apply each of them, in order, all or nothing.

        An input that the state of the moment forbids changes nothing, is returned and is published as
        ``system.input.refused``: the refusal is part of the run.

        Raises:
            InternalError: the inputs have several ticks, or an event before their tick is not processed yet.
        """
        if any(given.tick != inputs[0].tick for given in inputs):
            raise InternalError("inputs of several ticks", "one call is one instant", "report this")
        refusals: list[Refusal] = []
        self.apply_ahead(inputs, refusals)
        return refusals

    def apply_ahead(self, inputs: Sequence[Input], refusals: list[Refusal]) -> int:
        """Apply ``inputs``, ascending, as :meth:`apply` does, up to the next event of the model; how many they were.

        Each tick is an instant of its own: an input whose consequences are scheduled at its tick ends the series, but
        for further inputs of that tick. What is refused is added to ``refusals``.

        Raises:
            InternalError: the first one lies before the clock, or an event before it is not processed yet.
        """
        if not inputs:
            return 0
        first = units.in_seconds(inputs[0].tick)
        if first < self._now or self.peek() < first:
            raise InternalError(
                f"input at {inputs[0].tick}", "inputs are applied between instants, in order of time", "report this"
            )
        self.seal()
        queue, registry = self._queue, self.registry
        done = 0
        self.writable = True
        try:
            while done < len(inputs):
                quiet = registry.take_quiet(inputs, done, queue[0][0] if queue else math.inf)
                if quiet > done:
                    done = quiet
                    self._now = inputs[done - 1].tick / units.TICKS_PER_SECOND
                    continue
                given = inputs[done]
                at = given.tick / units.TICKS_PER_SECOND
                if queue and queue[0][0] < at:
                    break
                self._now = at
                self._current[0] = given
                done += 1
                changes = given.changes
                if len(changes) == 1:  # most are one float
                    path, value = changes[0]
                    if (variable := registry.free.get(path)) is not None and variable.take(value):
                        continue
                complaint = registry.change(changes)
                if complaint is not None:
                    refusals.append(self._refused(given, complaint))
        finally:
            self._current[0] = NO_ORIGIN
            self.writable = False
        return done

    def _refused(self, given: Input, complaint: Complaint) -> Refusal:
        refusal = Refusal(given, complaint[0], str(complaint[1]))
        self.publish_event(
            "system.input.refused",
            {
                "path": refusal.path,
                "reason": refusal.reason,
                "rank": given.rank,
                "partition": given.partition,
                "offset": given.offset,
            },
        )
        return refusal

    def publish_event(self, key: str, value: object, stream: str = "event") -> str:
        """Publish ``value`` under ``key`` at the present tick; the id of the output. ``stream``: as :meth:`publish_telemetry` sets it.

        The value is encoded here, so later changes of the object have no effect. One without a canonical form is not
        the model's end: a note with its type takes its place and is counted in ``undeliverable``.

        Raises:
            ModelError: ``key`` is not 1 to 255 printable ASCII characters.
            InstantOverrun: more than OUTPUTS_MAX outputs in one tick.
        """
        return self._publish(key, value, stream)

    def publish_telemetry(self, path_id: str, value: object) -> str:
        """Publish ``value`` as a measurement of ``path_id``, on the stream "telemetry"; else as :meth:`publish_event`."""
        return self.publish_event(path_id, value, "telemetry")

    def _numpy_counts(self) -> dict[str, int]:
        """Words drawn from the samplers' Generators, where one was asked for."""
        counts = {f"{name}/numpy": self._samplers[name].rng_count for name in sorted(self._samplers)}
        return {name: count for name, count in counts.items() if count}

    def drain(self) -> list[Output]:
        """The outputs since the last call, in order. Hosts call it after every slice."""
        return self._outputs.drain()

    def state(self) -> dict[str, Any]:
        """The state as a document that :func:`codec.pack` takes; equal states give equal documents."""
        return {
            "tick": self.tick,
            "events": self.events,
            "registry": self.registry.state(),
            "streams": {name: self._streams[name].count for name in sorted(self._streams)} | self._numpy_counts(),
            "resources": {path: self.resources[path].state() for path in sorted(self.resources)},
        }


_SCHEDULE, _TIMEOUT, _PUBLISH = Environment.schedule, Environment.timeout, Environment.publish_event


def _is_called_by_run(frame: FrameType | None) -> bool:
    """Was the function of this frame called by SimPy's ``run``? (A frame in its own locals would be a cycle of garbage.)"""
    return frame is not None and frame.f_back is not None and frame.f_back.f_code is _RUN


def _copy(error: BaseException) -> BaseException:
    """As SimPy does, so that the original keeps the traceback of the process. A class that cannot be made again from
    its ``args`` (``json.JSONDecodeError``) would hide the error behind one of its own: then the original itself.
    """
    try:
        failure = type(error)(*error.args)
    except Exception:
        return error
    failure.__cause__ = error
    return failure


def _line(process: Process) -> str:
    """Where its generator stands, for people; "" where nobody can say."""
    frame = getattr(process._generator, "gi_frame", None)
    return "" if frame is None else f" ({frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno})"


def _overrun(at: float, event: Event | None, resumed: Sequence[Callable[[Any], None]]) -> InstantOverrun:
    """Name the process that the last event resumed, interrupted, or ended."""
    owners = [*(getattr(callback, "__self__", None) for callback in resumed), getattr(event, "process", None), event]
    process = next((owner for owner in owners if isinstance(owner, Process)), None)
    name = type(event).__name__ if process is None else f"{process.name}{_line(process)}"
    return InstantOverrun(
        f"{INSTANT_EVENTS_MAX} events at {at} s, the last of process {name}",
        "time moves on after finitely many events",
        "look in it for a loop that waits for nothing, or for 0 s",
    )
