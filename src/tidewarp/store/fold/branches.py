"""What one domain wrote, as far as it is known: a chain of records, or a tree where the domain has forked.

The records of a domain follow each other by hash. Two records behind one are a fork: from there on nothing of the
domain counts until somebody with the right to do so chooses a branch. All branches are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tidewarp.codec import genesis
from tidewarp.codec.bodies import ERASE, Body, EraseBody
from tidewarp.errors import InternalError
from tidewarp.store.fold.conflicts import Fork, fork_id

__all__ = ["Branches", "Entry", "Settled", "settle"]


class Entry:
    """A record, as much of it as a view needs.

    Args:
        seq: its place in the domain, from 1.
        kind: what the body is.
        hash: of the record, 32 bytes.
        body: what it says; None where that means nothing to a view, or is not here.
        awaited: the body would mean something, and is not here.
    """

    __slots__ = ("awaited", "body", "hash", "kind", "seq")

    def __init__(self, seq: int, kind: int, hash: bytes, body: Body | None, awaited: bool) -> None:
        self.seq = seq
        self.kind = kind
        self.hash = hash
        self.body = body
        self.awaited = awaited


class Settled(NamedTuple):
    """The records of a path that count, and the sequence numbers of those among them that have been erased."""

    entries: Sequence[Entry]
    erased: frozenset[int] = frozenset()

    def effective(self, after: int = 0) -> Iterator[Entry]:
        """The entries that say something, behind the first ``after``."""
        entries = self.entries if not after else self.entries[after:]
        return (entry for entry in entries if entry.body is not None and entry.seq not in self.erased)


class Branches:
    """The records of ``domain`` (32 bytes). The branch that was heard of first is the trunk: a matter of storage only."""

    __slots__ = ("_aside", "_behind", "_forked_at", "_genesis", "_trunk", "domain", "plain")

    def __init__(self, domain: bytes) -> None:
        self.domain = domain
        self.plain = True  # one chain, nothing awaited, nothing erased: all of it counts
        self._genesis = genesis(domain)
        self._trunk: list[Entry] = []
        self._aside: dict[bytes, tuple[Entry, bytes]] = {}  # record hash: an entry off the trunk, and its predecessor
        self._behind: dict[bytes, list[Entry]] = {}  # record hash: what follows it off the trunk
        self._forked_at = 0  # the least seq off the trunk

    def add(self, entry: Entry, prev: bytes) -> bool:
        """Take a record whose predecessor has the hash ``prev``; whether it, or its body, is news.

        Raises:
            InternalError: its predecessor is not here.
        """
        trunk, seq = self._trunk, entry.seq
        known = self._find(seq, entry.hash)
        if known is not None:
            return _fill(known, entry)
        if not self._follows(seq, prev):
            raise InternalError(
                f"record {seq} of {self.domain.hex()[:12]}", "its predecessor is not here", "fold contiguous prefixes"
            )
        if seq == len(trunk) + 1 and prev == self._hash_before(seq):
            trunk.append(entry)
        else:
            self._aside[entry.hash] = entry, prev
            self._behind.setdefault(prev, []).append(entry)
            self._forked_at = min(self._forked_at or seq, seq)
            self.plain = False
        if entry.awaited or entry.kind == ERASE:
            self.plain = False
        return True

    def forks(self) -> list[Fork]:
        """All places where the domain parts, by sequence number and hashes."""
        found = []
        for prev, aside in self._behind.items():
            hashes = {entry.hash for entry in aside}
            seq = aside[0].seq
            if seq <= len(self._trunk) and self._hash_before(seq) == prev:
                hashes.add(self._trunk[seq - 1].hash)
            if len(hashes) > 1:
                found.append(Fork(self.domain, seq, tuple(sorted(hashes))))
        return sorted(found)

    def path(self, choices: Mapping[bytes, bytes]) -> Sequence[Entry]:
        """The records up to the first fork that ``choices`` (conflict id: record hash) says nothing of."""
        if not self._aside:
            return self._trunk
        path = self._trunk[: self._forked_at - 1]
        head, on_trunk = self._hash_before(self._forked_at), True
        while True:
            following = [*self._behind.get(head, ())]
            if on_trunk and len(path) < len(self._trunk):
                following.append(self._trunk[len(path)])
            if len(following) > 1:
                choice = choices.get(fork_id(self.domain, len(path) + 1))
                following = [entry for entry in following if entry.hash == choice]
            if not following:
                return path
            (entry,) = following
            on_trunk = on_trunk and entry.hash not in self._aside
            path.append(entry)
            head = entry.hash

    def path_to(self, seq: int, head: bytes) -> Sequence[Entry] | None:
        """The records up to the one with this number and record hash, on whatever branch; None if that is not here."""
        if self._find(seq, head) is None:
            return None
        behind: list[Entry] = []
        while head in self._aside:
            entry, head = self._aside[head]
            behind.append(entry)
        return [*self._trunk[: seq - len(behind)], *reversed(behind)]

    @property
    def size(self) -> int:
        """The length of the trunk."""
        return len(self._trunk)

    def _hash_before(self, seq: int) -> bytes:
        return self._trunk[seq - 2].hash if seq > 1 else self._genesis

    def _find(self, seq: int, hash: bytes) -> Entry | None:
        if seq <= len(self._trunk) and self._trunk[seq - 1].hash == hash:
            return self._trunk[seq - 1]
        return self._aside[hash][0] if hash in self._aside else None

    def _follows(self, seq: int, prev: bytes) -> bool:
        if seq <= len(self._trunk) + 1 and self._hash_before(seq) == prev:
            return True
        return prev in self._aside and self._aside[prev][0].seq == seq - 1


def settle(path: Sequence[Entry]) -> Settled:
    """What counts of a path of records, given what of it is missing or erased.

    A record that was erased has no effect anywhere, from the erasing record on: who pulls it later cannot read it. A
    body that should be here, is not, and was not erased, ends what counts: without it nobody can say what the records
    up to there come to, and equal vectors would no longer mean equal state.
    """
    erasures: dict[int, int] = {}  # seq: that of the first record that erases it
    for entry in path:
        body = entry.body
        if entry.kind == ERASE and isinstance(body, EraseBody) and body.seq and _may_erase(path, body.seq, entry.seq):
            erasures.setdefault(body.seq, entry.seq)
    end = len(path)
    for seq in reversed([entry.seq for entry in path if entry.awaited]):
        if erasures.get(seq, end + 1) > end:  # and what is cut off may have erased an earlier one
            end = seq - 1
    return Settled(path[:end], frozenset(seq for seq, by in erasures.items() if by <= end))


def _may_erase(path: Sequence[Entry], seq: int, by: int) -> bool:
    """An erasing record reaches back only, and to none of its kind: an erased erasure would leave its gap for ever."""
    return seq < by and path[seq - 1].kind != ERASE


def _fill(known: Entry, entry: Entry) -> bool:
    if known.body is not None or entry.body is None:
        return False
    known.body, known.awaited = entry.body, False
    return True
