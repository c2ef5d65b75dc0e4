"""A Kafka cluster from the operator's side: make topics, send changes to a twin, watch what it publishes.

Apart from the twin: it needs neither journal nor model, and what it collects is a view, kept in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from tidewarp.connect.backends.kafka_client import TOPIC_NAME, Cluster
from tidewarp.errors import OperatorError

__all__ = ["KafkaAdmin"]

CREATED: Final = "created"
EXISTS: Final = "exists"

_ANSWER_S = 5.0
_POLL_S = 0.1
_BATCH = 500
_VITALS_MAX, _SERVICES_MAX, _STATUSES_MAX = 100_000, 1_000, 32  # what comes from outside has a bound
_KEPT = ("group.id", "enable.auto.commit")
_json = msgspec.json.Encoder().encode


class KafkaAdmin:
    """Administers topics, sends configuration, and collects the vitals and the tasks of the twins that publish to topics.

    Args:
        bootstrap_servers: ``host:port``, several with commas, or a list.
        max_tasks: how many tasks are kept of each service; the oldest is dropped for a new one.
        config: settings of librdkafka, such as ``security.protocol``.

    ``malformed`` counts the messages that :meth:`collect` could not read, ``evicted`` what it dropped for something newer.
    """

    def __init__(
        self, bootstrap_servers: str | Sequence[str], max_tasks: int = 100, config: Mapping[str, Any] = {}
    ) -> None:
        if max_tasks < 1:
            raise OperatorError(f"max_tasks={max_tasks}", "one task of a service is kept at least", "give 1 or more")
        self._cluster = Cluster("kafka admin", bootstrap_servers, config, _KEPT)
        self._max_tasks = max_tasks
        self._vitals: dict[str, Any] = {}
        self._tasks: dict[
            tuple[str, str], dict[str, dict[str, Any]]
        ] = {}  # (sim, service) -> task -> status -> timestamp
        self._producer: Any = None
        self.malformed = self.evicted = 0

    # ------------------------------------------------------------------ topics and configuration
    def create_topics(self, specs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Create topics: ``{"name", "partitions": 1, "replication": 1, "config": {}}`` each. Blocks for some seconds at most.

        Returns:
            name -> "created", "exists", or "refused: " and the reason, for each of them.

        Raises:
            OperatorError: a specification is wrong. ConnectionError: no broker answers.
        """
        driver = self._cluster.driver()
        wanted = [self._topic(spec) for spec in specs]
        admin = self._cluster.admin()
        self._cluster.reach(admin)
        results: dict[str, str] = {}
        for name, future in (admin.create_topics(wanted, request_timeout=_ANSWER_S) if wanted else {}).items():
            try:
                future.result(_ANSWER_S)
                results[name] = CREATED
            except driver.KafkaException as error:
                told = error.args[0]
                exists = told.code() == driver.KafkaError.TOPIC_ALREADY_EXISTS
                results[name] = EXISTS if exists else f"refused: {self._cluster.redacted(told.str())}"
        return results

    def _topic(self, spec: Mapping[str, Any]) -> Any:
        known = {"name", "partitions", "replication", "config"}
        name = spec.get("name")
        if not isinstance(name, str) or not TOPIC_NAME.fullmatch(name) or spec.keys() - known:
            raise OperatorError(
                f"topic {dict(spec)!r:.200}", f"it has a name, and of {sorted(known)} no other", "correct it"
            )
        partitions, copies = spec.get("partitions", 1), spec.get("replication", 1)
        return self._cluster.driver().admin.NewTopic(name, partitions, copies, config=dict(spec.get("config", {})))

    async def send_config(self, topic: str, path: str, value: Any) -> None:
        """Send a change to whoever reads ``topic``: ``{"path_id": path, "value": value}``; the broker has it on return.

        Raises:
            OperatorError: no such topic, or a value that JSON cannot say. ConnectionError: no broker took it.
        """
        try:
            message = _json({"path_id": path, "value": value})
        except (TypeError, ValueError) as error:
            raise OperatorError(
                f"value of {path}: {error}", "it is plain: text, number, list, object", "send one"
            ) from None
        await asyncio.to_thread(self._send, topic, path.encode(), message)

    def _send(self, topic: str, key: bytes, message: bytes) -> None:
        cluster = self._cluster
        if self._producer is None:
            producer = cluster.producer({}, {"enable.idempotence": True})
            cluster.reach(producer)
            self._producer = producer
        cluster.partitions(self._producer, topic)
        reports: list[Any] = []
        try:
            self._producer.produce(topic, message, key, on_delivery=lambda error, _: reports.append(error))
            self._producer.flush(_ANSWER_S)
        except cluster.driver().KafkaException as error:
            raise cluster.translated(error.args[0]) from None
        if not reports or reports[0] is not None:
            self._producer = None
            raise cluster.translated(reports[0]) if reports else ConnectionError(f"{cluster.target}: no answer")

    # ------------------------------------------------------------------ collecting
    async def collect(self, topics: str | Sequence[str], start: str = "latest") -> None:
        """Keep ``vitals`` and ``state`` up to date with what is published to ``topics``, until it is cancelled.

        Args:
            topics: those of telemetry and of events.
            start: "latest": what is published from now on; "earliest": all that the topics hold.
        """
        if start not in ("latest", "earliest"):
            raise OperatorError(f"start={start!r}", "it is 'latest' or 'earliest'", "give one of them")
        names = [topics] if isinstance(topics, str) else list(topics)
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="tidewarp-kafka-admin")
        consumer: Any = None
        try:
            consumer = await loop.run_in_executor(thread, self._consumer)
            await loop.run_in_executor(thread, self._assign, consumer, names, start)
            while True:
                for message in await loop.run_in_executor(thread, consumer.consume, _BATCH, _POLL_S):
                    self._take(message)
                if isinstance(self._cluster.failure, OperatorError):  # all else the client mends by itself
                    raise self._cluster.failure
        finally:
            if consumer is not None:
                await loop.run_in_executor(thread, consumer.close)
            thread.shutdown(wait=False)

    def _consumer(self) -> Any:
        return self._cluster.consumer(
            {"group.id": "tidewarp-admin", "enable.auto.commit": False},  # the driver asks for a group; it joins none
            {"auto.offset.reset": "earliest", "isolation.level": "read_committed"},
        )

    def _assign(self, consumer: Any, topics: Sequence[str], start: str) -> None:
        cluster = self._cluster
        cluster.reach(consumer)
        make = cluster.driver().TopicPartition
        places = [make(topic, number) for topic in topics for number in cluster.partitions(consumer, topic)]
        try:
            for place in places:
                low, high = consumer.get_watermark_offsets(place, timeout=_ANSWER_S)
                place.offset = high if start == "latest" else low
        except cluster.driver().KafkaException as error:
            raise cluster.translated(error.args[0]) from None
        consumer.assign(places)

    def _take(self, message: Any) -> None:
        if message.error() is not None:
            failure = self._cluster.translated(message.error())
            if isinstance(failure, OperatorError):
                raise failure
            return  # the client mends it by itself
        try:
            record = msgspec.json.decode(message.value() or b"")
            value = record["value"]
            if isinstance(record.get("path_id"), str):
                self._put(self._vitals, record["path_id"], value, _VITALS_MAX)
            elif isinstance(value, dict) and "status" in value:
                self._take_task(record["key"], value["status"], value["path_id"].split("."), record.get("timestamp"))
            else:
                record["key"]  # an event that is no task's
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
            self.malformed += 1

    def _take_task(self, task: Any, status: Any, path: list[str], timestamp: Any) -> None:
        """An event of a task: its path is ``{sim}.service.{service}``."""
        if type(task) is not str or type(status) is not str:
            raise TypeError(task, status)
        tasks = self._tasks.get((path[0], path[2]))
        if tasks is None:
            self._put(self._tasks, (path[0], path[2]), tasks := {}, _SERVICES_MAX)
        if task not in tasks:
            self._put(tasks, task, {}, self._max_tasks)
        self._put(tasks[task], status, timestamp, _STATUSES_MAX)

    def _put(self, kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
        if key not in kept and len(kept) >= most:
            del kept[next(iter(kept))]
            self.evicted += 1
        kept[key] = value

    # ------------------------------------------------------------------ what was collected
    @property
    def vitals(self) -> dict[str, Any]:
        """Path -> the last value that was published."""
        return dict(self._vitals)

    @property
    def state(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """Sim -> service -> task -> status -> the timestamp of its event; at most ``max_tasks`` of a service."""
        sims: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        for (sim, service), tasks in self._tasks.items():
            sims.setdefault(sim, {})[service] = {task: dict(statuses) for task, statuses in tasks.items()}
        return sims
