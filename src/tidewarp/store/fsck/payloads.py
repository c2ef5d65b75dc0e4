"""Check the artifacts: payloads against their names, rows against what records say, links against what payloads name.

Small payloads are hashed as their rows pass by. What is large, absent, or not what it should be, is looked at afterwards, one by one. Bytes
that are damaged, and that no source has, are put into quarantine: they stay where they are, counted, and nobody is given
them, or told that the artifact is here. A put, a pull or another repair brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from itertools import accumulate, groupby
from typing import Any

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, Corrupt, NotFound, OperatorError, PeerError, StoreFailed, StoreFull
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import Blocks
from tidewarp.store.damage import MISSING_BYTES, ByteSource
from tidewarp.store.fsck.derived import DerivedCheck
from tidewarp.store.fsck.inspection import Inspection
from tidewarp.store.fsck.names import NameCheck
from tidewarp.store.links import LINKING, links
from tidewarp.store.payload import artifact_payload
from tidewarp.store.schema import ABSENT, HERE, QUARANTINED

__all__ = ["PayloadCheck"]

_UNSTATED_BYTES_MAX = 16 << 20  # of an artifact whose size nothing here says
_SHA256_NAME = b"\0\1"  # a reference begins with the number of its hash
_ROWS = "SELECT no, ref, tag, size, state, bytes FROM artifact ORDER BY no"


class PayloadCheck:
    """The tables ``artifact`` and ``link``, with extents and blocks of each artifact."""

    def __init__(
        self,
        inspection: Inspection,
        names: NameCheck,
        artifacts: ArtifactTable,
        blocks: Blocks,
        sources: Sequence[ByteSource],
        is_shown: Callable[[Reference], bool],
    ) -> None:
        self._inspection = inspection
        self._db = inspection.db
        self._names = names
        self._artifacts = artifacts
        self._blocks = blocks
        self._sources = sources
        self._is_shown = is_shown
        self._derived: DerivedCheck | None = None

    def run(self, derived: DerivedCheck | None) -> None:
        """Check all of them. ``derived`` knows what records say of an artifact; None: nobody does."""
        self._derived = derived
        with self._inspection.section("artifact", "table artifact"):
            others, misnoted = self._pass_by()
            for no in others:
                self._look_at(no)
            for no in misnoted:
                self._check_links(no)
            self._check_stray_links()

    def _pass_by(self) -> tuple[list[int], list[int]]:
        """Hash small payloads; the numbers of artifacts that need a closer look, and of those whose links do."""
        others, misnoted = [], []
        noted = _Noted(
            self._db.execute("SELECT source, ref FROM link LEFT JOIN artifact ON no = artifact ORDER BY source")
        )
        count = 0
        for no, name, tag, size, state, data in self._db.execute(_ROWS):
            if no in self._names.misnamed:
                continue
            if state != HERE or data is None or not _has_name(name, tag, size, data):
                others.append(no)
                continue
            count += 1
            if tag in LINKING:
                named = links(tag, data)
                self._inspection.checked["link"] += len(named)
                if noted.of(no) != {one.to_bytes() for one in named}:
                    misnoted.append(no)
        self._inspection.checked["artifacts"] += count
        return others, misnoted

    def _look_at(self, no: int) -> None:
        rows = self._db.execute(
            "SELECT ref, tag, size, state, bytes IS NULL FROM artifact WHERE no = ?", (no,)
        ).fetchall()
        for name, tag, size, state, is_empty in rows:
            where = f"artifact {name.hex()}"
            try:
                ref = Reference.from_bytes(name)
            except CodecError as error:
                self._inspection.found("artifact", where, error.rule)
                continue
            if state == HERE:
                self._inspection.checked["artifacts"] += 1
                if self._check_artifact(no, ref) and tag in LINKING:
                    self._check_links(no)
            elif state == QUARANTINED:
                self._check_quarantined(no, ref, size)
            elif state != ABSENT or not is_empty or self._has_extents(no):
                self._mend_state(no, ref)
            else:
                self._check_absent(no, ref, tag, size)

    # --- here

    def _check_artifact(self, no: int, ref: Reference) -> bool:
        """Whether the bytes of an artifact are what they should be, or are by now."""
        try:
            self._artifacts.verify(ref)
        except (Corrupt, NotFound) as error:
            rows = self._db.execute("SELECT tag, size FROM artifact WHERE no = ?", (no,)).fetchall()
            tag, size = rows[0] if rows else (None, None)  # a bad page may hide it
            kind = self._kind_of_damage(no, size)
            is_mended = self._describe(no, ref, tag, size) or self._fetch(ref, size)
            rule = error.rule
            is_whole = self._names.name_of(no) == ref.to_bytes()  # where an index alone is damaged, and stays so
            if self._inspection.repairs and not is_mended and not is_whole:
                self._db.execute("UPDATE artifact SET state = ? WHERE no = ?", (QUARANTINED, no))
                rule = f"{rule}; they are in quarantine now: {_HOW_BACK}"
            self._inspection.found(kind, f"artifact {ref.hex()}", rule, repaired=is_mended)
            return is_mended
        return True

    def _kind_of_damage(self, no: int, size: Any) -> str:
        extents = self._artifacts.extents(self._db, no)
        if any(not self._is_whole(one.block) for one in extents):
            return "block"
        ends = [0, *accumulate(one.length for one in extents)]
        is_covered = [one.offset for one in extents] == ends[:-1] and ends[-1] == size
        return "extent" if extents and not is_covered else "artifact"

    def _is_whole(self, name: bytes) -> bool:
        try:
            self._blocks.read(name)
        except Corrupt:
            return False
        return True

    def _is_right(self, ref: Reference, state: int = HERE) -> bool:
        try:
            self._artifacts.verify(ref, state=state)
        except (Corrupt, NotFound):
            return False
        return True

    def _describe(self, no: int, ref: Reference, tag: Any, size: Any) -> bool:
        """Whether an artifact is what it should be once it has tag and size as a record says them."""
        if not self._inspection.repairs or self._derived is None:
            return False
        statement = "UPDATE artifact SET tag = ?, size = ? WHERE no = ?"
        for said in self._derived.stated(ref):
            self._db.execute(statement, (*said, no))
            if self._is_right(ref):
                return True
        self._db.execute(statement, (tag, size, no))
        return False

    # --- not here

    def _check_quarantined(self, no: int, ref: Reference, size: Any) -> None:
        """It is a problem as long as anybody may want it, and if its bytes are whole."""
        self._inspection.checked["quarantined"] += 1
        is_whole = self._is_right(ref, QUARANTINED)
        if not is_whole and self._derived is not None and not self._derived.is_added(ref):
            return
        is_mended = False
        if self._inspection.repairs:
            self._db.execute("UPDATE artifact SET state = ? WHERE no = ?", (HERE, no))
            is_mended = self._is_right(ref) or self._fetch(ref, size)
            if not is_mended:
                self._db.execute("UPDATE artifact SET state = ? WHERE no = ?", (QUARANTINED, no))
        rule = f"its bytes were found damaged, and are in quarantine: {_HOW_BACK}"
        if is_whole:
            rule = "its bytes are whole, and its row says that they are in quarantine"
        self._inspection.found("artifact", f"artifact {ref.hex()}", rule, repaired=is_mended)

    def _mend_state(self, no: int, ref: Reference) -> None:
        self._inspection.repair("UPDATE artifact SET state = ? WHERE no = ?", HERE, no)
        if self._inspection.repairs and not self._is_right(ref):
            self._artifacts.let_go(self._db, no)
            self._artifacts.clear_extents(self._db, no, -1)
        rule = "its state is not that of an artifact whose bytes are not here"
        self._inspection.found("artifact", f"artifact {ref.hex()}", rule, repaired=self._inspection.repairs)

    def _has_extents(self, no: int) -> bool:
        """Whether an artifact that is not here has pieces, and no collection is about to clear them."""
        statement = (
            "SELECT 1 FROM extent WHERE artifact = ?1"
            " AND NOT EXISTS (SELECT 1 FROM gc_state WHERE name = 'halfway' AND place = ?2) LIMIT 1"
        )
        return self._db.execute(statement, (no, no.to_bytes(8, "big"))).fetchone() is not None

    def _check_absent(self, no: int, ref: Reference, tag: Any, size: Any) -> None:
        if self._derived is None:
            return
        stated = self._derived.stated(ref)
        if size is not None and stated and (tag, size) not in stated:
            self._inspection.repair("UPDATE artifact SET tag = ?, size = ? WHERE no = ?", *min(stated, key=str), no)
            rule = "tag and size are not what a record says"
            self._inspection.found("artifact", f"artifact {ref.hex()}", rule, repaired=self._inspection.repairs)
        is_missed = self._derived.is_published(ref) and self._is_shown(ref)
        is_mended = (is_missed or self._derived.is_added(ref)) and self._fetch(ref, size)
        if is_mended:
            self._inspection.checked["fetched"] += 1
        if is_missed:
            rule = "a record names it, its bytes have not come: tidewarp store fsck DIR --repair --from URL"
            self._inspection.found(MISSING_BYTES, f"artifact {ref.hex()}", rule, repaired=is_mended)

    def _fetch(self, ref: Reference, size: int | None) -> bool:
        """Whether a source had the bytes of an artifact, which are here now. ``size``: as its row says."""
        transaction = self._inspection.transaction
        if transaction is None:
            return False
        said = [] if self._derived is None else [one for _, one in self._derived.stated(ref)]
        most = max(said) if said else _UNSTATED_BYTES_MAX if size is None else size
        for source in self._sources:
            stream = source.fetch(ref, most)
            if stream is None:
                continue
            with closing(stream):
                try:
                    payload, tag = artifact_payload(stream, f"artifact {ref.hex()}")
                    content = self._artifacts.content(payload, tag)
                except (StoreFull, StoreFailed):
                    raise
                except (PeerError, OperatorError):
                    continue  # no artifact, or not as long as it says; another source may have it
                if content.ref == ref:
                    self._artifacts.keep(transaction, [content])
                    return True
        return False

    # --- links

    def _check_links(self, no: int) -> None:
        """Compare what is noted of an artifact with what its bytes name, and note it anew."""
        ((name, tag),) = self._db.execute("SELECT ref, tag FROM artifact WHERE no = ?", (no,)).fetchall()
        ref = Reference.from_bytes(name)
        named = links(tag, self._artifacts.get(ref, 0, None))
        statement = "SELECT ref FROM link LEFT JOIN artifact ON no = artifact WHERE source = ?"
        if {name for (name,) in self._db.execute(statement, (no,))} == {one.to_bytes() for one in named}:
            return
        if self._inspection.repairs:
            self._db.execute("DELETE FROM link WHERE source = ?", (no,))
            numbers = self._artifacts.numbers(self._db, sorted(named))
            self._db.executemany("INSERT INTO link VALUES (?, ?)", ((one, no) for one in numbers.values()))
        rule = "what is noted of it is not what its bytes name"
        self._inspection.found("link", f"artifact {ref.hex()}", rule, repaired=self._inspection.repairs)

    def _check_stray_links(self) -> None:
        tags = ",".join(map(str, sorted(LINKING)))
        stray = (
            "FROM link WHERE source NOT IN (SELECT no FROM artifact) OR artifact NOT IN (SELECT no FROM artifact)"
            f" OR source IN (SELECT no FROM artifact WHERE state = 0 AND (tag IS NULL OR tag NOT IN ({tags})))"
        )
        ((strays,),) = self._db.execute(f"SELECT count(*) {stray}").fetchall()
        if strays:
            self._inspection.repair(f"DELETE {stray}")
            rule = f"{strays} rows are of artifacts that name nothing"
            self._inspection.found("link", "table link", rule, repaired=self._inspection.repairs)


_HOW_BACK = "tidewarp store fsck DIR --repair --from URL, or put the same artifact again"


class _Noted:
    """Rows of ``link`` by ascending source, asked for in that order: one pass for all."""

    def __init__(self, rows: Iterator[tuple[int, Any]]) -> None:
        self._groups = groupby(rows, key=lambda row: row[0])
        self._next: tuple[int, set[Any]] | None = None
        self._advance()

    def of(self, source: int) -> set[Any]:
        """What is noted of an artifact: references, None where a row names no artifact."""
        while self._next is not None and self._next[0] < source:
            self._advance()
        return self._next[1] if self._next is not None and self._next[0] == source else set()

    def _advance(self) -> None:
        found = next(self._groups, None)
        self._next = None if found is None else (found[0], {ref for _, ref in found[1]})


def _has_name(name: Any, tag: Any, size: Any, data: Any) -> bool:
    """Is ``name`` the reference of this payload? All four are columns, nothing believed."""
    try:
        digest = sha256(artifact_head(size, tag))
        digest.update(data)
        return bool(name == _SHA256_NAME + digest.digest() and len(data) == size)
    except (CodecError, TypeError):
        return False
