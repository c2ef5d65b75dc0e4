"""The model contract: what it refuses, and the digest that names a model."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tidewarp.errors import ModelError, OperatorError, RangeError, TidewarpError
from tidewarp.kernel import (
    Array,
    Bytes,
    Context,
    LogicalProcess,
    Model,
    Published,
    f64,
    function,
    i64,
    on,
    reverse,
    u64,
)
from tidewarp.kernel.lp import form_of_lp, handlers_of, methods_of
from tidewarp.kernel.model import LPS_MAX


class Ping(NamedTuple):
    n: i64


class Pong(NamedTuple):
    n: i64


class Params(NamedTuple):
    rate: f64
    count: i64


class Node(LogicalProcess):
    hits: i64
    cells: Array[u64, 2]

    @on(Ping)
    def ping(self, now: int, ping: Ping, ctx: Context) -> None:
        self.hits += ping.n


# --- building -----------------------------------------------------------------------------------------


def test_lps_are_numbered_in_the_order_they_are_added() -> None:
    """Groups have consecutive numbers; a single LP has its group's path."""
    model = Model("m")
    assert model.add(Node, 3, path="a") == range(3)
    assert model.add(Node, 1, path="b") == range(3, 4)
    assert model.add(Node, 2, path="c.d") == range(4, 6)
    assert [model.path(lp) for lp in range(6)] == ["a.0", "a.1", "a.2", "b", "c.d.0", "c.d.1"]
    assert [model.lp(model.path(lp)) for lp in range(6)] == list(range(6))
    assert model.n_lps == 6
    assert model.classes == [Node]


@pytest.mark.parametrize("path", ["a", "b.0", "a.3", "a.00", "a.-1", "a.x", "c", "", "a.٣"])
def test_a_path_without_an_lp_is_refused(path: str) -> None:
    """The group of many is no LP; there is one way to write a number."""
    model = Model("m")
    model.add(Node, 3, path="a")
    model.add(Node, 1, path="b")
    with pytest.raises(ModelError, match=r"the LPs are a\.0 to \.2, b"):
        model.lp(path)


@pytest.mark.parametrize("lp", [-(2**31), 3, 10**12])
def test_a_number_without_an_lp(lp: int) -> None:
    """Below 0 stand sources and accumulators; the rest is refused."""
    model = Model("m")
    model.add(Node, 3, path="a")
    model.input("sensor")
    if lp < 0:
        assert model.path(lp) == "input 'sensor'"
        assert model.path(-1) == "accumulators"
    else:
        with pytest.raises(ModelError, match="LPs are 0 to 2"):
            model.path(lp)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", 2), ("a", 1)),
        (("a", 2), ("a.1", 1)),
        (("a.1", 1), ("a", 2)),
        (("a.1", 3), ("a", 2)),
        (("a", 1), ("a", 3)),
    ],
)
def test_two_lps_never_share_a_path(first: tuple[str, int], second: tuple[str, int]) -> None:
    """They would share their random numbers too."""
    model = Model("m")
    model.add(Node, first[1], path=first[0])
    with pytest.raises(ModelError, match="names one group or LP"):
        model.add(Node, second[1], path=second[0])
    assert model.n_lps == first[1]


def test_paths_that_only_look_alike_are_different() -> None:
    """``a.2`` is no LP of a group of two."""
    model = Model("m")
    model.add(Node, 2, path="a")
    model.add(Node, 1, path="a.2")
    model.add(Node, 2, path="a.b")
    assert len({model.path(lp) for lp in range(model.n_lps)}) == model.n_lps


class NoKind(LogicalProcess):
    field: int


