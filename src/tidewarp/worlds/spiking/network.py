"""A network of populations on a ring, each linked to itself and to its neighbours; the farther, the later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tidewarp.errors import OperatorError
from tidewarp.kernel import Model, Source, f64, i64, u64
from tidewarp.seeds import Stream, exact_exp, exact_log
from tidewarp.units import seconds
from tidewarp.worlds.spiking.identity import IDENTITIES
from tidewarp.worlds.spiking.lif import CONNECTS, TARGET_BITS, kinds

__all__ = ["Network", "Parameters", "Projection", "Settings", "Synapses", "build"]

Q16 = 65536
TAU_FAST_S, TAU_WORK_S, TAU_DEEP_S = 0.005, 0.2, 10.0
WEIGHT_MV_MAX = 2.0 ** (31 - TARGET_BITS - 16)
GAIN_MOST = 256.0  # of an identity neuron's input, as a stochastic product scales it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a network is; durations in ticks, potentials in millivolts above rest.

    ``populations`` of ``neurons`` each; four fifths of the neurons excite, the others inhibit. Every population projects to itself
    and to ``fan`` neighbours on the ring; a synapse is there with probability ``density`` and weighs ``weight_mv``, or
    ``-inhibition * weight_mv``. The axonal delay is ``delay`` times the distance on the ring. Each neuron gets kicks that
    make it fire, Poisson in the steps, ``rate_hz`` a second. ``identity``: "none", or how the identity neuron
    beside each population keeps its deep compartment. ``stochastic`` bits: its input is a stochastic product (0: exact).

    Raises:
        OperatorError: a value that breaks its rule.
    """

    populations: int = 20
    neurons: int = 500
    connect: str = "csr"
    fan: int = 8
    density: float = 0.1
    step: int = seconds(0.001)
    delay: int = seconds(0.002)
    tau: int = seconds(0.02)
    refractory: int = seconds(0.002)
    threshold_mv: float = 20.0
    kick_mv: float = 30.0
    weight_mv: float = 0.4
    inhibition: float = 5.0
    rate_hz: float = 10.0
    identity: str = "state"
    gain: float = 200.0
    stochastic: int = 0
    publish_every: int = seconds(0.1)
    seed: int = 1

    def __post_init__(self) -> None:
        self._check("populations", 1 <= self.populations <= 100_000, "it is 1 to 100000")
        self._check("connect", self.connect in CONNECTS, f"it is one of {', '.join(CONNECTS)}")
        self._check("identity", self.identity in ("none", *IDENTITIES), f"it is one of none, {', '.join(IDENTITIES)}")
        self._check("fan", 0 <= self.fan <= 1000, "it is 0 to 1000")
        self._check("density", 0.0 <= self.density <= 1.0, "it is a probability")
        self._check("step", 1_000 <= self.step <= seconds(1), "a step is 1 us to 1 s")
        for name in ("delay", "tau", "refractory", "publish_every"):
            ticks = getattr(self, name)
            self._check(name, ticks >= self.step and ticks % self.step == 0, "it is one or more whole steps")
        self._check("tau", self.tau <= 1000 * self.step, "it is at most 1000 steps")
        for name in ("threshold_mv", "kick_mv", "weight_mv"):
            self._check(name, 0.0 < getattr(self, name) <= 1000.0, "it is above 0 and at most 1000 mV")
        self._check("inhibition", 0.0 <= self.inhibition <= 100.0, "it is 0 to 100")
        heaviest = self.weight_mv * max(self.inhibition, 1.0)
        self._check("weight_mv", heaviest < WEIGHT_MV_MAX, "the heaviest synapse weighs less than 32 mV")
        self._check("rate_hz", 0.0 <= self.rate_hz * self.step <= 0.5e9, "it is 0 to one kick in two steps")
        self._check("rate_hz", not 0.0 < self.rate_hz < 1e-3, "it is 0, or at least 0.001 Hz")
        self._check("gain", 0.0 <= self.gain <= GAIN_MOST, f"it is 0 to {GAIN_MOST}")
        self._check("stochastic", 0 <= self.stochastic <= 65_535, "it is 0 to 65535 bits")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise OperatorError(f"{name.replace('_', '-')} {getattr(self, name)!r}", rule, "choose another value")


class Parameters(NamedTuple):
    """What handlers read; potentials in Q16.16 millivolts."""

    step: i64  # ticks
    neurons: i64
    threshold: i64
    refractory: i64  # steps
    kick: i64
    kick_gap: f64  # mean of what lies between two kicks, in neurons * steps; 0: none
    pulse: i64  # a sensor's spike
    key: u64  # of the hash that decides on synapses
    chance: i64  # of 2**32
    excitatory: i64  # neurons of a population
    plus: i64
    minus: i64
    activity_delay: i64  # ticks to the identity neuron
    keep_fast: f64
    keep_work: f64
    keep_deep: f64
    keep_published: f64
    publish_every: i64  # ticks; 0: the deep compartment is state
    drives: f64  # identity neurons * steps between two publications
    gain: f64
    gain_most: f64
    stochastic: i64  # bits


class Projection(NamedTuple):
    """From one population to another (or itself), with an axonal delay in ticks."""

    src: int
    dst: int
    delay: int


class Synapses(NamedTuple):
    """All synapses of a projection: neurons within their populations, weights in Q16.16 millivolts."""

    src: np.ndarray[Any, np.dtype[np.int64]]
    dst: np.ndarray[Any, np.dtype[np.int64]]
    weight: np.ndarray[Any, np.dtype[np.int64]]


