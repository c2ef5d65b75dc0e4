"""KafkaAdmin: topics one by one, changes that a twin reads, vitals and tasks of what twins publish."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import kafka_driver as kafka
import pytest

from tidewarp.connect import KafkaAdmin, sources
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing.servers.kafka import USER, KafkaServer
from tidewarp.testing.suites import perform


def event(task: str, status: str, timestamp: str, path: str = "Line_A.service.milling") -> bytes:
    value = {"path_id": path, "status": status}
    return json.dumps({"key": task, "value": value, "timestamp": timestamp}).encode()


def collected(admin: KafkaAdmin, topics: list[str], until: Callable[[], bool], **options: Any) -> None:
    """Collect until the condition holds."""

    async def run() -> None:
        task = asyncio.ensure_future(admin.collect(topics, **options))
        while not until() and not task.done():
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    perform(run())


def test_topics_are_reported_one_by_one(kafka_broker: KafkaServer) -> None:
    """One that exists, one that is made, one that the broker refuses: each has its word, and none hides another."""
    admin = KafkaAdmin(kafka_broker.bootstrap)
    there = kafka.new_topic(kafka_broker)
    specs = [
        {"name": there},
        {"name": f"{there}.new", "partitions": 3, "replication": 1, "config": {"cleanup.policy": "compact"}},
        {"name": f"{there}.many", "replication": 7},
    ]
    results = admin.create_topics(specs)
    assert (results[there], results[f"{there}.new"]) == ("exists", "created")
    assert results[f"{there}.many"].startswith("refused: ")
    assert admin.create_topics(specs[:2]) == {there: "exists", f"{there}.new": "exists"}
    kafka.send(kafka_broker, f"{there}.new", b"x", partition=2, key=b"k")
    assert admin.create_topics([]) == {}


@pytest.mark.parametrize("spec", [{}, {"name": "a b"}, {"name": 7}, {"name": "a", "partition": 3}])
def test_a_wrong_specification_is_refused(spec: dict[str, Any]) -> None:
    """Before anything is made."""
    with pytest.raises(OperatorError):
        KafkaAdmin("localhost:1").create_topics([spec])


def test_a_config_that_was_sent_is_what_a_source_reads(kafka_broker: KafkaServer) -> None:
    """On return the broker has it; a Kafka source decodes it to the change of that path."""
    topic = kafka.new_topic(kafka_broker)
    admin = KafkaAdmin(kafka_broker.bootstrap)
    source = sources.kafka(topic, bootstrap_servers=kafka_broker.bootstrap, group_id=topic, config=kafka.QUICK)

    async def run() -> Any:
        await admin.send_config(topic, "Line_A.resources.lathe.current_cap", 3)
        await admin.send_config(topic, "Line_A.variables.mode", {"a": [None, "é"]})
        try:
            await source.open({})
            raws = [*await source.read(1), *await source.read(1)]
            return [source.decoder(0).decode(raw).changes for raw in raws]
        finally:
            await source.close()

    assert perform(run()) == [
        (("Line_A.resources.lathe.current_cap", 3),),
        (("Line_A.variables.mode", {"a": [None, "é"]}),),
    ]


def test_what_cannot_be_sent_says_so(kafka_broker: KafkaServer) -> None:
    """No such topic; a value that JSON cannot say; no broker there."""
    admin = KafkaAdmin(kafka_broker.bootstrap)
    for topic, value in (("there.is.no.such.topic", 1), ("any", object())):
        with pytest.raises(OperatorError):
            perform(admin.send_config(topic, "a.b", value))


def test_vitals_and_tasks_are_collected(kafka_broker: KafkaServer) -> None:
    """The last value of each path, and by sim and service the times of each task's events; what is neither is passed over."""
    topics = [kafka.new_topic(kafka_broker) for _ in range(2)]
    for value in (0.25, 0.75):
        kafka.send(kafka_broker, topics[0], json.dumps({"path_id": "Line_A.lathe.use", "value": value}).encode())
    kafka.send(kafka_broker, topics[1], event("task-1", "queued", "t0"), event("task-1", "started", "t1"))
    kafka.send(kafka_broker, topics[1], event("task-2", "queued", "t2", "Line_B.service.turning"))
    kafka.send(kafka_broker, topics[1], b'{"key": "alarm", "value": 7}', b'{"key": "alarm", "value": {"level": 2}}')
    kafka.send(kafka_broker, topics[1], event("task-3", "queued", "t3"))
    admin = KafkaAdmin(kafka_broker.bootstrap)
    collected(
        admin,
        topics,
        lambda: (
            "task-3" in admin.state.get("Line_A", {}).get("milling", {})
            and admin.vitals.get("Line_A.lathe.use") == 0.75
        ),
        start="earliest",
    )
    assert admin.vitals == {"Line_A.lathe.use": 0.75}
    assert admin.state == {
        "Line_A": {"milling": {"task-1": {"queued": "t0", "started": "t1"}, "task-3": {"queued": "t3"}}},
        "Line_B": {"turning": {"task-2": {"queued": "t2"}}},
    }
    assert (admin.malformed, admin.evicted) == (0, 0)
    admin.state["Line_A"].clear()
    assert admin.state["Line_A"], "what is returned is a copy"


