"""Cuts: a run goes on from a document, in every life alike, and a recovery may begin there."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import ModelError
from tidewarp.observe import SilentProbe
from tidewarp.twin import Build, Recut, journal_rows, load_model, replay_cuts, snapshots, verify
from tidewarp.twin import host as host_module

HOUR = 3_600.0


def shop(
    *, every: int = 5, jobs: int = 40, sink: Path | None = None, until: int = 60, host_log: list[str] | None = None
) -> Build:
    """Jobs of random length on a machine; after each ``every`` of them, when nothing is in progress, a cut."""

    def build(twin: tw.Twin) -> None:
        state = twin.restored or {"done": 0, "log": []}
        if host_log is not None:
            host_log.append(f"built at {twin.now:g}")
        machine = twin.resource("shop.machine", 1, 3)
        tank = twin.container("shop.tank", 100.0, 50.0)
        shelf = twin.store("shop.shelf", 1_000)
        speed = twin.variable("shop.speed", float, 1.0)
        lengths = twin.sampler("lengths")
        rush = twin.stream("rush")

        def work() -> Iterator[Any]:
            twin.publish_event("begun", twin.now)  # in the instant of the cut before it
            while state["done"] < jobs:
                with machine.request() as claim:
                    yield claim
                    yield twin.env.timeout((1.0 + rush.random() * 3.0) / speed.value)
                    yield tank.get(1.0)
                yield shelf.put({"job": state["done"]})
                state["done"] += 1
                state["log"] = [*state["log"], twin.now][-3:]
                twin.publish_event(
                    "done", {"job": state["done"], "speed": speed.value, "use": machine.statistics.busy_ticks}
                )
                if state["done"] % every == 0:
                    end = twin.cut()
                    twin.publish_event("cut", state["done"])
                    yield end
                    raise AssertionError("nobody comes back from it")

        def watch() -> Iterator[Any]:
            while True:
                change = yield speed.wait_for_change()
                twin.publish_event("speed", change.new)

        twin.state(lambda: dict(state))
        twin.process(work())
        twin.process(watch())
        twin.connect(tw.sources.schedule([(n / 4 + 0.1, "shop.speed", 1.0 + n % 4) for n in range(4 * until)]))
        if sink is not None:
            twin.sink(tw.sinks.jsonl(sink))
        assert lengths is not None

    return build


def test_a_run_with_cuts_is_replayed_and_resumed(tmp_path: Path) -> None:
    """The cuts are in the journal, the input chain of the marks agrees, a replay from the beginning has the digest."""
    path, told = tmp_path / "a.tw", tmp_path / "told.jsonl"
    with tw.open(path, shop(sink=told)) as twin:
        summary = twin.run()
    cuts = list(journal_rows(path, kind="checkpoint"))
    assert len(cuts) == 8
    assert verify(path).digest == summary.digest
    again = tw.replay(path, shop())
    assert (again.equal, again.digest) == (True, summary.digest)
    ids = [line.split('"')[3] for line in told.read_text().splitlines()]
    assert ids == sorted(set(ids))
    roots = [json.loads(line)["root"] for line in told.read_text().splitlines() if '"begun"' in line]
    assert len(roots) == len(set(roots)) == 9
    assert len(ids) == summary.outputs


def test_a_recovery_begins_at_the_last_cut(tmp_path: Path) -> None:
    """build is called with the time of it; the rest of the run is that of an undisturbed one."""
    whole, path, told = tmp_path / "whole.tw", tmp_path / "a.tw", tmp_path / "told.jsonl"
    with tw.open(whole, shop(until=80)) as twin:
        expected = twin.run(until=80)
    log: list[str] = []
    with tw.open(path, shop(until=80, sink=told)) as twin:
        twin.run(until=30)
    last = [row["tick"] for row in journal_rows(path, kind="checkpoint")][-1]
    with tw.open(path, shop(until=80, sink=told, host_log=log)) as twin:
        assert log[0] == "built at 0"
        assert float(log[1].removeprefix("built at ")) == pytest.approx(last / 1e9, rel=1e-5)
        summary = twin.run(until=80)
    assert len(log) > 2
    assert summary.digest == expected.digest
    assert (summary.inputs, summary.outputs, summary.events) == (expected.inputs, expected.outputs, expected.events)
    lines = told.read_text().splitlines()
    assert len(lines) == summary.outputs
    assert tw.replay(path, shop(until=80)).equal


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_lives_of_any_length_are_one_run(tmp_path: Path, host: str) -> None:
    """Seven lives with cuts before, at and behind their ends: the digest and the outputs of one life."""
    with tw.open(tmp_path / "whole.tw", shop(until=80)) as twin:
        expected = twin.run(until=80)
    path, told = tmp_path / "a.tw", tmp_path / "told.jsonl"
    for end in (0.001, 7.7858, 7.786, 25.25, 25.5, 40, 80):
        with tw.open(path, shop(until=80, sink=told), host=host) as twin:
            summary = twin.run(until=end)
    assert (summary.digest, summary.events) == (expected.digest, expected.events)
    assert len(told.read_text().splitlines()) == summary.outputs == expected.outputs
    assert replay_cuts(path, shop(until=80)) == Recut(8, 7, None)
    assert verify(path).digest == expected.digest


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("at", ["inline", "forked"])
def test_late_inputs_undo_cuts(tmp_path: Path, seed: int, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut that a repair has undone is made again behind it; what is journaled is what a replay makes."""
    draw = random.Random(seed)
    monkeypatch.setattr(host_module, "EVENTS_PER_STEP", draw.choice([2, 20_000]))
    monkeypatch.setattr(snapshots, "_SHARE", draw.choice([0, 3]))
    late = [n for _, n in sorted((n + draw.choice([0, 0, 0, 9]), n) for n in range(25))]
    found, expected = (
        _cutting_run(tmp_path / name, times, at) for name, times in (("late", late), ("ordered", sorted(late)))
    )
    assert found.late == found.repaired > 0
    assert (found.events, found.outputs) == (expected.events, expected.outputs)
    told = [(tmp_path / name / "told.jsonl").read_text().splitlines() for name in ("late", "ordered")]
    assert [_bare(line) for line in told[0]] == [_bare(line) for line in told[1]]
    assert found.repairs > 0
    path = tmp_path / "late" / "a.tw"
    again = tw.replay(path, _cutting(late, None, []))
    assert (again.equal, again.digest) == (True, found.digest)
    assert verify(path).digest == found.digest
    recut = replay_cuts(path, _cutting(late, None, []))
    assert recut.first_difference is None
    assert recut.cuts == 5


