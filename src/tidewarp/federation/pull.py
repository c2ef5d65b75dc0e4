"""One pull from one peer: which questions to ask, what to believe, what to commit, and when to go on.

A state machine without I/O: each event returns instructions, of which the last is the one request that is open (or
:class:`~tidewarp.federation.messages.Finish`), and an event for any other request is ignored. Own holdings are read
through a protocol, and changed by instructions alone.

    idle → heads → records(domain) → proof → bytes → commit → records | next domain → done

What it guarantees, whatever a peer says and wherever the pull ends:

* what is committed is the contiguous continuation of what is held, and a head that the domain signed covers it;
* the question is always for what follows *our own prefix*: a cursor is kept as evidence, and nothing is read from it;
* a committed record has its bytes, or a recorded reason why not: the peer does not publish, hold or keep them, which the
  next pull from anybody asks about again; a peer that fails for now ends the pull, and the record is not committed;
* where the journals do not fit, the last record that both have is searched for, never record 0 taken in its place; a fork is
  believed only with a proof that anybody can check;
* a refusal ends its domain, a broken connection ends the pull, and neither undoes a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from typing import Any, BinaryIO, TypeAlias, TypeVar

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BATCH_ITEMS_MAX, BatchItem, decode_batch
from tidewarp.codec.bodies import EVIDENCE, KEYS, ArtifactBody, EvidenceBody, KeysBody
from tidewarp.codec.frames import Reader, u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import genesis, record_hash
from tidewarp.codec.references import Reference, read_references
from tidewarp.errors import CodecError, Erased, InternalError, NotFound, PeerError, QuotaExceeded, Withheld
from tidewarp.federation.contract import DomainState, Holdings
from tidewarp.federation.documents import HashDocument, HeadDocument, ProofDocument, decode_heads, decode_json
from tidewarp.federation.messages import (
    NEXT_PAGE,
    Absent,
    Ahead,
    Behind,
    Bridge,
    Commit,
    Conflicting,
    DomainReport,
    Fetched,
    Finish,
    Forked,
    GetArtifact,
    GetConsistency,
    GetHash,
    GetHeads,
    GetInclusion,
    GetMissing,
    GetRecords,
    HttpResponse,
    Instruction,
    Question,
    Request,
    Supply,
)
from tidewarp.federation.proof import ForkProof, Voucher
from tidewarp.federation.search import CommonSearch
from tidewarp.federation.verify import (
    Prefix,
    Refusal,
    Verified,
    Wanted,
    check_batch,
    check_bridge,
    check_head,
)

__all__ = ["ARTIFACT_BYTES_MAX", "DOMAINS_MAX", "LACKING_MAX", "RECORDS_PER_BATCH", "PullMachine"]

RECORDS_PER_BATCH = 5_000
ARTIFACT_BYTES_MAX = 16 << 30
DOMAINS_MAX = 1_000
"""Domains that a store without a policy takes in."""

LACKING_MAX = 10_000
"""Artifacts whose bytes have not come, and that one pull asks for again."""

_NOT_CHOSEN = "the peer holds a branch that was not chosen"
_FETCHED_BYTES_MAX = 256 << 20  # of artifacts that wait for one commit, unless it is one artifact

_ABSENT = frozenset({403, 404, 410, 413})  # answers that say why bytes are not to be had; others may be better tomorrow

_STATES: dict[type, str] = {
    GetHeads: "heads",
    GetRecords: "records",
    GetHash: "search",
    GetInclusion: "proof",
    GetConsistency: "proof",
    GetMissing: "bytes",
    GetArtifact: "bytes",
    Supply: "bytes",
    Commit: "commit",
}

T = TypeVar("T")
Steps: TypeAlias = Generator[Instruction, Any, T]
"""Yields instructions; is sent the answer to each request, and None for a notice."""


class PullMachine:
    """See the module's docstring. Give every request's answer to the event of its name, once; then perform what comes.

    Args:
        holdings: the own store, as it is read. Nobody else may change the foreign domains in it meanwhile.
        domains: pull these (32 bytes each) and no others; None: those that are held, and others up to 1,000.
        frozen: domains of which nothing is taken.
        chosen: of forked domains, by number, the hash (32 bytes) of the record that was chosen: others are not taken.
        bridges: by domain, why its head covers records beyond the last signed size that is held: of a commit before this pull.
        lacking: artifacts, at most 10,000, whose bytes have not come with the records that name them, and of which domain
            (32 bytes) these are: they are asked for when the domains are pulled.
        etag: of the peer's heads when there was nothing left to pull.
        limit: records per batch, 1 to 10,000.
        artifact_bytes_max: payload bytes of one artifact; of a larger one the record is taken alone.
        until: no record of a domain beyond this one.
        records_max: no more records than so many.
        dry: compare the heads, and say what there would be to pull.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        domains: Collection[bytes] | None = None,
        frozen: Collection[bytes] = (),
        chosen: Mapping[bytes, Mapping[int, bytes]] | None = None,
        bridges: Mapping[bytes, Bridge] | None = None,
        lacking: Mapping[Reference, bytes] | None = None,
        etag: str = "",
        limit: int = RECORDS_PER_BATCH,
        artifact_bytes_max: int = ARTIFACT_BYTES_MAX,
        until: int | None = None,
        records_max: int | None = None,
        dry: bool = False,
    ) -> None:
        if not 1 <= limit <= BATCH_ITEMS_MAX:
            raise InternalError(f"limit {limit}", f"a batch has 1 to {BATCH_ITEMS_MAX} records", "give one of these")
        self._holdings = holdings
        self._domains = None if domains is None else frozenset(domains)
        self._frozen = frozenset(frozen)
        self._chosen = chosen or {}
        self._bridges = dict(bridges or {})
        self._lacking = dict(lacking or {})
        self._absent: set[Reference] = set()  # of the commits of this pull
        self._etag = etag
        self._limit = limit
        self._until = until
        self._room = records_max  # records that may still be taken
        self._dry = dry
        self._artifact_bytes_max = artifact_bytes_max
        self._steps = self._pull()
        self._pending: Request | None = None
        self._state = "idle"
        self._held: dict[bytes, DomainState] = {}
        self._reports: list[DomainReport] = []
        self._at: tuple[bytes, int, int] | None = None  # the domain that is being pulled, its size before and now
        self._bytes = 0
        self._ignored = 0
        self._heads_etag = ""

    @property
    def state(self) -> str:
        """``idle``, ``heads``, ``records``, ``search``, ``proof``, ``bytes``, ``commit`` or ``done``."""
        return self._state

    @property
    def pending(self) -> Request | None:
        """The request that is open."""
        return self._pending

    # --- events

    def start(self) -> list[Instruction]:
        """Begin."""
        if self._state != "idle":
            raise InternalError("start", "a pull is started once", "make another machine")
        self._held = {one.id: one for one in self._holdings.domains()}
        return self._go(None)

    def on_heads(self, asked: GetHeads, answer: HttpResponse) -> list[Instruction]:
        """A page of heads, or 304."""
        return self._answered(asked, answer)

    def on_records(self, asked: GetRecords, answer: HttpResponse) -> list[Instruction]:
        """A batch."""
        return self._answered(asked, answer)

    def on_hash(self, asked: GetHash, answer: HttpResponse) -> list[Instruction]:
        """The peer's hash at a place."""
        return self._answered(asked, answer)

    def on_proof(self, asked: GetInclusion | GetConsistency, answer: HttpResponse) -> list[Instruction]:
        """The hashes of a proof."""
        return self._answered(asked, answer)

    def on_missing(self, asked: GetMissing, answer: HttpResponse) -> list[Instruction]:
        """The references of what the peer lacks."""
        return self._answered(asked, answer)

    def on_supplied(self, asked: Supply) -> list[Instruction]:
        """The bytes are durable."""
        return self._resume(asked, None)

    def on_bytes(self, asked: GetArtifact, outcome: Fetched | Absent | Refusal) -> list[Instruction]:
        """An artifact that has passed its :class:`~tidewarp.federation.verify.ByteCheck`, is not to be had, or has failed."""
        if isinstance(outcome, Fetched):
            self._bytes += outcome.size
        return self._resume(asked, outcome)

    def on_committed(self, asked: Commit) -> list[Instruction]:
        """The commit is durable."""
        if asked is self._pending and self._at is not None:
            self._at = (self._at[0], self._at[1], asked.last_seq)
        return self._resume(asked, None)

    def on_refused(self, asked: Commit, error: PeerError) -> list[Instruction]:
        """The own store does not take the commit; nothing of it is there."""
        key = asked.domain + u64(asked.items[0].header.seq)
        return self._resume(asked, Refusal("payload_mismatch", key, error.value, error.rule))

    def on_full(self, asked: Commit | Supply, error: QuotaExceeded) -> list[Instruction]:
        """A quota leaves no room for it; nothing of it is there. The pull ends here, and what was committed stays."""
        if asked is not self._pending:
            return []
        domain = asked.domain
        held = self._held[domain].size if domain in self._held else 0
        sizes = [(one.before, one.after) for one in self._reports if one.domain == domain] or [(held, held)]
        before, after = sizes[0] if self._at is None else self._at[1:]
        others = [one for one in self._reports if one.domain != domain]
        self._reports, self._at = [*others, DomainReport(domain, before, after, "full", str(error))], None
        return self._end(error.rule)

    def on_error(self, asked: Question, reason: str) -> list[Instruction]:
        """No answer: the connection broke, or was too slow. What is committed stays."""
        return self._end(reason) if asked is self._pending else []

    # --- the machinery: one generator is what the pull does; it yields instructions and is sent answers

    def _answered(self, asked: Question, answer: HttpResponse) -> list[Instruction]:
        if asked is self._pending:
            self._bytes += len(answer.whole)
        return self._resume(asked, answer)

    def _resume(self, asked: Request, value: object) -> list[Instruction]:
        return self._go(value) if asked is self._pending else []

    def _go(self, value: object) -> list[Instruction]:
        instructions: list[Instruction] = []
        try:
            step = self._steps.throw(value) if isinstance(value, Refusal) else self._steps.send(value)
            while not isinstance(step, Request):
                instructions.append(step)
                step = self._steps.send(None)
        except StopIteration:
            return instructions + self._end("")
        except _Interrupted as cause:
            return instructions + self._end(str(cause))
        self._pending, self._state = step, _STATES[type(step)]
        return [*instructions, step]

    def _end(self, incomplete: str) -> list[Instruction]:
        self._steps.close()
        self._pending, self._state = None, "done"
        if self._at is not None:
            self._reports.append(DomainReport(*self._at, "incomplete", incomplete))
        is_done = not incomplete and all(one.outcome in ("pulled", "unchanged") for one in self._reports)
        etag = self._heads_etag if is_done and self._domains is None else ""
        absent = 0 if self._dry else self._holdings.has([*(self._absent | self._lacking.keys())]).count(False)
        return [Finish(tuple(self._reports), self._bytes, self._ignored, incomplete, etag, absent)]

    # --- what a pull does

    def _pull(self) -> Steps[None]:
        try:
            shown = yield from self._heads()
        except Refusal as refusal:
            yield _conflicting(b"", refusal)
            raise _Interrupted(str(refusal)) from None
        except _Unanswered as cause:
            raise _Interrupted(f"{cause} to a question that every tidewarp peer answers: check the address") from None
        for one in shown:
            domain = bytes.fromhex(one.domain)
            size = self._held[domain].size if domain in self._held else 0
            if self._dry:
                self._reports.append(self._compared(domain, one, size))
                continue
            self._at = domain, size, size
            try:
                outcome, reason = yield from self._domain(domain, one)
            except Refusal as refusal:
                yield _conflicting(domain, refusal)
                outcome, reason = "refused", str(refusal)
            except _Unanswered as cause:
                outcome, reason = "incomplete", str(cause)
            self._reports.append(DomainReport(*self._at, outcome, reason))
            self._at = None
        if not self._dry:
            yield from self._supplies()

    def _supplies(self) -> Steps[None]:
        """Ask for the bytes that earlier pulls have not got."""
        wanted = self._still_wanted()
        if not wanted:
            return
        try:
            missing = _decoded(_references, _body((yield GetMissing(tuple(wanted)))), b"")
        except Refusal as refusal:
            yield _conflicting(b"", refusal)
            return
        except _Unanswered:
            return  # they stay on record, and are asked for again
        for reference, one in wanted.items():
            if reference in missing:
                continue
            domain = self._lacking[reference]
            try:
                outcome = yield GetArtifact(domain, one)
            except Refusal as refusal:
                yield _conflicting(domain, refusal)
                continue
            if isinstance(outcome, Fetched):
                yield Supply(domain, reference, outcome.source, outcome.size)
            elif outcome.status not in _ABSENT:
                raise _Interrupted(_not_given(reference, outcome.status))

    def _still_wanted(self) -> dict[Reference, Wanted]:
        """Of the bytes that are lacking, those that a peer may give: published, not erased, and no more than are taken."""
        lacking = [one for one, domain in self._lacking.items() if self._domains is None or domain in self._domains]
        wanted: dict[Reference, Wanted] = {}
        for reference, is_held in zip(lacking, self._holdings.has(lacking), strict=True):
            if is_held:
                continue
            stated: ArtifactBody | None = None
            try:
                info = self._holdings.info(reference)
            except Withheld:
                pass  # no record says its size
            except (NotFound, Erased):
                continue
            else:
                stated = ArtifactBody(reference, info.tag, info.size)
            one = Wanted(0, reference, stated)
            if one.size <= self._artifact_bytes_max and len(wanted) < LACKING_MAX:
                wanted[reference] = one
        return wanted

    def _compared(self, domain: bytes, shown: HeadDocument, size: int) -> DomainReport:
        """What a pull would do about a domain, as far as the heads tell."""
        if domain in self._frozen:
            return DomainReport(domain, size, size, "frozen", "its conflict is not resolved")
        if shown.size > size:
            return DomainReport(domain, size, shown.size, "to pull")
        is_same = not shown.size or self._holdings.hash_at(domain, shown.size) == bytes.fromhex(shown.head)
        return DomainReport(domain, size, size, "unchanged" if is_same else "to compare")

    def _heads(self) -> Steps[list[HeadDocument]]:
        """The heads to look at: the own domain first, then by domain."""
        taken: list[HeadDocument] = []
        room = DOMAINS_MAX + 1 - len(self._held)  # the own domain is held, and does not count
        after = b""
        while True:
            answer = yield GetHeads(after, "" if after else self._etag)
            if answer.status == 304 and self._etag and not after:
                self._heads_etag = self._etag
                return []
            page = _decoded(decode_heads, _body(answer), b"")
            if page and bytes.fromhex(page[0].domain) <= after:
                raise Refusal("payload_mismatch", b"", "heads", f"a page begins behind {after.hex()}", answer.whole)
            for one in page:
                domain = bytes.fromhex(one.domain)
                is_new = self._domains is None and domain not in self._held
                if domain in self._held if self._domains is None else domain in self._domains:
                    taken.append(one)
                elif is_new and room > 0:
                    room -= 1
                    taken.append(one)
                else:
                    self._ignored += 1
            next_after = self._next_page(page, room) if answer.headers.get(NEXT_PAGE) else None
            if next_after is None:
                self._heads_etag = "" if after else answer.headers.get("etag", "")
                break
            after = next_after
        return sorted(taken, key=lambda one: (one.domain != self._holdings.domain.hex(), one.domain))

    def _next_page(self, page: list[HeadDocument], room: int) -> bytes | None:
        """Behind which domain to look further: not through a million of which none is wanted."""
        if not page:
            return None
        last = bytes.fromhex(page[-1].domain)
        if self._domains is None and room > 0:
            return last
        beyond = [one for one in (self._held if self._domains is None else self._domains) if one > last]
        if not beyond:
            return None
        return max(last, (int.from_bytes(min(beyond), "big") - 1).to_bytes(32, "big"))

    def _domain(self, domain: bytes, shown: HeadDocument) -> Steps[tuple[str, str]]:
        """Pull one domain. Returns outcome and reason of its report."""
        held = self._held.get(domain)
        prefix = self._prefix(domain, held)
        is_own = domain == self._holdings.domain
        if domain in self._frozen or (held is not None and held.status not in ("live", "behind")):
            return "frozen", "its conflict is not resolved"
        if shown.size <= prefix.size:
            if not shown.size or self._holdings.hash_at(domain, shown.size) == bytes.fromhex(shown.head):
                self._check_stale(domain, shown, is_own=is_own)
                return "unchanged", ""
            return (yield from self._parted(shown, self._signed(domain, shown), shown.size))
        head = self._signed(domain, shown)
        if is_own:
            yield Behind(head.size)
        asked: GetRecords | None = None
        while prefix.size < head.size:
            asked = asked or self._next(prefix, head, self._room)
            if asked is None:
                return "bounded", "it ends at the bound that was given"
            data = _body((yield asked))
            items = self._asked_for(asked, _decoded(decode_batch, data, domain), data)
            first = items[0].header
            if (first.domain, first.seq) == (domain, prefix.size + 1) and first.prev != prefix.head and prefix.size:
                return (yield from self._parted(shown, head, prefix.size))
            items = self._on_chosen_branch(domain, items)
            if not items:
                return "unchanged", _NOT_CHOSEN
            prefix, asked = yield from self._take(domain, bytes.fromhex(shown.key), prefix, head, items, data)
        return "pulled", ""

    def _next(self, prefix: Prefix, head: SignedHead, room: int | None) -> GetRecords | None:
        """The question after what follows ``prefix``; None where nothing does, or may by the bounds that were given."""
        until = head.size if self._until is None else min(head.size, self._until)
        number = min(self._limit, until - prefix.size, self._limit if room is None else room)
        return GetRecords(head.domain, prefix.size, number) if number > 0 else None

    def _take(
        self, domain: bytes, key: bytes, prefix: Prefix, head: SignedHead, items: list[BatchItem], data: bytes
    ) -> Steps[tuple[Prefix, GetRecords | None]]:
        """Verify, fetch what is missing and commit: of the batch as much as has room.

        Returns the new prefix, and the question that comes next.
        """
        verified = self._as_much_as_fits(domain, check_batch(domain, prefix, items, data), prefix, data)
        size = verified.prefix.size
        hashes: tuple[bytes, ...] = ()
        if size < head.size:
            hashes = _decoded(_proof, _body((yield GetConsistency(domain, size, head.size))), domain)
        check_bridge(verified.prefix, head, hashes)
        bridge = Bridge(size, hashes, head) if size < head.size else None
        sources: dict[Reference, BinaryIO] = {}
        absent: list[tuple[Reference, int]] = []
        for wanted in self._missing(verified):
            outcome: Fetched | Absent = Absent(413)
            if wanted.size <= self._artifact_bytes_max:
                outcome = yield GetArtifact(domain, wanted)
            if isinstance(outcome, Fetched):
                sources[wanted.reference] = outcome.source
            elif outcome.status in _ABSENT:
                absent.append((wanted.reference, outcome.status))
            else:
                raise _Interrupted(_not_given(wanted.reference, outcome.status))
        forks = tuple(self._forks(verified))
        room = None if self._room is None else self._room - len(verified.items)
        following = self._next(verified.prefix, head, room)
        if following is not None:
            yield Ahead(following)
        yield Commit(domain, key, verified.items, verified.hashes, head, bridge, sources, tuple(absent), forks)
        self._absent.update(reference for reference, _ in absent)
        self._room = room
        return verified.prefix, following

    def _forks(self, verified: Verified) -> Iterator[tuple[Reference, ForkProof]]:
        """The proofs of forks that came as evidence, and are true: their domains are frozen here too."""
        for item in verified.items:
            if item.header.kind == EVIDENCE and item.body is not None and item.artifact is not None:
                try:
                    proof = ForkProof.from_bytes(Artifact.from_bytes(item.artifact).payload)
                    proof.check()
                except PeerError:
                    continue  # another kind of evidence, or none: a record may say what it likes
                yield EvidenceBody.from_bytes(item.body).ref, proof

    def _as_much_as_fits(self, domain: bytes, verified: Verified, prefix: Prefix, data: bytes) -> Verified:
        """The batch, cut before the artifact whose bytes would be too many for one commit."""
        total = 0
        for wanted in self._missing(verified):
            total += wanted.size if wanted.size <= self._artifact_bytes_max else 0
            number = wanted.seq - 1 - prefix.size
            if total > _FETCHED_BYTES_MAX and number:
                return check_batch(domain, prefix, verified.items[:number], data)
        return verified

    def _missing(self, verified: Verified) -> list[Wanted]:
        wanted = list({one.reference: one for one in reversed(verified.wanted)}.values())[::-1]
        held = self._holdings.has([one.reference for one in wanted])
        return [one for one, is_held in zip(wanted, held, strict=True) if not is_held]

    def _asked_for(self, asked: GetRecords, items: list[BatchItem], data: bytes) -> list[BatchItem]:
        what = f"records of {asked.domain.hex()} behind {asked.after}"
        if not items:
            raise Refusal("payload_mismatch", asked.domain, what, "the head says that there are some, none came", data)
        if len(items) > asked.limit:
            rule = f"at most {asked.limit} were asked for, {len(items)} came"
            raise Refusal("payload_mismatch", asked.domain, what, rule, data)
        return items

    # --- where journals do not fit

    def _check_stale(self, domain: bytes, shown: HeadDocument, *, is_own: bool) -> None:
        if shown.origin and not is_own:
            before = self._holdings.signed_head(domain)
            if before is not None and shown.size < before.size:
                rule = f"the origin shows {shown.size} records and has signed {before.size} before"
                raise Refusal("stale_head", domain, f"head of {shown.domain}", rule, shown.note.encode())

    def _on_chosen_branch(self, domain: bytes, items: list[BatchItem]) -> list[BatchItem]:
        """The records up to one in whose place another was chosen."""
        chosen = self._chosen.get(domain, {})
        for n, one in enumerate(items):
            choice = chosen.get(one.header.seq)
            if choice is not None and choice != record_hash(one.header.to_bytes()):
                return items[:n]
        return items

    def _parted(self, shown: HeadDocument, head: SignedHead, differ: int) -> Steps[tuple[str, str]]:
        """Find the last common record, and say that the domain is forked; refuse a peer that cannot show it.

        Returns outcome and reason of the report. Where our branch is the one that was chosen, nothing is new.
        """
        domain, key = head.domain, bytes.fromhex(shown.key)
        search = CommonSearch(differ)
        while (probe := search.probe) is not None:
            their_hash = _decoded(_hash, _body((yield GetHash(domain, probe))), domain)
            search.tell(their_hash == self._holdings.hash_at(domain, probe))
        seq = search.common + 1
        if seq in self._chosen.get(domain, {}):
            return "unchanged", _NOT_CHOSEN
        asked = GetRecords(domain, search.common, 1)
        data = _body((yield asked))
        theirs = self._asked_for(asked, _decoded(decode_batch, data, domain), data)[0].header
        path = _decoded(_proof, _body((yield GetInclusion(domain, seq, head.size))), domain)
        ours = next(iter(self._holdings.records(domain, search.common, 1))).header
        their_voucher = Voucher(head.size, head.root, path, (), head)
        proof = ForkProof.of(key, (ours, self._own_voucher(domain, seq)), (theirs, their_voucher))
        try:
            proof.check(self._declared(domain))
        except PeerError as error:
            at = f"record {seq} of {domain.hex()}"
            raise Refusal("payload_mismatch", domain, at, f"the peer shows no fork: {error}", data) from None
        yield Forked(domain, search.common, proof)
        return "forked", f"it parts from ours at record {seq}"

    def _own_voucher(self, domain: bytes, seq: int) -> Voucher:
        own = domain == self._holdings.domain
        head = self._holdings.signed_head(None if own else domain)
        if head is not None and head.size >= seq:
            path = tuple(self._holdings.inclusion_proof(domain, seq, head.size))
            return Voucher(head.size, head.root, path, (), head)
        if domain not in self._bridges or self._bridges[domain].size < seq:
            rule = "no signed head covers our own record: that it is true cannot be shown"
            raise Refusal("payload_mismatch", domain + u64(seq), f"record {seq} of {domain.hex()}", rule)
        size, hashes, head = self._bridges[domain]
        root = self._holdings.root_at(domain, size)
        return Voucher(size, root, tuple(self._holdings.inclusion_proof(domain, seq, size)), hashes, head)

    # --- what is held

    def _prefix(self, domain: bytes, held: DomainState | None) -> Prefix:
        if held is None or not held.size:
            return Prefix(0, genesis(domain), Frontier())
        return Prefix(held.size, held.head, self._holdings.frontier(domain))

    def _signed(self, domain: bytes, shown: HeadDocument) -> SignedHead:
        try:
            return check_head(shown)
        except Refusal:
            declared = self._declared(domain)
            if not declared:
                raise
            return check_head(shown, declared)

    def _declared(self, domain: bytes) -> tuple[bytes, ...]:
        """The keys that KEYS records of the domain name, as far as a head that is held covers them."""
        head = self._holdings.signed_head(domain) if domain in self._held else None
        if head is None:
            return ()
        found: list[bytes] = []
        for record in self._holdings.records(domain, 0, head.size):
            if record.header.kind == KEYS and record.body is not None:
                found += KeysBody.from_bytes(record.body).keys
        return tuple(found)


