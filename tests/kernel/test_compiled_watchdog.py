"""The thread that watches compiled handlers: it lets signals be heard and ends a process whose handler does not end."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tidewarp.kernel.compiled.layout import BEAT, BLOCK_WORDS, GENERATION, LP, NOW, PAUSE, SEQ, SRC
from tidewarp.kernel.shell.watchdog import Watch, Watchdog
from tidewarp.testing import ManualClock
from tidewarp.worlds.phold import phold


class StillDog(Watchdog):
    """Looks when the test says so."""

    def wake(self):
        pass


class Compiled:
    """A compiled engine with one block and words of its own for what holds GVT."""

    def __init__(self):
        self.gvt = 7
        self.block = np.zeros(BLOCK_WORDS, np.int64)
        self.block[[NOW, LP, GENERATION, SRC, SEQ]] = 70, 2, 0, 1, -1
        self.held = []

    def stalls(self):
        return self.held


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def said():
    """What the watchdog would end the process with."""
    return []


@pytest.fixture
def watched(clock, said):
    """A watchdog in the middle of a run."""
    dog, kernel = StillDog(clock, said.append), Compiled()
    watch = Watch(phold(lps=4), 60.0)
    dog.begin(watch, kernel)
    yield dog, kernel
    dog.end(watch, kernel.gvt, [])
    assert dog._watches == []


def test_a_handler_that_stands_still_is_named(watched, clock, said):
    """With its path, its key and what to do; not before its time is over."""
    dog, kernel = watched
    kernel.block[BEAT] = 5
    for _ in range(3):
        dog.look()
        clock.advance(29.0)
    assert said == []
    dog.look()
    assert len(said) == 1
    assert said[0].startswith(
        "error: process.2 at (70, 0, 2, 1, 18446744073709551615): its handler has been running for 87.0 s"
    )
    assert "there is no checkpoint" in said[0]


def test_an_engine_that_waits_or_goes_on_is_left_alone(watched, clock, said):
    """An even beat is no handler; a beat that changes is another one."""
    dog, kernel = watched
    for beat in (4, 4, 5, 7, 9, 9):
        kernel.block[BEAT] = beat
        clock.advance(50.0)
        dog.look()
    assert said == []
    assert kernel.block[PAUSE] == 1


def test_a_gvt_that_stands_still_is_said_once(watched, clock, caplog):
    """With the engine's own words, after five seconds, and again only when it has moved and stands again."""
    dog, kernel = watched
    kernel.held = ["PE 1: its pool is full", "PE 2: it waits"]
    for _ in range(4):
        clock.advance(2.4)
        dog.look()
    assert [record.getMessage() for record in caplog.records] == [
        "stalled at tick 7 for 7 s: PE 1: its pool is full; PE 2: it waits"
    ]
    assert (caplog.records[0].levelno, caplog.records[0].name) == (logging.WARNING, "tidewarp.kernel")
    kernel.gvt = 8
    for _ in range(3):
        dog.look()
        clock.advance(2.4)
    assert len(caplog.records) == 1
    dog.look()
    assert len(caplog.records) == 2


def test_an_engine_that_has_nothing_to_say_is_not_quoted(watched, clock, caplog):
    """A sequential one commits when its call ends: its GVT stands still meanwhile, and nothing holds it."""
    dog, _ = watched
    clock.advance(100.0)
    dog.look()
    assert caplog.records == []


def test_after_its_run_an_engine_is_left_alone(clock, said, caplog):
    """Its last handler may have left an odd beat behind."""
    dog, kernel = StillDog(clock, said.append), Compiled()
    kernel.held, kernel.block[BEAT] = ["PE 0: it waits"], 5
    watch = Watch(phold(lps=4), 60.0)
    for left in ([], ["waiting for a source"]):
        dog.begin(watch, kernel)
        dog.look()
        dog.end(watch, kernel.gvt, left)
        clock.advance(0.0 if left else 500.0)
        dog.look()
    assert (said, caplog.records) == ([], [])
    dog.forget(watch)
    clock.advance(500.0)
    dog.look()
    assert (said, caplog.records) == ([], [])
