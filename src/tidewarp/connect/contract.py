"""What sources, the gate, the simulation and sinks say to one another. Plain values and small protocols.

Source ──Raw──► gate ──Input──► process ──Output──► outbox ──► Sink
│                 └──Refusal (an input that the state of the moment forbids)
└──DeadLetter (an input that could never be accepted)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tidewarp.codec import pack
from tidewarp.errors import CodecError, OperatorError, PeerError

__all__ = [
    "HEAD_BYTES",
    "MESSAGE_BYTES_MAX",
    "Checker",
    "DeadLetter",
    "Decoder",
    "Form",
    "Gap",
    "Input",
    "Observation",
    "Output",
    "Raw",
    "Readings",
    "Refusal",
    "Refused",
    "RunIdentity",
    "Sink",
    "Source",
    "Undecodable",
    "Update",
    "counts_of",
]

MESSAGE_BYTES_MAX = 1 << 20
HEAD_BYTES = 1 << 16  # what a dead letter keeps of its message


class Raw(NamedTuple):
    """One message as it came: position, bytes, nothing believed yet."""

    partition: int  # 16 bits
    offset: int  # 48 bits, ascending within its partition
    payload: bytes  # at most MESSAGE_BYTES_MAX; of a longer one the first HEAD_BYTES, and `sha256` is set
    sha256: bytes | None = None  # of all bytes, where `payload` is only their beginning
    time_ns: int | None = None  # Unix ns at which its broker took it, where the broker says so
    id: str = ""  # what its target calls it, where `offset` is only a count: delivered again, it has the same
    cause: str = ""  # id of the output of another twin that it carries


class Readings(NamedTuple):
    """Many messages that need no decoding, as columns of equal length: ``values[k]`` for ``paths[k]`` at ``ticks[k]``.

    Each is one input that sets one path; its offset is ``first + k``. Plain lists are fastest where the ticks ascend.
    """

    partition: int  # 16 bits
    first: int  # 48 bits, above every offset before it
    ticks: Sequence[int]  # event times, ns since the twin's epoch
    paths: Sequence[str]
    values: Sequence[Any]  # plain: None, bool, int, float, str, list, dict

    def raw(self, k: int) -> Raw:
        """Message ``k`` as bytes, the canonical form of [tick, path, value]: what a dead letter keeps of it."""
        try:
            payload = pack([self.ticks[k], self.paths[k], self.values[k]])
        except CodecError:  # then its rule refuses it too
            payload = b""
        return Raw(self.partition, self.first + k, payload)


class Update(NamedTuple):
    """One message decoded: when it happened, in ticks of the twin, and what it sets, all or nothing."""

    tick: int | None  # None: the message does not say
    changes: tuple[tuple[str, Any], ...]  # (path, value), at least one
    id: str = ""  # under which its sender knows it: a second one with this id is a duplicate
    cause: str = ""  # id of the output of another twin that made somebody send it


class Input(NamedTuple):
    """One admitted input: stamped and, before anything sees it, journaled.

    The order of (tick, rank, partition, offset) is the order of application; see ``clocks.key``.
    """

    tick: int
    rank: int  # order of `connect`, from 1; 0 is reserved for inputs made by the program itself
    partition: int
    offset: int
    changes: tuple[tuple[str, Any], ...]  # (path, value as its declared type), applied all or nothing
    event_tick: int  # when it happened; differs from `tick` where it was clamped, or says no time
    id: str = ""  # by which a second one like it is known as a duplicate, within its source
    cause: str = ""  # id of the output of another twin that made somebody send it


class Refusal(NamedTuple):
    """An input that passed the gate and that the state at its time forbids. Part of the model: replayed."""

    input: Input
    path: str
    reason: str  # value, rule and next action in one sentence


class Output(NamedTuple):
    """One publication of the model. ``id`` is unique and ascending in the order of publication."""

    id: str  # f"{tick:016x}-{n:08x}", n = place among the outputs of its tick
    tick: int
    key: str
    value: bytes  # canonical bytes of the value, made at publication: later changes of the object have no effect
    cause: str  # id of what made it happen: an input, the start of a process, or another output; "" if nothing did
    root: str  # id of the first cause: an input, or the start of a process; "" likewise
    event: int  # how many events the environment had processed
    stream: str = "event"  # or "telemetry": then `key` is a path
    provisional: str = ""  # its id and number, where a sink is told before GVT has passed it (see twin.early)
    retracts: bool = False  # it is not true any more; without `provisional`: nothing of its stream is, from `tick` on


class DeadLetter(NamedTuple):
    """A message that breaks a rule which no later state can lift. Counted, kept, its offset moves on."""

    partition: int
    offset: int
    rule: str  # short name of the rule, the key of the counter
    message: str  # value, rule and next action
    head: bytes  # the first HEAD_BYTES of the message
    sha256: bytes  # of the whole message
    id: str = ""  # as of an input: delivered again, it is no second letter


Form = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Makes of a record (see ``connect.payload``) the record that a sink writes: other values, fewer fields. Pure."""


