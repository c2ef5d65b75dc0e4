"""Read all that a store holds and compare it with what it says: for whoever wants to know whether it is true.

    records     chain, bodies, Merkle root and signatures of the signed heads, all made anew from the headers
    artifacts   every payload that is here, hashed
    receipts    computation key and outputs, made anew from what the receipt names; its signature, if it has one
    state       a domain with two histories, a computation with two outcomes, bytes that everybody may have and are not here

Nothing is executed, and nothing is changed. What is not here for a reason (not published, hidden, erased) is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import chain, islice
from typing import NamedTuple, TypeAlias

from tidewarp.codec import RecordHeader, domain_of, record_hash
from tidewarp.codec.artifacts import TAG_RECEIPT, TAG_RESULT, Artifact, artifact_head
from tidewarp.codec.bodies import (
    ArtifactBody,
    EvidenceBody,
    PolicyBody,
    ReceiptBody,
    RequestBody,
    decode_body,
)
from tidewarp.codec.computations import read_computation
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import Reference
from tidewarp.codec.results import Result
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, PeerError, Withheld
from tidewarp.store.contract import DomainState, Store, StoredRecord
from tidewarp.store.damage import MISSING_BYTES
from tidewarp.store.fold import Agreement, DomainStatus
from tidewarp.store.signers import check_heads, is_keys, last_at
from tidewarp.store.speaking import ADDS
from tidewarp.store.subjects import told_by

__all__ = ["TWO_HISTORIES", "Audited", "Finding", "audit"]

TWO_HISTORIES = "it has two histories"
"""The rule that a forked domain breaks."""

_PIECE_BYTES = 1 << 20
_PART = 500  # artifacts that are looked for at once
_SMALL_BYTES = 1 << 16  # of one that is read with others
_ABSENT = (NotFound, Withheld, Erased)


class Finding(NamedTuple):
    """Something that is not what it says. ``seq`` is a record's number in its domain, where it is about one."""

    where: str
    rule: str
    action: str
    seq: int | None = None


class Audited(NamedTuple):
    """What was read: records, artifacts whose bytes are here, receipts; and what was found, in the order of reading."""

    records: int
    artifacts: int
    receipts: int
    findings: tuple[Finding, ...]


_Added: TypeAlias = dict[Reference, ArtifactBody | None]
"""The artifacts that records add; with tag and size, where the record says them."""


def audit(store: Store) -> Audited:
    """Check everything in ``store``. Raises StoreFailed: it cannot be read."""
    records = receipts = 0
    added: _Added = {}
    cited: set[Reference] = set()
    claims: list[tuple[bytes, int, ReceiptBody]] = []
    findings: list[Finding] = []
    for state in store.domains():
        log = _Log(store, state)
        findings += log.check()
        records += log.records
        added |= {ref: stated or added.get(ref) for ref, stated in log.added.items()}
        cited |= log.cited
        claims += log.claims
    artifacts = 0
    absent: list[Reference] = []
    left = chain(added, cited - added.keys())
    while part := list(islice(left, _PART)):
        small = store.small(part, _SMALL_BYTES)  # hashed already
        for ref, is_here in zip(part, store.has(part), strict=True):
            artifacts += is_here
            if not is_here:
                absent.append(ref)
            elif not _is_stated(small.get(ref), added.get(ref)):
                findings += _check_artifact(store, ref, added.get(ref))
    for ref in absent:
        findings += _check_absent(store, ref, is_added=ref in added)
    for domain, seq, claim in claims:
        receipts += 1
        findings += _check_claim(store, domain, seq, claim)
    if not findings:  # what is visible follows from records that are sound
        findings += _check_state(store, {claim.key for _, _, claim in claims}, absent)
    return Audited(records, artifacts, receipts, tuple(findings))


class _Log:
    """One pass over the records of a domain.

    Then the attributes say what they add, and what they cite: a policy, a request or evidence, which some record adds.
    """

    def __init__(self, store: Store, state: DomainState) -> None:
        self.records = 0
        self.added: _Added = {}
        self.cited: set[Reference] = set()
        self.claims: list[tuple[bytes, int, ReceiptBody]] = []
        self._store = store
        self._state = state
        self._frontier = Frontier()
        self._keys: list[StoredRecord] = []
        self._what = f"domain {state.id.hex()}"

    def check(self) -> Iterator[Finding]:
        """What is wrong with it."""
        heads = self._store.signed_heads(self._state.id if self._state.id != self._store.domain else None)
        at = {one.size: one for one in heads}
        if domain_of(self._state.key) != self._state.id:
            yield self._finding("the root key that is kept with it is another domain's")
        try:
            for record in self._store.records(self._state.id):
                header, _, body = record
                self.records += 1
                if is_keys(header.kind, header.flags):
                    self._keys.append(record)
                last = record_hash(header.to_bytes())
                self._frontier.append(last)
                if body is not None:
                    yield from self._read(header, body)
                head = at.get(header.seq)
                if head is None:
                    continue
                if (self._frontier.root(), last) != (head.root, head.head):
                    yield self._finding(f"its signed head at {head.size} is about other records", header.seq)
        except Corrupt as error:
            where = self._what if error.seq is not None else f"{self._what}, {error.value}"
            yield Finding(where, error.rule, error.action, error.seq)
            return
        for head in heads:
            if head.domain != self._state.id or head.size > self.records:
                yield self._finding(f"its signed head is about {head.size} records of {head.domain.hex()}")
        try:
            check_heads(self._state.key, heads, lambda size: last_at(self._keys, size))
        except PeerError as error:
            yield self._finding(f"its signed head: {error.rule}")

    def _read(self, header: RecordHeader, data: bytes) -> Iterator[Finding]:
        try:
            body = decode_body(header.kind, data)
        except CodecError as error:
            if header.flags & PUBLISHED:  # what its writer told nobody means nothing to anybody
                yield self._finding(f"it is none of its kind: {error.rule}", header.seq)
            return
        if isinstance(body, ReceiptBody):
            self.claims.append((self._state.id, header.seq, body))
        said = told_by(header, body) if header.kind in ADDS else None
        if said is not None:
            self.added[said.ref] = body if isinstance(body, ArtifactBody) else self.added.get(said.ref)
        elif isinstance(body, PolicyBody | RequestBody | EvidenceBody):
            self.cited.add(body.ref)

    def _finding(self, rule: str, seq: int | None = None) -> Finding:
        return Finding(self._what, rule, "restore the store from a copy, or pull the domain into a new one", seq)


