"""A source that cannot be read, or rows of it: one `error:` line before the run, or counted dead letters."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from plant import NEW, RESUMED, changed, no_run_was_begun

pytestmark = pytest.mark.proof("bad rows are counted, a bad source is one line")

SOURCES = {
    "value column missing": ("time,other\n", ["'value'", "data.csv", "'time', 'other'"]),
    "time column missing": ("when,value\n", ["'time'", "data.csv", "'when', 'value'"]),
    "column twice": ("time,value,value\n", ["'value'", "twice"]),
    "empty": ("", ["'time'", "data.csv"]),
    "not UTF-8": (b"time,value\xff\n", ["data.csv", "header", "UTF-8"]),
    "a header of 10 MB": ("t" * 10_000_000, ["data.csv", "header"]),
    "a directory": (None, ["data.csv", "directory"]),
}


@pytest.mark.parametrize("options", [[], ["--epoch", "2014-01-01T00:00:00Z"]], ids=["", "epoch given"])
@pytest.mark.parametrize(("data", "words"), SOURCES.values(), ids=SOURCES)
def test_a_csv_file_that_does_not_fit(plant, run, data, words, options):
    """Exit 2 at the start, with the file, what is missing and what there is; also where no epoch is asked of it."""
    Path("data.csv").unlink()
    if data is None:
        Path("data.csv").mkdir()
    else:
        Path("data.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    line = run(*NEW, *options).refusal(2)
    assert all(word in line for word in words), line
    assert len(line) < 2_000
    no_run_was_begun(run)


def test_a_csv_file_that_is_not_there(plant, run):
    Path("data.csv").unlink()
    line = run(*NEW).refusal(2)
    assert "data.csv: no such file" in line
    assert "check the path" in line
    no_run_was_begun(run)


def test_a_second_source_is_looked_at_before_the_run_too(plant, run):
    """The epoch is the first source's; the missing column of the second is found all the same."""
    Path("more.csv").write_text("time,other\n")
    more = '\n    twin.connect(tw.sources.csv("more.csv", time="time", map={"v": "plant.level"}))\n    twin.sink('
    changed("\n    twin.sink(", more)
    assert "column 'v' of more.csv" in run(*NEW).refusal(2)
    no_run_was_begun(run)


def test_a_map_to_a_path_that_the_model_does_not_declare(plant, run):
    changed('"value": "plant.level"', '"value": "plant.levle"')
    line = run(*NEW).refusal(2)
    assert "source 'data' sets 'plant.levle'" in line
    assert "model declares" in line
    no_run_was_begun(run)


def test_a_compressed_file_that_ends_too_early(plant, run):
    """What was read before the damage is in the journal; repaired, the run goes on from there."""
    rows = [f"2014-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z,{n * 7919 % 1000}\n" for n in range(6_000)]
    text = "time,value\n" + "".join(rows)
    whole = gzip.compress(text.encode())
    Path("data.csv.gz").write_bytes(whole[: len(whole) * 3 // 4])
    changed("data.csv", "data.csv.gz")
    line = run(*NEW, "--journal-batch", 500).refusal(2)
    assert "data.csv.gz: cannot be read on" in line
    assert "--resume" in line
    verified = run("verify", "j.tw", "--json").done()
    assert 0 < verified["inputs"] < 6_000
    Path("data.csv.gz").write_bytes(whole)
    resumed = run(*RESUMED).done()
    assert (resumed["inputs"], resumed["duplicates"], resumed["dead_letters"]) == (6_000, 0, 0)
    assert run("replay", "j.tw", "--json").done()["equal"] is True


ROWS = {  # row: the rule that buries it
    b"2014-01-01T00:00:00Z,1": None,
    b"2014-01-01T00:01:00Z,abc": "value",
    b"2014-01-01T00:02:00Z,NaN": "value",
    b"2014-01-01T00:03:00Z,Infinity": "value",
    b"2014-01-01T00:04:00Z,1e400": "value",
    b"2014-01-01T00:05:00Z,": "empty",
    b"2014-01-01T00:06:00Z,\xff": "encoding",
    b"2014-01-01T00:07:00Z": "fields",
    b"2014-01-01T00:08:00Z,1,2": "fields",
    b"soon,3": "time",
    b"NaN,3": "time",
    b"2014-02-30T00:00:00Z,3": "time",
    b"9999-01-01T00:00:00Z,3": "time",
    b'2014-01-01T00:09:00Z,"3': "csv",
    b"2014-01-01T00:10:00Z," + b"9" * 10_000_000: "size",
    b"2014-01-01T00:11:00Z," + b"9" * 1_000: "value",
    b'2014-01-01T00:12:00Z,"2"': None,
    b"\0\0\0\0": "fields",
    b" 2014-01-01T00:13:00Z , 3 ": None,
}


def test_rows_that_cannot_be_used(plant, run):
    """Counted by rule, shown with their number in the file; the run goes on, and its replay is equal."""
    Path("data.csv").write_bytes(b"time,value\n" + b"\n".join(ROWS) + b"\n")
    done = run(*NEW).done()
    wanted: dict[str, int] = {}
    for rule in filter(None, ROWS.values()):
        wanted[rule] = wanted.get(rule, 0) + 1
    assert done["dead"] == wanted
    assert (done["inputs"], done["dead_letters"]) == (3, sum(wanted.values()))
    letters = run("log", "j.tw", "--dead", "--json").done()["records"]
    numbers = [n for n, rule in enumerate(ROWS.values(), 1) if rule]
    assert [(letter["offset"], letter["rule"]) for letter in letters] == [(n, [*ROWS.values()][n - 1]) for n in numbers]
    for letter in letters:
        assert re.fullmatch(r".+: .+; .+", letter["message"]), letter
        assert "Traceback" not in letter["message"]
    shown = run("log", "j.tw", "--dead")
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out) < 30_000
    assert run("replay", "j.tw", "--json").done()["digest"] == done["digest"]
    verified = run("verify", "j.tw", "--json").done()
    assert verified["inputs"] == 3


def test_a_reading_below_the_disorder_bound(plant, run):
    """Exit 2 with the bound that would do; with exactly this bound every reading is used."""
    rows = ["10:00:00", "10:30:00.000000001", "10:07:07.654321", "11:00:00"]
    Path("data.csv").write_text("time,value\n" + "".join(f"2014-01-01T{time}Z,{n}\n" for n, time in enumerate(rows)))
    line = run(*NEW).refusal(2)
    assert "source 'data', message 3" in line
    (bound,) = re.findall(r"disorder of at least ([0-9.]+) s", line)
    assert "late='clamp' or late='drop'" in line
    run("verify", "j.tw", "--json").done()
    for journal, disorder, code in (("short.tw", float(bound) - 1e-3, 2), ("enough.tw", bound, 0)):
        Path("out.jsonl").unlink(missing_ok=True)
        changed('{"value": "plant.level"})', f'{{"value": "plant.level"}}), disorder="{disorder} s"')
        ended = run("run", "model.py", "--journal", journal, "--json")
        assert ended.code == code
    done = ended.done()
    assert (done["inputs"], done["late"], done["clamped"], done["dropped"]) == (4, 1, 0, 0)


def test_readings_before_the_epoch(plant, run):
    """A bound does not help there, an earlier epoch does."""
    line = run(*NEW, "--epoch", "2015-01-01T00:00:00Z").refusal(2)
    assert "message 1" in line
    assert "epoch" in line.split("; ")[-1]
    done = run("run", "model.py", "--journal", "k.tw", "--epoch", "2013-01-01T00:00:00Z", "--json").done()
    assert done["inputs"] == 5
