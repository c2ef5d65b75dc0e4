"""Bad input to the command `tidewarp`: one `error:` line or counted dead letters, and nothing acknowledged is lost."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import signal
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidewarp import observe
from tidewarp.store import open_store, sqlite

MODEL = """
import tidewarp as tw

def build(twin):
    level = twin.variable("plant.level", float)

    def watch():
        while True:
            change = yield level.wait_for_change()
            twin.publish_event("plant.seen", change.new)

    twin.process(watch())
    twin.connect(tw.sources.csv("data.csv", time="time", map={"value": "plant.level"}))
    twin.sink(tw.sinks.jsonl("out.jsonl"))
"""
DATA = "time,value\n" + "".join(f"2014-01-01T00:{n:02d}:00Z,{n}\n" for n in range(5))
NEW = ("run", "model.py", "--journal", "j.tw", "--json")  # a run that begins its journal
RESUMED = (*NEW, "--resume")


@pytest.fixture
def plant(place: Path) -> Path:
    """A model and its five readings, in the working directory."""
    write(MODEL)
    Path("data.csv").write_text(DATA)
    return place


def write(model: str, name: str = "model.py") -> None:
    Path(name).write_text(model)


def changed(old: str, new: str) -> None:
    """Write the model with a part of it replaced."""
    assert old in MODEL
    write(MODEL.replace(old, new))


def records(journal: str = "j.tw") -> int:
    """How many a journal has; 0 for one that was not begun."""
    if not Path(journal).exists():
        return 0
    with open_store(journal, read_only=True) as store:
        return store.journal.size


def outputs() -> list[tuple[str, object]]:
    """What the sink holds: (id, value), each id once and ascending."""
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    ids = [line["id"] for line in lines]
    assert ids == sorted(set(ids))
    return [(line["id"], line["value"]) for line in lines]


def no_run_was_begun(run) -> None:
    """What could not start is started again without --resume, once it is mended."""
    assert records() == 0
    write(MODEL)
    if Path("data.csv").is_dir():
        Path("data.csv").rmdir()
    Path("data.csv").write_text(DATA)
    assert run(*NEW).done()["inputs"] == 5


# ---------------------------------------------------------------------- a source that cannot be read


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
    b"2014-01-01T00:05:00Z,": "value",
    b"2014-01-01T00:06:00Z,\xff": "utf-8",
    b"2014-01-01T00:07:00Z": "fields",
    b"2014-01-01T00:08:00Z,1,2": "fields",
    b"soon,3": "time",
    b"NaN,3": "time",
    b"2014-02-30T00:00:00Z,3": "time",
    b"9999-01-01T00:00:00Z,3": "time",
    b'2014-01-01T00:09:00Z,"3': "csv",
    b"2014-01-01T00:10:00Z," + b"9" * 10_000_000: "too-long",
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


# ---------------------------------------------------------------------- a model that cannot be used


MODELS = {
    "no build": ("x = 1", ["model.py", "build", "define build(twin)"]),
    "build is no function": ("build = 3", ["model.py", "build", "define build(twin)"]),
    "no Python": ("def build(twin:", ["model.py", "SyntaxError", "mend it"]),
    "not text": ("x = '\0'", ["model.py", "SyntaxError", "mend it"]),
    "raises on import": ("raise ValueError('boom')", ["model.py", "ValueError: boom", "mend it"]),
    "ends the process on import": ("import sys; sys.exit(5)", ["model.py", "SystemExit: 5", "mend it"]),
    "imports what is not there": ("import no_such_module", ["model.py", "no_such_module", "mend it"]),
    "build raises": ("def build(twin):\n    raise ValueError('two\\nlines')", ["build: ValueError: two", "mend the"]),
    "build ends the process": ("def build(twin):\n    raise SystemExit(7)", ["build: SystemExit: 7", "mend the model"]),
    "build takes no twin": ("def build():\n    pass", ["build: TypeError", "mend the model"]),
    "build is a generator": ("def build(twin):\n    yield", ["build: a generator function", "plain function"]),
    "build is a coroutine": ("async def build(twin):\n    pass", ["build: a coroutine function", "plain function"]),
}


@pytest.mark.parametrize(("model", "words"), MODELS.values(), ids=MODELS)
def test_a_model_that_cannot_be_built(plant, run, model, words):
    """Exit 2: what is wrong with it, and no journal is begun."""
    write(model)
    line = run(*NEW).refusal(2)
    assert all(word in line for word in words), line
    no_run_was_begun(run)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("missing.py", ["missing.py: no such file"]),
        (".", ["a model is a Python file"]),
        ("", ["a model is a Python file"]),
        ("data.csv", ["data.csv", "a model is a Python file"]),
        ("model.py:other", ["model.py: other", "define other(twin)"]),
        ("model.py/x.py", ["model.py/x.py"]),
        ("x" * 300 + ".py", ["xxx"]),
    ],
)
def test_a_model_that_is_not_there(plant, run, spec, words):
    line = run("run", spec, "--journal", "j.tw", "--json").refusal(2)
    assert all(word in line for word in words), line
    no_run_was_begun(run)


def test_a_module_beside_the_model_may_be_anything(plant, run):
    """One that the model tries in vain is part of the model digest, and no error."""
    Path("optional_part.py").write_text("def (")
    write(MODEL + "\ntry:\n    import optional_part\nexcept SyntaxError:\n    pass\n")
    run(*NEW).done()


RAISES = {  # what a process does at 00:03, and what the error line says of it
    "1 / 0": "ZeroDivisionError: division by zero",
    "raise Unmakeable(1, 2)": "Unmakeable: cannot be made again",
    "raise Mute": "Mute: its message raises RuntimeError",
    "raise ValueError('x' * 3_000_000)": "ValueError: xxx",
    "raise ValueError('\\ud800')": r"ValueError: \ud800",
    "raise ValueError('two\\nlines')": r"ValueError: two\nlines",
    "raise SystemExit(4)": "SystemExit: 4",
    "raise BaseException('b')": "BaseException: b",
    "raise GeneratorExit": "GeneratorExit",
    "level.update('abc')": "value 'abc' for plant.level: not a number",
    "twin.registry.update('no.such', 1)": "path 'no.such': no such path",
    "yield 5": 'Invalid yield value "5"',
    "yield twin.env.timeout(-1)": "Negative delay -1",
}


@pytest.mark.parametrize(("statement", "said"), RAISES.items())
def test_a_process_that_raises(plant, run, statement, said):
    """Exit 1 where and when; the journal is closed with a stop; resuming repeats it; the mended model goes on.

    What comes of the mended one is what it would have come to without the accident, outputs included.
    """
    classes = """
