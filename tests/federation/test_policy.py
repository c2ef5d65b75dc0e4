"""The policy: one document for all that say the same, and what it means for records."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authors import Author, name_of
from tidewarp.codec.artifacts import TAG_POLICY
from tidewarp.codec.bodies import POLICY, PolicyBody, ReceiptBody, VerdictBody
from tidewarp.codec.canonical import pack
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import CodecError, OperatorError
from tidewarp.federation.exchange import in_force, ledger_of
from tidewarp.federation.policy import NEWCOMER_ROLES, Member, Policy
from tidewarp.store import MemoryStore
from tidewarp.store.admission import Decision, Role, Scope, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.fold import Agreement, Fold

HALL, LINE = bytes([1]) * 32, bytes([2]) * 32
KEY = bytes([7]) * 32

TEXT = f"""
version = 1
resolver = "hall"

[edge_types]
65536 = "latest"
3 = "all"

[domains.{LINE.hex()}]
name = "line"
decision = "limited"
roles = ["publish", "produce"]
scope = {{ kinds = [3, 2], tags = [7, "untagged"] }}
until = {{ audit = 12 }}

[domains.{HALL.hex()}]
roles = ["resolve", "audit"]
name = "hall"
"""

roles = st.frozensets(st.sampled_from([role for role in Role if role is not Role.RESOLVE]))


@st.composite
def members(draw):
    """The members of a policy, whose resolver may be the first of them."""
    made = {}
    for n in range(draw(st.integers(0, 4))):
        given_roles = draw(roles)
        left = sorted(set(Role) - given_roles)
        until = draw(st.dictionaries(st.sampled_from(left), st.integers(0, 1 << 40))) if left else {}
        decision = draw(st.sampled_from(Decision))
        scope = Scope()
        if decision is Decision.LIMITED:
            kinds = draw(st.none() | st.frozensets(st.integers(0, 255), max_size=5))
            tags = draw(st.none() | st.frozensets(st.none() | st.integers(0, 0xFFFF_FFFF), max_size=5))
            scope = Scope(kinds, tags)
        standing = Standing(decision, given_roles, scope, tuple(sorted(until.items())))
        made[bytes([n]) * 32] = Member(f"site-{n}", standing)
    return made


@st.composite
def policies(draw):
    made = draw(members())
    latest = draw(st.frozensets(st.integers(0, 0xFFFF_FFFF), max_size=4))
    resolver = None
    if made and draw(st.booleans()):
        resolver = next(iter(made))
        name, standing = made[resolver]
        until = tuple(one for one in standing.until if one[0] is not Role.RESOLVE)
        made[resolver] = Member(name, standing._replace(roles=standing.roles | {Role.RESOLVE}, until=until))
    return Policy(made, latest, resolver)


# --- the forms


@given(policies())
def test_text_and_bytes_lead_back(policy):
    """Both forms say all of it, and each has one form only."""
    data = policy.to_bytes()
    assert Policy.from_bytes(data) == policy
    assert Policy.from_toml(policy.to_toml()) == policy
    assert policy.hash == hashlib.sha256(data).digest()
    assert policy.artifact().tag == TAG_POLICY


@given(policies(), st.data())
def test_every_flipped_bit_is_refused_or_another_policy(policy, data):
    """No two byte strings are one policy."""
    good = policy.to_bytes()
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    try:
        other = Policy.from_bytes(bytes(bad))
    except CodecError:
        return
    assert other != policy
    assert other.hash != policy.hash


@given(st.permutations(TEXT.strip().split("\n\n")))
def test_the_hash_is_of_what_a_text_says(parts):
    """Neither the order of tables nor that of lines and words, nor comments, nor what has its default, enters it."""
    head = next(part for part in parts if part.startswith("version"))
    shuffled = "\n\n".join([head, *(part for part in parts if part is not head)])
    written = shuffled.replace('["publish", "produce"]', '[ "produce","publish", "produce"]  # twice is once')
    plain = written.replace('3 = "all"\n', "").replace("[3, 2]", "[2, 3]")
    assert Policy.from_toml(plain).hash == Policy.from_toml(TEXT).hash


def test_what_the_text_says():
    """Field by field."""
    policy = Policy.from_toml(TEXT)
    assert policy.resolver == HALL
    assert policy.latest == {65_536}
    assert policy.members[HALL] == Member("hall", Standing(Decision.ACCEPTED, frozenset({Role.RESOLVE, Role.AUDIT})))
    name, standing = policy.members[LINE]
    assert (name, standing.decision) == ("line", Decision.LIMITED)
    assert standing.scope == Scope(frozenset({2, 3}), frozenset({None, 7}))
    assert standing.until == ((Role.AUDIT, 12),)


@pytest.mark.parametrize(
    ("wrong", "right", "near"),
    [
        ("resolver =", "resolvers =", "resolver"),
        ('name = "line"', 'nmae = "line"', "name"),
        ('"publish"', '"publsh"', "publish"),
        ('"limited"', '"limit"', "limited"),
        ("audit = 12", "audits = 12", "audit"),
        ('"latest"', '"last"', "latest"),
        ("kinds =", "kind =", "kinds"),
        ('resolver = "hall"', 'resolver = "hal"', "hall"),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_the_nearest(wrong, right, near):
    """A typing error does not silently give or take a right."""
    with pytest.raises(OperatorError, match=f"did you mean {near}\\?$"):
        Policy.from_toml(TEXT.replace(wrong, right))


@pytest.mark.parametrize(
    ("wrong", "right", "rule"),
    [
        ("version = 1", "version = 2", "knows version 1"),
        ("version = 1", "", "knows version 1"),
        ("version = 1", "version = true", "knows version 1"),
        ("version = 1", "version =", "no TOML"),
        ("version = 1", "version = " + "[" * 100_000, "no TOML: it is nested too deeply"),
        ("version = 1", "version = 1\nwitnesses_min = 1", "witnesses"),
        (HALL.hex(), HALL.hex()[:40], "64 lower-case"),
        (LINE.hex(), "A" + LINE.hex()[1:], "64 lower-case"),
        ("65536 =", "4294967296 =", "from 0 to 4294967295"),
        ("65536 =", "065536 =", "whole number"),
        ("[3, 2]", "[256]", "from 0 to 255"),
        ("[3, 2]", "[true]", "from 0 to 255"),
        ('"untagged"', "-1", "from 0 to"),
        ("audit = 12", "audit = -1", "from 0 to"),
        ("audit = 12", "produce = 12", "given and withdrawn"),
        ('"limited"', '"accepted"', "only a limited domain"),
        ('name = "line"', 'name = "hall"', "one domain's"),
        ('name = "line"', 'name = "a b"', "letters, digits"),
        ('name = "line"', 'name = ["line"]', "has a name"),
        ('["resolve", "audit"]', '["audit"]', "has the role resolve"),
        ('resolver = "hall"', "", "has the role resolve"),
        ('roles = ["publish", "produce"]', 'roles = "produce"', "it is a list"),
    ],
)
def test_what_breaks_a_rule_is_refused(wrong, right, rule):
    """The error says which."""
    assert wrong in TEXT
    with pytest.raises(OperatorError, match=rule):
        Policy.from_toml(TEXT.replace(wrong, right))


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1},
        {"version": 1, "domains": {}, "edge_types": {}, "resolver": None, "witnesses_min": 0, "more": 1},
        {"version": 1, "domains": {}, "edge_types": {"1": "all"}, "resolver": None, "witnesses_min": 0},
        {"version": 1, "domains": [], "edge_types": {}, "resolver": None, "witnesses_min": 0},
        [],
        None,
    ],
)
def test_bytes_in_another_form_are_refused(document):
    """Nothing is left out in the document itself."""
    with pytest.raises(CodecError):
        Policy.from_bytes(pack(document))


# --- what it means


def policy_of(**given_roles):
    numbers = {"hall": HALL, "line": LINE}
    return Policy(
        {
            numbers[name]: Member(name, Standing(Decision.ACCEPTED, frozenset(having)))
            for name, having in given_roles.items()
        }
    )


def test_an_open_store_closes_with_its_first_policy():
    """Before: whatever was pulled counts. From then on: who is named."""
    author, stranger = Author(1), Author(2)
    records = [author.write_bytes(0x80, b"x"), *[stranger.write_bytes(0x80, b"x")]]
    store = MemoryStore()
    assert in_force(store, None) is None
    policy = Policy({author.domain: Member("author", Standing(Decision.ACCEPTED, NEWCOMER_ROLES))})
    reference = store.put(policy.to_bytes(), tag=TAG_POLICY)
    store.journal.append([Entry(POLICY, PolicyBody(reference).to_bytes(), PUBLISHED)])
    assert in_force(store, None) == policy
    fold = Fold(policy.admission())
    for record in records:
        fold.add(*record)
    assert [head.domain for head in fold.heads()] == [author.domain]
    assert fold.snapshot().policy_hash == policy.hash


def test_the_last_record_is_in_force():
    """A policy is replaced as a whole."""
    store = MemoryStore()
    for policy in (policy_of(hall={Role.AUDIT}), policy_of(line={Role.PRODUCE})):
        reference = store.put(policy.to_bytes(), tag=TAG_POLICY)
        store.journal.append([Entry(POLICY, PolicyBody(reference).to_bytes(), PUBLISHED)])
        assert in_force(store, None) == policy


def test_the_journal_is_not_read_from_its_beginning_each_time():
    """What was noted and what came behind it come to the same; a note is made where it is worth one."""
    store = MemoryStore()
    ledger = ledger_of(store)
    policy = policy_of(hall={Role.AUDIT})
    reference = store.put(policy.to_bytes(), tag=TAG_POLICY)
    store.journal.append([Entry(POLICY, PolicyBody(reference).to_bytes(), PUBLISHED)])
    assert in_force(store, ledger, note=True) == policy
    assert ledger.policy() == (0, None)
    store.journal.append([Entry(0x80, b"x", PUBLISHED)] * 1_000)
    assert in_force(store, ledger) == policy
    assert ledger.policy() == (0, None)
    assert in_force(store, ledger, note=True) == policy
    assert ledger.policy() == (1_002, reference)
    assert in_force(store, ledger, note=True) == policy
    store.journal.append([Entry(POLICY, PolicyBody(store.put(Policy().to_bytes())).to_bytes(), PUBLISHED)])
    assert in_force(store, ledger) == Policy()


def test_a_withdrawn_role_counts_up_to_the_record():
    """A verdict given before stays, one given after is a record without effect; on every site at the same place."""
    worker, auditor = Author(1), Author(2)
    worker.put("a")
    worker.put("b")
    worker.write(ReceiptBody(name_of("r1"), KEY, (name_of("a"),)))
    worker.write(ReceiptBody(name_of("r2"), KEY, (name_of("b"),)))
    other_key = bytes([8]) * 32
    worker.write(ReceiptBody(name_of("r3"), other_key, (name_of("a"),)))
    worker.write(ReceiptBody(name_of("r4"), other_key, (name_of("b"),)))
    auditor.write(VerdictBody(KEY, (name_of("a"),)))
    policy = (
        Policy()
        .trusting(worker.domain, "worker", NEWCOMER_ROLES, 0)
        .trusting(auditor.domain, "auditor", {Role.AUDIT}, 0)
    )
    policy = policy.trusting(auditor.domain, "auditor", {Role.PRODUCE}, auditor.size)
    assert policy.members[auditor.domain].standing.until == ((Role.AUDIT, 1),)
    auditor.write(VerdictBody(other_key, (name_of("b"),)))
    fold = Fold(policy.admission())
    for record in worker.records + auditor.records:
        fold.add(*record)
    assert fold.key_state(KEY).agreement is Agreement.RESOLVED
    assert fold.key_state(other_key).agreement is Agreement.DIVERGENT


def test_a_role_that_is_given_again_has_no_bound():
    """It counts throughout."""
    policy = Policy().trusting(LINE, "line", {Role.AUDIT}, 0).trusting(LINE, "line", {Role.PRODUCE}, 5)
    assert policy.members[LINE].standing.until == ((Role.AUDIT, 5),)
    again = policy.trusting(LINE, "line", {Role.AUDIT, Role.PRODUCE}, 9)
    assert again.members[LINE].standing.until == ()
    assert policy.trusting(LINE, "line", {Role.PRODUCE}, 9) == policy


def test_a_text_that_takes_a_role_says_from_where_on():
    """Otherwise each site would draw the line where it happens to stand."""
    before = policy_of(line={Role.AUDIT, Role.PRODUCE})
    text = before.to_toml().replace('["audit", "produce"]', '["produce"]')
    after = Policy.from_toml(text)
    with pytest.raises(OperatorError, match=r"add until = \{ audit = 12 \}"):
        after.check_withdrawals(before, {LINE: 12})
    bounded = Policy.from_toml(f"{text}until = {{ audit = 12 }}\n")
    bounded.check_withdrawals(before, {LINE: 12})
    forgotten = Policy.from_toml(text)
    with pytest.raises(OperatorError, match=r"add until = \{ audit = 12 \}"):
        forgotten.check_withdrawals(bounded, {LINE: 99})
    after.check_withdrawals(None, {})


def test_one_resolver():
    """The role is one domain's; who gives it to another takes it from the first."""
    policy = Policy().trusting(HALL, "hall", {Role.RESOLVE}, 0)
    assert policy.resolver == HALL
    assert policy.admission().resolver == HALL
    with pytest.raises(OperatorError, match="the resolver and nobody else"):
        policy.trusting(LINE, "line", {Role.RESOLVE}, 0)
    withdrawn = policy.trusting(HALL, "hall", {Role.PRODUCE}, 3)
    assert withdrawn.resolver is None
    assert withdrawn.admission().former_resolvers == {HALL: 3}
    handed_on = withdrawn.trusting(LINE, "line", {Role.RESOLVE}, 0)
    assert handed_on.resolver == LINE
    assert handed_on.admission().former_resolvers == {HALL: 3}
    text = withdrawn.to_toml().replace("until = { resolve = 3 }\n", "")
    with pytest.raises(OperatorError, match=r"add until = \{ resolve = 3 \}"):
        Policy.from_toml(text).check_withdrawals(policy, {HALL: 3})
    assert policy.may(HALL, Role.RESOLVE)
    assert not policy.may(LINE, Role.RESOLVE)


def test_who_is_rejected_is_not_taken():
    """Deferred is stored and relayed; rejected is neither."""
    standing = Standing(Decision.ACCEPTED, NEWCOMER_ROLES)
    policy = Policy(
        {
            HALL: Member("hall", standing._replace(decision=Decision.DEFERRED)),
            LINE: Member("line", standing._replace(decision=Decision.REJECTED)),
        }
    )
    assert policy.taken() == {HALL}
    assert policy.admission().standing(HALL) is None
    assert not policy.may(HALL, Role.PRODUCE)


def test_the_changes_are_said():
    """A line for each domain that stands otherwise."""
    first = policy_of(line={Role.PRODUCE})
    assert first.changes(None) == [
        "closed: domains that are not named count no more",
        "line (020202020202): accepted, roles: produce",
    ]
    second = first.trusting(LINE, "press", {Role.AUDIT}, 4).trusting(HALL, "hall", {Role.RESOLVE}, 0)
    assert second.changes(first) == [
        "hall (010101010101): accepted, roles: resolve",
        "press (020202020202): accepted, roles: audit, produce up to record 4, was called line",
        "resolver: hall",
    ]
    assert first.changes(first) == []
    assert Policy().changes(first) == ["line (020202020202): removed"]
