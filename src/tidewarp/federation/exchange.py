"""Performs what a pull says, over a store and whatever moves bytes. It decides nothing: the machine does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

from tidewarp.codec.artifacts import TAG_EVIDENCE
from tidewarp.codec.bodies import EVIDENCE, EvidenceBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import Reference
from tidewarp.collector import collector_paused
from tidewarp.errors import InternalError, PeerError, PeerRefused, QuotaExceeded
from tidewarp.federation.contract import ExchangeStore
from tidewarp.federation.ledger import DDL, EXTENSION, VERSION, Ledger
from tidewarp.federation.messages import (
    Absent,
    Ahead,
    Behind,
    Commit,
    Conflicting,
    Fetched,
    Finish,
    Forked,
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
    Reveal,
    Supply,
    Vouched,
)
from tidewarp.federation.policy import Policy, last_named
from tidewarp.federation.pull import LACKING_MAX, PullMachine, missed
from tidewarp.federation.verify import ByteCheck, Refusal
from tidewarp.store.contract import Entry
from tidewarp.store.payload import check_room

__all__ = ["Exchange", "in_force", "ledger_of"]

_OWN_IS_WHOLE = frozenset({"pulled", "unchanged", "forked"})
_UNNOTED_MAX = 1_000  # records that are read again each time


def ledger_of(store: ExchangeStore) -> Ledger:
    """The ledger in the tables of ``store``."""
    return Ledger(store.extension(EXTENSION, VERSION, DDL))


def in_force(store: ExchangeStore, ledger: Ledger | None, *, note: bool = False) -> Policy | None:
    """The policy that the last POLICY record of the own domain names; None without one: the store is open.

    With ``note`` the ledger remembers how far the journal was read for that.

    Raises:
        CodecError: the artifact is no policy.
        Withheld, Erased, Corrupt: its bytes are not here.
    """
    after, before = (0, None) if ledger is None else ledger.policy()
    size = store.journal.size
    last = last_named(store.journal, after, before)
    if note and ledger is not None and size - after > _UNNOTED_MAX:
        with store.transaction():
            ledger.note_policy(size, last)
    return None if last is None else Policy.from_bytes(store.get(last))


class Exchange:
    """One pull from one peer.

    Args:
        store: where it goes.
        peer: how the ledger names the peer.
        send: asks the peer a question; raises OSError where there is no answer, PeerRefused where it breaks the protocol,
            Refusal where what it says cannot be read.
        send_ahead: lets the peer begin with a question that ``send`` will ask next, or does nothing.
        spool: a new temporary file, for an artifact on its way.
        now_ms: Unix ms.
        quotas: bytes of artifacts, by the domain (32 bytes) that brings them, at most; others have no bound of their own.
        lacking: artifacts to be asked for, with the domain (32 bytes) of each; None: those that the ledger names.
        dry, options: as of :class:`~tidewarp.federation.pull.PullMachine`.
    """

    def __init__(
        self,
        store: ExchangeStore,
        peer: str,
        send: Callable[[Question], HttpResponse],
        spool: Callable[[], BinaryIO],
        now_ms: Callable[[], int],
        *,
        send_ahead: Callable[[Question], None] = lambda question: None,
        dry: bool = False,
        quotas: Mapping[bytes, int] | None = None,
        lacking: Mapping[Reference, bytes] | None = None,
        **options: Any,
    ) -> None:
        self._store = store
        self._ledger = ledger_of(store)
        self._peer = peer
        self._send = send
        self._send_ahead = send_ahead
        self._spool = spool
        self._now_ms = now_ms
        self._dry = dry
        self._quotas = quotas or {}
        self._spooled = ExitStack()  # until their commit
        self._promised = 0  # payload bytes of these, where their records declare them
        self.conflicts = 0
        """What was refused or forked."""
        self.forks: list[bytes] = []
        """Of these, the forks: by the domain (32 bytes) that is forked."""
        self.forked: list[Forked] = []
        self.answered = False
        """Has the peer said anything?"""
        self.machine = PullMachine(
            store,
            frozen=self._ledger.frozen(),
            known_forks=self._ledger.forked_domains(),
            bridges=self._ledger.bridges(),
            lacking=self._lacking(lacking),
            etag="" if dry else self._ledger.etag(peer),
            acked={} if dry else self._ledger.acked(peer),
            dry=dry,
            **options,
        )
        self._events: dict[type, Callable[[Any, HttpResponse], list[Instruction]]] = {
            GetHeads: self.machine.on_heads,
            GetRecords: self.machine.on_records,
            GetHash: self.machine.on_hash,
            GetInclusion: self.machine.on_proof,
            GetConsistency: self.machine.on_proof,
            GetMissing: self.machine.on_missing,
            GetEvidence: self.machine.on_evidence,
        }

    def _lacking(self, lacking: Mapping[Reference, bytes] | None) -> Mapping[Reference, bytes]:
        if lacking is not None or self._dry:
            return lacking or {}
        return self._ledger.lacking(LACKING_MAX)

    def run(self) -> Finish:
        """Pull until the machine has finished.

        Raises:
            StoreFull, StoreFailed, …: from the own store; what was committed before stays. A quota that leaves no room
                ends the pull in order: the domain's outcome is ``full``.
        """
        with self._spooled:
            instructions = self.machine.start()
            while True:
                *notices, last = instructions
                for notice in notices:
                    self.perform(notice)
                if isinstance(last, Finish):
                    self._finish(last)
                    return last
                try:
                    instructions = self.perform(last)
                except QuotaExceeded as error:
                    if not isinstance(last, GetArtifact | Commit | Reveal | Supply):
                        raise
                    instructions = self.machine.on_full(last, error)

    def perform(self, one: Instruction) -> list[Instruction]:
        """Do what ``one`` says; what the machine says next, if it was a request."""
        if isinstance(one, Commit):
            return self._commit(one)
        if isinstance(one, Supply):
            return self._supply(one)
        if isinstance(one, Reveal):
            return self._reveal(one)
        if isinstance(one, Conflicting):
            self._refuse(one)
        elif isinstance(one, Forked):
            self._freeze(one)
        elif isinstance(one, Ahead):
            self._send_ahead(one.question)
        elif isinstance(one, Behind):
            with self._store.transaction():  # the records that follow are the remedy, if they come
                self._ledger.note_own(one.size)
        elif isinstance(one, Vouched):
            self._keep_head(one)
        elif isinstance(one, Finish):
            raise InternalError("Finish", "it ends run()", "perform what comes before it")
        else:
            return self._ask(one)
        return []

    def _ask(self, question: Question) -> list[Instruction]:
        try:
            answer = self._send(question)
            self.answered = True
            if isinstance(question, GetConsistency) and question.ahead is not None:
                self._send_ahead(question.ahead)
            if isinstance(question, GetArtifact):
                return self.machine.on_bytes(question, self._received(question, answer))
        except Refusal as refusal:
            return self.machine.on_unreadable(question, refusal)
        except (OSError, PeerRefused) as error:
            return self.machine.on_error(question, str(error))
        with collector_paused():
            return self._events[type(question)](question, answer)

    def _received(self, question: GetArtifact, answer: HttpResponse) -> Fetched | Absent | Refusal:
        if answer.status != 200:
            return Absent(answer.status)
        promised = self._check_room(question)
        file = self._spooled.enter_context(self._spool())
        check = ByteCheck(question.domain, question.wanted)
        try:
            for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                check.feed(piece)
                file.write(piece)
            check.end()
        except Refusal as refusal:
            return refusal
        file.seek(0)
        self._promise(promised)
        self._spooled.callback(self._promise, -promised)
        return Fetched(file, check.size)

    def _promise(self, size: int) -> None:
        self._promised += size

    def _check_room(self, asked: GetArtifact) -> int:
        """Payload bytes that the record declares, 0 if it says nothing of them: the bytes themselves will.

        Raises:
            QuotaExceeded: they have no room beside what waits for the same commit.
        """
        if asked.wanted.stated is None:
            return 0
        what, size, room = f"artifact {asked.wanted.reference.hex()}", asked.wanted.size, self._store.room()
        self._check_quota(asked.domain, self._promised + size, what)
        check_room(size, None if room is None else room - self._promised, what)
        return size

    def _commit(self, commit: Commit) -> list[Instruction]:
        size = _bytes_of(commit)
        self._check_quota(commit.domain, size, f"record {commit.items[0].header.seq} of {commit.domain.hex()}")
        try:
            with self._store.transaction(), collector_paused():
                self._ledger.add_bytes(commit.domain, size)
                self._store.adopt(commit.domain, commit.items, commit.head, key=commit.key, sources=commit.sources)
                self._ledger.took(self._peer, commit, self._now_ms())
        except PeerError as error:  # the store looks at everything again, and believes nobody
            return self.machine.on_refused(commit, error)
        self.conflicts += len(commit.forks)
        self.forks += [proof.domain for _, proof in commit.forks]
        self._spooled.close()  # they are in the store now
        return self.machine.on_committed(commit)

    def _reveal(self, reveal: Reveal) -> list[Instruction]:
        size = _bytes_of(reveal)
        self._check_quota(reveal.domain, size, f"body of record {reveal.items[0].header.seq} of {reveal.domain.hex()}")
        try:
            with self._store.transaction(), collector_paused():
                self._ledger.add_bytes(reveal.domain, size)
                self._store.reveal(reveal.domain, reveal.items, sources=reveal.sources)
                self._ledger.revealed(self._peer, reveal, self._now_ms())
        except PeerError as error:
            return self.machine.on_refused(reveal, error)
        self._spooled.close()
        return self.machine.on_revealed(reveal)

    def _supply(self, supply: Supply) -> list[Instruction]:
        self._check_quota(supply.domain, supply.size, f"artifact {supply.reference.hex()}")
        with self._store.transaction():
            self._ledger.add_bytes(supply.domain, supply.size)
            self._store.supply(supply.reference, supply.source)
            self._ledger.arrived([supply.reference])
        self._spooled.close()
        return self.machine.on_supplied(supply)

    def _check_quota(self, domain: bytes, size: int, what: str) -> None:
        quota = self._quotas.get(domain)
        total = size + (0 if quota is None else self._ledger.bytes_of(domain))
        if quota is not None and total > quota:
            raise QuotaExceeded(
                what,
                f"with it {total} bytes would be here of that domain, its quota is {quota}; what was taken before stays",
                "raise it in peers.toml, or pull other domains with --domain",
            )

    def _refuse(self, conflicting: Conflicting) -> None:
        self._spooled.close()  # what came with it waits for no commit now, and others may need the room
        self.conflicts += 1
        with self._store.transaction():
            self._ledger.refused(self._peer, conflicting, self._now_ms())

    def _keep_head(self, vouched: Vouched) -> None:
        try:
            self._store.adopt(vouched.domain, (), vouched.head, key=vouched.key, sources={})
        except PeerError as error:  # as of a commit: it is about this domain, and the others go on
            note = vouched.head.to_bytes()
            self._refuse(Conflicting(vouched.domain, "bad_signature", vouched.domain, str(error), note))

    def _freeze(self, forked: Forked) -> None:
        self.conflicts += 1
        self.forked.append(forked)
        self.forks.append(forked.domain)
        with self._store.transaction():
            reference = self._store.put(forked.proof.to_bytes(), tag=TAG_EVIDENCE)
            body = EvidenceBody(forked.proof.conflict, reference).to_bytes()
            self._store.journal.append([Entry(EVIDENCE, body, PUBLISHED)])
            self._ledger.forked(self._peer, forked.proof, reference, self._now_ms())

    def _finish(self, finish: Finish) -> None:
        if not self._dry:
            with self._store.transaction():
                self._ledger.finished(self._peer, finish)
                self._settle([*self._ledger.lacking(LACKING_MAX)])
                if any(one.domain == self._store.domain and one.outcome in _OWN_IS_WHOLE for one in finish.domains):
                    self._ledger.forget_own()

    def _settle(self, lacking: Sequence[Reference]) -> None:
        """Note which of these have come, also by another way, and which the peer has not and nobody misses."""
        held = {one for one, is_held in zip(lacking, self._store.has(lacking), strict=True) if is_held}
        self._ledger.arrived(held)
        not_given = [one for one in lacking if one in self.machine.not_given and one not in held]
        self._ledger.hidden({*not_given} - missed(self._store, not_given))


def _bytes_of(commit: Commit | Reveal) -> int:
    """Bytes of the artifacts that come with records."""
    inline = sum(len(one.artifact) for one in commit.items if one.artifact is not None)
    return inline + sum(_size_of(source) for source in commit.sources.values())


def _size_of(source: BinaryIO) -> int:
    size = source.seek(0, 2)  # from its end
    source.seek(0)
    return size
