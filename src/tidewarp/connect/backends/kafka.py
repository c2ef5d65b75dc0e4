"""Messages of Kafka topics as a source, in a consumer group whose offsets decide nothing: the journal's do.

One thread owns the consumer, as librdkafka asks for; its callbacks run inside of a poll there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from tidewarp.connect.backends.kafka_client import TOPIC_NAME, Cluster
from tidewarp.connect.contract import Decoder, Gap, Raw, Source, Update
from tidewarp.connect.decoders import ID_BYTES_MAX
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import InternalError, OperatorError

__all__ = ["KafkaSource"]

_TOPICS_MAX, _PARTITION_BITS = 16, 12
_ID_PARTITION = (1 << _PARTITION_BITS) - 1  # Kafka's numbers are below; its place holds which topic it is
_OFFSET_BITS = 40  # the 8 above count how often a partition was made anew: its offsets then begin again
_POLL_S = 0.1  # how long the thread may be busy before it hears of a confirm or a close
_KEEP_S = 1.0  # a group drops a member that does not poll
_CLOSE_POLLS = 10
_ASK_S = 5.0
_START = "tidewarp start"  # metadata of the offset at which a source with start="latest" began
_KEPT = (
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "auto.offset.reset",
    "isolation.level",
    "on_commit",
)

T = TypeVar("T")


class KafkaSource(Source):
    """Reads topics as a member of a group.

    A partition that the group assigns is read from the offset behind the last one in the journal, never from the group's;
    one that is not in the journal from its beginning. Offsets are committed after the journal has them, for people and tools
    that watch lag. Messages of transactions that were aborted are not seen. If a partition is taken away, what was read of it
    and not handed on is forgotten.

    Args:
        topics: the name of a topic, or at most 16. Their order is in the journal: add new ones at the end.
        bootstrap_servers: ``host:port``, several with commas, or a list.
        group_id: of the consumer group. Twins that share one share the partitions.
        config: settings of librdkafka, such as ``security.protocol``.
        decoders: topic -> decoder, or a callable that makes a mapping of the bytes; JSON for all others.
        map: field -> path, as of :class:`~tidewarp.connect.decoders.JsonMessages`.
        start: "earliest", or "latest": partitions that are there at the very first start begin at their end. Where that is,
            is committed to the group before anything is read, so that a restart skips nothing; the group must be empty then.
        name: of the source in the journal; default: the first topic.

    A header ``tw-id`` is taken as the cause of a message, as the Kafka sink of another twin sends it. A partition's number is
    the topic's place * 4,096 + Kafka's number, of which there may be 4,095; the last number holds the topic's id.

    Raises OperatorError when it is opened and a topic is missing, or the credentials are wrong; Gap where the broker has no
    longer what comes next, or has less than was read, or gives the topic another id (it was made anew).
    """

    kind = "kafka"
    clock = "wall"

    def __init__(
        self,
        topics: str | Sequence[str],
        *,
        bootstrap_servers: str | Sequence[str],
        group_id: str,
        config: Mapping[str, Any] = {},
        decoders: Mapping[str, Decoding] = {},
        map: Mapping[str, str] | None = None,
        start: str = "earliest",
        name: str | None = None,
    ) -> None:
        self._topics = _checked_topics([topics] if isinstance(topics, str) else list(topics))
        self.name = name if name is not None else self._topics[0]
        what = f"kafka source {self.name!r}"
        strangers = sorted(decoders.keys() - {*self._topics})
        if strangers:
            raise OperatorError(
                f"{what}: decoders for {', '.join(strangers)}", "it reads no such topic", "add the topic"
            )
        if start not in ("earliest", "latest"):
            raise OperatorError(f"{what}: start={start!r}", "it is 'earliest' or 'latest'", "give one of them")
        if not group_id:
            raise OperatorError(f"{what}: group_id={group_id!r}", "a group has a name", "give one for this twin")
        self._cluster = Cluster(what, bootstrap_servers, config, _KEPT)
        self._is_gradual = (  # a protocol in which assignments are told as differences
            config.get("group.protocol") == "consumer"
            or "cooperative" in str(config.get("partition.assignment.strategy", ""))
        )
        self._group = group_id
        self._usual: dict[str, Any] = {}
        if config.get("group.protocol") != "consumer":  # there the broker decides
            self._usual = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 2_000}
        self._decoders, self._map, self._start = dict(decoders), map, start
        self.commits_failed = 0  # they are advice to others, and are repeated with the next
        self._identity: dict[int, int] = {}  # the number of each topic's _ID_PARTITION -> its life, and what its id is
        self._anew: dict[int, int] = {}  # of the topics that were made anew: the last gap of each, and what it has now
        self._accepted: dict[int, int] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        """As before the first open."""
        self._consumer: Any = None
        self._next: dict[int, int] = {}  # partition -> offset that is read next, in the numbering of Raw
        self._marks: dict[int, int] = {}  # partition -> Kafka's offset at which start="latest" began
        self._assigned: set[int] | None = None  # None: the group has not yet decided
        self._buffer: deque[Raw] = deque()
        self._taken: list[Raw] = []
        self._failure: Exception | None = None
        self._is_paused = False
        self._reads = self._reading = self._polls_idle = 0
        self._committed: dict[int, int] = {}
        self._commits_open = 0

    # ------------------------------------------------------------------ what it says of itself
    def describe(self) -> dict[str, Any]:
        """Topics, and what reads each."""
        readers = {topic: type(decoder).__qualname__ for topic, decoder in self._decoders.items()}
        return {"kind": self.kind, "topics": self._topics, "decoders": readers, "map": self._map}

    def paths(self) -> Sequence[str]:
        """The paths of ``map``."""
        return sorted(set((self._map or {}).values()))

    def decoder(self, epoch_ns: int) -> Decoder:
        """By topic."""
        return _ByTopic([chosen_decoder(self._decoders.get(topic), self._map, epoch_ns) for topic in self._topics])

    # ------------------------------------------------------------------ life
    def partitions(self) -> frozenset[int]:
        """What the group has assigned."""
        return frozenset(self._assigned or ())

    def counts(self) -> dict[str, int]:
        """Commits that the group did not take. They are advice to others: nothing is lost by it."""
        return {"commits_failed": self.commits_failed}

    async def open(self, positions: Mapping[int, int]) -> None:
        """Join the group, and check what it assigns against what the broker has."""
        self._forget()
        self._identity = {number: code for number, code in positions.items() if _is_identity(number)}
        self._next = {number: offset + 1 for number, offset in positions.items() if not _is_identity(number)}
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=f"tidewarp-{self.name}-kafka")
        await self._do(self._connect)
        while self._assigned is None:
            await self._do(self._poll)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def identity(self) -> Mapping[int, int]:
        """Which topics these are, by their ids; of a broker that gives none, nothing."""
        return dict(self._identity)

    def accept(self, gap: Gap) -> None:
        """A topic that was made anew is read from its beginning."""
        if _is_identity(gap.partition):
            self._accepted[gap.partition] = self._anew[gap.partition]

    async def read(self, limit: int) -> Sequence[Raw]:
        """The next messages; waits for the first."""
        self._reads += 1
        self._reading += 1
        try:
            while not self._taken:
                await self._do(partial(self._take, limit))
        finally:
            self._reading -= 1
        some, self._taken = self._taken[:limit], self._taken[limit:]
        return some

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """Commit them to the group."""
        if self._consumer is not None:
            await self._do(partial(self._commit, dict(positions)))

    async def close(self) -> None:
        """Leave the group."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._leave)
            thread.shutdown(wait=False)

    async def _do(self, job: Callable[[], T]) -> T:
        if self._thread is None:
            raise InternalError(f"source {self.name!r}", "a source is opened before it is used", "report this")
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def _keep(self) -> None:
        """Stay in the group while nobody reads."""
        while True:
            seen = self._reads
            await asyncio.sleep(_KEEP_S)
            if not self._reading and seen == self._reads:
                await self._do(self._idle)

    # ------------------------------------------------------------------ in the thread: joining
    def _connect(self) -> None:
        cluster = self._cluster
        self._consumer = cluster.consumer(
            {
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # it begins nowhere that the journal does not say
                "isolation.level": "read_committed",
                "on_commit": self._heed_commit,
            },
            self._usual,
        )
        cluster.reach(self._consumer)
        numbers = [
            self._number(topic, partition)
            for topic in self._topics
            for partition in cluster.partitions(self._consumer, topic)
        ]
        self._identify()
        if self._start == "latest":
            self._mark_start(numbers)
        self._consumer.subscribe(self._topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def _identify(self) -> None:
        """Raise Gap if a topic is not the one that the journal knows: another may have its name, and as many messages."""
        for place, topic in enumerate(self._topics):
            number = place << _PARTITION_BITS | _ID_PARTITION
            known, found = self._identity.get(number), self._cluster.topic_id(topic)
            if found is None:
                continue
            digest = int.from_bytes(hashlib.sha256(found).digest()) >> 256 - _OFFSET_BITS
            if known is None:
                self._identity[number] = digest
            elif known & ((1 << _OFFSET_BITS) - 1) != digest:
                lives = [one >> _OFFSET_BITS for p, one in self._next.items() if p >> _PARTITION_BITS == place]
                life = max(known >> _OFFSET_BITS, *lives) + 1 if lives else (known >> _OFFSET_BITS) + 1
                self._anew[number] = self._identity[number] = life << _OFFSET_BITS | digest
                if self._accepted.get(number) != self._anew[number]:
                    target = f"{self._cluster.target}, topic {topic!r}"
                    gap = Gap(number, 0, 0, target)
                    gap.value = f"{target}: it was made anew since its messages were journaled, with another topic id"
                    raise gap

    def _mark_start(self, numbers: Sequence[int]) -> None:
        """Find where this source began, or begin at the end of every partition and commit that before anything is read.

        Kept by the group, since the journal knows only messages. An offset of another kind is of somebody's former life.
        """
        try:
            found = self._consumer.committed([self._at(number, 0) for number in numbers], timeout=_ASK_S)
            self._marks = {self._of(one): one.offset for one in found if one.metadata == _START and one.offset >= 0}
            if self._marks or self._next:
                return
            ends = {
                number: self._consumer.get_watermark_offsets(self._at(number, 0), timeout=_ASK_S)[1]
                for number in numbers
            }
        except self._cluster.driver().KafkaException as error:
            raise self._cluster.translated(error.args[0]) from None
        before = self.commits_failed
        self._send_commit([self._at(number, end, _START) for number, end in ends.items()])
        for _ in range(int(_ASK_S / _POLL_S)):
            self._consumer.poll(_POLL_S)
            if not self._commits_open:
                break
        if self._commits_open or self.commits_failed > before:
            rule = "start='latest' writes where it began while the group has no members; some may still be expiring"
            raise ConnectionError(f"{self._cluster.target}: {rule}")
        self._marks = ends

    def _assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        is_first = self._assigned is None
        assign = consumer.incremental_assign if self._is_gradual else consumer.assign
        try:
            places = [self._place(self._of(one)) for one in partitions]
        except (OSError, OperatorError) as error:  # of a callback nothing is raised: the poll around it does
            again = ConnectionError(str(error)) if isinstance(error, Gap) and not is_first else error
            self._failure = again  # a gap is told by open
            assign([])  # else the driver would assign what the group has committed
            return
        assign(places)
        self._assigned = (self._assigned or set()) | {self._of(one) for one in places}
        self._is_paused = False  # what is new is not

    def _place(self, number: int) -> Any:
        """Where a partition is read from. Gap if the broker has not what comes next."""
        place = self._at(number, 0)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
        except self._cluster.driver().KafkaException as error:
            raise self._cluster.translated(error.args[0]) from None
        # A number rather than OFFSET_BEGINNING: the driver waits half a second before it resolves that.
        expected = self._next.get(number, self._marks.get(number, low))
        life = self._identity.get(number | _ID_PARTITION, 0) >> _OFFSET_BITS
        if expected >> _OFFSET_BITS < life:  # the topic was made anew, and the gap is accepted
            expected = self._next[number] = (life << _OFFSET_BITS) + low
        life = expected >> _OFFSET_BITS
        place.offset = expected & ((1 << _OFFSET_BITS) - 1)
        target = f"{self._cluster.target}, topic {place.topic!r} partition {place.partition}"
        if place.offset < low:
            raise Gap(number, expected, (life << _OFFSET_BITS) + low, target)
        if place.offset > high:
            gap = Gap(number, expected, (life + 1 << _OFFSET_BITS) + low, target)
            gap.value = f"{target}: it ends at {high}, below {place.offset}, which comes next: it was made anew"
            raise gap
        return place

    def _revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        gone = {self._of(one) for one in partitions}
        self._buffer = deque(raw for raw in self._buffer if raw.partition not in gone)
        self._assigned = (self._assigned or set()) - gone
        if self._is_gradual:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    # ------------------------------------------------------------------ in the thread: reading
    def _poll(self, limit: int = 1) -> None:
        """Put what comes within _POLL_S into the buffer. Raises what the client met."""
        first = self._consumer.poll(_POLL_S)
        if first is not None:
            rest = self._consumer.consume(limit - 1, 0) if limit > 1 else []
            for message in (first, *rest):
                if message.error() is not None:
                    self._heed(message.error())
                elif (number := self._of_message(message)) in (self._assigned or ()):
                    self._buffer.append(self._raw(number, message))
        failure = self._failure or self._cluster.failure
        if failure is not None:
            raise failure

    def _heed(self, error: Any) -> None:
        """Keep the first failure. What is missing may be back, and what is out of range is a gap: opening again tells."""
        failure = self._cluster.translated(error)
        missing = error.code() == self._cluster.driver().KafkaError.UNKNOWN_TOPIC_OR_PART
        self._failure = self._failure or (ConnectionError(str(failure)) if missing else failure)

    def _take(self, limit: int) -> None:
        """Move at most ``limit`` messages to where :meth:`read` finds them, also if it has been cancelled meanwhile."""
        if self._taken:
            return
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False
        if not self._buffer:
            self._poll(limit)
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._next.update((raw.partition, raw.offset + 1) for raw in taken)
        self._taken = taken

    def _idle(self) -> None:
        """Poll, and let nothing come. What it meets is raised by the next read."""
        try:
            if not self._is_paused:
                self._consumer.pause(self._consumer.assignment())
                self._is_paused = True
            self._poll()
            self._polls_idle += 1
        except (OSError, OperatorError) as error:
            self._failure = error

    def _raw(self, number: int, message: Any) -> Raw:
        kind, at_ms = message.timestamp()
        told = kind != self._cluster.driver().TIMESTAMP_NOT_AVAILABLE and at_ms >= 0
        offset = message.offset()
        if offset >> _OFFSET_BITS:
            value = f"{self._cluster.target}, offset {offset}"
            raise OperatorError(value, f"at most {_OFFSET_BITS} bits are kept of it", "use a new topic")
        life = self._next.get(number, 0) >> _OFFSET_BITS << _OFFSET_BITS
        raw = received(number, life + offset, message.value() or b"", id="", time_ns=at_ms * 10**6 if told else None)
        cause = _cause(message.headers())
        return raw._replace(cause=cause) if cause else raw

    # ------------------------------------------------------------------ in the thread: committing, leaving
    def _commit(self, positions: dict[int, int]) -> None:
        fresh = {
            number: offset
            for number, offset in positions.items()
            if number in (self._assigned or ()) and self._committed.get(number) != offset
        }
        self._committed |= fresh
        mask = (1 << _OFFSET_BITS) - 1
        self._send_commit([self._at(number, (offset & mask) + 1) for number, offset in fresh.items()])

    def _send_commit(self, places: Sequence[Any]) -> None:
        if places:
            try:
                self._consumer.commit(offsets=places, asynchronous=True)
                self._commits_open += 1
            except self._cluster.driver().KafkaException:
                self._count_failed(places)

    def _heed_commit(self, error: Any, places: Sequence[Any]) -> None:
        self._commits_open -= 1
        bad = places if error is not None else [one for one in places if one.error is not None]
        if bad:
            self._count_failed(bad)

    def _count_failed(self, places: Sequence[Any]) -> None:
        self.commits_failed += 1
        for one in places:
            self._committed.pop(self._of(one), None)

    def _leave(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            for _ in range(_CLOSE_POLLS if self._commits_open else 0):
                consumer.poll(_POLL_S)
                if not self._commits_open:
                    break
            if (
                not self._commits_open
            ):  # else its close() would wait for the broker for ever; the group notices by itself
                consumer.close()
        self._forget()

    # ------------------------------------------------------------------ numbers
    def _number(self, topic: str, partition: int) -> int:
        if partition >= _ID_PARTITION:
            value = f"{self._cluster.target}, topic {topic!r} partition {partition}"
            raise OperatorError(value, f"a topic may have {_ID_PARTITION}", "read a topic with less")
        return self._topics.index(topic) << _PARTITION_BITS | partition

    def _of(self, place: Any) -> int:
        return self._number(place.topic, place.partition)

    def _of_message(self, message: Any) -> int:
        return self._number(message.topic(), message.partition())

    def _at(self, number: int, offset: int, metadata: str | None = None) -> Any:
        topic, partition = self._topics[number >> _PARTITION_BITS], number & ((1 << _PARTITION_BITS) - 1)
        make = self._cluster.driver().TopicPartition
        return make(topic, partition, offset) if metadata is None else make(topic, partition, offset, metadata)


class _ByTopic:
    """The decoder of each topic, by the number of the partition."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders

    def decode(self, raw: Raw) -> Update:
        """As the decoder of its topic says."""
        return self._decoders[raw.partition >> _PARTITION_BITS].decode(raw)

    def prepare(self, raw: Raw) -> None:
        """Let the decoder of its topic fetch what it needs to know."""
        prepare = getattr(self._decoders[raw.partition >> _PARTITION_BITS], "prepare", None)
        if prepare is not None:
            prepare(raw)


def _is_identity(number: int) -> bool:
    return number & _ID_PARTITION == _ID_PARTITION


def _checked_topics(topics: list[str]) -> list[str]:
    for topic in topics:
        if not TOPIC_NAME.fullmatch(topic):
            raise OperatorError(f"topic {topic!r:.300}", "letters, digits and . _ - make its name", "correct it")
    if not 1 <= len(set(topics)) == len(topics) <= _TOPICS_MAX:
        raise OperatorError(f"{len(topics)} topics", f"1 to {_TOPICS_MAX}, each named once", "use several sources")
    return topics


def _cause(headers: Sequence[tuple[str, bytes | None]] | None) -> str:
    """The id in the header ``tw-id``; "" where it is missing, or not what an id looks like."""
    for key, value in headers or ():
        if key == "tw-id" and value is not None and len(value) <= ID_BYTES_MAX:
            text = value.decode(errors="replace")
            return text if text.isprintable() and "\ufffd" not in text else ""
    return ""
