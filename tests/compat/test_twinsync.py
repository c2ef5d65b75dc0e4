"""The published names: the quick start, each documented method, and each sentence of the table of behaviours."""

from __future__ import annotations

import inspect
import itertools
import json
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from tidewarp.compat import twinsync
from tidewarp.compat.twinsync import (
    AdaptiveCheckpointInterval,
    BackpressureController,
    Checkpoint,
    CheckpointAuditChain,
    CheckpointManager,
    DeltaCheckpoint,
    DivergenceMetric,
    DriftAutoCorrector,
    DriftCorrection,
    EventType,
    LamportClock,
    LookaheadConfig,
    MPIRankMapping,
    MPITopology,
    NodeState,
    NullMessageOptimizer,
    ReplayVerifier,
    SessionSnapshot,
    SyncMode,
    TimeWarpEngine,
    TwinEndpoint,
    TwinEvent,
    TwinFederation,
    TwinSession,
    VectorClock,
)
from tidewarp.errors import CheckpointRefused, LateInput, LookaheadError, ModelError, OperatorError, UnknownDestination

SIGNATURES = {
    AdaptiveCheckpointInterval: "base_interval=1000, min_interval=100, max_interval=10000",
    BackpressureController: "max_queue_depth=10000, cooldown_ns=100",
    Checkpoint: "checkpoint_id, virtual_time_ns, node_id, neuron_state=None, synapse_state=None, lfsr_state=0, "
    "identity_deep=0.0, lamport_time=0, vector_clock=None, checksum=''",
    CheckpointAuditChain: "",
    CheckpointManager: "max_checkpoints=100",
    CheckpointManager.save: "self, node_id, virtual_time_ns, neuron_state=None, synapse_state=None, lfsr_state=0, "
    "identity_deep=0.0, lamport_time=0, vector_clock=None",
    CheckpointManager.find_rollback_target: "self, node_id, target_time_ns",
    CheckpointManager.discard_after: "self, node_id, time_ns",
    DeltaCheckpoint: "base_checkpoint_id, checkpoint_id, virtual_time_ns, node_id, changed_indices, changed_values, "
    "lfsr_delta=0, size_bytes=0",
    DeltaCheckpoint.compute_delta: "base_state, new_state, base_id, new_id, virtual_time_ns, node_id",
    DivergenceMetric: "spike_rate_divergence=0.0, timing_offset_ns=0, identity_drift=0.0, causal_violations=0",
    DriftAutoCorrector: "max_drift_ns=5000, correction_gain=0.5",
    DriftAutoCorrector.check_and_correct: "self, physical_time_ns, digital_time_ns, node_id=0",
    DriftCorrection: "correction_ns, applied_at_ns, node_id, reason",
    LamportClock: "",
    LamportClock.receive: "self, remote_time",
    LookaheadConfig: "node_id, lookahead_ns=1000, last_null_message_ns=0",
    LookaheadConfig.can_advance_to: "self, target_ns",
    LookaheadConfig.send_null_message: "self, current_ns",
    MPIRankMapping: "rank, hostname='', gpu_id=-1, numa_node=0, neuron_range=(0, 0)",
    NullMessageOptimizer: "num_nodes, default_lookahead_ns=1000",
    NullMessageOptimizer.safe_advance_time: "self, node_id",
    NullMessageOptimizer.broadcast_null: "self, node_id, current_ns",
    SessionSnapshot: "session_time_ns, num_nodes, mode, physical_events_in, digital_events_out, gvt_ns, "
    "total_rollbacks, node_lvts, checkpoint_count",
    TimeWarpEngine: "num_nodes, checkpoint_interval_ns=1000",
    TimeWarpEngine.detect_starvation: "self, threshold_ns=10000",
    TimeWarpEngine.inject_event: "self, event",
    TimeWarpEngine.inject_sync_barrier: "self, virtual_time_ns",
    TwinEndpoint: "twin_id, session, priority=0",
    TwinEvent: "virtual_time_ns, priority=0, event_type=<EventType.SPIKE: 'spike'>, source_node=0, target_node=0, "
    "payload=<factory>, lamport_ts=0, vector_ts=None, cancelled=False",
    TwinFederation: "",
    TwinFederation.register: "self, twin_id, session, priority=0",
    TwinFederation.advance_all: "self, steps=1",
    TwinSession: "num_nodes, mode=<SyncMode.OPTIMISTIC: 'optimistic'>, max_divergence=1.0",
    TwinSession.advance: "self, steps=1",
    TwinSession.inject_physical_event: "self, spike_time_ns, neuron_id, target_node=0",
    TwinSession.update_divergence: "self, physical_rate_hz, digital_rate_hz, physical_identity",
    VectorClock: "node_id, num_nodes",
}


