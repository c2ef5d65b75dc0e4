from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidewarp.codec import (
    HEADER_BYTES,
    PUBLISHED,
    RecordHeader,
    domain_of,
    genesis,
    record_hash,
    records,
    split_timed_body,
    timed_body,
)
from tidewarp.errors import CodecError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
HEADER = RecordHeader.from_bytes(VECTORS["record1_header"])


def test_identity_of_a_domain() -> None:
    assert domain_of(VECTORS["public_key"]) == VECTORS["domain_id"]
    assert genesis(VECTORS["domain_id"]) == VECTORS["genesis_prev"]


def test_the_worked_history() -> None:
    """Six records: headers read and written, each following the hash of the one before."""
    prev = VECTORS["genesis_prev"]
    for seq in range(1, 7):
        data, body = VECTORS[f"record{seq}_header"], VECTORS[f"record{seq}_body"]
        header = RecordHeader.from_bytes(data)
        assert header.to_bytes() == data
        assert (header.domain, header.seq, header.prev) == (VECTORS["domain_id"], seq, prev)
        assert (header.flags, header.hlc, header.body_len) == (PUBLISHED, 0, len(body))
        prev = record_hash(data)
        assert prev == VECTORS[f"record{seq}_hash"]


def test_every_flipped_bit_is_refused_or_is_another_record() -> None:
    whole = VECTORS["record1_header"]
    refused = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            header = RecordHeader.from_bytes(bytes(flipped))
        except CodecError:
            refused += 1
            continue
        assert header != HEADER
        assert record_hash(header.to_bytes()) != VECTORS["record1_hash"]
    assert refused == 32 + 1 + 7 + 1 + 12  # magic, seq 1 to 0, flags but bit 0, hlc of 2**63, body_len above 2**20


@pytest.mark.parametrize(
    "data", [b"", bytes(HEADER_BYTES), VECTORS["record1_header"][:-1], VECTORS["record1_header"] + b"\0"]
)
def test_other_lengths_and_versions_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        RecordHeader.from_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"seq": 2**64},
        {"seq": -1},
        {"flags": 2},
        {"kind": 256},
        {"hlc": -1},
        {"hlc": 2**63},
        {"prev": b"short"},
        {"domain": bytes(33)},
        {"body_hash": bytes(31)},
        {"body_len": 2**20 + 1},
    ],
)
def test_a_field_out_of_its_range_is_not_written(change: dict[str, object]) -> None:
    with pytest.raises(CodecError):
        HEADER._replace(**change).to_bytes()  # type: ignore[arg-type]


def test_timed_bodies() -> None:
    """An I64 tick, then the document."""
    assert timed_body(-2, b"doc") == b"\xff" * 7 + b"\xfedoc"
    assert split_timed_body(timed_body(2**63 - 1, b"doc")) == (2**63 - 1, b"doc")
    for tick in (2**63, -(2**63) - 1):
        with pytest.raises(CodecError):
            timed_body(tick, b"")
    with pytest.raises(CodecError):
        split_timed_body(bytes(7))


@pytest.mark.parametrize(
    "change", [{"seq": 0}, {"flags": 2}, {"hlc": 2**63}, {"hlc": 2**64 - 1}, {"body_len": 2**20 + 1}]
)
def test_a_field_out_of_its_range_is_not_read(change: dict[str, int]) -> None:
    """By itself, and in a batch: a header of another site may say anything."""
    data = records.HEADER.pack(b"FR1\x01", *HEADER._replace(**change))
    with pytest.raises(CodecError):
        RecordHeader.from_bytes(data)
    with pytest.raises(CodecError):
        records.checked_header(records.HEADER.unpack(data))
    whole = records.HEADER.pack(b"FR1\x01", *HEADER._replace(hlc=2**63 - 1))
    assert records.checked_header(records.HEADER.unpack(whole)) == RecordHeader.from_bytes(whole)
