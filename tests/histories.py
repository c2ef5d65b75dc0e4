"""Random histories of several domains, and a node that takes their records as they come, for tests of convergence.

An operation is a tuple of small numbers, so that Hypothesis draws and shrinks it quickly; :class:`World` makes records
of it. Every record verifies: what peers refuse before they store it is tested elsewhere.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from authors import Author, added, edge, hash_of, name_of
from tidewarp.codec import Record, RecordHeader, genesis
from tidewarp.codec.bodies import (
    ERASE,
    FEDERATION,
    STICKY,
    EdgeBody,
    EraseBody,
    EvidenceBody,
    LiftBody,
    PointerBody,
    ReceiptBody,
    ResolveBody,
    TombstoneBody,
    VerdictBody,
    decode_body,
)
from tidewarp.codec.edges import Edge
from tidewarp.codec.references import Reference
from tidewarp.store.admission import Admission, Decision, Role, Standing
from tidewarp.store.fold import Fold, fork_id

AUTHORS = [Author(number).domain for number in range(5)]
WORKER = frozenset({Role.PRODUCE, Role.EXECUTE})
MEMBERS = Admission(
    domains={
        AUTHORS[0]: Standing(Decision.ACCEPTED, WORKER),
        AUTHORS[1]: Standing(Decision.ACCEPTED, WORKER | {Role.CURATE, Role.AUDIT}),
        AUTHORS[2]: Standing(Decision.ACCEPTED, WORKER | {Role.CURATE, Role.AUDIT}),
        AUTHORS[3]: Standing(Decision.ACCEPTED, WORKER),
        AUTHORS[4]: Standing(Decision.ACCEPTED, frozenset()),
    },
    latest=frozenset({1}),
    resolver=AUTHORS[1],
    policy_hash=bytes([7]) * 32,
)
"""Five members: two who curate and audit, the first of whom resolves forks, and one whose adds do not count."""

TEXTS = ["k0", "k1", "k2", "k3"]
KEYS = [bytes([number]) * 32 for number in range(2)]
VERBS = [
    *("add", "hide", "lift", "edge", "unlink", "curate", "ban", "uncurate"),
    *("point", "claim", "judge", "erase", "internal", "opaque"),
]
FORKING = [*VERBS, "rewind", "evidence", "resolve"]

Operation = tuple[str, int, int]
Held = tuple[RecordHeader, bytes | None]
"""A record, maybe without its body."""
T = TypeVar("T")


def numbers(*sizes: int) -> st.SearchStrategy[tuple[int, ...]]:
    """A number below each of the sizes, all in one draw: what Hypothesis spends on one is more than a node does with it.

    The product of the sizes is below 2**24: of greater ranges it prefers the small numbers.
    """
    assert math.prod(sizes) < 1 << 24
    return st.integers(0, math.prod(sizes) - 1).map(lambda number: digits(number, sizes))


def digits(number: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """The digits of a number, the lowest first, in a system with these bases."""
    found = []
    for size in sizes:
        number, digit = divmod(number, size)
        found.append(digit)
    return tuple(found)


def operations(verbs: Sequence[str] = VERBS) -> st.SearchStrategy[Operation]:
    """A verb and two numbers, whose meaning is the verb's."""
    return numbers(len(verbs), 8, 32).map(lambda one: (verbs[one[0]], one[1], one[2]))


