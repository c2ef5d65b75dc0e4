"""A journal that a release has written is read, checked and replayed by every later one.

``tests/golden/live-VERSION.tw.gz`` were made by ``python tests/twin/test_golden_journal.py FILE`` of that version, and are never made
anew: what cannot read one has broken the format, what replays it to another digest has changed what models compute.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.codec.programs import Program
from tidewarp.connect import Gap, Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.process import DistributionConfig
from tidewarp.programs import OperationRegistry, execute
from tidewarp.store import open_store
from tidewarp.twin import journal_rows, replay_cuts, verify
from tidewarp.twin.documents import Checkpoint, Mark, Opened, Released, Resumed, Stopped, entry
from tidewarp.twin.facts import documents, facts
from tidewarp.twin.replaying import register_replay, run_inputs

GOLDEN = Path(__file__).parents[1] / "golden"
EPOCH_S = 1_767_225_600
EXPECTED = {
    "live-0.1.0": {
        "digest": "69adabc873d333fd0f8d558ab3d7c9847dbd564527599148f891dc5237f58963",
        "head": "518ee440059d594eb79ecac130a99cf8107a63854016d45731d2d35d86f01e9b",
        "counts": {"inputs": 39, "events": 336, "outputs": 55, "marks": 4},
        "rows": {
            "checkpoint": 12,
            "dead": 10,
            "ended": 4,
            "gap": 1,
            "input": 43,
            "mark": 4,
            "open": 1,
            "released": 9,
            "resume": 3,
            "shed": 2,
            "stop": 4,
        },
    },
}


def message(n: int) -> bytes:
    """Number ``n`` of the live source: every kind of value, poison, ids, causes, several paths, and some come late."""
    time_s = EPOCH_S + n / 4 - (1.6 if n % 5 == 3 else 0)
    plain: dict[str, Any] = {"time": time_s, "path": "shop.speed", "value": 0.5 + n % 3}
    return [
        json.dumps(plain).encode(),
        json.dumps(
            {"time": time_s, "set": {"shop.note": f"n\u00e4chste {n}", "shop.limits": {"low": n, "all": [None, True]}}}
        ).encode(),
        b'{"path": "shop.speed", "value": NaN}',
        json.dumps({**plain, "id": f"m{n // 16}", "cause": f"{n:016x}-00000000"}).encode(),
        json.dumps({"path": "shop.level", "value": n}).encode(),
        json.dumps({"time": time_s, "path": "shop.lathe.current_cap", "value": n % 3}).encode(),
        json.dumps({"path": "shop.level", "value": -n}).encode(),
        json.dumps({"path": "shop.speed", "value": 10**9}).encode(),
    ][n % 8]


class Topic(Source):
    """40 messages, one in a read; after 16 the target has lost two."""

    name, kind, clock = "topic", "topic", "wall"

    async def open(self, positions: Mapping[int, int]) -> None:
        self._next = positions.get(3, -1) + 1
        if self._next == 16:
            raise Gap(3, 16, 18, "the topic")

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        if self._next == 16:
            raise ConnectionError("it is lost")
        if self._next >= 40:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)  # the clock goes on meanwhile
        n, self._next = self._next, self._next + 1
        return [Raw(3, n, message(n), id=f"at {n}" if n % 2 else "")]


async def levels() -> AsyncIterator[dict[str, Any]]:
    """Of arrivals of one drain the last counts."""
    for n in range(6):
        yield {"path": "shop.level", "value": n}


def build(twin: tw.Twin) -> None:
    """A shop that draws from all kinds of streams, and is cut after every fourth piece."""
    made = twin.restored or {"n": 0}
    speed = twin.variable("shop.speed", float, 1.0, low=0.1, high=100.0)
    twin.variable("shop.note", str)
    twin.variable("shop.limits", dict)
    twin.variable("shop.level", int, coalesce=True)
    lathe, tank, shelf = (
        twin.resource("shop.lathe", 1, 4),
        twin.container("shop.tank", 50.0),
        twin.store("shop.shelf", 9),
    )
    times = twin.sampler("shop.times")
    kinds = [
        DistributionConfig("exponential", rate=2.0),
        DistributionConfig("normal", mean=0.5, std=0.1),
        DistributionConfig("lognormal", mean=0.5, std=0.2),
        DistributionConfig("triangular", low=0.1, mode=0.2, high=0.9),
        DistributionConfig("weibull", shape=1.5, scale=0.4),
        DistributionConfig("erlang", shape=2, scale=0.2),
        DistributionConfig("uniform", low=0.1, high=0.9),
        DistributionConfig("empirical", values=[0.1, 0.3, 0.7]),
    ]

    def work() -> Iterator[Any]:
        while True:
            with lathe.request() as place:
                yield place | twin.env.timeout(1.0)
                yield twin.env.timeout(times.sample(kinds[made["n"] % 8]) / speed.value)
            made["n"] += 1
            yield tank.put(0.5)
            yield shelf.put({"piece": made["n"]})
            if made["n"] > 3:
                yield shelf.get()
            twin.publish_event("piece", {"n": made["n"], "level": tank.level, "at": twin.now})
            if made["n"] % 4 == 0:
                yield twin.cut()

    def watch() -> Iterator[Any]:
        while True:
            change = yield speed.wait_for_change()
            twin.publish_telemetry("shop.speed", change.new)

    twin.state(lambda: dict(made))
    twin.process(work())
    twin.process(watch())
    plan = [(n / 2 + 0.25, "shop.lathe.max_cap", 4 + n % 2) for n in range(8)] + [(4.5, "shop.lathe.current_cap", 50)]
    twin.connect(tw.sources.schedule(plan, name="plan"))
    twin.connect(Topic(), time="payload", wait=True, late="repair", horizon="5 s", gap="accept")
    twin.connect(tw.sources.python(levels, name="levels"))
    twin.sink(tw.sinks.memory(name="out"))


def record(path: Path) -> None:
    """Two lives, with updates by the program between their runs."""
    for until, value in ((4, 2.0), (12, 3.0)):
        with tw.open(path, build, seed=11, epoch="2026-01-01T00:00:00Z", host="inline") as twin:
            twin.run(until=until, factor=0)
            twin.apply("shop.speed", value)
            twin.run(until=until + 1, factor=0)


@pytest.fixture(params=EXPECTED)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "golden.tw"
    path.write_bytes(gzip.decompress((GOLDEN / f"{request.param}.tw.gz").read_bytes()))
    return path, EXPECTED[request.param]


def test_it_is_whole_and_says_what_it_said(golden: tuple[Path, dict[str, Any]]) -> None:
    """Every record is in the chain and has its form; all kinds of records are there."""
    path, expected = golden
    checked = verify(path, head=expected["head"])
    assert (checked.head, checked.digest) == (expected["head"], expected["digest"])
    rows = list(journal_rows(path))
    assert Counter(row["kind"] for row in rows) == expected["rows"]
    assert {row["rule"] for row in rows if row["kind"] == "dead"} == {"json", "value"}
    assert next(row["value"] for row in rows if row.get("path") == "shop.limits") == {"low": 1, "all": [None, True]}


def test_what_is_written_today_has_the_bytes_of_then(golden: tuple[Path, dict[str, Any]]) -> None:
    """Each document of the twin, read as a fact and written again. (Those of the gate: tests/connect.)"""
    seen: set[str] = set()
    with closing(open_store(golden[0], read_only=True)) as store:
        bodies = {record.seq: record.body for record in store.journal.read()}
        schemas = {seq: document.schema for seq, _, document in documents(store.journal)}
        for fact in facts(store.journal):
            if isinstance(fact.what, Opened | Resumed | Mark | Released | Stopped | Checkpoint):
                schema = schemas[fact.seq]
                assert entry(schema, fact.tick, fact.what.document()).body == bodies[fact.seq], schema
                seen.add(schema)
    assert len(seen) == 6


def test_it_is_replayed_to_its_digest(golden: tuple[Path, dict[str, Any]]) -> None:
    """Draws, resources, chains, marks and digest are what they were; each of its cuts is where it was."""
    path, expected = golden
    again = tw.replay(path, build)
    assert (again.equal, again.digest) == (True, expected["digest"])
    assert {name: getattr(again, name) for name in expected["counts"]} == expected["counts"]
    recut = replay_cuts(path, build)
    assert (recut.cuts, recut.first_difference) == (expected["rows"]["checkpoint"], None)


def test_it_has_a_receipt_of_its_run(golden: tuple[Path, dict[str, Any]]) -> None:
    """As an operation, from its bytes alone, it comes to the same digest."""
    path, expected = golden
    with closing(open_store(path, read_only=True)) as store:
        needed = run_inputs(list(store.journal.read()), build)
    registry = OperationRegistry.kernel()
    register_replay(registry, build)
    done = execute(Program.from_bytes(needed.program.payload), needed.inputs, None, registry)
    assert done.outputs[0].payload.hex() == expected["digest"]


if __name__ == "__main__":
    record(Path(sys.argv[1]))