class Unmakeable(Exception):
    def __init__(self, a, b):
        super().__init__("cannot be made again")

class Mute(Exception):
    def __str__(self):
        raise RuntimeError
"""
    broken = MODEL.replace(
        "twin.publish_event", f"if twin.now == 180:\n                {statement}\n            twin.publish_event"
    )
    write(classes + broken)
    line = run(*NEW).refusal(1)
    assert said in line, line
    if "x" * 100 not in line:
        assert "at 180 s" in line, line
        assert "in watch, model.py:" in line or "yield 5" in line, line
    assert "mend the model" in line
    (stop,) = run("log", "j.tw", "--kind", "stop", "--json").done()["records"]
    assert stop["reason"] == "model"
    assert len(stop["detail"]) < 10_000
    inputs = run("log", "j.tw", "--kind", "input", "--json").done()["records"]
    run("verify", "j.tw", "--json").done()
    assert run(*RESUMED).refusal(1) == line
    run("verify", "j.tw", "--json").done()
    write(MODEL)
    assert "model.py changed" in run(*RESUMED).refusal(2)
    done = run(*RESUMED, "--accept-model").done()
    seen = outputs()
    assert run("log", "j.tw", "--kind", "input", "--json").done()["records"][: len(inputs)] == inputs
    assert run("replay", "j.tw", "--json").done()["equal"] is True
    Path("out.jsonl").unlink()
    undisturbed = run("run", "model.py", "--journal", "k.tw", "--json").done()
    assert (done["digest"], seen) == (undisturbed["digest"], outputs())


def test_a_failed_model_that_is_not_mended_ends_as_often_as_it_is_tried(plant, run):
    """Each time the same line, and the inputs stay what they were."""
    write(MODEL.replace("twin.publish_event", "1 / 0; twin.publish_event"))
    lines = {run(*(NEW if n == 0 else RESUMED)).refusal(1) for n in range(4)}
    assert len(lines) == 1
    verified = run("verify", "j.tw", "--json").done()
    assert verified["inputs"] <= 5


def test_a_build_that_is_an_object(plant, child):
    """Anything that can be called will do; what it raises is reported like a function's."""
    write("class Odd(dict):\n    def __call__(self, twin): raise KeyError('odd')\nbuild = Odd()")
    assert "Odd: KeyError: 'odd'" in child(*NEW).refusal(2)


