"""A neuron of three compartments, fast, working and deep, whose deep one is an identity: what stays of all it has lived.

The published rule for such a state is "never rolled back". Kept literally it makes the value depend on how often the
engine changed its mind, since the deep compartment feeds back into threshold and prediction. Three ways keep what is
meant, each with one value whatever the schedule:

``state``
    the deep compartment is state like any other and rolls back with it. Exact, and the default.
``commit``
    drives of the deep compartment go into an accumulator, which only committed events change; its value is published
    now and then. Another model: the deep compartment is one for all neurons of the network, and feeds back late.
``non_speculative``
    the neuron runs only events that are final, so nothing is ever taken back. Costs the parallelism of that neuron.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tidewarp.kernel import Array, Context, LogicalProcess, Published, f64, function, i64, on
from tidewarp.seeds import exact_exp
from tidewarp.worlds.spiking.lfsr import PERIOD, next_word
from tidewarp.worlds.spiking.lif import Activity

__all__ = ["IDENTITIES", "Beat", "CommitNeuron", "IdentityNeuron", "Reset", "SettledNeuron"]

NOVELTIES = 20  # remembered
SPIKES = 50
UNIT = 4294967296.0  # a drive of 1 in the accumulator


class Beat(NamedTuple):
    """To oneself, one tick after each step's boundary."""


class Reset(NamedTuple):
    """Forget all but the deep compartment."""


@function
def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), the same bits on every machine; 0 or 1 within 1e-17 beyond 40."""
    return 1.0 / (1.0 + exact_exp(-min(max(x, -40.0), 40.0)))


@function
def relaxed(x: float, keep: float, drive: float) -> float:
    """One step towards ``drive``: exact for a drive that is constant in the step; ``keep`` = exp(-dt / tau)."""
    return keep * x + (1.0 - keep) * drive


class IdentityNeuron(LogicalProcess):
    """The neuron; its input is the share of a population that fired, times ``params.gain``."""

    v_fast: f64
    v_work: f64
    v_deep: f64
    weights: Array[f64, 3]  # of the prediction
    novelties: Array[f64, 20]  # a ring, as is the next
    spiked: Array[i64, 50]
    beats: i64
    spikes: i64
    active: i64  # neurons that fired since the last beat
    heard: i64  # the accumulator as last published
    left: i64  # shift registers of stochastic products
    right: i64

    def start(self, ctx: Context) -> None:
        """Weights of the prediction; two registers, each somewhere in the period; the first beat."""
        self.weights[0] = 0.6
        self.weights[1] = 0.3
        self.weights[2] = 0.1
        self.left = 1 + ctx.below(PERIOD)
        self.right = 1 + ctx.below(PERIOD)
        ctx.send(ctx.lp, 1, Beat())

    @on(Activity)
    def hear(self, now: int, activity: Activity, ctx: Context) -> None:
        """Count who fired."""
        self.active += activity.firing

    @on(Reset)
    def reset(self, now: int, message: Reset, ctx: Context) -> None:
        """Forget all but the deep compartment."""
        self.v_fast = 0.0
        self.v_work = 0.0
        self.beats = 0
        self.active = 0
        self.weights[0] = 0.6
        self.weights[1] = 0.3
        self.weights[2] = 0.1

    @on(Beat)
    def beat(self, now: int, message: Beat, ctx: Context) -> None:
        """One step of all compartments."""
        params = ctx.params
        share = min(self.active / params.neurons, 1.0)
        drive = params.gain * share
        if params.stochastic > 0:
            level = int(65536.0 * share)
            gain_level = int(65536.0 * params.gain / params.gain_most)
            ones = 0
            for _ in range(params.stochastic):
                if self.left < level and self.right < gain_level:
                    ones += 1
                self.left = next_word(self.left)
                self.right = next_word(self.right)
            drive = params.gain_most * ones / params.stochastic
        self.active = 0

        known = min(self.beats, NOVELTIES)
        confidence = 0.5
        if known > 0:
            total = 0.0
            for i in range(known):
                total += self.novelties[i]
            confidence = 1.0 - total / known
        known = min(self.beats, SPIKES)
        fired = 0
        for i in range(known):
            fired += self.spiked[i]
        rate = 0.0
        if known > 0:
            rate = fired / known

        gate = sigmoid(0.8 * drive + 0.1 * self.v_fast + 0.05 * self.v_work + 0.05 * confidence)
        prediction = self.weights[0] * self.v_fast + self.weights[1] * self.v_work + self.weights[2] * self.v_deep
        fast = relaxed(self.v_fast, params.keep_fast, gate * drive - 0.3 * rate)
        novelty = sigmoid(5.0 * (abs(fast - prediction) - 0.1))
        threshold = max(0.1, (1.0 + 0.2 * self.v_deep) * (1.0 - 0.3 * confidence))
        spike = 0
        self.v_fast = fast
        if fast >= threshold:
            spike = 1
            self.v_fast = 0.0
        self.spikes += spike
        self.v_work = relaxed(self.v_work, params.keep_work, 0.3 * fast if spike == 1 else 0.0)
        deep_drive = 0.05 * self.v_work * novelty
        if params.publish_every > 0:
            ctx.add("deep_drive", int(UNIT * deep_drive))
        else:
            self.v_deep = relaxed(self.v_deep, params.keep_deep, deep_drive)

        rise = 0.01 * (1.0 + 2.0 * novelty) * (fast - prediction)
        self.weights[0] += rise * self.v_fast
        self.weights[1] += rise * self.v_work
        self.weights[2] += rise * self.v_deep
        length = math.sqrt(
            self.weights[0] * self.weights[0] + self.weights[1] * self.weights[1] + self.weights[2] * self.weights[2]
        )
        if length > 0.0:
            for i in range(3):
                self.weights[i] = self.weights[i] / length
        self.novelties[self.beats % NOVELTIES] = novelty
        self.spiked[self.beats % SPIKES] = spike
        self.beats += 1
        ctx.send(ctx.lp, params.step, Beat())


class CommitNeuron(IdentityNeuron):
    """Its drives are summed up over all neurons once they are committed; it hears of the sum every ``publish_every``."""

    @on(Published)
    def publish(self, now: int, published: Published, ctx: Context) -> None:
        """Relax towards the mean drive of the time since the last value."""
        params = ctx.params
        mean = (published.value - self.heard) / UNIT / params.drives
        self.heard = published.value
        self.v_deep = relaxed(self.v_deep, params.keep_published, mean)


class SettledNeuron(IdentityNeuron, speculative=False):
    """Runs final events only."""


IDENTITIES: dict[str, type[LogicalProcess]] = {
    "state": IdentityNeuron,
    "commit": CommitNeuron,
    "non_speculative": SettledNeuron,
}
