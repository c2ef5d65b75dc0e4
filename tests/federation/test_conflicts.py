"""Conflicts over stores in memory: which there are, who may settle them, and what a choice brings about everywhere."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools

import pytest
from node import asked_of, seed_of

from tidewarp.codec.bodies import RESOLVE, VERDICT, ResolveBody
from tidewarp.codec.frames import count, u64
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import NotFound, OperatorError, PolicyDenied
from tidewarp.federation.conflicts import chosen_branches, conflicts, find, find_choice, resolve, rivals, settle
from tidewarp.federation.exchange import Exchange, ledger_of
from tidewarp.federation.policy import NEWCOMER_ROLES, Member, Policy
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.fold import Agreement, DomainStatus

KEY = hashlib.sha256(b"a computation").digest()


@pytest.fixture(params=["memory", "sqlite"])
def site(request, tmp_path):
    """``site("a")``: a store with that key; two of one name are copies."""
    numbers = itertools.count()
    with contextlib.ExitStack() as opened:

        def made(name):
            if request.param == "memory":
                return MemoryStore(seed=seed_of(name))
            return opened.enter_context(open_store(tmp_path / f"{next(numbers)}.tw", create=True, key=seed_of(name)))

        yield made


def policy_for(resolver, *others, auditor=None):
    """Accepts all of them; one resolves, one audits."""
    members = {}
    for n, store in enumerate({one.domain: one for one in (resolver, *others)}.values()):
        roles = NEWCOMER_ROLES | ({Role.RESOLVE} if store is resolver else set())
        roles |= {Role.AUDIT} if store is auditor else set()
        members[store.domain] = Member(f"site-{n}", Standing(Decision.ACCEPTED, frozenset(roles)))
    return Policy(members, resolver=resolver.domain)


def pull(into, peer, policy):
    """One pull without a wire, and what a site does behind it."""
    ledger = ledger_of(into)
    chosen = chosen_branches(into, ledger, policy)
    finish = Exchange(
        into, "peer", lambda question: asked_of(peer, question), io.BytesIO, lambda: 0, chosen=chosen
    ).run()
    settle(into, ledger, policy)
    into.admit(policy.admission(), rivals(into, ledger))
    return finish


def listed(store, policy):
    return conflicts(store, ledger_of(store), policy)


@pytest.fixture
def forked(site):
    """Two copies of "a" that were both written to, and two sites that have met both, in either order; all have one policy."""
    first, second, b, c = site("a"), site("a"), site("b"), site("c")
    for copy, text in ((first, b"left"), (second, b"right")):
        copy.put(b"both")
        copy.put(text)
        copy.put(b"and more")
    policy = policy_for(b, first, c, site("late"))
    for store in (b, c):
        pull(store, first, policy)
        pull(store, second, policy)
    return first, second, b, c, policy


# --- forks


def test_a_fork_has_one_name_everywhere(forked):
    """SHA-256 of the kind, the domain and the place; both records are named, and which of them is here."""
    first, second, b, c, policy = forked
    name = hashlib.sha256(b"TWCONF1fork" + first.domain + u64(2)).digest()
    for store in (b, c):
        (one,) = listed(store, policy)
        assert (one.id, one.kind, one.subject, one.state, one.chosen) == (name, "fork", first.domain, "open", None)
        assert {choice.hash: choice.held for choice in one.choices} == {
            first.hash_at(first.domain, 2): True,
            second.hash_at(first.domain, 2): False,
        }


def test_a_forked_domain_counts_up_to_what_both_have(forked, site):
    """Whichever branch is here: the views are equal, and the vector ends before the fork."""
    first, second, b, c, policy = forked
    late = site("late")
    pull(late, second, policy)
    pull(late, first, policy)
    for store in (b, c, late):
        heads = {head.domain: head.seq for head in store.view().heads()}
        assert heads[first.domain] == 1
        assert store.view().status(first.domain) is DomainStatus.FROZEN


def test_the_choice_is_a_record_and_takes_effect_where_it_is_pulled(forked):
    """The resolver's own site at once, every other with the record; then the domain goes on."""
    first, _, b, c, policy = forked
    (one,) = listed(b, policy)
    (held,) = (choice.hash for choice in one.choices if choice.held)
    resolve(b, one, held, policy)
    settle(b, ledger_of(b), policy)
    *_, last = b.journal.read()
    assert (last.header.kind, last.header.flags) == (RESOLVE, PUBLISHED)
    assert ResolveBody.from_bytes(last.body) == ResolveBody(one.id, held)
    assert [found.state for found in listed(c, policy)] == ["open"]
    pull(c, b, policy)
    for store in (b, c):
        assert [(found.state, found.chosen) for found in listed(store, policy)] == [("resolved", held)]
        assert ledger_of(store).frozen() == {}
        assert store.view().status(first.domain) is DomainStatus.RESOLVED
    pull(b, c, policy)
    pull(c, b, policy)
    assert b.view().state_hash() == c.view().state_hash()
    first.put(b"it goes on")
    assert pull(c, first, policy).records == 1


