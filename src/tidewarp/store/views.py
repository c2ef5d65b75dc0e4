"""Views of a store: folds of its records, which grow when somebody asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from tidewarp.codec import PUBLISHED, RecordHeader
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, OperatorError
from tidewarp.store.admission import Admission
from tidewarp.store.contract import StoredRecord
from tidewarp.store.fold import Fold
from tidewarp.store.query import StoreView
from tidewarp.store.query.catalog import Catalog

__all__ = ["Views"]


class Views:
    """A fold for each scope that was asked for.

    Args:
        admission: whose records count.
        sizes: the domains and how many records of each are here.
        records: of a domain, those behind a sequence number.
        catalog: what a view is asked over.
    """

    def __init__(
        self,
        admission: Admission,
        sizes: Callable[[], Iterable[tuple[bytes, int]]],
        records: Callable[[bytes, int], Iterator[StoredRecord]],
        catalog: Catalog,
    ) -> None:
        self._admission = admission
        self._sizes = sizes
        self._records = records
        self._catalog = catalog
        self._rivals: tuple[RecordHeader, ...] = ()
        self._folds: dict[str, tuple[Fold, dict[bytes, int]]] = {}
        self._ages = {"published": 0, "all": 0}  # records that were folded, ever
        self._lock = threading.Lock()

    @property
    def admission(self) -> Admission:
        """Whose records count."""
        return self._admission

    @property
    def rivals(self) -> tuple[RecordHeader, ...]:
        """The headers that were shown to be rivals of records here."""
        return self._rivals

    def view(self, snapshot: Snapshot | None, scope: Literal["published", "all"]) -> StoreView:
        """As the contract of the store says."""
        with self._lock:
            fold = self._grown(scope)
            is_internal = scope == "all"
            if snapshot is not None:
                return StoreView(fold.cut(snapshot), self._catalog, internal=is_internal)
            return StoreView(fold, self._catalog, internal=is_internal, age=lambda: self._ages[scope])

    def snapshot(self) -> Snapshot:
        """As the contract of the store says."""
        with self._lock:
            return self._grown("published").snapshot()

    def state_hash(self, scope: Literal["published", "all"]) -> bytes:
        """As the contract of the store says."""
        with self._lock:
            return self._grown(scope).state_hash()

    def admit(self, admission: Admission, rivals: Iterable[RecordHeader]) -> None:
        """As the contract of the store says."""
        now = admission, tuple(rivals)
        with self._lock:
            if now != (self._admission, self._rivals):  # else the records that were folded still say the same
                self._admission, self._rivals = now
                self._folds.clear()

    def forget(self) -> None:
        """Records that were folded have not come to be: begin anew."""
        with self._lock:
            self._folds.clear()

    def _grown(self, scope: str) -> Fold:
        if scope not in ("published", "all"):
            raise OperatorError(f"scope {scope!r:.40}", "a scope is published or all", "choose one")
        if scope not in self._folds:
            self._folds[scope] = Fold(self._admission, internal=scope == "all"), {}
        fold, reached = self._folds[scope]
        for domain, size in self._sizes():
            if reached.get(domain, 0) < size:
                for record in self._records(domain, reached.get(domain, 0)):
                    _fold(fold, record)
                    self._ages[scope] += 1
                    reached[domain] = record.header.seq
                for rival in self._rivals:
                    if rival.domain == domain and rival.seq <= reached.get(domain, 0) + 1:
                        fold.add(rival, None)
        return fold


def _fold(fold: Fold, record: StoredRecord) -> None:
    try:
        fold.add(record.header, record.body)
    except CodecError:
        if record.header.flags & PUBLISHED:
            raise
        fold.add(record.header, None)  # of no form that its kind has: to this node as to others, it says nothing
