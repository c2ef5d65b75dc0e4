"""The gate, station by station and policy by policy. Its properties over all interleavings: test_gate_machine.py."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from tidewarp.codec import BODY_BYTES_MAX, pack, timed_body, unpack
from tidewarp.connect import gate as gates
from tidewarp.connect.contract import HEAD_BYTES, Input, Raw, Undecodable, Update
from tidewarp.connect.documents import PathTable, encode_dead, encode_inputs
from tidewarp.connect.gate import (
    FOREVER,
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Ended,
    Gate,
    Grant,
    Instruction,
    Passed,
    Paused,
    Policy,
    Read,
    Replayed,
)
from tidewarp.errors import InternalError, OperatorError, PeerError, UnknownPath
from tidewarp.process.rules import Rule

S = 10**9
RULES = {"a": Rule("a", int, low=0, high=100), "b": Rule("b", float), "any": Rule("any", None)}


def rule(path: str) -> Rule:
    try:
        return RULES[path]
    except KeyError:
        raise UnknownPath(path, "no such path", "declare it") from None


class Plain:
    """A payload is the packed [tick, [[path, value], ...]]; what else it holds is handed on unchecked."""

    def decode(self, raw: Raw) -> Update:
        if raw.payload == b"garbage":
            raise Undecodable("garbage", "a message is packed", "pack it", "form")
        if raw.payload == b"peer":
            raise PeerError("peer", "a message is packed", "pack it")
        tick, changes = unpack(raw.payload)
        return Update(tick, tuple((path, value) for path, value in changes))


def message(offset: int, tick: int, value: Any = 1, path: Any = "a", partition: int = 0) -> Raw:
    return Raw(partition, offset, pack([tick, [[path, value]]]))


class Driver:
    """A gate, and a host that performs what it is told when the test says so."""

    def __init__(self, **sources: Policy) -> None:
        self.gate = Gate(rule)
        self.reads: dict[str, int] = {}
        self.appends: list[Append] = []
        self.granted: list[Input] = []
        for name, policy in sources.items():
            self.gate.register(name, policy)
        for name in sources:
            self.handle(Connected(name, Plain()))

    def handle(self, event: gates.Event) -> list[Instruction]:
        instructions = self.gate.handle(event)
        for instruction in instructions:
            if isinstance(instruction, Read):
                assert instruction.source not in self.reads, "one read is under way per source"
                self.reads[instruction.source] = instruction.limit
            elif isinstance(instruction, Append):
                self.appends.append(instruction)
            else:
                self.granted += instruction.inputs
        return instructions

    def arrive(self, source: str, *raws: Raw) -> list[Append]:
        self.reads.pop(source, None)
        return [one for one in self.handle(Arrived(source, raws)) if isinstance(one, Append)]

    def commit(self) -> None:
        while self.appends:
            self.handle(Appended(self.appends.pop(0).ticket))

    def feed(self, source: str, *ticks: int, first: int = 0, partition: int = 0) -> None:
        """Messages at these ticks, made durable."""
        self.arrive(source, *[message(first + n, tick, partition=partition) for n, tick in enumerate(ticks)])
        self.commit()

    def end(self, source: str) -> None:
        self.reads.pop(source, None)
        self.handle(Ended(source))

    def ask(self, limit: int = FOREVER) -> Grant | None:
        grants = [one for one in self.handle(Asked(limit)) if isinstance(one, Grant)]
        return grants[0] if grants else None


def ticks_of(inputs: list[Input] | tuple[Input, ...]) -> list[int]:
    return [one.tick for one in inputs]


# ---------------------------------------------------------------------------- stations


def test_a_message_becomes_an_input_of_declared_type() -> None:
    """Decoded, cast, stamped with its event time, rank and position: before anything is granted it is appended."""
    driver = Driver(x=Policy(), y=Policy())
    (append,) = driver.arrive("y", Raw(3, 7, pack([5, [["a", "12"], ["b", 1]]])))
    assert append.inputs == (Input(5, 2, 3, 7, (("a", 12), ("b", 1.0)), 5),)
    assert append.positions == {3: 7}
    assert (append.source, append.admitted, append.letters, append.moved) == ("y", 0, (), {})
    assert driver.granted == []


def test_nothing_is_granted_before_the_journal_holds_it() -> None:
    """The clock stays below what is on its way to the journal, even when a later batch is durable first."""
    driver = Driver(x=Policy())
    driver.arrive("x", message(0, 10), message(1, 20))
    driver.arrive("x", message(2, 30), message(3, 40))
    assert driver.ask() is None
    driver.handle(Appended(2))
    assert driver.ask() == Grant(10, ())
    driver.handle(Appended(1))
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (40, [10, 20, 30])


def test_inputs_are_granted_in_key_order_whatever_their_order_of_arrival() -> None:
    """(tick, rank, partition, offset) decides: equal times are no duplicates and arrival leaves no trace."""
    driver = Driver(x=Policy(disorder=100), y=Policy(disorder=100))
    driver.arrive("y", message(0, 7), message(1, 5), message(2, 5))
    driver.arrive("x", message(0, 5, partition=1), message(0, 5, partition=0), message(1, 6))
    driver.commit()
    driver.end("x")
    driver.end("y")
    driver.commit()
    driver.ask(driver.gate.end)
    keys = [(one.tick, one.rank, one.partition, one.offset) for one in driver.granted]
    assert keys == [(5, 1, 0, 0), (5, 1, 1, 0), (5, 2, 0, 1), (5, 2, 0, 2), (6, 1, 0, 1), (7, 2, 0, 0)]


def test_the_clock_stops_at_the_watermark() -> None:
    """Highest event time less the disorder bound, exclusive: a further event may still lie exactly there."""
    driver = Driver(x=Policy(disorder=3))
    driver.feed("x", 10, 20)
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (17, [10])
    driver.feed("x", 17, first=2)
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert ticks_of(driver.granted) == [10, 17, 20]
    assert driver.gate.counts()["late"] == 1
    assert driver.gate.counts()["clamped"] == 0


def test_the_slowest_source_holds_the_clock_until_it_has_ended_durably() -> None:
    """One that is silent holds it at 0, one that ended holds it no more: as soon as the journal says so."""
    driver = Driver(x=Policy(), y=Policy())
    driver.feed("x", 10, 50)
    assert driver.ask() is None
    driver.feed("y", 20)
    assert driver.ask() == Grant(20, (Input(10, 1, 0, 0, (("a", 1),), 10),))
    driver.arrive("y", message(1, 21))
    driver.end("y")
    assert [one.ended for one in driver.appends] == [False, True]
    driver.handle(Appended(driver.appends.pop(0).ticket))
    assert driver.ask() == Grant(21, (Input(20, 2, 0, 0, (("a", 1),), 20),)), "its end is not durable yet"
    driver.commit()
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (50, [21])


def test_the_slowest_partition_holds_the_clock_of_its_source() -> None:
    """A watermark is the lowest over the partitions."""
    driver = Driver(x=Policy())
    driver.arrive("x", message(0, 10, partition=0), message(0, 10, partition=1), message(1, 90, partition=0))
    driver.commit()
    assert driver.ask() == Grant(10, ())
    driver.feed("x", 30, first=1, partition=1)
    grant = driver.ask()
    assert grant is not None
    assert grant.floor == 30


def test_the_floor_goes_no_further_than_asked_and_never_back() -> None:
    """A lower limit than before gets nothing; the floor of a journal record that lies lower neither."""
    driver = Driver(x=Policy())
    driver.feed("x", 0, 100)
    assert driver.ask(40) == Grant(40, (Input(0, 1, 0, 0, (("a", 1),), 0),))
    assert driver.ask(30) is None
    driver.handle(Passed(20))
    driver.handle(Replayed("x", 10))
    assert driver.gate.floor == 40
    assert driver.gate.next_tick == 100


def test_without_sources_the_clock_goes_as_far_as_asked() -> None:
    """A model of its own needs no lease from anybody."""
    driver = Driver()
    assert driver.ask(50) == Grant(50, ())
    assert not driver.gate.has_sources
    assert not driver.gate.finished


# ---------------------------------------------------------------------------- dead letters


@pytest.mark.parametrize(
    ("payload", "short"),
    [
        (b"garbage", "form"),
        (b"peer", "decode"),
        (b"", "decode"),
        (pack([5, [["a", "x"]]]), "value"),
        (pack([5, [["a", 101]]]), "value"),
        (pack([5, [["nowhere", 1]]]), "value"),
        (pack([5, [["b", float("nan")]]]), "value"),
        (pack([5, [["a", 1], ["b", "x"]]]), "value"),
        (pack([5, [[["a"], 1]]]), "path"),
        (pack([5, [[7, 1]]]), "path"),
        (pack([5, [[None, 1]]]), "path"),
        (pack([5, []]), "empty"),
        (pack([2**63 - 1, [["a", 1]]]), "time"),
        (pack([2**63, [["a", 1]]]), "time"),
        (pack([5.0, [["a", 1]]]), "time"),
        (pack([True, [["a", 1]]]), "time"),
    ],
)
def test_a_message_that_can_never_be_applied_is_a_dead_letter(payload: bytes, short: str) -> None:
    """Predecessors died of a path that cannot be hashed: here each rule is counted and the offset moves on."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", Raw(0, 4, payload))
    (letter,) = append.letters
    assert (letter.partition, letter.offset, letter.rule) == (0, 4, short)
    assert (letter.head, letter.sha256) == (payload, sha256(payload).digest())
    assert "; " in letter.message
    assert (append.inputs, append.moved, append.positions) == ((), {0: 4}, {0: 4})
    assert driver.gate.dead() == {short: 1}
    assert driver.gate.counts() == {**dict.fromkeys(driver.gate.counts(), 0), "dead_letters": 1}


