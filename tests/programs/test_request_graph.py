"""The graph of requests follows a store: it says what one that looks at all anew says, and looks at what has changed alone."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable

import pytest
from handing_over import hand_over
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_RECEIPT, TAG_REQUEST, Artifact
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import REQUEST, VERDICT, RequestBody, VerdictBody
from tidewarp.codec.computations import Manifest
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.errors import TidewarpError
from tidewarp.programs import OperationRegistry, computation_of
from tidewarp.programs.requests import RequestBoard, RequestState, Stage, submit
from tidewarp.programs.runs import run
from tidewarp.programs.working import Worker
from tidewarp.store import MemoryStore
from tidewarp.store.admission import OPEN, Admission, Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.fold import View
from tidewarp.store.subjects import told
from tidewarp.testing import ManualClock

KERNEL = OperationRegistry.kernel()
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
LEFT, RIGHT, NONE = (Artifact(data).reference() for data in (b"left", b"right", b"no program"))
JOINED = RunRequest(CONCAT.reference(), (LEFT, RIGHT))
HASHED = RunRequest(HASH.reference(), (RequestOutput(JOINED.reference(), 0),))
TWICE = RunRequest(CONCAT.reference(), (RequestOutput(HASHED.reference(), 0), RequestOutput(JOINED.reference(), 0)))
BEYOND = RunRequest(HASH.reference(), (RequestOutput(JOINED.reference(), 7),))  # there is no such output
SENSELESS = RunRequest(NONE, (LEFT,))
HOPELESS = RunRequest(HASH.reference(), (RequestOutput(SENSELESS.reference(), 0), RequestOutput(BEYOND.reference(), 0)))
REQUESTS = JOINED, HASHED, TWICE, BEYOND, SENSELESS, HOPELESS
KEY = computation_of(CONCAT, Manifest((LEFT, RIGHT)), KERNEL).key
BOTH = Artifact(b"leftright").reference()
WRONG = Artifact(b"wrong").reference()
THINGS = [LEFT, RIGHT, BOTH, WRONG, CONCAT.reference(), *(one.reference() for one in REQUESTS)]
AUDITED = Admission(others=Standing(Decision.ACCEPTED, frozenset(Role)))
SEEDS = [name * 32 for name in (b"a", b"b")]


class Site:
    """A store whose board is kept from step to step."""

    def __init__(self, seed: bytes) -> None:
        self.store = MemoryStore(seed=seed, admission=AUDITED)
        self.board = RequestBoard(self.store, KERNEL)
        self.executor = Executor(public_key_of(seed), "site")
        self.seed = seed

    def work(self) -> None:
        for one in self.board.ready(1e9):
            run(
                self.store,
                one.program,
                one.inputs,
                registry=KERNEL,
                executor=self.executor,
                seed=self.seed,
            )


def ask(request: RunRequest) -> Step:
    return lambda site: submit(site.store, request)


def ask_without_bytes(site: Site) -> None:
    """The record of a request that is still to come."""
    site.store.journal.append([Entry(REQUEST, RequestBody(TWICE.reference()).to_bytes(), PUBLISHED)])


def judge(site: Site) -> None:
    site.store.journal.append([Entry(VERDICT, VerdictBody(KEY, (BOTH,)).to_bytes(), PUBLISHED)])


def undo(site: Site) -> None:
    """Writes, and a look at them, that have not come to be."""
    with contextlib.suppress(KeyError), site.store.transaction():
        site.store.put(b"left")
        site.store.put(b"right")
        site.board.ready()
        raise KeyError("the transaction ends here")


def supply(site: Site) -> None:
    site.store.supply(LEFT, io.BytesIO(Artifact(b"left").to_bytes()))


Step = Callable[[Site], object]


def claim_wrong(site: Site) -> None:
    site.store.put_receipt(b"another", KEY, [WRONG])


def put_wrong(site: Site) -> None:
    site.store.put(b"wrong")


BEGINNING: list[Step] = [
    lambda site: site.store.put(b"left"),
    lambda site: site.store.put(b"right", publish=False),
    lambda site: site.store.put(b"no program"),
    lambda site: site.store.put_many([(one.to_bytes(), TAG_PROGRAM) for one in (CONCAT, HASH)]),
    *map(ask, REQUESTS),
]
LATER: list[Step] = [
    lambda site: site.store.put(TWICE.to_bytes(), tag=TAG_REQUEST),
    ask_without_bytes,
    claim_wrong,
    put_wrong,
    lambda site: site.store.put(b"leftright"),
    judge,
    undo,
    supply,
    lambda site: site.store.admit(Admission({})),
    lambda site: site.store.admit(OPEN),
    lambda site: site.store.erase(LEFT),
]
HIDING: list[Step] = [lambda site, ref=ref: site.store.tombstone(ref) for ref in THINGS]  # type: ignore[misc]
LIFTING: list[Step] = [lambda site, ref=ref: site.store.lift(ref) for ref in THINGS]  # type: ignore[misc]
WORK: Step = Site.work
STEPS = st.one_of(
    st.sampled_from(BEGINNING), st.sampled_from(LATER), st.sampled_from(HIDING), st.sampled_from(LIFTING), st.just(WORK)
)


def check(site: Site) -> list[RequestState]:
    """Where the requests stand; a new board says the same."""
    states = site.board.states()
    assert states == RequestBoard(site.store, KERNEL).states()
    assert site.board.ready(1e9) == RequestBoard(site.store, KERNEL).ready(1e9)
    for one in REQUESTS:
        assert site.board.state(one.reference()) == RequestBoard(site.store, KERNEL).state(one.reference())
    return states


@given(
    st.permutations(BEGINNING),
    st.integers(0, len(BEGINNING)),
    st.lists(st.tuples(st.integers(0, 1), STEPS | st.none()), max_size=20),
)
def test_the_board_says_what_a_new_one_says(
    begun: list[Step], left_out: int, steps: list[tuple[int, Step | None]]
) -> None:
    """After each step at either of two sites, which now and then hand each other their records."""
    sites = [Site(seed) for seed in SEEDS]
    for number, step in [*((0, one) for one in begun[left_out:]), (0, WORK), (0, WORK), *steps]:
        site = sites[number]
        try:
            if step is None:
                hand_over(sites[1 - number].store, site.store)
            else:
                step(site)
        except TidewarpError:  # there is nothing to hide, to lift, to hand over
            pass
        check(site)


@pytest.fixture
def done() -> Site:
    """A site where two requests are done, of which the second hangs on the first."""
    site = Site(SEEDS[0])
    site.store.put_many([(one.to_bytes(), TAG_PROGRAM) for one in (CONCAT, HASH)])
    site.store.put_many([(b"left", None), (b"right", None)])
    submit(site.store, JOINED)
    submit(site.store, HASHED)
    site.work()
    site.work()
    assert [one.stage for one in check(site)] == [Stage.DONE] * 2
    return site


def stage(site: Site, request: RunRequest) -> Stage:
    check(site)
    return site.board.state(request.reference()).stage


@pytest.mark.parametrize("steps", [(claim_wrong, put_wrong), (put_wrong, claim_wrong)], ids=["claim", "output"])
def test_a_result_that_is_contradicted_and_resolved(done: Site, steps: tuple[Step, Step]) -> None:
    """Whichever comes last, the claim or the output that it names; what hangs on it waits, until a verdict says what is so."""
    for step in steps:
        assert stage(done, JOINED) is Stage.DONE
        step(done)
    assert (stage(done, JOINED), stage(done, HASHED)) == (Stage.DIVERGENT, Stage.WAITING)
    judge(done)
    assert (stage(done, JOINED), stage(done, HASHED)) == (Stage.DONE, Stage.DONE)


def test_a_result_whose_receipt_is_hidden(done: Site) -> None:
    """It is to be run again, until the receipt is lifted."""
    (claim,) = done.store.view(scope="all").receipts(KEY)
    done.store.tombstone(claim.receipt)
    assert stage(done, JOINED) is Stage.READY
    done.store.lift(claim.receipt)
    assert stage(done, JOINED) is Stage.DONE


def test_what_a_reveal_brings_is_seen(done: Site) -> None:
    """The body of a receipt that was withheld comes, and no record with it."""
    other = Site(SEEDS[1])
    hand_over(done.store, other.store)
    put_wrong(other)
    receipt = other.store.put_receipt(b"another", KEY, [WRONG], publish=False)
    size = other.store.journal.size
    *before, record = other.store.records(other.store.domain)
    items = [BatchItem(*one, Artifact(b"wrong").to_bytes()) for one in before]
    bare = BatchItem(record.header, WITHHELD, None, None)
    done.store.adopt(other.store.domain, [*items, bare], other.store.signed_head(), key=public_key_of(other.seed))
    assert stage(done, JOINED) is Stage.DONE
    whole = BatchItem(record.header, BODY, record.body, Artifact(other.store.get(receipt), TAG_RECEIPT).to_bytes())
    assert done.store.reveal(other.store.domain, [whole]) == 1
    assert stage(done, JOINED) is Stage.DIVERGENT
    assert size == 2


def test_after_a_look_that_failed_nothing_is_taken_for_known(done: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was new then is new still."""

    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    put_wrong(done)
    claim_wrong(done)
    with monkeypatch.context() as patch:
        patch.setattr(View, "key_state", fails)
        with pytest.raises(OSError, match="gone"):
            done.board.ready()
    assert stage(done, JOINED) is Stage.DIVERGENT


@pytest.mark.parametrize("length", [20, 80])
def test_a_chain_costs_the_same_for_each_of_its_requests(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """However long it is: what is settled, and what waits for another request, is not looked at. A record is read once."""
    site = Site(SEEDS[0])
    site.store.put(HASH.to_bytes(), tag=TAG_PROGRAM)
    site.store.put(b"left")
    last: Reference | RequestOutput = LEFT
    for _ in range(length):
        last = RequestOutput(submit(site.store, RunRequest(HASH.reference(), (last,))), 0)
    looks = Counter[str]()

    def counted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **options: (looks.update([name]), call(*args, **options))[1]

    monkeypatch.setattr("tidewarp.programs.request_graph.RequestState", counted("looks", RequestState))
    monkeypatch.setattr("tidewarp.programs.news.told", counted("records", told))
    monkeypatch.setattr(site.store, "has", counted("has", site.store.has))
    worker = Worker(site.executor, site.seed, KERNEL, ManualClock(unix_ns=0))
    assert len(list(worker.round(site.store))) == length
    assert looks["looks"] <= 3 * length
    assert looks["records"] <= 8 * length
    assert looks["has"] <= 8 * length
    assert {one.stage for one in site.board.states()} == {Stage.DONE}
