"""The parity matrix: every model that ships, in every engine, tier and number of workers, against the sequential reference.

Compared: the digest (all committed events, outputs, accumulators, final state with its hidden words, pending events), and,
so that a difference says what it is, each of these on its own.

Not compared, and why:

* wall times and statistics: they are what the engines differ in;
* what a speculative event did that was undone: it never happened;
* fields and messages of variable length (``Bytes``), ``saving="custom"`` and ``saving="undo"``: of the Python tier alone;
* text of errors: the compiled tier makes it by running the event once more in the Python tier, and the tests of the tiers
  compare it; here no model fails;
* numbers beyond their kinds: Python's integers do not end at 64 bits, so a model that leaves them is wrong
  (``testing.check_model`` finds it);
* ranks: `mpiexec` starts processes of their own, and the tests of the ranks compare them with this same reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.kernel import Model, Result, run
from tidewarp.units import seconds
from tidewarp.worlds import queueing, spiking
from tidewarp.worlds.hurt import hurt
from tidewarp.worlds.phold import phold


class Shipped(NamedTuple):
    """A model of a small size, and how far it is run."""

    build: Callable[[], Model]
    until: int  # ticks


def network(identity: str) -> Model:
    """Four small populations that fire a good deal."""
    how = spiking.Settings(populations=4, neurons=16, fan=2, density=0.5, rate_hz=200.0, identity=identity)
    return spiking.build(how).model


MODELS = {
    "phold": Shipped(lambda: phold(lps=12, population=3, remote=0.5, seed=7), seconds(4)),
    "parcels": Shipped(lambda: phold(lps=6, population=2, remote=0.5, payload_bytes=64, state_bytes=512), seconds(12)),
    "hurt": Shipped(lambda: hurt(lps=3, lookahead=1, publish_every=5, seed=11), 18),
    "hurt, linked": Shipped(lambda: hurt(lps=3, lookahead=2, links="some", seed=12), 30),
    "shop": Shipped(lambda: queueing.shop(servers=5, service=seconds(5)), seconds(60)),
    "queueing network": Shipped(lambda: queueing.network(stations=6, seed=3), seconds(20)),
    "spiking": Shipped(lambda: network("none"), seconds(0.1)),
    "spiking, commit": Shipped(lambda: network("commit"), seconds(0.1)),
    "spiking, not speculative": Shipped(lambda: network("non_speculative"), seconds(0.05)),
    "hurt, forward": Shipped(lambda: hurt(lps=3, links="forward", seed=13), 15),
}

LONG_TO_COMPILE = ("parcels", "queueing network", "spiking, commit", "spiking, not speculative")
"""Compiled by night alone: each has handlers of its own, and its engines are those of the others."""

WAYS = [
    (kernel, tier, workers)
    for tier in ("python", "compiled")
    for kernel, counts in (("sequential", (1,)), ("conservative", (1, 2, 4)), ("optimistic", (1, 2, 4)))
    for workers in counts
    if (kernel, tier) != ("sequential", "python")
]


def compare(got: Result, expected: Result) -> None:
    """All that a run came to, from the general to the particular."""
    assert got.committed == expected.committed
    assert got.trace_digests == expected.trace_digests
    assert got.outputs == expected.outputs
    assert got.accumulators == expected.accumulators
    assert got.image.rows == expected.image.rows
    assert got.image.pending == expected.image.pending
    assert got.digest == expected.digest
    for lp in range(got.model.n_lps):
        assert got.state(lp) == expected.state(lp)


@cache
def reference(name: str) -> Result:
    """The sequential run in the Python tier."""
    shipped = MODELS[name]
    result = run(shipped.build(), shipped.until, tier="python")
    assert result.committed > 100, "a matrix of short runs would say little"
    return result


MATRIX = [
    pytest.param(
        name,
        *way,
        id=f"{name}-{'-'.join(map(str, way))}",
        marks=[pytest.mark.nightly] if way[1] == "compiled" and name in LONG_TO_COMPILE else [],
    )
    for name in MODELS
    for way in WAYS
]


@pytest.mark.parametrize(("name", "kernel", "tier", "workers"), MATRIX)
def test_every_way_of_execution_computes_the_same(
    name: str, kernel: Any, tier: str, workers: int, require: Callable[[str], None]
) -> None:
    """One digest."""
    if tier == "compiled":
        require("numba")
    shipped = MODELS[name]
    compare(run(shipped.build(), shipped.until, kernel=kernel, tier=tier, workers=workers), reference(name))


HOW = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 4),
        "window": st.sampled_from(["auto", "lookahead", 1, 10**8, 10**12]),
        "kps": st.sampled_from([None, 1, 2, 8]),
        "batch": st.sampled_from([1, 7, 64]),
        "gvt_interval": st.sampled_from([1, 4]),
        "cancellation": st.sampled_from(["aggressive", "lazy"]),
        "saving": st.sampled_from([None, "copy", "periodic:4", "delta"]),
        "ring": st.sampled_from([2, 8, 4096]),
        "schedule_seed": st.integers(0, 2**32),
    }
)
SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def pholds(draw: st.DrawFn) -> Callable[[], Model]:
    """PHOLD with any parameters: ties, no lookahead, everything remote, large rows."""
    lookahead, mean = draw(st.sampled_from([(0, 1), (0, 3), (1, 2), (10**8, 9 * 10**8)]))
    arguments: dict[str, Any] = {
        "lps": draw(st.integers(4, 9)),
        "population": draw(st.integers(0, 4)),
        "remote": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "lookahead": lookahead,
        "mean": mean,
        "grain": draw(st.integers(0, 2)),
        "seed": draw(SEEDS),
    }
    return lambda: phold(**arguments)


@st.composite
def hurts(draw: st.DrawFn) -> Callable[[], Model]:
    """The model made to hurt, with any parameters."""
    arguments: dict[str, Any] = {
        "lps": draw(st.integers(1, 4)),
        "population": draw(st.integers(1, 3)),
        "lookahead": draw(st.integers(0, 2)),
        "spread": draw(st.integers(2, 4)),
        "remote": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "links": draw(st.sampled_from(["none", "some", "forward"])),
        "publish_every": draw(st.sampled_from([None, 3])),
        "seed": draw(SEEDS),
    }
    return lambda: hurt(**arguments)


@given(pholds() | hurts(), HOW, st.integers(0, 20))
@settings(max_examples=max(20, settings.default.max_examples // 4))
def test_any_model_any_way(build: Callable[[], Model], how: dict[str, Any], until: int) -> None:
    """Seeds, parameters and options at random: the optimistic engine of the Python tier, whose schedules repeat."""
    end = until if build().lookahead < 10 else seconds(0.2) * until
    compare(run(build(), end, kernel="optimistic", tier="python", **how), run(build(), end, tier="python"))


@given(pholds() | hurts(), HOW, st.integers(0, 20), st.sampled_from(["sequential", "optimistic"]))
@settings(max_examples=max(10, settings.default.max_examples // 8))
def test_any_model_compiled(
    require: Callable[[str], None], build: Callable[[], Model], how: dict[str, Any], until: int, kernel: Any
) -> None:
    """The same in machine words, on threads that nobody steers."""
    require("numba")
    end = until if build().lookahead < 10 else seconds(0.2) * until
    how = {**how, "schedule_seed": None}
    compare(run(build(), end, kernel=kernel, tier="compiled", **how), run(build(), end, tier="python"))
