"""Records of others in bulk: judged all at once as one by one, and taken in as the model in memory takes them."""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import ERASED, WITHHELD, BatchItem
from tidewarp.codec.bodies import EDGE, ERASE, TOMBSTONE, ArtifactBody, EdgeBody, EraseBody, TombstoneBody
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.records import BODY_BYTES_MAX, INPUT, genesis, timed_body
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, PeerError, QuotaExceeded
from tidewarp.store import MemoryStore, Settings, SqliteStore
from tidewarp.store.continuation import Continuation, Incoming, Unfit, _one_by_one
from tidewarp.testing.contents import Site

KEY = bytes(range(1, 33))
SMALL = 100
PAYLOADS = (b"", b"a", b"b", b"c" * SMALL, b"d" * (SMALL + 1), b"e" * 5_000)
OTHER = Artifact(b"other")
LAWFUL: tuple[Callable[[BatchItem], BatchItem], ...] = (
    lambda one: one._replace(artifact=None),
    lambda one: one._replace(state=ERASED, body=None, artifact=None),
)
CHANGES: tuple[Callable[[BatchItem], BatchItem], ...] = (
    lambda one: one._replace(header=one.header._replace(domain=bytes(32))),
    lambda one: one._replace(header=one.header._replace(seq=one.header.seq + 1)),
    lambda one: one._replace(header=one.header._replace(seq=0)),
    lambda one: one._replace(header=one.header._replace(seq=-1)),
    lambda one: one._replace(header=one.header._replace(kind=INPUT)),
    lambda one: one._replace(header=one.header._replace(kind=0x102)),
    lambda one: one._replace(header=one.header._replace(flags=0)),
    lambda one: one._replace(header=one.header._replace(flags=2)),
    lambda one: one._replace(header=one.header._replace(hlc=7)),
    lambda one: one._replace(header=one.header._replace(hlc=1 << 64)),
    lambda one: one._replace(header=one.header._replace(prev=bytes(32))),
    lambda one: one._replace(header=one.header._replace(body_len=46)),
    lambda one: one._replace(header=one.header._replace(body_len=BODY_BYTES_MAX + 1)),
    lambda one: one._replace(header=one.header._replace(body_hash=bytes(32))),
    lambda one: one._replace(header=one.header._replace(body_hash=one.header.body_hash[:31])),
    lambda one: one._replace(state=WITHHELD),
    lambda one: one._replace(header=one.header._replace(body_hash=bytes(31)), state=ERASED, body=None, artifact=None),
    lambda one: one._replace(state=3),
    lambda one: one._replace(body=None),
    lambda one: one._replace(body=b"none"),
    lambda one: with_body(one, b"none"),
    lambda one: with_body(one, ArtifactBody(OTHER.reference(), None, 5).to_bytes()),
    lambda one: with_body(one, ArtifactBody(Artifact(b"a").reference(), None, 2).to_bytes()),
    lambda one: with_body(one, ArtifactBody(Artifact(b"a").reference(), 0, 1).to_bytes()),
    lambda one: one._replace(artifact=b""),
    lambda one: one._replace(artifact=OTHER.to_bytes()),
    lambda one: one._replace(artifact=Artifact(b"a", 0).to_bytes()),
    lambda one: one._replace(artifact=Artifact(b"a").to_bytes() + b"\0"),
    lambda one: one._replace(artifact=Artifact(b"a").to_bytes()[:-1]),
    # Bytes that declare another size than they have, under the name that they have.
    lambda one: named(one, b"\0" + (2).to_bytes(8, "big") + b"a", None, 2),
    lambda one: named(one, b"\0" + (2).to_bytes(8, "big") + b"a", None, 1),
    lambda one: named(one, b"\0" + bytes(3), None, 0),
    lambda one: named(one, b"\2" + (1).to_bytes(8, "big") + b"a", None, 1),
)


def with_body(item: BatchItem, body: bytes) -> BatchItem:
    """The same record with another body, that its header names."""
    header = item.header._replace(body_len=len(body), body_hash=sha256(body).digest())
    return item._replace(header=header, body=body)


def named(item: BatchItem, data: bytes, tag: int | None, size: int) -> BatchItem:
    """The same record with these bytes for an artifact, and their hash for its name."""
    ref = Reference(1, sha256(data).digest())
    return with_body(item, ArtifactBody(ref, tag, size).to_bytes())._replace(artifact=data)


def judged(judge: Callable[[], tuple[Incoming, ...]]) -> object:
    """What came of it: the records, or what is wrong with the first that does not fit."""
    try:
        return judge()
    except Unfit as error:
        return error.kind, error.seq, error.data, error.args
    except CodecError as error:
        return error.args


