"""What a node remembers of its peers, beside the records: tables of the store, durable in the same transactions.

cursor      how far a peer's journal of an origin was taken: evidence; no pull begins from it
ack         how much of an origin a peer has shown to hold, of what is here: its own heads say so, signed by the origin
bridge      why a head covers a prefix that ends before it: of a pull that stopped halfway
peer        the ETag of its heads when nothing was left to pull, and what went wrong last
log         the federation log: which records came from whom, and what became of them
conflict    what contradicts what; its id is equal on all nodes
branch      records of branches that the resolver did not choose
quarantine  refused bytes with their peer and the reason, the newest 64 MiB
policy      which policy the own records put in force, so that nobody reads all of them to know
absent      artifacts that a committed record names and whose bytes did not come, with the status that says why; it is
            negative where nobody misses them, since all that add them have hidden or erased them
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

from tidewarp.codec.bodies import LIFT, LiftBody
from tidewarp.codec.frames import Reader, count, counted, hash32, u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.records import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.references import Reference
from tidewarp.federation.contract import Tables
from tidewarp.federation.messages import Bridge, Commit, Conflicting, Finish, Reveal
from tidewarp.federation.proof import ForkProof
from tidewarp.store.contract import StoredRecord
from tidewarp.store.fold import conflict_id

__all__ = ["DDL", "EXTENSION", "QUARANTINE_BYTES_MAX", "VERSION", "Conflict", "Exchanged", "Ledger", "Quarantined"]

EXTENSION, VERSION = "federation", 1
QUARANTINE_BYTES_MAX = 64 << 20
_LOG_ROWS_MAX = 100_000
_CONFLICTS_MAX = 10_000
_TEXT_MAX = 1_024
_OWN_SIZE = "own_size"

DDL = (
    (
        "CREATE TABLE federation_cursor (peer TEXT NOT NULL, origin BLOB NOT NULL, seq INTEGER NOT NULL,"
        " hash BLOB NOT NULL, PRIMARY KEY (peer, origin)) STRICT, WITHOUT ROWID"
    ),
    (
        "CREATE TABLE federation_ack (peer TEXT NOT NULL, origin BLOB NOT NULL, seq INTEGER NOT NULL,"
        " PRIMARY KEY (peer, origin)) STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE federation_bridge (origin BLOB PRIMARY KEY NOT NULL, bridge BLOB NOT NULL) STRICT, WITHOUT ROWID",
    (
        "CREATE TABLE federation_peer (peer TEXT PRIMARY KEY NOT NULL, etag TEXT NOT NULL, last_error TEXT NOT NULL)"
        " STRICT, WITHOUT ROWID"
    ),
    (
        "CREATE TABLE federation_log (no INTEGER PRIMARY KEY, peer TEXT NOT NULL, origin BLOB NOT NULL,"
        " first INTEGER NOT NULL, last INTEGER NOT NULL, at INTEGER NOT NULL, result TEXT NOT NULL) STRICT"
    ),
    (
        "CREATE TABLE federation_conflict (id BLOB PRIMARY KEY NOT NULL, kind TEXT NOT NULL, key BLOB NOT NULL,"
        " domain BLOB NOT NULL, rule TEXT NOT NULL, evidence BLOB, first_seen INTEGER NOT NULL, times INTEGER NOT NULL,"
        " state TEXT NOT NULL) STRICT, WITHOUT ROWID"
    ),
    (
        "CREATE TABLE federation_quarantine (no INTEGER PRIMARY KEY, peer TEXT NOT NULL, domain BLOB NOT NULL,"
        " reason TEXT NOT NULL, bytes BLOB NOT NULL) STRICT"
    ),
    ("CREATE TABLE federation_policy (no INTEGER PRIMARY KEY CHECK (no = 1), size INTEGER NOT NULL, ref BLOB) STRICT"),
    (
        "CREATE TABLE federation_branch (origin BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,"
        " header BLOB NOT NULL, body_state INTEGER NOT NULL, body BLOB, PRIMARY KEY (origin, seq, hash)) STRICT"
    ),
    "CREATE TABLE federation_count (name TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    (
        "CREATE TABLE federation_absent (ref BLOB PRIMARY KEY NOT NULL, origin BLOB NOT NULL, status INTEGER NOT NULL)"
        " STRICT, WITHOUT ROWID"
    ),
)


class Conflict(NamedTuple):
    """One contradiction. ``first_seen`` in Unix ms, ``times`` it was met; ``evidence`` is the artifact that shows it, of a fork."""

    id: bytes
    kind: str
    key: bytes
    domain: bytes
    rule: str
    evidence: Reference | None
    first_seen: int
    times: int
    state: str


class Quarantined(NamedTuple):
    """Bytes that were refused: from whom, about which domain (empty: none), why."""

    peer: str
    domain: bytes
    reason: str
    data: bytes


class Exchanged(NamedTuple):
    """A row of the federation log: what became of the records ``first`` to ``last`` of ``origin`` that ``peer`` showed.

    ``at`` in Unix ms. Where nothing was taken, first and last are 0 or where a fork begins.
    """

    peer: str
    origin: bytes
    first: int
    last: int
    at: int
    result: str


class Ledger:
    """The tables, as questions and notes. Every note is part of the transaction that is open when it is made.

    ``at_ms`` is Unix ms, for people.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    # --- what a pull begins with

    def etag(self, peer: str) -> str:
        """Of the peer's heads when nothing was left to pull; empty if something was."""
        rows = self._tables.execute("SELECT etag FROM federation_peer WHERE peer = ?", peer)
        return cast("str", rows[0][0]) if rows else ""

    def acked(self, peer: str) -> dict[bytes, int]:
        """By origin (32 bytes), how many of the records that are here the peer has shown to hold."""
        rows = self._tables.execute("SELECT origin, seq FROM federation_ack WHERE peer = ? ORDER BY origin", peer)
        return {cast("bytes", origin): cast("int", seq) for origin, seq in rows}

    def frozen(self) -> dict[bytes, int]:
        """The domains (32 bytes) with an open fork, and how many records come before it: all branches have these."""
        rows = self._tables.execute("SELECT key FROM federation_conflict WHERE kind = 'fork' AND state = 'open'")
        found: dict[bytes, int] = {}
        for (key,) in cast("list[tuple[bytes]]", rows):
            domain, common = key[:32], int.from_bytes(key[32:], "big") - 1
            found[domain] = min(common, found.get(domain, common))
        return found

    def forked_domains(self) -> frozenset[bytes]:
        """The domains (32 bytes) with a fork, open or resolved."""
        rows = self._tables.execute("SELECT DISTINCT domain FROM federation_conflict WHERE kind = 'fork'")
        return frozenset(cast("bytes", row[0]) for row in rows)

    def bridges(self) -> dict[bytes, Bridge]:
        """By domain, why its head covers what is held, where that ends before the head does."""
        rows = self._tables.execute("SELECT origin, bridge FROM federation_bridge")
        return {cast("bytes", origin): _read_bridge(cast("bytes", data)) for origin, data in rows}

    # --- what a pull leaves

    def took(self, peer: str, commit: Commit, at_ms: int) -> None:
        """``commit`` is in the open transaction."""
        first, last = commit.items.before + 1, commit.last_seq
        self._tables.execute(
            "INSERT OR REPLACE INTO federation_cursor VALUES (?, ?, ?, ?)",
            peer,
            commit.domain,
            last,
            commit.items.hash,
        )
        if commit.bridge is None:
            self._tables.execute("DELETE FROM federation_bridge WHERE origin = ?", commit.domain)
        else:
            data = _bridge_written(commit.bridge)
            self._tables.execute("INSERT OR REPLACE INTO federation_bridge VALUES (?, ?)", commit.domain, data)
        self._came(commit)
        self._log(peer, commit.domain, first, last, at_ms, "committed")
        for evidence, proof in commit.forks:
            self.forked(peer, proof, evidence, at_ms)

    def revealed(self, peer: str, reveal: Reveal, at_ms: int) -> None:
        """The bodies of ``reveal`` are in the open transaction, in place of their stubs."""
        self._came(reveal)
        self._log(peer, reveal.domain, reveal.items[0].header.seq, reveal.items[-1].header.seq, at_ms, "revealed")

    def refused(self, peer: str, conflicting: Conflicting, at_ms: int) -> None:
        """Count what was refused, and keep its bytes as long as there is room."""
        self._conflict(conflicting.kind, conflicting.key, conflicting.domain, conflicting.rule, None, at_ms)
        self._quarantine(peer, conflicting)
        self._log(peer, conflicting.domain, 0, 0, at_ms, conflicting.kind)

    def forked(self, peer: str, proof: ForkProof, evidence: Reference, at_ms: int) -> None:
        """A domain is forked; ``evidence`` is the artifact whose payload is ``proof``."""
        seq = proof.common + 1
        key = proof.domain + u64(seq)
        self._conflict("fork", key, proof.domain, f"two records {seq}, both signed", evidence, at_ms)
        self._log(peer, proof.domain, seq, seq, at_ms, "fork")

    def keep_branch(self, records: Iterable[StoredRecord]) -> None:
        """Keep records of a branch that was not chosen; bridge and acknowledgements of its domain were about them."""
        for header, state, body in records:
            data = header.to_bytes()
            self._tables.execute(
                "INSERT OR REPLACE INTO federation_branch VALUES (?, ?, ?, ?, ?, ?)",
                header.domain,
                header.seq,
                record_hash(data),
                data,
                state,
                body,
            )
            for table in ("federation_bridge", "federation_ack"):
                self._tables.execute(f"DELETE FROM {table} WHERE origin = ?", header.domain)
        self._tables.execute("UPDATE federation_absent SET status = abs(status)")  # what hid them may be on it

    def branch(self, origin: bytes) -> list[StoredRecord]:
        """The records of ``origin`` (32 bytes) on branches that were not chosen, by number and hash."""
        statement = "SELECT header, body_state, body FROM federation_branch WHERE origin = ? ORDER BY seq, hash"
        rows = self._tables.execute(statement, origin)
        return [
            StoredRecord(RecordHeader.from_bytes(cast("bytes", header)), cast("int", state), cast("bytes | None", body))
            for header, state, body in rows
        ]

    def forget_own(self) -> None:
        """What peers show of the own domain is here, or is no continuation of it."""
        self._tables.execute("DELETE FROM federation_count WHERE name = ?", _OWN_SIZE)

    def forget_acknowledged(self, peer: str) -> None:
        """Somebody else answers at that address from now on: what he holds, his own heads will say."""
        self._tables.execute("DELETE FROM federation_ack WHERE peer = ?", peer)
        self._tables.execute("UPDATE federation_peer SET etag = '' WHERE peer = ?", peer)

    def note_policy(self, size: int, policy: Reference | None) -> None:
        """Of the first ``size`` records of the own domain, the last that puts a policy in force names this one."""
        encoded = None if policy is None else policy.to_bytes()
        self._tables.execute("INSERT OR REPLACE INTO federation_policy VALUES (1, ?, ?)", size, encoded)

    def policy(self) -> tuple[int, Reference | None]:
        """What was noted last of the policy: of how many records, and which; at first of none, and none."""
        rows = self._tables.execute("SELECT size, ref FROM federation_policy")
        if not rows:
            return 0, None
        size, encoded = rows[0]
        return cast("int", size), None if encoded is None else Reference.from_bytes(cast("bytes", encoded))

    def add_bytes(self, origin: bytes, size: int) -> None:
        """So many bytes of artifacts came with records of ``origin`` (32 bytes)."""
        if size:
            self._add(f"bytes {origin.hex()}", size)

    def bytes_of(self, origin: bytes) -> int:
        """How many bytes of artifacts have come with records of ``origin``; one that came twice counts twice."""
        rows = self._tables.execute("SELECT n FROM federation_count WHERE name = ?", f"bytes {origin.hex()}")
        return cast("int", rows[0][0]) if rows else 0

    def note_own(self, size: int) -> None:
        """A peer has shown so many records of the own domain, signed by its key."""
        statement = "INSERT INTO federation_count VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = max(n, excluded.n)"
        self._tables.execute(statement, _OWN_SIZE, size)

    def own_size(self) -> int:
        """The most records of the own domain that a peer has shown while they were not here; 0: none has."""
        rows = self._tables.execute("SELECT n FROM federation_count WHERE name = ?", _OWN_SIZE)
        return cast("int", rows[0][0]) if rows else 0

    def settle(self, settled: Collection[bytes]) -> None:
        """Of all forks, those with these ids (32 bytes each) are resolved, and the others are open."""
        for name, state in self._tables.execute("SELECT id, state FROM federation_conflict WHERE kind = 'fork'"):
            now = "resolved" if name in settled else "open"
            if state != now:
                self._tables.execute("UPDATE federation_conflict SET state = ? WHERE id = ?", now, name)

    def finished(self, peer: str, finish: Finish) -> None:
        """The pull is over."""
        reasons = [one.reason for one in finish.domains if one.reason]
        error = finish.incomplete or (reasons[0] if reasons else "")
        row = peer, finish.etag, error[:_TEXT_MAX]
        self._tables.execute("INSERT OR REPLACE INTO federation_peer VALUES (?, ?, ?)", *row)
        self._acknowledge(peer, finish.acked)

    def lacking(self, limit: int) -> dict[Reference, bytes]:
        """The first ``limit`` artifacts whose bytes have not come, and the domain (32 bytes) of the records that name them.

        Those that are :meth:`hidden` are left out.
        """
        asked = "SELECT ref, origin FROM federation_absent WHERE status > 0 ORDER BY ref LIMIT ?"
        rows = self._tables.execute(asked, limit)
        return {Reference.from_bytes(cast("bytes", ref)): cast("bytes", origin) for ref, origin in rows}

    def awaits(self, reference: Reference) -> bytes | None:
        """The domain (32 bytes) of the record that names an artifact whose bytes have not come; None if none does."""
        rows = self._tables.execute("SELECT origin FROM federation_absent WHERE ref = ?", reference.to_bytes())
        return cast("bytes", rows[0][0]) if rows else None

    def arrived(self, references: Iterable[Reference]) -> None:
        """Their bytes are here by now."""
        for reference in references:
            self._tables.execute("DELETE FROM federation_absent WHERE ref = ?", reference.to_bytes())

    def hidden(self, references: Iterable[Reference]) -> None:
        """Nobody misses their bytes, until one of them is added or lifted again."""
        for reference in references:
            statement = "UPDATE federation_absent SET status = -status WHERE ref = ? AND status > 0"
            self._tables.execute(statement, reference.to_bytes())

    # --- what people ask

    def cursors(self, peer: str) -> dict[bytes, tuple[int, bytes]]:
        """By origin, the last record that was taken from ``peer``, and its hash."""
        rows = self._tables.execute("SELECT origin, seq, hash FROM federation_cursor WHERE peer = ?", peer)
        return {cast("bytes", origin): (cast("int", seq), cast("bytes", hash_)) for origin, seq, hash_ in rows}

    def last_errors(self) -> dict[str, str]:
        """By peer, what went wrong in the last pull; empty text: nothing did."""
        rows = self._tables.execute("SELECT peer, last_error FROM federation_peer ORDER BY peer")
        return {cast("str", peer): cast("str", error) for peer, error in rows}

    def log(self, limit: int) -> list[Exchanged]:
        """The last ``limit`` rows of the federation log, the oldest first."""
        statement = "SELECT peer, origin, first, last, at, result FROM federation_log ORDER BY no DESC LIMIT ?"
        return [Exchanged(*row) for row in reversed(self._tables.execute(statement, limit))]  # type: ignore[arg-type]  # as the DDL says

    def conflicts(self) -> list[Conflict]:
        """All of them, by id."""
        rows = self._tables.execute(
            "SELECT id, kind, key, domain, rule, evidence, first_seen, times, state FROM federation_conflict ORDER BY id"
        )
        return [_conflict_of(*row) for row in rows]

    def quarantined(self) -> list[Quarantined]:
        """What is kept of what was refused, the oldest first."""
        rows = self._tables.execute("SELECT peer, domain, reason, bytes FROM federation_quarantine ORDER BY no")
        return [Quarantined(*row) for row in rows]  # type: ignore[arg-type]  # as the DDL says

    def quarantine_bytes(self) -> int:
        """How many bytes of what was refused are kept."""
        rows = self._tables.execute("SELECT coalesce(sum(length(bytes)), 0) FROM federation_quarantine")
        return cast("int", rows[0][0])

    def dropped(self) -> int:
        """How many bytes of quarantine had to make room."""
        rows = self._tables.execute("SELECT n FROM federation_count WHERE name = 'quarantine_dropped'")
        return cast("int", rows[0][0]) if rows else 0

    def absent(self) -> dict[Reference, int]:
        """Artifacts whose bytes did not come, and the status that says why."""
        rows = self._tables.execute("SELECT ref, abs(status) FROM federation_absent")
        return {Reference.from_bytes(cast("bytes", ref)): cast("int", status) for ref, status in rows}

    # --- rows

    def _came(self, records: Commit | Reveal) -> None:
        """Note which artifacts came with records, and which did not."""
        for reference, status in records.absent:
            row = reference.to_bytes(), records.domain, status
            self._tables.execute("INSERT OR REPLACE INTO federation_absent VALUES (?, ?, ?)", *row)
        self.arrived(records.sources)
        for item in records.items:
            if item.body is not None and item.header.kind == LIFT and item.header.flags & PUBLISHED:
                statement = "UPDATE federation_absent SET status = abs(status) WHERE ref = ?"
                self._tables.execute(statement, LiftBody.from_bytes(item.body).ref.to_bytes())

    def _acknowledge(self, peer: str, shown: Mapping[bytes, int]) -> None:
        """Follow what a peer shows now: a site that was set back to an older copy holds less than it did."""
        before = self.acked(peer)
        for origin, seq in shown.items():
            if not seq:
                self._tables.execute("DELETE FROM federation_ack WHERE peer = ? AND origin = ?", peer, origin)
            elif seq != before.get(origin):
                self._tables.execute("INSERT OR REPLACE INTO federation_ack VALUES (?, ?, ?)", peer, origin, seq)

    def _conflict(
        self, kind: str, key: bytes, domain: bytes, rule: str, evidence: Reference | None, at_ms: int
    ) -> None:
        name = conflict_id(kind, key)
        known = self._tables.execute("SELECT times FROM federation_conflict WHERE id = ?", name)
        if known:
            self._tables.execute("UPDATE federation_conflict SET times = times + 1 WHERE id = ?", name)
            return
        if kind != "fork" and self._count("federation_conflict") >= _CONFLICTS_MAX:
            self._add("conflicts_dropped", 1)
            return
        self._tables.execute(
            "INSERT INTO federation_conflict VALUES (?, ?, ?, ?, ?, ?, ?, 1, 'open')",
            name,
            kind,
            key,
            domain,
            rule[:_TEXT_MAX],
            None if evidence is None else evidence.to_bytes(),
            at_ms,
        )

    def _quarantine(self, peer: str, conflicting: Conflicting) -> None:
        data = conflicting.data[:QUARANTINE_BYTES_MAX]
        held = self._tables.execute("SELECT no, length(bytes) FROM federation_quarantine ORDER BY no")
        total = len(data) + sum(cast("int", size) for _, size in held)
        for no, size in held:
            if total <= QUARANTINE_BYTES_MAX:
                break
            self._tables.execute("DELETE FROM federation_quarantine WHERE no = ?", no)
            self._add("quarantine_dropped", cast("int", size))
            total -= cast("int", size)
        self._tables.execute(
            "INSERT INTO federation_quarantine (peer, domain, reason, bytes) VALUES (?, ?, ?, ?)",
            peer,
            conflicting.domain,
            f"{conflicting.kind}: {conflicting.rule}"[:_TEXT_MAX],
            data,
        )

    def _log(self, peer: str, origin: bytes, first: int, last: int, at_ms: int, result: str) -> None:
        self._tables.execute(
            "INSERT INTO federation_log (peer, origin, first, last, at, result) VALUES (?, ?, ?, ?, ?, ?)",
            peer,
            origin,
            first,
            last,
            at_ms,
            result,
        )
        self._tables.execute(
            "DELETE FROM federation_log WHERE no <= (SELECT max(no) FROM federation_log) - ?", _LOG_ROWS_MAX
        )

    def _count(self, table: str) -> int:
        return cast("int", self._tables.execute(f"SELECT count(*) FROM {table}")[0][0])

    def _add(self, name: str, n: int) -> None:
        self._tables.execute(
            "INSERT INTO federation_count VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n", name, n
        )


def _conflict_of(*row: Any) -> Conflict:
    """A row of the table, whose columns are the fields."""
    found = Conflict(*row)
    return found if found.evidence is None else found._replace(evidence=Reference.from_bytes(row[5]))


def _bridge_written(bridge: Bridge) -> bytes:
    hashes = b"".join(map(hash32, bridge.hashes))
    return u64(bridge.size) + count(len(bridge.hashes)) + hashes + counted(bridge.head.to_bytes())


def _read_bridge(data: bytes) -> Bridge:
    reader = Reader(data, "bridge")
    size = reader.u64()
    hashes = tuple([reader.hash32() for _ in range(reader.count(32))])
    bridge = Bridge(size, hashes, SignedHead.from_bytes(reader.counted()))
    reader.end()
    return bridge
