"""The draws of the Python tier's context: quick ways to numbers that are defined by slow ones."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tidewarp.kernel.context import Context
from tidewarp.kernel.objects import Objects, initial_image
from tidewarp.seeds import Stream, exact_log
from tidewarp.worlds.phold import phold

TO_UNIT = 2.0**-53


def opened(lp: int) -> tuple[Context, Stream]:
    """A context that has turned to one LP, and the stream that its draws come from."""
    model = phold(lps=4, population=0)
    objects = Objects(model, initial_image(model))
    objects.context.begin(objects.states[lp], lp, 0, 0)
    return objects.context, Stream(model.seed, model.path(lp))


def test_every_draw_takes_the_next_words_of_the_stream() -> None:
    """bits, random and below give what a Stream of the LP's path gives."""
    context, stream = opened(2)
    for n in range(1, 200):
        assert context.bits() == stream.bits()
        assert context.random() == stream.random()
        assert context.below(n) == stream.below(n)
        assert context.normal() == stream.normal()


@given(word=st.integers(0, 2**64 - 1), mean=st.floats(0.0, 2.0**57, exclude_min=True) | st.integers(1, 2**57))
@example(word=0, mean=1)
@example(word=2**64 - 1, mean=2**57)
@example(word=2**63, mean=1.4426950408889634)  # the product lies at a whole number
def test_an_exponential_draw_is_the_exact_one(word: int, mean: float) -> None:
    """Whatever libm's logarithm says: the tick is that of the exact logarithm, rounded down."""
    context, _ = opened(0)
    state = context._state
    state._gamma, state._key = 0, _unmixed(word)
    uniform = 1.0 - (word >> 11) * TO_UNIT
    assert context.bits() == word
    assert context.exponential(mean) == int(-mean * exact_log(uniform))


@given(ticks=st.integers(1, 2**52), word=st.integers(1, 2**64 - 1), shift=st.integers(-2, 2))
def test_an_exponential_draw_beside_a_whole_number(ticks: int, word: int, shift: int) -> None:
    """A mean that puts the product within some ulp of a whole tick: there the quick way must not decide."""
    uniform = 1.0 - (word >> 11) * TO_UNIT
    if uniform == 1.0:
        return
    mean = ticks / -exact_log(uniform)
    mean *= 1.0 + shift * 2.0**-52
    if 0.0 < mean <= 2.0**57:
        context, _ = opened(0)
        context._state._gamma, context._state._key = 0, _unmixed(word)
        assert context.exponential(mean) == int(-mean * exact_log(uniform))


def _unmixed(word: int) -> int:
    """The key whose mix is ``word``: each step of the mix backwards."""
    mask = 2**64 - 1
    x = word
    x ^= x >> 31 ^ x >> 62
    x = x * pow(0x94D049BB133111EB, -1, 2**64) & mask
    x ^= x >> 27 ^ x >> 54
    x = x * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
    return x ^ x >> 30 ^ x >> 60
