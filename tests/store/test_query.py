"""Plans give what naive Python gives over the records of the view: the same rows in the same order, with and without indices."""

from __future__ import annotations

import itertools
from collections import defaultdict
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authors import Author, added, hash_of
from histories import MEMBERS
from query_sites import CONDITIONS, HISTORIES, LINKS, NODES, OWN_KEY, Sites, both, naive, scanned
from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_EDGE
from tidewarp.codec.bodies import (
    ARTIFACT,
    EDGE,
    LIFT,
    RECEIPT,
    TOMBSTONE,
    ResolveBody,
)
from tidewarp.codec.edges import Edge
from tidewarp.errors import InternalError, OperatorError
from tidewarp.store import MemoryStore, SqliteStore
from tidewarp.store.admission import OPEN
from tidewarp.store.fold import Fold, fork_id, merge_order
from tidewarp.store.query import (
    Aggregation,
    IndexFilter,
    LimitOffset,
    Merge,
    Projection,
    SegmentScan,
    SIMDFilter,
    TGKTraversal,
    TombstoneShadow,
    running,
    tables,
)


@settings(deadline=None, max_examples=60)
@given(HISTORIES)
def test_a_scan_gives_the_published_records_in_merge_order(tmp_path_factory, history):
    """Whatever the number of domains; the two stores agree on each row; a row says what its record says."""
    sites = Sites(history)
    memory, sqlite = both(tmp_path_factory.mktemp("query"), sites)
    with memory, sqlite:
        records = [one for author in sites.authors for one in author.records if one.header.flags & PUBLISHED]
        expected = sorted(records, key=merge_order)
        for store in (memory, sqlite):
            view = store.view()
            assert [(one.header, one.body) for one in view.records()] == [(one.header, one.body) for one in expected]
            rows = scanned(view)
            assert [row.place for row in rows] == list(map(merge_order, expected))
            assert [row["hash"] for row in rows] == list(map(hash_of, expected))
        assert scanned(memory.view()) == scanned(sqlite.view())


@settings(deadline=None, max_examples=60)
@given(HISTORIES, st.lists(CONDITIONS, min_size=1, max_size=6), st.sampled_from([None, (2, 4)]))
def test_filters_give_the_rows_that_meet_their_condition(tmp_path_factory, history, conditions, seq):
    """By index, by columns, and by looking at each row."""
    memory, sqlite = both(tmp_path_factory.mktemp("query"), Sites(history))
    with memory, sqlite:
        for store, condition in itertools.product((memory, sqlite), conditions):
            view, scan = store.view(), SegmentScan(seq=seq)
            expected = [row for row in naive(view, **condition) if seq is None or seq[0] <= row["seq"] <= seq[1]]
            assert list(view.run(IndexFilter(scan, **condition))) == expected
            assert list(view.run(IndexFilter(LimitOffset(scan), **condition))) == expected
            if condition.keys() - {"origin", "role"}:
                assert list(view.run(SIMDFilter(scan, **condition))) == expected


