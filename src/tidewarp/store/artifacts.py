"""Artifacts in the database: small payloads in their row, large ones as blocks; hashed when they come and go."""

from __future__ import annotations

import io
import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from operator import itemgetter
from typing import Any, BinaryIO, NamedTuple

from tidewarp.codec.artifacts import Artifact, artifact_head
from tidewarp.codec.bodies import ERASE
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, OperatorError, TidewarpError, Withheld
from tidewarp.store.block_stream import BlockStream
from tidewarp.store.blocks import BLOCK_BYTES, Blocks, Extent
from tidewarp.store.connection import NO_VALUE, SHORT_BYTES, Blob, blob, pragma
from tidewarp.store.contract import ArtifactInfo, ByteState
from tidewarp.store.handle import Handle
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.links import LINKING, PAYLOAD_BYTES_MAX, links
from tidewarp.store.meanwhile import meanwhile
from tidewarp.store.payload import Payload, check_room, payload_of, reserve_of
from tidewarp.store.rows import OWN
from tidewarp.store.schema import ABSENT, HERE, QUARANTINED
from tidewarp.store.speaking import ADDS, shows

__all__ = ["INLINE_MAX", "ArtifactTable", "Content"]

INLINE_MAX = 128 << 10
"""Bytes of a payload that stands in its row, unless the store was made with another bound."""

_INSERT = "INSERT INTO artifact VALUES (?, ?, nullif(?, ''), ?, ?, ?) ON CONFLICT (ref) DO NOTHING"
_SELECT = "SELECT no, tag, size, state, bytes FROM artifact WHERE ref = ?"
_SELECT_SMALL = f"SELECT tag, bytes FROM artifact WHERE ref = ? AND state = {HERE} AND size = length(bytes)"
_ALL = -1  # as a LIMIT
_CHUNK = 500  # references in one statement
_NAME = SHA256.to_bytes(2, "big")  # of ReferenceBytes, before their digest
_made = tuple.__new__  # as a NamedTuple calls it, in half of the time
_PUT_AGAIN = "put the same artifact again: what is damaged is written anew"


class Content(NamedTuple):
    """An artifact whose bytes were hashed, on its way into the tables: ``data``, or blocks that are kept already."""

    ref: Reference
    tag: int | None
    size: int
    data: bytes | None
    extents: tuple[Extent, ...] = ()

    def columns(self) -> tuple[object, ...]:
        """The columns of ``artifact`` behind ``ref``."""
        _, tag, size, data, _ = self
        return NO_VALUE if tag is None else tag, size, HERE, data if data is None else blob(data)


class _Found(NamedTuple):
    """A row of ``artifact``: nothing believed."""

    no: Any
    tag: Any
    size: Any
    state: Any
    data: Any