def _cutting(times: list[int], told: Path | None, reached: list[float], source: type[Late] | None = None) -> Build:
    """A cut every 5 s; each change is told with all that were seen since the beginning."""

    def build(twin: tw.Twin) -> None:
        seen = twin.restored or [0, 0]
        level = twin.variable("a.level", int)

        def follow() -> Iterator[Any]:
            changes = level.changes()
            while True:
                change = yield changes.next()
                seen[0] += change.new
                twin.publish_event("level", [twin.tick, seen[0], twin.stream("draws").below(1_000)])

        def cut() -> Iterator[Any]:
            yield twin.env.timeout(5 - twin.now % 5)
            seen[1] += 1
            twin.publish_event("cut", seen)
            yield twin.cut()

        twin.state(lambda: list(seen))
        twin.process(follow())
        twin.process(cut())
        twin.connect((source or Late)(times, reached), late="repair", horizon=15)
        if told is not None:
            twin.sink(tw.sinks.jsonl(told))

    return build


class Late(Source):
    """A message for each of ``times``, in this order, one at a time."""

    name, kind, clock = "late", "late", "data"

    def __init__(self, times: list[int], reached: list[float]) -> None:
        self.times, self.reached = times, reached
        self.next = 0

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        self.next = positions.get(0, -1) + 1

    async def read(self, limit: int) -> list[Raw] | None:
        if self.next == len(self.times):
            return None
        at, self.next = self.times[self.next], self.next + 1
        highest = max(self.times[: self.next]) + 0.5
        while at + 0.5 < highest > self.reached[0]:  # a late one comes when the clock has passed it
            await asyncio.sleep(0)
        return [Raw(0, self.next - 1, b'{"path":"a.level","value":%d,"time":%d.5}' % (at + 1, at))]


