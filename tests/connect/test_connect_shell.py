"""Connectors in threads: what one raises is heard, what one blocks blocks nobody else."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import outbox, shell
from tidewarp.connect.contract import Decoder, Gap, Output, Raw, Refused, RunIdentity
from tidewarp.connect.gate import Arrived, Connected, Disconnected, Ended, Missing
from tidewarp.connect.outbox import Failed, Fetch, Fetched, Opened, Send, Sent, Spill
from tidewarp.connect.shell import Inbox, Lost, SinkThread, SourceThread, SpillThread
from tidewarp.connect.spill import SpillFile
from tidewarp.errors import InternalError, OperatorError

RUN = RunIdentity("ab" * 32, 0)
SAFETY_S = 30.0  # nothing here takes that long: it turns a hang into a failure
BATCH = Send("sink", (Output("0" * 16 + "-00000000", 0, "k", pack(1), "", "", 0),))


class Script:
    """A source and a sink whose every call does what the test put down for it, and says so."""

    kind = "script"
    delivery = "once"

    def __init__(self, name: str = "source", **steps: Any) -> None:
        self.name = name
        self.steps = steps
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def do(self, call: str, *arguments: Any) -> Any:
        self.calls.append((call, *arguments))
        self.threads.add(threading.get_ident())
        step = self.steps.get(call)
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    def decoder(self, epoch_ns: int) -> Decoder:
        return self.do("decoder", epoch_ns)

    async def open(self, where: Any) -> Any:
        return self.do("open", where)

    def accept(self, gap: Gap) -> None:
        self.do("accept", gap)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        return self.do("read", limit)

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        return self.do("write", tuple(batch)) or []

    async def confirm(self, positions: Mapping[int, int]) -> None:
        self.do("confirm", positions)

    async def close(self) -> None:
        self.do("close")


@pytest.fixture
def inbox() -> Inbox:
    return queue.SimpleQueue()


@pytest.fixture
def start(inbox: Inbox) -> Iterator[Callable[..., Any]]:
    """`start(script)` runs it as a source, `start(script, sink=True)` as a sink; all are ended with the test."""
    threads: list[Any] = []

    def begin(script: Any, *, sink: bool = False, released: str = "", decoder: Any = None) -> Any:
        made: Any = (
            SinkThread(script, RUN, released, inbox, lambda: 12.5)
            if sink
            else SourceThread(script, {0: 3}, 1_000, inbox, lambda: 12.5, lambda: 77, decoder)
        )
        threads.append(made)
        return made

    yield begin
    for thread in threads:
        thread.close()
        assert not thread._thread.is_alive()


def heard(inbox: Inbox) -> Any:
    return inbox.get(timeout=SAFETY_S)


def test_a_source_is_opened_read_confirmed_and_closed_in_one_thread_in_order(
    inbox: Inbox, start: Callable[..., Any]
) -> None:
    """Connected with its decoder, Arrived, Ended; a confirmation says nothing."""
    raws = [Raw(0, 4, b"x")]
    script = Script(decoder="decoder", read=lambda: raws if len(script.calls) < 4 else None)
    thread = start(script)
    assert heard(inbox) == Connected("source", "decoder", 1_000, 12.5)  # type: ignore[arg-type]
    thread.read(7)
    assert heard(inbox) == Arrived("source", raws, 12.5, 77)
    thread.confirm({0: 4})
    thread.read(5)
    assert heard(inbox) == Ended("source")
    thread.close()
    assert script.calls == [
        ("open", {0: 3}),
        ("decoder", 1_000),
        ("read", 7),
        ("confirm", {0: 4}),
        ("read", 5),
        ("close",),
    ]
    assert len(script.threads) == 1
    assert threading.get_ident() not in script.threads


@pytest.mark.parametrize(("tells", "last"), [("last", "last"), ("", ""), (None, "journaled")])
def test_a_sink_that_cannot_tell_is_believed_to_hold_what_the_journal_says(
    inbox: Inbox, start: Callable[..., Any], tells: str | None, last: str
) -> None:
    """Its own word counts more."""
    start(Script("sink", open=tells), sink=True, released="journaled")
    assert heard(inbox) == Opened("sink", last)


def test_a_write_that_may_pass_is_failed_and_is_timed(inbox: Inbox, start: Callable[..., Any]) -> None:
    """Every OSError: a full disk, a lost connection, a timeout. What the target refuses for good is Sent."""
    refusal = [Refused("id", "no")]
    script = Script("sink", write=refusal)
    thread = start(script, sink=True)
    heard(inbox)
    thread.send(BATCH)
    assert heard(inbox) == Sent("sink", refusal)
    for error in (OSError("full"), ConnectionResetError("gone"), TimeoutError("slow")):
        script.steps["write"] = error
        thread.send(BATCH)
        assert heard(inbox) == Failed("sink", f"{type(error).__name__}: {error}", 12.5)
    assert [call for call in script.calls if call[0] == "write"] == [("write", BATCH.outputs)] * 4


def test_a_write_without_a_clear_reason_is_failed_and_does_not_pass(inbox: Inbox, start: Callable[..., Any]) -> None:
    """The outbox looks for the output that it comes from; the thread stays."""
    script = Script("sink", write=ValueError("odd"))
    thread = start(script, sink=True)
    heard(inbox)
    thread.send(BATCH)
    assert heard(inbox) == Failed("sink", "ValueError: odd", 12.5, passing=False)
    script.steps.clear()
    thread.send(BATCH)
    assert heard(inbox) == Sent("sink", [])


def test_a_sink_that_is_down_is_closed_and_opened_again_when_it_is_asked_to(
    inbox: Inbox, start: Callable[..., Any]
) -> None:
    """At the first open as later; a close that fails does not keep it from opening."""
    script = Script("sink", open=ConnectionRefusedError("no"))
    thread = start(script, sink=True, released="journaled")
    assert heard(inbox) == Failed("sink", "ConnectionRefusedError: no", 12.5)
    script.steps["close"] = BrokenPipeError("gone")
    thread.reopen()
    assert heard(inbox) == Failed("sink", "ConnectionRefusedError: no", 12.5)
    script.steps["open"] = None
    thread.reopen()
    assert heard(inbox) == Opened("sink", "journaled"), "the first that it says in this life"
    thread.reopen()
    assert heard(inbox) == Opened("sink", None), "the outbox knows better than the journal by now"
    script.steps.clear()
    thread.close()
    assert [call[0] for call in script.calls] == ["open", *["close", "open"] * 3, "close"]


def test_a_source_that_is_down_is_closed_and_opened_again_behind_new_positions(
    inbox: Inbox, start: Callable[..., Any]
) -> None:
    """Refused, then read from, then lost: Disconnected each time, with the reason and the time."""
    script = Script(open=ConnectionRefusedError("no"), decoder="decoder")
    thread = start(script)
    assert heard(inbox) == Disconnected("source", "ConnectionRefusedError: no", 12.5)
    script.steps.update(open=None, close=BrokenPipeError("gone"), read=TimeoutError("slow"))
    thread.reconnect({0: 5}, None)
    assert heard(inbox) == Connected("source", "decoder", 1_000, 12.5)  # type: ignore[arg-type]
    thread.read(1)
    assert heard(inbox) == Disconnected("source", "TimeoutError: slow", 12.5)
    thread.reconnect({0: 6}, None)
    assert heard(inbox) == Connected("source", "decoder", 1_000, 12.5)  # type: ignore[arg-type]
    script.steps.clear()
    thread.close()
    assert script.calls == [
        ("open", {0: 3}),
        ("close",),
        ("open", {0: 5}),
        ("decoder", 1_000),
        ("read", 1),
        ("close",),
        ("open", {0: 6}),
        ("close",),
    ], "the decoder is made once"


@pytest.mark.parametrize("call", ["open", "read"])
def test_what_a_target_no_longer_has_is_missing_until_it_is_accepted(
    inbox: Inbox, start: Callable[..., Any], call: str
) -> None:
    """The source hears of the acceptance between close and open."""
    gap = Gap(0, 4, 9, "topic t")
    script = Script(**{call: gap})
    thread = start(script)
    if call == "read":
        heard(inbox)
        thread.read(1)
    assert heard(inbox) == Missing("source", gap, 12.5)
    script.steps.clear()
    thread.reconnect({0: 8}, gap)
    assert heard(inbox) == Connected("source", None, 1_000, 12.5)
    assert script.calls[-4 + (call == "read") :][:3] == [("close",), ("accept", gap), ("open", {0: 8})]


def test_the_decoder_that_the_user_chose_takes_the_place_of_the_sources_own(
    inbox: Inbox, start: Callable[..., Any]
) -> None:
    """It is asked for with the epoch, and the source's own is not."""
    script = Script(decoder=ValueError("not asked"))
    start(script, decoder=lambda epoch_ns: ("chosen", epoch_ns))
    assert heard(inbox) == Connected("source", ("chosen", 1_000), 1_000, 12.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), TimeoutError("slow")])
