"""A journal as bytes: read back as it was, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import INPUT, genesis
from tidewarp.codec.batches import BATCH_ITEMS_MAX, WITHHELD, BatchItem, decode_batch, encode_batch
from tidewarp.codec.records import Record
from tidewarp.codec.segments import encode_segments, read_segments
from tidewarp.errors import CodecError
from tidewarp.store import Entry
from tidewarp.store.chain import link

DOMAIN = b"d" * 32


def journal(bodies, domain=DOMAIN):
    linked = link(domain, 0, genesis(domain), [Entry(INPUT, bytes(8) + body) for body in bodies])
    return [one.record for one in linked]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.integers(1, 8))
def test_segments_in_a_row_are_one_journal(bodies, cut):
    """However they were divided; a batch is a segment."""
    records = journal(bodies)
    (data,) = encode_segments(records)
    assert read_segments(data) == records
    assert [item.header for item in decode_batch(data)] == [record.header for record in records]
    divided = encode_segments(records[:cut]) + encode_segments(records[cut:])
    assert read_segments(b"".join(divided)) == records


@pytest.mark.parametrize("bodies", [[b""] * (BATCH_ITEMS_MAX + 1), [bytes(1 << 19)] * 40])
def test_a_long_journal_is_several_segments(bodies):
    """By number of records, and by bytes."""
    records = journal(bodies)
    segments = encode_segments(records)
    assert len(segments) == 2
    assert read_segments(b"".join(segments)) == records


def test_nothing_is_no_segment():
    """Neither no bytes nor a batch of no records."""
    assert encode_segments([]) == []
    for data in (b"", encode_batch([])):
        with pytest.raises(CodecError):
            read_segments(data)


def test_what_is_not_the_beginning_of_one_journal_is_refused():
    """A gap, two domains, another order, a body that is withheld, an artifact beside."""
    one, two, three = journal([b"1", b"2", b"3"])
    (other,) = journal([b"1"], b"e" * 32)
    for records in ([two], [one, three], [two, one], [one, one], [other, two]):
        with pytest.raises(CodecError, match="does not follow"):
            read_segments(b"".join(encode_segments(records)))
    for item in (BatchItem(one.header, WITHHELD, None), BatchItem(one.header, 0, one.body, b"artifact")):
        with pytest.raises(CodecError, match="has its body here"):
            read_segments(encode_batch([item]))


@given(st.data())
def test_every_flipped_bit_is_found(data):
    """The chain covers all of it but the last header, which names another record then."""
    records = journal([b"one", b"two"])
    segment = bytearray(b"".join(encode_segments(records)))
    bit = data.draw(st.integers(0, 8 * len(segment) - 1))
    segment[bit // 8] ^= 1 << bit % 8
    try:
        found = read_segments(bytes(segment))
    except CodecError:
        return
    assert found[0] == records[0]
    assert found[1].header != records[1].header
    assert isinstance(found[1], Record)