def drained(engine):
    """All that runs; more than 5,000 events are a run without end."""
    events = list(itertools.islice(iter(engine.process_next, None), 5001))
    assert len(events) <= 5000
    return events


def engine_of(*times, nodes=2, **options):
    engine = TimeWarpEngine(nodes, **options)
    for time in times:
        engine.inject_event(TwinEvent(time, target_node=time // 10 % nodes))
    return engine


# --- names ----------------------------------------------------------------------------------------


def test_all_25_names_are_there_and_live_elsewhere():
    """compat only re-exports: nothing is defined in it."""
    assert len(twinsync.__all__) == 25
    for name in twinsync.__all__:
        assert not getattr(twinsync, name).__module__.startswith("tidewarp.compat")


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_published_signatures_stay_valid(function):
    """Positional parameters and defaults are the published ones; what was added is keyword-only."""
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            shown.append(f"{parameter.name}{default}")
    assert ", ".join(shown) == SIGNATURES[function]


def test_every_name_has_its_signature_checked_or_is_an_enum_or_takes_nothing():
    """None is forgotten."""
    assert {EventType, SyncMode, MPITopology, NodeState, ReplayVerifier} == {
        getattr(twinsync, name) for name in twinsync.__all__
    } - SIGNATURES.keys()
    expected = "node_id, local_virtual_time_ns, lamport, vector_clock, processed_events, rollback_count, identity_deep"
    positional = [p for p in inspect.signature(NodeState).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert ", ".join(p.name for p in positional) == expected
    MPITopology()
    ReplayVerifier()


def test_enums_have_the_published_values():
    """Six event types, three modes."""
    assert [e.value for e in EventType] == [
        "spike",
        "sensor_input",
        "checkpoint",
        "anti_message",
        "rollback",
        "sync_barrier",
    ]
    assert [m.value for m in SyncMode] == ["lockstep", "optimistic", "conservative"]


QUICK_START = """
from tidewarp.compat.twinsync import (
    TwinSession, NullMessageOptimizer, DeltaCheckpoint,
    ReplayVerifier, DriftAutoCorrector, TwinFederation,
)
"""


def test_the_quick_start_runs_with_its_import_line_changed():
    """As a program of its own; `import tidewarp` alone imports no NumPy."""
    code = f"import sys, tidewarp\nassert 'numpy' not in sys.modules\n{QUICK_START}\nprint(TwinSession(2).status()['mode'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "optimistic\n"


def test_each_documented_method_runs_as_published():
    """One call of each, with positional arguments as in the published pages, and what it returns."""
    clock = LamportClock()
    assert (clock.tick(), clock.send(), clock.receive(5)) == (1, 2, 6)
    vector = VectorClock(0, 2)
    assert (vector.tick().tolist(), vector.send().tolist()) == ([1, 0], [2, 0])
    assert vector.receive(np.array([0, 4])).tolist() == [3, 4]
    assert vector.happened_before(np.array([9, 9])) is True
    assert vector.concurrent_with(np.array([9, 0])) is True

    manager = CheckpointManager()
    checkpoint = manager.save(0, 100, np.zeros(3))
    assert manager.find_rollback_target(0, 150) is checkpoint
    assert manager.discard_after(0, 50) == 1
    assert Checkpoint(0, 0, 0).compute_checksum()

    engine = TimeWarpEngine(2)
    engine.inject_event(TwinEvent(100, target_node=1))
    engine.inject_sync_barrier(200)
    assert engine.process_next() == TwinEvent(100, target_node=1, sequence=0)
    assert engine.compute_gvt() == 100
    assert isinstance(engine.fossil_collect(), int)
    assert engine.verify_causal_order() == []
    assert engine.detect_starvation() == []
    assert engine.node_throughput() == {0: 0, 1: 1}

    session = TwinSession(2)
    session.start()
    session.inject_physical_event(100, 5)
    assert session.advance() == 1
    assert session.update_divergence(10.0, 10.0, 0.0).within_tolerance
    assert session.status()["physical_events"] == 1
    snapshot = SessionSnapshot.from_session(session)
    assert snapshot.to_dict()["session_time_ns"] == 100
    session.stop()

    config = LookaheadConfig(0)
    assert config.can_advance_to(1000)
    assert config.send_null_message(50) == 1050
    optimizer = NullMessageOptimizer(2)
    optimizer.broadcast_null(1, 500)
    assert optimizer.safe_advance_time(0) == 1500

    delta = DeltaCheckpoint.compute_delta(np.zeros(3), np.array([0.0, 1.0, 0.0]), 0, 1, 10, 0)
    assert delta.num_changes == 1
    assert delta.compression_ratio > 0

    verifier = ReplayVerifier()
    verifier.record_run_a(checkpoint)
    verifier.record_run_b(checkpoint)
    assert verifier.is_deterministic
    assert (verifier.first_divergence_index, verifier.compared_count) == (None, 1)

    corrector = DriftAutoCorrector()
    assert corrector.check_and_correct(20_000, 10_000).correction_ns == 5000
    assert corrector.total_corrections == 1

    topology = MPITopology()
    topology.add_rank(MPIRankMapping(0, "a", neuron_range=(0, 10)))
    topology.add_rank(MPIRankMapping(1, "a", neuron_range=(10, 20)))
    assert (topology.num_ranks, topology.total_neurons, topology.rank_for_neuron(12)) == (2, 20, 1)
    assert topology.co_located_ranks(0) == [1]

    controller = BackpressureController()
    assert controller.should_accept(5)
    assert (controller.rejection_rate, controller.is_backpressured) == (0.0, False)

    chain = CheckpointAuditChain()
    assert chain.append(checkpoint)
    assert chain.verify()
    assert chain.length == 1

    federation = TwinFederation()
    other = TwinSession(1)
    other.start()
    federation.register("one", other)
    assert federation.twin_count == 1
    assert federation.global_gvt() == 0
    assert federation.advance_all() == {"one": 0}
    assert federation.total_divergence() == 0.0

    interval = AdaptiveCheckpointInterval()
    assert interval.update(0, 100) == interval.current_interval == 2000
    assert interval.is_aggressive is False


# --- events ---------------------------------------------------------------------------------------


def test_events_are_ordered_and_equal_by_their_key():
    """(time, generation, priority, target, source, sequence); payload, clocks and type have no say."""
    rising = [
        TwinEvent(1, 9, source_node=9, target_node=9, sequence=9),
        TwinEvent(2, 9, source_node=9, target_node=9, sequence=9),
        TwinEvent(2, -9, source_node=0, target_node=0, sequence=0, generation=1),
        TwinEvent(2, 9, source_node=0, target_node=0, sequence=0, generation=1),
        TwinEvent(2, 9, source_node=0, target_node=1, sequence=0, generation=1),
        TwinEvent(2, 9, source_node=1, target_node=1, sequence=0, generation=1),
        TwinEvent(2, 9, source_node=1, target_node=1, sequence=1, generation=1),
    ]
    for order in itertools.islice(itertools.permutations(rising), 0, 5000, 97):
        assert sorted(order) == rising
    for a, b in itertools.pairwise(rising):
        assert a < b
        assert a <= b
        assert b > a
        assert b >= a
        assert a != b
    assert TwinEvent(5, payload={"a": 1}, lamport_ts=3) == TwinEvent(5, event_type=EventType.SENSOR_INPUT)


def test_the_kernel_orders_events_as_they_order_themselves():
    """generation << 16 | priority + 32768 in the place of the generation."""
    engine = TimeWarpEngine(2)
    events = [
        TwinEvent(10, priority, source_node=source, target_node=target, generation=generation)
        for priority, source, target, generation in itertools.product((-32768, -1, 0, 32767), (-1, 1), (0, 1), (0, 1))
    ]
    for event in events[::-1]:
        engine.inject_event(event)
    assert list(engine.event_queue) == sorted(events)
    assert drained(engine) == sorted(events)


@pytest.mark.parametrize("priority", [-32769, 32768, 1.0, True])
def test_priorities_fit_16_bits(priority):
    """[-32768, 32767], whole."""
    with pytest.raises(ValueError, match="priority"):
        TwinEvent(0, priority)


@pytest.mark.parametrize("kind", [e for e in EventType if e not in (EventType.SPIKE, EventType.SENSOR_INPUT)])
def test_only_events_of_the_model_are_injected(kind):
    """The error names what to call instead."""
    hint = {
        EventType.ANTI_MESSAGE: "retract_event",
        EventType.SYNC_BARRIER: "inject_sync_barrier",
        EventType.ROLLBACK: "late event",
        EventType.CHECKPOINT: "checkpoint_interval_ns",
    }[kind]
    with pytest.raises(ValueError, match=hint):
        TimeWarpEngine(1).inject_event(TwinEvent(5, event_type=kind))


def test_sequences_are_stamped_per_source_at_injection():
    """From 0 on; a number that was given is kept, and not given again."""
    engine = TimeWarpEngine(1)
    events = [TwinEvent(5, source_node=s, sequence=q) for s, q in ((-1, -1), (-2, -1), (-1, -1), (-1, 7), (-1, -1))]
    for event in events:
        engine.inject_event(event)
    assert [event.sequence for event in events] == [0, 0, 1, 7, 8]


def test_a_queued_event_is_a_copy():
    """Whoever gave it, or got it, cannot change what is executed."""
    engine = TimeWarpEngine(1, handler=lambda node, event, ctx: node.state.append(event.payload["v"]), initial_state=[])
    event = TwinEvent(5, payload={"v": 1})
    engine.inject_event(event)
    event.payload["v"] = 2
    engine.event_queue[0].payload["v"] = 3
    engine.process_next().payload["v"] = 4
    engine.inject_event(TwinEvent(1, payload={"v": 0}))
    drained(engine)
    assert engine.nodes[0].state == [0, 1]
    assert engine.processed[-1].payload == {"v": 1}


# --- the engine -----------------------------------------------------------------------------------


def test_attributes_are_readable_as_before():
    """Queues are sorted, read-only views; the rest are plain values."""
    engine = engine_of(30, 10, 20)
    assert [e.virtual_time_ns for e in engine.event_queue] == [10, 20, 30]
    assert engine.processed == engine.anti_messages == ()
    assert (engine.gvt_ns, engine.total_rollbacks, engine.num_nodes, engine.checkpoint_interval_ns) == (0, 0, 2, 1000)
    assert isinstance(engine.checkpoint_mgr, CheckpointManager)
    assert {number: node.node_id for number, node in engine.nodes.items()} == {0: 0, 1: 1}


def test_status_keeps_the_published_keys():
    """And adds counts, mode and digest."""
    engine = engine_of(30, 10, 20)
    engine.process_next()
    status = engine.status()
    published = {"num_nodes": 2, "gvt_ns": 0, "total_rollbacks": 0, "pending_events": 2, "processed_events": 1}
    assert status.items() >= published.items()
    assert status["node_lvts"] == {0: 0, 1: 10}
    assert status.keys() >= {"checkpoints", "committed_events", "rolled_back_events", "anti_messages", "mode", "digest"}


def test_a_straggler_rolls_back_what_does_not_precede_it():
    """State, clocks and counts are those of the run in order; the rollback is counted."""
    engine = engine_of(100, 200, nodes=1, handler=lambda n, e, c: n.state.append(e.virtual_time_ns), initial_state=[])
    drained(engine)
    engine.inject_event(TwinEvent(150))
    assert engine.nodes[0].local_virtual_time_ns == 200
    assert [event.virtual_time_ns for event in drained(engine)] == [150, 200]
    node = engine.nodes[0]
    assert (node.state, node.processed_events, node.rollback_count, node.lamport.time) == ([100, 150, 200], 3, 1, 3)
    assert (engine.total_rollbacks, engine.status()["rolled_back_events"]) == (1, 1)
    assert engine.node_throughput() == {0: 3}


def test_late_events_are_refused_below_gvt_only():
    """At GVT they are taken."""
    engine = engine_of(10, 20, 30)
    drained(engine)
    assert engine.compute_gvt() == 30
    with pytest.raises(LateInput, match="30"):
        engine.inject_event(TwinEvent(29))
    assert engine.inject_event(TwinEvent(30)) is True


def test_gvt_is_held_by_a_watermark():
    """And a source may not give what it has promised not to."""
    engine = engine_of(10, 20, 30)
    engine.watermark(-1, 15)
    drained(engine)
    assert engine.compute_gvt() == 15
    engine.watermark(-1, 25)
    with pytest.raises(LateInput, match="watermark"):
        engine.inject_event(TwinEvent(24, source_node=-1))
    assert engine.inject_event(TwinEvent(24, source_node=-2)) is True
    assert engine.compute_gvt() == 24
    with pytest.raises(ValueError, match="watermark"):
        engine.watermark(-1, 24)


def test_gvt_counts_letters_and_anti_messages_on_their_way():
    """With a schedule that holds them back."""

    def handler(node, event, ctx):
        if node.node_id == 0:
            ctx.send(1, 5)

    for seed in range(30):
        engine = TimeWarpEngine(2, handler=handler, schedule_seed=seed)
        engine.inject_event(TwinEvent(100))
        engine.process_next()
        if engine.traffic.flight:
            break
    assert engine.compute_gvt() == 105
    assert [event.virtual_time_ns for event in engine.event_queue] == [105]
    engine = TimeWarpEngine(2, handler=handler, schedule_seed=seed)
    found = set()
    for time in range(200, 100, -3):
        engine.inject_event(TwinEvent(time))
        engine.process_next()
        for anti in engine.anti_messages:
            assert anti.event_type is EventType.ANTI_MESSAGE
            found.add(anti.target_node)
            assert engine.least_unfinished_ns() <= anti.virtual_time_ns
    assert found == {1}
    drained(engine)
    assert engine.anti_messages == ()
    assert engine.status()["anti_messages"] > 0


def test_fossil_collection_releases_outputs_in_key_order():
    """With ids that are the same in every run."""

    def handler(node, event, ctx):
        ctx.emit({"node": node.node_id})
        ctx.emit(event.virtual_time_ns)

    engine = TimeWarpEngine(2, handler=handler)
    for time, node in ((20, 1), (10, 1), (10, 0), (30, 0)):
        engine.inject_event(TwinEvent(time, target_node=node))
    drained(engine)
    assert engine.outputs() == []
    engine.fossil_collect()
    released = engine.outputs()
    assert [(o.tick, o.lp, o.message) for o in released[::2]] == [
        (10, 0, {"node": 0}),
        (10, 1, {"node": 1}),
        (20, 1, {"node": 1}),
    ]
    assert [o.id[-8:] for o in released] == [f"{n:08x}" for n in (0, 1, 2, 3, 0, 1)]
    assert engine.outputs() == []
    engine.finish()
    assert [o.message for o in engine.outputs()] == [{"node": 0}, 30]


def test_outputs_that_nobody_takes_stop_commits():
    """Nothing is lost and nothing grows without bound."""
    engine = engine_of(*range(10, 100, 10), nodes=1, handler=lambda n, e, c: c.emit(e.virtual_time_ns), outputs_max=3)
    drained(engine)
    engine.finish()
    seen = []
    while outputs := engine.outputs():
        assert len(outputs) <= 3
        seen += [output.message for output in outputs]
        engine.finish()
    assert seen == list(range(10, 100, 10))


def test_retracted_events_are_undone_with_what_they_caused():
    """An anti-message for an injected event; a committed one cannot be taken back."""
    engine = TimeWarpEngine(2, handler=lambda n, e, c: c.send(1, 5) if n.node_id == 0 else None)
    first, second = TwinEvent(10), TwinEvent(20)
    engine.inject_event(first)
    engine.inject_event(second)
    drained(engine)
    engine.retract_event(first)
    drained(engine)
    assert engine.node_throughput() == {0: 1, 1: 1}
    engine.finish()
    with pytest.raises(LateInput):
        engine.retract_event(second)


@pytest.mark.parametrize("options", [{"mode": SyncMode.CONSERVATIVE}, {"identity": "non_speculative"}])
def test_what_is_never_undone_is_not_retracted_once_it_has_run(options):
    """Before, it is."""
    engine = TimeWarpEngine(1, **options)
    events = [TwinEvent(10), TwinEvent(20)]
    for event in events:
        engine.inject_event(event)
    engine.process_next()
    with pytest.raises(LateInput):
        engine.retract_event(events[0])
    engine.retract_event(events[1])
    assert drained(engine) == []
    assert engine.total_rollbacks == 0


def test_a_window_bounds_how_far_the_engine_runs_ahead():
    """With a source that stands at 0, only what lies within it runs."""
    engine = engine_of(10, 50, 99, 100, 200, window_ns=100)
    engine.watermark(5, 0)
    assert [event.virtual_time_ns for event in drained(engine)] == [10, 50, 99]
    engine.watermark(5, 150)
    assert [event.virtual_time_ns for event in drained(engine)] == [100, 200]
    with pytest.raises(OperatorError):
        TimeWarpEngine(1, window_ns=5, mode=SyncMode.LOCKSTEP)


def test_lockstep_never_passes_the_physical_side():
    """What nodes send waits until input or watermark has come that far."""
    engine = TimeWarpEngine(1, handler=lambda n, e, c: c.send(0, 100), mode=SyncMode.LOCKSTEP)
    engine.inject_event(TwinEvent(10))
    assert [event.virtual_time_ns for event in drained(engine)] == [10]
    engine.watermark(-1, 120)
    assert [event.virtual_time_ns for event in drained(engine)] == [110]
    with pytest.raises(LateInput):
        engine.inject_event(TwinEvent(109, source_node=3))
    assert engine.inject_event(TwinEvent(110, source_node=3))


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_conservative_never_rolls_back(seed):
    """And ends with the digest of the optimistic engine."""

    def handler(node, event, ctx):
        node.state += event.virtual_time_ns * (node.state + 1) % 97
        if event.virtual_time_ns < 300:
            ctx.send(ctx.below(3), 20 + ctx.below(30))

    def run(mode):
        engine = TimeWarpEngine(3, handler=handler, initial_state=0, mode=mode, lookahead_ns=20, schedule_seed=seed)
        for time in range(5, 100, 5):
            engine.inject_event(TwinEvent(time, target_node=time % 3))
        drained(engine)
        return engine

    conservative, optimistic = run(SyncMode.CONSERVATIVE), run(SyncMode.OPTIMISTIC)
    assert conservative.total_rollbacks == 0
    assert (optimistic.total_rollbacks > 0) == (seed is not None)
    assert conservative.digest() == optimistic.digest()


def test_sends_keep_the_declared_lookahead_in_every_mode():
    """Not those to oneself."""
    for mode in SyncMode:
        engine = TimeWarpEngine(2, handler=lambda n, e, c: c.send(1, 9), mode=mode, lookahead_ns=10)
        engine.inject_event(TwinEvent(5))
        engine.process_next()
        with pytest.raises(LookaheadError, match="10 ns"):
            engine.process_next()
    engine = TimeWarpEngine(2, handler=lambda n, e, c: c.send(0, 9), lookahead_ns=10)
    engine.inject_event(TwinEvent(5))
    assert engine.process_next()
    assert engine.process_next()


def test_pairs_of_nodes_may_have_their_own_lookahead():
    """Zero off cycles is fine; a pair without a channel cannot be sent to."""
    engine = TimeWarpEngine(
        2, handler=lambda n, e, c: c.send(1, 0) if n.node_id == 0 else None, mode=SyncMode.CONSERVATIVE
    )
    engine.promises.set_lookahead(1, 0, 50)
    for time, node in ((10, 0), (10, 1), (20, 1)):
        engine.inject_event(TwinEvent(time, target_node=node))
    assert [(e.virtual_time_ns, e.target_node) for e in drained(engine)] == [(10, 0), (10, 1), (10, 1), (20, 1)]
    engine = TimeWarpEngine(2, handler=lambda n, e, c: c.send(1, 50), mode=SyncMode.CONSERVATIVE, lookahead_ns=10)
    engine.promises.set_lookahead(0, 1, None)
    engine.inject_event(TwinEvent(10))
    engine.process_next()
    with pytest.raises(UnknownDestination):
        engine.process_next()


def test_a_handlers_error_counts_only_if_nothing_before_it_repairs_it():
    """It is held; an earlier event may change the state that it came from."""

    def handler(node, event, ctx):
        if node.state == 0 and event.virtual_time_ns == 100:
            raise ZeroDivisionError("no such thing")
        node.state += 1

    engine = TimeWarpEngine(1, handler=handler, initial_state=0)
    engine.inject_event(TwinEvent(100))
    engine.process_next()
    with pytest.raises(ModelError, match="no such thing"):
        engine.process_next()
    with pytest.raises(ModelError, match="no such thing"):
        engine.finish()
    engine = TimeWarpEngine(1, handler=handler, initial_state=0)
    engine.inject_event(TwinEvent(100))
    engine.process_next()
    engine.inject_event(TwinEvent(50))
    assert len(drained(engine)) == 2
    engine.finish()
    assert engine.nodes[0].state == 2


def test_identity_is_hidden_from_handlers_under_commit():
    """Its value depends on when GVT moves."""
    engine = TimeWarpEngine(1, handler=lambda n, e, c: n.identity_deep and None, identity="commit")
    engine.inject_event(TwinEvent(100))
    engine.process_next()
    with pytest.raises(ModelError, match="deepen"):
        engine.process_next()
    with pytest.raises(OperatorError):
        TimeWarpEngine(1, identity="literal")


def test_a_non_speculative_engine_takes_nothing_back():
    """Its nodes wait for the watermark, and what comes late to what is final is refused."""
    engine = engine_of(10, 20, 30, identity="non_speculative")
    engine.watermark(-1, 15)
    assert [event.virtual_time_ns for event in drained(engine)] == [10]
    with pytest.raises(LateInput):
        engine.inject_event(TwinEvent(9, source_node=-2))
    engine.watermark(-1, 100)
    assert [event.virtual_time_ns for event in drained(engine)] == [20, 30]
    assert engine.total_rollbacks == 0


def test_starvation_sees_watermarks_and_leaves_idle_nodes_alone():
    """Nodes that a silent source feeds starve; a node without events does not."""
    engine = TimeWarpEngine(3)
    engine.inject_event(TwinEvent(10, source_node=-5, target_node=2))
    engine.inject_event(TwinEvent(50_000))
    drained(engine)
    assert engine.detect_starvation() == []
    engine.watermark(-5, 100)
    assert engine.detect_starvation() == [2]
    assert engine.detect_starvation(49_900) == []
    engine.watermark(-5, 50_000)
    assert engine.detect_starvation() == []


def test_vector_clocks_of_other_nodes_are_refused_at_injection():
    """Not when a handler is about to run."""
    engine = TimeWarpEngine(2)
    with pytest.raises(ValueError, match="vector clock"):
        engine.inject_event(TwinEvent(5, vector_ts=np.array([1, 2, 3])))
    engine.inject_event(TwinEvent(5, vector_ts=np.array([0, 7]), lamport_ts=9))
    engine.process_next()
    assert (engine.nodes[0].vector_clock.clock.tolist(), engine.nodes[0].lamport.time) == ([1, 7], 10)


def test_initial_states_are_copied_or_made_for_each_node():
    """Nodes share nothing."""
    shared = TimeWarpEngine(2, initial_state=[])
    shared.nodes[0].state.append(1)
    assert shared.nodes[1].state == []
    assert [node.state for node in TimeWarpEngine(3, initial_state=lambda n: n * n).nodes.values()] == [0, 1, 4]
    with pytest.raises(ModelError):
        TimeWarpEngine(1, initial_state={1, 2})


# --- sessions, snapshots, federations -------------------------------------------------------------


def test_session_status_keeps_the_published_keys():
    """And counts what was late."""
    session = TwinSession(2)
    assert session.status().keys() >= {
        "running", "mode", "session_time_ns", "physical_events", "digital_events", "divergence", "within_tolerance", "engine",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("late", "counts"),
    [("repair", (2, 1, 0, 0, 1)), ("clamp", (2, 1, 1, 0, 0)), ("drop", (1, 1, 0, 1, 0))],
)
def test_late_events_follow_the_sessions_policy(late, counts):
    """Repaired, clamped to now, or dropped; counted in any case."""
    session = TwinSession(1, late=late)
    session.start()
    session.inject_physical_event(100, 0)
    session.advance()
    session.inject_physical_event(50, 0)
    session.advance(9)
    node = session.engine.nodes[0]
    found = (node.processed_events, session.late_events, session.clamped_events, session.dropped_events)
    assert (*found, session.engine.total_rollbacks) == counts
    with pytest.raises(OperatorError):
        TwinSession(1, late="ignore")


def test_a_horizon_settles_what_is_older():
    """Outputs leave that far behind, and no repair reaches further."""
    session = TwinSession(1, horizon_ns=100, handler=lambda n, e, c: c.emit(e.virtual_time_ns))
    session.start()
    for time in (100, 200, 300):
        session.inject_physical_event(time, 0)
        session.advance()
    assert session.engine.gvt_ns == 200
    assert [output.message for output in session.outputs()] == [100]
    with pytest.raises(LateInput):
        session.inject_physical_event(199, 0)
    session.inject_physical_event(200, 0)


def test_identity_is_compared_over_all_nodes():
    """A drift of the second node counts, too."""
    session = TwinSession(2, handler=lambda n, e, c: c.deepen(1.0))
    session.start()
    session.inject_physical_event(10, 0, 1)
    session.advance()
    assert session.update_divergence(1.0, 1.0, 0.0).identity_drift == 0.5


def test_divergence_is_the_sum_of_its_parts():
    """Rate + |offset| / 1e6 + identity + 0.1 for each violation, below the tolerance."""
    metric = DivergenceMetric(0.25, -500_000, 0.125, 2)
    assert metric.total_divergence == 0.25 + 0.5 + 0.125 + 0.2
    assert not metric.within_tolerance
    assert DivergenceMetric(0.25, -500_000, 0.125, 2, tolerance=1.1).within_tolerance
    assert not DivergenceMetric(1.0).within_tolerance


@pytest.mark.parametrize("identity", ["state", "commit", "non_speculative"])
@pytest.mark.parametrize("seed", [None, 5])
def test_a_restored_session_goes_on_with_the_same_digest(identity, seed):
    """After any number of steps, with commits, outputs and late events before and after."""

    def handler(node, event, ctx):
        node.state["h"] = (node.state["h"] * 31 + event.virtual_time_ns + ctx.below(10)) % 10_007
        node.state["a"][node.state["h"] % 4] += 1
        ctx.deepen(node.state["h"] / 1000)
        if event.virtual_time_ns < 200:
            ctx.send(ctx.below(3), ctx.below(40), {"from": node.node_id}, priority=ctx.below(3) - 1)
        if node.state["h"] % 2:
            ctx.emit(node.state["h"])

    session = TwinSession(
        3, handler=handler, initial_state={"h": 1, "a": np.zeros(4)}, identity=identity, schedule_seed=seed,
        checkpoint_interval_ns=30, drift=DriftAutoCorrector(10),
    )  # fmt: skip
    session.start()
    for time in range(10, 100, 10):
        session.inject_physical_event(time, time, time // 10 % 3)
    session.engine.watermark(-1, 60)
    for steps in (7, 5, 6):
        session.advance(steps)
        session.engine.fossil_collect()
        session.advance(3)
        before = session.engine.digest()
        snapshot = SessionSnapshot.from_session(session)
        assert session.engine.digest() == before
        again = SessionSnapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))).restore(handler=handler)
        assert again.engine.digest() == before
        ignored = {"engine"}
        assert {k: v for k, v in again.status().items() if k not in ignored} == {
            k: v for k, v in session.status().items() if k not in ignored
        }
        assert again.engine.status() | {"checkpoints": 0} == session.engine.status() | {"checkpoints": 0}
        for twin in (session, again):
            twin.inject_physical_event(twin.engine.earliest_input_ns(-1, 1) + 7, 1, 1)
            twin.advance(4)
    for twin in (session, again):
        twin.engine.watermark(-1, 10_000)
        twin.advance(10_000)
        twin.engine.finish()
    assert again.engine.digest() == session.engine.digest()
    assert [o.message for o in again.outputs()] == [o.message for o in session.outputs()]


def test_snapshots_are_refused_unless_whole():
    """Altered bytes, a missing field, a missing handler."""
    session = TwinSession(1, handler=lambda n, e, c: None)
    snapshot = SessionSnapshot.from_session(session)
    told = snapshot.to_dict()
    assert {f.name for f in fields(snapshot)} - {"handler"} == told.keys()
    with pytest.raises(CheckpointRefused, match="handler"):
        SessionSnapshot.from_dict(told).restore()
    assert snapshot.restore().engine.digest() == session.engine.digest()
    with pytest.raises(CheckpointRefused):
        SessionSnapshot.from_dict({**told, "engine_state": told["engine_state"][:-8]}).restore()
    del told["gvt_ns"]
    with pytest.raises(CheckpointRefused):
        SessionSnapshot.from_dict(told)


def member(*times, handler=None, start=True):
    session = TwinSession(1, handler=handler)
    if start:
        session.start()
    for time in times:
        session.inject_physical_event(time, 0)
    return session


def test_in_a_federation_the_one_furthest_behind_goes_first():
    """Of two at the same time, the one with the lower priority."""
    order = []

    def named(name):
        return lambda node, event, ctx: order.append((event.virtual_time_ns, name))

    federation = TwinFederation()
    federation.register("b", member(100, 200, handler=named("b")), priority=1)
    federation.register("a", member(100, 150, handler=named("a")), priority=2)
    assert federation.advance_all(2) == {"b": 2, "a": 2}
    assert order == [(100, "b"), (100, "a"), (150, "a"), (200, "b")]


def test_a_failing_member_is_reported_and_stops_nobody_within_the_window():
    """It holds GVT, so the others come so far and no further."""

    def failing(node, event, ctx):
        raise RuntimeError("broken")

    federation = TwinFederation(window_ns=100)
    federation.register("bad", member(50, handler=failing))
    federation.register("good", member(60, 150, 151))
    federation.register("stopped", member(70, start=False))
    done = federation.advance_all(10)
    assert done["good"] == 2
    assert federation.failures.keys() == {"bad", "stopped"}
    assert "broken" in str(federation.failures["bad"])
    assert federation.global_gvt() == 50


def test_an_event_that_a_member_refuses_is_reported_and_counted():
    """The member goes on."""
    federation = TwinFederation()
    session = member(100, 200)
    federation.register("a", session)
    federation.advance_all(1)
    session.engine.fossil_collect()
    federation.send("a", TwinEvent(50))
    assert federation.advance_all(1) == {"a": 1}
    assert federation.refused_events == 1
    assert isinstance(federation.failures["a"], LateInput)


def test_a_federations_gvt_is_not_pinned_by_idle_members():
    """With nothing left anywhere it is the largest local time."""
    federation = TwinFederation()
    federation.register("idle", member())
    federation.register("busy", member(500, 700))
    assert federation.global_gvt() == 500
    federation.advance_all(5)
    assert federation.global_gvt() == 700
    assert TwinFederation().global_gvt() == 0
    with pytest.raises(OperatorError, match="nobody"):
        federation.send("nobody", TwinEvent(5))
