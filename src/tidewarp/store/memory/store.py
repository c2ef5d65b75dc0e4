"""A store in memory, put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Literal, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.codec import RecordHeader, domain_of
from tidewarp.codec.bodies import SnapshotBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import InternalError
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.chain import check_name
from tidewarp.store.memory.collection import Keeping
from tidewarp.store.memory.journal import MemoryJournal
from tidewarp.store.memory.state import Log, State
from tidewarp.store.memory.tables import Extensions
from tidewarp.store.query import StoreView
from tidewarp.store.query.catalog import RecordCatalog
from tidewarp.store.shards import UNDIVIDED, ShardMap
from tidewarp.store.snapshots import Item, snapshot_items
from tidewarp.store.speaking import entry_of
from tidewarp.store.views import Views

__all__ = ["MemoryStore"]


class MemoryStore(Keeping, Extensions):
    """A store without files. Equal keys and equal calls give equal records.

    Args:
        root_public_key: 32 bytes, of which the domain is the hash.
        seed: 32 bytes, the private key; then the public key follows from it, and heads are signed.
        quota_bytes: payload bytes that it takes, at most. None: no bound.
        shard_map: how its records are divided.
        admission: whose records count.
        clock: stamps the records that are written; None: they have no stamp.
    """

    def __init__(
        self,
        root_public_key: bytes = bytes(32),
        *,
        seed: bytes | None = None,
        quota_bytes: int | None = None,
        shard_map: ShardMap = UNDIVIDED,
        admission: Admission = OPEN,
        clock: Clock | None = None,
    ) -> None:
        self._seed = seed
        key = root_public_key if seed is None else public_key_of(seed)
        domain = domain_of(key)
        state = State({domain: Log(domain, key)}, quota_bytes=quota_bytes, shard_map=shard_map)
        super().__init__(domain, state, clock)
        self._journal = MemoryJournal(self)
        self._views = Views(
            admission,
            lambda: [(one.domain, len(one.records)) for one in self._seen().logs.values()],
            lambda domain, after: self.records(domain, after),
            RecordCatalog(lambda: list(self._seen().logs), self.records, lambda: self._seen().shard_map),
        )

    @property
    def journal(self) -> MemoryJournal:
        """The journal."""
        return self._journal

    @property
    def shard_map(self) -> ShardMap:
        """As the contract says."""
        self._check_open("shard_map")
        return self._seen().shard_map

    def reshard(self, shard_map: ShardMap) -> None:
        """As the contract says."""
        with self._writing("reshard") as state:
            state.shard_map = shard_map

    def view(self, snapshot: Snapshot | None = None, *, scope: Literal["published", "all"] = "published") -> StoreView:
        """As the contract says."""
        self._check_open("view")
        return self._views.view(snapshot, scope)

    def snapshot(self, name: str | None = None) -> Snapshot:
        """As the contract says."""
        self._check_open("snapshot")
        if name is None:
            return self._views.snapshot()
        check_name(name, "snapshot")
        with self.transaction(), self._writing("snapshot") as state:
            found = self._views.snapshot()
            self._extend(state, [entry_of(SnapshotBody(found, name), publish=True)])
        return found

    def snapshot_items(self, snapshot_id: bytes) -> Iterator[Item]:
        """As the contract says."""
        return snapshot_items(self, snapshot_id)

    def state_hash(self, scope: Literal["published", "all"] = "published") -> bytes:
        """As the contract says."""
        self._check_open("state_hash")
        return self._views.state_hash(scope)

    @property
    def admission(self) -> Admission:
        """As the contract says."""
        self._check_open("admission")
        return self._views.admission

    def admit(self, admission: Admission, rivals: Iterable[RecordHeader] = ()) -> None:
        """As the contract says."""
        self._check_open("admit")
        self._views.admit(admission, rivals)

    def close(self) -> None:
        """Refuse everything from here on; what was written is gone with the object."""
        if self._in_transaction:
            raise InternalError("close", "its transaction is open", "leave the block first")
        self._journal.close()
        if self._db is not None:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
