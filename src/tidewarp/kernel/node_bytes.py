"""An engine of nodes as bytes, and back: it goes on with the same digest.

What is written is the state at the last committed event, the events that follow it, and which of those were executed: these
are executed once more when the engine is restored, so late input still finds what it has to undo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tidewarp.clocks.logical import VectorClock
from tidewarp.codec import Digest
from tidewarp.errors import CheckpointRefused, CodecError, ModelError
from tidewarp.kernel.node_events import Delivery, EventType, Key, SyncMode
from tidewarp.kernel.node_ledger import event_value
from tidewarp.kernel.node_runtime import Handler, NodeState, load
from tidewarp.kernel.records import Event
from tidewarp.kernel.trace import Output
from tidewarp.kernel.values import pack_value, unpack_value
from tidewarp.seeds import Stream

if TYPE_CHECKING:
    from tidewarp.kernel.nodes import TimeWarpEngine

__all__ = ["pack_engine", "unpack_engine"]

_LABEL = b"TWSYNC1\n"


def pack_engine(engine: TimeWarpEngine) -> bytes:
    """The engine in one canonical form; letters on their way are delivered first, nothing else changes.

    Handler and adaptive interval are not in it: functions have no bytes.
    """
    engine.traffic.quiesce()
    body = pack_value({"options": _options(engine), "run": _run(engine)}, "engine")
    return _LABEL + _digest(body) + body


def unpack_engine(kind: type[TimeWarpEngine], data: bytes, handler: Handler | None) -> TimeWarpEngine:
    """An engine that goes on where the packed one stood.

    Raises:
        CheckpointRefused: not the bytes of :func:`pack_engine`, or a handler is missing or superfluous.
    """
    body = data[len(_LABEL) + 32 :]
    if not data.startswith(_LABEL) or data[len(_LABEL) : len(_LABEL) + 32] != _digest(body):
        raise CheckpointRefused(f"an engine of {len(data)} bytes", "its digest does not fit", "take its bytes whole")
    try:
        saved = unpack_value(body)
        options, run = saved["options"], saved["run"]
        had_handler = options.pop("has_handler")
        options["mode"] = SyncMode(options["mode"])
    except (CodecError, KeyError, TypeError, ValueError) as error:
        raise CheckpointRefused(f"an engine of {len(data)} bytes", str(error), "take its bytes whole") from error
    if had_handler != (handler is not None):
        raise CheckpointRefused(
            f"an engine {'with' if had_handler else 'without'} a handler",
            f"it is restored {'without' if had_handler else 'with'} one",
            "pass handler= as it was",
        )
    engine = kind(handler=handler, **options)
    _restore(engine, run)
    return engine


def _digest(body: bytes) -> bytes:
    digest = Digest("TWSYNC1/engine")
    digest.add(body)
    return digest.digest()


def _options(engine: TimeWarpEngine) -> dict[str, Any]:
    return {
        "num_nodes": engine.num_nodes,
        "checkpoint_interval_ns": engine.checkpoint_interval_ns,
        "mode": engine.mode.value,
        "lookahead_ns": engine.lookahead_ns,
        "window_ns": engine.window_ns,
        "identity": engine.identity,
        "max_queue_depth": None if engine.backpressure is None else engine.backpressure.max_queue_depth,
        "schedule_seed": engine.schedule_seed,
        "seed": engine.seed,
        "outputs_max": engine.ledger.outputs_max,
        "has_handler": engine.handler is not None,
    }


def _run(engine: TimeWarpEngine) -> dict[str, Any]:
    ledger, traffic = engine.ledger, engine.traffic
    executed = [entry.event for node in engine.nodes for entry in traffic.executed(node)]
    unprocessed = [event for pe in traffic.pes for event in pe.unprocessed()]
    return {
        "gvt": list(traffic.rounds.gvt),
        "nodes": [_node_value(_committed_node(engine, number)) for number in engine.nodes],
        "events": [event_value(event) for event in _roots(executed, unprocessed)],
        "executed": [list(event[:5]) for event in sorted(executed, key=_key)],
        "ledger": [ledger.committed, ledger.released, *ledger.heads, ledger.tick, ledger.at_tick],
        "outputs": [list(output) for output in ledger.outputs],
        "draws": 0 if traffic.stream is None else traffic.stream.count,
        "promised": [config.last_null_message_ns for config in engine.promises.configs.values()],
        "books": engine.books(),
    }


def _committed_node(engine: TimeWarpEngine, number: int) -> NodeState:
    """A copy of the node as it was after its last committed event."""
    now = engine.nodes[number]
    assert now.vector_clock is not None
    assert now.stream is not None
    copy = NodeState(number, vector_clock=VectorClock(number, engine.num_nodes), state=now.state)
    copy.stream = Stream(engine.seed, f"node.{number}")
    copy.rollback_count = now.rollback_count
    copy.identity_deep = now.identity_deep
    base = engine.traffic.pes[number].committed(number)
    if base is None:
        _fill(copy, _node_value(now))
        return copy
    image, events = base
    load(copy, image, engine.identity != "commit")
    for event in events:
        engine.executor.perform(copy, event)
    return copy


def _node_value(node: NodeState) -> list[Any]:
    assert node.vector_clock is not None
    assert node.stream is not None
    return [
        node.local_virtual_time_ns,
        node.lamport.time,
        node.vector_clock.clock,
        node.processed_events,
        node.rollback_count,
        node.identity_deep,
        node.sends,
        node.stream.count,
        node.state,
    ]


def _fill(node: NodeState, value: Sequence[Any]) -> None:
    assert node.vector_clock is not None
    assert node.stream is not None
    time, lamport, vector, processed, rollbacks, identity, sends, draws, state = value
    node.local_virtual_time_ns, node.lamport.time = time, lamport
    np.copyto(node.vector_clock.clock, vector)
    node.processed_events, node.rollback_count, node.identity_deep = processed, rollbacks, identity
    node.sends, node.stream.count, node.state = sends, draws, state


def _roots(executed: Sequence[Event], unprocessed: Sequence[Event]) -> list[Event]:
    """The events that follow the committed ones and were not caused by each other, in key order."""
    keys = {event[:5] for event in executed}
    return sorted((event for event in (*executed, *unprocessed) if event[5].cause not in keys), key=_key)


def _restore(engine: TimeWarpEngine, run: dict[str, Any]) -> None:
    ledger = engine.ledger
    try:
        for node, value in zip(engine.nodes.values(), run["nodes"], strict=True):
            _fill(node, value)
        ledger.committed, ledger.released, *ledger.heads, ledger.tick, ledger.at_tick = run["ledger"]
        ledger.outputs.extend(Output(*output) for output in run["outputs"])
        time, generation, settled = run["gvt"]
        engine.resume((time, generation, settled), run["books"])
        for config, told in zip(engine.promises.configs.values(), run["promised"], strict=True):
            config.last_null_message_ns = told
        for value in run["events"]:
            engine.inbox.add_again(_event_of(value))
        engine.execute_again([_key_of(key) for key in run["executed"]])
        if engine.traffic.stream is not None:
            engine.traffic.stream.count = run["draws"]
    except (KeyError, TypeError, ValueError, IndexError, ModelError) as error:
        raise CheckpointRefused("an engine", f"{type(error).__name__}: {error}", "take its bytes whole") from error


def _event_of(value: Sequence[Any]) -> Event:
    time, word, target, source, sequence, kind, payload, lamport, vector = value
    return (time, word, target, source, sequence, Delivery(EventType(kind), payload, lamport, vector, None))


def _key_of(value: Sequence[Any]) -> Key:
    time, word, target, source, sequence = value
    return (time, word, target, source, sequence)


def _key(event: Event) -> Key:
    return event[:5]