def test_the_same_choice_twice_is_one_record(forked):
    """Nothing is written that says nothing new."""
    _, _, b, _, policy = forked
    (one,) = listed(b, policy)
    resolve(b, one, one.choices[0].hash, policy)
    size = b.journal.size
    (one,) = listed(b, policy)
    resolve(b, one, one.choices[0].hash, policy)
    assert b.journal.size == size
    resolve(b, one, one.choices[1].hash, policy)
    assert [found.chosen for found in listed(b, policy)] == [one.choices[1].hash]


def test_the_branch_that_was_not_chosen_is_set_aside(forked):
    """Its records are kept, those of the other take their place, and no pull brings it back."""
    first, second, b, c, policy = forked
    lost = list(b.records(first.domain, 1))
    (one,) = listed(b, policy)
    (other,) = (choice.hash for choice in one.choices if not choice.held)
    resolve(b, one, other, policy)
    settle(b, ledger_of(b), policy)
    b.admit(policy.admission(), rivals(b, ledger_of(b)))
    assert ledger_of(b).branch(first.domain) == lost
    assert {head.domain: head.seq for head in b.view().heads()}[first.domain] == 1
    assert pull(b, first, policy).records == 0
    assert pull(b, second, policy).records == 2
    assert {one.outcome for one in pull(b, first, policy).domains} == {"unchanged"}
    pull(c, b, policy)
    pull(c, second, policy)
    pull(b, c, policy)
    pull(c, b, policy)
    for store in (b, c):
        assert store.hash_at(first.domain, 3) == second.hash_at(first.domain, 3)
        assert store.root_at(first.domain, 3) == second.root_at(first.domain, 3)
        assert store.view().status(first.domain) is DomainStatus.RESOLVED
        assert ledger_of(store).frozen() == {}
    assert b.view().state_hash() == c.view().state_hash()


def test_the_word_may_change(forked):
    """The resolver's last word counts: the branch that was set aside comes back, by a pull."""
    first, second, b, _, policy = forked
    (one,) = listed(b, policy)
    for choice, source in ((second, second), (first, first), (second, second)):
        resolve(b, one._replace(chosen=None), choice.hash_at(first.domain, 2), policy)
        settle(b, ledger_of(b), policy)
        pull(b, source, policy)
        assert b.hash_at(first.domain, 3) == source.hash_at(first.domain, 3)
        assert [record.body for record in b.records(first.domain)] == [record.body for record in source.journal.read()]


def test_only_the_resolver_chooses(forked):
    """Neither another member, nor anybody in an open store; nothing is written."""
    _, _, b, c, policy = forked
    (one,) = listed(c, policy)
    for store, given in (
        (c, policy),
        (b, None),
        (b, Policy({**policy.members}, resolver=policy.resolver).trusting(b.domain, "b", {Role.PRODUCE}, 9)),
    ):
        size = store.journal.size
        with pytest.raises(PolicyDenied, match="role resolve"):
            resolve(store, one, one.choices[0].hash, given)
        assert store.journal.size == size


def test_a_word_of_somebody_else_is_a_record_without_effect(forked):
    """A RESOLVE of a member who is not the resolver changes nothing, on his own site neither."""
    _, _, b, c, policy = forked
    (one,) = listed(c, policy)
    (held,) = (choice.hash for choice in one.choices if choice.held)
    c.journal.append([Entry(RESOLVE, ResolveBody(one.id, held).to_bytes(), PUBLISHED)])
    pull(b, c, policy)
    for store in (b, c):
        settle(store, ledger_of(store), policy)
        assert [found.state for found in listed(store, policy)] == ["open"]


# --- results that contradict each other


