"""The benchmark of stores at a small size: that its figures exist, and say what was computed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import storing, syncing, told
from tidewarp.cli.bench.syncing import NO_GIT
from tidewarp.cli.store import bench
from tidewarp.errors import InternalError
from tidewarp.federation import shell

N = 20
KEYS = {
    "small": {
        *("put_1k_batched_per_s", "raw_sqlite_1k_per_s", "put_1k_vs_sqlite"),
        *("get_1k_per_s", "raw_sqlite_get_1k_per_s", "get_1k_vs_sqlite"),
    },
    "large": {"put_1m_per_s", "files_fsync_1m_per_s", "put_1m_vs_files"},
    "sync": {
        *("sync_records_per_s", "git_fetch_records_per_s", "sync_vs_git", "git_missing"),
        *("noop_sync_ms", "state_hash"),
    },
    "hash": {"state_hash_100k_s", "state_from_records_per_s"},
    "gc": {"gc_artifacts_per_s", "gc_overrun_ms"},
}
SHARED = {"n", "digest", "machine"}


@pytest.mark.parametrize("name", [name for name in KEYS if name != "sync"])
def test_a_figure_says_how_fast_and_what(name: str, tmp_path: Path) -> None:
    """All its keys, finite, a digest that a second measurement gives again, and nothing left behind."""
    first, second = (bench.measure((name,), 0.0, N, tmp_path) for _ in range(2))
    assert first.keys() == KEYS[name] | SHARED
    assert all(math.isfinite(first[key]) for key in KEYS[name])
    assert first["digest"] == second["digest"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("has_git", [True, False])
def test_a_pull_between_two_processes(has_git: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the records come to is the same on every machine; without git the reference is null, with the reason."""
    if has_git and shutil.which("git") is None:
        pytest.skip("git is not on the PATH: apt-get install git")
    if not has_git:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    found = bench.measure(("sync",), 0.0, N, tmp_path)
    assert found.keys() == KEYS["sync"] | SHARED
    assert found["state_hash"].hex() == "9083396df3076c051b1bdcce4a66f0515e9f2ea254aba2b148af837ab8f12046"
    assert found["sync_records_per_s"] > 0 < found["noop_sync_ms"]
    compared = found["git_fetch_records_per_s"], found["sync_vs_git"]
    assert all(one > 0 for one in compared) if has_git else compared == (None, None)
    assert found["git_missing"] == (None if has_git else NO_GIT)
    assert has_git or NO_GIT in bench._render(found).caption  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_a_pull_that_brings_less_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a store that takes nothing would be the fastest."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(syncing, "pull", lambda store, url: shell.pull(store, url, records_max=N // 2))
    with pytest.raises(InternalError, match="pull"):
        syncing.sync(tmp_path, 0.0, N)


def test_a_get_of_other_bytes_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides read the same, or nothing was compared."""
    monkeypatch.setattr(storing, "_read_raw", lambda db, refs: 0)
    with pytest.raises(InternalError, match="the same bytes"):
        storing.put_small(tmp_path, 0.0, N)


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The chosen figures, one digest over them, and the machine; or a table with their rows."""
    arguments = [
        "store",
        "bench",
        "--dir",
        str(tmp_path),
        "--n",
        str(N),
        "--only",
        "hash",
        "--only",
        "gc",
        "--seconds",
        "0",
    ]
    said: list[dict[str, Any]] = []
    for _ in range(2):
        assert main([*arguments, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0].keys() == KEYS["hash"] | KEYS["gc"] | SHARED
    assert said[0]["digest"] == said[1]["digest"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "state hash of 100,000 rows" in table
    assert "raw SQLite" not in table
    assert said[0]["digest"][:24] in table.replace("\n", "")


def test_every_row_of_the_table_names_figures_that_there_are() -> None:
    """A row whose figure was renamed would vanish in silence."""
    one = dict.fromkeys(set.union(*KEYS.values()), 1)
    assert all(told.shown(form, one) is not None for _, form, _ in bench.ROWS)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody's disk is measured by a typing error."""
    assert main(["store", "bench", "--dir", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
