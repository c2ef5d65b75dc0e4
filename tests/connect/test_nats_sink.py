"""A subject of a JetStream stream holds each output once and in order, whoever was killed, refused or in the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends.nats_sink import NatsSink
from tidewarp.connect.contract import RunIdentity
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing import armed, raising
from tidewarp.testing.servers.nats import NatsServer
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import perform

SECRET = "hunter2"


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    require("nats")
    with NatsServer(tmp_path_factory.mktemp("nats"), user="twin", password=SECRET) as one:
        yield one


async def with_stream(server: NatsServer, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    import nats

    connection = await nats.connect(server.url)
    try:
        return await work(connection.jetstream())
    finally:
        await connection.close()


def asked(server: NatsServer, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """What ``work`` returns, given JetStream; in a thread, because the suite asks from within a running loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(perform, with_stream(server, work)).result()


def made(server: NatsServer, name: str, **config: Any) -> NatsSink:
    """A stream of this name that takes NAME.>, and a sink for it."""
    asked(server, lambda stream: stream.add_stream(name=name, subjects=[f"{name}.>"], **config))
    return NatsSink(server.url, f"{name}.out", stream=name)


def held(server: NatsServer, name: str) -> list[Any]:
    """The outputs that the stream holds, in its order; raw messages of other subjects are left out."""

    async def work(stream: Any) -> list[Any]:
        info = await stream.stream_info(name)
        messages = [await stream.get_msg(name, seq) for seq in range(1, info.state.last_seq + 1)]
        return [json.loads(one.data)["value"] for one in messages if one.subject.endswith(".out")]

    return asked(server, work)


class TestNatsSink(SinkConformance):
    """What every sink has to keep; below, what is the stream's own."""

    refused = "x" * (1 << 20)
    test_a_write_that_was_torn_is_mended = None  # no copy of a folder is a server; below, the sink is killed

    @pytest.fixture(autouse=True)
    def _serve(self, server: NatsServer) -> None:
        self.server = server
        self.streams: set[str] = set()

    def create(self, folder: Path) -> NatsSink:
        name = self.name(folder)
        if name not in self.streams:
            self.streams.add(name)
            return made(self.server, name)
        return NatsSink(self.server.url, f"{name}.out", stream=name)

    def create_broken(self, folder: Path) -> NatsSink:
        return NatsSink(self.server.url, "none.out", stream="none")

    def values(self, folder: Path) -> list[Any]:
        name = self.name(folder)
        return held(self.server, name) if name in self.streams else []

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(ConnectionError("lost")), arrival=100)

    def name(self, folder: Path) -> str:
        return sha256(str(folder).encode()).hexdigest()[:16]


async def life(sink: NatsSink, first: int, end: int, run: RunIdentity = RUN) -> str | None:
    try:
        told = await sink.open(run)
        batch = [one for one in outputs(first, end) if one.id > (told or "")]
        assert await sink.write(batch) == []
        return told
    finally:
        await sink.close()


def test_a_message_says_whose_and_which_it_is(server: NatsServer) -> None:
    """Its id is the output's within the domain: a consumer can tell a repetition, a source the cause."""
    sink = made(server, "said")
    perform(life(sink, 0, 2))
    last = asked(server, lambda stream: stream.get_msg("said", 2))
    name = f"{RUN.domain}:{output(1).id}"
    assert (last.headers["Nats-Msg-Id"], last.headers["tw-id"], last.subject) == (name, output(1).id, "said.out")
    assert json.loads(last.data)["id"] == output(1).id
    assert (sink.name, sink.delivery, sinks.nats) == ("said", "once", NatsSink)


