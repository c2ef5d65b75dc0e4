"""Going on with the ranks that are left when one dies, where MPI can do that (Open MPI's ``mpiexec --with-ft ulfm``).

Revoke, shrink and agree are those of Bland, Bouteiller, Herault, Bosilca and Dongarra, Post-failure recovery of MPI
communication capability, Int. J. High Performance Computing Applications 27(3), 2013.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

from tidewarp.errors import TidewarpError
from tidewarp.kernel.shell.mpi.world import Ranks, can_lose_ranks, is_loss, join_ranks

__all__ = ["survive"]

T = TypeVar("T")


def survive(
    attempt: Callable[[Path | None], T],
    resume: Path | None,
    newest: Callable[[], Path | None],
    say: Callable[[str], None],
) -> tuple[T, int]:
    """What ``attempt(checkpoint to resume from)`` gives on all ranks, and how often it was made again because a rank died.

    Every rank calls it. ``newest`` gives the newest whole checkpoint and ``say`` takes a line for people; rank 0 calls
    both. An attempt is made again only from a newer checkpoint than the one it began with, so that a rank that dies of what it
    computes does not take one after the other with it: otherwise all ranks are ended, and whoever launched them may restart.

    Raises:
        TidewarpError: what the attempt raised on all ranks.
        KeyboardInterrupt: somebody interrupted.
    """
    if not can_lose_ranks():
        return attempt(resume), 0
    ranks = join_ranks()
    for recovered in count():
        came_through = True
        try:
            if recovered:
                resume = _regroup(ranks, resume, newest, say)
            result = attempt(resume)
        except (TidewarpError, KeyboardInterrupt):
            if ranks.agree(True):
                raise
            continue
        except Exception as caught:
            if not is_loss(caught):
                raise
            ranks.comm.Revoke()  # those that wait for others hear of it
            came_through = False
        if ranks.agree(came_through):
            break
    return result, recovered


def _regroup(ranks: Ranks, resume: Path | None, newest: Callable[[], Path | None], say: Callable[[str], None]) -> Path:
    """Leave the dead out; the checkpoint that those left go on from."""
    atexit.unregister(_leave)
    atexit.register(_leave)
    ranks.shrink()
    name = ranks.first(lambda: os.fsencode(newest() or "")).decode(sys.getfilesystemencoding(), "surrogateescape")
    if not name or Path(name) == resume:
        ranks.comm.Abort(1)
    if ranks.rank == 0:
        say(f"rank died: {ranks.size} ranks go on from {name}")
    return Path(name)


def _leave() -> None:
    """End this process without MPI's own end, which may wait for the dead for ever. All that it has to say is said."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