def test_an_input_is_all_or_nothing() -> None:
    """One bad value of two: neither is admitted."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", Raw(0, 0, pack([5, [["a", 1], ["a", -1]]])))
    assert append.inputs == ()
    assert driver.gate.dead() == {"value": 1}


def test_a_dead_letter_between_inputs_is_in_the_same_record() -> None:
    """The offsets of all three move in one transaction."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", message(0, 1), Raw(0, 1, b"garbage"), message(2, 3))
    assert [one.offset for one in append.inputs] == [0, 2]
    assert [one.offset for one in append.letters] == [1]
    assert (append.positions, append.moved) == ({0: 2}, {0: 1})


def test_a_dead_letter_keeps_the_head_of_a_long_message_and_the_hash_of_all() -> None:
    """Also where the source itself read no more than the head."""
    driver = Driver(x=Policy())
    long = b"\xc1" * (HEAD_BYTES + 5)
    (append,) = driver.arrive("x", Raw(0, 0, long), Raw(0, 1, b"garbage", b"h" * 32))
    assert [(one.head, one.sha256) for one in append.letters] == [
        (long[:HEAD_BYTES], sha256(long).digest()),
        (b"garbage", b"h" * 32),
    ]


@pytest.mark.parametrize(("name", "limit"), [("_LETTERS_MAX", 3), ("_LETTER_BYTES_MAX", 3 * len(b"garbage"))])
def test_beyond_the_limits_dead_letters_are_only_counted(
    monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    """What is kept of a poisoned source is bounded; its offsets move on and its counts are right."""
    monkeypatch.setattr(gates, name, limit)
    driver = Driver(x=Policy(), y=Policy())
    (append,) = driver.arrive("x", *[Raw(0, n, b"garbage") for n in range(5)])
    assert [one.offset for one in append.letters] == [0, 1, 2]
    assert append.counted == {"form": 2}
    assert append.moved == {0: 4}
    assert driver.gate.dead() == {"form": 5}
    (append,) = driver.arrive("x", Raw(0, 5, b"garbage"))
    assert (append.letters, append.counted, append.positions) == ((), {"form": 1}, {0: 5})
    (append,) = driver.arrive("y", Raw(0, 0, b"garbage"))
    assert len(append.letters) == 1, "the limits are of each source"


def test_a_restarted_gate_remembers_how_many_dead_letters_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one of the journal, not of a life."""
    monkeypatch.setattr(gates, "_LETTERS_MAX", 2)
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, dead={"form": 2}, positions={0: 1}))
    (append,) = driver.arrive("x", Raw(0, 1, b"garbage"), Raw(0, 2, b"garbage"))
    assert (append.letters, append.counted, append.moved) == ((), {"form": 1}, {0: 2})
    assert driver.gate.counts()["duplicates"] == 1


def test_a_value_too_large_for_a_record_is_a_dead_letter() -> None:
    """A legal list of 10,000 texts would not fit into the journal's record."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", message(0, 5, ["x" * 10] * 10_000, "any"), message(1, 6, ["x"] * 1_000, "any"))
    assert driver.gate.dead() == {"size": 1}
    assert [one.offset for one in append.inputs] == [1]


WIDE = [["b", 1.5]] * (gates._BATCH_BYTES // 2 // gates._ROW_BYTES - 1)


@pytest.mark.parametrize(
    ("many", "sizes"),
    [
        ([[5, WIDE], [5, WIDE], [1, WIDE], [1, WIDE]], [2, 2]),
        ([[5, [["any", "\U0001f30a" * 16_000]]]] * 40, [8] * 5),
        ([[5, [["any", ""]]]] * 8_192, [8_192]),
    ],
)
def test_no_append_is_larger_than_a_record(many: list[Any], sizes: list[int]) -> None:
    """Clamped inputs of thousands of columns, long texts in four-byte characters, empty ones: each batch fits."""
    driver = Driver(x=Policy(late="clamp"))
    appends = driver.arrive("x", *[Raw(0, n, pack(one)) for n, one in enumerate(many)])
    assert [len(one.inputs) for one in appends] == sizes
    assert driver.gate.dead() == {}
    table = PathTable()
    for append in appends:
        table.introduce(append.inputs)
        document = encode_inputs("x", append.admitted, append.inputs, table)
        assert len(timed_body(5, document)) <= BODY_BYTES_MAX


def test_no_append_holds_more_dead_letters_than_a_record() -> None:
    """Each with a full head and a message of long characters."""

    class Loud:
        def decode(self, raw: Raw) -> Update:
            raise Undecodable("\U0001f30a" * 5_000, "a rule", "an action", "loud")

    driver = Driver()
    driver.gate.register("x", Policy())
    driver.handle(Connected("x", Loud()))
    appends = driver.arrive("x", *[Raw(0, n, bytes(HEAD_BYTES + n)) for n in range(30)])
    assert sum(len(one.letters) for one in appends) == 30
    assert [one.positions[0] for one in appends] == [one.letters[-1].offset for one in appends]
    for append in appends:
        document = encode_dead("x", 0, append.letters, append.counted, append.moved)
        assert len(timed_body(0, document)) <= BODY_BYTES_MAX


@pytest.mark.parametrize("raw", [Raw(2**16, 0, b""), Raw(-1, 0, b""), Raw(0, 2**48, b""), Raw(0, -1, b"")])
def test_a_position_that_no_record_can_hold_stops_the_run(raw: Raw) -> None:
    """It is the source that is broken: a dead letter could not even name the place."""
    with pytest.raises(PeerError, match="a partition below 2"):
        Driver(x=Policy()).arrive("x", raw)


# ---------------------------------------------------------------------------- duplicates and late inputs


def test_an_offset_that_is_known_is_skipped_and_counted() -> None:
    """Admitted or buried, in this life or an earlier one, per partition."""
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, [Input(1, 1, 1, 5, (("a", 1),), 1)]))
    assert driver.arrive("x", message(5, 1, partition=1), message(4, 1, partition=1)) == []
    (append,) = driver.arrive("x", message(5, 1), Raw(0, 6, b"garbage"), message(6, 2), message(5, 1))
    assert [one.offset for one in append.inputs] == [5]
    assert driver.gate.counts()["duplicates"] == 4
    assert driver.gate.positions("x") == {0: 6, 1: 5}