def _cutting_run(folder: Path, times: list[int], at: str) -> tw.Summary:
    folder.mkdir()
    reached = [0.0]

    class Watch(SilentProbe):
        def progress(self, done: float, total: float | None) -> None:
            reached[0] = done

    build = _cutting(times, folder / "told.jsonl", reached)
    with tw.open(folder / "a.tw", build, epoch="1970-01-01T00:00:00Z", host=at, probe=Watch()) as twin:
        return twin.run(until=27)


def _bare(line: str) -> Any:
    output = json.loads(line)  # but for its cause, which has the place of the message
    return output["id"], output["key"], output["value"]


def test_the_document_says_everything_or_the_run_differs(tmp_path: Path) -> None:
    """A model with a memory outside of it is found: from the cut it counts on from another number."""
    outside = itertools.count()

    def build(twin: tw.Twin) -> None:
        state = twin.restored or {"n": 0}

        def work() -> Iterator[Any]:
            yield twin.env.timeout(10)
            state["n"] += 1
            twin.publish_event("outside", next(outside))
            yield twin.cut()

        twin.state(lambda: dict(state))
        twin.process(work())

    path = tmp_path / "a.tw"
    with tw.open(path, build) as twin:
        twin.run(until=35)
    outside = itertools.count()
    found = replay_cuts(path, build)
    assert found.first_difference is None, "with the right number it is the run"
    outside = itertools.count(7)
    first = replay_cuts(path, build).first_difference
    assert first is not None
    assert (first["tick"], first["parts"]) == (10 * 10**9 + 1, ["outputs"])


def quiet(twin: tw.Twin, spoil: Callable[[tw.Twin], Iterator[Any]]) -> None:
    """A model that cuts at 10 s, beside another process."""

    def cut() -> Iterator[Any]:
        yield twin.env.timeout(10)
        yield twin.cut()

    twin.state(lambda: None)
    twin.process(spoil(twin))
    if twin.restored is None and twin.now == 0:
        twin.process(cut())


def holds(twin: tw.Twin) -> Iterator[Any]:
    with twin.resource("a.press", 1).request() as claim:
        yield claim
        yield twin.env.timeout(20)


def waits_for_matter(twin: tw.Twin) -> Iterator[Any]:
    yield twin.container("a.tank", 10.0).get(5.0)


def waits_for_an_item(twin: tw.Twin) -> Iterator[Any]:
    yield twin.store("a.shelf", 10).get()


def keeps_an_object(twin: tw.Twin) -> Iterator[Any]:
    yield twin.store("a.shelf", 10).put(object())


def draws_from_numpy(twin: tw.Twin) -> Iterator[Any]:
    twin.sampler("draws").rng.random()
    yield twin.env.timeout(1)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (holds, "DynamicResource a.press: 1 of its units are in use"),
        (waits_for_matter, "DynamicContainer a.tank: 0 puts and 1 gets wait"),
        (waits_for_an_item, "DynamicStore a.shelf: 0 puts and 1 gets wait"),
        (keeps_an_object, "DynamicStore a.shelf: its items are not plain data"),
        (draws_from_numpy, "random stream draws/numpy"),
    ],
)
def test_what_cannot_be_cut_is_named(tmp_path: Path, spoil: Callable[[tw.Twin], Iterator[Any]], named: str) -> None:
    """And the run ends there, in every life."""

    def build(twin: tw.Twin) -> None:
        quiet(twin, spoil)

    for _ in range(2):
        with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError, match=named):
            twin.run(until=30)


@pytest.mark.parametrize("at", ["inline", "forked"])
@pytest.mark.parametrize("last", [3, 11, 12, 19])
def test_a_life_that_is_cut_off_goes_on_from_a_cut(tmp_path: Path, last: int, at: str) -> None:
    """Without a stop, after any message: what comes of it is the undisturbed run, also where a cut was not journaled yet."""
    times = [*range(10), 14, 12, 11, *range(15, 25)]
    expected = _cutting_run(tmp_path / "whole", times, "inline")
    folder = tmp_path / "off"
    folder.mkdir()

    class Dies(Exception):
        pass

    class Fragile(Late):
        async def read(self, limit: int) -> list[Raw] | None:
            if self.next > last:
                raise Dies
            return await super().read(limit)

    with pytest.raises(tw.TidewarpError, match="Dies"), _opened(folder, Fragile, times, at) as twin:
        twin.run(until=27)
    log: list[float] = []
    with _opened(folder, Late, times, at, log) as twin:
        found = twin.run(until=27)
    journaled = [row["tick"] for row in journal_rows(folder / "a.tw", kind="checkpoint")]
    assert journaled == sorted(set(journaled))
    assert len(journaled) == 5
    assert (found.outputs, found.events, found.inputs) == (expected.outputs, expected.events, expected.inputs)
    told = [(where / "told.jsonl").read_text().splitlines() for where in (folder, tmp_path / "whole")]
    assert [_bare(line) for line in told[0]] == [_bare(line) for line in told[1]]
    assert verify(folder / "a.tw").digest == found.digest
    assert replay_cuts(folder / "a.tw", _cutting(times, None, [27.0])).first_difference is None
    if last == 19 and at == "inline":
        assert log[:2] == [0.0, 5.0], "the sinks have what came before it, and GVT had passed it"