# ---------------------------------------------------------------------- a model that is not the journal's


def test_a_changed_model(plant, run):
    """Exit 2 naming the files; the model itself, and a module beside it that it imports."""
    Path("parts_of_the_plant.py").write_text("LIMIT = 3\n")
    write("import parts_of_the_plant\n" + MODEL)
    first = run(*NEW).done()
    assert run(*RESUMED).done()["digest"] == first["digest"]
    Path("parts_of_the_plant.py").write_text("LIMIT = 4\n")
    line = run(*RESUMED).refusal(2)
    assert "parts_of_the_plant.py changed" in line
    assert "model.py" not in line.replace("--accept-model", "")
    assert "--accept-model" in line
    write(MODEL + "\n")
    line = run(*RESUMED).refusal(2)
    assert "model.py" in line
    assert "parts_of_the_plant.py" in line
    before = records()
    assert run(*RESUMED, "--accept-model").done()["digest"] == first["digest"]
    assert records() > before
    replayed = run("replay", "j.tw", "--json").done()
    assert (replayed["equal"], replayed["model_changed"]) == (True, ["model.py", "parts_of_the_plant.py"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('map={"value": "plant.level"}', 'map={"other": "plant.level"}'),
        ('time="time"', 'time="other"'),
        ('{"value": "plant.level"})', '{"value": "plant.level"}), late="drop"'),
        ('{"value": "plant.level"})', '{"value": "plant.level"}), disorder=5'),
        ('{"value": "plant.level"})', '{"value": "plant.level"}), name="renamed"'),
        (
            'tw.sources.csv("data.csv", time="time", map=',
            'tw.sources.csv("data.csv", time="time", tz="Europe/Berlin", map=',
        ),
    ],
)
def test_a_source_that_is_connected_in_another_way(plant, run, old, new):
    """Exit 2 naming the source, where the model's text did not change: it came from a file that is not its own."""
    write(
        'import tidewarp as tw\nfrom pathlib import Path\ndef build(twin):\n    exec(Path("wiring.txt").read_text(), {"tw": tw, "twin": twin})\n'
    )
    body = MODEL.partition("def build(twin):\n")[2]
    wiring = "\n".join(line.removeprefix("    ") for line in body.splitlines())
    Path("wiring.txt").write_text(wiring)
    Path("data.csv").write_text("time,value,other\n1388534400,1,1388534400\n")
    run(*NEW).done()
    assert old in wiring
    Path("wiring.txt").write_text(wiring.replace(old, new))
    line = run(*RESUMED).refusal(2)
    assert "source 'data'" in line
    assert "connected in another way" in line
    assert "--accept-model" in line


def test_a_model_that_looks_outside(plant, run):
    """Its own journal tells: exit 1 with the time of the first mark that differs."""
    write("from pathlib import Path\n" + MODEL.replace("change.new)", 'Path("outside.txt").read_text())'))
    Path("outside.txt").write_text("one")
    run(*NEW).done()
    Path("outside.txt").write_text("two")
    line = run(*RESUMED).refusal(1)
    assert "outputs" in line
    assert "the mark at 240.000 s" in line
    assert "time, random, files" in line
    replayed = run("replay", "j.tw", "--json")
    assert (replayed.code, replayed.document["equal"]) == (1, False)
    assert "outputs" in replayed.document["first_difference"]["parts"]


