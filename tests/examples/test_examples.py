"""The examples print what stands in their `.out` files, are short, and keep the contracts that they show how to keep."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from tidewarp.connect.contract import MESSAGE_BYTES_MAX
from tidewarp.testing.readings import meaning
from tidewarp.testing.sinks import SinkConformance
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.out"))
LINES_MAX = 60
SECONDS_MAX = 120  # a hang ends, no speed is asserted


def run(name: str, folder: Path, hash_seed: str = "0") -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_that_is_a_program_has_its_output():
    """`factory.py` prints nothing: it is a model for the command, and tests of the command run it."""
    programs = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
    assert programs == NAMES == ["breaking_resource", "own_sink", "own_source"]


@pytest.mark.parametrize("hash_seed", ["1", "20261"])
@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_its_golden_output(name, hash_seed, tmp_path):
    """Byte for byte, in an empty folder, whatever the hash seed, with no warning."""
    assert run(name, tmp_path, hash_seed) == (0, (FOLDER / f"{name}.out").read_bytes(), b"")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_that_is_run_again_ends_the_same(name, tmp_path):
    """It finds its journals at their end: nothing is added, and the last line, with the replay, is the same."""
    first, again = run(name, tmp_path), run(name, tmp_path)
    assert again[0] == 0, again[2].decode()
    assert again[1].splitlines()[-1] == first[1].splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_read_in_a_minute(name):
    """At most 60 lines, of at most 120 characters."""
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    assert len(lines) <= LINES_MAX
    assert max(map(len, lines)) <= 120


class TestJsonLines(SourceConformance):
    """The source of `own_source.py`."""

    LINES = (
        (b'{"s": 0, "level": 1}\n', (0, 1)),
        (b'{"s": 60, "level": 2.5, "battery": 97}\n', (60 * 10**9, 2.5)),
        (b"switched on\n", None),
        (b'{"s": 30.5, "level": 2}\n', (30_500_000_000, 2)),
        (b'{"s": 90, "lev\n', None),
        (b'{"s": [1], "level": 2}\n', None),
        (b'{"s": 1e999, "level": 2}\n', None),
        (b'{"s": 120, "level": 3}', (120 * 10**9, 3)),
    )
    messages = tuple(meant and (meant[0], {"tank.level": meant[1]}) for _, meant in LINES)
    test_what_cannot_be_opened_says_so = None  # a missing file is found by read(), and the twin words it

    def create(self, folder):
        path = folder / "gauge.jsonl"
        path.write_bytes(b"".join(line for line, _ in self.LINES))
        return load("own_source").JsonLines(path)

    def test_no_line_is_trusted_for_its_length(self, tmp_path):
        """One that is too long comes in pieces, each a dead letter of its own; the line behind it is read."""
        (tmp_path / "gauge.jsonl").write_bytes(b"1" * (2 * MESSAGE_BYTES_MAX) + b"\n" + self.LINES[-1][0])
        source = load("own_source").JsonLines(tmp_path / "gauge.jsonl")
        raws = perform(source.read(10))
        assert [len(raw.payload) for raw in raws] == [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, 1, len(self.LINES[-1][0])]
        assert [meaning(source.decoder(0), raw) for raw in raws] == [None, None, None, self.messages[-1]]


class TestTable(SinkConformance):
    """The sink of `own_sink.py`."""

    refused: ClassVar = {"grams": 0}
    test_what_cannot_be_opened_says_so = None  # what sqlite3 raises, the twin words
    test_a_write_that_was_torn_is_mended = None  # sqlite3 writes, and mends, on its own

    def create(self, folder):
        return load("own_sink").Table(str(folder / "packs.db"))

    @contextmanager
    def failing(self, folder):
        """The 100th row of each write is an error of the database, not of the row."""
        trouble = "abs(-9223372036854775807 - (new.rowid > 0))"  # an integer overflow
        with closing(sqlite3.connect(folder / "packs.db", isolation_level=None)) as db:
            db.execute(
                f"CREATE TRIGGER full AFTER INSERT ON packs WHEN new.rowid % 200 = 100 BEGIN SELECT {trouble}; END"
            )
            yield
            assert db.execute("SELECT count(*) % 200 FROM packs").fetchone() == (0,), "nothing is half written"
            db.execute("DROP TRIGGER full")

    def values(self, folder):
        if not (folder / "packs.db").exists():
            return []
        with closing(sqlite3.connect(folder / "packs.db")) as db:
            rows = db.execute("SELECT pack FROM packs ORDER BY rowid").fetchall()
        return [json.loads(row)["value"] for (row,) in rows]
