"""What the compiled tier refuses, with the file, the line, the construct and the rule."""

from __future__ import annotations

import linecache
import math  # noqa: F401  a handler names it
from typing import NamedTuple

import pytest

from tidewarp import kernel
from tidewarp.errors import NotCompilable
from tidewarp.kernel import Array, Bytes, LogicalProcess, Model, b1, function, i64, run


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


class Tick(NamedTuple):
    n: i64


def unmarked(x):
    """Nobody said @function."""
    return x


@function
def endless(x):
    """It calls itself."""
    return endless(x - 1) if x else 0


@function
def mixed(x):
    """A whole number on one path, a float on the other."""
    if x > 3:
        return 1
    return 0.5


class Pair(NamedTuple):
    a: i64
    b: i64
    row: Array[i64, 2] = (1, 2)


TABLE = [1, 2, 3]
CONSTRUCTS = {
    "self.helper()": ("self.helper()", "write a @function"),
    "a dict": ("x = {1: 2}", "no dicts"),
    "a set": ("x = {1, 2}", "no sets"),
    "text": ("x = 'word'", "no text"),
    "an f-string": ("x = f'{now}'", "no text"),
    "a list": ("x = [1, 2]", "make no lists"),
    "a list that grows": ("self.line.append(1)", "compiled handlers call ctx"),
    "a comprehension": ("x = [k for k in range(3)]", "make no lists"),
    "a generator": ("x = sum(k for k in range(3))", "have no generators"),
    "a closure": ("f = lambda: 1", "define no functions"),
    "a slice": ("x = self.line[1:3]", "write a loop"),
    "try": ("try:\n            x = 1\n        except ValueError:\n            x = 2", "do not catch"),
    "with": ("with ctx:\n            pass", "no context managers"),
    "a value returned": ("return 3", "returns nothing"),
    "an undeclared field": ("self.other = 1", "only fields of self"),
    "a field that is not there": ("x = self.other", "no such field"),
    "a float into i64": ("self.hits = 0.5", "write int"),
    "a number into a flag": ("self.flag = 1", "True or False"),
    "self handed on": ("x = mix64(self)", "not handed on"),
    "a list from outside": ("x = TABLE[0]", "put arrays into model.table"),
    "a function that nobody marked": ("x = unmarked(1)", "mark it @function"),
    "recursion": ("x = endless(3)", "do not call themselves"),
    "a method of a value": ("x = now.bit_length()", "no methods of values"),
    "a builtin": ("x = sorted(self.line)", "of the builtins"),
    "too long a number": ("x = 2**64", "at most 64 bits"),
    "u64 here and i64 there": (
        "x = 0\n        if now > 3:\n            x = mix64(now)\n        self.word = x",
        "u64 on one way|write int",
    ),
    "no such table": ("x = ctx.table('none')[0]", "the model's tables are"),
    "no such accumulator": ("ctx.add('none')", "the model's accumulators are"),
    "a name that is computed": ("ctx.add(now)", "is written out"),
    "a float as destination": ("ctx.send(0.5, 1, Pair(1, 2))", "it is a whole number"),
    "min of a float and a whole number": ("x = min(0.5, now)", "keeps the type"),
    "int here and float there": (
        "x = 0\n        if now > 3:\n            x = 0.5\n        self.hits = int(x)",
        "write 0.0",
    ),
    "a loop that makes a float": ("x = 0\n        for k in range(now):\n            x += 0.5", "write 0.0"),
    "an expression of two types": ("x = 1 if now else 2.5", "write 1.0"),
    "and of two types": ("x = now and 2.5", "where the ways meet"),
    "a tuple of other types": (
        "x = (1, 2)\n        if now > 3:\n            x = (1, 0.5)\n        self.hits = int(x[0])",
        "where the ways meet",
    ),
    "a function of two types": ("self.hits = int(mixed(now))", "write 1.0"),
    "None here": (
        "x = None\n        if now > 3:\n            x = 3\n        self.hits = x",
        "Optional",
    ),
    "unset on one path": ("if now > 3:\n            x = 1\n        self.hits = x", "x has no value"),
    "set on another path": (
        "if now > 3:\n            x = 1\n        elif now > 2:\n            self.hits = x",
        "x has no value",
    ),
    "a loop's variable after it": ("for k in range(now):\n            pass\n        self.hits = k", "k has no value"),
    "a message's array changed": ("row = pair.row\n        row[0] = 1", "keep theirs"),
    "a message's array changed at once": ("pair.row[0] = 1", "only array fields"),
    "an array's attribute": ("self.hits = self.line.size", "have no attributes"),
    "a number's attribute": ("self.hits = now.real", "have no attributes"),
    "a tuple as index": ("self.hits = self.line[0, ]", r"array\[i\]"),
    "a flag as index": ("self.hits = self.line[now > 3]", r"array\[i\]"),
    "an array as condition": ("if self.line:\n            self.hits = 1", "a condition is a number"),
    "arrays compared": ("self.flag = self.line == self.line", "compare numbers"),
    "identity": ("self.flag = now is True", "compare numbers"),
    "in an array": ("self.flag = now in self.line", "tuple of constants"),
    "a float in a tuple": ("self.flag = 0.5 in (1, 2)", "whole numbers are looked for"),
    "a chain that draws": ("self.flag = 0 < ctx.below(5) < 3", "into a variable first"),
    "an assignment inside": ("self.hits = (x := 3)", "statements of their own"),
    "a power of floats": ("x = float(now) ** 2", "libm's own"),
    "a sine": ("x = math.sin(0.5)", "differ between machines"),
    "fields in another order": ("ctx.send(0, 1, Pair(b=ctx.below(3), a=ctx.below(3)))", "declared order"),
}
SOURCE = """
class Handler(LogicalProcess):
    hits: i64
    word: u64
    flag: b1
    line: Array[i64, 4]

    @on(Pair)
    def take(self, now, pair, ctx):
        {body}
"""


