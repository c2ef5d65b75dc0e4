"""Handlers made at random: the compiled tier refuses them, or computes what the Python tier computes."""

from __future__ import annotations

import pytest
from generated_handlers import Do, inputs, model_of, snippets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tidewarp.errors import NotCompilable, TidewarpError
from tidewarp.kernel.shell.compiled import load_kernel


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")
    load_kernel("sequential")  # by way of the cache


def compiled(texts):
    """The model of those snippets that compile, its handler, and the snippets."""
    from tidewarp.kernel.compiled.dispatch import in_memory

    texts = list(texts)
    while True:
        model, places = model_of(texts)
        try:
            return model, in_memory(model), texts
        except NotCompilable as error:
            texts.pop(places[int(error.value.split(">:")[1].split(":")[0])])


class Both:
    """One LP in both tiers."""

    def __init__(self, model, handler):
        from tidewarp.kernel.compiled.image import Memory
        from tidewarp.kernel.compiled.replay import Tried
        from tidewarp.kernel.objects import Objects, initial_image

        image = initial_image(model)
        self.python = Objects(model, image)
        self.compiled = Tried(model, image, Memory(model), handler)

    def started(self, message):
        """The state that a test begins with: the numbers of the message."""
        event = (1, 0, 0, -(2**31), 0, message._replace(which=-1))
        self.python.set_row(0, self.first)
        self.python.execute(event)
        return self.python.row(0)

    def results(self, row, message):
        """(row or error of Python, row or code of the compiled handler)."""
        event = (5, 0, 0, -(2**31), 1, message)
        for objects in (self.python, self.compiled):
            objects.set_row(0, row)
        code = self.compiled._try(event)
        if code:
            return None, code  # Python's numbers have no end: it may fill all memory with one
        got = self.compiled._memory.row_bytes(self.compiled._rows, 0)
        try:
            self.python.execute(event)
            return self.python.row(0), got
        except TidewarpError as error:
            return error, got


def check(texts, messages):
    """Every snippet with every message, in both tiers; how many pairs both computed."""
    model, handler, texts = compiled(texts)
    both = Both(model, handler)
    both.first = both.python.row(0)
    agreed = 0
    for number, text in enumerate(texts):
        for message in messages:
            told = message._replace(which=number)
            row = both.started(told)
            python, got = both.results(row, told)
            if isinstance(got, int):
                continue  # refused while running
            shown = f"{text}\n  with {told}"
            assert not isinstance(python, TidewarpError), f"{shown}\n  compiled goes on, Python says {python}"
            assert python == got, f"{shown}\n  Python has {both.python.fields(0)}"
            agreed += 1
    return agreed, len(texts)


CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
SCRIPTS = st.lists(snippets(), min_size=20, max_size=20)
MESSAGES = st.lists(inputs, min_size=30, max_size=30)


@given(texts=SCRIPTS, messages=MESSAGES)
@settings(max_examples=3, phases=[Phase.explicit, Phase.generate], suppress_health_check=CALM)
def test_generated_handlers_agree_or_are_refused(texts, messages):
    """Operators, functions, branches, loops and fields of all kinds, at the edges of their kinds."""
    check(texts, messages)


@pytest.mark.nightly
@given(texts=SCRIPTS, messages=MESSAGES)
@settings(max_examples=300, phases=[Phase.explicit, Phase.generate], suppress_health_check=CALM)
def test_many_generated_handlers_agree_or_are_refused(texts, messages):
    """The same for six thousand snippets."""
    check(texts, messages)


def test_most_generated_handlers_compile_and_agree():
    """A tier that refused everything would pass the others."""
    texts = ["self.i = do.a // 7", "self.x = do.x * 2", "self.flag = do.a < do.x", "self.w = u64_add(do.w, do.a)"]
    messages = [Do(0, a, 3, 5, float(a), 1.5, flag=True) for a in range(-4, 4)]
    assert check(texts, messages) == (32, 4)