def test_late_is_what_lies_below_the_highest_time_seen_in_its_partition() -> None:
    """Equal is not late, and another partition's time says nothing. Predecessor: the older event won."""
    driver = Driver(x=Policy(disorder=100))
    driver.feed("x", 50, 50, 20, 49, 50)
    driver.feed("x", 30, 60, partition=1)
    assert driver.gate.counts()["late"] == 2
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert [(one.tick, one.offset) for one in driver.granted] == [
        (20, 2),
        (30, 0),
        (49, 3),
        (50, 0),
        (50, 1),
        (50, 4),
        (60, 1),
    ]


def test_too_late_stops_the_run_and_names_the_bound_that_would_do() -> None:
    """The default: nothing is changed or lost in silence; the number in the message is exact."""
    driver = Driver(x=Policy(disorder=5 * S))
    first, late = 1_234_567_890_123_456_789, 1_234_567_000_123_456_780
    with pytest.raises(OperatorError, match=r"message 1: event time .* disorder of at least 890\.000000009 s, "):
        driver.arrive("x", message(0, first), message(1, late))
    driver = Driver(x=Policy(disorder=890_000_000_009))
    driver.arrive("x", message(0, first), message(1, late))
    assert driver.gate.counts()["late"] == 1


def test_too_late_does_not_depend_on_the_clock() -> None:
    """By the messages before it alone: asked or not, durable or not, in one batch or in two."""
    for asked in (False, True):
        driver = Driver(x=Policy(late="clamp", disorder=2))
        driver.feed("x", 10)
        if asked:
            driver.ask()
        (append,) = driver.arrive("x", message(1, 7), message(2, 8))
        assert [(one.tick, one.event_tick) for one in append.inputs] == [(8, 7), (8, 8)]


