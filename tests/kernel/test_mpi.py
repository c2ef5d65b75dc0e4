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

from tidewarp.errors import RankLost
from tidewarp.kernel import Engine, run
from tidewarp.kernel.checkpoints import digest_of
from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
from tidewarp.kernel.shell.launch import RANKS_ENVIRONMENT, launch, mpiexec_path
from tidewarp.seeds import Stream
from tidewarp.units import seconds
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


@pytest.mark.parametrize(("tier", "seed", "case"), [("python", 7, 15), ("compiled", 9, 28)])
def test_full_outputs_do_not_make_an_input_late(
    tier: str, seed: int, case: int, require: Callable[[str], None], tmp_path: Path
) -> None:
    """GVT that stands at a watermark has nothing final at its tick: the input that is waited for may come."""
    if tier == "compiled":
        require("numba")
    for answer in answers(2, tmp_path, "parity", seed, case, 1, tier, 0):
        assert (answer["differing"], answer["ran"]) == ([], 1)


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
    """States on the way and at a barrier, counts, digest, and a checkpoint with the same bytes; it is taken up by ranks and by one engine."""
    model = office(0, 0)
    with Engine(model, tier="python") as engine:
        engine.advance(120)
        middle = [engine.state(lp) for lp in range(model.n_lps)]
        data = engine.checkpoint()
        committed = engine.ledger.committed
        engine.advance(200)
        between = [engine.state(lp) for lp in range(model.n_lps)]
        engine.advance(300)
        digest = engine.digest()
    for answer in answers(2, tmp_path, "looked_at", kernel, "python", str(tmp_path)):
        assert answer == [middle, digest_of(data), committed, between, digest, digest]
    assert (tmp_path / f"{kernel}-python").read_bytes() == data


def kill_and_resume(
    folder: Path, ranks: int, deaths: list[tuple[int, int, int]], tier: str = "python", *, tear: bool = False
) -> tuple[str, int]:
    """Kill ranks: (GVT, looks at the post after that, who). Resume until the run ends; the digest, and how often."""
    rest = sorted(deaths, reverse=True)

    def command(resume: Path | None) -> list[str]:
        wound = [*rest.pop(), signal.SIGKILL] if rest else None
        words = map(json.dumps, (str(folder), None if resume is None else str(resume), tier, wound))
        return [sys.executable, str(PROGRAM), "saving", str(folder), *words]

    def newest() -> Path | None:
        found = next(whole_checkpoints(folder, phold(**SMALL)), None)
        if tear and found is not None:
            data = found.read_bytes()
            found.write_bytes(data[: len(data) // 2])
            found = next(whole_checkpoints(folder, phold(**SMALL)), None)
        return found

    launched = launch(command, ranks, restarts=6, newest=newest, say=lambda line: None)
    return launched.answer["answer"][0], launched.restarts


def test_a_run_whose_ranks_were_killed_is_resumed_with_the_same_digest(tmp_path: Path) -> None:
    """SIGKILL of rank 1, of rank 0, of both: from the newest checkpoint on, the run ends as if nobody had died."""
    random = Stream(11, "test.deaths")
    deaths = [(END * place // 4 + random.below(END // 8), random.below(10), 2 - place) for place in (1, 2, 3)]
    assert kill_and_resume(tmp_path, 2, deaths) == (run(phold(**SMALL), END, tier="python").digest, 3)


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """The newest file ends in its middle: the run goes on from the one before."""
    digest, restarts = kill_and_resume(tmp_path, 2, [(seconds(4.5), 0, 1)], tear=True)
    assert (digest, restarts) == (run(phold(**SMALL), END, tier="python").digest, 1)


@pytest.mark.nightly
@pytest.mark.parametrize("point", range(20))
def test_a_rank_killed_anywhere_is_survived(point: int, require: Callable[[str], None], tmp_path: Path) -> None:
    """The same at 20 points, on two and on three ranks, in both tiers."""
    random = Stream(point, "test.deaths")
    tier = ("python", "compiled")[random.below(2)]
    if tier == "compiled":
        require("numba")
    ranks = 2 + random.below(2)
    digest, _ = kill_and_resume(tmp_path, ranks, [(random.below(END), random.below(200), random.below(ranks))], tier)
    assert digest == run(phold(**SMALL), END, tier="python").digest


def test_without_a_launcher_a_death_ends_the_other_ranks(tmp_path: Path) -> None:
    """mpiexec ends them, and says so with its exit code."""
    wound = [seconds(2), 3, 1, signal.SIGKILL]
    code, _ = start(2, tmp_path, "saving", str(tmp_path), None, "python", wound)
    assert code != 0
    assert not list(tmp_path.glob("rank-*.json"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks into /proc")
@pytest.mark.parametrize("tier", ["python", pytest.param("compiled", marks=pytest.mark.nightly)])
def test_a_rank_that_stands_still_for_a_while_changes_nothing(
    tier: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    """SIGSTOP, and SIGCONT when the other has long had to wait."""
    if tier == "compiled":
        require("numba")
    expected = run(phold(**SMALL), END, tier="python").digest
    assert answers(2, tmp_path, "stopped", tier, seconds(2)) == [[expected, 500]] * 2


@pytest.mark.parametrize(
    ("tier", "window"),
    [
        ("python", 20),
        ("compiled", 20),
        pytest.param("python", "auto", marks=pytest.mark.nightly),
        pytest.param("compiled", "auto", marks=pytest.mark.nightly),
    ],
)
def test_ranks_that_thrash_are_calmed(tier: str, window: Any, require: Callable[[str], None], tmp_path: Path) -> None:
    """Zero delays and slow letters: without the breaker of all ranks a wide window undoes 50 events for each that stays.

    With it 6 to 13 are, as the machine lets the ranks take turns.
    """
    if tier == "compiled":
        require("numba")
    for same, committed, executed, breaks in answers(2, tmp_path, "thrashing", tier, window, 20):
        assert same
        assert breaks > 0
        assert executed < 40 * committed


@pytest.mark.parametrize("tier", [pytest.param("python", marks=pytest.mark.nightly), "compiled"])
def test_a_handler_that_does_not_end_ends_all_ranks(
    tier: str, require: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The launcher names the rank and the process of the model, and does not try again what would hang again."""
    if tier == "compiled":
        require("numba")
    starts = []

    def command(resume: Path | None) -> list[str]:
        starts.append(resume)
        return [sys.executable, str(PROGRAM), "endless", str(tmp_path), json.dumps(tier)]

    with pytest.raises(RankLost, match=r"rank 1, clerk\.5 at .*handler_timeout_s is 0\.5"):
        launch(command, 2, restarts=3, newest=lambda: None, say=lambda line: None)
    assert starts == [None]


def test_each_rank_knows_who_holds_gvt(tmp_path: Path) -> None:
    """While a round has not begun elsewhere, while its own PEs have not reported, and between rounds."""
    first, second = (answer[0] for answer in answers(2, tmp_path, "held"))
    own = ["rank 0, PE 0: it holds an event", "rank 1, PE 0: it holds an event"]
    assert first == ["rank 1: round 1 of GVT, which rank 0 is in, has not begun there", own[0], own[0]]
    assert second == [
        "rank 0: round 1 of GVT, which rank 1 is in, has not begun there",
        own[1],
        "rank 0: something there is unfinished at tick 7",
    ]


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
