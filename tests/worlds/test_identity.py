"""The neuron with an identity: its equations, and what each meaning of "never rolled back" gives."""

import math
from types import SimpleNamespace

import pytest

from tidewarp.kernel import Engine, Published, run
from tidewarp.units import seconds
from tidewarp.worlds.spiking import Settings, build
from tidewarp.worlds.spiking.identity import IDENTITIES, Beat, CommitNeuron, IdentityNeuron, Reset, sigmoid

SMALL = {"populations": 4, "neurons": 16, "fan": 2, "density": 0.4, "weight_mv": 1.5, "rate_hz": 40.0}
IN_ANY_SCHEDULE = [{"kernel": "conservative", "workers": 2}] + [
    {"kernel": "optimistic", "workers": workers, "schedule_seed": seed, "window": seconds(window)}
    for workers, seed, window in [(2, 1, 0.02), (2, 2, 0.05), (4, 3, 0.01), (4, 4, 0.05)]
]


class Alone:
    """One neuron without an engine: ``beat`` steps it with an input, ``save`` and ``load`` are what a rollback does."""

    def __init__(self, **settings):
        self.params = build(Settings(populations=1, neurons=16, **settings)).parameters
        self.now = 0
        self.added = 0
        self.lp = 0
        self.cls = IdentityNeuron if self.params.publish_every == 0 else CommitNeuron
        names = ("v_fast", "v_work", "v_deep")
        self.neuron = SimpleNamespace(
            **dict.fromkeys(names, 0.0), weights=[0.0] * 3, novelties=[0.0] * 20, spiked=[0] * 50, beats=0
        )
        self.neuron.spikes = self.neuron.active = self.neuron.heard = 0
        self.cls.start(self.neuron, self)

    def below(self, n):
        return n // 3

    def send(self, dst, delay, message):
        assert message == Beat()

    def add(self, name, n):
        self.added += n

    def beat(self, active):
        self.neuron.active += active
        self.cls.beat(self.neuron, self.now, Beat(), self)

    def save(self):
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self.neuron).items()}

    def load(self, saved, keeping=()):
        for name, value in saved.items():
            if name not in keeping:
                setattr(self.neuron, name, list(value) if isinstance(value, list) else value)


def published_equations(inputs):
    """The neuron as its equations are written, with libm and whole histories."""
    keep = [math.exp(-1 / tau) for tau in (5.0, 200.0, 10_000.0)]
    fast = work = deep = 0.0
    w, novelties, spikes = [0.6, 0.3, 0.1], [], []
    for drive in inputs:
        conf = 1 - sum(novelties[-20:]) / len(novelties[-20:]) if novelties else 0.5
        rate = sum(spikes[-50:]) / len(spikes[-50:]) if spikes else 0.0
        gate = 1 / (1 + math.exp(-(0.8 * drive + 0.1 * fast + 0.05 * work + 0.05 * conf)))
        prediction = w[0] * fast + w[1] * work + w[2] * deep
        fast = keep[0] * fast + (1 - keep[0]) * (gate * drive - 0.3 * rate)
        novelty = 1 / (1 + math.exp(-5 * (abs(fast - prediction) - 0.1)))
        error, before = fast - prediction, fast
        spike = fast >= max(0.1, (1 + 0.2 * deep) * (1 - 0.3 * conf))
        if spike:
            fast = 0.0
        work = keep[1] * work + (1 - keep[1]) * (0.3 * before if spike else 0.0)
        deep = keep[2] * deep + (1 - keep[2]) * 0.05 * work * novelty
        w = [a + 0.01 * (1 + 2 * novelty) * error * b for a, b in zip(w, (fast, work, deep), strict=True)]
        length = math.sqrt(sum(a * a for a in w))
        w = [a / length for a in w]
        novelties.append(novelty)
        spikes.append(spike)
    return fast, work, deep, sum(spikes), w


def active_at(step):
    """A repeatable input with pauses and bursts: neurons of 16 that fire."""
    return (step * 7 % 5 < 2) * (1 + step % 3)


def test_a_step_follows_the_published_equations():
    """600 steps with bursts, against the equations written out with libm."""
    alone = Alone(gain=40.0)
    for step in range(600):
        alone.beat(active_at(step))
    fast, work, deep, spikes, w = published_equations([40.0 * active_at(step) / 16 for step in range(600)])
    assert alone.neuron.spikes == spikes > 10
    assert (alone.neuron.v_fast, alone.neuron.v_work, alone.neuron.v_deep) == pytest.approx(
        (fast, work, deep), rel=1e-9
    )
    assert alone.neuron.weights == pytest.approx(w, rel=1e-9)
    assert math.fsum(a * a for a in alone.neuron.weights) == pytest.approx(1.0)


def test_the_sigmoid_holds_for_every_number():
    """Odd states of speculation must not overflow an exponential."""
    assert sigmoid(0.0) == 0.5
    assert sigmoid(-1e300) < 1e-17
    assert sigmoid(1e300) == 1.0


