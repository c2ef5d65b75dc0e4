"""Outputs in the memory of the program: what a test or a notebook looks at."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect.backends.memory import MemorySink
from tidewarp.errors import OperatorError
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import perform


class TestMemorySink(SinkConformance):
    """The object is the target: a later life of the same program goes on with it."""

    test_a_write_that_was_torn_is_mended = test_a_failed_write_can_be_tried_again = None  # a list does not fail
    test_the_outputs_of_another_run_are_no_outputs_of_this_one = None  # they stand beside each other
    test_what_cannot_be_opened_says_so = test_what_the_target_refuses_is_returned_and_the_rest_is_held = None  # no such

    @pytest.fixture(autouse=True)
    def targets(self) -> None:
        self.made: dict[Path, MemorySink] = {}

    # An object that is new cannot tell what another one had; later it can: neither of the suite's two cases.
    test_open_tells_what_the_target_holds = None

    def create(self, folder: Path) -> MemorySink:
        return self.made.setdefault(folder, MemorySink())

    def values(self, folder: Path) -> list[Any]:
        return [record["value"] for record in self.create(folder).records]


def test_what_was_kept_is_not_kept_twice_and_another_run_stands_beside_it() -> None:
    """A batch that is offered again is dropped; ids mean something within one run."""

    async def life() -> None:
        sink = MemorySink()
        other = RUN._replace(domain="cd")
        for run, told, batch in (
            (RUN, None, outputs(0, 3)),
            (RUN, output(2).id, outputs(1, 5)),
            (other, None, outputs(2, 4)),
            (other, output(3).id, outputs(3, 4)),
        ):
            assert await sink.open(run) == told
            assert await sink.write(batch) == []
        assert [(one["domain"][:2], one["value"]) for one in sink.records] == [
            *(("ab", n) for n in range(5)),
            ("cd", 2),
            ("cd", 3),
        ]

    perform(life())


def test_a_twin_is_looked_at_from_its_program(tmp_path: Path) -> None:
    """Two runs on one journal; numbers stay what they are; the replay adds nothing; the summary counts what went."""
    published = tw.sinks.memory(keep=3)

    def build(twin: tw.Twin) -> None:
        def speak() -> Generator[Any, Any, None]:
            for n in range(5):
                yield twin.env.timeout(1)
                twin.publish_event("n", n if n < 4 else math.nan)

        twin.process(speak())
        twin.sink(published)

    for until in (2.5, 10):
        with tw.open(tmp_path / "a.tw", build) as twin:
            summary = twin.run(until=until)
    assert [(one["sim_ts"], one["key"]) for one in published.records] == [(3.0, "n"), (4.0, "n"), (5.0, "n")]
    assert math.isnan(published.records[2]["value"])
    assert summary.sinks["memory"]["dropped"] == published.dropped == 2
    assert tw.replay(tmp_path / "a.tw", build).equal
    assert len(published.records) == 3


def test_a_new_journal_with_the_key_of_an_earlier_one_is_refused(tmp_path: Path) -> None:
    """The sink would take its outputs for those that it has. Without the key it is another run, and stands beside the first."""
    published = tw.sinks.memory()

    def build(twin: tw.Twin) -> None:
        twin.publish_event("n", 1)
        twin.sink(published)

    def life() -> None:
        with tw.open(tmp_path / "a.tw", build) as twin:
            twin.run(until=1)

    life()
    (tmp_path / "a.tw").unlink()
    with pytest.raises(OperatorError, match=r"'memory': it holds outputs .* of an earlier journal with the same key"):
        life()
    assert len(published.records) == 1
    for left in tmp_path.glob("a.tw*"):
        left.unlink()
    life()
    first, second = published.records
    assert first["domain"] != second["domain"]


def test_it_keeps_one_record_at_least() -> None:
    """Else nothing would be seen, and nothing said."""
    with pytest.raises(OperatorError, match="keep=0"):
        tw.sinks.memory(keep=0)


def test_a_form_that_raises_leaves_nothing_of_the_batch() -> None:
    """So what is offered again is there once."""

    def form(record: Mapping[str, Any]) -> dict[str, Any]:
        if record["value"] == 2 and fails:
            raise ValueError(record)
        return {"value": record["value"]}

    async def life() -> None:
        await sink.open(RUN._replace(form=form))
        with pytest.raises(ValueError, match="value"):
            await sink.write(outputs(0, 3))
        fails.clear()
        await sink.write(outputs(0, 3))

    fails, sink = [True], MemorySink()
    perform(life())
    assert [record["value"] for record in sink.records] == [0, 1, 2]