def test_a_message_of_another_subject_may_come_between(server: NatsServer) -> None:
    """It breaks the batch where it comes, and what is behind is published again: all of it, once, in order."""
    sink = made(server, "between")
    batch = [output(n)._replace(value=pack([n, "x" * 40_000])) for n in range(100)]  # more than waits in one buffer

    def chatter() -> None:
        asked(server, lambda stream: stream.publish("between.other", b"{}"))

    async def run() -> None:
        await sink.open(RUN)
        with armed("release.inside", chatter, arrival=80):
            assert await sink.write(batch) == []
        await sink.close()

    perform(run())
    assert [value[0] for value in held(server, "between")] == [*range(100)]
    other = asked(server, lambda stream: stream.get_last_msg("between", "between.other"))
    assert 1 < other.seq < 101, "it did not come between"


def test_two_writers_neither_double_nor_reorder(server: NatsServer) -> None:
    """A life that was thought dead writes on: it is told so at what does not follow, and each output is held once."""
    made(server, "two")

    async def run() -> None:
        old, new = (NatsSink(server.url, "two.out", stream="two") for _ in range(2))
        assert await old.open(RUN) == ""
        await old.write(outputs(0, 5))
        assert await new.open(RUN) == output(4).id
        await asyncio.gather(old.write(outputs(5, 200)), new.write(outputs(5, 200)), return_exceptions=True)
        await new.open(RUN)
        await new.write(outputs(200, 203))
        with pytest.raises(ConnectionError, match="somebody else"):
            await old.write(outputs(300, 305))
        for sink in (old, new):  # as the host does: open says what is held, the rest is offered
            told = await sink.open(RUN) or ""
            await sink.write([one for one in outputs(0, 210) if one.id > told])
            await sink.close()

    perform(run())
    assert held(server, "two") == [*range(210)]


def test_a_subject_that_is_another_s_is_refused(server: NatsServer) -> None:
    """A foreign producer's, or another run's; with {domain} in it each run has its own."""
    sink = made(server, "foreign")
    asked(server, lambda stream: stream.publish("foreign.out", b"{}"))
    with pytest.raises(OperatorError, match="continues its own"):
        perform(life(sink, 0, 1))
    own = NatsSink(server.url, "foreign.{domain}.out", stream="foreign")
    assert perform(life(own, 0, 3)) is None, "the stream holds something: nobody knows what of this subject it held"
    assert perform(life(own, 0, 5)) == output(2).id
    assert perform(life(own, 0, 5, RUN._replace(domain="ef" * 32))) is None


def test_a_subject_that_retention_has_emptied_cannot_tell(server: NatsServer) -> None:
    """Then the journal is believed: what it says was delivered is not sent again."""
    sink = made(server, "purged")
    perform(life(sink, 0, 5))
    asked(server, lambda stream: stream.purge_stream("purged"))
    assert perform(life(sink, 0, 0)) is None


def test_a_subject_that_the_stream_does_not_take_is_an_error(server: NatsServer) -> None:
    """Of the operator, who has to name another: no retry can mend it."""
    made(server, "takes")
    made(server, "other")
    sink = NatsSink(server.url, "other.out", stream="takes")
    with pytest.raises(OperatorError, match="does not take"):
        perform(life(sink, 0, 3))


def test_a_record_that_is_too_large_for_the_stream_is_refused_alone(server: NatsServer) -> None:
    """The stream's own limit: its refusal in the middle of a batch costs no other output."""
    sink = made(server, "large", max_msg_size=2_000)
    batch = outputs(0, 10)
    batch[4] = batch[4]._replace(value=pack("x" * 3_000))

    async def run() -> Any:
        await sink.open(RUN)
        refused = await sink.write(batch)
        await sink.close()
        return refused

    assert [one.id for one in perform(run())] == [output(4).id]
    assert held(server, "large") == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_no_secret_is_shown(server: NatsServer) -> None:
    """Not by an error of a connection that is refused, for whatever reason."""
    for url in (server.url.replace("twin", "nobody"), "nats://twin:hunter2@127.0.0.1:1", "nats://twin:hunter2@"):
        sink = NatsSink(url, "a", stream="a")
        with pytest.raises((OperatorError, OSError)) as caught:
            perform(life(sink, 0, 0))
        shown = [str(caught.value), repr(caught.value), repr(sink), str(caught.value.__cause__)]
        assert not any(SECRET in text for text in shown)
        assert isinstance(caught.value, OSError) == ("127.0.0.1:1" in url), "only an absent server may pass"


