"""A graph of runs over two sites that pull from each other: whatever comes when, what comes out has one name."""

from __future__ import annotations

from hashlib import sha256
from itertools import permutations

import pytest
from node import pulled

from tidewarp.codec.artifacts import TAG_PROGRAM, Artifact
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.programs import OperationRegistry
from tidewarp.programs.requests import GRACE_S, RequestBoard, submit
from tidewarp.programs.working import Worker
from tidewarp.store import MemoryStore
from tidewarp.testing import ManualClock

pytestmark = pytest.mark.proof("runs over two sites come to one result, in any order")

KERNEL = OperationRegistry.kernel()
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
LEFT, RIGHT = Artifact(b"left").reference(), Artifact(b"right").reference()


def output(request, number=0):
    return RequestOutput(request.reference(), number)


JOINED = RunRequest(CONCAT.reference(), (LEFT, RIGHT))
HASHED = RunRequest(HASH.reference(), (output(JOINED),))
SIDE = RunRequest(HASH.reference(), (RIGHT,))
LAST = RunRequest(CONCAT.reference(), (output(HASHED), output(SIDE)))
GRAPH = (JOINED, HASHED, SIDE, LAST)
EXPECTED = sha256(b"leftright").digest() + sha256(b"right").digest()


class Site:
    """A store, and who works on it."""

    def __init__(self, name):
        self.seed = name.encode() * 32
        self.store = MemoryStore(seed=self.seed)
        self.clock = ManualClock()
        self.worker = Worker(Executor(public_key_of(self.seed), name), self.seed, KERNEL, self.clock)
        self.results = {}

    def work(self):
        for work in self.worker.round(self.store):
            assert work.run is not None
            assert self.results.setdefault(work.ready.request, work.run.result) == work.run.result

    def put_programs(self):
        self.store.put_many([(one.to_bytes(), TAG_PROGRAM) for one in (CONCAT, HASH)])


ARRIVALS = {
    "left": lambda a, b: a.store.put(b"left"),
    "right": lambda a, b: b.store.put(b"right"),
    "programs": lambda a, b: b.put_programs(),
    "asked at a": lambda a, b: [submit(a.store, one) for one in (LAST, JOINED)],
    "asked at b": lambda a, b: [submit(b.store, one) for one in (SIDE, HASHED)],
}


def alone():
    """What one site that has everything comes to: request, result."""
    site = Site("c")
    site.put_programs()
    site.store.put_many([(b"left", None), (b"right", None)])
    for request in GRAPH:
        submit(site.store, request)
    site.work()
    return site.results


def step(a, b):
    """Each pulls from the other and works; the clock of both goes on."""
    for site, other in ((a, b), (b, a)):
        finish, exchange = pulled(site.store, other.store)
        assert (finish.incomplete, exchange.conflicts) == ("", 0)
        site.work()
        site.clock.advance(GRACE_S / 2)


def is_done(site):
    """Whether it knows what all requests came to, so that there is nothing more to pull for it."""
    board = RequestBoard(site.store, KERNEL)
    return all(board.state(one.reference()).outputs is not None for one in GRAPH)


def test_a_graph_over_two_sites_is_that_of_one_whatever_comes_first():
    """All orders in which inputs, programs and requests come, at two sites: one result of each run, on both."""
    expected = alone()
    assert expected.keys() == {one.reference() for one in GRAPH}
    both = 0
    for order in permutations(ARRIVALS):
        a, b = Site("a"), Site("b")
        for arrival in order:
            ARRIVALS[arrival](a, b)
            step(a, b)
        rounds = iter(range(12))
        while not (is_done(a) and is_done(b)):
            next(rounds)
            step(a, b)
        assert a.results | b.results == expected
        for request, result in a.results.items():
            assert b.results.get(request, result) == result
        for site in (a, b):
            state = RequestBoard(site.store, KERNEL).state(LAST.reference())
            assert state.outputs is not None
            assert site.store.get(*state.outputs) == EXPECTED
        assert a.store.state_hash() == b.store.state_hash()
        both += bool(a.results and b.results)
    assert both > len(list(permutations(ARRIVALS))) / 2  # it was not one site that did it all
