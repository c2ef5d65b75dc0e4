"""A program for ``mpiexec``: what it is told to run, on every rank; one JSON line from each. Run by test_mpi*.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidewarp.errors import TidewarpError
from tidewarp.kernel import Engine, run
from tidewarp.kernel.shell.mpi.world import join_ranks
from tidewarp.units import seconds
from tidewarp.worlds.hurt import Played, play, random_case
from tidewarp.worlds.phold import phold

SMALL = {"lps": 24, "population": 4, "remote": 0.5}


def parity(seed: int, first: int, count: int, tier: str) -> dict[str, Any]:
    """Random cases on these ranks beside rank 0's own sequential run of them."""
    ranks = join_ranks()
    differing, ran, rolled_back, committed, remote = [], 0, 0, 0, 0
    for index in range(first, first + count):
        case = random_case(seed, index)
        workers = min(case.options["workers"], case.model.n_lps // ranks.size)
        if not workers:
            continue
        options = {**case.options, "workers": workers, "memory_max_bytes": None, "tier": tier, "transport": "mpi"}
        got = played(case, options)
        expected = played(case, {"kernel": "sequential", "tier": "python"}) if ranks.rank == 0 else got
        ran += 1
        if isinstance(got, Played):
            rolled_back += got.stats.rolled_back
            committed += got.committed
            remote += got.stats.remote_sent
        if told(got, ranks.rank) != told(expected, ranks.rank):
            differing.append([index, str(told(got, 0))[:300], str(told(expected, 0))[:300]])
    return {
        "differing": differing,
        "ran": ran,
        "rolled_back": rolled_back,
        "committed": committed,
        "remote_sent": remote,
    }


def played(case: Any, options: dict[str, Any]) -> Played | str:
    """What a case came to, or the error that it ended with."""
    try:
        return play(case, **options)
    except TidewarpError as error:
        return f"{type(error).__name__}: {error}"


def told(outcome: Played | str, rank: int) -> Any:
    """What has to be equal; outputs and the trace are on rank 0."""
    if isinstance(outcome, str):
        return outcome
    own = (outcome.trace_digests, outcome.outputs) if rank == 0 else ()
    return (outcome.digest, outcome.committed, outcome.accumulators, own)


PROGRAMS: dict[str, Callable[..., Any]] = {"parity": parity}


def main() -> int:
    """Run a program with JSON arguments; its answer, or its error, as a line."""
    name, *arguments = sys.argv[1:]
    try:
        answer, code = PROGRAMS[name](*map(json.loads, arguments)), 0
    except TidewarpError as error:
        answer, code = {"error": type(error).__name__, "text": str(error)}, error.exit_code
    sys.stdout.write(json.dumps({"rank": join_ranks().rank, "answer": answer}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
