"""Outputs as messages of Kafka topics, each of them once.

How "once" is reached: a batch, and the id of its last output, are written by one transaction (``kafka_progress``). When the
sink is opened, ``init_transactions`` ends what a former life left open and fences it, and only then is the last id read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from tidewarp.connect.backends.kafka_client import TOPIC_NAME, Cluster
from tidewarp.connect.backends.kafka_progress import PROGRESS_TOPIC, Progress, make_topic, read_progress
from tidewarp.connect.contract import Observation, Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import event_payload, nonfinite, observation_payload
from tidewarp.connect.serializers import Json, Serializer
from tidewarp.errors import InternalError, ModelError, OperatorError, PeerError
from tidewarp.observe import stage

__all__ = ["KafkaSink"]

_ANSWER_S = 5.0  # what a broker has not answered by then, it is asked again on a new connection
_TRANSACTION_MS = 15_000  # as long, at most, does one that was killed hide what is behind it
_FAREWELL_S = 1.0
_POLL_S = 0.1
_KEPT = ("transactional.id", "enable.idempotence", "acks", "request.required.acks", "delivery.report.only.error")
# What the broker refuses of a record whenever it is sent. Names of KafkaError.
_REFUSALS = ("MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "INVALID_MSG_SIZE", "INVALID_TIMESTAMP")
_FENCED = ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")

_json = msgspec.json.Encoder().encode
T = TypeVar("T")


class _Record(NamedTuple):
    id: str
    topic: str
    key: bytes
    value: bytes


class KafkaSink(Sink):
    """Sends each output as one message: value = the JSON of ``event_payload`` without ``stream_type``, key = its key or path.

    A header ``tw-id`` holds the id of the output. Events go to ``event_topic``, telemetry to ``telemetry_topic``.

    Args:
        bootstrap_servers: ``host:port``, several with commas, or a list.
        telemetry_topic: where telemetry goes. It has to exist, unless the broker makes it.
        event_topic: where events go, likewise.
        router: record -> topic, None to drop the output. The record has ``stream_type``. One that raises, or returns what is no
            name of a topic, is not asked further for that record: it goes to its usual topic.
        serializers: topic -> serializer, where it is not ``default``.
        default: the serializer of all other topics; None: JSON.
        config: settings of librdkafka, such as ``security.protocol`` or ``message.max.bytes``.
        delivery: "once": a transaction for each batch; consumers with ``isolation.level=read_committed``, the default of
            most, see each output once. "at_least_once": every delivery report is awaited, and a crash may double some.
        name: of the sink in the journal; two sinks of a twin on one cluster need two.

    Counted: ``dropped`` by the router, ``misrouted`` (it failed), ``nonfinite`` numbers that became null.
    Raises OperatorError when it is opened and a topic is missing or the credentials are wrong, and when another process has
    opened the sink of the same run since.
    """

    kind = "kafka"

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        telemetry_topic: str = "sim-telemetry",
        event_topic: str = "sim-events",
        router: Callable[[Mapping[str, Any]], str | None] | None = None,
        serializers: Mapping[str, Serializer] = {},
        default: Serializer | None = None,
        config: Mapping[str, Any] = {},
        delivery: str = "once",
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else self.kind
        self.delivery = delivery
        what = f"kafka sink {self.name!r}"
        if delivery not in ("once", "at_least_once"):
            raise OperatorError(f"{what}: delivery={delivery!r}", "it is 'once' or 'at_least_once'", "give one of them")
        for topic in (telemetry_topic, event_topic):
            if not TOPIC_NAME.fullmatch(topic):
                raise OperatorError(f"{what}: topic {topic!r:.300}", "letters, digits and . _ - make it", "correct it")
        self._cluster = Cluster(what, bootstrap_servers, config, _KEPT)
        self._topics = {"event": event_topic, "telemetry": telemetry_topic}
        self._router, self._serializers, self._default = router, dict(serializers), default or Json()
        # A schema may fit the value alone: a retraction would be written as what it retracts.
        self.takes_early = all(isinstance(one, Json) for one in (self._default, *self._serializers.values()))
        self.dropped = self.misrouted = self.nonfinite = 0
        self._run = RunIdentity("", 0)
        self._thread: ThreadPoolExecutor | None = None
        self._producer: Any = None
        self._observer: Any = None  # a producer of its own, without transactions
        self._life: int | None = None  # of this object; None before it is opened
        self._known: set[str] = set()  # topics that are there
        self._reports: dict[str, Any] = {}  # id -> KafkaError or None, of what is under way

    # ------------------------------------------------------------------ life
    def counts(self) -> dict[str, int]:
        """Numbers that became null, and what the router dropped or could not say."""
        return {"nonfinite": self.nonfinite, "dropped": self.dropped, "misrouted": self.misrouted}

    async def open(self, run: RunIdentity) -> str | None:
        """Connect and fence a former life; the last id that Kafka holds, None for at_least_once."""
        self._run = run
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=f"tidewarp-{self.name}-kafka")
        return await self._do(self._connect)

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """One transaction, or all delivery reports."""
        return await self._do(partial(self._write, batch))

    async def observe(self, rows: Sequence[Observation]) -> None:
        """Produce a message for each to the topic of telemetry (or where the router says), outside of any transaction."""
        await self._do(partial(self._observe, rows))

    async def close(self) -> None:
        """Disconnect."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._drop)
            thread.shutdown(wait=False)

    async def _do(self, job: Callable[[], T]) -> T:
        if self._thread is None:
            raise InternalError(f"sink {self.name!r}", "a sink is opened before it is used", "report this")
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    @property
    def _is_once(self) -> bool:
        return self.delivery == "once"

    @property
    def _key(self) -> str:
        return f"{self._run.domain}/{self.name}"

    # ------------------------------------------------------------------ in the thread: connecting
    def _connect(self) -> str | None:
        self._drop()
        cluster = self._cluster
        fixed: dict[str, Any] = {"enable.idempotence": True}
        usual: dict[str, Any] = {"compression.type": "lz4", "linger.ms": 10}
        if self._is_once:
            fixed["transactional.id"] = f"tidewarp/{self._key}"
            usual["transaction.timeout.ms"] = _TRANSACTION_MS
        self._producer = cluster.producer(fixed, usual)
        cluster.reach(self._producer)
        if self._router is None:
            for topic in self._topics.values():
                self._require(topic)
        if not self._is_once:
            return None
        make_topic(cluster, self._producer)
        if self._life is not None and read_progress(cluster, self._key.encode()).life > self._life:
            raise self._replaced()
        try:
            self._producer.init_transactions(_ANSWER_S)
        except cluster.driver().KafkaException as error:
            raise self._lost(error.args[0]) from None
        held = read_progress(cluster, self._key.encode())
        self._life = held.life + 1
        self._attempt([], held.id)  # from here on a former life that is fenced knows why
        return held.id

    def _require(self, topic: str) -> None:
        if topic not in self._known:
            self._cluster.partitions(self._producer, topic)
            self._known.add(topic)

    def _drop(self) -> None:
        """Let go of the producer, at once: what it had under way counts as not delivered."""
        producer, self._producer, self._observer = self._producer, None, None
        self._known.clear()
        if producer is not None:
            producer.purge(blocking=False)
            producer.poll(0)
            try:
                if self._is_once:  # an open one hides from others what is behind it
                    producer.abort_transaction(_FAREWELL_S)
            except self._cluster.driver().KafkaException:
                pass  # there is none; or the next life, or the broker's own timeout, ends it
        self._reports = {}

    def _replaced(self) -> OperatorError:
        rule = "another process has opened this sink of the same run, and delivers in its place"
        return OperatorError(
            self._cluster.target, rule, "end one of the two; a copied journal needs a sink of another name"
        )

    # ------------------------------------------------------------------ in the thread: writing
    def _write(self, batch: Sequence[Output]) -> list[Refused]:
        if self._producer is None:
            held = self._connect()
            batch = [output for output in batch if output.id > (held or "")]
        if not batch:
            return []
        refused: list[Refused] = []
        records = [record for output in batch if (record := self._record(output, refused)) is not None]
        try:
            refused += self._deliver(records, batch[-1].id)
        except BaseException:
            self._drop()  # what was done is told by the next connection
            raise
        return refused

    def _deliver(self, records: Sequence[_Record], last: str) -> list[Refused]:
        """Deliver what can be; the refused ones are found by halving, since the broker refuses whole sets of records."""
        failed = self._attempt(records, last)
        if not failed:
            return []
        if len(records) == 1:
            return [Refused(records[0].id, self._cluster.redacted(failed[records[0].id].str()))]
        left = records if self._is_once else [record for record in records if record.id in failed]
        half = (len(left) + 1) // 2
        return self._deliver(left[:half], left[half - 1].id) + (self._deliver(left[half:], last) if left[half:] else [])

    def _attempt(self, records: Sequence[_Record], last: str) -> dict[str, Any]:
        """Send them; id -> error of those that the broker refuses for good: of a transaction then nothing is held."""
        if self._producer is None:
            self._connect()
        driver, producer = self._cluster.driver(), self._producer
        self._reports = {}
        try:
            if self._is_once:
                producer.begin_transaction()
            for record in records:
                self._produce(record)
                stage("release.inside")
            if self._is_once:
                self._produce(_Record("", PROGRESS_TOPIC, self._key.encode(), _json(Progress(last, self._life or 0))))
            self._flush()
            failed = self._failed()
            if self._is_once and failed:
                self._drop()  # it aborts; and what was refused has left a hole in the producer's numbering
            elif self._is_once:
                stage("release.inside")
                producer.commit_transaction(_ANSWER_S)
            return failed
        except driver.KafkaException as error:
            raise self._lost(error.args[0]) from None

    def _flush(self) -> None:
        """Wait for all delivery reports."""
        for _ in range(int(_ANSWER_S / _POLL_S)):
            if not self._producer.flush(_POLL_S):
                return
            if self._cluster.failure is not None:
                raise self._cluster.failure
        raise ConnectionError(f"{self._cluster.target}: {len(self._producer)} messages without a delivery report")

    def _produce(self, record: _Record) -> None:
        driver, reports = self._cluster.driver(), self._reports

        def report(error: Any, _: Any) -> None:
            reports[record.id] = error

        for _ in range(int(_ANSWER_S / _POLL_S)):
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers={"tw-id": record.id}, on_delivery=report
                )
            except BufferError:  # its queue is full
                self._producer.poll(_POLL_S)
            except driver.KafkaException as error:
                if error.args[0].code() != driver.KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                report(error.args[0], None)
                return
            else:
                return
        raise ConnectionError(f"{self._cluster.target}: its queue stays full")

    def _failed(self) -> dict[str, Any]:
        """Id -> error of what is refused for good. Raises for what failed otherwise."""
        kinds = self._cluster.driver().KafkaError
        refusals = {getattr(kinds, name) for name in _REFUSALS if hasattr(kinds, name)}
        failed = {record: error for record, error in self._reports.items() if error is not None}
        refused = {record: error for record, error in failed.items() if error.code() in refusals}
        if failed and not refused:
            raise self._lost(next(iter(failed.values())))
        return refused

    def _lost(self, error: Any) -> OSError | OperatorError:
        kinds = self._cluster.driver().KafkaError
        if error.code() in {getattr(kinds, name) for name in _FENCED}:
            # By another life, or by the broker, which ended a transaction that took too long: opening again tells.
            return ConnectionError(f"{self._cluster.target}: fenced ({error.name()})")
        return self._cluster.translated(error)

    # ------------------------------------------------------------------ in the thread: records
    def _record(self, output: Output, refused: list[Refused]) -> _Record | None:
        """The message of an output; None if the router drops it, or its serializer refuses it."""
        payload = event_payload(output, self._run)
        topic = self._route(payload, self._topics[output.stream])
        if topic is None:
            self.dropped += 1
            return None
        self._require(topic)
        payload.pop("stream_type", None)
        serializer = self._serializers.get(topic, self._default)
        try:
            value = serializer.serialize(topic, payload)
        except (OSError, OperatorError):  # a registry that does not answer, a package that is missing
            raise
        except Exception as error:  # anybody's code, about this record
            told = str(error) if isinstance(error, PeerError | ModelError) else f"{type(error).__name__}: {error}"
            refused.append(Refused(output.id, f"its serializer refuses it: {told:.300}"))
            return None
        if isinstance(serializer, Json):
            self.nonfinite += nonfinite(payload.get("value"))
        return _Record(output.id, topic, output.key.encode(), value)

    def _observe(self, rows: Sequence[Observation]) -> None:
        if self._observer is None:
            self._observer = self._cluster.producer({}, {"linger.ms": 10})
        for row in rows:
            payload = observation_payload(row, self._run)
            topic = self._route(payload, self._topics["telemetry"])
            if topic is not None:
                payload.pop("stream_type", None)
                value = self._serializers.get(topic, self._default).serialize(topic, payload)
                self._observer.produce(topic, value, row.path.encode())
        self._observer.poll(0)

    def _route(self, payload: Mapping[str, Any], usual: str) -> str | None:
        if self._router is None:
            return usual
        try:
            topic: Any = self._router(payload)
        except Exception:  # anybody's code, about this record
            self.misrouted += 1
            return usual
        if topic is not None and not (isinstance(topic, str) and TOPIC_NAME.fullmatch(topic)):
            self.misrouted += 1
            return usual
        return topic
