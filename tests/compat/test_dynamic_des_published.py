"""The published unit tests of dynamic-des 0.12 that hold as behaviour, written anew: each names the case that it comes from."""

from __future__ import annotations

import asyncio
import logging
import queue
from datetime import UTC, datetime

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from tidewarp.compat import dynamic_des
from tidewarp.compat.dynamic_des import (
    CapacityConfig,
    ConsoleEgress,
    DistributionConfig,
    DynamicContainer,
    DynamicRealtimeEnvironment,
    DynamicResource,
    DynamicStore,
    EventPayload,
    LocalIngress,
    Sampler,
    SimParameter,
    SimulationContext,
    TelemetryPayload,
    time_to_seconds,
)
from tidewarp.compat.dynamic_des.connectors.egress.base import BaseEgress, extract_dict
from tidewarp.errors import OperatorError


@pytest.fixture
def env():
    return DynamicRealtimeEnvironment(factor=0.0)


@pytest.fixture
def line(env):
    env.registry.register_sim_parameter(
        SimParameter(
            sim_id="L",
            arrival={"usual": DistributionConfig(dist="exponential", rate=0.1)},
            service={"setup": DistributionConfig(dist="normal", mean=2.0, std=0.5)},
            resources={"lathe": CapacityConfig(current_cap=2, max_cap=5)},
            containers={"tank": CapacityConfig(current_cap=50.0, max_cap=200.0)},
            stores={"shelf": CapacityConfig(current_cap=2, max_cap=10)},
            variables={"mode": "auto"},
        )
    )
    return env.registry


def finish_instant(env):
    while env._queue and env.peek() == env.now:
        env.step()


class Recorder(BaseEgress):
    def __init__(self):
        self.batches = []

    @property
    def records(self):
        return [record for batch in self.batches for record in batch]

    async def run(self, egress_queue):
        while True:
            try:
                self.batches.append(egress_queue.get_nowait())
            except queue.Empty:
                await asyncio.sleep(0.001)


# ---------------------------------------------------------------- registry: test_registry.py
def test_parameters_are_flat_paths(line):
    """test_registry_registration_paths."""
    assert line.get("L.arrival.usual.rate").value == 0.1
    assert (line.get("L.service.setup.mean").value, line.get("L.service.setup.std").value) == (2.0, 0.5)
    assert (line.get("L.resources.lathe.current_cap").value, line.get("L.resources.lathe.max_cap").value) == (2, 5)
    assert line.get("L.variables.mode").value == "auto"


def test_an_update_changes_value_and_live_config(line):
    """test_registry_distribution_update_and_event, its value part."""
    line.update("L.service.setup.mean", 10.0)
    assert line.get("L.service.setup.mean").value == 10.0
    assert line.get_config("L.service.setup").mean == 10.0


def test_a_missing_path_is_a_key_error_to_get_and_a_warning_to_update(line, caplog):
    """test_registry_missing_path."""
    with pytest.raises(KeyError):
        line.get("not.there")
    with pytest.raises(KeyError):
        line.get_config("not.there")
    line.update("not.there", 10)
    assert "not.there" in caplog.text
    assert line.refused == 1


@pytest.mark.parametrize(("given", "kept"), [("4", 4), (4.0, 4), (7.75, 2), (float("inf"), 2), ("many", 2), (True, 2)])
def test_an_update_is_cast_or_ignored(line, given, kept):
    """test_registry casts: text of a number is a number; nothing is rounded, nothing ends the run."""
    line.update("L.resources.lathe.current_cap", given)
    assert line.get("L.resources.lathe.current_cap").value == kept


@pytest.mark.parametrize(("given", "kept"), [(50, 5), ("50", 5), (-3, 0), (5, 5)])
def test_a_capacity_is_cut_to_its_range_in_registry_and_resource_alike(env, line, given, kept):
    """Case 6 of the faults: registry 50 and resource 5."""
    lathe = DynamicResource(env, "L", "lathe")
    line.update("L.resources.lathe.current_cap", given)
    assert (line.get("L.resources.lathe.current_cap").value, lathe.capacity) == (kept, kept)
    assert line.get_config("L.resources.lathe").current_cap == kept
    assert line.clamped == (given not in (5,))


def test_a_raised_maximum_counts(env, line):
    """Case 6: 0.12 ignored it."""
    lathe = DynamicResource(env, "L", "lathe")
    line.update("L.resources.lathe.max_cap", 8)
    line.update("L.resources.lathe.current_cap", 8)
    assert (lathe.capacity, lathe.pool.capacity, line.clamped) == (8, 8, 0)


