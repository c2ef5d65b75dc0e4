from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import Chain, Digest
from tidewarp.errors import InternalError

RECORDS = st.lists(st.tuples(st.integers(-50, 50), st.binary(max_size=6)), max_size=30).map(
    lambda rows: sorted(rows, key=lambda row: row[0])
)


def reference(rows: list[tuple[int, bytes]], block_ticks: int) -> bytes:
    """The chain of the specification, from all records at once."""
    head = bytes(32)
    for index in sorted({tick // block_ticks for tick, _ in rows}):
        block = b"".join(struct.pack(">I", len(one)) + one for tick, one in rows if tick // block_ticks == index)
        parts = (head, struct.pack(">q", index), hashlib.sha256(block).digest())
        head = hashlib.sha256(
            b"\0\x08TWTRACE1" + b"".join(struct.pack(">Q", len(part)) + part for part in parts)
        ).digest()
    return head


def test_parts_and_label_are_length_prefixed() -> None:
    """SHA-256(U16 len, label, then U64 len, data per add)."""
    digest = Digest("TWé")
    digest.add(b"ab")
    digest.add(b"")
    expected = hashlib.sha256(b"\0\4TW\xc3\xa9" + b"\0" * 7 + b"\2ab" + b"\0" * 8)
    assert digest.digest() == expected.digest()
    assert digest.hexdigest() == expected.hexdigest()


def test_parts_are_not_their_concatenation() -> None:
    one, two = Digest("L"), Digest("L")
    one.add(b"ab")
    two.add(b"a")
    two.add(b"b")
    assert one.digest() != two.digest()


@given(RECORDS, st.integers(1, 20))
def test_the_chain_is_that_of_the_specification(rows: list[tuple[int, bytes]], block_ticks: int) -> None:
    """After each record head() is the chain over all records so far, and asking changes nothing."""
    chain = Chain(block_ticks)
    assert chain.head() == bytes(32)
    for count, (tick, record) in enumerate(rows, 1):
        chain.add(tick, record)
        assert chain.head() == reference(rows[:count], block_ticks)
        assert chain.count == count


@given(RECORDS, st.integers(1, 20), st.integers(0, 30))
def test_records_added_together_make_the_same_chain(rows: list[tuple[int, bytes]], block_ticks: int, cut: int) -> None:
    """Wherever they are divided."""
    chain = Chain(block_ticks)
    for part in (rows[:cut], rows[cut:]):
        chain.extend([tick for tick, _ in part], [record for _, record in part])
    assert chain.head() == reference(rows, block_ticks)
    assert chain.count == len(rows)


def test_long_records_are_framed_as_short_ones() -> None:
    """The bytes of short lengths are kept at hand; one long record among them is enough to need others."""
    rows = [(0, b"a"), (1, bytes(1_023)), (2, bytes(1_024)), (10, bytes(70_000)), (10, b"")]
    chain = Chain(10)
    chain.extend([tick for tick, _ in rows], [record for _, record in rows])
    assert chain.head() == reference(rows, 10)


def test_block_ends_count_and_empty_blocks_do_not() -> None:
    """A record moved into the next block changes the head; the same records in one block at other ticks do not."""
    heads = []
    for ticks in ((0, 9), (0, 10), (3, 4)):
        chain = Chain(10)
        for tick in ticks:
            chain.add(tick, b"r")
        heads.append(chain.head())
    assert heads[0] != heads[1]
    assert heads[0] == heads[2]


def test_a_closed_block_stays_closed() -> None:
    chain = Chain(10)
    chain.add(10, b"")
    with pytest.raises(InternalError, match="block 1 has begun"):
        chain.add(9, b"")
    chain.add(10, b"")
    assert chain.count == 2


def test_a_block_has_a_length() -> None:
    with pytest.raises(InternalError):
        Chain(0)


def test_default_block_is_one_second() -> None:
    """The pinned head of three records at 0 s, 1 s - 1 ns and 1 s."""
    chain = Chain()
    rows = [(0, b"a"), (10**9 - 1, b"b"), (10**9, b"c")]
    for tick, record in rows:
        chain.add(tick, record)
    assert chain.head() == reference(rows, 10**9)
    assert chain.head().hex() == "5a7fcf952a1bee1cf8957e8f5dfa483c76b590137b2dd28f7605eecfbfabe5be"
