"""A history gives the same names, keys and state hash wherever it is written: no host, order of maps or thread is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tidewarp

SOURCE = str(Path(tidewarp.__file__).parents[1])
ZONES = {"0": "UTC", "1": "Pacific/Kiritimati", "random": "America/St_Johns"}

SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidewarp.codec.artifacts import TAG_PROGRAM
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.receipts import Executor
from tidewarp.programs import OperationRegistry, build_program
from tidewarp.programs.runs import run
from tidewarp.store import open_store
from tidewarp.testing.contents import Site

SOURCE = {"inputs": ["ä", "b"], "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["ä", "b"]}}, "outputs": ["j"]}


def told(place, shards):
    registry = OperationRegistry.kernel()
    with open_store(place, create=True, key=bytes(range(32)), inline_max=64, shards=shards) as store:
        names = [store.put(text.encode(), tag=tag) for text, tag in (("hello", None), (" wörld", 7), ("x" * 999, None))]
        names += store.put_many((b"%d" % number, number or None) for number in range(40))
        store.put_edge(Edge(DERIVES, tuple(names[:2]), (names[2],)))
        program = store.put(build_program(SOURCE, registry).to_bytes(), tag=TAG_PROGRAM)
        (own,) = store.domains()
        made = run(store, program, names[:2], registry=registry, executor=Executor(own.key, "Zoë"))
        store.point("näme", names[0])
        store.tombstone(names[5])
        store.lift(names[5])
        store.tombstone(names[6], note="größer")
        for seed in (9, 7):
            site = Site(bytes([seed]) * 32)
            site.put(b"theirs %d" % seed)
            site.give(store)
        store.pin("Montag", store.snapshot())
        said = [name.hex() for name in (*names, program, made.receipt, *made.outputs)]
        said += [store.state_hash(scope).hex() for scope in ("published", "all")]
        return [*said, store.snapshot().id().hex(), store.signed_head().note()]


def main(folder, threads):
    places = [(Path(folder) / f"{number}.tw", 1 + number * 3) for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda place: told(*place), places))
    assert all(one == found[0] for one in found)
    print(ascii(found[0]))


main(sys.argv[1], int(sys.argv[2]))
"""


def written(folder: Path, seed: str, threads: int, variables: dict[str, str]) -> str:
    folder.mkdir()
    fixed = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONHASHSEED": seed, "TZ": ZONES[seed]}
    script = folder / "script.py"  # a file has UTF-8; the words of a command are in the host's encoding
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script), str(folder), str(threads)]
    ended = subprocess.run(command, env=fixed | variables, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return written(tmp_path_factory.mktemp("undisturbed") / "a", "0", 1, {"LC_ALL": "C"})


@pytest.mark.parametrize(("seed", "threads"), [("1", 8), ("random", 1), ("random", 8)])
def test_a_history_is_the_same_on_every_host(undisturbed, tmp_path, seed, threads):
    """Hash seeds, zones and threads, each thread with another number of shards."""
    assert len(undisturbed) > 40 * 68
    assert written(tmp_path / "a", seed, threads, {"LC_ALL": "C.UTF-8"}) == undisturbed


def test_a_history_is_the_same_in_a_latin1_locale(undisturbed, tmp_path, latin1_env):
    """Its names are text of other letters than the host's."""
    assert written(tmp_path / "a", "1", 1, latin1_env) == undisturbed
