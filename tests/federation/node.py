"""A store of Python lists and dicts: the least that the exchange needs, with a place to crash before every write."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, ERASED, WITHHELD, BatchItem
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody, decode_body
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import Frontier, consistency_proof, inclusion_proof
from tidewarp.codec.records import PUBLISHED, Record, RecordHeader, domain_of, genesis, record_hash
from tidewarp.codec.references import Reference
from tidewarp.errors import NotFound, PeerError
from tidewarp.federation.exchange import Exchange
from tidewarp.federation.messages import Finish, GetMissing, HttpRequest, HttpResponse, Question
from tidewarp.federation.peer import PeerHandler
from tidewarp.store.continuation import named_by
from tidewarp.store.contract import ArtifactInfo, DomainState, Entry, StoredRecord
from tidewarp.store.signers import earlier_heads, is_keys


class Held(NamedTuple):
    header: RecordHeader
    state: int
    body: bytes | None


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Node:
    """One site. ``before_write`` is called before each change and each statement: it may raise, which is a crash."""

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.seed = seed_of(name)
        self.key = public_key_of(self.seed)
        self.domain = domain_of(self.key)
        self.logs: dict[bytes, list[Held]] = {self.domain: []}
        self.keys = {self.domain: self.key}
        self.heads: dict[bytes, tuple[SignedHead, ...]] = {}
        self.artifacts: dict[Reference, Artifact] = {}
        self.tables = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.before_write: Callable[[], None] = lambda: None
        self._made = False
        self._open = False
        self.journal = self

    def close(self) -> None:
        self.tables.close()

    # --- writes

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._open:
            yield
            return
        before = (
            {one: log[:] for one, log in self.logs.items()},
            dict(self.keys),
            dict(self.heads),
            dict(self.artifacts),
        )
        self._open = True
        self.tables.execute("BEGIN")
        try:
            yield
            self.before_write()
            self.tables.execute("COMMIT")
        except BaseException:
            self.tables.execute("ROLLBACK")
            self.logs, self.keys, self.heads, self.artifacts = before
            raise
        finally:
            self._open = False

    def append(self, entries: Sequence[Entry]) -> None:
        log = self.logs[self.domain]
        for kind, body, flags in [one[:3] for one in entries]:
            prev = record_hash(log[-1].header.to_bytes()) if log else genesis(self.domain)
            digest = hashlib.sha256(body).digest()
            header = RecordHeader(self.domain, len(log) + 1, kind, flags, 0, prev, len(body), digest)
            self.before_write()
            log.append(Held(header, BODY, body))

    @property
    def size(self) -> int:
        return len(self.logs[self.domain])

    def read(self, after: int = 0, limit: int | None = None, kinds=None) -> Iterator[Record]:
        log = self.logs[self.domain][after:][:limit]
        return iter([Record(one.header, one.body) for one in log if kinds is None or one.header.kind in kinds])

    def put(self, source: bytes, *, tag: int | None = None, publish: bool = True) -> Reference:
        artifact = Artifact(source, tag)
        reference = artifact.reference()
        with self.transaction():
            self.before_write()
            self.artifacts[reference] = artifact
            body = ArtifactBody(reference, tag, len(source)).to_bytes()
            self.append([Entry(ARTIFACT, body, PUBLISHED if publish else 0)])
        return reference

    def adopt(self, domain: bytes, items: Sequence[BatchItem], head: SignedHead, *, key: bytes, sources) -> None:
        log = self.logs.setdefault(domain, [])
        with self.transaction():
            for header, state, body, artifact in items:
                if header.seq != len(log) + 1 or header.prev != self.hash_at(domain, len(log)):
                    raise PeerError(f"record {header.seq}", "it continues what is held", "mend the puller")
                self.before_write()
                log.append(Held(header, state, body))
                if artifact is not None:
                    found = Artifact.from_bytes(artifact)
                    self.artifacts[found.reference()] = found
            for reference, source in sources.items():
                self.before_write()
                self.artifacts[reference] = Artifact.from_bytes(source.read())
                assert self.artifacts[reference].reference() == reference
            self.before_write()
            self.keys[domain] = key
            if head.size <= len(log):
                assert (head.root, head.head) == (self.root_at(domain, head.size), self.hash_at(domain, head.size))
                self._keep(domain, head)

    def _keep(self, domain: bytes, head: SignedHead) -> None:
        held = self.heads.get(domain, ())
        earlier = earlier_heads(self.keys[domain], held, head, lambda size: self.keys_record(domain, size))
        self.heads[domain] = (*earlier, head)

    def reveal(self, domain: bytes, items: Sequence[BatchItem], *, sources) -> int:
        log = self.logs[domain]
        with self.transaction():
            for header, state, body, artifact in items:
                assert log[header.seq - 1] == Held(header, WITHHELD, None)
                self.before_write()
                log[header.seq - 1] = Held(header, state, body)
                if artifact is not None:
                    found = Artifact.from_bytes(artifact)
                    self.artifacts[found.reference()] = found
            for reference, source in sources.items():
                self.before_write()
                self.artifacts[reference] = Artifact.from_bytes(source.read())
        return len(items)

    def supply(self, reference: Reference, source) -> None:
        with self.transaction():
            self.before_write()
            self.artifacts[reference] = Artifact.from_bytes(source.read())
            assert self.artifacts[reference].reference() == reference

    def room(self) -> None:
        return None

    def erase(self, seq: int) -> None:
        log = self.logs[self.domain]
        log[seq - 1] = log[seq - 1]._replace(state=ERASED, body=None)

    def withhold(self, domain: bytes, seq: int) -> None:
        self.logs[domain][seq - 1] = self.logs[domain][seq - 1]._replace(state=WITHHELD, body=None)

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> Node:
        if not self._made:
            for statement in ddl:
                self.tables.execute(statement)
            self._made = True
        return self

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        if not statement.startswith("SELECT"):
            self.before_write()
        return self.tables.execute(statement, values).fetchall()

    # --- reads

    def domains(self) -> list[DomainState]:
        return [
            DomainState(one, "live", len(log), self.hash_at(one, len(log)), None, self.keys[one])
            for one, log in self.logs.items()
            if one in self.keys
        ]

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        log = self.logs.get(domain, [])[after:]
        return iter([StoredRecord(*one) for one in (log if limit is None else log[:limit])])

    def withheld(self, domain: bytes, after: int, limit: int) -> list[int]:
        log = self.logs.get(domain, [])[after:]
        return [one.header.seq for one in log if one.state == WITHHELD][:limit]

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        log = self.logs.get(domain, [])
        if not seq:
            return genesis(domain)
        return record_hash(log[seq - 1].header.to_bytes()) if seq <= len(log) else None

    def frontier(self, domain: bytes) -> Frontier:
        frontier = Frontier()
        frontier.extend(self._leaves(domain))
        return frontier

    def root_at(self, domain: bytes, size: int) -> bytes:
        frontier = Frontier()
        frontier.extend(self._leaves(domain)[:size])
        return frontier.root()

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> list[bytes]:
        return inclusion_proof(seq - 1, size, *self._trees(domain))

    def consistency_proof(self, domain: bytes, first: int, second: int) -> list[bytes]:
        return consistency_proof(first, second, *self._trees(domain))

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        return next(reversed(self.signed_heads(domain)), None)

    def signed_heads(self, domain: bytes | None = None) -> list[SignedHead]:
        if domain is not None and domain != self.domain:
            return list(self.heads.get(domain, ()))
        size = len(self.logs[self.domain])
        root = self.frontier(self.domain).root()
        head = self.hash_at(self.domain, size) or b""
        self._keep(self.domain, sign_head(self.domain, size, root, head, self.name, self.seed))
        return list(self.heads[self.domain])

    def keys_record(self, domain: bytes, size: int) -> StoredRecord | None:
        found = [one for one in self.logs.get(domain, [])[:size] if is_keys(one.header.kind, one.header.flags)]
        return StoredRecord(*found[-1]) if found else None

    def has(self, references: Sequence[Reference]) -> list[bool]:
        return [one in self.artifacts for one in references]

    def small(self, references: Sequence[Reference], bytes_max: int) -> dict[Reference, bytes]:
        found = {one: self.artifacts[one].to_bytes() for one in references if one in self.artifacts}
        return {one: data for one, data in found.items() if len(data) <= bytes_max}

    def info(self, reference: Reference) -> ArtifactInfo:
        found = None
        for log in self.logs.values():
            for header, _, body in log:
                said = None if body is None else decode_body(header.kind, body)
                if said is not None and named_by(said) == reference:
                    published = bool(header.flags & PUBLISHED) or (found is not None and found.published)
                    artifact = self.artifacts.get(reference)
                    size = said.size if isinstance(said, ArtifactBody) else len(artifact.payload) if artifact else 0
                    tag = said.tag if isinstance(said, ArtifactBody) else artifact.tag if artifact else None
                    found = ArtifactInfo(
                        reference, tag, size, "here" if artifact else "withheld", published, shown=True
                    )
        if found is None:
            raise NotFound(reference.hex(), "no record names it", "ask for another")
        return found

    def get(self, reference: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        if reference not in self.artifacts:
            raise NotFound(reference.hex(), "its bytes are not here", "ask for another")
        payload = self.artifacts[reference].payload[offset:]
        return payload if length is None else payload[:length]

    def _leaves(self, domain: bytes) -> list[bytes]:
        return [record_hash(one.header.to_bytes()) for one in self.logs.get(domain, [])]

    def _trees(self, domain: bytes):
        leaves = self._leaves(domain)

        def tiles(first: int, last: int) -> list[bytes]:
            frontier = Frontier()
            return frontier.extend(leaves[: last * 1024])[first:last]

        return lambda first, last: leaves[first:last], tiles


def asked_of(holdings, question: Question) -> HttpResponse:
    """The answer of a node, as if there were a wire between."""
    headers = getattr(question, "headers", {})
    body = question.body if isinstance(question, GetMissing) else b""
    return PeerHandler(holdings).handle(HttpRequest("POST" if body else "GET", question.target, headers, body))


def pulled(into, peer, *, name: str = "peer", send=None, **options) -> tuple[Finish, Exchange]:
    """Pull once, without a wire; ``send`` may be given in place of the peer's own answers."""
    exchange = Exchange(
        into, name, send or (lambda question: asked_of(peer, question)), io.BytesIO, lambda: 0, **options
    )
    return exchange.run(), exchange
