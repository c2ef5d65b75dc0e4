"""The part of the suite for stores that is about the records of other domains: see :mod:`.stores`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tidewarp.codec import INPUT, genesis, timed_body
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier, verify_consistency, verify_inclusion
from tidewarp.errors import Erased, NotFound, OperatorError, PeerError, QuotaExceeded
from tidewarp.store.contract import Store
from tidewarp.store.query import SegmentScan
from tidewarp.store.shards import ShardMap
from tidewarp.testing.artifact_machine import UNKNOWN
from tidewarp.testing.site import Site
from tidewarp.testing.suites import pytest

__all__ = ["DomainConformance"]


class DomainConformance:
    """Tests of how a store takes in what others have written. Give ``create``: see :class:`~tidewarp.testing.stores.StoreConformance`."""

    def create(self, folder: Path) -> Store:
        """A new, empty store in ``folder``, which is empty and the store's own."""
        raise NotImplementedError("a suite for a store needs create(folder)")

    def test_what_was_erased_does_not_come_back_with_the_records_of_others(self, tmp_path: Path) -> None:
        """Small or large; the records do come, and what was not erased."""
        site = Site()
        payloads = [b"small", bytes(300_000)]
        with self.create(tmp_path) as store:
            refs = [store.put(payload) for payload in payloads]
            for ref in refs:
                store.erase(ref)
            assert [site.put(payload) for payload in payloads] == refs
            other = site.put(b"another")
            site.give(store)
            assert store.has([*refs, other]) == [False, False, True]
            for ref in refs:
                assert store.info(ref).state == "erased"
                with pytest.raises(Erased):
                    store.get(ref)
            assert len(list(store.records(site.domain))) == 3
            store.gc(60.0)
            report = store.fsck()
            assert report.problems == ()

    def test_another_domain_is_adopted(self, tmp_path: Path) -> None:
        """Records, stubs, artifacts and heads of another domain, in two parts; what is visible follows."""
        site = Site()
        refs = [site.put(b"one"), site.put(b"two", 7)]
        site.write(INPUT, timed_body(5, b"secret"), flags=0)
        refs.append(site.put(b"three"))
        with self.create(tmp_path) as store:
            own = store.put(b"own")
            assert site.give(store, 0, 2) == (1, 2)
            assert store.signed_head(site.domain) is None, "the head is about more than what is here"
            assert site.give(store, 2) == (3, 4)
            assert [store.get(ref) for ref in refs] == [b"one", b"two", b"three"]
            assert all(map(store.view().is_visible, [own, *refs]))
            assert [(one.state, one.body) for one in store.records(site.domain)] == [
                (one.state, one.body) for one in site.items
            ]
            assert [one.header for one in store.records(site.domain, 1, 2)] == [one.header for one in site.items[1:3]]
            head = site.head()
            assert store.signed_head(site.domain) == head
            mine, other = store.domains()
            assert (mine.id, mine.size) == (store.domain, 1)
            assert other == (site.domain, "live", 4, head.head, head.note(), site.key)
            assert store.hash_at(site.domain, 0) == genesis(site.domain)
            assert store.hash_at(site.domain, 2) == site.items[2].header.prev
            assert store.hash_at(site.domain, 5) is None
            assert store.hash_at(bytes(32), 0) is None
            assert list(store.records(bytes(32))) == []
            snapshot = {domain: (seq, last) for domain, seq, last in store.snapshot().vector}
            assert snapshot == {store.domain: (1, store.journal.head), site.domain: (4, head.head)}

    def test_a_body_takes_the_place_of_its_stub(self, tmp_path: Path) -> None:
        """Withheld first, it comes later, with its artifact; another body, another header and what is unknown are refused."""
        site, artifact = Site(), Artifact(b"secret", 7)
        ref = artifact.reference()
        site.put(b"open")
        for kind, body in ((ARTIFACT, ArtifactBody(ref, 7, 6).to_bytes()), (INPUT, timed_body(5, b"secret"))):
            site.write(kind, body, flags=0)
        stubs = site.items[1:]
        first = BatchItem(stubs[0].header, BODY, ArtifactBody(ref, 7, 6).to_bytes(), artifact.to_bytes())
        second = BatchItem(stubs[1].header, BODY, timed_body(5, b"secret"))
        with self.create(tmp_path) as store:
            store.reshard(ShardMap((0x80,)))
            site.give(store)
            root, head = store.root_at(site.domain, 3), store.signed_head(site.domain)
            assert (store.withheld(site.domain, 0, 9), store.withheld(site.domain, 2, 9)) == ([2, 3], [3])
            assert (store.withheld(site.domain, 0, 1), store.withheld(bytes(32), 0, 9)) == ([2], [])
            for wrong in (
                first._replace(body=first.body[:-1] + b"\7" if first.body else None),
                first._replace(artifact=Artifact(b"secret").to_bytes()),
                first._replace(header=second.header._replace(seq=2)),
                stubs[0],
            ):
                with pytest.raises(PeerError):
                    store.reveal(site.domain, [second, wrong])
                assert store.withheld(site.domain, 0, 9) == [2, 3]
            for domain, item in (
                (bytes(32), first),
                (site.domain, first._replace(header=first.header._replace(seq=9))),
            ):
                with pytest.raises(NotFound):
                    store.reveal(domain, [item])
            with pytest.raises(QuotaExceeded):
                store.set_quota(8)
                store.reveal(site.domain, [first])
            store.set_quota(None)
            assert not store.view(scope="all").is_visible(ref)
            assert store.reveal(site.domain, [first, second]) == 2
            assert store.reveal(site.domain, [first, second]) == 0
            assert (store.withheld(site.domain, 0, 9), store.get(ref)) == ([], b"secret")
            assert [one.body for one in store.records(site.domain, 1)] == [first.body, second.body]
            assert (store.root_at(site.domain, 3), store.signed_head(site.domain)) == (root, head)
            assert store.view(scope="all").is_visible(ref)
            assert not store.view().is_visible(ref)
            assert store.fsck().problems == ()
            rows = [row["seq"] for n in (0, 1) for row in store.view(scope="all").run(SegmentScan(shard=n))]
            assert sorted(rows) == [1, 2, 3]

    def test_trees_prove_what_is_here(self, tmp_path: Path) -> None:
        """Roots, frontiers and proofs over both domains, also beyond a tile."""
        site = Site()
        for n in range(1_100):
            site.write(0x80, n.to_bytes(2, "big"))
        with self.create(tmp_path) as store:
            site.give(store, 0, 700)
            site.give(store, 700)
            store.put_many([(b"%d" % n, None) for n in range(1_030)])
            for domain, size in ((site.domain, 1_100), (store.domain, 1_030)):
                hashes = [store.hash_at(domain, seq) or b"" for seq in range(1, size + 1)]
                frontier = Frontier()
                for n, leaf in enumerate(hashes):
                    if n in (0, 1, 1_023, 1_024, 1_025):
                        assert store.root_at(domain, n) == frontier.root()
                    frontier.append(leaf)
                root = frontier.root()
                assert store.root_at(domain, size) == store.frontier(domain).root() == root
                for seq in (1, 700, 1_024, 1_025, size):
                    verify_inclusion(hashes[seq - 1], seq - 1, size, store.inclusion_proof(domain, seq, size), root)
                for first in (1, 700, 1_024, size):
                    proof = store.consistency_proof(domain, first, size)
                    verify_consistency(first, size, proof, store.root_at(domain, first), root)
                with pytest.raises(NotFound):
                    store.root_at(domain, size + 1)

    def test_what_does_not_continue_a_domain_is_refused_whole(self, tmp_path: Path) -> None:
        """A gap, a repetition, another chain, body, artifact, key or head: PeerError, and nothing of it is here."""
        site, other = Site(), Site(bytes(32))
        for n in range(4):
            site.put(b"%d" % n)
            other.put(b"%d" % n)
        first, second, third, _ = site.items
        swapped = second._replace(artifact=third.artifact)
        forged = second._replace(body=third.body)
        bare = second._replace(body=None)
        lying = second._replace(artifact=Artifact(b"1", 9).to_bytes())
        bad_items = [
            [second],
            [first, third],
            [first, first],
            [first, other.items[1]],
            [first, swapped],
            [first, forged],
            [first, bare],
            [first, lying],
        ]
        with self.create(tmp_path) as store:
            before = store.state_hash()

            def refuse(items: list[BatchItem], head: SignedHead, key: bytes, **options: Any) -> None:
                with pytest.raises(PeerError):
                    store.adopt(site.domain, items, head, key=key, **options)
                assert [one.id for one in store.domains()] == [store.domain]
                assert store.has([Artifact(b"%d" % n).reference() for n in range(4)]) == [False] * 4

            for items in bad_items:
                refuse(items, site.head(), site.key)
            whole = site.items
            refuse(whole, site.head(), other.key)
            refuse(whole, other.head(), site.key)
            refuse(whole, site.head(3), site.key)
            refuse(whole, site.head()._replace(root=bytes(32)), site.key)
            refuse(whole, site.head()._replace(head=bytes(32)), site.key)
            strange = io.BytesIO(Artifact(b"strange").to_bytes())
            refuse(whole, site.head(), site.key, sources={UNKNOWN: strange})
            assert store.state_hash() == before
            site.give(store)
            assert store.domains()[1].size == 4

    def test_large_artifacts_come_as_streams(self, tmp_path: Path) -> None:
        """Checked against the size and tag that the record says, before and after they are read."""
        site = Site()
        payload = bytes(range(256)) * 4_000
        ref = site.put(payload, 7, carry=False)
        whole = Artifact(payload, 7).to_bytes()
        with self.create(tmp_path) as store:
            for bad in (
                whole[:-1],
                whole + b"\0",
                whole[:-1] + b"\0",
                Artifact(payload).to_bytes(),
                b"\1" + bytes(4) + (1 << 32).to_bytes(8, "big"),
                b"",
                b"\2",
            ):
                with pytest.raises((PeerError, OperatorError)):
                    site.give(store, sources={ref: io.BytesIO(bad)})
                assert store.has([ref]) == [False]
            site.give(store, sources={ref: io.BytesIO(whole)})
            assert store.get(ref, offset=999_999, length=3) == payload[999_999:1_000_002]
