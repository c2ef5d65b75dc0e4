"""A run on a branch of a journal: what might be concerns nobody outside.

The model is wired as always. But none of its sinks is opened, so no output of a future that is tried leaves the process
(:func:`~tidewarp.twin.replay` makes them again for who wants to see them). A live source would compete with the real run
for messages, and bring the present into another future: it has no more. A recorded source goes on where the prefix ends:
its data is the same in each future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tidewarp.connect.contract import Decoder, Raw, Source
from tidewarp.connect.outbox import Outbox
from tidewarp.errors import OperatorError
from tidewarp.store import BranchJournal, Journal
from tidewarp.twin.options import is_live

if TYPE_CHECKING:
    from tidewarp.twin.session import Twin

__all__ = ["branch_of", "keep_inside"]


class _Ended(Source):
    """Stands for a live source, and has no more."""

    kind, clock = "ended", "wall"

    def __init__(self, name: str) -> None:
        self.name = name

    def decoder(self, epoch_ns: int) -> Decoder | None:
        """Nothing comes, so there is none."""
        return None

    async def open(self, positions: Mapping[int, int]) -> None:
        """Nothing."""

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """The end."""
        return None


def branch_of(journal: Journal) -> BranchJournal:
    """``journal``, which is a branch. Raises OperatorError: it is another one."""
    if not isinstance(journal, BranchJournal):
        rule = "a twin opens its journal by the name of its file, or runs on a branch of one"
        raise OperatorError(f"journal={journal!r:.80}", rule, "give the path, or journal.branch(NAME)")
    return journal


def keep_inside(twin: Twin) -> None:
    """Let a wired twin, which has not been attached to anything, run on a branch."""
    twin._outbox, twin._sinks, twin._live_times = Outbox(), {}, []
    for name, source in twin._sources.items():
        if is_live(source):
            twin._sources[name] = _Ended(name)
    twin._decoders = {name: one for name, one in twin._decoders.items() if not isinstance(twin._sources[name], _Ended)}
