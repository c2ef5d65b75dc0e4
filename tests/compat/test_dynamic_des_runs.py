"""dynamic-des programs on a twin: the article's sample, connectors of the user's own, lag, failures, the journal."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import pytest

import tidewarp
from tidewarp.compat.dynamic_des import (
    CapacityConfig,
    ConsoleEgress,
    DistributionConfig,
    DynamicRealtimeEnvironment,
    DynamicResource,
    JsonlStorageEgress,
    LocalIngress,
    SimParameter,
    SimulationContext,
)
from tidewarp.compat.dynamic_des.connectors.egress.base import BaseEgress
from tidewarp.compat.dynamic_des.connectors.ingress.base import BaseIngress
from tidewarp.compat.dynamic_des.core.registry import DynamicValue
from tidewarp.errors import MissingExtra, ModelError, OperatorError
from tidewarp.testing import ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
LATHE = "Line_A.resources.lathe.current_cap"


class Recorder(BaseEgress):
    """Keeps what it is given, ``delay`` loops of its own for each batch."""

    def __init__(self, delay_s=0.0):
        self.batches, self.delay_s = [], delay_s

    @property
    def outputs(self):
        records = [record for batch in self.batches for record in batch]
        return [record for record in records if not str(record.get("path_id")).startswith("system.")]

    async def run(self, egress_queue):
        while True:
            try:
                batch = egress_queue.get_nowait()
            except queue.Empty:
                await asyncio.sleep(0.001)
                continue
            await asyncio.sleep(self.delay_s)
            self.batches.append(batch)


def a_line(env, capacity=1):
    env.registry.register_sim_parameter(
        SimParameter(sim_id="Line_A", resources={"lathe": CapacityConfig(capacity, 5)}, variables={"mode": "auto"})
    )
    return DynamicResource(env, "Line_A", "lathe")


@pytest.mark.parametrize("factor", [0.0, 0.01])
def test_the_first_sample_of_the_article(factor, caplog):
    """Its lines, with another import and a faster clock: the capacity is 3 from 5 s on, at every factor."""
    caplog.set_level(logging.INFO)
    params = SimParameter(
        sim_id="Line_A",
        resources={"lathe": CapacityConfig(current_cap=1, max_cap=5)},
    )
    ingress = LocalIngress([(5.0, "Line_A.resources.lathe.current_cap", 3)])
    egress = ConsoleEgress()
    env = DynamicRealtimeEnvironment(factor=factor)
    env.registry.register_sim_parameter(params)
    env.setup_ingress([ingress])
    env.setup_egress([egress])
    res = DynamicResource(env, "Line_A", "lathe")
    seen = []

    def look():  # added: who else would see it?
        while True:
            yield res._capacity.current.wait_for_change()
            seen.append((env.now, res.capacity))
            env.publish_telemetry("Line_A.lathe.capacity", res.capacity)

    env.process(look())
    env.run(until=10)
    env.teardown()
    assert (seen, env.now, res.capacity) == ([(5.0, 3)], 10.0, 3)
    assert "'path_id': 'Line_A.lathe.capacity', 'value': 3" in caplog.text


def test_a_schedule_does_not_depend_on_the_pace():
    """Case 10 of the faults: t = 0.5 applied at 5.1 with factor 0.1, never at 0."""
    runs = []
    for factor in (0.0, 0.002, 0.02):
        env, recorder = DynamicRealtimeEnvironment(factor=factor, logical_start_time=START), Recorder()
        lathe = a_line(env)
        env.setup_ingress([LocalIngress([(3.0, LATHE, "4"), (0.5, LATHE, 2), (4.0, "no.such.path", 1)])])
        env.setup_egress([recorder], lag_monitor_interval=None)

        def tell(env=env, lathe=lathe):
            while True:
                env.publish_telemetry("capacity", lathe.capacity)
                yield env.timeout(0.25)

        env.process(tell())
        env.run(until=5)
        env.teardown()
        runs.append(recorder.outputs)
    assert runs[0] == runs[1] == runs[2]
    assert next(one["sim_ts"] for one in runs[0] if one["value"] == 2) == 0.5


def test_two_destinations_get_everything():
    """Case 13: two sinks shared one queue, 1,000 and 0."""
    env, recorders = DynamicRealtimeEnvironment(factor=0), [Recorder(), Recorder()]
    env.setup_egress(recorders, batch_size=100)

    def tell():
        for number in range(1_000):
            env.publish_event(f"e{number}", {"n": number})
            yield env.timeout(0.001)

    env.process(tell())
    env.run(until=2)
    env.teardown()
    for recorder in recorders:
        assert [one["value"]["n"] for one in recorder.outputs] == [*range(1_000)]
        assert max(map(len, recorder.batches)) <= 100


def test_a_full_queue_holds_no_more_than_it_may_and_loses_nothing():
    """``max_queued_batches`` of the provider; the slow one is waited for at teardown."""
    env, slow = DynamicRealtimeEnvironment(factor=0), Recorder(delay_s=0.001)
    env.setup_egress([slow], batch_size=10, max_queued_batches=3)
    assert env.egress_queue.maxsize == 3

    def tell():
        for number in range(500):
            env.publish_event("e", number)
            yield env.timeout(0.001)

    env.process(tell())
    env.run(until=1)
    env.teardown()
    assert [one["value"] for one in slow.outputs] == [*range(500)]


def test_teardown_gives_up_on_a_provider_that_takes_nothing(caplog):
    """After ``drain_stall_seconds`` without progress, by the clock; it says how much was not taken."""

    class Stuck(BaseEgress):
        async def run(self, egress_queue):
            await asyncio.Event().wait()

    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([Stuck()], drain_stall_seconds=30.0)
    env._clock = ManualClock()
    env.publish_event("a", 1)
    env.teardown()
    assert "1 batches were not taken" in caplog.text
    assert env._clock.now() >= 30.0


class Gadget:
    pass


class Colour(Enum):
    RED = "red"


@dataclass
class Reading:
    path_id: str
    at: datetime


def test_publishing_never_raises():
    """Case 19: an object that is not JSON killed the run. What has a plain form is sent in it, the rest as a note."""
    env, recorder = DynamicRealtimeEnvironment(factor=0), Recorder()
    env.setup_egress([recorder])
    cycle: list[object] = []
    cycle.append(cycle)
    values = [Gadget(), {"a": Gadget()}, {1, 2}, Colour.RED, Reading("a", START), 1 << 80, cycle, {3: "x"}, (1, 2)]

    def tell():
        for value in values:
            env.publish_event("k", value)
            env.publish_telemetry("p", value)
        env.publish_event("", 1)
        env.publish_event("ключ\ud800\n" * 100, 2)
        env.publish_event(17, 3)
        yield env.timeout(1)

    env.process(tell())
    env.run(until=2)
    env.teardown()
    sent = [one["value"] for one in recorder.outputs if one["stream_type"] == "event"]
    assert len(sent) == len(values) + 3
    assert sent[0]["undeliverable"] == "Gadget"
    assert sent[3:5] == ["red", {"path_id": "a", "at": "2026-01-01T00:00:00Z"}]
    assert sent[7:] == [{"3": "x"}, [1, 2], 1, 2, 3]
    assert recorder.outputs[-1]["key"] == "17"
    assert max(len(one.get("key", "")) for one in recorder.outputs) == 255


class Own(BaseIngress):
    """Puts what it was given, then waits; notes in which thread."""

    def __init__(self, *items):
        self.items, self.thread = items, None

    async def run(self, ingress_queue):
        self.thread = threading.current_thread()
        for item in self.items:
            ingress_queue.put(item)
        await asyncio.Event().wait()


def test_updates_of_the_users_own_connectors_arrive():
    """Two of them, each in a thread; what no update can be is a dead letter and ends nothing (case 1)."""
    env, recorder = DynamicRealtimeEnvironment(factor=0.001), Recorder()
    lathe = a_line(env)
    bad = [(["x"], 1), ("only one",), 7, (LATHE, float("nan")), ("no.such", 1), (LATHE, {"a": 1}), (LATHE, Gadget())]
    providers = [Own(*bad, (LATHE, 4)), Own(("Line_A.variables.mode", "stopped"))]
    env.setup_ingress(providers)
    env.setup_egress([recorder])
    done = env.event()

    def wait():
        mode, capacity = env.registry.get("Line_A.variables.mode"), env.registry.get(LATHE)
        while mode.value == "auto" or capacity.value == 1:
            yield mode.wait_for_change() | capacity.wait_for_change()
        done.succeed((mode.value, lathe.capacity))

    env.process(wait())
    assert env.run(until=done) == ("stopped", 4)
    threads = [provider.thread for provider in providers]
    env.teardown()
    assert len({threading.main_thread(), *threads}) == 3
    assert not any(thread.is_alive() for thread in threads)
    assert env._hosting.twin._gate.sources.counts()["dead_letters"] == len(bad)


def test_a_registry_update_of_another_thread_is_queued():
    """From outside a run it acts at once, from another thread it is an input like any other."""
    env = DynamicRealtimeEnvironment(factor=0.001)
    lathe = a_line(env)
    env.registry.update(LATHE, 2)
    assert lathe.capacity == 2

    class Elsewhere(BaseIngress):
        async def run(self, ingress_queue):
            env.registry.update(LATHE, 3)
            await asyncio.Event().wait()

    env.setup_ingress([Elsewhere()])
    changed = env.registry.get(LATHE).wait_for_change()
    env.run(until=changed)
    env.teardown()
    assert lathe.capacity == 3


# ---------------------------------------------------------------- time
@pytest.mark.parametrize(
    ("factor", "spent_s", "lag_s"),
    [(1.0, 3.0, 1.0), (2.0, 3.0, 0.0), (2.0, 5.0, 1.0), (0.1, 1.06, 0.86), (0.0, 9.0, 0.0)],
)
def test_lag_counts_with_the_factor(factor, spent_s, lag_s):
    """Case 9: 2 s reported on time at factor 2; 0 when 1.06 s late at 0.1. A start of last week is no lag."""
    env = DynamicRealtimeEnvironment(factor=factor, logical_start_time=datetime(2026, 1, 1, tzinfo=UTC))
    env._clock = clock = ManualClock(unix_ns=int(datetime(2026, 1, 8, tzinfo=UTC).timestamp()) * 10**9)
    env.setup_egress([Recorder()], lag_monitor_interval=None)
    seen = []

    def work():
        begun_s = clock.now()
        clock.advance(spent_s)  # as if the model computed for so long
        assert clock.now() - begun_s == pytest.approx(spent_s)
        env.timeout(2.0)
        seen.append(env._hosting.twin.lag_s)
        yield env.timeout(3.0)

    env.process(work())
    env.run(until=5)
    env.teardown()
    assert seen == [pytest.approx(lag_s, abs=1e-6)]


def test_lag_is_published_beside_the_outputs():
    """At its own path, by the wall, and not by the model: the outputs have the ids and times that they have without it."""
    env, recorder = DynamicRealtimeEnvironment(factor=0.0), Recorder()
    env.setup_egress([recorder], lag_monitor_interval=0.001)
    observed = env.event()

    def wait():
        while not any(
            one.get("path_id") == "system.simulation.lag_seconds" for batch in recorder.batches for one in batch
        ):
            env.publish_event("tick", 1)
            yield env.timeout(1)
        observed.succeed()

    env.process(wait())
    env.run(until=observed)
    env.teardown()
    lag = next(one for batch in recorder.batches for one in batch if one.get("path_id", "").startswith("system."))
    assert list(lag) == ["stream_type", "sim_ts", "timestamp", "path_id", "value"]
    assert (lag["stream_type"], lag["value"]) == ("telemetry", 0.0)


def test_a_strict_run_that_is_late_says_so():
    """As SimPy does: RuntimeError when it is later than the factor."""
    env = DynamicRealtimeEnvironment(factor=0.5, strict=True)
    env._clock = clock = ManualClock()

    def work():
        yield env.timeout(1)
        clock.advance(7)
        yield env.timeout(1)
        yield env.timeout(1)

    env.process(work())
    with pytest.raises(RuntimeError, match="too slow"):
        env.run(until=10)
    env.teardown()


def test_a_paced_run_takes_its_time():
    """The factor is wall seconds per simulated second."""
    env = DynamicRealtimeEnvironment(initial_time=100, factor=3.0)
    env._clock = clock = ManualClock()
    times = []

    def work():
        while True:
            yield env.timeout(2)
            times.append((env.now, clock.now()))

    env.process(work())
    env.run(until=105)
    env.teardown()
    assert [now for now, _ in times] == [102, 104]
    assert [wall for _, wall in times] == [pytest.approx(6, abs=0.01), pytest.approx(12, abs=0.01)]


# ---------------------------------------------------------------- running and failing
def connected(env):
    env.setup_egress([Recorder()], lag_monitor_interval=None)
    return env


@pytest.mark.parametrize("prepare", [lambda env: env, connected], ids=["alone", "connected"])
def test_run_is_that_of_simpy(prepare):
    """Until a time, an event, a process, the end; a time that is past; an event that never comes; the model's own error."""
    env = prepare(DynamicRealtimeEnvironment(factor=0))

    def work():
        yield env.timeout(3)
        return "done"

    assert env.run(until=env.process(work())) == "done"
    assert env.now == pytest.approx(3)
    with pytest.raises(ValueError, match="until"):
        env.run(until=1)
    env.process(work())
    env.run()
    assert env.now == pytest.approx(6)

    def fail():
        yield env.timeout(1)
        raise LookupError("of the model")

    env.process(fail())
    with pytest.raises(LookupError, match="of the model"):
        env.run(until=20)
    env.teardown()


