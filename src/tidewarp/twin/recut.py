"""Are a run's cuts what it says of them? From each cut to the next the run is made again, and compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from tidewarp.observe import SILENT, Probe
from tidewarp.store import Journal, open_store
from tidewarp.twin.cuts import Cut, cuts_of
from tidewarp.twin.documents import Checkpoint
from tidewarp.twin.facts import opening_of
from tidewarp.twin.follow import Follower
from tidewarp.twin.replay import recorded_model
from tidewarp.twin.session import Build, Twin
from tidewarp.units import TICK_MAX

__all__ = ["Recut", "replay_cuts"]


@dataclass(frozen=True)
class Recut:
    """``cuts`` of a journal, and ``marks`` that were compared; ``first_difference``: {tick, mark or cut (its record), parts}."""

    cuts: int
    marks: int
    first_difference: dict[str, Any] | None


def replay_cuts(path: str | Path, build: Build | None = None, *, probe: Probe = SILENT) -> Recut:
    """Make the run again in pieces, from the beginning to the first cut, from each cut to the next, and compare.

    Each piece has to end in the very document that the next one begins with, marks in between have to agree, and the last
    has to have the recorded digest: so a replay from the beginning and one from any cut give one run. It costs a replay,
    and a reading of the journal for each cut.

    Raises:
        OperatorError: not a journal, or no model. Corrupt: the chain is broken, with the record.
    """
    with contextlib.closing(open_store(path, read_only=True)) as store:
        opened = opening_of(store.journal)
        build = recorded_model(opened.model, Path(path)) if build is None else build
        cuts = marks = 0
        for (_, begin), (seq, end) in pairwise(_ends(store.journal)):
            twin = Twin(build, seed=opened.seed, epoch_ns=opened.epoch_ns, live=False, probe=probe)
            twin._wire()
            compared, difference = _piece(store.journal, twin, begin, end, seq)
            marks += compared
            if difference is not None:
                return Recut(cuts, marks, difference)
            cuts += end is not None
        return Recut(cuts, marks, None)


def _ends(journal: Journal) -> Iterator[tuple[int, Cut | None]]:
    return chain([(0, None)], cuts_of(journal), [(0, None)])


def _piece(
    journal: Journal, twin: Twin, begin: Cut | None, end: Cut | None, seq: int
) -> tuple[int, dict[str, Any] | None]:
    """Marks compared, and the first difference."""
    run = twin._run
    run.cuts_from = 0 if begin is None else begin.tick
    if begin is not None:
        run.restore(begin)
    follower = Follower(journal, twin._gate, run, lambda _: None, until=TICK_MAX if end is None else end.tick)
    follower.follow()
    if end is None:
        follower.follow_ahead(all_of_it=False)
        follower.follow_on()
    difference = follower.first_difference
    if difference is None and end is not None:
        made = run.take_cuts()
        found = made[0].checkpoint if made else None
        if found != end.checkpoint:
            fields = Checkpoint.__struct_fields__
            parts = [name for name in fields if getattr(found, name, None) != getattr(end.checkpoint, name)]
            difference = {"tick": end.tick, "cut": seq, "parts": parts}
    return follower.compared, difference
