"""The replay as an operation: a journal, a model and a seed in, the run digest and the final state out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidewarp as tw
from tidewarp.codec import pack, unpack
from tidewarp.codec.artifacts import TAG_MODEL, TAG_SEGMENT, Artifact
from tidewarp.codec.programs import Program
from tidewarp.codec.results import Status
from tidewarp.codec.segments import encode_segments
from tidewarp.errors import CodecError, OperatorError, OutOfModel
from tidewarp.programs import OperationRegistry, execute
from tidewarp.store import open_store
from tidewarp.twin import load_model, replay
from tidewarp.twin.model import find_model, model_source
from tidewarp.twin.replaying import (
    REPLAY,
    REPLAY_VERSION,
    ModelDescriptor,
    model_files,
    register_replay,
    replay_program,
    run_inputs,
)
from tidewarp.units import ticks

MODEL = """
import tidewarp as tw

def build(twin):
    level = twin.variable("tank.level", float, 0.0)
    draws = twin.stream("leak")

    def leak():
        while True:
            yield twin.env.timeout(60)
            twin.publish_event("tank.seen", level.value - draws.random())

    twin.process(leak())
    twin.connect(tw.sources.csv("data.csv", time="time", map={"value": "tank.level"}))
"""
DATA = "time,value\n" + "".join(f"2014-01-01T00:{n:02d}:00Z,{n}\n" for n in range(5))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with its journal: its build function and its summary. Its data are gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.csv").write_text(DATA)
    build = load_model("model.py")
    with tw.open("run.tw", build, seed=7) as twin:
        summary = twin.run("10 min")
    (tmp_path / "data.csv").unlink()
    return build, summary


def records():
    with open_store("run.tw", read_only=True) as store:
        return list(store.journal.read())


def executed(needed, *builds, program=None, inputs=None):
    registry = OperationRegistry.kernel()
    register_replay(registry, *builds)
    program = Program.from_bytes((program or needed.program).payload)
    return execute(program, inputs or needed.inputs, None, registry)


def test_the_digest_is_that_of_the_run(run):
    """With the final state, and without the data that the run had read."""
    build, summary = run
    done = executed(run_inputs(records(), build), build)
    digest, state = done.outputs
    assert done.result.status is Status.OK
    assert digest.payload.hex() == summary.digest == replay("run.tw").digest
    assert unpack(state.payload)["tick"] == ticks("10 min")


def test_until_and_seed_are_other_computations(run):
    """Half of the run has the digest of half of the run; another seed gives another one."""
    build, summary = run
    half = executed(run_inputs(records(), build, until=ticks("3 min")), build)
    assert half.outputs[0].payload.hex() == replay("run.tw", until="3 min").digest != summary.digest
    other = executed(run_inputs(records(), build, seed=8), build)
    assert other.outputs[0].payload.hex() != summary.digest
    same = executed(run_inputs(records(), build, seed=7), build)
    assert same.outputs[0].payload.hex() == summary.digest
    assert len({done.key for done in (half, other, same)}) == 3


def test_a_long_journal_comes_in_several_segments(run):
    """They are put in a row by the program itself."""
    build, summary = run
    whole = records()
    needed = run_inputs(whole, build)
    first, second = [Artifact(*encode_segments(part), TAG_SEGMENT) for part in (whole[:3], whole[3:])]

    program = Artifact(replay_program(2, ticks("300 min")).to_bytes())
    done = executed(needed, build, program=program, inputs=(*needed.inputs[:2], first, second))
    assert done.outputs[0].payload.hex() == summary.digest


def test_the_descriptor_names_files_and_brings_them(run):
    """Nobody has to look for the code; what it says is what the journal says of its model."""
    build, _ = run
    needed = run_inputs(records(), build)
    descriptor = ModelDescriptor.from_bytes(needed.inputs[0].payload)
    assert (descriptor.name, needed.inputs[0].tag) == ("model.py:build", TAG_MODEL)
    assert needed.files.reference() == descriptor.files
    assert unpack(needed.files.payload) == {"model.py": MODEL.encode()}


def test_the_forms_stay():
    """Descriptor and program are parts of computation keys: other bytes would disown every receipt that there is."""
    descriptor = ModelDescriptor("tank.py:build", Artifact(b"files").reference(), bytes(range(32)))
    program = replay_program(1, 10)
    registry = OperationRegistry.kernel()
    register_replay(registry)
    assert ModelDescriptor.from_bytes(descriptor.to_bytes()) == descriptor
    named = [sha256(data).hexdigest() for data in (descriptor.to_bytes(), program.to_bytes())]
    assert [*named, registry.find(REPLAY, REPLAY_VERSION).impl.hex()] == [
        "d9d0a9302cc0fa1262c7b44287b31e30e22c079a8a99198ee6f02e8c32fe95ad",
        "a2d2cbdd99e9d2ba50597cef6d7d3e03a90a4d00a79af80c704ff8dca47900f6",
        "a7458abf6f0c346723e00239d8cff14099af1d1dd824cc119af677ebb1a3b6bc",
    ]


@given(st.binary(max_size=120), st.integers(0, 8 * 150))
def test_a_descriptor_has_one_form(data, bit):
    """What is read is what is written, or it is refused; a bit changed is another descriptor or none."""
    descriptor = ModelDescriptor("tank.py:build", Artifact(b"files").reference(), bytes(range(32)))
    flipped = bytearray(descriptor.to_bytes())
    if bit < 8 * len(flipped):
        flipped[bit // 8] ^= 1 << bit % 8
    for other in (data, bytes(flipped)):
        try:
            assert ModelDescriptor.from_bytes(other).to_bytes() == other
        except CodecError:
            continue


def test_files_stay_in_their_folder(run):
    """A path of a stranger is no place to write to; nor are other files those of the digest."""
    build, _ = run
    needed = run_inputs(records(), build)
    descriptor = ModelDescriptor.from_bytes(needed.inputs[0].payload)
    assert model_files(descriptor, needed.files.payload) == {"model.py": MODEL.encode()}
    for name in ("../model.py", "/model.py", "a/../../b.py", "./model.py", "a//b.py", "a\\b.py", "a\0.py", ""):
        with pytest.raises(CodecError, match="stays in the folder"):
            model_files(descriptor, pack({name: b""}))
    for contents in ({"model.py": b""}, {}, {"model.py": MODEL.encode(), "more.py": b""}):
        with pytest.raises(CodecError, match="do not have the digest"):
            model_files(descriptor, pack(contents))
    for document in ([], {"model.py": "text"}):
        with pytest.raises(CodecError, match="a document of paths and bytes"):
            model_files(descriptor, pack(document))


def test_only_code_that_was_named_here_is_run(run):
    """Without it there is no result, and the message says what to name."""
    build, _ = run
    needed = run_inputs(records(), build)
    with pytest.raises(OutOfModel, match=r"nobody has named it here.*--model"):
        executed(needed)
    with open("other.py", "w") as file:
        file.write(MODEL + "\n# changed\n")
    other = load_model("other.py")
    asked, has = model_source(build).digest, model_source(other).digest
    with pytest.raises(OutOfModel, match=rf"other\.py has model digest {has}, the receipt asks for {asked}.*--model"):
        executed(needed, other)


def test_a_file_is_hashed_before_it_is_run(run):
    """One that is not what is asked for leaves no trace; the one that is, is read when it is asked for."""
    build, summary = run
    needed = run_inputs(records(), build)
    trap = "from pathlib import Path\nPath('trace').touch()\n"
    Path("trap.py").write_text(trap + MODEL)
    with pytest.raises(OutOfModel, match=r"trap\.py has model digest"):
        executed(needed, find_model("trap.py"))
    assert not Path("trace").exists()
    done = executed(needed, find_model("model.py"))
    assert done.outputs[0].payload.hex() == summary.digest
    assert find_model("trap.py") == model_source(load_model("trap.py"))
    assert Path("trace").exists()


WATCHED = """
import json, os, sys
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.programs import Program
from tidewarp.programs import OperationRegistry, execute
from tidewarp.store import open_store
from tidewarp.twin import load_model
from tidewarp.twin.replaying import register_replay, run_inputs

