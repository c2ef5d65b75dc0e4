"""Populations of leaky integrate-and-fire neurons in fixed point: one logical process for 8 to 1,024 of them.

Potentials are Q16.16 millivolts above rest, which is also where a spike resets them. Time goes in steps, and a
population's state is kept as of its last input (``anchor``), so what happens k steps later is

    v <- (v * decay[k] >> 16) + input        decay[k] = exp(-k step / tau) in Q16
    spike if v >= threshold; then v = 0 for ``refractory`` steps, in which input is lost

Nothing can cross the threshold without input, so steps without any are skipped; going through them one by one
evaluates the same expression and ends in the same bits. The spikes of a step leave as one bitmap for each projection.
Spikes for a step arrive at its boundary, and it is integrated one tick later, when all of them are there: that is why
the lookahead of a projection is its axonal delay less one tick.
"""

# No `from __future__ import annotations`: the lengths of the arrays below are those of one call.

from functools import cache
from typing import Any, NamedTuple

from tidewarp.errors import ModelError
from tidewarp.kernel import Array, Context, LogicalProcess, function, i32, i64, mix64, on, u64

__all__ = ["CONNECTS", "NEVER", "Activity", "Kinds", "Pulse", "Step", "kinds"]

CONNECTS = ("dense", "csr", "procedural")
NEVER = 2**62
"""Place of the next kick of a population that gets none."""


class Step(NamedTuple):
    """To oneself, one tick after a step's boundary: integrate it."""


class Pulse(NamedTuple):
    """A sensor's spike into one neuron; it counts at the next boundary of a step."""

    neuron: i64


class Activity(NamedTuple):
    """How many neurons of a population fired in a step."""

    count: i64


class Kinds(NamedTuple):
    """The LP class of a population and the message class of its spikes."""

    population: type[LogicalProcess]
    spikes: type


@function
def integrate(v: Any, ready: Any, inputs: Any, fired: Any, step: int, decay: int, threshold: int, refractory: int) -> int:
    """Bring all neurons to ``step``, take their inputs, reset who fires and set their bits; how many fired.

    The first loop is the one that costs; it has no branch and no store that depends on another neuron, so that it
    is compiled to vector instructions.
    """
    count = 0
    for i in range(len(v)):
        x = (v[i] * decay >> 16) + inputs[i]
        if ready[i] > step:
            x = 0
        inputs[i] = 0
        if x >= threshold:
            count += 1
        v[i] = x
    for word in range(len(fired)):
        fired[word] = 0
    if count > 0:
        for i in range(len(v)):
            if v[i] >= threshold:
                v[i] = 0
                ready[i] = step + 1 + refractory
                fired[i >> 6] |= 1 << (i & 63)
    return count


@function
def deliver_dense(inputs: Any, bits: Any, row: int, weight: Any) -> None:
    """Add the rows of ``weight`` (neurons of all projections, neurons) whose bits are set; ``row`` is that of bit 0."""
    for half in range(2 * len(bits)):
        word = (bits[half >> 1] >> 32 * (half & 1)) & 0xFFFFFFFF
        i = row + 32 * half
        while word != 0:
            if word & 0xFF == 0:
                word >>= 8
                i += 8
            else:
                if word & 1:
                    for j in range(len(inputs)):
                        inputs[j] += weight[i, j]
                word >>= 1
                i += 1


@function
def deliver_csr(inputs: Any, bits: Any, row: int, first: Any, target: Any, weight: Any) -> None:
    """The same with compressed rows: synapses ``first[i]`` to ``first[i + 1] - 1`` of neuron i."""
    for half in range(2 * len(bits)):
        word = (bits[half >> 1] >> 32 * (half & 1)) & 0xFFFFFFFF
        i = row + 32 * half
        while word != 0:
            if word & 0xFF == 0:
                word >>= 8
                i += 8
            else:
                if word & 1:
                    for k in range(first[i], first[i + 1]):
                        inputs[target[k]] += weight[k]
                word >>= 1
                i += 1


@function
def deliver_procedural(
    inputs: Any, bits: Any, row: int, neurons: int, key: int, chance: int, excitatory: int, plus: int, minus: int
) -> None:
    """The same without a table: neuron i reaches j if a hash of both lies below ``chance``, of 2**32."""
    for half in range(2 * len(bits)):
        word = (bits[half >> 1] >> 32 * (half & 1)) & 0xFFFFFFFF
        i = 32 * half
        while word != 0:
            if word & 1:
                row_key = mix64(key ^ (row + i))
                weight = plus if i < excitatory else minus
                for j in range(neurons):
                    if (mix64(row_key ^ j) >> 32) & 0xFFFFFFFF < chance:
                        inputs[j] += weight
            word >>= 1
            i += 1