# ---------------------------------------------------------------------- a journal that is none


def not_journals() -> dict[str, Callable[[], object]]:
    """Name -> what makes it."""

    def database() -> None:
        with sqlite3.connect("other.tw") as db:
            db.execute("CREATE TABLE t (a)")
        db.close()

    return {
        "folder.tw": lambda: Path("folder.tw").mkdir(),
        "no/such/folder.tw": lambda: None,
        "text.tw": lambda: Path("text.tw").write_text("Dear diary,\n" * 500),
        "short.tw": lambda: Path("short.tw").write_text("xy"),
        "other.tw": database,
        "data.csv/j.tw": lambda: None,
        "x" * 300: lambda: None,
        "pipe.tw": lambda: os.mkfifo("pipe.tw"),
    }


@pytest.mark.parametrize("name", not_journals())
def test_a_journal_that_is_none(plant, run, name):
    """Exit 2 for whoever wants to use it, with its name and what it is; it is left as it was."""
    not_journals()[name]()
    kind = stat.S_IFMT(Path(name).stat().st_mode) if os.path.lexists(name[:200]) and len(name) < 200 else None
    before = Path(name).read_bytes() if kind == stat.S_IFREG else None
    for command in ("replay", "log"):
        assert name[:100] in run(command, name, "--json").refusal(2)
    for more in ((), ("--resume",)):
        line = run("run", "model.py", "--journal", name, "--json", *more).refusal(2)
        assert name[:100] in line
        assert "PosixPath" not in line
    if before is None:
        assert name[:100] in run("verify", name).refusal(2)
    else:
        assert "page 1" in run("verify", name).refusal(1)  # it may be one that is damaged
        assert Path(name).read_bytes() == before
    assert not Path("out.jsonl").exists()


def test_an_empty_file_is_a_journal_that_was_not_begun(plant, run):
    """SQLite makes an empty file first, so a creation that was interrupted leaves one."""
    Path("j.tw").touch()
    for command in ("replay", "log"):
        assert "not a tidewarp journal" in run(command, "j.tw", "--json").refusal(2)
    assert "page 1" in run("verify", "j.tw").refusal(1)
    run(*NEW).done()


@pytest.mark.parametrize("command", ["replay", "log", "verify"])
def test_a_journal_that_is_not_there(plant, run, command):
    """Reading makes none."""
    assert "j.tw: there is no such journal" in run(command, "j.tw", "--json").refusal(2)
    assert not Path("j.tw").exists()


def test_resume_on_a_missing_file_starts(plant, run):
    assert run(*RESUMED).done()["resumed"] is False


def test_a_file_that_holds_a_run_needs_resume(plant, run):
    """Exit 2, and nothing is written to it."""
    run(*NEW).done()
    before = records()
    line = run(*NEW).refusal(2)
    assert "j.tw" in line
    assert "--resume" in line
    assert records() == before


def test_a_journal_without_a_twin(place, run):
    """Opened, never begun: nothing to replay or to show, nothing wrong."""
    open_store("j.tw", create=True).close()
    for command in ("replay", "log"):
        assert "begins with tw.open" in run(command, "j.tw", "--json").refusal(2)
    assert run("verify", "j.tw", "--json").done()["records"] == 0


def test_a_damaged_journal(plant, run):
    """Exit 1 with the record, from each command that reads it; the others are for `verify`."""
    run(*NEW).done()
    with sqlite3.connect("j.tw") as db:
        db.execute("UPDATE log SET body = zeroblob(length(body)) WHERE id = (1 << 44) + 3")
    db.close()
    for words in (RESUMED, ("replay", "j.tw", "--json"), ("log", "j.tw", "--json")):
        assert "record 3" in run(*words).refusal(1)
    bad = run("verify", "j.tw", "--json")
    assert (bad.code, bad.document["ok"], bad.document["first_bad"]["seq"]) == (1, False, 3)
    assert "record 3" in run("verify", "j.tw").refusal(1)