CLOCKS_AND_CHANCE = {"time", "_random", "_datetime"}
SYSTEM = {"os", "socket", "subprocess", "shutil", "tempfile", "ctypes", "fcntl"}  # what audit events of these begin with
seen = set()
watched = False

def hear(event, arguments):
    if not watched:
        return
    if event == "open":
        path, mode, _ = arguments
        name = os.path.basename(path)
        if (name, mode) != ("model.py", "r"):
            seen.add(f"open {name}")
    elif event.partition(".")[0] in SYSTEM:
        seen.add(event)

def look(frame, event, what):
    if event == "c_call" and what.__module__ in CLOCKS_AND_CHANCE:
        seen.add(f"{what.__module__}.{what.__name__}")

with open_store("run.tw", read_only=True) as store:
    records = list(store.journal.read())
build = load_model("model.py")
needed = run_inputs(records, build)
registry = OperationRegistry.kernel()
register_replay(registry, build)
program = Program.from_bytes(needed.program.payload)
execute(program, needed.inputs, None, registry)  # what is imported late is there then
sys.addaudithook(hear)
watched = True
sys.setprofile(look)
done = execute(program, needed.inputs, None, registry)
sys.setprofile(None)
watched = False
print(json.dumps({"digest": done.outputs[0].payload.hex(), "seen": sorted(seen)}))
"""


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("pass", set()),
        ("open('data.csv', 'a').close()", {"open data.csv"}),
        ("__import__('time').time()", {"time.time"}),
        ("__import__('socket').socket().close()", {"socket.__new__"}),
        ("__import__('os').listdir()", {"os.listdir"}),
    ],
)
def test_a_replay_opens_no_file_no_socket_and_no_clock(run, planted, found):
    """But the files of the model that was named. The interpreter's own audit hook and profiler see what a model does beside."""
    _, summary = run
    Path("model.py").write_text(MODEL.replace("    draws =", f"    {planted}\n    draws ="))
    child = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told["digest"] == summary.digest
    assert set(told["seen"]) == found


