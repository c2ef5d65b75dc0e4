"""The guard: what a model must not look at, found where it does."""

import datetime as dt
import gc
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
from datetime import datetime as bound_before

import numpy as np
import pytest
from numpy.random import rand as bound_too

import tidewarp as tw
from tidewarp.errors import ModelError
from tidewarp.twin import journal_rows

GLOBAL = np.random.get_bit_generator()
LOOKS = {
    "time.time()": lambda: time.time(),
    "time.monotonic_ns()": lambda: time.monotonic_ns(),
    "time.sleep()": lambda: time.sleep(0),
    "time.strftime()": lambda: time.strftime("%H"),
    "datetime.datetime.now()": lambda: bound_before.now(dt.UTC),
    "datetime.date.today()": lambda: dt.date.today(),  # noqa: DTZ011 - what is refused
    "random.random()": lambda: random.random(),
    "random.randint()": lambda: random.randint(1, 6),
    "random.shuffle()": lambda: random.shuffle([1, 2, 3]),
    "random.seed()": lambda: random.seed(4),
    "uuid.uuid1()": lambda: uuid.uuid1(),
    "uuid.uuid4()": lambda: uuid.uuid4(),
    "os.urandom()": lambda: os.urandom(8),
    "secrets.token_hex()": lambda: secrets.token_hex(8),
    "getrandbits()": lambda: np.random.default_rng(),
    "numpy.random's global generator": lambda: np.random.normal(),
    "numpy.random's global generator ": lambda: bound_too(2),
}
ALLOWED = {
    "a generator of its own": lambda: random.Random(4).random() + np.random.default_rng(4).random(),
    "a line of a log": lambda: logging.getLogger("model").debug("at %s", "5 s"),
    "an instant that is given": lambda: time.strptime("2024", "%Y") and dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
}


def calling(look, caught=False):
    """A model whose process calls ``look`` at 3 s, and publishes each second."""

    def build(twin):
        def work():
            while True:
                yield twin.env.timeout(1.0)
                if twin.now == 3.0:
                    try:
                        look()
                    except ModelError:
                        if not caught:
                            raise
                twin.publish_event("second", twin.now)

        twin.process(work())

    return build


@pytest.mark.parametrize("called", LOOKS)
def test_a_look_outside_is_refused_by_name_and_place(called, tmp_path):
    """The call, file and line, what to do instead; the journal says where the run ended, and a replay says the same."""
    build = calling(LOOKS[called])
    with pytest.raises(ModelError) as caught, tw.open(tmp_path / "a.tw", build, guard=True) as twin:
        twin.run(until=5)
    line = LOOKS[called].__code__.co_firstlineno
    assert called.strip() in caught.value.value
    assert f"{__file__}:{line}" in caught.value.value
    assert "twin." in caught.value.action
    last = list(journal_rows(tmp_path / "a.tw"))[-1]
    assert (last["kind"], last["reason"], last["detail"], last["time_s"]) == ("stop", "model", caught.value.value, 3.0)
    with tw.open(tmp_path / "b.tw", build) as twin:
        twin.run(until=5)
    with pytest.raises(ModelError, match=f"{line}"):
        tw.replay(tmp_path / "b.tw", build, guard=True)


def test_a_model_in_a_process_of_its_own_is_guarded_there(tmp_path):
    """The forked host says the same."""
    build = calling(LOOKS["uuid.uuid4()"])
    with (
        pytest.raises(ModelError, match=r"uuid\.uuid4\(\) in <lambda>, .*test_guard"),
        tw.open(tmp_path / "a.tw", build, guard=True, host="forked") as twin,
    ):
        twin.run(until=5)


def test_what_decides_nothing_is_allowed(tmp_path, caplog):
    """Generators with a seed, times that are given, and a log, whose lines have a time."""
    caplog.set_level("DEBUG")
    for n, look in enumerate(ALLOWED.values()):
        with tw.open(tmp_path / f"{n}.tw", calling(look), guard=True) as twin:
            assert twin.run(until=5).outputs == 4
    assert caplog.messages == ["at 5 s"]


