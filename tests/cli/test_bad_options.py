"""Options that make no sense: refused with their value, before anything is begun or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from plant import DATA, NEW, RESUMED, no_run_was_begun, write

pytestmark = pytest.mark.proof("senseless options are refused before anything is begun")

OPTIONS = [
    (["--until", "soon"], "soon"),
    (["--until", "nan"], "nan"),
    (["--until", "inf"], "inf"),
    (["--until", "1e300"], "1e+300"),
    (["--until", "8 parsecs"], "8 parsecs"),
    (["--until", "2014-13-07"], "2014-13-07"),
    (["--until", "2014-02-30T00:00:00Z"], "2014-02-30"),
    (["--until", "12:30"], "12:30"),
    (["--until", "-5"], "-5"),
    (["--until", "-2 h"], "-2 h"),
    (["--until", ""], "''"),
    (["--factor", "-1"], "-1"),
    (["--factor", "nan"], "nan"),
    (["--factor", "inf"], "inf"),
    (["--factor", "fast"], "fast"),
    (["--seed", "-1"], "-1"),
    (["--seed", str(2**64)], str(2**64)),
    (["--seed", "0.5"], "0.5"),
    (["--epoch", "nonsense"], "nonsense"),
    (["--epoch", "2014-02-30T00:00:00Z"], "2014-02-30"),
    (["--epoch", "1e30"], "1e30"),
    (["--journal-batch", "0"], "0"),
    (["--journal-batch", "8193"], "8193"),
    (["--journal-batch", "many"], "many"),
    (["--no-such-option"], "--no-such-option"),
    (["surplus"], "surplus"),
]


@pytest.mark.parametrize(("options", "value"), OPTIONS, ids=[" ".join(options) for options, _ in OPTIONS])
def test_an_option_that_makes_no_sense(plant, run, options, value):
    """Exit 2 with the value, before anything is begun; the same where nothing but --json differs."""
    assert value in run(*NEW, *options).refusal(2)
    assert value in run(*NEW[:-1], *options).refusal(2)
    no_run_was_begun(run)


def test_an_end_before_the_epoch(plant, run):
    """Exit 2: not a run of no length that looks as if it had been done. Nor is there a time beyond int64 ns."""
    line = run(*NEW, "--until", "2010-01-01T00:00:00Z").refusal(2)
    assert "2010-01-01" in line
    assert "2014-01-01" in line
    far = run(
        "run", "model.py", "--journal", "k.tw", "--epoch", "1700-01-01T00:00:00Z", "--until", "2200-01-01T00:00:00Z"
    )
    assert "292 years" in far.refusal(2)


def test_an_end_that_lies_behind_the_run(plant, run):
    """The same command may be given again, so it is no error; one line says that nothing was executed."""
    stands_s = run(*NEW).done()["virtual_time_s"]
    assert run(*RESUMED, "--until", "0.5").done()["virtual_time_s"] == stands_s
    told = run(*(word for word in RESUMED if word != "--json"), "--until", "0.5").out
    assert told.startswith(f"beyond 0.5 already, at {stands_s:,.3f} s")


def test_another_epoch_is_refused_as_it_was_given(plant, run):
    """Not as nanoseconds that nobody has typed."""
    run(*NEW).done()
    line = run(*RESUMED, "--epoch", "2013-12-31").refusal(2)
    assert "epoch=2013-12-31: j.tw was begun with 20" in line
    assert "begin a new journal" in line


def test_a_model_whose_name_is_no_text(plant, run):
    """Journals hold text: exit 2, and no journal is begun."""
    name = os.fsdecode(b"m\xff.py")
    Path(name).write_bytes(Path("model.py").read_bytes())
    assert "rename the file" in run("run", name, "--journal", "k.tw").refusal(2)


def test_an_end_may_be_a_small_number(plant, run):
    """1e-5 is a number of seconds, although it has a minus sign in it like a date."""
    assert run(*NEW, "--until", "1e-5").done()["virtual_time_s"] == 1e-5
    assert run(*RESUMED, "--until", "2e-1 min").done()["virtual_time_s"] == 12


@pytest.mark.parametrize("head", ["", "abc", "0" * 63, "0" * 65, "g" * 64, "0" * 62 + "é"])
def test_a_head_that_is_none(plant, run, head):
    run(*NEW).done()
    line = run("verify", "j.tw", "--head", head, "--json").refusal(2)
    assert "a head is 64 hex digits" in line


@pytest.mark.parametrize(
    "words",
    [
        ["replay", "j.tw", "--until", "nan"],
        ["replay", "j.tw", "--until", "soon"],
        ["replay", "j.tw", "--model", "missing.py"],
        ["replay", "j.tw", "--model", "broken.py"],
        ["log", "j.tw", "--from", "soon"],
        ["log", "j.tw", "--to", "inf"],
        ["log", "j.tw", "--kind", "nonsense"],
        ["log", "j.tw", "--limit", "0"],
        ["log", "j.tw", "--after", "-1"],
        ["log", "j.tw", "--out", "rows.xlsx"],
        ["log", "j.tw", "--out", "no/such/rows.csv"],
        ["log", "j.tw", "--out", "data.csv"],
        ["verify", "j.tw", "k.tw"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_readers_refuse_options_that_make_no_sense(plant, run, words):
    run(*NEW).done()
    write("raise ValueError", "broken.py")
    run(*words, "--json").refusal(2)
    assert Path("data.csv").read_text() == DATA
    run("verify", "j.tw", "--json").done()
