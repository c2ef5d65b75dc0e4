"""Runs across sites: a graph of requests completes in any order, with one result, whoever runs what."""

from __future__ import annotations

import contextlib
from hashlib import sha256

import pytest
from handing_over import hand_over
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_REQUEST, Artifact
from tidewarp.codec.bodies import REQUEST
from tidewarp.codec.computations import Manifest
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor
from tidewarp.codec.records import domain_of
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.programs import OperationRegistry, computation_of
from tidewarp.programs.requests import GRACE_S, RequestBoard, rendezvous, submit
from tidewarp.programs.runs import run
from tidewarp.store import Admission, MemoryStore, open_store
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.fold import Agreement

pytestmark = pytest.mark.proof("runs over two sites come to one result, in any order")

KERNEL = OperationRegistry.kernel()
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
PROGRAMS = CONCAT.reference(), HASH.reference()
LEFT, RIGHT = Artifact(b"left").reference(), Artifact(b"right").reference()
JOINED = RunRequest(CONCAT.reference(), (LEFT, RIGHT))
HASHED = RunRequest(HASH.reference(), (RequestOutput(JOINED.reference(), 0),))
TWICE = RunRequest(CONCAT.reference(), (RequestOutput(HASHED.reference(), 0), RequestOutput(JOINED.reference(), 0)))
EXPECTED = sha256(b"leftright").digest() + b"leftright"


class Site:
    """A store that works on what is ready in it. Each has its own part of the inputs."""

    def __init__(self, name, store=None, **options):
        self.seed = name.encode() * 32
        self.store = MemoryStore(seed=self.seed, **options) if store is None else store
        self.board = RequestBoard(self.store, KERNEL)
        self.executor = Executor(public_key_of(self.seed), name)
        self.runs = []

    def put_programs(self):
        for program in (CONCAT, HASH):
            self.store.put(program.to_bytes(), tag=TAG_PROGRAM)
        return self

    def work(self, waited_s=0.0):
        ready = self.board.ready(waited_s)
        for one in ready:
            self.runs.append(
                run(
                    self.store,
                    one.program,
                    one.inputs,
                    params=one.params,
                    registry=KERNEL,
                    executor=self.executor,
                    seed=self.seed,
                )
            )
        return ready


STEPS = {
    "put left": lambda a, b: a.store.put(b"left"),
    "put right": lambda a, b: b.store.put(b"right"),
    "ask a": lambda a, b: submit(a.store, JOINED),
    "ask b": lambda a, b: submit(b.store, HASHED),
    "ask last": lambda a, b: submit(a.store, TWICE),
    "programs": lambda a, b: b.put_programs(),
    "a works": lambda a, b: a.work(),
    "b works": lambda a, b: b.work(GRACE_S),
    "a to b": lambda a, b: hand_over(a.store, b.store, 3),
    "b to a": lambda a, b: hand_over(b.store, a.store, 3),
}
NEEDED = ["put left", "put right", "ask a", "ask b", "ask last", "programs"]


@given(st.permutations([*NEEDED, *("a works", "b works", "a to b", "b to a") * 4]))
def test_a_graph_of_requests_over_two_sites_completes_in_any_order(steps):
    """Inputs, programs and requests come when they like: the answer has one name, on both sites."""
    a, b = Site("a"), Site("b")
    for step in steps:
        STEPS[step](a, b)
    for _ in range(8):  # and now both are there and the line between them too
        for source, target in ((a, b), (b, a)):
            hand_over(source.store, target.store)
            target.work(GRACE_S)
    for site in (a, b):
        (output,) = site.board.state(TWICE.reference()).outputs
        assert site.store.get(output) == EXPECTED
        assert site.board.ready(1e9) == []
    results = {(done.key, done.result) for done in a.runs + b.runs}
    assert len(results) == len({key for key, _ in results}) == 3
    assert a.store.state_hash() == b.store.state_hash()


@pytest.fixture(params=["memory", "file"])
def site(request, tmp_path):
    """One that has all that the graph needs."""
    with contextlib.ExitStack() as stack:
        store = None
        if request.param == "file":
            store = stack.enter_context(open_store(tmp_path / "a.tw", create=True, key=b"a" * 32))
        site = Site("a", store).put_programs()
        site.store.put_many([(b"left", None), (b"right", None)])
        yield site


