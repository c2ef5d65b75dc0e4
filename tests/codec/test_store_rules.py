"""Each rule of a form, broken by hand: refused when it is read, and when it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import BODY_BYTES_MAX, RecordHeader
from tidewarp.codec.artifacts import EMPTY, Artifact, artifact_head
from tidewarp.codec.batches import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    BODY,
    ERASED,
    INLINE_BYTES_MAX,
    WITHHELD,
    BatchItem,
    decode_batch,
    encode_batch,
)
from tidewarp.codec.bodies import (
    DOMAIN,
    FEDERATION,
    STICKY,
    ArtifactBody,
    EdgeBody,
    EraseBody,
    KeysBody,
    LiftBody,
    PointerBody,
    PolicyBody,
    RequestBody,
    ResolveBody,
    TombstoneBody,
)
from tidewarp.codec.edges import Edge
from tidewarp.codec.frames import ITEMS_MAX, Reader, counted, i64, text16, u8, u16, u32, u64
from tidewarp.codec.references import (
    Reference,
    encode_optional,
    encode_references,
    read_optional_reference,
    read_reference,
    read_references,
)
from tidewarp.codec.snapshots import NO_POLICY, Snapshot
from tidewarp.errors import CodecError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
HEADER = RecordHeader.from_bytes(VECTORS["record1_header"])
BODY_1 = VECTORS["record1_body"]
LOW, HIGH = bytes(32), b"\xff" * 32
ER = EMPTY.encoded()
MANY = b"\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("read", "data", "rule"),
    [
        (Reader.u8, b"", "1 bytes are needed and 0 are left"),
        (Reader.u16, b"\0", "2 bytes are needed"),
        (Reader.u32, b"\0\0\0", "4 bytes are needed"),
        (Reader.u64, bytes(7), "8 bytes are needed"),
        (Reader.i64, bytes(7), "8 bytes are needed"),
        (Reader.flag, b"\2", "0 or 1, not 2"),
        (Reader.hash32, bytes(31), "32 bytes are needed and 31 are left"),
        (Reader.counted, MANY + b"x", "4294967295 bytes are needed and 1 are left"),
        (Reader.text16, b"\4\1" + bytes(1025), "at most 1024 bytes, not 1025"),
        (Reader.text16, b"\0\2\xc0\x80", "UTF-8"),
        (Reader.text16, b"\0\3\xed\xa0\x80", "UTF-8"),
        (Reader.text16, b"\0\2x", "2 bytes are needed and 1 are left"),
        (Reader.end, b"x", "1 bytes trail"),
        (lambda reader: reader.count(1), u32(ITEMS_MAX + 1) + bytes(ITEMS_MAX + 1), "at most 65536 items, not 65537"),
        (lambda reader: reader.count(8), u32(2) + bytes(15), "2 items need 16 bytes and 15 are left"),
        (read_references, MANY, "at most 65536 items"),
        (read_references, u32(5) + ER, "5 items need 40 bytes and 38 are left"),
        (read_reference, ER[:-1], "34 bytes are needed and 33 are left"),
        (read_optional_reference, b"\2" + ER, "0 or 1"),
    ],
)
def test_fields_are_refused(read: Callable[[Reader], object], data: bytes, rule: str) -> None:
    """The error names what was read, how far, the rule and what to do."""
    with pytest.raises(CodecError, match=rule) as caught:
        read(Reader(data, "example"))
    assert caught.value.value.startswith("example, byte ")
    assert caught.value.value.endswith(f" of {len(data)}")


def test_fields_are_read_in_their_order() -> None:
    data = (
        u8(255)
        + u16(2**16 - 1)
        + u32(2**32 - 1)
        + u64(2**64 - 1)
        + i64(-1)
        + b"\1"
        + counted(b"ab")
        + text16("é")
        + b"cd"
    )
    reader = Reader(data, "example")
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.i64()) == (
        255,
        65_535,
        2**32 - 1,
        2**64 - 1,
        -1,
    )
    assert (reader.flag(), reader.counted(), reader.text16(), reader.left) == (True, b"ab", "é", 2)
    assert reader.rest() == b"cd"
    reader.end()
    assert reader.rest() == b""


def test_a_reference_that_may_be_absent() -> None:
    for reference, data in ((None, b"\0"), (EMPTY, b"\1" + ER)):
        assert encode_optional(reference) == data
        assert read_optional_reference(Reader(data, "example")) == reference


@pytest.mark.parametrize("write", [u8, u16, u32, u64, i64])
def test_integers_out_of_range_are_not_written(write: Callable[[Any], bytes]) -> None:
    for number in (2**64, -(2**63) - 1, 1.0, None):
        with pytest.raises(CodecError, match="integer of"):
            write(number)


def test_texts_are_bounded_and_have_utf_8() -> None:
    assert Reader(text16("é" * 512), "example").text16() == "é" * 512
    for text in ("é" * 512 + "x", "\ud800"):
        with pytest.raises(CodecError):
            text16(text)


def test_lists_are_bounded() -> None:
    """65,536 references are written and read, one more is not."""
    most = (Reference(2, b"ab"),) * ITEMS_MAX
    assert read_references(Reader(encode_references(most), "example")) == most
    with pytest.raises(CodecError, match="65536"):
        encode_references((*most, EMPTY))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0\1", bytes(34), b"\0\1" + bytes(31), b"\0\1" + bytes(33), b"\0\2x", b"\0\2" + bytes(65)],
)
def test_no_other_bytes_are_a_reference(data: bytes) -> None:
    with pytest.raises(CodecError):
        Reference.from_bytes(data)
    with pytest.raises(CodecError):
        Reference.parse(data.hex())
    with pytest.raises(CodecError):
        read_references(Reader(u32(1) + counted(data) + bytes(8), "example"))


@pytest.mark.parametrize("fields", [(0, LOW), (-1, LOW), (2**16, LOW), (1, LOW[1:]), (2, b"x"), (2, bytes(65))])
def test_no_other_reference_is_written(fields: tuple[int, bytes]) -> None:
    for write in (Reference.to_bytes, Reference.encoded, Reference.hex):
        with pytest.raises(CodecError):
            write(Reference(*fields))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../../etc/passwd",
        EMPTY.hex().upper(),
        f" {EMPTY.hex()}",
        f"{EMPTY.hex()}\n",
        EMPTY.hex()[:-1],
        EMPTY.hex()[:12],
        f"{EMPTY.hex()[:-1]}\0",
        "\uff10" * 68,  # zeros of full width
    ],
)
def test_a_text_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(CodecError):
        Reference.parse(text)


def test_a_text_of_64_kib_is_not_even_looked_at() -> None:
    with pytest.raises(CodecError, match="at most 132") as caught:
        Reference.parse("0" * 65_536)
    assert len(str(caught.value)) < 200


def test_references_sort_as_their_bytes() -> None:
    assert Reference.parse(EMPTY.hex()) == EMPTY
    some = [
        Reference(1, HIGH),
        Reference(1, LOW),
        Reference(2, b"ab"),
        Reference(2, b"abc"),
        Reference(256, b"ab"),
        EMPTY,
    ]
    assert sorted(some) == sorted(some, key=Reference.to_bytes)
    assert len({*some, *some}) == len(some)


@pytest.mark.parametrize(
    "data",
    [b"\2" + bytes(8), b"\0" + u64(2**64 - 1), b"\0" + u64(4) + b"abc", b"\0" + u64(2) + b"abc", b"\1\0\0\0" + u64(0)],
)
def test_an_artifact_that_lies_about_its_size_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        Artifact.from_bytes(data)


@pytest.mark.parametrize(("size", "tag"), [(-1, None), (2**64, None), (0, -1), (0, 2**32), (-1, 0)])
def test_an_artifact_out_of_range_is_not_hashed(size: int, tag: int | None) -> None:
    with pytest.raises(CodecError):
        artifact_head(size, tag)


@pytest.mark.parametrize(
    ("vector", "rule"),
    [
        (((HIGH, 1, LOW), (LOW, 1, LOW)), "ascend"),
        (((LOW, 1, LOW), (LOW, 2, LOW)), "ascend"),
        (((LOW, 0, LOW),), "count from 1"),
    ],
)
def test_a_vector_out_of_order_is_no_snapshot(vector: tuple[tuple[bytes, int, bytes], ...], rule: str) -> None:
    """One vector, one name."""
    with pytest.raises(CodecError, match=rule):
        Snapshot(NO_POLICY, vector).to_bytes()
    rows = b"".join(domain + u64(seq) + head for domain, seq, head in vector)
    with pytest.raises(CodecError, match=rule):
        Snapshot.from_bytes(b"TWSNAP1" + NO_POLICY + u32(len(vector)) + rows)


@pytest.mark.parametrize(
    "snapshot", [Snapshot(b"", ()), Snapshot(NO_POLICY, ((b"a", 1, LOW),)), Snapshot(NO_POLICY, ((LOW, 1, b"a"),))]
)
def test_a_snapshot_has_whole_hashes(snapshot: Snapshot) -> None:
    with pytest.raises(CodecError, match="32 bytes"):
        snapshot.to_bytes()


TOMBSTONE = ER + b"%c" + bytes(2) + bytes(2) + u32(1) + LOW


@pytest.mark.parametrize(
    ("body", "data", "rule"),
    [
        (TombstoneBody(EMPTY, 3), ER + b"\3" + bytes(8), "0, 1 or 2"),
        (TombstoneBody(EMPTY, DOMAIN, bounds=((LOW, 1),)), TOMBSTONE % 0 + u64(1), "only a tombstone of scope 1"),
        (TombstoneBody(EMPTY, STICKY, bounds=((LOW, 1),)), TOMBSTONE % 2 + u64(1), "only a tombstone of scope 1"),
        (TombstoneBody(EMPTY, FEDERATION, bounds=((LOW, 0),)), TOMBSTONE % 1 + u64(0), "count from 1"),
        (
            TombstoneBody(EMPTY, FEDERATION, bounds=((LOW, 1), (LOW, 2))),
            ER + b"\1" + bytes(4) + u32(2) + LOW + u64(1) + LOW + u64(2),
            "ascend",
        ),
        (LiftBody(EMPTY, 3), ER + b"\3" + LOW, "0, 1 or 2"),
        (LiftBody(EMPTY, DOMAIN, HIGH), ER + b"\0" + HIGH, "names no tombstone"),
        (EraseBody(None, 0), b"\1" + u64(0) + bytes(2), "1"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_both_ways(body: Any, data: bytes, rule: str) -> None:
    with pytest.raises(CodecError, match=rule):
        body.to_bytes()
    with pytest.raises(CodecError, match=rule):
        type(body).from_bytes(data)


@pytest.mark.parametrize(
    "body",
    [
        ArtifactBody(EMPTY, 2**32, 0),
        ArtifactBody(EMPTY, None, -1),
        TombstoneBody(EMPTY, reason=2**16),
        TombstoneBody(EMPTY, note="x" * 1025),
        LiftBody(EMPTY, STICKY, b"short"),
        EraseBody(None, None),
        EraseBody(EMPTY, 1),
        KeysBody((b"short",)),
        PointerBody("name", (b"short",), EMPTY),
        ResolveBody(LOW, b""),
        PolicyBody(Reference(0, LOW)),
    ],
)
def test_a_field_out_of_its_range_is_not_written(body: Any) -> None:
    with pytest.raises(CodecError):
        body.to_bytes()


def test_an_edge_under_another_name_is_refused() -> None:
    """Its reference is redundant, so it must be the right one."""
    with pytest.raises(CodecError, match="another edge"):
        EdgeBody.from_bytes(ER + Edge(1, (EMPTY,), ()).to_bytes())


def test_bodies_of_two_kinds_are_not_equal() -> None:
    assert PolicyBody(EMPTY) != RequestBody(EMPTY)
    assert PolicyBody(EMPTY).to_bytes() == RequestBody(EMPTY).to_bytes()


def batch(number: int, items: bytes) -> bytes:
    return b"FB1\1" + u32(number) + items


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"FB2\1" + u32(0), "version 1"),
        (batch(2**32 - 1, b""), "65536 items"),
        (batch(1, bytes(123)), "1 items need 124 bytes and 123 are left"),
        (batch(BATCH_ITEMS_MAX + 1, bytes(124 * (BATCH_ITEMS_MAX + 1))), "at most 10000 records"),
        (batch(0, bytes(BATCH_BYTES_MAX)), "at most 16777216 bytes"),
        (batch(1, HEADER.to_bytes() + b"\3\0" + BODY_1), "0, 1 or 2, not 3"),
        (batch(1, HEADER._replace(body_len=BODY_BYTES_MAX).to_bytes() + b"\0" + BODY_1), "1048576 bytes are needed"),
        (batch(1, HEADER.to_bytes() + b"\1\1" + MANY), "4294967295 bytes are needed"),
        (batch(1, HEADER.to_bytes() + b"\2\1" + counted(bytes(INLINE_BYTES_MAX + 1))), "65536 bytes of an artifact"),
        (batch(1, HEADER.to_bytes() + b"\1\2"), "0 or 1, not 2"),
    ],
)
def test_batches_are_refused(data: bytes, rule: str) -> None:
    with pytest.raises(CodecError, match=rule):
        decode_batch(data)


@pytest.mark.parametrize(
    ("items", "rule"),
    [
        ([BatchItem(HEADER, 3, None)], "state 3"),
        ([BatchItem(HEADER, BODY, None)], "a body of 47 bytes follows"),
        ([BatchItem(HEADER, BODY, BODY_1[1:])], "a body of 47 bytes follows"),
        ([BatchItem(HEADER, WITHHELD, BODY_1)], "in 1 and 2 none"),
        ([BatchItem(HEADER, ERASED, b"")], "in 1 and 2 none"),
        ([BatchItem(HEADER, ERASED, None, bytes(INLINE_BYTES_MAX + 1))], "65536 bytes travel"),
        ([BatchItem(HEADER, WITHHELD, None)] * (BATCH_ITEMS_MAX + 1), "at most 10000"),
        ([BatchItem(HEADER, WITHHELD, None, bytes(INLINE_BYTES_MAX))] * 256, "at most 16777216"),
    ],
)
def test_batches_are_not_written(items: list[BatchItem], rule: str) -> None:
    with pytest.raises(CodecError, match=rule):
        encode_batch(items)


def test_a_full_batch() -> None:
    """As many records as may be, in each state."""
    empty = HEADER._replace(body_len=0)
    items = [BatchItem(HEADER, BODY, BODY_1, bytes(INLINE_BYTES_MAX)), BatchItem(empty, BODY, b"")]
    items += [BatchItem(HEADER, WITHHELD, None), BatchItem(HEADER, ERASED, None)] * (BATCH_ITEMS_MAX // 2 - 1)
    assert decode_batch(encode_batch(items)) == items
