"""How the package tells what it is doing, without knowing who listens.

Two hooks, both silent by default and both free of influence on what is computed:

* a :class:`Probe` takes numbers (counts, progress) at a rate that suits people;
* a *stage* is a named step on the way of an input (``journal.commit``, ``apply`` …). Production code
  calls :func:`stage` at each; only tests listen. A listener may kill the process there, which is
  how recovery is tested at every step and not only at lucky moments (FoundationDB calls it Buggify).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["BLOCK_STAGES", "SILENT", "STAGES", "Probe", "SilentProbe", "on_stage", "stage"]


class Probe(Protocol):
    """Receives numbers. Implementations must not raise, block or change what they are told about."""

    def add(self, name: str, n: int = 1) -> None:
        """Count ``n`` more of ``name``."""

    def progress(self, done: float, total: float | None) -> None:
        """``done`` of ``total`` units of the work in hand; total None where the end is unknown."""


class SilentProbe:
    """The default: nobody listens."""

    def add(self, name: str, n: int = 1) -> None:
        """Ignore."""

    def progress(self, done: float, total: float | None) -> None:
        """Ignore."""


SILENT: Probe = SilentProbe()

STAGES = (
    "recover",  # the journal is being read back
    "journal.before",  # a batch is checked and ordered, nothing of it is written
    "journal.inside",  # its records are in the transaction, COMMIT has not been called
    "journal.commit",  # COMMIT is running: the fsync happens here
    "journal.after",  # durable, not yet applied
    "apply.after",  # applied, its outputs not yet handed to a sink
    "release.inside",  # a part of an output is in the sink's file
    "release.after",  # the sink holds the outputs
)
"""The steps of an input's way through a live twin, in order."""

BLOCK_STAGES = (
    "block.inside",  # a part of a large block is in its draft
    "block.named",  # all of it is, and the draft has the name of the block; the disk may know of neither
    "block.durable",  # its bytes are fsynced; the folder may not know of it yet
    "block.after",  # the folder does, durably; no artifact refers to it
)
"""The steps of a large block's way into a store, in order; ``journal.inside`` of what refers to it comes behind them."""

_listener: Callable[[str], None] | None = None


def stage(name: str) -> None:
    """Say that execution stands at ``name``, one of :data:`STAGES` or :data:`BLOCK_STAGES`."""
    if _listener is not None:
        _listener(name)


def on_stage(listener: Callable[[str], None] | None) -> None:
    """Let ``listener`` hear every stage of this process; None ends it. For tests."""
    global _listener
    _listener = listener