def test_a_confirmation_that_cannot_be_told_now_is_no_error(
    inbox: Inbox, start: Callable[..., Any], error: OSError
) -> None:
    """Its reader meets the same outage, and the next confirmation says it again."""
    script = Script(confirm=error)
    thread = start(script)
    heard(inbox)
    thread.confirm({0: 1})
    script.steps["read"] = []
    thread.read(1)
    assert heard(inbox) == Arrived("source", [], 12.5, 77)
    thread.close()
    assert ("confirm", {0: 1}) in script.calls
    assert inbox.empty()


class Odd(BaseException):
    """As some libraries have them."""


@pytest.mark.parametrize("error", [ValueError("bad"), asyncio.CancelledError("why"), SystemExit(3), Odd()])
@pytest.mark.parametrize("call", ["open", "decoder", "read", "confirm", "close", "accept"])
def test_whatever_else_a_source_raises_is_heard(
    inbox: Inbox, start: Callable[..., Any], call: str, error: BaseException
) -> None:
    """Lost names the connector and the error: nobody waits for ever for a thread that is gone."""
    script = Script(**{call: error})
    thread = start(script)
    if call not in ("open", "decoder"):
        heard(inbox)
    if call == "accept":
        thread.reconnect({}, Gap(0, 1, 2, "t"))
    elif call in ("read", "confirm", "close"):
        getattr(thread, call)(*{"read": [5], "confirm": [{}], "close": []}[call])
    lost = heard(inbox)
    assert isinstance(lost, Lost)
    assert lost.name == "source"
    assert isinstance(lost.error, OperatorError)
    assert f"source: {type(error).__name__}: {error}" in str(lost.error)
    script.steps.clear()


