"""`tidewarp log --out`: all rows in a file, whole or not there."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from plant import NEW, write

from tidewarp.cli import export
from tidewarp.cli.log import LIMIT
from tidewarp.errors import Corrupt
from tidewarp.twin import journal_rows

MODEL = """
import tidewarp as tw

VALUES = [1.5, True, "auto", {"a": [1, None]}, 7]

def build(twin):
    twin.variable("plant.any")
    twin.variable("plant.mode", str, one_of=("auto",))
    entries = [(n, "plant.any", VALUES[n % 5]) for n in range(1199)]
    twin.connect(tw.sources.schedule([*entries, (1199, "plant.mode", "off")]))
"""


@pytest.fixture
def journal(place, run) -> Path:
    write(MODEL)
    assert run(*NEW[:-1]).code == 0
    return Path("j.tw")


def rows() -> list[dict[str, object]]:
    return list(journal_rows("j.tw"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_has_all_rows_and_as_many_as_are_asked_for(journal, run, kind, require):
    """Without --limit all of them, also beyond the limit of the screen; selections count; nothing is left beside it."""
    if kind == "parquet":
        require("arrow")
    found = len(rows())
    assert found > LIMIT
    assert run("log", "j.tw", "--out", f"all.{kind}", "--json").done() == {"out": f"all.{kind}", "count": found}
    assert run("log", "j.tw", "--out", f"some.{kind}", "--limit", "5", "--json").done()["count"] == 5
    assert run("log", "j.tw", "--out", f"dead.{kind}", "--dead", "--json").done()["count"] == 1
    assert run("log", "j.tw", "--out", f"none.{kind}", "--source", "no", "--json").done()["count"] == 0
    assert {path.name for path in Path().iterdir() if kind in path.name} == {
        f"{name}.{kind}" for name in ("all", "some", "dead", "none")
    }


def test_the_three_kinds_of_file_hold_the_same(journal, run, monkeypatch):
    """Parquet has types, JSON all fields, CSV text; small row groups are a file like a large one."""
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="pip install 'tidewarp[parquet]'")
    monkeypatch.setattr(export, "GROUP_ROWS", 500)
    for kind in ("csv", "jsonl", "parquet"):
        assert run("log", "j.tw", "--out", f"all.{kind}").code == 0
    expected = rows()
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [(one["seq"], one["kind"], one["timestamp"]) for one in lines] == [
        (one["seq"], one["kind"], one["timestamp"]) for one in expected
    ]
    with Path("all.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(int(one["tick"]), one["path"]) for one in table] == [
        (one["tick"], one.get("path", "")) for one in expected
    ]
    file = pyarrow.ParquetFile("all.parquet")
    assert file.num_row_groups == -(-len(expected) // 500)
    cells = file.read().to_pylist()
    assert [one["tick"] for one in cells] == [one["tick"] for one in expected]
    inputs = [(one["value"], one["number"]) for one in cells if one["kind"] == "input"]
    assert inputs[:5] == [
        ("1.5", 1.5), ("true", None), ('"auto"', None), ('{"a": [1, null]}', None), ("7", 7.0),
    ]  # fmt: skip
    assert [one["rule"] for one in cells if one["kind"] == "dead"] == ["value"]


def test_what_followed_from_an_input_can_be_exported_too(place, run):
    """--root and --out together: the tree as rows."""
    write(MODEL + "\n    twin.publish_event('begun', 5)\n")
    assert run(*NEW[:-1]).code == 0
    root = json.loads(run("log", "j.tw", "--root", "", "--json").out)
    assert run("log", "j.tw", "--root", "", "--out", "tree.jsonl", "--json").done()["count"] == root["count"] == 1
    assert json.loads(Path("tree.jsonl").read_text()) == root["outputs"][0]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_is_whole_or_not_there(journal, run, kind, monkeypatch, require):
    """A journal that cannot be read to its end leaves no file; one that exists is not touched, and stays as it was."""
    if kind == "parquet":
        require("arrow")

    def torn(*args, **options):
        yield from rows()[:700]
        raise Corrupt("record 5", "it is torn", "restore it")

    with monkeypatch.context() as patch:
        patch.setattr("tidewarp.cli.log.journal_rows", torn)
        assert "torn" in run("log", "j.tw", "--out", f"all.{kind}").refusal(1)
    assert not [path for path in Path().iterdir() if kind in path.name]
    Path(f"all.{kind}").write_text("mine")
    assert "File exists" in run("log", "j.tw", "--out", f"all.{kind}").refusal(2)
    assert Path(f"all.{kind}").read_text() == "mine"


def test_a_missing_package_is_named_with_its_command(journal, run, monkeypatch):
    """Exit 3; the two other kinds need nothing."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'tidewarp[parquet]'" in run("log", "j.tw", "--out", "all.parquet").refusal(3)
    assert run("log", "j.tw", "--out", "all.csv").code == 0
