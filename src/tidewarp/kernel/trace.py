"""The committed side of a run: what happened, in key order, and the digest that names it.

Every engine hands its committed events to a :class:`Ledger`, in key order and in whole batches; so what leaves the run
and what names it cannot depend on how the events were executed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tidewarp.codec import Chain, Digest
from tidewarp.errors import CheckpointRefused, OperatorError
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import Event, Image, pack_event, split_frames, unpack_event

__all__ = ["DIGESTS", "Ledger", "Output"]

DIGESTS = ("events", "state", "off")


class Output(NamedTuple):
    """A message that left the run: ``id`` is its place among all outputs, the same in every life and engine."""

    id: str
    tick: int
    lp: int
    message: Any


class Ledger:
    """Counts, chains, outputs and accumulators of the committed events.

    ``digest`` is "events" (the chain of all committed events names the run), "state" (final state, counts and outputs do)
    or "off". Outputs wait in ``outputs`` until somebody takes them; engines stop committing at ``outputs_max``.
    """

    def __init__(self, model: Model, digest: str, outputs_max: int) -> None:
        self.model = model
        self.tracing = digest == "events"
        self.events = Chain(model.trace_interval)
        self.emitted = Chain(model.trace_interval)
        self.outputs: deque[Output] = deque()
        self.outputs_max = outputs_max
        self.accumulators = [accumulator.start for accumulator in model.accumulators]
        self.committed = 0
        self.held = False  # the outputs that have to be taken are on rank 0
        self._digest = digest
        self._digests: dict[int, str] = {}
        self._tick = -1
        self._at_tick = 0

    def take_up(
        self, trace: bytes | None, emitted: bytes, committed: int, outputs: int, accumulators: Sequence[int]
    ) -> None:
        """Go on where another ledger stopped: heads of the chains of events (None: it kept none) and outputs, counts, values.

        Raises:
            CheckpointRefused: the digest is over all events, and the chain of those before is not there.
        """
        if self.tracing and trace is None:
            raise CheckpointRefused(
                "a checkpoint of a run that kept no trace", "digest='events' needs it", "restore it with digest='state'"
            )
        if self.tracing and trace is not None:
            self.events = Chain(self.model.trace_interval, trace, committed)
        self.emitted = Chain(self.model.trace_interval, emitted, outputs)
        self.committed = committed
        self.accumulators = list(accumulators)

    def position(self) -> list[Any]:
        """What :meth:`follow` takes: how far this ledger has come, without what it holds."""
        accumulators = b"".join(n.to_bytes(16, "big", signed=True) for n in self.accumulators)
        heads = [self.events.head(), self.emitted.head()]
        return [*heads, self.committed, self.emitted.count, accumulators, self.full]

    def follow(
        self, trace: bytes, emitted: bytes, committed: int, outputs: int, accumulators: bytes, full: bool
    ) -> None:
        """Be as far as the ledger of rank 0, which alone has the outputs."""
        values = [
            int.from_bytes(accumulators[at : at + 16], "big", signed=True) for at in range(0, len(accumulators), 16)
        ]
        self.take_up(trace, emitted, committed, outputs, values)
        self.held = full

    @property
    def full(self) -> bool:
        """No more outputs fit: nothing may be committed until some are taken."""
        return self.held or len(self.outputs) >= self.outputs_max

    def commit(self, events: Sequence[Event]) -> None:
        """Take committed events, in key order.

        Raises:
            RangeError: a field of a message that its kind cannot hold.
        """
        if not self.tracing:
            self.committed += len(events)
            return
        records: list[bytes] = []
        try:
            for event in events:
                records.append(pack_event(self.model, event))  # noqa: PERF401  what precedes a bad one is committed
        finally:
            self.committed += len(records)
            self.events.extend([event[0] for event in events[: len(records)]], records)

    def commit_framed(self, blocks: Iterable[tuple[int, bytes | memoryview, int]]) -> None:
        """Take committed events as (block, their framed records, how many), in key order; the records may be empty without a trace."""
        for index, data, count in blocks:
            self.committed += count
            if self.tracing:
                self.events.extend_framed(index, data, count)

    def emit_framed(self, data: bytes) -> None:
        """Take outputs as framed records: the key of the event that emits, and what it emits."""
        for record in split_frames(data):
            event = unpack_event(self.model, record)
            self.emitted.add(event[0], bytes(record))
            self._put_out(event[0], event[2], event[5])

    def emit(self, event: Event, messages: Sequence[Any]) -> None:
        """Take the outputs of one committed event; the events before it have been heard.

        Raises:
            RangeError: a field of an output that its kind cannot hold; none of them is taken.
        """
        tick, lp = event[0], event[2]
        records = [pack_event(self.model, (*event[:5], message)) for message in messages]
        for message, record in zip(messages, records, strict=True):
            self.emitted.add(tick, record)
            self._put_out(tick, lp, message)

    def _put_out(self, tick: int, lp: int, message: Any) -> None:
        if tick != self._tick:
            self._tick, self._at_tick = tick, 0
        self.outputs.append(Output(f"{tick:016x}-{self._at_tick:08x}", tick, lp, message))
        self._at_tick += 1

    def add(self, adds: Sequence[tuple[int, int]]) -> None:
        """Apply what one committed event added to accumulators."""
        for index, n in adds:
            self.accumulators[index] = self.model.accumulators[index].merge(self.accumulators[index], n)

    def digest(self, until: int, image: Image) -> str | None:
        """The digest of the run up to ``until`` (inclusive) that ended in ``image``; None where it is off.

        SHA-256 labelled ``TWKERN1`` (``TWKERN1/state`` without the events) over the model's digest, seed, until, the head of the
        events' chain (or their count), that of the outputs, accumulators, the rows of each group, pending events.
        """
        if self._digest == "off":
            return None
        digest = Digest("TWKERN1" if self.tracing else "TWKERN1/state")
        digest.add(bytes.fromhex(self.model.digest()))
        digest.add(self.model.seed.to_bytes(8, "big"))
        digest.add(until.to_bytes(8, "big", signed=True))
        digest.add(self.events.head() if self.tracing else self.committed.to_bytes(8, "big"))
        digest.add(self.emitted.head())
        digest.add(b"".join(n.to_bytes(16, "big", signed=True) for n in self.accumulators))
        for rows in image.rows:
            digest.add(rows)
        digest.add(image.pending)
        return digest.hexdigest()

    def keep_digests(self) -> None:
        """Remember the head of the events' chain at each block: 64 characters a block, for runs with an end."""
        self.events.on_block(lambda index, head: self._digests.__setitem__(index, head.hex()))

    def trace_digests(self) -> dict[int, str]:
        """Block index -> head of the chain behind it, the open block included; empty unless they are kept."""
        last = self.events.block
        return self._digests if last is None else {**self._digests, last: self.events.head().hex()}

    def check_digest(self) -> None:
        """Refuse to name a run whose digest is off."""
        if self._digest == "off":
            raise OperatorError(
                "digest of a run with digest='off'", "it was not asked for", "set digest='events' or 'state'"
            )
