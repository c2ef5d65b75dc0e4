"""Artifacts, edges and what is said of them, in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_RECEIPT, Artifact
from tidewarp.codec.bodies import ERASE, ArtifactBody, EdgeBody, PointerBody, ReceiptBody, TombstoneBody
from tidewarp.codec.edges import Edge
from tidewarp.codec.references import Reference
from tidewarp.errors import Erased, NotFound, OperatorError, Withheld
from tidewarp.store.contract import ArtifactInfo, Scope, Written
from tidewarp.store.memory.state import State
from tidewarp.store.memory.turns import Turns
from tidewarp.store.payload import check_room, opened, reserve_of
from tidewarp.store.schema import Settings, check_settings
from tidewarp.store.speaking import ADDS, Event, entry_of, erasing, hiding, lifting, shows

__all__ = ["Artifacts"]


class Artifacts(Turns):
    """Bytes by their names, and the records of the own domain that add, hide, lift or erase them."""

    def put(self, source: bytes | Path | BinaryIO, *, tag: int | None = None, publish: bool = True) -> Reference:
        """As the contract says; a file is read whole."""
        self._check_open("put")
        with opened(source, self._room([tag]), None) as payload:
            artifact = Artifact(payload.whole(), tag)
        return self._put("put", [artifact], publish)[0]

    def put_many(self, items: Iterable[tuple[bytes, int | None]], *, publish: bool = True) -> list[Reference]:
        """As the contract says."""
        return self._put("put_many", [Artifact(data, tag) for data, tag in items], publish)

    def put_edge(self, edge: Edge, *, publish: bool = True) -> Reference:
        """As the contract says."""
        body = EdgeBody(edge)
        with self._writing("put_edge") as state:
            if not self._shown(state, body.ref, publish):
                self._extend(state, [entry_of(body, publish=publish)])
        return body.ref

    def put_receipt(
        self, receipt: bytes, key: bytes, outputs: Sequence[Reference], *, publish: bool = True
    ) -> Reference:
        """As the contract says."""
        artifact = Artifact(receipt, TAG_RECEIPT)
        body = ReceiptBody(artifact.reference(), key, tuple(outputs))
        with self._writing("put_receipt") as state:
            self._keep(state, [artifact])
            if not self._shown(state, body.ref, publish):
                self._extend(state, [entry_of(body, publish=publish)])
        return body.ref

    def get(self, ref: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        """As the contract says."""
        if offset < 0 or (length is not None and length < 0):
            raise OperatorError(f"offset {offset}, length {length}", "both count from 0", "give numbers from 0 on")
        return self._held("get", ref).payload[offset : None if length is None else offset + length]

    def open(self, ref: Reference) -> BinaryIO:
        """As the contract says."""
        return io.BytesIO(self._held("open", ref).payload)

    def info(self, ref: Reference) -> ArtifactInfo:
        """As the contract says."""
        self._check_open("info")
        state = self._seen()
        events = state.events.get(ref, [])
        adds = [event.flags for event, _ in events if event.kind in ADDS]
        artifact = state.artifacts.get(ref)
        published = any(flags & PUBLISHED for flags in adds)
        told: dict[bytes, list[tuple[int, int]]] = {}
        for event, _ in sorted(events, key=lambda one: one[0].seq):
            told.setdefault(event.domain, []).append((event.kind, event.flags))
        is_shown = any(shows(one, publish=False) for one in told.values())
        if artifact is not None:
            return ArtifactInfo(ref, artifact.tag, len(artifact.payload), "here", published, is_shown)
        if not adds:
            raise _unknown(ref)
        said = next(
            ((body.tag, body.size) for _, body in events if isinstance(body, ArtifactBody)), state.gone.get(ref)
        )
        if said is None:
            raise self._missing(ref)
        is_erased = any(event.kind == ERASE for event, _ in events)
        return ArtifactInfo(ref, *said, "erased" if is_erased else "withheld", published, is_shown)

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """As the contract says."""
        self._check_open("has")
        return [ref in self._seen().artifacts for ref in refs]

    def small(self, refs: Sequence[Reference], bytes_max: int) -> dict[Reference, bytes]:
        """As the contract says."""
        self._check_open("small")
        held = self._seen().artifacts
        found = {ref: held[ref].to_bytes() for ref in refs if ref in held}
        return {ref: data for ref, data in found.items() if len(data) <= bytes_max}

    def edges(
        self, type: int | None = None, source: Reference | None = None, target: Reference | None = None
    ) -> list[tuple[Reference, Edge]]:
        """As the contract says."""
        self._check_open("edges")
        return [
            (ref, edge)
            for ref, edge in sorted(self._seen().edges.items())
            if (type is None or edge.type == type)
            and (source is None or source in edge.sources)
            and (target is None or target in edge.targets)
        ]

    def tombstone(self, ref: Reference, *, scope: Scope = "domain", reason: int = 0, note: str = "") -> Written:
        """As the contract says."""
        with self._writing("tombstone") as state:
            entry = hiding(ref, self._domain, self._events(state, ref), scope, reason, note)
            return self._extend(state, [entry])

    def lift(self, ref: Reference, *, scope: Scope = "domain", tombstone: bytes | None = None) -> Written:
        """As the contract says."""
        with self._writing("lift") as state:
            records = state.logs[self._domain].records
            entry = lifting(
                ref,
                self._domain,
                self._events(state, ref),
                scope,
                tombstone,
                lambda seq: (TombstoneBody.from_bytes(records[seq - 1].body or b""), records[seq - 1].hash),
            )
            return self._extend(state, [entry])

    def point(self, name: str, ref: Reference, supersedes: Sequence[bytes] = ()) -> Written:
        """As the contract says."""
        with self._writing("point") as state:
            return self._extend(state, [entry_of(PointerBody(name, tuple(supersedes), ref), publish=True)])

    def erase(self, ref: Reference, reason: int = 0) -> Written:
        """As the contract says."""
        self.info(ref)
        with self._writing("erase") as state:
            written = self._extend(state, [erasing(ref, self._domain, self._events(state, ref), reason)])
            state.let_go([ref])
            return written

    def set_quota(self, quota_bytes: int | None) -> None:
        """As the contract says."""
        check_settings(Settings(quota_bytes))
        with self._writing("set_quota") as state:
            state.quota_bytes = quota_bytes

    def _put(self, call: str, artifacts: Sequence[Artifact], publish: bool) -> list[Reference]:
        refs = [one.reference() for one in artifacts]
        with self._writing(call) as state:
            self._keep(state, artifacts)
            news = {ref: one for ref, one in zip(refs, artifacts, strict=True) if not self._shown(state, ref, publish)}
            bodies = [ArtifactBody(ref, one.tag, len(one.payload)) for ref, one in news.items()]
            if bodies:
                self._extend(state, [entry_of(body, publish=publish) for body in bodies])
        return refs

    def _keep(self, state: State, artifacts: Sequence[Artifact]) -> None:
        news = {ref: one for one in artifacts if (ref := one.reference()) not in state.artifacts}
        room = self._room([one.tag for one in news.values()])
        check_room(sum(len(one.payload) for one in news.values()), room, f"{len(news)} artifacts")
        state.artifacts.update(news)

    def room(self) -> int | None:
        """As the contract says."""
        self._check_open("room")
        return self._room()

    def _room(self, tags: Iterable[int | None] = (None,)) -> int | None:
        state = self._seen()
        if state.quota_bytes is None:
            return None
        return state.quota_bytes + reserve_of(tags) - sum(len(one.payload) for one in state.artifacts.values())

    def _events(self, state: State, ref: Reference) -> list[Event]:
        return [event for event, _ in state.events.get(ref, [])]

    def _shown(self, state: State, ref: Reference, publish: bool) -> bool:
        own = [(one.kind, one.flags) for one in self._events(state, ref) if one.domain == self._domain]
        return shows(own, publish=publish)

    def _is_erased(self, state: State, ref: Reference) -> bool:
        return any(one.kind == ERASE for one in self._events(state, ref))

    def _held(self, call: str, ref: Reference) -> Artifact:
        self._check_open(call)
        artifact = self._seen().artifacts.get(ref)
        if artifact is None:
            raise self._missing(ref)
        return artifact

    def _missing(self, ref: Reference) -> NotFound | Withheld | Erased:
        kinds = {event.kind for event in self._events(self._seen(), ref)}
        if ERASE in kinds:
            return Erased(f"artifact {ref.hex()}", "a record says that its bytes were dropped for good", "do without")
        if kinds.isdisjoint(ADDS):
            return _unknown(ref)
        action = "pull again from a peer that may have them"
        return Withheld(f"artifact {ref.hex()}", "a record names it, its bytes have not come", action)


def _unknown(ref: Reference) -> NotFound:
    return NotFound(f"artifact {ref.hex()}", "no record here adds it", "check the reference, or pull from its site")
