"""What is no event, checkpoint, session or number is refused where it is given, with value, rule and next action."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tidewarp.compat.twinsync import (
    CheckpointAuditChain,
    CheckpointManager,
    DeltaCheckpoint,
    DivergenceMetric,
    ReplayVerifier,
    SessionSnapshot,
    TimeWarpEngine,
    TwinEvent,
    TwinFederation,
    TwinSession,
)
from tidewarp.errors import CheckpointRefused, OperatorError, RangeError

NAN, INF = float("nan"), float("inf")


def saved():
    return CheckpointManager().save(0, 5, np.arange(3))


WRONG = [
    lambda: TimeWarpEngine(2).inject_event(None),
    lambda: TimeWarpEngine(2).retract_event("x"),
    lambda: TimeWarpEngine(2).inject_event(TwinEvent(5, cancelled=True)),
    lambda: TimeWarpEngine(2, mode="x"),
    lambda: TimeWarpEngine.from_bytes(None),
    lambda: DeltaCheckpoint.from_bytes(None),
    lambda: DeltaCheckpoint.from_bytes(40),
    lambda: DeltaCheckpoint(0, 1, 5, 0, [0], [1.0], "x"),
    lambda: DeltaCheckpoint(0, 1, 5, 0, [0], [1.0], 0, None),
    lambda: CheckpointAuditChain().append(None),
    lambda: CheckpointAuditChain().verify(checkpoints=[None]),
    lambda: CheckpointAuditChain().verify(head=5),
    lambda: ReplayVerifier().record_run_a(None),
    lambda: ReplayVerifier().record_run_b("x"),
    lambda: saved().differing_fields(None),
    lambda: CheckpointManager().discard_since(None),
    lambda: TwinSession(1).inject_event(None),
    lambda: TwinSession(1, "x"),
    lambda: TwinSession(1, max_divergence="x"),
    lambda: TwinSession(1, max_divergence=None),
    lambda: TwinSession(1, max_divergence=NAN),
    lambda: TwinSession(1, max_divergence=-1.0),
    lambda: TwinFederation().register("a", None),
    lambda: TwinFederation().register(None, TwinSession(1)),
    lambda: TwinFederation().register("a", TwinSession(1), "x"),
    lambda: TwinFederation().send("a", None),
    lambda: DivergenceMetric(NAN),
    lambda: DivergenceMetric(-0.5),
    lambda: DivergenceMetric(0.0, 0.5),
    lambda: DivergenceMetric(0.0, 0, 10**400),
    lambda: DivergenceMetric(0.0, 0, 0.0, True),
    lambda: DivergenceMetric(tolerance=NAN),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_values_are_refused_in_three_parts(wrong):
    """As a ValueError, with value, rule and next action."""
    with pytest.raises(RangeError) as refused:
        wrong()
    assert isinstance(refused.value, ValueError)
    assert refused.value.value
    assert refused.value.rule
    assert refused.value.action


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("bad", ["x", None, NAN, INF, -INF, True, 1j])
def test_divergence_is_measured_between_finite_numbers(place, bad):
    """Anything else leaves the last measurement as it was."""
    session = TwinSession(1)
    before = session.update_divergence(1.0, np.float32(2), np.int64(0))
    numbers = [1, 2.0, 0.0]
    numbers[place] = bad
    with pytest.raises(RangeError, match=("physical_rate_hz", "digital_rate_hz", "physical_identity")[place]):
        session.update_divergence(*numbers)
    assert session.divergence is before
    assert before.total_divergence == 1.0


def test_a_rate_is_not_negative():
    """The identity may be."""
    session = TwinSession(1)
    with pytest.raises(RangeError, match="rate_hz -1"):
        session.update_divergence(-1.0, 0.0, 0.0)
    assert session.update_divergence(0.0, 0.0, -2.0).identity_drift == 2.0
    assert TwinSession(1, max_divergence=INF).update_divergence(1e9, 0.0, 0.0).within_tolerance


def test_nothing_refused_is_queued():
    """A refused event leaves engine and session as they were."""
    session = TwinSession(1)
    for bad in (None, TwinEvent(5, cancelled=True)):
        with pytest.raises(RangeError):
            session.inject_event(bad)
    assert session.engine.event_queue == ()
    assert session.engine.inject_event(TwinEvent(5))
    assert session.engine.event_queue[0].sequence == 0


def test_a_cancelled_event_is_refused_before_it_is_counted_as_late():
    """Under any policy; the object is not changed."""
    session = TwinSession(1, late="clamp")
    session.start()
    session.inject_physical_event(100, 0)
    session.advance()
    event = TwinEvent(50, cancelled=True)
    with pytest.raises(RangeError, match="cancelled"):
        session.inject_event(event)
    assert (session.late_events, session.clamped_events, event.virtual_time_ns) == (0, 0, 50)


def test_what_is_cancelled_between_members_does_not_arrive():
    """It holds GVT no longer, and is no failure."""
    federation = TwinFederation()
    session = TwinSession(1)
    federation.register("a", session)
    session.start()
    with pytest.raises(RangeError, match="cancelled"):
        federation.send("a", TwinEvent(5, cancelled=True))
    event = TwinEvent(5)
    federation.send("a", event)
    federation.send("a", TwinEvent(9))
    assert federation.global_gvt() == 5
    event.cancelled = True
    assert federation.global_gvt() == 9
    assert federation.advance_all(5) == {"a": 1}
    assert (federation.failures, federation.refused_events, session.session_time_ns) == ({}, 0, 9)


def test_a_session_is_one_member():
    """Under a second id it would be advanced, and counted, twice."""
    federation = TwinFederation()
    session = TwinSession(1)
    federation.register("a", session)
    with pytest.raises(OperatorError, match=r"'b'.*that of 'a'"):
        federation.register("b", session)
    assert federation.twins.keys() == {"a"}


def test_input_is_taken_until_stop():
    """Before start it is, after stop it is not, until the session is started again; a snapshot remembers that."""
    session = TwinSession(1)
    assert session.inject_physical_event(5, 0)
    session.start()
    assert session.inject_physical_event(6, 0)
    session.stop()
    for one in (session, SessionSnapshot.from_session(session).restore()):
        with pytest.raises(OperatorError, match="stop"):
            one.inject_physical_event(7, 0)
        with pytest.raises(OperatorError, match="stop"):
            one.inject_event(TwinEvent(7))
        assert (one.physical_events_in, len(one.engine.event_queue)) == (2, 2)
        one.start()
        assert one.inject_physical_event(7, 0)


def snapshot():
    """Of three nodes, with late input and a GVT."""
    session = TwinSession(3)
    session.start()
    for time in (100, 300, 50, 200):
        session.inject_physical_event(time, 0, time // 100 % 3)
        session.advance()
    session.engine.watermark(-1, 60)
    session.engine.fossil_collect()
    return SessionSnapshot.from_session(session).to_dict()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_time_ns", 1),
        ("num_nodes", 5),
        ("num_nodes", 3.0),
        ("mode", "lockstep"),
        ("physical_events_in", 17),
        ("digital_events_out", True),
        ("gvt_ns", 59),
        ("total_rollbacks", 90),
        ("node_lvts", {"0": 1, "1": 2, "2": 3}),
        ("node_lvts", {"0": 300}),
        ("checkpoint_count", 0),
    ],
)
def test_a_field_that_disagrees_with_the_engine_is_refused_by_name(name, value):
    """Nothing is restored from a snapshot of which one part says something else than another."""
    told = json.loads(json.dumps(snapshot(), sort_keys=True))
    assert SessionSnapshot.from_dict(told).restore().num_nodes == 3
    with pytest.raises(CheckpointRefused, match=f"snapshot with {name} .*engine_state holds {name}"):
        SessionSnapshot.from_dict({**told, name: value}).restore()
