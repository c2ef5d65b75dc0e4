"""All that a store in memory holds, as one value that can be copied: a domain's log, and what follows from all logs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tidewarp.codec import genesis
from tidewarp.codec.artifacts import TAG_EDGE, Artifact
from tidewarp.codec.bodies import Body, EdgeBody
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.references import Reference
from tidewarp.store.continuation import Incoming
from tidewarp.store.contract import StoredRecord
from tidewarp.store.retention import Pinned
from tidewarp.store.shards import UNDIVIDED, ShardMap
from tidewarp.store.signers import check_bounds, earlier_heads, is_keys
from tidewarp.store.speaking import Event
from tidewarp.store.subjects import told

__all__ = ["Log", "State"]


@dataclass
class Log:
    """One domain: its records, and what is known of its signers."""

    domain: bytes
    key: bytes
    records: list[Incoming] = field(default_factory=list)
    heads: tuple[SignedHead, ...] = ()
    """The last signed one as the last, behind those that it leans on."""
    note: str | None = None
    """Of the last signed head: making it costs more than all else that is said of a domain."""

    @property
    def head(self) -> bytes:
        """Hash of the last record."""
        return self.records[-1].hash if self.records else genesis(self.domain)

    @property
    def signed(self) -> SignedHead | None:
        """The last signed head."""
        return self.heads[-1] if self.heads else None

    def keys_record(self, size: int) -> StoredRecord | None:
        """The last published KEYS record among the first ``size``."""
        found = (one for one in reversed(self.records[:size]) if is_keys(one.header.kind, one.header.flags))
        return next((StoredRecord(one.header, one.state, one.body) for one in found), None)

    def keep(self, head: SignedHead) -> None:
        """Take in a verified head, the last one from now on. Raises PeerError: it leans on too many."""
        earlier = earlier_heads(self.key, self.heads, head, self.keys_record)
        check_bounds(self.domain, earlier)
        self.heads, self.note = (*earlier, head), head.note()


@dataclass
class State:
    """All that a transaction may change. What is in the containers is never changed itself, but for logs, which grow."""

    logs: dict[bytes, Log]
    cursors: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[Reference, Artifact] = field(default_factory=dict)
    events: dict[Reference, list[tuple[Event, Body]]] = field(default_factory=dict)
    edges: dict[Reference, Edge] = field(default_factory=dict)
    extensions: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    pins: dict[str, Pinned] = field(default_factory=dict)
    gone: dict[Reference, tuple[int | None, int]] = field(default_factory=dict)  # tag and size of what was dropped
    last_ticks: dict[int, int] = field(default_factory=dict)  # of the own domain's records, by seq
    quota_bytes: int | None = None
    shard_map: ShardMap = UNDIVIDED

    def copy(self) -> State:
        """What to go back to."""
        logs = {one.domain: Log(one.domain, one.key, one.records[:], one.heads, one.note) for one in self.logs.values()}
        events = {ref: events[:] for ref, events in self.events.items()}
        plain = (dict(self.edges), dict(self.extensions), dict(self.pins), dict(self.gone), dict(self.last_ticks))
        return State(logs, dict(self.cursors), dict(self.artifacts), events, *plain, self.quota_bytes, self.shard_map)

    def let_go(self, refs: Iterable[Reference]) -> None:
        """Drop the bytes of artifacts; tag and size are remembered."""
        for ref in refs:
            if ref in self.artifacts:
                artifact = self.artifacts.pop(ref)
                self.gone[ref] = artifact.tag, len(artifact.payload)

    def extend(self, domain: bytes, incoming: Iterable[Incoming]) -> None:
        """Add records to a log, and what they say of artifacts."""
        log = self.logs[domain]
        for one in incoming:
            log.records.append(one)
            self._note(domain, one)

    def reveal(self, domain: bytes, news: Iterable[Incoming]) -> None:
        """Put records in the place of their stubs, and what they say of artifacts where it belongs."""
        log = self.logs[domain]
        for one in news:
            log.records[one.header.seq - 1] = one
            self._note(domain, one)
        for events in self.events.values():
            events.sort(key=lambda event: (event[0].domain, event[0].seq))

    def cut_back(self, domain: bytes, size: int) -> None:
        """Forget what records of a log behind the first ``size`` say of artifacts, and the edges that no other record adds."""
        for ref, events in self.events.items():
            self.events[ref] = [one for one in events if one[0].domain != domain or one[0].seq <= size]
            if ref in self.edges and not any(isinstance(body, EdgeBody) for _, body in self.events[ref]):
                del self.edges[ref]

    def _note(self, domain: bytes, one: Incoming) -> None:
        said = told(one.header, one.body)
        if said is not None:
            header, ref, body = said
            event = Event(domain, header.seq, header.kind, header.flags)
            self.events.setdefault(ref, []).append((event, body))
            if isinstance(body, EdgeBody):
                self.edges[ref] = body.edge
                self.artifacts[ref] = Artifact(body.edge.to_bytes(), TAG_EDGE)
