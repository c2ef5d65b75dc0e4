"""The gate with live sources: stamps, silence, outages, gaps, duplicates, confirmations, and what becomes of the late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from gate_driver import Driver, S, rule, ticks_of
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Gap, Input, Raw, Update
from tidewarp.connect.decoders import JsonMessages
from tidewarp.connect.gate import (
    Append,
    Appended,
    Arrived,
    Asked,
    Confirm,
    Connected,
    Disconnected,
    Ended,
    Gate,
    Missing,
    Passed,
    Paused,
    Policy,
    Read,
    Reconnect,
    Repair,
    Replayed,
    buried,
    state,
)
from tidewarp.errors import OperatorError

LIVE = Policy(time="arrival", wait=False)


class Words:
    """A payload is the packed [tick or None, value, id]."""

    def decode(self, raw: Raw) -> Update:
        tick, value, identity = unpack(raw.payload)
        return Update(tick, (("a", value),), identity)


def said(
    offset: int,
    tick: int | None = None,
    *,
    value: Any = 1,
    id: str = "",
    raw_id: str = "",
    partition: int = 0,
    time_ns: int | None = None,
) -> Raw:
    return Raw(partition, offset, pack([tick, value, id]), None, time_ns, raw_id)


class Live(Driver):
    """A driver whose decoder knows ids, and whose messages come at times."""

    def __init__(self, epoch_ns: int = 0, now_s: float = 0.0, **sources: Policy) -> None:
        super().__init__(**sources)
        self.now_s = now_s
        self.reads.clear()
        for name in sources:
            self.gate.handle(Disconnected(name, "as if", now_s))
            self.handle(Connected(name, Words(), epoch_ns, now_s))
        self.others.clear()

    def come(self, source: str, *raws: Raw, present: int = 0, now_s: float | None = None) -> list[Append]:
        del self.reads[source]
        self.now_s = self.now_s if now_s is None else now_s
        instructions = self.handle(Arrived(source, raws, self.now_s, present))
        return [one for one in instructions if isinstance(one, Append)]

    def asked(self, limit: int, now_s: float) -> int:
        """Where the floor is, when it is asked for more."""
        self.now_s = now_s
        self.handle(Asked(limit, now_s))
        return self.gate.floor

    def confirms(self) -> list[Mapping[int, int]]:
        told = [one.positions for one in self.others if isinstance(one, Confirm)]
        self.others.clear()
        return told


def test_what_tells_a_target_from_another_is_journaled_before_its_first_message() -> None:
    """Once; and it is among the positions of a later life."""
    live = Live(x=LIVE)
    live.handle(Disconnected("x", "as if", 0.0))
    connected = Connected("x", Words(), identity={4_095: 77})
    first, *rest = live.gate.handle(connected)
    assert isinstance(first, Append)
    assert (first.positions, first.shed and first.shed.positions) == ({4_095: 77}, {4_095: 77})
    assert [type(one) for one in rest] == [Read]
    live.reads["x"] = 1
    (append,) = live.come("x", said(0))
    assert append.positions == {4_095: 77, 0: 0}
    live.handle(Disconnected("x", "as if", 0.0))
    assert not any(isinstance(one, Append) for one in live.gate.handle(connected))
    later = Live(x=LIVE)
    later.handle(Replayed("x", 0, positions={4_095: 77}))
    assert later.gate.positions("x") == {4_095: 77}


# ---------------------------------------------------------------------------- stamps


@pytest.mark.parametrize(("floor", "gvt", "present"), [(50, 0, 20), (20, 0, 50), (20, 60, 50), (0, 0, 0)])
def test_what_is_ordered_by_arrival_gets_the_present_but_never_below_the_floor(
    floor: int, gvt: int, present: int
) -> None:
    """The greatest of floor, GVT and virtual time by the wall; what the message says of time is not asked."""
    live = Live(x=LIVE)
    live.handle(Asked(floor))
    live.gate.gvt = gvt
    ((append),) = live.come("x", said(0, 7), said(1), present=present)
    stamp = max(floor, gvt, present)
    assert [(one.tick, one.event_tick) for one in append.inputs] == [(stamp, stamp)] * 2


@pytest.mark.parametrize("time", ["payload", "record"])
def test_without_a_time_of_its_own_a_message_gets_that_of_arrival(time: str) -> None:
    """Where its field, or the broker's stamp, is missing."""
    live = Live(x=Policy(time=time, wait=False))
    (append,) = live.come("x", said(0), present=40)
    assert ticks_of(append.inputs) == [40]


