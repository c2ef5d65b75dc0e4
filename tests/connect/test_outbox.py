"""The outbox: every output to every sink, in order, however often a sink fails; no sink delays another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.codec import pack
from tidewarp.connect.contract import Output, Refused
from tidewarp.connect.outbox import Delivery, Failed, Opened, Outbox, Published, Retry, Send, Sent, Woken
from tidewarp.errors import InternalError, OperatorError


def output(n: int) -> Output:
    return Output(f"{n // 10:016x}-{n % 10:08x}", n // 10, "k", pack(n), "", "", n)


def outputs(first: int, end: int) -> list[Output]:
    return [output(n) for n in range(first, end)]


def outbox(**sinks: Delivery) -> Outbox:
    """With these sinks, all of them open and empty."""
    box = Outbox()
    for name, delivery in sinks.items():
        box.register(name, delivery)
        box.handle(Opened(name, ""))
    return box


def test_outputs_leave_in_order_one_batch_at_a_time() -> None:
    """The next batch only after the last one is held; each as large as the sink asked for."""
    box = outbox(x=Delivery(batch=2))
    assert box.handle(Published(outputs(0, 1))) == [Send("x", tuple(outputs(0, 1)))]
    assert box.handle(Published(outputs(1, 6))) == []
    assert box.backlog == {"x": 6}
    assert box.handle(Sent("x")) == [Send("x", tuple(outputs(1, 3)))]
    assert box.handle(Sent("x")) == [Send("x", tuple(outputs(3, 5)))]
    assert box.handle(Sent("x")) == [Send("x", tuple(outputs(5, 6)))]
    assert box.handle(Sent("x")) == []
    assert box.backlog == {}
    assert box.last_ids() == {"x": output(5).id}
    assert box.counts() == {
        "x": {"sent": 6, "retried": 0, "dead": 0, "refusal": None, "skipped": 0, "last_id": output(5).id}
    }


def test_a_failed_batch_is_tried_again_and_the_pause_doubles_up_to_its_bound() -> None:
    """0.5 s, 1 s, 2 s … 30 s, 30 s; the same batch each time."""
    box = outbox(x=Delivery())
    (send,) = box.handle(Published(outputs(0, 3)))
    now_s, pauses = 100.0, []
    for n in range(9):
        (retry,) = box.handle(Failed("x", f"no {n}", now_s))
        assert isinstance(retry, Retry)
        assert box.reason("x") == f"no {n}"
        pauses.append(retry.at_s - now_s)
        now_s = retry.at_s
        assert box.handle(Woken(now_s)) == [send]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert box.handle(Sent("x")) == []
    assert box.reason("x") == ""
    assert box.counts()["x"]["retried"] == 9


def test_after_a_success_the_pause_begins_anew() -> None:
    """One outage says nothing about the next."""
    box = outbox(x=Delivery(retry_s=(1.0, 8.0)))
    box.handle(Published(outputs(0, 1)))
    for at_s in (0.0, 1.0, 3.0):
        box.handle(Failed("x", "no", at_s))
        box.handle(Woken(at_s + 8))
    box.handle(Sent("x"))
    box.handle(Published(outputs(1, 2)))
    assert box.handle(Failed("x", "no", 50.0)) == [Retry("x", 51.0)]


def test_waking_too_early_does_nothing_and_waking_late_sends_once() -> None:
    """The time of a retry is a bound, not an appointment."""
    box = outbox(x=Delivery(), y=Delivery())
    box.handle(Published(outputs(0, 1)))
    box.handle(Failed("x", "no", 10.0))
    assert box.handle(Woken(10.25)) == []
    assert box.handle(Published(outputs(1, 2))) == [], "both have a batch under way"
    assert box.handle(Woken(99.0)) == [Send("x", tuple(outputs(0, 1)))]
    assert box.handle(Woken(99.5)) == []


def test_what_a_sink_holds_already_is_skipped() -> None:
    """A recovery publishes everything again; at or below the last id it is not offered."""
    box = Outbox()
    box.register("x", Delivery())
    box.handle(Opened("x", output(3).id))
    assert box.handle(Published(outputs(0, 4))) == []
    assert box.handle(Published(outputs(2, 6))) == [Send("x", tuple(outputs(4, 6)))]
    assert box.counts()["x"]["skipped"] == 6


def test_what_was_published_before_the_sink_had_opened_is_skipped_as_well() -> None:
    """The order of the two makes no difference."""
    box = Outbox()
    box.register("x", Delivery(batch=10))
    assert box.handle(Published(outputs(0, 6))) == []
    assert box.handle(Opened("x", output(3).id)) == [Send("x", tuple(outputs(4, 6)))]
    assert box.counts()["x"]["skipped"] == 4
    assert box.handle(Published(outputs(6, 7))) == []
    assert box.backlog == {"x": 3}


def test_a_sink_that_is_not_open_gets_nothing_and_loses_nothing() -> None:
    """Its queue waits."""
    box = Outbox()
    box.register("x", Delivery(queue=2))
    assert box.handle(Published(outputs(0, 3))) == []
    assert box.full
    assert box.handle(Opened("x", "")) == [Send("x", tuple(outputs(0, 3)))]
    assert not box.full


def test_a_slow_sink_delays_no_other_and_each_gets_everything() -> None:
    """A predecessor let two sinks share one queue: one got 1000 outputs, the other none."""
    box = outbox(slow=Delivery(), fast=Delivery(batch=100))
    got = []
    for n in range(1_000):
        for send in box.handle(Published([output(n)])):
            assert isinstance(send, Send)
            if send.sink == "fast":
                got += send.outputs
                assert box.handle(Sent("fast")) == []
    assert got == outputs(0, 1_000)
    assert box.backlog == {"slow": 1_000}
    assert box.counts()["fast"]["sent"] == 1_000
    (send,) = box.handle(Sent("slow"))
    assert isinstance(send, Send)
    assert (send.sink, send.outputs) == ("slow", tuple(outputs(1, 501)))


def test_full_means_that_some_queue_has_no_room() -> None:
    """Waiting outputs count, the batch under way does not."""
    box = outbox(x=Delivery(batch=1, queue=2), y=Delivery())
    box.handle(Published(outputs(0, 2)))
    assert not box.full
    box.handle(Published(outputs(2, 3)))
    assert box.full
    box.handle(Sent("y"))
    assert box.full
    box.handle(Sent("x"))
    assert not box.full


def test_what_a_target_refuses_for_good_is_counted_and_does_not_hold_up_the_rest() -> None:
    """Dead, not sent; the last id moves past it, so it is not offered again."""
    box = outbox(x=Delivery(batch=3))
    box.handle(Published(outputs(0, 4)))
    (send,) = box.handle(Sent("x", [Refused(output(2).id, "too long")]))
    assert send == Send("x", (output(3),))
    counts = box.counts()["x"]
    assert (counts["sent"], counts["dead"], counts["last_id"]) == (2, 1, output(2).id)


def test_a_confirmation_or_failure_of_nothing_is_our_fault() -> None:
    """It would move the last id, or send an empty batch."""
    for event in (Sent("x"), Failed("x", "no", 0.0)):
        with pytest.raises(InternalError, match="report this"):
            outbox(x=Delivery()).handle(event)


def test_names_of_sinks_are_unique() -> None:
    """Counts and last ids go by name."""
    with pytest.raises(OperatorError, match="a name of its own"):
        outbox(x=Delivery()).register("x", Delivery())


# ---------------------------------------------------------------------------- against a model


class Target:
    """What the other side holds. A write that fails may have arrived in part, from the first on."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.open = False
        self.held: list[Output] = []
        self.dead: set[str] = set()
        self.sending: tuple[Output, ...] = ()
        self.retry_at_s: float | None = None
        self.pause_s = delivery.retry_s[0]

    @property
    def last_id(self) -> str:
        return max([one.id for one in self.held] + sorted(self.dead), default="")

    def write(self, count: int) -> None:
        """As a sink of delivery `once`: what it holds, it drops."""
        self.held += [one for one in self.sending[:count] if one.id > self.last_id]


