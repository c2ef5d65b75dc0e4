"""What the exchange says: HTTP requests and answers as plain values, and the instructions of a pull.

A pull's *request* is answered by an event; its *notices* are performed and answered by nothing. :class:`Commit` is a
request to the own store. Domains and hashes are 32 bytes, sizes count records, positions are sequence numbers from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, TypeAlias

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.batches import BATCH_BYTES_MAX, BatchItem
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.references import Reference, encode_references
from tidewarp.federation.proof import ForkProof
from tidewarp.federation.verify import Wanted
from tidewarp.store.admission import Role
from tidewarp.store.continuation import Continuation

__all__ = [
    "ACCEPT",
    "BATCH_TYPE",
    "BRIDGES",
    "CHANGES_BYTES_MAX",
    "EVIDENCE_BYTES_MAX",
    "HEADS_BYTES_MAX",
    "JSON_TYPE",
    "LACKING_BYTES_MAX",
    "NEXT_PAGE",
    "Absent",
    "Ahead",
    "Asked",
    "Behind",
    "Bridge",
    "Commit",
    "Conflicting",
    "Domain",
    "DomainReport",
    "Fetched",
    "Finish",
    "Forked",
    "GetArtifact",
    "GetChanges",
    "GetConsistency",
    "GetEvidence",
    "GetHash",
    "GetHeads",
    "GetInclusion",
    "GetLacking",
    "GetMissing",
    "GetRecords",
    "HttpRequest",
    "HttpResponse",
    "Instruction",
    "Notice",
    "PushArtifact",
    "PushRecords",
    "Question",
    "Request",
    "Reveal",
    "Supply",
    "Vouched",
]

BATCH_TYPE = "application/x-tidewarp-records"
JSON_TYPE = "application/json"
NEXT_PAGE = "tidewarp-next"
"""Header of a page of heads that is not the last one."""

ACCEPT, BRIDGES = "tidewarp-accept", "bridges"
"""Header of a question after heads, and what it says: who asks understands a head whose note is bridged."""

HEADS_BYTES_MAX = 4 << 20
"""Bytes of one page of heads, at most."""

EVIDENCE_BYTES_MAX = CHANGES_BYTES_MAX = 1 << 20
"""Bytes of one page of conflicts, and of a list of domains, at most."""

LACKING_BYTES_MAX = 1 << 20
"""Bytes of a list of 10,000 references, at most."""

_DOCUMENT_BYTES_MAX = 64 << 10  # of an answer that holds a hash, or a proof of at most 65 of them
_TAGGED_HEAD_BYTES = len(artifact_head(0, 0))

Domain: TypeAlias = bytes  # where that is the name of a field


class HttpRequest(NamedTuple):
    """One request as it came: ``target`` is path and query, header names are in lower case.

    ``key`` is that of who asks (32 bytes) and ``roles`` are what he has, where that is known; ``is_local``: he is on this
    machine. A long body is ``source`` from its beginning, and ``body`` empty.
    """

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    roles: frozenset[Role] = frozenset()
    key: bytes = b""
    is_local: bool = False
    source: BinaryIO | None = None


class HttpResponse(NamedTuple):
    """One answer. ``body`` is whole, or pieces of together ``size`` bytes, which a large artifact is sent in.

    The pieces may raise where what is stored turns out to be damaged; then the connection is cut. Where ``wait_s`` is
    not 0, the same request may be asked again for so many seconds, until its answer says otherwise, before this is sent.
    ``fault`` is for the operator of who answers, and is not sent: what is wrong with the own store, in one line.
    """

    status: int
    headers: Mapping[str, str] = {}
    body: bytes | Iterable[bytes] = b""
    size: int | None = None  # of pieces
    wait_s: float = 0.0
    records: int = 0  # in it
    fault: str = ""

    @property
    def whole(self) -> bytes:
        """The body as one piece."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


# --- what a pull asks the peer


@dataclass(frozen=True, eq=False)
class GetHeads:
    """A page of the peer's domains, behind ``after`` (empty: from the first on); 304 if it is still ``etag``."""

    after: bytes = b""
    etag: str = ""
    bytes_max = HEADS_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/heads?after={self.after.hex()}" if self.after else "/v1/heads"

    @property
    def headers(self) -> dict[str, str]:
        """What else is said."""
        return {ACCEPT: BRIDGES, **({"if-none-match": self.etag} if self.etag else {})}


