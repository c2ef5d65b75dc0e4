"""The benchmark of the control plane at a small size: that its figures exist, and say what was computed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import control, figures, rates, told
from tidewarp.cli.bench.measure import Best, Dropped, Elsewhere, best_of, percentile, slope
from tidewarp.cli.bench.published import INSTALL, Published
from tidewarp.errors import InternalError, MissingExtra

SIZES = {"TIMEOUTS": 200, "CYCLES": 100, "TASKS": 50, "EVENTS": 200, "UPDATES": 20_000}
KEYS = {
    "timeouts": {"timeouts_vs_simpy", "timeouts_per_s"},
    "request": {"request_vs_simpy", "request_cycles_per_s"},
    "mm2": {"mm2_vs_simpy", "mm2_tasks_per_s"},
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
LIVE_KEYS = {
    "apply": {
        *("apply_latency_ms_p50", "apply_latency_ms_p99", "apply_updates", "apply_updates_seen"),
        *("apply_commit_ms_p50", "apply_commit_ms_p99"),
        *("apply_polling_ms_p50", "apply_polling_ms_p99", "apply_polling_seen"),
    },
    "burst": {
        *("burst_behind_ms_max", "burst_behind_ms_p99", "burst_base_behind_ms_max", "burst_base_behind_ms_p99"),
        *("burst_updates", "burst_updates_admitted", "burst_updates_applied", "burst_updates_per_s"),
        "burst_rss_growth_mib",
    },
    "sinks": {
        *("sinks_base_behind_ms_max", "sinks_slow_lag_change_ms", "sinks_down_lag_change_ms"),
        *("sinks_down_s", "sinks_down_refusals", "sinks_outputs", "sinks_lost", "sinks_doubled"),
    },
    "day": {
        *("day_updates", "day_outputs", "day_hours", "day_updates_per_s"),
        *("day_rss_slope_mb", "day_rss_slope_margin_mb", "day_rss_mib"),
    },
}
SHARED = {"published", "published_missing", "digest", "machine"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setattr(rates, name, size)
    for name, size in {"YEAR_DAYS": 10, "WARM_UP_DAYS": 5, "BURST": 3_000, "SLOW_S": 0.05, "DAY_S_PER_S": 100}.items():
        monkeypatch.setattr(figures, name, size)


@pytest.fixture
def nobody() -> Iterator[Published]:
    """The published tool on a machine that has it not."""
    with Published("a_tool_that_nobody_has") as published:
        yield published


@pytest.mark.parametrize("name", [name for name in KEYS if name != "replay"])
def test_a_figure_says_how_fast_and_what(name: str, small: None, nobody: Published, tmp_path: Path) -> None:
    """All its keys, finite, and a digest that a second measurement gives again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (figures.FIGURES[name](tmp_path / folder, 0.0, nobody) for folder in "ab")
    other = figures.FIGURES["timeouts" if name != "timeouts" else "request"](tmp_path, 0.0, nobody)
    assert set(first) == KEYS[name] | {"digest"}
    assert all(math.isfinite(value) for key, value in first.items() if key != "digest")
    assert first["digest"] == second["digest"]
    assert first["digest"] != other["digest"]


@pytest.mark.parametrize("name", LIVE_KEYS)
def test_a_figure_that_goes_by_the_wall_loses_nothing(
    name: str, small: None, nobody: Published, tmp_path: Path
) -> None:
    """All its keys, finite, no digest; every update seen and applied, every output delivered once."""
    found = figures.FIGURES[name](tmp_path, 0.2, nobody)
    assert set(found) == LIVE_KEYS[name]
    assert all(math.isfinite(value) for value in found.values())
    counts = {key: value for key, value in found.items() if isinstance(value, int)}
    expected = {
        "apply": {"apply_updates": 20, "apply_updates_seen": 20},
        "burst": {"burst_updates": 3_000, "burst_updates_admitted": 3_000, "burst_updates_applied": 3_000},
        "sinks": {"sinks_lost": 0, "sinks_doubled": 0},
        "day": {"day_updates": 20_000, "day_outputs": 20},
    }[name]
    assert counts | expected == counts
    assert counts.get("sinks_down_refusals", 1) > 0


@pytest.mark.nightly
def test_the_replay_of_the_sample(nobody: Published, tmp_path: Path) -> None:
    """The whole sample, live, recovered and replayed: the figures of the table."""
    found = rates.replay(tmp_path, 0.0, nobody)
    assert set(found) == KEYS["replay"] | {"digest"}
    assert found["replay_equal"]