@given(
    st.lists(
        st.tuples(st.sampled_from(PAYLOADS), st.sampled_from([None, None, 7]), st.booleans()), min_size=1, max_size=4
    ),
    st.data(),
)
@settings(deadline=None)
def test_all_at_once_is_one_by_one(puts: list[tuple[bytes, int | None, bool]], data: st.DataObject) -> None:
    """Whatever is changed in whichever records: the same is refused for the same reason, and the same is read."""
    site = Site()
    for payload, tag, carry in puts:
        site.put(payload, tag, carry=carry)
    if data.draw(st.booleans()):
        site.write(INPUT, timed_body(1, b""), flags=0)
    items = [
        data.draw(st.sampled_from(LAWFUL + CHANGES))(one) if data.draw(st.booleans()) else one for one in site.items
    ]
    start = site.domain, 0, genesis(site.domain)
    alone = judged(lambda: _one_by_one(*start, items))
    assert judged(lambda: Continuation(*start, items).records) == alone
    if isinstance(alone[0], Incoming):  # type: ignore[index]  # a tuple in any case
        found = Continuation(*start, items)
        added = [one.seq for one in found.carried.headers]
        assert sorted(added + [one.header.seq for one in found.others]) == list(range(1, len(items) + 1))


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("change", LAWFUL + CHANGES)
def test_each_change_to_a_plain_record_counts(change: Callable[[BatchItem], BatchItem], at: int) -> None:
    """In the second of three that are all of the one form, and in the last, which no other follows."""
    site = Site()
    for payload in (b"x", b"a", b"a"):
        site.put(payload)
    items = [change(one) if place == at else one for place, one in enumerate(site.items)]
    start = site.domain, 0, genesis(site.domain)
    alone = judged(lambda: _one_by_one(*start, items))
    assert judged(lambda: Continuation(*start, items).records) == alone
    if at == 1 and change in CHANGES:
        with pytest.raises((Unfit, CodecError)):
            Continuation(*start, items)


def test_bytes_may_come_twice_and_beside_their_record(tmp_path: Path) -> None:
    """What a record brings may also come by itself; what no record names may not."""
    site = Site()
    ref, other = site.put(b"a"), Artifact(b"other")
    with SqliteStore(tmp_path / "s.tw", create=True, key=KEY) as store:
        with pytest.raises(PeerError, match="no record that came with it names it"):
            site.give(store, sources={other.reference(): io.BytesIO(other.to_bytes())})
        site.give(store, sources={ref: io.BytesIO(Artifact(b"a").to_bytes())})
        assert store.get(ref) == b"a"


def test_a_quota_is_asked_before_a_byte_is_written(tmp_path: Path) -> None:
    """Of artifacts that come with their records, also those that would be kept as blocks."""
    site = Site()
    site.put(bytes(SMALL + 1))
    site.put(bytes(60))
    with SqliteStore(tmp_path, create=True, key=KEY, settings=Settings(150, SMALL)) as store:
        with pytest.raises(QuotaExceeded):
            site.give(store)
        assert [one for one in (tmp_path / "blobs").rglob("*") if one.is_file()] == []
        assert store.hash_at(site.domain, 1) is None


ADDS = st.tuples(
    st.sampled_from(["put", "put", "put", "bare", "hide", "erase", "edge"]),
    st.sampled_from(PAYLOADS),
    st.sampled_from([None, None, 7]),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(ADDS, max_size=12),
    st.integers(0, 12),
    st.lists(st.sampled_from(PAYLOADS), max_size=2),
    st.lists(st.sampled_from(PAYLOADS), max_size=2),
    st.sampled_from([None, 1 << 20]),
)
def test_what_is_taken_in_is_what_the_model_makes_of_it(
    told: list[tuple[str, bytes, int | None]],
    at: int,
    own: list[bytes],
    erased: list[bytes],
    quota_bytes: int | None,
) -> None:
    """Artifacts that are new, held, named alone, repeated, or erased here; small and in blocks; with and without a quota."""
    site = Site()
    for what, payload, tag in told:
        ref = Artifact(payload, tag).reference()
        if what in ("put", "bare"):
            site.put(payload, tag, carry=what == "put")
        elif what == "hide":
            site.write(TOMBSTONE, TombstoneBody(ref).to_bytes())
        elif what == "erase":
            site.write(ERASE, EraseBody(ref, None).to_bytes())
        else:
            edge = Edge(DERIVES, (ref,), (Artifact(b"a").reference(),), Artifact(b"").reference())
            site.write(EDGE, EdgeBody(edge).to_bytes())
    refs = [Artifact(payload, tag).reference() for payload in PAYLOADS for tag in (None, 7)]
    with (
        TemporaryDirectory() as folder,
        SqliteStore(f"{folder}/s.tw", create=True, key=KEY, settings=Settings(quota_bytes, SMALL)) as store,
    ):
        model = MemoryStore(seed=KEY)
        for one in (store, model):
            one.put_many([(payload, None) for payload in [*own, *erased]])
            for payload in dict.fromkeys(erased):
                one.erase(Artifact(payload).reference(), 0)
            cut = min(at, len(site.items))
            if cut:
                site.give(one, 0, cut)
            if site.items[cut:]:
                site.give(one, cut)
        assert store.has(refs) == model.has(refs)
        for ref in refs:
            if store.has([ref])[0]:
                assert store.get(ref) == model.get(ref)
        assert store.state_hash("all") == model.state_hash("all")
        assert list(store.records(site.domain)) == list(model.records(site.domain))
        assert {one.kind for one in store.fsck().problems} <= {"missing bytes"}