class Unmarked:
    field: i64


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((Unmarked, 1), "derived from LogicalProcess"),
        ((Node(), 1), "pass the class itself"),
        ((Node, 0), "1 to 2147483647 LPs"),
        ((Node, True), "1 to 2147483647 LPs"),
        ((Node, 1.0), "1 to 2147483647 LPs"),
        ((Node, LPS_MAX + 1), "1 to 2147483647 LPs"),
        ((NoKind, 1), "NoKind.field"),
    ],
)
def test_what_is_no_lp_is_refused(arguments: Any, word: str) -> None:
    """When it is added, and nothing of it stays."""
    model = Model("m")
    with pytest.raises(ModelError, match=word):
        model.add(*arguments, path="x")
    with pytest.raises(ModelError, match="at least one LP"):
        model.freeze()


@pytest.mark.parametrize("path", ["", "a\n", "\x00"])
def test_a_path_is_printable(path: str) -> None:
    """It stands in errors and in digests."""
    with pytest.raises(ModelError, match="printable"):
        Model("m").add(Node, 1, path=path)


INITS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "one for all": ({"hits": 7}, [7, 7, 7]),
    "one for each": ({"hits": [1, 2, 3]}, [1, 2, 3]),
    "numpy": ({"hits": np.array([1, 2, 3], np.uint8)}, [1, 2, 3]),
    "numpy number": ({"hits": np.int64(5)}, [5, 5, 5]),
    "function": ({"hits": lambda place: place * 10}, [0, 10, 20]),
}


@pytest.mark.parametrize("name", INITS)
def test_init_gives_the_first_values(name: str) -> None:
    """A value for all, one for each, or a function of the LP's place; the rest is zero; all are Python's numbers."""
    init, expected = INITS[name]
    model = Model("m")
    model.add(Node, 3, path="a", init=init)
    rows = model.initial_values(model.groups[0])
    assert [row[0] for row in rows] == expected
    assert {type(row[0]) for row in rows} == {int}
    assert [row[1] for row in rows] == [[0, 0]] * 3


def test_init_of_arrays() -> None:
    """One array for all or one for each, and no LP shares it with another."""
    model = Model("m")
    big = 2**64 - 1
    model.add(Node, 2, path="a", init={"cells": [0, big]})
    model.add(Node, 3, path="b", init={"cells": [[0, big], [2, 3], [4, 5]]})
    model.add(Node, 2, path="c", init={"cells": lambda place: np.full(2, place)})
    a, b, c = ([row[1] for row in model.initial_values(group)] for group in model.groups)
    assert (a, b, c) == ([[0, big]] * 2, [[0, big], [2, 3], [4, 5]], [[0, 0], [1, 1]])
    assert a[0] is not a[1]


@pytest.mark.parametrize(
    "init",
    [
        {"hits": [1, 2]},
        {"hits": [[1], [2], [3]]},
        {"cells": 5},
        {"cells": [1, 2, 3]},
        {"cells": np.zeros((2, 2))},
        {"hits": [1, [2], 3, 4]},
    ],
)
def test_init_of_another_shape_is_refused(init: dict[str, Any]) -> None:
    """Naming class, field and both shapes."""
    model = Model("m")
    model.add(Node, 3, path="a", init=init)
    with pytest.raises(ModelError, match=rf"init of Node\.{next(iter(init))} of shape|its shape is"):
        model.initial_values(model.groups[0])


def test_init_of_an_unknown_field_is_refused() -> None:
    """With the names that there are."""
    with pytest.raises(ModelError, match="its fields are hits, cells"):
        Model("m").add(Node, 1, path="a", init={"hit": 1})


def test_init_out_of_range_names_the_group() -> None:
    """A start value has to fit its kind."""
    model = Model("m")
    model.add(Node, 1, path="a", init={"hits": 2**63})
    with pytest.raises(RangeError, match=r"a: Node\.hits"):
        model.digest()


@pytest.mark.parametrize(
    ("srcs", "dsts", "lookahead", "word"),
    [
        (0, 3, 0, "LPs are 0 to 2"),
        (-1, 0, 0, "LPs are 0 to 2"),
        ([], 0, 0, "link of LP"),
        ([0.5], 1, 0, "link of LP"),
        (0, 1, -1, "lookahead of a link -1"),
        (0, 1, 0.5, "lookahead of a link"),
        (0, 1, True, "lookahead of a link"),
        (0, 1, 2**63, "lookahead of a link"),
    ],
)
def test_a_link_that_cannot_be_is_refused(srcs: Any, dsts: Any, lookahead: Any, word: str) -> None:
    """Before the run."""
    model = Model("m")
    model.add(Node, 3, path="a")
    with pytest.raises(ModelError, match=word):
        model.link(srcs, dsts, lookahead)


