"""The folder of compiled code: made once, checked before it is used, private, and never in the way."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import pytest

from tidewarp.kernel import compiled
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
        assert cache.load("another unit", build("one", [])) == "one"


def test_a_disk_that_is_full_costs_only_what_is_kept(tmp_path):
    """Built in memory, with one warning for all units, and no part of a unit stays; what is whole is still loaded."""
    Cache(tmp_path).load("whole", build("one", []))
    cache, kept = Cache(tmp_path), []

    def full(place: Path) -> str:
        kept.append(compiled.keeps)
        if compiled.keeps:
            (place / "part").write_text("x")
            raise OSError(errno.ENOSPC, "No space left on device")
        return "two"

    with pytest.warns(RuntimeWarning, match="No space left on device.*free some space") as warned:
        assert [cache.load(unit, full) for unit in ("unit", "more")] == ["two", "two"]
    assert len(warned) == 1
    assert kept == [True, False, True, False]
    assert list((cache.folder / "unit").iterdir()) == []
    assert cache.load("whole", build("one", [])) == "one"
    assert {name: unit.cached for name, unit in cache.loaded.items()} == {"unit": False, "more": False, "whole": True}


@pytest.mark.parametrize("harm", ["unit", "lock", "folder", "link"])
def test_what_stands_in_the_way_is_removed(tmp_path, harm):
    """A file in place of a unit or of the whole folder, a folder in place of a lock, a link out of the cache."""
    calls, folder = [], Cache(tmp_path).folder
    (tmp_path / "elsewhere").mkdir()
    if harm == "unit":
        (folder / "unit").write_text("")
    elif harm == "lock":
        (folder / "unit.lock" / "more").mkdir(parents=True)
    elif harm == "folder":
        folder.rmdir()
        folder.write_text("")
    else:
        (folder / "unit").mkdir()
        (folder / "unit" / "link").symlink_to(tmp_path / "elsewhere")
    assert Cache(tmp_path).load("unit", build("one", calls)) == "one"
    cache = Cache(tmp_path)
    assert cache.load("unit", build("one", calls)) == "one"
    assert (calls, cache.loaded["unit"].cached, cache.folder) == (["one"], True, folder)
    assert (tmp_path / "elsewhere").exists()


def test_a_cache_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    """What is whole there is loaded, without a word; what is not is built elsewhere, with a warning."""
    calls, writable = [], Cache(tmp_path)
    for unit in ("whole", "harmed"):
        writable.load(unit, build("one", calls))
    (writable.folder / "harmed" / "code").write_text("onE")

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cache = Cache(tmp_path)
    assert cache.load("whole", build("one", calls)) == "one"
    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert cache.load("harmed", build("one", calls)) == "one"
    assert calls == ["one"] * 3
    assert [unit.cached for unit in cache.loaded.values()] == [True, False]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_numba_reads_where_it_cannot_write(tmp_path, monkeypatch):
    """A function that is kept comes from a folder that takes no file."""
    path = tmp_path / "made.py"
    path.write_text("def double(x):\n    return 2 * x\n")

    def made(place: Path) -> Any:
        from numba import njit

        names: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), names)
        return njit("int64(int64)", cache=compiled.keeps)(names["double"])

    assert sum(Cache(tmp_path / "cache").load("unit", made).stats.cache_misses.values()) == 1

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    double = Cache(tmp_path / "cache").load("unit", made)
    assert (double(4), sum(double.stats.cache_hits.values())) == (8, 1)


class Quick:
    """A clock on which a wait takes no time at all of the test's."""

    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> float:
        """Seconds."""
        return self.s

    def wait(self, inbox: object, timeout_s: float) -> None:
        """Let time pass."""
        self.s += timeout_s


def test_compiling_and_waiting_are_said_once(tmp_path, caplog):
    """Not where everything is there already, and not for a lock that is given up soon."""
    for clock in (Quick(), Quick()):
        cache = Cache(tmp_path, clock)
        for unit in ("one", "two"):
            cache.load(unit, build(unit, []), slow="the kernels")
    assert [record.getMessage() for record in caplog.records] == [
        "compiling the kernels, once: this may take two minutes"
    ]
    caplog.clear()
    for patience_s, lines in ((0.5, []), (1.5, ["waiting for another process that compiles"])):
        cache = Cache(tmp_path, clock := Quick())
        with (cache.folder / "one.lock").open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            release = Release(clock, patience_s, other)
            caplog.handler.addFilter(release.heard)
            clock.wait = release.wait
            cache.load("one", build("one", []), slow="the kernels")
            caplog.handler.removeFilter(release.heard)
        assert [record.getMessage() for record in caplog.records] == lines


class Release:
    """Another process's lock, which is given up at a time, or when the one that waits has said so."""

    def __init__(self, clock: Quick, at_s: float, lock: IO[bytes]) -> None:
        self.clock, self.at_s, self.lock = clock, at_s, lock

    def wait(self, inbox: object, timeout_s: float) -> None:
        """Let time pass."""
        self.clock.s += timeout_s
        if self.clock.s >= self.at_s:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def heard(self, record: logging.LogRecord) -> bool:
        """It was said that somebody waits."""
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        return True


BROKEN_NUMBA = "raise ImportError('Numba needs NumPy 2.3 or less')"
ASKS = """
import warnings
from tidewarp.errors import OperatorError
from tidewarp.kernel import run
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        run(phold(lps=4), seconds(1))
print(*[one.message for one in said if one.category is RuntimeWarning], sep="\\n")
try:
    run(phold(lps=4), seconds(1), tier="compiled")
except OperatorError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize(("harm", "rule", "code"), [
    ("import", "Numba cannot be imported (ImportError: Numba needs NumPy 2.3 or less)", 3),
    ("JIT", "NUMBA_DISABLE_JIT turns Numba off", 2),
])  # fmt: skip
def test_a_numba_that_does_not_work_is_none(tmp_path, harm, rule, code):
    """Tier "auto" runs in Python, with one warning; tier "compiled" is refused with the reason."""
    environment = {**os.environ, "TIDEWARP_CACHE": str(tmp_path / "cache")}
    if harm == "import":
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text(BROKEN_NUMBA)
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    else:
        environment["NUMBA_DISABLE_JIT"] = "1"
    done = subprocess.run([sys.executable, "-c", ASKS], env=environment, capture_output=True, text=True, timeout=120)
    warned, refused = done.stdout.splitlines()
    assert warned.startswith(f"{rule}: models run in the Python tier"), done.stderr
    assert refused.startswith(f"{code} tier 'compiled': {rule}; ")


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


def test_code_that_is_kept_is_loaded_without_the_compiler():
    """What Numba imports to compile takes half the time of a warm start: it is loaded only where something is compiled."""
    command = [sys.executable, "-c", SCRIPT + "print('numba.np.linalg' in sys.modules)"]
    run = [subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout for _ in range(2)]
    digest = run[0].split()[0]
    assert run[1].split() == [digest, "True", "False"]


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
