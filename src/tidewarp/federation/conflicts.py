"""Conflicts: what sites hold that cannot all be true, and who may say which of it counts.

    fork         two records of one domain at one place    the resolver chooses one: RESOLVE
    divergent    two results of one computation            a domain with the role audit says which is right: VERDICT

Their ids are equal on all nodes, and so is what becomes of them: a choice is a record, and takes effect wherever it
arrives. All other kinds (refused bytes, an old head, a wrong signature) are about one peer, and leave nothing to choose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

from tidewarp.codec.bodies import RESOLVE, VERDICT, ResolveBody, VerdictBody
from tidewarp.codec.records import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.references import Reference
from tidewarp.errors import NotFound, OperatorError, PolicyDenied
from tidewarp.federation.contract import StoredRecord
from tidewarp.federation.ledger import Conflict, Ledger
from tidewarp.federation.policy import Policy
from tidewarp.federation.proof import ForkProof
from tidewarp.store.admission import Role
from tidewarp.store.contract import Entry, Store
from tidewarp.store.fold import Agreement, conflict_id
from tidewarp.store.fold.conflicts import FORK
from tidewarp.store.fold.receipts import outputs_hash

__all__ = [
    "DIVERGENT",
    "Choice",
    "Contested",
    "chosen_branches",
    "conflicts",
    "find",
    "find_choice",
    "met",
    "place_of",
    "resolve",
    "rivals",
    "settle",
]

DIVERGENT = "divergent"
_DIGITS_MIN = 12
_KEY_BYTES = 32 + 8  # of a conflict about a record: its domain and its number


class Readable(Protocol):
    """A store, as far as its records are read."""

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """The records behind ``after``, in order."""


class Choice(NamedTuple):
    """One of the things of which one counts: the hash of a record, or of a list of outputs, 32 bytes.

    ``held``: the records behind it are here. ``outputs``: of a result.
    """

    hash: bytes
    held: bool
    outputs: tuple[Reference, ...] = ()


class Contested(NamedTuple):
    """A conflict, by its id (32 bytes). ``subject``: the domain or computation key that it is about, 32 bytes, or empty.

    ``choices`` ascend by hash; there are none where nobody can choose. ``chosen`` is one of them, None while it is open.
    ``first_seen`` in Unix ms, 0 where nobody noted it; ``times`` it was met. ``seq`` of the record of the domain ``subject``
    that it is about, None if it is about none.
    """

    id: bytes
    kind: str
    subject: bytes
    rule: str
    state: str
    choices: tuple[Choice, ...]
    chosen: bytes | None
    evidence: Reference | None
    first_seen: int
    times: int
    seq: int | None = None


def conflicts(store: Store, ledger: Ledger | None, policy: Policy | None) -> list[Contested]:
    """All conflicts that this store knows of, by id. ``ledger`` is None where nothing was ever pulled."""
    noted = [] if ledger is None else ledger.conflicts()
    chosen = _choices_made(store, policy) if any(one.kind == FORK for one in noted) else {}
    found = [_of_ledger(store, one, chosen) for one in noted]
    return sorted([*found, *_divergent(store)])


def met(
    store: Store, ledger: Ledger, policy: Policy | None, before: Mapping[bytes, int], stopped: Collection[bytes]
) -> list[Contested]:
    """What an exchange has met, by id: conflicts noted more often than ``before`` (id -> times), and open forks of ``stopped``.

    ``stopped`` are the domains (32 bytes) with which it did not go on.
    """
    noted = [
        one
        for one in ledger.conflicts()
        if one.times > before.get(one.id, 0) or (one.kind == FORK and one.state == "open" and one.domain in stopped)
    ]
    chosen = _choices_made(store, policy) if any(one.kind == FORK for one in noted) else {}
    return [_of_ledger(store, one, chosen) for one in noted]


def find(found: list[Contested], prefix: str) -> Contested:
    """The conflict whose id begins with ``prefix``.

    Raises:
        NotFound: there is none, or more than one.
    """
    matching = [one for one in found if one.id.hex().startswith(prefix)]
    if len(prefix) < _DIGITS_MIN:
        raise NotFound(f"conflict {prefix:.80}", f"at least {_DIGITS_MIN} digits name one", "give more of it")
    if len(matching) != 1:
        rule = "no conflict has this id" if not matching else f"{len(matching)} conflicts begin so"
        raise NotFound(f"conflict {prefix:.80}", rule, "see: tidewarp store conflicts DIR --all")
    return matching[0]


def find_choice(contested: Contested, prefix: str) -> bytes:
    """The choice (32 bytes) whose hash begins with ``prefix``, of 12 digits or more.

    Raises:
        OperatorError: there is none, or more than one.
    """
    matching = [one.hash for one in contested.choices if one.hash.hex().startswith(prefix)]
    if len(matching) != 1 or len(prefix) < _DIGITS_MIN:
        hashes = ", ".join(one.hash.hex() for one in contested.choices) or "nothing"
        rule = f"conflict {contested.id.hex()[:_DIGITS_MIN]} of kind {contested.kind} is between {hashes}"
        raise OperatorError(f"choice {prefix:.80}", rule, "choose one of these")
    return matching[0]


def resolve(store: Store, contested: Contested, choice: bytes, policy: Policy | None) -> None:
    """Write that ``choice`` (32 bytes) is what counts; durable on return. The view follows from the record.

    Raises:
        PolicyDenied: the own domain has not the role for it.
        OperatorError: nothing can be chosen.
    """
    short = contested.id.hex()[:12]
    if contested.kind not in (FORK, DIVERGENT):
        rule = f"a conflict of kind {contested.kind} is about what one peer sent, and leaves nothing to choose"
        raise OperatorError(f"conflict {short}", rule, "ask the peer's operator")
    found = next(one for one in contested.choices if one.hash == choice)
    role = Role.RESOLVE if contested.kind == FORK else Role.AUDIT
    if policy is None or not policy.may(store.domain, role):
        raise PolicyDenied(
            f"conflict {short}",
            f"{store.domain.hex()} has not the role {role} in the policy in force here",
            f"resolve it where that role is, or give it: tidewarp peer trust DIR NAME --key HEX --role {role}",
        )
    if contested.kind == FORK:
        body, kind = ResolveBody(contested.id, choice).to_bytes(), RESOLVE
    else:
        body, kind = VerdictBody(contested.subject, found.outputs).to_bytes(), VERDICT
    if contested.chosen != choice:
        store.journal.append([Entry(kind, body, PUBLISHED)])


def settle(store: Store, ledger: Ledger, policy: Policy | None) -> None:
    """Follow the resolver's word: a fork is over where he has chosen, and the branch that he did not choose is set aside.

    The chosen one is pulled like any other records. The own journal is never set aside: where it is not the one that was
    chosen, its fork stays open here.
    """
    forks = [one for one in ledger.conflicts() if one.kind == FORK]
    if not forks:
        return
    chosen = _choices_made(store, policy)
    with store.transaction():
        settled = []
        for one in forks:
            choice, held = chosen.get(one.id), _held(store, one)
            if choice is None or (one.domain == store.domain and choice not in held):
                continue
            if held and choice not in held:
                common = place_of(one) - 1
                ledger.keep_branch(list(store.records(one.domain, common)))
                store.cut_back(one.domain, common)
            settled.append(one.id)
        ledger.settle(settled)


def place_of(fork: Conflict) -> int:
    """Where the domain of a fork parts: the number of the first record that differs."""
    return int.from_bytes(fork.key[32:], "big")


def chosen_branches(store: Readable, ledger: Ledger, policy: Policy | None) -> dict[bytes, dict[int, bytes]]:
    """By domain and number, the hash of the record that the resolver has chosen."""
    forks = [one for one in ledger.conflicts() if one.kind == FORK]
    chosen = _choices_made(store, policy) if forks else {}
    found: dict[bytes, dict[int, bytes]] = {}
    for one in forks:
        if one.id in chosen:
            found.setdefault(one.domain, {})[place_of(one)] = chosen[one.id]
    return found


def rivals(store: Store, ledger: Ledger | None) -> list[RecordHeader]:
    """Headers that were proved to be rivals of records here, for :meth:`tidewarp.store.Store.admit`."""
    found = []
    for one in [] if ledger is None else ledger.conflicts():
        proof = _proof(store, one)
        if proof is not None and store.hash_at(proof.domain, proof.common) == proof.one.prev:
            found += [proof.one, proof.other]
    return found


def _of_ledger(store: Store, noted: Conflict, chosen: Mapping[bytes, bytes]) -> Contested:
    proof = _proof(store, noted)
    held = _held(store, noted)
    headers = () if proof is None else (proof.one, proof.other)
    hashes = [record_hash(header.to_bytes()) for header in headers]
    choice = chosen.get(noted.id)
    return Contested(
        noted.id,
        noted.kind,
        noted.domain,
        noted.rule,
        "open" if choice is None else "resolved",
        tuple(Choice(one, one in held) for one in hashes),
        choice,
        noted.evidence,
        noted.first_seen,
        noted.times,
        place_of(noted) if noted.key[:32] == noted.domain and len(noted.key) == _KEY_BYTES else None,
    )


def _proof(store: Store, noted: Conflict) -> ForkProof | None:
    """What shows a fork; it was checked before it was noted."""
    if noted.kind != FORK or noted.evidence is None:
        return None
    return ForkProof.from_bytes(store.get(noted.evidence))


def _held(store: Store, noted: Conflict) -> tuple[bytes, ...]:
    """The record that is here at the place where a domain parts, if one is."""
    found = store.hash_at(noted.domain, place_of(noted)) if noted.kind == FORK else None
    return () if found is None else (found,)


def _choices_made(store: Readable, policy: Policy | None) -> dict[bytes, bytes]:
    """By conflict, what the resolver has chosen, or else a former one while he had the role; his last word on one counts."""
    if policy is None:
        return {}
    admission = policy.admission()
    resolvers: list[tuple[bytes, int | None]] = [*admission.former_resolvers.items()]
    resolvers += [] if policy.resolver is None else [(policy.resolver, None)]
    choices: dict[bytes, bytes] = {}
    for domain, last in resolvers:
        standing = admission.standing(domain)
        if standing is not None:
            bodies = (body for body in _resolutions(store, domain, last) if standing.admits(body))
            choices |= {body.conflict: body.choice for body in bodies}
    return choices


def _resolutions(store: Readable, resolver: bytes, last: int | None) -> Iterator[ResolveBody]:
    for record in store.records(resolver, 0, last):
        if record.header.kind == RESOLVE and record.header.flags & PUBLISHED and record.body is not None:
            yield ResolveBody.from_bytes(record.body)


def _divergent(store: Store) -> Iterator[Contested]:
    """The computation keys whose claims contradict each other."""
    view = store.view()
    for key in view.computations():
        state = view.key_state(key)
        if state is None or state.agreement not in (Agreement.DIVERGENT, Agreement.RESOLVED):
            continue
        lists = {claim.outputs for claim in view.receipts(key)}
        if len(lists) < 2:
            continue
        chosen = _name_of(state.lists[0]) if state.agreement is Agreement.RESOLVED and len(state.lists) == 1 else None
        rule = f"{len(lists)} results of one computation"
        yield Contested(
            conflict_id(DIVERGENT, key),
            DIVERGENT,
            key,
            rule,
            "open" if chosen is None else "resolved",
            tuple(sorted(Choice(_name_of(one), held=True, outputs=one) for one in lists)),
            chosen,
            None,
            0,
            len(lists),
        )


def _name_of(outputs: tuple[Reference, ...]) -> bytes:
    return outputs_hash(tuple([one.encoded() for one in outputs]))