def test_it_does_not_help_to_catch_the_error(tmp_path):
    """A model that catches everything is stopped at the end of that slice."""
    with (
        pytest.raises(ModelError, match=r"time\.time"),
        tw.open(tmp_path / "a.tw", calling(LOOKS["time.time()"], caught=True), guard=True) as twin,
    ):
        twin.run(until=5)


def test_build_and_state_are_model_code_too(tmp_path):
    """What wires the twin, and what adds to its state, looks at nothing either."""

    def build(twin):
        twin.variable("a.level", float, initial=random.random())

    with pytest.raises(ModelError, match=r"random\.random\(\) in build"):
        tw.open(tmp_path / "a.tw", build, guard=True)

    with pytest.raises(ModelError, match=r"uuid\.uuid4\(\) in <lambda>"):
        tw.open(tmp_path / "b.tw", lambda twin: twin.state(lambda: str(uuid.uuid4())), guard=True)


def test_other_threads_and_the_time_behind_a_run_are_untouched(tmp_path):
    """A thread of somebody else draws and looks while the guarded model runs; what was patched is back afterwards."""
    during, seen = threading.Event(), []
    goes_on = threading.Event()

    def elsewhere():
        during.wait()
        np.random.seed(7)
        seen.extend([np.random.rand(), np.random.get_state()[2], time.time(), random.random(), uuid.uuid4()])
        goes_on.set()

    def look():
        during.set()
        goes_on.wait()  # this too is called by the model, and reads no clock

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with tw.open(tmp_path / "a.tw", calling(look), guard=True) as twin:
        guarded = twin.run(until=5)
    thread.join()
    after = np.random.rand()  # the second of the same state
    np.random.seed(7)
    assert [seen[0], after] == [np.random.rand(), np.random.rand()]
    assert (sys.getprofile(), np.random.get_bit_generator()) == (None, GLOBAL)
    with tw.open(tmp_path / "b.tw", calling(lambda: None)) as twin:
        assert twin.run(until=5).digest == guarded.digest


def test_tidewarp_itself_looks_as_it_must(tmp_path):
    """Sources, sinks and pacing read clocks in the model's thread and beside it; none of that is the model's."""

    def build(twin):
        level = twin.variable("a.level", float)

        def watch():
            while True:
                change = yield level.wait_for_change()
                twin.publish_event("level", change.new + twin.stream("noise").random())

        twin.process(watch())
        twin.connect(tw.sources.schedule([(n / 100, "a.level", float(n)) for n in range(1, 21)]))
        twin.sink(tw.sinks.jsonl(tmp_path / "out.jsonl"))

    with tw.open(tmp_path / "a.tw", build, factor=0.1, guard=True) as twin:
        summary = twin.run()
    assert (summary.inputs, summary.sinks["out"]["sent"]) == (20, 20)
    assert tw.replay(tmp_path / "a.tw", build, guard=True).equal


def test_two_guarded_models_in_two_threads_leave_the_rest_alone(tmp_path):
    """While the one runs, the thread of the other may draw again as soon as its own run has ended."""
    begun, ended = threading.Event(), threading.Event()

    def look():
        begun.set()
        ended.wait()

    def other():
        with tw.open(tmp_path / "a.tw", calling(look), guard=True) as twin:
            twin.run(until=5)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with tw.open(tmp_path / "b.tw", calling(lambda: None), guard=True) as twin:
        twin.run(until=5)
    assert 0 <= np.random.rand() < 1
    assert np.random.get_bit_generator() is not GLOBAL
    ended.set()
    thread.join()
    assert np.random.get_bit_generator() is GLOBAL


def test_a_callback_of_the_collector_is_nobodys_model(tmp_path):
    """Whoever times collections does so at any moment, in any thread."""
    seen = []

    def timed(phase, info):
        seen.append(time.perf_counter())

    gc.callbacks.append(timed)
    try:
        with tw.open(tmp_path / "a.tw", calling(gc.collect), guard=True) as twin:
            twin.run(until=5)
    finally:
        gc.callbacks.remove(timed)
    assert seen