def test_a_first_capacity_beyond_the_maximum_is_cut(env):
    """0.12's resource cut it, its registry did not."""
    env.registry.register_sim_parameter(SimParameter("L", resources={"a": CapacityConfig(10, 5)}))
    assert DynamicResource(env, "L", "a").capacity == 5
    assert env.registry.get("L.resources.a.current_cap").value == 5


def test_every_waiter_wakes_once_per_change(env, line):
    """Case 5: three waiters, one change, one woken."""
    woken = []

    def wait(number):
        yield line.get("L.variables.mode").wait_for_change()
        woken.append(number)

    for number in range(3):
        env.process(wait(number))
    env.run(until=1)
    line.update("L.variables.mode", "stopped")
    env.run(until=2)
    assert woken == [0, 1, 2]


# ---------------------------------------------------------------- resource: test_resource.py
def test_a_resource_begins_as_registered(env, line):
    """test_resource_initialization."""
    lathe = DynamicResource(env, "L", "lathe")
    assert (lathe.pool.level, lathe.pool.capacity, lathe.capacity, lathe.in_use) == (2, 5, 2, 0)


def test_request_and_release(env, line):
    """test_basic_request_release."""
    lathe = DynamicResource(env, "L", "lathe")

    def user():
        yield lathe.request()
        yield env.timeout(10)
        yield lathe.release()

    env.process(user())
    env.run(until=1)
    assert lathe.pool.level == 1
    env.run(until=15)
    assert lathe.pool.level == 2


def test_the_most_important_request_is_served_first(env, line):
    """test_priority_queuing, with a run that ends by itself."""
    line.update("L.resources.lathe.current_cap", 1)
    finish_instant(env)
    lathe = DynamicResource(env, "L", "lathe")
    order = []

    def user(name, priority, seconds):
        with lathe.request(priority=priority) as request:
            yield request
            order.append(name)
            yield env.timeout(seconds)

    for name, priority in (("first", 10), ("low", 5), ("high", 1), ("low too", 5)):
        env.process(user(name, priority, 10))
        env.run(until=env.now + 1)
    assert [request.priority for request in lathe.queue.items] == [1, 5, 5]
    env.run()
    assert order == ["first", "high", "low", "low too"]


def test_growth_is_seen_at_once(env, line):
    """test_dynamic_capacity_increase."""
    lathe = DynamicResource(env, "L", "lathe")
    line.update("L.resources.lathe.current_cap", 4)
    env.run(until=env.now + 0.1)
    assert (lathe.capacity, lathe.pool.level) == (4, 4)


def hold(env, resource, seconds, log=None):
    with resource.request() as request:
        yield request
        if log is not None:
            log.append(env.now)
        yield env.timeout(seconds)


def test_a_shrink_waits_for_work_in_progress(env, line):
    """test_dynamic_capacity_decrease_while_busy."""
    lathe = DynamicResource(env, "L", "lathe")
    env.process(hold(env, lathe, 10))
    env.process(hold(env, lathe, 10))
    env.run(until=1)
    assert lathe.pool.level == 0
    line.update("L.resources.lathe.current_cap", 1)
    env.run(until=1.1)
    assert (lathe.capacity, lathe.pool.level, lathe.in_use) == (1, 0, 2)
    env.run(until=12)
    assert lathe.pool.level == 1


def test_a_shrink_never_makes_use_negative_nor_grants_above_the_new_capacity(env, line):
    """Case 7: in_use -3 after 5 -> 0, and a grant while 5 are busy against a capacity of 2."""
    line.update("L.resources.lathe.current_cap", 5)
    lathe = DynamicResource(env, "L", "lathe")
    for seconds in (2, 4, 6, 8, 10):
        env.process(hold(env, lathe, seconds))
    env.run(until=1)
    line.update("L.resources.lathe.current_cap", 2)
    granted = []
    env.process(hold(env, lathe, 1, granted))
    seen = []
    while env.peek() < float("inf"):
        env.step()
        seen.append(lathe.in_use)
    assert granted == [8.0]  # the fourth of five has gone: one of two units is free
    assert min(seen) == 0
    line.update("L.resources.lathe.current_cap", 0)
    assert (lathe.in_use, lathe.capacity, lathe.pool.level) == (0, 0, 0)


def test_an_abandoned_request_is_gone(env, line):
    """Case 20: 9,990 of 10,000 stayed queued."""
    lathe = DynamicResource(env, "L", "lathe")

    def impatient():
        with lathe.request() as request:
            yield request | env.timeout(1)

    env.process(hold(env, lathe, 100))
    env.process(hold(env, lathe, 100))
    for _ in range(500):
        env.process(impatient())
    env.run(until=50)
    assert (len(lathe.queue.items), lathe.in_use) == (0, 2)


