"""Bundles: a receipt in one file, with all that it takes to check it, alone and offline.

    "TWB1" | receipt ER | n U32 (ER | U32 ArtifactBytes)* | n U32 record*
    record   root public key 32 | header 122 | U32 body | voucher        (a voucher: :mod:`tidewarp.federation.proof`)

The artifacts ascend by reference: the receipt, its program, manifest, environment, operation listing, executors, inputs and
outputs, and whatever else the writer thought useful. The records are what journals say of the run, each covered by a head
that its domain has signed:

* a RECEIPT record: the domain claims this outcome, at this place of its journal;
* the last record of a journal segment among the inputs: what was run on is the beginning of that domain's journal.

What a bundle holds is true of itself, or :meth:`Bundle.from_bytes` refuses it. Whether the receipt is right is another
question: :func:`tidewarp.programs.verification.check_receipt` executes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, Self

from tidewarp.codec.artifacts import TAG_RECEIPT, TAG_RESULT, TAG_SEGMENT, Artifact
from tidewarp.codec.bodies import RECEIPT, ReceiptBody
from tidewarp.codec.computations import ClaimedComputation, read_computation
from tidewarp.codec.ed25519 import is_signed, public_key_of
from tidewarp.codec.frames import Reader, count, counted, hash32
from tidewarp.codec.heads import SignedHead, key_id, sign_head
from tidewarp.codec.merkle import Frontier, inclusion_proof
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.records import HEADER_BYTES, Record, RecordHeader, domain_of, record_hash
from tidewarp.codec.references import Reference, read_reference
from tidewarp.codec.results import Result
from tidewarp.codec.segments import read_segments
from tidewarp.errors import CodecError, NotFound, OperatorError, PeerError
from tidewarp.federation.proof import Voucher, links_of
from tidewarp.store.contract import Store
from tidewarp.store.signers import keys_of

__all__ = ["BUNDLE_BYTES_MAX", "Bundle", "Vouched", "bundle_of", "own_lines", "vouched_end"]

BUNDLE_BYTES_MAX = 1 << 30
RECORDS_MAX = 1_024  # each is a signature to be checked

_MAGIC = b"TWB1"
_ARTIFACT_BYTES_MIN = 8 + 4 + 9
_VOUCHER_BYTES_MIN = 8 + 32 + 4 + 4 + 4 + 4
_RECORD_BYTES_MIN = 32 + HEADER_BYTES + 4 + _VOUCHER_BYTES_MIN
_ACTION = "do not use it; ask for the bundle again"


class Vouched(NamedTuple):
    """A record, its body, and what shows that its domain has signed it. ``key`` is the domain's root public key, 32 bytes."""

    key: bytes
    header: RecordHeader
    body: bytes
    voucher: Voucher

    def to_bytes(self) -> bytes:
        """The bytes. Raises CodecError."""
        return hash32(self.key) + self.header.to_bytes() + counted(self.body) + self.voucher.to_bytes()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The next one of ``reader``. Raises CodecError."""
        key, header = reader.hash32(), RecordHeader.from_bytes(reader.take(HEADER_BYTES))
        return cls(key, header, reader.counted(), Voucher.read(reader))

    def check(self) -> None:
        """Return if the domain has signed this. Raises PeerError: it has not."""
        what = f"record {self.header.seq} of {self.header.domain.hex()}"
        if domain_of(self.key) != self.header.domain:
            raise PeerError(what, f"{self.key.hex()} is not the root key of that domain", _ACTION)
        if len(self.body) != self.header.body_len or sha256(self.body).digest() != self.header.body_hash:
            raise PeerError(what, "its body is not the one of its header", _ACTION)
        self.voucher.check(self.header, self.key)


class Bundle(NamedTuple):
    """A receipt by its name, the artifacts by theirs, and the records."""

    receipt: Reference
    artifacts: Mapping[Reference, Artifact]
    records: tuple[Vouched, ...] = ()

    def read(self, ref: Reference) -> Artifact:
        """The artifact of this name. Raises NotFound."""
        found = self.artifacts.get(ref)
        if found is None:
            raise NotFound(ref.hex(), "it is not in the bundle", "ask its writer for a whole one")
        return found

    def statement(self) -> Receipt:
        """The receipt itself."""
        return Receipt.from_bytes(self.read(self.receipt).payload)

    def computation(self) -> ClaimedComputation:
        """What the receipt is about."""
        return read_computation(self.statement(), self.read)

    def outputs(self) -> tuple[Reference, ...]:
        """What the receipt claims: the one output, or those of the result that it names."""
        receipt = self.statement()
        artifact = self.read(receipt.output)
        if artifact.tag == TAG_RESULT:
            manifest = self.computation().manifest
            run = (receipt.function, manifest.inputs, manifest.params)
            try:
                result = Result.from_bytes(artifact.payload)
            except CodecError:  # an output may have any bytes under any tag
                return (receipt.output,)
            if (result.program, result.inputs, result.params) == run:
                return result.outputs
        return (receipt.output,)

    def segment(self) -> list[Record]:
        """The journal among the inputs, put together of its segments; empty if there is none. Raises CodecError."""
        inputs = [self.read(ref) for ref in self.computation().manifest.inputs]
        data = b"".join([payload for payload, tag in inputs if tag == TAG_SEGMENT])
        return read_segments(data) if data else []

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            CodecError: a field breaks its rule, or more than 1 GiB.
        """
        rows = [ref.encoded() + counted(artifact.to_bytes()) for ref, artifact in sorted(self.artifacts.items())]
        head = _MAGIC + self.receipt.encoded() + count(len(rows))
        records = [one.to_bytes() for one in self.records]
        data = b"".join([head, *rows, count(len(records)), *records])
        if len(data) > BUNDLE_BYTES_MAX:
            rule = f"a bundle has at most {BUNDLE_BYTES_MAX} bytes"
            raise CodecError(f"bundle of {len(data)} bytes", rule, "let the other site pull the store")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The bundle in the file ``data``, every name, proof and signature in it checked.

        Raises:
            CodecError: not the bytes of a bundle.
            PeerError: it contradicts itself: bytes that have not their name, a receipt that lacks what it names or is not
                signed by who it says, a record that its domain has not signed or that says nothing of this run.
        """
        reader = Reader(data, "bundle")
        if len(data) > BUNDLE_BYTES_MAX:
            raise reader.refusal(f"a bundle has at most {BUNDLE_BYTES_MAX} bytes")
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise reader.refusal("not a bundle of version 1")
        receipt = read_reference(reader)
        artifacts: dict[Reference, Artifact] = {}
        last = b""
        for _ in range(reader.count(_ARTIFACT_BYTES_MIN)):
            ref, artifact = read_reference(reader), Artifact.from_bytes(reader.counted())
            if ref.to_bytes() <= last:
                raise reader.refusal("the artifacts ascend by reference, each once")
            last = ref.to_bytes()
            artifacts[ref] = artifact
        number = reader.count(_RECORD_BYTES_MIN)
        if number > RECORDS_MAX:
            raise reader.refusal(f"a bundle has at most {RECORDS_MAX} records, not {number}")
        records = tuple([Vouched.read(reader) for _ in range(number)])
        reader.end()
        bundle = cls(receipt, artifacts, records)
        bundle._check()
        return bundle

    def _check(self) -> None:
        for ref, artifact in self.artifacts.items():
            if artifact.reference() != ref:
                raise PeerError(f"artifact {ref.hex()}", "its bytes do not have its name", _ACTION)
        try:
            if self.read(self.receipt).tag != TAG_RECEIPT:
                raise PeerError(f"artifact {self.receipt.hex()}", "it is no receipt", _ACTION)
            receipt, computation = self.statement(), self.computation()
            for ref in (receipt.function, *computation.manifest.inputs, *self.outputs(), *_params(computation)):
                self.read(ref)
        except NotFound as error:
            raise PeerError(
                f"bundle of receipt {self.receipt.hex()}", f"it lacks artifact {error.value}", _ACTION
            ) from None
        receipt.signer(computation.key)
        claim = ReceiptBody(self.receipt, computation.key, self.outputs())
        end = None
        if any(one.header.kind != RECEIPT for one in self.records):
            end = next((record.header for record in reversed(self.segment())), None)
        for one in self.records:
            one.check()
            _check_said(one, claim, end)


def bundle_of(store: Store, ref: Reference, others: Iterable[Reference] = (), *, with_claims: bool = True) -> Bundle:
    """The bundle of the receipt ``ref`` in ``store``, and ``others`` beside; ``with_claims``: with all records that claim it.

    Raises:
        NotFound, Withheld, Erased, Corrupt: something that it names is not here.
        CodecError, PeerError: it is no receipt, or is not what its record says.
        OperatorError: no signed head covers its record.
    """

    def read(name: Reference) -> Artifact:
        return Artifact(store.get(name), store.info(name).tag)

    found = {ref: read(ref)}
    draft = Bundle(ref, found)
    receipt = draft.statement()
    computation = read_computation(receipt, read)
    environment = computation.environment
    named = [receipt.function, receipt.manifest, receipt.environment, environment.listing, receipt.output]
    named += [*computation.manifest.inputs, *_params(computation), *others]
    optional = [*receipt.executors, environment.scheme]  # for people: nothing is decided by them
    named += [one for one, is_here in zip(optional, store.has(optional), strict=True) if is_here]
    found.update({name: read(name) for name in named})
    found.update({name: read(name) for name in draft.outputs()})
    claims = store.view(scope="all").receipts(computation.key) if with_claims else []
    records = [_vouched(store, claim.domain, claim.seq) for claim in claims if claim.receipt == ref]
    bundle = Bundle(ref, found, tuple(records))
    bundle._check()
    return bundle


def vouched_end(records: Sequence[Record], seed: bytes) -> Vouched:
    """The last of the ``records`` of a journal, from its first on, under a head that the journal's own key signs here.

    ``seed`` is that of the key, 32 bytes. The head promises nothing but what is in the journal already.

    Raises:
        CodecError: the seed has not 32 bytes.
        PeerError: it is not the key of the journal's domain.
    """
    header, body = records[-1]
    hashes = [record_hash(one.header.to_bytes()) for one in records]
    tree = Frontier()
    tiles = tree.extend(hashes)
    head = sign_head(header.domain, len(hashes), tree.root(), hashes[-1], f"tidewarp/{header.domain.hex()}", seed)
    path = inclusion_proof(
        len(hashes) - 1, len(hashes), lambda first, last: hashes[first:last], lambda first, last: tiles[first:last]
    )
    vouched = Vouched(public_key_of(seed), header, body, Voucher(head.size, head.root, tuple(path), (), head))
    vouched.check()
    return vouched


def _check_said(one: Vouched, claim: ReceiptBody, end: RecordHeader | None) -> None:
    """Return if the record makes the ``claim``, or is the ``end`` of the journal that was run on."""
    what = f"record {one.header.seq} of {one.header.domain.hex()}"
    if one.header.kind == RECEIPT:
        if ReceiptBody.from_bytes(one.body) != claim:
            raise PeerError(what, "it is about another receipt, computation or outcome", _ACTION)
    elif one.header != end:
        raise PeerError(what, "it is neither of this receipt nor the last one of the journal that was run", _ACTION)


def own_lines(head: SignedHead, keys: Iterable[bytes]) -> SignedHead:
    """``head`` with those signature lines alone that are of one of the public ``keys`` (32 bytes each)."""
    data, allowed = head.text().encode(), list(keys)
    lines = [
        one
        for one in head.signatures
        if any(one.key_id == key_id(one.name, key) and is_signed(key, one.signature, data) for key in allowed)
    ]
    return head._replace(signatures=tuple(lines))


def _params(computation: ClaimedComputation) -> Sequence[Reference]:
    return () if computation.manifest.params is None else (computation.manifest.params,)


def _vouched(store: Store, domain: bytes, seq: int) -> Vouched:
    key = next(one.key for one in store.domains() if one.id == domain)
    heads = store.signed_heads(domain)
    keys: tuple[bytes, ...] = (key,)
    for n, one in enumerate(heads):
        heads[n] = own_lines(one, keys)
        keys = (key, *keys_of(store.keys_record(domain, one.size)))
    head = heads[-1] if heads else None
    if head is None or head.size < seq or not all(one.signatures for one in heads):
        raise OperatorError(
            f"record {seq} of {domain.hex()}",
            "its domain has signed no head that covers it",
            "open the store for writing once, which signs one; of another site, pull again",
        )
    (record,) = store.records(domain, seq - 1, 1)
    path = tuple(store.inclusion_proof(domain, seq, head.size))
    voucher = Voucher(head.size, head.root, path, (), head, links_of(store, heads[:-1]))
    return Vouched(key, record.header, record.body or b"", voucher)