@dataclass(frozen=True, eq=False)
class GetRecords:
    """At most ``limit`` records of ``domain`` behind ``after``."""

    domain: bytes
    after: int
    limit: int
    bytes_max = BATCH_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/records?domain={self.domain.hex()}&after={self.after}&limit={self.limit}"


@dataclass(frozen=True, eq=False)
class GetHash:
    """The peer's record hash at ``seq``: where do the two journals part?"""

    domain: bytes
    seq: int
    bytes_max = _DOCUMENT_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/hash?domain={self.domain.hex()}&seq={self.seq}"


@dataclass(frozen=True, eq=False)
class GetInclusion:
    """The proof that record ``seq`` is in the tree of ``size`` records."""

    domain: bytes
    seq: int
    size: int
    bytes_max = _DOCUMENT_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/proof/inclusion?domain={self.domain.hex()}&seq={self.seq}&size={self.size}"


@dataclass(frozen=True, eq=False)
class GetConsistency:
    """The proof that the tree of ``first`` records is a prefix of that of ``second``.

    ``ahead`` is what comes next if the answer is of use: it may be sent when that has come, before anybody looks at it.
    """

    domain: bytes
    first: int
    second: int
    ahead: GetRecords | None = None
    bytes_max = _DOCUMENT_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/proof/consistency?domain={self.domain.hex()}&from={self.first}&to={self.second}"


@dataclass(frozen=True, eq=False)
class GetArtifact:
    """ArtifactBytes that did not travel with the record that names them."""

    domain: bytes
    wanted: Wanted

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/artifacts/{self.wanted.reference.hex()}"

    @property
    def bytes_max(self) -> int:
        """Of the answer: the payload and what stands before it."""
        return self.wanted.size + _TAGGED_HEAD_BYTES


@dataclass(frozen=True, eq=False)
class GetMissing:
    """Which of these artifacts, at most 10,000, does the peer lack? The one question with a body."""

    references: tuple[Reference, ...]

    @property
    def target(self) -> str:
        """Path."""
        return "/v1/artifacts/missing"

    @property
    def body(self) -> bytes:
        """What is posted."""
        return encode_references(self.references)

    @property
    def bytes_max(self) -> int:
        """Of the answer: it names none that was not asked for."""
        return len(self.body)


@dataclass(frozen=True, eq=False)
class GetEvidence:
    """A page of the conflicts that the peer has proofs of, behind ``after`` (empty: from the first on)."""

    after: bytes = b""
    bytes_max = EVIDENCE_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/evidence?after={self.after.hex()}" if self.after else "/v1/evidence"


Question: TypeAlias = (
    GetHeads | GetRecords | GetHash | GetInclusion | GetConsistency | GetArtifact | GetMissing | GetEvidence
)


# --- what is asked beside a pull


@dataclass(frozen=True, eq=False)
class GetChanges:
    """Which domains of the peer have grown since ``token`` (empty: none, what is the token now)? It waits for one, ``wait_ms``."""

    token: str = ""
    wait_ms: int = 0
    bytes_max = CHANGES_BYTES_MAX

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/v1/changes?since={self.token}&wait_ms={self.wait_ms}" if self.token else "/v1/changes"


@dataclass(frozen=True, eq=False)
class GetLacking:
    """Which artifacts do your records name whose bytes have not come? At most 10,000."""

    bytes_max = LACKING_BYTES_MAX
    target = "/v1/artifacts/missing"


@dataclass(frozen=True, eq=False)
class PushRecords:
    """Take these records: a parcel, as bytes."""

    body: bytes
    bytes_max = _DOCUMENT_BYTES_MAX
    target = "/v1/records"


@dataclass(frozen=True, eq=False)
class PushArtifact:
    """Take the bytes of an artifact that a record which you hold names: ArtifactBytes in ``pieces()`` of together ``size``."""

    reference: Reference
    pieces: Callable[[], Iterable[bytes]]
    size: int
    bytes_max = _DOCUMENT_BYTES_MAX

    @property
    def target(self) -> str:
        """Path."""
        return f"/v1/artifacts/{self.reference.hex()}"


Asked: TypeAlias = Question | GetChanges | GetLacking | PushRecords | PushArtifact


class Fetched(NamedTuple):
    """An artifact that came and has the right hash. ``source`` stands at the beginning of its ArtifactBytes."""

    source: BinaryIO
    size: int  # of the ArtifactBytes


