"""The graph of a view: what the rows of its edges say, as a package for graphs holds it."""

from __future__ import annotations

import sys
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import MEMBERS
from query_sites import HISTORIES, LINKS, NODES, OWN_KEY, Sites
from tidewarp.codec.edges import Edge
from tidewarp.errors import MissingExtra
from tidewarp.store import MemoryStore
from tidewarp.store.query import TGKTraversal


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), LINKS), min_size=3, max_size=9), HISTORIES)
def test_the_graph_is_that_of_the_visible_edges(require, links, history):
    """Nodes in byte order; from each source to each target, if both are visible; what it reaches is what a traversal does."""
    require("rustworkx")
    import rustworkx

    added = [(n % 2, ("add", n, None)) for n in range(len(NODES))]
    with Sites([*added, *links, *history]).give(MemoryStore(OWN_KEY, admission=MEMBERS)) as store:
        view = store.view()
        graph = view.to_rustworkx()
        assert graph.nodes() == view.visible()
        expected = sorted(
            (source, target, row["ref"])
            for row in view.edges()
            for source, target in product(set(row["sources"]), set(row["targets"]))
            if view.is_visible(source) and view.is_visible(target)
        )
        found = [(graph[source], graph[target], ref) for source, target, ref in graph.weighted_edge_list()]
        assert sorted(found) == expected
        for root in set(NODES) & set(view.visible()):
            reached = {graph[one] for one in rustworkx.descendants(graph, graph.nodes().index(root))} | {root}
            assert reached == {row["ref"] for row in view.run(TGKTraversal((root,), "to", depth_max=99))}


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rustworkx", None)
    with MemoryStore() as store:
        store.put_edge(Edge(1, (), ()))
        with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[graph\]'"):
            store.view().to_rustworkx()
