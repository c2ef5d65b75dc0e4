"""The outbox: every output to every sink, in order, however often a sink fails; no sink delays another."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.codec import pack
from tidewarp.connect.contract import Output, Refused
from tidewarp.connect.outbox import (
    Delivery,
    Failed,
    Fetch,
    Fetched,
    Opened,
    Outbox,
    Published,
    Reopen,
    Retry,
    Send,
    Sent,
    Spill,
    Unspilled,
    Woken,
)
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


def behind(box: Outbox) -> dict[str, int]:
    """Outputs that were shed, of the sinks that lack some."""
    return {name: counts["behind"] for name, counts in box.counts().items() if counts["behind"]}


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
        "x": {
            "sent": 6,
            "retried": 0,
            "dead": 0,
            "refusal": None,
            "skipped": 0,
            "spilled": 0,
            "behind": 0,
            "state": "open",
            "reason": "",
            "last_id": output(5).id,
        }
    }


def test_a_lost_connection_is_opened_again_and_the_pause_doubles_up_to_its_bound() -> None:
    """0.5 s, 1 s, 2 s … 30 s, 30 s; then the sink is opened, says what it holds, and is offered the rest."""
    box = outbox(x=Delivery())
    box.handle(Published(outputs(0, 3)))
    now_s, pauses = 100.0, []
    for n in range(9):
        (retry,) = box.handle(Failed("x", f"no {n}", now_s))
        assert isinstance(retry, Retry)
        assert (box.reason("x"), box.counts()["x"]["state"]) == (f"no {n}", "down")
        pauses.append(retry.at_s - now_s)
        now_s = retry.at_s
        assert box.handle(Woken(now_s)) == [Reopen("x")]
        assert box.handle(Woken(now_s + 100)) == [], "one at a time"
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert box.handle(Opened("x", output(0).id)) == [Send("x", tuple(outputs(1, 3)))]
    assert (box.reason("x"), box.counts()["x"]["state"]) == ("", "open")
    assert box.handle(Sent("x")) == []
    counts = box.counts()["x"]
    assert (counts["retried"], counts["sent"], counts["skipped"]) == (1, 3, 0), "it had arrived, and counts as sent"


def test_an_answer_that_was_lost_is_found_when_the_sink_is_opened_again() -> None:
    """All of the batch had arrived: nothing is offered twice."""
    box = outbox(x=Delivery())
    box.handle(Published(outputs(0, 3)))
    box.handle(Failed("x", "no", 0.0))
    box.handle(Woken(1.0))
    assert box.handle(Opened("x", output(2).id)) == []
    assert box.backlog == {}
    assert (box.counts()["x"]["sent"], box.last_ids()) == (3, {"x": output(2).id})


def test_a_sink_that_cannot_tell_is_offered_what_it_had_not_acknowledged() -> None:
    """At least once: what may have arrived goes again, what was acknowledged does not."""
    box = outbox(x=Delivery(batch=2))
    box.handle(Published(outputs(0, 4)))
    box.handle(Sent("x"))
    box.handle(Failed("x", "no", 0.0))
    box.handle(Woken(1.0))
    assert box.handle(Opened("x", None)) == [Send("x", tuple(outputs(2, 4)))]


def test_a_target_that_has_lost_what_it_had_acknowledged_ends_the_run() -> None:
    """To go on would leave a hole that nobody sees; the journal can make the missing ones again."""
    box = outbox(x=Delivery(batch=2))
    box.handle(Published(outputs(0, 4)))
    box.handle(Sent("x"))
    box.handle(Failed("x", "no", 0.0))
    box.handle(Woken(1.0))
    with pytest.raises(OperatorError, match=f"up to {output(0).id}, and had acknowledged {output(1).id}"):
        box.handle(Opened("x", output(0).id))


@pytest.mark.parametrize("refused", [True, False])
def test_an_output_that_was_given_up_is_not_missed_when_the_sink_is_opened_again(refused: bool) -> None:
    """The target never held it, so it cannot say that it does."""
    box = outbox(x=Delivery(batch=2, poison=1))
    box.handle(Published(outputs(0, 2)))
    if refused:
        box.handle(Sent("x", [Refused(output(1).id, "no")]))
    else:
        assert box.handle(Failed("x", "odd", 0.0, passing=False)) == [Send("x", (output(0),))]
        assert box.handle(Sent("x")) == [Send("x", (output(1),))]
        assert box.handle(Failed("x", "odd", 0.0, passing=False)) == []
    assert box.last_ids() == {"x": output(1).id}
    box.handle(Published(outputs(2, 3)))
    box.handle(Failed("x", "gone", 0.0))
    box.handle(Woken(1.0))
    assert box.handle(Opened("x", output(0).id)) == [Send("x", (output(2),))]
    assert (box.counts()["x"]["dead"], box.counts()["x"]["sent"]) == (1, 1)


def test_a_sink_that_cannot_be_opened_at_first_is_tried_again() -> None:
    """A predecessor that was refused at the start never tried again."""
    box = Outbox()
    box.register("x", Delivery())
    assert box.counts()["x"]["state"] == "starting"
    box.handle(Published(outputs(0, 1)))
    assert box.handle(Failed("x", "refused", 5.0)) == [Retry("x", 5.5)]
    assert box.handle(Woken(5.5)) == [Reopen("x")]
    assert box.handle(Failed("x", "refused", 6.0)) == [Retry("x", 7.0)]
    assert box.handle(Woken(7.0)) == [Reopen("x")]
    assert box.handle(Opened("x", "")) == [Send("x", (output(0),))]
    assert box.counts()["x"]["retried"] == 0, "no batch was"


def test_after_a_success_the_pause_begins_anew() -> None:
    """One outage says nothing about the next; that it could be opened does not end an outage."""
    box = outbox(x=Delivery(retry_s=(1.0, 8.0)))
    box.handle(Published(outputs(0, 1)))
    for at_s, pause_s in ((0.0, 1.0), (10.0, 2.0), (20.0, 4.0)):
        assert box.handle(Failed("x", "no", at_s)) == [Retry("x", at_s + pause_s)]
        box.handle(Woken(at_s + pause_s))
        box.handle(Opened("x", ""))
    box.handle(Sent("x"))
    box.handle(Published(outputs(1, 2)))
    assert box.handle(Failed("x", "no", 50.0)) == [Retry("x", 51.0)]


def test_waking_too_early_does_nothing_and_waking_late_opens_once() -> None:
    """The time of a retry is a bound, not an appointment."""
    box = outbox(x=Delivery(), y=Delivery())
    box.handle(Published(outputs(0, 1)))
    box.handle(Failed("x", "no", 10.0))
    assert box.handle(Woken(10.25)) == []
    assert box.handle(Published(outputs(1, 2))) == [], "one waits, the other has a batch under way"
    assert box.handle(Woken(99.0)) == [Reopen("x")]
    assert box.handle(Woken(99.5)) == []


def test_the_output_that_fails_is_found_by_halves_and_all_others_are_held() -> None:
    """0 to 9, of which 6 fails: it is offered alone `poison` times, and given up."""
    box = outbox(x=Delivery(batch=16, poison=3))
    held: list[Output] = []
    alone, now_s = 0, 0.0
    pending: Any = deque(box.handle(Published(outputs(0, 10))))
    while pending:
        match pending.popleft():
            case Send(_, batch) if output(6) in batch:
                alone += len(batch) == 1
                pending += box.handle(Failed("x", "odd", now_s, passing=False))
                assert box.counts()["x"]["state"] == "open", "the connection is sound"
            case Send(_, batch):
                held += batch
                pending += box.handle(Sent("x"))
            case Retry(_, at_s):
                assert at_s - now_s == (0.5, 1.0)[alone - 1]
                now_s = at_s
                pending += box.handle(Woken(now_s))
    assert held == [*outputs(0, 6), *outputs(7, 10)]
    assert alone == 3
    counts = box.counts()["x"]
    assert (counts["sent"], counts["dead"], counts["refusal"]) == (9, 1, f"{output(6).id}: odd")
    assert box.backlog == {}


def test_attempts_are_those_at_one_output() -> None:
    """The one before it had arrived when the connection was lost: its attempts are not held against the next."""
    box = outbox(x=Delivery(batch=1, poison=2))
    box.handle(Published(outputs(0, 2)))
    assert box.handle(Failed("x", "odd", 0.0, passing=False)) == [Retry("x", 0.5)]
    assert box.handle(Woken(0.5)) == [Send("x", (output(0),))]
    box.handle(Failed("x", "gone", 1.0))
    box.handle(Woken(9.0))
    assert box.handle(Opened("x", output(0).id)) == [Send("x", (output(1),))]
    (retry,) = box.handle(Failed("x", "odd", 10.0, passing=False))
    assert isinstance(retry, Retry)
    assert box.counts()["x"]["dead"] == 0


def test_after_a_bad_output_the_batches_grow_again() -> None:
    """1, 2, 4 … up to what the sink asked for."""
    box = outbox(x=Delivery(batch=8, poison=1))
    box.handle(Published(outputs(0, 1)))
    box.handle(Published(outputs(1, 40)))
    box.handle(Sent("x"))
    sizes = []
    instructions = box.handle(Failed("x", "odd", 0.0, passing=False))
    while instructions:
        (send,) = instructions
        assert isinstance(send, Send)
        sizes.append(len(send.outputs))
        bad = output(1) in send.outputs
        instructions = box.handle(Failed("x", "odd", 0.0, passing=False) if bad else Sent("x"))
    assert sizes[:3] == [4, 2, 1]
    assert sizes[3:7] == [1, 2, 4, 8]


def test_each_sink_gets_what_it_selects() -> None:
    """What it does not want is neither skipped nor waited for."""
    box = outbox(odd=Delivery(select=lambda one: one.event % 2 == 1), none=Delivery(select=lambda one: False))
    assert box.handle(Published(outputs(0, 5))) == [Send("odd", (output(1), output(3)))]
    assert box.backlog == {"odd": 2}
    box.handle(Sent("odd"))
    assert box.handle(Published(outputs(0, 5))) == []
    assert [counts["skipped"] for counts in box.counts().values()] == [2, 0]


def test_a_full_queue_spills_and_comes_back_in_order() -> None:
    """Memory holds `queue`, the file the rest; what comes later stands behind the file."""
    box = outbox(x=Delivery(batch=2, queue=3))
    box.spills = True
    assert box.handle(Published(outputs(0, 4))) == [
        Spill("x", (output(3),)),
        Send("x", tuple(outputs(0, 2))),
    ]
    assert not box.full
    assert box.counts()["x"]["state"] == "spilling"
    assert box.handle(Published(outputs(4, 6))) == [Spill("x", tuple(outputs(4, 6))), Fetch("x", 3)], (
        "behind the file, though memory has room, which the file fills"
    )
    assert box.backlog == {"x": 6}
    assert box.handle(Published(outputs(6, 7))) == [Spill("x", (output(6),))], "three are on their way back"
    assert box.handle(Sent("x")) == [Send("x", (output(2),))]
    assert box.backlog == {"x": 5}
    assert box.handle(Fetched("x", outputs(3, 6))) == []
    assert box.handle(Sent("x")) == [Send("x", tuple(outputs(3, 5)))]
    assert box.handle(Sent("x")) == [Fetch("x", 1), Send("x", (output(5),))]
    assert box.handle(Fetched("x", outputs(6, 7))) == []
    assert box.handle(Sent("x")) == [Send("x", (output(6),))]
    assert box.handle(Sent("x")) == []
    counts = box.counts()["x"]
    assert (counts["sent"], counts["spilled"], counts["behind"], counts["state"]) == (7, 4, 0, "open")
    assert box.handle(Published(outputs(7, 8))) == [Send("x", (output(7),))], "the file is behind us"


def test_what_waits_in_the_file_and_is_held_already_is_skipped() -> None:
    """A recovery whose sink was down when it published everything again."""
    box = Outbox()
    box.spills = True
    box.register("x", Delivery(queue=2, batch=2))
    assert box.handle(Published(outputs(0, 5))) == [Spill("x", tuple(outputs(2, 5)))]
    assert box.handle(Opened("x", output(3).id)) == [Fetch("x", 2)]
    assert box.handle(Fetched("x", outputs(2, 4))) == [Fetch("x", 1)]
    assert box.handle(Fetched("x", outputs(4, 5))) == [Send("x", (output(4),))]
    assert box.counts()["x"]["skipped"] == 4


def test_a_full_spill_file_makes_a_sink_fall_behind_and_what_it_holds_stays_a_prefix() -> None:
    """Nothing after the first that was shed is taken: the journal makes the rest again in one piece."""
    big = [replace_value(output(n), bytes(500)) for n in range(8)]
    box = outbox(x=Delivery(batch=1, queue=1, spill=1_300), y=Delivery())
    box.spills = True
    instructions = box.handle(Published(big[:6]))
    assert [one for one in instructions if isinstance(one, Spill)] == [Spill("x", tuple(big[1:3]))]
    assert behind(box) == {"x": 3}
    assert (box.counts()["x"]["state"], box.counts()["y"]["state"]) == ("behind", "open")
    box.handle(Sent("y"))
    got = []
    for _ in range(3):
        for one in list(instructions):
            if isinstance(one, Send) and one.sink == "x":
                got += one.outputs
                instructions = box.handle(Sent("x"))
                for fetch in instructions:
                    if isinstance(fetch, Fetch):
                        instructions = instructions + box.handle(Fetched("x", big[len(got) : len(got) + fetch.count]))
    assert got == big[:3]
    assert box.handle(Published(big[6:]))[-1] == Send("y", tuple(big[6:]))
    assert (behind(box), box.backlog) == ({"x": 5}, {"y": 2})


def replace_value(one: Output, value: bytes) -> Output:
    return one._replace(value=value)


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


def test_what_waits_in_a_file_counts_where_no_more_may_overflow() -> None:
    """A recovery, or a run while it was paced, has left it there; at full speed the run waits until there is room again."""
    box = outbox(x=Delivery(batch=1, queue=2))
    box.spills = True
    box.handle(Published(outputs(0, 5)))
    assert not box.full
    box.spills = False
    for event in (Sent("x"), Sent("x"), Fetched("x", outputs(2, 4))):
        assert box.full
        box.handle(event)
    assert (box.full, box.backlog) == (True, {"x": 3})
    box.handle(Sent("x"))
    assert (box.full, box.backlog) == (False, {"x": 2})


def test_what_a_target_refuses_for_good_is_counted_and_does_not_hold_up_the_rest() -> None:
    """Dead, not sent; the last id moves past it, so it is not offered again."""
    box = outbox(x=Delivery(batch=3))
    box.handle(Published(outputs(0, 4)))
    (send,) = box.handle(Sent("x", [Refused(output(2).id, "too long")]))
    assert send == Send("x", (output(3),))
    counts = box.counts()["x"]
    assert (counts["sent"], counts["dead"], counts["last_id"]) == (2, 1, output(2).id)


def test_a_confirmation_of_nothing_is_our_fault() -> None:
    """It would move the last id."""
    with pytest.raises(InternalError, match="report this"):
        outbox(x=Delivery()).handle(Sent("x"))


def test_names_of_sinks_are_unique() -> None:
    """Counts and last ids go by name."""
    with pytest.raises(OperatorError, match="a name of its own"):
        outbox(x=Delivery()).register("x", Delivery())


# ---------------------------------------------------------------------------- against a model


class Target:
    """What the other side holds. A write that is cut off may have arrived in part, from the first on."""

    def __init__(self, delivery: Delivery, poisoned: frozenset[str]) -> None:
        self.delivery = delivery
        self.poisoned = poisoned  # ids that it fails on, each time, and says no more
        self.held: list[Output] = []
        self.dead: set[str] = set()  # given up, by it or by the outbox
        self.begin()

    def begin(self) -> None:
        """A life of the twin."""
        self.told = False  # has it said what it holds, and not failed since?
        self.opening = True
        self.sending: tuple[Output, ...] = ()
        self.spilled: deque[Output] = deque()
        self.fetching: list[Output] | None = None
        self.retry_at_s: float | None = None
        self.pause_s = self.delivery.retry_s[0]
        self.alone = ("", 0)  # the output that failed alone, and how often

    @property
    def last_id(self) -> str:
        return self.held[-1].id if self.held else ""

    def write(self, outputs: Sequence[Output]) -> None:
        """As a sink of delivery `once`: what it holds, it drops."""
        for one in outputs:
            if one.id > self.last_id:
                self.held.append(one)
                self.dead.discard(one.id)

    def wants(self, one: Output) -> bool:
        return self.delivery.select is None or self.delivery.select(one)

    def passes(self, one: Output) -> bool:
        return one.id not in self.poisoned


class OutboxMachine(RuleBasedStateMachine):
    """Sinks that open late, fail in every way, refuse, spill, and come back after a crash: each holds each output once."""

    @initialize(
        batches=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        queue=st.integers(1, 6),
        spills=st.booleans(),
        spill=st.sampled_from([1 << 30, 2_000, 400]),
        poisoned=st.frozensets(st.integers(0, 40), max_size=8),
        every=st.sampled_from([None, 2, 3]),
    )
    def begin(
        self,
        batches: list[int],
        queue: int,
        spills: bool,
        spill: int,
        poisoned: frozenset[int],
        every: int | None,
    ) -> None:
        delivery = Delivery(queue=queue, retry_s=(0.5, 4.0), poison=3, spill=spill)
        bad = frozenset(output(n).id for n in poisoned)
        self.spills = spills
        self.targets = {
            f"s{n}": Target(replace(delivery, batch=batch), bad if n else frozenset())
            for n, batch in enumerate(batches)
        }
        if every is not None:
            last = self.targets[f"s{len(batches) - 1}"]
            last.delivery = replace(last.delivery, select=lambda one: one.event % every == 0)
        self.published = 0  # by this life
        self.now_s = 0.0
        self.box = self.fresh()

    def fresh(self) -> Outbox:
        box = Outbox()
        box.spills = self.spills
        for name, target in self.targets.items():
            box.register(name, target.delivery)
            target.begin()
        return box

    def handle(self, event: Any) -> None:
        for instruction in self.box.handle(event):
            target = self.targets[instruction.sink]
            match instruction:
                case Retry():
                    assert instruction.at_s == self.now_s + target.pause_s
                    target.pause_s = min(2 * target.pause_s, 4.0)
                    target.retry_at_s = instruction.at_s
                case Reopen():
                    assert not target.told
                    assert not target.opening
                    self.retried(target)
                    target.opening = True
                case Send():
                    assert target.told
                    assert not target.sending, "one batch is under way"
                    assert 1 <= len(instruction.outputs) <= target.delivery.batch
                    assert instruction.outputs[0].id > target.last_id, "nothing that it holds is offered"
                    self.retried(target)
                    target.sending = instruction.outputs
                case Spill():
                    assert self.spills
                    target.spilled += instruction.outputs
                case Fetch():
                    assert target.fetching is None, "one is under way"
                    assert 1 <= instruction.count <= target.delivery.queue
                    target.fetching = [target.spilled.popleft() for _ in range(instruction.count)]

    def retried(self, target: Target) -> None:
        assert target.retry_at_s is None or target.retry_at_s <= self.now_s
        target.retry_at_s = None

    def names(self, state: str) -> list[str]:
        return [name for name, one in self.targets.items() if getattr(one, state)]

    @rule(n=st.integers(0, 7))
    def publish(self, n: int) -> None:
        first, self.published = self.published, self.published + n
        self.handle(Published(outputs(first, self.published)))

    @precondition(lambda self: self.names("opening"))
    @rule(data=st.data(), works=st.booleans())
    def open(self, data: Any, works: bool) -> None:
        self.answer(data.draw(st.sampled_from(self.names("opening"))), works)

    def answer(self, name: str, works: bool) -> None:
        target = self.targets[name]
        target.opening, target.told = False, works
        self.handle(Opened(name, target.last_id) if works else Failed(name, "refused", self.now_s))

    @precondition(lambda self: self.names("sending"))
    @rule(data=st.data(), refuse=st.integers(-1, 4))
    def attempt(self, data: Any, refuse: int) -> None:
        """A write that arrives; with a poisoned output in it, it fails and nothing does."""
        name = data.draw(st.sampled_from(self.names("sending")))
        self.write(name, refuse)

    def write(self, name: str, refuse: int = -1) -> None:
        target = self.targets[name]
        if not all(map(target.passes, target.sending)):
            self.fail_unclearly(name)
            return
        sending, refused = target.sending, []
        if 0 <= refuse < len(sending):
            refused = [Refused(sending[refuse].id, "no")]
            target.dead.add(sending[refuse].id)
        target.write([one for one in sending if one.id not in [no.id for no in refused]])
        target.sending, target.pause_s, target.alone = (), target.delivery.retry_s[0], ("", 0)
        self.handle(Sent(name, refused))
        assert self.box.last_ids()[name] == sending[-1].id

    @precondition(lambda self: self.names("sending"))
    @rule(data=st.data())
    def fail_once(self, data: Any) -> None:
        """Even a sound batch may fail without a reason."""
        self.fail_unclearly(data.draw(st.sampled_from(self.names("sending"))))

    def fail_unclearly(self, name: str) -> None:
        target = self.targets[name]
        sending, target.sending = target.sending, ()
        is_last = False
        if len(sending) == 1:
            same = target.alone[0] == sending[0].id
            target.alone = (sending[0].id, target.alone[1] + 1 if same else 1)
            is_last = target.alone[1] == target.delivery.poison
        if is_last:
            target.dead.add(sending[0].id)
            target.pause_s, target.alone = target.delivery.retry_s[0], ("", 0)
        self.handle(Failed(name, "odd", self.now_s, passing=False))
        if is_last:
            assert self.box.last_ids()[name] == sending[0].id, "given up after so many attempts, and not later"
        elif len(sending) == 1:
            assert target.retry_at_s is not None
        else:
            assert target.sending == sending[: len(sending) // 2], "the first half"

    @precondition(lambda self: self.names("sending"))
    @rule(data=st.data(), arrived=st.integers(0, 5))
    def lose(self, data: Any, arrived: int) -> None:
        """The connection, when some of the batch had arrived, or all of it."""
        target = self.targets[name := data.draw(st.sampled_from(self.names("sending")))]
        sound = 0
        while sound < len(target.sending) and target.passes(target.sending[sound]):
            sound += 1
        target.write(target.sending[: min(arrived, sound)])
        target.sending, target.told = (), False
        self.handle(Failed(name, "gone", self.now_s))

    @precondition(lambda self: self.names("fetching"))
    @rule(data=st.data())
    def fetch(self, data: Any) -> None:
        self.fetched(data.draw(st.sampled_from(self.names("fetching"))))

    def fetched(self, name: str) -> None:
        target = self.targets[name]
        back, target.fetching = target.fetching, None
        assert back is not None
        self.handle(Fetched(name, back))

    @rule(s=st.sampled_from([0.0, 0.25, 0.5, 4.0]))
    def wake(self, s: float) -> None:
        self.now_s += s
        self.handle(Woken(self.now_s))
        due = [one.retry_at_s for one in self.targets.values() if one.retry_at_s is not None]
        assert all(at_s > self.now_s for at_s in due)

    @rule()
    def crash(self) -> None:
        """The twin is killed; the next life publishes everything again."""
        self.published = 0
        self.box = self.fresh()

    @invariant()
    def each_target_holds_a_prefix_and_nothing_is_unaccounted(self) -> None:
        if not hasattr(self, "box"):
            return
        is_full = False
        for name, target in self.targets.items():
            held = [one.id for one in target.held]
            assert held == sorted(set(held)), "in order, each once"
            done = sorted({*held, *target.dead})
            last = int(done[-1][:16], 16) * 10 + int(done[-1][17:], 16) if done else -1
            assert done == [one.id for one in outputs(0, last + 1) if target.wants(one)], "without a gap"
            counts, backlog = self.box.counts()[name], self.box.backlog.get(name, 0)
            accounted = counts["sent"] + counts["dead"] + counts["skipped"] + counts["behind"] + backlog
            assert accounted == sum(map(target.wants, outputs(0, self.published)))
            elsewhere = len(target.sending) + len(target.spilled) + len(target.fetching or ())
            waiting = backlog - elsewhere
            assert waiting >= 0
            is_full |= waiting >= target.delivery.queue and not self.spills
            if self.spills:
                assert waiting <= target.delivery.queue + 2 * target.delivery.batch, "memory is bounded"
                assert sum(len(one.value) for one in target.spilled) <= target.delivery.spill
            else:
                assert counts["behind"] == 0
        assert self.box.full == is_full

    def teardown(self) -> None:
        """Calm weather: everything arrives everywhere, but for what the spill file had no room for."""
        if not hasattr(self, "box"):
            return
        for _ in range(2_000):
            for name, target in self.targets.items():
                if target.opening:
                    self.answer(name, True)
                if target.fetching is not None:
                    self.fetched(name)
                if target.sending:
                    self.write(name)
            self.wake(4.0)
            if not self.box.backlog:
                break
        assert self.box.backlog == {}
        for name, target in self.targets.items():
            wanted = [one.id for one in outputs(0, self.published) if target.wants(one)]
            kept = wanted[: len(wanted) - behind(self.box).get(name, 0)]
            assert {*kept} <= {one.id for one in target.held} | target.dead
            assert all(target.passes(one) for one in target.held)


OutboxMachine.TestCase.settings = settings(settings(), stateful_step_count=40)
TestOutboxMachine = OutboxMachine.TestCase


def test_a_batch_waits_to_fill_and_no_longer_than_it_may() -> None:
    """From when its first output came; a full one goes at once, and at the end of a run each does."""
    box = outbox(x=Delivery(batch=3, flush_s=2.0))
    assert box.handle(Published(outputs(0, 1), 10.0)) == [Retry("x", 12.0)]
    assert box.handle(Published(outputs(1, 2), 11.0)) == []
    assert box.handle(Woken(11.9)) == []
    assert box.handle(Woken(12.0)) == [Send("x", tuple(outputs(0, 2)))]
    assert box.handle(Published(outputs(2, 3), 12.5)) == []
    assert box.handle(Sent("x")) == [Retry("x", 14.5)]
    assert box.handle(Published(outputs(3, 6), 13.0)) == [Send("x", tuple(outputs(2, 5)))]
    assert box.handle(Sent("x")) == [Retry("x", 15.0)]
    box.ending = True
    assert box.handle(Woken(13.5)) == [Send("x", tuple(outputs(5, 6)))]


def test_a_batch_that_failed_has_waited_long_enough() -> None:
    """It is offered again when its pause is over, and not a flush later."""
    box = outbox(x=Delivery(batch=3, flush_s=60.0))
    box.handle(Published(outputs(0, 3), 1.0))
    box.handle(Failed("x", "no", 2.0))
    assert box.handle(Woken(2.5)) == [Reopen("x")]
    assert box.handle(Opened("x", output(1).id)) == [Send("x", tuple(outputs(2, 3)))]


def test_what_a_disk_does_not_take_is_left_to_the_next_life_with_all_behind_it() -> None:
    """A hole in the order could never be filled: the sink would drop what is below its last id."""
    box = outbox(x=Delivery(batch=2, queue=2))
    box.spills = True
    box.handle(Published(outputs(0, 2)))
    assert box.handle(Published(outputs(2, 6))) == [Spill("x", tuple(outputs(4, 6)))]
    assert box.handle(Published(outputs(6, 8))) == [Spill("x", tuple(outputs(6, 8)))]
    assert box.handle(Unspilled("x", output(6).id, "no space")) == []
    assert box.handle(Published(outputs(8, 9))) == [], "nothing more goes to the file"
    assert (behind(box), box.counts()["x"]["spilled"], box.states()["x"]) == ({"x": 3}, 2, ("behind", "no space"))
    assert "no space" in box.lacking()["x"]
    assert box.handle(Unspilled("x", output(6).id, "no space")) == [], "said once more"
    assert box.handle(Sent("x")) == [Send("x", tuple(outputs(2, 4)))]
    assert box.handle(Sent("x")) == [Fetch("x", 2)]
    assert box.handle(Fetched("x", outputs(4, 5))) == [Send("x", tuple(outputs(4, 5)))]
    assert behind(box) == {"x": 4}, "what the file does not give back is missing too"
    assert box.handle(Sent("x")) == []
    assert (box.backlog, box.last_ids()) == ({}, {"x": output(4).id})
