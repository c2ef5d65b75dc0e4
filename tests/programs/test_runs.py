"""Runs over a store: what is kept, what is believed of earlier receipts, and what leaves nothing behind."""

from __future__ import annotations

from itertools import count

import pytest

from tidewarp.codec import ed25519
from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_RESULT, Artifact
from tidewarp.codec.bodies import RECEIPT, ReceiptBody
from tidewarp.codec.computations import Manifest
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import BY_CONSTRUCTION, DECLARED, Executor, Receipt
from tidewarp.codec.results import Result, Status
from tidewarp.errors import NotFound, OperatorError, OutOfModel, ProgramRefused, QuotaExceeded
from tidewarp.programs import Limits, OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore
from tidewarp.store.audit import audit

SEED = bytes(range(32))
EXECUTOR = Executor(ed25519.public_key_of(SEED), "site")
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
KERNEL = OperationRegistry.kernel()


class Site:
    """A store with a program and two inputs."""

    def __init__(self, program=CONCAT, registry=KERNEL, **options):
        self.store = MemoryStore(SEED, **options)
        self.registry = registry
        self.program = self.store.put(program.to_bytes(), tag=TAG_PROGRAM)
        self.externals = program.externals
        self.inputs = [self.store.put(b"hello"), self.store.put(b" world")]

    def run(self, *inputs, **options):
        return run(
            self.store,
            self.program,
            inputs or self.inputs[: self.externals],
            registry=self.registry,
            executor=EXECUTOR,
            **options,
        )

    @property
    def size(self):
        return self.store.journal.size

    def receipt(self, done):
        return Receipt.from_bytes(self.store.get(done.receipt))


@pytest.fixture
def site():
    return Site()


def test_everything_that_a_receipt_names_is_kept(site):
    """So whoever has the records can check the run without asking anybody."""
    done = site.run()
    receipt = site.receipt(done)
    named = [receipt.function, receipt.manifest, receipt.environment, receipt.output, *receipt.executors]
    assert all(site.store.has([*named, done.result, done.trace]))
    assert Manifest.from_bytes(site.store.get(receipt.manifest)).inputs == tuple(site.inputs)
    assert Executor.from_bytes(site.store.get(*receipt.executors)) == EXECUTOR
    assert Result.from_bytes(site.store.get(done.result)).outputs == done.outputs
    assert site.store.get(*done.outputs) == b"hello world"
    assert (receipt.started, receipt.completed, receipt.determinism.level) == (0, 0, BY_CONSTRUCTION)
    assert audit(site.store).findings == ()


def test_children_come_before_parents(site):
    """A reader who follows the journal never meets a receipt whose outputs are still to come."""
    done = site.run()
    (last,) = site.store.records(site.store.domain, site.size - 1)
    assert last.header.kind == RECEIPT
    body = ReceiptBody.from_bytes(last.body)
    assert (body.ref, body.key, body.outputs) == (done.receipt, done.key, done.outputs)


def test_times_are_those_of_the_clock_that_is_given(site):
    """In ns since 1970; one that is set back ends no run before it began."""
    clock = count(1_000)
    receipt = site.receipt(site.run(now=lambda: next(clock)))
    assert (receipt.started, receipt.completed) == (1_000, 1_001)
    back = iter([1_000, 900])
    receipt = site.receipt(site.run(now=lambda: next(back), force=True))
    assert (receipt.started, receipt.completed) == (1_000, 1_000)
    with pytest.raises(OperatorError, match="from 1970 on"):
        site.run(now=lambda: -1, force=True)


def test_a_receipt_is_signed_over_its_computation(site):
    """With the executor's key; a signature does not fit another computation."""
    done = site.run(seed=SEED)
    assert site.receipt(done).signer(done.key) == EXECUTOR.public_key
    other = site.run(*reversed(site.inputs))
    assert site.receipt(other).signer(other.key) is None
    assert audit(site.store).findings == ()


def test_an_accepted_result_is_reused(site):
    """Whoever made it; nothing is written."""
    first = site.run()
    size = site.size
    assert site.run() == first._replace(trace=None, reused=True)
    assert site.size == size
    assert site.run(salt=b"x").key != first.key


def test_what_is_hidden_or_lost_is_made_again(site):
    """A tombstone on output or receipt takes the acceptance back."""
    first = site.run()
    site.store.tombstone(first.receipt)
    again = site.run()
    assert (again.reused, again.result) == (False, first.result)
    site.store.tombstone(again.outputs[0])
    assert not site.run().reused
    assert site.run().reused


def test_the_receipt_of_a_reused_run_is_one_that_is_visible(site):
    """Of two that agree, one may be hidden."""
    clock = count(1_000)
    first = site.run(now=lambda: next(clock))
    second = site.run(now=lambda: next(clock), force=True)
    for hidden, shown in ((first, second), (second, first)):
        site.store.tombstone(hidden.receipt)
        assert site.run() == shown._replace(trace=None, reused=True)
        site.store.lift(hidden.receipt)


