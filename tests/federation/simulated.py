"""A federation in one thread: real stores, the real exchange, and a network and disks that fail when they are told to.

A *plan* is a list of small numbers; :func:`run` makes deeds of them and checks after each what has to hold, and at the
end that all sites agree. Nothing here knows a clock, and chance is where a plan comes from: one seed is one run.

    python tests/federation/simulated.py 17      # plays seed 17, and says what is done
    python tests/federation/simulated.py '[[false, false, false], "all", [[0, 1, 2, 3, 4, 5]]]'      # this plan
"""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from disks import Death, Disk, FileDisk, MemoryDisk, seed_of, signatures_once

from tidewarp.codec.artifacts import TAG_POLICY, Artifact
from tidewarp.codec.bodies import ARTIFACT, ERASE, POLICY, ArtifactBody, PolicyBody, decode_body
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.records import PUBLISHED, domain_of
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import (
    Corrupt,
    NotFound,
    OwnDomainBehind,
    OwnDomainForked,
    SnapshotIncomplete,
    StoreFailed,
    StoreFull,
    TidewarpError,
)
from tidewarp.federation import FederationReplay
from tidewarp.federation.conflicts import chosen_branches, conflicts, resolve
from tidewarp.federation.exchange import Exchange, ledger_of
from tidewarp.federation.messages import GetMissing, HttpRequest, HttpResponse, Question
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.policy import Member, Policy, to_be_pulled
from tidewarp.federation.shell.site import Site
from tidewarp.store import ShardMap
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.fold.conflicts import FORK
from tidewarp.testing import ManualClock

__all__ = ["DIGITS", "THEMES", "Disks", "Federation", "Plan", "run"]

SITES_MAX = 5
_WORKER = frozenset({Role.PRODUCE, Role.EXECUTE})
_CURATOR = _WORKER | {Role.CURATE, Role.AUDIT}
_ROLES = [_WORKER, _CURATOR | {Role.RESOLVE}, _CURATOR, _WORKER, frozenset({Role.AUDIT})]
KEYS = [public_key_of(seed_of(number)) for number in range(SITES_MAX)]
DOMAINS = [domain_of(key) for key in KEYS]
RULES = Policy(
    {
        domain: Member(f"site{number}", Standing(Decision.ACCEPTED, frozenset(_ROLES[number])))
        for number, domain in enumerate(DOMAINS)
    },
    frozenset({1}),
    DOMAINS[1],
)
"""Five members: one who resolves forks, two who curate, and one whose adds do not count."""

PAYLOADS = [b"a", b"b" * 40, b"c" * 400, b"d" * 66_000]
"""One in a row, two in blocks, of which the last travels alone."""

DIGITS = (24, 5, 8, 8, 64, 32)
"""What, who, two numbers that the deed reads as it likes, the crash, the network: below 2**24 in all."""

_WRITES = ["put", "put", "put", "put", "link", "hide", "hide", "lift", "point", "erase"]
_PULLS = ["pull"] * 7
_KEEPING = ["collect", "pin", "unpin", "look_back", "restart", "reshard", "partition"]
_CURATING = ["hide", "lift", "curate", "ban", "uncurate"]
_FORKING = ["put", "put", "put", "restore", "resolve", "link"]
THEMES: dict[str, list[str]] = {
    "all": [*_WRITES, *_PULLS, *_KEEPING],
    "curating": ["put", "put", "put", *_CURATING, *_CURATING, *_PULLS, "partition", "look_back"],
    "naming": [*["link"] * 4, *["point"] * 3, "hide", "lift", *_PULLS, "look_back"],
    "collecting": [*["put"] * 4, *["hide"] * 3, "lift", "erase", "link", *_PULLS[:5], *["collect"] * 4, *_KEEPING[1:6]],
    "forking": [*_FORKING, *_FORKING, *_PULLS, *_PULLS, "back_up", "hide", "restart"],
    "recovering": [
        *["put"] * 4,
        "link",
        "hide",
        *_PULLS[:4],
        *["cut_short"] * 4,
        "back_up",
        *["recover"] * 3,
        "restart",
    ],
    "lying": [*_WRITES[:7], *_PULLS, *["lie"] * 4, "restart"],
    "faults": [*_WRITES, *_PULLS, "fill", "fail_fsync", "cut_power", "cut_power", "flip", "collect", "restart"],
}
"""What a schedule is about: the deeds that its first digit chooses from."""

