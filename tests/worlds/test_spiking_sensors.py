"""Sensors that are late: what optimistic engines repair, and the others wait for; the digest is that of sensors in time."""

import pytest

from tidewarp.errors import LateInput, OperatorError
from tidewarp.kernel import Engine
from tidewarp.units import seconds
from tidewarp.worlds.spiking import Recorded, Settings, build, hand_over, recording
from tidewarp.worlds.spiking.lif import Pulse

MS = 1_000_000
UNTIL = seconds(0.08)
SMALL = {"populations": 4, "neurons": 16, "fan": 2, "density": 0.4, "weight_mv": 1.5, "rate_hz": 20.0}
KERNELS = [
    {"kernel": "sequential"},
    {"kernel": "conservative", "workers": 2},
    {"kernel": "optimistic", "workers": 1, "window": seconds(0.05)},
    {"kernel": "optimistic", "workers": 2, "window": seconds(0.05), "schedule_seed": 3},
]


@pytest.fixture(scope="module")
def spikes():
    return recording(4, 16, 400.0, MS, UNTIL, seed=9)


def run_with(spikes, late, **options):
    """Digest, spikes that came late, events undone."""
    network = build(Settings(**SMALL))
    with Engine(network.model, tier="python", **options) as engine:
        late_count = hand_over(engine, network.sensors, spikes, UNTIL, late=late)
        return engine.digest(), late_count, engine.stats().rolled_back


@pytest.fixture(scope="module")
def in_time(spikes):
    return run_with(spikes, 0)[0]


@pytest.mark.parametrize("options", KERNELS, ids=["sequential", "conservative", "optimistic", "optimistic-2"])
@pytest.mark.parametrize("late", [2 * MS, 20 * MS, 1000 * MS], ids=["2ms", "20ms", "beyond the end"])
def test_late_sensors_give_the_digest_of_sensors_in_time(spikes, in_time, options, late):
    """Repaired as stragglers, or waited for."""
    digest, late_count, rolled_back = run_with(spikes, late, **options)
    assert digest == in_time
    assert late_count == len(spikes) > 50
    if late < UNTIL:  # with a watermark that never moves, no engine goes anywhere before the last delivery
        assert (rolled_back > 0) == (options["kernel"] == "optimistic")


def test_sensors_matter(spikes, in_time):
    """One spike less, or one step later, is another run."""
    assert run_with(spikes[:-1], 0)[0] != in_time
    first = spikes[0]
    assert run_with(sorted([*spikes[1:], first._replace(tick=first.tick + MS)]), 0)[0] != in_time


def test_slices_of_the_delivery_do_not_matter(spikes, in_time):
    """How far the engine goes between two deliveries is nobody's business."""
    network = build(Settings(**SMALL))
    with Engine(network.model, tier="python") as engine:
        assert hand_over(engine, network.sensors, spikes, UNTIL, slice=7 * MS) == 0
        assert engine.digest() == in_time


def test_behind_its_watermark_a_sensor_is_refused(spikes):
    """What has been promised cannot come any more."""
    network = build(Settings(**SMALL))
    with Engine(network.model, tier="python", kernel="optimistic") as engine:
        hand_over(engine, network.sensors, spikes, UNTIL, late=20 * MS)
        with pytest.raises(LateInput, match="watermark"):
            engine.inject(network.sensors, 0, UNTIL, Pulse(0))


def test_a_recording_lies_on_boundaries_in_order_of_time():
    """Repeatable, at its rate, one sensor for each population."""
    made = recording(5, 16, 200.0, MS, seconds(1), seed=4)
    assert (
        made
        == sorted(made)
        == recording(5, 16, 200.0, MS, seconds(1), seed=4)
        != recording(5, 16, 200.0, MS, seconds(1), seed=5)
    )
    assert all(0 < spike.tick <= seconds(1) and spike.tick % MS == 0 and 0 <= spike.neuron < 16 for spike in made)
    assert {spike.lp for spike in made} == set(range(5))
    assert abs(len(made) - 1000) < 5 * 1000**0.5
    assert recording(5, 16, 0.0, MS, seconds(1), seed=4) == []


def test_what_no_sensor_can_do_is_refused():
    """A rate below 0, a spike before its time."""
    with pytest.raises(OperatorError, match="0 to 1e6"):
        recording(1, 8, -1.0, MS, seconds(1), seed=1)
    network = build(Settings(**SMALL))
    with Engine(network.model, tier="python") as engine, pytest.raises(OperatorError, match="before its time"):
        hand_over(engine, network.sensors, [Recorded(0, 0, 0)], UNTIL, late=-1)