def test_a_brokers_time_counts_from_the_epoch() -> None:
    """time='record': Unix ns less the epoch, whatever the payload says."""
    live = Live(epoch_ns=1_000, x=Policy(time="record", wait=False))
    (append,) = live.come("x", said(0, 5, time_ns=1_030), said(1, time_ns=1_040))
    assert [(one.tick, one.event_tick) for one in append.inputs] == [(30, 30), (40, 40)]


@pytest.mark.parametrize("time_ns", [2**63, 10**25, -(10**25)])
def test_a_brokers_time_that_no_record_can_hold_is_a_dead_letter(time_ns: int) -> None:
    """A producer may set any stamp: it must not end the run."""
    live = Live(x=Policy(time="record", wait=False))
    (append,) = live.come("x", said(0, time_ns=time_ns), said(1, time_ns=3))
    assert [letter.rule for letter in append.letters] == ["time"]
    assert ticks_of(append.inputs) == [3]


def test_a_source_that_is_waited_for_stamps_arrivals_at_its_bound() -> None:
    """So the stamp is the same in every life: present time has no say."""
    live = Live(x=Policy(time="payload"))
    (append,) = live.come("x", said(0, 30), said(1), present=99)
    assert ticks_of(append.inputs) == [30, 30]


# ---------------------------------------------------------------------------- what the clock waits for


def test_the_clock_does_not_wait_for_a_live_source() -> None:
    """wait=False: as far as it is asked, with what is durable; no further than what is on its way to the journal."""
    live = Live(x=LIVE)
    assert live.asked(10, 0.0) == 10
    live.come("x", said(0), present=15)
    assert live.asked(40, 0.0) == 15
    live.commit()
    assert live.asked(40, 0.0) == 40
    assert ticks_of(live.granted) == [15]


def test_a_live_source_is_read_all_the_time_until_its_queue_is_full() -> None:
    """Not only when the clock needs it."""
    live = Live(x=Policy(time="arrival", wait=False, queue=3, batch=2))
    assert live.reads == {"x": 2}
    live.come("x", said(0), said(1), present=5)
    assert live.reads == {"x": 1}
    live.come("x", said(2), present=5)
    assert live.reads == {}
    live.commit()
    live.asked(10, 0.0)
    assert live.reads == {"x": 2}


def test_what_the_journal_cannot_take_now_is_not_read() -> None:
    """Eight batches of a source may be on their way: then one of them has to be durable first. Small messages are not counted by batch."""
    live = Live(x=Policy(time="arrival", wait=False, batch=2))
    for n in range(15):
        live.come("x", said(n), present=5)
    live.come("x", said(15), present=5)
    assert live.reads == {}
    live.handle(Appended(live.appends.pop(0).ticket))
    assert live.reads == {"x": 2}
    live.come("x", said(16), present=5)
    assert live.reads == {}
    live.commit()
    assert live.reads == {"x": 2}
    assert live.asked(10, 0.0) == 10
    assert ticks_of(live.granted) == [5] * 17


def test_a_partition_that_is_silent_holds_the_clock_no_longer() -> None:
    """Two speak; one falls silent: after `idle` the other alone decides; when both are, nobody does."""
    live = Live(now_s=100.0, x=Policy(idle_s=1.0))
    live.come("x", said(0, 10), said(0, 50, partition=1), now_s=100.5)
    live.commit()
    assert live.asked(99, 100.5) == 10
    live.come("x", said(1, 60, partition=1), now_s=101.2)
    live.commit()
    assert live.asked(99, 101.25) == 10
    assert live.gate.silent_s == 101.5
    assert live.asked(99, 101.5) == 60
    assert live.gate.silent_s == 102.2
    assert live.asked(99, 102.25) == 99
    assert live.gate.silent_s == float("inf"), "nothing is to be waited for"