def test_a_clamped_input_keeps_its_event_time_and_is_applied_at_the_present() -> None:
    """It is late and clamped, and does not move the watermark."""
    driver = Driver(x=Policy(late="clamp"))
    driver.feed("x", 10, 30)
    driver.ask()
    driver.feed("x", 5, 30, first=2)
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert [(one.tick, one.event_tick, one.offset) for one in driver.granted] == [
        (10, 10, 0),
        (30, 30, 1),
        (30, 5, 2),
        (30, 30, 3),
    ]
    counts = driver.gate.counts()
    assert (counts["inputs"], counts["late"], counts["clamped"], counts["dropped"]) == (4, 1, 1, 0)


def test_a_dropped_input_is_a_dead_letter() -> None:
    """Journaled with the rule `late`, counted as late and as dropped, never granted."""
    driver = Driver(x=Policy(late="drop"))
    driver.feed("x", 30)
    (append,) = driver.arrive("x", message(1, 29), message(2, 31))
    assert [(one.offset, one.rule) for one in append.letters] == [(1, "late")]
    assert [one.tick for one in append.inputs] == [31]
    counts = driver.gate.counts()
    assert (counts["late"], counts["dropped"], counts["clamped"], counts["inputs"]) == (1, 1, 0, 2)
    again = Gate(rule)
    again.register("x", Policy(late="drop"))
    again.handle(Replayed("x", 0, dead={"late": 1}, positions={0: 1}))
    assert (again.counts()["late"], again.counts()["dropped"], again.dead()) == (1, 1, {"late": 1})


