"""Compiled populations against interpreted ones, and the size that the others are too slow for."""

import pytest

from tidewarp.kernel import Engine, run
from tidewarp.units import seconds
from tidewarp.worlds.spiking import Settings, build, hand_over, recording

MS = 1_000_000
SMALL = {"populations": 4, "neurons": 40, "fan": 2, "density": 0.3, "weight_mv": 1.5, "rate_hz": 60.0}
ENGINES = [("sequential", 1), ("conservative", 2), ("optimistic", 1), ("optimistic", 2)]
UNTIL = seconds(0.05)
SPIKES = recording(4, 40, 200.0, MS, UNTIL, seed=2)


def digest(given, late=0, **options):
    """Of a run with sensors that are so late."""
    network = build(Settings(**SMALL, **given))
    with Engine(network.model, **options) as engine:
        hand_over(engine, network.sensors, SPIKES, UNTIL, late=late)
        return engine.digest()


@pytest.mark.parametrize(("kernel", "workers"), [("sequential", 1), ("optimistic", 2)])
def test_compiled_engines_repair_late_sensors_too(require, kernel, workers):
    """The digest of interpreted populations whose sensors are in time. (All engines in time: kernel/test_parity.py.)"""
    require("numba")
    expected = digest({}, tier="python")
    assert digest({}, 10 * MS, tier="compiled", kernel=kernel, workers=workers) == expected


@pytest.mark.nightly
@pytest.mark.parametrize(
    "given",
    [
        {"connect": "csr"},
        {"connect": "dense", "identity": "none"},
        {"connect": "procedural", "identity": "commit", "publish_every": 20 * MS},
        {"identity": "non_speculative", "stochastic": 32},
    ],
    ids=["csr", "dense", "procedural-commit", "non-speculative-stochastic"],
)
def test_compiled_populations_are_the_interpreted_ones(require, given):
    """Every form of synapses and meaning of identity, in every engine, sensors late or in time."""
    require("numba")
    expected = digest(given, tier="python")
    for kernel, workers in ENGINES:
        for late in (0, 10 * MS):
            assert digest(given, late, tier="compiled", kernel=kernel, workers=workers) == expected, (kernel, workers)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kernel", "partition"), [("conservative", "graph"), ("optimistic", "blocks"), ("optimistic", "graph")]
)
def test_ten_thousand_neurons_on_two_pes(require, kernel, partition):
    """20 populations of 500 with delays: the digest of two PEs is that of one."""
    require("numba")
    model = build(Settings()).model
    expected = run(model, seconds(0.5), tier="compiled", digest="state")
    found = run(model, seconds(0.5), tier="compiled", digest="state", kernel=kernel, workers=2, partition=partition)
    assert found.digest == expected.digest
    assert sum(found.state(lp)["spikes"] for lp in range(20)) > 30_000
