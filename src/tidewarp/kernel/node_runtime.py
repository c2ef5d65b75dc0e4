"""Nodes whose handlers own ordinary Python values, as the executor of a Time Warp PE.

State is kept by checkpoints that stand ``checkpoint_interval_ns`` of virtual time apart: a rollback takes the last one before
its cause and executes what lies between once more. Clocks, counts and draws are restored with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tidewarp.clocks.logical import LamportClock, VectorClock, checked_int
from tidewarp.errors import (
    GenerationOverflow,
    HandlerError,
    InternalError,
    LookaheadError,
    ModelError,
    NegativeDelay,
    RangeError,
    UnknownDestination,
)
from tidewarp.kernel.context import GENERATIONS_MAX, SENDS_MAX
from tidewarp.kernel.node_checkpoints import Checkpoint, CheckpointManager
from tidewarp.kernel.node_events import Delivery, EventType, Key, TwinEvent, twin_event, word_of
from tidewarp.kernel.optimistic.entries import Effects
from tidewarp.kernel.records import Event
from tidewarp.kernel.values import check_value, copied, pack_value, unpack_value
from tidewarp.seeds import Stream
from tidewarp.units import TICK_MAX

__all__ = ["IDENTITIES", "Handler", "Lookahead", "NodeContext", "NodeExecutor", "NodeState"]

IDENTITIES = ("state", "commit", "non_speculative")
_SENT = 2**62  # sequence numbers of what nodes send; below it those of what is injected

Lookahead: TypeAlias = Callable[[int, int], "int | None"]


class NodeState:
    """One node. ``state`` belongs to the handler: numbers, text, bytes, tuple, list, dict and NumPy arrays.

    ``processed_events`` counts what was executed and not undone, ``rollback_count`` how often something was undone. All but
    ``rollback_count`` (and, with ``identity="commit"``, ``identity_deep``) is restored by a rollback.
    """

    def __init__(
        self,
        node_id: int,
        local_virtual_time_ns: int = 0,
        lamport: LamportClock | None = None,
        vector_clock: VectorClock | None = None,
        processed_events: int = 0,
        rollback_count: int = 0,
        identity_deep: float = 0.0,
        *,
        state: Any = None,
    ) -> None:
        self.node_id = node_id
        self.local_virtual_time_ns = local_virtual_time_ns
        self.lamport = LamportClock() if lamport is None else lamport
        self.vector_clock = vector_clock
        self.processed_events = processed_events
        self.rollback_count = rollback_count
        self.state = state
        self.sends = 0
        self.stream: Stream | None = None
        self.hidden = False  # a handler runs, and the identity is applied at commit
        self._identity_deep = identity_deep

    def __repr__(self) -> str:
        return (
            f"NodeState(node_id={self.node_id}, local_virtual_time_ns={self.local_virtual_time_ns},"
            f" lamport={self.lamport.time}, processed_events={self.processed_events})"
        )

    @property
    def identity_deep(self) -> float:
        """The deep value of the node's identity.

        Raises:
            ModelError: read or set by a handler under ``identity="commit"``: it would depend on when GVT moves.
        """
        if self.hidden:
            raise ModelError(
                f"identity_deep of node {self.node_id} in a handler",
                'under identity="commit" it is an accumulator, applied at GVT and hidden from handlers',
                'add to it with ctx.deepen(amount), or choose identity="state"',
            )
        return self._identity_deep

    @identity_deep.setter
    def identity_deep(self, value: float) -> None:
        if self.hidden:
            _ = self.identity_deep
        self._identity_deep = value


Handler: TypeAlias = Callable[[NodeState, TwinEvent, "NodeContext"], None]


class NodeContext:
    """What a handler may do besides changing ``node.state`` and ``node.identity_deep``: send, emit, draw random numbers."""

    def __init__(self, num_nodes: int, lookahead: Lookahead, commits_identity: bool) -> None:
        self.num_nodes = num_nodes
        self.sends: list[Event] = []
        self.emitted: list[Any] = []
        self.adds: list[tuple[int, Any]] = []
        self._lookahead = lookahead
        self._commits_identity = commits_identity
        self._node = NodeState(0)
        self._now_ns = self._generation = 0
        self._cause: Key = (0, 0, 0, 0, 0)

    def begin(self, node: NodeState, event: Event) -> None:
        """Turn to a node for one event; what the last one did stays with who took it."""
        self._node = node
        self._now_ns = event[0]
        self._generation = event[1] >> 16
        self._cause = event[:5]
        self.sends, self.emitted, self.adds = [], [], []

    @property
    def now_ns(self) -> int:
        """Virtual time of the event in ns."""
        return self._now_ns

    @property
    def node_id(self) -> int:
        """The number of this node."""
        return self._node.node_id

    def send(
        self,
        target: int,
        delay_ns: int,
        payload: Any = None,
        event_type: EventType = EventType.SPIKE,
        *,
        priority: int = 0,
    ) -> None:
        """Send an event to node ``target``; it arrives ``delay_ns`` >= 0 from now. The payload is copied.

        Raises:
            UnknownDestination: no such node, or no channel leads there.
            NegativeDelay: a delay below 0, no int, or an arrival beyond the last ns.
            LookaheadError: less delay than the declared lookahead, to another node.
            GenerationOverflow: the millionth send in a row without delay.
            ModelError: a payload that cannot be copied, a type that is no event of the model.
        """
        node = self._node
        generation = self._check_send(target, delay_ns)
        check_type(event_type)
        word = word_of(generation, checked_int("priority", priority, -32768, 32767))
        vector = None if node.vector_clock is None else node.vector_clock.send()
        delivery = Delivery(
            event_type, copied({} if payload is None else payload, "payload"), node.lamport.send(), vector, self._cause
        )
        self.sends.append((self._now_ns + delay_ns, word, target, node.node_id, _SENT + node.sends, delivery))
        node.sends += 1
        if len(self.sends) > SENDS_MAX:
            raise ModelError(self._here(), f"an event sends at most {SENDS_MAX} others", "send less from one event")

    def emit(self, payload: Any) -> None:
        """Put a value out: it leaves the engine, in key order, once GVT has passed this event."""
        self.emitted.append(copied(payload, "output"))

    def deepen(self, amount: float) -> None:
        """Add to the node's identity, in the way that the engine's ``identity`` says; the same code serves all three."""
        if self._commits_identity:
            self.adds.append((self._node.node_id, float(amount)))
        else:
            self._node.identity_deep += amount

    def bits(self) -> int:
        """The next 64 random bits of this node; how many were drawn is part of its state."""
        return self._stream().bits()

    def random(self) -> float:
        """A float in [0, 1) with 53 random bits."""
        return self._stream().random()

    def below(self, n: int) -> int:
        """A whole number in [0, n), each equally likely.

        Raises:
            ModelError: n < 1 or n > 2**64.
        """
        return self._stream().below(n)

    def exponential(self, mean_ns: float) -> int:
        """An exponentially distributed whole number of ns, rounded down.

        Raises:
            ModelError: a mean that is not above 0.
        """
        return int(self._stream().exponential(mean_ns))

    def normal(self) -> float:
        """A standard normal value."""
        return self._stream().normal()

    def _stream(self) -> Stream:
        assert self._node.stream is not None
        return self._node.stream

    def _check_send(self, target: int, delay_ns: int) -> int:
        here = self._here
        if type(target) is not int or not 0 <= target < self.num_nodes:
            raise UnknownDestination(
                f"{here()} sends to {target!r}", f"nodes are 0 to {self.num_nodes - 1}", "correct it"
            )
        if type(delay_ns) is not int or delay_ns < 0 or self._now_ns + delay_ns > TICK_MAX:
            raise NegativeDelay(
                f"{here()} sends after {delay_ns!r} ns", "a delay is a whole number of ns >= 0", "correct the delay"
            )
        if target != self._node.node_id:
            least = self._lookahead(self._node.node_id, target)
            if least is None:
                raise UnknownDestination(f"{here()} sends to {target}", "no channel leads there", "set its lookahead")
            if delay_ns < least:
                raise LookaheadError(
                    f"{here()} sends to {target} after {delay_ns} ns",
                    f"the declared lookahead is {least} ns",
                    "add it to the delay, or declare less",
                )
        if delay_ns > 0:
            return 0
        if self._generation + 1 >= GENERATIONS_MAX:
            raise GenerationOverflow(
                f"{here()} sends to {target} without delay",
                f"at most {GENERATIONS_MAX} events cause each other within a tick",
                "give the loop a delay",
            )
        return self._generation + 1

    def _here(self) -> str:
        return f"node {self._node.node_id} at {self._now_ns} ns"


class NodeExecutor:
    """The nodes of an engine as a PE sees them: an :class:`~tidewarp.kernel.optimistic.entries.Executor`."""

    def __init__(
        self,
        nodes: Sequence[NodeState],
        handler: Handler | None,
        manager: CheckpointManager,
        context: NodeContext,
        interval_ns: Callable[[], int],
        hides_identity: bool,
    ) -> None:
        self._nodes = nodes
        self._handler = handler
        self._manager = manager
        self._context = context
        self._interval_ns = interval_ns
        self._hides = hides_identity
        self._last: dict[int, tuple[Checkpoint, int]] = {}  # node -> its newest checkpoint, events processed by then

    def coasts(self, lp: int) -> bool:
        """Checkpoints are whole, and not of every event."""
        return True

    def save(self, lp: int) -> Checkpoint | None:
        """A checkpoint of the node as it is, if it has come an interval further since the last; else None."""
        node = self._nodes[lp]
        last = self._last.get(lp)
        if last is not None:
            checkpoint, processed = last
            if processed == node.processed_events:
                return checkpoint
            if node.local_virtual_time_ns - checkpoint.virtual_time_ns < self._interval_ns():
                return None
        self._last[lp] = made = (self._checkpoint(node), node.processed_events)
        return made[0]

    def restore(self, lp: int, saved: Checkpoint) -> None:
        """Bring the node back to a checkpoint; those that were saved after it are no more."""
        node = self._nodes[lp]
        self._manager.discard_since(saved)
        load(node, saved, not self._hides)
        self._last[lp] = (saved, node.processed_events)

    def execute(self, event: Event) -> Effects:
        """Run the handler; clocks and counts move even without one.

        Raises:
            ModelError: the handler raised, or did what no handler may.
        """
        self.perform(self._nodes[event[2]], event)
        return self._context

    def perform(self, node: NodeState, event: Event) -> None:
        """Execute an event on a node, of this engine or a copy of one."""
        delivery: Delivery = event[5]
        node.local_virtual_time_ns = event[0]
        node.processed_events += 1
        node.lamport.receive(delivery.lamport_ts)
        if node.vector_clock is not None:  # as tick() and receive(), without their copies
            counts = node.vector_clock.clock
            if delivery.vector_ts is not None:
                np.maximum(counts, delivery.vector_ts, out=counts)
            counts[node.vector_clock.node_id] += 1
        self._context.begin(node, event)
        if self._handler is not None:
            self._call(self._handler, node, event)

    def same(self, a: Event, b: Event) -> bool:
        """Whether two sends with one key carry the same."""
        return pack_value(list(a[5][:3]), "payload") == pack_value(list(b[5][:3]), "payload")

    def _call(self, handler: Handler, node: NodeState, event: Event) -> None:
        node.hidden = self._hides
        try:
            result: object = handler(node, twin_event(event), self._context)  # type: ignore[func-returns-value]
            check_value(node.state, f"state of node {node.node_id}")
        except (ModelError, InternalError):
            raise
        except Exception as error:
            raise HandlerError(
                f"node {node.node_id} at {event[:5]}: {type(error).__name__}: {error}",
                "its handler raised",
                "mend the handler; everything before this event is committed",
            ) from error
        finally:
            node.hidden = False
        if result is not None:
            raise ModelError("a handler returned a value", "a handler returns nothing", "change node.state, or send")

    def _checkpoint(self, node: NodeState) -> Checkpoint:
        vector = node.vector_clock
        return self._manager.save(
            node.node_id,
            node.local_virtual_time_ns,
            lfsr_state=0 if node.stream is None else node.stream.count,
            identity_deep=node.identity_deep,
            lamport_time=node.lamport.time,
            vector_clock=None if vector is None else vector.clock,
            state=packed(node),
        )


def packed(node: NodeState) -> bytes:
    """What a checkpoint has no field for: events processed, messages sent, and the handler's own state."""
    return pack_value([node.processed_events, node.sends, node.state], f"state of node {node.node_id}")


