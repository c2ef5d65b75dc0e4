"""What a store in memory keeps: pins, garbage collection, and its check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import PUBLISHED
from tidewarp.codec.batches import BODY
from tidewarp.codec.bodies import Body, EraseBody, decode_body
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, NotFound
from tidewarp.store.chain import check_name
from tidewarp.store.continuation import Incoming
from tidewarp.store.damage import MISSING_BYTES, ByteSource, FsckReport, Problem
from tidewarp.store.links import links
from tidewarp.store.memory.domains import Domains
from tidewarp.store.memory.state import State
from tidewarp.store.retention import GcReport, Guard, Named, Pinned, Retention, Word, check_budget, check_held
from tidewarp.store.speaking import HIDES

__all__ = ["Keeping"]

_SCOPES: tuple[Literal["published", "all"], ...] = ("published", "all")


class Keeping(Domains):
    """The rule of :mod:`~tidewarp.store.retention` over the whole state, from the beginning each time."""

    def pin(self, name: str, what: Pinned) -> None:
        """As the contract says."""
        if isinstance(what, Snapshot):
            check_held(what, self.hash_at)
        else:
            self.info(what)
        with self._writing("pin") as state:
            state.pins[check_name(name, "pin")] = what

    def unpin(self, name: str) -> None:
        """As the contract says."""
        with self._writing("unpin") as state:
            if state.pins.pop(name, None) is None:
                raise NotFound(f"pin {name!r:.80}", "there is no such pin", "tidewarp store snapshot DIR lists them")

    def pins(self) -> dict[str, Pinned]:
        """As the contract says."""
        self._check_open("pins")
        return dict(sorted(self._seen().pins.items()))

    def gc(
        self, budget_s: float, guards: Sequence[Guard] = (), dry_run: bool = False, *, clock: Clock | None = None
    ) -> GcReport:
        """As the contract says; each collection begins anew."""
        time = clock or WallClock()
        begun = time.now()
        check_budget(budget_s, in_transaction=self._in_transaction)
        kept: Counter[str] = Counter()
        freed: dict[Reference, int] = {}
        with self._writing("gc") as state:
            retention = _retention(self, state, guards)
            hidden = (ref for ref, events in state.events.items() if any(one.kind in HIDES for one, _ in events))
            left = [ref for ref in hidden if ref in state.artifacts]
            while left and time.now() < begun + budget_s:
                ref = left.pop()
                reason = retention.reason(ref)
                if reason is None:
                    freed[ref] = len(state.artifacts[ref].payload)
                else:
                    kept[reason] += 1
            if not dry_run:
                state.let_go(freed)
        seconds = time.now() - begun
        return GcReport(sum(freed.values()), len(freed), dict(kept), len(left), seconds, not left)

    def fsck(
        self, repair: bool = False, sources: Sequence[ByteSource] = (), *, clock: Clock | None = None
    ) -> FsckReport:
        """As the contract says: nothing here was written and read back, so there is nothing to repair."""
        time = clock or WallClock()
        begun = time.now()
        self._check_open("fsck")
        state = self._seen()
        wrong = [ref for ref, artifact in state.artifacts.items() if artifact.reference() != ref]
        problems = tuple(
            Problem("artifact", f"artifact {ref.hex()}", "its bytes do not have its name") for ref in wrong
        )
        shown = self._views.view(None, "published").visible()
        absent = [ref for ref in shown if ref not in state.artifacts and not self._is_erased(state, ref)]
        problems += tuple(Problem(MISSING_BYTES, f"artifact {ref.hex()}", "its bytes have not come") for ref in absent)
        records = sum(len(log.records) for log in state.logs.values())
        checked = {"records": records, "artifacts": len(state.artifacts)}
        return FsckReport(checked, problems, time.now() - begun)


class Holdings:
    """What the rule of collections asks, over a state; :class:`~tidewarp.store.retention.Holdings`."""

    def __init__(self, store: Keeping, state: State) -> None:
        self._store = store
        self._state = state
        self._namers: dict[Reference, list[Reference]] = {}
        for source, artifact in state.artifacts.items():
            for ref in links(artifact.tag, artifact.payload):
                self._namers.setdefault(ref, []).append(source)

    def words(self, ref: Reference) -> list[Word]:
        """As the protocol says."""
        logs = self._state.logs
        found = self._state.events.get(ref, [])
        return [
            Word(one.domain, one.seq, one.flags, logs[one.domain].records[one.seq - 1].hash, body)
            for one, body in sorted(found, key=lambda said: said[0][:2])
        ]

    def namers(self, ref: Reference) -> list[Reference]:
        """As the protocol says."""
        return self._namers.get(ref, [])

    def is_visible(self, ref: Reference) -> bool:
        """As the protocol says."""
        return any(self._store._views.view(None, scope).is_visible(ref) for scope in _SCOPES)


def _said(one: Incoming) -> Body | None:
    """What a record says; nothing where its body is not here, or is of no form that its kind has."""
    try:
        return None if one.body is None else decode_body(one.header.kind, one.body)
    except CodecError:
        return None


def _retention(store: Keeping, state: State, guards: Sequence[Guard]) -> Retention:
    admission, rivals = store._views.admission, store._views.rivals
    named = Named(store.domain)
    unsettled = {header.domain for header in rivals}
    for log in state.logs.values():
        for one in log.records:
            body = _said(one)
            is_awaited = one.state != BODY and one.header.flags & PUBLISHED
            if is_awaited or (isinstance(body, EraseBody) and body.ref is None):
                unsettled.add(log.domain)
            elif body is not None and admission.standing(log.domain) is not None:
                word = Word(log.domain, one.header.seq, one.header.flags, one.hash, body)
                named.add(word, settled=log.domain not in unsettled)
    return Retention(Holdings(store, state), admission, store.domain, unsettled, named, state.pins, guards)
