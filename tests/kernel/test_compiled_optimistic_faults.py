"""Bugs that Time Warp engines have had, planted one after the other: the random stress finds each of them.

Every name is a bug that the compiled kernels have when their register FAULT says so. It is found if one of the first cases ends
otherwise than the reference, breaks an invariant, rolls back where nothing may, or does not end. The same cases are
right without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidewarp.errors import TidewarpError
from tidewarp.seeds import Stream
from tidewarp.testing.kernel import check_parity
from tidewarp.testing.planted import BUGS, interleaved, planted
from tidewarp.worlds.hurt import Case, Late, Mixer, Played, hurt, play

CASES_MAX = 60
OFTEN = ("lose_anti", "time_only", "keep_draws", "fossil_early")  # found within a second; the others run nightly


@pytest.fixture(autouse=True)
def numba(require: Callable[[str], None]) -> None:
    """The compiled tier is what is tested."""
    require("numba")


def stress_case(index: int) -> Case:
    """A small case that thrashes: three PEs, rings of two messages, windows without end, late inputs."""
    stream = Stream(index, "faults")

    def pick(*values: Any) -> Any:
        return values[stream.below(len(values))]

    model = hurt(
        [Mixer],
        6,
        population=3,
        remote=0.7,
        emit=0.2,
        lookahead=pick(0, 0, 1),
        spread=pick(2, 4),
        trace_interval=2,
        seed=index,
    )
    inputs = [Late(stream.below(9), stream.below(model.n_lps), stream.bits()) for _ in range(pick(0, 3))]
    options = {
        "kernel": "optimistic",
        "tier": "compiled",
        "workers": 3,
        "kps": pick(1, 2),
        "batch": pick(1, 4),
        "gvt_interval": pick(1, 2),
        "ring": pick(2, 8),
        "window": pick(2**40, 3, "lookahead"),
        "cancellation": pick("aggressive", "lazy"),
        "saving": pick("copy", "delta", "periodic:3"),
    }
    return Case(model, 12, inputs, options)


@pytest.fixture(scope="module")
def references() -> dict[int, Played]:
    """What the sequential engine says, kept."""
    return {}


def is_found(index: int, references: dict[int, Played]) -> bool:
    """Does case ``index`` end otherwise than it must?"""
    case = stress_case(index)
    if index not in references:
        references[index] = play(case, kernel="sequential", tier="python")
    try:
        with interleaved(index, slices_max=5_000):
            played = check_parity(case, references[index])
    except (AssertionError, TidewarpError):
        return True
    return case.options["window"] == "lookahead" and not case.inputs and played.stats.rolled_back > 0


@pytest.mark.parametrize("bug", [pytest.param(bug, marks=[] if bug in OFTEN else pytest.mark.nightly) for bug in BUGS])
def test_the_stress_finds(bug: str, references: dict[int, Played]) -> None:
    """One of the first cases tells that something is wrong."""
    with planted(bug):
        assert any(is_found(index, references) for index in range(CASES_MAX))


def test_without_a_bug_nothing_is_found(references: dict[int, Played]) -> None:
    """The same cases, as many as the others take."""
    assert not any(is_found(index, references) for index in range(8))