def _opened(folder: Path, source: type[Late], times: list[int], at: str, log: list[float] | None = None) -> tw.Twin:
    reached = [0.0]
    build = _cutting(times, folder / "told.jsonl", reached, source)

    def noting(twin: tw.Twin) -> None:
        if log is not None:
            log.append(twin.now)
        build(twin)

    class Watch(SilentProbe):
        def progress(self, done: float, total: float | None) -> None:
            reached[0] = done

    return tw.open(folder / "a.tw", noting, epoch="1970-01-01T00:00:00Z", host=at, probe=Watch(), accept_model=False)


def test_a_sink_that_lacks_outputs_gets_all_of_them_again(tmp_path: Path) -> None:
    """A recovery from a cut could not make them: it begins at the beginning."""
    path, told = tmp_path / "a.tw", tmp_path / "told.jsonl"
    with tw.open(path, shop(sink=told)) as twin:
        twin.run(until=40)
    before = told.read_text()
    told.unlink()
    log: list[str] = []
    with tw.open(path, shop(sink=told, host_log=log)) as twin:
        assert len(log) == 1 + len(list(journal_rows(path, kind="checkpoint")))
        twin.run(until=41)
    assert told.read_text().startswith(before)


def test_a_changed_model_begins_at_the_beginning(tmp_path: Path) -> None:
    """So the marks say whether it still is the run."""
    path = tmp_path / "a.tw"
    model = tmp_path / "model.py"
    text = (
        "LOG = []\n"
        "def build(twin):\n"
        "    LOG.append(twin.now)\n"
        "    def work():\n"
        "        yield twin.env.timeout(10)\n"
        "        yield twin.cut()\n"
        "    twin.state(lambda: 1)\n"
        "    twin.process(work())\n"
    )
    for what, expected in (("", [0, 10, 20, 30]), ("", [0, 30]), ("# changed", [0, 10, 20, 30])):
        model.write_text(text + what)
        build = load_model(str(model))
        with tw.open(path, build, accept_model=bool(what)) as twin:
            twin.run(until=35)
        assert build.__globals__["LOG"] == expected


def test_a_cut_is_asked_for_in_its_place(tmp_path: Path) -> None:
    """By a process of a model that gives a state, once in an instant, and only after time has passed."""

    def without_state(twin: tw.Twin) -> Iterator[Any]:
        yield twin.env.timeout(1)
        twin.cut()

    def for_ever(twin: tw.Twin) -> Iterator[Any]:
        twin.state(lambda: None)
        return endless(twin)

    def endless(twin: tw.Twin) -> Iterator[Any]:
        if twin.restored is None and twin.now == 0:
            yield twin.env.timeout(1)
        yield twin.cut()

    for name, process, said in (("a", without_state, "twin.state"), ("b", for_ever, "let time pass")):
        with (
            tw.open(
                tmp_path / f"{name}.tw", lambda twin, process=process: twin.process(process(twin)) and None
            ) as twin,
            pytest.raises(ModelError, match=said),
        ):
            twin.run(until=5)

    def in_build(twin: tw.Twin) -> None:
        twin.state(lambda: None)
        twin.cut()

    with pytest.raises(ModelError, match="a process of the model"):
        tw.open(tmp_path / "c.tw", in_build)


def test_build_has_to_make_what_the_cut_has(tmp_path: Path) -> None:
    """A path or a resource that is there in one life and not in another would be another model."""

    def build(twin: tw.Twin) -> None:
        if twin.restored is None:
            twin.variable("a.level", int)

        def cut() -> Iterator[Any]:
            yield twin.env.timeout(1)
            yield twin.cut()

        twin.state(lambda: "here")
        twin.process(cut())

    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError, match=r"path a\.level"):
        twin.run(until=5)


