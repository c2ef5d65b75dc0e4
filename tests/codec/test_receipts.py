"""Receipts, and what they name: the rules besides the byte forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from program_values import LISTINGS, RECEIPTS, RESULTS
from store_values import HASHES, LISTS, REFERENCES

from tampering import flips
from tidewarp.codec import pack
from tidewarp.codec.artifacts import EMPTY, TAG_RECEIPT, TAG_RESULT, Artifact
from tidewarp.codec.computations import (
    ANY_PLATFORM,
    Environment,
    Listing,
    ListingRow,
    computation_key,
    platform_row,
    salt_row,
)
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.programs import SCHEME_REFERENCE
from tidewarp.codec.receipts import Determinism, Executor, LogReference, Receipt, ResourceLimits, Signature
from tidewarp.codec.references import Reference
from tidewarp.codec.results import Result
from tidewarp.errors import CodecError

SEED, KEY = bytes(range(32)), bytes(range(32, 64))
ONE, TWO = (Executor(bytes([number]) * 32, "site").reference() for number in (1, 2))
FIRST, SECOND = sorted((ONE, TWO), key=Reference.encoded)
RECEIPT = Receipt(EMPTY, EMPTY, EMPTY, b"test", EMPTY, (FIRST, SECOND), 1, 2, run_id=b"r1")


def with_tlvs(*tlvs: tuple[int, bytes]) -> bytes:
    """The bytes of a receipt, and these TLVs behind them."""
    bare = RECEIPT._replace(run_id=None).to_bytes()
    return bare + b"".join(number.to_bytes(2, "big") + len(value).to_bytes(4, "big") + value for number, value in tlvs)


@given(RECEIPTS, HASHES)
def test_a_signature_covers_all_but_itself(receipt: Receipt, key: bytes) -> None:
    """Signed, it names its signer for this key and no other; signed twice, it is the same."""
    signed = receipt._replace(signature=None).signed(key, SEED)
    assert signed.signer(key) == public_key_of(SEED)
    assert receipt.signed(key, SEED) == signed
    assert Receipt.from_bytes(signed.to_bytes()) == signed
    with pytest.raises(CodecError, match="signature"):
        signed.signer(bytes(reversed(key)) + b"x")


def test_every_flipped_bit_of_a_signed_receipt_is_found() -> None:
    """Refused when it is read, or when the signature is checked."""
    whole = RECEIPT.signed(KEY, SEED).to_bytes()
    for data in flips(whole):
        with pytest.raises(CodecError):
            Receipt.from_bytes(data).signer(KEY)


def test_a_missing_signature_is_no_error() -> None:
    assert RECEIPT.signer(KEY) is None


def test_a_signature_of_another_computation_is_refused() -> None:
    """The inputs are in the key, in their order: a receipt for concat(a, b) does not vouch for concat(b, a)."""
    names = [Artifact(payload).reference() for payload in (b"a", b"b")]
    there, back = (computation_key(EMPTY, EMPTY, inputs, None, EMPTY) for inputs in (names, names[::-1]))
    signed = RECEIPT.signed(there, SEED)
    assert signed.signer(there)
    with pytest.raises(CodecError, match=back.hex()):
        signed.signer(back)


BROKEN = {
    "executors out of order": ({"executors": (SECOND, FIRST)}, "executors ascend"),
    "an executor twice": ({"executors": (FIRST, FIRST)}, "executors ascend"),
    "an end before the start": ({"started": 3}, "started at 3 does not complete at 2"),
    "logs out of order": (
        {"logs": (LogReference(2, EMPTY, bytes(32)), LogReference(1, EMPTY, bytes(32)))},
        "logs ascend",
    ),
    "a log twice": ({"logs": (LogReference(1, EMPTY, bytes(32)),) * 2}, "logs ascend"),
    "a short digest of a log": ({"logs": (LogReference(1, EMPTY, bytes(31)),)}, "32 bytes"),
    "a level that is none": ({"determinism": Determinism(4)}, "level of determinism"),
    "a short signature": ({"signature": Signature(bytes(32), bytes(63))}, "signature"),
    "a short key": ({"signature": Signature(bytes(31), bytes(64))}, "signature"),
    "a limit out of range": ({"limits": ResourceLimits(0, 0, 0, 0, 2**64)}, "8 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_no_receipt_says_is_not_written(case: str) -> None:
    changes, rule = BROKEN[case]
    with pytest.raises(CodecError, match=rule):
        RECEIPT._replace(**changes).to_bytes()


@pytest.mark.parametrize(
    ("tlvs", "rule"),
    [
        ([(0, b"")], "type 0"),
        ([(7, b"")], "type 7"),
        ([(2, bytes(4)), (2, bytes(4))], "type 2 after 2"),
        ([(5, b"\3" + bytes(4)), (2, bytes(4))], "type 2 after 5"),
        ([(2, bytes(5))], "trail"),
        ([(2, b"\0\0\0\1")], "needed"),
        ([(4, bytes(39))], "needed"),
        ([(5, b"\4" + bytes(4))], "level"),
        ([(3, b"\0\1\0\1")], "items"),
        ([(6, bytes(95))], "needed"),
        ([(6, bytes(97))], "trail"),
    ],
)
def test_each_tlv_has_its_form(tlvs: list[tuple[int, bytes]], rule: str) -> None:
    """Known, ascending, each once, and with nothing in it that is not of its form."""
    assert Receipt.from_bytes(with_tlvs((2, bytes(4)))).run_id == b""
    with pytest.raises(CodecError, match=rule):
        Receipt.from_bytes(with_tlvs(*tlvs))


def test_parity_names_the_executors_and_the_one_output() -> None:
    """An executor that claims another output is no second opinion in one receipt: there are two receipts."""
    whole, output = RECEIPT.to_bytes(), RECEIPT.output.encoded()
    other = Artifact(b"other").reference().encoded()
    at = whole.rindex(output)
    with pytest.raises(CodecError, match="parity"):
        Receipt.from_bytes(whole[:at] + other + whole[at + len(output) :])
    parity = FIRST.encoded() + output + SECOND.encoded() + output
    assert parity in whole
    with pytest.raises(CodecError, match="parity"):
        Receipt.from_bytes(whole.replace(parity, SECOND.encoded() + output + FIRST.encoded() + output))


@given(RECEIPTS)
def test_a_receipt_is_an_artifact(receipt: Receipt) -> None:
    assert receipt.reference() == Artifact(receipt.to_bytes(), TAG_RECEIPT).reference()


@given(RESULTS)
def test_the_answer_is_the_one_output_or_the_result(result: Result) -> None:
    own = Artifact(result.to_bytes(), TAG_RESULT).reference()
    assert result.reference() == own
    assert result.answer() == (result.outputs[0] if len(result.outputs) == 1 else own)


@given(LISTS, REFERENCES)
def test_order_and_multiplicity_of_inputs_are_in_the_key(inputs: tuple[Reference, ...], params: Reference) -> None:
    """Another order, one input less or twice, params or none: another key."""

    def key(*names: Reference, params: Reference | None = None) -> bytes:
        return computation_key(SCHEME_REFERENCE, EMPTY, names, params, EMPTY)

    own = key(*inputs)
    assert own == key(*inputs)
    assert own not in {key(*inputs, *inputs[:1] or [EMPTY]), key(*inputs, params=params)}
    if inputs != inputs[::-1]:
        assert own != key(*inputs[::-1])
    if inputs:
        assert own != key(*inputs[1:])


def test_each_part_is_in_the_key() -> None:
    other = Artifact(b"other").reference()
    keys = {
        computation_key(*parts)
        for parts in (
            (EMPTY, EMPTY, (EMPTY,), EMPTY, EMPTY),
            (other, EMPTY, (EMPTY,), EMPTY, EMPTY),
            (EMPTY, other, (EMPTY,), EMPTY, EMPTY),
            (EMPTY, EMPTY, (other,), EMPTY, EMPTY),
            (EMPTY, EMPTY, (EMPTY,), other, EMPTY),
            (EMPTY, EMPTY, (EMPTY,), EMPTY, other),
        )
    }
    assert len(keys) == 6


@given(LISTINGS)
def test_a_listing_has_one_order(listing: Listing) -> None:
    """However it was gathered; out of order, or with a row twice, it has no bytes."""
    assert Listing.of([*reversed(listing.rows), *listing.rows]) == listing
    if listing.rows:
        with pytest.raises(CodecError, match="ascend"):
            Listing((*listing.rows, listing.rows[0])).to_bytes()


def test_two_implementations_of_one_operation_are_no_listing() -> None:
    rows = [ListingRow("a", 1, bytes([number]) * 32) for number in (1, 2)]
    with pytest.raises(CodecError, match="each once"):
        Listing.of(rows).to_bytes()
    with pytest.raises(CodecError, match="32 bytes"):
        Listing((ListingRow("a", 1, bytes(31)),)).to_bytes()


def test_a_salt_and_a_platform_are_rows_that_no_operation_has() -> None:
    """Version 0; a different text is a different row."""
    rows = [salt_row(b"x"), salt_row(b"y"), platform_row("x"), platform_row("y")]
    assert len(set(rows)) == 4
    assert {(row.name, row.version) for row in rows} == {("salt", 0), ("platform", 0)}
    assert salt_row(b"x").impl == platform_row("x").impl  # the name tells them apart


ENVIRONMENT = {"opreg": EMPTY.to_bytes(), "platform": ANY_PLATFORM, "scheme": SCHEME_REFERENCE.to_bytes()}


def test_an_environment_is_a_document() -> None:
    assert Environment(EMPTY, SCHEME_REFERENCE).to_bytes() == pack(ENVIRONMENT)
    salted = Environment(EMPTY, SCHEME_REFERENCE, "linux", b"salt")
    assert salted.to_bytes() == pack({**ENVIRONMENT, "platform": "linux", "salt": b"salt"})
    assert Environment.from_bytes(salted.to_bytes()) == salted
    assert Environment(EMPTY, SCHEME_REFERENCE, ANY_PLATFORM, b"").to_bytes() == pack(ENVIRONMENT)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {**ENVIRONMENT, "salt": b""},
        {**ENVIRONMENT, "salt": "text"},
        {**ENVIRONMENT, "salt": 1},
        {**ENVIRONMENT, "host": "here"},
        {**ENVIRONMENT, "opreg": "text"},
        {**ENVIRONMENT, "platform": b"any"},
        {**ENVIRONMENT, "scheme": b"\0\1"},
        {key: value for key, value in ENVIRONMENT.items() if key != "opreg"},
    ],
)
def test_no_other_document_is_an_environment(value: object) -> None:
    """Nor is one with an empty salt: that would be a second form of the same without."""
    with pytest.raises(CodecError):
        Environment.from_bytes(pack(value))


def test_an_executor_has_a_whole_key() -> None:
    with pytest.raises(CodecError, match="32 bytes"):
        Executor(bytes(31), "site").to_bytes()
    with pytest.raises(CodecError, match="kind"):
        Executor.from_bytes(b"\2" + Executor(bytes(32), "site").to_bytes()[1:])