_VERIFY = SignedHead.verify  # as it is before anybody plants a mistake


class Sent(NamedTuple):
    """What becomes of a question: how many of a pull get through, and what happens to the next one."""

    before: int
    fault: str  # "", "request lost", "answer lost", "answer damaged", "peer dies", "stale", "head forged"


class Node:
    """A site, and what it has acknowledged and been told. ``number`` is its place in the policy."""

    def __init__(self, number: int, disk: Disk) -> None:
        self.number = number
        self.disk = disk
        self.domain = DOMAINS[number]
        self.known: list[bytes] = []
        """Record hashes of the own journal, as far as it was acknowledged."""
        self.let_go: set[Reference] = set()
        """Artifacts whose bytes a collection or an erasure may have taken."""
        self.backup: tuple[Any, list[bytes], set[Reference], dict[bytes, int]] | None = None
        self.seen: dict[bytes, int] = {}
        """By foreign domain, how many records were looked at."""
        self.puts: list[Reference] = []
        self.asked: int | None = None
        """The peer that it asked last."""
        self.site: Site

    @property
    def store(self) -> Any:
        """Its store."""
        return self.disk.store

    def open(self) -> None:
        """Begin to be a site, over the store as it was opened."""
        self.site = Site(self.store, Path("/nowhere"), read_only=False)

    def about(self, a: int, b: int) -> Reference:
        """Something that it has put or, for one ``b`` in two, anything: here or not, of whoever."""
        return self.puts[a % len(self.puts)] if self.puts and b < 4 else _ref(a, b)

    def may_write(self) -> bool:
        """May records be added to its domain?"""
        try:
            self.site.check_undivided()
        except (OwnDomainBehind, OwnDomainForked):
            return False
        return True