@cache
def kinds(neurons: int, connect: str) -> Kinds:
    """The classes for populations of ``neurons`` (8 to 1,024) whose projections are ``dense``, ``csr`` or ``procedural``.

    Raises:
        ModelError: another number, another form.
    """
    if type(neurons) is not int or not 8 <= neurons <= 1024:
        raise ModelError(f"{neurons!r} neurons", "a population has 8 to 1024", "use more, or fewer, populations")
    if connect not in CONNECTS:
        raise ModelError(f"connect {connect!r}", f"it is one of {', '.join(CONNECTS)}", "choose one of them")
    words = -(-neurons // 64)
    size = 64 * words  # neurons beyond the last get no input, ever

    class Spikes(NamedTuple):
        """Who fired: bit i & 63 of word i >> 6 is neuron i."""

        projection: i64
        bits: Array[u64, words]

    class Population(LogicalProcess):
        """Neurons, their inputs of the coming step, and the next kick of their background."""

        first: i64  # projections from here are numbered from this one
        projections: i64
        anchor: i64  # step that v is as of
        kick: i64  # step * neurons + neuron of the next kick
        planned: i64  # step of the next kick, which is on its way
        called: i64  # the last step that an input asked for
        steps: i64  # integrated
        spikes: i64
        v: Array[i32, size]
        ready: Array[i32, size]  # the first step after the refractory ones
        inputs: Array[i32, size]
        fired: Array[u64, words]

        def start(self, ctx: Context) -> None:
            """Plan the first kick."""
            self.called = -1
            self.planned = -1
            self.kick = NEVER
            if ctx.params.kick_gap > 0.0:
                self.kick = ctx.exponential(ctx.params.kick_gap)
                self.planned = self.kick // ctx.params.neurons
                ctx.send(ctx.lp, self.planned * ctx.params.step + 1, Step())

        @on(Pulse)
        def pulse(self, now: int, pulse: Pulse, ctx: Context) -> None:
            """Take a sensor's spike."""
            if 0 <= pulse.neuron < ctx.params.neurons:
                self.inputs[pulse.neuron] += ctx.params.pulse
            step = (now + ctx.params.step - 1) // ctx.params.step
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, step * ctx.params.step + 1 - now, Step())

        @on(Step)
        def integrate(self, now: int, message: Step, ctx: Context) -> None:
            """Integrate one step, send its spikes, plan the next kick."""
            params = ctx.params
            step = now // params.step
            place = step * params.neurons
            while self.kick < place + params.neurons:
                self.inputs[self.kick - place] += params.kick
                self.kick += 1 + ctx.exponential(params.kick_gap)
            table = ctx.table("decay")
            gap = step - self.anchor
            decay = table[gap] if gap < len(table) else 0
            count = integrate(self.v, self.ready, self.inputs, self.fired, step, decay, params.threshold, params.refractory)
            self.anchor = step
            self.steps += 1
            if count > 0:
                self.spikes += count
                for i in range(self.projections):
                    delay = ctx.table("delay")[self.first + i]
                    ctx.send(ctx.out(i), delay - 1, Spikes(self.first + i, self.fired))
                if ctx.n_out > self.projections:
                    ctx.send(ctx.out(self.projections), params.activity_delay, Activity(count))
            if self.kick < NEVER and self.planned <= step:
                self.planned = self.kick // params.neurons
                if self.planned != self.called:
                    ctx.send(ctx.lp, self.planned * params.step + 1 - now, Step())

    class Dense(Population):
        """With a matrix of weights for each projection."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the weights of all synapses from neurons that fired."""
            deliver_dense(self.inputs, spikes.bits, spikes.projection * ctx.params.neurons, ctx.table("weight"))
            step = now // ctx.params.step
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, 1, Step())

    class Sparse(Population):
        """With a compressed row of weights for each neuron of each projection."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the weights of all synapses from neurons that fired."""
            row = spikes.projection * ctx.params.neurons
            deliver_csr(self.inputs, spikes.bits, row, ctx.table("first"), ctx.table("target"), ctx.table("weight"))
            step = now // ctx.params.step
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, 1, Step())

    class Procedural(Population):
        """With synapses that are computed anew from a hash: no memory."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the weights of all synapses from neurons that fired."""
            params = ctx.params
            row = spikes.projection * params.neurons
            deliver_procedural(
                self.inputs,
                spikes.bits,
                row,
                params.neurons,
                params.key,
                params.chance,
                params.excitatory,
                params.plus,
                params.minus,
            )
            step = now // params.step
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, 1, Step())

    population = {"dense": Dense, "csr": Sparse, "procedural": Procedural}[connect]
    return Kinds(population, Spikes)
