"""Records on their way in are checked once: what was is known by its type, and any other sequence is checked whatever it says."""

from __future__ import annotations

from hashlib import sha256
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem, decode_batch, encode_batch
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import INPUT, PUBLISHED, RecordHeader, genesis, record_hash, timed_body
from tidewarp.store import MemoryStore
from tidewarp.store.continuation import Continuation, Unfit, continued, named_by
from tidewarp.testing.contents import Site

OPAQUE = 0x80


def site_of(payloads):
    """Artifacts with and without a tag and with and without their bytes, a stub behind each, an input at the end."""
    site = Site()
    for n, payload in enumerate(payloads):
        site.put(payload, n if n % 2 else None, carry=n % 3 != 0)
        site.write(INPUT, timed_body(n, b""), flags=0)
    site.write(INPUT, timed_body(7, b"document"))
    return site


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_a_continuation_is_what_it_was_made_of(payloads, data):
    """Items, hashes and artifacts, cut anywhere, as they came or out of a batch."""
    site = site_of(payloads)
    at = data.draw(st.integers(0, len(site.items)))
    hashes = [record_hash(one.header.to_bytes()) for one in site.items]
    prev = hashes[at - 1] if at else genesis(site.domain)
    items = decode_batch(encode_batch(site.items[at:]))
    found = Continuation(site.domain, at, prev, items)
    assert [*found] == items == site.items[at:]
    assert (len(found), found.size, found.hashes) == (len(items), len(hashes), hashes[at:])
    assert found.hash == (hashes[-1] if items else prev)
    for item, one in zip(items, found.records, strict=True):
        assert (one.header, one.state, one.body) == item[:3]
        came = None if item.artifact is None else Artifact.from_bytes(item.artifact)
        assert one.artifact == (None if came is None else (came.reference(), came))
        assert came is None or named_by(one.said) == came.reference()


def test_what_was_checked_is_not_checked_again_where_it_belongs():
    """It is taken as it is behind the prefix that it was checked against, and checked anew behind any other."""
    site = site_of([b"one", b"two"])
    whole = Continuation(site.domain, 0, genesis(site.domain), site.items)
    assert continued(site.domain, 0, genesis(site.domain), whole) is whole
    last = record_hash(site.items[0].header.to_bytes())
    rest = continued(site.domain, 1, last, site.items[1:])
    assert continued(site.domain, 1, last, rest) is rest
    for domain, size, head in (
        (bytes(32), 1, last),
        (site.domain, 2, last),
        (site.domain, 1, bytes(32)),
        (site.domain, 0, genesis(site.domain)),
    ):
        with pytest.raises(Unfit):
            continued(domain, size, head, rest)


class Claimed(list):
    """Says of itself what a continuation says, and is none."""

    def begins_at(self, domain, size, head):
        return True


def test_only_the_type_is_believed():
    """A sequence that looks like a continuation is checked like any other."""
    site = site_of([b"one"])
    forged = site.items[0]._replace(body=site.items[0].body[:-1] + b"\x09", artifact=None)
    with pytest.raises(Unfit), MemoryStore(seed=bytes(range(1, 33))) as store:
        store.adopt(site.domain, Claimed([forged, *site.items[1:]]), site.head(), key=site.key)