@pytest.fixture
def divergent(site):
    """Two sites with two results of one computation; the first audits."""
    b, c = site("b"), site("c")
    policy = policy_for(b, c, auditor=b)
    for store, text in ((b, b"four"), (c, b"five")):
        store.put_receipt(b"receipt " + text, KEY, [store.put(text)])
    pull(b, c, policy)
    pull(c, b, policy)
    return b, c, policy


def test_two_results_are_settled_by_a_verdict(divergent):
    """The set of results is the same on both sites; the auditor's verdict travels like any record."""
    b, c, policy = divergent
    (one,) = listed(b, policy)
    assert one[:4] == listed(c, policy)[0][:4]
    assert (one.kind, one.subject, one.state) == ("divergent", KEY, "open")
    assert one.id == hashlib.sha256(b"TWCONF1divergent" + KEY).digest()
    for choice in one.choices:
        encoded = count(len(choice.outputs)) + b"".join(ref.encoded() for ref in choice.outputs)
        assert choice.hash == hashlib.sha256(encoded).digest()
    with pytest.raises(PolicyDenied, match="role audit"):
        resolve(c, one, one.choices[0].hash, policy)
    resolve(b, one, one.choices[1].hash, policy)
    assert [record.header.kind for record in b.journal.read()][-1] == VERDICT
    pull(c, b, policy)
    for store in (b, c):
        (found,) = listed(store, policy)
        assert (found.state, found.chosen) == ("resolved", one.choices[1].hash)
        state = store.view().key_state(KEY)
        assert (state.agreement, state.lists) == (Agreement.RESOLVED, (one.choices[1].outputs,))


def test_results_that_agree_are_no_conflict(site):
    """Two receipts, one list of outputs."""
    b, c = site("b"), site("c")
    policy = policy_for(b, c)
    for store in (b, c):
        store.put_receipt(b"by " + store.domain, KEY, [store.put(b"four")])
    pull(b, c, policy)
    assert listed(b, policy) == []


def test_the_choices_of_a_former_resolver_stand(forked):
    """The role goes to another site: what was chosen before is chosen, what the former one says from then on is nothing."""
    first, _, b, c, policy = forked
    (one,) = listed(b, policy)
    (held,) = (choice.hash for choice in one.choices if choice.held)
    resolve(b, one, held, policy)
    pull(c, b, policy)
    size = b.journal.size
    later = policy.trusting(b.domain, policy.members[b.domain].name, NEWCOMER_ROLES, size)
    later = later.trusting(c.domain, policy.members[c.domain].name, {*NEWCOMER_ROLES, Role.RESOLVE}, 0)
    (other,) = (choice.hash for choice in one.choices if not choice.held)
    b.journal.append([Entry(RESOLVE, ResolveBody(one.id, other).to_bytes(), PUBLISHED)])
    for store in (b, c):
        pull(store, c if store is b else b, later)
        assert [(found.state, found.chosen) for found in listed(store, later)] == [("resolved", held)]
        assert store.view().status(first.domain) is DomainStatus.RESOLVED
    with pytest.raises(PolicyDenied, match="role resolve"):
        resolve(b, listed(b, later)[0], other, later)
    resolve(c, listed(c, later)[0], other, later)
    pull(b, c, later)
    assert [found.chosen for found in listed(b, later)] == [other]


# --- names


def test_what_is_named_wrong(forked):
    """Too short, unknown, ambiguous: nothing is guessed."""
    _, _, b, _, policy = forked
    found = listed(b, policy)
    assert find(found, found[0].id.hex()[:12]) == found[0]
    for prefix in ("", found[0].id.hex()[:11], "0" * 64):
        with pytest.raises(NotFound):
            find(found, prefix)
    with pytest.raises(NotFound, match="2 conflicts begin so"):
        find([*found, *found], found[0].id.hex())
    one = found[0]
    assert find_choice(one, one.choices[0].hash.hex()[:12]) == one.choices[0].hash
    for prefix in ("", one.choices[0].hash.hex()[:11], "0" * 64):
        with pytest.raises(OperatorError, match="choose one of these"):
            find_choice(one, prefix)


def test_what_one_peer_sent_leaves_nothing_to_choose(forked):
    """Only forks and results can be chosen between."""
    _, _, b, _, policy = forked
    (one,) = listed(b, policy)
    with pytest.raises(OperatorError, match="leaves nothing to choose"):
        resolve(b, one._replace(kind="bad_signature"), one.choices[0].hash, policy)
