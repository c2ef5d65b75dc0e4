"""Checking receipts: five outcomes, a wrong executor named and marked, samples that a seed decides."""

from __future__ import annotations

import pytest
from handing_over import hand_over
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_LISTING, TAG_MANIFEST, TAG_PROGRAM, Artifact
from tidewarp.codec.bodies import VERDICT, VerdictBody
from tidewarp.codec.computations import Environment, Listing, ListingRow, Manifest
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.records import domain_of
from tidewarp.errors import OperatorError, OutOfModel, PolicyDenied
from tidewarp.programs import Limits, OperationRegistry
from tidewarp.programs.judging import judge
from tidewarp.programs.runs import run
from tidewarp.programs.verification import Outcome, reexecute, verify_receipt
from tidewarp.store import Admission, Entry, MemoryStore, open_store
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.fold import Agreement

pytestmark = pytest.mark.proof("a receipt is executed again, and who is wrong is named")

SEED = bytes(range(32))
KEY = public_key_of(SEED)
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
HOST = Program.of(1, [Node("test.upper", 1, (External(0),), b"\x80")], [Output(0)])
KERNEL = OperationRegistry.kernel()


def host(impl=b"\1", platform=None):
    registry = OperationRegistry.kernel(platform=platform)
    registry.register(
        "test.upper",
        1,
        lambda inputs, *_: [Artifact(inputs[0].payload.upper())],
        inputs=1,
        outputs=1,
        impl=impl * 32,
        platform_bound=platform is not None,
    )
    return registry


def executed(store, data=b"hello", program=HASH, registry=KERNEL, **options):
    """A run in ``store``."""
    ref = store.put(program.to_bytes(), tag=TAG_PROGRAM)
    executor = Executor(KEY, "site")
    return run(store, ref, [store.put(data)], registry=registry, executor=executor, seed=SEED, **options)


def forged(store, done, **changes):
    """Another receipt for the run ``done``, in the journal of ``store``."""
    receipt = Receipt.from_bytes(store.get(done.receipt))._replace(signature=None, **changes)
    outputs = [changes["output"]] if "output" in changes else done.outputs
    return store.put_receipt(receipt.to_bytes(), done.key, outputs)


@pytest.fixture
def store():
    return MemoryStore(seed=SEED)


def test_an_honest_receipt_is_the_same(store):
    """It was executed; who signed and whose journal has it is said."""
    done = executed(store)
    verdict = verify_receipt(store, done.receipt, KERNEL)
    assert (verdict.outcome, verdict.reason) == (Outcome.SAME, "")
    assert (verdict.answer, verdict.outputs) == (done.outputs[0], done.outputs)
    assert (verdict.signer, verdict.domains) == (KEY, (store.domain,))
    assert [executor.name for executor in verdict.executors] == ["site"]


def test_salt_and_params_belong_to_the_computation(store):
    """A salted run is checked as the computation that it is."""
    done = executed(store, salt=b"again")
    assert verify_receipt(store, done.receipt, KERNEL).outcome is Outcome.SAME
    assert done.key != executed(store).key


def test_a_failed_run_is_checked_too(store):
    """Its answer is the result, with its status."""
    program = Program.of(
        1, [Node("pel.bytes.slice", 1, (External(0),), bytes(7) + b"\7" + bytes(7) + b"\7")], [Output(0)]
    )
    done = executed(store, program=program)
    assert verify_receipt(store, done.receipt, KERNEL)[:2] == (done.receipt, Outcome.SAME)


def test_a_wrong_receipt_is_different_and_its_executor_named(store):
    """By its own word, and by the journal in which it stands."""
    done = executed(store)
    ref = forged(store, done, output=store.put(b"wrong"))
    verdict = verify_receipt(store, ref, KERNEL)
    assert verdict.outcome is Outcome.DIFFERENT
    assert (verdict.claimed, verdict.answer) == (Artifact(b"wrong").reference(), done.outputs[0])
    assert [executor.public_key for executor in verdict.executors] == [KEY]
    assert verdict.domains == (store.domain,)
    assert verdict.signer is None


def test_what_would_be_another_computation_here_is_incomparable(store):
    """Another implementation, another platform: no proof of anything."""
    done = executed(store, program=HOST, registry=host())
    assert verify_receipt(store, done.receipt, host()).outcome is Outcome.SAME
    other = verify_receipt(store, done.receipt, host(b"\2"))
    assert other.outcome is Outcome.INCOMPARABLE
    assert "another implementation of test.upper/1" in other.reason
    done = executed(store, program=HOST, registry=host(platform="mips"))
    assert verify_receipt(store, done.receipt, host(platform="mips")).outcome is Outcome.SAME
    other = verify_receipt(store, done.receipt, host(platform="vax"))
    assert (other.outcome, other.reason) == (Outcome.INCOMPARABLE, "it was run on 'mips', here is 'vax'")


