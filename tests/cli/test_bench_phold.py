"""``tidewarp bench phold`` at a small size: its figures, its checks, and that nothing of how it runs reaches the digest."""

from __future__ import annotations

import json
import math
import pstats
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import phold as command

SMALL = ["bench", "phold", "--tier", "python", "--lps", "8", "--events-per-lp", "3", "--end", "6", "--json"]
KEYS = {
    *("committed", "seconds", "events_per_s", "rolled_back", "rollbacks", "gvt_rounds", "digest"),
    *(
        "kernel",
        "tier",
        "workers",
        "transport",
        "executed",
        "anti_messages",
        "anti_dropped",
        "remote_sent",
        "efficiency",
    ),
    *("rolled_back_share", "window_ticks", "pool_bytes", "cancelbacks", "lazy_hits", "idle_share", "compile_seconds"),
    *("peak_rss_bytes", "runs", "seed", "verified", "reference_events_per_s", "ratio", "references"),
}
DIGEST = "d977cc4a9eef35e45daabd6a611443a17c564553f356bd1ef69ef314a9b51da2"

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run the command with these arguments more; the object that it prints."""

    def ask(*arguments: str, code: int = 0) -> dict[str, Any]:
        assert main([*SMALL, *arguments]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return ask


def test_all_figures_are_there(ask: Ask) -> None:
    """Every key of the specification, each a number of its kind."""
    found = ask()
    assert found.keys() >= KEYS
    assert all(math.isfinite(value) for value in found.values() if isinstance(value, float))
    assert found["executed"] == found["committed"] > 100
    assert found["events_per_s"] == pytest.approx(found["committed"] / found["seconds"])
    assert found["peak_rss_bytes"] > 10**7
    assert (found["verified"], found["ratio"], found["seed"]) == (None, None, 1)


def test_this_run_never_changes(ask: Ask) -> None:
    """Golden: a faster engine must not compute something else."""
    assert ask()["digest"] == DIGEST


@pytest.mark.parametrize(
    "how",
    [
        "--kernel conservative --workers 2",
        "--kernel optimistic --workers 1",
        "--kernel optimistic --workers 3 --window 100s --schedule-seed 5",
        "--kernel optimistic --workers 4 --window lookahead --kps 1 --batch 1 --gvt-interval 1",
        "--kernel optimistic --workers 2 --window 1ms --saving periodic:3 --cancellation lazy",
        "--kernel optimistic --workers 2 --memory-max 10MB --partition graph",
        "--repeat 2",
    ],
)
def test_how_it_runs_is_not_in_the_digest(how: str, ask: Ask) -> None:
    """And ``--verify`` says so itself."""
    found = ask(*how.split(), "--verify")
    assert found["digest"] == DIGEST
    assert found["verified"] is True


@pytest.mark.parametrize(
    "what",
    [
        "--seed 2",
        "--lps 9",
        "--events-per-lp 2",
        "--remote 0.5",
        "--lookahead 0.2",
        "--mean 1",
        "--end 7",
        "--grain 1",
        "--payload-bytes 64",
        "--state-bytes 512",
        "--payload-bytes 16 --state-bytes 24",
        "--digest events",
    ],
)
def test_what_it_computes_is_in_the_digest(what: str, ask: Ask) -> None:
    """Each option of the model."""
    assert ask(*what.split(), "--verify")["digest"] != DIGEST


def test_without_a_digest(ask: Ask) -> None:
    """null, and nothing to verify."""
    assert ask("--digest", "off")["digest"] is None
    assert "nothing to compare" in ask("--digest", "off", "--verify", code=2)["error"]["rule"]


def test_rounds_are_all_told(ask: Ask) -> None:
    """The figures are those of the best one."""
    found = ask("--repeat", "3")
    assert len(found["runs"]) == 3
    assert found["events_per_s"] == max(run["events_per_s"] for run in found["runs"])
    assert {run["digest"] for run in found["runs"]} == {found["digest"]}


def test_a_wrong_digest_is_found(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1: here the parallel run computes another model."""
    model_of = command.model_of
    monkeypatch.setattr(command, "run", lambda model, *rest, **how: wrong(model, *rest, **how))

    def wrong(model: Any, until: int, **how: Any) -> Any:
        from tidewarp.kernel import run

        is_reference = how.get("kernel", "sequential") == "sequential"
        return run(model_of({**values, "seed": 9}) if is_reference else model, until, **how)

    values = {"lps": 8, "events_per_lp": 3, "remote": 0.1, "lookahead": 10**8, "mean": 9 * 10**8, "grain": 0}
    values |= {"payload_bytes": 8, "state_bytes": 16}
    assert ask("--kernel", "optimistic", "--verify", code=1)["verified"] is False


def test_the_reference_runs_beside_it(ask: Ask) -> None:
    """SimPy in turn with each round; the ratio is over the rounds."""
    found = ask("--reference", "simpy", "--repeat", "2")
    assert found["reference_events_per_s"] > 0
    assert 0 < found["ratio"] < 1000


