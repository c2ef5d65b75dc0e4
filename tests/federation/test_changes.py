"""Which domains have grown: tokens, requests that wait for it, and who pulls whenever it happens. No second passes here."""

from __future__ import annotations

import json
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import Node, pulled

from tidewarp.errors import PeerRefused, TidewarpError
from tidewarp.federation.changes import TOKENS_KEPT, Changes
from tidewarp.federation.messages import GetChanges, HttpRequest, HttpResponse
from tidewarp.federation.peer import WAIT_MS_MAX, PeerHandler
from tidewarp.federation.shell import PeerClient
from tidewarp.federation.shell import server as server_module
from tidewarp.federation.shell.following import BACK_OFF_S, Follower
from tidewarp.federation.shell.reports import PullReport
from tidewarp.federation.shell.server import PeerServer
from tidewarp.testing import ManualClock


@pytest.fixture
def a():
    node = Node("a")
    node.put(b"first")
    yield node
    node.close()


def asked(handler, question):
    return handler.handle(HttpRequest("GET", question.target))


def said(answer):
    return json.loads(answer.whole)


# --- tokens

VECTORS = st.dictionaries(st.sampled_from([bytes([n]) * 32 for n in range(4)]), st.integers(1, 5))


@given(st.lists(VECTORS, min_size=1, max_size=12))
def test_what_has_grown_since_a_token(vectors):
    """The domains whose size differs, of any two vectors; equal vectors have one token, in every life."""
    changes = Changes()
    tokens = [changes.note(one) for one in vectors]
    assert tokens == [Changes().note(one) for one in vectors]
    now = vectors[-1]
    for token, before in zip(tokens, vectors, strict=True):
        assert changes.since(token, now) == sorted(one for one in now if before.get(one) != now[one])
    assert changes.since("00" * 32, now) is None


def test_tokens_are_bounded():
    """The newest are kept; one that is shown again is new again."""
    changes = Changes()
    tokens = [changes.note({bytes(32): n}) for n in range(1, TOKENS_KEPT + 1)]
    changes.note({bytes(32): 1})
    changes.note({bytes(32): 9_999})
    assert changes.since(tokens[0], {}) == []
    assert changes.since(tokens[1], {}) is None
    assert changes.since(tokens[2], {}) == []


# --- the request


def test_a_token_and_what_has_grown(a):
    """First the token alone; then nothing; then the domain, signed as far as it goes; an old one is 410."""
    handler = PeerHandler(a)
    first = said(asked(handler, GetChanges()))
    assert first["domains"] == []
    nothing = asked(handler, GetChanges(first["token"], 7_000))
    assert (said(nothing), nothing.wait_s) == (first, 7.0)
    a.put(b"second")
    grown = asked(handler, GetChanges(first["token"], 7_000))
    assert (said(grown)["domains"], grown.wait_s) == ([a.domain.hex()], 0.0)
    assert said(grown)["token"] != first["token"]
    other = Node("other")
    other.put(b"x")
    pulled(a, other)
    assert said(asked(handler, GetChanges(said(grown)["token"])))["domains"] == [other.domain.hex()]
    assert asked(handler, GetChanges("00" * 32)).status == 410
    assert asked(PeerHandler(a), GetChanges(first["token"])).status == 410
    other.close()


@pytest.mark.parametrize(
    "query",
    ["since=", "since=xx", "wait_ms=-1", "wait_ms=30001", "wait_ms=1e3", "since=" + "0" * 65, "x=1", "wait_ms="],
)
def test_requests_that_are_none(a, query):
    """400."""
    assert PeerHandler(a).handle(HttpRequest("GET", f"/v1/changes?{query}")).status == 400


class Acting(ManualClock):
    """Waiting takes no time, and the n-th wait does something."""

    def __init__(self, *acts):
        super().__init__()
        self.acts = deque(acts)
        self.waits = []

    def wait(self, inbox, timeout_s):
        self.waits.append(timeout_s)
        if self.acts:
            self.acts.popleft()()
        return super().wait(inbox, timeout_s)


