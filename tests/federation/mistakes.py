"""Mistakes to plant into the package, each of which a simulated federation has to find: see ``test_simulator``.

Each is a function of pytest's monkeypatch, named after what it does wrong. The first three are how the published draft
reads where it is taken literally.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tidewarp.codec import genesis
from tidewarp.codec.batches import WITHHELD
from tidewarp.codec.bodies import TOMBSTONE
from tidewarp.codec.heads import SignedHead
from tidewarp.errors import StoreFull
from tidewarp.federation import answers
from tidewarp.federation.exchange import Exchange
from tidewarp.federation.ledger import Ledger
from tidewarp.federation.messages import GetHeads, GetRecords
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.pull.machine import PullMachine
from tidewarp.store import MemoryStore, SqliteStore, opening
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.connection import failure
from tidewarp.store.fold import View
from tidewarp.store.fold.pointers import Pointers
from tidewarp.store.fold.slots import Slots
from tidewarp.store.fold.visibility import Visibility
from tidewarp.store.handle import Handle
from tidewarp.store.memory.state import State
from tidewarp.store.retention import Retention

__all__ = ["LITERAL", "MISTAKES", "Mistake"]

Mistake = Callable[[pytest.MonkeyPatch], None]
STORES = (MemoryStore, SqliteStore)
DOMAIN_ROW = 6  # of the state hash


def a_tombstone_deletes_what_is_here(patch: pytest.MonkeyPatch) -> None:
    """It is applied in the pass in which it arrives, to whoever added it; what comes later is there again."""
    hide = Visibility.hide

    def deleting(self: Any, ref: bytes, domain: bytes) -> None:
        self._marks.pop(ref, None)
        hide(self, ref, domain)

    patch.setattr(Visibility, "hide", deleting)


def the_last_to_arrive_has_the_slot(patch: pytest.MonkeyPatch) -> None:
    """Numbers of two journals tie, and then it is the order of arrival."""

    def shown(self: Any, slot: bytes, visibility: Any) -> Any:
        edges = self._edges.get(slot, {})
        found = [(ref, edges[ref]) for ref in edges if ref in visibility.visible]
        return found[-1:] if found and found[0][1].type in self._latest else found

    patch.setattr(Slots, "shown", shown)


def what_was_asked_for_is_taken_for_had(patch: pytest.MonkeyPatch) -> None:
    """A cursor of the highest record, which moves when it is asked for: a lost batch is lost for ever."""
    highest: dict[tuple[bytes, str], int] = {}
    ask = Exchange._ask

    def asking(self: Any, question: Any) -> Any:
        if isinstance(question, GetRecords):
            key = self._store.domain, question.domain.hex()
            highest[key] = max(highest.get(key, 0), question.after + question.limit)
        return ask(self, question)

    begin = Exchange.__init__

    def beginning(self: Any, store: Any, *rest: Any, **options: Any) -> None:
        begin(self, store, *rest, **options)
        on_heads = self._events[GetHeads]

        def skipping(asked: Any, answer: Any) -> Any:
            try:
                rows = json.loads(answer.whole)
            except ValueError:  # it was damaged on its way
                return on_heads(asked, answer)
            news = [one for one in rows if one["size"] > highest.get((store.domain, one["domain"]), 0)]
            return on_heads(asked, answer._replace(body=json.dumps(news).encode()))

        self._events[GetHeads] = skipping

    patch.setattr(Exchange, "_ask", asking)
    patch.setattr(Exchange, "__init__", beginning)


LITERAL = [
    a_tombstone_deletes_what_is_here,
    the_last_to_arrive_has_the_slot,
    what_was_asked_for_is_taken_for_had,
]


def a_cursor_is_written_before_its_records(patch: pytest.MonkeyPatch) -> None:
    """In a transaction of its own: a crash between the two loses records for ever."""
    commit = Exchange._commit

    def committing(self: Any, one: Any) -> Any:
        with self._store.transaction():
            self._ledger.took(self._peer, one, 0)
        return commit(self, one)

    patch.setattr(Exchange, "_commit", committing)


def commits_are_not_fsynced(patch: pytest.MonkeyPatch) -> None:
    """synchronous = NORMAL, which survives the end of a process and not of the power."""
    durable = opening.set_durable

    def careless(db: Any, path: Any) -> None:
        durable(db, path)
        db.execute("PRAGMA synchronous = NORMAL")

    patch.setattr(opening, "set_durable", careless)


def an_fsync_that_failed_is_forgiven(patch: pytest.MonkeyPatch) -> None:
    """The handle goes on, as if the kernel had kept the pages."""

    def forgiving(self: Any, error: Exception, where: str, seq: int | None = None) -> None:
        raise failure(error, self.path, where, seq) from error

    patch.setattr(Handle, "fail", forgiving)


def a_full_disk_is_not_mentioned(patch: pytest.MonkeyPatch) -> None:
    """A put that found no room returns as if it had."""
    put = SqliteStore.put

    def silent(self: Any, source: Any, **options: Any) -> Any:
        try:
            return put(self, source, **options)
        except StoreFull:
            return MemoryStore().put(source, tag=options.get("tag"))

    patch.setattr(SqliteStore, "put", silent)


def the_genesis_has_no_domain(patch: pytest.MonkeyPatch) -> None:
    """All journals begin with one hash."""
    everywhere(patch, genesis, lambda domain: hashlib.sha256(b"ASLLOG/genesis").digest())


def a_curator_hides_what_is_here_when_it_arrives(patch: pytest.MonkeyPatch) -> None:
    """In place of the adds that its record names."""
    curate = Visibility.curate

    def covering(self: Any, ref: bytes, hash: bytes, scope: int, bounds: Any) -> None:
        here = {domain: mark.added for domain, mark in self._marks.get(ref, {}).items()}
        curate(self, ref, hash, scope, here)

    patch.setattr(Visibility, "curate", covering)


def a_lift_needs_its_tombstone_here(patch: pytest.MonkeyPatch) -> None:
    """A curator's lift that comes before the tombstone of another says nothing."""
    uncurate = Visibility.uncurate

    def needing(self: Any, ref: bytes, hash: bytes, scope: int) -> None:
        if hash in self._stones.get(ref, {}):
            uncurate(self, ref, hash, scope)

    patch.setattr(Visibility, "uncurate", needing)


