"""``tidewarp demo`` on its real telemetry: three runs, one digest, a page that stands alone, commands that work."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

import tidewarp
from tidewarp.cli import demo, main
from tidewarp.cli.child import Child, JournalCount
from tidewarp.cli.history import days, read_history, same_outputs
from tidewarp.cli.report import write_report
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.worlds import factory

SOURCE = str(Path(tidewarp.__file__).parents[1])
READINGS = 22_695
ENV = {**os.environ, "PYTHONPATH": SOURCE}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The place where the demo ran once, as a user runs it, and the JSON that it printed."""
    place = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(
        [sys.executable, "-m", "tidewarp", "demo", "--json"], cwd=place, env=ENV, capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stderr == b""
    return place, json.loads(ran.stdout)


@pytest.fixture(scope="module")
def history(done):
    """The recovered run."""
    folder = done[0] / "tidewarp-demo"
    return read_history(folder / "line.tw", folder / "events.jsonl")


@pytest.fixture(scope="module")
def page(done):
    """The report, and the report without plotly.js."""
    place, document = done
    text = (place / document["report"]).read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    return text, text.replace(get_plotlyjs(), "")


def readings_of_the_file():
    with gzip.open(factory.SAMPLE, "rt") as file:
        return [line.split(",")[0] for line in list(file)[1:]]


@pytest.mark.proof("79 days live, killed or replayed have one digest")
def test_three_runs_have_one_digest(done, record_property):
    """Undisturbed, killed and replayed, the run is the same, and the same as on the README's picture of it."""
    _, document = done
    digests = {document[f"digest_{run}"] for run in ("live", "recovered", "replayed")}
    assert len(digests) == 1
    digest = digests.pop()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert (Path(__file__).parents[2] / "README.md").read_text().count(digest[:24]) == 3
    assert (document["equal"], document["outputs_equal"]) == (True, True)
    record_property("trials", 3)


def test_telemetry_is_the_real_one(done):
    """What it says of the readings is true of the file that ships."""
    _, document = done
    times = readings_of_the_file()
    late = sum(time < max(times[max(0, n - 100) : n], default="") for n, time in enumerate(times))
    assert (document["readings"], document["late"], document["repeated_times"]) == (READINGS, 11, 12)
    assert (len(times), late, len(times) - len(set(times))) == (READINGS, 11, 12)


def test_kill_came_in_mid_run(done, history):
    """At least half of the readings and not all were durable; the recovery began there, with parts in progress."""
    _, document = done
    killed = document["killed_at"]
    assert READINGS // 2 <= killed["readings"] < READINGS
    assert 0 < killed["outputs"] < document["outputs"]
    assert history.resumed == [killed["tick"]]
    assert 0.4 * history.end_s < killed["virtual_time_s"] < 0.9 * history.end_s
    hours = [at_s for at_s, _ in history.samples]
    before = history.samples[bisect_left(hours, killed["virtual_time_s"]) - 1][1]
    assert abs(killed["parts_in_progress"] - before["in_progress"]) < 40


def test_undisturbed_run_has_no_second_life(done):
    """The run that the others are compared with was neither killed nor resumed."""
    folder = done[0] / "tidewarp-demo" / "uninterrupted"
    assert read_history(folder / "line.tw", folder / "events.jsonl").resumed == []


def test_work_in_progress_is_what_the_line_counted(history):
    """Counted from parts, work in progress equals the line's own hourly samples, up to its last two days."""
    sure = [(at_s, sample) for at_s, sample in history.samples if at_s < history.end_s - 2 * 86_400]
    for at_s, sample in sure[::50]:
        assert history.in_progress(at_s) == sample["in_progress"]


def test_days_hold_all_that_happened(history):
    """The table by day loses no reading, no part and no hour."""
    table = days(history)
    assert sum(len(day.degf) for day in table) == READINGS
    assert sum(day.finished + day.scrapped for day in table) == len(history.parts)
    assert sum(sum(day.hours.values()) for day in table) == pytest.approx(history.end_s / 3_600)
    assert all(sum(day.hours.values()) <= 24.001 for day in table)


def test_document_has_what_the_contract_names(done):
    """Every promised key; nothing is said of futures, which this release has not."""
    place, document = done
    assert document["journal"] == "tidewarp-demo/line.tw"
    assert (place / document["model"]).read_bytes() == Path(factory.SAMPLE).with_name("factory.py").read_bytes()
    assert set(document["seconds"]) == {"uninterrupted", "killed", "recovered", "replayed", "report", "total"}
    assert document["seconds"]["total"] < 60
    assert not [name for name in document if "futures" in name or "coverage" in name]


def test_journal_stands_alone(done, tmp_path):
    """The journal file without its neighbours holds the whole run: the head in the answer is in it."""
    place, document = done
    alone = shutil.copyfile(place / document["journal"], tmp_path / "line.tw")
    assert tidewarp.twin.verify(alone, head=document["head"]).head == document["head"]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:5], lines[4], *lines[5:]],
        lambda lines: [lines[0].replace(b'"attempt":1', b'"attempt":2'), *lines[1:]],
        lambda lines: [*lines, lines[-1]],
    ],
    ids=["one missing", "one twice", "another value", "one more"],
)
def test_outputs_that_differ_are_seen(done, tmp_path, change):
    """A file of outputs with one missing, doubled, changed or added is not the same."""
    folder = done[0] / "tidewarp-demo"
    shutil.copyfile(folder / "line.tw", tmp_path / "line.tw")
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)[:1_000]
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines))
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(folder / "line.tw", other / "line.tw")
    (other / "events.jsonl").write_bytes(b"".join(change(lines)))
    assert same_outputs(tmp_path, tmp_path) == 1_000
    assert same_outputs(tmp_path, other) is None


