"""The works of the benchmark that go by the wall: what they count is what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tidewarp.cli.bench import live, resident
from tidewarp.cli.bench.synthetic import Burst, Moody
from tidewarp.cli.bench.ticking import Notes, behind_ms, latencies_ms
from tidewarp.connect import Output, Refused


def test_every_update_is_seen_by_the_process_that_waits(tmp_path: Path) -> None:
    """As many as were sent, at a latency above nothing, where a reference that polls sees some of them."""
    ours, polled = live.apply(str(tmp_path), 20, 100.0), live.polling(str(tmp_path), 20, 100.0)
    assert ours["apply_updates_seen"] == ours["apply_updates"] == 20
    assert 0 < ours["apply_latency_ms_p50"] <= ours["apply_latency_ms_p99"]
    assert polled["apply_polling_seen"] < 20


def test_an_update_that_is_not_seen_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes twice is one update, so a source that repeats itself does not make up for what it left out."""
    add = Notes.add
    monkeypatch.setattr(Notes, "add", lambda self, number: add(self, min(number, 5.0) if number < 20 else number))
    assert live.apply(str(tmp_path), 20, 100.0)["apply_updates_seen"] == 6


def test_a_burst_is_applied_to_the_last_message(tmp_path: Path) -> None:
    """The model's own count of what its variables have been, and not what the gate says."""
    found = live.burst(str(tmp_path), 2_500, 0.05)
    assert found["admitted"] == found["applied"] == 2_500
    assert 0 <= found["behind_ms_p99"] <= found["behind_ms_max"]


def test_a_burst_that_repeats_a_message_is_not_applied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An equal value changes nothing: the count of the model is not that of the gate."""
    payload = b'{"path": "line.sensor_000", "value": 1.0}'
    made = Burst.__init__

    def poor(self: Burst, count: int, wait_s: float) -> None:
        made(self, count, wait_s)
        self._payloads = [payload for _ in self._payloads]

    monkeypatch.setattr(Burst, "__init__", poor)
    found = live.burst(str(tmp_path), 600, 0.05)
    assert (found["admitted"], found["applied"]) == (600, 1)


def test_a_twin_at_rest_is_the_base_of_a_burst(tmp_path: Path) -> None:
    """The same twin, ticking, to which nothing comes."""
    found = live.burst(str(tmp_path), 0, 0.1)
    assert found["admitted"] == found["applied"] == 0


@pytest.mark.parametrize(("pause_s", "down"), [(0.0, (0.0, 0.0)), (0.1, (0.0, 0.0)), (0.0, (0.05, 0.3))])
def test_a_sink_has_everything_once_in_the_end(pause_s: float, down: tuple[float, float], tmp_path: Path) -> None:
    """Whether it is quick, slow, or down for most of the run."""
    found = live.sink(str(tmp_path), pause_s, down, 0.4)
    assert found["outputs"] == 39 * live.OUTPUTS_PER_TICK
    assert (found["lost"], found["doubled"]) == (0, 0)
    assert (found["refusals"] > 0) == (down[1] > 0)


def test_a_sink_that_loses_or_doubles_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output forgotten and one kept twice: both are counted."""

    async def careless(self: Moody, batch: Sequence[Output]) -> list[Refused]:
        ids = [output.id for output in batch]
        self.ids += [*ids[1:], ids[-1]] if not self.ids else ids
        return []

    monkeypatch.setattr(Moody, "write", careless)
    found = live.sink(str(tmp_path), 0.0, (0.0, 0.0), 0.1)
    assert (found["lost"], found["doubled"]) == (1, 1)


def test_a_day_is_as_long_as_it_is_asked_to_be(tmp_path: Path) -> None:
    """A thousand updates and one output a simulated second, and samples from all of it but the warm-up."""
    found = resident.day(str(tmp_path), 4)
    assert (found["day_updates"], found["day_outputs"]) == (4_000, 4)
    assert found["day_hours"] == pytest.approx(4 / 3_600)
    assert found["day_rss_mib"] > 1


def test_a_slope_of_a_day_is_in_megabytes_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that grows by 1 MB at every sample, 240 samples to the stretch."""
    resident_bytes = iter(range(10**8, 10**9, 10**6))
    monkeypatch.setattr(resident, "_resident_bytes", lambda: next(resident_bytes))
    found = resident.day(str(tmp_path), 12)
    assert found["day_rss_slope_mb"] == pytest.approx(resident.SAMPLES * 86_400 / 12)
    assert found["day_rss_slope_margin_mb"] == pytest.approx(0.0, abs=1e-3)


def test_the_children_of_a_process_are_part_of_its_resident_set() -> None:
    """A twin may run its model in one of them."""
    alone = resident._resident_bytes()
    with subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = resident._resident_bytes()
        child.communicate(b"\n")
    assert together > alone + 2**20


def test_the_peak_of_a_process_is_not_that_of_its_parent() -> None:
    """As it would be by getrusage, and then no burst would ever make it grow."""
    ballast = b"x" * (200 * 2**20)
    command = "from tidewarp.cli.bench.resident import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < len(ballast)
    assert resident.peak_bytes() > len(ballast)


def test_the_earliest_tick_is_on_time() -> None:
    """Ticks of a clock that stands 3 s ahead of the virtual one, the second 20 ms late."""
    assert behind_ms([3.000, 3.020, 3.001]) == pytest.approx([0.0, 1.0, 20.0])
    assert latencies_ms([1.0, 2.0], [(1, 2.005), (0, 1.25)]) == pytest.approx([5.0, 250.0])


def test_notes_are_kept_up_to_their_room() -> None:
    """What finds no room is left out, and the rest stays as it was."""
    notes = Notes(2)
    for number in (1.5, 2.5, 3.5):
        notes.add(number)
    assert notes.all() == [1.5, 2.5]


def test_notes_of_a_child_are_seen_by_its_parent(require: Callable[[str], None]) -> None:
    """A model that is executed in a process of its own, made by fork, notes in the same memory."""
    require("fork")
    notes = Notes(3)
    child = os.fork()
    if child == 0:
        notes.add(4.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert notes.all() == [4.5]
