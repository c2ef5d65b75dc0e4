"""What the predecessors get wrong, one test for each line of the list, by its number.

Where it can be done in a few lines, the published behaviour stands beside the check (``published_engine``), and the check
rejects it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from published_engine import Ours, Published, fold, in_order, rejected, relay

from tidewarp.compat.twinsync import (
    AdaptiveCheckpointInterval,
    BackpressureController,
    Checkpoint,
    CheckpointAuditChain,
    CheckpointManager,
    DeltaCheckpoint,
    DivergenceMetric,
    DriftAutoCorrector,
    LamportClock,
    MPIRankMapping,
    MPITopology,
    NullMessageOptimizer,
    ReplayVerifier,
    SessionSnapshot,
    SyncMode,
    TimeWarpEngine,
    TwinEvent,
    TwinFederation,
    TwinSession,
    VectorClock,
)
from tidewarp.errors import (
    CheckpointRefused,
    GenerationOverflow,
    LateInput,
    ModelError,
    OperatorError,
    RangeError,
    UnknownDestination,
    ZeroLookahead,
)
from tidewarp.kernel.node_ledger import causal_violations
from tidewarp.kernel.values import unpack_value

BOTH = (Ours, Published)


def play(kind, events, late):
    """Run the events, then the late ones, then all that follows."""
    engine = kind()
    for time, node, value in events:
        engine.inject(time, node, value)
    engine.run()
    for time, node, value in late:
        engine.inject(time, node, value)
        engine.run()
    return engine


# --- rollback -------------------------------------------------------------------------------------

CHAIN = [(100, 0, 205), (200, 0, 7), (300, 2, 8)]
LATE = [(50, 0, 3)]


def check_each_once(kind):
    assert Counter(play(kind, CHAIN, LATE).log) == in_order(CHAIN + LATE)[1]


def test_01_anti_messages_annihilate():
    """Each effective event is in the log once, and no anti-message is."""
    check_each_once(Ours)
    assert rejected(check_each_once, Published)


def check_states(kind, events=CHAIN, late=LATE):
    assert play(kind, events, late).states == in_order(events + late)[0]


def test_02_what_a_straggler_undoes_is_executed_again():
    """States are those of the run in order."""
    events = [(100, 0, 1), (200, 0, 2)]
    check_states(Ours, events)
    assert rejected(check_states, Published, events)


def test_03_the_causal_check_sees_violations_that_are_not_adjacent_and_no_rollbacks():
    """A pair of one node, with another node's event between; and nothing after a correct rollback."""
    log = [((5, 0, 0, -1, 0), None), ((1, 0, 1, -1, 1), None), ((3, 0, 0, -1, 2), None)]
    adjacent = [(i, i + 1) for i, (a, b) in enumerate(itertools.pairwise(log)) if a[0][2] == b[0][2] and a[0] > b[0]]

    def check(found):
        assert found == [(0, 2)]

    check(causal_violations(log))
    assert rejected(check, adjacent)
    engine = play(Ours, CHAIN, LATE)
    assert engine.engine.total_rollbacks
    assert engine.engine.verify_causal_order() == []
    published = [event[:2] for event in play(Published, [(100, 0, 1), (200, 0, 2)], LATE).log]
    assert any(a[1] == b[1] and a[0] > b[0] for a, b in itertools.pairwise(published))


def test_03_a_receive_before_its_send_is_a_violation():
    """On any nodes; causes outside of the log do not count."""
    sent, got = (5, 0, 0, -1, 0), (9, 0, 1, 0, 2**62)
    assert causal_violations([(got, sent), (sent, None)]) == [(0, 1)]
    assert causal_violations([(sent, None), (got, sent)]) == []
    assert causal_violations([(got, sent)]) == []


