"""Cuts in a journal: how they are written, where a recovery may begin, and whether both ways give one run.

A cut's document is not a record: it may be longer than one. Its parts stand before its checkpoint, in one transaction
with it. A cut is journaled once nothing below it changes any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from tidewarp.codec import CHECKPOINT
from tidewarp.errors import Corrupt
from tidewarp.store import Entry, Journal
from tidewarp.twin.documents import CUT, PART, Checkpoint, entry
from tidewarp.twin.early import complete_below
from tidewarp.twin.facts import documents, shaped

__all__ = ["Cut", "cut_entries", "cuts_of", "latest_cut"]

_PART_BYTES: Final = 512 << 10


class Cut(NamedTuple):
    """A cut and its document, packed."""

    checkpoint: Checkpoint
    data: bytes

    @property
    def tick(self) -> int:
        """The first one behind its instant."""
        return self.checkpoint.tick


def cut_entries(cut: Cut) -> list[Entry]:
    """The records of a cut."""
    tick, reference, data = cut.tick, cut.checkpoint.reference, cut.data
    parts = [data[start : start + _PART_BYTES] for start in range(0, len(data), _PART_BYTES)]
    entries = [entry(PART, tick, {"reference": reference, "data": part}) for part in parts]
    return [*entries, entry(CUT, tick, cut.checkpoint.document())]


def cuts_of(journal: Journal) -> Iterator[tuple[int, Cut]]:
    """The cuts of a journal, ascending, with the number of their record. Raises Corrupt naming the record."""
    parts: list[bytes] = []
    for seq, _, document in documents(journal, kinds={CHECKPOINT}):
        with shaped(seq):
            if document.schema == PART:
                parts.append(document.value["data"])
                continue
            cut = Cut(msgspec.convert(document.value, Checkpoint), b"".join(parts))
            if sha256(cut.data).hexdigest() != cut.checkpoint.reference:
                raise Corrupt("its document", "it does not have its hash", "restore the file from a copy")
        parts = []
        yield seq, cut


def latest_cut(journal: Journal, held: Mapping[str, str], sinks: Iterable[str]) -> Cut | None:
    """Where a recovery may begin: all outputs before it are with each of ``sinks``, of which ``held`` has the last ids."""
    everybody_has = min((complete_below(held.get(name, "")) for name in sinks), default=None)
    latest = None
    for _, cut in cuts_of(journal):
        if everybody_has is None or cut.checkpoint.last_id <= everybody_has:
            latest = cut
    return latest