# ---------------------------------------------------------------- container: test_container.py; store: test_store.py
def test_a_container_holds_what_is_put_in(env, line):
    """test_container_initialization, test_basic_put_get."""
    tank = DynamicContainer(env, "L", "tank", init=10.0)
    assert (tank.capacity, tank.level) == (50.0, 10.0)

    def flow():
        yield tank.put(20.0)
        yield env.timeout(5)
        yield tank.get(15.0)

    env.process(flow())
    env.run(until=1)
    assert tank.level == 30.0
    env.run(until=10)
    assert tank.level == 15.0


def test_a_larger_container_takes_what_waits(env, line):
    """test_dynamic_capacity_increase of the container."""
    tank = DynamicContainer(env, "L", "tank", init=40.0)

    def producer():
        yield tank.put(30.0)

    env.process(producer())
    env.run(until=5)
    assert tank.level == 40.0
    line.update("L.containers.tank.current_cap", 100.0)
    env.run(until=5.1)
    assert (tank.capacity, tank.level) == (100.0, 70.0)


def test_a_container_shrinks_around_what_is_inside(env, line):
    """test_capacity_shrinkage_paradox of the container: nothing is destroyed, puts wait, gets do not."""
    tank = DynamicContainer(env, "L", "tank", init=50.0)
    line.update("L.containers.tank.current_cap", 7.75)
    finish_instant(env)
    assert (tank.capacity, tank.level) == (7.75, 50.0)
    line.update("L.containers.tank.current_cap", 30.0)

    def producer():
        yield tank.put(10.0)

    def consumer():
        yield tank.get(30.0)

    env.process(producer())
    env.run(until=5)
    assert tank.level == 50.0
    env.process(consumer())
    env.run(until=6)
    assert tank.level == 30.0


def test_a_store_shrinks_around_what_is_inside(env, line):
    """test_capacity_shrinkage_paradox of the store."""
    shelf = DynamicStore(env, "L", "shelf")

    def producer():
        for item in "abc":
            yield shelf.put(item)

    def consumer(count):
        for _ in range(count):
            yield shelf.get()

    env.process(producer())
    env.run(until=1)
    assert shelf.items == ["a", "b"]
    line.update("L.stores.shelf.current_cap", 1)
    env.process(consumer(1))
    env.run(until=2)
    assert (shelf.capacity, shelf.items) == (1, ["b"])
    env.process(consumer(1))
    env.run(until=3)
    assert shelf.items == ["c"]


def test_a_store_with_priority_gives_the_least_first(env, line):
    """test_store priority."""
    shelf = DynamicStore(env, "L", "shelf", priority=True)
    got = []

    def process():
        yield shelf.put(2)
        yield shelf.put(1)
        got.append((yield shelf.get()))

    env.process(process())
    env.run(until=1)
    assert got == [1]


# ---------------------------------------------------------------- sampler, parameters, schemas
def test_without_a_generator_a_sampler_gives_the_mean():
    """test_sampler_deterministic_fallback."""
    sampler = Sampler(rng=None)
    assert sampler.sample(DistributionConfig(dist="exponential", rate=0.1)) == 10.0
    assert sampler.sample(DistributionConfig(dist="normal", mean=5.0, std=1.0)) == 5.0
    assert sampler.sample(DistributionConfig(dist="lognormal", mean=3.0, std=0.5)) == 3.0


def test_a_short_delay_is_cut():
    """test_sampler_min_delay_clipping, test_sampler_invalid_config."""
    sampler = Sampler(np.random.default_rng(42))
    assert sampler.sample(DistributionConfig(dist="normal", mean=-5.0, std=1.0), min_delay=0.1) == 0.1
    assert sampler.sample(DistributionConfig(dist="normal", mean=None, std=None), min_delay=0.5) == 0.5


def test_a_sampler_draws_what_numpy_draws():
    """test_sampler_stochastic_exponential, test_sampler_stochastic_lognormal: the means, and the published draws."""
    sampler, twin = Sampler(np.random.default_rng(7)), np.random.default_rng(7)
    fast = DistributionConfig(dist="exponential", rate=0.5)
    drawn = [sampler.sample(fast) for _ in range(1000)]
    assert drawn == pytest.approx([max(1e-5, twin.exponential(2.0)) for _ in range(1000)], abs=1e-9)
    wide = DistributionConfig(dist="lognormal", mean=10.0, std=2.0)
    assert 9.5 < np.mean([sampler.sample(wide) for _ in range(1000)]) < 10.5