def test_an_event_before_the_epoch_is_too_late_and_the_message_says_why() -> None:
    """No disorder bound would help."""
    with pytest.raises(OperatorError, match="give an earlier epoch"):
        Driver(x=Policy(disorder=S)).arrive("x", message(0, -1))
    driver = Driver(x=Policy(late="clamp"))
    (append,) = driver.arrive("x", message(0, -7))
    assert [(one.tick, one.event_tick) for one in append.inputs] == [(0, -7)]


def test_an_input_behind_a_clock_that_has_passed_an_ended_source_is_applied_before_the_end() -> None:
    """A list that has grown between runs: its new entry is clamped to the floor, and the end lies behind it."""
    driver = Driver(x=Policy(late="clamp"))
    driver.handle(Replayed("x", 0, [Input(10, 1, 0, 0, (("a", 1),), 10)]))
    driver.handle(Replayed("x", 0, ended=True))
    driver.handle(Passed(500))
    driver.handle(Connected("x", Plain()))
    assert not driver.gate.finished
    driver.feed("x", 20, first=1)
    driver.end("x")
    driver.commit()
    assert driver.gate.finished
    assert driver.gate.end == 501
    driver.ask(driver.gate.end)
    assert [(one.tick, one.event_tick) for one in driver.granted] == [(10, 10), (500, 20)]


