"""The spiking network: every step as an oracle computes it, the same synapses in three forms, settings that hold."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.errors import ModelError, OperatorError
from tidewarp.kernel import Engine, mix64, run
from tidewarp.kernel.kinds import form_of
from tidewarp.seeds import Stream
from tidewarp.units import seconds
from tidewarp.worlds.spiking import Recorded, Settings, build, hand_over
from tidewarp.worlds.spiking.lif import CONNECTS, Pulse, kinds

STEP = 1_000_000
FIELDS = ("v", "ready", "spikes", "steps", "anchor")


def small(**given):
    """A network of a few small populations without identity neurons."""
    base = {"populations": 3, "neurons": 12, "fan": 2, "density": 0.4, "weight_mv": 2.0, "rate_hz": 40.0}
    return build(Settings(**{**base, "identity": "none", **given}))


def stepped(network, last, pulses=()):
    """The network through every step up to ``last``, each neuron evaluated in each of them; idle ones must stay silent."""
    how, p = network.settings, network.parameters
    n = how.neurons
    decay = network.model.tables["decay"].tolist()
    arrivals = defaultdict(lambda: defaultdict(int))  # (step, population) -> neuron -> input
    for pulse in pulses:
        arrivals[-(-pulse.tick // STEP), pulse.lp][pulse.neuron] += p.pulse
    weights = []
    for number in range(len(network.projections)):
        synapses = network.synapses(number)
        rows = defaultdict(list)
        for src, dst, weight in zip(*(part.tolist() for part in synapses), strict=True):
            rows[src].append((dst, weight))
        weights.append(rows)
    draws = [Stream(how.seed, network.model.path(lp)) for lp in range(how.populations)]
    gap = p.kick_gap
    kicks = [int(one.exponential(gap)) if gap else 2**62 for one in draws]
    state = [{"v": [0] * n, "ready": [0] * n, "spikes": 0, "steps": 0, "anchor": 0} for _ in range(how.populations)]
    for step in range(last + 1):
        for lp, mine in enumerate(state):
            due = arrivals.pop((step, lp), None)
            while kicks[lp] < (step + 1) * n:
                due = due if due is not None else defaultdict(int)
                due[kicks[lp] - step * n] += p.kick
                kicks[lp] += 1 + int(draws[lp].exponential(gap))
            k = step - mine["anchor"]
            share = decay[k] if k < len(decay) else 0
            now = [0 if mine["ready"][i] > step else mine["v"][i] * share >> 16 for i in range(n)]
            if due is None:
                assert max(now) < p.threshold, "nobody fires without input"
                continue
            fired = []
            for i in range(n):
                x = now[i] + due.get(i, 0) if mine["ready"][i] <= step else 0
                if x >= p.threshold:
                    fired.append(i)
                    x, mine["ready"][i] = 0, step + 1 + p.refractory
                mine["v"][i] = x
            mine["anchor"], mine["steps"], mine["spikes"] = step, mine["steps"] + 1, mine["spikes"] + len(fired)
            for number, projection in enumerate(network.projections):
                if fired and projection.src == lp:
                    due = arrivals[step + projection.delay // STEP, projection.dst]
                    for i in fired:
                        for dst, weight in weights[number][i]:
                            due[dst] += weight
    return state


def of(result, network):
    """The same of a run; neurons that only fill the last word are left out."""
    n = network.settings.neurons
    found = []
    for lp in range(network.settings.populations):
        fields = result.state(lp)
        found.append({name: fields[name][:n] if name in ("v", "ready") else fields[name] for name in FIELDS})
    return found


@pytest.mark.parametrize("connect", CONNECTS)
@pytest.mark.parametrize("rate_hz", [2.0, 40.0, 300.0])
def test_a_run_is_what_stepping_through_every_step_gives(connect, rate_hz):
    """Steps that are skipped and steps that are executed end in the same bits, whatever the form of the synapses."""
    network = small(connect=connect, rate_hz=rate_hz)
    result = run(network.model, 200 * STEP + 1, tier="python")
    expected = stepped(network, 200)
    assert of(result, network) == expected
    assert all(one["spikes"] > 0 for one in expected)
    if rate_hz < 10.0:
        assert all(one["steps"] < 100 for one in expected), "most steps were skipped"


@settings(max_examples=10)
@given(
    populations=st.integers(1, 4),
    neurons=st.integers(8, 40),
    fan=st.integers(0, 3),
    delay=st.integers(1, 3),
    refractory=st.integers(1, 4),
    rate_hz=st.sampled_from([0.0, 5.0, 80.0]),
    pulses=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 7)), max_size=20),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_network_is_what_stepping_gives(populations, neurons, fan, delay, refractory, rate_hz, pulses, seed):
    """Random sizes, delays and sensor spikes, at the boundaries of steps."""
    network = small(
        populations=populations,
        neurons=neurons,
        fan=fan,
        delay=delay * STEP,
        refractory=refractory * STEP,
        rate_hz=rate_hz,
        seed=seed,
    )
    given_spikes = sorted(Recorded(step * STEP, lp % populations, neuron) for step, lp, neuron in pulses)
    with Engine(network.model, tier="python") as engine:
        hand_over(engine, network.sensors, given_spikes, 50 * STEP + 1)
        assert of(engine, network) == stepped(network, 50, given_spikes)


def test_all_forms_hold_the_same_synapses():
    """Dense, compressed and procedural: one network, one activity."""
    networks = [small(connect=connect) for connect in CONNECTS]
    assert len({str(of(run(one.model, 100 * STEP, tier="python"), one)) for one in networks}) == 1
    dense, rows, procedural = networks
    n = dense.settings.neurons
    for number in range(len(dense.projections)):
        parts = dense.synapses(number)
        matrix = np.zeros((n, n), np.int64)
        matrix[parts.src, parts.dst] = parts.weight
        assert (dense.model.tables["weight"][number * n : number * n + n, :n] == matrix).all()
        for i in range(n):
            a, b = rows.model.tables["first"][number * n + i : number * n + i + 2]
            words = rows.model.tables["synapse"][a:b]
            assert dict(zip((words & 1023).tolist(), (words >> 10).tolist(), strict=True)) == {
                j: w for j, w in enumerate(matrix[i].tolist()) if w
            }
            key = mix64(procedural.parameters.key ^ (number * n + i))
            assert [j for j in range(n) if mix64(key ^ j) >> 32 < procedural.parameters.chance] == np.nonzero(
                matrix[i]
            )[0].tolist()
    assert set(procedural.model.tables) == {"delay", "decay"}, "procedural synapses take no memory"


def test_silence_costs_nothing():
    """No kicks, no sensors: no event at all."""
    assert run(small(rate_hz=0.0).model, seconds(1), tier="python").committed == 0


def test_refractory_neurons_lose_their_input():
    """Two silent steps after a spike with a refractory time of 2 ms; the third input counts again."""
    network = small(rate_hz=0.0, refractory=2 * STEP, density=0.0)
    spikes = [Recorded(step * STEP, 0, 3) for step in (5, 6, 7, 8)]
    with Engine(network.model, tier="python") as engine:
        hand_over(engine, network.sensors, spikes, 20 * STEP)
        assert engine.state(0)["spikes"] == 2


def test_a_pulse_between_boundaries_counts_at_the_next():
    """An electrode of another clock: the step that ends behind the pulse integrates it."""
    network = small(rate_hz=0.0, density=0.0)
    with Engine(network.model, tier="python") as engine:
        engine.inject(network.sensors, 1, 3 * STEP + 17, Pulse(0))
        engine.advance(4 * STEP)
        assert engine.state(1)["steps"] == 0
        engine.advance(4 * STEP + 1)
        assert (engine.state(1)["anchor"], engine.state(1)["spikes"]) == (4, 1)


def test_a_pulse_into_no_neuron_is_an_error():
    """It is not lost in silence."""
    network = small()
    with Engine(network.model, tier="python") as engine:
        engine.inject(network.sensors, 1, STEP, Pulse(12))
        with pytest.raises(ModelError, match="no such neuron"):
            engine.advance(2 * STEP)


def test_a_bitmap_of_512_neurons_has_64_bytes():
    """One message for each projection and step, however many neurons fire; 8 to 1,024 of them."""
    assert form_of(kinds(512, "csr").spikes).size == 8 + 64
    assert form_of(kinds(8, "csr").spikes).size == 8 + 4
    assert form_of(kinds(1024, "dense").spikes).size == 8 + 128
    assert kinds(12, "csr") is kinds(12, "csr")
    for neurons in (7, 1025, True, 64.0):
        with pytest.raises(ModelError, match="8 to 1024"):
            kinds(neurons, "csr")
    with pytest.raises(ModelError, match="procedural"):
        kinds(64, "sparse")


def test_the_lookahead_is_the_axonal_delay_less_one_tick():
    """The farther on the ring, the later; every population has itself and its neighbours."""
    network = small(populations=7, fan=4, delay=3 * STEP)
    links = network.model
    links.freeze()
    assert links.links.lookahead.tolist() == [projection.delay - 1 for projection in network.projections]
    mine = [(projection.dst, projection.delay // STEP) for projection in network.projections if projection.src == 0]
    assert mine == [(0, 3), (1, 3), (6, 3), (2, 6), (5, 6)]


def test_kicks_come_at_their_rate():
    """Without synapses the mean rate is that of the kicks, less those that fall into refractory steps."""
    network = small(neurons=64, density=0.0, rate_hz=50.0)
    result = run(network.model, seconds(0.5), tier="python")
    spikes = sum(result.state(lp)["spikes"] for lp in range(3))
    expected = 3 * 64 * 0.5 * 50.0 * (1.0 - 50.0 * 0.002)
    assert abs(spikes - expected) < 5.0 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"populations": 0}, "1 to 100000"),
        ({"connect": "full"}, "dense, csr"),
        ({"identity": "deep"}, "none, state"),
        ({"fan": -1}, "0 to 1000"),
        ({"density": 1.5}, "probability"),
        ({"density": math.nan}, "probability"),
        ({"step": 10}, "1 us to 1 s"),
        ({"delay": STEP // 2}, "whole steps"),
        ({"delay": 0}, "whole steps"),
        ({"tau": 2000 * STEP}, "at most 1000 steps"),
        ({"threshold_mv": 0.0}, "above 0"),
        ({"weight_mv": 8.0}, "less than 32 mV"),
        ({"inhibition": -1.0}, "0 to 100"),
        ({"rate_hz": 600.0}, "one kick in two steps"),
        ({"rate_hz": 1e-9}, "at least 0.001 Hz"),
        ({"gain": 1e6}, "it is 0 to"),
        ({"stochastic": 65_536}, "65535 bits"),
    ],
)
def test_settings_that_make_no_network_are_refused(given, rule):
    """Each with its name, its value and the rule."""
    with pytest.raises(OperatorError, match=rule) as raised:
        Settings(**given)
    assert next(iter(given)).replace("_", "-") in str(raised.value)