def _is_stated(data: bytes | None, stated: ArtifactBody | None) -> bool:
    """Whether these ArtifactBytes are those of which a record says tag and size, if one does."""
    return data is not None and (stated is None or data.startswith(artifact_head(stated.size, stated.tag)))


def _check_artifact(store: Store, ref: Reference, stated: ArtifactBody | None) -> Iterator[Finding]:
    action = "put the same artifact again, or pull it from a peer"
    try:
        info = store.info(ref)
        if stated is not None and (info.tag, info.size) != (stated.tag, stated.size):
            yield Finding(f"artifact {ref.hex()}", "tag or size are not those of its record", action)
            return
        digest = sha256(artifact_head(info.size, info.tag))
        with store.open(ref) as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
        if digest.digest() != ref.digest:
            yield Finding(f"artifact {ref.hex()}", "its bytes do not have its name", action)
    except Corrupt as error:
        name = f"artifact {ref.hex()}"
        yield Finding(name if error.value == name else f"{name}, {error.value}", error.rule, action)


def _check_absent(store: Store, ref: Reference, *, is_added: bool) -> Iterator[Finding]:
    """What is not here may have been: until its name was damaged, or until a repair found its bytes so."""
    try:
        store.get(ref)
    except NotFound:
        if is_added:
            rule = "a record adds it, and no table here leads to it"
            yield Finding(f"artifact {ref.hex()}", rule, "make the tables anew: tidewarp store fsck DIR --repair")
    except (Withheld, Erased):
        return
    except Corrupt as error:
        action = "put the same artifact again, or: tidewarp store fsck DIR --repair --from URL"
        yield Finding(error.value, error.rule, action)


def _check_claim(store: Store, domain: bytes, seq: int, claim: ReceiptBody) -> Iterator[Finding]:
    """A receipt is a claim: not whether it is true, but whether its record says what it says."""
    where = f"receipt {claim.ref.hex()}, domain {domain.hex()}"
    action = "do not use it; run the program, or ask who wrote the record"
    try:
        data = store.get(claim.ref)
        if Artifact(data, TAG_RECEIPT).reference() != claim.ref:
            yield Finding(where, "the artifact is no receipt", action, seq)
            return
        receipt = Receipt.from_bytes(data)
        key = read_computation(receipt, lambda ref: Artifact(store.get(ref), store.info(ref).tag)).key
        if key != claim.key:
            yield Finding(
                where, f"the computation that it is about is {key.hex()}, not the one of its record", action, seq
            )
        if not _gives(store, receipt.output, claim.outputs):
            yield Finding(where, "its outputs are not those of its record", action, seq)
        receipt.signer(key)
    except _ABSENT:
        return
    except Corrupt:
        return  # said of the artifact
    except CodecError as error:
        yield Finding(where, f"{error.value}: {error.rule}", action, seq)


def _gives(store: Store, output: Reference, outputs: tuple[Reference, ...]) -> bool:
    """Is ``output``, the one of a receipt, the only one of ``outputs``, or the result that has these?"""
    if outputs == (output,):
        return True
    if store.info(output).tag != TAG_RESULT:
        return False
    result = Result.from_bytes(store.get(output))
    return result.outputs == outputs and result.answer() == output


def _is_erased(store: Store, ref: Reference) -> bool:
    try:
        return store.info(ref).state == "erased"
    except Withheld:
        return False
    except Erased:
        return True


def _check_state(store: Store, keys: set[bytes], absent: list[Reference]) -> Iterator[Finding]:
    """``keys`` of computations, ``absent``: what records name, and is not here."""
    view = store.view(scope="all")
    for state in store.domains():
        if view.status(state.id) is DomainStatus.FROZEN:
            yield Finding(f"domain {state.id.hex()}", TWO_HISTORIES, "ask its operator which history is meant")
    for ref in sorted(absent):
        if store.view(scope="published").is_visible(ref) and not _is_erased(store, ref):
            action = "pull again, from any site, or: tidewarp store fsck DIR --repair --from URL"
            yield Finding(
                f"artifact {ref.hex()}", f"{MISSING_BYTES}: a record names it, its bytes have not come", action
            )
    for key in sorted(keys):
        found = view.key_state(key)
        if found is not None and found.agreement is Agreement.DIVERGENT:
            yield Finding(
                f"computation {key.hex()}",
                f"receipts name {len(found.lists)} different outcomes",
                "execute it again, and disown the one that is wrong",
            )
