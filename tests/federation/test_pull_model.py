"""The way of a pull as a model that Spin searches whole: no crash, loss or repetition makes a gap, and all arrives."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.proof("a pull, every interleaving of a small model")]

MODEL = Path(__file__).with_name("pull.pml")


def searched(folder: Path, claim: str, *defines: str) -> tuple[int, int]:
    """Errors and states of a search for a violation of ``claim``; of liveness, under weak fairness."""
    options = {"prefix": ("-a",), "whole": ("-a", "-f")}[claim]
    compiling = ["gcc", "-O2", "-w", "-DMEMLIM=1024", "-DNFAIR=4", "-o", "pan", "pan.c"]
    for command in (["spin", *defines, "-a", str(MODEL)], compiling):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    run = ["./pan", "-m1000000", *options, "-N", claim]
    said = subprocess.run(run, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "max search depth too small" not in said
    assert "reached -DMEMLIM bound" not in said
    errors, states = re.search(r"errors: (\d+)", said), re.search(r"(\d+(?:\.\d+)?(?:e\+\d+)?) states, stored", said)
    assert errors is not None
    assert states is not None
    return int(errors[1]), int(float(states[1]))


@pytest.mark.parametrize("claim", ["prefix", "whole"])
def test_no_interleaving_breaks_a_pull(claim: str, tmp_path: Path, require, record_property) -> None:
    require("spin")
    errors, states = searched(tmp_path, claim)
    assert errors == 0
    assert states > 10_000
    record_property("trials", states)


@pytest.mark.parametrize("mistake", ["CURSOR_FIRST", "HIGHEST"])
def test_a_mistake_breaks_it(mistake: str, tmp_path: Path, require) -> None:
    require("spin")
    assert searched(tmp_path, "prefix", f"-D{mistake}")[0] > 0
