"""Domains that write to each other's stores, for tests of what is asked of a store; and the plainest way to answer."""

from __future__ import annotations

from hypothesis import strategies as st

from authors import Author, added, hash_of, name_of
from histories import MEMBERS
from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import EdgeBody, LiftBody, ReceiptBody, TombstoneBody
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import sign_head
from tidewarp.codec.merkle import Frontier
from tidewarp.store import MemoryStore, SqliteStore
from tidewarp.store.query import SegmentScan

NODES = [name_of(text) for text in "abcdefgh"]
OWN_KEY = bytes([9]) * 32  # of a store in memory: none of the authors is itself
PLACES = st.integers(0, len(NODES) - 1)
ENDS = st.lists(PLACES, max_size=3)
LINKS = st.tuples(st.just("edge"), ENDS, ENDS, st.sampled_from([1, 2]))
WRITES = st.one_of(
    st.tuples(st.just("add"), PLACES, st.sampled_from([None, 7, TAG_EDGE])),
    LINKS,
    st.tuples(st.just("hide"), PLACES, st.booleans()),
    st.tuples(st.just("lift"), PLACES, st.booleans()),
    st.tuples(st.just("claim"), PLACES),
    st.tuples(st.just("other"), PLACES),
    st.tuples(st.just("internal"), PLACES),
)
HISTORIES = st.lists(st.tuples(st.integers(0, 3), WRITES), max_size=30)


class Sites:
    """A few domains and what they write: numbers in, records out."""

    def __init__(self, history):
        self.authors = [Author(number) for number in range(4)]
        self.edges = []
        for number, (verb, *what) in history:
            getattr(self, "_" + verb)(self.authors[number], *what)

    def _add(self, author, place, tag):
        body = added("abcdefgh"[place], tag)
        author.write(body)

    def _edge(self, author, sources, targets, type):
        edge = Edge(type, tuple(NODES[n] for n in sources), tuple(NODES[n] for n in targets))
        self.edges.append((author, edge.reference()))
        author.write(EdgeBody(edge))

    def _hide(self, author, place, is_edge):
        author, ref = self._named(author, place, is_edge)
        author.write(TombstoneBody(ref))

    def _lift(self, author, place, is_edge):
        author, ref = self._named(author, place, is_edge)
        author.write(LiftBody(ref))

    def _claim(self, author, place):
        author.write(ReceiptBody(name_of(f"receipt {place}"), bytes(32), (NODES[0],)))

    def _other(self, author, place):
        author.write_bytes(0x80 + place, b"opaque")

    def _internal(self, author, place):
        author.write(added("abcdefgh"[place]), flags=0)

    def _named(self, author, place, is_edge):
        """An edge is hidden by who wrote it: others cannot."""
        return self.edges[place % len(self.edges)] if is_edge and self.edges else (author, NODES[place])

    def give(self, store, first=0, last=None):
        """Let a store take in what they wrote, from one number to another."""
        for number, author in enumerate(self.authors):
            frontier = Frontier()
            for record in author.records[:last]:
                frontier.append(hash_of(record))
            if author.records[first:last]:
                size, end = len(author.records[:last]), hash_of(author.records[:last][-1])
                head = sign_head(author.domain, size, frontier.root(), end, "anybody", bytes(32))
                items = [
                    BatchItem(one.header, BODY, one.body, None)
                    if one.header.flags & PUBLISHED
                    else BatchItem(one.header, WITHHELD, None, None)
                    for one in author.records[first:last]
                ]
                store.adopt(author.domain, items, head, key=bytes([number]) * 32)
        return store


def both(folder, sites):
    """The two stores, with the same records."""
    memory = sites.give(MemoryStore(OWN_KEY, admission=MEMBERS))
    return memory, sites.give(SqliteStore(folder / "a.tw", create=True, admission=MEMBERS))


def scanned(view):
    """The rows of all records: a scan is tested by itself."""
    return list(view.run(SegmentScan()))


def naive(view, **condition):
    """The rows that meet a condition, by looking at each record's body."""

    def meets(row):
        ends = {"from": ["sources"], "to": ["targets"], "both": ["sources", "targets"]}[condition.get("role", "both")]
        return (
            ("tag" not in condition or row["tag"] == condition["tag"])
            and ("type" not in condition or row["type"] == condition["type"])
            and ("origin" not in condition or row["domain"] == condition["origin"])
            and ("node" not in condition or any(condition["node"] in (row[end] or ()) for end in ends))
        )

    return [row for row in scanned(view) if meets(row)]


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "tag": st.sampled_from([7, TAG_EDGE, TAG_RECEIPT, 9]),
        "type": st.sampled_from([1, 2, 3]),
        "origin": st.integers(0, 4).map(lambda number: Author(number).domain),
        "node": st.sampled_from([*NODES, name_of("never heard of")]),
    },
).flatmap(
    lambda found: (
        st.sampled_from(["from", "to", "both"]).map(lambda role: {**found, "role": role})
        if "node" in found
        else st.just(found)
    )
)