class RunIdentity(NamedTuple):
    """Whose outputs these are, and in which form a sink writes them."""

    domain: str  # 64 hex digits
    epoch_ns: int  # Unix ns of tick 0
    form: Form | None = None  # None: as ``connect.payload.event_payload`` makes them


class Observation(NamedTuple):
    """What a host measured of itself: no output, in no journal, in no digest, and told at most once."""

    tick: int  # virtual time
    path: str  # below "system."
    value: float | int | str


class Refused(NamedTuple):
    """A record that a sink's target refuses for good."""

    id: str
    reason: str


class Checker(Protocol):
    """The static part of a path's rule, which the registry (a higher layer) hands to the gate."""

    @property
    def floats(self) -> tuple[float, float]:
        """The closed range of floats that :meth:`check` returns as they are; (inf, -inf) if there are none."""

    @property
    def coalesce(self) -> bool:
        """Of the values that a live source sends at once, is the last enough?"""

    def check(self, value: object) -> Any:
        """The value as the declared type. Raises RuleViolation."""


@runtime_checkable
class Decoder(Protocol):
    """Bytes to meaning. Pure: equal bytes give equal updates in every life."""

    def decode(self, raw: Raw) -> Update:
        """What the message sets, and when.

        What it raises makes the message a dead letter: Undecodable names the rule by which it is counted, any other
        exception is counted as "decode".
        """

    # A decoder may have two methods more:
    #
    #     def prepare(self, raw: Raw) -> None: fetch what `decode` has to know, such as a schema. Called in the thread of
    #         the source, where waiting stops no clock. Raises OSError: it may pass.
    #     def columns(self, payloads): many messages at once, with the result of `decode`; see `decoders.JsonMessages`.


class Source(Protocol):
    """Where inputs come from. Runs in a thread and event loop of its own: what blocks there blocks nobody else.

    Subclass it to take over what most sources share; ``name``, ``kind``, ``decoder``, ``open`` and ``read`` are left.

    An OSError of ``open`` or ``read`` (which ConnectionError and TimeoutError are) may pass: the source is closed, and
    opened again behind what was admitted, after a pause, for as long as the run lasts. Any other error ends the run.
    Drivers raise errors of their own: translate what a retry can mend to ConnectionError, the rest to OperatorError.
    """

    name: str  # in the journal and in all counts
    kind: str  # of source, such as "csv"
    clock: str = "data"  # "data": recorded, pulled as virtual time passes | "wall": live, it comes when it comes
    replayable: bool = True  # does the target give again what was not confirmed? If not, an outage is a gap

    def describe(self) -> dict[str, Any]:
        """What decides the meaning of its messages (columns, map, zone): journaled, compared at resume. No secrets."""
        return {"kind": self.kind}

    def paths(self) -> Sequence[str]:
        """The registry paths that it is known to set before the first message; the session checks that they exist."""
        return ()

    def first_event_ns(self) -> int | None:
        """Unix ns of the first event, from which the epoch is taken. May read the target.

        None: times are relative to the epoch, or nobody can say beforehand; then ``open`` has to be told the epoch.
        """
        return None

    def decoder(self, epoch_ns: int) -> Decoder | None:
        """The decoder of its messages for a twin whose tick 0 is ``epoch_ns`` (Unix ns); None if it gives Readings.

        Called once in the life of a twin, after ``open`` and before the first ``read``; once more, without ``open``, by
        who drives dead letters again.
        """

    def counts(self) -> Mapping[str, int]:
        """What it dropped, lost or could not do in this life, by name: a summary and ``tidewarp run`` tell of it."""
        return {}

    def partitions(self) -> Collection[int]:
        """The partitions that it reads at present, as far as it knows, also those of which nothing has come yet.

        A clock that waits for the source waits for each of them. Asked after ``open`` and after each ``read``.
        """
        return ()

    def identity(self) -> Mapping[int, int]:
        """What tells its target from another one of the same name, after ``open``: position -> number, as of partitions.

        They are journaled before the first message, and among the positions of the next ``open``. The partitions have no
        messages, and a number never becomes less.
        """
        return {}

    async def open(self, positions: Mapping[int, int]) -> None:
        """Connect and stand behind ``positions``: partition -> last offset that is durable; none = the beginning.

        Raises:
            Gap: the target no longer has what comes next.
        """

    def accept(self, gap: Gap) -> None:
        """The operator accepts this gap; ``open`` follows, with positions behind it, and does not report it again."""
        return

    async def read(self, limit: int) -> Sequence[Raw] | Readings | None:
        """The next at most ``limit`` messages, in order of offset; waits for the first. None: there will never be more.

        It may wait for ever in an ``await``: ``confirm`` is called meanwhile, and ``close`` cancels it.
        """

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """Everything up to ``positions`` is durable: the target may forget it. May run while ``read`` waits."""
        return

    async def close(self) -> None:
        """Release what ``open`` took. Safe to call twice, and after an error of ``open`` or ``read``."""
        return