def series(of: st.SearchStrategy[T], longest: int) -> st.SearchStrategy[list[T]]:
    """Lists up to that length: short ones, and as many that are long; by itself Hypothesis draws some five items."""
    return st.lists(of, max_size=5) | st.lists(of, min_size=longest // 3, max_size=longest)


class World:
    """All that a few domains have written; what one says may refer to what any of them said before."""

    def __init__(self, size: int) -> None:
        self.authors = [Author(number) for number in range(size)]
        self.records: list[Record] = []
        self._stones: list[tuple[Reference, int, bytes]] = []
        self._pointers: list[bytes] = []

    def do(self, number: int, operation: Operation) -> Record | None:
        """Let an author do something; the record that it wrote, if it did."""
        before = len(self.authors[number].records)
        getattr(self, "_" + operation[0])(self.authors[number], *operation[1:])
        written = self.authors[number].records[before:]
        self.records += written
        return written[0] if written else None

    def _add(self, author: Author, a: int, b: int) -> None:
        author.put(TEXTS[a % 4])

    def _hide(self, author: Author, a: int, b: int) -> None:
        author.write(TombstoneBody(name_of(TEXTS[a % 4])))

    def _lift(self, author: Author, a: int, b: int) -> None:
        author.write(LiftBody(name_of(TEXTS[a % 4])))

    def _edge(self, author: Author, a: int, b: int) -> None:
        author.write(EdgeBody(_edge(a, b)))

    def _unlink(self, author: Author, a: int, b: int) -> None:
        author.write(TombstoneBody(_edge(a, b).reference()))

    def _curate(self, author: Author, a: int, b: int) -> None:
        seen = [(one.domain, one.size - (b >> n & 1)) for n, one in enumerate(self.authors)]
        bounds = tuple(sorted((domain, seq) for domain, seq in seen if seq > 0))
        self._curated(author, TombstoneBody(name_of(TEXTS[a % 4]), FEDERATION, bounds=bounds))

    def _ban(self, author: Author, a: int, b: int) -> None:
        self._curated(author, TombstoneBody(name_of(TEXTS[a % 4]), STICKY))

    def _uncurate(self, author: Author, a: int, b: int) -> None:
        if self._stones:
            ref, scope, stone = self._stones[a % len(self._stones)]
            author.write(LiftBody(ref, scope, stone))

    def _point(self, author: Author, a: int, b: int) -> None:
        superseded = tuple(record for n, record in enumerate(self._pointers[-5:]) if b >> n & 1)
        self._pointers.append(hash_of(author.write(PointerBody(f"n{a % 2}", superseded, name_of(TEXTS[a // 2])))))

    def _claim(self, author: Author, a: int, b: int) -> None:
        author.write(ReceiptBody(name_of(f"r{b % 3}"), KEYS[a % 2], (name_of(TEXTS[a // 2]),)))

    def _judge(self, author: Author, a: int, b: int) -> None:
        author.write(VerdictBody(KEYS[a % 2], (name_of(TEXTS[a // 2]),)))

    def _erase(self, author: Author, a: int, b: int) -> None:
        author.write(EraseBody(None, 1 + b % (author.size + 1)))

    def _internal(self, author: Author, a: int, b: int) -> None:
        author.write(added(TEXTS[a % 4]), flags=0)

    def _opaque(self, author: Author, a: int, b: int) -> None:
        author.write_bytes(0x80 + a, bytes([b]))

    def _rewind(self, author: Author, a: int, b: int) -> None:
        author.rewind(max(0, len(author.records) - 1 - b % 4))

    def _evidence(self, author: Author, a: int, b: int) -> None:
        forks = self._forks()
        if forks:
            author.write(EvidenceBody(forks[a % len(forks)][0], name_of("both headers")))

    def _resolve(self, author: Author, a: int, b: int) -> None:
        forks = self._forks()
        if forks:
            conflict, branches = forks[a % len(forks)]
            author.write(ResolveBody(conflict, branches[b % len(branches)]))

    def _curated(self, author: Author, stone: TombstoneBody) -> None:
        self._stones.append((stone.ref, stone.scope, hash_of(author.write(stone))))

    def _forks(self) -> list[tuple[bytes, list[bytes]]]:
        rivals: dict[tuple[bytes, bytes], list[Record]] = defaultdict(list)
        for record in self.records:
            rivals[record.header.domain, record.header.prev].append(record)
        return [
            (fork_id(records[0].header.domain, records[0].seq), list(map(hash_of, records)))
            for records in rivals.values()
            if len(records) > 1
        ]


def _edge(a: int, b: int) -> Edge:
    """Two types, each with one slot, in which four payloads contend."""
    return edge("k0", "k1", TEXTS[a % 4], 1 + b % 2)


class Node:
    """A site's records and its fold. What comes before its predecessor is held back; what was lost comes again."""

    def __init__(self, admission: Admission = MEMBERS) -> None:
        self.fold = Fold(admission)
        self.records: dict[bytes, Held] = {}
        self._waiting: dict[bytes, list[Held]] = defaultdict(list)

    def receive(self, records: Iterable[Held]) -> None:
        """Take records in any order, any of them any number of times, with or without their bodies."""
        for record in records:
            arrived = [record]
            while arrived:
                header, body = arrived.pop()
                name = hash_of(header)
                if name in self.records and (body is None or self.records[name][1] is not None):
                    continue
                if header.prev in self.records or header.prev == genesis(header.domain):
                    self.records[name] = header, body
                    self.fold.add(header, body)
                    arrived += self._waiting.pop(name, [])
                else:
                    self._waiting[header.prev].append((header, body))

    def collect(self) -> None:
        """Drop the bodies that were erased: who pulls them from here gets the headers alone."""
        for header, body in list(self.records.values()):
            said = decode_body(header.kind, body) if header.kind == ERASE and body is not None else None
            if isinstance(said, EraseBody) and said.seq is not None:
                name = hash_of(header)
                while name in self.records and self.records[name][0].seq > said.seq:
                    name = self.records[name][0].prev
                if name != hash_of(header) and name in self.records and self.records[name][0].kind != ERASE:
                    self.records[name] = self.records[name][0], None

    def restart(self, shards: int = 1) -> None:
        """Fold all from nothing, read from so many shards by the hash of a record: a private matter of the node."""
        again = Node(self.fold.admission)
        again.receive(self.records[name] for name in sorted(self.records, key=lambda name: (name[0] % shards, name)))
        self.fold = again.fold

    def state(self) -> tuple[bytes, bytes]:
        """What two nodes compare: the name of the vector, and the state hash."""
        return self.fold.snapshot().id(), self.fold.state_hash()
