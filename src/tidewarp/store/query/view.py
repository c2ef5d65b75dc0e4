"""A view that can be asked for rows: what is visible, with the records that it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tidewarp.codec.bodies import ARTIFACT, EDGE, RECEIPT
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError
from tidewarp.store.fold.conflicts import Fork
from tidewarp.store.fold.state import State
from tidewarp.store.fold.view import View
from tidewarp.store.query.catalog import Catalog
from tidewarp.store.query.columns import Columns, columns_of
from tidewarp.store.query.graph import graph_of
from tidewarp.store.query.plan import IndexFilter, Plan, SegmentScan, TGKTraversal
from tidewarp.store.query.row import Row
from tidewarp.store.query.running import Running
from tidewarp.store.shards import ShardMap

if TYPE_CHECKING:
    import rustworkx

    from tidewarp.store.contract import StoredRecord
    from tidewarp.store.fold.view import Head

__all__ = ["StoreView"]

_ADDS = frozenset({ARTIFACT, EDGE, RECEIPT})


class StoreView(View):
    """A view and the store that it is a view of.

    Rows come from the records up to the view's heads; of a view that folds published records alone, from these alone.
    The rows of a plan are those of the state in which it was asked: where the view of now has grown since, the iterator
    raises InternalError instead of mixing two states.

    Args:
        view: a cut, or the fold of now, which grows.
        catalog: the store's records and indices.
        internal: whether the view folds unpublished records too.
        age: a number that grows with the view.
    """

    def __init__(self, view: View, catalog: Catalog, *, internal: bool, age: Callable[[], int] = lambda: 0) -> None:
        super().__init__(view.admission, view._state, view._heads)
        self._view = view
        self._catalog = catalog
        self._internal = internal
        self._age = age
        self._columns: dict[int | None, Columns] = {}  # by shard
        self._columns_at: tuple[list[Head], ShardMap] | None = None

    def forks(self) -> tuple[Fork, ...]:
        """Where domains that count have forked as far as the records here show, resolved or not; ascending."""
        return self._view.forks()

    def run(self, plan: Plan) -> Iterator[Row]:
        """The rows of a plan.

        Raises:
            Corrupt, StoreFailed: a record is damaged, or cannot be read.
            InternalError: the view has grown meanwhile.
        """
        return self._running().rows(plan)

    def explain(self, plan: Plan) -> str:
        """The plan as text: a line for each operator, with how its rows are found."""
        return "\n".join(self._running().explain(plan))

    def records(self) -> Iterator[StoredRecord]:
        """The records of the view in merge order."""
        return self._running().records()

    def artifacts(self, tag: int | None = None) -> Iterator[Row]:
        """A row for each visible artifact, edges and receipts among them; of this tag, or of all.

        It is the row of the record that adds it: the first in merge order of those that make it visible.
        """
        return self._shown(IndexFilter(SegmentScan(_ADDS), tag=tag))

    def edges(
        self, type: int | None = None, source: Reference | None = None, target: Reference | None = None
    ) -> Iterator[Row]:
        """A row for each visible edge of this type and with these ends, chosen as by :meth:`artifacts`."""
        plan: Plan = SegmentScan(frozenset({EDGE}))
        if source is not None:
            plan = IndexFilter(plan, type=type, node=source, role="from")
        if target is not None:
            plan = IndexFilter(plan, type=type, node=target, role="to")
        if source is None and target is None:
            plan = IndexFilter(plan, type=type)
        return self._shown(plan)

    def provenance(self, ref: Reference, depth_max: int = 16) -> Iterator[Row]:
        """What ``ref`` comes from: the rows of a traversal from it, from targets to sources."""
        return self.run(TGKTraversal((ref,), "from", depth_max=depth_max))

    def columns(self, shard: int | None = None) -> Columns:
        """All that the records of the view add, as arrays; of one shard, if it is named.

        They are kept until the view grows, or the store is divided in another way.
        """
        return self._columns_by(self._running(), shard)

    def to_rustworkx(self) -> rustworkx.PyDiGraph[Reference, Reference]:
        """All that is visible as one graph in memory, for what asks about the whole of it: cycles, order, components.

        Its nodes are the visible artifacts, in byte order, their data the references. A visible edge leads from each of its
        sources to each of its targets; the data there is its own reference.

        Raises:
            MissingExtra: the package rustworkx is not installed.
        """
        return graph_of(self.visible(), self.edges())

    def _columns_by(self, running: Running, shard: int | None) -> Columns:
        heads = self.heads()
        if self._columns_at != (heads, running.shard_map):
            self._columns.clear()
            self._columns_at = heads, running.shard_map
        if shard not in self._columns:
            rows = running.rows(SegmentScan(_ADDS, shard=shard))
            self._columns[shard] = columns_of(rows, tuple([head.domain for head in heads]))
        return self._columns[shard]

    def _shown(self, plan: Plan) -> Iterator[Row]:
        visibility, running = self._now().visibility, self._running()

        def is_first(row: Row) -> bool:
            running.still()
            added = None if row["ref"] is None else min(visibility.live(row["ref"].encoded()), default=None)
            return added == (row["seq"], row["domain"])

        return filter(is_first, running.rows(plan))

    def _running(self) -> Running:
        age = self._age()

        def still() -> None:
            if self._age() != age:
                raise InternalError("run", "the view has grown since its rows began", "ask again, or view a snapshot")

        def is_visible(ref: Reference) -> bool:
            still()
            return self.is_visible(ref)

        return Running(self._catalog, self.heads(), still, is_visible, self._internal, self._columns_by)

    def _now(self) -> State:
        return self._view._now()
