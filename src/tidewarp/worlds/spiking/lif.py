"""Populations of leaky integrate-and-fire neurons in fixed point: one logical process for 8 to 1,024 of them.

Potentials are Q16.16 millivolts above rest, which is also where a spike resets them. Time goes in steps, and a
population's state is kept as of its last input (``anchor``), so what happens k steps later is

    v <- (v * decay[k] >> 16) + input        decay[k] = exp(-k step / tau) in Q16
    spike if v >= threshold; then v = 0 for ``refractory`` steps, in which input is lost

Nothing can cross the threshold without input, so steps without any are skipped; going through them one by one
evaluates the same expression and ends in the same bits. The spikes of a step leave as one bitmap for each projection.
Spikes for a step arrive at its boundary, and it is integrated one tick later, when all of them are there: that is why
the lookahead of a projection is its axonal delay less one tick.

Loops over all neurons stand in the handlers themselves, without a branch that does more than choose a number, and with
values whose range can be seen: that is what lets a compiler use vector instructions in spite of all checks.
"""

# No `from __future__ import annotations`: the lengths of the arrays below are those of one call.

from functools import cache
from typing import Any, NamedTuple

from tidewarp.errors import ModelError
from tidewarp.kernel import Array, Context, LogicalProcess, function, i32, i64, mix64, on, u32

__all__ = ["CONNECTS", "NEVER", "TARGET_BITS", "WORD", "Activity", "Kinds", "Pulse", "Step", "kinds"]

CONNECTS = ("dense", "csr", "procedural")
NEVER = 2**62
"""Place of the next kick of a population that gets none."""
WORD = 32
"""Neurons in a word of a bitmap."""
TARGET_BITS = 10
"""Low bits of a synapse, its target; the others are its weight."""
TARGET = 2**TARGET_BITS - 1
LIMIT = 2**30  # a potential saturates here, at 16384 mV


class Step(NamedTuple):
    """To oneself, one tick after a step's boundary: integrate it."""


class Pulse(NamedTuple):
    """A sensor's spike into one neuron; it counts at the next boundary of a step."""

    neuron: i64


class Activity(NamedTuple):
    """How many neurons of a population fired in a step."""

    firing: i64


class Kinds(NamedTuple):
    """The LP class of a population and the message class of its spikes."""

    population: type[LogicalProcess]
    spikes: Any


@function
def step_of(now: int, step: int) -> int:
    """The step whose boundary is at ``now`` or comes next."""
    return (now + step - 1) // step


