"""A run anywhere else is the same run: in another process, with other hashes of strings, another zone, another locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import programs, registry

from tidewarp.codec.artifacts import TAG_PROGRAM, Artifact
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import Program
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.programs import execute
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore

pytestmark = pytest.mark.proof("a program has one result in every process")

SEED = bytes(range(32))
EXECUTOR = Executor(public_key_of(SEED), "site")
PARAMS = Artifact("Größe".encode(), 3)
EXAMPLES = 60

CHILD = """
import json, locale, sys, time
from small_programs import registry
from test_other_hosts import executed

locale.setlocale(locale.LC_ALL, "")
time.tzset()
given = json.loads(sys.stdin.read())
json.dump([executed(bytes.fromhex(program), inputs) for program, inputs in given], sys.stdout)
"""


def executed(program, inputs):
    """All names and bytes that a run has, as text; ``inputs`` are texts."""
    artifacts = [Artifact(text.encode()) for text in inputs]
    done = execute(Program.from_bytes(program), artifacts, PARAMS, registry())
    named = [done.manifest, done.environment, done.listing, done.result, done.trace]
    return [done.key.hex(), *(one.to_bytes().hex() for one in named), *(one.reference().hex() for one in done.outputs)]


@pytest.fixture(scope="module")
def examples():
    """Programs with their inputs, and what they come to here."""
    found = []

    @settings(max_examples=EXAMPLES, derandomize=True, database=None)
    @given(programs(), st.lists(st.text(max_size=4), min_size=2, max_size=2))
    def draw(program, texts):
        found.append((program.to_bytes(), texts[: program.externals]))

    draw()
    return found, [executed(*one) for one in found]


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_a_run_in_another_process_is_the_same(examples, seed, latin1_env):
    """Key, manifest, environment, listing, result, trace and outputs, byte by byte."""
    given, here = examples
    assert len(here) >= EXAMPLES / 2
    zones = {"0": ("UTC", {"LC_ALL": "C"}), "1": ("Asia/Kathmandu", latin1_env), "random": ("America/St_Johns", {})}
    zone, language = zones[seed]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONHASHSEED": seed, "TZ": zone, **language},
        input=json.dumps([(program.hex(), inputs) for program, inputs in given]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(child.stdout) == here


@given(programs(), st.lists(st.binary(max_size=4), min_size=2, max_size=2))
def test_receipts_of_equal_runs_differ_in_their_times_alone(program, payloads):
    """And in the signature over these; so without times they have one name."""
    receipts = []
    for times in (count(5), count(900), None, None):
        store = MemoryStore(SEED)
        inputs = [store.put(payload) for payload in payloads[: program.externals]]
        ref = store.put(program.to_bytes(), tag=TAG_PROGRAM)
        done = run(
            store,
            ref,
            inputs,
            params=store.put(PARAMS.payload, tag=PARAMS.tag),
            registry=registry(),
            executor=EXECUTOR,
            seed=SEED,
            now=None if times is None else times.__next__,
        )
        receipts.append(Receipt.from_bytes(store.get(done.receipt)))
    first, second, *bare = receipts
    differing = [name for name in Receipt._fields if getattr(first, name) != getattr(second, name)]
    assert differing == ["started", "completed", "signature"]
    assert bare[0] == bare[1] == first._replace(started=0, completed=0, signature=bare[0].signature)
