"""A branch that was not chosen leaves the store, as if it had never come; what is left goes on with the other."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import Edge
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import InternalError, NotFound
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.contract import Entry
from tidewarp.testing import ManualClock

SEED = bytes([5]) * 32
KEY = public_key_of(SEED)
COMMON, LEFT, RIGHT = 1_500, 2_100, 3_000  # beyond one tile of 1,024 leaves, and two


@pytest.fixture(params=["memory", "sqlite"])
def made(request, tmp_path):
    """``made(seed)``: a store with that key."""
    numbers = itertools.count()
    with contextlib.ExitStack() as opened:

        def call(seed):
            if request.param == "memory":
                return MemoryStore(seed=seed)
            return opened.enter_context(open_store(tmp_path / f"{next(numbers)}.tw", create=True, key=seed))

        yield call


def write(store, word, first, last):
    store.journal.append([Entry(0x80, f"{word} {n}".encode(), PUBLISHED) for n in range(first, last + 1)])


def adopt(into, source, after=0):
    """Take from ``source`` all that it has behind ``after``, with the bytes of its artifacts."""
    items = []
    for header, _, body in source.records(source.domain, after):
        artifact = None
        if header.kind == ARTIFACT:
            ref = ArtifactBody.from_bytes(body).ref
            artifact = b"\x00" + source.info(ref).size.to_bytes(8, "big") + source.get(ref)
        items.append(BatchItem(header, BODY, body, artifact))
    into.adopt(source.domain, items, source.signed_head(), key=KEY)


@pytest.fixture
def branches(made):
    """Two copies that part behind record 1,500, each with an artifact of its own, and a store that has the first."""
    left, right, store = made(SEED), made(SEED), made(bytes([6]) * 32)
    for copy, word, size in ((left, "left", LEFT), (right, "right", RIGHT)):
        write(copy, "both", 1, COMMON)
        copy.put(word.encode())
        write(copy, word, COMMON + 2, size)
    adopt(store, left)
    return left, right, store


def test_what_is_left_goes_on_with_the_other_branch(branches):
    """Records, heads, roots and proofs, and what is visible, are those of a store that never had the first."""
    left, right, store = branches
    domain = left.domain
    before = store.state_hash()
    store.cut_back(domain, COMMON)
    (found,) = (one for one in store.domains() if one.id == domain)
    assert (found.size, found.head, found.note) == (COMMON, left.hash_at(domain, COMMON), None)
    assert store.signed_head(domain) is None
    assert store.hash_at(domain, COMMON + 1) is None
    assert store.root_at(domain, COMMON) == left.root_at(domain, COMMON)
    assert [head.seq for head in store.view().heads() if head.domain == domain] == [COMMON]
    assert store.view().visible() == []
    assert store.state_hash() != before
    adopt(store, right, COMMON)
    for size in (1, 1_024, COMMON, COMMON + 1, 2_048, LEFT, RIGHT):
        assert store.root_at(domain, size) == right.root_at(domain, size)
    assert store.inclusion_proof(domain, COMMON + 1, RIGHT) == right.inclusion_proof(domain, COMMON + 1, RIGHT)
    assert list(store.records(domain)) == list(right.records(domain))
    assert store.signed_head(domain) == right.signed_head()
    assert store.state_hash() == right.state_hash()


def test_edges_that_nobody_else_adds(made):
    """They leave with their records, with their ends; one that a record which stays adds too, stays."""
    left, store = made(SEED), made(bytes([6]) * 32)
    ends = [left.put(word) for word in (b"one", b"two", b"three")]
    both, alone = (Edge(7, (ends[0],), (end,), ends[2]) for end in ends[1:])
    left.put_edge(both)
    kept = left.journal.size
    left.put_edge(alone)
    left.put_edge(both)
    store.put_edge(both)
    adopt(store, left)
    assert dict(store.edges(source=ends[0])) == {one.reference(): one for one in (both, alone)}
    store.cut_back(left.domain, kept)
    assert store.edges(source=ends[0]) == store.edges() == [(both.reference(), both)]
    assert store.edges(target=ends[2]) == []
    store.cut_back(left.domain, 0)
    assert store.edges(target=ends[1]) == [(both.reference(), both)]
    assert [one for one in store.fsck(clock=ManualClock()).problems if one.kind in ("edge", "node", "event")] == []


def test_all_of_a_domain(branches):
    """Down to the genesis."""
    left, right, store = branches
    store.cut_back(left.domain, 0)
    assert list(store.records(left.domain)) == []
    adopt(store, right)
    assert store.state_hash() == right.state_hash()


def test_a_transaction_that_does_not_come_to_be(branches):
    """Nothing was cut: neither the records nor what was made of them."""
    left, _, store = branches
    before = store.state_hash()

    def cut():
        with store.transaction():
            store.cut_back(left.domain, COMMON)
            assert store.hash_at(left.domain, COMMON + 1) is None
            raise LookupError("a crash")

    with pytest.raises(LookupError):
        cut()
    assert store.state_hash() == before
    assert store.root_at(left.domain, LEFT) == left.root_at(left.domain, LEFT)
    assert store.signed_head(left.domain) == left.signed_head()


def test_who_looks_between_the_cut_and_its_commit_leaves_nothing_behind(branches):
    """Another thread sees the first branch until then; what it made of that is not what the other one continues."""
    left, right, store = branches
    domain = left.domain
    seen = []

    def look():
        seen.append((store.root_at(domain, LEFT), [head.seq for head in store.view().heads()]))

    with store.transaction():
        store.cut_back(domain, COMMON)
        other = threading.Thread(target=look)
        other.start()
        other.join()
    assert seen == [(left.root_at(domain, LEFT), [LEFT])]
    assert store.root_at(domain, COMMON) == left.root_at(domain, COMMON)
    assert [head.seq for head in store.view().heads()] == [COMMON]
    adopt(store, right, COMMON)
    assert store.root_at(domain, RIGHT) == right.root_at(domain, RIGHT)
    assert store.state_hash() == right.state_hash()


def test_what_cannot_be_cut(branches):
    """The own domain, an unknown one, more than there is; nothing changes."""
    left, _, store = branches
    store.put(b"own")
    with pytest.raises(InternalError, match="own domain"):
        store.cut_back(store.domain, 0)
    for domain, size in ((bytes(32), 0), (left.domain, LEFT + 1), (left.domain, -1)):
        with pytest.raises(NotFound):
            store.cut_back(domain, size)
    assert store.root_at(left.domain, LEFT) == left.root_at(left.domain, LEFT)
