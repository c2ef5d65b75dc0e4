"""Sources and sinks that cannot be reached: what the log, the summary and those who watch are told of it."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from test_live_run import Memory

import tidewarp as tw
from tidewarp.cli.run import _render
from tidewarp.connect import Raw, Sink, Source
from tidewarp.connect.contract import Gap, Observation
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.testing import ManualClock
from tidewarp.twin.outages import Outages

LOST = ConnectionError("reset by\npeer")
REFUSED = OperatorError("user x", "the broker refuses the password", "correct it")


class Script(Source):
    """One message, and no more; ``steps`` are what its first calls of open and read raise."""

    name, kind, clock = "script", "script", "wall"

    def __init__(self, *steps: Exception | None) -> None:
        self.steps = [*steps]
        self.given = False

    def _step(self) -> None:
        error = self.steps.pop(0) if self.steps else None
        if error is not None:
            raise error

    async def open(self, positions: Mapping[int, int]) -> None:
        self._step()

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        self._step()
        if self.given:
            return None
        self.given = True
        return [Raw(0, 0, json.dumps({"path": "a.level", "value": 1}).encode())]


class Watching(Memory):
    """Holds observations too."""

    name = kind = "watching"

    def __init__(self, *steps: Exception | None) -> None:
        super().__init__(*steps)
        self.seen: dict[str, Any] = {}

    async def observe(self, rows: Sequence[Observation]) -> None:
        self.seen = {row.path: row.value for row in rows}


def model(source: Source | None, sink: Sink, **policy: Any) -> Any:
    """An event each second, from the first moment on: a run has outputs, for which a sink that is down is waited for."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", int)

        def tick() -> Any:
            while True:
                twin.publish_event("n", 1)
                yield twin.env.timeout(1.0)

        twin.process(tick())
        if source is not None:
            twin.connect(source, **policy)
        twin.sink(sink, observe=True)

    return build


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text, with the number of seconds left out."""
    return [(one.levelno, re.sub(r"\d+\.\d s", "N s", one.getMessage())) for one in caplog.records]


@pytest.mark.parametrize("steps", [(LOST,), (LOST, LOST, LOST), (None, LOST, LOST)])
@pytest.mark.parametrize("who", ["source script", "sink watching"])
def test_an_outage_is_two_lines_however_many_attempts_it_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, who: str, steps: Any
) -> None:
    """One when it goes down, with the reason and what is done; one when it is back, with how long it was away."""
    source, sink = (Script(*steps), Watching()) if who.startswith("source") else (Script(), Watching(*steps))
    caplog.set_level(logging.INFO, "tidewarp.twin")
    with tw.open(tmp_path / "a.tw", model(source, sink), clock=ManualClock()) as twin:
        summary = twin.run()
    assert not source.steps + sink.steps
    assert lines(caplog) == [
        (logging.WARNING, rf"{who} is down: ConnectionError: reset by\npeer; it is tried again until it answers"),
        (logging.INFO, f"{who} is back after N s"),
    ]
    assert float(re.findall(r"(\d+\.\d) s", caplog.text)[0]) >= 0.5 * sum(step is not None for step in steps)
    assert summary.sources == {"script": {"state": "ended", "reason": ""}}
    assert (summary.sinks["watching"]["state"], summary.sinks["watching"]["reason"]) == ("open", "")


def test_back_is_who_stays(caplog: pytest.LogCaptureFixture) -> None:
    """A target that answers, and fails at the first message, is down all the while; at the end of a run it counts as it is."""
    caplog.set_level(logging.INFO, "tidewarp.twin")
    outages = Outages()
    outages.opened("sink x", 0.0)
    outages.down("sink x", "y" * 1_000, 10.0)
    for n in range(5):
        outages.opened("sink x", 20.0 + n)
        assert outages.due_s == 21.0 + n
        outages.look(20.9 + n)
        outages.down("sink x", "again", 20.9 + n)
    assert (len(caplog.messages), caplog.text.count("y" * 400), caplog.text.count("y" * 401)) == (1, 1, 0)
    assert outages.due_s == math.inf
    outages.opened("sink x", 30.0)
    outages.look(31.0)
    outages.look(32.0)
    assert caplog.messages[1:] == ["sink x is back after 20.0 s"]
    outages.down("sink x", "again", 40.0)
    outages.opened("sink x", 41.0)
    outages.look(math.inf)
    assert caplog.messages[3:] == ["sink x is back after 1.0 s"]


def test_who_is_down_at_the_end_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the summary, and in a line of the command."""

    class Dead(Script):
        def _step(self) -> None:
            raise LOST

    down = Outages.down
    monkeypatch.setattr(Outages, "down", lambda outages, *words: (down(outages, *words), twin.stop()))
    with tw.open(tmp_path / "a.tw", model(Dead(), Watching()), clock=ManualClock()) as twin:
        summary = twin.run()
    assert summary.sources == {"script": {"state": "down", "reason": "ConnectionError: reset by\npeer"}}
    told = _render({**asdict(summary), "journal": "a.tw"})
    assert "source script: down (ConnectionError: reset by\npeer)" in told
    ended = {**asdict(summary), "sources": {"script": {"state": "ended", "reason": ""}}, "journal": "a.tw"}
    assert "source script" not in _render(ended)
    sink = {**summary.sinks["watching"], "state": "down", "reason": "no route"}
    assert "down (no route)" in _render({**asdict(summary), "sinks": {"watching": sink}, "journal": "a.tw"})


@pytest.mark.parametrize(
    ("steps", "reason"),
    [((REFUSED,), "refuses the password"), ((None, Gap(0, 0, 4, "topic t")), "the first that is left is 4")],
    ids=["credentials", "a gap"],
)
def test_who_watches_sees_which_source_has_failed(tmp_path: Path, steps: Any, reason: str) -> None:
    """The last observation of a run that ends with the error of a source says so, whoever has the same name."""
    sink = Watching()

    def build(twin: tw.Twin) -> None:
        model(Script(*steps), sink)(twin)
        twin.sink(Watching(), name="script")

    with pytest.raises(TidewarpError, match=reason), tw.open(tmp_path / "a.tw", build, observe=3_600) as twin:
        twin.run(until=20)
    assert sink.seen["system.source.script.state"] == "failed"
    assert reason in sink.seen["system.source.script.reason"]
    assert sink.seen["system.outbox.script.state"] == "open"


def test_a_sink_that_ends_a_run_makes_no_source_fail(tmp_path: Path) -> None:
    """Though it has the name of one."""
    sink, broken = Watching(), Watching(None, REFUSED)

    def build(twin: tw.Twin) -> None:
        model(Script(), sink)(twin)
        twin.sink(broken, name="script")

    with (
        pytest.raises(OperatorError, match="refuses the password"),
        tw.open(tmp_path / "a.tw", build, observe=3_600, clock=ManualClock()) as twin,
    ):
        twin.run(until=20, factor=0.01)
    assert "failed" not in sink.seen.values(), "whatever it was told: the clock may jump to an observation"