def test_what_is_missing_here_is_unavailable(store):
    """Bytes, an operation, memory: each says which."""
    done = executed(store, program=HOST, registry=host())
    for registry, limits, reason in (
        (KERNEL, Limits(), "operation test.upper/1 is not registered here"),
        (host(), Limits(live_bytes=10), "a run holds at most 10 bytes here"),
    ):
        verdict = verify_receipt(store, done.receipt, registry, limits=limits)
        assert verdict.outcome is Outcome.UNAVAILABLE
        assert reason in verdict.reason
    absent = Artifact(b"absent").reference()
    for ref in (absent, forged(store, done, manifest=absent)):
        verdict = verify_receipt(store, ref, host())
        assert (verdict.outcome, verdict.key) == (Outcome.UNAVAILABLE, None)
        assert absent.hex() in verdict.reason


def test_what_contradicts_itself_is_invalid(store):
    """No receipt, a signature over another computation, a listing of other operations, a record that lies."""
    done = executed(store)
    receipt = Receipt.from_bytes(store.get(done.receipt))
    other = store.put(Manifest((store.put(b"other"),)).to_bytes(), tag=TAG_MANIFEST)
    listing = Listing.of([ListingRow("pel.bytes.concat", 1, bytes(32))])
    impl = Listing.of([ListingRow("pel.bytes.hash.asl1", 1, b"\1" * 32)])
    for changed, reason in (
        (receipt._replace(manifest=other), "the signature is not over it"),
        (receipt._replace(function=store.put(HASH.to_bytes()), signature=None), "has not the tag"),
        (receipt._replace(environment=environment(store, receipt, listing), signature=None), "not that of its program"),
        (receipt._replace(environment=environment(store, receipt, impl), signature=None), "operation of the kernel"),
    ):
        verdict = verify_receipt(store, store.put_receipt(changed.to_bytes(), done.key, done.outputs), KERNEL)
        assert verdict.outcome is Outcome.INVALID
        assert reason in verdict.reason
    verdict = verify_receipt(store, store.put(b"hello"), KERNEL)
    assert (verdict.outcome, "has not the tag" in verdict.reason) == (Outcome.INVALID, True)
    lie = receipt._replace(started=1, completed=1, signature=None)
    ref = store.put_receipt(lie.to_bytes(), done.key, [store.put(b"wrong")])
    verdict = verify_receipt(store, ref, KERNEL)
    assert (verdict.outcome, "its record names other outputs" in verdict.reason) == (Outcome.INVALID, True)


def environment(store, receipt, listing):
    """That of ``receipt``, with another listing."""
    before = Environment.from_bytes(store.get(receipt.environment))
    store.put(listing.to_bytes(), tag=TAG_LISTING)
    return store.put(before._replace(listing=listing.reference()).to_bytes(), tag=0x5457_0004)


@given(st.data())
def test_every_flipped_bit_of_a_receipt_is_found(data):
    """It has another name then, and what it says is not what comes out, or nothing that can be read or found."""
    store = MemoryStore(seed=SEED)
    done = executed(store)
    receipt = bytearray(store.get(done.receipt))
    bit = data.draw(st.integers(0, 8 * len(receipt) - 1))
    receipt[bit // 8] ^= 1 << bit % 8
    ref = store.put(bytes(receipt), tag=0x301)
    assert ref != done.receipt
    assert verify_receipt(store, ref, KERNEL).outcome in (Outcome.INVALID, Outcome.UNAVAILABLE)


def test_without_executing_the_word_of_others_counts(store):
    """Nobody's own word is a proof of it."""
    done = executed(store)
    verdict = verify_receipt(store, done.receipt, KERNEL, reexecute=False)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.INCOMPARABLE,
        "nobody else has said what comes of this computation",
    )
    assert (
        verify_receipt(store, Artifact(b"absent").reference(), KERNEL, reexecute=False).outcome is Outcome.UNAVAILABLE
    )


CHEAT = b"c" * 32
WORKER = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE, Role.EXECUTE}))
AUDITED = Admission(
    {domain_of(KEY): WORKER._replace(roles=WORKER.roles | {Role.AUDIT}), domain_of(public_key_of(CHEAT)): WORKER}
)


@pytest.fixture(params=["memory", "file"])
def judging(request, tmp_path):
    """A store whose own domain may give verdicts; the cheat may execute."""
    if request.param == "memory":
        yield MemoryStore(seed=SEED, admission=AUDITED)
        return
    with open_store(tmp_path / "audit.tw", create=True, key=SEED, admission=AUDITED) as store:
        yield store


