"""Ranks of Open MPI that go on in place when one of them is killed: the digest of a run that nobody disturbed."""

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

from tidewarp.kernel import run
from tidewarp.seeds import Stream
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

END_S = 6
WORDS = ["bench", "phold", "--kernel", "optimistic", "--lps", "24", "--events-per-lp", "4", "--end", str(END_S)]

SITE = """
import json, os, sys

class Hurting:
    def find_spec(self, name, path=None, target=None):
        if name == "tidewarp.kernel.shell.mpi.kernel":
            sys.meta_path.remove(self)
            sys.path.append(os.environ["HURT_FROM"])
            from on_ranks import hurt

            for wound in json.loads(os.environ["WOUNDS"]):
                hurt(*wound)
        return None

sys.meta_path.insert(0, Hurting())
"""
"""A ``sitecustomize`` that wounds ranks: the arguments of ``hurt`` in ``on_ranks.py``."""


@pytest.fixture
def wounded(require: Callable[[str], None], tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Launch ranks of which some die, (GVT, looks at the post after that, who) each: exit code, answer, what was said."""
    require("openmpi")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)

    def launch(ranks: int, deaths: list[tuple[int, int, int]], *words: str) -> tuple[int, dict[str, Any], str]:
        wounds = json.dumps([[*death, signal.SIGKILL] for death in deaths])
        env = {**os.environ, "PYTHONPATH": str(site), "HURT_FROM": str(Path(__file__).parent), "WOUNDS": wounds}
        saving = ["--launch", str(ranks), "--checkpoint", str(tmp_path / "c"), "--checkpoint-every", "1s", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "tidewarp", *WORDS, *saving, *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    return launch


def undisturbed() -> str | None:
    return run(phold(lps=24, population=4), seconds(END_S), tier="python", digest="state").digest


@pytest.mark.parametrize(
    ("ranks", "deaths", "tier"),
    [
        (2, [(2.5, 0, 1)], "python"),
        (2, [(2.5, 5, 0)], "compiled"),
        (3, [(1.5, 3, 0), (4.5, 0, 2)], "python"),
    ],
)
def test_ranks_go_on_without_those_that_died(
    ranks: int,
    deaths: list[tuple[float, int, int]],
    tier: str,
    wounded: Callable[..., Any],
    require: Callable[[str], None],
) -> None:
    """One dies, the first dies, two die one after the other: nothing is started again, and one answer is given."""
    if tier == "compiled":
        require("numba")
    code, told, said = wounded(ranks, [(seconds(at), looks, who) for at, looks, who in deaths], "--tier", tier)
    assert (code, told["digest"]) == (0, undisturbed()), said
    assert (told["recovered"], told["ranks"]) == (len(deaths), ranks - len(deaths))
    assert said.count("rank died") == len(deaths)
    assert "restart" not in said
    assert "NBC_Progress" not in said


def test_a_death_without_a_newer_checkpoint_ends_all_ranks(wounded: Callable[..., Any]) -> None:
    """What they would go on from is where they began: the launcher says that a rank died, and could restart."""
    code, told, said = wounded(3, [(seconds(0.2), 0, 1)], "--tier", "python")
    assert (code, told["exit"]) == (1, 1)
    assert "error: rank died" in said
    assert "rank died:" not in said


@pytest.mark.nightly
@pytest.mark.parametrize("point", range(20))
def test_a_death_anywhere_is_survived(point: int, wounded: Callable[..., Any], require: Callable[[str], None]) -> None:
    """At 20 points, on two and on three ranks, any of them, in both tiers and both engines."""
    random = Stream(point, "test.survivors")
    tier = ("python", "compiled")[random.below(2)]
    if tier == "compiled":
        require("numba")
    ranks = 2 + random.below(2)
    death = seconds(1.2) + random.below(seconds(END_S - 2.5)), random.below(5), random.below(ranks)
    kernel = ("optimistic", "conservative")[random.below(2)]
    code, told, said = wounded(ranks, [death], "--tier", tier, "--kernel", kernel)
    assert (code, told["digest"]) == (0, undisturbed()), said
    assert told["recovered"] == 1