class ArtifactTable:
    """``artifact`` and ``extent``, with the blocks that these name."""

    def __init__(self, handle: Handle, blocks: Blocks, inline_max: int, quota_bytes: int | None) -> None:
        self._handle = handle
        self._blocks = blocks
        self.inline_max = inline_max
        self.quota_bytes = quota_bytes
        self._used: int | None = None  # bytes of all payloads; None: to be counted

    # --- writing ---

    def set_quota(self, quota_bytes: int | None) -> None:
        """Take payloads of so many bytes together, at most; None: no bound. The transaction is the caller's."""
        self.quota_bytes = quota_bytes

    def room(self, tags: Iterable[int | None] = (None,)) -> int | None:
        """Bytes that the quota leaves to artifacts with these tags; None without a quota."""
        if self.quota_bytes is None:
            return None
        used = self._used
        if used is None:
            ((used,),) = self._handle.select("put", "SELECT coalesce(sum(size), 0) FROM artifact WHERE state = 0")
            if self._handle.in_transaction:  # else another thread may be adding to it
                self._used = used
        return self.quota_bytes + reserve_of(tags) - int(used or 0)

    def content(self, payload: Payload, tag: int | None) -> Content:
        """Hash a payload; what is too large for a row is in durable blocks when this returns.

        Raises:
            OperatorError: the payload is not as long as it said.
            CodecError: the tag is no U32.
            StoreFull, StoreFailed: a block could not be written.
        """
        if payload.size <= self.inline_max:
            return _small(payload.whole(), tag)
        is_block = tag is None and payload.size <= BLOCK_BYTES  # whose name is the artifact's
        digest = sha256(artifact_head(payload.size, tag))
        extents: list[Extent] = []
        offset = 0
        for piece in payload.pieces(BLOCK_BYTES):
            with nullcontext() if is_block else meanwhile(partial(digest.update, piece)):
                extents.append(Extent(self._blocks.write(piece), offset, len(piece)))
            offset += len(piece)
        name = extents[0].block if is_block else digest.digest()
        return Content(Reference(SHA256, name), tag, payload.size, None, tuple(extents))

    def contents(self, items: Sequence[tuple[bytes, int | None]]) -> list[Content]:
        """The same of many payloads, each with its tag. Raises also QuotaExceeded, before a block is written."""
        large = sum(len(data) for data, _ in items if len(data) > self.inline_max)
        check_room(large, self.room() if large else None, f"{len(items)} artifacts")
        return [
            _small(data, tag) if len(data) <= self.inline_max else self.content(payload_of(data), tag)
            for data, tag in items
        ]

    def hashed(self, ref: Reference, artifact: Artifact) -> Content:
        """An artifact that was hashed and has this name, as :meth:`content` gives it."""
        if len(artifact.payload) > self.inline_max:
            return self.content(payload_of(artifact.payload), artifact.tag)
        return Content(ref, artifact.tag, len(artifact.payload), artifact.payload)

    def keep(
        self, transaction: OpenTransaction, contents: Sequence[Content], *, from_others: bool = False
    ) -> list[int]:
        """The numbers of these artifacts, which are here from now on; rows that are damaged are written anew.

        What the own domain has erased does not come back ``from_others``: of that the numbers are all that is given.

        All are inserted as if nobody had heard of them, which is what is so most often; then it is asked about the others.

        Raises:
            QuotaExceeded: they are more than there is room for.
        """
        db, room = transaction.db, self.room()
        wanted = {one.ref: one for one in contents}
        first, before = self.next_number(db), db.total_changes
        numbers = dict(zip(wanted, itertools.count(first)))
        rows = (
            (
                no,
                Blob(ref.to_bytes()),
                NO_VALUE if tag is None else tag,
                size,
                HERE,
                data if data is None or size > SHORT_BYTES else Blob(data),
            )
            for no, (ref, tag, size, data, _) in zip(numbers.values(), wanted.values(), strict=True)
        )
        db.executemany(_INSERT, rows)
        known: dict[Reference, _Found] = {}
        if db.total_changes - before < len(wanted):
            known = {ref: row for ref, row in self._found(db, [*wanted]).items() if row.no < first}
            numbers |= {ref: row.no for ref, row in known.items()}
            for ref in self._erased_here(db, known) if from_others else ():
                blocks = ((extent.block,) for extent in wanted.pop(ref).extents)
                db.executemany("INSERT OR IGNORE INTO orphan VALUES (?)", blocks)
                del known[ref]
        news = [one for ref, one in wanted.items() if ref not in known or known[ref].state != HERE]
        if room is not None and news:
            size = sum(one.size for one in news)
            check_room(size, room + reserve_of([one.tag for one in news]), f"{len(news)} artifacts")
            self._used = (self._used or 0) + size  # counted by room(), in this transaction
            transaction.undone.append(self.count_again)
        for ref, row in known.items():
            if row.state != HERE:
                self._fill(db, row.no, wanted[ref])
            else:
                self._mend(db, row, wanted[ref])
        for one in news:
            if one.extents and one.ref not in known:
                self._extend(db, numbers[one.ref], one)
            if one.tag in LINKING:
                self._link(db, numbers[one.ref], one)
        return [numbers[one.ref] for one in contents]

    def keep_small(
        self, transaction: OpenTransaction, digests: Sequence[bytes], payloads: Sequence[bytes]
    ) -> Sequence[int]:
        """As :meth:`keep` of payloads without a tag that came from others and were hashed; ``digests`` (32 bytes each) name them.

        Where none was heard of, which is what is so most often, that takes a third of the time.
        """
        db, number = transaction.db, len(payloads)
        if self.quota_bytes is None and max(map(len, payloads), default=0) <= self.inline_max:
            first, before = self.next_number(db), db.total_changes
            names = map(_NAME.__add__, digests)
            rows = zip(
                itertools.count(first),
                map(Blob, names),
                itertools.repeat(NO_VALUE),
                map(len, payloads),
                itertools.repeat(HERE),
                map(blob, payloads),
                strict=False,
            )
            db.executemany(_INSERT, rows)
            if db.total_changes - before == number:
                return range(first, first + number)
        refs = [Reference(SHA256, digest) for digest in digests]
        contents = [self.hashed(ref, Artifact(payload)) for ref, payload in zip(refs, payloads, strict=True)]
        return self.keep(transaction, contents, from_others=True)

    def _erased_here(self, db: sqlite3.Connection, known: Mapping[Reference, _Found]) -> list[Reference]:
        """Those whose bytes are not here because the own domain has erased them."""
        statement = f"SELECT 1 FROM event WHERE artifact = ? AND domain = {OWN} AND kind = {ERASE} LIMIT 1"
        absent = [ref for ref, row in known.items() if row.state != HERE]
        return [ref for ref in absent if db.execute(statement, (known[ref].no,)).fetchone()]

    def numbers(self, db: sqlite3.Connection, refs: Iterable[Reference]) -> dict[Reference, int]:
        """The number of each reference; what was never heard of gets one, as an artifact that is not here."""
        wanted = list(dict.fromkeys(refs))
        numbers = {ref: row.no for ref, row in self._found(db, wanted, with_bytes=False).items()}
        news = [ref for ref in wanted if ref not in numbers]
        first = self.next_number(db)
        rows = [(no, ref.to_bytes(), None, None, ABSENT, None) for no, ref in enumerate(news, first)]
        db.executemany("INSERT INTO artifact VALUES (?, ?, ?, ?, ?, ?)", rows)
        return numbers | {ref: no for no, ref in enumerate(news, first)}

    def describe(self, db: sqlite3.Connection, said: Iterable[tuple[int, int | None, int]]) -> None:
        """Note what records say of artifacts whose bytes are not here: number, tag, size."""
        statement = "UPDATE artifact SET tag = ?, size = ? WHERE no = ? AND state = 1 AND size IS NULL"
        rows = ((tag, size, no) for no, tag, size in said if size < 1 << 63)  # what a column holds; nobody has more
        db.executemany(statement, rows)

    def _fill(self, db: sqlite3.Connection, no: int, content: Content) -> None:
        db.execute(
            "UPDATE artifact SET tag = nullif(?, ''), size = ?, state = ?, bytes = ? WHERE no = ?",
            (*content.columns(), no),
        )
        db.execute("DELETE FROM extent WHERE artifact = ?", (no,))
        self._extend(db, no, content)

    def _extend(self, db: sqlite3.Connection, no: int, content: Content) -> None:
        if content.extents:
            rows = [(no, idx, *extent) for idx, extent in enumerate(content.extents)]
            db.executemany("INSERT INTO extent VALUES (?, ?, ?, ?, ?)", rows)

    def _link(self, db: sqlite3.Connection, no: int, content: Content) -> None:
        """Note what the bytes of an artifact name."""
        data = content.data
        if data is None and content.size <= PAYLOAD_BYTES_MAX:
            data = b"".join(self._blocks.read(extent.block) for extent in content.extents)
        named = self.numbers(db, sorted(links(content.tag, data or b"")))
        db.executemany("INSERT OR IGNORE INTO link VALUES (?, ?)", ((one, no) for one in named.values()))

    def let_go(self, db: sqlite3.Connection, no: int) -> None:
        """Drop the bytes of an artifact in the open transaction. Its row stays, and its extents, until they are cleared."""
        db.execute("UPDATE artifact SET state = ?, bytes = NULL WHERE no = ?", (ABSENT, no))
        self._used = None

    def erase(self, db: sqlite3.Connection, ref: Reference) -> None:
        """Drop the bytes of an artifact in the open transaction, and overwrite the pages that held them."""
        before = pragma(db, "secure_delete")
        db.execute("PRAGMA secure_delete = ON")
        try:
            for row in self._found(db, [ref], with_bytes=False).values():
                self.let_go(db, row.no)
                self.clear_extents(db, row.no, _ALL)
        finally:
            db.execute(f"PRAGMA secure_delete = {before:d}")

    def clear_extents(self, db: sqlite3.Connection, no: int, most: int) -> int:
        """Remove extents of an artifact that is not here, at most so many, in the open transaction; how many it were.

        Their blocks are orphans, unless others name them.
        """
        statement = (
            "SELECT idx, block FROM extent WHERE artifact = ? AND artifact IN"
            " (SELECT no FROM artifact WHERE no = ? AND state != 0) ORDER BY idx LIMIT ?"
        )
        found = db.execute(statement, (no, no, most)).fetchall()
        db.executemany("DELETE FROM extent WHERE artifact = ? AND idx = ?", ((no, idx) for idx, _ in found))
        db.executemany("INSERT OR IGNORE INTO orphan VALUES (?)", ((block,) for _, block in found))
        return len(found)

    def _mend(self, db: sqlite3.Connection, row: _Found, content: Content) -> None:
        """Of what is here already: is it what was just hashed? Blocks were looked at when they were written."""
        same = (row.tag, row.size) == (content.tag, content.size)
        if content.data is not None and row.data is not None:
            same = same and row.data == content.data
        elif row.data is not None:  # it is here in a row, and came as blocks
            same = same and _is_payload(content.ref, row.tag, row.size, row.data)
        else:
            same = same and content.data is None and self.extents(db, row.no) == list(content.extents)
        if not same:
            self._fill(db, row.no, content)

    def next_number(self, db: sqlite3.Connection) -> int:
        """The number that the next new artifact gets: nothing refers to it, or to a larger one."""
        last: int | None = db.execute("SELECT max(no) FROM artifact").fetchone()[0]
        return 1 if last is None else last + 1

    def count_again(self) -> None:
        """A transaction did not come to be: what is known of the bytes that are here, is not so."""
        self._used = None

    # --- reading ---

    def get(self, ref: Reference, offset: int, length: int | None) -> bytes:
        """As the contract of the store says."""
        if offset < 0 or (length is not None and length < 0):
            raise OperatorError(f"offset {offset}, length {length}", "both count from 0", "give numbers from 0 on")
        for tag, found in self._handle.select("get", _SELECT_SMALL, Blob(ref.to_bytes())):  # as most are
            if type(found) is bytes and _is_payload(ref, tag, len(found), found):
                return found if not offset and length is None else found[offset:][:length]
        no, tag, size, data = self._held(ref)
        if data is not None:
            return data[offset:][:length]
        extents = self._layout(ref, no, size)
        end = size if length is None else min(size, offset + length)
        if offset == 0 and end == size:
            return self._joined(ref, tag, size, extents)
        parts = []
        for extent in extents:
            start = extent.offset
            if start < end and start + extent.length > offset:
                parts.append(self._block(ref, extent)[max(0, offset - start) : end - start])
        return b"".join(parts)

    def open(self, ref: Reference) -> BinaryIO:
        """As the contract of the store says."""
        no, _, size, data = self._held(ref)
        if data is not None:
            return io.BytesIO(data)
        return io.BufferedReader(BlockStream(self._layout(ref, no, size), size, partial(self._block, ref)))

    def verify(self, ref: Reference, *, state: int = HERE) -> None:
        """Read and hash an artifact, one block at a time, whose row is in ``state``. Raises as :meth:`get`."""
        no, tag, size, data = self._held(ref, state)
        if data is None:
            extents = self._layout(ref, no, size)
            self._check_name(ref, tag, size, extents, (self._block(ref, extent) for extent in extents))

    def info(self, ref: Reference) -> ArtifactInfo:
        """As the contract of the store says."""
        statement = "SELECT no, tag, size, state, NULL FROM artifact WHERE ref = ?"
        rows = [_Found(*row) for row in self._handle.select("info", statement, ref.to_bytes())]
        asked = "SELECT domain, kind, flags FROM event WHERE artifact = ? ORDER BY domain, seq"
        events = self._handle.select("info", asked, rows[0].no) if rows else []
        adds = [flags for _, kind, flags in events if kind in ADDS]
        if not rows or not (adds or rows[0].state == HERE):
            raise _unknown(ref)
        row = rows[0]
        if row.size is None:
            raise self._missing(ref, row.no, row.state)
        is_erased = any(kind == ERASE for _, kind, _ in events)
        state: ByteState = "here" if row.state == HERE else "erased" if is_erased else "withheld"
        told = [[(kind, flags) for _, kind, flags in one] for _, one in itertools.groupby(events, itemgetter(0))]
        is_shown = any(shows(one, publish=False) for one in told)
        return ArtifactInfo(ref, row.tag, row.size, state, any(flags & 1 for flags in adds), is_shown)

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """As the contract of the store says."""
        with self._handle.reading_table("has", "artifact") as db:
            found = self._found(db, refs, with_bytes=False)
        return [ref in found and found[ref].state == HERE for ref in refs]

    def small(self, refs: Sequence[Reference], bytes_max: int) -> dict[Reference, bytes]:
        """As the contract of the store says."""
        found = {}
        for start in range(0, len(refs), _CHUNK):
            names = {ref.to_bytes(): ref for ref in refs[start : start + _CHUNK]}
            for name, tag, size, payload in self._small_rows([*names], bytes_max):
                ref = names[name]
                try:
                    data = artifact_head(size, tag) + (self.get(ref, 0, None) if payload is None else payload)
                except (TypeError, TidewarpError):
                    continue  # damaged, or gone meanwhile
                if len(data) <= bytes_max and sha256(data).digest() == ref.digest:
                    found[ref] = data
        return found

    def _small_rows(self, names: Sequence[bytes], bytes_max: int) -> list[tuple[Any, ...]]:
        """Name, tag, size and bytes of those that are here and small: by number where they lie together, as they mostly came."""
        columns, small = "SELECT ref, tag, size, bytes FROM artifact WHERE", f"AND state = {HERE} AND size <= ?"
        numbered = "SELECT no FROM artifact WHERE ref IN (?, ?) ORDER BY no"
        ends = [no for (no,) in self._handle.select("small", numbered, names[0], names[-1])]
        rows: list[tuple[Any, ...]] = []
        if len(ends) == 2 and ends[1] - ends[0] < 2 * len(names):
            asked = set(names)
            between = self._handle.select("small", f"{columns} no BETWEEN ? AND ? {small}", *ends, bytes_max)
            rows = [row for row in between if row[0] in asked]
            names = [*asked.difference([row[0] for row in rows])]
        if names:
            places = ",".join("?" * len(names))
            rows += self._handle.select("small", f"{columns} ref IN ({places}) {small}", *names, bytes_max)
        return rows

    def _found(
        self, db: sqlite3.Connection, refs: Sequence[Reference], *, with_bytes: bool = True
    ) -> dict[Reference, _Found]:
        found = {}
        data = "bytes" if with_bytes else "NULL"
        for start in range(0, len(refs), _CHUNK):
            names = {ref.to_bytes(): ref for ref in refs[start : start + _CHUNK]}
            places = ",".join("?" * len(names))
            statement = f"SELECT ref, no, tag, size, state, {data} FROM artifact WHERE ref IN ({places})"
            for name, *row in db.execute(statement, list(names)):
                found[names[name]] = _Found(*row)
        return found

    def _held(self, ref: Reference, wanted: int = HERE) -> tuple[int, Any, Any, bytes | None]:
        """Number, tag, size and bytes of an artifact that is here; the bytes of a large one (None) are in blocks.

        Those of a small one have its name, or Corrupt is raised.
        """
        rows = self._handle.select("get", _SELECT, Blob(ref.to_bytes()))
        if not rows:
            raise _unknown(ref)
        no, tag, size, state, data = rows[0]
        if state != wanted:
            raise self._missing(ref, no, state)
        if data is not None and not _is_payload(ref, tag, size, data):
            raise _damaged(ref, "its bytes do not have its name")
        return no, tag, size, data

    def _layout(self, ref: Reference, no: int, size: Any) -> list[Extent]:
        """The extents of a large artifact. Raises Corrupt unless they cover its payload in order."""
        with self._handle.reading_table("get", "extent") as db:
            extents = self.extents(db, no)
        place = 0
        for extent in extents:
            if extent.offset != place or not 0 < extent.length <= BLOCK_BYTES or len(extent.block) != 32:
                break
            place += extent.length
        if not extents or place != size:
            raise _damaged(ref, "its extents do not cover its payload in order")
        return extents

    def extents(self, db: sqlite3.Connection, no: int) -> list[Extent]:
        """The pieces of a large payload, in order; nothing of them is believed."""
        statement = "SELECT block, offset, length FROM extent WHERE artifact = ? ORDER BY idx"
        return [Extent(*row) for row in db.execute(statement, (no,))]

    def _joined(self, ref: Reference, tag: Any, size: Any, extents: Sequence[Extent]) -> bytes:
        pieces = [self._block(ref, extent) for extent in extents]
        self._check_name(ref, tag, size, extents, pieces)
        return b"".join(pieces)

    def _check_name(
        self, ref: Reference, tag: Any, size: Any, extents: Sequence[Extent], pieces: Iterable[bytes]
    ) -> None:
        """Raise Corrupt unless these pieces, read by :meth:`_block`, are the payload."""
        if tag is None and len(extents) == 1:  # its block has the same name, and has been checked
            is_right = sum(map(len, pieces)) == size and extents[0].block == ref.digest and ref.hash_id == SHA256
        else:
            is_right = _has_name(ref, tag, size, pieces)
        if not is_right:
            raise _damaged(ref, "its blocks are whole and are not its payload")

    def _block(self, ref: Reference, extent: Extent) -> bytes:
        try:
            data = self._blocks.read(extent.block)
        except Corrupt as error:
            raise _damaged(ref, f"{error.value}: {error.rule}") from error
        if len(data) != extent.length:
            raise _damaged(ref, f"block {extent.block.hex()} has another length than its extent")
        return data

    def _events(self, no: int) -> list[tuple[int, int]]:
        return self._handle.select("info", "SELECT kind, flags FROM event WHERE artifact = ?", no)

    def _missing(self, ref: Reference, no: int, state: Any) -> TidewarpError:
        kinds = {kind for kind, _ in self._events(no)}
        if ERASE in kinds:
            return Erased(f"artifact {ref.hex()}", "a record says that its bytes were dropped for good", "do without")
        if kinds.isdisjoint(ADDS):
            return _unknown(ref)
        if state == QUARANTINED:
            return _damaged(ref, "its bytes were found damaged, and are in quarantine")
        action = "pull again from a peer that may have them"
        return Withheld(f"artifact {ref.hex()}", "a record names it, its bytes have not come", action)


