"""The machine: which event goes on with what, in which order a pull does its steps, and what it reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from tidewarp.codec.frames import u64
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError, PeerError, QuotaExceeded
from tidewarp.federation.contract import Holdings
from tidewarp.federation.documents import HeadDocument
from tidewarp.federation.messages import (
    Absent,
    Bridge,
    Commit,
    DomainReport,
    Fetched,
    Finish,
    GetArtifact,
    GetConsistency,
    GetEvidence,
    GetHash,
    GetHeads,
    GetInclusion,
    GetMissing,
    GetRecords,
    HttpResponse,
    Instruction,
    Question,
    Request,
    Reveal,
    Supply,
)
from tidewarp.federation.pull.artifacts import missed, supply
from tidewarp.federation.pull.context import ARTIFACT_BYTES_MAX, RECORDS_PER_BATCH, Context
from tidewarp.federation.pull.evidence import learn_forks
from tidewarp.federation.pull.heads import compared, look
from tidewarp.federation.pull.parting import NOT_CHOSEN
from tidewarp.federation.pull.records import bring
from tidewarp.federation.pull.steps import Interrupted, Steps, Unanswered, conflicting
from tidewarp.federation.pull.stubs import reveal, stubbed
from tidewarp.federation.verify import Refusal

__all__ = ["PullMachine"]

_STATES: dict[type, str] = {
    GetHeads: "heads",
    GetRecords: "records",
    GetHash: "search",
    GetInclusion: "proof",
    GetConsistency: "proof",
    GetMissing: "bytes",
    GetEvidence: "evidence",
    GetArtifact: "bytes",
    Supply: "bytes",
    Reveal: "commit",
    Commit: "commit",
}


class PullMachine:
    """See the module's docstring. Give every request's answer to the event of its name, once; then perform what comes.

    Args:
        holdings: the own store, as it is read. Nobody else may change the foreign domains in it meanwhile.
        domains: pull these (32 bytes each) and no others; None: those that are held, and others up to 1,000.
        frozen: forked domains, and how many of their records come before the fork: no more are taken.
        chosen: of forked domains, by number, the hash (32 bytes) of the record that was chosen: others are not taken.
        bridges: by domain, why its head covers records beyond the last signed size that is held: of a commit before this pull.
        lacking: artifacts, at most 10,000, whose bytes have not come with the records that name them, and of which domain
            (32 bytes) these are: they are asked for when the domains are pulled.
        known_forks: domains whose fork is noted here: nobody is asked for its proof.
        etag: of the peer's heads when there was nothing left to pull.
        acked: by domain, how many of the records held the peer has shown before to hold, by a head whose signature was checked.
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
        frozen: Mapping[bytes, int] | None = None,
        chosen: Mapping[bytes, Mapping[int, bytes]] | None = None,
        bridges: Mapping[bytes, Bridge] | None = None,
        lacking: Mapping[Reference, bytes] | None = None,
        known_forks: Collection[bytes] = (),
        etag: str = "",
        acked: Mapping[bytes, int] | None = None,
        limit: int = RECORDS_PER_BATCH,
        artifact_bytes_max: int = ARTIFACT_BYTES_MAX,
        until: int | None = None,
        records_max: int | None = None,
        dry: bool = False,
    ) -> None:
        self._context = Context(
            holdings, domains, frozen or {}, chosen or {}, bridges or {}, limit, artifact_bytes_max, until, records_max
        )
        self._lacking = dict(lacking or {})
        self._known_forks = frozenset(known_forks)
        self._etag = etag
        self._acked_before = acked or {}
        self._acked: dict[bytes, int] = {}
        self._dry = dry
        self._steps = self._pull()
        self._pending: Request | None = None
        self._state = "idle"
        self._reports: list[DomainReport] = []
        self._at: tuple[bytes, int, int] | None = None  # the domain that is being pulled, its size before and now
        self._bytes = 0
        self._ignored = 0
        self._heads_etag = ""

    @property
    def state(self) -> str:
        """``idle``, ``heads``, ``records``, ``search``, ``proof``, ``bytes``, ``commit``, ``evidence`` or ``done``."""
        return self._state

    @property
    def pending(self) -> Request | None:
        """The request that is open."""
        return self._pending

    @property
    def not_given(self) -> Set[Reference]:
        """Artifacts that it was asked for, and does not have to give."""
        return self._context.not_given

    # --- events

    def start(self) -> list[Instruction]:
        """Begin."""
        if self._state != "idle":
            raise InternalError("start", "a pull is started once", "make another machine")
        self._context.begin()
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

    def on_evidence(self, asked: GetEvidence, answer: HttpResponse) -> list[Instruction]:
        """A page of conflicts."""
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

    def on_unreadable(self, asked: Question, refusal: Refusal) -> list[Instruction]:
        """An answer whose encoding is damaged, or hides more than may come."""
        return self._resume(asked, refusal)

    def on_committed(self, asked: Commit) -> list[Instruction]:
        """The commit is durable."""
        if asked is self._pending and self._at is not None:
            self._at = (self._at[0], self._at[1], asked.last_seq)
        return self._resume(asked, None)

    def on_revealed(self, asked: Reveal) -> list[Instruction]:
        """The bodies are durable."""
        return self._resume(asked, None)

    def on_refused(self, asked: Commit | Reveal, error: PeerError) -> list[Instruction]:
        """The own store does not take it; nothing of it is there."""
        key = asked.domain + u64(asked.items[0].header.seq)
        return self._resume(asked, Refusal("payload_mismatch", key, error.value, error.rule))

    def on_full(self, asked: GetArtifact | Commit | Reveal | Supply, error: QuotaExceeded) -> list[Instruction]:
        """A quota leaves no room for it; nothing of it is there. The pull ends here, and what was committed stays."""
        if asked is not self._pending:
            return []
        domain = asked.domain
        held = self._context.size(domain)
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
        except Interrupted as cause:
            return instructions + self._end(str(cause))
        self._pending, self._state = step, _STATES[type(step)]
        return [*instructions, step]

    def _end(self, incomplete: str) -> list[Instruction]:
        self._steps.close()
        self._pending, self._state = None, "done"
        if self._at is not None:
            self._reports.append(DomainReport(*self._at, "incomplete", incomplete))
        is_done = not incomplete and all(one.outcome in ("pulled", "unchanged") for one in self._reports)
        etag = self._heads_etag if is_done and self._context.domains is None else ""
        absent = 0 if self._dry else self._not_here()
        return [Finish(tuple(self._reports), self._bytes, self._ignored, incomplete, etag, absent, dict(self._acked))]

    def _not_here(self) -> int:
        """How many artifacts are named here whose bytes have not come, and are missed."""
        return len(missed(self._context.holdings, [*(self._context.absent | self._lacking.keys())]))

    # --- what a pull does

    def _pull(self) -> Steps[None]:
        context = self._context
        stubs = set() if self._dry else stubbed(context)
        try:
            heads = yield from look(context, "" if stubs else self._etag)
        except Refusal as refusal:
            yield conflicting(b"", refusal)
            raise Interrupted(str(refusal)) from None
        except Unanswered as cause:
            raise Interrupted(f"{cause}. Every tidewarp peer answers this question: check the address") from None
        self._ignored = heads.ignored
        self._heads_etag = self._etag if heads.etag is None else heads.etag
        if heads.etag is not None:
            looked_at = context.held.keys() if context.domains is None else context.held.keys() & context.domains
            self._acked = dict.fromkeys(looked_at - {bytes.fromhex(one.domain) for one in heads.shown}, 0)
        for one in heads.shown:
            if self._dry:
                self._reports.append(compared(context, bytes.fromhex(one.domain), one))
            else:
                yield from self._bring(one, stubs)
        if not self._dry:
            yield from supply(context, self._lacking)
            yield from learn_forks(context, heads.shown, self._known_forks)

    def _bring(self, shown: HeadDocument, stubs: set[bytes]) -> Steps[None]:
        """Pull one domain, and report it."""
        domain = bytes.fromhex(shown.domain)
        size = self._context.size(domain)
        self._at = domain, size, size
        try:
            outcome, reason = yield from bring(self._context, domain, shown, self._acked_before.get(domain))
            if outcome in ("pulled", "unchanged", "forked"):
                is_held = outcome != "forked" and reason != NOT_CHOSEN
                self._acked[domain] = shown.size if is_held else 0
                if is_held and domain in stubs:
                    yield from reveal(self._context, domain, shown.size)
        except Refusal as refusal:
            yield conflicting(domain, refusal)
            outcome, reason = "refused", str(refusal)
        except Unanswered as cause:
            outcome, reason = "incomplete", str(cause)
        self._reports.append(DomainReport(*self._at, outcome, reason))
        self._at = None
