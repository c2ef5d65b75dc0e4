"""Stochastic computing: exact in a whole period, within its statistics in a part of it, and honest about correlation."""

import math

import pytest

from tidewarp.errors import ModelError
from tidewarp.worlds.spiking.lfsr import (
    PERIOD,
    check_correlation,
    level_of,
    next_word,
    product,
    scaled_sum,
    stream,
    value_of,
)

SEEDS = [(1, 0xACE1), (0x1234, 0xBEEF), (777, 31_415), (65_535, 2)]


def test_the_register_visits_every_word_but_zero_once():
    """Full period: 65,535 words, then the first again."""
    word, seen = 0xACE1, set()
    for _ in range(PERIOD):
        seen.add(word)
        word = next_word(word)
    assert word == 0xACE1
    assert seen == set(range(1, PERIOD + 1))


@pytest.mark.parametrize("seed", [0, -1, 65_536, True, 1.0])
def test_a_seed_that_the_register_does_not_have_is_refused(seed):
    """From 0 it would never leave."""
    with pytest.raises(ModelError, match="1 to 65535"):
        stream(0.5, 8, seed)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_number_that_no_stream_stands_for_is_refused(p):
    """Shares are 0 to 1."""
    with pytest.raises(ModelError, match="from 0 to 1"):
        level_of(p)
    with pytest.raises(ModelError, match="no number"):
        value_of([])


@pytest.mark.parametrize("p", [0.0, 1e-5, 0.25, 1 / 3, 0.5, 0.999, 1.0])
def test_the_ones_of_a_period_are_exact(p):
    """Words run from 1 to 65535, so level - 1 of them lie below the level."""
    assert sum(stream(p, PERIOD, 99)) == max(level_of(p) - 1, 0)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.2), (0.3, 0.7), (0.05, 0.6)])
def test_the_and_of_two_streams_is_their_product(seeds, p, q):
    """Within 4 standard deviations at 4,096 bits, and the check of correlation agrees."""
    a, b = stream(p, 4096, seeds[0]), stream(q, 4096, seeds[1])
    sigma = math.sqrt(p * q * (1.0 - p * q) / 4096)
    assert abs(value_of(product(a, b)) - p * q) <= 4.0 * sigma
    assert check_correlation(a, b).is_independent


def test_streams_of_one_seed_give_the_smaller_number_and_are_told():
    """Each bit of the smaller one is also in the greater one."""
    a, b = stream(0.3, 4096, 5), stream(0.6, 4096, 5)
    assert value_of(product(a, b)) == value_of(a)
    found = check_correlation(a, b)
    assert found.scc == 1.0
    assert not found.is_independent
    opposite = check_correlation(a, [1 - bit for bit in a])
    assert opposite.scc == -1.0
    assert check_correlation([1, 1], [1, 0]).scc == 0.0, "nothing can go with what never changes"


def test_a_choice_between_two_streams_is_half_their_sum():
    """Exact as a count: each bit comes from one of both."""
    a, b, choice = stream(0.8, 4096, 11), stream(0.2, 4096, 2222), stream(0.5, 4096, 33_333)
    made = scaled_sum(a, b, choice)
    assert made == [x if c else y for x, y, c in zip(a, b, choice, strict=True)]
    assert value_of(made) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 4096))