def _small(data: bytes, tag: int | None) -> Content:
    size = len(data)
    ref = _made(Reference, (SHA256, sha256(artifact_head(size, tag) + data).digest()))
    return _made(Content, (ref, tag, size, data, ()))


def _is_payload(ref: Reference, tag: Any, size: Any, data: Any) -> bool:
    """Is ``ref`` the name of these bytes? They, tag and size are columns, nothing believed."""
    try:
        named = sha256(artifact_head(size, tag) + data).digest()
    except (CodecError, TypeError):
        return False
    return named == ref.digest and ref.hash_id == SHA256 and len(data) == size


def _has_name(ref: Reference, tag: Any, size: Any, pieces: Iterable[bytes]) -> bool:
    """Is ``ref`` the name of a payload that comes in pieces? Tag and size are columns, nothing believed."""
    try:
        digest = sha256(artifact_head(size, tag))
    except (CodecError, TypeError):
        return False
    for piece in pieces:
        digest.update(piece)
        size -= len(piece)
    return size == 0 and Reference(SHA256, digest.digest()) == ref


def _unknown(ref: Reference) -> NotFound:
    return NotFound(f"artifact {ref.hex()}", "no record here adds it", "check the reference, or pull from its site")


def _damaged(ref: Reference, rule: str) -> Corrupt:
    return Corrupt(f"artifact {ref.hex()}", rule, _PUT_AGAIN)
