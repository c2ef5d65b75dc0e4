"""What peers push, taken as a pull would take it: the same machine asks, and a parcel answers.

A parcel holds the records of one domain. Artifacts that did not travel in it come by themselves afterwards, and only those
that a committed record names and whose bytes are not here: until they have come the record says why they are absent, and
the next pull from anybody asks for them. So nothing that is pushed is believed more than what is pulled, and nobody can
leave bytes here that no record names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from tidewarp.codec.batches import BATCH_ITEMS_MAX, INLINE_BYTES_MAX, encode_batch
from tidewarp.codec.records import record_hash
from tidewarp.codec.references import Reference, encode_references
from tidewarp.errors import CodecError, PeerRefused, PolicyDenied, StoreFull
from tidewarp.federation.conflicts import chosen_branches
from tidewarp.federation.contract import ExchangeStore
from tidewarp.federation.documents import TakenDocument, encode_json, proof_document
from tidewarp.federation.encoding import TooLong, unpack_zstd
from tidewarp.federation.exchange import Exchange, ledger_of
from tidewarp.federation.faults import fault_of
from tidewarp.federation.messages import (
    Conflicting,
    DomainReport,
    GetArtifact,
    GetConsistency,
    GetHeads,
    GetMissing,
    GetRecords,
    HttpResponse,
    Question,
)
from tidewarp.federation.parcel import PARCEL_BYTES_MAX, Parcel
from tidewarp.federation.policy import Policy, to_be_pulled

__all__ = ["NotTaken", "Receiver"]

_PIECE_BYTES = 1 << 20
_NO_ANSWER = HttpResponse(404)
_STATUS = {"refused": 400, "incomplete": 400, "forked": 409, "frozen": 409, "full": 507}


class NotTaken(PeerRefused):
    """Why a push is refused; ``status`` is that of the answer."""

    def __init__(self, status: int, value: str, rule: str, action: str) -> None:
        super().__init__(value, rule, action)
        self.status = status


class Receiver:
    """Takes what ``sender``, as the ledger names him, pushes. One at a time may be at work on a store.

    Args:
        store: where it goes.
        sender: who pushes.
        policy: what is in force, or None.
        quotas: bytes of artifacts, by the domain (32 bytes) that brings them, at most.
        spool: a new temporary file.
        now_ms: Unix ms.
    """

    def __init__(
        self,
        store: ExchangeStore,
        sender: str,
        policy: Policy | None,
        quotas: Mapping[bytes, int],
        spool: Callable[[], BinaryIO],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._ledger = ledger_of(store)
        self._sender = sender
        self._policy = policy
        self._quotas = quotas
        self._spool = spool
        self._now_ms = now_ms

    def take_records(self, data: bytes, *, is_packed: bool) -> TakenDocument:
        """Commit the records of a parcel, in zstd if ``is_packed``: those that follow what is held, as one pull would.

        Raises:
            NotTaken: 400 a lie, whose bytes are kept; 403 the policy does not take the domain; 409 a gap, or another
                history than the one here; 413 too long; 507 a quota is full.
        """
        try:
            parcel = Parcel.from_bytes(unpack_zstd(data, PARCEL_BYTES_MAX) if is_packed else data)
        except CodecError as error:
            self._keep(error, data)
            raise NotTaken(413 if isinstance(error, TooLong) else 400, error.value, error.rule, error.action) from None
        domain = bytes.fromhex(parcel.head.domain)
        try:
            to_be_pulled(self._policy, self._store.domain, [domain])
        except PolicyDenied as error:
            raise NotTaken(403, error.value, error.rule, "ask the operator of this site") from None
        self._check_follows(domain, parcel)
        chosen = chosen_branches(self._store, self._ledger, self._policy)
        last = parcel.items[-1].header.seq
        # What did not travel with its record is larger than this: it is not asked for now.
        options = {"artifact_bytes_max": INLINE_BYTES_MAX, "limit": BATCH_ITEMS_MAX, "until": last, "chosen": chosen}
        exchange = self._exchange(lambda question: _told(parcel, question), domains=[domain], **options)
        (report,) = self._run(exchange)
        self._check_outcome(report, domain)
        return TakenDocument(parcel.head.domain, report.before, report.after, exchange.conflicts)

    def take_artifact(self, reference: Reference, source: BinaryIO) -> None:
        """Keep the bytes of an artifact that a record names: ArtifactBytes from their beginning. Nothing if they are here.

        Raises:
            NotTaken: 400 they are not what the name says, and are kept; 409 no record waits for them; 507 a quota is full.
        """
        origin = self._ledger.awaits(reference)
        if origin is None:
            if self._store.has([reference])[0]:
                return
            rule = "no record here waits for its bytes"
            raise NotTaken(409, reference.hex(), rule, "push the record that names it")

        def told(question: Question) -> HttpResponse:
            if isinstance(question, GetHeads):
                return HttpResponse(200, body=b"[]")
            if isinstance(question, GetMissing):
                others = [one for one in question.references if one != reference]
                return HttpResponse(200, body=encode_references(others))
            return HttpResponse(200, body=_pieces(source)) if isinstance(question, GetArtifact) else _NO_ANSWER

        exchange = self._exchange(told, domains=[origin], lacking={reference: origin})
        for report in self._run(exchange):
            self._check_outcome(report, origin)
        if exchange.conflicts or not self._store.has([reference])[0]:
            rule = "the bytes that came are not those of this name"
            raise NotTaken(400, reference.hex(), rule, "send ArtifactBytes, whole")

    def _exchange(self, told: Callable[[Question], HttpResponse], **options: Any) -> Exchange:
        return Exchange(self._store, self._sender, told, self._spool, self._now_ms, quotas=self._quotas, **options)

    def _run(self, exchange: Exchange) -> tuple[DomainReport, ...]:
        try:
            return exchange.run().domains
        except StoreFull as error:
            fault = fault_of(error)
            raise NotTaken(507, fault.value, fault.rule, "ask the operator of this site for room") from None

    def _check_outcome(self, report: DomainReport, domain: bytes) -> None:
        status = _STATUS.get(report.outcome)
        if status is not None:
            what = f"domain {domain.hex()} behind record {report.after}"
            raise NotTaken(status, what, f"{report.outcome}: {report.reason}", "see the conflicts there; pull from it")

    def _check_follows(self, domain: bytes, parcel: Parcel) -> None:
        """Refuse what leaves a gap, or does not fit what is held: whoever pulls then gets to see the proof."""
        first, last = parcel.items[0].header, parcel.items[-1].header
        sizes = {one.id: one.size for one in self._store.domains()}
        size = sizes.get(domain, 0)
        if first.seq > size + 1:
            rule = f"{size} records of it are here: there is a gap"
            raise NotTaken(409, f"record {first.seq} of {domain.hex()}", rule, f"push from record {size + 1} on")
        known = min(last.seq, size)
        theirs = [record_hash(one.header.to_bytes()) for one in parcel.items if one.header.seq == known] or [first.prev]
        if self._store.hash_at(domain, known) != theirs[0] and known:
            rule = "another record with this number is here: two histories under one name"
            raise NotTaken(409, f"record {known} of {domain.hex()}", rule, "pull from here: that shows the proof")

    def _keep(self, error: CodecError, data: bytes) -> None:
        """Keep the evidence of what could not be read."""
        conflicting = Conflicting(b"", "payload_mismatch", b"", str(error), data)
        with self._store.transaction():
            self._ledger.refused(self._sender, conflicting, self._now_ms())


def _told(parcel: Parcel, question: Question) -> HttpResponse:
    """What a parcel answers to a pull."""
    if isinstance(question, GetHeads):
        return HttpResponse(200, body=encode_json([parcel.head]))
    if isinstance(question, GetRecords):
        items = [one for one in parcel.items if one.header.seq > question.after][: question.limit]
        return HttpResponse(200, body=encode_batch(items)) if items else _NO_ANSWER
    if isinstance(question, GetConsistency) and question.first == parcel.items[-1].header.seq:
        return HttpResponse(200, body=encode_json(proof_document(parcel.bridge)))
    return _NO_ANSWER


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(_PIECE_BYTES), b"")
