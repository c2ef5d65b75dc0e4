"""What a check of a whole store says (:mod:`.fsck`), and who is asked for bytes that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, NamedTuple, Protocol

from tidewarp.codec.references import Reference

__all__ = ["MISSING_BYTES", "ORPHAN", "ByteSource", "FsckReport", "Problem"]

MISSING_BYTES = "missing bytes"
"""The kind of problem that an artifact has whose published record is here, and whose bytes have never come."""

ORPHAN = "orphan"
"""The kind of what nothing names, such as a block that a crash left: told, and no damage."""


class ByteSource(Protocol):
    """Somebody who may have bytes that are damaged here, such as a peer."""

    def fetch(self, ref: Reference, size: int) -> BinaryIO | None:
        """The ArtifactBytes of an artifact, at their beginning; None if they cannot be had. Nothing of it is believed.

        ``size``: of its payload, at most.
        """


class Problem(NamedTuple):
    """Something that is not what it should be: its kind, the place, the rule that it breaks; and whether it is so no more."""

    kind: str
    where: str
    rule: str
    repaired: bool = False


class FsckReport(NamedTuple):
    """What was read, counted by kind, and what was found, the first 10,000."""

    checked: Mapping[str, int]
    problems: tuple[Problem, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether no damage is left. What nothing names is none: a crash may leave some, and it harms nobody."""
        return all(one.repaired or one.kind == ORPHAN for one in self.problems)