@pytest.mark.parametrize(
    "parameters",
    [
        {"dist": "normal", "mean": float("nan"), "std": 1.0},
        {"dist": "normal", "mean": 1.0, "std": -1.0},
        {"dist": "exponential", "rate": -1.0},
        {"dist": "poisson", "rate": 1.0},
    ],
)
def test_a_distribution_without_sense_is_refused_where_it_is_made(parameters):
    """Cases 2 and 4 of the faults."""
    with pytest.raises(ValueError, match=";"):
        DistributionConfig(**parameters)


def test_parameters_are_documents_with_attributes():
    """test_params: keyword construction, defaults, assignment."""
    config = DistributionConfig("normal", mean=5.0, std=1.0)
    config.mean = 6.0
    param = SimParameter(sim_id="L", service={"a": config})
    assert param.service["a"].mean == 6.0
    assert (param.arrival, param.variables, CapacityConfig(1, 5).max_cap) == ({}, {}, 5)


def test_payloads_are_checked_at_edges():
    """test_schemas: both payloads, and what they refuse."""
    stamps = {"sim_ts": 1.0, "timestamp": "2026-01-01T00:00:00.000"}
    assert TelemetryPayload(path_id="a", value=1, **stamps).stream_type == "telemetry"
    assert EventPayload(key="a", value={"b": 1}, **stamps).model_dump()["value"] == {"b": 1}
    with pytest.raises(ValidationError):
        EventPayload(value={}, **stamps)


class Part(BaseModel):
    path_id: str
    number: int


def test_extract_dict_takes_models_and_mappings():
    """test_extract_dict_helper."""
    assert extract_dict({"a": 1}) == {"a": 1}
    assert extract_dict(Part(path_id="L", number=2)) == {"path_id": "L", "number": 2}


@pytest.mark.parametrize(
    ("text", "seconds"), [("1 week", 604_800), ("2.5 hours", 9_000), (" 30 MINS ", 1_800), ("1mo", 2_592_000)]
)
def test_durations_as_text(text, seconds):
    """test_utils time_to_seconds."""
    assert time_to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1 h", "1 fortnight", "1 h 5 m"])
def test_a_text_that_is_no_duration_is_a_value_error(text):
    """test_utils time_to_seconds, the refused ones."""
    with pytest.raises(ValueError, match="time"):
        time_to_seconds(text)


# ---------------------------------------------------------------- local connectors: test_local_connectors.py
def test_a_local_ingress_alone_puts_its_schedule_in_order():
    """test_local_ingress."""
    updates = queue.Queue()
    asyncio.run(LocalIngress([(0.002, "b", 10), (0.001, "a", 5)]).run(updates))
    assert [updates.get_nowait(), updates.get_nowait()] == [("a", 5), ("b", 10)]


@pytest.mark.parametrize("entry", [(0.5, "a"), (0.5, "a", 1, 2), (0.5, ["a"], 1), 7])
def test_a_schedule_entry_that_is_none_is_refused_where_it_is_written(entry):
    """Case 1: there it ended the run when its time came."""
    with pytest.raises(OperatorError, match=r"it is \(seconds, path, value\)"):
        LocalIngress([(0, "a", 1), entry])


def test_a_console_egress_writes_lines_of_the_log(caplog):
    """test_console_egress."""
    caplog.set_level(logging.INFO)
    batches = queue.Queue()
    batches.put(
        [
            {"stream_type": "telemetry", "path_id": "test", "value": 1},
            {"stream_type": "event", "key": "task-1", "value": {"status": "ok"}},
        ]
    )

    async def run():
        task = asyncio.create_task(ConsoleEgress().run(batches))
        while len(caplog.records) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert "[TEL] {'path_id': 'test', 'value': 1}" in caplog.text
    assert "[EVT] {'key': 'task-1', 'value': {'status': 'ok'}}" in caplog.text


# ---------------------------------------------------------------- environment: test_environment.py
def test_teardown_after_a_run_is_clean(env):
    """test_environment_clean_teardown."""
    env.setup_egress([Recorder()])
    env.run(until=1)
    env.teardown()
    env.teardown()


START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_telemetry_record_has_the_published_keys_and_no_others():
    """test_publish_telemetry."""
    env, recorder = DynamicRealtimeEnvironment(factor=0, logical_start_time=START), Recorder()
    env.setup_egress([recorder], batch_size=1)
    env.publish_telemetry("L.lathe.utilization", 85.5)
    env.teardown()
    [[record]] = recorder.batches
    assert record == {
        "stream_type": "telemetry",
        "sim_ts": 0.0,
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "path_id": "L.lathe.utilization",
        "value": 85.5,
    }


