"""What the public interface of the kernel refuses: always with value, rule and action, never with an error of Python's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import Go, Letter, Unknown, scripted

from tidewarp.errors import CheckpointRefused, LateInput, ModelError, OperatorError, TidewarpError
from tidewarp.kernel import Bytes, Engine, LogicalProcess, Model, Options, Source, Status, i64, run
from tidewarp.units import TICK_MAX
from tidewarp.worlds.phold import phold


class Held(LogicalProcess):
    n: i64
    data: Bytes


class Fieldless(LogicalProcess):
    pass


def refused(call: Callable[[], object], words: str | None = None) -> TidewarpError:
    """What ``call`` raises: an error with all three parts."""
    with pytest.raises(TidewarpError, match=words) as caught:
        call()
    assert caught.value.value
    assert caught.value.rule
    assert caught.value.action
    str(caught.value).encode("utf-8", "backslashreplace")
    return caught.value


def model_of(lps: int = 3) -> Model:
    model = Model("m")
    model.add(Held, lps, path="a")
    return model


def raises(place: int) -> int:
    raise ZeroDivisionError("on purpose")


NO_TICKS = [None, "5", 1.0, True, -1, 2**70, float("nan"), [5], np.float64(5), np.bool_(True), b"5"]
NO_NAMES = [5, None, "", "\ud800", "a\nb", b"a", ["a"]]

BUILDING: dict[str, Callable[[], object]] = {
    **{f"name {name!r}": lambda name=name: Model(name) for name in NO_NAMES},
    **{f"input {name!r}": lambda name=name: model_of().input(name) for name in NO_NAMES},
    **{f"path {name!r}": lambda name=name: model_of().add(Held, 1, path=name) for name in NO_NAMES},
    **{f"table {name!r}": lambda name=name: model_of().table(name, [1]) for name in [*NO_NAMES, "a b", "\ud800"]},
    **{f"accumulator {name!r}": lambda name=name: model_of().accumulator(name) for name in [*NO_NAMES, "a b"]},
    **{
        f"lookahead {ticks!r}": lambda ticks=ticks: Model("m", lookahead=ticks)
        for ticks in NO_TICKS
        if ticks is not None
    },
    **{f"interval {ticks!r}": lambda ticks=ticks: Model("m", trace_interval=ticks) for ticks in [*NO_TICKS, 0]},
    **{f"seed {seed!r}": lambda seed=seed: Model("m", seed=seed) for seed in NO_TICKS},
    **{f"count {count!r}": lambda count=count: model_of().add(Held, count, path="b") for count in [*NO_TICKS, 0]},
    **{
        f"every {ticks!r}": lambda ticks=ticks: model_of().accumulator("x", publish_every=ticks)
        for ticks in NO_TICKS
        if ticks is not None
    },
    **{f"link after {ticks!r}": lambda ticks=ticks: model_of().link(0, 1, ticks) for ticks in NO_TICKS},
    **{
        f"link to {lps!r}": lambda lps=lps: model_of().link(0, lps, 1)
        for lps in (None, [], [[1]], [[1], [1, 2]], "1", [True], [1.0], np.eye(2, dtype=int), [None], 3, [2**80], object())
    },
    **{f"kind {kind!r}": lambda kind=kind: model_of().accumulator("x", kind) for kind in (5, None, ["sum"], np.eye(2))},
    **{f"messages {given!r}": lambda given=given: Model("m", messages=given) for given in (5, "ab", Go, b"x", 1.0)},
    **{f"init {init!r}": lambda init=init: model_of().add(Held, 1, path="b", init=init) for init in (5, "n", [1], {5: 1}, {"no": 1})},
    "init of a class without fields": lambda: Model("m").add(Fieldless, 1, path="b", init={"n": 1}),
    **{f"class {cls!r}": lambda cls=cls: model_of().add(cls, 1, path="b") for cls in (5, None, Held(), "Held", int)},
    "a link before there is an LP": lambda: Model("m").link(0, 0, 1),
    **{f"lp {path!r}": lambda path=path: model_of().lp(path) for path in (5, None, True, "b", b"a")},
    **{f"path of {lp!r}": lambda lp=lp: model_of().path(lp) for lp in ("a", None, 1.0, True, 3, -(2**40))},
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDING)
def test_a_model_refuses(name: str) -> None:
    """When it is said, not when it runs."""
    assert isinstance(refused(BUILDING[name]), (ModelError, OperatorError))


TABLES: dict[str, tuple[Any, str]] = {
    "ragged": ([[1, 2], [3]], "rows of equal length"),
    "empty": ([], "an empty list does not say of what"),
    "empty rows": ([[], []], "an empty list does not say of what"),
    "None": (None, "whole numbers, float64 or bool"),
    "a text": ("abc", "whole numbers, float64 or bool"),
    "a dict": ({1: 2}, "whole numbers, float64 or bool"),
    "texts": (["a", "b"], "whole numbers, float64 or bool"),
    "complex": (np.zeros(2, complex), "whole numbers, float64 or bool"),
    "half floats": (np.zeros(2, np.float16), "whole numbers, float64 or bool"),
    "long floats": (np.zeros(2, np.longdouble), "whole numbers, float64 or bool"),
    "dates": (np.zeros(2, "M8[s]"), "whole numbers, float64 or bool"),
    "records": (np.zeros(2, [("a", "i8")]), "whole numbers, float64 or bool"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_something_else(name: str) -> None:
    """The rule is the one that was broken."""
    given, words = TABLES[name]
    refused(lambda: model_of().table("t", given), words)


@pytest.mark.parametrize(
    "init",
    [
        {"n": raises},
        {"n": lambda place: "x"},
        {"n": lambda place: None},
        {"n": lambda: 1},
        {"n": None},
        {"n": "abc"},
        {"n": {1: 2}},
        {"n": object()},
        {"n": [1, 2]},
        {"data": None},
        {"data": 5},
        {"data": [b"a"]},
        {"data": "abc"},
        {"data": raises},
    ],
)
def test_a_start_value_of_something_else(init: dict[str, Any]) -> None:
    """An error of the model, before its first event; it names the class and the field."""
    model = Model("m")
    model.add(Held, 3, path="a", init=init)
    assert isinstance(refused(lambda: run(model, 5, tier="python"), rf"Held\.{next(iter(init))}"), ModelError)


# --- options ------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "kernel": "optimistic",
    "tier": "python",
    "workers": 3,
    "transport": "mpi",
    "window": 5,
    "kps": 2,
    "batch": 7,
    "gvt_interval": 9,
    "partition": [0, 0],
    "cancellation": "lazy",
    "memory_max_bytes": 10**6,
    "outputs_max": 3,
    "saving": "periodic:3",
    "digest": "off",
    "schedule_seed": 0,
    "debug": True,
    "handler_timeout_s": 2,
    "slice_turns": 4,
    "ring": 8,
}
ODD = [None, True, "", "x", "\ud800", b"x", -1, 0, 1.5, float("nan"), float("inf"), 1j, np.complex128(1), 2**80, [], (1.5,), {}, {1}, object(), np.eye(2), np.array(None)]  # fmt: skip
FITS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("kps", "memory_max_bytes", "saving"), (None,)),
    "schedule_seed": (None, 0),
    "debug": (True,),
    "handler_timeout_s": (1.5,),
    "partition": ([], (1.5,)),  # how many LPs there are is not known yet
}
"""Of the odd values, those that an option takes."""


def test_the_table_has_every_option() -> None:
    """A new option has to be walked through too."""
    assert GOOD.keys() == vars(Options()).keys()


@pytest.mark.parametrize("name", GOOD)
def test_an_option_takes_what_fits_and_nothing_else(name: str) -> None:
    """At once; the error names the option."""
    assert getattr(Options(**{name: GOOD[name]}), name) == GOOD[name]
    for value in ODD:
        if any(value is one or (type(value) is type(one) and value == one) for one in FITS.get(name, ())):
            Options(**{name: value})
        else:
            assert isinstance(refused(lambda value=value: Options(**{name: value}), name), OperatorError)


PARTITIONS: dict[str, Any] = {
    "a number": 5,
    "None": None,
    "a text": "halves",
    "bytes": b"\0\1",
    "a set": {0, 1},
    "a table": np.zeros((2, 2), int),
    "too short": [0, 1],
    "too long": [0, 1, 0, 1],
    "empty": [],
    "floats": [0.0, 1.0, 0.0],
    "an array of floats": np.array([0.0, 1.0, 0.0]),
    "texts": ["0", "1", "0"],
    "bools": [False, True, False],
    "a PE too many": [0, 1, 2],
    "a PE below 0": [0, 1, -1],
    "a PE far too many": [0, 1, 2**70],
    "a PE without LPs": [0, 0, 0],
}


@pytest.mark.parametrize("kernel", ["sequential", "conservative", "optimistic"])
@pytest.mark.parametrize("name", PARTITIONS)
def test_a_partition_that_is_none(name: str, kernel: str) -> None:
    """In every engine, also in the one that has no use for it."""
    model = Model("m", lookahead=5)
    model.add(Held, 3, path="a")
    how = {"kernel": kernel, "workers": 2, "tier": "python"}
    assert isinstance(refused(lambda: Engine(model, partition=PARTITIONS[name], **how)), OperatorError)
    for good in ([0, 1, 0], (1, 0, 0), np.array([0, 1, 1], np.uint8), [np.int64(0), 1, 1]):
        Engine(model, partition=good, **how).close()


# --- runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [*NO_TICKS, TICK_MAX])
@pytest.mark.parametrize("with_checkpoints", [False, True])
def test_a_run_to_no_tick(until: Any, with_checkpoints: bool, tmp_path: Path) -> None:
    """Before anything is opened or written."""
    more = {"checkpoint": tmp_path / "c"} if with_checkpoints else {}
    refused(lambda: run(phold(lps=2), until, tier="python", **more), "until")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "how",
    [
        {"checkpoint": 5},
        {"checkpoint": b"x"},
        {"resume": 5},
        {"resume": "nowhere"},
        *({"checkpoint": "c", "checkpoint_every": every} for every in [*NO_TICKS[1:], 0]),
        {"options": Options()},
        {"workers": 3},
    ],
)
def test_a_run_with_odd_arguments(how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and no file is left."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(refused(lambda: run(phold(lps=2), 10, tier="python", **how)), OperatorError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [None, 5, "m", Model])
def test_an_engine_of_no_model(model: Any) -> None:
    """Said as such."""
    refused(lambda: Engine(model), "it runs a Model")
    refused(lambda: Engine.restore(model, b""), "it runs a Model")
    refused(lambda: run(model, 5), "it runs a Model")


@pytest.mark.parametrize("options", [5, "fast", {"workers": 2}])
def test_options_of_another_type(options: Any) -> None:
    """They are an object or keywords."""
    refused(lambda: Engine(phold(lps=2), options), "Options object or as keywords")


@pytest.mark.parametrize("data", [None, "abc", 5, b"", b"TWCKPT1", [1], object()])
def test_a_checkpoint_of_something_else(data: Any) -> None:
    """Refused before it is looked at, or as what it is not."""
    assert isinstance(refused(lambda: Engine.restore(phold(lps=2), data)), CheckpointRefused)


def test_a_checkpoint_may_come_in_any_kind_of_bytes() -> None:
    """A view on a larger message too."""
    with Engine(phold(lps=2), tier="python") as engine:
        data = engine.checkpoint()
    for given in (bytearray(data), memoryview(data)):
        with Engine.restore(phold(lps=2), given, tier="python") as engine:
            assert engine.checkpoint() == data


def quiet(self: Any, now: int, go: Go, ctx: Any) -> None:
    self.n += 1


INPUTS: dict[str, dict[str, Any]] = {
    **{f"tick {at!r}": {"at": at} for at in [*NO_TICKS, 9, TICK_MAX]},
    **{f"LP {lp!r}": {"dst": lp} for lp in (None, "0", "s.0", 1.0, True, -1, 3, 2**70, [0])},
    **{f"seq {seq!r}": {"seq": seq} for seq in NO_TICKS if seq not in (None, 5)},
    **{f"message {m!r}": {"message": m} for m in (None, 5, Go, (0,), Unknown(1), "Go", Letter(1, None), Go("x"))},
    **{f"source {s!r}": {"source": s} for s in (None, 5, "sensor", ("sensor", 0), Source("sensor", 1))},
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_odd_input(name: str) -> None:
    """Refused, and nothing of it stays: the same input in order gets the number that it would have had."""
    with Engine(scripted(quiet), tier="python") as engine:
        engine.watermark(engine.model.sources[0], 10)
        given: dict[str, Any] = {"source": engine.model.sources[0], "dst": 0, "at": 50, "message": Go()} | INPUTS[name]
        refused(
            lambda: engine.inject(given["source"], given["dst"], given["at"], given["message"], seq=given.get("seq"))
        )
        assert engine._counts == {engine.model.sources[0].src: 0}
        engine.watermark(engine.model.sources[0], TICK_MAX)
        engine.advance(100)
        assert engine.ledger.committed == 1


def test_time_never_goes_back() -> None:
    """Neither a watermark, nor the run, nor an input."""
    with Engine(scripted(quiet), tier="python") as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, 30)
        engine.advance(20)
        refused(lambda: engine.watermark(sensor, 29), "never goes back")
        refused(lambda: engine.advance(19), "has been advanced to 20")
        assert isinstance(refused(lambda: engine.inject(sensor, 0, 29, Go())), LateInput)
        for tick in NO_TICKS:
            refused(lambda tick=tick: engine.watermark(sensor, tick))
        for source in (("sensor", 0), None, Source("other", 0)):
            refused(lambda source=source: engine.watermark(source, 40), "a source comes from model.input")


USES: dict[str, Callable[[Engine], object]] = {
    "advance": lambda engine: engine.advance(50),
    "inject": lambda engine: engine.inject(engine.model.sources[0], 0, 50, Go()),
    "watermark": lambda engine: engine.watermark(engine.model.sources[0], 50),
    "outputs": lambda engine: engine.outputs(),
    "state": lambda engine: engine.state(0),
    "image": lambda engine: engine.image(),
    "checkpoint": lambda engine: engine.checkpoint(),
    "stats": lambda engine: engine.stats(),
    "stalls": lambda engine: engine.stalls(),
    "digest": lambda engine: engine.digest(),
    "gvt": lambda engine: engine.gvt,
    "enter": lambda engine: engine.__enter__(),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("kernel", ["sequential", "conservative", "optimistic"])
def test_a_closed_engine_refuses_everything(name: str, kernel: str) -> None:
    """But to be closed again."""
    with Engine(scripted(quiet, lookahead=1), kernel=kernel, tier="python") as engine:
        engine.advance(20)
    refused(lambda: USES[name](engine), "a closed engine")
    engine.close()


def test_an_engine_is_entered_once() -> None:
    """Its first block would close it under the second."""
    with Engine(scripted(quiet), tier="python") as engine:
        refused(engine.__enter__, "enter it once")
        assert engine.advance(20) is Status.DONE


def test_an_engine_that_failed_may_be_entered_and_looked_at() -> None:
    """It stays failed, with its error and everything before it."""

    def fails(self: Any, now: int, go: Go, ctx: Any) -> None:
        if go.step == 3:
            raise RuntimeError("on purpose")
        ctx.send(0, 1, Go(go.step + 1))

    engine = Engine(scripted(fails), tier="python")
    first = refused(lambda: engine.advance(100), "on purpose")
    with engine:
        assert refused(lambda: engine.advance(100)) is first
        assert engine.ledger.committed == 3
        assert engine.state(0)["n"] == 0
        assert engine.stalls() == []
    refused(lambda: engine.advance(100), "a closed engine")


@pytest.mark.parametrize("lp", ["s.0", None, True, 1.0, -1, 3, [0], 2**70])
def test_the_state_of_no_lp(lp: Any) -> None:
    """Of an engine and of a result; the error says how a path becomes a number."""
    with Engine(scripted(quiet), tier="python") as engine:
        refused(lambda: engine.state(lp), "model.lp")
    result = run(scripted(quiet), 20, tier="python")
    refused(lambda: result.state(lp), "model.lp")


def test_numbers_of_numpy_are_as_good_as_python_s() -> None:
    """Wherever a whole number is meant; what is kept is Python's."""

    def digest(whole: Callable[[int], Any]) -> str:
        model = Model("m", lookahead=whole(1), seed=whole(5), trace_interval=whole(100))
        lps = model.add(Held, whole(3), path="a", init={"n": whole(4)})
        model.link(whole(0), lps[1:], whole(2))
        model.link([whole(1)], np.array([0, 2], np.uint16), whole(2))
        model.accumulator("x", publish_every=whole(7))
        return model.digest()

    assert digest(int) == digest(np.int64) == digest(np.uint8)
    model = scripted(quiet)
    names = ("workers", "window", "kps", "batch", "gvt_interval", "outputs_max", "schedule_seed", "slice_turns", "ring")
    options = Options(kernel="optimistic", tier="python", **{name: np.int64(2) for name in names})
    assert all(type(getattr(options, name)) is int for name in names)
    assert type(Options(handler_timeout_s=np.float32(2)).handler_timeout_s) is float
    with Engine(model, options) as engine:
        engine.watermark(model.sources[0], np.uint32(20))
        engine.inject(model.sources[0], np.int8(1), np.int64(30), Go(), seq=np.uint64(2**64 - 1))
        assert engine.advance(np.int64(15)) is Status.DONE
        engine.watermark(model.sources[0], np.int64(100))
        assert engine.advance(np.int16(40)) is Status.DONE
        assert engine.state(np.int64(1)) == engine.state(1)
        assert (engine.state(1)["n"], type(engine.gvt)) == (1, int)
    assert run(scripted(quiet), np.int64(20), tier="python").state(np.uint8(0))["n"] == 1
