"""Ranks of an mpiexec: one digest, one error for all of them, and nobody waits for ever.

Each test starts ``on_ranks.py``; what must be equal on all ranks is compared here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from on_ranks import END, SMALL, office

from tidewarp.kernel import Engine, run
from tidewarp.kernel.checkpoints import digest_of
from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
from tidewarp.kernel.shell.launch import RANKS_ENVIRONMENT, launch, mpiexec_path
from tidewarp.seeds import Stream
from tidewarp.worlds.phold import phold

PROGRAM = Path(__file__).with_name("on_ranks.py")
TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def _mpi(require: Callable[[str], None]) -> None:
    require("mpi")


def start(ranks: int, folder: Path, name: str, *arguments: Any) -> tuple[int, str]:
    """Run a program on ranks: exit code of mpiexec and what it said. Nothing of it outlives this call."""
    words = [sys.executable, str(PROGRAM), name, str(folder), *map(json.dumps, arguments)]
    process = subprocess.Popen(
        [str(mpiexec_path()), "-n", str(ranks), *words],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **RANKS_ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.terminate()  # mpiexec ends its ranks, which are in sessions of their own
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def answers(ranks: int, folder: Path, name: str, *arguments: Any) -> list[Any]:
    """What each rank answered."""
    code, said = start(ranks, folder, name, *arguments)
    assert code == 0, said
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(("ranks", "count"), [(2, 10), (3, 4)])
def test_random_cases_have_the_digest_of_the_sequential_run(ranks: int, count: int, tmp_path: Path) -> None:
    """Zero delays, late inputs, full outputs, odd windows: events, outputs, accumulators and state as on one rank."""
    for answer in answers(ranks, tmp_path, "parity", 20 + ranks, 0, count, "python", 3):
        assert answer["differing"] == []
        assert answer["ran"] > count // 2
        assert answer["rolled_back"] > 0 < answer["remote_sent"]


@pytest.mark.nightly
@pytest.mark.parametrize("ranks", [2, 3])
def test_many_random_cases_have_the_digest_of_the_sequential_run(ranks: int, tmp_path: Path) -> None:
    """The same, more of them."""
    for first in range(0, 200, 20):
        for answer in answers(ranks, tmp_path, "parity", 7, first, 20, "python", first % 60):
            assert answer["differing"] == []


@pytest.mark.parametrize(
    ("ranks", "kernel", "workers", "digest"),
    [(2, "optimistic", 2, "state"), (3, "optimistic", 1, "events"), (2, "conservative", 1, "events")],
)
def test_phold_has_one_digest(ranks: int, kernel: str, workers: int, digest: str, tmp_path: Path) -> None:
    """PEs of several ranks, in either engine; a conservative one never rolls back."""
    expected = run(phold(**SMALL), END, tier="python", digest=digest)  # type: ignore[arg-type]
    for answer in answers(ranks, tmp_path, "phold", "python", kernel, workers, digest):
        assert answer[:2] == [expected.digest, expected.committed]
        assert kernel == "optimistic" or answer[2] == 0


def test_every_rank_raises_the_error_of_the_sequential_run(tmp_path: Path) -> None:
    """A handler that raises, a number out of range: the same text and everything before it committed, now and again."""
    first, second = answers(2, tmp_path, "failures", "python")
    assert first == second
    for at, how, kernel, got, expected in first:
        assert got[0], (at, how, kernel)
        assert got[:4] == expected[:4], (at, how, kernel)
        # A number out of range is found when a batch is committed: by then the sequential engine has gone on.
        assert how == 2 or got == expected, (at, how, kernel)
        assert got[0] == got[1]


def test_an_image_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    """Ranks that have run ahead of a watermark undo that, however late their letters arrive: the state of a run that waited."""
    for answer in answers(2, tmp_path, "waiting", 12):
        assert all(answer)
        assert len(answer) == 12


@pytest.mark.parametrize("field", ["seed", "batch"])
def test_ranks_that_differ_are_refused_on_every_rank(field: str, tmp_path: Path) -> None:
    """The error names the rank and the field."""
    for answer in answers(2, tmp_path, "different", field):
        assert answer["error"] == "RankMismatch"
        assert "rank 1 on " in answer["text"]
        assert field in answer["text"]


def test_a_memory_bound_that_is_too_low_ends_all_ranks(tmp_path: Path) -> None:
    """PoolExhausted, the same on each."""
    first, second = answers(2, tmp_path, "crowded")
    assert first is not None
    assert first == second
    assert first["error"] == "PoolExhausted"


def test_a_fault_of_one_rank_ends_all(tmp_path: Path) -> None:
    """An exception that is no error of ours: its traceback is printed, and mpiexec ends."""
    code, said = start(2, tmp_path, "broken")
    assert code != 0
    assert "ZeroDivisionError" in said


@pytest.mark.parametrize("kernel", ["optimistic", "sequential"])
def test_a_session_on_ranks_shows_what_a_session_alone_shows(kernel: str, tmp_path: Path) -> None:
    """States on the way, counts, digest, and a checkpoint with the same bytes; it is taken up by ranks and by one engine."""
    model = office(0, 0)
    with Engine(model, tier="python") as engine:
        engine.advance(120)
        middle = [engine.state(lp) for lp in range(model.n_lps)]
        data = engine.checkpoint()
        committed = engine.ledger.committed
        engine.advance(300)
        digest = engine.digest()
    for answer in answers(2, tmp_path, "looked_at", kernel, "python", str(tmp_path)):
        assert answer == [middle, digest_of(data), committed, digest, digest]
    assert (tmp_path / f"{kernel}-python").read_bytes() == data


def kill_and_resume(folder: Path, ranks: int, deaths: list[int], dying: int) -> tuple[str, int]:
    """Kill a rank when GVT comes to each of these ticks, resume until the run ends; the digest, and how often."""
    rest = sorted(deaths, reverse=True)

    def command(resume: Path | None) -> list[str]:
        at = rest.pop() if rest else -1
        words = map(json.dumps, (str(folder), None if resume is None else str(resume), at, dying))
        return [sys.executable, str(PROGRAM), "saving", str(folder), *words]

    launched = launch(
        command,
        ranks,
        restarts=4,
        newest=lambda: next(whole_checkpoints(folder, phold(**SMALL)), None),
        say=lambda line: None,
    )
    return launched.answer["answer"][0], launched.restarts


def test_a_run_whose_rank_was_killed_is_resumed_with_the_same_digest(tmp_path: Path) -> None:
    """SIGKILL of either rank, twice: from the newest checkpoint on, the run ends as if nobody had died."""
    expected = run(phold(**SMALL), END, tier="python").digest
    random = Stream(11, "test.deaths")
    for dying in (0, 1):
        folder = tmp_path / str(dying)
        folder.mkdir()
        deaths = [random.below(END // 2), END // 2 + random.below(END // 2)]
        assert kill_and_resume(folder, 2, deaths, dying) == (expected, 2)


@pytest.mark.nightly
@pytest.mark.parametrize("point", range(20))
def test_a_rank_killed_anywhere_is_survived(point: int, tmp_path: Path) -> None:
    """The same at 20 points, on two and on three ranks."""
    random = Stream(point, "test.deaths")
    ranks = 2 + random.below(2)
    digest, _ = kill_and_resume(tmp_path, ranks, [random.below(END)], random.below(ranks))
    assert digest == run(phold(**SMALL), END, tier="python").digest


@pytest.mark.parametrize(
    ("ranks", "kernel", "workers", "digest"),
    [
        (2, "optimistic", 1, "events"),
        (2, "optimistic", 2, "state"),
        pytest.param(3, "conservative", 1, "events", marks=pytest.mark.nightly),
        pytest.param(3, "optimistic", 2, "events", marks=pytest.mark.nightly),
    ],
)
def test_compiled_ranks_have_the_digest_of_the_sequential_run(
    ranks: int, kernel: str, workers: int, digest: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    """Slices and MPI in one thread, threads beside it, windows of a lookahead: one digest, traced or not."""
    require("numba")
    expected = run(phold(**SMALL), END, tier="python", digest=digest)  # type: ignore[arg-type]
    for answer in answers(ranks, tmp_path, "phold", "compiled", kernel, workers, digest):
        assert answer[:2] == [expected.digest, expected.committed]
        assert kernel == "optimistic" or answer[2] == 0


def test_compiled_ranks_fail_and_are_looked_at_like_interpreted_ones(
    require: Callable[[str], None], tmp_path: Path
) -> None:
    """The same errors after the same events; the same states on the way, checkpoint and digest."""
    require("numba")
    for _, _, _, got, expected in answers(2, tmp_path, "failures", "compiled")[1]:
        assert got[:4] == expected[:4]
    python, compiled = (
        answers(2, tmp_path, "looked_at", "optimistic", tier, str(tmp_path)) for tier in ("python", "compiled")
    )
    assert compiled == python


@pytest.mark.nightly
def test_many_random_cases_compiled(require: Callable[[str], None], tmp_path: Path) -> None:
    """Zero delays, late inputs, full outputs, little memory: as on one rank."""
    require("numba")
    for ranks in (2, 3):
        for first in range(0, 200, 20):
            for answer in answers(ranks, tmp_path, "parity", 9, first, 20, "compiled", first % 60):
                assert answer["differing"] == []