def test_the_sequential_engine_runs_beside_it(ask: Ask) -> None:
    """In the same tier, in turn with each round; its digest has to be ours, and is looked at without being asked."""
    found = ask("--kernel", "optimistic", "--workers", "2", "--reference", "sequential", "--repeat", "2")
    assert found["references"].keys() == {"sequential"}
    assert found["verified"] is True
    assert found["ratio"] == found["references"]["sequential"]["ratio"] > 0
    assert found["reference_events_per_s"] == found["references"]["sequential"]["events_per_s"] > 0


def test_two_references_take_turns(ask: Ask) -> None:
    """``ratio`` is that of the first; a name that is given twice counts once."""
    found = ask("--reference", "sequential", "--reference", "simpy", "--reference", "sequential")
    assert list(found["references"]) == ["sequential", "simpy"]
    assert found["ratio"] == found["references"]["sequential"]["ratio"]
    assert found["references"]["simpy"]["ratio"] > 0
    assert ask()["references"] == {}


def test_a_ratio_is_the_median_over_the_rounds(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rounds beside each other, never of the best ones."""
    theirs_s = iter([1.0, 10.0, 3.0])
    monkeypatch.setattr(command, "_reference", lambda *_: lambda: (next(theirs_s), None))
    found = ask("--reference", "simpy", "--repeat", "3")
    ratios = [run["events_per_s"] * one_s for run, one_s in zip(found["runs"], [1.0, 10.0, 3.0], strict=True)]
    assert found["ratio"] == pytest.approx(sorted(ratios)[1])
    assert found["reference_events_per_s"] == 1.0


def test_a_reference_with_another_digest_is_found(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, as with --verify."""
    monkeypatch.setattr(command, "_reference", lambda *_: lambda: (1.0, "0" * 64))
    assert ask("--reference", "sequential", code=1)["verified"] is False


def test_the_reference_makes_as_many_events() -> None:
    """It is the same PHOLD: as many hops, within what chance allows."""
    from tidewarp.cli.bench.phold_simpy import Reference

    values = {"lps": 20, "events_per_lp": 5, "remote": 0.1, "lookahead": 10**8, "mean": 9 * 10**8, "grain": 2}
    reference = Reference({**values, "end": 20 * 10**9, "seed": 1})
    assert reference.seconds_per_event() > 0
    assert reference.hops == pytest.approx(100 * 20, rel=0.1)


def test_without_simpy(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3, with the command that installs it."""
    monkeypatch.delitem(sys.modules, "tidewarp.cli.bench.phold_simpy", raising=False)
    monkeypatch.setitem(sys.modules, "simpy", None)
    assert ask("--reference", "simpy", code=3)["error"]["action"] == "pip install simpy"


def test_ross_s_own_setting(ask: Ask) -> None:
    """8 LPs for each PE and one ball each, where nothing else is said."""
    plain = ["--lps=16", "--events-per-lp=1", "--remote=0.25", "--mean=1", "--lookahead=1", "--end=20"]
    named = ask("--preset", "ross", *plain)
    assert named["digest"] == ask(*plain)["digest"]
    assert named["digest"] != ask("--preset", "ross", *plain, "--remote", "0.5")["digest"]


def test_a_profile_is_written(ask: Ask, tmp_path: Path) -> None:
    """Of the Python tier; cProfile sees nothing of compiled code."""
    file = tmp_path / "profile"
    ask("--profile", str(file))
    assert any("receive" in name for _, _, name in pstats.Stats(str(file)).stats)  # type: ignore[attr-defined]
    assert "--tier python" in ask("--tier", "compiled", "--profile", str(file), code=2)["error"]["action"]


@pytest.mark.parametrize(
    "wrong",
    [
        "--workers 9",
        "--workers 0",
        "--lps 0",
        "--remote 1.5",
        "--remote nan",
        "--lookahead -1",
        "--lookahead 1x",
        "--lookahead 2014-01-01",
        "--mean 0",
        "--end inf",
        "--window 0",
        "--payload-bytes 4",
        "--payload-bytes 12",
        "--state-bytes 17",
        "--memory-max 0",
        "--memory-max lots",
        "--saving never",
        "--seed -1",
        "--seed 18446744073709551616",
        "--kernel fast",
        "--digest md5",
        "--kernel conservative --workers 2 --lookahead 0",
    ],
)
def test_bad_input(wrong: str, ask: Ask) -> None:
    """Exit 2 with value, rule and action."""
    kernel = [] if "--kernel" in wrong else ["--kernel", "optimistic"]
    error = ask(*kernel, *wrong.split(), code=2)["error"]
    assert error["value"]
    assert error["rule"]
    assert error["action"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The same in words."""
    assert main([*SMALL[:-1], "--verify", "--reference", "simpy", "--reference", "sequential"]) == 0
    said = capsys.readouterr().out
    assert "events/s" in said
    assert "beside SimPy" in said
    assert "beside sequential" in said
    assert "the sequential run has the same digest" in said
    assert DIGEST in said
