"""Random models and ways to execute them, and the check that both engines computed the same.

``cases()`` draws cases of :mod:`tidewarp.worlds.hurt`: few classes, many models, so that a compiled tier compiles them once.
``optimistic_options()`` draws how to execute any model. :func:`check_parity` runs a case twice and names what differs.
"""

from __future__ import annotations

from typing import Any

from tidewarp.testing.suites import strategies
from tidewarp.worlds.hurt import Case, Played, play, random_case

__all__ = ["cases", "check_parity", "optimistic_options", "small_options"]


def cases() -> strategies.SearchStrategy[Case]:
    """Models that hurt, late inputs, and options of a parallel run."""
    return strategies.builds(random_case, strategies.integers(0, 2**64 - 1), strategies.integers(0, 9))


def small_options(**fixed: strategies.SearchStrategy[Any]) -> strategies.SearchStrategy[dict[str, Any]]:
    """Options that make trouble early: short turns, small rings, any order of turns."""
    return strategies.fixed_dictionaries(
        {
            "batch": strategies.sampled_from([1, 4, 64]),
            "gvt_interval": strategies.sampled_from([1, 4, 16]),
            "ring": strategies.sampled_from([2, 8, 4096]),
            "schedule_seed": strategies.none() | strategies.integers(0, 2**32),
            **fixed,
        }
    )


def optimistic_options(workers_max: int = 4) -> strategies.SearchStrategy[dict[str, Any]]:
    """Options of an optimistic run in the Python tier, for models of at least ``workers_max`` LPs."""
    return small_options(
        kernel=strategies.just("optimistic"),
        tier=strategies.just("python"),
        workers=strategies.integers(1, workers_max),
        kps=strategies.none() | strategies.integers(1, 8),
        window=strategies.sampled_from(["auto", "lookahead", 1, 3, 20, 2**40]),
        cancellation=strategies.sampled_from(["aggressive", "lazy"]),
        saving=strategies.sampled_from([None, "copy", "undo", "delta", "periodic:2", "periodic:7"]),
    )


def check_parity(case: Case, expected: Played | None = None, **options: Any) -> Played:
    """Run ``case`` under ``options`` (by default its own) and compare with the sequential reference, or with ``expected``.

    Raises:
        AssertionError: digest, counts (by class too), trace, outputs or accumulators differ; the message holds all that repeats the run.
    """
    options = options or dict(case.options)
    if expected is None:
        expected = play(case, kernel="sequential", tier="python")
    got = play(case, **options)
    told = f"until {case.until}, {len(case.inputs)} inputs, {options}"
    assert got.committed == expected.committed, f"{got.committed} events, {expected.committed} expected; {told}"
    assert got.trace_digests == expected.trace_digests, f"committed events differ; {told}"
    assert got.outputs == expected.outputs, f"outputs differ; {told}"
    assert got.accumulators == expected.accumulators, f"accumulators differ; {told}"
    assert got.digest == expected.digest, f"final states differ; {told}"
    stats, by_class = got.stats, expected.stats.committed_by_class
    assert stats.committed_by_class == by_class, f"{stats.committed_by_class} events by class, not {by_class}; {told}"
    assert sum(stats.executed_by_class) == stats.executed, f"{stats.executed} executed, {stats}; {told}"
    assert sum(stats.rolled_back_by_class) == stats.rolled_back, f"{stats.rolled_back} rolled back, {stats}; {told}"
    return got
