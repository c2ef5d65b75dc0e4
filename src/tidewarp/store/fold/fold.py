"""The fold: records of many domains go in as they come, and the state is what a fold from nothing would make of them.

Three rules make it so. A record changes nothing but the history of its domain (:mod:`.branches`); what counts of a
history is a function of that history and of the resolver's; and the effect of records depends on their order inside
each domain only (:mod:`.state`). So what counts is applied domain by domain, as it grows. Where what counted does so no
longer, because a domain has forked or erased a record, all is applied anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tidewarp.codec import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.bodies import ResolveBody, decode_body
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import OperatorError, SnapshotIncomplete
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.fold.branches import Branches, Entry, Settled, settle
from tidewarp.store.fold.conflicts import Fork, fork_id
from tidewarp.store.fold.state import FOLDED_KINDS, State
from tidewarp.store.fold.view import Head, View

__all__ = ["Fold"]

_NO_CHOICES: Mapping[bytes, bytes] = {}


class _Applied(NamedTuple):
    """What of a domain the state holds: how many records, and which of them were erased."""

    size: int
    erased: frozenset[int]

    def begins(self, settled: Settled) -> bool:
        """Whether what counts now goes on from here, and nothing of it was erased since."""
        return self.erased == {seq for seq in settled.erased if seq <= self.size}


class Fold(View):
    """The view of all records so far, which grows with them.

    Args:
        admission: whose records count, and for what.
        internal: fold also the records that are not published. Other nodes do not have their bodies, so the state
            is then this node's own.
    """

    def __init__(self, admission: Admission = OPEN, *, internal: bool = False) -> None:
        self._reached: dict[bytes, Head] = {}
        super().__init__(admission, State(admission.latest), self._reached)
        self._internal = internal
        self._histories: dict[bytes, Branches] = {}
        self._applied: dict[bytes, _Applied] = {}
        self._grown: set[bytes] = set()  # domains with news since the state was made
        self._choices: Mapping[bytes, bytes] = _NO_CHOICES
        self._last_word: Mapping[bytes, bytes] = _NO_CHOICES  # the choices of the resolver of now

    def add(self, header: RecordHeader, body: bytes | None) -> None:
        """Take a verified record whose predecessor is here. The record itself may be here too, or a rival of it.

        Args:
            header: chain and signatures are the caller's business.
            body: the bytes that the header commits to; None where they are withheld, erased or not yet here.

        Raises:
            CodecError: the body is none of its kind; nothing has changed.
            InternalError: the predecessor is not here.
        """
        entry = self._entry(header, body)
        history = self._histories.get(header.domain) or Branches(header.domain)
        if history.add(entry, header.prev):
            self._histories[header.domain] = history
            self._grown.add(header.domain)
            if header.domain in self._applied and entry.seq <= self._applied[header.domain].size:
                self._forget()  # a rival of what the state holds, or a body that it went without

    def cut(self, snapshot: Snapshot) -> View:
        """The view of the records up to the snapshot's heads, whatever came later.

        Raises:
            SnapshotIncomplete: records up to a head are not here, or lack a body that the state depends on.
            OperatorError: the snapshot was made under another policy.
        """
        if snapshot.policy_hash != self.admission.policy_hash:
            raise OperatorError(
                f"snapshot {snapshot.id().hex()[:16]}",
                f"it was made under policy {snapshot.policy_hash.hex()[:16]}, here is {self.admission.policy_hash.hex()[:16]}",
                "fold the records under the admission of its policy",
            )
        settled: dict[bytes, Settled] = {}
        missing: list[tuple[bytes, int, int]] = []
        for domain, seq, head in snapshot.vector:
            history = self._histories.get(domain) or Branches(domain)
            path = history.path_to(seq, head)
            if path is None:
                missing.append((domain, min(seq, history.size + 1), seq))
                continue
            settled[domain] = settle(path)
            reached = len(settled[domain].entries)
            if reached < seq:
                missing.append((domain, reached + 1, reached + 1))
        if missing:
            domain, first, last = missing[0]
            raise SnapshotIncomplete(
                f"snapshot {snapshot.id().hex()[:16]}",
                f"of {len(missing)} gaps the first is records {first} to {last} of {domain.hex()[:16]}",
                "pull these domains up to the snapshot's heads",
                missing,
            )
        state = State(self.admission.latest)
        heads: dict[bytes, Head] = {}
        choices = self._chosen_before(settled.get) | self._choices_of(self.admission.resolver, settled.get)
        for domain, part in settled.items():
            self._apply(state, heads, domain, part, choices)
        return View(self.admission, state, heads, self.forks())

    def forks(self) -> tuple[Fork, ...]:
        """Where domains that count have forked as far as the records here show, resolved or not; ascending."""
        counted = (one for domain, one in self._histories.items() if self.admission.standing(domain) is not None)
        return tuple(sorted(fork for history in counted for fork in history.forks()))

    def missing_bodies(self) -> list[tuple[bytes, int]]:
        """Domain and seq of each record behind which nothing counts until its body comes, or an erasure of it."""
        missing = []
        for domain, history in sorted(self._histories.items()):
            if not history.plain and self.admission.standing(domain) is not None:
                path = self._path(history)
                counted = len(settle(path).entries)
                if counted < len(path):
                    missing.append((domain, counted + 1))
        return missing

    def _entry(self, header: RecordHeader, body: bytes | None) -> Entry:
        decoded = None if body is None else decode_body(header.kind, body)
        published = bool(header.flags & PUBLISHED)
        matters = header.kind in FOLDED_KINDS and (published or self._internal)
        return Entry(
            header.seq,
            header.kind,
            record_hash(header.to_bytes()),
            decoded if matters else None,
            matters and published and body is None,
        )

    def _now(self) -> State:
        if self._grown:
            self._catch_up()
        return self._state

    def _catch_up(self) -> None:
        resolver, former = self.admission.resolver, self.admission.former_resolvers
        if resolver in self._grown or not self._grown.isdisjoint(former):
            before = self._last_word, self._choices
            self._last_word = self._choices_of(resolver, self._known)
            self._choices = self._chosen_before(self._known) | self._last_word
            if (self._last_word, self._choices) != before:
                self._forget()
        grown = self._settled_growth()
        if not all(self._applied[domain].begins(grown[domain]) for domain in grown.keys() & self._applied.keys()):
            self._forget()
            grown = self._settled_growth()
        for domain, settled in grown.items():
            applied = self._applied.get(domain)
            self._apply(self._state, self._reached, domain, settled, self._choices, applied.size if applied else 0)
            self._applied[domain] = _Applied(len(settled.entries), settled.erased)
        self._grown.clear()

    def _settled_growth(self) -> dict[bytes, Settled]:
        return {domain: self._settled(domain) for domain in self._grown if self.admission.standing(domain) is not None}

    def _forget(self) -> None:
        """Begin the state anew."""
        self._state = State(self.admission.latest)
        self._reached.clear()
        self._applied.clear()
        self._grown.update(self._histories)

    def _settled(self, domain: bytes) -> Settled:
        """What counts of a domain."""
        history = self._histories[domain]
        path = self._path(history)
        return Settled(path) if history.plain else settle(path)

    def _known(self, domain: bytes) -> Settled | None:
        """What counts of a domain, if there is anything of it."""
        return self._settled(domain) if domain in self._histories else None

    def _path(self, history: Branches) -> Sequence[Entry]:
        """The records up to an open fork.

        Nobody resolves one of the resolver's own, nor a former resolver one of his: his word would hang on itself.
        """
        if history.domain == self.admission.resolver:
            return history.path(_NO_CHOICES)
        return history.path(self._last_word if history.domain in self.admission.former_resolvers else self._choices)

    def _chosen_before(self, settled: Callable[[bytes], Settled | None]) -> dict[bytes, bytes]:
        """The choices of former resolvers; where these differ, that of the greatest domain."""
        choices: dict[bytes, bytes] = {}
        for domain, last in self.admission.former_resolvers.items():
            choices |= self._choices_of(domain, settled, last)
        return choices

    def _choices_of(
        self, domain: bytes | None, settled: Callable[[bytes], Settled | None], last: int | None = None
    ) -> dict[bytes, bytes]:
        """Conflict id and chosen record hash of each resolution of a domain, up to its record ``last``.

        The last one on a conflict counts. ``settled`` says what counts of a domain.
        """
        standing = None if domain is None else self.admission.standing(domain)
        part = None if domain is None else settled(domain)
        if part is None or standing is None:
            return {}
        said = [entry.body for entry in part.effective() if last is None or entry.seq <= last]
        return {body.conflict: body.choice for body in said if isinstance(body, ResolveBody) and standing.admits(body)}

    def _apply(
        self,
        state: State,
        heads: dict[bytes, Head],
        domain: bytes,
        settled: Settled,
        choices: Mapping[bytes, bytes],
        after: int = 0,
    ) -> None:
        """Bring state and heads up to what counts of a domain, of which the first ``after`` records are in."""
        standing = self.admission.standing(domain)
        if standing is None or len(settled.entries) == after:
            return
        for entry in settled.effective(after):
            state.apply(domain, standing, entry)
        resolved = after > 0 and heads[domain].resolved
        if choices and domain != self.admission.resolver and not resolved:
            chosen = set(choices.values())
            resolved = any(
                choices.get(fork_id(domain, entry.seq)) == entry.hash
                for entry in settled.entries[after:]
                if entry.hash in chosen
            )
        last = settled.entries[-1]
        heads[domain] = Head(domain, last.seq, last.hash, resolved)