@pytest.mark.parametrize("sink", [True, False])
def test_closing_does_not_wait_for_a_server_that_does_not_answer(
    inbox: Inbox, start: Callable[..., Any], sink: bool
) -> None:
    """Opened again or for the first time: the wait is cancelled, what stands in line after it is left out."""
    waiting = threading.Event()

    class Gone(Script):
        async def open(self, where: Any) -> Any:
            self.do("open", where)
            if len(self.calls) > 2:
                waiting.set()
                await asyncio.Event().wait()

    script = Gone("it")
    thread = start(script, sink=sink)
    heard(inbox)
    again = thread.reopen if sink else lambda: thread.reconnect({}, None)
    again()
    assert waiting.wait(SAFETY_S)
    again()
    thread.close()
    assert not thread._thread.is_alive()
    assert [call[0] for call in script.calls if call[0] != "decoder"] == ["open", "close", "open", "close"]
    assert inbox.empty()


@pytest.mark.parametrize("call", ["open", "write"])
def test_an_error_of_ours_is_handed_on_as_it_is(inbox: Inbox, start: Callable[..., Any], call: str) -> None:
    """Its value, rule and action are better than ours."""
    error = InternalError("v", "r", "a")
    thread = start(Script("sink", **{call: error}), sink=True)
    if call == "write":
        heard(inbox)
        thread.send(BATCH)
    assert heard(inbox) == Lost("sink", error)


