"""Whose bytes may go: the rule of garbage collection, without the tables. Pure.

The bytes of an artifact stay while one of these holds, looked at in this order:

visible    an admitted domain shows it, to others or within this site
pinned     a pin names it
snapshot   a pinned snapshot shows it
named      a pointer, a policy, evidence of a conflict, a verdict or a request that counts names it
linked     something that stays for one of the reasons above names it, directly or through what it names (:mod:`.links`)
…          a guard objects; its name is the reason

An erasure overrides all of them: of the own domain, or of one with the role ``curate``. Every doubt is for staying.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeAlias

from tidewarp.codec import PUBLISHED
from tidewarp.codec.bodies import (
    ArtifactBody,
    Body,
    EdgeBody,
    EraseBody,
    EvidenceBody,
    PointerBody,
    PolicyBody,
    ReceiptBody,
    RequestBody,
    VerdictBody,
)
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import InternalError, NotFound, OperatorError
from tidewarp.store.admission import Admission, Role
from tidewarp.store.fold.branches import Entry
from tidewarp.store.fold.pointers import Pointers
from tidewarp.store.fold.state import State

__all__ = [
    "LINKED",
    "NAMED",
    "PINNED",
    "SNAPSHOT",
    "VISIBLE",
    "GcReport",
    "Guard",
    "Holdings",
    "Named",
    "Pinned",
    "Retention",
    "Word",
    "check_budget",
    "check_held",
    "check_outside",
]

VISIBLE, PINNED, SNAPSHOT, NAMED, LINKED = "visible", "pinned", "snapshot", "named", "linked"

_NAMERS_MAX = 10_000
"""Artifacts that are looked at for one candidate; what so many name, stays."""

Pinned: TypeAlias = Reference | Snapshot
"""What a pin keeps: an artifact, or all that is visible at a snapshot."""


class Word(NamedTuple):
    """A record that speaks of an artifact: domain (32 bytes), sequence number, flags, record hash, body."""

    domain: bytes
    seq: int
    flags: int
    hash: bytes
    body: Body


class Guard(Protocol):
    """A layer above that has a say, such as one that waits until every peer has taken a tombstone."""

    @property
    def name(self) -> str:
        """The reason that a report gives, one word."""

    def objects(self, ref: Reference, words: Sequence[Word]) -> bool:
        """Whether the bytes have to stay. ``words`` are all records that speak of the artifact, by domain and seq."""


class GcReport(NamedTuple):
    """What a collection did.

    ``freed_bytes`` of the payloads of ``freed_artifacts``, and of blocks that nothing named; what artifacts share goes with
    the last of them. ``kept`` counts candidates by the reason why they stay. ``remaining`` are candidates that it did not
    come to, counted up to 10,000. ``complete``: it came to all, and nothing is left to do.
    """

    freed_bytes: int
    freed_artifacts: int
    kept: Mapping[str, int]
    remaining: int
    seconds: float
    complete: bool


class Holdings(Protocol):
    """What the rule asks of a store."""

    def words(self, ref: Reference) -> Sequence[Word]:
        """The records that speak of an artifact, each domain's in order of seq."""

    def namers(self, ref: Reference) -> Collection[Reference]:
        """The artifacts whose bytes name it."""

    def is_visible(self, ref: Reference) -> bool:
        """What the views of the store say, of published records or of all: exact, and it may take its time."""


def check_budget(budget_s: float, *, in_transaction: bool) -> None:
    """Refuse a negative budget (OperatorError), and a collection within a transaction (InternalError)."""
    if not budget_s >= 0:
        raise OperatorError(f"budget {budget_s}", "it is wall seconds, from 0 on", "give a number of seconds")
    check_outside("gc", in_transaction=in_transaction)


def check_outside(call: str, *, in_transaction: bool) -> None:
    """Refuse a call within a transaction. Raises InternalError."""
    if in_transaction:
        raise InternalError(call, "it makes transactions of its own", "leave the transaction first")


def check_held(snapshot: Snapshot, hash_at: Callable[[bytes, int], bytes | None]) -> None:
    """Raise NotFound unless the heads of the snapshot are here."""
    for domain, seq, head in snapshot.vector:
        if hash_at(domain, seq) != head:
            what = f"snapshot {snapshot.id().hex()[:16]}"
            raise NotFound(what, f"record {seq} of {domain.hex()[:16]} that it names is not here", "pull that domain")


