"""Sites that write, pull from one another, lose and repeat messages and crash between any two writes, over each store."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from node import Node, asked_of

from tidewarp import observe
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import ARTIFACT, LIFT, TOMBSTONE, ArtifactBody, LiftBody, TombstoneBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.federation.exchange import Exchange, ledger_of
from tidewarp.federation.messages import Commit, GetArtifact
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.contract import Entry
from tidewarp.store.fold import Fold

SITES = 3
LARGE = 66_000


class Crash(BaseException):
    """The process is gone."""


class InMemory:
    """A store that outlives its process, as a disk does, and can crash before each of its writes."""

    def __init__(self, folder, name):
        self.store = Node(name)

    def crash_at(self, write):
        count = 0

        def before_write():
            nonlocal count
            count += 1
            if count == write:
                raise Crash

        self.store.before_write = before_write

    def restart(self):
        self.store.before_write = lambda: None

    def end(self):
        self.store.close()


class OnDisk:
    """The real store in a file; it crashes at the steps of its commits, and is opened again."""

    def __init__(self, folder, name):
        self.path = folder / f"{name}.tw"
        self.store = open_store(self.path, create=True)

    def crash_at(self, write):
        count = 0

        def stage(name):
            nonlocal count
            count += 1
            if count == write:
                raise Crash

        observe.on_stage(stage)

    def restart(self):
        observe.on_stage(None)
        self.store.close()
        self.store = open_store(self.path)

    def end(self):
        observe.on_stage(None)
        self.store.close()


class Volatile:
    """The real store that keeps nothing; it does not crash."""

    def __init__(self, folder, name):
        self.store = MemoryStore(seed=os.urandom(32))

    def crash_at(self, write):
        pass

    def restart(self):
        pass

    def end(self):
        self.store.close()


class Exchanging(RuleBasedStateMachine):
    """The origin's log is the truth; what others hold of it is a prefix, with the bytes of what is published."""

    kind: type = InMemory

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.sites = [self.kind(self.folder, f"site{n}") for n in range(SITES)]
        self.written = 0

    def store(self, n):
        return self.sites[n].store

    @initialize()
    def begin(self):
        self.put(0, 5, True)

    @rule(site=st.integers(0, SITES - 1), size=st.sampled_from([5, LARGE]), publish=st.booleans())
    def put(self, site, size, publish):
        self.written += 1
        self.store(site).put(b"%d" % self.written + bytes(size), publish=publish)

    @rule(site=st.integers(0, SITES - 1), which=st.integers(0, 50), lift=st.booleans())
    def hide_or_lift(self, site, which, lift):
        """An event about any artifact that anybody has written, here or not."""
        artifact = Artifact(b"%d" % (which % (self.written + 1)) + bytes(5))
        body = LiftBody(artifact.reference()) if lift else TombstoneBody(artifact.reference())
        self.store(site).journal.append([Entry(LIFT if lift else TOMBSTONE, body.to_bytes(), PUBLISHED)])

    @rule(
        into=st.integers(0, SITES - 1),
        peer=st.integers(0, SITES - 1),
        limit=st.sampled_from([1, 2, 100]),
        lost=st.none() | st.integers(1, 12),
        repeated=st.booleans(),
        crash=st.none() | st.integers(1, 30),
    )
    def pull(self, into, peer, limit, lost=None, repeated=False, crash=None):
        """A pull of which the answer number ``lost`` is lost, or write number ``crash`` is never done."""
        if into == peer:
            return
        count = 0

        def send(question):
            nonlocal count
            count += 1
            if count == lost:
                raise TimeoutError("lost")
            return asked_of(self.store(peer), question)

        site = self.sites[into]
        if crash is not None:
            site.crash_at(crash)
        try:
            exchange = Exchange(site.store, f"site{peer}", send, io.BytesIO, lambda: 0, limit=limit)
            if repeated:
                repeat(exchange)
            finish = exchange.run()
            assert exchange.conflicts == 0
            assert {one.outcome for one in finish.domains} <= {"pulled", "unchanged", "incomplete"}
            assert bool(finish.incomplete) == (lost is not None and count >= lost)
        except Crash:
            pass
        site.restart()

    @precondition(lambda self: self.written > 3)
    @rule(site=st.integers(0, SITES - 1))
    def restart(self, site):
        self.sites[site].restart()

    @invariant()
    def everybody_holds_prefixes(self):
        """Of every domain, and the cursors are not beyond them."""
        logs = {self.store(n).domain: list(self.store(n).records(self.store(n).domain)) for n in range(SITES)}
        for n in range(SITES):
            store = self.store(n)
            sizes = {}
            for state in store.domains():
                held = list(store.records(state.id))
                sizes[state.id] = len(held)
                origin = logs[state.id][: len(held)]
                assert [one.header for one in held] == [one.header for one in origin]
                assert state.size == len(held)
                if state.id != store.domain:
                    self.bodies_and_bytes_are_there(store, held, origin)
            for peer in range(SITES):
                for origin, (seq, hash_) in ledger_of(store).cursors(f"site{peer}").items():
                    assert seq <= sizes[origin]
                    assert store.hash_at(origin, seq) == hash_

    def bodies_and_bytes_are_there(self, store, held, origin):
        for ours, theirs in zip(held, origin, strict=True):
            if ours.header.flags & PUBLISHED:
                assert (ours.state, ours.body) == (0, theirs.body)
                if ours.header.kind == ARTIFACT:
                    said = ArtifactBody.from_bytes(ours.body)
                    assert len(store.get(said.ref)) == said.size
            else:
                assert (ours.state, ours.body) == (1, None)

    def teardown(self):
        observe.on_stage(None)
        try:
            self.heal()
            vectors = [
                sorted((one.id, one.size, one.head) for one in self.store(n).domains() if one.size)
                for n in range(SITES)
            ]
            assert vectors[1:] == vectors[:-1]
            states = {state_of(self.store(n)) for n in range(SITES)}
            assert len(states) == 1
            for n in range(SITES):
                if hasattr(self.store(n), "state_hash"):
                    assert self.store(n).state_hash() in states
        finally:
            for site in self.sites:
                site.end()
            shutil.rmtree(self.folder)

    def heal(self):
        """Everybody pulls from everybody, undisturbed; then there is nothing left, and one question says so."""
        for _ in range(2):
            for into in range(SITES):
                for peer in range(SITES):
                    self.pull(into, peer, 100)


