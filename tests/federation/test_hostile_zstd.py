"""A peer that answers, or pushes, what is no zstd or more than may come: refused on both sides, kept as evidence, in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node
from receiving import FEDERATE, handler_of

from tidewarp.errors import PeerRefused
from tidewarp.federation.encoding import pack_zstd
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetHeads, HttpRequest, HttpResponse
from tidewarp.federation.parcel import Parcel
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.push import Push
from tidewarp.federation.shell import PeerClient, pull, serve
from tidewarp.federation.shell.server import PeerServer
from tidewarp.store import SqliteStore, open_store

pytestmark = pytest.mark.proof("whatever a peer says, only the truth is taken, in bounded time and memory")

MEMORY_MAX = 96 << 20  # a body of 16 MiB, some copies of it, and the window


@pytest.fixture(autouse=True)
def zstd(require):
    require("zstd")


@pytest.fixture
def a() -> Iterator[Node]:
    node = Node("a")
    for n in range(40):
        node.put(b"reading %d " % n * 20)
    node.put(bytes(70_000))
    yield node
    node.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with open_store(tmp_path / "B", create=True) as made:
        yield made


class Packer(PeerHandler):
    """Answers to one address with a body of its own, which it says is zstd."""

    def __init__(self, node: Node, target: str) -> None:
        super().__init__(node)
        self.target = target
        self.body = b""
        self.encoding = "zstd"

    def handle(self, request: HttpRequest) -> HttpResponse:
        answer = super().handle(request)
        if not request.target.startswith(self.target):
            return answer
        headers = {**answer.headers, "content-encoding": self.encoding}
        return answer._replace(body=self.body, size=None, headers=headers)


@pytest.mark.parametrize("target", ["/v1/records", "/v1/artifacts/00"])
def test_a_server_that_lies_in_zstd(a: Node, store: SqliteStore, target: str) -> None:
    """Nothing of it is taken, conflict and bytes are kept, and memory stays small; then all of the truth."""
    from zstd_lies import zstd_lies

    held = max(a.artifacts.values(), key=lambda one: len(one.payload)).to_bytes()
    truth = PeerHandler(a).handle(HttpRequest("GET", f"/v1/records?domain={a.domain.hex()}")).whole
    lies = zstd_lies(truth if target == "/v1/records" else held)
    packer = Packer(a, target)
    with PeerServer(packer) as server:
        for name, packer.body in lies.items():
            before = len(ledger_of(store).quarantined())
            tracemalloc.start()
            report = pull(store, server.url)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MEMORY_MAX, name
            if target != "/v1/records" and len(packer.body) > len(held):  # cut off before it was read
                assert (report.records, report.conflicts, bool(report.incomplete)) == (0, 0, True), name
                continue
            assert (report.records, report.conflicts) == (0, 1), name
            assert len(ledger_of(store).quarantined()) == before + 1, name
            assert ledger_of(store).quarantined()[-1].data == packer.body, name
        assert [one.kind for one in ledger_of(store).conflicts()] == ["payload_mismatch"]
    assert [one.id for one in store.domains()] == [store.domain]
    with serve(a) as honest:
        assert pull(store, honest.url).records == 41
    assert store.fsck().clean


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, zstd", "identity", ""])
def test_an_encoding_that_nobody_asked_for(a: Node, store: SqliteStore, encoding: str) -> None:
    """Only what was asked for is read; all else ends the pull."""
    packer = Packer(a, "/v1/records")
    packer.body, packer.encoding = pack_zstd(b"x"), encoding
    with PeerServer(packer) as server:
        report = pull(store, server.url)
        assert report.records == 0
        assert report.incomplete
    packer = Packer(a, "/v1/heads")
    packer.body = pack_zstd(b"[]")
    with PeerServer(packer) as server, PeerClient(server.url) as client, pytest.raises(PeerRefused):
        client.ask(GetHeads())


def test_a_client_that_lies_in_zstd(a: Node, store: SqliteStore) -> None:
    """A push: refused with 413 or 400, kept as evidence, nothing of it taken; then all of the truth."""
    from zstd_lies import TOO_LONG, zstd_lies

    handler = handler_of(store)
    pushed: list[bytes] = []

    def ask(question):
        pushed.append(getattr(question, "body", b""))
        return HttpResponse(200, body=b"[]") if isinstance(question, GetHeads) else HttpResponse(500)

    Push(a, ask).run()
    truth = pushed[1]
    assert Parcel.from_bytes(truth).to_bytes() == truth
    headers = {"content-encoding": "zstd"}
    for name, body in zstd_lies(truth).items():
        tracemalloc.start()
        answer = handler.handle(HttpRequest("POST", "/v1/records", headers, body, FEDERATE))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY_MAX, name
        assert answer.status == (413 if name in TOO_LONG else 400), name
        assert ledger_of(store).quarantined()[-1].data == body, name
    assert [one.id for one in store.domains()] == [store.domain]
    assert (
        handler.handle(HttpRequest("POST", "/v1/records", {"content-encoding": "gzip"}, truth, FEDERATE)).status == 415
    )
    good = handler.handle(HttpRequest("POST", "/v1/records", headers, pack_zstd(truth), FEDERATE))
    assert good.status == 200
    assert [one.header for one in store.records(a.domain)] == [one.header for one in a.logs[a.domain]]


def test_both_ways_bring_the_same(a: Node, tmp_path: Path) -> None:
    """With the encoding and without: equal records, equal state; with it fewer bytes travel."""
    hashes, sent = [], []
    for wanted in (True, False):
        with (
            open_store(tmp_path / f"B {wanted}", create=True) as store,
            serve(a) as server,
            PeerClient(server.url, zstd=wanted) as client,
        ):
            from tidewarp.clocks.wall import WallClock
            from tidewarp.federation.shell import pull_by

            assert pull_by(client, store, WallClock()).records == 41
            hashes.append(store.state_hash())
            sent.append(server.metrics.counts()["peer_sent_bytes_total", ""])
    assert hashes[0] == hashes[1]
    assert sent[0] < sent[1] / 2