def test_what_is_in_resources_and_lines_is_kept(tmp_path: Path) -> None:
    """Statistics, levels, items, capacities, failures, distributions: as they were, with their versions."""
    states: list[Any] = []

    def build(twin: tw.Twin) -> None:
        line = twin.line("L").add_resource("press", 2, 5).add_container("oil", 10.0, 20.0, 3.0).add_store("box", 4)
        line.add_service("press", "exponential", mean=2.0).add_variable("hot", False)
        press = line.get_resource("press")

        def work() -> Iterator[Any]:
            with press.request() as claim:
                yield claim
                yield twin.env.timeout(1.5)
            yield line.get_container("oil").put(2.5)
            yield line.get_store("box").put([1, {"two": 3.0}])
            twin.registry.update_many({"L.resources.press.current_cap": 3, "L.variables.hot": True})
            twin.registry.update("L.service.press", {"dist": "constant", "mean": 4.0})
            press.fail(1)
            yield twin.env.timeout(1)
            twin.stream("draws").random()
            states.append((twin.env.state(), press.statistics, 0))
            yield twin.cut()

        def after() -> Iterator[Any]:
            assert twin.restored == "here"
            states.append((twin.env.state(), press.statistics, press.free))
            twin.publish_event("kept", {"mean": twin.registry.get_config("L.service.press").mean, "free": press.free})
            yield (yield line.get_store("box").get()) and twin.env.timeout(1)

        twin.state(lambda: "here")
        twin.process(work() if twin.restored is None else after())

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run(until=5)
        assert twin.registry.get("L.resources.press.current_cap").version == 1
    (before, used, _), (after, used_after, free) = states
    for name in ("tick", "registry", "resources", "streams"):
        assert after[name] == before[name]
    assert used_after == used
    assert free == 2
    assert used.busy_ticks == 1_500_000_000
    assert summary.outputs == 1
    assert replay_cuts(tmp_path / "a.tw", build).first_difference is None


def test_a_long_document_is_kept_in_parts(tmp_path: Path) -> None:
    """A record has 1 MiB at most, a document has not; a part that was changed is found."""

    def build(twin: tw.Twin) -> None:
        words = twin.restored or ["x" * 60_000 + str(n) for n in range(40)]

        def cut() -> Iterator[Any]:
            yield twin.env.timeout(1)
            yield twin.cut()

        twin.state(lambda: words)
        twin.process(cut())

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until=3.5)
    with tw.open(tmp_path / "a.tw", build) as twin:
        again = twin.run(until=4.5)
    assert verify(tmp_path / "a.tw").digest == again.digest
    assert replay_cuts(tmp_path / "a.tw", build) == Recut(4, 2, None)


@pytest.mark.parametrize("at", ["inline", "forked"])
def test_of_an_instant_whose_cut_fails_nothing_leaves(tmp_path: Path, at: str) -> None:
    """It is torn, as one in which a process raises: the stop lies before it, and who mends the model may tell it otherwise."""
    told = tmp_path / "told.jsonl"

    def build(mended: bool) -> Build:
        def build(twin: tw.Twin) -> None:
            done = twin.restored or {"done": 0}

            def state() -> dict[str, Any]:
                return {"done": done["done"] if mended or twin.now < 3 else object()}

            def work() -> Iterator[Any]:
                while True:
                    yield twin.env.timeout(1)
                    done["done"] += 1
                    twin.publish_event("done", done["done"] if twin.now < 3 else [done["done"], mended])
                    if twin.now == 3:
                        yield twin.cut()

            twin.state(state)
            twin.process(work())
            twin.sink(tw.sinks.jsonl(told))

        return build

    with tw.open(tmp_path / "a.tw", build(False), host=at) as twin, pytest.raises(ModelError, match="object"):
        twin.run(until=5)
    assert [json.loads(line)["value"] for line in told.read_text().splitlines()] == [1, 2]
    with tw.open(tmp_path / "a.tw", build(True), host=at, accept_model=True) as twin:
        twin.run(until=5)
    assert [json.loads(line)["value"] for line in told.read_text().splitlines()] == [1, 2, [3, True], [4, True]]