class Gap(OperatorError):
    """Messages that the journal has not, and that the target has no longer: ``first`` up to, not including, ``end``.

    ``first == end`` where their number is not known.
    """

    def __init__(self, partition: int, first: int, end: int, target: str) -> None:
        left = f"the next message would be {first}, the first that is left is {end}"
        super().__init__(
            f"{target}: {left if end > first else 'messages may be lost, nobody knows how many'}",
            "a run goes on without a gap in its inputs",
            "restore what is missing, or connect with gap='accept': the gap is then journaled and counted",
        )
        self.partition, self.first, self.end = partition, first, end


def counts_of(connector: object) -> dict[str, int]:
    """What a source or sink counts itself; nothing of one that has only the methods it needs."""
    counts: Callable[[], Mapping[str, int]] = getattr(connector, "counts", dict)
    return dict(counts())


class Undecodable(PeerError):
    """A message that its decoder cannot read. ``short`` names the rule in one word, for counting."""

    def __init__(self, value: str, rule: str, action: str, short: str) -> None:
        super().__init__(value, rule, action)
        self.short = short


class Sink(Protocol):
    """Where outputs go. Runs in a thread and loop of its own. Subclass it for a ``close`` that has nothing to do.

    An OSError of ``open`` or ``write`` (which ConnectionError and TimeoutError are) may pass: the sink is closed, opened
    again after a pause, says what it holds, and is offered the rest. Translate a driver's own errors as for a source.
    """

    name: str  # in the journal and in all counts
    kind: str  # of sink, such as "jsonl"
    delivery: str  # what it promises: "once": what it is offered again, it drops | "at_least_once"

    async def open(self, run: RunIdentity) -> str | None:
        """Connect; the id of the last output of this run that the target holds ("" none, None: it cannot tell)."""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Make ``batch`` (ids ascending) durable. What the target refuses for good is returned, the rest is held.

        Raises:
            OSError: it may pass (a full disk, a lost connection): the sink is opened again, after a pause.
            TidewarpError: nobody but the operator can mend it: the run ends.
            Exception: any other, and nothing of the batch is held. Halves of it are offered, down to the one output
                that fails alone; after some attempts that becomes a dead letter.
        """

    async def close(self) -> None:
        """Flush and release. Safe to call twice."""
        return

    def counts(self) -> Mapping[str, int]:
        """What it dropped or altered in this life, by name: a summary and ``tidewarp run`` tell of it."""
        return {}

    # A sink may have one method more, for who asks for observations with sink(observe=True):
    #
    #     async def observe(self, rows: Sequence[Observation]) -> None:
    #
    # Never while `open`, `write` or `close` runs. What it raises, or does not do within 5 s, is counted and not repeated.
    #
    # One whose records have no place for a retraction says so: `takes_early = False`. It is refused release="early".