def test_an_end_of_the_data_is_no_end_of_the_model():
    """A run without an end goes on behind its schedule, until nothing is left to do."""
    env = DynamicRealtimeEnvironment(factor=0)
    a_line(env)
    env.setup_ingress([LocalIngress([(1.0, LATHE, 2)])])
    times = []

    def work():
        for _ in range(3):
            yield env.timeout(100_000)
            times.append(env.now)

    env.process(work())
    env.run()
    env.teardown()
    assert times == [100_000, 200_000, 300_000]


def test_an_interrupt_of_the_keyboard_loses_nothing():
    """The instant is completed, KeyboardInterrupt raised, and teardown delivers."""
    env, recorder = DynamicRealtimeEnvironment(factor=0), Recorder()
    env.setup_egress([recorder])

    def work():
        for number in range(100_000):
            env.publish_event("n", number)
            if number == 50:
                signal.raise_signal(signal.SIGINT)
            yield env.timeout(1)

    env.process(work())
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        env.run()
    assert signal.getsignal(signal.SIGINT) is handler
    env.teardown()
    sent = [one["value"] for one in recorder.outputs]
    assert sent == [*range(len(sent))]
    assert 51 <= len(sent) < 100_000


def test_what_is_over_is_over():
    """A run behind the teardown is refused with what to do."""
    env = DynamicRealtimeEnvironment(factor=0)
    env.teardown()
    with pytest.raises(OperatorError, match="torn down"):
        env.run(until=1)