def test_a_server_that_is_killed_in_the_middle_of_a_batch(require: Callable[[str], None], tmp_path: Path) -> None:
    """SIGKILL under load, again and again: what was acknowledged is held, and in the end each output once."""
    require("nats")
    with NatsServer(tmp_path / "server") as server:
        sink = made(server, "killed")

        async def run() -> None:
            acknowledged = 0
            await sink.open(RUN)
            for turn in range(3):
                with armed("release.inside", server.kill, arrival=40 + 30 * turn):
                    try:
                        while True:
                            await sink.write(outputs(acknowledged, acknowledged + 50))
                            acknowledged += 50
                    except OSError:
                        pass
                await sink.close()
                with pytest.raises(OSError):
                    await sink.open(RUN)
                server.start()
                told = await sink.open(RUN) or ""
                assert told >= (output(acknowledged - 1).id if acknowledged else "")
                await sink.write([one for one in outputs(0, acknowledged + 50) if one.id > told])
                acknowledged += 50
            await sink.close()
            assert held_now(await with_stream(server, lambda stream: all_of(stream, "killed"))) == [
                *range(acknowledged)
            ]

        async def all_of(stream: Any, name: str) -> list[Any]:
            info = await stream.stream_info(name)
            return [await stream.get_msg(name, seq) for seq in range(1, info.state.last_seq + 1)]

        def held_now(messages: list[Any]) -> list[Any]:
            return [json.loads(one.data)["value"] for one in messages]

        perform(run())


def test_a_slow_server_is_waited_for(require: Callable[[str], None], tmp_path: Path) -> None:
    """Paused in the middle of a batch it answers when it goes on, and the write is over then."""
    require("nats")
    with NatsServer(tmp_path / "server") as server:
        sink = made(server, "slow")

        async def run() -> None:
            await sink.open(RUN)
            with armed("release.inside", server.pause, arrival=50):
                writing = asyncio.ensure_future(sink.write(outputs(0, 100)))
                for _ in range(100):
                    await asyncio.sleep(0)
            assert not writing.done()
            server.proceed()
            assert await writing == []
            await sink.close()

        perform(run())
        assert held(server, "slow") == [*range(100)]


LIVES = """
import asyncio, os, sys
from tidewarp.connect.backends.nats_sink import NatsSink
from tidewarp.testing import armed, die
from tidewarp.testing.sinks import RUN, outputs

async def life(arrival):
    sink = NatsSink(sys.argv[1], "dies.out", stream="dies")
    told = await sink.open(RUN) or ""
    with armed("release.inside", die, arrival=arrival):
        for first in range(0, 300, 30):
            batch = [one for one in outputs(first, first + 30) if one.id > told]
            if batch:
                await sink.write(batch)
    await sink.close()

for arrival in map(int, sys.argv[2:]):
    pid = os.fork()
    if pid == 0:
        asyncio.run(life(arrival))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_sink_that_is_killed_anywhere_is_exactly_once(server: NatsServer) -> None:
    """SIGKILL between two messages of a batch, life after life; the next one takes what is missing and nothing else."""
    made(server, "dies")
    arrivals = ["1", "17", "30", "31", "75", "10000"]
    lives = subprocess.run([sys.executable, "-c", LIVES, server.url, *arrivals], capture_output=True, text=True)
    assert lives.stdout.split() == ["-9"] * 5 + ["0"], lives.stderr
    assert held(server, "dies") == [*range(300)]


def test_a_missing_package_is_named_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the sink is opened: a replay needs it not."""
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    sink = NatsSink("nats://localhost", "a", stream="a")
    with pytest.raises(MissingExtra, match=r"tidewarp\[nats\]"):
        perform(sink.open(RUN))
    perform(sink.close())
