"""The gate buries what can never be applied, and no record that it asks for is too large."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from gate_driver import Driver, message

from tidewarp.codec import BODY_BYTES_MAX, pack, timed_body
from tidewarp.connect.contract import HEAD_BYTES, Raw, Undecodable, Update
from tidewarp.connect.documents import PathTable, encode_dead, encode_inputs
from tidewarp.connect.gate import Connected, Policy, Replayed, admission
from tidewarp.errors import OperatorError, PeerError


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
    assert driver.gate.sources.dead() == {short: 1}
    assert driver.gate.sources.counts() == {**dict.fromkeys(driver.gate.sources.counts(), 0), "dead_letters": 1}


def test_an_input_is_all_or_nothing() -> None:
    """One bad value of two: neither is admitted."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", Raw(0, 0, pack([5, [["a", 1], ["a", -1]]])))
    assert append.inputs == ()
    assert driver.gate.sources.dead() == {"value": 1}


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
    monkeypatch.setattr(admission, name, limit)
    driver = Driver(x=Policy(), y=Policy())
    (append,) = driver.arrive("x", *[Raw(0, n, b"garbage") for n in range(5)])
    assert [one.offset for one in append.letters] == [0, 1, 2]
    assert append.counted == {"form": 2}
    assert append.moved == {0: 4}
    assert driver.gate.sources.dead() == {"form": 5}
    (append,) = driver.arrive("x", Raw(0, 5, b"garbage"))
    assert (append.letters, append.counted, append.positions) == ((), {"form": 1}, {0: 5})
    (append,) = driver.arrive("y", Raw(0, 0, b"garbage"))
    assert len(append.letters) == 1, "the limits are of each source"


def test_a_restarted_gate_remembers_how_many_dead_letters_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one of the journal, not of a life."""
    monkeypatch.setattr(admission, "_LETTERS_MAX", 2)
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, dead={"form": 2}, positions={0: 1}))
    (append,) = driver.arrive("x", Raw(0, 1, b"garbage"), Raw(0, 2, b"garbage"))
    assert (append.letters, append.counted, append.moved) == ((), {"form": 1}, {0: 2})
    assert driver.gate.sources.counts()["duplicates"] == 1


def test_a_value_too_large_for_a_record_is_a_dead_letter() -> None:
    """A legal list of 10,000 texts would not fit into the journal's record."""
    driver = Driver(x=Policy())
    (append,) = driver.arrive("x", message(0, 5, ["x" * 10] * 10_000, "any"), message(1, 6, ["x"] * 1_000, "any"))
    assert driver.gate.sources.dead() == {"size": 1}
    assert [one.offset for one in append.inputs] == [1]


WIDE = [["b", 1.5]] * (admission.BATCH_BYTES // 2 // admission.ROW_BYTES - 1)


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
    assert driver.gate.sources.dead() == {}
    table = PathTable()
    for append in appends:
        for document in encode_inputs("x", append.admitted, append.inputs, table):
            assert len(timed_body(5, document)) <= BODY_BYTES_MAX


def test_no_append_holds_more_dead_letters_than_a_record() -> None:
    """Each with a full head and a message of long characters."""

    class Loud:
        def decode(self, raw: Raw) -> Update:
            raise Undecodable("\U0001f30a" * 5_000, "a rule", "an action", "loud")

    driver = Driver()
    driver.gate.sources.register("x", Policy())
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


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        (5, (("a", 1),)),
        Update(5, 7),  # type: ignore[arg-type]
        Update(5, (("a",),)),  # type: ignore[arg-type]
        ValueError("half a pair: \ud800"),
        Odd(),
        Undecodable("v", "r", "a", None),  # type: ignore[arg-type]
        Undecodable("v", "r", "a", "\ud800"),
        Undecodable("v", "r", "a", "x" * 2_000_000),
    ],
)
def test_whatever_a_decoder_does_is_a_dead_letter_that_a_journal_can_hold(wrong: Any) -> None:
    """It is anybody's code: what it gives or raises neither ends the run nor spoils the record."""

    class Wrong:
        def decode(self, raw: Raw) -> Update:
            if isinstance(wrong, Exception):
                raise wrong
            return wrong  # type: ignore[no-any-return]

    driver = Driver(x=Policy())
    driver.handle(Connected("x", Wrong()))
    (append,) = driver.arrive("x", Raw(0, 0, b"x"))
    assert driver.gate.sources.dead() == {"decode": 1}
    encode_dead("x", 0, append.letters, append.counted, append.moved)


def test_a_source_that_gives_no_messages_is_named() -> None:
    """Not a traceback of ours."""
    driver = Driver(x=Policy())
    with pytest.raises(OperatorError, match=r"source 'x': read\(\) gave a bytes"):
        driver.arrive("x", b"raw")  # type: ignore[arg-type]