def test_a_source_that_says_nothing_is_waited_for_as_long_as_a_partition_would_be() -> None:
    """From the moment when it is connected, whatever the clock of the host says by then."""
    live = Live(now_s=5_000.0, x=Policy(idle_s=1.0))
    assert live.asked(99, 5_000.5) == 0
    assert live.gate.silent_s == 5_001.0
    assert live.asked(99, 5_001.0) == 99


def test_silence_is_what_was_listened_to() -> None:
    """A source that is not read, because enough of it waits or the run rests, does not fall silent."""
    live = Live(now_s=10.0, x=Policy(idle_s=1.0, batch=2))
    live.come("x", said(0, 10), said(1, 30), now_s=10.0)
    live.commit()
    live.handle(Paused())
    assert live.reads == {}, "two wait"
    assert live.gate.silent_s == float("inf")
    assert live.asked(20, 50.0) == 20, "its watermark is 30"
    assert live.reads == {"x": 2}, "one waits"
    live.handle(Asked(99, 50.9))
    assert live.gate.floor == 30
    assert live.gate.silent_s == 51.0
    assert live.asked(99, 51.0) == 99


def test_a_source_that_is_down_falls_silent() -> None:
    """A broker that is gone does not stop the clock; when it is back it is waited for again."""
    live = Live(now_s=10.0, x=Policy(idle_s=1.0))
    live.come("x", said(0, 10), now_s=10.0)
    live.commit()
    live.reads.clear()
    live.handle(Disconnected("x", "gone", 10.5))
    assert live.asked(20, 10.9) == 10
    assert live.asked(20, 11.0) == 20
    live.handle(Connected("x", Words(), 0, 30.0))
    assert live.asked(40, 30.5) == 20
    assert live.asked(40, 31.0) == 40


def test_without_idle_a_silent_partition_holds_the_clock_for_ever() -> None:
    """idle=None: recorded data."""
    live = Live(x=Policy())
    live.come("x", said(0, 10))
    live.commit()
    assert live.asked(99, 10**6) == 10
    assert live.gate.silent_s == float("inf")


# ---------------------------------------------------------------------------- outages and gaps


def test_a_lost_source_is_opened_again_after_pauses_that_double() -> None:
    """0.5 s to 30 s for ever, also at the first open; a message that comes ends the outage, a connection does not."""
    driver = Driver()
    driver.gate.sources.register("x", LIVE)
    pauses = []
    for n in range(9):
        (again,) = driver.handle(Disconnected("x", "refused", 100.0 * n))
        assert isinstance(again, Reconnect)
        assert (again.source, again.gap) == ("x", None)
        pauses.append(again.at_s - 100.0 * n)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    driver.handle(Connected("x", Words()))
    driver.reads.clear()
    assert driver.handle(Disconnected("x", "reset", 1_000.0)) == [Reconnect("x", 1_030.0)]
    driver.handle(Connected("x", Words()))
    driver.arrive("x", said(0))
    driver.reads.clear()
    assert driver.handle(Disconnected("x", "reset", 1_100.0)) == [Reconnect("x", 1_100.5)]


def test_a_source_that_is_down_is_not_read_and_goes_on_behind_what_was_admitted() -> None:
    """Its reads begin with the next connection; what comes twice is a duplicate."""
    live = Live(x=LIVE)
    live.come("x", said(0), said(1))
    live.reads.clear()
    live.handle(Disconnected("x", "gone", 1.0))
    live.commit()
    live.asked(10, 2.0)
    assert live.reads == {}
    assert live.gate.positions("x") == {0: 1}
    live.handle(Connected("x", Words()))
    assert list(live.reads) == ["x"]
    (append,) = live.come("x", said(1), said(2))
    assert [one.offset for one in append.inputs] == [2]
    assert live.gate.sources.counts()["duplicates"] == 1


def test_a_gap_stops_the_run_unless_it_is_accepted() -> None:
    """gap='stop': the error of the source itself, with both offsets."""
    live = Live(x=LIVE)
    with pytest.raises(Gap, match="the next message would be 4, the first that is left is 9"):
        live.handle(Missing("x", Gap(0, 4, 9, "topic t"), 1.0))