@function
def deliver_rows(inputs: Any, bits: Any, row: int, first: Any, synapse: Any) -> None:
    """Add the synapses of every neuron whose bit is set: those of bit i are ``first[row + i]`` up to ``first[row + i + 1]``.

    A synapse is ``weight << 10 | target``: a row comes from memory in one go, which is what takes the time.
    """
    for place in range(len(bits)):
        word = int(bits[place])
        i = row + WORD * place
        while word != 0:
            if word & 0xFF == 0:
                word >>= 8
                i += 8
            else:
                if word & 1:
                    for k in range(first[i], first[i + 1]):
                        inputs[synapse[k] & TARGET] += synapse[k] >> TARGET_BITS
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
    words = -(-neurons // WORD)
    size = WORD * words  # neurons beyond the last get no input, ever

    class Spikes(NamedTuple):
        """Who fired: bit i % 32 of word i // 32 is neuron i."""

        projection: i64
        bits: Array[u32, words]

    class Population(LogicalProcess):
        """Neurons, their inputs of the coming step, and the next kick of their background."""

        first: i64  # the number of its first projection
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
        fired: Array[u32, words]

        def start(self, ctx: Context) -> None:
            """Plan the first kick."""
            self.called = -1
            self.planned = -1
            self.kick = NEVER
            if ctx.params.kick_gap > 0.0:
                self.kick = ctx.exponential(ctx.params.kick_gap)
                self.planned = self.kick // ctx.params.neurons
                ctx.send(ctx.lp, self.planned * ctx.params.step + 1, Step())

        @on(Step)
        def integrate(self, now: int, message: Step, ctx: Context) -> None:
            """Integrate one step, send its spikes, plan the next kick."""
            params = ctx.params
            step = now // params.step
            place = step * params.neurons
            while self.kick < place + params.neurons:
                self.inputs[self.kick - place] += params.kick
                self.kick += 1 + ctx.exponential(params.kick_gap)
            gap = step - self.anchor
            decay = 0
            if gap < len(ctx.table("decay")):
                decay = min(max(int(ctx.table("decay")[gap]), 0), 65536)
            self.anchor = step
            self.steps += 1
            v = self.v
            ready = self.ready
            inputs = self.inputs
            top = 0
            for i in range(len(v)):
                x = (v[i] * decay >> 16) + inputs[i]
                if ready[i] > step:
                    x = 0
                x = min(max(x, -LIMIT), LIMIT)
                inputs[i] = 0
                top = max(top, x)
                v[i] = x
            if top >= params.threshold:
                count = 0
                fired = self.fired
                for word in range(len(fired)):
                    fired[word] = 0
                for i in range(len(v)):
                    if v[i] >= params.threshold:
                        fired[i >> 5] |= 1 << (i & 31)
                        count += 1
                again = min(max(step + 1 + params.refractory, 0), LIMIT)
                for i in range(len(v)):
                    if v[i] >= params.threshold:
                        v[i] = 0
                        ready[i] = again
                self.spikes += count
                for i in range(self.projections):
                    delay = ctx.table("delay")[self.first + i]
                    ctx.send(ctx.out(i), delay - 1, Spikes(self.first + i, self.fired))
                if ctx.n_out > self.projections:
                    ctx.send(ctx.out(self.projections), params.activity_delay - 1, Activity(count))
            if self.kick < NEVER and self.planned <= step:
                self.planned = self.kick // params.neurons
                if self.planned != self.called:
                    ctx.send(ctx.lp, self.planned * params.step + 1 - now, Step())

        @on(Pulse)
        def pulse(self, now: int, pulse: Pulse, ctx: Context) -> None:
            """Take a sensor's spike."""
            if not 0 <= pulse.neuron < ctx.params.neurons:
                raise IndexError("no such neuron")
            self.inputs[pulse.neuron] += ctx.params.pulse
            step = step_of(now, ctx.params.step)
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, step * ctx.params.step + 1 - now, Step())

    class Dense(Population):
        """With a matrix of weights for each projection."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the rows of all neurons that fired."""
            inputs = self.inputs
            weight = ctx.table("weight")
            for place in range(len(spikes.bits)):
                word = int(spikes.bits[place])
                row = spikes.projection * ctx.params.neurons + WORD * place
                while word != 0:
                    if word & 1:
                        for i in range(len(inputs)):
                            inputs[i] += weight[row, i]
                    word >>= 1
                    row += 1
            step = step_of(now, ctx.params.step)
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, step * ctx.params.step + 1 - now, Step())

    class Sparse(Population):
        """With a compressed row of synapses for each neuron of each projection."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the synapses of all neurons that fired."""
            row = spikes.projection * ctx.params.neurons
            deliver_rows(self.inputs, spikes.bits, row, ctx.table("first"), ctx.table("synapse"))
            step = step_of(now, ctx.params.step)
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, step * ctx.params.step + 1 - now, Step())

    class Procedural(Population):
        """With synapses that a hash decides anew each time: no memory."""

        @on(Spikes)
        def receive(self, now: int, spikes: Spikes, ctx: Context) -> None:
            """Add the synapses of all neurons that fired: i reaches j if the hash of both is below ``chance``, of 2**32."""
            params = ctx.params
            for place in range(len(spikes.bits)):
                word = int(spikes.bits[place])
                i = WORD * place
                while word != 0:
                    if word & 1:
                        key = mix64(params.key ^ (spikes.projection * params.neurons + i))
                        weight = params.plus if i < params.excitatory else params.minus
                        for j in range(params.neurons):
                            if int(mix64(key ^ j) >> 32) < params.chance:
                                self.inputs[j] += weight
                    word >>= 1
                    i += 1
            step = step_of(now, params.step)
            if step != self.planned and step != self.called:
                self.called = step
                ctx.send(ctx.lp, step * params.step + 1 - now, Step())

    population = {"dense": Dense, "csr": Sparse, "procedural": Procedural}[connect]
    return Kinds(population, Spikes)
