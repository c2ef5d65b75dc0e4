"""Fault points: armed, they strike once, at their place; afterwards nothing listens."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tidewarp.errors import OperatorError
from tidewarp.observe import STAGES, stage
from tidewarp.testing import armed, die, hearing, raising


def test_it_strikes_at_the_arrival_that_was_asked_for_and_at_no_other():
    """The third at its stage, once; the arrivals of every stage are counted."""
    struck = []
    with armed("apply.after", lambda: struck.append(len(struck)), arrival=3) as arrivals:
        for _ in range(5):
            stage("journal.after")
            stage("apply.after")
            assert len(struck) == (arrivals["apply.after"] >= 3)
    assert dict(arrivals) == {"journal.after": 5, "apply.after": 5}


def test_when_its_block_ends_nothing_listens():
    """Also where it ends with an error, of the stage or its own."""
    with pytest.raises(ValueError, match="planted"), armed("recover", raising(ValueError("planted"))) as arrivals:
        stage("recover")
    stage("recover")
    assert arrivals["recover"] == 1


def test_arrivals_from_many_threads_are_all_counted():
    """Two sinks, each in its thread, arrive at one stage."""
    struck = []
    with armed("release.after", lambda: struck.append(threading.get_ident()), arrival=4_000) as arrivals:
        threads = [threading.Thread(target=lambda: [stage("release.after") for _ in range(1_000)]) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert arrivals["release.after"] == 4_000
    assert len(struck) == 1


def test_a_listener_hears_every_stage_in_order():
    """With its arrival number."""
    heard = []
    with hearing(lambda *one: heard.append(one)):
        for name in (*STAGES, STAGES[0]):
            stage(name)
    assert heard == [*((name, 1) for name in STAGES), (STAGES[0], 2)]


@pytest.mark.parametrize(("name", "arrival"), [("journal", 1), ("apply.after", 0)])
def test_what_would_never_strike_is_refused(name, arrival):
    """A stage that nobody calls, an arrival before the first."""
    with pytest.raises(OperatorError, match="a stage is one of"), armed(name, die, arrival=arrival):
        pass


def test_to_die_is_sigkill(require):
    """No handler runs, nothing is flushed."""
    require("fork")
    child = os.fork()
    if child == 0:
        with armed("apply.after", die):
            stage("apply.after")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, signal.SIGKILL)
