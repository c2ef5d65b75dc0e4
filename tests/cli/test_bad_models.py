"""A model that cannot be used, fails, or is not the one that the journal was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest
from plant import MODEL, NEW, RESUMED, no_run_was_begun, outputs, records, write

pytestmark = pytest.mark.proof("a model that fails is one line; mended, the run goes on")

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