def test_a_request_waits_for_what_it_hangs_on(site):
    """For the other request, and not for its record: only an accepted output is an input."""
    submit(site.store, TWICE)
    submit(site.store, HASHED)
    assert site.board.ready() == []
    submit(site.store, JOINED)
    for request in (JOINED, HASHED, TWICE):
        assert [one.request for one in site.work()] == [request.reference()]
    assert site.board.ready() == []
    assert site.store.get(*site.board.state(TWICE.reference()).outputs) == EXPECTED


def test_a_request_is_submitted_once(site):
    """Again it writes nothing; its record names the artifact that it is."""
    ref = submit(site.store, JOINED)
    size = site.store.journal.size
    assert submit(site.store, JOINED) == ref == JOINED.reference()
    assert site.store.journal.size == size
    assert site.store.info(ref).tag == TAG_REQUEST
    assert [record.header.kind for record in site.store.records(site.store.domain, size - 1)] == [REQUEST]


def test_a_hidden_request_is_cancelled(site):
    """Or one whose input is hidden; what is lifted is asked for again."""
    ref = submit(site.store, JOINED)
    for hidden in (ref, LEFT):
        site.store.tombstone(hidden)
        assert site.board.ready() == []
        site.store.lift(hidden)
        assert [one.request for one in site.board.ready()] == [ref]


def test_one_request_may_be_an_input_many_times(site):
    """It is settled once."""
    many = Program.of(500, [Node("pel.bytes.concat", 1, tuple(map(External, range(500))))], [Output(0)])
    site.store.put(many.to_bytes(), tag=TAG_PROGRAM)
    submit(site.store, RunRequest(many.reference(), (RequestOutput(JOINED.reference(), 0),) * 500))
    submit(site.store, JOINED)
    while site.work():
        pass
    assert site.store.get(site.runs[-1].outputs[0]) == b"leftright" * 500


def test_what_is_no_request_asks_for_nothing(site):
    """Neither bytes of another form nor a program that is none, nor one with an operation that is elsewhere."""
    strange = Program.of(0, [Node("test.strange", 1, (), b"\x80")], [Output(0)])
    site.store.put(strange.to_bytes(), tag=TAG_PROGRAM)
    for request in (RunRequest(LEFT, ()), RunRequest(strange.reference(), ()), RunRequest(RIGHT, (LEFT,), RIGHT)):
        submit(site.store, request)
    assert site.board.ready(1e9) == []
    assert site.board.state(Artifact(b"absent").reference()).outputs is None


def test_a_divergent_input_is_waited_for(site):
    """Until somebody with the right says which of two outcomes counts."""
    submit(site.store, JOINED)
    submit(site.store, HASHED)
    site.work()
    (done,) = site.runs
    wrong = site.store.put(b"wrong")
    site.store.put_receipt(b"another", done.key, [wrong])
    assert site.store.view().key_state(done.key).agreement is Agreement.DIVERGENT
    assert site.board.ready(1e9) == []
    assert site.board.state(JOINED.reference()).outputs is None


def test_each_site_has_its_turn(site):
    """One goes at once, the other after the grace time; which one hangs on the computation."""
    other = Site("b")
    submit(site.store, JOINED)
    hand_over(site.store, other.store)
    other.store.put(b"here")
    hand_over(other.store, site.store)
    key = computation_of(CONCAT, Manifest((LEFT, RIGHT)), KERNEL).key
    first, second = sorted((site, other), key=lambda one: rendezvous(key, one.store.domain))
    assert [(one.key, one.turn) for one in first.board.ready()] == [(key, 0)]
    assert second.board.ready(GRACE_S / 2) == []
    assert [one.turn for one in second.board.ready(GRACE_S)] == [1]


def test_only_an_executor_works():
    """Who has not the role is not asked, and is not waited for."""
    seeds = {name: name.encode() * 32 for name in "ab"}
    domains = {name: domain_of(public_key_of(seed)) for name, seed in seeds.items()}
    producer = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE}))
    admission = Admission(
        {domains["a"]: producer, domains["b"]: producer._replace(roles=producer.roles | {Role.EXECUTE})}
    )
    a, b = Site("a", admission=admission).put_programs(), Site("b", admission=admission)
    a.store.put_many([(b"left", None), (b"right", None)])
    submit(a.store, JOINED)
    hand_over(a.store, b.store)
    assert a.board.ready(1e9) == []
    assert [one.turn for one in b.board.ready()] == [0]
