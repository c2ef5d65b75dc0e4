"""Give rows of ``artifact`` back the names that their bytes hash to.

The name of an artifact stands in its row, in the index of the table, and in the records that speak of it. Where the row
has another one than these records, its bytes say which is right, if they are whole and a record has the name that they
hash to. This comes first of all: what else is made anew would follow the damaged name, and the bytes would belong to
nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.batches import BODY
from tidewarp.codec.bodies import ERASE
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, Corrupt
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import Blocks
from tidewarp.store.fsck.inspection import Inspection
from tidewarp.store.rows import SEQ_BITS
from tidewarp.store.schema import ABSENT, HERE
from tidewarp.store.subjects import INDEXED

__all__ = ["NAMED", "NameCheck"]

_PART = 500  # names in one statement

NAMED = f"substr(log.body, CASE log.kind WHEN {ERASE} THEN 6 ELSE 5 END, 34)"
"""The reference in the body of a record that speaks of an artifact."""

_SUSPECTS = (
    f"SELECT no FROM artifact WHERE state != {ABSENT} AND NOT EXISTS (SELECT 1 FROM event"
    f" CROSS JOIN log ON log.id = (event.domain << {SEQ_BITS} | event.seq)"
    f" WHERE event.artifact = artifact.no AND {NAMED} = artifact.ref)"
)
_SPOKEN_OF = f"SELECT {NAMED} FROM log WHERE kind IN ({','.join(map(str, sorted(INDEXED)))}) AND body_state = {BODY}"


class NameCheck:
    """The column ``ref`` of ``artifact``, where bytes are here, also in quarantine."""

    def __init__(self, inspection: Inspection, artifacts: ArtifactTable, blocks: Blocks) -> None:
        self.misnamed: set[int] = set()
        """Numbers of the rows that still have another name than their bytes. These are whole."""
        self._inspection = inspection
        self._db = inspection.db
        self._artifacts = artifacts
        self._blocks = blocks

    def run(self, *, is_sound: bool) -> None:
        """Check it. ``is_sound``: all records are, and tables that follow from them are made anew after this."""
        with self._inspection.section("artifact", "table artifact"):
            named: dict[bytes, tuple[int, bytes]] = {}
            for (no,) in self._db.execute(_SUSPECTS).fetchall():
                ((stored,),) = self._db.execute("SELECT CAST(ref AS BLOB) FROM artifact WHERE no = ?", (no,)).fetchall()
                name = self.name_of(no)
                if name not in (None, stored):
                    named.setdefault(name, (no, stored))
            for name in self._spoken_of([*named]):
                no, stored = named[name]
                self.misnamed.add(no)
                is_mended = self._inspection.repairs and self._rename(no, name, is_sound=is_sound)
                rule = f"its row has the name {stored.hex()}, which is not that of its bytes"
                self._inspection.found("artifact", f"artifact {name.hex()}", rule, repaired=is_mended)

    def name_of(self, no: int) -> bytes | None:
        """The name (34 bytes) that the bytes of a row hash to; None: there are none, or they are not whole."""
        rows = self._db.execute("SELECT tag, size, bytes FROM artifact WHERE no = ?", (no,)).fetchall()
        for tag, size, data in rows:
            try:
                digest, left = sha256(artifact_head(size, tag)), size
                for piece in self._pieces(no, data):
                    digest.update(piece)
                    left -= len(piece)
            except (Corrupt, CodecError, TypeError):
                return None
            return None if left else Reference(SHA256, digest.digest()).to_bytes()
        return None

    def _pieces(self, no: int, data: Any) -> Iterator[bytes]:
        if data is not None:
            yield data
            return
        for extent in self._artifacts.extents(self._db, no):
            yield self._blocks.read(extent.block)

    def _spoken_of(self, names: list[bytes]) -> Iterable[bytes]:
        """Those of the names that a record has."""
        found: set[bytes] = set()
        for start in range(0, len(names), _PART):
            part = names[start : start + _PART]
            places = ",".join("?" * len(part))
            found |= {name for (name,) in self._db.execute(f"{_SPOKEN_OF} AND {NAMED} IN ({places})", part)}
        return sorted(found)

    def _rename(self, no: int, name: bytes, *, is_sound: bool) -> bool:
        """Whether the row has its name now, or another row has it with the same bytes, and this one is gone."""
        others = self._db.execute("SELECT no FROM artifact WHERE ref = ? AND no != ?", (name, no)).fetchall()
        if others and not is_sound:
            return False  # records may speak of either row, and their index cannot be made anew
        for (other,) in others:
            if self.name_of(other) == name:
                self._db.execute("UPDATE artifact SET state = ? WHERE no = ?", (HERE, other))
                self._db.execute("DELETE FROM artifact WHERE no = ?", (no,))
                self.misnamed.discard(no)
                return True
            self._db.execute("DELETE FROM artifact WHERE no = ?", (other,))
        self._db.execute("UPDATE artifact SET ref = ?, state = ? WHERE no = ?", (name, HERE, no))
        self.misnamed.discard(no)
        return True
