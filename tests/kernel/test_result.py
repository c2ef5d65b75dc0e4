"""What a result says beside its digest: counts by class of LP, and outputs as a table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tidewarp.errors import MissingExtra
from tidewarp.kernel import Array, Bytes, Context, LogicalProcess, Model, b1, f64, i64, on, run, u8, u64


class Ball(NamedTuple):
    n: i64


class Seen(NamedTuple):
    big: u64
    cells: Array[u8, (2, 2)]
    share: f64
    odd: b1


class Note(NamedTuple):
    data: Bytes


class Thrower(LogicalProcess):
    n: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Ball(0))

    @on(Ball)
    def throw(self, now: int, ball: Ball, ctx: Context) -> None:
        ctx.send(2 + ctx.below(2), 5, ball)
        ctx.send(ctx.lp, 10, Ball(ball.n + 1))


class Catcher(LogicalProcess):
    n: i64

    @on(Ball)
    def catch(self, now: int, ball: Ball, ctx: Context) -> None:
        self.n += 1
        if ball.n % 2:
            ctx.emit(Seen(2**64 - 1 - ball.n, [[1, 2], [3, 4]], 0.5, True))
        else:
            ctx.emit(Note(b"x" * ball.n))


class Counter(LogicalProcess):
    n: i64

    @on(Ball)
    def catch(self, now: int, ball: Ball, ctx: Context) -> None:
        self.n += 1


def throwing(*, compiled: bool = False) -> Model:
    """Those who catch are added in two groups; ``compiled``: without messages of variable length."""
    catcher = Counter if compiled else Catcher
    model = Model("throwing", lookahead=1, messages=[] if compiled else [Seen, Note], trace_interval=10)
    model.add(Thrower, 2, path="thrower")
    model.add(catcher, 1, path="first")
    model.add(catcher, 1, path="second")
    return model


@pytest.mark.parametrize(
    "how", [{"kernel": "sequential"}, {"kernel": "conservative", "workers": 2}, {"kernel": "optimistic", "workers": 3}]
)
@pytest.mark.parametrize("tier", ["python", "compiled"])
def test_classes_have_counts_of_their_own(how: dict[str, Any], tier: str, require: Callable[[str], None]) -> None:
    """What is part of the state, and how many events: both without what was undone on the way; what was undone beside it."""
    if tier == "compiled":
        require("numba")
    result = run(throwing(compiled=tier == "compiled"), 95, tier=tier, **how)
    thrower, catcher = result.by_class()
    assert (thrower.cls, catcher.cls) == (result.model.class_of(0), Catcher if tier == "python" else Counter)
    assert thrower[1:3] == (2, 2 * (1 + 10 * 2))
    assert thrower.draws >= 20
    assert catcher[1:4] == (2, 0, 0)
    assert (thrower.committed, catcher.committed) == (20, 18)
    for one in (thrower, catcher):
        assert one.executed == one.committed + one.rolled_back
    assert thrower.executed + catcher.executed == result.stats.executed
    assert thrower.rolled_back + catcher.rolled_back == result.rolled_back


def test_counts_of_a_resumed_run_are_of_its_own_events(tmp_path: Path) -> None:
    """What was in the checkpoint is not counted again: neither by class, nor in the efficiency."""
    run(throwing(), 95, tier="python", checkpoint=tmp_path, checkpoint_every=40)
    for kernel in ("sequential", "conservative", "optimistic"):
        result = run(throwing(), 95, tier="python", kernel=kernel, resume=tmp_path, workers=2)  # type: ignore[arg-type]
        assert 0 < result.resumed < result.committed == 38
        assert sum(one.committed for one in result.by_class()) == result.committed - result.resumed
        assert result.efficiency == (result.committed - result.resumed) / result.stats.executed <= 1.0


def test_outputs_become_a_table(require: Callable[[str], None]) -> None:
    """Each message class has a column of its own, null where another one left; all kinds keep their width."""
    require("arrow")
    import pyarrow as pa

    result = run(throwing(), 30, tier="python")
    table = result.to_arrow()
    assert table.column_names == ["id", "tick", "lp", "path", "message", "Seen", "Note"]
    assert table.num_rows == len(result.outputs) == 6
    assert table["id"].to_pylist() == [output.id for output in result.outputs]
    assert table["tick"].to_pylist() == [6, 6, 16, 16, 26, 26]
    assert set(table["path"].to_pylist()) <= {"first", "second"}
    assert table["message"].to_pylist() == ["Note", "Note", "Seen", "Seen", "Note", "Note"]
    assert (
        table["Seen"].to_pylist()
        == [None] * 2 + [{"big": 2**64 - 2, "cells": [[1, 2], [3, 4]], "share": 0.5, "odd": True}] * 2 + [None] * 2
    )
    assert table["Note"].to_pylist() == [{"data": b""}] * 2 + [None] * 2 + [{"data": b"xx"}] * 2
    assert table.schema.field("Seen").type.field("big").type == pa.uint64()
    assert table.schema.field("Seen").type.field("cells").type == pa.list_(pa.list_(pa.uint8(), 2), 2)


def test_no_outputs_are_an_empty_table(require: Callable[[str], None]) -> None:
    """With the columns that every table has."""
    require("arrow")
    table = run(throwing(), 0, tier="python").to_arrow()
    assert (table.num_rows, table.column_names) == (0, ["id", "tick", "lp", "path", "message"])


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the command that installs it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[arrow\]'"):
        run(throwing(), 5, tier="python").to_arrow()