@settings(deadline=None, max_examples=60)
@given(HISTORIES, st.data())
def test_operators_over_rows_do_what_their_words_say(history, data):
    """Merge, shadow, projection, limit and aggregation, over one store: they know nothing of where rows come from."""
    with Sites(history).give(MemoryStore(OWN_KEY, admission=MEMBERS)) as store:
        view = store.view()
        rows = scanned(view)
        kinds = data.draw(st.lists(st.frozensets(st.sampled_from([ARTIFACT, EDGE, TOMBSTONE, LIFT])), min_size=1))
        merged = list(view.run(Merge(tuple(SegmentScan(one) for one in kinds))))
        assert merged == [row for row in rows if row["kind"] in frozenset().union(*kinds)]

        shown = [row for row in rows if row["ref"] is None or view.is_visible(row["ref"])]
        assert list(view.run(TombstoneShadow(SegmentScan()))) == shown
        marked = list(view.run(TombstoneShadow(SegmentScan(), "mark")))
        assert [row.place for row in marked if row["visible"] in (None, 1)] == [row.place for row in shown]
        assert all((row["visible"] is None) == (row["ref"] is None) for row in marked)

        offset, limit = data.draw(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 9))))
        part = rows[offset : None if limit is None else offset + limit]
        assert list(view.run(LimitOffset(SegmentScan(), limit, offset))) == part
        only = list(view.run(Projection(SegmentScan(), ("ref", "seq"))))
        assert [(row.place, row.values) for row in only] == [
            (row.place, {"ref": row["ref"], "seq": row["seq"]}) for row in rows
        ]

        group = data.draw(st.sampled_from([(), ("kind",), ("domain", "tag"), ("ref",)]))
        field, function = data.draw(
            st.sampled_from([(None, "count"), ("size", "count"), ("size", "sum"), ("ref", "min"), ("seq", "max")])
        )
        groups = defaultdict(list)
        for row in rows:
            groups[tuple(row[one] for one in group)].append(1 if field is None else row[field])
        if not group:
            groups.setdefault((), [])
        by_function = {
            "count": len,
            "sum": lambda values: sum(values) if values else None,
            "min": lambda values: min(values, default=None),
            "max": lambda values: max(values, default=None),
        }
        expected = [
            {
                **dict(zip(group, key, strict=True)),
                function: by_function[function]([one for one in values if one is not None]),
            }
            for key, values in sorted(
                groups.items(), key=lambda item: tuple((value is not None, value) for value in item[0])
            )
        ]
        assert [row.values for row in view.run(Aggregation(SegmentScan(), function, field, group))] == expected


