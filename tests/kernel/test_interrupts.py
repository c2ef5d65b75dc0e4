"""Ctrl-C: a run with checkpoints leaves one more and can go on from it; without, it says how far it has come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tidewarp.kernel import Engine, Interrupted, LogicalProcess, Model, i64, run
from tidewarp.kernel.shell import interrupts, runs
from tidewarp.kernel.shell.checkpoint_files import load_checkpoint, tick_of, whole_checkpoints
from tidewarp.observe import SilentProbe
from tidewarp.testing import ManualClock
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

WORDS = ["bench", "phold", "--lps", "8", "--events-per-lp", "4", "--digest", "events"]
KERNELS = ["--kernel sequential", "--kernel conservative --workers 2", "--kernel optimistic --workers 2"]

COMMAND = """
import sys
from tidewarp.__main__ import main
from tidewarp.kernel.shell.engine import Engine

advance = Engine.advance

def telling(self, until):
    status = advance(self, until)
    print("advanced", self.gvt, file=sys.stderr, flush=True)
    return status

Engine.advance = telling
sys.exit(main())
"""
"""The command, which says after each stretch how far it has come."""


def interrupted(
    words: Sequence[str], number: signal.Signals = signal.SIGINT, after: int = 0
) -> tuple[int, dict[str, Any]]:
    """Run the command with --json until it has come to tick ``after``, then send the signal: exit code, answer."""
    program = [sys.executable, "-c", COMMAND, *words, "--json"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("advanced") and int(line.split()[1]) > after:
                break
        child.send_signal(number)
        out, err = child.communicate(timeout=120)
    assert "Traceback" not in err, err
    return child.returncode, json.loads(out)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_interrupted_run_goes_on_from_its_checkpoint(kernel: str, tmp_path: Path) -> None:
    """Exit 130 with a newer checkpoint than the schedule's; resumed, the digest of the run that nobody disturbed."""
    model, folder = phold(lps=8, population=4), tmp_path / "checkpoints"
    words = [*WORDS, *kernel.split(), "--tier", "python", "--checkpoint", str(folder), "--checkpoint-every", "1000000"]
    code, told = interrupted([*words, "--end", "1000000"], after=seconds(3))
    assert (code, told["exit"], told["interrupted"]) == (130, 130, True)
    newest = next(whole_checkpoints(folder, model))
    assert told["checkpoint"] == str(newest)
    at = tick_of(newest)
    assert at % seconds(1) == 0
    assert seconds(3) <= at == round(told["virtual_time_s"] * 1e9)
    assert load_checkpoint(folder, model) == newest.read_bytes()
    end = at + seconds(10)
    resumed = run(model, end, tier="python", resume=folder)
    assert 0 < told["committed"] == resumed.resumed < resumed.committed
    assert resumed.digest == run(phold(lps=8, population=4), end, tier="python").digest


def test_sigterm_leaves_a_checkpoint_too(tmp_path: Path) -> None:
    """What a batch system sends before it kills."""
    words = [*WORDS, "--tier", "python", "--checkpoint", str(tmp_path), "--end", "1000000"]
    code, told = interrupted(words, signal.SIGTERM)
    assert code == 130
    assert Path(told["checkpoint"]).parent == tmp_path
    assert Path(told["checkpoint"]).exists()