def test_a_record_that_lies_about_its_receipt_is_not_believed(site):
    """Under the key of this computation stands the receipt of another."""
    key = Site().run().key
    other = site.run(*reversed(site.inputs))
    lie = site.receipt(other)._replace(started=1, completed=1)
    site.store.put_receipt(lie.to_bytes(), key, other.outputs)
    result = Result.from_bytes(site.store.get(other.result))._replace(inputs=tuple(site.inputs))
    site.store.put(result.to_bytes(), tag=TAG_RESULT)
    done = site.run()
    assert (done.key, done.reused) == (key, False)
    assert site.store.get(*done.outputs) == b"hello world"


def test_two_outcomes_of_one_computation_are_not_believed(site):
    """Nobody wins by being first: it is executed, and the contradiction stays on record."""
    first = site.run()
    wrong = site.store.put(b"wrong")
    forged = site.receipt(first)._replace(output=wrong, started=1, completed=1)
    site.store.put_receipt(forged.to_bytes(), first.key, [wrong])
    done = site.run()
    assert (done.reused, done.outputs) == (False, first.outputs)
    assert ["2 different outcomes" in finding.rule for finding in audit(site.store).findings] == [True]


def test_a_failing_run_is_a_result(site):
    """With a receipt that names it, and reused like any other."""
    done = site.run(site.inputs[0])
    assert (done.status, done.outputs) == (Status.INVALID_INPUTS, ())
    assert site.receipt(done).output == done.result
    assert site.run(site.inputs[0]) == done._replace(trace=None, reused=True)
    assert audit(site.store).findings == ()


def test_what_cannot_be_run_here_leaves_nothing():
    """Neither a limit of this machine, nor an operation that is missing, nor a bug is a result."""
    registry = OperationRegistry.kernel()
    registry.register("broken", 1, lambda *_: 1 // 0, inputs=0, outputs=1, impl=b"\1" * 32)
    program = Program.of(0, [Node("broken", 1, (), b"\x80")], [Output(0)])
    for site, options in (
        (Site(), {"limits": Limits(live_bytes=10)}),
        (Site(program), {}),
        (Site(program, registry), {}),
    ):
        size = site.size
        with pytest.raises(OutOfModel):
            site.run(**options)
        assert site.size == size


def test_a_host_operation_is_declared_to_be_deterministic():
    """By who registered it, and not by how it is made."""
    registry = OperationRegistry.kernel()
    registry.register("twice", 1, lambda inputs, *_: [inputs[0], inputs[0]], inputs=1, outputs=2, impl=b"\2" * 32)
    program = Program.of(1, [Node("twice", 1, (External(0),), b"\x80")], [Output(0, 0), Output(0, 1)])
    site = Site(program, registry)
    done = site.run(site.inputs[0])
    assert done.outputs == (site.inputs[0], site.inputs[0])
    receipt = site.receipt(done)
    assert (receipt.determinism.level, receipt.output) == (DECLARED, done.result)
    assert site.run(site.inputs[0]).reused
    assert audit(site.store).findings == ()


@pytest.mark.parametrize("lacking", [1, 400])
def test_no_room_for_what_came_of_a_run_leaves_nothing(site, lacking):
    """A receipt is durable with its outputs or not there, whichever of them is too much."""
    site.run()
    used = sum(site.store.info(ref).size for ref in site.store.view().visible())
    small = Site(quota_bytes=used - lacking)
    before = small.store.view().visible()
    with pytest.raises(QuotaExceeded):
        small.run()
    assert (small.size, small.store.view().visible()) == (3, before)
    assert not any(small.store.has([ref for ref in site.store.view().visible() if ref not in before]))


def test_inputs_that_are_too_many_are_not_read(site, monkeypatch):
    """Their sizes are known before their bytes are in memory."""
    read = []
    monkeypatch.setattr(site.store, "get", lambda ref, get=site.store.get: (read.append(ref), get(ref))[1])
    with pytest.raises(OutOfModel):
        site.run(limits=Limits(live_bytes=10))
    assert read == [site.program]


def test_what_is_no_program_is_refused(site):
    """By its tag, and by its form; an input that is not there is named."""
    lie = site.store.put(b"\0\1lie", tag=TAG_PROGRAM)
    for ref in (site.inputs[0], lie):
        with pytest.raises(ProgramRefused, match=ref.hex()):
            run(site.store, ref, [], registry=KERNEL, executor=EXECUTOR)
    absent = Artifact(b"absent").reference()
    for options in ({"params": absent}, {}):
        with pytest.raises(NotFound, match=absent.hex()):
            site.run(*site.inputs, *([] if options else [absent]), **options)
    site.store.tombstone(site.inputs[1])
    with pytest.raises(NotFound, match=site.inputs[1].hex()):
        site.run()