def test_an_accepted_gap_is_journaled_and_the_source_goes_on_behind_it() -> None:
    """Counted, its end is a position; durable, it is confirmed. A replay counts it again."""
    live = Live(x=Policy(time="arrival", wait=False, gap="accept"))
    gap = Gap(2, 4, 9, "topic t")
    live.reads.clear()
    append, again = live.handle(Missing("x", gap, 7.0))
    assert isinstance(append, Append)
    assert (append.gap, append.positions, append.inputs) == (gap, {2: 8}, ())
    assert again == Reconnect("x", 7.0, gap)
    assert (live.gate.positions("x"), live.gate.sources.counts()["gaps"]) == ({2: 8}, 1)
    live.commit()
    assert live.confirms() == [{2: 8}]
    later = Live(x=LIVE)
    later.handle(Replayed("x", 0, positions={2: 8}, gaps=1))
    assert (later.gate.positions("x"), later.gate.sources.counts()["gaps"]) == ({2: 8}, 1)


def test_a_gap_of_unknown_size_moves_nothing() -> None:
    """first == end: a target that forgot, and does not know how much."""
    live = Live(x=Policy(time="arrival", wait=False, gap="accept"))
    live.reads.clear()
    append, _ = live.handle(Missing("x", Gap(0, 4, 4, "channel"), 7.0))
    assert isinstance(append, Append)
    assert append.positions == {}


# ---------------------------------------------------------------------------- duplicates


def test_a_second_message_with_an_id_is_a_duplicate_wherever_it_comes_from() -> None:
    """The payload's id goes before the target's; the window is that of the source, not of its partition."""
    live = Live(x=LIVE, y=LIVE)
    (append,) = live.come(
        "x",
        said(0, id="a"),
        said(1, id="a"),
        said(2, raw_id="a"),
        said(3, raw_id="a"),
        said(4, id="b", raw_id="a"),
        said(5, id="b", raw_id="c", partition=1),
        said(6),
        said(7),
    )
    assert [(one.offset, one.id) for one in append.inputs] == [(0, "id:a"), (2, "at:a"), (4, "id:b"), (6, ""), (7, "")]
    assert live.gate.sources.counts()["duplicates"] == 3
    (append,) = live.come("y", said(0, id="a"))
    assert len(append.inputs) == 1, "another source's ids are its own"


def test_a_dead_letter_that_is_delivered_again_is_no_second_letter() -> None:
    """Its id is journaled with it: by the payload where that could be read, else by the target."""
    live = Live(x=LIVE)
    garbage = Raw(0, 1, b"\xc1", None, None, "t")
    (append,) = live.come("x", said(0, value=-1, id="bad"), garbage)
    assert [letter.id for letter in append.letters] == ["id:bad", "at:t"]
    assert live.come("x", said(0, value=-1, id="bad")._replace(offset=2), garbage._replace(offset=3)) == []
    assert live.gate.sources.counts() | {"duplicates": 2, "dead_letters": 2} == live.gate.sources.counts()


def test_a_corrected_message_may_have_the_id_of_the_dead_letter() -> None:
    """A letter is known by its id and its bytes, also in a later life; what was admitted, by its id alone."""
    live = Live(x=LIVE)
    (append,) = live.come("x", said(0, value=-1, id="fix"))
    later = Live(x=LIVE)
    letter = append.letters[0]
    later.handle(Replayed("x", 0, positions={0: 0}, dead={"value": 1}, ids=[buried(letter.id, letter.sha256)]))
    for one in (live, later):
        assert one.come("x", said(0, value=-1, id="fix")._replace(offset=1)) == []
        (admitted,) = one.come("x", said(2, value=5, id="fix"))
        assert [made.id for made in admitted.inputs] == ["id:fix"]
        assert one.come("x", said(3, value=5, id="fix"), said(0, value=-1, id="fix")._replace(offset=4)) == []
        assert one.gate.sources.counts() | {"duplicates": 3, "dead_letters": 1} == one.gate.sources.counts()


