"""Bundles: whole, true of themselves, and refused for every bit that is another."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec import INPUT
from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_SEGMENT, Artifact
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor
from tidewarp.codec.segments import encode_segments
from tidewarp.errors import CodecError, NotFound, OperatorError, PeerError
from tidewarp.federation.bundle import Bundle, Vouched, bundle_of
from tidewarp.federation.proof import Voucher
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.programs.verification import Outcome, check_receipt
from tidewarp.store import Entry, MemoryStore

pytestmark = pytest.mark.proof("a bundle that is not what its writer made is refused")

SEED = bytes(range(32))
KEY = public_key_of(SEED)
KERNEL = OperationRegistry.kernel()
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
TWO = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0), Output(0)])


def executed(store, program=HASH, data=b"hello", tag=None, **options):
    ref = store.put(program.to_bytes(), tag=TAG_PROGRAM)
    inputs = [store.put(data, tag=tag)]
    return run(store, ref, inputs, registry=KERNEL, executor=Executor(KEY, "site"), seed=SEED, **options)


@pytest.fixture
def store():
    return MemoryStore(seed=SEED)


@pytest.mark.parametrize("program", [HASH, TWO], ids=["one output", "two outputs"])
def test_a_bundle_is_whole_and_executed_elsewhere(store, program):
    """Nothing but its bytes is needed to find that its receipt is right."""
    done = executed(store, program)
    data = bundle_of(store, done.receipt).to_bytes()
    bundle = Bundle.from_bytes(data)
    assert bundle.to_bytes() == data
    assert bundle.outputs() == done.outputs
    assert check_receipt(bundle.receipt, bundle.read, KERNEL).outcome is Outcome.SAME
    (record,) = bundle.records
    assert (record.header.domain, record.header.seq) == (store.domain, store.journal.size)


def test_a_failed_run_has_a_bundle_too(store):
    """Its result says how it failed."""
    slice_ = Node("pel.bytes.slice", 1, (External(0),), (9).to_bytes(8, "big") + (1).to_bytes(8, "big"))
    done = executed(store, Program.of(1, [slice_], [Output(0)]))
    bundle = Bundle.from_bytes(bundle_of(store, done.receipt).to_bytes())
    assert (bundle.outputs(), bundle.statement().output) == ((), done.result)
    assert check_receipt(bundle.receipt, bundle.read, KERNEL).outcome is Outcome.SAME


BUNDLE = None


def small_bundle():
    """One with a receipt record behind others, made once."""
    global BUNDLE
    if BUNDLE is None:
        store = MemoryStore(seed=SEED)
        BUNDLE = bundle_of(store, executed(store).receipt).to_bytes()
    return BUNDLE


def test_the_form_stays():
    """A bundle that was given away is read for ever; these bytes follow from a seed."""
    assert sha256(small_bundle()).hexdigest() == "141dbb24652899026a6f1dbbfb445cb8ba2877e2a3eca7dcbfd0df5ae151a6ef"


@settings(max_examples=400)
@given(st.data())
def test_every_flipped_bit_is_refused(data):
    """As bytes of no bundle, or as one that contradicts itself: a PeerError both times."""
    flipped = bytearray(small_bundle())
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerError):
        Bundle.from_bytes(bytes(flipped))


@given(st.data())
def test_what_is_cut_off_or_added_is_refused(data):
    """At any place."""
    whole = small_bundle()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for other in (whole[:cut], whole + b"\0", whole[:cut] + b"\0" + whole[cut:]):
        if other != whole:
            with pytest.raises(PeerError):
                Bundle.from_bytes(other)


@given(st.binary(max_size=200))
def test_what_is_no_bundle_is_refused(data):
    """Whatever its beginning."""
    for head in (b"", b"TWB1"):
        with pytest.raises(CodecError):
            Bundle.from_bytes(head + data)


def test_what_a_receipt_names_must_be_there(store):
    """Program, manifest, inputs, outputs; what is for people only may be missing."""
    done = executed(store)
    bundle = bundle_of(store, done.receipt)
    receipt, computation = bundle.statement(), bundle.computation()
    needed = {
        done.receipt,
        receipt.function,
        receipt.manifest,
        receipt.environment,
        computation.environment.listing,
        *computation.manifest.inputs,
        *done.outputs,
    }
    for ref in bundle.artifacts:
        rest = bundle._replace(artifacts={one: artifact for one, artifact in bundle.artifacts.items() if one != ref})
        if ref in needed:
            with pytest.raises(PeerError, match=f"it lacks artifact {ref.hex()}"):
                Bundle.from_bytes(rest.to_bytes())
        else:
            assert Bundle.from_bytes(rest.to_bytes()).outputs() == done.outputs
    with pytest.raises(NotFound):
        bundle.read(Artifact(b"absent").reference())


def test_more_may_travel_along(store):
    """What the writer thinks useful, under its own name."""
    done = executed(store)
    other = store.put(b"read me")
    assert Bundle.from_bytes(bundle_of(store, done.receipt, [other]).to_bytes()).read(other) == Artifact(b"read me")


def test_a_record_of_something_else_is_refused(store):
    """However well it is signed: an artifact's, or the receipt's of another run."""
    done = executed(store)
    other = executed(store, data=b"other")
    mine, its = bundle_of(store, done.receipt), bundle_of(store, other.receipt)
    with pytest.raises(PeerError, match="another receipt, computation or outcome"):
        Bundle.from_bytes(mine._replace(records=its.records).to_bytes())
    with pytest.raises(PeerError, match="neither of this receipt nor the last one"):
        Bundle.from_bytes(mine._replace(records=(vouched(store, 1),)).to_bytes())


def test_a_record_needs_a_head_that_covers_it(store):
    """Signed by the key of its domain, and by no other."""
    done = executed(store)
    bundle = bundle_of(store, done.receipt)
    (one,) = bundle.records
    stranger = MemoryStore(seed=b"s" * 32)
    executed(stranger)
    for other, rule in (
        (one._replace(key=public_key_of(b"s" * 32)), "is not the root key"),
        (one._replace(body=one.body + b"\0"), "its body is not the one of its header"),
        (one._replace(voucher=one.voucher._replace(head=stranger.signed_head())), "the record is of"),
        (one._replace(voucher=one.voucher._replace(path=one.voucher.path[1:])), "hashes, not"),
    ):
        with pytest.raises(PeerError, match=rule):
            Bundle.from_bytes(bundle._replace(records=(other,)).to_bytes())


def test_without_a_signed_head_there_is_no_proof():
    """A store that cannot sign says so, and how to get one that does."""
    store = MemoryStore(KEY)
    done = executed(store)
    with pytest.raises(OperatorError, match="signed no head that covers it"):
        bundle_of(store, done.receipt)


def test_a_journal_that_was_run_on_is_vouched_for_by_its_last_record(store):
    """The chain leads from there to the first; a shorter piece of it has another last record."""
    plant = MemoryStore(seed=b"p" * 32)
    plant.journal.append([Entry(INPUT, bytes(8) + bytes([number])) for number in range(5)])
    (segment,) = encode_segments(plant.journal.read())
    done = executed(store, data=segment, tag=TAG_SEGMENT)
    bundle = bundle_of(store, done.receipt)
    proven = Bundle.from_bytes(bundle._replace(records=(*bundle.records, vouched(plant, 5))).to_bytes())
    assert [record.seq for record in proven.segment()] == [1, 2, 3, 4, 5]
    with pytest.raises(PeerError, match="nor the last one of the journal"):
        Bundle.from_bytes(bundle._replace(records=(vouched(plant, 4),)).to_bytes())


def vouched(store, seq):
    """Record ``seq`` of the store's own journal, with its proof."""
    (own, *_) = store.domains()
    head = store.signed_head()
    (record,) = store.records(own.id, seq - 1, 1)
    path = tuple(store.inclusion_proof(own.id, seq, head.size))
    return Vouched(own.key, record.header, record.body, Voucher(head.size, head.root, path, (), head))
