"""The thread that watches compiled handlers: it lets signals be heard and ends a process whose handler does not end."""

from __future__ import annotations

import numpy as np

from tidewarp.kernel.compiled.layout import BEAT, BLOCK_WORDS, GENERATION, LP, NOW, PAUSE, SEQ, SRC
from tidewarp.kernel.shell.watchdog import Watchdog
from tidewarp.testing import ManualClock
from tidewarp.worlds.phold import phold


def watched(clock):
    """A watchdog that notes what it would say, and a block of a handler."""
    said = []
    block = np.zeros(BLOCK_WORDS, np.int64)
    block[[NOW, LP, GENERATION, SRC, SEQ]] = 70, 2, 0, 1, -1
    return Watchdog(clock, said.append), block, said


def test_a_handler_that_stands_still_is_named():
    """With its path, its key and what to do; not before its time is over."""
    clock = ManualClock()
    dog, block, said = watched(clock)
    watch = dog.watch(phold(lps=4), [block], 60.0)
    block[BEAT] = 5
    for _ in range(3):
        dog.look()
        clock.advance(29.0)
    assert said == []
    dog.look()
    assert len(said) == 1
    assert said[0].startswith(
        "error: process.2 at (70, 0, 2, 1, 18446744073709551615): its handler has been running for 87 s"
    )
    dog.forget(watch)


def test_an_engine_that_waits_or_goes_on_is_left_alone():
    """An even beat is no handler; a beat that changes is another one."""
    clock = ManualClock()
    dog, block, said = watched(clock)
    dog.watch(phold(lps=4), [block], 60.0)
    for beat in (4, 4, 5, 7, 9, 9):
        block[BEAT] = beat
        clock.advance(50.0)
        dog.look()
    assert said == []
    assert block[PAUSE] == 1
