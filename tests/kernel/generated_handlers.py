"""Handlers made at random: expressions of every type over numbers at the edges of their kinds, and a model that evaluates them."""

from __future__ import annotations

import linecache
import math
from typing import NamedTuple

from hypothesis import strategies as st

from tidewarp import kernel
from tidewarp.kernel import Model, b1, f64, function, i64, u64

__all__ = ["Do", "inputs", "model_of", "snippets"]

EDGES = [0, 1, 2, 3, 7, 63, 64, 127, 128, 255, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1]
WHOLE = st.one_of(st.sampled_from(EDGES), st.sampled_from(EDGES).map(lambda n: -n), st.integers(-9, 9))
LONG = st.one_of(st.sampled_from([*EDGES, 2**63, 2**63 + 1, 2**64 - 1]), st.integers(0, 9))
FLOATS = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 1e-300, 5e-324, 2.0**53, 2.0**53 + 2, 2.0**63, 2.0**64, 1e300, 1.7e308, 1 / 3]
REAL = st.one_of(
    st.sampled_from([*FLOATS, math.nan, math.inf]), st.sampled_from(FLOATS).map(lambda x: -x), st.floats(-9, 9)
)


class Do(NamedTuple):
    which: i64
    a: i64
    b: i64
    w: u64
    x: f64
    y: f64
    flag: b1


@function
def either(flag, a, b):
    """One of two of one type."""
    if flag:
        return a
    return b


@function
def halved(n):
    """Until it is small."""
    steps = 0
    while abs(n) > 3 and steps < 5:
        n //= 2
        steps += 1
    else:
        n += steps
    return n


CLASS = """
class Handler(LogicalProcess):
    i: i64
    w: u64
    x: f64
    tiny: i8
    pair: u16
    flag: b1
    ring: Array[i64, 4]
    reals: Array[f64, 3]
    words: Array[u64, 2]

    @on(Do)
    def do(self, now, do, ctx):
        if do.which < 0:
            self.i = do.a
            self.w = do.w
            self.x = do.x
            self.flag = do.flag
"""

LEAVES = {
    "i": ["do.a", "do.b", "self.i", "self.tiny", "self.pair", "self.ring[1]", "now"],
    "w": ["do.w", "self.w", "self.words[0]", "mix64(do.a)"],
    "f": ["do.x", "do.y", "self.x", "self.reals[2]"],
    "b": ["do.flag", "self.flag", "True", "False"],
}
SHAPES = {
    "i": [
        "{i} + {i}", "{i} - {i}", "{i} * {i}", "{i} // {i}", "{i} % {i}", "{i} & {i}", "{i} | {i}", "{i} ^ {i}", "{i} << {i}",
        "{i} >> {i}", "-{i}", "~{i}", "abs({i})", "int({f})", "round({f})", "math.floor({f})", "math.ceil({f})", "math.trunc({f})",
        "min({i}, {i})", "max({i}, {i}, {i})", "{i} ** 3", "2 ** {i}", "{i} if {b} else {i}", "wrap_i64({w})", "{b} + {i}",
        "{i} - {w}", "{w} - {w}", "self.ring[{i}]", "self.ring[{i} % 4]", "halved({i})", "either({b}, {i}, {i})", "{b} + {b}",
        "int({b})", "-{b}", "{i} and {i}", "{i} or {i}", "round({i})", "math.floor({i})", "(1, {i}, 3)[{i} % 3]", "max({b}, {i})",
        "{i} % {w}", "{w} // {i}", "int({w})", "ctx.below({i})", "ctx.exponential({i})",
    ],
    "w": [
        "u64_add({w}, {i})", "u64_mul({w}, {w})", "u64_div({w}, {w})", "u64_mod({w}, {w})", "{w} + {w}", "{w} * {w}", "{w} ^ {w}",
        "{w} & {w}", "{w} | {w}", "{w} >> {i}", "{w} << {i}", "{w} // {w}", "{w} % {w}", "min({w}, {w})", "max({w}, {w})",
        "{w} if {b} else {w}", "mix64({i})", "abs({w})", "{w} + {i}", "{w} * {i}", "{w} ** 2", "max({i}, {w})", "{w} ^ {i}",
    ],
    "f": [
        "{f} + {f}", "{f} - {f}", "{f} * {f}", "{f} / {f}", "{f} // {f}", "{f} % {f}", "{f} + {i}", "{i} - {f}", "{f} * {i}", "{f} / {i}",
        "{i} / {i}", "{w} / {i}", "{f} // {i}", "{i} % {f}", "{f} * {w}", "-{f}", "+{f}", "abs({f})", "float({i})", "float({w})", "float({b})",
        "math.sqrt({f})", "math.fabs({f})", "math.copysign({f}, {i})", "min({f}, {f})", "max({f}, {f})", "{f} if {b} else {f}",
        "either({b}, {f}, {f})", "{f} + {b}", "{f} and {f}", "self.reals[{i} % 3]", "math.sqrt({i})", "ctx.random()",
    ],
    "b": [
        "{i} < {i}", "{i} <= {f}", "{f} > {i}", "{f} == {i}", "{i} != {f}", "{w} == {i}", "{i} < {w}", "{w} >= {f}", "{f} < {w}", "{w} > {w}",
        "{f} < {f}", "{f} == {f}", "{f} != {f}", "{b} == {b}", "{b} < {i}", "{b} == {f}", "not {b}", "not {i}", "not {f}", "{b} and {b}",
        "{b} or {b}", "{i} < {f} <= {i}", "{b} & {b}", "{b} | {b}", "{b} ^ {b}", "math.isnan({f})", "math.isinf({f})", "math.isfinite({f})",
        "{i} in (0, 1, -9)", "{w} not in (3, 4)", "bool({f})", "bool({i})", "0 <= {w} < 9007199254740993", "{f} == {w}",
    ],
}  # fmt: skip
STATEMENTS = [
    "self.i = {i}", "self.w = {w}", "self.x = {f}", "self.x = {i}", "self.x = {w}", "self.flag = {b}", "self.tiny = {i}", "self.pair = {i}",
    "self.i += {i}", "self.i -= {i}", "self.i *= {i}", "self.i //= {i}", "self.i %= {i}", "self.w += {i}", "self.w -= {i}", "self.w ^= {w}",
    "self.w >>= {i}", "self.x += {f}", "self.x /= {f}", "self.x //= {f}", "self.x %= {f}", "self.x -= {i}", "self.i = {w}", "self.w = {i}",
    "self.ring[{i}] = {i}", "self.ring[{i} % 4] += {i}", "self.reals[{i} % 3] = {i}", "self.reals[{i}] = {f}", "self.words[{b}+0] = {w}",
    "self.ring[{i} % 4] = ctx.below(7)", "self.i, self.x = {i}, {f}", "self.i = {b}", "self.x = {b}",
    "v = {i}\nif {b}:\n    v = {i}\nself.i = v", "v = {f}\nif {b}:\n    v = {f}\nself.x = v", "v = {i}\nif {b}:\n    v = {f}\nself.x = v",
    "v = {w}\nif {b}:\n    v = {i}\nself.i = wrap_i64(v)", "if {b}:\n    v = {i}\nself.i = v", "v = {b}\nif {b}:\n    v = {i}\nself.i = v",
    "v = {i}\nfor k in range({i} % 5):\n    v = (v ^ k) + {i} % 7\nself.i = v", "v = {f}\nfor k in range(-3, 4, 2):\n    v += k * {f}\nself.x = v",
    "v = 0\nfor k in range({i}, {i}, 2**61):\n    v += 1\nself.i = v", "v = 0\nwhile v < 9 and {b}:\n    v += 1 + {i} % 3\nelse:\n    v += 1\nself.i = v",
    "for v in self.ring:\n    self.i ^= v\nself.x = {f}", "k = 5\nfor k in range(3):\n    if {b}:\n        break\nself.i = k", "assert {b}\nself.i = 1",
    "a, b = {i}, {f}\nself.i = a\nself.x = b", "if {b}:\n    raise ValueError\nself.i = {i}", "ctx.note({i})\nself.i = {i}", "ctx.note({w})\nself.i = 1",
    "v = {i} if {b} else {f}\nself.x = v", "for n, v in enumerate(self.reals):\n    self.x += v * n", "if {f}:\n    self.i = {i}\nelif {i}:\n    self.x = {f}",
]  # fmt: skip


