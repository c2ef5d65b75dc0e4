"""Questions about what a store shows, as plans: values that say which rows, and nothing of how they are found.

    plan         the operators: SegmentScan, IndexFilter, SIMDFilter, Merge, ShardDispatch, TombstoneShadow, TGKTraversal,
                 Projection, Aggregation, LimitOffset
    row          what a record is as a row, and the condition of a filter
    catalog      what a plan is run over: records and, where there are any, indices; without them, over records alone
    tables       the same over the tables of a file
    columns      artifacts and ends of edges as NumPy arrays
    graph        all that is visible as a graph in memory
    running      from a plan to its rows
    view         a view that can be asked

All of a plan sees one view. Its rows are made one by one, in an order that hangs on nothing but the records.
"""

from __future__ import annotations

from tidewarp.store.query.columns import Columns
from tidewarp.store.query.plan import (
    Aggregation,
    IndexFilter,
    LimitOffset,
    Merge,
    Plan,
    Projection,
    SegmentScan,
    ShardDispatch,
    SIMDFilter,
    TGKTraversal,
    TombstoneShadow,
)
from tidewarp.store.query.row import Row
from tidewarp.store.query.view import StoreView

__all__ = [
    "Aggregation",
    "Columns",
    "IndexFilter",
    "LimitOffset",
    "Merge",
    "Plan",
    "Projection",
    "Row",
    "SIMDFilter",
    "SegmentScan",
    "ShardDispatch",
    "StoreView",
    "TGKTraversal",
    "TombstoneShadow",
]
