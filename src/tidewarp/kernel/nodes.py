"""Time Warp over twin nodes: what a user injects, steps and looks at.

A thin shell: nodes are executed, rolled back, cancelled and committed by the PE machine of :mod:`tidewarp.kernel.optimistic`;
here stands only what may come in, what may run next, and what can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tidewarp.clocks.logical import VectorClock, checked_int
from tidewarp.errors import CheckpointRefused, LateInput, OperatorError, UnknownDestination
from tidewarp.kernel.flow import BackpressureController
from tidewarp.kernel.lookahead import NullMessageOptimizer
from tidewarp.kernel.node_bytes import pack_engine, unpack_engine
from tidewarp.kernel.node_checkpoints import AdaptiveCheckpointInterval, CheckpointManager
from tidewarp.kernel.node_events import (
    EventType,
    Key,
    SyncMode,
    TwinEvent,
    check_event,
    check_input,
    event_of,
    key_of,
    mode_of,
    twin_event,
)
from tidewarp.kernel.node_inbox import Inbox
from tidewarp.kernel.node_ledger import Effect, NodeLedger, causal_violations
from tidewarp.kernel.node_policy import Conservative, Lockstep, Optimistic, Policy
from tidewarp.kernel.node_runtime import IDENTITIES, Handler, NodeContext, NodeExecutor, NodeState, check_type
from tidewarp.kernel.node_traffic import FOREVER, Traffic
from tidewarp.kernel.optimistic.commit import Committer
from tidewarp.kernel.optimistic.entries import ANTI, COMMITTED, Entry
from tidewarp.kernel.optimistic.gvt import NEVER, PENDING, TRANSIT, Mark
from tidewarp.kernel.records import Event
from tidewarp.kernel.trace import Ledger, Output
from tidewarp.kernel.values import check_value, checked_bytes, copied
from tidewarp.seeds import Stream

__all__ = ["EventType", "NodeContext", "NodeState", "SyncMode", "TimeWarpEngine", "TwinEvent"]


class TimeWarpEngine:
    """``num_nodes`` nodes that exchange events in virtual time (ns), executed ahead of what is known and repaired.

    ``handler(node, event, ctx)`` is called for each event; it changes ``node.state`` and calls ``ctx``, nothing else, may run
    several times, and must do the same each time. Without one, nodes only keep clocks and counts. ``initial_state`` is the
    state of every node at first, or a function of its number. ``checkpoint_interval_ns`` is the virtual time
    between two checkpoints of a node; with ``adaptive_interval`` it follows the rollbacks.

    ``mode``: OPTIMISTIC runs ahead, at most ``window_ns`` beyond GVT if that is given. CONSERVATIVE executes only what nothing can
    precede: below every source's watermark, and below what ``promises`` (of ``lookahead_ns``) allow. LOCKSTEP executes up to
    the latest input or watermark and takes no input before the last executed event.
    ``lookahead_ns`` is the least delay of a send to another node.
    ``identity``: "state" (rolls back with the rest), "commit" (``ctx.deepen`` counts at GVT; handlers cannot read it) or
    "non_speculative" (nodes execute only what is final; late input is refused from there on).
    ``max_queue_depth``: input is shed from so many unprocessed events on. ``schedule_seed``: letters and nodes take turns
    in an order drawn from it, with the same result. ``seed`` is that of the handlers' random numbers.
    ``outputs_max``: commits stop while so many outputs wait to be taken.

    Raises:
        RangeError: a number out of range. OperatorError: options that do not go together.
        ModelError: an initial state that cannot be copied.
    """

    def __init__(
        self,
        num_nodes: int,
        checkpoint_interval_ns: int = 1000,
        *,
        handler: Handler | None = None,
        initial_state: Any | Callable[[int], Any] = None,
        mode: SyncMode = SyncMode.OPTIMISTIC,
        lookahead_ns: int = 0,
        window_ns: int | None = None,
        identity: str = "state",
        max_queue_depth: int | None = None,
        schedule_seed: int | None = None,
        seed: int = 1,
        adaptive_interval: AdaptiveCheckpointInterval | None = None,
        outputs_max: int = 2**20,
    ) -> None:
        self.num_nodes = checked_int("num_nodes", num_nodes, 1, 2**31 - 1)
        self.checkpoint_interval_ns = checked_int("checkpoint_interval_ns", checkpoint_interval_ns)
        self.mode = mode_of(mode)
        self.identity = identity
        self.lookahead_ns = checked_int("lookahead_ns", lookahead_ns)
        self.window_ns = None if window_ns is None else checked_int("window_ns", window_ns, 1)
        self.schedule_seed = schedule_seed
        self.seed = seed
        self.handler = handler
        self._check_options()
        self.promises = NullMessageOptimizer(self.num_nodes, self.lookahead_ns)
        self.backpressure = None if max_queue_depth is None else BackpressureController(max_queue_depth)
        self.adaptive_interval = adaptive_interval
        self.checkpoint_mgr = CheckpointManager()
        self.barriers_passed = 0
        nodes = [self._new_node(i, initial_state) for i in range(self.num_nodes)]
        self.nodes = dict(enumerate(nodes))
        self.ledger = NodeLedger(nodes, checked_int("outputs_max", outputs_max, 1))
        self.executor = NodeExecutor(
            nodes,
            handler,
            self.checkpoint_mgr,
            NodeContext(self.num_nodes, self._lookahead, identity == "commit"),
            lambda: self.checkpoint_interval_ns,
            identity == "commit",
        )
        self._committer = Committer(cast("Ledger", self.ledger))
        self._begin((0, 0, TRANSIT))

    def _begin(self, gvt: Mark) -> None:
        final = self.identity == "non_speculative"
        self.traffic = Traffic(list(self.nodes.values()), self.executor, final, self.schedule_seed, gvt)
        self.inbox = Inbox(self.traffic)
        self._policy = self._new_policy()
        self._barriers: list[int] = []
        self._places: dict[Key, int] = {}  # executed event -> its place in the order of execution
        self._place = 0
        self._before = {"executed": 0, "rolled_back": 0, "anti_messages": 0}  # counts of a life before this one

    def _new_policy(self) -> Policy:
        if self.mode is SyncMode.OPTIMISTIC:
            return Optimistic(self.traffic, self.window_ns, self.compute_gvt)
        if self.mode is SyncMode.LOCKSTEP:
            return Lockstep(self.inbox, lambda: self.now_ns)
        exchanges = self.handler is not None and self.num_nodes > 1
        return Conservative(self.traffic, self.inbox, self.promises, exchanges)

    def _check_options(self) -> None:
        if self.identity not in IDENTITIES:
            raise OperatorError(f"identity {self.identity!r}", f"it is one of {', '.join(IDENTITIES)}", "choose one")
        if self.window_ns is not None and self.mode is not SyncMode.OPTIMISTIC:
            raise OperatorError(
                f"window_ns in mode {self.mode.value}", "only an optimistic engine runs ahead of GVT", "leave it out"
            )
        if self.schedule_seed is not None:
            checked_int("schedule_seed", self.schedule_seed)

    def _new_node(self, number: int, initial_state: Any) -> NodeState:
        state = initial_state(number) if callable(initial_state) else copied(initial_state, "initial_state")
        check_value(state, "initial_state")
        node = NodeState(number, vector_clock=VectorClock(number, self.num_nodes), state=state)
        node.stream = Stream(self.seed, f"node.{number}")
        return node

    def _lookahead(self, src: int, dst: int) -> int | None:
        return self.promises.lookahead(src, dst) if self.mode is SyncMode.CONSERVATIVE else self.lookahead_ns

    # --- input ------------------------------------------------------------------------------------

    def inject_event(self, event: TwinEvent) -> bool:
        """Queue an event and stamp its ``sequence``; False: shed by backpressure, and counted there.

        An event before what its node has executed (by the full key, also at equal time) is a straggler: the next
        ``process_next`` repairs. What is queued is a copy; the object given is only watched for ``cancelled``.

        Raises:
            RangeError: no TwinEvent, or a cancelled one, a field out of range, a vector clock of other nodes, a type that is no
                event of the model, a sequence used twice.
            UnknownDestination: no such node.
            LateInput: below GVT or the source's watermark; in LOCKSTEP before the last executed event; in CONSERVATIVE
                before what its node has executed or promised.
            ModelError: a payload that cannot be copied.
        """
        check_input(event)
        check_type(event.event_type)
        if not 0 <= event.target_node < self.num_nodes:
            raise UnknownDestination(
                f"an event for node {event.target_node}", f"nodes are 0 to {self.num_nodes - 1}", "correct target_node"
            )
        vector = self.nodes[event.target_node].vector_clock
        if event.vector_ts is not None and vector is not None:
            vector.counts_of(event.vector_ts)
        made = self.inbox.numbered(event, event_of(event))
        self._check_late(made[:5])
        if self.backpressure is not None and not self.backpressure.should_accept(
            self.traffic.backlog, now_ns=self.gvt_ns
        ):
            return False
        self.inbox.add(event, made)
        return True

    def _check_late(self, key: Key) -> None:
        """By GVT, by the watermark of its source, then by the policy of the mode."""
        time, _, target, source, _ = key
        watermark_ns, bound_ns = self.inbox.watermark_of(source), self._policy.bound_ns(target)
        if (time, key[1], TRANSIT) < self.traffic.rounds.gvt:
            bound, what = self.gvt_ns, "GVT stands"
        elif time < watermark_ns:
            bound, what = watermark_ns, "its source's watermark stands"
        elif time < bound_ns or self._policy.precedes(key):
            bound, what = bound_ns, self._policy.stands
        else:
            return
        raise LateInput(
            f"an event at {time} ns for node {target}",
            f"{what} at {bound} ns",
            "hold the watermark of its source back for as long as it may be late",
        )

    def earliest_input_ns(self, source_node: int, target_node: int) -> int:
        """A time from which on events of this source are taken for this node as things stand, whatever their priority."""
        gvt = self.traffic.rounds.gvt
        past_instant = (gvt[0], 0, TRANSIT) < gvt or self.mode is SyncMode.CONSERVATIVE
        bound_ns = max(gvt[0], self._policy.bound_ns(target_node))
        return max(bound_ns + past_instant, self.inbox.watermark_of(source_node))

    def retract_event(self, event: TwinEvent) -> None:
        """Take an injected event back: it is annihilated, and what it caused is undone.

        Raises:
            RangeError: no TwinEvent, or a field out of range.
            LateInput: it is committed, was never injected here, or the mode would not take an event in its place any more.
        """
        check_event(event)
        key = key_of(event)
        self._check_late(key)
        if not self.inbox.retract(key):
            raise LateInput(
                f"{event.order}", "only an injected event that is not committed can be taken back", "send another one"
            )

    def watermark(self, source_node: int, tick_ns: int) -> None:
        """Promise that ``source_node`` gives nothing below ``tick_ns`` any more; GVT does not pass it.

        A source that never calls this holds nothing back.

        Raises:
            RangeError: the watermark would go back.
        """
        self.inbox.watermark(source_node, tick_ns)

    def inject_sync_barrier(self, virtual_time_ns: int) -> None:
        """Let nothing later than this time run before all up to it is committed; it passes when something later is next.

        A barrier is no event and is not counted as one; ``barriers_passed`` counts those that opened.

        Raises:
            RangeError: no time. LateInput: GVT has passed it.
        """
        time = checked_int("virtual_time_ns", virtual_time_ns)
        if time < self.gvt_ns:
            raise LateInput(f"a barrier at {time} ns", f"GVT stands at {self.gvt_ns} ns", "set it further ahead")
        self._barriers = sorted([*self._barriers, time])

    # --- execution --------------------------------------------------------------------------------

    def process_next(self, *, before_ns: int | None = None) -> TwinEvent | None:
        """Repair what stragglers and anti-messages demand, then execute the next event; returns it, as a copy.

        The next is the least of all, or with ``schedule_seed`` the least of any node that may run. Annihilated events are
        neither returned nor counted. None: nothing may run; ``before_ns`` leaves that time and later for another call.

        Raises:
            ModelError: a handler failed, and nothing is left before that event; an earlier event may still repair it.
            ZeroLookahead: CONSERVATIVE without lookahead on a cycle of nodes.
        """
        before_ns = FOREVER if before_ns is None else checked_int("before_ns", before_ns)
        self.traffic.settle()
        while True:
            if self.mode is SyncMode.CONSERVATIVE:
                self.traffic.quiesce()  # a promise says nothing of what is on its way already
            elif self.traffic.stream is not None:
                self.traffic.deliver_some()
            key = self._choose(before_ns)
            if key is None:
                if not self.traffic.deliver_one():
                    return None
            elif not self.inbox.annihilates(key):
                return self._execute(key[2])

    def _execute(self, node: int) -> TwinEvent:
        entry = self.traffic.execute(node)
        self._place += 1
        self._places[entry.event[:5]] = self._place
        return twin_event(entry.event)

    def _choose(self, before_ns: int) -> Key | None:
        traffic = self.traffic
        failure = traffic.failure()
        if failure is not None and failure[0] <= traffic.low():
            raise failure[1]
        lowest = traffic.lowest()
        if lowest is None or (traffic.stream is None and self._may_run(lowest, before_ns)):
            return lowest
        able = self._able(before_ns)
        if not able and lowest[0] < before_ns:
            self._open_up(lowest)
            able = self._able(before_ns)
        if not able or traffic.stream is None:
            return min(able, default=None)
        return able[traffic.stream.below(len(able))]

    def _able(self, before_ns: int) -> list[Key]:
        """The next events of all nodes that may run."""
        return [key for key in self.traffic.firsts if key is not None and self._may_run(key, before_ns)]

    def _may_run(self, key: Key, before_ns: int) -> bool:
        if self.identity == "non_speculative" and (key[0], key[1], PENDING) > self.traffic.rounds.gvt:
            return False
        return key[0] < before_ns and self._is_open(key)

    def _is_open(self, key: Key) -> bool:
        return not (self._barriers and key[0] > self._barriers[0]) and self._policy.may_run(key)

    def _open_up(self, lowest: Key) -> None:
        """Nothing may run: move what can be moved without anybody else."""
        time, word = lowest[:2]
        self._pass_barriers(time)
        self._policy.open_up()
        if self.identity == "non_speculative" and self._is_open(lowest) and time < self.inbox.held_ns:
            self.traffic.move_gvt((time, word, PENDING))

    def _pass_barriers(self, time: int) -> None:
        while self._barriers and self._barriers[0] < min(time, self.inbox.held_ns):
            beyond = (self._barriers[0] + 1, 0, TRANSIT)
            if self.traffic.low() < beyond:
                return  # an anti-message or a late letter is still on its way there
            self.traffic.move_gvt(beyond)
            self._commit()
            if self.ledger.full:
                return
            del self._barriers[0]
            self.barriers_passed += 1

    # --- virtual time -----------------------------------------------------------------------------

    @property
    def gvt_ns(self) -> int:
        """GVT as last computed: no event below it is taken any more, and none there can change."""
        return self.traffic.rounds.gvt[0]

    @property
    def now_ns(self) -> int:
        """The largest local virtual time."""
        return max(node.local_virtual_time_ns for node in self.nodes.values())

    def least_unfinished_ns(self) -> int | None:
        """The least time of anything unprocessed, on its way, or held by a watermark, as of now; None if there is nothing.

        Unlike ``compute_gvt`` it binds nobody: earlier events may still be injected.
        """
        self.traffic.settle()
        least = min(self.traffic.low()[0], self.inbox.held_ns)
        return None if least == FOREVER else least

    def next_ns(self) -> int | None:
        """The time of the least event that is not executed, be it allowed to run or not; None if there is none."""
        self.traffic.settle()
        time = self.traffic.low()[0]
        return None if time == FOREVER else time

    def compute_gvt(self) -> int:
        """Move GVT to the least of unprocessed events, messages and anti-messages on their way, and watermarks.

        Nodes without anything to do do not pin it. It never goes back. With nothing left it is the largest local time.
        """
        least_ns = self.least_unfinished_ns()
        self.traffic.move_gvt((self.now_ns if least_ns is None else least_ns, 0, TRANSIT))
        if self.adaptive_interval is not None:
            executed = self._count("executed")
            self.checkpoint_interval_ns = self.adaptive_interval.update(self.total_rollbacks, executed)
        return self.gvt_ns

    def fossil_collect(self) -> int:
        """Compute GVT and commit what lies below it; returns how many log entries and checkpoints were dropped.

        Outputs of committed events are released. Of each node a checkpoint at or below GVT stays.

        Raises:
            ModelError: the error of a handler whose event is final; everything before it is committed.
        """
        self.compute_gvt()
        return self._commit() + self.checkpoint_mgr.collect_fossils(self.gvt_ns)

    def finish(self) -> int:
        """No input comes any more: move GVT past everything executed and commit it; returns what was dropped.

        Raises:
            OperatorError: events are left that have not been executed.
            ModelError: as :meth:`fossil_collect`.
        """
        self.traffic.quiesce()
        low = self.traffic.low()
        if self.traffic.lowest() is not None:
            raise OperatorError(
                f"finish() with an event at {low[0]} ns left", "it ends a run", "process all events first"
            )
        self.inbox.close()
        self.traffic.move_gvt(min(low, (self.now_ns + 1, 0, TRANSIT)) if low == NEVER else (low[0] + 1, 0, TRANSIT))
        return self._commit() + self.checkpoint_mgr.collect_fossils(self.gvt_ns)

    def _commit(self) -> int:
        finals = self.traffic.release()
        try:
            self._committer.release(finals)
        finally:
            done = [entry.event[:5] for final in finals for entry in final if entry.status == COMMITTED]
            self.traffic.collect()
            self.inbox.forget(done)
            self._forget_places()
        return len(done)

    def _forget_places(self) -> None:
        """Keep the places of what is executed and not committed; those of undone events may be gone for good."""
        kept = [entry.event[:5] for entry in self._executed()]
        self._places = {key: self._places[key] for key in kept}

    def outputs(self) -> list[Output]:
        """Take the released outputs, in key order; their ids are the same in every run."""
        taken = list(self.ledger.outputs)
        self.ledger.outputs.clear()
        return taken

    # --- bytes ------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The engine in one canonical form: :func:`tidewarp.kernel.node_bytes.pack_engine`."""
        return pack_engine(self)

    @classmethod
    def from_bytes(cls, data: bytes, *, handler: Handler | None = None) -> TimeWarpEngine:
        """An engine that goes on with the same digest; ``handler`` as it was.

        Raises:
            RangeError: no bytes. CheckpointRefused: other bytes, or a handler is missing or superfluous.
        """
        return unpack_engine(cls, checked_bytes("an engine", data), handler)

    def books(self) -> dict[str, Any]:
        """What is counted about input and execution, as a plain value."""
        pressure = self.backpressure
        return {
            "inbox": self.inbox.books(),
            "barriers": list(self._barriers),
            "barriers_passed": self.barriers_passed,
            "counts": {name: self._count(name) for name in self._before},
            "offers": None if pressure is None else [pressure.total_offered, pressure.rejected_count],
        }

    def resume(self, gvt: Mark, books: dict[str, Any]) -> None:
        """Begin anew at a GVT, with the nodes as they are and the books of an earlier life."""
        self._begin(gvt)
        self.inbox.resume(books["inbox"])
        self._barriers = list(books["barriers"])
        self.barriers_passed = books["barriers_passed"]
        self._before = dict(books["counts"])
        self.checkpoint_mgr.collect_fossils(gvt[0])
        if self.backpressure is not None:
            self.backpressure.total_offered, self.backpressure.rejected_count = books["offers"]

    def execute_again(self, keys: Sequence[Key]) -> None:
        """Execute these events, given in key order; nothing new is counted.

        Raises:
            CheckpointRefused: one of them is not there: the handler does something else than before.
        """
        executed = self._before["executed"] - len(keys)
        self.traffic.quiesce()
        for key in keys:
            if self.traffic.firsts[key[2]] != key:
                raise CheckpointRefused(
                    f"the event {key}", "it was executed, and is not caused any more", "pass the handler as it was"
                )
            self._execute(key[2])
            self.traffic.quiesce()
        self._before["executed"] = executed

    # --- looking in -------------------------------------------------------------------------------

    @property
    def total_rollbacks(self) -> int:
        """How often anything was undone."""
        return sum(node.rollback_count for node in self.nodes.values())

    @property
    def event_queue(self) -> tuple[TwinEvent, ...]:
        """The events that are not executed, in key order, those on their way included."""
        events = [event for pe in self.traffic.pes for event in pe.unprocessed()]
        events += [letter.event for queue in self.traffic.flight.values() for letter in queue if letter.event]
        return tuple(twin_event(event) for event in sorted(events, key=_key))

    @property
    def anti_messages(self) -> tuple[TwinEvent, ...]:
        """The anti-messages on their way: each arrives once, and annihilates one event."""
        letters = [letter for queue in self.traffic.flight.values() for letter in queue if letter.kind == ANTI]
        return tuple(
            sorted(
                TwinEvent(
                    letter.time,
                    (letter.generation & 0xFFFF) - 32768,
                    EventType.ANTI_MESSAGE,
                    letter.source,
                    letter.target,
                    generation=letter.generation >> 16,
                )
                for letter in letters
            )
        )

    @property
    def processed(self) -> tuple[TwinEvent, ...]:
        """The effective log: events executed and not undone, in order of execution, until they are committed."""
        return tuple(twin_event(event) for event in self._log())

    def _log(self) -> list[Event]:
        entries = self._executed()
        return sorted((entry.event for entry in entries), key=lambda event: self._places[event[:5]])

    def _executed(self) -> list[Entry]:
        return [entry for node in self.nodes for entry in self.traffic.executed(node)]

    def verify_causal_order(self) -> list[tuple[int, int]]:
        """Pairs of places (i, j) in ``processed`` that are the wrong way round: :func:`causal_violations`.

        Letters on their way are delivered first. After a correct rollback there are none.
        """
        self.traffic.quiesce()
        return causal_violations([(event[:5], event[5].cause) for event in self._log()])

    def detect_starvation(self, threshold_ns: int = 10000) -> list[int]:
        """Nodes that have an event to execute, or a source whose watermark stands, more than this behind the furthest node.

        Raises:
            RangeError: a threshold that is no int >= 0.
        """
        behind_ns = self.now_ns - checked_int("threshold_ns", threshold_ns)
        self.traffic.settle()
        found = {n for n, key in enumerate(self.traffic.firsts) if key is not None and key[0] < behind_ns}
        return sorted(found | self.inbox.starving(behind_ns))

    def node_throughput(self) -> dict[int, int]:
        """Events that each node has executed; what was undone is not counted."""
        return {number: node.processed_events for number, node in self.nodes.items()}

    def digest(self) -> str:
        """SHA-256 (64 digits) of the run so far: events in key order, outputs, states, events still to come.

        It depends on the events, not on the order of execution, on GVT or on checkpoints. Letters on their way are
        delivered first.
        """
        self.traffic.quiesce()
        effects: list[Effect] = [(entry.event, entry.emitted, entry.adds) for entry in self._executed()]
        pending = [event for pe in self.traffic.pes for event in pe.unprocessed()]
        return self.ledger.digest(effects, pending)

    def status(self) -> dict[str, Any]:
        """Counts and digest; ``anti_messages`` is how many were sent so far."""
        return {
            "num_nodes": self.num_nodes,
            "gvt_ns": self.gvt_ns,
            "total_rollbacks": self.total_rollbacks,
            "pending_events": self.traffic.backlog,
            "processed_events": sum(len(self.traffic.executed(node)) for node in self.nodes),
            "checkpoints": self.checkpoint_mgr.total_checkpoints,
            "node_lvts": {number: node.local_virtual_time_ns for number, node in self.nodes.items()},
            "committed_events": self.ledger.committed,
            "rolled_back_events": self._count("rolled_back"),
            "anti_messages": self._count("anti_messages"),
            "shed_events": 0 if self.backpressure is None else self.backpressure.rejected_count,
            "mode": self.mode.value,
            "digest": self.digest(),
        }

    def _count(self, name: str) -> int:
        total: int = sum(getattr(pe.statistics, name) for pe in self.traffic.pes)
        return self._before[name] + total


def _key(event: Event) -> Key:
    return event[:5]
