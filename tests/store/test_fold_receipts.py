"""Receipts of a computation key: claimed, accepted, divergent, resolved."""

from __future__ import annotations

import hashlib

import pytest

from authors import Author, name_of
from tidewarp.codec.bodies import ReceiptBody, TombstoneBody, VerdictBody
from tidewarp.codec.references import encode_references
from tidewarp.store.admission import Admission, Decision, Role, Standing
from tidewarp.store.fold import Agreement, Claim, Fold

KEY = bytes([5]) * 32
WORKER = frozenset({Role.PRODUCE, Role.EXECUTE})


class Site:
    """Two workers, two auditors; what they write is in the fold at once."""

    def __init__(self, **roles):
        names = {"ann": WORKER, "bob": WORKER, "cleo": WORKER | {Role.AUDIT}, "dan": {Role.AUDIT}} | roles
        self.authors = {name: Author(number) for number, name in enumerate(names)}
        standings = {self.authors[name].domain: Standing(Decision.ACCEPTED, frozenset(names[name])) for name in names}
        self.fold = Fold(Admission(standings))

    def say(self, who, body):
        self.fold.add(*self.authors[who].write(body))

    def put(self, who, *texts):
        for text in texts:
            self.authors[who].put(text)
            self.fold.add(*self.authors[who].records[-1])

    def hide(self, who, text):
        self.say(who, TombstoneBody(name_of(text)))

    def claim(self, who, receipt, *outputs):
        self.say(who, ReceiptBody(name_of(receipt), KEY, tuple(map(name_of, outputs))))

    def judge(self, who, *outputs):
        self.say(who, VerdictBody(KEY, tuple(map(name_of, outputs))))

    def outcome(self):
        """Agreement and lists, after a look at the row of the state hash, which must say the same."""
        state = self.fold.key_state(KEY)
        rows = [row for row in self.fold.rows() if row[0] == 4]
        if state is None:
            assert rows == []
            return None
        hashes = sorted(hashlib.sha256(encode_references(refs)).digest() for refs in state.lists)
        count = len(hashes).to_bytes(4, "big")
        assert rows == [b"\x04" + KEY + bytes([state.agreement]) + count + b"".join(hashes)]
        return state.agreement, set(state.lists)


def lists(*outputs):
    return {tuple(map(name_of, one)) for one in outputs}


def test_a_receipt_is_a_claim_until_its_outputs_are_visible():
    site = Site()
    assert site.outcome() is None
    site.put("ann", "x")
    site.claim("ann", "r", "x", "y")
    assert site.outcome() == (Agreement.CLAIMED, lists("xy"))
    site.put("bob", "y")
    assert site.outcome() == (Agreement.ACCEPTED, lists("xy"))
    assert site.fold.is_visible(name_of("r"))
    assert site.fold.receipts(KEY) == [Claim(site.authors["ann"].domain, 2, name_of("r"), (name_of("x"), name_of("y")))]


def test_receipts_that_agree():
    site = Site()
    site.put("ann", "x")
    site.claim("ann", "r1", "x")
    site.claim("bob", "r2", "x")
    assert site.outcome() == (Agreement.ACCEPTED, lists("x"))
    assert len(site.fold.receipts(KEY)) == 2


def test_a_computation_without_outputs():
    """An empty list has nothing to wait for."""
    site = Site()
    site.claim("ann", "r")
    assert site.outcome() == (Agreement.ACCEPTED, {()})


@pytest.mark.parametrize("other", ["y", "xx", "", "yx"])
def test_another_list_of_outputs_is_a_contradiction(other):
    """Order and multiplicity count, and time does not: neither the first nor the last wins."""
    site = Site()
    site.put("ann", "x", "y")
    site.claim("ann", "r1", *("xy" if other == "yx" else "x"))
    site.claim("bob", "r2", *other)
    assert site.outcome() == (Agreement.DIVERGENT, lists("xy" if other == "yx" else "x", other))


def test_a_claim_of_outputs_that_nobody_has_contradicts_nothing():
    site = Site()
    site.put("ann", "x")
    site.claim("ann", "r1", "x")
    site.claim("bob", "r2", "never")
    assert site.outcome() == (Agreement.ACCEPTED, lists("x"))


@pytest.mark.parametrize("hidden", ["y", "r2"])
def test_nobody_hides_a_contradiction(hidden):
    """The set of lists only grows, whoever hides an output or a receipt of it."""
    site = Site()
    site.put("ann", "x")
    site.put("bob", "y")
    site.claim("ann", "r1", "x")
    site.claim("bob", "r2", "y")
    site.hide("bob", hidden)
    assert site.outcome() == (Agreement.DIVERGENT, lists("x", "y"))


@pytest.mark.parametrize("hidden", ["x", "r"])
def test_what_was_accepted_is_a_claim_again_when_it_is_hidden(hidden):
    site = Site()
    site.put("ann", "x")
    site.claim("ann", "r", "x")
    site.hide("ann", hidden)
    assert site.outcome() == (Agreement.CLAIMED, lists("x"))


def test_a_verdict_resolves_and_the_auditors_last_word_counts():
    site = Site()
    site.put("ann", "x", "y")
    site.claim("ann", "r1", "x")
    site.claim("bob", "r2", "y")
    site.judge("bob", "x")
    assert site.outcome()[0] is Agreement.DIVERGENT, "bob is no auditor"
    site.judge("cleo", "x")
    assert site.outcome() == (Agreement.RESOLVED, lists("x"))
    site.judge("dan", "y")
    assert site.outcome() == (Agreement.DIVERGENT, lists("x", "y")), "auditors who disagree resolve nothing"
    site.judge("cleo", "y")
    assert site.outcome() == (Agreement.RESOLVED, lists("y"))


def test_a_verdict_corrects_what_everybody_accepted():
    site = Site()
    site.put("ann", "x")
    site.claim("ann", "r", "x")
    site.judge("dan", "z")
    assert site.outcome() == (Agreement.RESOLVED, lists("z"))


def test_a_verdict_without_a_receipt_waits_for_one():
    site = Site()
    site.judge("dan", "x")
    assert site.outcome() is None
    site.claim("ann", "r", "x")
    assert site.outcome() == (Agreement.RESOLVED, lists("x"))


def test_receipts_without_the_role_have_no_effect():
    site = Site(bob={Role.PRODUCE})
    site.put("bob", "x")
    site.claim("bob", "r", "x")
    assert site.outcome() is None
    assert not site.fold.is_visible(name_of("r"))
    assert not site.fold.is_hidden(name_of("r"))
