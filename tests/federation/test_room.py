"""Room for a large artifact is asked for by the size that its record declares, before a byte of it is kept anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node, asked_of

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.batches import INLINE_BYTES_MAX
from tidewarp.codec.references import Reference
from tidewarp.federation.exchange import Exchange
from tidewarp.federation.messages import DomainReport, Finish, GetArtifact, HttpResponse, Question
from tidewarp.store import MemoryStore, Store, open_store

LARGE = INLINE_BYTES_MAX + 1_000


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty one; it holds six bytes that its own domain has put."""
    with MemoryStore(bytes(32)) if request.param == "memory" else open_store(tmp_path / "A.tw", create=True) as made:
        made.put(b"mine\r\n")
        yield made


class Pull:
    """A pull from ``peer`` that remembers which artifacts it asked for, and what was spooled."""

    def __init__(self, peer: Node, gone: tuple[Reference, ...] = ()) -> None:
        self.asked: list[Reference] = []
        self.spooled: list[io.BytesIO] = []
        self._peer = peer
        self._gone = gone

    def into(self, store: Store, quotas: dict[bytes, int], **options: int) -> tuple[Finish, DomainReport]:
        """How it ended, and what it reports of the peer's own domain."""
        finish = Exchange(store, "a", self._send, self._spool, lambda: 0, quotas=quotas, **options).run()
        (report,) = [one for one in finish.domains if one.domain == self._peer.domain]
        return finish, report

    def _send(self, question: Question) -> HttpResponse:
        if isinstance(question, GetArtifact):
            self.asked.append(question.wanted.reference)
            if question.wanted.reference in self._gone:
                return HttpResponse(404)
        return asked_of(self._peer, question)

    def _spool(self) -> io.BytesIO:
        self.spooled.append(io.BytesIO())
        return self.spooled[-1]


def rooms(whose: str, peer: Node, store: Store, size: int, artifacts: int = 1) -> dict[bytes, int]:
    """Leave ``size`` bytes of payload to so many artifacts: by the quota of the domain, or by the store's own."""
    if whose == "domain":
        return {peer.domain: size + artifacts * len(artifact_head(0, None))}  # it counts ArtifactBytes
    store.set_quota(size + 6)
    assert store.room() == size
    return {}


@pytest.mark.parametrize("whose", ["domain", "store"])
def test_no_byte_is_spooled_that_has_no_room(a: Node, store: Store, whose: str) -> None:
    """The pull ends, the domain is reported as full, and with room for it all comes."""
    reference = a.put(bytes(LARGE))
    pull = Pull(a)
    finish, report = pull.into(store, rooms(whose, a, store, LARGE - 10))
    assert report.outcome == "full"
    assert reference.hex() in report.reason
    assert finish.incomplete
    assert (pull.asked, pull.spooled) == ([reference], [])
    _, report = pull.into(store, rooms(whose, a, store, LARGE))
    assert (report.outcome, store.has([reference])) == ("pulled", [True])
    assert store.room() in (0, None)


@pytest.mark.parametrize("whose", ["domain", "store"])
def test_what_waits_for_the_same_commit_takes_room(a: Node, store: Store, whose: str) -> None:
    """Of two that go with one commit the second has none left; when the first is let go, its room is there again."""
    first, second = a.put(bytes(LARGE)), a.put(b"\1" * LARGE)
    pull = Pull(a)
    _, report = pull.into(store, rooms(whose, a, store, 2 * LARGE - 19, 2))
    assert report.outcome == "full"
    assert second.hex() in report.reason
    assert (pull.asked, len(pull.spooled)) == ([first, second], 1)
    assert store.has([first, second]) == [False, False]
    _, report = pull.into(store, rooms(whose, a, store, 2 * LARGE, 2))
    assert (report.outcome, store.has([first, second])) == ("pulled", [True, True])


@pytest.mark.parametrize("whose", ["domain", "store"])
def test_what_was_committed_is_counted_once(a: Node, store: Store, whose: str) -> None:
    """Two with a commit each fit where both together do."""
    refs = [a.put(bytes([n]) * LARGE) for n in range(2)]
    _, report = Pull(a).into(store, rooms(whose, a, store, 2 * LARGE, 2), limit=1)
    assert (report.outcome, store.has(refs)) == ("pulled", [True, True])


@pytest.mark.parametrize("whose", ["domain", "store"])
def test_bytes_that_come_later_are_asked_too(a: Node, store: Store, whose: str) -> None:
    """What an earlier pull has not got has its room asked when it comes by itself."""
    reference = a.put(bytes(LARGE))
    _, report = Pull(a, gone=(reference,)).into(store, {})
    assert (report.outcome, store.has([reference])) == ("pulled", [False])
    pull = Pull(a)
    _, report = pull.into(store, rooms(whose, a, store, LARGE - 10))
    assert (report.outcome, pull.spooled) == ("full", [])
    pull.into(store, rooms(whose, a, store, LARGE))
    assert store.has([reference]) == [True]


def test_what_the_peer_has_not_takes_no_room(a: Node, store: Store) -> None:
    """A store without room takes the records of artifacts whose bytes are not to be had."""
    reference = a.put(bytes(LARGE))
    store.set_quota(7)
    _, report = Pull(a, gone=(reference,)).into(store, {})
    assert (report.outcome, report.after) == ("pulled", 1)
    assert store.info(reference).state == "withheld"
