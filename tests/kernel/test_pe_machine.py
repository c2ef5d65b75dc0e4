"""One PE among PEs that are played by the test: whatever arrives, in whatever order, it ends where a sequential run ends."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.errors import HandlerError
from tidewarp.kernel.optimistic.entries import ANTI, COMMITTED, POSITIVE, RETURN, Letter
from tidewarp.kernel.optimistic.gvt import TRANSIT, Rounds
from tidewarp.kernel.optimistic.memory import Pool
from tidewarp.kernel.optimistic.pe import ProcessingElement, grouped
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.records import Event
from tidewarp.seeds import mix64

HERE = 4  # LPs 0 to 3 are on PE 0, LP 4 on PE 1, LP 5 on PE 2
PE_OF = [0, 0, 0, 0, 1, 2]
HORIZON = 40
FAILING = 31  # messages with this rest modulo 256 fail


class Did(NamedTuple):
    """Effects of a toy handler."""

    sends: list[Event]
    emitted: list[Any]
    adds: list[tuple[int, int]]


class Toys:
    """LPs whose state is (hash, sends): an executor of a page."""

    def __init__(self, interval: int) -> None:
        self.states = [(lp, 0) for lp in range(HERE)]
        self._interval = interval
        self._since = [interval] * HERE

    def save(self, lp: int) -> Any:
        if self._since[lp] >= self._interval:
            self._since[lp] = 1
            return self.states[lp]
        self._since[lp] += 1
        return None

    def restore(self, lp: int, saved: Any) -> None:
        self._since[lp] = self._interval
        self.states[lp] = saved

    def coasts(self, lp: int) -> bool:
        return self._interval > 1

    def same(self, a: Event, b: Event) -> bool:
        return a == b

    def execute(self, event: Event) -> Did:
        now, generation, lp, _, _, message = event
        hash_, count = self.states[lp]
        hash_ = mix64(hash_ ^ mix64(message ^ now))
        if hash_ % 256 == FAILING:
            self.states[lp] = (hash_, count)
            raise HandlerError(f"{event}", "it fails", "let it")
        sends: list[Event] = []
        for number in range((0, 0, 1, 1, 2)[hash_ % 5]):
            bits = mix64(hash_ + number)
            delay = bits % 4
            sends.append((now + delay, 0 if delay else generation + 1, bits // 4 % 6, lp, count, bits % 1000))
            count += 1
        self.states[lp] = (hash_, count)
        return Did(sends, [message] if hash_ % 7 == 0 else [], [])


class Ending(NamedTuple):
    """Where a sequential run of the PE's LPs ends."""

    states: list[tuple[int, int]]
    executed: list[Event]
    sent: list[Event]
    failed: list[Event]


def replayed(arrivals: list[Event], kps: dict[int, Any]) -> Ending:
    """Everything that arrived, executed one after the other; a failing event stops its KP."""
    toys, pending = Toys(1), list[Event]()
    for event in arrivals:
        heappush(pending, event)
    executed, sent, failed, stopped = [], [], [], set()
    while pending and pending[0][0] < HORIZON:
        event = heappop(pending)
        kp = id(kps[event[2]])
        if kp in stopped:
            continue
        executed.append(event)
        try:
            sends = toys.execute(event).sends
        except HandlerError:
            stopped.add(kp)
            failed.append(event)
            continue
        for child in sends:
            if PE_OF[child[2]] == 0:
                heappush(pending, child)
            else:
                sent.append(child)
    return Ending(toys.states, executed, sorted(sent), failed)