class OutboxMachine(RuleBasedStateMachine):
    """Sinks that open late, fail, refuse and come back after a crash of the twin: each holds each output once."""

    @initialize(batches=st.lists(st.integers(1, 4), min_size=1, max_size=3), queue=st.integers(1, 6))
    def begin(self, batches: list[int], queue: int) -> None:
        self.targets = {
            f"s{n}": Target(Delivery(batch=batch, queue=queue, retry_s=(0.5, 4.0))) for n, batch in enumerate(batches)
        }
        self.published = 0  # by this life
        self.now_s = 0.0
        self.box = self.fresh()

    def fresh(self) -> Outbox:
        box = Outbox()
        for name, target in self.targets.items():
            box.register(name, target.delivery)
            target.open, target.sending, target.retry_at_s = False, (), None
            target.pause_s = target.delivery.retry_s[0]
        return box

    def handle(self, event: Any) -> None:
        for instruction in self.box.handle(event):
            target = self.targets[instruction.sink]
            if isinstance(instruction, Retry):
                assert instruction.at_s == self.now_s + target.pause_s
                target.pause_s = min(2 * target.pause_s, 4.0)
                target.retry_at_s = instruction.at_s
                continue
            assert target.open
            assert 1 <= len(instruction.outputs) <= target.delivery.batch
            if target.retry_at_s is None:
                assert not target.sending, "one batch is under way"
                assert instruction.outputs[0].id > target.last_id, "nothing that it holds is offered"
            else:
                assert target.retry_at_s <= self.now_s
                assert instruction.outputs == target.sending, "a retry sends the same batch"
                target.retry_at_s = None
            target.sending = instruction.outputs

    def waiting(self, ready: bool) -> list[str]:
        return [name for name, one in self.targets.items() if one.sending and (one.retry_at_s is None) == ready]

    @rule(n=st.integers(0, 5))
    def publish(self, n: int) -> None:
        first, self.published = self.published, self.published + n
        self.handle(Published(outputs(first, self.published)))

    @precondition(lambda self: not all(one.open for one in self.targets.values()))
    @rule(data=st.data())
    def open(self, data: Any) -> None:
        name = data.draw(st.sampled_from([name for name, one in self.targets.items() if not one.open]))
        self.targets[name].open = True
        self.handle(Opened(name, self.targets[name].last_id))

    @precondition(lambda self: self.waiting(True))
    @rule(data=st.data(), refuse=st.integers(-1, 4))
    def succeed(self, data: Any, refuse: int) -> None:
        name = data.draw(st.sampled_from(self.waiting(True)))
        target = self.targets[name]
        sending, refused = target.sending, []
        if 0 <= refuse < len(sending) and sending[refuse] not in target.held:
            refused = [Refused(sending[refuse].id, "no")]
            target.held += [one for one in sending if one not in target.held and one != sending[refuse]]
            target.dead.add(sending[refuse].id)
        else:
            target.write(len(sending))
        target.sending, target.pause_s = (), target.delivery.retry_s[0]
        self.handle(Sent(name, refused))
        assert self.box.last_ids()[name] == sending[-1].id

    @precondition(lambda self: self.waiting(True))
    @rule(data=st.data(), arrived=st.integers(0, 4))
    def fail(self, data: Any, arrived: int) -> None:
        name = data.draw(st.sampled_from(self.waiting(True)))
        self.targets[name].write(arrived)
        self.handle(Failed(name, "no", self.now_s))

    @rule(s=st.sampled_from([0.0, 0.25, 0.5, 4.0]))
    def wake(self, s: float) -> None:
        self.now_s += s
        self.handle(Woken(self.now_s))
        assert not [name for name in self.waiting(False) if self.targets[name].retry_at_s <= self.now_s]

    @rule()
    def crash(self) -> None:
        """The twin is killed; the next life publishes everything again."""
        self.published = 0
        self.box = self.fresh()

    @invariant()
    def each_target_holds_a_prefix(self) -> None:
        if not hasattr(self, "box"):
            return
        waiting = {}
        for name, target in self.targets.items():
            ids = sorted([one.id for one in target.held] + list(target.dead))
            assert [one.id for one in target.held] == sorted({one.id for one in target.held}), "in order, each once"
            assert ids == [output(n).id for n in range(len(ids))], "without a gap"
            last = target.sending[0].id if target.sending else None
            below = sum(output(n).id < last for n in range(self.published)) if last else min(len(ids), self.published)
            waiting[name] = self.published - (below if target.open else 0)
        assert self.box.backlog == {name: count for name, count in waiting.items() if count}
        queues = [count - len(self.targets[name].sending) for name, count in waiting.items()]
        queue = next(iter(self.targets.values())).delivery.queue
        assert self.box.full == any(count >= queue for count in queues)
        for name, counts in self.box.counts().items():
            done = counts["sent"] + counts["dead"] + counts["skipped"] + self.box.backlog.get(name, 0)
            assert done == self.published, "every output of this life is accounted for"

    def teardown(self) -> None:
        """Calm weather: everything arrives everywhere."""
        if not hasattr(self, "box"):
            return
        for name, target in self.targets.items():
            if not target.open:
                target.open = True
                self.handle(Opened(name, target.last_id))
        self.wake(4.0)
        while ready := self.waiting(True):
            target = self.targets[ready[0]]
            target.write(len(target.sending))
            target.sending, target.pause_s = (), target.delivery.retry_s[0]
            self.handle(Sent(ready[0]))
        assert self.box.backlog == {}
        for target in self.targets.values():
            assert len(target.held) + len(target.dead) >= self.published


OutboxMachine.TestCase.settings = settings(settings(), stateful_step_count=40)
TestOutboxMachine = OutboxMachine.TestCase