def test_a_lost_connector_can_still_be_closed(inbox: Inbox, start: Callable[..., Any]) -> None:
    """What it took before it failed is released."""
    script = Script(open=ValueError("bad"))
    thread = start(script)
    assert isinstance(heard(inbox), Lost)
    thread.close()
    assert script.calls == [("open", {0: 3}), ("close",)]


def test_a_connector_that_blocks_blocks_nobody(inbox: Inbox, start: Callable[..., Any]) -> None:
    """While one write hangs, another sink and a source do a hundred turns, and the caller never waits."""
    hang = threading.Event()
    entered = threading.Event()

    def stuck() -> list[Refused]:
        entered.set()
        assert hang.wait(SAFETY_S)
        return []

    slow, fast = start(Script("slow", write=stuck), sink=True), start(Script("fast"), sink=True)
    source = start(Script(read=lambda: [Raw(0, 0, b"")]))
    assert sorted(type(heard(inbox)).__name__ for _ in range(3)) == ["Connected", "Opened", "Opened"]
    slow.send(BATCH)
    assert entered.wait(SAFETY_S)
    for _ in range(100):
        fast.send(BATCH)
        source.read(1)
        assert {type(heard(inbox)) for _ in range(2)} == {Sent, Arrived}
    hang.set()
    assert heard(inbox) == Sent("slow", [])


def test_closing_ends_the_thread_and_may_be_done_twice(inbox: Inbox, start: Callable[..., Any]) -> None:
    """What was asked before is done first; the connector is closed once."""
    script = Script("sink")
    thread = start(script, sink=True)
    for _ in range(3):
        thread.send(BATCH)
    thread.close()
    thread.close()
    assert not thread._thread.is_alive()
    assert [call[0] for call in script.calls] == ["open", "write", "write", "write", "close"]
    assert [type(heard(inbox)) for _ in range(4)] == [Opened, Sent, Sent, Sent]
    assert inbox.empty()