def test_a_wrong_executor_is_found_and_marked(judging):
    """Two receipts contradict each other; the auditor executes, and the verdict names the outcome for both."""
    cheat = MemoryStore(seed=CHEAT)
    done = executed(cheat)
    lie = forged(cheat, done, output=cheat.put(b"wrong"))
    hand_over(cheat, judging)
    assert judging.view().key_state(done.key).agreement is Agreement.DIVERGENT
    report = reexecute(judging, 10, 0, KERNEL)
    assert (report.receipts, report.executed, report.count(Outcome.DIFFERENT)) == (2, 2, 1)
    (wrong,) = report.bad
    assert (wrong.receipt, wrong.domains) == (lie, (cheat.domain,))
    settled = judge(judging, lie, KERNEL, executor=Executor(KEY, "auditor"))
    state = judging.view().key_state(done.key)
    assert (state.agreement, state.lists) == (Agreement.RESOLVED, (done.outputs,))
    assert settled.outputs == done.outputs
    for ref, outcome in ((lie, Outcome.DIFFERENT), (done.receipt, Outcome.SAME)):
        assert verify_receipt(judging, ref, KERNEL, reexecute=False).outcome is outcome


def test_the_word_of_others_is_no_execution(judging):
    """Who agrees with another domain is the same; where they contradict each other, nothing is known."""
    cheat = MemoryStore(seed=CHEAT)
    done = executed(cheat)
    hand_over(cheat, judging)
    own = executed(judging, force=True, now=lambda: 1)
    assert verify_receipt(judging, own.receipt, KERNEL, reexecute=False)[:3] == (own.receipt, Outcome.SAME, "")
    lie = forged(cheat, done, output=cheat.put(b"wrong"))
    hand_over(cheat, judging)
    verdict = verify_receipt(judging, lie, KERNEL, reexecute=False)
    assert (verdict.outcome, "contradict each other" in verdict.reason) == (Outcome.INCOMPARABLE, True)


def test_only_an_auditor_judges_and_only_what_it_can_execute(store, judging):
    """The word of others would count for nothing, and what was not executed is no verdict."""
    done = executed(store)
    size = store.journal.size
    with pytest.raises(PolicyDenied, match="role audit"):
        judge(store, done.receipt, KERNEL, executor=Executor(KEY, "site"))
    done = executed(judging, program=HOST, registry=host())
    before = judging.journal.size
    with pytest.raises(OutOfModel, match="not registered"):
        judge(judging, done.receipt, KERNEL, executor=Executor(KEY, "site"))
    assert (store.journal.size, judging.journal.size) == (size, before)


def test_who_comes_to_two_results_gives_no_verdict(judging):
    """An operation that gives another result each time is no auditor's; nothing is written."""
    given = iter(range(100))
    registry = OperationRegistry.kernel()
    registry.register("test.upper", 1, lambda *_: [Artifact(b"%d" % next(given))], inputs=1, outputs=1, impl=b"\1" * 32)
    done = executed(judging, program=HOST, registry=registry)
    size = judging.journal.size
    with pytest.raises(OutOfModel, match="gave two results"):
        judge(judging, done.receipt, registry, executor=Executor(KEY, "site"))
    assert judging.journal.size == size


def test_a_receipt_that_a_verdict_overrules_is_bad_no_more(judging):
    """It is counted as different; one that contradicts the verdict itself is bad as before."""
    done = executed(judging)
    lie = forged(judging, done, output=judging.put(b"wrong"))
    assert [(one.receipt, one.is_overruled) for one in reexecute(judging, 9, 0, KERNEL).bad] == [(lie, False)]
    judge(judging, lie, KERNEL, executor=Executor(KEY, "auditor"))
    report = reexecute(judging, 9, 0, KERNEL)
    assert (report.bad, report.count(Outcome.DIFFERENT)) == ((), 1)
    judging.journal.append(
        [Entry(VERDICT, VerdictBody(done.key, (Artifact(b"wrong").reference(),)).to_bytes(), PUBLISHED)]
    )
    assert [(one.receipt, one.is_overruled) for one in reexecute(judging, 9, 0, KERNEL).bad] == [(lie, False)]


def test_a_sample_is_a_function_of_its_seed(store):
    """Each receipt once, as many as were asked for or all; what is hidden is left out."""
    runs = [executed(store, bytes([number])) for number in range(8)]
    store.tombstone(runs[0].receipt)
    seen = set()
    for seed in range(20):
        report = reexecute(store, 3, seed, KERNEL)
        names = [verdict.receipt for verdict in report.verdicts]
        assert (len(names), names) == (3, sorted(set(names)))
        assert report == reexecute(store, 3, seed, KERNEL)
        seen.update(names)
    assert seen == {done.receipt for done in runs[1:]}
    everything = reexecute(store, 100, 0, KERNEL)
    assert (everything.receipts, everything.executed, everything.bad) == (7, 7, ())
    with pytest.raises(OperatorError, match="sample of -1"):
        reexecute(store, -1, 0, KERNEL)