def test_a_plain_copy_of_a_letter_is_still_a_duplicate_where_the_model_would_take_it_now() -> None:
    """Known by the id that its target gives it, before it comes to its value."""
    live = Live(x=LIVE)
    live.handle(Connected("x", JsonMessages(0)))
    bad = Raw(0, 0, b'{"path": "a", "value": -1}', id="t")
    (append,) = live.come("x", bad)
    assert [letter.id for letter in append.letters] == ["at:t"]
    live.gate.judge_by(lambda path: rule("any"))
    assert live.come("x", bad._replace(offset=1)) == []
    (append,) = live.come("x", bad._replace(offset=2, id="u"))
    assert len(append.inputs) == 1


def test_the_window_is_the_last_65536_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of so many is known, the one before it is not. (With a smaller window, for it takes its time.)"""
    assert state.IDS_MAX == 65_536
    monkeypatch.setattr(state, "IDS_MAX", 100)
    live = Live(x=LIVE)
    live.come("x", *[said(n, id=str(n)) for n in range(101)])
    assert live.come("x", said(200, id="1")) == []
    (append,) = live.come("x", said(201, id="0"))
    assert len(append.inputs) == 1


def test_the_window_survives_a_restart() -> None:
    """Replayed brings the ids of inputs and of dead letters."""
    live = Live(x=LIVE)
    one = Input(0, 1, 0, 0, (("a", 1),), 0, "id:a")
    live.handle(Replayed("x", 0, [one], ids=["id:a"]))
    live.handle(Replayed("x", 0, dead={"value": 1}, positions={0: 1}, ids=["at:b"]))
    assert live.come("x", said(2, id="a"), said(3, raw_id="b")) == []
    (append,) = live.come("x", said(4, raw_id="a"))
    assert append.inputs[0].id == "at:a"


@pytest.mark.parametrize("name", ["x" * 256, "\ud800", 7])
@pytest.mark.parametrize("field", ["id", "cause"])
def test_a_name_that_no_record_can_hold_is_a_dead_letter(name: Any, field: str) -> None:
    """What a target calls its message, and what a message says of its cause, is anybody's text."""
    live = Live(x=LIVE)
    (append,) = live.come("x", said(0)._replace(**{field: name}), said(1))
    assert [(letter.rule, letter.id) for letter in append.letters] == [(field, "")]
    assert len(append.inputs) == 1


def test_long_names_make_no_record_too_long() -> None:
    """A record of ids and causes at their bound stays below the journal's 1 MiB."""
    live = Live(x=Policy(time="arrival", wait=False))
    raws = [said(n, raw_id=f"{n:05}" + "é" * 250)._replace(cause="é" * 255) for n in range(2_000)]
    appends = live.come("x", *raws)
    assert sum(len(one.inputs) for one in appends) == 2_000
    for append in appends:
        texts = sum(len(one.id.encode()) + len(one.cause.encode()) for one in append.inputs)
        assert texts + 44 * len(append.inputs) < 1_000_000


# ---------------------------------------------------------------------------- confirmations


def test_a_duplicate_is_confirmed_as_soon_as_its_first_copy_is_durable() -> None:
    """It is in no record of its own: else its target would deliver it for ever."""
    live = Live(x=LIVE)
    live.come("x", said(0, id="a"))
    live.come("x", said(1, id="a"))
    assert live.confirms() == [], "the first is not durable"
    live.commit()
    assert live.confirms()[-1] == {0: 1}
    live.come("x", said(2, id="a"))
    assert live.confirms() == [{0: 2}]
    assert live.gate.positions("x") == {0: 2}