def test_links_are_kept_in_the_order_declared() -> None:
    """Every source with every destination; ``out(i)`` counts in this order."""
    model = Model("m")
    lps = model.add(Node, 4, path="a")
    model.link(lps[:2], [3, 2], lookahead=5)
    model.link(np.int64(0), 1, lookahead=0)
    model.link(3, 3, lookahead=7)
    model.freeze()
    assert model.links is not None
    assert [array.tolist() for array in model.links] == [[0, 3, 5, 5, 6], [3, 2, 1, 3, 2, 3], [5, 5, 0, 5, 5, 7]]


def test_a_pair_is_linked_once() -> None:
    """Two lookaheads of one channel: nobody could say which counts."""
    model = Model("m")
    lps = model.add(Node, 3, path="a")
    model.link(0, lps, lookahead=1)
    model.link(lps, 2, lookahead=2)
    with pytest.raises(ModelError, match=r"link a\.0 to a\.2: a pair of LPs is linked once"):
        model.freeze()


@pytest.mark.parametrize(
    "array", [["a"], [1j], np.float32([1]), np.array([object()]), [2**64], [2**63, 1.5j], np.array(["2020"], "M8[Y]")]
)
def test_a_table_holds_machine_numbers(array: Any) -> None:
    """Of eight bytes at most, and no half floats: both tiers read the same."""
    with pytest.raises((ModelError, OverflowError)):
        Model("m").table("t", array)


def test_large_whole_numbers_do_not_become_floats() -> None:
    """numpy would round them in silence."""
    model = Model("m")
    with pytest.raises(ModelError, match="give an array of uint64"):
        model.table("t", [0, 2**63 + 1])
    model.table("t", np.array([0, 2**63 + 1], np.uint64))
    assert model.tables["t"].tolist() == [0, 2**63 + 1]
    model.table("mixed", [0, 0.5])
    assert model.tables["mixed"].dtype == np.float64


def test_a_table_is_a_copy_that_nobody_changes() -> None:
    """In machine order and contiguous, whatever was given."""
    given = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    model = Model("m")
    model.table("t", given)
    given[0, 0] = 99
    table = model.tables["t"]
    assert table.tolist() == [[0, 2], [4, 6], [8, 10]]
    assert table.flags.c_contiguous
    assert table.dtype.isnative
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


@pytest.mark.parametrize("method", ["table", "accumulator", "input"])
def test_names_are_used_once(method: str) -> None:
    """The second is refused."""
    model = Model("m")
    arguments = [[1]] if method == "table" else []
    getattr(model, method)("x", *arguments)
    with pytest.raises(ModelError, match="'x'"):
        getattr(model, method)("x", *arguments)


@pytest.mark.parametrize(("kind", "every"), [("product", None), ("sum", 0), ("sum", 1.5), ("sum", -1)])
def test_an_accumulator_of_another_kind(kind: str, every: Any) -> None:
    """sum, min or max; published at multiples of at least a tick."""
    with pytest.raises(ModelError):
        Model("m").accumulator("x", kind, every)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": -1}, OperatorError),
        ({"seed": 2**64}, OperatorError),
        ({"seed": 1.0}, OperatorError),
        ({"seed": True}, OperatorError),
        ({"lookahead": -1}, ModelError),
        ({"lookahead": 0.1}, ModelError),
        ({"trace_interval": 0}, ModelError),
        ({"params": (1, 2)}, ModelError),
        ({"params": Params(float("nan"), 1)}, ModelError),
        ({"params": Params(float("inf"), 1)}, ModelError),
        ({"params": Params(0.5, 2**63)}, RangeError),
        ({"params": Params(0.5, 0.5)}, RangeError),
        ({"params": Ping}, ModelError),
    ],
)
def test_an_argument_of_a_model_that_breaks_a_rule(arguments: dict[str, Any], error: type[Exception]) -> None:
    """Refused at once."""
    with pytest.raises(error) as caught:
        Model("m", **arguments)
    assert isinstance(caught.value, TidewarpError)
    assert caught.value.value
    assert caught.value.rule
    assert caught.value.action


