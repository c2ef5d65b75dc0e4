"""``tidewarp bench phold`` on ranks: --launch, --checkpoint, --resume, and what is said when a rank dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from on_ranks import SMALL

from tidewarp.cli import main
from tidewarp.errors import RankLost
from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
from tidewarp.kernel.shell.launch import launch
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

PROGRAM = Path(__file__).with_name("on_ranks.py")
WORDS = ["bench", "phold", "--tier", "python", "--lps", "32", "--events-per-lp", "4", "--end", "6.5"]


def tidewarp(*words: str) -> tuple[int, dict[str, Any], str]:
    """Run the command with --json: exit code, answer, error output."""
    done = subprocess.run(
        [sys.executable, "-m", "tidewarp", *WORDS, *words, "--json"], capture_output=True, text=True, timeout=120
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_launched_ranks_leave_checkpoints_that_other_ranks_take_up(
    require: Callable[[str], None], tmp_path: Path
) -> None:
    """One digest: alone, on two ranks, and from their checkpoint on three ranks and alone."""
    require("mpi")
    _, alone, _ = tidewarp()
    folder = str(tmp_path)
    code, two, said = tidewarp(
        "--kernel", "optimistic", "--launch", "2", "--checkpoint", folder, "--checkpoint-every", "2s"
    )
    assert (code, two["digest"], two["checkpoints"], two["ranks"]) == (0, alone["digest"], 3, 2), said
    assert two["transport"] == "mpi"
    assert two["remote_sent"] > 0
    code, three, said = tidewarp("--kernel", "conservative", "--launch", "3", "--resume", folder)
    assert (code, three["digest"], three["committed"]) == (0, alone["digest"], alone["committed"]), said
    code, again, said = tidewarp("--resume", folder)
    assert (code, again["digest"]) == (0, alone["digest"]), said


def test_an_error_of_all_ranks_is_said_once(require: Callable[[str], None]) -> None:
    """The line of rank 0, with its exit code."""
    require("mpi")
    code, answer, said = tidewarp("--kernel", "conservative", "--lookahead", "0", "--launch", "2")
    assert (code, answer["exit"]) == (2, 2)
    assert said.count("error: ") == 1
    assert "wait for each other" in said


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--checkpoint-every", "1"], "--checkpoint DIR"),
        (["--restarts", "1"], "--launch N"),
        (["--restarts", "1", "--launch", "2"], "--checkpoint DIR"),
        (["--repeat", "2", "--checkpoint", "x"], "leave --repeat out"),
        (["--resume", "nowhere"], "no such file"),
        (["--checkpoint", ""], "--checkpoint '': it is a path"),
        (["--resume", ""], "--resume '': it is a path"),
    ],
)
def test_options_that_contradict_each_other_are_bad_input(
    words: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is run."""
    assert main([*WORDS, *words]) == 2
    assert rule in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["stress", "--minutes"], ["kernel", "--seconds"], ["control", "--seconds"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("given", ["nan", "inf", "-1", "soon"])
def test_times_of_the_wall_are_finite(words: list[str], given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else would run for ever, or not at all."""
    assert main(["bench", *words, given]) == 2
    assert f"time '{given}': it is a finite number from 0 on" in capsys.readouterr().err


def test_a_process_of_mpiexec_without_the_transport_says_that_it_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the error output, with what to add; one process alone has nothing to say."""
    for size, lines in (("1", 0), ("2", 1)):
        monkeypatch.setenv("PMI_SIZE", size)
        assert main(WORDS) == 0
        assert capsys.readouterr().err.count("add --transport mpi") == lines


def test_a_death_without_a_restart_names_what_to_resume(require: Callable[[str], None], tmp_path: Path) -> None:
    """mpiexec's exit code, the time of the newest checkpoint, and the option that goes on from there."""
    require("mpi")

    def command(resume: Path | None) -> list[str]:
        words = map(json.dumps, (str(tmp_path), None, "python", [seconds(3.5), 0, 1, signal.SIGKILL]))
        return [sys.executable, str(PROGRAM), "saving", str(tmp_path), *words]

    with pytest.raises(RankLost, match=rf"rank died \(mpiexec exit \d+\).*t=3 s; resume with --resume {tmp_path}"):
        launch(
            command,
            2,
            restarts=0,
            newest=lambda: next(whole_checkpoints(tmp_path, phold(**SMALL)), None),
            say=lambda line: None,
        )
