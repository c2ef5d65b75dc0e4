"""``check_model`` passes models that keep the contract, and names the first event of those that do not."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

import pytest

from tidewarp.errors import HandlerError, LookaheadError, ModelError, RangeError, ReverseMismatch
from tidewarp.kernel import Array, Context, LogicalProcess, Model, Undo, f64, i64, on, reverse, u8
from tidewarp.testing import Checked, check_model
from tidewarp.units import seconds
from tidewarp.worlds.hurt import hurt
from tidewarp.worlds.phold import phold


@pytest.fixture(autouse=True)
def python_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiers are compared in tests/kernel/test_parity.py; compiling each of these would take long."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


class Step(NamedTuple):
    n: i64


class Pack(NamedTuple):
    small: u8
    cells: Array[i64, 2]


OUTSIDE: list[int] = []


class Walker(LogicalProcess):
    """Keeps the contract; what derives from it breaks one rule at its sixth step."""

    n: i64
    x: f64
    cells: Array[i64, 2]

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 5, Step(1))

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        self.n += 1
        self.x = ctx.normal()
        if self.n == 6:
            self.stumble(ctx)
        ctx.send((ctx.lp + 1) % ctx.n_lps, 5 + ctx.below(3), Step(self.n))

    @on(Pack)
    def pack(self, now: int, pack: Pack, ctx: Context) -> None:
        self.n += pack.small

    def stumble(self, ctx: Context) -> None:
        """Nothing here."""


class Remembers(Walker):
    def stumble(self, ctx: Context) -> None:
        OUTSIDE.append(1)
        self.x = float(len(OUTSIDE))


class SendsOther(Walker):
    def stumble(self, ctx: Context) -> None:
        OUTSIDE.append(1)
        ctx.send(ctx.lp, 1 + len(OUTSIDE), Step(0))


class EmitsOther(Walker):
    def stumble(self, ctx: Context) -> None:
        OUTSIDE.append(1)
        ctx.emit(Step(len(OUTSIDE)))


class AddsOther(Walker):
    def stumble(self, ctx: Context) -> None:
        OUTSIDE.append(1)
        ctx.add("count", len(OUTSIDE))


class LeavesItsKind(Walker):
    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        self.n = 2**63


class SendsTooMuch(Walker):
    def stumble(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Pack(256, [1, 2]))


class EmitsTooMuch(Walker):
    def stumble(self, ctx: Context) -> None:
        ctx.emit(Pack(1, [1, 2, 3]))


class Hurries(Walker):
    def stumble(self, ctx: Context) -> None:
        ctx.send((ctx.lp + 1) % ctx.n_lps, 2, Step(0))


class Raises(Walker):
    def stumble(self, ctx: Context) -> None:
        raise RuntimeError("on purpose")


def a_model(cls: type[LogicalProcess], **init: Any) -> Model:
    OUTSIDE.clear()
    model = Model("walk", lookahead=3, messages=[Pack])
    model.add(cls, 3, path="walker", init=init)
    model.accumulator("count")
    return model


BROKEN: dict[type[LogicalProcess], tuple[type[ModelError], str]] = {
    Remembers: (ModelError, "does something else when it runs again.*x came out different"),
    SendsOther: (ModelError, "does something else when it runs again"),
    EmitsOther: (ModelError, "does something else when it runs again"),
    AddsOther: (ModelError, "does something else when it runs again"),
    LeavesItsKind: (RangeError, r"walker\.\d at \(\d+, 0, \d, \d, \d+\): LeavesItsKind\.n = 9223372036854775808"),
    SendsTooMuch: (RangeError, r"walker\.\d at tick \d+: Pack\.small = 256"),
    EmitsTooMuch: (RangeError, r"Pack\.cells"),
    Hurries: (LookaheadError, "the declared lookahead is 3"),
    Raises: (HandlerError, "RuntimeError: on purpose"),
}


@pytest.mark.parametrize("cls", BROKEN)
def test_a_broken_rule_is_named(cls: type[LogicalProcess]) -> None:
    """By its own error, at the first event that breaks it."""
    error, words = BROKEN[cls]
    with pytest.raises(error, match=f"(?s){words}") as caught:
        check_model(a_model(cls), 200, schedules=2)
    assert "walker." in caught.value.value


def test_models_that_keep_the_contract_pass() -> None:
    """And the answer says how much was looked at."""
    checked = check_model(a_model(Walker), 200, schedules=4)
    assert checked == Checked(checked.events, 5, checked.rolled_back, ("compiled tier: Numba is not installed",))
    assert checked.events > 90
    assert check_model(phold(lps=6, population=2, remote=0.5), seconds(4), schedules=6).rolled_back > 0


def test_what_cannot_be_checked_is_said() -> None:
    """Without lookahead nothing is conservative."""
    checked = check_model(hurt(lps=2, publish_every=5), 8, schedules=2)
    assert checked.runs == 2
    assert "add up to 0" in checked.skipped[1]


class Counts(LogicalProcess):
    """Can take back what it did, but for one case."""

    n: i64
    last: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Step(3))

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        ctx.note(self.last)
        self.n += step.n
        self.last = step.n
        ctx.send(ctx.lp, 1, Step(step.n + 1))

    @reverse(Step)
    def back(self, now: int, step: Step, undo: Undo) -> None:
        self.n -= step.n
        self.last = undo.bits if step.n != 7 else 0


class CountsRight(Counts):
    @reverse(Step)
    def back(self, now: int, step: Step, undo: Undo) -> None:
        self.n -= step.n
        self.last = undo.bits


def test_a_reverse_handler_is_checked_at_every_event() -> None:
    """The error names event, field and both values."""
    model = Model("counts")
    model.add(Counts, 1, path="c")
    with pytest.raises(ReverseMismatch, match=r"c at \(5, 0, 0, 0, 4\), Step from c: last was 6 and comes back as 0"):
        check_model(model, 20, schedules=1)
    model = Model("counts")
    model.add(CountsRight, 1, path="c")
    assert check_model(model, 20, schedules=1).events == 20


class RaisesBack(Counts):
    @reverse(Step)
    def back(self, now: int, step: Step, undo: Undo) -> None:
        raise KeyError(step.n)


class TakesTooLittle(Counts):
    @reverse(Step)
    def back(self, now: int, step: Step) -> None:
        self.n -= step.n


@pytest.mark.parametrize(("cls", "words"), [(RaisesBack, "KeyError: 3"), (TakesTooLittle, "TypeError: .*arguments")])
def test_a_reverse_handler_that_raises_is_named(cls: type[LogicalProcess], words: str) -> None:
    """As the optimistic engine names it, and with the event."""
    model = Model("counts")
    model.add(cls, 1, path="c")
    with pytest.raises(
        ReverseMismatch, match=rf"c at \(1, 0, 0, 0, 0\), Step from c: {words}.*its reverse handler raised"
    ):
        check_model(model, 20, schedules=1)


class Saves(Walker, saving="custom"):
    def save(self) -> object:
        return self.n, list(self.cells)

    def load(self, saved: Any) -> None:
        self.n, self.cells = saved


class SavesRight(Walker, saving="custom"):
    def save(self) -> object:
        return self.n, self.x, list(self.cells)

    def load(self, saved: Any) -> None:
        self.n, self.x, cells = saved
        self.cells = list(cells)


def test_saving_by_hand_is_checked_at_every_event() -> None:
    """What ``load`` does not bring back is named."""
    with pytest.raises(ReverseMismatch, match=r"x was .* and comes back as 0\.0: load"):
        check_model(a_model(Saves), 200, schedules=1)
    assert check_model(a_model(SavesRight), 200, schedules=2).runs == 3


def test_the_first_event_of_a_difference_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that computes something else from one tick on: the event of that tick, and the options that show it."""
    module = sys.modules[check_model.__module__]
    real = module.Engine  # type: ignore[attr-defined]

    class Spoils(real):  # type: ignore[misc, valid-type]
        def image(self) -> Any:
            image = super().image()
            if self.options.kernel != "optimistic" or self.until < 40:
                return image
            rows = image.rows[0]
            return image._replace(rows=(rows[:-1] + bytes([rows[-1] ^ 1]),))

    monkeypatch.setattr(module, "Engine", Spoils)
    with pytest.raises(ModelError) as caught:
        check_model(a_model(Walker), 200, schedules=1)
    assert re.match(r"walker\.\d at \(4[0-9], 0, \d, \d, \d+\), Step from walker", caught.value.value)
    assert "kernel='optimistic'" in caught.value.value