def a_name_has_the_value_that_came_last(patch: pytest.MonkeyPatch) -> None:
    """In place of all that nobody superseded."""

    def last(self: Any, name: str) -> list[bytes]:
        superseded = self._superseded.get(name, ())
        return [value for record, value in self._given.get(name, {}).items() if record not in superseded][-1:]

    patch.setattr(Pointers, "values", last)


def rows_are_hashed_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """The state hash depends on the order of arrival."""
    rows = View.rows

    def as_they_come(self: Any) -> list[bytes]:
        return [*self._now().rows(), *(row for row in rows(self) if row[0] == DOMAIN_ROW)]

    patch.setattr(View, "rows", as_they_come)


def shards_are_part_of_the_state(patch: pytest.MonkeyPatch) -> None:
    """A private matter of a site gets into what sites compare."""
    for store in STORES:
        state_hash = store.state_hash

        def leaking(self: Any, scope: Any = "published", state_hash: Any = state_hash) -> bytes:
            return hashlib.sha256(state_hash(self, scope) + repr(self.shard_map).encode()).digest()

        patch.setattr(store, "state_hash", leaking)


def a_snapshot_names_its_site(patch: pytest.MonkeyPatch) -> None:
    """Its id depends on where it was taken."""
    for store in STORES:
        snapshot = store.snapshot

        def local(self: Any, snapshot: Any = snapshot) -> Any:
            return snapshot(self)._replace(policy_hash=self.domain)

        patch.setattr(store, "snapshot", local)


def a_collection_takes_what_is_visible(patch: pytest.MonkeyPatch) -> None:
    """Whatever a tombstone of anybody speaks of."""
    patch.setattr(Retention, "_is_visible", lambda self, ref, words: False)


