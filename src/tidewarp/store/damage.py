"""What a check of a whole store says (:mod:`.fsck`), and who is asked for bytes that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, NamedTuple, Protocol

from tidewarp.codec.references import Reference

__all__ = ["MISSING_BYTES", "ByteSource", "FsckReport", "Problem"]

MISSING_BYTES = "missing bytes"
"""The kind of problem that an artifact has whose published record is here, and whose bytes have never come."""


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
    """What was read, counted by kind, and what was found, the first 10,000. ``clean``: no problem is left."""

    clean: bool
    checked: Mapping[str, int]
    problems: tuple[Problem, ...]
    seconds: float