class _Interrupted(Exception):
    """The pull cannot go on."""


class _Unanswered(Exception):
    """The peer does not answer a question about one domain."""


def _body(answer: HttpResponse) -> bytes:
    if answer.status == 200:
        return answer.whole
    said = f"the peer answered {answer.status}"
    if answer.status in (400, 403, 404, 409, 410, 413, 416):
        raise _Unanswered(said)
    raise _Interrupted(said)


def _conflicting(domain: bytes, refusal: Refusal) -> Conflicting:
    return Conflicting(domain, refusal.kind, refusal.key, str(refusal), refusal.data)


def _decoded(decode: Callable[[bytes], T], data: bytes, domain: bytes) -> T:
    """What ``data``, an answer about ``domain`` (or about all: empty), says."""
    try:
        return decode(data)
    except CodecError as error:
        raise Refusal("payload_mismatch", domain, error.value, error.rule, data) from None


def _references(data: bytes) -> frozenset[Reference]:
    reader = Reader(data, "references")
    found = frozenset(read_references(reader))
    reader.end()
    return found


def _not_given(reference: Reference, status: int) -> str:
    return (
        f"artifact {reference.hex()}: the peer answered {status}, so its record was not taken yet; "
        "if it stays so, pull from another site, and ask this one's operator for: tidewarp store fsck DIR"
    )


def _hash(data: bytes) -> bytes:
    return bytes.fromhex(decode_json(data, HashDocument).hash)


def _proof(data: bytes) -> tuple[bytes, ...]:
    return decode_json(data, ProofDocument).path()