@given(data=st.data())
def test_nothing_is_confirmed_that_the_journal_does_not_hold(data: st.DataObject) -> None:
    """Whatever the order in which appends become durable: not an offset, and not a duplicate whose first copy is not."""
    live = Live(x=Policy(time="arrival", wait=False, queue=1_000, batch=2), y=LIVE)
    durable: set[tuple[int, int]] = set()
    seen: list[tuple[tuple[int, int], str]] = []
    offsets = [0, 0]
    waiting: dict[int, list[tuple[int, int]]] = {}
    first: dict[str, tuple[int, int]] = {}
    told: dict[int, int] = {}

    def check() -> None:
        for positions in live.confirms():
            for (partition, offset), identity in seen:
                if offset <= positions.get(partition, -1):
                    assert first[identity] in durable
            told.update(positions)

    for _ in range(data.draw(st.integers(1, 9))):
        if data.draw(st.booleans()) or not waiting:
            raws = []
            for _ in range(data.draw(st.integers(1, 4))):
                partition = data.draw(st.integers(0, 1))
                offset, offsets[partition] = offsets[partition], offsets[partition] + 1
                identity = data.draw(st.sampled_from("abcdefgh"))
                bad = data.draw(st.booleans())
                raws.append(said(offset, value=-1 if bad else 1, id=identity, partition=partition))
                seen.append(((partition, offset), identity))
                first.setdefault(identity, (partition, offset))
            for append in live.come("x", *raws):
                waiting[append.ticket] = [(one.partition, one.offset) for one in (*append.inputs, *append.letters)]
        else:
            ticket = data.draw(st.sampled_from(sorted(waiting)))
            durable.update(waiting.pop(ticket))
            live.handle(Appended(ticket))
        check()
    for ticket in data.draw(st.permutations(sorted(waiting))):
        durable.update(waiting.pop(ticket))
        live.handle(Appended(ticket))
        check()
    assert told == {p: count - 1 for p, count in enumerate(offsets) if count}, "in the end everything is"


# ---------------------------------------------------------------------------- what is late


def late(policy: Policy, *ticks: int, floor: int = 100) -> tuple[Live, list[Input], list[str]]:
    """What becomes of events at these ticks when the clock stands at 100."""
    live = Live(x=policy)
    live.handle(Asked(floor))
    assert live.gate.floor == floor
    appends = live.come("x", *[said(n, tick) for n, tick in enumerate(ticks)])
    inputs = [one for append in appends for one in append.inputs]
    return live, inputs, [letter.rule for append in appends for letter in append.letters]


def test_late_repair_keeps_the_time_of_the_event_and_asks_for_a_repair() -> None:
    """At GVT and above; the lowest of those below the floor is named once they are durable."""
    policy = Policy(late="repair", horizon=30, wait=False)
    live, inputs, _ = late(policy, 120, 80, 70, 100)
    assert live.gate.gvt == 70
    assert [(one.tick, one.event_tick) for one in inputs] == [(tick, tick) for tick in (120, 80, 70, 100)]
    assert [one for one in live.others if isinstance(one, Repair)] == []
    live.commit()
    assert [one for one in live.others if isinstance(one, Repair)] == [Repair(70)]
    assert live.gate.sources.counts() | {"repaired": 2, "late": 3, "clamped": 0} == live.gate.sources.counts()
    assert live.asked(200, 0.0) == 200
    assert ticks_of(live.granted) == [100, 120], "those below are the repair's"
    assert live.gate.gvt == 170


@pytest.mark.parametrize(("beyond", "ticks", "letters"), [("clamp", [100, 75], []), ("drop", [75], ["late"])])
def test_what_is_further_back_than_the_horizon_goes_by_beyond(
    beyond: str, ticks: list[int], letters: list[str]
) -> None:
    """The horizon counts from the floor."""
    live, inputs, dead = late(Policy(late="repair", horizon=30, beyond=beyond, wait=False), 69, 75)
    assert (ticks_of(inputs), dead) == (ticks, letters)
    counts = live.gate.sources.counts()
    assert (counts["clamped"], counts["dropped"], counts["repaired"]) == (beyond == "clamp", beyond == "drop", 1)


def test_beyond_stop_ends_the_run() -> None:
    """The error says which event, and where the clock is."""
    with pytest.raises(OperatorError, match="message 0: event time "):
        late(Policy(late="repair", horizon=30, beyond="stop", wait=False), 69)