def test_a_request_that_waits_in_vain(a):
    """The answer comes when the time is over, after a bounded number of looks; the same token."""
    clock = Acting()
    with PeerServer(PeerHandler(a), clock=clock) as server, PeerClient(server.url) as client:
        token = said(client.ask(GetChanges()))["token"]
        answer = client.ask(GetChanges(token, WAIT_MS_MAX))
    assert said(answer) == {"domains": [], "token": token}
    assert sum(clock.waits) == pytest.approx(30.0)
    assert len(clock.waits) <= 60


def test_a_request_that_does_not_wait_in_vain(a):
    """What comes while it waits is the answer, at the next look."""
    clock = Acting(lambda: None, lambda: a.put(b"second"))
    with PeerServer(PeerHandler(a), clock=clock) as server, PeerClient(server.url) as client:
        token = said(client.ask(GetChanges()))["token"]
        assert said(client.ask(GetChanges(token, WAIT_MS_MAX)))["domains"] == [a.domain.hex()]
    assert len(clock.waits) == 2


def test_so_many_wait_and_no_more(a, monkeypatch):
    """Who is one too many is told to come again; others are answered meanwhile, and the place is free again afterwards."""
    monkeypatch.setattr(server_module, "WAITING_MAX", 1)
    waiting, go_on = threading.Event(), threading.Event()

    def held():
        waiting.set()
        assert go_on.wait(20)

    clock = Acting(held)
    with (
        PeerServer(PeerHandler(a), clock=clock) as server,
        PeerClient(server.url) as one,
        PeerClient(server.url) as two,
    ):
        token = said(one.ask(GetChanges()))["token"]
        thread = threading.Thread(target=one.ask, args=(GetChanges(token, 1_000),))
        thread.start()
        assert waiting.wait(20)
        refused = two.ask(GetChanges(token, 1_000))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert two.ask(GetChanges(token)).status == 200
        go_on.set()
        thread.join()
        assert two.ask(GetChanges(token, 1_000)).status == 200


def test_a_server_that_ends_lets_who_waits_go(a):
    """Close does not wait for the end of a request that waits."""
    holder = []
    clock = Acting(lambda: holder[0]._listener.server_close())
    with PeerServer(PeerHandler(a), clock=clock) as server, PeerClient(server.url) as client:
        holder.append(server)
        token = said(client.ask(GetChanges()))["token"]
        # The pool waits for its threads, and this is one of them: so only what closing tells them is done here.
        server._listener.server_close = lambda: setattr(server._listener, "is_closing", True)
        client.ask(GetChanges(token, WAIT_MS_MAX))
        assert len(clock.waits) == 1
        del server._listener.server_close


# --- who follows


class Scripted:
    """A peer in the place of a client: gives its answers one after the other, and then ends the follower."""

    refusal = None

    def __init__(self, *answers):
        self.answers = deque(answers)
        self.asked = []
        self.end = None

    def ask(self, question):
        self.asked.append(question)
        if not self.answers:
            self.end()
            raise ConnectionError("it was interrupted")
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def interrupt(self):
        pass


def report(records=0, incomplete=""):
    return PullReport(records, 0, 10, (), 0, incomplete, True, 0.5)


def changes(token, *domains):
    rows = ",".join(f'"{one.hex()}"' for one in domains)
    return HttpResponse(200, body=f'{{"domains":[{rows}],"token":"{token * 64}"}}'.encode())


def followed(client, pulls):
    """Follow with these outcomes of pulls; the total, how many there were, and the rests."""
    clock = Acting()
    left = deque(pulls)

    def pull():
        found = left.popleft() if left else report(1)
        if not left and not client.answers:
            follower.stop()
        return found

    follower = Follower(client, pull, clock)
    client.end = follower.stop
    return follower.run(), follower.pulls, clock.waits