def test_the_oldest_task_makes_room(kafka_broker: KafkaServer) -> None:
    """max_tasks of a service are kept, those that came last; what was dropped is counted."""
    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, *(event(f"task-{n}", "queued", f"t{n}") for n in range(10)))
    admin = KafkaAdmin(kafka_broker.bootstrap, max_tasks=3)
    collected(admin, [topic], lambda: admin.evicted == 7, start="earliest")
    assert [*admin.state["Line_A"]["milling"]] == ["task-7", "task-8", "task-9"]


def test_malformed_messages_are_counted_and_end_nothing(kafka_broker: KafkaServer) -> None:
    """Whatever the bytes are, the next good message arrives."""
    topic = kafka.new_topic(kafka_broker)
    bad = [
        b"",
        b"\xff",
        b"{",
        b"[" * 50_000,
        b"7",
        b"[]",
        b"{}",
        b'{"value": {"status": 1, "path_id": "a.b.c"}, "key": "k"}',
        b'{"value": {"status": "s", "path_id": "a.b"}, "key": "k"}',
        b'{"value": {"status": "s", "path_id": 7}, "key": "k"}',
        b'{"value": {"status": "s", "path_id": "a.b.c"}, "key": ["k"]}',
    ]
    kafka.send(kafka_broker, topic, *bad, None, event("task-1", "queued", "t0"))
    admin = KafkaAdmin(kafka_broker.bootstrap)
    collected(admin, [topic], lambda: bool(admin.state), start="earliest")
    assert admin.malformed == len(bad) + 1
    assert admin.state == {"Line_A": {"milling": {"task-1": {"queued": "t0"}}}}


def test_latest_collects_what_comes_from_now_on(kafka_broker: KafkaServer) -> None:
    """The default: what the topic held before is not shown."""
    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, event("old", "queued", "t0"))
    admin = KafkaAdmin(kafka_broker.bootstrap)
    number = iter(range(10_000))

    def asked() -> bool:
        kafka.send(kafka_broker, topic, event(f"new-{next(number)}", "queued", "t1"))
        return bool(admin.state)

    collected(admin, [topic], asked)
    assert all(task.startswith("new-") for task in admin.state["Line_A"]["milling"])


def test_a_wrong_password_says_so_and_shows_none(kafka_broker: KafkaServer) -> None:
    """An OperatorError without what was given, from each method that connects."""
    sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": USER}
    admin = KafkaAdmin(kafka_broker.sasl_bootstrap, config={**sasl, "sasl.password": "hunter2"})
    for call in (
        lambda: admin.create_topics([{"name": "a"}]),
        lambda: perform(admin.send_config("a", "b.c", 1)),
        lambda: perform(admin.collect(["a"])),
    ):
        with pytest.raises(OperatorError) as told:
            call()
        assert "hunter2" not in f"{told.value} {admin!r}"


def test_without_the_package_the_error_is_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an admin needs no package; using it does."""
    admin = KafkaAdmin("localhost:1")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[kafka\]'"):
        admin.create_topics([{"name": "a"}])
