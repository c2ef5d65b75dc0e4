"""Work that is divided among processes: what they tried is counted, what they found is told, and none stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

import pytest
import workers
from workers import divide


@pytest.fixture(autouse=True)
def none_stays(require):
    require("fork")
    yield
    assert multiprocessing.active_children() == []


def test_examples_of_all_are_counted() -> None:
    def work(number: int, step: Callable[[], None]) -> None:
        for _ in range(number + 1):
            step()

    assert divide(work, 3) == (6, [])


def test_what_one_finds_is_told_with_its_notes() -> None:
    def work(number: int, step: Callable[[], None]) -> None:
        step()
        if number:
            error = AssertionError("the states differ")
            error.add_note("again: this way")
            raise error

    tried, (report,) = divide(work)
    assert tried == 2
    assert report.splitlines()[-2:] == ["AssertionError: the states differ", "again: this way"]


def test_a_worker_that_is_killed_is_a_finding() -> None:
    def work(number: int, step: Callable[[], None]) -> None:
        if number:
            os.kill(os.getpid(), signal.SIGKILL)

    _, found = divide(work)
    assert "worker 1 ended with -9" in found


def test_an_interrupt_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for them is interrupted while they work, and nobody works on."""

    def interrupted(end: object) -> None:
        raise KeyboardInterrupt

    def work(number: int, step: Callable[[], None]) -> None:
        while True:
            step()

    monkeypatch.setattr(workers, "_told", interrupted)
    with pytest.raises(KeyboardInterrupt):
        divide(work)
