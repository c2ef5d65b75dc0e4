"""Bringing one domain to the size that a peer shows: batch by batch, each verified whole and committed before the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import EvidenceBody
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import joined_consistency
from tidewarp.codec.records import record_hash
from tidewarp.codec.references import Reference
from tidewarp.errors import PeerError
from tidewarp.federation.documents import HeadDocument
from tidewarp.federation.messages import Ahead, Behind, Bridge, Commit, GetConsistency, GetRecords, Vouched
from tidewarp.federation.proof import ForkProof
from tidewarp.federation.pull.artifacts import fetch, last_that_fits
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.parting import NOT_CHOSEN, UNRESOLVED, check_stale, part
from tidewarp.federation.pull.signers import heads_first, names_signers, signed
from tidewarp.federation.pull.steps import Interrupted, Steps, Unanswered, body_of, proof, records_of
from tidewarp.federation.verify import Prefix, Refusal, Verified, check_batch, check_bridge, check_covered

__all__ = ["bring"]


def bring(context: Context, domain: bytes, shown: HeadDocument, acknowledged: int | None) -> Steps[tuple[str, str]]:
    """Pull one domain. Returns outcome and reason of its report.

    ``acknowledged``: the size of it that the peer has shown before, by a head whose signature was checked.
    """
    known: list[SignedHead] = []
    for one in heads_first(context, domain, shown):
        outcome = yield from _bring(context, domain, one, None, known)
        if outcome not in (("pulled", ""), ("unchanged", "")):
            return outcome
        known.append(names_signers(context, one))
        context.begin()
    return (yield from _bring(context, domain, shown, acknowledged, known))


def _bring(
    context: Context, domain: bytes, shown: HeadDocument, acknowledged: int | None, known: Sequence[SignedHead]
) -> Steps[tuple[str, str]]:
    """Pull one domain to one head. ``known``: those that it leans on, as the peer has shown them, and as they were verified."""
    if context.is_frozen(domain):
        return "frozen", UNRESOLVED
    prefix = context.prefix(domain)
    is_own = domain == context.holdings.domain
    if shown.size <= prefix.size:
        if shown.size and context.holdings.hash_at(domain, shown.size) != bytes.fromhex(shown.head):
            head = signed(context, domain, shown, known)
            return (yield from part(context, shown, head, shown.size, known))
        check_stale(context, domain, shown)
        if shown.size and shown.size != acknowledged:
            _check_covered(context, signed(context, domain, shown, known), shown)
        if not is_own and shown.bridge_path() is None:
            yield from _vouch(context, domain, shown, prefix, known)
        return "unchanged", ""
    head = signed(context, domain, shown, known)
    if is_own:
        yield Behind(shown.size)
    asked: GetRecords | None = None
    while prefix.size < shown.size:
        asked = asked or _next(context, domain, prefix.size, shown.size, context.room)
        if asked is None:
            if domain in context.frozen:
                return "frozen", UNRESOLVED
            return "bounded", "it ends at the bound that was given"
        data = body_of((yield asked))
        items = records_of(asked, data)
        first = items[0].header
        if (first.domain, first.seq) == (domain, prefix.size + 1) and first.prev != prefix.head and prefix.size:
            return (yield from part(context, shown, head, prefix.size, known))
        items = _on_chosen_branch(context, domain, items)
        if not items:
            return "unchanged", NOT_CHOSEN
        prefix, asked = yield from _take(context, shown, prefix, head, items, data)
    return "pulled", ""


def _next(context: Context, domain: bytes, size: int, shown_size: int, room: int | None) -> GetRecords | None:
    """The question after what follows ``size`` records; None where nothing does, or may by the bounds that were given."""
    until = min(shown_size, context.frozen.get(domain, shown_size))
    until = until if context.until is None else min(until, context.until)
    number = min(context.limit, until - size, context.limit if room is None else room)
    return GetRecords(domain, size, number) if number > 0 else None


def _take(
    context: Context, shown: HeadDocument, prefix: Prefix, head: SignedHead, items: list[BatchItem], data: bytes
) -> Steps[tuple[Prefix, GetRecords | None]]:
    """Verify, fetch what is missing and commit: of the batch as much as has room.

    Returns the new prefix, and the question that comes next.
    """
    domain = head.domain
    size = prefix.size + len(items)
    room = None if context.room is None else context.room - len(items)
    # Where nothing else has to be fetched first, the peer begins with the next batch while this one is looked at.
    is_whole = all(item.artifact is not None for item in items)
    following = _next(context, domain, size, shown.size, room) if is_whole else None
    is_sent = following is not None and size < shown.size
    hashes: tuple[bytes, ...] = ()
    no_proof: Refusal | Unanswered | Interrupted | None = None
    try:
        if size < shown.size:
            hashes = proof((yield GetConsistency(domain, size, shown.size, following)), domain)
    except (Refusal, Unanswered, Interrupted) as error:
        no_proof = error
    verified = check_batch(domain, prefix, items, data)  # what is wrong with the records themselves, counts first
    if no_proof is not None:
        raise no_proof
    last = last_that_fits(context, verified.wanted, prefix.size)
    if last is not None:
        verified = check_batch(domain, prefix, items[: last - prefix.size], data)
        size = last
        room = None if context.room is None else context.room - len(verified.items)
        hashes = proof((yield GetConsistency(domain, size, shown.size)), domain)
    hashes = _bridged(shown, size, hashes, head)
    check_bridge(verified.prefix, head, hashes)
    bridge = Bridge(size, hashes, head) if size < head.size else None
    sources, absent = yield from fetch(context, domain, verified.wanted)
    if not is_sent:
        following = _next(context, domain, size, shown.size, room)
        if following is not None:
            yield Ahead(following)
    yield Commit(
        domain, bytes.fromhex(shown.key), verified.items, head, bridge, sources, absent, tuple(_forks(verified))
    )
    context.absent.update(reference for reference, _ in absent)
    context.room = room
    return verified.prefix, following


def _bridged(shown: HeadDocument, size: int, hashes: tuple[bytes, ...], head: SignedHead) -> tuple[bytes, ...]:
    """The proof from ``size`` records to ``head``, of the ``hashes`` that lead to what the peer holds. Raises Refusal."""
    bridge = shown.bridge_path()
    if bridge is None:
        return hashes
    try:
        return tuple(joined_consistency(size, shown.size, head.size, hashes, bridge))
    except PeerError as error:
        raise Refusal("payload_mismatch", head.domain, error.value, error.rule, head.to_bytes()) from None


def _check_covered(context: Context, head: SignedHead, shown: HeadDocument) -> None:
    """Return if what the peer holds, the same as here, is covered by the head that it shows. Raises Refusal."""
    bridge = shown.bridge_path()
    if bridge is not None:
        check_covered(shown.size, context.holdings.root_at(head.domain, shown.size), head, bridge)


def _forks(verified: Verified) -> Iterator[tuple[Reference, ForkProof]]:
    """The proofs of forks that came as evidence, and are true: their domains are frozen here too."""
    for one in verified.items.others:
        if isinstance(one.said, EvidenceBody) and one.artifact is not None:
            reference, artifact = one.artifact
            try:
                evidence = ForkProof.from_bytes(artifact.payload)
                evidence.check()
            except PeerError:
                continue  # another kind of evidence, or none: a record may say what it likes
            yield reference, evidence


def _on_chosen_branch(context: Context, domain: bytes, items: list[BatchItem]) -> list[BatchItem]:
    """The records up to one in whose place another was chosen."""
    chosen = context.chosen.get(domain)
    for n, one in enumerate(items if chosen else ()):
        choice = chosen.get(one.header.seq) if chosen else None
        if choice is not None and choice != record_hash(one.header.to_bytes()):
            return items[:n]
    return items


def _vouch(
    context: Context, domain: bytes, shown: HeadDocument, prefix: Prefix, known: Sequence[SignedHead]
) -> Steps[None]:
    """Keep the head that the peer shows, if ours is of less."""
    before = context.holdings.signed_head(domain)
    if shown.size > 0 and (before is None or before.size < shown.size):
        head = signed(context, domain, shown, known)
        if head.size == prefix.size:
            check_bridge(prefix, head, ())
        elif context.holdings.root_at(domain, head.size) != head.root:
            what = f"{head.size} records of {domain.hex()}"
            raise Refusal("payload_mismatch", domain, what, "the root of the head is not theirs", head.to_bytes())
        yield Vouched(domain, bytes.fromhex(shown.key), head)