def test_last_week_under_todays_model(run):
    """Another model on the same journal is a computation like any other."""
    _, summary = run
    with open("other.py", "w") as file:
        file.write(MODEL.replace("- draws", "- 2 * draws"))
    build = load_model("other.py")
    done = executed(run_inputs(records(), build), build)
    assert done.result.status is Status.OK
    assert done.outputs[0].payload.hex() != summary.digest


def test_a_model_that_raises_has_no_result(run):
    """Whether it would on another machine, nobody knows."""
    with open("other.py", "w") as file:
        file.write(MODEL.replace("level.value -", "1 / 0 -"))
    build = load_model("other.py")
    with pytest.raises(OutOfModel, match="ZeroDivisionError"):
        executed(run_inputs(records(), build), build)


def test_what_is_no_journal_fails_the_same_everywhere(run):
    """Each input has its number."""
    build, _ = run
    needed = run_inputs(records(), build)
    model, parameters, segment = needed.inputs
    cut = Artifact(segment.payload[:-1], TAG_SEGMENT)
    for inputs, index in (
        ((parameters, parameters, segment), 1),
        ((Artifact(model.payload + b"\0"), parameters, segment), 1),
        ((model, Artifact(pack({"seed": -1})), segment), 2),
        ((model, Artifact(pack({"seed": True})), segment), 2),
        ((model, Artifact(pack({"speed": 1})), segment), 2),
        ((model, Artifact(b""), segment), 2),
        ((model, parameters, Artifact(b"")), 3),
        ((model, parameters, cut), 3),
        ((model, parameters, Artifact(b"".join(encode_segments(records()[1:])))), 3),
    ):
        done = executed(needed, build, inputs=inputs)
        assert (done.result.status, done.result.code) == (Status.RUNTIME, 0xFFFF << 16 | index)


def test_a_model_without_a_file_has_no_name(run):
    """What a program makes when it runs cannot be named to others."""
    source: dict[str, object] = {}
    exec(MODEL, source)
    with pytest.raises(OperatorError, match="no function of a file"):
        run_inputs(records(), source["build"])