class Federation:
    """Sites on these disks, from the same beginning each time.

    Args:
        disks: one for each site, in the order of the policy.
        theme: what it is about. Where backups are put back, nothing is withheld: no site gives a body back that it never had.
    """

    def __init__(self, disks: Sequence[Disk], theme: str = "all") -> None:
        self.nodes = [Node(number, disk) for number, disk in enumerate(disks)]
        self.written: dict[bytes, dict[bytes, int]] = {domain: {} for domain in DOMAINS}
        """By domain and record hash, the place of every record that was ever durable."""
        self.states: dict[bytes, bytes] = {}
        """State hash by snapshot id, of all that was ever seen."""
        self.snapshots: list[tuple[Snapshot, bytes]] = []
        self.sides = [0] * len(self.nodes)
        self.answers: dict[tuple[int, str], HttpResponse] = {}
        self.stones: list[tuple[Reference, Any, bytes]] = []
        """What curators have hidden: what, in which scope, and the hash of the record."""
        self.forks: set[bytes] = set()
        """Domains that were written to behind an old backup."""
        self.is_forking = theme == "forking"
        self.is_restoring = theme in ("forking", "recovering")
        self.count = 0
        for node in self.nodes:
            node.disk.start(_beginning(node.number, node.disk))
            node.open()
            self.note(node)
            node.backup = node.disk.image(), node.known[:], set(), {}

    # --- deeds, by the names in THEMES; a node, two numbers, the network

    def put(self, node: Node, a: int, b: int, c: int) -> None:
        """Keep an artifact, one in eight for itself alone."""
        publish = self.is_restoring or b != 7
        node.puts.append(node.store.put(PAYLOADS[a % 4], tag=7 if b == 6 else None, publish=publish))

    def link(self, node: Node, a: int, b: int, c: int) -> None:
        """Keep an edge: of one of two types, with one of four payloads in one slot."""
        node.store.put_edge(_edge(a, b))

    def hide(self, node: Node, a: int, b: int, c: int) -> None:
        """Hide what anybody may have put, here or not."""
        node.store.tombstone(node.about(a, b))

    def lift(self, node: Node, a: int, b: int, c: int) -> None:
        """Show it again."""
        node.store.lift(node.about(a, b))

    def curate(self, node: Node, a: int, b: int, c: int) -> None:
        """Hide all adds that are here, of whoever; without the role it is a record without effect."""
        node.store.tombstone(_ref(a, b), scope="federation")
        self.stones.append((_ref(a, b), "federation", node.store.journal.head))

    def ban(self, node: Node, a: int, b: int, c: int) -> None:
        """And those that come later."""
        node.store.tombstone(_ref(a, b), scope="sticky")
        self.stones.append((_ref(a, b), "sticky", node.store.journal.head))

    def uncurate(self, node: Node, a: int, b: int, c: int) -> None:
        """Take back what any curator has hidden, here already or not."""
        if self.stones:
            ref, scope, stone = self.stones[-1 - c % len(self.stones)]
            node.store.lift(ref, scope=scope, tombstone=stone)

    def point(self, node: Node, a: int, b: int, c: int) -> None:
        """Give a name a value, in place of what the last records of its own journal gave it."""
        node.store.point(f"n{b % 2}", _ref(a, b), node.known[len(node.known) - c % 3 :])

    def erase(self, node: Node, a: int, b: int, c: int) -> None:
        """Drop the bytes of an artifact for good."""
        ref = node.about(a, b)
        with suppress(NotFound):
            node.let_go.add(ref)
            node.store.erase(ref)
            assert node.store.has([ref]) == [False], "an erased artifact is here"

    def pin(self, node: Node, a: int, b: int, c: int) -> None:
        """Keep an artifact, or all that is visible now."""
        with suppress(NotFound, TidewarpError):
            what = node.store.snapshot() if c % 2 else _ref(a, b)
            node.store.pin(f"p{a % 2}", what)

    def unpin(self, node: Node, a: int, b: int, c: int) -> None:
        """Keep it no more."""
        with suppress(NotFound):
            node.store.unpin(f"p{a % 2}")

    def look_back(self, node: Node, a: int, b: int, c: int) -> None:
        """What was at a snapshot, is at it wherever its records are."""
        snapshot = node.store.snapshot()
        self.snapshots.append((snapshot, node.store.state_hash()))
        wanted, state = self.snapshots[(a + 8 * b) % len(self.snapshots)]
        with suppress(SnapshotIncomplete):
            assert node.store.view(wanted).state_hash() == state, "a snapshot is not what it was"

    def reshard(self, node: Node, a: int, b: int, c: int) -> None:
        """Put the rows into another number of shards."""
        before = node.store.state_hash()
        node.store.reshard(ShardMap.even((1, 2, 7, 64)[a % 4]))
        assert node.store.state_hash() == before

    def collect(self, node: Node, a: int, b: int, c: int) -> None:
        """Collect garbage. What somebody needs stays."""
        store, refs = node.store, _all_refs()
        kept = self._needed(node)
        before = [ref for ref, held in zip(refs, store.has(refs), strict=True) if held]
        node.let_go |= {ref for ref in before if ref not in kept}
        store.gc(60.0, clock=ManualClock())
        gone = {ref for ref, held in zip(before, store.has(before), strict=True) if not held}
        assert gone.isdisjoint(kept), "a collection took what is needed"

    def restart(self, node: Node, a: int, b: int, c: int) -> None:
        """End the process in order, and begin another."""
        node.disk.restart()
        node.open()

    def partition(self, node: Node, a: int, b: int, c: int) -> None:
        """Two sides that do not hear each other, as the bits of a number say; 0 heals."""
        self.sides = [c >> number & 1 for number in range(len(self.nodes))]

    def back_up(self, node: Node, a: int, b: int, c: int) -> None:
        """Copy the disk, in order."""
        node.disk.restart()
        node.open()
        node.backup = node.disk.image(), node.known[:], set(node.let_go), dict(node.seen)

    def restore(self, node: Node, a: int, b: int, c: int) -> None:
        """Put the backup in place of all that came since, and go on from it: the domain has forked, if anybody has more."""
        if self._put_back(node):
            self.forks.add(node.domain)
            if c % 4:
                node.store.put(b"another life %d" % self.count)

    def recover(self, node: Node, a: int, b: int, c: int) -> None:
        """Put the backup in place, and get back from the others what they have, as far as they have it: then nothing forks."""
        if not self._put_back(node):
            return
        self.sides = [0] * len(self.nodes)
        others = [self.nodes[(node.number + step) % len(self.nodes)] for step in range(1, len(self.nodes))]
        for peer in others[a % len(others) :] + others[: a % len(others)]:
            self.exchange(node, peer, limit=(1, 2, 3, 5_000)[b % 4])
        held = [one.size for peer in others for one in peer.store.domains() if one.id == node.domain]
        assert node.store.journal.size >= max(held, default=0), "records that others hold have not come back"
        assert node.may_write(), "nobody holds more, and nothing may be written"

    def _put_back(self, node: Node) -> bool:
        """Put the backup of a site in place, unless nothing has come since."""
        if node.backup is None or len(node.backup[1]) == len(node.known):
            return False
        image, known, let_go, seen = node.backup
        node.disk.start(image)
        node.open()
        node.known, node.let_go, node.seen = known[:], set(let_go), dict(seen)
        self.answers = {key: answer for key, answer in self.answers.items() if key[0] != node.number}
        return True

    def resolve(self, node: Node, a: int, b: int, c: int) -> None:
        """The resolver says which branch of a forked domain counts."""
        node = self.nodes[1]
        if not node.may_write():
            return
        found = conflicts(node.store, node.site.ledger, node.site.policy)
        open_ones = [one for one in found if one.kind == "fork" and one.choices and one.subject != node.domain]
        if open_ones:
            chosen = open_ones[a % len(open_ones)]
            resolve(node.store, chosen, chosen.choices[b % len(chosen.choices)].hash, node.site.policy)
            node.site.settle()
            self.note(node)  # others may have the record before this site does anything else

    def pull(self, node: Node, a: int, b: int, c: int) -> None:
        """Pull from another site; of the questions one may be lost, or its answer."""
        peer = self.nodes[(node.number + 1 + a % (len(self.nodes) - 1)) % len(self.nodes)]
        if self.sides[node.number] == self.sides[peer.number]:
            self.exchange(node, peer, limit=(1, 2, 3, 5_000)[b % 4], repeated=b > 5, network=c)

    def cut_short(self, node: Node, a: int, b: int, c: int) -> None:
        """Pull from another site, and no more than one small batch."""
        peer = self.nodes[(node.number + 1 + a % (len(self.nodes) - 1)) % len(self.nodes)]
        self.exchange(node, peer, limit=1 + b % 3, network=19)

    def lie(self, node: Node, a: int, b: int, c: int) -> None:
        """Pull where somebody has put his own signature under the head of a domain: nothing is kept that its domain has not signed."""
        peer = self.nodes[(node.number + 1 + a % (len(self.nodes) - 1)) % len(self.nodes)]
        self.exchange(node, peer, limit=(1, 2, 3, 5_000)[b % 4], fault="head forged")
        for state in node.store.domains():
            head = None if state.id == node.domain else node.store.signed_head(state.id)
            if head is not None:
                _VERIFY(head, (state.key,))

    # --- faults of disks

    def fill(self, node: Node, a: int, b: int, c: int) -> None:
        """The disk has room for a few pages, then there is room again: what failed has left nothing."""
        if not isinstance(node.disk, FileDisk):
            return
        node.disk.fill(a)
        for number in range(1 + b):
            size = node.store.journal.size
            try:
                ref = node.store.put(bytes([number, c]) * (1 + 900 * a), publish=False)
                assert node.store.has([ref]) == [True], "a put was acknowledged, and is not there"
            except StoreFull:
                assert node.store.journal.size == size
        node.disk.make_room()
        node.store.put(bytes([a, b, c]), publish=False)

    def fail_fsync(self, node: Node, a: int, b: int, c: int) -> None:
        """An fsync fails: the handle refuses everything from then on, and the next one has what was acknowledged."""
        if not isinstance(node.disk, FileDisk):
            return
        node.disk.fail_fsync(is_written=c % 2 == 1)
        with suppress(StoreFailed):
            node.store.put(b"unsure %d" % self.count, publish=False)
            raise AssertionError("a put whose fsync failed was acknowledged")
        for refused in (lambda: node.store.journal.size, lambda: node.store.put(b"?"), node.store.domains):
            with suppress(StoreFailed):
                refused()
                raise AssertionError("after an fsync that failed the handle goes on")
        node.disk.start(node.disk.image().cut(0, 0) if b % 2 else node.disk.image())
        node.open()

    def cut_power(self, node: Node, a: int, b: int, c: int) -> None:
        """The power fails in a commit: what was not fsynced is there in part, or wrong."""
        if not isinstance(node.disk, FileDisk):
            return
        node.disk.arm(1 + a + 8 * (b % 3))
        with suppress(Death):
            node.store.put(b"dark %d" % self.count, publish=False)
            self.note(node)
            node.store.tombstone(_ref(a, b))
            self.note(node)
        image = node.disk.image()
        node.disk.start(image.cut(c * 997 if b % 2 else len(image.log), 700 * a))
        node.open()

    def flip(self, node: Node, a: int, b: int, c: int) -> None:
        """A bit of the disk is wrong: that is found, or changes nothing; then the disk is replaced."""
        if not isinstance(node.disk, FileDisk):
            return
        whole = node.disk.rest()
        before = None
        for bit in range(1, 4):
            node.disk.start(whole)
            before = _contents(node.store) if before is None else before
            node.disk.rest()
            try:
                node.disk.start(whole.flipped((c << 16 | a << 11 | b << 7) * 37 * bit + bit))
                if node.store.fsck(clock=ManualClock()).clean:
                    assert _contents(node.store) == before, "a wrong bit was not found"
            except (Corrupt, TidewarpError):
                pass
        node.disk.start(whole)
        node.open()

    # --- the exchange

    def exchange(
        self,
        node: Node,
        peer: Node,
        *,
        limit: int = 5_000,
        repeated: bool = False,
        network: int = 0,
        fault: str = "",
    ) -> int:
        """One pull; how many records it brought. Records only grow, and with a whole network nothing is refused."""
        sent = Sent(
            (network - 16) % 4, ("request lost", "answer lost", "peer dies", "answer damaged")[network // 4 % 4]
        )
        if network < 16:
            sent = Sent(0, fault)
        if network == 31:
            sent = Sent(0, "stale")
        store, site = node.store, node.site
        assert site.ledger is not None
        options = {
            "domains": to_be_pulled(site.policy, store.domain, None),
            "chosen": chosen_branches(store, site.ledger, site.policy),
        }
        node.asked = peer.number
        send = self._network(peer, sent, self.count)
        exchange = Exchange(store, f"site{peer.number}", send, io.BytesIO, lambda: 0, limit=limit, **options)
        if repeated:
            _repeat(exchange)
        finish = exchange.run()
        site.settle()
        if sent.fault in ("", "request lost", "answer lost", "peer dies") and not self.is_forking:
            assert exchange.conflicts == 0, "truth was refused"
            assert {one.outcome for one in finish.domains} <= {"pulled", "unchanged", "incomplete"}
        if not sent.fault:
            assert finish.incomplete == ""
        return finish.records

    def _network(self, peer: Node, sent: Sent, place: int) -> Callable[[Question], HttpResponse]:
        left = sent.before

        def send(question: Question) -> HttpResponse:
            nonlocal left
            is_due = left == 0
            left -= 1
            if is_due and sent.fault == "request lost":
                raise TimeoutError("the request was lost")
            if is_due and sent.fault == "peer dies":
                peer.disk.arm(1)
            try:
                answer = _answer(peer, question)
            except Death:
                self.revive(peer)
                raise TimeoutError("the peer has died") from None
            finally:
                peer.disk.arm(0)
            if is_due and sent.fault == "answer lost":
                raise TimeoutError("the answer was lost")
            if is_due and sent.fault == "answer damaged":
                return _damaged(answer, place)
            if is_due and sent.fault == "head forged":
                return _forged(answer, place)
            if sent.fault == "stale":
                return self.answers.get((peer.number, question.target), answer)
            if isinstance(answer.body, bytes):
                self.answers[peer.number, question.target] = answer
            return answer

        return send

    # --- what has to hold

    def do(self, theme: str, digits: Sequence[int], note: Callable[[str], object]) -> None:
        """Do what some digits say, about a theme."""
        what, who, a, b, fault, c = digits
        deed, node, write = (
            THEMES[theme][what % len(THEMES[theme])],
            self.nodes[who % len(self.nodes)],
            max(0, fault - 39),
        )
        note(f"{deed} {node.number} {a} {b} {c}" + (f", to die before write {write}" if write else ""))
        self.act(deed, node, a, b, c, write)

    def act(self, what: str, node: Node, a: int, b: int, c: int, write: int) -> None:
        """Let a site do something, and die before its write number ``write`` (0: live); then check it."""
        self.count += 1
        is_word = what in _WRITES or what in ("curate", "ban", "uncurate")
        if is_word and not node.may_write():
            return
        node.disk.arm(write)
        try:
            getattr(self, what)(node, a, b, c)
            node.disk.arm(0)
        except Death:
            self.revive(node)
        self.check(node)

    def revive(self, node: Node) -> None:
        """Start a process anew that has died."""
        node.disk.restart()
        node.open()

    def note(self, node: Node) -> None:
        """What is acknowledged now has to be there from now on."""
        journal, store = node.store.journal, node.store
        size = journal.size
        assert size >= len(node.known), "acknowledged records are lost"
        if node.known:
            assert store.hash_at(node.domain, len(node.known)) == node.known[-1], "a record was changed"
        for seq in range(len(node.known) + 1, size + 1):
            found = store.hash_at(node.domain, seq)
            node.known.append(found)
            self.written[node.domain][found] = seq

    def check(self, node: Node) -> None:
        """A prefix of truth, its bytes, cursors that are not beyond it, and a state that follows from the vector."""
        store = node.store
        self.note(node)
        sizes = {}
        for state in store.domains():
            sizes[state.id] = state.size
            if state.size:
                assert self.written[state.id].get(state.head) == state.size, "these records were never written"
            if state.id != node.domain:
                self._check_records(node, state.id, state.size)
        if not self.forks and node.asked is not None:
            for origin, (seq, found) in node.site.ledger.cursors(f"site{node.asked}").items():
                assert seq <= sizes.get(origin, 0), "a cursor is beyond the records"
                assert store.hash_at(origin, seq) == found
        self.look(node)

    def look(self, node: Node) -> None:
        """Equal vectors mean equal state, whoever has them, whenever."""
        name, state = node.store.snapshot().id(), node.store.state_hash()
        assert self.states.setdefault(name, state) == state, "equal vectors, different states"

    def audit(self, node: Node) -> None:
        """The view is what a replay of the records from nothing gives, and fsck has nothing to say."""
        store = node.store
        names = [store.hash_at(one.id, 0) for one in store.domains()]
        assert len(set(names)) == len(names), "two domains have one beginning"
        for state in store.domains():
            held = list(store.records(state.id))
            assert len(held) == state.size
            head = store.signed_head(state.id)
            if head is not None:
                _VERIFY(head, (state.key,))
                assert store.hash_at(state.id, head.size) == head.head
                assert store.root_at(state.id, head.size) == head.root
        if not self.forks:
            records = [(one.header, one.body) for state in store.domains() for one in store.records(state.id)]
            whole = FederationReplay(records, store.snapshot(), admission=node.site.store.admission)
            assert whole.state_hash() == store.state_hash(), "the view is not that of its records"
        report = store.fsck(clock=ManualClock())
        problems = [one for one in report.problems if one.kind not in ("missing bytes", "orphan")]
        assert not problems, f"fsck: {problems}"

    def heal(self) -> None:
        """Let everybody pull from the one beside him, the last first, until nobody gets anything more: much is relayed.

        A site whose own domain forked relays its own branch of it alone, so where there are such, all pull from all.
        """
        self.sides, size = [0] * len(self.nodes), len(self.nodes)
        for _ in range(2 * size + 2):
            news = 0
            for node in reversed(self.nodes):
                brought = self._bring_up(node)
                if brought:
                    self.check(node)
                news += brought
            if not news:
                return
            if not self.forks and len(self._vectors(self.nodes)) == 1:
                last = self.nodes[self.count % size]  # nobody has news: one is enough to show that no pull makes some
                assert not self._bring_up(last), "a pull brings what is here"
                return
        raise AssertionError("the exchange does not come to an end")

    def _bring_up(self, node: Node) -> int:
        """Pull from the one beside, or from all; how many records that brought, of whoever."""
        before, size = node.store.journal.size, len(self.nodes)
        brought = sum(
            self.exchange(node, self.nodes[(node.number + step) % size]) for step in range(1, size if self.forks else 2)
        )
        self.note(node)
        return brought + node.store.journal.size - before

    def _vectors(self, nodes: Sequence[Node]) -> set[tuple[Any, ...]]:
        return {tuple(sorted((one.id, one.size, one.head) for one in node.store.domains())) for node in nodes}

    def check_agreement(self) -> None:
        """Once everybody has pulled, all have all records and one state, also when the resolver has spoken of each fork."""
        self.heal()
        self._check_equal()
        if self.forks and self.count % 2:
            for a in range(len(self.forks)):
                self.resolve(self.nodes[1], a, self.count // 2, 0)
            self.heal()
            self._check_equal()
        self.audit(self.nodes[self.count % len(self.nodes)])

    def _check_equal(self) -> None:
        whole = [node for node in self.nodes if node.domain not in self.forks]
        assert self.forks or len(self._vectors(whole)) == 1, "not everybody has everything"
        assert len({node.store.snapshot().id() for node in whole}) <= 1, "the vectors differ"
        assert len({node.store.state_hash() for node in whole}) <= 1, "the states differ"

    def _check_records(self, node: Node, domain: bytes, size: int) -> None:
        """What has come since: published records with their bodies, and with their bytes or a reason why not."""
        before = node.seen.get(domain, 0)
        node.seen[domain] = size
        if size <= before:
            return
        absent = None
        for record in node.store.records(domain, before):
            published = bool(record.header.flags & PUBLISHED)
            assert (record.body is not None) == published, "a body that is withheld, or was not to be shown"
            if record.header.kind == ERASE and record.body is not None:
                node.let_go.add(decode_body(ERASE, record.body).ref)  # type: ignore[union-attr]
            if record.header.kind == ARTIFACT and record.body is not None:
                ref = ArtifactBody.from_bytes(record.body).ref
                if not node.store.has([ref])[0] and ref not in node.let_go:
                    absent = node.site.ledger.absent() if absent is None else absent  # type: ignore[union-attr]
                    assert ref in absent, "a record has no bytes, and no reason why not"
                    node.let_go.add(ref)

    def _needed(self, node: Node) -> set[Reference]:
        """What no collection may take: visible things, what they link to, pins."""
        store = node.store
        erasers = {node.domain, *DOMAINS[1:3]}
        records = (one for state in store.domains() if state.id in erasers for one in store.records(state.id))
        erased = {
            decode_body(ERASE, one.body).ref for one in records if one.header.kind == ERASE and one.body is not None
        }
        views = store.view(), store.view(scope="all")
        needed = {ref for ref in _all_refs() if any(view.is_visible(ref) for view in views)}
        for pinned in store.pins().values():
            if isinstance(pinned, Snapshot):
                with suppress(SnapshotIncomplete):
                    view = store.view(pinned)
                    needed |= {ref for ref in _all_refs() if view.is_visible(ref)}
            else:
                needed.add(pinned)
        for edge in _EDGES:
            if edge.reference() in needed:
                needed |= {*edge.sources, *edge.targets, edge.payload}
        return needed - erased


class Disks:
    """The disks of all plans of a test run: made once in ``folder``, and started from an image by each plan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[int, bool], Disk] = {}
        self._signing = signatures_once()

    def take(self, are_files: Sequence[bool]) -> list[Disk]:
        """One for each site: of a store in a file, or in memory."""
        for key in enumerate(are_files):
            if key not in self._made:
                number, is_file = key
                self._made[key] = FileDisk(number, self._folder) if is_file else MemoryDisk(number)
        return [self._made[key] for key in enumerate(are_files)]

    def end(self) -> None:
        """Let go of them."""
        for disk in self._made.values():
            disk.end()

    def __enter__(self) -> Disks:
        self._signing.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._signing.__exit__(None, None, None)


class Plan(NamedTuple):
    """What happens in one run: which sites have their stores in files, what it is about, and its deeds as digits."""

    are_files: tuple[bool, ...]
    theme: str
    deeds: Sequence[Sequence[int]]

    @classmethod
    def of_seed(cls, seed: int) -> Plan:
        """The plan that a number stands for, the same for ever."""
        chance = Random(seed)
        theme = chance.choice(list(THEMES))
        size = chance.choice([3, 3, 4, 5])
        are_files = [theme == "faults" or chance.random() < 0.3 for _ in range(size)]
        deeds = [[chance.randrange(base) for base in DIGITS] for _ in range(chance.randint(5, 30))]
        return cls(tuple(are_files), theme, deeds)

    def to_json(self) -> str:
        """As a line; :meth:`of_json` makes the same plan of it."""
        return json.dumps(self)

    @classmethod
    def of_json(cls, text: str) -> Plan:
        """The plan of a line."""
        are_files, theme, deeds = json.loads(text)
        return cls(tuple(are_files), theme, deeds)


def run(disks: Disks, plan: Plan, note: Callable[[str], object]) -> Federation:
    """Do what a plan says; ``note`` is told of each deed before it is done.

    Raises AssertionError: something did not hold.
    """
    federation = Federation(disks.take(plan.are_files), plan.theme)
    for one in plan.deeds:
        federation.do(plan.theme, one, note)
    note("heal")
    federation.check_agreement()
    return federation


# --- the beginning: a member's store with the policy in it


_beginnings: dict[tuple[type, int], Any] = {}


def _beginning(number: int, disk: Disk) -> Any:
    """The image of a site that has done nothing but put the policy in force; made once, on the first disk of its kind."""
    key = type(disk), number
    if key not in _beginnings:
        store = disk.store
        with store.transaction():
            reference = store.put(RULES.to_bytes(), tag=TAG_POLICY)
            store.journal.append([Entry(POLICY, PolicyBody(reference).to_bytes(), PUBLISHED)])
        ledger_of(store)
        disk.restart()
        _beginnings[key] = disk.image()
    return _beginnings[key]


# --- names


_ARTIFACTS = [Artifact(data, tag).reference() for data in PAYLOADS for tag in (None, 7)]


def _ref(a: int, b: int) -> Reference:
    """One of the artifacts or, one in eight, of the edges."""
    return _edge(a, b // 2).reference() if b == 3 else _ARTIFACTS[2 * (a % 4) + (b == 6)]


def _edge(a: int, b: int) -> Edge:
    return _EDGES[a % 4 + 4 * (b % 2)]


def _made_edge(payload: int, type: int) -> Edge:
    return Edge(type, (_ARTIFACTS[0],), (_ARTIFACTS[2],), _ARTIFACTS[2 * payload])


_EDGES = [_made_edge(payload, kind) for kind in (1, 2) for payload in range(4)]


@functools.cache
def _all_refs() -> list[Reference]:
    return [*_ARTIFACTS, *(edge.reference() for edge in _EDGES), RULES.artifact().reference()]


def _contents(store: Any) -> tuple[Any, ...]:
    """All that can be read of a store."""
    refs = [ref for ref, held in zip(_all_refs(), store.has(_all_refs()), strict=True) if held]
    records = [(one.header, one.state, one.body) for state in store.domains() for one in store.records(state.id)]
    return store.state_hash(), store.state_hash("all"), records, [(ref, store.get(ref)) for ref in refs], store.pins()


# --- the wire


class _Serving:
    """As much of a :class:`~tidewarp.federation.peer.ServingSite` as a pull asks for."""

    def __init__(self, ledger: Any) -> None:
        self.bridges = ledger.bridges
        self.check = lambda: None
        self.forks = lambda: [one for one in ledger.conflicts() if one.kind == FORK]


def _answer(node: Node, question: Question) -> HttpResponse:
    """What a peer answers; pieces of a body are read while it lives."""
    body = question.body if isinstance(question, GetMissing) else b""
    asked = HttpRequest("POST" if body else "GET", question.target, getattr(question, "headers", {}), body)
    serving: Any = _Serving(node.site.ledger)
    answer = PeerHandler(node.store, serving).handle(asked)
    return answer if isinstance(answer.body, bytes) else answer._replace(body=b"".join(answer.body))


def _damaged(answer: HttpResponse, place: int) -> HttpResponse:
    """With a bit of its body changed."""
    body = bytearray(answer.whole)
    if body:
        body[place * 7_919 % len(body)] ^= 1 << place % 7
    return answer._replace(body=bytes(body))


def _forged(answer: HttpResponse, place: int) -> HttpResponse:
    """Heads of which one is signed by a stranger."""
    rows = json.loads(answer.whole) if answer.status == 200 else []
    if rows:
        row = rows[place % len(rows)]
        shown = SignedHead.parse(row["note"])
        name = f"tidewarp/{row['domain']}"
        forged = sign_head(shown.domain, shown.size, shown.root, shown.head, name, seed_of(SITES_MAX))
        row["note"] = forged.note()
    return answer._replace(body=json.dumps(rows).encode()) if rows else answer


def _repeat(exchange: Exchange) -> None:
    """Let each event happen twice: the second time nothing may come of it."""
    machine: Any = exchange.machine
    for name in ("on_committed", "on_bytes", "on_error", "on_supplied"):
        setattr(machine, name, _twice(getattr(machine, name)))
    for form, event in list(exchange._events.items()):
        exchange._events[form] = _twice(event)


def _twice(event: Callable[..., Any]) -> Callable[..., Any]:
    def happen(asked: Any, *rest: Any) -> Any:
        instructions = event(asked, *rest)
        assert event(asked, *rest) == [], "an answer that came twice has brought something about"
        return instructions

    return happen


if __name__ == "__main__":
    with TemporaryDirectory() as place, Disks(Path(place)) as of_all:
        played = Plan.of_seed(int(sys.argv[1])) if sys.argv[1].isdecimal() else Plan.of_json(sys.argv[1])
        print(f"{len(played.are_files)} sites, in files: {played.are_files}, about {played.theme}")
        run(of_all, played, print)
        print("all agree")