def test_an_event_record_has_the_published_keys_and_no_others():
    """test_publish_event, with a start without a zone."""
    naive = START.replace(tzinfo=None)
    env, recorder = DynamicRealtimeEnvironment(factor=0, logical_start_time=naive), Recorder()
    env.setup_egress([recorder], batch_size=1)

    def process():
        yield env.timeout(1.23456)
        env.publish_event("task-001", {"status": "started"})

    env.process(process())
    env.run(until=2)
    env.teardown()
    [[record]] = recorder.batches
    assert record == {
        "stream_type": "event",
        "sim_ts": 1.235,
        "timestamp": "2026-01-01T00:00:01.234",
        "key": "task-001",
        "value": {"status": "started"},
    }
    EventPayload(**record)


def test_publishing_without_egress_is_nothing(env):
    """test_environment publish without egress."""
    env.publish_event("a", {})
    env.publish_telemetry("a", 1)
    assert env.drain() == []


# ---------------------------------------------------------------- context: test_context.py
def test_what_needs_a_run_says_so_before_it():
    """test_runtime_errors_before_build, with the published wording."""
    app = SimulationContext("L")
    for call, wording in (
        (lambda: app.get_resource("a"), "not instantiated until context is run"),
        (lambda: app.spawn(None), "Cannot spawn processes before context is run"),
        (lambda: app.publish("a", 1), "Cannot publish telemetry before context is run"),
        (lambda: app.wait_for_arrival("a"), "Cannot sample arrival before context is run"),
        (lambda: app.env, "Environment is not attached until context is run"),
    ):
        with pytest.raises(RuntimeError, match=wording):
            call()
    assert app.sampler is None


def test_a_context_runs_its_loops_and_tasks():
    """test_lightweight_integration, test_builder_state_management."""
    app = (
        SimulationContext("L", factor=0.0, random_seed=3)
        .add_resource("lathe", 1)  # the published guide leaves max_cap out
        .add_container("wear", current_cap=10.0, max_cap=100.0)
        .add_store("shelf", 3)
        .add_variable("base_temp", 1200.0)
        .add_service("milling", "exponential", rate=10.0)
        .add_arrival("usual", "exponential", rate=5.0)
        .with_batching(batch_size=100, flush_interval=0.5)
    )
    recorder, seen = Recorder(), {}
    app.add_egress(recorder)

    @app.task(service_id="milling", resource_id="lathe")
    def mill(part):
        return {"status": "ok", "part": part}

    @app.arrival_loop("usual")
    def feed(context):
        seen["noise"] = context.sampler.rng.normal(0, 1)
        for part in range(3):
            yield context.wait_for_arrival("usual")
            context.spawn(mill(part))

    @app.telemetry_loop(interval=1.0)
    def vitals(context):
        seen["temp"] = context.env.registry.get("L.variables.base_temp").value
        seen["wear"] = context.get_container("wear").capacity
        context.publish("in_use", context.get_resource("lathe").in_use)

    job = mill(0)
    with pytest.raises(RuntimeError, match="has not been built yet"):
        next(job)
    app.run(until="10 seconds")
    assert (seen["temp"], seen["wear"]) == (1200.0, 10.0)
    lifecycle = [record["value"]["lifecycle"] for record in recorder.records if record.get("key") == "task-2"]
    assert lifecycle == ["queued", "started", "finished"]
    done = [one["value"] for one in recorder.records if one.get("key") == "task-2"][-1]
    assert done == {"path_id": "L.service.milling", "status": "ok", "part": 2, "lifecycle": "finished"}
    assert [one["path_id"] for one in recorder.records if one["stream_type"] == "telemetry"] == ["L.in_use"] * 10


def test_all_published_names_are_there():
    """The table of names: the 13, and those that needed an extra."""
    published = [
        "DynamicRealtimeEnvironment",
        "Sampler",
        "SimulationContext",
        "SimulationRegistry",
        "DynamicResource",
        "SimParameter",
        "DistributionConfig",
        "CapacityConfig",
        "LocalIngress",
        "ConsoleEgress",
        "EventPayload",
        "TelemetryPayload",
        "time_to_seconds",
        "KafkaAdminConnector",
        "KafkaEgress",
        "KafkaIngress",
        "JsonlStorageEgress",
        "ParquetStorageEgress",
        "PostgresEgress",
        "PostgresIngress",
        "RedisEgress",
        "RedisIngress",
    ]
    assert {*published} <= {*dynamic_des.__all__}
    assert all(hasattr(dynamic_des, name) for name in dynamic_des.__all__)