def test_the_clock_is_what_a_live_source_is_late_against() -> None:
    """wait=False, clamp: stamped at the floor; drop: a dead letter; stop: an error. In time: its own time."""
    _, inputs, _ = late(Policy(late="clamp", wait=False), 40, 120, 110)
    assert [(one.tick, one.event_tick) for one in inputs] == [(100, 40), (120, 120), (110, 110)]
    live, inputs, letters = late(Policy(late="drop", wait=False), 40, 120)
    assert (ticks_of(inputs), letters, live.gate.sources.counts()["dropped"]) == ([120], ["late"], 1)
    with pytest.raises(OperatorError, match="the clock stands at"):
        late(Policy(late="stop", wait=False), 40)


def test_an_end_lets_the_clock_go_and_gvt_with_it() -> None:
    """What has ended repairs nothing: GVT is the floor."""
    live = Live(x=Policy(late="repair", horizon=30, wait=False))
    live.asked(100, 0.0)
    assert live.gate.gvt == 70
    live.reads.clear()
    live.handle(Ended("x"))
    live.commit()
    live.asked(110, 0.0)
    assert live.gate.gvt == 110


def test_a_replay_stays_a_horizon_behind_its_records() -> None:
    """What came late is there before the run is; GVT is where the earlier life's was, or below, and what it told."""
    live = Live(x=Policy(late="repair", horizon=30, wait=False))
    first = Input(100, 1, 0, 0, (("a", 1),), 100)
    live.handle(Replayed("x", 100, [first]))
    assert (live.gate.floor, live.gate.gvt) == (70, 70)
    live.handle(Replayed("x", 100, [Input(70, 1, 0, 1, (("a", 2),), 70)]))
    live.handle(Passed(85))
    assert (live.gate.floor, live.gate.gvt) == (85, 85)
    assert ticks_of(live.granted) == [70]
    assert live.gate.sources.counts()["repaired"] == 1


def test_a_source_that_had_ended_and_is_opened_again_may_repair_and_be_replayed() -> None:
    """No record says that it was: a replay keeps its distance though the journal says that it had ended."""
    policy = Policy(late="repair", horizon=30, wait=False)
    live = Live(x=policy, y=LIVE)
    live.handle(Replayed("x", 0, ended=True))
    live.handle(Replayed("y", 100, [Input(100, 2, 0, 0, (("a", 1),), 100)]))
    assert live.gate.floor == 70
    live.handle(Replayed("x", 100, [Input(80, 1, 0, 0, (("a", 1),), 80)]))
    live.handle(Passed(101))
    assert ticks_of(live.granted) == [80, 100]


def test_the_gate_of_a_model_without_sources_goes_where_it_is_asked() -> None:
    """Nothing holds it back, and GVT is with it."""
    gate = Gate(rule)
    gate.handle(Asked(5 * S))
    assert (gate.floor, gate.gvt, gate.silent_s, gate.sources.lives) == (5 * S, 5 * S, float("inf"), False)
    assert gate.handle(Asked(5 * S)) == []
    assert [one for one in gate.handle(Asked(6 * S)) if isinstance(one, Read)] == []


def test_a_connection_that_is_not_answered_holds_the_clock_no_longer_than_silence() -> None:
    """Counted from the first time that the run asks, since nobody told the gate an earlier one."""
    driver = Driver()
    driver.gate.sources.register("x", Policy(idle_s=1.0))
    for now_s, floor in ((0.0, 0), (100.0, 0), (100.9, 0), (101.0, 99)):
        driver.handle(Asked(99, now_s))
        assert driver.gate.floor == floor


def test_what_comes_later_is_not_stamped_earlier() -> None:
    """While the journal is busy arrivals are stamped ahead of the wall, and the next one, alone, is not: their order stays.

    In a second life too, which knows the stamps from the journal.
    """
    live = Live(x=LIVE)
    stamps = []
    for offset, present in enumerate((50, 40, 60, 55)):
        (append,) = live.come("x", said(offset), present=present)
        stamps += ticks_of(append.inputs)
        live.handle(Appended(append.ticket))
    assert stamps == [50, 50, 60, 60]
    again = Live(x=LIVE)
    again.handle(Replayed("x", 0, live.gate._held))
    (append,) = again.come("x", said(4), present=1)
    assert ticks_of(append.inputs) == [60]