class Absent(NamedTuple):
    """An artifact that does not come: 403 not published, 404 not held, 410 erased, 413 larger than we take."""

    status: int


# --- what a pull asks the own store


class Bridge(NamedTuple):
    """Why ``head`` covers a prefix of ``size`` records that ends before it: the consistency proof from the one tree to the other."""

    size: int
    hashes: tuple[bytes, ...]
    head: SignedHead


@dataclass(frozen=True, eq=False)
class Commit:
    """Make durable in one transaction: records, bytes, and the cursor (peer, domain) = (seq, hash) of the last.

    ``head`` covers them; where it reaches beyond the last of them, ``bridge`` says why.
    ``key`` is the domain's root key. ``absent`` says why a record has not its bytes, ``forks`` are proofs that came as
    evidence, with their artifacts.
    """

    domain: bytes
    key: bytes
    items: Continuation
    head: SignedHead
    bridge: Bridge | None = None
    sources: Mapping[Reference, BinaryIO] = field(default_factory=dict)
    absent: tuple[tuple[Reference, int], ...] = ()
    forks: tuple[tuple[Reference, ForkProof], ...] = ()

    @property
    def last_seq(self) -> int:
        """Where the domain stands behind it."""
        return self.items.size


@dataclass(frozen=True, eq=False)
class Supply:
    """Keep the bytes of an artifact that a record of ``domain``, committed before, names."""

    domain: bytes
    reference: Reference
    source: BinaryIO
    size: int  # of the ArtifactBytes


@dataclass(frozen=True, eq=False)
class Reveal:
    """Keep the bodies of records that are held as stubs, and the artifacts that came with them; of others ``absent`` says why.

    Each of ``items`` has the header that is held, and a body that it names.
    """

    domain: bytes
    items: tuple[BatchItem, ...]
    sources: Mapping[Reference, BinaryIO] = field(default_factory=dict)
    absent: tuple[tuple[Reference, int], ...] = ()


Request: TypeAlias = Question | Commit | Supply | Reveal


# --- what a pull says


@dataclass(frozen=True)
class Conflicting:
    """What was refused, to be counted in the table of conflicts, and its bytes to be kept in quarantine."""

    domain: bytes
    kind: str
    key: bytes
    rule: str
    data: bytes


@dataclass(frozen=True)
class Forked:
    """Two journals under one name, shown by ``proof``: the domain is to be frozen behind ``common`` records."""

    domain: bytes
    common: int
    proof: ForkProof  # found by this pull


@dataclass(frozen=True)
class Behind:
    """The peer holds a longer journal of the own domain: nothing may be appended before its tail is here."""

    size: int


@dataclass(frozen=True)
class Vouched:
    """A signed head of exactly what is held, where none was kept: without one, nobody is shown the last of these records.

    So it is after a pull that stopped halfway, if the domain's own site is gone since, or was restored from a backup.
    """

    domain: bytes
    key: bytes
    head: SignedHead


@dataclass(frozen=True)
class Ahead:
    """The question that comes next if the commit behind this goes well: it may be sent now, and answered meanwhile."""

    question: GetRecords


class DomainReport(NamedTuple):
    """What became of one domain.

    ``before`` and ``after`` are sizes. ``outcome`` is ``pulled``, ``unchanged``, or why it was not brought to the size that
    the peer shows: ``bounded``, ``refused``, ``forked``, ``frozen``, ``full``, ``incomplete``; ``reason`` says more of these. A dry pull says ``to pull``, or ``to compare`` where the heads differ.
    """

    domain: bytes
    before: int
    after: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Finish:
    """The pull is over. ``incomplete`` names what ended it early, if anything did; all commits are kept.

    ``etag`` is of the peer's heads, of which nothing is left to be pulled; empty if there is. ``ignored`` counts domains that were shown and not looked at,
    ``absent`` the artifacts that committed records name and whose bytes the peer does not give. ``acked`` says of domains how
    many of the records that are here the peer has shown to hold, 0: none; of others this pull has learned nothing.
    """

    domains: tuple[DomainReport, ...]
    bytes: int
    ignored: int = 0
    incomplete: str = ""
    etag: str = ""
    absent: int = 0
    acked: Mapping[Domain, int] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Records that were committed."""
        return sum(one.after - one.before for one in self.domains)


Notice: TypeAlias = Ahead | Conflicting | Forked | Behind | Vouched | Finish
Instruction: TypeAlias = Request | Notice
