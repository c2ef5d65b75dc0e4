"""All that is visible as a graph of `rustworkx <https://www.rustworkx.org>`_, for algorithms over the whole of it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

from tidewarp.codec.references import Reference
from tidewarp.errors import MissingExtra
from tidewarp.store.query.row import Row

if TYPE_CHECKING:
    import rustworkx

__all__ = ["graph_of"]


def graph_of(nodes: Iterable[Reference], edges: Iterable[Row]) -> rustworkx.PyDiGraph[Reference, Reference]:
    """The graph of these artifacts and these rows of edges; what an edge has at its ends beside them is left out.

    Raises:
        MissingExtra: rustworkx is not installed.
    """
    try:
        import rustworkx
    except ModuleNotFoundError:
        raise MissingExtra("to_rustworkx", "it needs rustworkx", "pip install 'tidewarp[graph]'") from None
    graph: rustworkx.PyDiGraph[Reference, Reference] = rustworkx.PyDiGraph()
    refs = list(nodes)
    numbers = dict(zip(refs, graph.add_nodes_from(refs), strict=True))
    for row in edges:
        ends = product(dict.fromkeys(row["sources"]), dict.fromkeys(row["targets"]))
        graph.add_edges_from(
            [
                (numbers[source], numbers[target], row["ref"])
                for source, target in ends
                if source in numbers and target in numbers
            ]
        )
    return graph
