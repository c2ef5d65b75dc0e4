"""The bound that a refused run of the Python tier's optimistic engine names is one under which it completes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidewarp.errors import PoolExhausted
from tidewarp.kernel import Context, LogicalProcess, Model, Published, i64, on, run
from tidewarp.kernel.optimistic import memory
from tidewarp.worlds.hurt import CLASSES, hurt

FEW = settings(max_examples=max(10, settings.default.max_examples // 10), report_multiple_bugs=False)


class Ball(NamedTuple):
    """Goes on, and counts."""


class Breeder(LogicalProcess):
    """Sends as many balls more as the published count says."""

    hits: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Ball())

    @on(Ball)
    def ball(self, now: int, ball: Ball, ctx: Context) -> None:
        self.hits += 1
        ctx.add("balls")
        ctx.send((ctx.lp + 1) % ctx.n_lps, 1 + ctx.below(3), ball)

    @on(Published)
    def count(self, now: int, published: Published, ctx: Context) -> None:
        for _ in range(published.value % 7):
            ctx.send(ctx.lp, 1 + ctx.below(4), Ball())


def breeders(lps: int, every: int, seed: int) -> Model:
    """Pending events grow with each publication, by as many as were counted so far."""
    model = Model("breeders", seed=seed)
    model.add(Breeder, lps, path="breeder")
    model.accumulator("balls", publish_every=every)
    return model


def check_named_bound(model: Model, until: int, **options: Any) -> None:
    """Refuse with hardly any memory; with what that names, the run is the sequential one."""
    expected = run(model, until, tier="python")
    options = {"kernel": "optimistic", "tier": "python", **options}
    with pytest.raises(PoolExhausted) as refused:
        run(model, until, **options, memory_max_bytes=1)
    named = re.fullmatch(r"raise memory_max_bytes above (\d+)", refused.value.action)
    assert named is not None, refused.value.action
    result = run(model, until, **options, memory_max_bytes=int(named[1]) + 1)
    assert (result.digest, result.committed) == (expected.digest, expected.committed)


@FEW
@given(
    row=st.integers(0, len(CLASSES) - 1),
    every=st.sampled_from([None, 4]),
    remote=st.sampled_from([0.2, 1.0]),
    workers=st.integers(1, 3),
    lazy=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_named_bound_suffices(
    row: int, every: int | None, remote: float, workers: int, lazy: bool, seed: int
) -> None:
    """Following the advice once is enough, in any order of turns, and the digest is that of the sequential run."""
    model = hurt(CLASSES[row], 4, population=2, remote=remote, emit=0.2, publish_every=every, seed=seed)
    cancellation = "lazy" if lazy else "aggressive"
    check_named_bound(model, 12, workers=workers, cancellation=cancellation, schedule_seed=seed, window=2**40)


@FEW
@given(lps=st.integers(2, 5), every=st.sampled_from([2, 3, 5]), seed=st.integers(0, 2**16))
@example(lps=3, every=2, seed=1)
def test_the_named_bound_counts_what_is_published_on_the_way(lps: int, every: int, seed: int) -> None:
    """Most of these events are there only because of values that are published long after the refusal."""
    check_named_bound(breeders(lps, every, seed), 24, workers=2, schedule_seed=seed)


def test_a_bound_that_was_not_looked_at_to_the_end_says_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is limited: then the tick is named to which the bound would do."""
    monkeypatch.setattr(memory, "LOOKED_AT_MOST", 50)
    options: dict[str, Any] = {"kernel": "optimistic", "tier": "python", "workers": 2}
    with pytest.raises(PoolExhausted) as refused:
        run(breeders(4, 3, 1), 10_000, **options, memory_max_bytes=1)
    named = re.fullmatch(r"for the run to tick (\d+), raise memory_max_bytes above (\d+)", refused.value.action)
    assert named is not None, refused.value.action
    tick = int(named[1])
    assert 0 < tick < 10_000
    result = run(breeders(4, 3, 1), tick, **options, memory_max_bytes=int(named[2]) + 1)
    assert result.digest == run(breeders(4, 3, 1), tick, tier="python").digest