class Network(NamedTuple):
    """A model, its parts by name: LP i < populations is population i, its identity neuron is LP populations + i."""

    settings: Settings
    model: Model
    parameters: Parameters
    projections: list[Projection]
    sensors: Source

    def synapses(self, number: int) -> Synapses:
        """The synapses of projection ``number``, whatever the form in which the model holds them."""
        return _synapses(self.parameters, number)


def build(settings: Settings) -> Network:
    """The network; the same synapses for every ``connect``.

    Raises:
        ModelError, OperatorError: settings that no model fits.
    """
    parameters = _parameters(settings)
    projections = list(_projections(settings))
    model = Model("spiking", parameters, seed=settings.seed)
    population, _ = kinds(settings.neurons, settings.connect)
    firsts = [0] * (settings.populations + 1)
    for projection in projections:
        firsts[projection.src + 1] += 1
    counts = firsts[1:]
    for i in range(settings.populations):
        firsts[i + 1] += firsts[i]
    model.add(population, settings.populations, path="population", init={"first": firsts[:-1], "projections": counts})
    for projection in projections:
        model.link(projection.src, projection.dst, projection.delay - 1)
    if settings.identity != "none":
        neurons = model.add(IDENTITIES[settings.identity], settings.populations, path="identity")
        for i, neuron in enumerate(neurons):
            model.link(i, neuron, settings.delay - 1)
        model.accumulator("deep_drive", publish_every=settings.publish_every if settings.identity == "commit" else None)
    model.table("delay", np.array([projection.delay for projection in projections], np.int64))
    model.table("decay", _decay(settings))
    _add_synapses(model, settings, parameters, len(projections))
    return Network(settings, model, parameters, projections, model.input("sensor"))


def _parameters(settings: Settings) -> Parameters:
    step_s, is_commit = settings.step / 1e9, settings.identity == "commit"
    beats = settings.publish_every // settings.step
    probability = settings.rate_hz * step_s
    return Parameters(
        step=settings.step,
        neurons=settings.neurons,
        threshold=_fixed(settings.threshold_mv),
        refractory=settings.refractory // settings.step,
        kick=_fixed(settings.kick_mv),
        kick_gap=-1.0 / exact_log(1.0 - probability) if probability > 0.0 else 0.0,
        pulse=_fixed(settings.kick_mv),
        key=Stream(settings.seed, "synapses").bits(),
        chance=round(settings.density * 2**32),
        excitatory=settings.neurons * 4 // 5,
        plus=_fixed(settings.weight_mv),
        minus=-_fixed(settings.inhibition * settings.weight_mv),
        activity_delay=settings.delay,
        keep_fast=exact_exp(-step_s / TAU_FAST_S),
        keep_work=exact_exp(-step_s / TAU_WORK_S),
        keep_deep=exact_exp(-step_s / TAU_DEEP_S),
        keep_published=exact_exp(-beats * step_s / TAU_DEEP_S),
        publish_every=settings.publish_every if is_commit else 0,
        drives=float(beats * settings.populations),
        gain=settings.gain,
        gain_most=GAIN_MOST,
        stochastic=settings.stochastic,
    )


def _fixed(millivolts: float) -> int:
    return round(millivolts * Q16)


def _projections(settings: Settings) -> Iterator[Projection]:
    """In order of source: to itself, then to its neighbours in turn on either side."""
    n = settings.populations
    for src in range(n):
        yield Projection(src, src, settings.delay)
        for k in range(min(settings.fan, n - 1)):
            distance = k // 2 + 1
            yield Projection(src, (src + (distance if k % 2 == 0 else -distance)) % n, settings.delay * distance)


def _decay(settings: Settings) -> np.ndarray[Any, np.dtype[np.int32]]:
    """By number of steps, in Q16, up to the last that is not 0."""
    ratio = settings.step / settings.tau
    made: list[int] = []
    while (share := int(exact_exp(-len(made) * ratio) * Q16)) > 0:
        made.append(share)
    return np.array(made, np.int32)


def _add_synapses(model: Model, settings: Settings, parameters: Parameters, projections: int) -> None:
    if settings.connect == "procedural":
        return
    n = settings.neurons
    if settings.connect == "dense":
        weight = np.zeros((projections * n, -(-n // 32) * 32), np.int32)
        for number in range(projections):
            synapses = _synapses(parameters, number)
            weight[number * n + synapses.src, synapses.dst] = synapses.weight
        model.table("weight", weight)
        return
    parts = [_synapses(parameters, number) for number in range(projections)]
    counts = np.concatenate([np.bincount(part.src, minlength=n) for part in parts])
    words = [part.weight << TARGET_BITS | part.dst for part in parts]
    model.table("first", np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    model.table("synapse", np.concatenate(words).astype(np.int32))


def _synapses(parameters: Parameters, number: int) -> Synapses:
    """By the rule that procedural populations follow, in order of source and destination."""
    n = parameters.neurons
    rows = _mixed(np.uint64(parameters.key) ^ np.arange(number * n, number * n + n, dtype=np.uint64))
    hashes = _mixed(rows[:, None] ^ np.arange(n, dtype=np.uint64)) >> np.uint64(32)
    src, dst = np.nonzero(hashes < np.uint64(parameters.chance))
    return Synapses(src, dst, np.where(src < parameters.excitatory, parameters.plus, parameters.minus))


def _mixed(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """:func:`tidewarp.kernel.mix64` of an array."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