def test_connectors_are_named_before_the_first_run():
    """Later ones would be heard by nobody: refused, and not passed over in silence."""
    env = connected(DynamicRealtimeEnvironment(factor=0))
    env.run(until=1)
    env.setup_egress([Recorder()])
    with pytest.raises(OperatorError, match="before the first run"):
        env.run(until=2)
    env.teardown()


def test_a_value_of_its_own(caplog):
    """DynamicValue(env, name, initial): typed by its first value."""
    env = DynamicRealtimeEnvironment(factor=0)
    value = DynamicValue(env, "my.speed", 1.5)
    value.update("2.5")
    value.update("fast")
    assert (value.value, env.registry.get("my.speed").value) == (2.5, 2.5)
    assert "my.speed" in caplog.text


# ---------------------------------------------------------------- the journal
def life(journal, until, folder):
    """One life of a program: it counts changes of a capacity, and writes each once."""
    env = DynamicRealtimeEnvironment(factor=0, journal=journal)
    lathe = a_line(env)
    env.setup_ingress([LocalIngress([(second, LATHE, 1 + second % 5) for second in range(1, 20)])])
    env.setup_egress([JsonlStorageEgress(str(folder / "out.jsonl"))])

    def tell():
        count = 0
        while True:
            yield env.registry.get(LATHE).wait_for_change()
            count += 1
            env.publish_event("change", {"count": count, "capacity": lathe.capacity})

    env.process(tell())
    env.run(until=until)
    env.teardown()
    return env