def test_ingest_counts_every_reading(small: None, nobody: Published, tmp_path: Path) -> None:
    """A figure of readings that were not applied would be worth nothing."""
    rates.ingest(tmp_path, 0.0, nobody)
    (journal,) = (tmp_path / "ingest").glob("*.tw")
    assert journal.stat().st_size / SIZES["UPDATES"] > 26, "what a reading's columns take at least"


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_line_and_its_reference_serve_the_same_customers(
    factor: float, small: None, nobody: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that has done before the line, or after it, has done something else: there is no figure."""
    drawn = rates._drawn
    monkeypatch.setattr(rates, "_drawn", lambda path, rate: [factor * time_s for time_s in drawn(path, rate)])
    with pytest.raises(InternalError, match="the same 50"):
        rates.mm2(tmp_path, 0.0, nobody)


def test_the_command_prints_one_object(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The chosen figures, one digest over them, and the machine."""
    arguments = ["bench", "control", "--only", "request", "--only", "timeouts", "--seconds", "0"]
    said: list[dict[str, Any]] = []
    for _ in range(2):
        assert main([*arguments, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0].keys() == KEYS["timeouts"] | KEYS["request"] | SHARED
    assert said[0]["digest"] == said[1]["digest"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "x simpy.Environment" in table
    assert said[0]["digest"][:24] in table.replace("\n", "")


def test_a_tool_that_is_not_there_is_no_error(small: None) -> None:
    """The document says that it is missing and how to get it, and the table as well."""
    found = control.measure(("timeouts",), 0.0, "a_tool_that_nobody_has")
    assert found["published"] is None
    assert INSTALL in found["published_missing"]
    assert INSTALL in control._render(found).caption.replace("\n", "")  # type: ignore[attr-defined]


def test_every_row_of_the_table_names_figures_that_there_are() -> None:
    """A row whose figure was renamed would vanish in silence."""
    one = dict.fromkeys(set.union(*KEYS.values(), *LIVE_KEYS.values()), 1)
    assert all(told.shown(form, one) is not None for _, shown, goal in control.ROWS for form in (shown, goal))


def test_a_name_that_nobody_measures_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert main(["bench", "control", "--only", "speed"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in control.NAMES)


def test_every_name_has_a_figure() -> None:
    """What can be asked for is what is measured."""
    assert tuple(figures.FIGURES) == control.NAMES


@pytest.mark.parametrize("name", ["memory", "burst", "day"])
def test_memory_needs_proc(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the others are measured by name."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(MissingExtra, match="--only"):
        control.measure((name,), 0.0)


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


def test_work_that_was_timed_elsewhere_keeps_its_time() -> None:
    """What it took to ask for it is not counted."""
    best = best_of({"there": lambda: lambda: Elsewhere(42.0, "done")}, 0.0)
    assert best["there"] == Best(42.0, "done", [42.0])


def test_a_case_that_fails_leaves_the_others_alone() -> None:
    """Also in a later round: then its rounds before are of no use, since there are not as many as of the others."""
    rounds = iter([Elsewhere(0.5, None)])

    def failing() -> Any:
        try:
            return next(rounds)
        except StopIteration:
            raise Dropped from None

    class Clock:
        times = iter(range(100))

        def now(self) -> float:
            return float(next(self.times))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidewarp.cli.bench.measure.WallClock", Clock)
        best = best_of({"a": lambda: lambda: "a", "failing": lambda: failing, "b": lambda: lambda: "b"}, 12.0)
    assert best.keys() == {"a", "b"}
    assert len(best["a"].rounds) == len(best["b"].rounds) >= 2


def test_a_ratio_is_of_rounds_beside_each_other() -> None:
    """A machine that was fast for one round of one case does not decide."""
    ours, theirs = Best(1.0, None, [1.0, 2.0, 4.0]), Best(0.1, None, [2.0, 4.0, 0.1])
    assert ours.faster_than(theirs) == 2.0


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank: half of four is the second, and 99 % of a hundred the 99th."""
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(100, 0, -1)], 99) == 99.0
    assert percentile([7.0], 99) == percentile([7.0], 0) == 7.0


def test_a_slope_is_the_line_through_the_points() -> None:
    """Exact on a line, zero on a constant, and its margin covers what scatter there is."""
    assert slope([3.0 + 2.0 * x for x in range(10)]) == pytest.approx((2.0, 0.0), abs=1e-12)
    assert slope([5.0] * 10) == (0.0, 0.0)
    scattered = slope([(-1.0) ** x for x in range(100)])
    assert abs(scattered.rise) < scattered.margin


def test_a_slope_of_steps_is_less_certain_than_one_of_scatter() -> None:
    """Two long steps, up and down, are two events, and not as many as there are samples of them."""
    steps = slope([float(30 <= x < 50) for x in range(100)])
    shuffled = slope([float(x % 5 == 0) for x in range(100)])
    assert steps.margin > 3 * shuffled.margin
    assert abs(steps.rise) < steps.margin
