"""Reading the records of one domain from ``log``: in pages, each in a short transaction, all of them checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from itertools import islice

from tidewarp.codec import genesis
from tidewarp.store.connection import DATABASE_ERRORS, bad
from tidewarp.store.handle import Handle
from tidewarp.store.rows import OWN, ROW, STUB_ROW, Row, RowCheck, log_id

__all__ = ["LogReader"]

_PAGE_RECORDS = 1_000  # of one read transaction
_PART_RECORDS = 32  # found by their numbers at once: bodies of up to 32 MiB
_PAGE_BYTES = 4 << 20  # of bodies in one, about: memory of a reader is bounded


class LogReader:
    """The rows of domain ``no``, whose id is ``domain`` (32 bytes)."""

    def __init__(self, handle: Handle, no: int, domain: bytes) -> None:
        self._handle = handle
        self._no = no
        self._domain = domain
        self._path = str(handle.path)

    def scan(
        self,
        after: int,
        limit: int,
        kinds: Collection[int] | None,
        size: int,
        head: bytes | None,
        *,
        headers: bool = False,
    ) -> Iterator[Row]:
        """Rows behind ``after``, of ``kinds`` (None: all), at most ``limit``, of a log of ``size`` whose last hash is ``head``.

        With ``headers`` rows of all kinds, the bodies of ``kinds`` in them alone. Each header is checked against its
        columns and its predecessor, each body that is read against its hash. The head is compared where the scan comes
        to the end.

        Raises:
            Corrupt: with ``seq`` of the first bad record; those before it were given.
        """
        rows = self._check(after)
        while limit and max(rows.seq, after + 1) <= size:
            seq = rows.seq
            page = self.page(seq, min(size, seq + min(limit, _PAGE_RECORDS)), kinds)
            if not page:
                raise bad(self._path, f"record {seq}", "it is missing", seq)
            for row in rows.walk(page):
                if rows.seq > size and head is not None and rows.prev != head:
                    raise bad(self._path, f"record {size}", "it is not the head that its domain names", size)
                if rows.seq > after + 1 and (headers or row.body is not None):
                    limit -= 1
                    yield row
                    if not limit:
                        return

    def hashes(self, after: int, size: int, head: bytes | None) -> Iterator[bytes]:
        """The record hashes behind ``after``, checked as :meth:`scan` checks them; bodies are not read."""
        return (row.hash for row in self.scan(after, size, (), size, head, headers=True))

    def _check(self, after: int) -> RowCheck:
        # The record before the first is read too: its hash is what the first has to name.
        seq, prev = (after, None) if after else (1, genesis(self._domain))
        return RowCheck(self._path, self._domain, seq, prev, self._no)

    def hash_at(self, seq: int) -> bytes | None:
        """The hash column of one record; None if it is not here."""
        rows = self._handle.select("hash_at", "SELECT hash FROM log WHERE id = ?", log_id(seq, self._no))
        if rows and (not isinstance(rows[0][0], bytes) or len(rows[0][0]) != 32):
            raise bad(self._path, f"record {seq}", "its hash is none", seq)
        return rows[0][0] if rows else None

    def at(self, seqs: Iterable[int]) -> Iterator[Row]:
        """The rows with these numbers, with their bodies, in the order given; each checked as :meth:`scan` checks it.

        Raises:
            Corrupt: one is missing, or is not what it says.
        """
        columns = ROW if self._no == OWN else STUB_ROW
        before = "(SELECT hash FROM log AS before WHERE before.id = log.id - 1)"
        left = iter(seqs)
        while part := list(islice(left, _PART_RECORDS)):
            ids = [log_id(seq, self._no) for seq in part]
            statement = f"SELECT {columns}, body, {before} FROM log WHERE id IN ({','.join('?' * len(ids))})"
            found = {row[0]: row for row in self._handle.select("read", statement, *ids)}
            for seq, row_id in zip(part, ids, strict=True):
                if row_id not in found:
                    raise bad(self._path, f"record {seq}", "it is missing", seq)
                *values, prev = found[row_id]
                check = RowCheck(self._path, self._domain, seq, prev if seq > 1 else genesis(self._domain), self._no)
                yield from check.walk([Row(*values)])

    def page(self, first: int, last: int, kinds: Collection[int] | None) -> list[Row]:
        """Rows from ``first`` on, in one short transaction; bodies only of ``kinds``."""
        self._handle.enter("read")
        body = "body" if kinds is None else f"CASE WHEN kind IN ({','.join(str(int(k)) for k in kinds)}) THEN body END"
        columns = ROW if self._no == OWN else STUB_ROW
        rows: list[Row] = []
        bytes_read = 0
        try:
            with self._handle.reading("read") as db, closing(db.cursor()) as cursor:
                cursor.execute(
                    f"SELECT {columns}, {body} FROM log WHERE id BETWEEN ? AND ? ORDER BY id",
                    (log_id(first, self._no), log_id(last, self._no)),
                )
                for values in cursor:
                    rows.append(tuple.__new__(Row, values))  # a third of the time of Row(*values)
                    bytes_read += len(rows[-1].body or b"")
                    if bytes_read >= _PAGE_BYTES:
                        break
        except DATABASE_ERRORS as error:
            if not rows:
                self._handle.fail(error, f"record {first}", first)
            # The rows before the bad one are good: return them; the next page begins with it.
        return rows