def test_a_continuation_of_another_prefix_is_not_adopted():
    """The store asks where it begins: the same records cannot come twice, nor with a gap."""
    site = site_of([b"one", b"two"])
    head, last = genesis(site.domain), record_hash(site.items[1].header.to_bytes())
    with MemoryStore(seed=bytes(range(1, 33))) as store:
        first = Continuation(site.domain, 0, head, site.items[:2])
        store.adopt(site.domain, first, site.head(), key=site.key)
        for wrong in (first, Continuation(site.domain, 0, head, site.items)):
            with pytest.raises(Unfit):
                store.adopt(site.domain, wrong, site.head(), key=site.key)
        store.adopt(site.domain, Continuation(site.domain, 2, last, site.items[2:]), site.head(), key=site.key)
        assert store.signed_head(site.domain) == site.head()


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda one: one._replace(header=one.header._replace(seq=9)), "payload_mismatch"),
        (lambda one: one._replace(header=one.header._replace(domain=bytes(32))), "payload_mismatch"),
        (lambda one: one._replace(header=one.header._replace(prev=bytes(32))), "payload_mismatch"),
        (lambda one: one._replace(body=one.body + b"\0"), "payload_mismatch"),
        (lambda one: one._replace(body=one.body[:-1] + b"\x63"), "payload_mismatch"),
        (lambda one: one._replace(body=None), "payload_mismatch"),
        (lambda one: one._replace(state=WITHHELD), "payload_mismatch"),
        (lambda one: one._replace(state=WITHHELD, body=None), "payload_mismatch"),
        (lambda one: one._replace(artifact=one.artifact[:-1]), "payload_mismatch"),
        (lambda one: one._replace(artifact=Artifact(b"other").to_bytes()), "payload_mismatch"),
        (lambda one: with_body(one, b"\0"), "metadata_mismatch"),
        (lambda one: with_body(one, one.body[:-1] + b"\x63"), "metadata_mismatch"),
    ],
)
def test_the_first_record_that_does_not_fit_is_named(at, change, kind):
    """Its number, and what kind of conflict it is."""
    site = Site()
    for n in range(4):
        site.put(b"%d" % n)
    items = [*site.items]
    items[at] = change(items[at])
    with pytest.raises(Unfit) as refused:
        Continuation(site.domain, 0, genesis(site.domain), items)
    assert (refused.value.seq, refused.value.kind) == (at + 1, kind)


def with_body(item, body):
    """The same record with another body, that its header names."""
    header = item.header._replace(body_len=len(body), body_hash=sha256(body).digest())
    return item._replace(header=header, body=body)


def test_what_its_writer_told_nobody_need_have_no_form():
    """A body that is none of its kind is refused if it is published, and means nothing if it is not."""
    body, domain = b"none", bytes(32)
    for flags in (PUBLISHED, 0):
        header = RecordHeader(domain, 1, ARTIFACT, flags, 0, genesis(domain), len(body), sha256(body).digest())
        items = [BatchItem(header, BODY, body)]
        if flags:
            with pytest.raises(Unfit):
                Continuation(domain, 0, genesis(domain), items)
        else:
            (one,) = Continuation(domain, 0, genesis(domain), items).records
            assert one.said is None


@given(st.lists(st.integers(0, 40), max_size=5))
def test_a_tree_grows_alike_in_any_parts(sizes):
    """The hashes of continuations, one behind the other, make the tree of all."""
    site = Site()
    for n in range(sum(sizes)):
        site.write(OPAQUE, b"%d" % n)
    frontier, head = Frontier(), genesis(site.domain)
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        part = Continuation(site.domain, end - size, head, site.items[end - size : end])
        frontier.extend(part.hashes)
        head = part.hash
    assert (frontier.root(), head) == (site.head().root, site.head().head)


def test_a_tree_that_was_grown_before_is_not_that_of_another():
    """Asked of another tree than the last time, it grows that one; none of those that were given changes."""
    site = Site()
    for n in range(1_030):
        site.write(OPAQUE, b"%d" % n)
    part = Continuation(site.domain, 0, genesis(site.domain), site.items)
    empty, other = Frontier(), Frontier()
    other.append(bytes(32))
    for _ in range(2):
        for frontier in (empty, other):
            before = frontier.to_bytes()
            expected = frontier.copy()
            tiles = expected.extend(part.hashes)
            grown = part.grown(frontier)
            assert (grown.frontier.to_bytes(), grown.tiles) == (expected.to_bytes(), tuple(tiles))
            assert len(tiles) == 1
            assert frontier.to_bytes() == before


def test_an_artifact_body_is_read_the_same_in_place_or_field_by_field():
    """The short way that nearly all records take admits what the long one does, and nothing else."""
    for ref_tag, size in ((None, 0), (None, 1 << 63), (0, 5), (7, 5)):
        body = ArtifactBody(Artifact(b"x").reference(), ref_tag, size)
        assert ArtifactBody.from_bytes(body.to_bytes()) == body