def a_collection_takes_what_is_linked(patch: pytest.MonkeyPatch) -> None:
    """Hidden, and named by an edge that is shown."""
    patch.setattr(Retention, "_is_linked", lambda self, ref: False)


def a_collection_takes_what_is_pinned(patch: pytest.MonkeyPatch) -> None:
    """It does not look at pins."""
    begin = Retention.__init__

    def blind(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self._pinned, self._snapshots = frozenset(), []

    patch.setattr(Retention, "__init__", blind)


def what_is_erased_stays(patch: pytest.MonkeyPatch) -> None:
    """The record is written, and the bytes are kept."""
    patch.setattr(State, "let_go", lambda self, refs: None)
    patch.setattr(ArtifactTable, "erase", lambda self, db, ref: None)


def records_come_without_their_bytes(patch: pytest.MonkeyPatch) -> None:
    """Parents become visible before their children."""
    for store in STORES:
        adopt = store.adopt

        def bare(self: Any, domain: bytes, items: Any, head: Any, *, adopt: Any = adopt, key: bytes, **_: Any) -> Any:
            return adopt(self, domain, [one._replace(artifact=None) for one in items], head, key=key)

        patch.setattr(store, "adopt", bare)


def why_bytes_are_missing_is_not_noted(patch: pytest.MonkeyPatch) -> None:
    """So nobody asks for them again."""
    took = Ledger.took

    patch.setattr(Ledger, "took", lambda self, peer, one, at_ms: took(self, peer, replace(one, absent=()), at_ms))


def what_was_published_is_withheld(patch: pytest.MonkeyPatch) -> None:
    """Tombstones are given as headers."""
    shown = answers._shown

    def stub(record: Any, **options: Any) -> Any:
        is_stone = record.header.kind == TOMBSTONE
        return shown(record._replace(state=WITHHELD, body=None) if is_stone else record, **options)

    patch.setattr(answers, "_shown", stub)


def what_is_not_published_is_given(patch: pytest.MonkeyPatch) -> None:
    """Everybody is an auditor."""
    shown = answers._shown
    patch.setattr(answers, "_shown", lambda record, **options: shown(record, is_auditor=True))


def an_answer_counts_as_often_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Whatever is being waited for."""
    patch.setattr(PullMachine, "_resume", lambda self, asked, value: self._go(value))


def signatures_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A head is believed as it comes."""
    patch.setattr(SignedHead, "verify", lambda self, keys: None)


def half_a_batch_is_shown_to_nobody(patch: pytest.MonkeyPatch) -> None:
    """Who alone has the rest of a journal does not tell its site, which begins another."""
    patch.setattr(PeerHandler, "_bridges", lambda self: {})


def a_fork_freezes_nobody(patch: pytest.MonkeyPatch) -> None:
    """It is found again at each pull."""
    patch.setattr(Ledger, "frozen", lambda self: {})


def everywhere(patch: pytest.MonkeyPatch, function: Any, other: Any) -> None:
    """Put ``other`` in place of ``function`` wherever the package has it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tidewarp"):
            for attribute, value in list(vars(module).items()):
                if value is function:
                    patch.setattr(module, attribute, other)


MISTAKES: list[Mistake] = [
    *LITERAL,
    a_cursor_is_written_before_its_records,
    commits_are_not_fsynced,
    an_fsync_that_failed_is_forgiven,
    a_full_disk_is_not_mentioned,
    the_genesis_has_no_domain,
    a_curator_hides_what_is_here_when_it_arrives,
    a_lift_needs_its_tombstone_here,
    a_name_has_the_value_that_came_last,
    rows_are_hashed_as_they_come,
    shards_are_part_of_the_state,
    a_snapshot_names_its_site,
    a_collection_takes_what_is_visible,
    a_collection_takes_what_is_linked,
    a_collection_takes_what_is_pinned,
    what_is_erased_stays,
    records_come_without_their_bytes,
    why_bytes_are_missing_is_not_noted,
    what_was_published_is_withheld,
    what_is_not_published_is_given,
    an_answer_counts_as_often_as_it_comes,
    signatures_are_not_checked,
    half_a_batch_is_shown_to_nobody,
    a_fork_freezes_nobody,
]
