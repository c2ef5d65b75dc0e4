"""From a plan to its rows. Each operator is a generator over the rows of its children."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tidewarp.codec import PUBLISHED, record_hash
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError, OperatorError
from tidewarp.store.fold.view import Head
from tidewarp.store.query.catalog import Catalog, Position
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
from tidewarp.store.query.row import Row, row_of_record
from tidewarp.store.shards import digest_of

if TYPE_CHECKING:
    from tidewarp.store.contract import StoredRecord

__all__ = ["GROUPS_MAX", "POSITIONS_MAX", "Running"]

GROUPS_MAX = 65_536
"""Groups of an aggregation."""

POSITIONS_MAX = 250_000
"""Records that an index may name for one filter, 30 MB or so; beyond that all records are looked at."""

_PAGE = 4_096  # records in memory, of all domains that are merged
_PART = 256  # records that are looked up at once


class Running:
    """Plans at one view.

    Args:
        heads: how far each domain counts.
        still: called before each page of records. Raises if the view is another one meanwhile.
        is_visible: at the view. Raises as ``still``.
        internal: whether unpublished records count.
        columns: those of the view or of one of its shards, made by the rows of plans here.
    """

    def __init__(
        self,
        catalog: Catalog,
        heads: Iterable[Head],
        still: Callable[[], None],
        is_visible: Callable[[Reference], bool],
        internal: bool,
        columns: Callable[[Running, int | None], Columns],
    ) -> None:
        self.shard_map = catalog.shard_map()
        """By which all its rows are found, even if the store is divided anew meanwhile."""
        self._catalog = catalog
        self._heads = {head.domain: head for head in heads}
        self.still = still
        self._is_visible = is_visible
        self._internal = internal
        self._columns = columns
        self._checked: set[bytes] = set()  # domains whose branch is the one that is here

    def rows(self, plan: Plan) -> Iterator[Row]:
        """The rows of a plan."""
        match plan:
            case SegmentScan():
                return self._scanned(plan)
            case IndexFilter():
                return self._index_filter(plan)
            case SIMDFilter(child=scan):
                return self._looked_up(scan, plan, self._columns(self, scan.shard).positions(plan.condition))
            case Merge(inputs=inputs):
                return _merged([self.rows(one) for one in inputs])
            case ShardDispatch(child=child):
                return self.rows(self._dispatched(child))
            case TombstoneShadow():
                return self._shadowed(plan)
            case TGKTraversal():
                return self._traversal(plan)
            case Projection(child=child, only=only):
                return (
                    Row(row.place, {field: row.values[field] for field in only}, row.truncated)
                    for row in self.rows(child)
                )
            case Aggregation():
                return _aggregated(plan, self.rows(plan.child))
            case LimitOffset():
                return _limited(plan, self.rows(plan.child))
            case _:
                raise InternalError(plan.name, "an operator is one of tidewarp.store.query", "use one of these")

    def records(self) -> Iterator[StoredRecord]:
        """All records, in merge order."""
        return (record for _, record in self._read(SegmentScan()))

    def explain(self, plan: Plan, depth: int = 0) -> Iterator[str]:
        """A line for each operator, from the top, with how its rows are found."""
        indent = "  " * depth
        match plan:
            case IndexFilter(child=SegmentScan()) if self._positions(plan) is not None:
                how = (
                    f"by the index of {'ends' if plan.node is not None else 'types'} of edges, each row looked at again"
                )
            case IndexFilter(child=SegmentScan()):
                how = "no index: each row looked at"
            case SIMDFilter():
                how = "by columns, each row looked at again"
            case SegmentScan():
                domains = [one for one in self._heads if plan.domains is None or one in plan.domains]
                in_shard = "" if plan.shard is None else f" in shard {plan.shard} of {self.shard_map.count}"
                how = f"records of {len(domains)} domains{in_shard}, merged"
            case ShardDispatch():
                how = f"one reader for each of {self.shard_map.count} shards, merged"
            case TGKTraversal():
                how = f"breadth first, at most {plan.nodes_max} nodes, {plan.depth_max} edges from a root"
            case _:
                how = ""
        yield f"{indent}{plan.name}{_arguments(plan)}{': ' if how else ''}{how}"
        for child in plan.children:
            yield from self.explain(child, depth + 1)

    def _dispatched(self, plan: Plan) -> Plan:
        """The plan with a reader for each shard wherever it looks at all records; what an index finds stays as it is."""
        match plan:
            case SegmentScan(shard=None):
                return Merge(tuple(replace(plan, shard=shard) for shard in range(self.shard_map.count)))
            case SIMDFilter(child=SegmentScan(shard=None) as scan):
                shards = range(self.shard_map.count)
                return Merge(tuple(replace(plan, child=replace(scan, shard=shard)) for shard in shards))
            case IndexFilter(child=SegmentScan()) if self._positions(plan) is not None:
                return plan
            case Merge(inputs=inputs):
                return Merge(tuple(map(self._dispatched, inputs)))
            case IndexFilter() | TombstoneShadow() | Projection() | Aggregation() | LimitOffset() | ShardDispatch():
                return replace(plan, child=self._dispatched(plan.child))
            case _:
                return plan

    # --- records ---

    def _scanned(self, scan: SegmentScan) -> Iterator[Row]:
        return (row for row, _ in self._read(scan))

    def _read(self, scan: SegmentScan) -> Iterator[tuple[Row, StoredRecord]]:
        """The records of a scan and their rows, in merge order."""
        if scan.shard is not None and scan.shard >= self.shard_map.count:
            rule = f"this store has {self.shard_map.count} shards, numbered from 0"
            raise OperatorError(f"shard {scan.shard}", rule, "name one of them, or scan all")
        domains = [domain for domain in self._heads if scan.domains is None or domain in scan.domains]
        readers = len(domains) * (1 if scan.shard is None else self.shard_map.count)
        page = max(1 if scan.shard is not None else 16, _PAGE // max(1, readers))
        found = [self._of_domain(scan, domain, page) for domain in domains]
        return heapq.merge(*found, key=lambda pair: _place(pair[0]))

    def _of_domain(self, scan: SegmentScan, domain: bytes, page: int) -> Iterator[tuple[Row, StoredRecord]]:
        first, last = scan.seq or (1, self._heads[domain].seq)
        after, last = first - 1, min(last, self._heads[domain].seq)
        self._check_branch(domain)
        is_divided = scan.shard is not None and self.shard_map.count > 1
        pages = (self._shard_pages if is_divided else self._pages)(scan, domain, after, last, page)
        for found in pages:
            yield from ((row_of_record(record), record) for record in found if self._counts(scan, record))

    def _pages(
        self, scan: SegmentScan, domain: bytes, after: int, last: int, page: int
    ) -> Iterator[Sequence[StoredRecord]]:
        while after < last:
            self.still()
            found = list(self._catalog.records(domain, after, min(page, last - after)))
            if not found:
                raise InternalError(
                    f"records behind {after} of {domain.hex()[:16]}", "the view has them", "report this"
                )
            after = found[-1].header.seq
            yield found

    def _shard_pages(
        self, scan: SegmentScan, domain: bytes, after: int, last: int, page: int
    ) -> Iterator[Sequence[StoredRecord]]:
        """The records of a shard, by its index as long as there is one, else by looking at all of them."""
        while after < last:
            self.still()
            seqs = self._catalog.in_shard(self.shard_map, scan.shard or 0, domain, after, page)
            if seqs is None:
                for found in self._pages(scan, domain, after, last, page):
                    yield [record for record in found if self._is_in_shard(scan, record)]
                return
            if len(seqs) == 0 or seqs[0] > last:
                return
            yield list(self._catalog.records_at(domain, [seq for seq in seqs if seq <= last]))
            after = seqs[-1]

    def _is_in_shard(self, scan: SegmentScan, record: StoredRecord) -> bool:
        return scan.shard is None or self.shard_map.shard_of(digest_of(record.header, record.body)) == scan.shard

    def _check_branch(self, domain: bytes) -> None:
        """Of a domain that has forked, the store holds one branch, and it may be the other one that counts."""
        if domain in self._checked:
            return
        head = self._heads[domain]
        record = next(self._catalog.records(domain, head.seq - 1, 1), None)
        if record is None or record_hash(record.header.to_bytes()) != head.hash:
            raise OperatorError(
                f"domain {domain.hex()[:16]}",
                "the branch that counts is not the one that is here",
                "pull it from a peer that has that branch",
            )
        self._checked.add(domain)

    def _counts(self, scan: SegmentScan, record: StoredRecord) -> bool:
        header = record.header
        if not self._internal and not header.flags & PUBLISHED:
            return False
        return scan.kinds is None or header.kind in scan.kinds

    def _index_filter(self, plan: IndexFilter) -> Iterator[Row]:
        condition = plan.condition
        if not isinstance(plan.child, SegmentScan):
            return (row for row in self.rows(plan.child) if row.truncated or condition.holds(row))
        positions = self._positions(plan)
        if positions is not None:
            return self._looked_up(plan.child, plan, iter(sorted(positions)))
        scan = plan.child
        if plan.origin is not None and (scan.domains is None or plan.origin in scan.domains):
            scan = replace(scan, domains=frozenset({plan.origin}))
        return filter(condition.holds, self._scanned(scan))

    def _positions(self, plan: IndexFilter) -> list[Position] | None:
        return self._catalog.edges(plan.type, plan.node, plan.role, POSITIONS_MAX)

    def _looked_up(
        self, scan: SegmentScan, plan: IndexFilter | SIMDFilter, positions: Iterator[Position]
    ) -> Iterator[Row]:
        """The rows at ``positions``, which are in merge order, that are of the scan and meet the condition."""
        first, last = scan.seq or (1, 1 << 63)
        wanted = (
            (seq, domain)
            for seq, domain in positions
            if domain in self._heads
            and first <= seq <= min(last, self._heads[domain].seq)
            and (scan.domains is None or domain in scan.domains)
        )
        condition = plan.condition
        while part := list(islice(wanted, _PART)):
            self.still()
            found = {}
            for domain in {domain for _, domain in part}:
                self._check_branch(domain)
                seqs = [seq for seq, of_domain in part if of_domain == domain]
                records = self._catalog.records_at(domain, seqs)
                found.update({(seq, domain): record for seq, record in zip(seqs, records, strict=True)})
            for key in part:
                if self._counts(scan, found[key]) and self._is_in_shard(scan, found[key]):
                    row = row_of_record(found[key])
                    if condition.holds(row):
                        yield row

    # --- visibility and the graph ---

    def _shadowed(self, plan: TombstoneShadow) -> Iterator[Row]:
        for row in self.rows(plan.child):
            ref = row.values["ref"]
            is_visible = self._is_visible(ref) if isinstance(ref, Reference) else None
            if plan.mode == "mark":
                visible = None if is_visible is None else int(is_visible)
                yield Row(row.place, {**row.values, "visible": visible}, row.truncated)
            elif is_visible is not False:
                yield row

    def _traversal(self, plan: TGKTraversal) -> Iterator[Row]:
        level = [ref for ref in sorted(set(plan.roots)) if self._is_visible(ref)]
        seen = set(level)
        given = 0
        for ref in level:
            if given == plan.nodes_max:
                yield _truncation(plan)
                return
            given += 1
            yield _reached(ref, 0, None)
        depth = 0
        while level:
            self.still()
            depth += 1
            reached = []
            for step in self._catalog.steps(level, plan.direction, plan.types):
                if step.other in seen or not self._is_visible(step.edge) or not self._is_visible(step.other):
                    continue
                if depth > plan.depth_max or given == plan.nodes_max:
                    yield _truncation(plan)
                    return
                seen.add(step.other)
                reached.append(step.other)
                given += 1
                yield _reached(step.other, depth, step.edge)
            level = reached


def _place(row: Row) -> Any:
    return row.place


def _merged(inputs: list[Iterator[Row]]) -> Iterator[Row]:
    last = None
    for row in heapq.merge(*inputs, key=_place):
        if row.place != last:
            yield row
        last = row.place


def _limited(plan: LimitOffset, rows: Iterator[Row]) -> Iterator[Row]:
    end = None if plan.limit is None else plan.offset + plan.limit
    for place, row in enumerate(rows):
        if end is not None and place >= end:
            return
        if place >= plan.offset or row.truncated:
            yield row


def _aggregated(plan: Aggregation, rows: Iterator[Row]) -> Iterator[Row]:
    groups: dict[tuple[Any, ...], Any] = {} if plan.group else {(): _nothing(plan)}
    is_truncated = False
    for row in rows:
        if row.truncated:
            is_truncated = True
            continue
        key = tuple([row.values[field] for field in plan.group])
        if key not in groups and len(groups) == GROUPS_MAX:
            raise OperatorError(
                f"group by {', '.join(plan.group)}", f"there are at most {GROUPS_MAX} groups", "group by less"
            )
        groups[key] = _folded(plan, groups.get(key, _nothing(plan)), row.values)
    for key in sorted(groups, key=lambda key: [(value is not None, value) for value in key]):
        yield Row(None, {**dict(zip(plan.group, key, strict=True)), plan.function: groups[key]})
    if is_truncated:
        yield _truncation(plan)


def _nothing(plan: Aggregation) -> int | None:
    return 0 if plan.function == "count" else None


def _folded(plan: Aggregation, before: Any, values: Mapping[str, Any]) -> Any:
    value: Any = 1 if plan.field is None else values[plan.field]
    if value is None:
        return before
    if plan.function == "count":
        return before + 1
    if before is None:
        return value
    if plan.function == "sum":
        return before + value
    return min(before, value) if plan.function == "min" else max(before, value)


def _reached(ref: Reference, depth: int, edge: Reference | None) -> Row:
    return Row(None, {"ref": ref, "depth": depth, "edge": edge})


def _truncation(plan: Plan) -> Row:
    return Row(None, dict.fromkeys(plan.fields), truncated=True)


def _arguments(plan: Plan) -> str:
    """What a plan says beside its children, as text."""
    said = [
        f"{name}={_text(value)}"
        for name, value in vars(plan).items()
        if name not in ("child", "inputs") and value is not None and value != ()
    ]
    return f"({', '.join(said)})" if said else ""


def _text(value: object) -> str:
    if isinstance(value, Reference):
        return value.hex()[:16]
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(_text, sorted(value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return str(value)