@pytest.mark.parametrize("kernel", [KERNELS[0], KERNELS[2]])
def test_sigterm_without_checkpoints_is_answered_too(kernel: str) -> None:
    """Exit 130 with the one object, and how far GVT has come within the only stretch of the run."""
    program = (
        "import sys; from tidewarp.__main__ import main; from tidewarp.kernel.trace import Ledger"
        """
commit, heard = Ledger.commit, []

def telling(self, events):
    commit(self, events)
    if not heard and self.committed > 1000:
        heard.append(1)
        print("committed", file=sys.stderr, flush=True)

Ledger.commit = telling
sys.exit(main())
"""
    )
    words = [*WORDS, *kernel.split(), "--tier", "python", "--end", "100000000", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "committed\n"
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (130, "")
    told = json.loads(out)
    assert (told["interrupted"], told["exit"], told["checkpoint"]) == (True, 130, None)
    assert told["committed"] > 0
    assert 0.0 < told["virtual_time_s"] < 100000000


def test_sigterm_is_an_interrupt_only_while_a_benchmark_runs() -> None:
    """The handler of before stands again, and one of the program's own stays."""
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.sigterm_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with interrupts.sigterm_interrupts():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("tier", ["python", pytest.param("compiled", marks=pytest.mark.nightly)])
def test_without_checkpoints_a_summary_is_all(tier: str, require: Callable[[str], None]) -> None:
    """Exit 130, how far it has come, and that there is nothing to go on from; the first thing that is told is its opening."""
    if tier == "compiled":
        require("numba")
    program = COMMAND.replace(
        "status = advance", 'print("advanced 1", file=sys.stderr, flush=True)\n    status = advance'
    )
    words = [*WORDS, "--tier", tier, "--end", "100000000"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "advanced 1\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (130, "")
    assert out.startswith("interrupted at ")
    assert out.endswith(" s; no checkpoint\n")
    assert out.count("\n") == 1


class Interrupts(SilentProbe):
    """Sends SIGINT to this process at the n-th stretch, and again at each one after that if ``more``."""

    def __init__(self, at: int, more: bool = False) -> None:
        self.left, self.more = at, more

    def progress(self, done: float, total: float | None) -> None:
        """One stretch more."""
        self.left -= 1
        if self.left == 0 or (self.more and self.left < 0):
            signal.raise_signal(signal.SIGINT)


def play(folder: Path, end: int = seconds(50), **how: Any) -> Any:
    return run(phold(lps=4), end, tier="python", checkpoint=folder, checkpoint_every=seconds(1000), **how)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_wherever_it_comes_the_run_goes_on(at: int, tmp_path: Path) -> None:
    """The handler of before stands again, and outputs and counts are those of the whole run."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        Interrupted, match=r"interrupted at tick \d+ with \d+ events committed .*; resume with "
    ) as caught:
        play(tmp_path, probe=Interrupts(at))
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.checkpoint == next(whole_checkpoints(tmp_path, phold(lps=4)))
    result = play(tmp_path, resume=tmp_path)
    whole = run(phold(lps=4), seconds(50), tier="python")
    assert (result.digest, result.committed) == (whole.digest, whole.committed)
    assert result.resumed == caught.value.committed


def test_the_second_signal_does_not_wait(tmp_path: Path) -> None:
    """No checkpoint then, but the one before would be named."""
    with pytest.raises(Interrupted, match="no checkpoint") as caught:
        play(tmp_path, probe=Interrupts(1, more=True))
    assert caught.value.checkpoint is None


def test_in_its_last_interval_a_run_has_nothing_to_save(tmp_path: Path) -> None:
    """A checkpoint beyond the end could not be resumed to it."""
    with pytest.raises(Interrupted, match="no checkpoint"):
        play(tmp_path, end=seconds(0.9), probe=Interrupts(1))


def test_an_interrupt_at_the_end_is_too_late(tmp_path: Path) -> None:
    """All is done: the result is the answer."""

    class AtTheEnd(SilentProbe):
        def progress(self, done: float, total: float | None) -> None:
            if done == whole.committed and not heard:
                heard.append(done)
                signal.raise_signal(signal.SIGINT)

    heard: list[float] = []
    whole = run(phold(lps=4), seconds(5), tier="python")
    assert play(tmp_path, end=seconds(5), probe=AtTheEnd()).digest == whole.digest
    assert heard == [whole.committed]


class Idle(LogicalProcess):
    n: i64


def test_many_checkpoints_do_not_make_the_run_deaf(tmp_path: Path) -> None:
    """A stretch that ends at a checkpoint does not say how long the next one may be."""
    model = Model("idle", trace_interval=1)
    model.add(Idle, 1, path="idle")
    with Engine(model, tier="python") as engine, interrupts.Interrupts(held=True) as held:
        saving = runs._Saving(engine, tmp_path, None, 1, ManualClock(), held)
        saving.advance(300)
        assert saving.count == 300
        assert saving._stride == runs._STRIDE_FIRST


def test_signals_of_others_are_left_alone(tmp_path: Path) -> None:
    """A handler of the program's own stays; another thread cannot have one."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        assert play(tmp_path, end=seconds(5), probe=Interrupts(1)).committed > 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(play(tmp_path / "t", end=seconds(5))))
    thread.start()
    thread.join()
    assert results[0].committed > 0