class Named:
    """What records name beside adds and tombstones: told of each record that counts, in any order across domains."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._pointers = Pointers()
        self._refs: set[Reference] = set()
        self._values: frozenset[bytes] | None = None  # encoded references that names point to

    def add(self, word: Word, *, settled: bool) -> None:
        """Note what a record names. What one that is not ``settled`` supersedes, stands as well."""
        match word.body:
            case PointerBody() as body:
                self._pointers.add(word.hash, body if settled else replace(body, superseded=()))
                self._values = None
            case EvidenceBody(ref=ref) | RequestBody(ref=ref):
                self._refs.add(ref)
            case PolicyBody(ref=ref) if word.domain == self._own:
                self._refs.add(ref)
            case VerdictBody(outputs=outputs):
                self._refs.update(outputs)
            case _:
                pass

    def __contains__(self, ref: Reference) -> bool:
        if self._values is None:
            names = self._pointers.names()
            self._values = frozenset(value for name in names for value in self._pointers.values(name))
        return ref in self._refs or ref.encoded() in self._values


class Retention:
    """The rule over one state of a store.

    Args:
        holdings: of the store, as they stand while this object is asked.
        admission: whose records count.
        own: the domain (32 bytes) that the store writes.
        unsettled: domains of which more is here than counts, or less: forked, with an erased record or without a body
            that counts. What they speak of is asked of the views.
        named: what records name.
        pins: by name.
        guards: of upper layers.
    """

    def __init__(
        self,
        holdings: Holdings,
        admission: Admission,
        own: bytes,
        unsettled: Collection[bytes],
        named: Named,
        pins: Mapping[str, Pinned],
        guards: Iterable[Guard] = (),
    ) -> None:
        self._holdings = holdings
        self._admission = admission
        self._own = own
        self._unsettled = unsettled
        self._named = named
        self._pinned = frozenset(one for one in pins.values() if isinstance(one, Reference))
        self._snapshots = [one for one in pins.values() if isinstance(one, Snapshot)]
        self._guards = tuple(guards)

    def reason(self, ref: Reference) -> str | None:
        """Why the bytes of an artifact stay; None: they may go."""
        words = self._holdings.words(ref)
        if self._is_erased(words):
            return None
        found = self._own_reason(ref, words)
        if found is not None:
            return found
        if self._is_linked(ref):
            return LINKED
        return next((guard.name for guard in self._guards if guard.objects(ref, words)), None)

    def _own_reason(self, ref: Reference, words: Sequence[Word]) -> str | None:
        """Why it stays for its own sake."""
        if self._is_visible(ref, words):
            return VISIBLE
        if ref in self._pinned:
            return PINNED
        if any(self._is_at(snapshot, ref, words) for snapshot in self._snapshots):
            return SNAPSHOT
        return NAMED if ref in self._named else None

    def _is_erased(self, words: Sequence[Word]) -> bool:
        return any(isinstance(word.body, EraseBody) and self._may_erase(word) for word in words)

    def _may_erase(self, word: Word) -> bool:
        standing = self._admission.standing(word.domain)
        return word.domain == self._own or (standing is not None and Role.CURATE in standing.roles_at(word.seq))

    def _is_visible(self, ref: Reference, words: Sequence[Word]) -> bool:
        if any(word.domain in self._unsettled for word in words):
            return self._holdings.is_visible(ref)
        return self._shows(ref, words)

    def _shows(self, ref: Reference, words: Sequence[Word]) -> bool:
        """Whether these records show it, to others or within this site."""
        published = [word for word in words if word.flags & PUBLISHED]
        return self._folded(ref, published) or (len(published) < len(words) and self._folded(ref, words))

    def _folded(self, ref: Reference, words: Sequence[Word]) -> bool:
        state = State(frozenset())
        for word in words:
            standing = self._admission.standing(word.domain)
            if standing is not None:
                state.apply(word.domain, standing, Entry(word.seq, word.body.kind, word.hash, word.body, False))
        return ref.encoded() in state.visibility.visible

    def _is_at(self, snapshot: Snapshot, ref: Reference, words: Sequence[Word]) -> bool:
        """Whether it is visible at a snapshot. Under another policy, or where that is in doubt: whether it was added."""
        heads = {domain: seq for domain, seq, _ in snapshot.vector}
        before = [word for word in words if word.seq <= heads.get(word.domain, 0)]
        is_plain = snapshot.policy_hash == self._admission.policy_hash
        if is_plain and not any(word.domain in self._unsettled for word in before):
            return self._shows(ref, before)
        return any(isinstance(word.body, ArtifactBody | EdgeBody | ReceiptBody) for word in before)

    def _is_linked(self, ref: Reference) -> bool:
        seen = {ref}
        left = [ref]
        while left:
            for namer in self._holdings.namers(left.pop()):
                if namer in seen:
                    continue
                if len(seen) > _NAMERS_MAX or self._stays(namer):
                    return True
                seen.add(namer)
                left.append(namer)
        return False

    def _stays(self, namer: Reference) -> bool:
        words = self._holdings.words(namer)
        return not self._is_erased(words) and self._own_reason(namer, words) is not None