class OnePe(RuleBasedStateMachine):
    """Deliver, cancel, re-send, send back, report, commit: in any order."""

    @initialize(
        lazy=st.booleans(), interval=st.integers(1, 4), kps=st.integers(1, 4), window=st.sampled_from([3, 1000])
    )
    def begin(self, lazy: bool, interval: int, kps: int, window: int) -> None:
        self.toys = Toys(interval)
        self.rounds = Rounds(1)
        self.pool = Pool(None)
        self.kps = grouped(range(HERE), kps, lambda lp: False)
        self.pe = ProcessingElement(
            0, PE_OF, self.kps, self.toys, self.rounds, pool=self.pool, window=Window(window, 1, False), lazy=lazy
        )
        self.arrived: dict[tuple[int, int], Event] = {}  # (source, number) -> not cancelled
        self.injected: list[Event] = []
        self.numbers = {1: 0, 2: 0}
        self.count = 0
        self.out: dict[tuple[int, int], Letter] = {}  # (target, number) -> not cancelled
        self.received_out = {1: 0, 2: 0}
        self.returned: set[tuple[int, int]] = set()
        self.inbox: list[Letter] = []  # drained in one go
        self.committed: list[Event] = []

    # --- what the world does ----------------------------------------------------------------------

    @property
    def floor(self) -> int:
        return self.rounds.gvt[0] + (self.rounds.gvt[1:] > (0, TRANSIT))

    @rule(source=st.sampled_from([1, 2]), ahead=st.integers(0, 12), dst=st.integers(0, 3), message=st.integers(0, 99))
    def deliver(self, source: int, ahead: int, dst: int, message: int) -> None:
        """A message from another PE; it is read with whatever else arrives before the next step."""
        event = (self.floor + ahead, 0, dst, source + 3, self.count, message)
        self.count += 1
        self._send(source, event)

    def _send(self, source: int, event: Event) -> None:
        number = self.numbers[source]
        self.numbers[source] += 1
        self.arrived[source, number] = event
        self.inbox.append(Letter(POSITIVE, source, 0, number, *event[:2], event, (self.floor, 0)))

    @rule(ahead=st.integers(0, 12), dst=st.integers(0, 3), message=st.integers(0, 99))
    def inject(self, ahead: int, dst: int, message: int) -> None:
        """An event from outside."""
        event = (self.floor + ahead, 0, dst, -5, self.count, message)
        self.count += 1
        self.injected.append(event)
        self.pe.inject(event)

    @precondition(lambda self: self._cancellable())
    @rule(data=st.data(), again=st.booleans(), change=st.integers(0, 1))
    def cancel(self, data: st.DataObject, again: bool, change: int) -> None:
        """An anti-message; perhaps the same event follows under a new number, or with another message."""
        source, number = channel = data.draw(st.sampled_from(self._cancellable()))
        event = self.arrived.pop(channel)
        self.inbox.append(Letter(ANTI, source, 0, number, *event[:2], None, (self.floor, 0)))
        if again:
            self._send(source, (*event[:5], event[5] + change))

    def _cancellable(self) -> list[tuple[int, int]]:
        return sorted(channel for channel, event in self.arrived.items() if event[0] >= self.floor)

    @precondition(lambda self: self._returnable())
    @rule(data=st.data())
    def send_back(self, data: st.DataObject) -> None:
        """The other side has no memory for a message that it got: its sender has to take it back, by an anti-message."""
        target, number = channel = data.draw(st.sampled_from(self._returnable()))
        self.returned.add(channel)
        self.inbox.append(Letter(RETURN, target, 0, number, *self.out[channel].sent, None, self.out[channel].sent))

    def _returnable(self) -> list[tuple[int, int]]:
        found = (channel for channel, one in self.out.items() if (*one.sent, TRANSIT) >= self.rounds.gvt)
        return sorted(channel for channel in found if channel not in self.returned)

    @precondition(lambda self: self.inbox)
    @rule(order=st.lists(st.sampled_from([1, 2]), max_size=12))
    def drain(self, order: list[int]) -> None:
        """The PE reads its inbox: channels in any order, each in its own."""
        while self.inbox:
            source = order.pop() if order else 0
            place = next((i for i, one in enumerate(self.inbox) if one.source == source), 0)
            self.pe.receive([self.inbox.pop(place)])

    # --- what the PE does -------------------------------------------------------------------------

    @rule(batch=st.integers(0, 20), room=st.sampled_from([0, 1, 100]))
    def step(self, batch: int, room: int) -> None:
        """Some events; as many letters leave as there is room for."""
        self.pe.look()
        self._step(batch, room)
        self.pe.settle()
        self.pe.validate()
        assert self.pool.live == self.pe.live()

    def _step(self, batch: int, room: int) -> int:
        before = self.pe.statistics.executed
        for letter in self.pe.step(HORIZON, batch, room=lambda target: room):
            channel = (letter.target, letter.number)
            if letter.kind == POSITIVE:
                assert letter.number == self.received_out[letter.target], "numbers of a channel count"
                self.received_out[letter.target] += 1
                self.out[channel] = letter
            else:
                assert letter.kind == ANTI
                del self.out[channel]
                self.returned.discard(channel)
        return self.pe.statistics.executed - before

    @precondition(lambda self: not self.inbox)
    @rule(ahead=st.integers(0, 10))
    def find_gvt(self, ahead: int) -> None:
        """A GVT round, bounded by what the world may still send; what it passes is committed in key order."""
        self._round(min(self.rounds.gvt[0] + ahead, HORIZON))

    def _round(self, promise: int) -> None:
        self.rounds.bound = max(self.rounds.bound, (promise, 0, TRANSIT))
        self.rounds.begin()
        self.pe.look()
        self._step(0, 100)
        for entry in self.pe.final():
            if entry.error is not None:
                break
            entry.status = COMMITTED
            self.committed.append(entry.event)
        self.pe.collect()

    @precondition(lambda self: not self.inbox)
    @rule()
    def come_to_rest(self) -> None:
        """With nothing left to do, the PE is where a sequential run of the same arrivals is; GVT may help held events."""
        self.pe.look()
        while self._step(1000, 100):
            pass
        expected = replayed([*self.arrived.values(), *self.injected], self.kps)
        if any(not entry.held for entry in self.pe._alive() if entry.event[0] < min(HORIZON, self._limit())):
            assert any(kp.failed for kp in self.pe.kps), "an event that may run is left"
        executed = [entry.event for kp in self.pe.kps for entry in kp.executed]
        if self._limit() >= HORIZON and not any(entry.held for entry in self.pe._alive()):
            assert self.toys.states == expected.states
            assert sorted(executed + self.committed) == expected.executed
            assert sorted(letter.event for letter in self.out.values() if letter.event[3] < HERE) == expected.sent

    def _limit(self) -> int:
        return self.rounds.gvt[0] + self.pe.window.ticks

    @invariant()
    def committed_events_ascend(self) -> None:
        """What is committed stays, in key order."""
        committed = getattr(self, "committed", [])
        assert committed == sorted(committed)

    def teardown(self) -> None:
        """Nothing more comes: everything runs, and is what a sequential run makes of it."""
        if not hasattr(self, "pe"):
            return
        for letter in self.inbox:
            self.pe.receive([letter])
        self.inbox.clear()
        for _ in range(1000):
            self.pe.look()
            ran = self._step(1000, 100)
            before = self.rounds.gvt
            self._round(HORIZON)
            if not ran and self.rounds.gvt == before:
                break
        expected = replayed([*self.arrived.values(), *self.injected], self.kps)
        if expected.failed:
            first = expected.executed.index(expected.failed[0])
            assert self.committed == expected.executed[:first], "everything before the first error is committed"
            return
        assert self.committed == expected.executed
        assert self.toys.states == expected.states
        self.pe.undo_all()
        self.pe.validate()
        assert self.pool.live == self.pe.live()


OnePe.TestCase.settings = settings(stateful_step_count=30, report_multiple_bugs=False)
TestOnePe = OnePe.TestCase