def test_a_pull_whenever_the_peer_has_grown():
    """Nothing is pulled while it has not; what all have brought is added; the token is that of before the pull."""
    client = Scripted(changes("0"), changes("0"), changes("1", bytes(32)), changes("1"), changes("2", bytes(32)))
    total, pulls, rests = followed(client, [report(3), report(2), report(4)])
    assert (total.records, pulls, total.incomplete) == (9, 3, "")
    assert [one.token[:1] for one in client.asked] == ["", "0", "0", "1", "1"]
    assert rests == []


def test_a_peer_that_is_away():
    """It is asked again after one second, then two, up to ten minutes; one pull that goes through begins anew."""
    away = [report(0, "nobody answers")] * 12
    client = Scripted(*[ConnectionRefusedError()] * 12, changes("0"), ConnectionError(), changes("0"), changes("0"))
    total, pulls, rests = followed(client, [*away, report(1), report(1)])
    assert pulls == 14
    assert rests[:12] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    assert BACK_OFF_S == (1.0, 600.0)
    assert rests[12] == 1
    assert total.records == 2


def test_a_peer_that_says_without_end_that_it_has_grown():
    """Each pull that brings nothing is followed by a rest."""
    client = Scripted(*[changes(str(n), bytes(32)) for n in range(6)])
    _, pulls, rests = followed(client, [report(0)] * 6)
    assert pulls == 6
    assert len(rests) >= 5
    assert min(rests) >= 1


def test_a_token_that_is_too_old():
    """Another is taken, and everything looked at once more; no rest is needed for that."""
    client = Scripted(changes("0"), HttpResponse(410), changes("1"), changes("2", bytes(32)))
    total, pulls, rests = followed(client, [report(1), report(2), report(3)])
    assert (total.records, pulls, rests) == (6, 3, [])


@pytest.mark.parametrize(
    "answer", [HttpResponse(404), HttpResponse(503), HttpResponse(200, body=b"{}"), PeerRefused("a", "b", "c")]
)
def test_answers_that_are_none(answer):
    """A rest, and then a pull."""
    client = Scripted(changes("0"), answer, changes("1"), changes("2", bytes(32)))
    _, pulls, rests = followed(client, [report(1), report(1), report(1)])
    assert pulls == 3
    assert rests == [1]


def test_a_peer_whose_key_is_another_ends_it():
    """That does not pass by itself."""
    client = Scripted(changes("0"), PeerRefused("a", "b", "c"))
    client.refusal = PeerRefused("url", "its key is not the one pinned", "ask")
    with pytest.raises(TidewarpError, match="pinned"):
        followed(client, [report(1)])


def test_what_is_wrong_in_the_own_store_ends_it():
    """It is not swallowed."""

    def pull():
        raise TidewarpError("store", "is full", "make room")

    with pytest.raises(TidewarpError, match="full"):
        Follower(Scripted(changes("0")), pull, Acting()).run()


def test_stopping_ends_a_question_that_waits(a):
    """By the real client: the connection is ended, and no other is made."""
    clock = Acting()
    with PeerServer(PeerHandler(a), clock=clock) as server, PeerClient(server.url, clock=ManualClock()) as client:
        follower = Follower(client, lambda: report(1), ManualClock())
        clock.acts.append(follower.stop)
        total = follower.run()
        assert (total.records, total.incomplete, follower.pulls) == (1, "", 1)
        with pytest.raises(ConnectionError):
            client.ask(GetChanges())


def test_reports_of_pulls_in_a_row():
    """Sums of what was done; of how things stand, the last word."""
    from tidewarp.federation.messages import DomainReport

    one = PullReport(2, 1, 5, (DomainReport(b"a", 0, 2, "pulled"),), 3, "x", True, 1.0, 4, (b"f",))
    two = PullReport(
        1, 0, 6, (DomainReport(b"a", 2, 3, "pulled"), DomainReport(b"b", 0, 0, "unchanged")), 0, "", True, 2.0
    )
    both = one.followed_by(two)
    assert (both.records, both.conflicts, both.bytes, both.seconds, both.ignored, both.absent) == (3, 1, 11, 3.0, 0, 0)
    assert [(domain.before, domain.after) for domain in both.domains] == [(0, 3), (0, 0)]
    assert (both.incomplete, both.forks) == ("", (b"f",))