def test_a_reset_keeps_the_deep_compartment():
    """All that is not identity is forgotten."""
    alone = Alone(gain=40.0)
    for step in range(300):
        alone.beat(active_at(step))
    deep = alone.neuron.v_deep
    IdentityNeuron.reset(alone.neuron, 0, Reset(), alone)
    assert alone.neuron.v_deep == deep > 0.0
    assert (alone.neuron.v_fast, alone.neuron.v_work, alone.neuron.beats) == (0.0, 0.0, 0)
    assert alone.neuron.weights == [0.6, 0.3, 0.1]


def deep_after(rollbacks, keeping=()):
    """The deep compartment after 2,000 steps, of which each hundred saw so many rollbacks of 20 steps."""
    alone = Alone(gain=40.0)
    step = 0
    while step < 2000:
        if step % 100 == 50:
            for _ in range(rollbacks):
                saved = alone.save()
                for ahead in range(20):
                    alone.beat(active_at(step + ahead))
                alone.load(saved, keeping)
        alone.beat(active_at(step))
        step += 1
    return alone.neuron.v_deep


def test_the_literal_rule_depends_on_the_schedule():
    """Never rolling v_deep back gives another value for each number of rollbacks; rolling all back gives one."""
    literal = [deep_after(rollbacks, keeping=("v_deep",)) for rollbacks in (0, 1, 2, 4)]
    assert literal == sorted(set(literal)), "it grows with every rollback"
    assert literal[3] > 1.5 * literal[0]
    assert len({deep_after(rollbacks) for rollbacks in (0, 1, 2, 4)}) == 1


@pytest.mark.parametrize("identity", sorted(IDENTITIES))
def test_each_way_gives_one_digest_whatever_is_rolled_back(identity):
    """Sequential, conservative, and optimistic in schedules that undo a good deal."""
    model = build(Settings(identity=identity, publish_every=seconds(0.02), **SMALL)).model
    until = seconds(0.03 if identity == "non_speculative" else 0.08)
    expected = run(model, until, tier="python")
    rolled_back = 0
    for options in IN_ANY_SCHEDULE:
        found = run(model, until, tier="python", **options)
        assert found.digest == expected.digest, options
        assert [found.state(lp)["v_deep"] for lp in range(4, 8)] == [expected.state(lp)["v_deep"] for lp in range(4, 8)]
        rolled_back += found.rolled_back
    assert rolled_back > 100 or identity == "non_speculative"
    assert expected.state(4)["v_deep"] > 0.0


def test_a_settled_neuron_is_never_undone():
    """Its events run once each, even where the populations around it roll back."""
    model = build(Settings(identity="non_speculative", **SMALL)).model
    found = run(
        model, seconds(0.05), tier="python", kernel="optimistic", workers=2, schedule_seed=5, window=seconds(0.02)
    )
    assert found.state(4)["beats"] == 50
    assert not model.class_of(4).speculative


def test_commit_adds_drives_and_hears_of_their_sum():
    """The accumulator holds what all neurons were driven by; each relaxes towards the mean of what was published."""
    alone = Alone(gain=40.0, identity="commit", publish_every=seconds(0.1))
    exact, deep = Alone(gain=40.0), 0.0
    for step in range(1, 301):
        alone.beat(active_at(step))
        exact.beat(active_at(step))
        if step % 100 == 0:
            CommitNeuron.publish(alone.neuron, 0, Published(0, alone.added), alone)
            assert alone.neuron.v_deep > deep
            deep = alone.neuron.v_deep
    assert deep == pytest.approx(exact.neuron.v_deep, rel=0.05), "late feedback, nearly the same value here"


def test_what_commit_publishes_is_committed():
    """The value that a neuron has heard at the end is the accumulator's of the last publication."""
    model = build(Settings(identity="commit", publish_every=seconds(0.02), **SMALL)).model
    with Engine(model, tier="python", kernel="optimistic", workers=2, schedule_seed=1) as engine:
        engine.advance(seconds(0.1) - 1)
        before = engine.ledger.accumulators[0]
        engine.advance(seconds(0.1))
        assert {engine.state(lp)["heard"] for lp in range(4, 8)} == {before}
        assert before > 0


def test_a_stochastic_input_is_part_of_the_state():
    """Registers move only by beats, so a rollback rewinds them: one digest, another than that of exact products."""
    exact = build(Settings(**SMALL)).model
    model = build(Settings(stochastic=64, **SMALL)).model
    expected = run(model, seconds(0.05), tier="python")
    found = run(model, seconds(0.05), tier="python", **IN_ANY_SCHEDULE[-1])
    assert found.digest == expected.digest != run(exact, seconds(0.05), tier="python").digest
    assert found.rolled_back > 0
    assert all(1 <= expected.state(lp)[name] <= 65_535 for lp in range(4, 8) for name in ("left", "right"))
