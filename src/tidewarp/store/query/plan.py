"""The operators of a plan. Each is a value, checked when it is made; a plan is the operator at its top.

An operator says which fields its rows have, and whether they come in merge order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidewarp.codec.references import Reference
from tidewarp.errors import OperatorError
from tidewarp.store.query.row import RECORD_FIELDS, Condition, Role
from tidewarp.store.shards import SHARDS_MAX

__all__ = [
    "Aggregation",
    "IndexFilter",
    "LimitOffset",
    "Merge",
    "Plan",
    "Projection",
    "SIMDFilter",
    "SegmentScan",
    "ShardDispatch",
    "TGKTraversal",
    "TombstoneShadow",
]

_U32 = 1 << 32
_U64 = 1 << 64


class Plan:
    """What all operators have."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of a row's values."""
        raise NotImplementedError

    @property
    def is_in_order(self) -> bool:
        """Whether the rows are records in merge order."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[Plan, ...]:
        """The plans whose rows it takes."""
        return ()

    @property
    def name(self) -> str:
        """Of the operator."""
        return type(self).__name__


@dataclass(frozen=True)
class SegmentScan(Plan):
    """The records of the view, in merge order.

    Args:
        kinds: of these kinds; None: of all.
        domains: of these domains (32 bytes each); None: of all that count.
        seq: first and last sequence number; None: all.
        shard: of this shard of the store, by its number; None: of all. What lies in it is one node's own affair.
    """

    kinds: frozenset[int] | None = None
    domains: frozenset[bytes] | None = None
    seq: tuple[int, int] | None = None
    shard: int | None = None

    def __post_init__(self) -> None:
        if self.shard is not None and not 0 <= self.shard < SHARDS_MAX:
            raise _refused(
                self, f"shard {self.shard}", f"shards are numbered from 0, and there are {SHARDS_MAX} at most"
            )
        if self.seq is not None and not 0 < self.seq[0] <= self.seq[1] < _U64:
            raise _refused(self, f"seq {self.seq}", "sequence numbers count from 1, the first is not behind the last")

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of a record."""
        return RECORD_FIELDS

    @property
    def is_in_order(self) -> bool:
        """It is."""
        return True


class _OverOne(Plan):
    """What the operators have that take the rows of one plan, where they do not say it otherwise."""

    child: Plan

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of the child."""
        return self.child.fields

    @property
    def is_in_order(self) -> bool:
        """If the child is."""
        return self.child.is_in_order

    @property
    def children(self) -> tuple[Plan, ...]:
        """The child."""
        return (self.child,)


class _Filter(_OverOne):
    """What the two filters share."""

    tag: int | None
    type: int | None
    role: Role
    node: Reference | None
    origin: bytes | None

    def _check(self) -> None:
        for what, number in (("tag", self.tag), ("type", self.type)):
            if number is not None and not 0 <= number < _U32:
                raise _refused(self, f"{what} {number}", "tags and types are U32")
        if self.role not in ("from", "to", "both") or (self.role != "both" and self.node is None):
            raise _refused(self, f"role {self.role!r:.20}", "a role is from, to or both, and is that of a node")
        _need(self, self.child, "domain", "tag", "type", "sources", "targets")

    @property
    def condition(self) -> Condition:
        """What a row has to be."""
        return Condition(self.tag, self.type, self.node, self.role, self.origin)


@dataclass(frozen=True)
class IndexFilter(_Filter):
    """The rows of ``child`` that meet a condition: see :class:`~tidewarp.store.query.row.Condition`.

    Right over a SegmentScan it goes by an index, if there is one, and looks again at each row that it finds.
    """

    child: Plan
    tag: int | None = None
    type: int | None = None
    role: Role = "both"
    node: Reference | None = None
    origin: bytes | None = None

    def __post_init__(self) -> None:
        self._check()


@dataclass(frozen=True)
class SIMDFilter(_Filter):
    """The rows that an IndexFilter gives, found in :meth:`StoreView.columns`: a whole column is compared at once.

    The columns are made at the first use and kept with the view, 40 bytes for an artifact and for an end of an edge.
    """

    child: SegmentScan
    tag: int | None = None
    type: int | None = None
    role: Role = "both"
    node: Reference | None = None
    origin: bytes | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.child, SegmentScan):
            raise _refused(self, f"child {self.child.name}", "columns are those of a SegmentScan")
        self._check()


@dataclass(frozen=True)
class Merge(Plan):
    """The rows of all ``inputs`` in merge order, each record once: the row of the first input that has it."""

    inputs: tuple[Plan, ...]

    def __post_init__(self) -> None:
        if not self.inputs:
            raise _refused(self, "no inputs", "there is one at least")
        for child in self.inputs:
            if not child.is_in_order:
                raise _refused(self, f"input {child.name}", "its rows are no records in merge order")
            if child.fields != self.inputs[0].fields:
                raise _refused(self, f"input {child.name}", f"all inputs have the fields {self.inputs[0].fields}")

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of each input."""
        return self.inputs[0].fields

    @property
    def is_in_order(self) -> bool:
        """It is."""
        return True

    @property
    def children(self) -> tuple[Plan, ...]:
        """The inputs."""
        return self.inputs