def test_outputs_twice_in_both_files_are_seen(tmp_path, done):
    """Two files that agree, but hold an output twice, do not pass as once."""
    folder = done[0] / "tidewarp-demo"
    shutil.copyfile(folder / "line.tw", tmp_path / "line.tw")
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)[:10]
    (tmp_path / "events.jsonl").write_bytes(b"".join([*lines, lines[-1]]))
    assert same_outputs(tmp_path, tmp_path) is None


def test_screen_is_one_and_its_commands_work(done, monkeypatch, capsys):
    """In 80 columns and 26 lines: digests, paths, head, and three commands that run when pasted."""
    place, document = done
    monkeypatch.chdir(place)
    monkeypatch.setattr(demo, "perform", lambda folder, seed, bar: document)
    assert main(["demo"]) == 0
    screen = capsys.readouterr().out
    lines = screen.splitlines()
    assert len(lines) <= 26
    assert max(map(len, lines[: lines.index("Try next:")])) <= 80
    assert screen.count(document["digest_live"][:24]) == 3
    for shown in ("22,695", "25,420", document["journal"], document["report"], document["head"]):
        assert shown in screen
    pasted = screen.partition("Try next:\n")[2]
    assert len(pasted.replace("\\\n", "").splitlines()) == 3
    shell = subprocess.run(["sh", "-ec", pasted], env=ENV, capture_output=True, text=True, timeout=60)
    assert shell.returncode == 0, shell.stderr
    assert "nothing before it is missing" in shell.stdout
    assert shell.stdout.count("line.furnace.temperature = ") == 5
    assert document["digest_live"] in shell.stdout


@pytest.mark.parametrize("key", ["equal", "outputs_equal"])
def test_difference_fails(done, monkeypatch, capsys, tmp_path, key):
    """If digests or outputs differ the command ends with 1 and says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "perform", lambda folder, seed, bar: {**done[1], key: False})
    assert main(["demo"]) == 1
    assert "DIFFER" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["-odd/line.tw", "two words/it's.tw", "x" * 90 + "/line.tw"])
def test_folded_command_means_the_same(path):
    """Folded or not, the shell reads the words that were meant."""
    words = ["printf", "%s\\n", "verify", path, "--head", "0" * 64]
    shell = subprocess.run(["sh", "-ec", demo._folded(shlex.join(words))], capture_output=True, text=True, timeout=60)
    assert shell.stdout.splitlines() == words[2:]


def test_page_loads_nothing_from_elsewhere(page):
    """No address of another host outside of plotly's own source, and a policy that forbids any load."""
    _, own = page
    assert "default-src 'none'" in own
    assert not re.search(r"https?:|//[a-z]|\b(src|href)\s*=|@import|url\(", own)


def test_page_shows_the_figures(page, done, history):
    """Full digests, counts, every reading as a point, and the table of days as text."""
    _, own = page
    _, document = done
    assert own.count(document["digest_live"]) == 3
    for shown in (document["head"], "22,695", "25,420", f"{document['killed_at']['readings']:,}"):
        assert shown in own
    plots = json.loads(re.search(r'id="plots">(.*?)</script>', own)[1])
    assert [plot["id"] for plot in plots] == ["temperature", "progress", "days", "made"]
    assert plots[0]["data"][0]["y"] == [round(degf, 2) for _, degf in history.readings]
    assert sum(plots[2]["data"][0]["y"]) + sum(plots[2]["data"][1]["y"]) == len(history.parts)
    kill_ms = history.epoch_ns // 10**6 + round(document["killed_at"]["virtual_time_s"] * 1_000)
    assert all(plot["layout"]["shapes"][0]["x0"] == kill_ms for plot in plots)
    assert own.count('<th scope="row">20') == len(days(history))
    assert own.count('role="img" aria-label="') == 4


