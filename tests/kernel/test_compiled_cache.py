"""The folder of compiled code: made once, checked before it is used, private, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidewarp.kernel.shell.cache import Cache, default_root

SCRIPT = """
import sys
from tidewarp.kernel import run
from tidewarp.kernel.shell.compiled import the_cache
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold
result = run(phold(lps=4), seconds(2), tier="compiled")
print(result.digest, all(unit.cached for unit in the_cache().loaded.values()))
"""


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


def build(text, calls):
    """A unit whose code is one file."""

    def made(place: Path) -> str:
        if not (place / "code").exists():
            calls.append(text)
            (place / "code").write_text(text)
        return (place / "code").read_text()

    return made


def test_a_unit_is_built_once(tmp_path):
    """And loaded from then on, by other processes too."""
    calls = []
    for cached in (False, True, True):
        cache = Cache(tmp_path)
        assert cache.load("unit", build("one", calls)) == "one"
        assert cache.loaded["unit"].cached is cached
    assert calls == ["one"]


@pytest.mark.parametrize("harm", ["flip", "cut", "add", "seal", "no seal"])
def test_what_the_seal_does_not_vouch_for_is_built_again(tmp_path, harm):
    """Nothing of a damaged unit is ever executed."""
    calls = []
    place = Cache(tmp_path).folder / "unit"
    Cache(tmp_path).load("unit", build("one", calls))
    if harm == "flip":
        (place / "code").write_text("onE")
    elif harm == "cut":
        (place / "code").write_text("")
    elif harm == "add":
        (place / "more").write_text("x")
    elif harm == "seal":
        (place / "seal.json").write_text("{")
    else:
        (place / "seal.json").unlink()
    assert Cache(tmp_path).load("unit", build("one", calls)) == "one"
    assert calls == ["one", "one"]
    assert not (place / "more").exists()


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path):
    """The code is compiled all the same, elsewhere, with one warning."""
    folder = Cache(tmp_path).folder
    folder.chmod(0o777)
    cache = Cache(tmp_path)
    with pytest.warns(RuntimeWarning, match="others may write to"):
        assert cache.load("unit", build("one", [])) == "one"
    assert not (folder / "unit").exists()


def test_a_root_that_is_a_file_does_not_stop_a_run(tmp_path):
    """As where nothing may be written."""
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="set TIDEWARP_CACHE"):
        assert cache.load("unit", build("one", [])) == "one"


def test_clear_removes_what_is_ours(tmp_path):
    """Folders of every version, and nothing else."""
    (tmp_path / "mine").mkdir()
    Cache(tmp_path).load("unit", build("one", []))
    Cache(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_root_is_what_the_environment_says(monkeypatch, tmp_path):
    """TIDEWARP_CACHE, then the platform's folder."""
    monkeypatch.setenv("TIDEWARP_CACHE", str(tmp_path))
    assert default_root() == tmp_path


@pytest.mark.nightly
def test_four_cold_processes_compile_once(tmp_path):
    """They wait for each other, come to one digest, and the fifth compiles nothing."""
    environment = {**os.environ, "TIDEWARP_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    children = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [child.communicate(timeout=900)[0].split() for child in children]
    last = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=True
    ).stdout.split()
    assert {digest for digest, _ in answers} == {last[0]}
    assert last[1] == "True"


def test_what_is_imported_without_the_cache_is_not_kept() -> None:
    """Numba's own files beside the sources would be executed after a change of what they were compiled with."""
    code = (
        "import tidewarp.kernel.compiled.words as words; from pathlib import Path;"
        "assert words.log_of(1.0) == 0.0;"
        "print([str(path) for path in Path(words.__file__).parent.rglob('words*.nbi')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