def test_params_are_single_numbers() -> None:
    """Arrays are tables."""

    class WithArray(NamedTuple):
        a: Array[i64, 2]

    WithArray.__annotations__["a"] = Array[i64, 2]
    with pytest.raises(ModelError, match="put arrays into a table"):
        Model("m", WithArray([1, 2]))


def test_a_model_is_closed_by_its_first_use() -> None:
    """An engine has counted on it."""
    model = Model("m")
    model.add(Node, 2, path="a")
    model.digest()
    for change in (
        lambda: model.add(Node, 1, path="b"),
        lambda: model.link(0, 1, 0),
        lambda: model.table("t", [1]),
        lambda: model.accumulator("x"),
        lambda: model.input("x"),
    ):
        with pytest.raises(ModelError, match="a model is closed"):
            change()


# --- classes ------------------------------------------------------------------------------------------


def test_one_handler_takes_a_message() -> None:
    """Two methods for one class: nobody could say which runs."""

    class Twice(Node):
        @on(Ping)
        def other(self, now: int, ping: Ping, ctx: Context) -> None: ...

    with pytest.raises(ModelError, match="Twice: ping, other: one handler takes Ping"):
        Model("m").add(Twice, 1, path="a")


def test_a_subclass_overrides_by_name() -> None:
    """As with any method of Python."""

    class Other(Node):
        @on(Ping)
        def ping(self, now: int, ping: Ping, ctx: Context) -> None: ...

    assert handlers_of(Other) == {Ping: vars(Other)["ping"]}
    assert [method.__qualname__ for method in methods_of(Other)] == [Other.ping.__qualname__]
    assert form_of_lp(Other).names == ("hits", "cells")


class NotTyped(NamedTuple):
    n: int


@pytest.mark.parametrize("message", [int, tuple, NotTyped, dict, 5])
def test_a_message_is_a_named_tuple_of_kinds(message: Any) -> None:
    """Refused with the class that handles it."""

    class Handles(LogicalProcess):
        @on(message)
        def take(self, now: int, given: Any, ctx: Context) -> None: ...

    with pytest.raises(ModelError):
        Model("m").add(Handles, 1, path="a")


@pytest.mark.parametrize(
    "policy", ["", "none", "periodic", "periodic:", "periodic:0", "periodic:10001", "periodic:x", "copy:3", "delta:1"]
)
def test_a_saving_policy_that_is_none(policy: str) -> None:
    """Refused by the class statement."""
    with pytest.raises(ModelError, match="saving"):

        class Bad(LogicalProcess, saving=policy): ...


def test_saving_by_reverse_needs_all_inverses() -> None:
    """Or one event could not be taken back."""

    class Half(LogicalProcess, saving="reverse"):
        n: i64

        @on(Ping)
        def up(self, now: int, ping: Ping, ctx: Context) -> None: ...

        @reverse(Ping)
        def down(self, now: int, ping: Ping, undo: Any) -> None: ...

        @on(Pong)
        def pong(self, now: int, pong: Pong, ctx: Context) -> None: ...

    class Lonely(LogicalProcess):
        @reverse(Ping)
        def down(self, now: int, ping: Ping, undo: Any) -> None: ...

    with pytest.raises(ModelError, match="no reverse handler of Pong"):
        Model("m").add(Half, 1, path="a")
    with pytest.raises(ModelError, match="belongs to a handler"):
        Model("m").add(Lonely, 1, path="a")