def _constant(kind, draw):
    if kind == "f":
        value = draw(st.sampled_from(FLOATS))
        return f"({value!r})"
    return str({"b": True}.get(kind) or (draw(LONG) if kind == "w" and draw(st.booleans()) else f"({draw(WHOLE)})"))


def _expression(draw, kind, depth):
    if draw(st.integers(0, 60)) == 0:
        kind = draw(st.sampled_from("iwfb"))  # mostly refused: the wrong type
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        if kind in "if" and draw(st.integers(0, 3)) == 0:
            return _constant(kind, draw)
        return draw(st.sampled_from(LEAVES[kind]))
    return f"({_filled(draw, draw(st.sampled_from(SHAPES[kind])), depth - 1)})"


def _filled(draw, shape, depth):
    for kind in "iwfb":
        while "{" + kind + "}" in shape:
            shape = shape.replace("{" + kind + "}", _expression(draw, kind, depth), 1)
    return shape


@st.composite
def snippets(draw):
    """A few statements."""
    return _filled(draw, draw(st.sampled_from(STATEMENTS)), draw(st.sampled_from([1, 1, 2])))


inputs = st.builds(Do, st.just(0), WHOLE, WHOLE, LONG, REAL, REAL, st.booleans())


def model_of(texts):
    """A model whose handler runs the snippet that it is told, and the snippet of each line."""
    lines, places = CLASS.splitlines(), {}
    for number, text in enumerate(texts):
        lines.append(f"        elif do.which == {number}:")
        for line in text.splitlines():
            lines.append(f"            {line}")
            places[len(lines)] = number
    source = "\n".join(lines) + "\n"
    name = f"<generated {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {**{name: getattr(kernel, name) for name in kernel.__all__}, **globals()}
    exec(compile(source, name, "exec", dont_inherit=True), names)
    names["Handler"].__module__ = __name__
    model = Model("generated", seed=7)
    model.add(
        names["Handler"],
        1,
        path="one",
        init={"ring": [1, -2, 3, 2**53 + 1], "reals": [0.5, -0.0, 3.25], "words": [3, 2**63]},
    )
    model.input("told")
    return model, places