def test_an_input_behind_a_clock_that_has_passed_stops_without_a_wrong_advice() -> None:
    """The bound is kept, so another bound would not help."""
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, ended=True))
    driver.handle(Passed(500 * S))
    driver.handle(Connected("x", Plain()))
    with pytest.raises(OperatorError, match=r"the clock stands at 500\.000 s already; connect with late='clamp'"):
        driver.arrive("x", message(0, 20))


def test_a_partition_that_shows_itself_late_does_not_move_the_bound_back() -> None:
    """Else the same message would be too late or not, by how far the clock happens to be."""
    for asked in (False, True):
        driver = Driver(x=Policy(disorder=10, late="clamp"))
        driver.feed("x", 100)
        if asked:
            driver.ask()
        driver.feed("x", 90, partition=1)
        (append,) = driver.arrive("x", message(1, 85))
        assert [one.tick for one in append.inputs] == [90]


# ---------------------------------------------------------------------------- reading and bounds


def test_a_batch_is_split_at_its_bound() -> None:
    """Several appends, each with the position that it reaches."""
    driver = Driver(x=Policy(batch=2))
    assert driver.reads == {"x": 2}
    appends = driver.arrive("x", *[message(n, n) for n in range(5)])
    assert [[one.offset for one in append.inputs] for append in appends] == [[0, 1], [2, 3], [4]]
    assert [append.positions for append in appends] == [{0: 1}, {0: 3}, {0: 4}]
    assert [append.ticket for append in appends] == [1, 2, 3]


def test_a_source_that_does_not_hold_the_clock_is_read_at_most_a_batch_ahead() -> None:
    """The memory of a fast source is bounded by its batch, not by its queue."""
    driver = Driver(x=Policy(batch=3, queue=100), y=Policy())
    driver.feed("x", 10, 20)
    assert driver.reads["x"] == 3, "2 of a batch of 3 are there"
    driver.feed("x", 30, 40, 50, first=2)
    assert "x" not in driver.reads
    driver.ask()
    assert "x" not in driver.reads, "it is y that holds the clock"
    driver.feed("y", 35)
    driver.ask()
    assert driver.reads["x"] == 3, "10, 20 and 30 were granted"


def test_a_source_that_holds_the_clock_is_read_until_its_queue_is_full() -> None:
    """Its next message may be what lets the clock go on; no read asks for more than there is room for."""
    driver = Driver(x=Policy(batch=3, queue=8, disorder=100))
    driver.ask()
    limits = []
    offset = 0
    while "x" in driver.reads:
        limit = driver.reads["x"]
        limits.append(limit)
        driver.feed("x", *range(offset, offset + limit), first=offset)
        offset += limit
    assert limits == [3, 3, 2]


def test_a_full_queue_that_the_clock_waits_for_is_an_error_with_both_remedies() -> None:
    """It would never empty: the message names the queue and the disorder bound."""
    driver = Driver(x=Policy(queue=2, batch=2, disorder=100))
    driver.arrive("x", message(0, 1), message(1, 2))
    assert driver.ask() is None, "a commit is under way, which may still help"
    driver.commit()
    with pytest.raises(OperatorError, match=r"its queue holds 2 and .*raise connect\(queue=...\) or lower .*disorder"):
        driver.ask()