def test_page_escapes_what_comes_from_outside(done, history, tmp_path):
    """A path that looks like markup stays text, and control characters are shown as numbers."""
    hostile = "</script><img src=x onerror=alert(1)>\x1b[2J"
    changed = dict.fromkeys(("journal", "model", "head", "digest_live", "seed"), hostile) | {"next": [hostile]}
    write_report(tmp_path / "report.html", {**done[1], **changed}, history)
    text = (tmp_path / "report.html").read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "<img" not in text
    assert "\x1b" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;\\x1b[2J") == 6


@pytest.mark.parametrize(
    ("out", "said"),
    [("full", "not empty"), ("file", "is a folder"), ("file/below", "Not a directory"), ("/proc/none", "No such file")],
)
def test_folder_that_will_not_do_is_refused(out, said, monkeypatch, tmp_path, capsys):
    """A folder with something in it, a file, or what cannot be made ends with 2 before anything runs."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_without_a_name_is_the_next_free_one(monkeypatch, tmp_path):
    """Whatever is there keeps its name: the demo takes the next number."""
    monkeypatch.chdir(tmp_path)
    Path("tidewarp-demo").write_text("a file of that name")
    assert [str(demo.make_folder(None)) for _ in range(2)] == ["tidewarp-demo-2", "tidewarp-demo-3"]
    assert demo.make_folder(Path("new/one")).is_dir()


def test_sigterm_ends_the_demo_as_interrupt_does():
    """The blocks that end the child are left in order, and the signal means afterwards what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), demo._ended_as_by_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_child_does_not_outlive_its_block(tmp_path):
    """However the block ends, the run is dead after it."""
    (tmp_path / "model.py").write_text("while True:\n    pass\n")
    with Child(tmp_path, "model.py", 0, 512) as child:
        pass
    assert child._process.returncode == -9


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("raise ValueError('spoilt')", OperatorError, "spoilt"),
        ("def build(twin):\n    twin.publish_event('', 1)", TidewarpError, "printable"),
        ("import os\nos.write(2, b'last words')\nos._exit(7)", OperatorError, "ended with 7: last words"),
    ],
    ids=["import", "model", "no answer"],
)
def test_child_that_fails_says_why(model, kind, said, tmp_path):
    """The error of a run is the demo's, also where the run gave no answer."""
    (tmp_path / "model.py").write_text(model)
    with Child(tmp_path, "model.py", 0, 512) as child:
        assert child.watch(1, lambda done: None) is False
        with pytest.raises(kind, match=said):
            child.summary()


def test_child_imports_from_where_its_parent_does(monkeypatch, tmp_path):
    """A relative PYTHONPATH, as in a source tree, names the same folders for a run in another working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["source", SOURCE]))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "parts.py").write_text("raise ValueError('found beside the parent')")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.py").write_text("import parts")
    with Child(tmp_path / "run", "model.py", 0, 512) as child, pytest.raises(OperatorError, match="found beside"):
        child.summary()


def test_run_that_ends_too_soon_is_no_show(monkeypatch, tmp_path):
    """If no run can be killed half-way, smaller records are tried and then the demo fails; it never pretends."""
    tried = []

    class Quick(Child):
        def __init__(self, folder, model, seed, batch):
            tried.append(batch)
            assert not (folder / "line.tw").exists()
            super().__init__(folder, model, seed, batch)

        def watch(self, readings, advance):
            return super().watch(None, advance)

    text = "def build(twin):\n    twin.variable('x', float, 1.0)\n"
    (tmp_path / "factory.py").write_text(text)
    monkeypatch.setattr(demo, "Child", Quick)
    with pytest.raises(TidewarpError, match="before it could be killed"):
        demo._kill_half_way(tmp_path, 0, 10, demo._Course(demo.ProgressBar("", quiet=True)))
    assert tried == list(demo.BATCHES)


def test_journal_is_counted_while_it_grows(done, tmp_path):
    """No journal counts 0 readings, and one that appears counts all of its readings, once."""
    count = JournalCount(tmp_path / "line.tw")
    assert count.now() == 0
    shutil.copyfile(done[0] / done[1]["journal"], tmp_path / "line.tw")
    assert (count.now(), count.now()) == (READINGS, READINGS)
    count.close()
