"""Names of the published draft of federated replay that :mod:`.replay` does not need, over what they mean here.

    ArtifactKey                                    a Reference
    SnapshotID                                     Snapshot.id(), 32 bytes
    ApplyArtifact, ApplyTGKEdge, ApplyTombstone    Fold.add, for a record of that kind

The draft has a tombstone delete what was applied before it. Here each record is an event that is kept, what is visible
is computed, and so the three may be called in any order that keeps that of each domain.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from tidewarp.codec import Record
from tidewarp.codec.bodies import ARTIFACT, EDGE, RECEIPT, TOMBSTONE
from tidewarp.codec.references import Reference
from tidewarp.errors import OperatorError
from tidewarp.store.fold import Fold

__all__ = ["ApplyArtifact", "ApplyTGKEdge", "ApplyTombstone", "ArtifactKey", "SnapshotID"]

ArtifactKey: TypeAlias = Reference
SnapshotID: TypeAlias = bytes


def ApplyArtifact(view_builder: Fold, record: Record) -> None:  # noqa: N802 - the published name
    """Fold a verified record that adds an artifact or a receipt.

    Raises:
        OperatorError: it is of another kind.
        CodecError, InternalError: as :meth:`~tidewarp.store.fold.Fold.add`.
    """
    _apply(view_builder, record, (ARTIFACT, RECEIPT))


def ApplyTGKEdge(view_builder: Fold, record: Record) -> None:  # noqa: N802 - the published name
    """Fold a verified record that adds an edge. Raises as :func:`ApplyArtifact`."""
    _apply(view_builder, record, (EDGE,))


def ApplyTombstone(view_builder: Fold, record: Record) -> None:  # noqa: N802 - the published name
    """Fold a verified record that hides something. Raises as :func:`ApplyArtifact`."""
    _apply(view_builder, record, (TOMBSTONE,))


def _apply(view_builder: Fold, record: Record, kinds: Collection[int]) -> None:
    if record.kind not in kinds:
        rule = f"it is of kind {record.kind:#04x}, not {' or '.join(f'{kind:#04x}' for kind in kinds)}"
        raise OperatorError(f"record {record.seq}", rule, "use Fold.add, which takes every kind")
    view_builder.add(record.header, record.body)