def test_a_program_goes_on_where_its_journal_ends(tmp_path):
    """The second life has the state of the first, its epoch, and doubles no output."""
    first = life(tmp_path / "a.tw", 7.5, tmp_path)
    second = life(tmp_path / "a.tw", 15.5, tmp_path)
    assert second.start_datetime == first.start_datetime
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["value"]["count"] for line in lines] == [*range(1, 16)]
    assert lines[9]["value"]["capacity"] == 1 + 10 % 5


def test_a_program_replays_its_journal(tmp_path, caplog):
    """With its own set-up: equal to the run, whatever came in; a program that is another one is not."""
    caplog.set_level(logging.INFO)

    def make(step=1.0, into=None):
        env = DynamicRealtimeEnvironment(factor=0, journal=tmp_path / "a.tw")
        lathe = a_line(env)
        env.setup_ingress([LocalIngress([(1.5, LATHE, 3), (1.6, "no.such\npath", 3), (1.7, LATHE, "many")])])
        if into is not None:
            env.setup_egress([into])

        def work():
            for n in range(5):
                env.publish_event("n", {"n": n, "capacity": lathe.capacity})
                yield env.timeout(step)

        env.process(work())
        return env

    env = make()
    env.run(until=4)
    env.teardown()
    letters = [record.getMessage() for record in caplog.records if "dead letter" in record.getMessage()]
    assert [(" 1: " in one, " 2: " in one) for one in letters] == [(True, False), (False, True)]
    assert all(one.isprintable() for one in letters)
    again = make()
    found = again.replay()
    assert (found.equal, found.outputs, found.inputs) == (True, 4, 1)
    assert make(step=0.9).replay().equal is False
    with pytest.raises(OperatorError, match="has not run"):
        again.replay()
    with pytest.raises(OperatorError, match=r"env\.replay\(FILE\)"):
        tidewarp.replay(tmp_path / "a.tw")


