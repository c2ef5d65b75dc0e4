"""Proof that checkpoints are those that were made: a chain over them, and two runs compared.

A chain in one object shows what was changed by accident or by somebody who does not know where it is kept. Against who
can rewrite all of it, keep :meth:`CheckpointAuditChain.head` elsewhere; the store signs such heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from tidewarp.codec import Digest
from tidewarp.errors import CheckpointRefused, RangeError
from tidewarp.kernel.node_checkpoints import Checkpoint, check_checkpoint
from tidewarp.kernel.values import int_bytes

__all__ = ["AuditEntry", "CheckpointAuditChain", "FirstDifference", "ReplayVerifier"]

_ROOT = "0" * 64


class AuditEntry(NamedTuple):
    """One link: a checkpoint's id and checksum, and the hash (64 digits) over index, both, and the link before."""

    checkpoint_id: int
    checksum: str
    hash: str


class CheckpointAuditChain:
    """An append-only hash chain over checkpoints; ``chain`` is its entries, oldest first."""

    def __init__(self) -> None:
        self.chain: list[AuditEntry] = []
        self._length = 0
        self._last = _ROOT

    @property
    def length(self) -> int:
        """How many entries ``chain`` holds."""
        return len(self.chain)

    def head(self) -> tuple[int, str]:
        """(length, hash of the last entry) of what was appended: keep it where the chain is not."""
        return self._length, self._last

    def append(self, checkpoint: Checkpoint) -> str:
        """Add a checkpoint; returns the hash of its entry (64 digits).

        Raises:
            RangeError: no checkpoint. CheckpointRefused: it has no checksum, or was altered after it was computed.
        """
        check_checkpoint(checkpoint)
        if not checkpoint.verify():
            rule = "it was altered after its checksum was computed" if checkpoint.checksum else "it has no checksum"
            raise CheckpointRefused(
                f"checkpoint {checkpoint.checkpoint_id}", rule, "call compute_checksum() when it is made"
            )
        entry = _entry(self._length, checkpoint.checkpoint_id, checkpoint.checksum, self._last)
        self.chain.append(entry)
        self._length += 1
        self._last = entry.hash
        return entry.hash

    def verify(self, *, checkpoints: Iterable[Checkpoint] | None = None, head: tuple[int, str] | None = None) -> bool:
        """True if the entries follow from one another and end in ``head`` (default: what this object appended).

        With ``checkpoints``, all of them in order, their contents are hashed anew and compared too. False for a
        chain that was cut, reordered or rewritten, and for a checkpoint that was altered, left out or renamed.

        Raises:
            RangeError: one of ``checkpoints`` is none, or ``head`` is not what :meth:`head` returns.
        """
        _check_head(head)
        checkpoints = None if checkpoints is None else list(checkpoints)
        for checkpoint in checkpoints or ():
            check_checkpoint(checkpoint)
        last = _ROOT
        for index, entry in enumerate(self.chain):
            if entry != _entry(index, entry[0], entry[1], last):
                return False
            last = entry[2]
        if (len(self.chain), last) != (self.head() if head is None else tuple(head)):
            return False
        if checkpoints is None:
            return True
        found = [(c.checkpoint_id, c.checksum if c.verify() else "") for c in checkpoints]
        return found == [(entry[0], entry[1]) for entry in self.chain]


def _check_head(head: object) -> None:
    if head is not None and not (isinstance(head, (tuple, list)) and len(head) == 2):
        raise RangeError(f"head {head!r:.80}", "it is (length, hash)", "give what head() returned")


def _entry(index: int, checkpoint_id: int, checksum: str, previous: str) -> AuditEntry:
    digest = Digest("TWAUDIT1")
    digest.add(index.to_bytes(8, "big"))
    digest.add(int_bytes(checkpoint_id))
    digest.add(checksum.encode())
    digest.add(previous.encode())
    return AuditEntry(checkpoint_id, checksum, digest.hexdigest())


class FirstDifference(NamedTuple):
    """Where two runs part: the checkpoint of run a (of b, where a has ended) and the names of the fields that differ."""

    place: int
    checkpoint_id: int
    node_id: int
    virtual_time_ns: int
    fields: tuple[str, ...]


class ReplayVerifier:
    """Compares the checkpoints of two runs, as recorded in order, by their contents and not by what they say of themselves."""

    def __init__(self) -> None:
        self._runs: tuple[list[Checkpoint], list[Checkpoint]] = ([], [])

    @property
    def compared_count(self) -> int:
        """Pairs of checkpoints that there are."""
        return min(map(len, self._runs))

    @property
    def is_deterministic(self) -> bool:
        """Both runs recorded something, equally many, and all pairs are equal."""
        return bool(self._runs[0] and self._runs[1]) and self.first_divergence_index is None

    @property
    def first_divergence_index(self) -> int | None:
        """The place of the first pair that differs; where one run is longer and begins like the other, the length of the other."""
        for index, (a, b) in enumerate(zip(*self._runs, strict=False)):
            if a != b:
                return index
        return None if len(self._runs[0]) == len(self._runs[1]) else self.compared_count

    def record_run_a(self, checkpoint: Checkpoint) -> None:
        """Add the next checkpoint of the first run.

        Raises:
            RangeError: no checkpoint.
        """
        self._record(0, checkpoint)

    def record_run_b(self, checkpoint: Checkpoint) -> None:
        """Add the next checkpoint of the second run.

        Raises:
            RangeError: no checkpoint.
        """
        self._record(1, checkpoint)

    def _record(self, run: int, checkpoint: Checkpoint) -> None:
        check_checkpoint(checkpoint)
        self._runs[run].append(replace(checkpoint))

    def first_divergence(self) -> FirstDifference | None:
        """The first difference with what differs; ``("missing",)`` where one run has ended; None if there is none."""
        index = self.first_divergence_index
        if index is None:
            return None
        a, b = (run[index] if index < len(run) else None for run in self._runs)
        shown = a or b
        assert shown is not None
        differing = ("missing",) if a is None or b is None else a.differing_fields(b)
        return FirstDifference(index, shown.checkpoint_id, shown.node_id, shown.virtual_time_ns, differing)