def test_04_the_checkpoint_interval_is_virtual_time_and_checkpoints_hold_state():
    """Twenty events within one interval need one checkpoint, twenty far apart one each; a checkpoint restores the state."""

    def checkpoints(apart, counted):
        engine = TimeWarpEngine(1, 1000, handler=relay, initial_state=0)
        for n in range(20):
            engine.inject_event(TwinEvent((n + 1) * apart, payload={"v": n}))
        while engine.process_next():
            pass
        assert counted(engine, apart) == (1 if apart == 10 else 20)
        return engine

    def ours(engine, apart):
        return engine.checkpoint_mgr.total_checkpoints

    checkpoints(10, ours)
    engine = checkpoints(2000, ours)
    assert rejected(checkpoints, 2000, lambda engine, apart: 20 // 1000)  # an interval that counts events
    state = 0
    for n, checkpoint in enumerate(engine.checkpoint_mgr.checkpoints[0]):
        assert unpack_value(checkpoint.state)[2] == state
        state = fold(state, n)


def test_05_ties_are_ordered_by_the_key_whatever_the_insertion():
    """Equal time and priority: target, source, sequence."""

    def check(order):
        orders = {tuple(order(list(names))) for names in itertools.permutations(range(5))}
        assert len(orders) == 1

    def ours(names):
        engine = TimeWarpEngine(2)
        for name in names:
            engine.inject_event(TwinEvent(7, target_node=name % 2, source_node=-1, sequence=name))
        return [event.sequence for event in iter(engine.process_next, None)]

    def published(names):
        engine = Published()
        for name in names:
            engine.inject(7, name % 2, name)
        engine.run()
        return [value for _, _, value in engine.log]

    check(ours)
    assert rejected(check, published)


def test_06_an_anti_message_rolls_the_receiver_back_and_cascades():
    """Three nodes in a row had executed what the first one's undone event caused."""
    events, late = [(100, 0, 205), (115, 1, 1), (125, 2, 2)], [(90, 0, 9)]

    def turned(node, event, ctx):
        value = event.payload["v"]
        node.state = fold(node.state, value)
        if value > 99 and (ctx.node_id != 0 or node.processed_events == 1):
            ctx.send(ctx.node_id + 1, 10, {"v": value - 100})

    engine = Ours(handler=turned)
    for event in events:
        engine.inject(*event)
    engine.run()
    assert [node.processed_events for node in engine.engine.nodes.values()] == [1, 2, 2]
    engine.inject(*late[0])
    engine.run()
    assert [node.processed_events for node in engine.engine.nodes.values()] == [2, 1, 1]
    assert [node.rollback_count for node in engine.engine.nodes.values()] == [1, 1, 1]
    assert engine.states == [fold(fold(0, 9), 205), fold(0, 1), fold(0, 2)]
    check_states(Ours)
    assert rejected(check_states, Published)


def test_07_pending_sends_of_undone_events_are_taken_back():
    """What was sent and not executed goes with its sender."""

    def check(kind):
        engine = kind()
        engine.inject(100, 0, 150)
        engine.run(1)
        engine.inject(50, 0, 1)
        engine.run()
        assert Counter(engine.log)[(110, 1, 50)] == 1
        assert not engine.antis

    check(Ours)
    assert rejected(check, Published)
    engine = Ours()
    engine.inject(100, 0, 150)
    engine.run(1)
    assert [(e.virtual_time_ns, e.target_node) for e in engine.engine.event_queue] == [(110, 1)]
    engine.inject(50, 0, 1)
    engine.run(1)
    assert [(e.virtual_time_ns, e.target_node) for e in engine.engine.event_queue] == [(100, 0)]


def check_log_length(kind):
    engine = play(kind, [(100 + 10 * n, 0, n) for n in range(10)], [(50 - n, 0, n) for n in range(4)])
    assert len(engine.log) == 14
    assert engine.antis == 0


def test_08_the_log_holds_effective_events_only():
    """Ten events and four stragglers are fourteen entries."""
    check_log_length(Ours)
    assert rejected(check_log_length, Published)


# --- GVT and memory -------------------------------------------------------------------------------


def check_gvt(kind):
    engine = kind()
    engine.inject(100, 0)
    engine.inject(200, 0)
    engine.run(1)
    assert engine.gvt() == 200
    engine.run()
    assert engine.gvt() == 200


def test_09_idle_nodes_do_not_pin_gvt_and_it_never_goes_back():
    """Nodes 1 and 2 never do anything."""
    check_gvt(Ours)
    assert rejected(check_gvt, Published)
    engine = Ours()
    engine.inject(500, 0)
    engine.run()
    engine.engine.fossil_collect()
    last = engine.gvt()
    for time in (500, 700, 900):
        engine.inject(time, 1)
        assert engine.gvt() >= last
        engine.run()
        last = engine.gvt()


def test_10_fossil_collection_keeps_a_checkpoint_at_gvt_and_shrinks_the_log():
    """Of each node one at or below GVT; committed entries and their bookkeeping go."""
    times = range(0, 1000, 10)

    def check(collect):
        manager = CheckpointManager()
        for time in times:
            manager.save(0, time)
        collect(manager)
        assert manager.find_rollback_target(0, 505) is not None

    check(lambda manager: manager.collect_fossils(505))

    def published(manager):
        manager.checkpoints[0] = [c for c in manager.checkpoints[0] if c.virtual_time_ns >= 505]

    assert rejected(check, published)
    engine = Ours()
    for time in times:
        engine.inject(time, time % 3, 1)
    engine.run()
    assert len(engine.log) == 100
    assert engine.engine.fossil_collect() >= 99
    assert engine.log == [(990, 0, 1)]
    for node in range(3):
        assert engine.engine.checkpoint_mgr.find_rollback_target(node, engine.gvt()) is not None


# --- checkpoints and proofs -----------------------------------------------------------------------


def test_11_the_checksum_covers_every_field_in_full():
    """The published one leaves out node, synapses, identity, clocks, dtype and shape, and cuts to 64 bits."""

    def published(checkpoint):
        parts = [
            (checkpoint.checkpoint_id, 4),
            (checkpoint.virtual_time_ns, 8),
            (checkpoint.lfsr_state, 4),
        ]
        data = b"".join(number.to_bytes(size, "little") for number, size in parts)
        return hashlib.sha256(data + (checkpoint.neuron_state.tobytes())).hexdigest()[:16]

    base = Checkpoint(1, 2, 3, np.zeros(4))
    changes = [
        {"node_id": 4},
        {"synapse_state": np.ones(1)},
        {"identity_deep": 1.0},
        {"lamport_time": 1},
        {"vector_clock": np.ones(1, np.int64)},
        {"neuron_state": np.zeros((2, 2))},
        {"neuron_state": np.zeros(4, np.int64)},
    ]

    def check(checksum):
        found = {checksum(replace(base, **change)) for change in changes} | {checksum(base)}
        assert len(found) == len(changes) + 1
        assert {len(one) for one in found} == {64}

    check(Checkpoint.compute_checksum)
    assert rejected(check, published)
    with pytest.raises(OverflowError):
        published(Checkpoint(2**32, 0, 0, np.zeros(1)))
    assert Checkpoint(2**32, 0, 0, lfsr_state=2**200).compute_checksum()


def test_12_the_audit_chain_finds_what_was_done_to_it():
    """Truncation, a rewritten id, altered contents, an unhashed entry."""

    def published(entries):
        last = "0" * 16
        for _, checksum, kept in entries:
            last = hashlib.sha256(last.encode() + checksum.encode()).hexdigest()[:16]
            if kept != last:
                return False
        return True

    checkpoints = [Checkpoint(n, n, 0) for n in range(3)]
    entries, last = [], "0" * 16
    chain = CheckpointAuditChain()
    for checkpoint in checkpoints:
        checkpoint.compute_checksum()
        chain.append(checkpoint)
        last = hashlib.sha256(last.encode() + checkpoint.checksum.encode()).hexdigest()[:16]
        entries.append((checkpoint.checkpoint_id, checkpoint.checksum, last))
    assert published(entries)
    assert published(entries[:2])  # truncated
    assert published([(9, *entries[0][1:]), *entries[1:]])  # renamed
    assert chain.verify(checkpoints=checkpoints)
    kept = list(chain.chain)
    for altered in (kept[:2], [kept[0]._replace(checkpoint_id=9), *kept[1:]]):
        chain.chain[:] = altered
        assert not chain.verify()
    chain.chain[:] = kept
    checkpoints[1].lfsr_state = 5
    assert not chain.verify(checkpoints=checkpoints)
    with pytest.raises(CheckpointRefused):
        chain.append(Checkpoint(3, 3, 0))


def test_13_deltas_apply_and_are_bitwise():
    """Any shape, NaN, -0.0, the LFSR, and a ratio that says something."""
    base = np.array([[np.nan, 0.0], [1.0, 2.0]])
    new = np.array([[np.nan, -0.0], [1.0, 3.0]])
    delta = DeltaCheckpoint.compute_delta(base, new, 0, 1, 10, 0, base_lfsr=0b1010, new_lfsr=0b0110)
    assert delta.changed_indices.tolist() == [1, 3]
    assert delta.apply(base).tobytes() == new.tobytes()
    assert delta.lfsr_delta == 0b1100
    assert delta.compression_ratio not in (0.0, 1.0)
    published = np.flatnonzero((base != new).reshape(-1)).tolist()
    assert published == [0, 3]  # sees a change in NaN and none in the sign of zero


def test_14_runs_of_unequal_length_are_not_deterministic():
    """The published one compares as many as both have."""
    verifier = ReplayVerifier()
    for n in range(3):
        verifier.record_run_a(Checkpoint(n, n, 0))
    for n in range(2):
        verifier.record_run_b(Checkpoint(n, n, 0))
    assert not verifier.is_deterministic
    assert verifier.first_divergence_index == 2


# --- clocks, modes, sessions ----------------------------------------------------------------------


def test_15_equal_vector_clocks_are_not_concurrent_and_local_events_tick():
    """In the engine every executed event ticks its node's clock, and a receipt merges in place."""
    a, b = VectorClock(0, 2), VectorClock(0, 2)

    def check(concurrent):
        assert not concurrent(a, b)

    check(VectorClock.concurrent_with)
    assert rejected(check, lambda x, y: not (x.clock < y.clock).any() and not (y.clock < x.clock).any())
    engine = Ours(2)
    counts = engine.engine.nodes[1].vector_clock.clock
    engine.inject(10, 0, 105)
    engine.inject(15, 0, 1)
    engine.run()
    assert [n.vector_clock.clock.tolist() for n in engine.engine.nodes.values()] == [[3, 0], [2, 1]]
    assert engine.engine.nodes[1].vector_clock.clock is counts


def outcome(mode):
    """What becomes of an event that comes when a later one has been offered."""
    session = TwinSession(2, mode)
    session.start()
    session.inject_physical_event(300, 1)
    session.engine.watermark(-1, 200) if mode is SyncMode.CONSERVATIVE else None
    executed = session.advance(5)
    try:
        session.inject_physical_event(250, 2)
    except LateInput:
        return executed, "refused"
    session.advance(5)
    return executed, session.engine.total_rollbacks


def test_16_the_three_modes_are_three_policies():
    """Lockstep refuses, optimistic repairs, conservative has waited."""
    found = {mode: outcome(mode) for mode in SyncMode}
    assert found == {
        SyncMode.LOCKSTEP: (1, "refused"),
        SyncMode.OPTIMISTIC: (1, 1),
        SyncMode.CONSERVATIVE: (0, 0),
    }


def test_16_max_divergence_is_the_tolerance():
    """Of the session's metric, from the beginning."""
    session = TwinSession(1, max_divergence=0.25)
    session.start()
    assert session.divergence.within_tolerance
    assert not session.update_divergence(10.0, 13.0, 0.0).within_tolerance
    assert session.update_divergence(10.0, 12.0, 0.0).within_tolerance


def test_16_advance_works_between_start_and_stop_only():
    """Before and after it raises."""
    session = TwinSession(1)
    session.inject_physical_event(5, 0)
    with pytest.raises(OperatorError):
        session.advance()
    session.start()
    assert session.advance() == 1
    session.stop()
    with pytest.raises(OperatorError):
        session.advance()


def test_16_outputs_are_counted_when_gvt_releases_them():
    """Not when they are emitted: a rollback may still take them back."""
    session = TwinSession(1, handler=lambda node, event, ctx: ctx.emit(event.virtual_time_ns))
    session.start()
    for time in (10, 20, 30):
        session.inject_physical_event(time, 0)
    session.advance(3)
    assert session.digital_events_out == 0
    session.engine.fossil_collect()
    assert session.digital_events_out == 2
    assert [output.message for output in session.outputs()] == [10, 20]


def test_16_the_offset_is_taken_from_a_fresh_gvt():
    """GVT as last computed is 0 here."""
    session = TwinSession(2)
    session.start()
    session.inject_physical_event(1_000_000, 0)
    session.advance()
    assert session.engine.gvt_ns == 0
    assert session.update_divergence(1.0, 1.0, 0.0).timing_offset_ns == 0
    session.inject_physical_event(400_000, 0)
    assert session.update_divergence(1.0, 1.0, 0.0).timing_offset_ns == session.session_time_ns - 400_000


def test_16_rollbacks_are_no_violations():
    """Eleven of them are within tolerance; as violations they would not be."""
    session = TwinSession(1)
    session.start()
    for n in range(12):
        session.inject_physical_event(1000 - n, n)
        session.advance(50)
    assert session.engine.total_rollbacks == 11
    assert session.update_divergence(1.0, 1.0, 0.0).within_tolerance
    assert not DivergenceMetric(causal_violations=11).within_tolerance


def deepening(node, event, ctx):
    node.state = fold(node.state, event.payload["v"])
    ctx.deepen(node.state / 1_000_003)


@pytest.mark.parametrize("identity", ["state", "commit", "non_speculative"])
def test_17_identity_does_not_depend_on_the_schedule(identity):
    """Each offered way gives one value, whatever comes late."""

    def deep(order, steps):
        engine = TimeWarpEngine(1, 5, handler=deepening, initial_state=0, identity=identity)
        engine.watermark(-1, 0)
        for time in order:
            engine.inject_event(TwinEvent(time, source_node=-1, payload={"v": time}, sequence=time))
            for _ in range(steps):
                engine.process_next()
        engine.watermark(-1, 1000)
        while engine.process_next():
            pass
        engine.finish()
        return engine.nodes[0].identity_deep, engine.total_rollbacks

    found = [deep(order, steps) for order in ([1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]) for steps in (0, 1, 3)]
    state, true = 0, 0.0
    for time in (1, 2, 3, 4):
        state = fold(state, time)
        true += state / 1_000_003
    assert {value for value, _ in found} == {true}
    assert any(rollbacks for _, rollbacks in found) == (identity != "non_speculative")


def test_17_the_literal_rule_depends_on_the_schedule():
    """Kept across rollback, as published, an undone event counts as often as it was executed."""

    def literal(order):
        kept = []

        def handler(node, event, ctx):
            node.state = fold(node.state, event.payload["v"])
            kept.append(node.state / 1_000_003)  # outside of the state: nothing takes it back

        engine = TimeWarpEngine(1, 5, handler=handler, initial_state=0)
        for time in order:
            engine.inject_event(TwinEvent(time, source_node=-1, payload={"v": time}))
            engine.process_next()
        while engine.process_next():
            pass
        return sum(kept)

    assert literal([1, 2, 3, 4]) != literal([4, 3, 2, 1])


def test_18_starvation_fires():
    """A node with an old unprocessed event starves; the published measure, GVT against local time, can never say so."""
    engine = TimeWarpEngine(2)
    engine.inject_event(TwinEvent(50_000, target_node=1))
    engine.process_next()
    assert engine.detect_starvation() == []
    engine.inject_event(TwinEvent(100, target_node=0))

    def check(found):
        assert found == [0]

    check(engine.detect_starvation())
    gvt = min(node.local_virtual_time_ns for node in engine.nodes.values())
    published = [n for n, node in engine.nodes.items() if gvt - node.local_virtual_time_ns > 10_000]
    assert rejected(check, published)


def test_19_a_barrier_gates():
    """Nothing later runs before all up to it is committed; it is no event."""
    engine = TimeWarpEngine(2)
    for time in (10, 20, 30):
        engine.inject_event(TwinEvent(time, target_node=time // 10 % 2))
    engine.inject_sync_barrier(20)
    assert len(engine.event_queue) == 3
    engine.watermark(7, 15)
    assert [engine.process_next().virtual_time_ns for _ in range(2)] == [10, 20]
    assert engine.process_next() is None  # a source may still give something up to the barrier
    assert engine.barriers_passed == 0
    engine.watermark(7, 21)
    assert engine.process_next().virtual_time_ns == 30
    assert (engine.barriers_passed, engine.ledger.committed, engine.status()["processed_events"]) == (1, 2, 1)
    with pytest.raises(LateInput):
        engine.inject_event(TwinEvent(20))


def test_20_unknown_targets_and_negative_times_are_errors():
    """Nothing vanishes."""
    engine = TimeWarpEngine(2)
    for target in (2, -1):
        with pytest.raises(UnknownDestination):
            engine.inject_event(TwinEvent(5, target_node=target))
    for time in (-1, 1.5, True, 2**63):
        with pytest.raises(ValueError, match="virtual_time_ns"):
            TwinEvent(time)
        event = TwinEvent(5)
        event.virtual_time_ns = time
        with pytest.raises(ValueError, match="virtual_time_ns"):
            engine.inject_event(event)
    assert engine.event_queue == ()


def test_21_cancelled_events_do_not_advance_the_session():
    """Neither returned nor counted; what is cancelled before it was given is refused."""
    session = TwinSession(1)
    session.start()
    with pytest.raises(RangeError, match="cancelled"):
        session.engine.inject_event(TwinEvent(100, cancelled=True))
    later = TwinEvent(200)
    session.engine.inject_event(later)
    later.cancelled = True
    assert session.advance(5) == 0
    assert session.session_time_ns == 0
    assert session.engine.status()["pending_events"] == 0
    session.engine.inject_event(TwinEvent(50))
    assert session.advance(5) == 1


def test_22_the_adaptive_interval_drives_the_engine():
    """Rollbacks halve the engine's interval, calm doubles it, and the rate is over new events."""
    engine = TimeWarpEngine(1, 800, adaptive_interval=AdaptiveCheckpointInterval(800, 100, 10_000))
    for n in range(20):
        engine.inject_event(TwinEvent(1000 - n))
        engine.process_next()
    engine.compute_gvt()
    assert engine.checkpoint_interval_ns == 400
    while engine.process_next():
        pass
    engine.compute_gvt()
    for n in range(200):
        engine.inject_event(TwinEvent(2000 + n))
        engine.process_next()
    engine.compute_gvt()
    assert engine.checkpoint_interval_ns > 400


def test_22_backpressure_gates_injection_and_lets_go():
    """What is shed is counted; the published ratio over all offers would stay pressed."""
    engine = TimeWarpEngine(1, max_queue_depth=10)
    taken = [engine.inject_event(TwinEvent(n)) for n in range(20)]
    assert taken == [True] * 10 + [False] * 10
    assert engine.status()["shed_events"] == 10
    assert engine.status()["pending_events"] == 10
    while engine.process_next():
        pass
    assert engine.inject_event(TwinEvent(100))
    assert not engine.backpressure.is_backpressured
    assert engine.backpressure.rejected_count / engine.backpressure.total_offered > 0.1
    controller = BackpressureController(10)
    assert not controller.should_accept(10)
    assert controller.should_accept(4)


def test_22_null_messages_bound_the_conservative_engine():
    """The engine's own optimizer decides what may run."""

    def handler(node, event, ctx):
        if event.payload:
            ctx.send(1 - node.node_id, 100)

    engine = TimeWarpEngine(2, handler=handler, mode=SyncMode.CONSERVATIVE, lookahead_ns=100, schedule_seed=1)
    for time in range(0, 1000, 50):
        engine.inject_event(TwinEvent(time, target_node=time // 50 % 2, payload={"go": 1}))
    told = set()
    while (event := engine.process_next()) is not None:
        safe = engine.promises.safe_advance_time(event.target_node)
        assert event.virtual_time_ns < safe
        told.add(safe)
    assert len(told) > 3
    assert engine.total_rollbacks == 0
    assert engine.ledger.committed == 0
    assert sum(engine.node_throughput().values()) == 40


def test_22_drift_is_corrected_and_journaled():
    """The session moves its map from physical to virtual time."""
    journal = []
    session = TwinSession(1, drift=DriftAutoCorrector(100, 0.5), journal=journal.append)
    session.start()
    session.inject_physical_event(10_000, 0)
    session.advance()
    assert session.synchronize(10_050) is None
    correction = session.synchronize(11_000)
    assert correction.correction_ns == 500
    assert session.clock_offset_ns == -500
    assert len(journal) == 1
    assert b"tw.drift" in journal[0]
    session.inject_physical_event(12_000, 0)
    session.advance()
    assert session.session_time_ns == 11_500


def test_23_null_messages_do_not_go_back():
    """A promise that was given stays."""
    optimizer = NullMessageOptimizer(2)
    optimizer.broadcast_null(0, 500)
    with pytest.raises(ValueError, match="500"):
        optimizer.broadcast_null(0, 499)
    with pytest.raises(ValueError, match="500"):
        optimizer.configs[0].send_null_message(100)


def test_24_federation_gvt_is_computed_now_and_bounds_its_members():
    """Members, and events on their way between them; nobody runs past it by more than the window."""
    federation = TwinFederation(window_ns=1000)
    sessions = {}
    for name, times in (("a", (100, 200, 300)), ("b", (5000, 6000))):
        sessions[name] = session = TwinSession(1)
        session.start()
        for time in times:
            session.inject_physical_event(time, 0)
        federation.register(name, session)
    assert federation.global_gvt() == 100
    assert all(session.engine.gvt_ns == 0 for session in sessions.values())  # what is published: the cached ones
    assert federation.advance_all(2) == {"a": 2, "b": 0}
    federation.send("b", TwinEvent(150))
    assert federation.global_gvt() == 150
    assert federation.advance_all(1) == {"a": 1, "b": 1}
    assert federation.advance_all(5) == {"a": 0, "b": 2}
    assert federation.global_gvt() == 6000
    with pytest.raises(OperatorError):
        federation.register("a", sessions["a"])


def test_25_overlapping_ranges_and_unknown_hosts():
    """A neuron has one rank, and who does not say where it runs is nobody's neighbour."""
    topology = MPITopology()
    topology.add_rank(MPIRankMapping(0, neuron_range=(0, 10)))
    with pytest.raises(ValueError, match=r"rank 1 .* rank 0"):
        topology.add_rank(MPIRankMapping(1, neuron_range=(9, 20)))
    topology.add_rank(MPIRankMapping(1, neuron_range=(10, 20)))
    assert topology.total_neurons == 20
    assert topology.co_located_ranks(0) == []


def test_26_a_snapshot_survives_json_and_is_restored():
    """Node numbers are ints again, and the session goes on with the same digest."""
    session = TwinSession(3, handler=relay, initial_state=0, checkpoint_interval_ns=20)
    session.start()
    for time in (30, 10, 20):
        session.engine.inject_event(TwinEvent(time, target_node=time // 10 % 3, payload={"v": 200 + time}))
        session.advance(2)
    snapshot = SessionSnapshot.from_session(session)
    told = json.loads(json.dumps(snapshot.to_dict()))
    again = SessionSnapshot.from_dict(told)
    assert again == snapshot
    assert set(again.node_lvts) == {0, 1, 2}
    restored = again.restore(handler=relay)
    for twin in (session, restored):
        twin.engine.inject_event(TwinEvent(15, target_node=1, payload={"v": 7}))
        twin.advance(100)
    assert restored.engine.digest() == session.engine.digest()
    assert restored.status()["engine"]["total_rollbacks"] == session.status()["engine"]["total_rollbacks"]


def test_27_a_rollback_target_exists_whatever_the_maximum():
    """The published manager keeps the newest hundred, and the target for GVT is gone."""
    manager, published = CheckpointManager(10), []
    for time in range(100):
        manager.save(0, time)
        published = [*published, time][-10:]
    assert manager.total_checkpoints == 10
    assert manager.find_rollback_target(0, 5) is not None
    assert not any(time <= 5 for time in published)
    engine = Ours()
    engine.engine.checkpoint_mgr.max_checkpoints = 3
    for time in range(100, 200):
        engine.inject(time, 0, time)
    engine.run()
    engine.inject(50, 0, 1)
    engine.run()
    assert engine.states[0] == in_order([(50, 0, 1), *((t, 0, t) for t in range(100, 200))])[0][0]


def test_28_saves_out_of_order_do_not_break_the_search():
    """The published search takes the last in order of saving."""

    def check(find):
        assert find(25) == 20

    manager = CheckpointManager()
    saved = (30, 20, 10)
    for time in saved:
        manager.save(0, time)
    check(lambda time: manager.find_rollback_target(0, time).virtual_time_ns)
    assert rejected(check, lambda time: [t for t in saved if t <= time][-1])


def stamps(order):
    """Lamport stamps of the effective events, whatever was undone on the way."""
    engine = Ours()
    for time, node, value in order:
        engine.engine.inject_event(
            TwinEvent(time, 0, source_node=-1, target_node=node, payload={"v": value}, sequence=time)
        )
        engine.run(2)
    engine.run()
    return sorted((e.order, e.lamport_ts) for e in engine.engine.processed), engine.engine.total_rollbacks


def test_29_lamport_stamps_are_those_of_the_sequential_run():
    """The clock is restored with its node; messages are told apart by numbers that are never used twice."""
    events = [(100, 0, 205), (150, 0, 120), (200, 1, 7)]
    in_time, none = stamps(events)
    late, some = stamps(events[::-1])
    assert (none, some > 0) == (0, True)
    assert in_time == late
    clock = LamportClock()
    published = [clock.tick() for _ in range(3)]
    clock.time = 1  # a rollback, and a re-execution without what was undone
    assert clock.tick() in published


def test_30_a_straggler_at_equal_time_is_seen():
    """The full key decides: an event of higher priority at the time of an executed one rolls that back."""

    def check(kind):
        engine = kind(1)
        engine.inject(100, 0, 1, priority=5)
        engine.run()
        engine.inject(100, 0, 2, priority=-5)
        engine.run()
        assert engine.states == [fold(fold(0, 2), 1)]

    check(Ours)
    assert rejected(check, Published)


def calls(action):
    """How many Python and C functions an action calls: a cost without a clock."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def cost_of_rollback(kind, history):
    engine = kind(2)
    for time in range(history):
        engine.inject(time, 0, 1)
    engine.inject(history + 10, 0, 1)
    engine.run()
    engine.inject(history + 5, 0, 1)
    return calls(lambda: engine.run(2))


def cost_of_gvt(kind, pending):
    engine = kind(2)
    for time in range(pending):
        engine.inject(time, 0, 1)
    engine.run(1)
    return calls(engine.gvt)


def test_31_a_rollback_costs_what_it_undoes_and_gvt_what_there_are_nodes():
    """Neither the history nor the queue is walked through."""

    def check(cost, kind):
        assert cost(kind, 600) < cost(kind, 20) * 3

    for cost in (cost_of_rollback, cost_of_gvt):
        check(cost, Ours)
    assert rejected(check, cost_of_gvt, Published)


# --- of others ------------------------------------------------------------------------------------


def test_33_a_loop_without_time_ends():
    """A chain of zero-delay sends has a bound and an error, not all the memory there is."""

    def handler(node, event, ctx):
        ctx.send(node.node_id, 0)

    engine = TimeWarpEngine(1, handler=handler)
    engine.inject_event(TwinEvent(5, generation=999_998))
    engine.process_next()
    engine.process_next()
    with pytest.raises(GenerationOverflow, match="node 0 at 5 ns"):
        engine.process_next()


def test_35_users_write_no_save_and_recover():
    """The handler's state is plain values, and what cannot be kept is refused by name."""

    def handler(node, event, ctx):
        node.state["when"] = {event.virtual_time_ns}

    engine = TimeWarpEngine(1, handler=handler, initial_state={})
    engine.inject_event(TwinEvent(5))
    engine.process_next()
    with pytest.raises(ModelError, match=r"state of node 0\['when'\]"):
        engine.process_next()


def test_36_who_waits_for_whom_is_named():
    """A cycle without lookahead is refused with its nodes, instead of a silent hang."""
    engine = TimeWarpEngine(2, handler=relay, mode=SyncMode.CONSERVATIVE)
    engine.inject_event(TwinEvent(5, payload={"v": 1}))
    with pytest.raises(ZeroLookahead, match=r"node 0 -> node 1|node 1 -> node 0"):
        engine.process_next()


@pytest.mark.parametrize(("beyond", "states"), [("clamp", [3, 60]), ("drop", [2, 60])])
def test_37_late_events_below_gvt_follow_a_policy(beyond, states):
    """An error by default; clamped or dropped, and counted, if so asked."""
    session = TwinSession(1, beyond=beyond, horizon_ns=20)
    session.start()
    for time in (40, 60):
        session.inject_physical_event(time, 0)
        session.advance()
    with pytest.raises(LateInput):
        session.engine.inject_event(TwinEvent(39, source_node=-1))
    session.inject_physical_event(10, 0)
    session.advance(5)
    assert [session.engine.nodes[0].processed_events, session.session_time_ns] == states
    assert (session.late_events, session.clamped_events + session.dropped_events) == (1, 1)


def test_38_ties_have_no_private_counter():
    """Any interleaving of the sources gives one run; a sequence number used twice is an error."""
    events = [TwinEvent(10, source_node=-1 - n % 2, target_node=0, payload={"v": n}) for n in range(6)]
    engine = Ours(1)
    for event in events:
        engine.engine.inject_event(event)
    engine.run()
    for seed in range(5):
        other = Ours(1, schedule_seed=seed)
        for event in events[seed:] + events[:seed]:
            other.engine.inject_event(event)
            other.run(1)
        other.run()
        assert other.engine.digest() == engine.engine.digest()
    with pytest.raises(RangeError, match="sequence"):
        other.engine.inject_event(events[0])