def load(node: NodeState, saved: Checkpoint, with_identity: bool) -> None:
    """Put a node into the state of a checkpoint of the engine."""
    assert saved.state is not None
    node.processed_events, node.sends, node.state = unpack_value(saved.state)
    node.local_virtual_time_ns = saved.virtual_time_ns
    node.lamport.time = saved.lamport_time
    if node.vector_clock is not None:
        np.copyto(node.vector_clock.clock, saved.vector_clock)
    if node.stream is not None:
        node.stream.count = saved.lfsr_state
    if with_identity:
        node.identity_deep = saved.identity_deep


_METHODS = {
    EventType.CHECKPOINT: "checkpoints are saved as checkpoint_interval_ns says; use SessionSnapshot.from_session",
    EventType.ANTI_MESSAGE: "call retract_event(event)",
    EventType.ROLLBACK: "inject the late event itself",
    EventType.SYNC_BARRIER: "call inject_sync_barrier(t)",
}


def check_type(event_type: EventType) -> None:
    """Refuse what is no event of the model.

    Raises:
        RangeError: it is the engine's own; the error names the method to call.
    """
    if event_type in _METHODS or not isinstance(event_type, EventType):
        raise RangeError(
            f"an event of type {event_type!r}",
            "events of the model are SPIKE and SENSOR_INPUT",
            _METHODS.get(event_type, "write EventType.SPIKE"),
        )