def state_of(store):
    """What the records say, folded from nothing."""
    fold = Fold()
    for domain in store.domains():
        for record in store.records(domain.id):
            if record.header.flags & PUBLISHED or record.state == 0:
                fold.add(record.header, record.body)
            else:
                fold.add(record.header, None)
    return fold.state_hash()


def repeat(exchange):
    """Let each event happen twice: the second time nothing may come of it."""
    machine = exchange.machine
    for name in ("on_committed", "on_bytes", "on_error"):
        setattr(machine, name, twice(getattr(machine, name)))
    for form, event in list(exchange._events.items()):
        exchange._events[form] = twice(event)
    assert GetArtifact not in exchange._events
    assert Commit not in exchange._events


def twice(event):
    def happen(asked, *rest):
        instructions = event(asked, *rest)
        assert event(asked, *rest) == []
        return instructions

    return happen


@pytest.mark.parametrize("kind", [InMemory, Volatile, OnDisk])
def test_sites_agree_whatever_happens_between_them(kind):
    """Prefixes at every moment; after all is healed: equal vectors, and one state, that of the records alone."""

    class Machine(Exchanging):
        pass

    Machine.kind = kind
    steps = 15 if kind is OnDisk else 30
    examples = settings().max_examples // (4 if kind is OnDisk else 1)
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=max(10, examples), stateful_step_count=steps, deadline=None)
    )