def test_a_replay_whose_model_moved(plant, run):
    """The recorded path is tried; --model names another."""
    run(*NEW).done()
    Path("model.py").rename("moved.py")
    assert "model.py: no such file" in run("replay", "j.tw", "--json").refusal(2)
    assert run("replay", "j.tw", "--model", "moved.py", "--json").done()["equal"] is True


@pytest.mark.parametrize(
    ("content", "words"),
    [("notes\n", "its last line is"), ('{"id":"1"}\n', "its last line is"), ("notes", "it begins with")],
)
def test_a_sink_does_not_overwrite_what_is_not_its_own(plant, run, content, words):
    Path("out.jsonl").write_text(content)
    line = run(*NEW).refusal(2)
    assert "out.jsonl" in line
    assert words in line
    assert Path("out.jsonl").read_text() == content
    assert records() == 0


def test_a_sink_of_another_run(plant, run):
    """A second journal does not go on with the first one's outputs."""
    run(*NEW).done()
    held = outputs()
    line = run("run", "model.py", "--journal", "k.tw", "--json").refusal(2)
    assert "another" in line
    assert "out.jsonl" in line
    assert (outputs(), records("k.tw")) == (held, 0)


def test_a_sink_without_a_folder(plant, run):
    changed("out.jsonl", "no/such/out.jsonl")
    assert "no/such/out.jsonl: no such file or directory" in run(*NEW).refusal(2)
    no_run_was_begun(run)


# ---------------------------------------------------------------------- options