def test_of_many_dead_letters_the_log_shows_some(caplog, monkeypatch):
    """Ten lines a second, and one that says that there are more."""
    caplog.set_level(logging.INFO)
    env = DynamicRealtimeEnvironment(factor=0)
    a_line(env)
    env._clock = ManualClock()
    env.setup_ingress([LocalIngress([(n / 100, "no.such.path", n) for n in range(100)])])
    env.run(until=2)
    env.teardown()
    letters = [record.getMessage() for record in caplog.records if "dead letter" in record.getMessage()]
    assert len(letters) == 11
    assert letters[-1].startswith("more dead letters of source ingress-0")


def test_a_context_replays_its_journal(tmp_path):
    """As the environment does that it builds."""

    def make():
        app = SimulationContext(sim_id="Line_A", factor=0.0, random_seed=4, journal=tmp_path / "a.tw")
        app.add_resource("lathe", current_cap=1, max_cap=5).add_ingress(LocalIngress([(1.0, LATHE, 3)]))
        return app

    make().run(until=3.0)
    assert make().replay().equal is True


def test_an_update_between_two_runs_is_journaled(tmp_path, monkeypatch, caplog):
    """It acts at once, cut to its range like any other, and the next life has it; one that is refused is a line in the log."""
    monkeypatch.setenv("TIDEWARP_JOURNAL", str(tmp_path / "b.tw"))
    env = DynamicRealtimeEnvironment(factor=0)
    lathe = a_line(env)
    env.run(until=1)
    env.registry.update(LATHE, 2)
    env.registry.update("no.such.path", 2)
    assert (lathe.capacity, env.now, env.registry.refused) == (2, 1.0, 1)
    assert "no.such.path" in caplog.text
    env.registry.update(LATHE, 17)
    assert (lathe.capacity, env.registry.clamped) == (5, 1)
    env.run(until=2)
    env.teardown()
    env = DynamicRealtimeEnvironment(factor=0)
    lathe = a_line(env)
    env.run(until=3)
    env.teardown()
    assert lathe.capacity == 5
    with pytest.raises(ModelError, match="a twin is wired"):
        env._hosting.twin.adopt(env)