def walked(view, plan):
    """The traversal, naively: over all visible edges, one node after the other."""
    edges = [
        (row["ref"], row["sources"], row["targets"], row["type"]) for row in naive(view) if row["type"] is not None
    ]
    neighbours = defaultdict(set)
    for edge, sources, targets, kind in edges:
        if view.is_visible(edge) and (plan.types is None or kind in plan.types):
            for source, target in itertools.product(sources, targets):
                if plan.direction != "from":
                    neighbours[source].add((target, edge))
                if plan.direction != "to":
                    neighbours[target].add((source, edge))
    found = [(root, 0, None) for root in sorted(set(plan.roots)) if view.is_visible(root)]
    at = 0
    while at < len(found):
        node, depth, _ = found[at]
        for other, edge in sorted(neighbours[node]):
            if view.is_visible(other) and all(other != ref for ref, _, _ in found):
                found.append((other, depth + 1, edge))
        at += 1
    end = next((n for n, (_, depth, _) in enumerate(found) if depth > plan.depth_max or n == plan.nodes_max), None)
    return found[:end], end is not None


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3), LINKS), min_size=6, max_size=20),
    HISTORIES,
    st.lists(
        st.builds(
            TGKTraversal,
            roots=st.lists(st.sampled_from(NODES), min_size=1, max_size=3).map(tuple),
            direction=st.sampled_from(["from", "to", "both"]),
            types=st.sampled_from([None, frozenset({1}), frozenset()]),
            depth_max=st.sampled_from([0, 1, 2, 16]),
            nodes_max=st.sampled_from([1, 2, 3, 100]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([1, 3, 20_000]),
)
def test_a_traversal_goes_breadth_first_over_what_is_visible(tmp_path_factory, links, history, plans, steps_max):
    """Neighbours in byte order; a bound that keeps something out is said by a last row, and never without need.

    However few steps fit into memory at once.
    """
    seen = [(n % 2, ("add", n, None)) for n in range(8)]
    memory, sqlite = both(tmp_path_factory.mktemp("query"), Sites([*seen, *links, *history]))
    with memory, sqlite, mock.patch.object(tables, "STEPS_MAX", steps_max):
        for store, plan in itertools.product((memory, sqlite), plans):
            view = store.view()
            rows = list(view.run(plan))
            found, is_truncated = walked(view, plan)
            assert [(row["ref"], row["depth"], row["edge"]) for row in rows if not row.truncated] == found
            assert [row.truncated for row in rows] == [False] * len(found) + [True] * is_truncated


@settings(deadline=None, max_examples=40)
@given(HISTORIES)
def test_what_is_visible_is_listed_once(tmp_path_factory, history):
    """Artifacts and edges, by tag, type and ends."""
    memory, sqlite = both(tmp_path_factory.mktemp("query"), Sites(history))
    with memory, sqlite:
        for store in (memory, sqlite):
            view = store.view()
            found = [row["ref"] for row in view.artifacts()]
            assert sorted(found) == view.visible()
            tags = {row["ref"]: row["tag"] for row in naive(view) if row["kind"] in (ARTIFACT, EDGE, RECEIPT)}
            assert sorted(row["ref"] for row in view.artifacts(7)) == [ref for ref in view.visible() if tags[ref] == 7]
            edges = {row["ref"]: row for row in naive(view) if row["kind"] == EDGE and view.is_visible(row["ref"])}
            for kind, source, target in itertools.product((None, 1), (None, NODES[0]), (None, NODES[1])):
                assert sorted(row["ref"] for row in view.edges(kind, source, target)) == sorted(
                    ref
                    for ref, row in edges.items()
                    if (kind is None or row["type"] == kind)
                    and (source is None or source in row["sources"])
                    and (target is None or target in row["targets"])
                )


@settings(deadline=None, max_examples=30)
@given(HISTORIES, st.integers(0, 6))
def test_a_plan_sees_its_view_and_not_what_came_later(tmp_path_factory, history, size):
    """At a snapshot, the indices hold more than the view: rows are those of a store that has only the view's records."""
    sites = Sites(history)
    with (
        SqliteStore(tmp_path_factory.mktemp("query") / "a.tw", create=True, admission=MEMBERS) as store,
        sites.give(MemoryStore(OWN_KEY, admission=MEMBERS), last=size) as before,
    ):
        snapshot = sites.give(store, last=size).snapshot()
        sites.give(store, first=size)
        view, then = store.view(snapshot), before.view()
        for plan in (
            SegmentScan(),
            TombstoneShadow(IndexFilter(SegmentScan(), type=1)),
            IndexFilter(SegmentScan(), node=NODES[0]),
            SIMDFilter(SegmentScan(), tag=TAG_EDGE),
            TGKTraversal(tuple(NODES), "both"),
        ):
            assert list(view.run(plan)) == list(then.run(plan))


def chain(store, length=5, type=1):
    """Artifacts a to e, each derived from the one before."""
    refs = store.put_many([(text.encode(), None) for text in "abcdefgh"[:length]])
    for source, target in itertools.pairwise(refs):
        store.put_edge(Edge(type, (source,), (target,)))
    return refs


def stores(folder):
    return MemoryStore(), SqliteStore(folder / "a.tw", create=True)


def test_unpublished_records_are_those_of_scope_all(tmp_path):
    for store in stores(tmp_path):
        with store:
            store.put(b"shown")
            store.put(b"kept", publish=False)
            assert [row["size"] for row in store.view().artifacts()] == [5]
            assert [row["size"] for row in store.view(scope="all").artifacts()] == [5, 4]
            assert len(list(store.view().records())) == 1


def test_the_provenance_of_an_artifact_is_what_it_came_from(tmp_path):
    for store in stores(tmp_path):
        with store:
            refs = chain(store)
            view = store.view()
            assert [row["ref"] for row in view.provenance(refs[3])] == refs[3::-1]
            store.tombstone(refs[1])
            assert [row["ref"] for row in store.view().provenance(refs[3])] == [refs[3], refs[2]]


def test_a_hidden_edge_is_not_crossed(tmp_path):
    for store in stores(tmp_path):
        with store:
            refs = chain(store)
            store.tombstone(Edge(1, (refs[1],), (refs[2],)).reference())
            assert [row["ref"] for row in store.view().provenance(refs[4])] == refs[4:1:-1]


def test_neighbours_come_in_byte_order_whatever_their_edges_are_called(tmp_path):
    """Where two edges lead to one node, the row names the first of them."""
    for store in stores(tmp_path):
        with store:
            *sources, target = store.put_many([(text.encode(), None) for text in "abcdefgh"])
            edges = {ref: [store.put_edge(Edge(kind, (ref,), (target,))) for kind in (1, 2)] for ref in sources}
            _, *rows = store.view().provenance(target)
            assert [row["ref"] for row in rows] == sorted(sources)
            assert [row["edge"] for row in rows] == [min(edges[ref]) for ref in sorted(sources)]


def test_nodes_of_a_level_are_left_in_the_order_in_which_they_were_reached(tmp_path):
    """Not in byte order: that is the order of one node's neighbours."""
    for store in stores(tmp_path):
        with store:
            refs = sorted(store.put_many([(text.encode(), None) for text in "abcdef"]))
            for source, target in ((0, 5), (1, 4), (5, 2), (4, 3)):
                store.put_edge(Edge(1, (refs[source],), (refs[target],)))
            rows = store.view().run(TGKTraversal((refs[1], refs[0]), "to"))
            assert [refs.index(row["ref"]) for row in rows] == [0, 1, 5, 4, 2, 3]


def test_what_is_missing_behind_a_bound_is_said_by_all_operators(tmp_path):
    """Limits, projections, groups: a part is never taken for the whole."""
    for store in stores(tmp_path):
        with store:
            refs = chain(store)
            walk = TGKTraversal((refs[4],), depth_max=2)
            view = store.view()
            for plan, rows in (
                (walk, 3),
                (Projection(walk, ("depth",)), 3),
                (TombstoneShadow(walk), 3),
                (LimitOffset(walk, offset=9), 0),
                (LimitOffset(walk, limit=3), 3),
                (Aggregation(walk, "sum", "depth"), 1),
            ):
                found = list(view.run(plan))
                is_cut = isinstance(plan, LimitOffset) and plan.limit == 3
                assert [row.truncated for row in found] == [False] * rows + [True] * (not is_cut)
                assert all(set(row.values) == set(plan.fields) for row in found)


def test_rows_of_a_view_that_has_grown_are_refused(tmp_path):
    """They would be of two states. A snapshot does not grow."""
    for store in stores(tmp_path):
        with store:
            refs = chain(store)
            live, cut = store.view(), store.view(store.snapshot())
            plan = TGKTraversal((refs[4],))
            begun, steady = live.run(plan), cut.run(plan)
            assert next(begun)["ref"] == next(steady)["ref"] == refs[4]
            store.put(b"more")
            store.snapshot()
            with pytest.raises(InternalError, match="has grown"):
                list(begun)
            assert len(list(steady)) == 4
            assert len(live.columns().seqs) == 14, "made anew"


@pytest.mark.parametrize("adds", [1, 2])
def test_records_of_a_branch_that_is_not_here_are_not_made_up(adds):
    """The resolver has chosen the rival, of which the header alone is known; a record in its place is no answer."""
    sites = Sites([(0, ("add", n, None)) for n in range(adds)])
    author, judge = sites.authors[:2]
    rival = Author(0)
    rival.write(added("a"))
    header = rival.write_bytes(0x80, b"another").header
    judge.write(ResolveBody(fork_id(author.domain, 2), hash_of(header)))
    with sites.give(MemoryStore(OWN_KEY, admission=MEMBERS)) as store:
        assert len(list(store.view().records())) == adds + 1
        store.admit(MEMBERS, [header])
        view = store.view()
        assert hash_of(header) in [head.hash for head in view.heads()]
        for ask in (view.records, view.artifacts, lambda: view.run(SIMDFilter(SegmentScan(), type=1))):
            with pytest.raises(OperatorError, match="the branch that counts is not the one that is here"):
                list(ask())


def test_the_admission_that_is_in_force_folds_nothing_anew(monkeypatch):
    """A site says it after each pull: its records were folded once."""
    folded = []
    add = Fold.add
    monkeypatch.setattr(Fold, "add", lambda self, header, body: folded.append(header.seq) or add(self, header, body))
    with MemoryStore(OWN_KEY, admission=MEMBERS) as store:
        store.put(b"one")
        before = store.state_hash()
        store.admit(MEMBERS, [])
        assert (store.state_hash(), folded) == (before, [1])
        store.put(b"two")
        store.admit(MEMBERS)
        store.snapshot()
        assert folded == [1, 2]
        store.admit(OPEN)
        store.snapshot()
        assert folded == [1, 2, 1, 2]


def test_an_index_that_finds_too_much_is_not_used(tmp_path, monkeypatch):
    """Memory is bounded: the same rows come by looking at all."""
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        refs = chain(store)
        view, plan = store.view(), IndexFilter(SegmentScan(), node=refs[1])
        by_index = list(view.run(plan))
        assert "by the index of ends of edges" in view.explain(plan)
        monkeypatch.setattr(running, "POSITIONS_MAX", 1)
        assert "no index" in view.explain(plan)
        assert list(view.run(plan)) == by_index
        assert len(by_index) == 2


def test_columns_have_an_element_for_each_artifact_and_each_end(tmp_path):
    for store in stores(tmp_path):
        with store:
            a, b = store.put_many([(b"a", None), (b"b", 7)])
            edge = store.put_edge(Edge(9, (a, b, a), (b,)))
            alone = store.put_edge(Edge(8, (), ()))
            columns = store.view().columns()
            ids = columns.ordinals
            assert sorted(ids.values()) == [1, 2, 3, 4]
            assert columns.artifact_ids.tolist() == [ids[a], ids[b], ids[a], ids[b], 0]
            assert columns.edge_ids.tolist() == [0, 0, ids[edge], ids[edge], ids[alone]]
            assert columns.roles.tolist() == [0, 0, 1, 3, 0]
            assert columns.edge_type_keys.tolist() == [0, 0, 9, 9, 8]
            assert columns.has_edge_type.tolist() == [0, 0, 1, 1, 1]
            assert columns.type_tags.tolist() == [0, 7, TAG_EDGE, TAG_EDGE, TAG_EDGE]
            assert columns.has_type_tag.tolist() == [0, 1, 1, 1, 1]
            assert [column.dtype.str for column in columns[:7]] == ["<u8", "<u4", "|u1", "<u8", "<u4", "|u1", "|u1"]


def test_a_plan_is_explained_line_by_line(tmp_path):
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        chain(store, 2)
        plan = LimitOffset(TombstoneShadow(IndexFilter(SegmentScan(), type=1)), limit=3)
        assert store.view().explain(plan).splitlines() == [
            "LimitOffset(limit=3, offset=0)",
            "  TombstoneShadow(mode=hide)",
            "    IndexFilter(type=1, role=both): by the index of types of edges, each row looked at again",
            "      SegmentScan: records of 1 domains, merged",
        ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SegmentScan(seq=(0, 3)),
        lambda: SegmentScan(seq=(3, 2)),
        lambda: IndexFilter(SegmentScan(), tag=-1),
        lambda: IndexFilter(SegmentScan(), type=1 << 32),
        lambda: IndexFilter(SegmentScan(), role="from"),
        lambda: IndexFilter(SegmentScan(), role="through", node=NODES[0]),
        lambda: IndexFilter(TGKTraversal(()), type=1),
        lambda: SIMDFilter(TombstoneShadow(SegmentScan()), type=1),
        lambda: Merge(()),
        lambda: Merge((TGKTraversal(()),)),
        lambda: Merge((Aggregation(SegmentScan()),)),
        lambda: Merge((SegmentScan(), Projection(SegmentScan(), ("ref",)))),
        lambda: TombstoneShadow(SegmentScan(), "delete"),
        lambda: TombstoneShadow(Projection(SegmentScan(), ("seq",))),
        lambda: TGKTraversal((), "sideways"),
        lambda: TGKTraversal((), depth_max=-1),
        lambda: TGKTraversal((), nodes_max=0),
        lambda: Projection(SegmentScan(), ()),
        lambda: Projection(SegmentScan(), ("colour",)),
        lambda: Projection(SegmentScan(), ("ref", "ref")),
        lambda: Aggregation(SegmentScan(), "sum"),
        lambda: Aggregation(SegmentScan(), "sum", "ref"),
        lambda: Aggregation(SegmentScan(), "median", "seq"),
        lambda: Aggregation(SegmentScan(), group=("colour",)),
        lambda: LimitOffset(SegmentScan(), -1),
        lambda: LimitOffset(SegmentScan(), offset=-1),
    ],
)
def test_a_plan_that_means_nothing_is_refused_when_it_is_made(make):
    with pytest.raises(OperatorError):
        make()


def test_groups_are_bounded(monkeypatch):
    monkeypatch.setattr(running, "GROUPS_MAX", 3)
    with MemoryStore() as store:
        chain(store, 4)
        plan = Aggregation(SegmentScan(), group=("ref",))
        with pytest.raises(OperatorError, match="at most 3 groups"):
            list(store.view().run(plan))