OPTIONS = [
    (["--until", "soon"], "soon"),
    (["--until", "nan"], "nan"),
    (["--until", "inf"], "inf"),
    (["--until", "1e300"], "1e+300"),
    (["--until", "8 parsecs"], "8 parsecs"),
    (["--until", "2014-01-07"], "2014-01-07"),
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


# ---------------------------------------------------------------------- permissions


AS_NOBODY = """
import contextlib, encodings.utf_8_sig, importlib, io, os, sys
from tidewarp.cli import main
for name in ("run", "replay", "verify", "log"):
    importlib.import_module(f"tidewarp.cli.{name}")
for name in ("csv", "jsonl"):
    importlib.import_module(f"tidewarp.connect.backends.{name}")
with contextlib.redirect_stdout(io.StringIO()):  # whatever is imported late is imported now
    assert main(["doctor", "--json"]) == 0
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def nobody(require, plant, child, monkeypatch) -> Iterator[Callable[..., object]]:
    """``nobody("verify", "j.tw")``: the command as another user, in a directory that this one reaches."""
    require("otheruid")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("model.py", "data.csv"):
            (folder / file).write_bytes(Path(file).read_bytes())
        folder.chmod(0o777)
        monkeypatch.chdir(folder)

        def call(*argv: object) -> object:
            return child(*argv, command=(sys.executable, "-W", "error", "-c", AS_NOBODY))

        yield call
        folder.chmod(0o755)


@pytest.mark.parametrize("file", ["model.py", "data.csv"])
def test_a_file_that_this_user_may_not_read(nobody, file):
    """Model or data: exit 2 with its name."""
    Path(file).chmod(0o600)
    line = nobody(*NEW).refusal(2)
    assert file in line
    assert "permission" in line.lower()
    assert not Path("out.jsonl").exists()


def test_a_journal_that_this_user_may_not_read(nobody, run, monkeypatch):
    folder = Path.cwd()
    run(*NEW).done()
    assert Path.cwd() == folder
    Path("j.tw").chmod(0o600)
    for words in (("verify", "j.tw", "--json"), ("replay", "j.tw", "--json"), ("log", "j.tw", "--json"), RESUMED):
        line = nobody(*words).refusal(2)
        assert "j.tw" in line
        assert "permission" in line


def test_a_journal_that_this_user_may_only_read(nobody, run):
    """Verified, replayed and shown also from a folder that cannot be written; not continued."""
    run(*NEW).done()
    for extra in ("-wal", "-shm"):
        Path(f"j.tw{extra}").unlink(missing_ok=True)
    Path.cwd().chmod(0o755)
    before = sorted(os.listdir())
    assert nobody("verify", "j.tw", "--json").done()["ok"] is True
    assert nobody("replay", "j.tw", "--json").done()["equal"] is True
    assert nobody("log", "j.tw", "--json").done()["count"] > 5
    line = nobody(*RESUMED).refusal(2)
    assert "j.tw" in line
    assert "written" in line
    assert sorted(os.listdir()) == before


def test_a_folder_that_this_user_may_not_write(nobody):
    """A journal that cannot be made, a sink that cannot: exit 2, and nothing is left there."""
    Path.cwd().chmod(0o755)
    before = sorted(os.listdir())
    line = nobody(*NEW).refusal(2)
    assert "j.tw" in line
    assert "ermission denied" in line
    Path("sub").mkdir()
    Path("sub").chmod(0o777)
    line = nobody("run", "model.py", "--journal", "sub/j.tw", "--json").refusal(2)
    assert "out.jsonl: permission denied" in line
    assert sorted(os.listdir()) == sorted([*before, "sub"])
    Path("sub").chmod(0o700)
    assert "sub/j.tw" in nobody("verify", "sub/j.tw", "--json").refusal(2)


# ---------------------------------------------------------------------- a disk that is full, or fails


ACKNOWLEDGED = """
import os
import tidewarp as tw
from tidewarp.connect.contract import Raw, Update

class Notes:
    '''Texts of 2 kB, one a second; what it is told to be durable, it writes down on another disk.'''
    name, kind = "notes", "notes"
    def describe(self): return {"kind": self.kind}
    def paths(self): return ["plant.note"]
    def first_event_ns(self): return None
    def decoder(self, epoch_ns): return self
    def decode(self, raw): return Update(raw.offset * 10**9, (("plant.note", f"{raw.offset:08d}" * 250),))
    async def open(self, positions):
        self.at = positions.get(0, 0)
        self.acknowledged = open("acknowledged.txt", "a")
    async def read(self, limit):
        if self.at >= COUNT: return None
        first, self.at = self.at + 1, min(COUNT, self.at + limit)
        return [Raw(0, n, b"") for n in range(first, self.at + 1)]
    async def confirm(self, positions): print(positions[0], file=self.acknowledged, flush=True)
    async def close(self): self.acknowledged.close()

COUNT = 4000

def build(twin):
    twin.variable("plant.note", str)
    twin.connect(Notes())
"""


def acknowledged_is_there(run, journal: str) -> int:
    """The journal is whole and has every input that the source was told to be durable; how many it has."""
    verified = run("verify", journal, "--json").done()
    told = [int(word) for word in Path("acknowledged.txt").read_text().split()]
    rows = run("log", journal, "--kind", "input", "--limit", 100_000, "--json").done()["records"]
    assert [row["offset"] for row in rows] == [*range(1, len(rows) + 1)]
    assert all(row["value"] == f"{row['offset']:08d}" * 250 for row in rows)
    assert len(rows) == verified["inputs"] >= max(told) > 0
    return len(rows)


def goes_on_to_the_end(run, journal: str) -> None:
    """With room the run goes on, and ends like one that was never disturbed."""
    done = run("run", "model.py", "--journal", journal, "--resume", "--json").done()
    undisturbed = run("run", "model.py", "--journal", "undisturbed.tw", "--json").done()
    assert (done["inputs"], done["digest"]) == (4_000, undisturbed["digest"])
    assert run("replay", journal, "--json").done()["equal"] is True


FULL = """
set -e
mount -t tmpfs -o size=2m tmpfs disk
for more in "" --resume; do
    code=0
    "$@" --journal disk/j.tw $more --json || code=$?
    echo "$code" >> codes.txt
done
cp disk/j.tw* copy/
"""


@pytest.mark.parametrize("batch", [10, 300])
def test_a_full_disk(place, run, child, require, batch):
    """2 MiB: exit 1 with the record that found no room, every time it is tried; with room the run goes on."""
    require("userns")
    write(ACKNOWLEDGED)
    Path("disk").mkdir()
    Path("copy").mkdir()
    ended = child(
        sys.executable, "-W", "error", "-m", "tidewarp", "run", "model.py", "--journal-batch", batch,
        command=("unshare", "-Urm", "bash", "-c", FULL, "bash"),
    )  # fmt: skip
    assert ended.code == 0, ended
    assert Path("codes.txt").read_text().split() == ["1", "1"]
    lines = ended.err.splitlines()
    assert len(lines) == len(ended.out.splitlines()) == 2, ended
    for line, document in zip(lines, map(json.loads, ended.out.splitlines()), strict=True):
        assert re.match(r"error: .*/disk/j\.tw: record \d+: .*\(SQLITE_FULL\)", line), line
        assert "make room" in line
        assert document["exit"] == 1
    assert acknowledged_is_there(run, "copy/j.tw") < 4_000
    goes_on_to_the_end(run, "copy/j.tw")


def test_a_disk_too_full_to_begin(place, run, child, require):
    """Not even the tables fit: one line, and after room was made the same command works."""
    require("userns")
    write(ACKNOWLEDGED)
    Path("disk").mkdir()
    script = """
        mount -t tmpfs -o size=64k tmpfs disk && dd if=/dev/zero of=disk/filler bs=4k count=$1 status=none
        shift
        "$@"; echo $? >> codes.txt
        rm disk/filler; mount -o remount,size=64m disk
        "$@"; echo $? >> codes.txt
    """
    words = ("run", "model.py", "--journal", "disk/j.tw", "--until", "5", "--json")
    told = set()
    for fill in (16, 15, 14, 13, 12, 10):
        Path("codes.txt").unlink(missing_ok=True)
        ended = child(
            fill, sys.executable, "-W", "error", "-m", "tidewarp", *words,
            command=("unshare", "-Urm", "bash", "-c", script, "bash"),
        )  # fmt: skip
        first, second = Path("codes.txt").read_text().split()
        assert second == "0", (fill, ended)
        assert first == "1", (fill, ended)
        document, _ = map(json.loads, ended.out.splitlines())
        line = ended._replace(code=1, out=json.dumps(document)).refusal(1)
        assert "disk/j.tw" in line
        told.add("make room" if "make room" in line else "SQLITE_IOERR_SHMSIZE" if "SHMSIZE" in line else line)
    assert "make room" in told
    assert told <= {"make room", "SQLITE_IOERR_SHMSIZE"}  # the second: SQLite's own way to say it of one of its files


def test_a_database_that_may_not_grow(place, run, monkeypatch):
    """SQLITE_FULL on any machine, by `max_page_count`."""
    write(ACKNOWLEDGED)

    def limited(path):
        db = connect(path)
        db.execute("PRAGMA max_page_count = 200")
        return db

    connect = sqlite.connect
    monkeypatch.setattr(sqlite, "connect", limited)
    for words in ((), ("--resume",)):
        line = run("run", "model.py", "--journal", "j.tw", "--journal-batch", 10, "--json", *words).refusal(1)
        assert re.search(r"j\.tw: record \d+: .*\(SQLITE_FULL\)", line), line
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert acknowledged_is_there(run, "j.tw") < 4_000
    goes_on_to_the_end(run, "j.tw")


@pytest.mark.parametrize("limit", [300_000, 1_000_000])
def test_a_disk_that_fails_to_write(place, run, child, limit):
    """SQLITE_IOERR_WRITE, by RLIMIT_FSIZE: exit 1 at once, since what is on the disk is unknown."""
    write(ACKNOWLEDGED)
    for words in ((), ("--resume",)):
        ended = child(
            "run", "model.py", "--journal", "j.tw", "--journal-batch", 10, "--json", *words,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        line = ended.refusal(1)
        assert "j.tw: " in line
        assert "(SQLITE_IOERR_" in line
        if not words:
            assert re.search(r"record \d+: .*\(SQLITE_IOERR_WRITE\)", line), line
        assert "verify" in line
    assert acknowledged_is_there(run, "j.tw") < 4_000
    goes_on_to_the_end(run, "j.tw")


# ---------------------------------------------------------------------- two writers, and signals


CLOCKED = """
import os, time
from pathlib import Path
import tidewarp as tw

def build(twin):
    def tick():
        while True:
            twin.publish_event("tick", twin.now)
            while os.path.exists("stuck"):
                Path("busy").touch()
                time.sleep(0.01)
            yield twin.env.timeout(0.01)

    twin.process(tick())
    twin.sink(tw.sinks.jsonl("out.jsonl"))
"""
PACED = ("run", "model.py", "--journal", "j.tw", "--factor", "1", "--json")


def has_outputs() -> bool:
    return Path("out.jsonl").exists() and Path("out.jsonl").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_in_order(place, run, start, number):
    """Exit 130 and `interrupted`; the journal is ended with its digest, and the run goes on as if nothing had been."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    ended = living.send(number)
    assert (ended.code, ended.err) == (130, "")
    assert (ended.document["interrupted"], ended.document["reason"]) == (True, "interrupted")
    assert len(outputs()) == ended.document["outputs"] > 0
    verified = run("verify", "j.tw", "--head", ended.document["head"], "--json").done()
    assert verified["digest"] == ended.document["digest"]
    assert run("replay", "j.tw", "--json").done()["digest"] == ended.document["digest"]
    done = run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 100, "--json").done()
    assert (done["interrupted"], done["resumed"], len(outputs())) == (False, True, 10_000)
    assert done["sinks"]["out"]["skipped"] == ended.document["outputs"]