def test_files_by_a_router(tmp_path):
    """test_jsonl_storage_routing_and_writing: two files, one record dropped, a router that fails asked for one record."""

    def router(record):
        if record["stream_type"] == "telemetry":
            return None if record["path_id"] == "lag" else str(tmp_path / "telemetry.jsonl")
        return record["value"]["file"]

    egress = JsonlStorageEgress(str(tmp_path / "other.jsonl"), path_router=router)
    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([egress])
    env.publish_event("a", {"file": str(tmp_path / "events.jsonl")})
    env.publish_event("b", 7)
    env.publish_telemetry("lag", 1)
    env.publish_telemetry("temperature", 2)
    env.teardown()
    found = {
        path.name: [json.loads(line)["value"] for line in path.read_text().splitlines()]
        for path in tmp_path.glob("*.jsonl")
    }
    assert found == {
        "events.jsonl": [{"file": str(tmp_path / "events.jsonl")}],
        "telemetry.jsonl": [2],
        "other.jsonl": [7],
    }
    assert egress.misrouted == 1


def test_the_sample_of_the_package_description():
    """Its program at full speed: capacity 3 at 10 s and 2 at 20 s, jobs served, nothing in use above the capacity."""
    recorder = Recorder()
    app = (
        SimulationContext(sim_id="Line_A", factor=0.0, random_seed=42)
        .add_resource("lathe", current_cap=1, max_cap=5)
        .add_arrival("standard", dist="exponential", rate=1.0)
        .add_service("milling", dist="normal", mean=3.0, std=0.5)
        .add_ingress(
            LocalIngress(
                schedule=[
                    (10.0, "Line_A.resources.lathe.current_cap", 3),
                    (20.0, "Line_A.resources.lathe.current_cap", 2),
                ]
            )
        )
        .add_egress(recorder)
    )

    @app.arrival_loop("standard")
    def arrival_process(context: SimulationContext):
        task_id = 0
        while True:
            yield context.wait_for_arrival("standard")
            context.spawn(work_task(task_id))
            task_id += 1

    @app.task(service_id="milling", resource_id="lathe")
    def work_task(task_id: int):
        return {"part_id": task_id}

    @app.telemetry_loop(interval=2.0)
    def telemetry_monitor(context: SimulationContext):
        res = context.get_resource("lathe")
        context.env.publish_telemetry("Line_A.lathe.capacity", res.capacity)
        context.env.publish_telemetry("Line_A.lathe.in_use", res.in_use)
        context.env.publish_telemetry("Line_A.lathe.queue_length", len(res.queue.items))

    app.run(until=25.0)
    capacity = [one["value"] for one in recorder.outputs if one.get("path_id") == "Line_A.lathe.capacity"]
    assert capacity == [1] * 5 + [3] * 5 + [2] * 3
    assert any(one["value"].get("lifecycle") == "finished" for one in recorder.outputs if "key" in one)


def test_a_service_rate_of_zero_is_refused_and_an_arrival_of_zero_waits():
    """Case 4: a rate of 0 silently meant 1."""
    env = DynamicRealtimeEnvironment(factor=0)
    with pytest.raises(ValueError, match="rate"):
        env.registry.register_sim_parameter(SimParameter("L", service={"a": DistributionConfig("exponential", 0.0)}))
    app = SimulationContext("L", factor=0).add_arrival("a", "exponential", rate=0.0)
    arrivals = []

    @app.arrival_loop("a")
    def feed(context):
        yield context.wait_for_arrival("a")
        arrivals.append(context.env.now)

    app.run(until=100)
    assert arrivals == []


def test_a_missing_package_is_named_when_it_is_needed(monkeypatch):
    """Not an ImportError of an unknown name: what is missing, and the command that installs it."""
    import sys

    from tidewarp.compat.dynamic_des import KafkaEgress
    from tidewarp.compat.dynamic_des.connectors.egress.kafka import ConfluentAvroSerializer, GlueAvroSerializer
    from tidewarp.compat.dynamic_des.connectors.ingress.kafka import ConfluentAvroDeserializer

    pytest.importorskip("fastavro", reason="pip install 'tidewarp[avro]'")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.setitem(sys.modules, "boto3", None)
    schema = '{"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}]}'
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[avro\]'"):
        ConfluentAvroSerializer("mock://a", schema).serialize("t", {"a": 1})
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[glue\]'"):
        GlueAvroSerializer("a", schema).serialize("t", {"a": 1})
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[avro\]'"):
        ConfluentAvroDeserializer("mock://a").deserialize("t", b"\0\0\0\0\1abc")
    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([KafkaEgress("localhost:1")])
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[kafka\]'"):
        env.run(until=1)
    env.teardown()
