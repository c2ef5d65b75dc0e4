"""A digital twin in step with its physical side: a session over a Time Warp engine, and federations of such sessions."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from tidewarp.clocks.drift import DriftAutoCorrector, DriftCorrection
from tidewarp.clocks.logical import checked_int
from tidewarp.codec import pack_document
from tidewarp.errors import CheckpointRefused, CodecError, LateInput, OperatorError, RangeError, TidewarpError
from tidewarp.kernel.node_events import check_input, mode_of
from tidewarp.kernel.node_runtime import Handler
from tidewarp.kernel.nodes import EventType, SyncMode, TimeWarpEngine, TwinEvent
from tidewarp.kernel.trace import Output
from tidewarp.kernel.values import pack_value, unpack_value
from tidewarp.twin.divergence import DivergenceMetric, checked_number
from tidewarp.units import TICK_MIN

__all__ = ["PHYSICAL", "SessionSnapshot", "TwinEndpoint", "TwinFederation", "TwinSession"]

PHYSICAL = -1
"""The source number of the physical world."""

LATE = ("repair", "clamp", "drop")
BEYOND = ("stop", "clamp", "drop")


class TwinSession:
    """Physical events in, the twin's outputs out; all times are virtual ns.

    ``mode`` and every other keyword are those of :class:`~tidewarp.kernel.nodes.TimeWarpEngine`. A divergence of
    ``max_divergence`` and more is out of tolerance.

    An event before ``session_time_ns`` is late: ``late`` says "repair" (roll back), "clamp" (to now) or "drop". One that the engine
    cannot take any more follows ``beyond``: "stop" (the error), "clamp" (to the first possible time) or "drop". All are counted.
    With ``horizon_ns`` repairs reach so far back and no further: what is older is committed by each ``advance``, and its
    outputs are released. Without it nothing is committed until ``engine.fossil_collect`` is called.

    ``drift`` corrects the map from physical to virtual time (``clock_offset_ns``) in ``synchronize``; ``journal`` gets each
    correction as the bytes of a ``tw.drift/1`` document.

    Raises:
        OperatorError: a policy that there is not. RangeError: a ``max_divergence`` that is no number >= 0. Otherwise as the engine.
    """

    def __init__(
        self,
        num_nodes: int,
        mode: SyncMode = SyncMode.OPTIMISTIC,
        max_divergence: float = 1.0,
        *,
        late: str = "repair",
        beyond: str = "stop",
        horizon_ns: int | None = None,
        drift: DriftAutoCorrector | None = None,
        journal: Callable[[bytes], None] | None = None,
        **engine_options: Any,
    ) -> None:
        if late not in LATE or beyond not in BEYOND:
            raise OperatorError(
                f"late {late!r}, beyond {beyond!r}",
                f"late is one of {', '.join(LATE)}, beyond one of {', '.join(BEYOND)}",
                "choose one of them",
            )
        self.num_nodes = num_nodes
        self.mode = mode_of(mode)
        self.max_divergence = checked_number("max_divergence", max_divergence, 0, finite=False)
        self.late = late
        self.beyond = beyond
        self.horizon_ns = None if horizon_ns is None else checked_int("horizon_ns", horizon_ns)
        self.drift = drift
        self.journal = journal
        self.engine = TimeWarpEngine(num_nodes, mode=self.mode, **engine_options)
        self.divergence = DivergenceMetric(tolerance=self.max_divergence)
        self.running = False
        self.stopped = False
        self.clock_offset_ns = 0
        self.physical_events_in = 0
        self.late_events = 0
        self.clamped_events = 0
        self.dropped_events = 0

    @property
    def session_time_ns(self) -> int:
        """How far the digital side has come: its largest local virtual time."""
        return self.engine.now_ns

    @property
    def digital_events_out(self) -> int:
        """Outputs that were released, because GVT has passed the events that emitted them."""
        return self.engine.ledger.released

    def start(self) -> None:
        """Let the twin advance."""
        self.running, self.stopped = True, False

    def stop(self) -> None:
        """Let it advance no more and take no input, until it is started again."""
        self.running, self.stopped = False, True

    def inject_physical_event(self, spike_time_ns: int, neuron_id: int, target_node: int = 0) -> bool:
        """Give a spike of the physical side, at its own time, to a node; False: dropped or shed, and counted.

        Raises:
            RangeError, UnknownDestination: as ``TimeWarpEngine.inject_event``.
            OperatorError: the session was stopped.
            LateInput: the engine cannot take it any more, and ``beyond`` is "stop".
        """
        time = checked_int("spike_time_ns", spike_time_ns) + self.clock_offset_ns
        neuron = checked_int("neuron_id", neuron_id)
        event = TwinEvent(
            max(0, time),
            event_type=EventType.SENSOR_INPUT,
            source_node=PHYSICAL,
            target_node=target_node,
            payload={"neuron_id": neuron},
        )
        taken = self.inject_event(event)
        self.physical_events_in += taken
        return taken

    def inject_event(self, event: TwinEvent) -> bool:
        """Give any event, under the policies for late ones.

        Raises:
            RangeError, UnknownDestination, OperatorError, LateInput: as :meth:`inject_physical_event`.
        """
        check_input(event)
        if self.stopped:
            raise OperatorError(
                f"an event at {event.virtual_time_ns} ns", "a session takes no input after stop()", "start it again"
            )
        now_ns = self.session_time_ns
        if event.virtual_time_ns < now_ns:
            self.late_events += 1
            if self.late == "drop":
                self.dropped_events += 1
                return False
            if self.late == "clamp":
                self._clamp(event, now_ns)
        try:
            return self.engine.inject_event(event)
        except LateInput:
            if self.beyond == "stop":
                raise
        if self.beyond == "drop":
            self.dropped_events += 1
            return False
        self._clamp(event, self.engine.earliest_input_ns(event.source_node, event.target_node))
        return self.engine.inject_event(event)

    def _clamp(self, event: TwinEvent, time_ns: int) -> None:
        event.virtual_time_ns = time_ns
        self.clamped_events += 1

    def advance(self, steps: int = 1, *, before_ns: int | None = None) -> int:
        """Execute up to ``steps`` events before ``before_ns``; returns how many.

        Raises:
            OperatorError: the session is not running.
            ModelError: as ``TimeWarpEngine.process_next``.
        """
        if not self.running:
            raise OperatorError(
                "advance() of a session that is not running", "it runs from start() to stop()", "start it"
            )
        done = 0
        for _ in range(checked_int("steps", steps)):
            if self.engine.process_next(before_ns=before_ns) is None:
                break
            done += 1
        if self.horizon_ns is not None:
            self._settle_beyond(self.horizon_ns)
        return done

    def _settle_beyond(self, horizon_ns: int) -> None:
        settled_ns = self.session_time_ns - horizon_ns
        if settled_ns > self.engine.inbox.watermark_of(PHYSICAL):
            self.engine.watermark(PHYSICAL, settled_ns)
            self.engine.fossil_collect()

    def outputs(self) -> list[Output]:
        """Take the released outputs, in key order."""
        return self.engine.outputs()

    def synchronize(self, physical_time_ns: int, node_id: int = 0) -> DriftCorrection | None:
        """Compare the physical clock with the digital one; a correction is applied to ``clock_offset_ns`` and journaled.

        Raises:
            OperatorError: the session has no ``drift`` corrector. RangeError: no time.
        """
        if self.drift is None:
            raise OperatorError(
                "synchronize()", "the session has no drift corrector", "pass drift=DriftAutoCorrector()"
            )
        digital_ns = max(0, self.session_time_ns - self.clock_offset_ns)
        correction = self.drift.check_and_correct(physical_time_ns, digital_ns, node_id)
        if correction is not None:
            self.clock_offset_ns -= correction.correction_ns
            if self.journal is not None:
                told = {"source": "physical", "correction": correction.correction_ns, "reason": correction.reason}
                self.journal(pack_document("tw.drift", 1, told))
        return correction

    def update_divergence(
        self, physical_rate_hz: float, digital_rate_hz: float, physical_identity: float
    ) -> DivergenceMetric:
        """Measure anew: rates in Hz, identity against the mean distance over all nodes, offset against a fresh GVT.

        Raises:
            RangeError: a rate that is no finite number >= 0, an identity that is none; nothing is changed.
        """
        physical_rate_hz = checked_number("physical_rate_hz", physical_rate_hz, 0)
        digital_rate_hz = checked_number("digital_rate_hz", digital_rate_hz, 0)
        physical_identity = checked_number("physical_identity", physical_identity)
        nodes = self.engine.nodes.values()
        least_ns = self.engine.least_unfinished_ns()
        now_ns = self.session_time_ns
        self.divergence = DivergenceMetric(
            abs(physical_rate_hz - digital_rate_hz) / max(physical_rate_hz, 1.0),
            now_ns - (now_ns if least_ns is None else least_ns),
            sum(abs(physical_identity - node.identity_deep) for node in nodes) / len(nodes),
            len(self.engine.verify_causal_order()),
            tolerance=self.max_divergence,
        )
        return self.divergence

    def status(self) -> dict[str, Any]:
        """Counts of the session and, under "engine", of the engine."""
        return {
            "running": self.running,
            "mode": self.mode.value,
            "session_time_ns": self.session_time_ns,
            "physical_events": self.physical_events_in,
            "digital_events": self.digital_events_out,
            "divergence": self.divergence.total_divergence,
            "within_tolerance": self.divergence.within_tolerance,
            "late_events": self.late_events,
            "clamped_events": self.clamped_events,
            "dropped_events": self.dropped_events,
            "engine": self.engine.status(),
        }


_COUNTS = (
    "running",
    "stopped",
    "clock_offset_ns",
    "physical_events_in",
    "late_events",
    "clamped_events",
    "dropped_events",
)


@dataclass
class SessionSnapshot:
    """A session at one moment; ``engine_state`` holds what :meth:`restore` goes on from."""

    session_time_ns: int
    num_nodes: int
    mode: str
    physical_events_in: int
    digital_events_out: int
    gvt_ns: int
    total_rollbacks: int
    node_lvts: dict[int, int]
    checkpoint_count: int
    engine_state: bytes = field(default=b"", kw_only=True, repr=False)
    handler: Handler | None = field(default=None, kw_only=True, repr=False, compare=False)

    @staticmethod
    def from_session(session: TwinSession) -> SessionSnapshot:
        """The session as it is; letters on their way are delivered first. The handler is kept beside the bytes."""
        engine = session.engine
        packed = engine.to_bytes()  # first: it delivers letters
        shown: dict[str, Any] = {
            "session_time_ns": session.session_time_ns,
            "num_nodes": session.num_nodes,
            "mode": session.mode.value,
            "physical_events_in": session.physical_events_in,
            "digital_events_out": session.digital_events_out,
            "gvt_ns": engine.gvt_ns,
            "total_rollbacks": engine.total_rollbacks,
            "node_lvts": {number: node.local_virtual_time_ns for number, node in engine.nodes.items()},
            "checkpoint_count": engine.checkpoint_mgr.total_checkpoints,
        }
        state = pack_value([packed, {**_session_value(session), "shown": shown}], "session")
        return SessionSnapshot(**shown, engine_state=state, handler=engine.handler)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that survive JSON: node numbers are text, bytes are base64."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "handler"}
        told["node_lvts"] = {str(number): time for number, time in self.node_lvts.items()}
        told["engine_state"] = base64.b64encode(self.engine_state).decode()
        return told

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> SessionSnapshot:
        """The snapshot of :meth:`to_dict`; its handler has to be given to :meth:`restore`.

        Raises:
            CheckpointRefused: a field missing or of another form.
        """
        try:
            given = {f.name: told[f.name] for f in fields(cls) if f.name != "handler"}
            given["node_lvts"] = {int(number): time for number, time in told["node_lvts"].items()}
            given["engine_state"] = base64.b64decode(told["engine_state"], validate=True)
            return cls(**given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointRefused(
                "a snapshot", f"{type(error).__name__}: {error}", "give what to_dict() returned"
            ) from error

    def _check_fields(self, shown: dict[str, Any]) -> None:
        for name, value in shown.items():
            given = getattr(self, name)
            if type(given) is not type(value) or given != value:
                raise CheckpointRefused(
                    f"a snapshot with {name} {given!r:.80}",
                    f"engine_state holds {name} {value!r:.80}",
                    "give what to_dict() returned",
                )

    def restore(self, *, handler: Handler | None = None, journal: Callable[[bytes], None] | None = None) -> TwinSession:
        """A session that goes on with the same digest.

        ``handler`` is needed where the snapshot came from a dict and the session had one.

        Raises:
            CheckpointRefused: ``engine_state`` is not whole, another field disagrees with it, or the handler is missing.
        """
        try:
            engine_bytes, saved = unpack_value(self.engine_state)
            self._check_fields(saved["shown"])
            told = saved["drift"]
            drift = None if told is None else DriftAutoCorrector(*told[:2], max_step_ns=told[2])
            session = TwinSession(self.num_nodes, drift=drift, journal=journal, **saved["options"])
        except (CodecError, KeyError, TypeError, ValueError) as error:
            raise CheckpointRefused("a snapshot", f"{type(error).__name__}: {error}", "take it whole") from error
        session.engine = TimeWarpEngine.from_bytes(engine_bytes, handler=handler or self.handler)
        session.mode = session.engine.mode
        session.divergence = DivergenceMetric(**saved["divergence"], tolerance=session.max_divergence)
        for name in _COUNTS:
            setattr(session, name, saved["counts"][name])
        return session


def _session_value(session: TwinSession) -> dict[str, Any]:
    drift, metric = session.drift, session.divergence
    measured = [f.name for f in fields(metric) if f.name != "tolerance"]
    return {
        "options": {name: getattr(session, name) for name in ("max_divergence", "late", "beyond", "horizon_ns")},
        "counts": {name: getattr(session, name) for name in _COUNTS},
        "divergence": {name: getattr(metric, name) for name in measured},
        "drift": None if drift is None else [drift.max_drift_ns, drift.correction_gain, drift.max_step_ns],
    }


@dataclass
class TwinEndpoint:
    """A member of a federation; of two that stand at one time the one with the lower ``priority`` goes first."""

    twin_id: str
    session: TwinSession
    priority: int = 0


class TwinFederation:
    """Sessions that advance together: none runs more than ``window_ns`` beyond the GVT of all.

    ``failures`` holds the errors of the members that failed in the last ``advance_all``.

    Raises:
        RangeError: a window that is no int >= 0 of ns.
    """

    def __init__(self, *, window_ns: int = 1_000_000) -> None:
        self.window_ns = checked_int("window_ns", window_ns)
        self.twins: dict[str, TwinEndpoint] = {}
        self.failures: dict[str, TidewarpError] = {}
        self.refused_events = 0
        self._transit: list[tuple[str, TwinEvent]] = []

    @property
    def twin_count(self) -> int:
        """How many members there are."""
        return len(self.twins)

    def register(self, twin_id: str, session: TwinSession, priority: int = 0) -> None:
        """Add a member.

        Raises:
            RangeError: an id that is no text, what is no TwinSession, a priority that is no int.
            OperatorError: the id is taken, or the session is a member already.
        """
        if not isinstance(twin_id, str):
            raise RangeError(f"twin {twin_id!r:.80}", "an id is text", "give a str")
        if not isinstance(session, TwinSession):
            raise RangeError(f"twin {twin_id!r} of {session!r:.80}", "its session is a TwinSession", "make one")
        priority = checked_int("priority", priority, TICK_MIN)
        if twin_id in self.twins:
            raise OperatorError(f"twin {twin_id!r}", "a federation has it already", "choose another id")
        for twin in self.twins.values():
            if twin.session is session:
                raise OperatorError(
                    f"twin {twin_id!r}",
                    f"its session is that of {twin.twin_id!r}",
                    "give each twin a session of its own",
                )
        self.twins[twin_id] = TwinEndpoint(twin_id, session, priority)

    def send(self, twin_id: str, event: TwinEvent) -> None:
        """Send an event to a member: it is on its way, and holds GVT, until the next ``advance_all`` or until it is cancelled.

        Raises:
            OperatorError: no such member. RangeError: no TwinEvent, or a cancelled one, a field out of range.
        """
        check_input(event)
        if twin_id not in self.twins:
            raise OperatorError(f"twin {twin_id!r}", f"the members are {', '.join(self.twins)}", "correct the id")
        self._transit.append((twin_id, event))

    def global_gvt(self) -> int:
        """The least time of anything unfinished in any member or between them, as of now.

        Members without anything to do do not pin it; if all are idle it is the largest local virtual time, 0 without members.
        """
        times = [event.virtual_time_ns for _, event in self._transit if not event.cancelled]
        times += [
            time for twin in self.twins.values() if (time := twin.session.engine.least_unfinished_ns()) is not None
        ]
        if times:
            return min(times)
        return max((twin.session.session_time_ns for twin in self.twins.values()), default=0)

    def advance_all(self, steps: int = 1) -> dict[str, int]:
        """Deliver what is on its way, then advance each member by up to ``steps`` events, the one furthest behind first.

        Returns how many each did. A member that fails is named in ``failures`` and goes on holding GVT; the others
        advance within the window. An event that a member refuses is named there too, and counted in ``refused_events``.
        """
        checked_int("steps", steps)
        self.failures = {}
        self._deliver()
        done = dict.fromkeys(self.twins, 0)
        failed: set[str] = set()
        waiting: set[str] = set()
        while able := [name for name, n in done.items() if n < steps and name not in failed | waiting]:
            twin = self._furthest_behind(able)
            if twin is None:
                break
            try:
                advanced = twin.session.advance(1, before_ns=self.global_gvt() + self.window_ns + 1)
            except TidewarpError as error:
                self.failures[twin.twin_id] = error
                failed.add(twin.twin_id)
                continue
            done[twin.twin_id] += advanced
            waiting = set() if advanced else waiting | {twin.twin_id}  # GVT may have moved: ask the others again
        return done

    def _deliver(self) -> None:
        transit, self._transit = self._transit, []
        for twin_id, event in transit:
            if event.cancelled:
                continue
            try:
                self.twins[twin_id].session.inject_event(event)
            except TidewarpError as error:
                self.failures[twin_id] = error
                self.refused_events += 1

    def _furthest_behind(self, able: list[str]) -> TwinEndpoint | None:
        twins = [self.twins[twin_id] for twin_id in able]
        behind = [
            (t, twin.priority, twin.twin_id) for twin in twins if (t := twin.session.engine.next_ns()) is not None
        ]
        return self.twins[min(behind)[2]] if behind else None

    def total_divergence(self) -> float:
        """The sum over all members, as last measured."""
        return sum(twin.session.divergence.total_divergence for twin in self.twins.values())
