"""Connectors in threads: what one raises is heard, what one blocks blocks nobody else."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import shell
from tidewarp.connect.contract import Decoder, Output, Raw, Refused, RunIdentity
from tidewarp.connect.gate import Arrived, Connected, Ended
from tidewarp.connect.outbox import Failed, Opened, Send, Sent
from tidewarp.connect.shell import Inbox, Lost, SinkThread, SourceThread
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

    def begin(script: Any, *, sink: bool = False, released: str = "") -> Any:
        made: Any = (
            SinkThread(script, RUN, released, inbox, lambda: 12.5)
            if sink
            else SourceThread(script, {0: 3}, 1_000, inbox)
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
    assert heard(inbox) == Connected("source", "decoder")  # type: ignore[arg-type]
    thread.read(7)
    assert heard(inbox) == Arrived("source", raws)
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
        assert heard(inbox) == Failed("sink", str(error), 12.5)
    assert [call for call in script.calls if call[0] == "write"] == [("write", BATCH.outputs)] * 4


class Odd(BaseException):
    """As some libraries have them."""


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError("gone"), asyncio.CancelledError("why"), SystemExit(3), Odd()]
)
@pytest.mark.parametrize("call", ["open", "decoder", "read", "confirm", "close"])
def test_whatever_a_source_raises_is_heard(
    inbox: Inbox, start: Callable[..., Any], call: str, error: BaseException
) -> None:
    """Lost names the connector and the error: nobody waits for ever for a thread that is gone."""
    script = Script(**{call: error})
    thread = start(script)
    if call in ("read", "confirm", "close"):
        heard(inbox)
        getattr(thread, call)(*{"read": [5], "confirm": [{}], "close": []}[call])
    lost = heard(inbox)
    assert isinstance(lost, Lost)
    assert lost.name == "source"
    assert isinstance(lost.error, OperatorError)
    assert f"source: {type(error).__name__}: {error}" in str(lost.error)
    script.steps.clear()


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
    assert heard(inbox) == Connected("source", None)
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
