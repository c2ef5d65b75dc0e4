"""Drift corrections in exact whole nanoseconds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.clocks.drift import DriftAutoCorrector, DriftCorrection
from tidewarp.errors import RangeError
from tidewarp.units import TICK_MAX

TIMES = st.integers(0, TICK_MAX)
GAINS = st.floats(0.0, 1.0, exclude_min=True)


def test_a_drift_within_the_bound_is_left_alone():
    """At the bound there is no correction; 1 ns above there is one."""
    corrector = DriftAutoCorrector(100, 0.5)
    assert corrector.check_and_correct(1100, 1000) is None
    assert corrector.check_and_correct(900, 1000) is None
    assert corrector.total_corrections == 0
    assert corrector.check_and_correct(1101, 1000, 3) == DriftCorrection(50, 1000, 3, "drift=101ns")
    assert corrector.check_and_correct(899, 1000) == DriftCorrection(-50, 1000, 0, "drift=-101ns")
    assert [c.correction_ns for c in corrector.corrections] == [50, -50]
    assert corrector.total_corrections == 2


@given(TIMES, TIMES, GAINS, st.integers(0, 10**6))
def test_a_correction_is_the_exact_product(physical, digital, gain, bound):
    """Rounded towards zero, at least 1 ns, towards the physical clock, and never beyond it."""
    correction = DriftAutoCorrector(bound, gain).check_and_correct(physical, digital)
    drift = physical - digital
    if abs(drift) <= bound:
        assert correction is None
    else:
        exact = max(1, int(abs(drift) * Fraction(gain)))
        assert correction.correction_ns == (exact if drift > 0 else -exact)
        assert abs(drift - correction.correction_ns) < abs(drift)


def test_large_times_lose_no_nanosecond():
    """The same product in floats, as it is published, is off."""
    drift, gain = 2**60 + 7, 1.0
    correction = DriftAutoCorrector(0, gain).check_and_correct(drift, 0)
    assert correction.correction_ns == drift
    assert int(drift * gain) != correction.correction_ns


def test_a_step_is_bounded():
    """max_step_ns limits a correction in both directions."""
    corrector = DriftAutoCorrector(0, 1.0, max_step_ns=10)
    assert corrector.check_and_correct(1000, 0).correction_ns == 10
    assert corrector.check_and_correct(0, 1000).correction_ns == -10
    assert corrector.check_and_correct(7, 0).correction_ns == 7


@given(st.integers(0, 10**9), st.integers(0, 10**9), GAINS.filter(lambda gain: gain > 0.01), st.integers(0, 1000))
def test_corrections_bring_two_clocks_together(physical, digital, gain, bound):
    """Applied again and again they end within the bound."""
    corrector = DriftAutoCorrector(bound, gain)
    for _ in range(5000):
        correction = corrector.check_and_correct(physical, digital)
        if correction is None:
            break
        digital += correction.correction_ns
    assert abs(physical - digital) <= bound


@pytest.mark.parametrize("gain", [0.0, -0.5, 1.5, float("nan"), float("inf"), True])
def test_a_gain_lies_above_0_and_at_most_at_1(gain):
    """Above 1 a clock would swing ever further."""
    with pytest.raises(ValueError, match="gain"):
        DriftAutoCorrector(5000, gain)


@pytest.mark.parametrize("bad", [-1, 1.5, True, 2**63])
def test_times_are_whole_nanoseconds(bad):
    """Each argument is checked and named."""
    with pytest.raises(RangeError, match="physical_time_ns"):
        DriftAutoCorrector().check_and_correct(bad, 0)
    with pytest.raises(RangeError, match="digital_time_ns"):
        DriftAutoCorrector().check_and_correct(0, bad)
    with pytest.raises(RangeError, match="max_drift_ns"):
        DriftAutoCorrector(bad)
    with pytest.raises(RangeError, match="max_step_ns"):
        DriftAutoCorrector(max_step_ns=bad)