def test_closing_does_not_wait_for_ever(
    inbox: Inbox, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that waits for data that never comes holds nobody up."""
    hang, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert hang.wait(SAFETY_S)

    thread = start(Script(read=wait))
    heard(inbox)
    thread.read(1)
    assert entered.wait(SAFETY_S)
    with monkeypatch.context() as patch:
        patch.setattr(shell, "_CLOSE_S", 0.0)
        thread.close()
        assert thread._thread.is_alive()
        assert thread._thread.daemon, "the process can end without it"
    hang.set()


def test_a_source_that_waits_for_data_is_confirmed_meanwhile_and_closed_at_once(
    inbox: Inbox, start: Callable[..., Any]
) -> None:
    """A broker's reader waits for ever in an await: neither confirmation nor close may stand in line behind it."""
    waiting = threading.Event()

    class Broker(Script):
        async def read(self, limit: int) -> Sequence[Raw] | None:
            self.do("read", limit)
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.calls.append(("read ends",))
            return None

    script = Broker()
    thread = start(script)
    assert heard(inbox) == Connected("source", None, 1_000, 12.5)
    thread.read(1)
    assert waiting.wait(SAFETY_S)
    thread.confirm({0: 4})
    thread.close()
    assert not thread._thread.is_alive()
    assert [call[0] for call in script.calls] == ["open", "decoder", "read", "confirm", "read ends", "close"]
    assert inbox.empty()


def test_a_connector_that_never_opens_is_closed(inbox: Inbox, start: Callable[..., Any]) -> None:
    """A server that does not answer holds up nobody's end."""
    waiting = threading.Event()

    class Silent(Script):
        async def open(self, where: Any) -> Any:
            self.do("open", where)
            waiting.set()
            await asyncio.Event().wait()

    script = Silent()
    thread = start(script, sink=True)
    assert waiting.wait(SAFETY_S)
    thread.close()
    assert not thread._thread.is_alive()
    assert [call[0] for call in script.calls] == ["open", "close"]


def test_a_read_that_had_not_begun_when_the_run_ended_hides_no_close(inbox: Inbox, start: Callable[..., Any]) -> None:
    """Asked and closed within one turn of the loop: the source is closed all the same, and no thread dies."""
    hang, entered = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert hang.wait(SAFETY_S)

    script = Script(confirm=block)
    thread = start(script)
    heard(inbox)
    thread.confirm({0: 1})
    assert entered.wait(SAFETY_S)  # the loop is busy: what follows is met in one turn, and the read after the end
    thread.confirm({0: 2})
    thread.read(1)
    thread.end()
    hang.set()
    thread.close()
    assert [call[0] for call in script.calls] == ["open", "decoder", "confirm", "confirm", "close"]
    assert inbox.empty()


@pytest.fixture
def spilling(inbox: Inbox, tmp_path: Path) -> Iterator[SpillThread]:
    thread = SpillThread(lambda sink: tmp_path / f"{sink}.spill", inbox)
    yield thread
    thread.close()
    assert not thread._thread.is_alive()


def outputs(first: int, end: int) -> tuple[Output, ...]:
    return tuple(Output(f"{n:016x}-00000000", n, "k", pack(n), "cause", "root", n) for n in range(first, end))


def test_each_sink_has_a_spill_file_of_its_own_that_is_gone_at_the_end(
    inbox: Inbox, spilling: SpillThread, tmp_path: Path
) -> None:
    """First in, first out; one sink's do not come back to another."""
    spilling.spill(Spill("x", outputs(0, 3)))
    spilling.spill(Spill("y", outputs(10, 12)))
    spilling.spill(Spill("x", outputs(3, 4)))
    spilling.fetch(Fetch("x", 2))
    assert heard(inbox) == Fetched("x", list(outputs(0, 2)))
    spilling.fetch(Fetch("y", 2))
    spilling.fetch(Fetch("x", 2))
    assert [heard(inbox), heard(inbox)] == [Fetched("y", list(outputs(10, 12))), Fetched("x", list(outputs(2, 4)))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.spill", "y.spill"]
    spilling.close()
    assert list(tmp_path.iterdir()) == []
    assert inbox.empty()


def test_a_spill_file_that_cannot_be_made_ends_the_run_with_what_to_do(inbox: Inbox, tmp_path: Path) -> None:
    """Its folder is the operator's affair."""
    thread = SpillThread(lambda sink: tmp_path / "missing" / sink, inbox)
    thread.spill(Spill("x", outputs(0, 1)))
    lost = heard(inbox)
    thread.close()
    assert isinstance(lost, Lost)
    assert "TIDEWARP_SPILL_DIR" in str(lost.error)


def test_a_spill_file_that_has_failed_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when there is space again: what it took then would stand behind a hole. What waits is given back."""
    made = [Output(f"{n:016x}-00000000", n, "k", b"\0", "", "", n) for n in range(3)]
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    thread = SpillThread(lambda sink: tmp_path / sink, inbox)
    thread.spill(outbox.Spill("a", (made[0],)))
    append, failing = SpillFile.append, [OSError(28, "No space left on device")]

    def full(file: SpillFile, outputs: Any) -> None:
        if failing:
            raise failing.pop()
        append(file, outputs)

    thread.fetch(outbox.Fetch("a", 0))
    assert inbox.get(timeout=10) == outbox.Fetched("a", [])
    monkeypatch.setattr(SpillFile, "append", full)
    thread.spill(outbox.Spill("a", (made[1],)))
    thread.spill(outbox.Spill("a", (made[2],)))
    thread.fetch(outbox.Fetch("a", 3))
    told = [inbox.get(timeout=10) for _ in range(3)]
    assert [one.first_id for one in told[:2]] == [made[1].id, made[2].id]
    assert told[2] == outbox.Fetched("a", [made[0]])
    thread.close()
