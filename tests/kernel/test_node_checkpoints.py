"""Checkpoints of nodes: checksums over everything, rollback targets that stay, deltas that apply."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tidewarp.errors import CheckpointRefused, CodecError, ModelError, RangeError
from tidewarp.kernel.node_checkpoints import (
    AdaptiveCheckpointInterval,
    Checkpoint,
    CheckpointManager,
    DeltaCheckpoint,
)
from tidewarp.kernel.values import copied, pack_value, unpack_value

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.byte_string_dtypes(min_len=1, max_len=4),
    hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=3),
    hnp.datetime64_dtypes(endianness="?"),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = hnp.arrays(DTYPES, SHAPES)


def bits(array):
    return array.dtype, array.shape, array.tobytes()


# --- Checkpoint -----------------------------------------------------------------------------------

FULL = Checkpoint(
    5,
    1000,
    2,
    neuron_state=np.arange(6.0).reshape(2, 3),
    synapse_state=np.arange(4),
    lfsr_state=0xB400,
    identity_deep=0.5,
    lamport_time=9,
    vector_clock=np.array([1, 2]),
    state=b"s",
)


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_id": 6},
        {"virtual_time_ns": 1001},
        {"node_id": 3},
        {"neuron_state": np.arange(6.0)},
        {"neuron_state": np.arange(6.0).reshape(3, 2)},
        {"neuron_state": np.arange(6.0, dtype=np.float32).reshape(2, 3)},
        {"neuron_state": np.arange(6.0).view(np.int64).reshape(2, 3)},
        {"neuron_state": None},
        {"synapse_state": np.arange(1, 5)},
        {"synapse_state": None},
        {"lfsr_state": 0xB401},
        {"identity_deep": -0.5},
        {"lamport_time": 10},
        {"vector_clock": np.array([2, 1])},
        {"vector_clock": None},
        {"state": None},
        {"state": b""},
    ],
)
def test_the_checksum_covers_every_field(change):
    """Any field, and the dtype or shape of an array with the same bytes, gives another checksum."""
    assert replace(FULL, **change).compute_checksum() != FULL.compute_checksum()
    assert FULL.differing_fields(replace(FULL, **change)) == tuple(change)


def test_every_field_has_a_case_above():
    """A field that is added later cannot be forgotten."""
    marks = test_the_checksum_covers_every_field.pytestmark
    tested = {name for mark in marks for case in mark.args[1] for name in case}
    assert tested == {field.name for field in fields(Checkpoint)} - {"checksum"}


def test_swapped_fields_have_another_checksum():
    """Parts are labelled: neurons' values as synapses' are another state."""
    a = Checkpoint(0, 0, 0, neuron_state=np.ones(3))
    b = Checkpoint(0, 0, 0, synapse_state=np.ones(3))
    assert a.compute_checksum() != b.compute_checksum()


def test_the_checksum_is_a_whole_sha_256_and_is_set():
    """64 digits, returned and kept; before, a checkpoint does not verify."""
    checkpoint = Checkpoint(0, 0, 0)
    assert checkpoint.checksum == ""
    assert not checkpoint.verify()
    assert len(checkpoint.compute_checksum()) == 64
    assert checkpoint.verify()


def test_verify_finds_an_altered_field():
    """Whatever is set after the checksum was computed."""
    for field in fields(Checkpoint):
        checkpoint = replace(FULL)
        checkpoint.compute_checksum()
        assert checkpoint.verify()
        setattr(checkpoint, field.name, 77 if field.name != "state" else b"t")
        assert not checkpoint.verify()


@given(st.integers(-(2**300), 2**300), st.integers(-(2**300), 2**300))
def test_integers_of_any_size_are_told_apart(a, b):
    """Nothing overflows, nothing is cut."""
    sums = [Checkpoint(0, 0, 0, lfsr_state=n).compute_checksum() for n in (a, b)]
    assert (sums[0] == sums[1]) == (a == b)


@given(ARRAYS, ARRAYS)
def test_arrays_are_told_apart_by_dtype_shape_and_bytes(a, b):
    """Two arrays share a checksum only if they hold the same values in the same layout; byte order aside."""
    same = a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=") and a.shape == b.shape
    same = same and a.astype(a.dtype.newbyteorder("<")).tobytes() == b.astype(b.dtype.newbyteorder("<")).tobytes()
    sums = [Checkpoint(0, 0, 0, neuron_state=array).compute_checksum() for array in (a, b)]
    assert (sums[0] == sums[1]) == same


def test_arrays_are_copied_and_frozen():
    """Neither the caller's array nor the checkpoint's can change what was saved."""
    state = np.zeros(3)
    checkpoint = Checkpoint(0, 0, 0, neuron_state=state)
    checkpoint.compute_checksum()
    state[0] = 1.0
    assert checkpoint.verify()
    with pytest.raises(ValueError, match="read-only"):
        checkpoint.neuron_state[0] = 1.0


@pytest.mark.parametrize("bad", [True, 1.0, -1, 2**63, "0", None])
def test_a_checkpoint_time_is_whole_nanoseconds(bad):
    """Anything else is a ValueError with value and rule."""
    with pytest.raises(ValueError, match="virtual_time_ns"):
        Checkpoint(0, bad, 0)
    with pytest.raises(ValueError, match="virtual_time_ns"):
        CheckpointManager().save(0, bad)


def test_arrays_of_objects_are_refused():
    """Their bytes are addresses."""
    with pytest.raises(ModelError, match="neuron_state"):
        Checkpoint(0, 0, 0, neuron_state=np.array([{}]))


# --- CheckpointManager ----------------------------------------------------------------------------


def times(manager, node=0):
    return [checkpoint.virtual_time_ns for checkpoint in manager.checkpoints.get(node, [])]


def test_checkpoints_are_sorted_in_whatever_order_they_are_saved():
    """Sorted by time, and the target search relies on it."""
    manager = CheckpointManager()
    for time in (30, 10, 20, 20):
        manager.save(0, time)
    assert times(manager) == [10, 20, 20, 30]
    assert manager.find_rollback_target(0, 29).virtual_time_ns == 20
    assert manager.find_rollback_target(0, 29).checkpoint_id == 3
    assert manager.find_rollback_target(0, 9) is None
    assert manager.find_rollback_target(1, 99) is None
    assert manager.total_checkpoints == 4


def test_save_keeps_everything_and_hashes_it():
    """What is saved is what is found, with a checksum that verifies."""
    manager = CheckpointManager()
    saved = manager.save(1, 5, np.ones(2), np.zeros(3), 7, 0.25, 11, np.array([1, 0]), state=b"x")
    found = manager.find_rollback_target(1, 5)
    assert found is saved
    assert found.verify()
    assert (found.lfsr_state, found.identity_deep, found.lamport_time, found.state) == (7, 0.25, 11, b"x")
    assert found.neuron_state.tolist() == [1.0, 1.0]


def test_discard_after_drops_only_what_is_later():
    """A checkpoint at the time itself stays."""
    manager = CheckpointManager()
    for time in (10, 20, 30):
        manager.save(0, time)
    assert manager.discard_after(0, 20) == 1
    assert times(manager) == [10, 20]
    assert manager.discard_after(9, 0) == 0


def test_fossil_collection_keeps_one_at_or_below_gvt():
    """Of each node, the newest."""
    manager = CheckpointManager()
    for node, saved in ((0, (0, 10, 20, 30)), (1, (25,)), (2, (5,))):
        for time in saved:
            manager.save(node, time)
    assert manager.collect_fossils(20) == 2
    assert (times(manager), times(manager, 1), times(manager, 2)) == ([20, 30], [25], [5])
    assert manager.collect_fossils(29) == 0
    with pytest.raises(RangeError):
        manager.collect_fossils(28)
    with pytest.raises(RangeError):
        manager.discard_after(0, 28)


def test_over_the_maximum_the_middle_is_thinned():
    """Neither the newest nor the one at GVT goes, and what stays is spread out."""
    manager = CheckpointManager(5)
    for time in range(0, 1000, 10):
        manager.save(0, time)
    kept = times(manager)
    assert len(kept) == 5
    assert (kept[0], kept[-1]) == (0, 990)
    assert max(b - a for a, b in itertools.pairwise(kept)) < 700


class ManagerMachine(RuleBasedStateMachine):
    """CheckpointManager against a dict of lists, with every target from GVT on."""

    def __init__(self):
        super().__init__()
        self.manager = CheckpointManager(4)
        self.saved = {}
        self.gvt = 0

    @rule(node=st.integers(0, 2), time=st.integers(0, 100))
    def save(self, node, time):
        saved = self.saved.setdefault(node, [])
        if not saved:
            self.manager.save(node, self.gvt)  # as an engine does: a state at or below GVT from the beginning
            saved.append(self.gvt)
        time += self.gvt
        newest = max(times(self.manager, node))
        self.manager.save(node, time)
        assert times(self.manager, node)[-1] == max(newest, time)
        saved.append(time)

    @rule(node=st.integers(0, 2), ahead=st.integers(0, 100))
    def discard(self, node, ahead):
        before = times(self.manager, node)
        dropped = self.manager.discard_after(node, self.gvt + ahead)
        self.saved[node] = [time for time in self.saved.get(node, []) if time <= self.gvt + ahead]
        assert times(self.manager, node) == [time for time in before if time <= self.gvt + ahead]
        assert dropped == len(before) - len(times(self.manager, node))

    @rule(ahead=st.integers(0, 30))
    def collect(self, ahead):
        self.gvt += ahead
        before = {node: times(self.manager, node) for node in self.saved}
        self.manager.collect_fossils(self.gvt)
        for node, kept in before.items():
            below = [time for time in kept if time <= self.gvt]
            assert times(self.manager, node) == below[-1:] + kept[len(below) :]

    @invariant()
    def targets_exist_and_are_real(self):
        for node, saved in self.saved.items():
            kept = times(self.manager, node)
            assert kept == sorted(kept)
            assert set(kept) <= set(saved)
            assert len(kept) <= 4
            if saved:
                assert self.manager.find_rollback_target(node, self.gvt).virtual_time_ns <= self.gvt
                target = self.manager.find_rollback_target(node, self.gvt + 50).virtual_time_ns
                assert target == max(time for time in kept if time <= self.gvt + 50)


TestCheckpointManager = ManagerMachine.TestCase
TestCheckpointManager.settings = settings(deadline=None, max_examples=25, stateful_step_count=25)


# --- DeltaCheckpoint ------------------------------------------------------------------------------


@st.composite
def states(draw):
    a = draw(ARRAYS)
    b = a.copy()
    if draw(st.booleans()):
        b = draw(hnp.arrays(a.dtype, a.shape))
    elif a.size:
        place = draw(st.integers(0, a.size - 1))
        b.reshape(-1)[place] = draw(hnp.from_dtype(a.dtype))
    return a, b


@given(states(), st.integers(0, 2**70), st.integers(0, 2**70))
def test_a_delta_applied_to_its_base_is_the_new_state(pair, base_lfsr, new_lfsr):
    """For every dtype and shape, bit by bit, also after a round trip as bytes."""
    a, b = pair
    delta = DeltaCheckpoint.compute_delta(a, b, 1, 2, 30, 4, base_lfsr=base_lfsr, new_lfsr=new_lfsr)
    assert bits(delta.apply(a)) == bits(b)
    assert delta.apply_lfsr(base_lfsr) == new_lfsr
    again = DeltaCheckpoint.from_bytes(delta.to_bytes())
    assert again.to_bytes() == delta.to_bytes()
    assert bits(again.apply(a)) == bits(b)
    assert delta.num_changes == len(delta.changed_indices) <= a.size
    assert delta.size_bytes == again.size_bytes == len(delta.to_bytes())
    assert delta.compression_ratio == again.compression_ratio == a.nbytes / delta.size_bytes
    assert (again.base_checkpoint_id, again.checkpoint_id, again.virtual_time_ns, again.node_id) == (1, 2, 30, 4)


@given(states())
def test_a_delta_holds_exactly_the_places_that_differ_bitwise(pair):
    """Against a loop over the bytes of each element."""
    a, b = pair
    size = a.dtype.itemsize
    x, y = a.tobytes(), b.tobytes()
    places = [i for i in range(a.size) if x[i * size : (i + 1) * size] != y[i * size : (i + 1) * size]]
    assert DeltaCheckpoint.compute_delta(a, b, 0, 1, 0, 0).changed_indices.tolist() == places


def test_nan_is_equal_to_itself_and_zero_has_a_sign():
    """The bits decide: nan to nan is no change, 0.0 to -0.0 is one."""
    a, b = np.array([np.nan, 0.0, 1.0]), np.array([np.nan, -0.0, 1.0])
    delta = DeltaCheckpoint.compute_delta(a, b, 0, 1, 0, 0)
    assert delta.changed_indices.tolist() == [1]
    assert np.signbit(delta.apply(a)[1])


def test_the_ratio_is_full_bytes_over_stored_bytes():
    """Above 1 where few of many values changed, below where all of few did."""
    big = np.zeros(1000)
    changed = big.copy()
    changed[7] = 1.0
    sparse = DeltaCheckpoint.compute_delta(big, changed, 0, 1, 0, 0)
    dense = DeltaCheckpoint.compute_delta(np.zeros(4), np.ones(4), 0, 1, 0, 0)
    assert sparse.compression_ratio == 8000 / len(sparse.to_bytes()) > 40
    assert dense.compression_ratio < 1
    assert dense.compression_ratio != sparse.compression_ratio


@pytest.mark.parametrize(
    "base", [np.zeros(4), np.zeros((2, 3), np.float32), np.zeros((3, 2)), np.full((2, 3), 5.0), -np.zeros((2, 3))]
)
def test_a_wrong_base_is_refused(base):
    """Another dtype, another shape, other values, other bits of equal values."""
    delta = DeltaCheckpoint.compute_delta(np.zeros((2, 3)), np.ones((2, 3)), 0, 1, 0, 0)
    with pytest.raises(CheckpointRefused):
        delta.apply(base)


def test_states_of_different_layout_have_no_delta():
    """They need a full checkpoint."""
    for other in (np.zeros(4), np.zeros((3, 1)), np.zeros(3, np.float32)):
        with pytest.raises(RangeError):
            DeltaCheckpoint.compute_delta(np.zeros(3), other, 0, 1, 0, 0)


def test_a_delta_put_together_by_hand_cannot_be_applied():
    """The published constructor stays; what it does not say is not guessed."""
    delta = DeltaCheckpoint(0, 1, 10, 2, np.array([1, 3]), np.array([0.5, 0.25]), 6, 32)
    assert (delta.num_changes, delta.lfsr_delta, delta.size_bytes, delta.compression_ratio) == (2, 6, 32, 0.0)
    with pytest.raises(CheckpointRefused):
        delta.apply(np.zeros(4))


@given(st.data())
def test_altered_bytes_are_refused(data):
    """A flipped bit, a cut and an appended byte: nothing is loaded."""
    whole = DeltaCheckpoint.compute_delta(np.zeros(5), np.arange(5.0), 0, 1, 0, 0).to_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    for bad in (bytes(flipped), whole[:place], whole + b"\0"):
        with pytest.raises(CheckpointRefused):
            DeltaCheckpoint.from_bytes(bad)


@pytest.mark.parametrize("places", [[3, 1], [1, 1], [-1, 0], [0.5, 1.5], [[0, 1]]])
def test_places_ascend_and_are_whole(places):
    """A place twice would have two values."""
    with pytest.raises(RangeError):
        DeltaCheckpoint(0, 1, 10, 2, np.array(places), np.zeros(2))


# --- the interval ---------------------------------------------------------------------------------


def test_the_interval_follows_new_rollbacks_over_new_events():
    """Above 5 % it halves, below 1 % it doubles, between it stays; within its bounds."""
    interval = AdaptiveCheckpointInterval(1000, 100, 10000)
    assert interval.update(6, 100) == 500
    assert interval.update(9, 200) == 500
    assert interval.update(9, 300) == 1000
    assert [interval.update(9, 300 + 100 * n) for n in range(1, 6)] == [2000, 4000, 8000, 10000, 10000]
    assert interval.current_interval == 10000
    total = 9
    for n in range(1, 9):
        interval.update(total + 50 * n, 800 + 100 * n)
    assert interval.current_interval == 100
    assert interval.is_aggressive


def test_a_late_storm_of_rollbacks_counts_in_full():
    """Over all events since the start, as published, its rate would be under the threshold."""
    interval = AdaptiveCheckpointInterval()
    interval.update(0, 100_000)
    assert interval.update(500, 101_000) == interval.current_interval == 1000
    assert 500 / 101_000 < 0.01


def test_rollbacks_without_new_events_count_later():
    """An update without events changes nothing and forgets nothing."""
    interval = AdaptiveCheckpointInterval()
    assert interval.update(10, 0) == 1000
    assert interval.update(10, 100) == 500
    assert not interval.is_aggressive


@pytest.mark.parametrize("bad", [(0, 1, 2), (10, 20, 30), (10, 5, 9), (1.0, 1, 2)])
def test_intervals_stand_in_order(bad):
    """1 <= minimum <= base <= maximum, totals never fall."""
    with pytest.raises(RangeError):
        AdaptiveCheckpointInterval(*bad)
    interval = AdaptiveCheckpointInterval()
    interval.update(5, 10)
    with pytest.raises(RangeError):
        interval.update(4, 20)


# --- values of nodes ------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**80), 2**80),
        st.floats(),
        st.complex_numbers(),
        st.text(max_size=5),
        st.binary(max_size=5),
        hnp.arrays(st.sampled_from(["<f8", "<i4", "?"]), hnp.array_shapes(max_dims=2, max_side=3)),
        st.integers(0, 9).map(np.int16),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.tuples(st.integers())), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_values_are_copied_and_packed_with_their_types(value):
    """A copy packs to the same bytes, and so does what is unpacked from them."""
    data = pack_value(value, "state")
    again = copied(value, "state")
    assert pack_value(again, "state") == data
    assert type(unpack_value(data)) is type(value)
    assert pack_value(unpack_value(data), "state") == data


def test_a_copy_shares_nothing_that_can_change():
    """Lists, dicts and arrays, at any depth."""
    state = {"a": [np.zeros(2), {"b": [1]}], 3: ({"c": 1},)}
    kept = copied(state, "state")
    before = pack_value(kept, "state")
    state["a"][0][0] = 1.0
    state["a"][1]["b"].append(2)
    state[3][0]["c"] = 5
    assert pack_value(kept, "state") == before


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), np.array([object()]), np.zeros(1, [("a", "i4")]), type("D", (dict,), {})(), bytearray(b"x")],
)
def test_other_types_are_refused_by_name_and_place(value):
    """Nobody knows whether a copy of one is independent."""
    for method in (copied, pack_value):
        with pytest.raises(ModelError, match=r"state\['a'\]\[0\]"):
            method({"a": [value]}, "state")


def test_a_value_that_contains_itself_is_refused():
    """It would be copied for ever."""
    loop = []
    loop.append(loop)
    for method in (copied, pack_value):
        with pytest.raises(ModelError, match="24 containers"):
            method(loop, "state")


@given(VALUES, st.data())
def test_bytes_of_no_value_are_refused(value, data):
    """A flipped bit gives the bytes of another value, or none: never two byte forms of one."""
    flipped = bytearray(pack_value(value, "state"))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = unpack_value(bytes(flipped))
    except CodecError:
        return
    assert pack_value(found, "state") == flipped
