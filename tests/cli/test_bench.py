"""The benchmark of the control plane at a small size: that its figures exist, and say what was computed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import control, figures
from tidewarp.cli.bench.measure import Best, best_of, slope
from tidewarp.errors import MissingExtra

SMALL = {"TIMEOUTS": 200, "CYCLES": 100, "EVENTS": 200, "UPDATES": 20_000, "YEAR_DAYS": 40, "WARM_UP_DAYS": 20}
KEYS = {
    "timeouts": {"timeouts_vs_simpy", "timeouts_per_s"},
    "request": {"request_vs_simpy", "request_cycles_per_s"},
    "ingest": {"ingest_updates_per_s", "ingest_vs_simpy", "ingest_bytes_per_update"},
    "publish": {"publish_events_per_s", "publish_vs_simpy"},
    "replay": {"recovery_month_s", "replay_speed_x", "replay_events_per_s", "replay_vs_live", "replay_equal"},
    "memory": {
        "rss_slope_bytes_per_day",
        "rss_slope_margin_bytes_per_day",
        "rss_growth_percent_per_year",
        "rss_mib",
        "year_readings",
    },
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SMALL.items():
        monkeypatch.setattr(figures, name, size)


@pytest.mark.parametrize("name", [name for name in control.NAMES if name != "replay"])
def test_a_figure_says_how_fast_and_what(name: str, small: None, tmp_path: Path) -> None:
    """All its keys, finite, and a digest that a second measurement gives again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (figures.FIGURES[name](tmp_path / folder, 0.0) for folder in "ab")
    assert set(first) == KEYS[name] | {"digest"}
    assert all(math.isfinite(value) for key, value in first.items() if key != "digest")
    assert first["digest"] == second["digest"]
    assert first["digest"] != figures.FIGURES["timeouts" if name != "timeouts" else "request"](tmp_path, 0.0)["digest"]


@pytest.mark.nightly
def test_the_replay_of_the_sample(tmp_path: Path) -> None:
    """The whole sample, live, recovered and replayed: the figures of the table."""
    found = figures.replay(tmp_path, 0.0)
    assert set(found) == KEYS["replay"] | {"digest"}
    assert found["replay_equal"]


def test_ingest_counts_every_reading(small: None, tmp_path: Path) -> None:
    """A figure of readings that were not applied would be worth nothing."""
    figures.ingest(tmp_path, 0.0)
    (journal,) = (tmp_path / "ingest").glob("*.tw")
    assert journal.stat().st_size / SMALL["UPDATES"] > 26, "what a reading's columns take at least"


def test_the_command_prints_one_object(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The chosen figures, one digest over them, and the machine."""
    arguments = ["bench", "control", "--only", "request", "--only", "timeouts", "--seconds", "0"]
    said: list[dict[str, Any]] = []
    for _ in range(2):
        assert main([*arguments, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0].keys() == KEYS["timeouts"] | KEYS["request"] | {"digest", "machine"}
    assert said[0]["digest"] == said[1]["digest"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "x simpy.Environment" in table
    assert said[0]["digest"][:24] in table.replace("\n", "")


def test_a_name_that_nobody_measures_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert main(["bench", "control", "--only", "speed"]) == 2
    assert "timeouts" in capsys.readouterr().err


def test_memory_needs_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the others are measured by name."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(MissingExtra, match="--only"):
        control.measure(("memory",), 0.0)


def test_cases_take_turns_and_the_best_round_counts() -> None:
    """Each is prepared before every round of its own; zero seconds are one round."""
    calls: list[str] = []

    def case(name: str) -> Any:
        def prepare() -> Any:
            calls.append(f"prepare {name}")
            return lambda: calls.append(f"work {name}") or name

        return prepare

    best = best_of({"a": case("a"), "b": case("b")}, 0.0)
    assert calls == ["prepare a", "work a", "prepare b", "work b"]
    assert {name: one.result for name, one in best.items()} == {"a": "a", "b": "b"}


def test_a_ratio_is_of_rounds_beside_each_other() -> None:
    """A machine that was fast for one round of one case does not decide."""
    ours, theirs = Best(1.0, None, [1.0, 2.0, 4.0]), Best(0.1, None, [2.0, 4.0, 0.1])
    assert ours.faster_than(theirs) == 2.0


def test_a_slope_is_the_line_through_the_points() -> None:
    """Exact on a line, zero on a constant, and its margin covers what scatter there is."""
    assert slope([3.0 + 2.0 * x for x in range(10)]) == pytest.approx((2.0, 0.0), abs=1e-12)
    assert slope([5.0] * 10) == (0.0, 0.0)
    scattered = slope([(-1.0) ** x for x in range(100)])
    assert abs(scattered.rise) < scattered.margin
