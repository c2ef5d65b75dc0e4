"""A site that works: what is ready, in its turn, by a clock that a test moves."""

from __future__ import annotations

from hashlib import sha256

import pytest
from handing_over import hand_over

from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_REQUEST, Artifact
from tidewarp.codec.bodies import REQUEST, RequestBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.errors import Corrupt, OutOfModel, PolicyDenied
from tidewarp.programs import Limits, OperationRegistry
from tidewarp.programs.requests import GRACE_S, RequestBoard, Stage, submit
from tidewarp.programs.working import Worker
from tidewarp.store import Admission, MemoryStore
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.testing import ManualClock

KERNEL = OperationRegistry.kernel()
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
PART = Program.of(1, [Node("pel.bytes.slice", 1, (External(0),), bytes(8) + b"\0" * 7 + b"\4")], [Output(0)])
STRANGE = Program.of(1, [Node("test.strange", 1, (External(0),), b"\x80")], [Output(0)])
HELLO = Artifact(b"hello").reference()
ONCE = RunRequest(HASH.reference(), (HELLO,))
TWICE = RunRequest(HASH.reference(), (RequestOutput(ONCE.reference(), 0),))
SHORT = RunRequest(PART.reference(), (Artifact(b"abc").reference(),))
STARTED_NS = 1_700_000_000_000_000_000


class Site:
    """A store, and who works on it."""

    def __init__(self, name="a", **options):
        self.seed = name.encode() * 32
        self.store = MemoryStore(seed=self.seed)
        self.clock = ManualClock(unix_ns=STARTED_NS)
        executor = Executor(public_key_of(self.seed), name)
        self.worker = Worker(executor, self.seed, options.pop("registry", KERNEL), self.clock, **options)
        self.store.put_many([(one.to_bytes(), TAG_PROGRAM) for one in (HASH, PART, STRANGE)])
        self.store.put_many([(b"hello", None), (b"abc", None)])

    def round(self):
        return [(work.ready.request, work.run and work.run.outputs) for work in self.worker.round(self.store)]

    def stage(self, request):
        return RequestBoard(self.store, KERNEL).state(request.reference()).stage


def digest(data, times):
    for _ in range(times):
        data = sha256(data).digest()
    return Artifact(data).reference()


def test_a_round_executes_what_becomes_ready_by_it():
    """The whole chain in one; the next round has nothing to do."""
    site = Site()
    for request in (TWICE, ONCE):
        submit(site.store, request)
    assert site.round() == [
        (ONCE.reference(), (digest(b"hello", 1),)),
        (TWICE.reference(), (digest(b"hello", 2),)),
    ]
    size = site.store.journal.size
    assert site.round() == []
    assert site.store.journal.size == size


def test_receipts_have_the_times_of_the_clock_and_the_signature_of_the_site():
    site = Site()
    submit(site.store, ONCE)
    (work,) = site.worker.round(site.store)
    receipt = Receipt.from_bytes(site.store.get(work.run.receipt))
    assert (receipt.started, receipt.completed) == (STARTED_NS, STARTED_NS)
    assert receipt.signer(work.run.key) == public_key_of(site.seed)


def test_each_computation_has_one_site_that_goes_first():
    """The other goes when it has heard of nothing for the grace time, and not at all if the first was there."""
    a, b = Site("a"), Site("b")
    submit(a.store, ONCE)
    hand_over(a.store, b.store)
    hand_over(b.store, a.store)
    first, second = (a, b) if RequestBoard(a.store, KERNEL).ready() else (b, a)
    assert second.round() == []
    second.clock.advance(GRACE_S - 0.1)
    assert second.round() == []
    second.store.put(b"something came")
    second.clock.advance(0.1)
    assert second.round() == []  # and so it waits anew
    second.clock.advance(GRACE_S)
    assert second.round() == [(ONCE.reference(), (digest(b"hello", 1),))]
    hand_over(second.store, first.store)
    assert first.round() == []


def test_who_leaves_no_grace_executes_at_once():
    """So one call is enough for whoever has nobody beside him."""
    sites = [Site(name, grace_s=0.0) for name in "ab"]
    for site, other in (sites, sites[::-1]):
        hand_over(site.store, other.store)
    for site in sites:
        submit(site.store, ONCE)
    assert [len(site.round()) for site in sites] == [1, 1]
    assert sites[0].stage(ONCE) is Stage.DONE


def test_what_this_machine_cannot_execute_is_left_to_others():
    """Told once, and no reason not to go on with the rest; another machine can."""
    site = Site(limits=Limits(live_bytes=20))
    for request in (ONCE, TWICE):
        submit(site.store, request)
    (work,) = site.worker.round(site.store)
    assert (work.ready.request, work.run, type(work.refusal)) == (ONCE.reference(), None, OutOfModel)
    assert site.round() == []
    other = Site("b", grace_s=0.0)
    hand_over(site.store, other.store)
    assert [request for request, _ in other.round()] == [ONCE.reference(), TWICE.reference()]


