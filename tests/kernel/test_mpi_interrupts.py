"""Ranks that somebody interrupts or leaves alone: they stop together, with a checkpoint and one answer, and none is left over."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewarp.kernel import run
from tidewarp.kernel.shell.checkpoint_files import tick_of
from tidewarp.kernel.shell.launch import RANKS_ENVIRONMENT, mpiexec_path
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

WORDS = [
    "bench",
    "phold",
    "--tier",
    "python",
    "--kernel",
    "optimistic",
    "--lps",
    "8",
    "--events-per-lp",
    "4",
    "--digest",
    "events",
]
ENDLESS = [*WORDS, "--end", "100000000", "--json"]

SITE = """
import os, sys

class Telling:
    def find_spec(self, name, path=None, target=None):
        if name == "tidewarp.kernel.shell.mpi.kernel":
            sys.meta_path.remove(self)
            import tidewarp.kernel.shell.runs as runs

            hear, heard = runs._Saving._hear, []

            def telling(saving):
                heard.append(1)
                if len(heard) == 8:  # well within the run
                    with open(os.environ["TELL_TO"], "w") as pipe:
                        pipe.write(f"{os.getpid()}\\n")
                return hear(saving)

            runs._Saving._hear = telling
        return None

sys.meta_path.insert(0, Telling())
"""
"""A ``sitecustomize`` that lets every rank write its pid to a named pipe once it is well within its run."""


@pytest.fixture
def ranks(require: Callable[[str], None], tmp_path: Path) -> Iterator[Callable[..., tuple[Any, list[int]]]]:
    """Start a command and wait for two ranks that run: the child and their pids."""
    require("mpi")
    site, pipe = tmp_path / "site", tmp_path / "told"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    os.mkfifo(pipe)
    children: list[subprocess.Popen[str]] = []
    env = {**os.environ, **RANKS_ENVIRONMENT, "PYTHONPATH": str(site), "TELL_TO": str(pipe)}

    def start(*command: str) -> tuple[subprocess.Popen[str], list[int]]:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        children.append(child)
        with open(os.open(pipe, os.O_RDWR), buffering=1) as lines:  # never at its end, whoever has closed it
            pids = [int(lines.readline()) for _ in range(2)]
        return child, pids

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=60)


def launched(*words: str) -> list[str]:
    return [sys.executable, "-m", "tidewarp", *ENDLESS, "--launch", "2", *words]


def wait_for_end(pid: int) -> None:
    """Return when no process has this pid any more, or fail after a minute."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60)[0], f"process {pid} goes on"
    finally:
        os.close(handle)


def check_resumes(told: dict[str, Any]) -> None:
    """Going on from the checkpoint gives the digest of a run that nobody disturbed."""
    assert (told["interrupted"], told["exit"]) == (True, 130)
    at = tick_of(Path(told["checkpoint"]))
    assert 0 < at == round(told["virtual_time_s"] * 1e9)
    end = at + seconds(5)
    resumed = run(phold(lps=8, population=4), end, tier="python", resume=told["checkpoint"])
    assert 0 < told["committed"] == resumed.resumed
    assert resumed.digest == run(phold(lps=8, population=4), end, tier="python").digest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launch_leaves_a_checkpoint(number: int, ranks: Callable[..., Any], tmp_path: Path) -> None:
    """Exit 130 with one object; the ranks are gone."""
    child, pids = ranks(*launched("--checkpoint", str(tmp_path / "c"), "--checkpoint-every", "100000000"))
    child.send_signal(number)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (130, "")
    for pid in pids:
        wait_for_end(pid)
    told = json.loads(out)
    assert told["ranks"] == 2
    check_resumes(told)


def test_a_killed_launch_leaves_no_rank(ranks: Callable[..., Any]) -> None:
    """The pipe from it ends, and with that rank 0, and with that all."""
    child, pids = ranks(*launched())
    child.kill()
    for pid in pids:
        wait_for_end(pid)


@pytest.mark.parametrize("to_all", [False, True])
def test_interrupted_ranks_stop_together(
    to_all: bool, ranks: Callable[..., Any], require: Callable[[str], None], tmp_path: Path
) -> None:
    """Without a launcher of ours: mpiexec alone hears of it, or as in a terminal everybody, and each rank twice.

    Open MPI's mpiexec kills its ranks at once.
    """
    require("mpich")
    command = [sys.executable, "-m", "tidewarp", *ENDLESS, "--transport", "mpi", "--checkpoint", str(tmp_path / "c")]
    child, pids = ranks(str(mpiexec_path()), "-n", "2", *command)
    if to_all:
        for pid in pids:
            os.kill(pid, signal.SIGINT)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "Traceback" not in err
    objects = [line for line in out.splitlines() if line.startswith("{")]  # MPICH says something too
    assert len(objects) == 1
    check_resumes(json.loads(objects[0]))


def test_one_rank_that_hears_it_stops_all(ranks: Callable[..., Any]) -> None:
    """The flag travels: here the rank that does not answer gets the signal, and no folder is there to save to."""
    command = [sys.executable, "-m", "tidewarp", *ENDLESS, "--transport", "mpi"]
    child, pids = ranks(str(mpiexec_path()), "-n", "2", *command)
    os.kill(max(pids), signal.SIGTERM)
    out, err = child.communicate(timeout=120)
    told = json.loads(out)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert "error: " not in err  # Open MPI's mpiexec says what the exit code was
    assert told["committed"] > 0 < told["virtual_time_s"]
    assert told["checkpoint"] is None


def test_files_of_the_current_folder_are_no_modules_of_ranks(require: Callable[[str], None], tmp_path: Path) -> None:
    """A random.py of the user beside the command does not reach the ranks."""
    require("mpi")
    for name in ("random.py", "types.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tidewarp", *WORDS, "--end", "2", "--launch", "2", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ranks"] == 2