def model_of(body):
    """A model whose handler's source is this text; linecache shows it to whoever asks for source."""
    text = SOURCE.format(body=body)
    name = f"<handler {abs(hash(body))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names = {**vars(kernel), **{name: getattr(kernel, name) for name in kernel.__all__}, **globals()}
    exec(compile(text, name, "exec", dont_inherit=True), names)
    model = Model("refused")
    names["Handler"].__module__ = __name__
    model.add(names["Handler"], 1, path="one")
    return model, name


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_a_construct_is_refused_by_place_and_rule(construct):
    """The line is the handler's own, and the rule says what to write."""
    body, rule = CONSTRUCTS[construct]
    model, name = model_of(body)
    with pytest.raises(NotCompilable, match=rule) as caught:
        run(model, 10, tier="compiled")
    if construct in ("recursion", "a function of two types"):  # its place is in the function
        assert __file__ in caught.value.value
        return
    assert caught.value.value.startswith(f"{name}:")
    assert int(caught.value.value.removeprefix(f"{name}:").split(":")[0]) in range(9, 14)


class Keeper(LogicalProcess):
    kept: Bytes


class Flags(LogicalProcess):
    flags: Array[b1, 4]


class Undone(LogicalProcess, saving="undo"):
    hits: i64


@pytest.mark.parametrize(("cls", "rule"), [(Keeper, "fixed length"), (Flags, "use u8"), (Undone, "Python tier")])
def test_a_class_is_refused(cls, rule):
    """Rows have one length and are copied as words."""
    model = Model("refused")
    model.add(cls, 1, path="one")
    with pytest.raises(NotCompilable, match=rule):
        run(model, 10, tier="compiled")


def test_auto_falls_back_in_silence():
    """What does not compile runs in the Python tier."""
    model, _ = model_of("x = {1: 2}")
    assert run(model, 10).committed == 0
