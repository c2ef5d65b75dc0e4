"""The logs of all domains in memory: reading them, their trees and heads, and taking in what others have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from tidewarp.codec import genesis
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import ERASE
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import TILE_LEAVES, Frontier, Hashes, consistency_proof, inclusion_proof
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError, NotFound, PeerError, QuotaExceeded
from tidewarp.store.chain import check_range
from tidewarp.store.continuation import (
    Incoming,
    check_arrived,
    check_awaited,
    check_head,
    check_stated,
    continued,
    read_stubs,
    stated,
)
from tidewarp.store.contract import Adopted, DomainState, StoredRecord
from tidewarp.store.memory.artifacts import Artifacts
from tidewarp.store.memory.state import Log
from tidewarp.store.payload import artifact_payload, check_room
from tidewarp.store.schema import DOMAINS_MAX

__all__ = ["Domains"]


class Domains(Artifacts):
    """Records by domain. Trees are made anew of all record hashes, each time."""

    _seed: bytes | None
    """The private key (32 bytes), if heads are signed."""

    def domains(self) -> list[DomainState]:
        """As the contract says."""
        self._check_open("domains")
        return [
            DomainState(
                one.domain,
                "live",
                len(one.records),
                one.head,
                one.note,
                one.key,
            )
            for one in self._seen().logs.values()
        ]

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """As the contract says."""
        self._check_open("records")
        check_range(after, limit)
        log = self._seen().logs.get(domain)
        records = [] if log is None else log.records[after : None if limit is None else after + limit]
        return (StoredRecord(one.header, one.state, one.body) for one in records)

    def withheld(self, domain: bytes, after: int, limit: int) -> list[int]:
        """As the contract says."""
        self._check_open("withheld")
        check_range(after, limit)
        log = self._seen().logs.get(domain)
        records = [] if log is None else log.records[after:]
        return [one.header.seq for one in records if one.state == WITHHELD][:limit]

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """As the contract says."""
        self._check_open("hash_at")
        log = self._seen().logs.get(domain)
        if log is None or not 0 <= seq <= len(log.records):
            return None
        return log.records[seq - 1].hash if seq else genesis(domain)

    def root_at(self, domain: bytes, size: int) -> bytes:
        """As the contract says."""
        return _frontier_over(self._leaves(domain, size)).root()

    def frontier(self, domain: bytes) -> Frontier:
        """As the contract says."""
        return _frontier_over(self._leaves(domain, None))

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> list[bytes]:
        """As the contract says."""
        return inclusion_proof(seq - 1, size, *_hashes(self._leaves(domain, size)))

    def consistency_proof(self, domain: bytes, first: int, second: int) -> list[bytes]:
        """As the contract says."""
        return consistency_proof(first, second, *_hashes(self._leaves(domain, second)))

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        """As the contract says; without a seed nothing is signed."""
        self._check_open("signed_head")
        log = self._durable().logs.get(self._domain if domain is None else domain)
        may_sign = log is not None and log.domain == self._domain and not self._in_transaction
        if log is not None and may_sign and self._seed is not None:
            size = len(log.records)
            if log.signed is None or log.signed.size != size:
                root = _frontier_over([one.hash for one in log.records]).root()
                log.keep(sign_head(log.domain, size, root, log.head, f"tidewarp/{log.domain.hex()}", self._seed))
        return None if log is None else log.signed

    def signed_heads(self, domain: bytes | None = None) -> list[SignedHead]:
        """As the contract says."""
        self.signed_head(domain)
        log = self._durable().logs.get(self._domain if domain is None else domain)
        return [] if log is None else list(log.heads)

    def keys_record(self, domain: bytes, size: int) -> StoredRecord | None:
        """As the contract says."""
        self._check_open("keys_record")
        log = self._seen().logs.get(domain)
        return None if log is None else log.keys_record(size)

    def adopt(
        self,
        domain: bytes,
        items: Sequence[BatchItem],
        head: SignedHead,
        *,
        key: bytes,
        sources: Mapping[Reference, BinaryIO] | None = None,
    ) -> Adopted:
        """As the contract says."""
        with self._writing("adopt") as state:
            log = state.logs.get(domain)
            if log is None and len(state.logs) >= DOMAINS_MAX:
                rule = f"a store takes in {DOMAINS_MAX - 1} domains"
                raise QuotaExceeded(f"domain {domain.hex()[:16]}", rule, "name the domains that count in a policy")
            log = log or Log(domain, key)
            if not items and head.size < len(log.records):
                _keep_former(log, key, head)
                return Adopted(len(log.records) + 1, len(log.records))
            continuation = continued(domain, len(log.records), log.head, items)
            incoming, size = continuation.records, continuation.size
            check_head(domain, key, head, size, continuation.hash)
            if domain == self._domain and any(one.state != BODY for one in incoming):
                action = "pull its tail from a peer that has them"
                raise PeerError("a record of the own domain", "a journal has all bodies of its own", action)
            artifacts = self._came(incoming, sources or {})
            root = _frontier_over([one.hash for one in (*log.records, *incoming)]).root()
            if head.size == size and head.root != root:
                action = "do not pull from this peer"
                raise PeerError(f"head of {domain.hex()[:16]} at {size}", f"its root is not {root.hex()}", action)
            self._keep(state, artifacts)
            state.logs[domain] = log
            state.extend(domain, incoming)
            if head.size == size:
                log.keep(head)
            return Adopted(size - len(incoming) + 1, size)

    def reveal(
        self, domain: bytes, items: Sequence[BatchItem], *, sources: Mapping[Reference, BinaryIO] | None = None
    ) -> int:
        """As the contract says."""
        with self._writing("reveal") as state:
            log = state.logs.get(domain)
            seqs = [item.header.seq for item in items]
            if log is None or any(not 0 < seq <= len(log.records) for seq in seqs):
                raise NotFound(f"records of {domain.hex()[:16]}", "they are not here", "ask for what is here")
            held = [log.records[seq - 1] for seq in seqs]
            came = read_stubs([one.header for one in held], items)
            news = [one for one, before in zip(came, held, strict=True) if before.state == WITHHELD]
            self._keep(state, self._came(news, sources or {}))
            state.reveal(domain, news)
            self._fold_anew()
            return len(news)

    def supply(self, ref: Reference, source: BinaryIO) -> None:
        """As the contract says."""
        with self._writing("supply") as state:
            check_awaited(self.info, ref)
            payload, tag = artifact_payload(source, f"artifact {ref.hex()}")
            check_room(payload.size, self._room(), f"artifact {ref.hex()}")
            artifact = Artifact(payload.whole(), tag)
            check_arrived(ref, artifact.reference())
            self._keep(state, [artifact])

    def cut_back(self, domain: bytes, size: int) -> None:
        """As the contract says."""
        with self._writing("cut_back") as state:
            log = state.logs.get(domain)
            if log is None or not 0 <= size <= len(log.records):
                raise NotFound(f"{size} records of {domain.hex()[:16]}", "they are not here", "ask for what is here")
            if domain == self._domain:
                raise InternalError("cut_back", "the own domain is never cut back", "begin a successor")
            state.logs[domain] = Log(domain, log.key, log.records[:size])
            state.cut_back(domain, size)
            self._fold_anew()

    def _leaves(self, domain: bytes, size: int | None) -> list[bytes]:
        """The first ``size`` record hashes of a domain; None: all."""
        self._check_open("proof")
        log = self._seen().logs.get(domain)
        if log is None:
            raise NotFound(f"domain {domain.hex()[:16]}", "no record of it is here", "pull it first")
        if size is not None and not 0 <= size <= len(log.records):
            rule = f"{len(log.records)} are here"
            raise NotFound(f"{size} records of {domain.hex()[:16]}", rule, "ask for what is here")
        return [one.hash for one in log.records[:size]]

    def _came(self, incoming: Sequence[Incoming], sources: Mapping[Reference, BinaryIO]) -> list[Artifact]:
        said = stated(incoming)
        came = [one.artifact[1] for one in incoming if one.artifact is not None]
        for ref, stream in sources.items():
            if ref not in said:
                raise PeerError(f"artifact {ref.hex()}", "no record that came with it names it", "leave it out")
            payload, tag = artifact_payload(stream, f"artifact {ref.hex()}")
            check_stated(said[ref], tag, payload.size, f"artifact {ref.hex()}")
            check_room(payload.size, self._room(), f"artifact {ref.hex()}")
            artifact = Artifact(payload.whole(), tag)
            check_arrived(ref, artifact.reference())
            came.append(artifact)
        return [one for one in came if not self._is_erased_here(one.reference())]

    def _is_erased_here(self, ref: Reference) -> bool:
        """Has the own domain dropped its bytes for good? They do not come back from others."""
        state = self._state
        own = (event.kind for event, _ in state.events.get(ref, ()) if event.domain == self._domain)
        return ref not in state.artifacts and ERASE in own


def _keep_former(log: Log, key: bytes, head: SignedHead) -> None:
    """Keep a head of fewer records than are here, if none of more is."""
    hashes = [one.hash for one in log.records[: head.size]]
    check_head(log.domain, key, head, head.size, hashes[-1] if hashes else genesis(log.domain))
    if _frontier_over(hashes).root() != head.root:
        what = f"head of {log.domain.hex()[:16]} at {head.size}"
        raise PeerError(what, "its root is not that of the records here", "do not pull from this peer")
    if log.signed is None or log.signed.size < head.size:
        log.keep(head)


def _frontier_over(leaves: Sequence[bytes]) -> Frontier:
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier


def _hashes(leaves: Sequence[bytes]) -> tuple[Hashes, Hashes]:
    tiles = _frontier_tiles(leaves)
    return (lambda first, last: leaves[first:last]), (lambda first, last: tiles[first:last])


def _frontier_tiles(leaves: Sequence[bytes]) -> list[bytes]:
    full = len(leaves) - len(leaves) % TILE_LEAVES
    return Frontier().extend(leaves[:full])