def test_the_second_signal_ends_at_once(place, run, start):
    """A model that comes to no end of its instant cannot be stopped in order. Its journal is as after a kill."""
    write(CLOCKED)
    Path("stuck").touch()
    living = start(*PACED)
    living.wait_for(Path("busy").exists)
    ended = living.send(signal.SIGINT, signal.SIGTERM)
    assert (ended.code, ended.out, ended.err) == (130, "", "")
    Path("stuck").unlink()
    run("verify", "j.tw", "--json").done()
    assert run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 1, "--json").done()["outputs"] == 100


def test_a_signal_before_the_first_event_is_not_lost(plant, run):
    """It comes while a resumed run writes that it goes on: the run ends there, interrupted."""
    run(*NEW, "--until", "1 min").done()
    heard = []

    def interrupt(stage: str) -> None:
        if stage == "journal.inside" and not heard:
            heard.append(stage)
            signal.raise_signal(signal.SIGINT)

    observe.on_stage(interrupt)
    try:
        ended = run(*RESUMED)
    finally:
        observe.on_stage(None)
    assert (ended.code, ended.document["interrupted"], heard) == (130, True, ["journal.inside"])
    assert ended.document["virtual_time_s"] == 60
    assert run(*RESUMED).done()["inputs"] == 5


def test_a_second_writer(place, run, start):
    """Exit 2 with the pid of the first, which does not notice; readers may stand beside it."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    for more in ((), ("--resume",)):
        line = run(*PACED, *more).refusal(2)
        assert f"process {living.process.pid} writes this journal" in line
        assert "j.tw" in line
    assert run("verify", "j.tw", "--json").done()["records"] == 1
    assert run("log", "j.tw", "--json").done()["count"] == 1
    run("replay", "j.tw", "--json").done()
    assert living.send(signal.SIGINT).code == 130
    run("verify", "j.tw", "--json").done()


def test_a_killed_writer_leaves_no_lock(place, run, start):
    """The pid in the lock file is of the past: the next run goes on."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    assert living.send(signal.SIGKILL).code == -signal.SIGKILL
    run("verify", "j.tw", "--json").done()
    done = run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 10, "--json").done()
    assert (done["resumed"], done["outputs"]) == (True, len(outputs()))