def test_a_full_queue_of_another_source_is_no_deadlock() -> None:
    """It waits for the slow one, which is being read."""
    driver = Driver(x=Policy(queue=2, batch=2), y=Policy())
    driver.feed("x", 1, 2)
    assert driver.ask() is None
    assert "x" not in driver.reads
    driver.feed("y", 50)
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, driver.reads["x"]) == (2, 1)


def test_a_paused_gate_reads_no_further_until_it_is_asked_again() -> None:
    """What is under way is still admitted and journaled."""
    driver = Driver(x=Policy(batch=2))
    driver.handle(Paused())
    driver.feed("x", 1, 2)
    assert driver.reads == {}
    driver.ask()
    assert driver.reads == {"x": 2}


def test_an_empty_read_is_read_again() -> None:
    """Only None ends a source."""
    driver = Driver(x=Policy())
    assert driver.arrive("x") == []
    assert driver.reads == {"x": 8_192}


def test_an_ended_source_is_not_read_and_what_comes_after_it_is_our_fault() -> None:
    """The host connects it first."""
    driver = Driver(x=Policy())
    driver.end("x")
    driver.commit()
    assert driver.gate.finished
    driver.ask(5)
    assert driver.reads == {}
    with pytest.raises(InternalError, match="only from a connected source"):
        driver.arrive("x", message(0, 9))


# ---------------------------------------------------------------------------- the journal read back


def test_the_floors_of_the_journal_take_the_place_of_the_watermarks() -> None:
    """Each record grants what lies below its floor, with all that came before it."""
    driver = Driver(x=Policy())
    one, two, three = [Input(tick, 1, 0, n, (("a", 1),), tick) for n, tick in enumerate((10, 20, 30))]
    driver.handle(Replayed("x", 0, [two, one]))
    assert driver.granted == []
    driver.handle(Replayed("x", 15, [three]))
    assert driver.granted == [one]
    driver.handle(Passed(25))
    assert driver.granted == [one, two]
    assert (driver.gate.floor, driver.gate.next_tick, driver.gate.end) == (25, 30, 31)


def test_a_record_below_the_floor_is_our_fault() -> None:
    """No journal of ours holds one."""
    driver = Driver(x=Policy())
    driver.handle(Passed(25))
    with pytest.raises(InternalError, match="the floor was 25"):
        driver.handle(Replayed("x", 25, [Input(24, 1, 0, 0, (("a", 1),), 24)]))


def test_names_are_unique_and_ranks_follow_the_order_of_connect() -> None:
    """Rank 0 is for the program itself; a source of the journal that the model lacks is the operator's affair."""
    gate = Gate(rule)
    assert [gate.register(name, Policy()) for name in ("x", "y")] == [1, 2]
    assert (gate.rank("y"), gate.positions("y")) == (2, {})
    with pytest.raises(OperatorError, match="a name of its own"):
        gate.register("x", Policy())
    with pytest.raises(OperatorError, match="the model does not connect it"):
        gate.rank("z")


@pytest.mark.parametrize(("other", "reached"), [(None, 100 * S + 1), (60 * S, 60 * S)])
def test_a_source_that_has_grown_after_its_end_brings_nothing_below_what_the_clock_may_have_passed(
    other: int | None, reached: int
) -> None:
    """A killed life may have let outputs leave up to where the durable end allowed it; the journal's floor is older."""
    gate = Gate(rule)
    gate.register("x", Policy(disorder=90 * S, late="clamp"))
    inputs = (Input(0, 1, 0, 0, (("a", 1),), 0), Input(100 * S, 1, 0, 1, (("a", 2),), 100 * S))
    gate.handle(Replayed("x", 0, inputs))
    if other is not None:
        gate.register("y", Policy())
        gate.handle(Replayed("y", 0, (Input(other, 2, 0, 0, (("a", 1),), other),)))
    gate.handle(Replayed("x", 0, ended=True))
    gate.reopen("x")
    gate.handle(Connected("x", Plain()))
    (append,) = [one for one in gate.handle(Arrived("x", [message(2, 50 * S)])) if isinstance(one, Append)]
    assert (gate.floor, ticks_of(append.inputs), gate.counts()["clamped"]) == (0, [reached], 1)