def test_saving_by_hand_needs_both_methods() -> None:
    """``save`` and ``load``."""

    class Saves(LogicalProcess, saving="custom"):
        def save(self) -> object: ...

    with pytest.raises(ModelError, match=r"save\(self\) and load\(self, saved\)"):
        Model("m").add(Saves, 1, path="a")


class Swaps(Node):
    @on(Pong)
    def pong(self, now: int, pong: Pong, ctx: Context) -> None:
        other = self.cells
        other[0] = pong.n
        self.cells[1] += 1
        self.hits, self.cells = 5, other


def test_an_array_field_is_not_replaced() -> None:
    """Interpreted, two fields would share a list, which no engine could undo; places are changed."""
    with pytest.raises(
        ModelError, match=r"Swaps\.pong assigns to self\.cells: an array field is changed place by place"
    ):
        Model("m").add(Swaps, 1, path="a")


# --- the digest ---------------------------------------------------------------------------------------

SOURCE = '''
"""A model in a file."""
from __future__ import annotations
from enum import IntEnum
from typing import NamedTuple
from tidewarp.kernel import Array, Context, LogicalProcess, Model, i64, function, on, u64

STEP = 3
WEIGHTS = (1, 2)

class Mode(IntEnum):
    UP = 1
    DOWN = 2

class Token(NamedTuple):
    n: i64

class Params(NamedTuple):
    rate: i64

@function
def inner(x):
    return x + 1

@function
def outer(x):
    """Calls another."""
    return inner(x) * STEP

class Node(LogicalProcess):
    """An LP."""
    LIMIT = 9
    hits: i64
    text: u64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 5, Token(0))

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context, bonus: int = 1) -> None:
        """Counts."""
        # a comment
        self.hits += outer(token.n) + bonus
        if self.hits > self.LIMIT:
            self.help(Mode.UP)
        shown = f"{self.hits:>{4}} of {now!r}"
        ctx.send(ctx.lp, 1, Token(self.hits + WEIGHTS[0] + len(shown)))

    def help(self, n):
        self.hits = n

def build():
    model = Model("m", Params(7), lookahead=2, seed=3)
    model.add(Node, 3, path="node", init={"hits": 1})
    model.link(0, [1, 2], lookahead=4)
    model.table("t", [1, 2, 3])
    model.accumulator("a")
    model.input("x")
    return model
'''

NUMBERS = itertools.count()


def digest_of(source: str, folder: Path) -> str:
    path = folder / f"model_{next(NUMBERS)}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # annotations are resolved by the name of their module
    try:
        spec.loader.exec_module(module)
        digest: str = module.build().digest()
    finally:
        del sys.modules[path.stem]
    return digest


def replaced(old: str, new: str) -> str:
    assert SOURCE.count(old) == 1, old
    return SOURCE.replace(old, new)


SAME = {
    "a comment": replaced("# a comment", "# another  comment"),
    "no comment": replaced("        # a comment\n", ""),
    "a docstring": replaced('"""Counts."""', '"""Counts\n\n        on two lines."""'),
    "no docstring": replaced('        """Counts."""\n', ""),
    "a docstring of a function": replaced('"""Calls another."""', "'Calls.'"),
    "a docstring of a class": replaced('"""An LP."""', '"""Another text."""'),
    "layout": replaced(
        "self.hits += outer(token.n) + bonus", "self.hits += (outer(token.n)\n            + bonus)"
    ).replace("(outer(token.n)\n            + bonus)", "outer(token . n)  +  bonus"),
    "line breaks": replaced(
        "ctx.send(ctx.lp, 5, Token(0))", "ctx.send(\n            ctx.lp,\n            5, Token(0))"
    ),
    "indentation": replaced("            self.help(Mode.UP)", "              self.help(Mode.UP)"),
    "blank lines": replaced("    def start", "\n\n\n    def start"),
    "place in the file": "\n\n# first\n" + SOURCE,
    "something else in the file": SOURCE + "\nOTHER = 5\n\ndef unused():\n    return OTHER\n",
    "another seed": replaced("seed=3", "seed=4"),
}