def test_damaged_bytes_stop_nobody_else(monkeypatch):
    """The run that needs them is left to others."""
    site = Site()
    submit(site.store, ONCE)
    submit(site.store, RunRequest(HASH.reference(), (Artifact(b"abc").reference(),)))

    def get(ref, *, whole=site.store.get, **part):
        if ref == HELLO:
            raise Corrupt(ref.hex(), "its bytes do not have its name", "put it again")
        return whole(ref, **part)

    monkeypatch.setattr(site.store, "get", get)
    found = {type(work.refusal) for work in site.worker.round(site.store)}
    assert found == {Corrupt, type(None)}


def test_who_may_not_execute_is_told_so():
    """Its receipts would count nowhere."""
    site = Site()
    submit(site.store, ONCE)
    producer = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE}))
    site.store.admit(Admission({site.store.domain: producer}))
    with pytest.raises(PolicyDenied, match="role execute"):
        site.round()
    site.store.admit(Admission({site.store.domain: producer._replace(roles=producer.roles | {Role.EXECUTE})}))
    assert len(site.round()) == 1


def test_a_cancelled_round_leaves_nothing_half_done():
    """Neither a receipt nor a mark that it was taken up: the next round does it."""
    asked = []
    stopped = True
    site = Site(limits=Limits(cancelled=lambda: asked.append(1) or (stopped and len(asked) > 1)))
    submit(site.store, ONCE)
    size = site.store.journal.size
    assert site.round() == []
    assert site.store.journal.size == size
    stopped = False
    assert site.round() == [(ONCE.reference(), (digest(b"hello", 1),))]


def test_a_run_that_fails_blocks_those_that_hang_on_it():
    """Its result is settled like any other, and has no outputs; a hidden output is not made again."""
    site = Site()
    behind = RunRequest(HASH.reference(), (RequestOutput(SHORT.reference(), 0),))
    beyond = RunRequest(HASH.reference(), (RequestOutput(ONCE.reference(), 1),))
    for request in (behind, SHORT, ONCE, beyond):
        submit(site.store, request)
    assert sorted(site.round()) == sorted([(SHORT.reference(), ()), (ONCE.reference(), (digest(b"hello", 1),))])
    stages = [site.stage(one) for one in (SHORT, behind, ONCE, beyond)]
    assert stages == [Stage.FAILED, Stage.BLOCKED, Stage.DONE, Stage.BLOCKED]
    site.store.tombstone(digest(b"hello", 1))
    state = RequestBoard(site.store, KERNEL).state(ONCE.reference())
    assert (state.stage, state.waits_for) == (Stage.WAITING, (digest(b"hello", 1),))
    again = Worker(Executor(public_key_of(site.seed), "a"), site.seed, KERNEL, site.clock)
    assert list(again.round(site.store)) == []


@pytest.mark.parametrize(
    ("request_", "stage"),
    [
        (RunRequest(HASH.reference(), (Artifact(b"to come").reference(),)), Stage.WAITING),
        (RunRequest(STRANGE.reference(), (HELLO,)), Stage.ELSEWHERE),
        (RunRequest(HELLO, ()), Stage.INVALID),
        (RunRequest(HASH.reference(), (RequestOutput(HELLO, 0),)), Stage.BLOCKED),
        (ONCE, Stage.READY),
    ],
)
def test_where_a_request_stands_is_said(request_, stage):
    site = Site()
    submit(site.store, request_)
    board = RequestBoard(site.store, KERNEL)
    (state,) = board.states()
    assert state == board.state(request_.reference())
    assert (state.request, state.stage, state.outputs) == (request_.reference(), stage, None)
    absent = Artifact(b"to come").reference()
    assert state.waits_for == ((absent,) if stage is Stage.WAITING else ())


def test_what_is_too_long_for_a_request_or_a_program_is_not_read(monkeypatch):
    """Whoever may ask here may name an artifact of any size: it is invalid, before a byte of it is in memory."""
    site = Site()
    data = bytes(1_000)
    request, program = (site.store.put(data, tag=tag) for tag in (TAG_REQUEST, TAG_PROGRAM))
    site.store.journal.append([Entry(REQUEST, RequestBody(request).to_bytes(), PUBLISHED)])
    submit(site.store, RunRequest(program, (HELLO,)))
    for module in ("request_graph", "runs"):
        monkeypatch.setattr(f"tidewarp.programs.{module}.PAYLOAD_BYTES_MAX", len(data) - 1)
    read = []
    get = site.store.get
    monkeypatch.setattr(site.store, "get", lambda ref, **options: (read.append(ref), get(ref, **options))[1])
    assert [one.stage for one in RequestBoard(site.store, KERNEL).states()] == [Stage.INVALID] * 2
    assert {request, program}.isdisjoint(read)
    assert site.round() == []