@dataclass(frozen=True)
class ShardDispatch(_OverOne):
    """The rows of ``child``, with one reader for each shard of the store wherever it scans records, merged as by Merge.

    Whatever the shards are, the rows are those of ``child`` alone, in the same order.
    """

    child: Plan


@dataclass(frozen=True)
class TombstoneShadow(_OverOne):
    """What is not visible at the view is left out ("hide"), or said in the field ``visible``, 0 or 1 ("mark").

    A row that is about nothing (``ref`` None) is shown, and marked None.
    """

    child: Plan
    mode: Literal["hide", "mark"] = "hide"

    def __post_init__(self) -> None:
        if self.mode not in ("hide", "mark"):
            raise _refused(self, f"mode {self.mode!r:.20}", "a mode is hide or mark")
        _need(self, self.child, "ref")

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of the child, and ``visible``."""
        added = ("visible",) if self.mode == "mark" and "visible" not in self.child.fields else ()
        return self.child.fields + added


@dataclass(frozen=True)
class TGKTraversal(Plan):
    """What can be reached from ``roots`` over edges, breadth first, the neighbours of a node in byte order.

    Neither hidden artifacts nor hidden edges are crossed or given. Rows: ``ref``, ``depth`` (0: a root), and ``edge``, by
    which it was reached first (of several, the first in byte order). Where a bound keeps a node out, the last row
    is truncated.

    Args:
        roots: where to begin.
        direction: "to" goes from the sources of an edge to its targets, "from" goes from these back, "both" both ways.
        types: of edges; None: all.
        depth_max: edges from a root, at most.
        nodes_max: rows, at most.
    """

    roots: tuple[Reference, ...]
    direction: Role = "from"
    types: frozenset[int] | None = None
    depth_max: int = 16
    nodes_max: int = 100_000

    def __post_init__(self) -> None:
        if self.direction not in ("from", "to", "both"):
            raise _refused(self, f"direction {self.direction!r:.20}", "a direction is from, to or both")
        if self.depth_max < 0 or self.nodes_max < 1:
            found = f"depth_max {self.depth_max}, nodes_max {self.nodes_max}"
            raise _refused(self, found, "a depth counts from 0, nodes from 1")

    @property
    def fields(self) -> tuple[str, ...]:
        """Those named above."""
        return ("ref", "depth", "edge")

    @property
    def is_in_order(self) -> bool:
        """It has an order of its own."""
        return False


@dataclass(frozen=True)
class Projection(_OverOne):
    """Some fields of each row. The row keeps its place."""

    child: Plan
    only: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.only or len(set(self.only)) != len(self.only):
            raise _refused(self, f"only {self.only}", "it names one field at least, and none twice")
        _need(self, self.child, *self.only)

    @property
    def fields(self) -> tuple[str, ...]:
        """Those chosen."""
        return self.only


@dataclass(frozen=True)
class Aggregation(_OverOne):
    """One row for each group: its ``group`` fields and a value under the name of ``function``; ascending, None first.

    Without ``group``, one row for all. What is None is not counted, added or compared; a sum, minimum or maximum of nothing
    is None.

    Args:
        child: whose rows.
        function: "count" counts rows or, with ``field``, those in which it is something.
        field: what is counted, added or compared; a sum needs one of integers.
        group: fields that are equal in all rows of a group; at most 65,536 groups.
    """

    child: Plan
    function: Literal["count", "sum", "min", "max"] = "count"
    field: str | None = None
    group: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.function not in ("count", "sum", "min", "max"):
            raise _refused(self, f"function {self.function!r:.20}", "a function is count, sum, min or max")
        if self.field is None and self.function != "count":
            raise _refused(self, self.function, "it is that of a field")
        if self.function == "sum" and self.field not in _NUMBERS:
            raise _refused(self, f"sum of {self.field!r:.40}", f"sums are those of {', '.join(_NUMBERS)}")
        _need(self, self.child, *self.group, *(() if self.field is None else (self.field,)))

    @property
    def fields(self) -> tuple[str, ...]:
        """The group, then the function."""
        return (*self.group, self.function)

    @property
    def is_in_order(self) -> bool:
        """It has an order of its own."""
        return False


@dataclass(frozen=True)
class LimitOffset(_OverOne):
    """At most ``limit`` rows (None: all) behind the first ``offset``. A truncated row counts as none, and is never skipped."""

    child: Plan
    limit: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0 or (self.limit is not None and self.limit < 0):
            raise _refused(self, f"limit {self.limit}, offset {self.offset}", "both count from 0")


_NUMBERS = ("count", "depth", "published", "seq", "size", "sum", "visible")


def _need(plan: Plan, child: Plan, *fields: str) -> None:
    lacking = [field for field in fields if field not in child.fields]
    if lacking:
        raise _refused(plan, f"field {lacking[0]!r:.40}", f"{child.name} gives {', '.join(child.fields)}")


def _refused(plan: Plan, what: str, rule: str) -> OperatorError:
    return OperatorError(f"{plan.name}: {what}", rule, "correct the plan")