OTHER = {
    "name": replaced('Model("m"', 'Model("n"'),
    "an operator": replaced("self.hits += outer", "self.hits -= outer"),
    "a number in a handler": replaced("ctx.send(ctx.lp, 1,", "ctx.send(ctx.lp, 2,"),
    "a number in start": replaced("ctx.send(ctx.lp, 5,", "ctx.send(ctx.lp, 6,"),
    "a function": replaced("return inner(x) * STEP", "return inner(x) * STEP + 1"),
    "a function of a function": replaced("return x + 1", "return x + 2"),
    "a constant": replaced("STEP = 3", "STEP = 4"),
    "a tuple": replaced("WEIGHTS = (1, 2)", "WEIGHTS = (1, 3)"),
    "an enumeration": replaced("UP = 1", "UP = 5"),
    "a constant of the class": replaced("LIMIT = 9", "LIMIT = 8"),
    "a default": replaced("bonus: int = 1", "bonus: int = 2"),
    "a helper of the Python tier": replaced("self.hits = n", "self.hits = n + 1"),
    "what is nested": replaced("            self.help(Mode.UP)\n", "            pass\n        self.help(Mode.UP)\n"),
    "an f-string": replaced("!r}", "!s}"),
    "a field": replaced("    text: u64", "    texts: u64"),
    "a kind": replaced("    text: u64", "    text: i64"),
    "a shape": replaced("    text: u64", "    text: Array[u64, 2]"),
    "order of fields": replaced("    hits: i64\n    text: u64", "    text: u64\n    hits: i64"),
    "a message": replaced("class Token(NamedTuple):\n    n: i64", "class Token(NamedTuple):\n    n: u64"),
    "speculation": replaced("class Node(LogicalProcess)", "class Node(LogicalProcess, speculative=False)"),
    "a parameter": replaced("Params(7)", "Params(8)"),
    "the lookahead": replaced("lookahead=2", "lookahead=1"),
    "the blocks of the trace": replaced("seed=3", "seed=3, trace_interval=5"),
    "the number of LPs": replaced("Node, 3", "Node, 4"),
    "a path": replaced('path="node"', 'path="nodes"'),
    "a start value": replaced('"hits": 1', '"hits": 2'),
    "a link": replaced("[1, 2], lookahead", "[1], lookahead"),
    "order of links": replaced("[1, 2], lookahead", "[2, 1], lookahead"),
    "a link's lookahead": replaced("lookahead=4", "lookahead=5"),
    "a table": replaced("[1, 2, 3])", "[1, 2, 4])"),
    "a table's kind": replaced("[1, 2, 3])", "[1.0, 2, 3])"),
    "a table's shape": replaced("[1, 2, 3])", "[[1, 2, 3]])"),
    "a table's name": replaced('table("t"', 'table("u"'),
    "an accumulator": replaced('accumulator("a")', 'accumulator("b")'),
    "an accumulator's kind": replaced('accumulator("a")', 'accumulator("a", "min")'),
    "publication": replaced('accumulator("a")', 'accumulator("a", publish_every=5)'),
    "an input": replaced('input("x")', 'input("y")'),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest_of(SOURCE, tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize("change", SAME)
def test_the_digest_does_not_see(change: str, original: str, tmp_path: Path) -> None:
    """Comments, docstrings, layout, what no handler reads, and the seed, which is named beside it."""
    assert digest_of(SAME[change], tmp_path) == original


@pytest.mark.parametrize("change", OTHER)
def test_the_digest_sees(change: str, original: str, tmp_path: Path) -> None:
    """Whatever can change a run."""
    assert digest_of(OTHER[change], tmp_path) != original


def test_all_changes_have_digests_of_their_own(tmp_path: Path) -> None:
    """Two different changes are two different models."""
    digests = [digest_of(text, tmp_path) for text in OTHER.values()]
    assert len(set(digests)) == len(digests)


def test_the_digest_of_this_model_never_changes(original: str) -> None:
    """Golden: a journal written by an older release names its model by it. Another value here is a break of the format."""
    assert original == "83762507545c25bc4db10e187dc4976dbb1d3300ca384094c5d73ba05e2898cd"


def test_two_functions_may_read_constants_of_one_name(tmp_path: Path) -> None:
    """Each of its own module: both values count."""
    other = tmp_path / "reads_step.py"
    digests = []
    for step in (1, 2):
        other.write_text(
            f"from tidewarp.kernel import function\nSTEP = {step}\n\n@function\ndef far(x):\n    return x + STEP\n"
        )
        near = SOURCE.replace(
            "from enum",
            f"import importlib.util as u\nspec = u.spec_from_file_location('far', {str(other)!r})\n"
            "module = u.module_from_spec(spec)\nspec.loader.exec_module(module)\nfar = module.far\nfrom enum",
        ).replace("return x + 1", "return far(x)")
        digests.append(digest_of(near, tmp_path))
        other.unlink()
        for cached in tmp_path.glob("__pycache__/*"):
            cached.unlink()
    assert digests[0] != digests[1]


def test_a_handler_without_source_is_refused() -> None:
    """The digest is over it."""
    names: dict[str, Any] = {"on": on, "Ping": Ping, "LogicalProcess": LogicalProcess}
    exec("class Node(LogicalProcess):\n @on(Ping)\n def take(self, now, ping, ctx): pass\n", names)
    model = Model("m")
    model.add(names["Node"], 1, path="a")
    with pytest.raises(ModelError, match="define it in a file"):
        model.digest()


# --- messages -----------------------------------------------------------------------------------------


def test_messages_are_numbered_by_handlers_then_by_the_list_then_by_what_handlers_name() -> None:
    """The number of a message class is part of every record."""

    class Listed(NamedTuple):
        n: i64

    Listed.__annotations__["n"] = i64
    model = Model("m", messages=[Listed, Ping])
    model.add(Names, 1, path="a")
    model.freeze()
    assert model.messages == [Ping, Listed, Pong, Published]
    assert [model.message_index[message] for message in model.messages] == [0, 1, 2, 3]


@function
def names_a_message() -> Published:
    return Published(0, 0)


class Names(LogicalProcess):
    @on(Ping)
    def take(self, now: int, ping: Ping, ctx: Context) -> None:
        if now:
            ctx.send(ctx.lp, 1, Pong(1))
        else:
            ctx.emit(names_a_message())


class Blob(NamedTuple):
    data: Bytes


def test_a_form_of_variable_length_is_marked() -> None:
    """The compiled tier asks."""

    class Keeps(LogicalProcess):
        data: Bytes

        @on(Blob)
        def take(self, now: int, blob: Blob, ctx: Context) -> None: ...

    Keeps.__annotations__["data"] = Bytes
    assert not form_of_lp(Keeps).fixed
    assert form_of_lp(Node).fixed


def closing_over(step: int) -> type[LogicalProcess]:
    class Closed(LogicalProcess):
        n: i64

        @on(Ping)
        def receive(self, now: int, ping: Ping, ctx: Context) -> None:
            self.n += step

    return Closed


def test_each_handler_has_its_own_constants_in_the_digest() -> None:
    """Two classes that swap the values that they close over are another model."""

    def digest(*steps: int) -> str:
        model = Model("closed")
        for place, step in enumerate(steps):
            model.add(closing_over(step), 1, path=f"lp{place}")
        return model.digest()

    assert digest(1, 2) == digest(1, 2)
    assert digest(1, 2) != digest(2, 1)


def test_a_global_of_the_name_of_a_field_is_not_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute is no name from outside."""

    def digest() -> str:
        model = Model("closed")
        model.add(closing_over(1), 1, path="lp")
        return model.digest()

    before = digest()
    monkeypatch.setitem(globals(), "n", 5)
    assert digest() == before


def test_params_become_plain_numbers() -> None:
    """A NumPy number would wrap around where Python's do not."""
    params = Model("plain", Params(*(np.int8(100) for _ in Params._fields))).params
    assert all(type(value) in (int, float) for value in params)
