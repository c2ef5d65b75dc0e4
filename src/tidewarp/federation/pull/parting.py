"""Where two journals of one domain do not fit: the last record that both have, and a proof of the fork that anybody can check.

Here are also the heads by which either side is vouched for.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidewarp.codec.frames import u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import inclusion_root
from tidewarp.codec.records import record_hash
from tidewarp.errors import PeerError
from tidewarp.federation.documents import HashDocument, HeadDocument, decode_json
from tidewarp.federation.messages import Forked, GetHash, GetInclusion, GetRecords
from tidewarp.federation.proof import ForkProof, Voucher, links_of
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.signers import leaning
from tidewarp.federation.pull.steps import Steps, body_of, decoded, proof, records_of
from tidewarp.federation.search import CommonSearch
from tidewarp.federation.verify import Refusal
from tidewarp.store.signers import is_of_root

__all__ = ["NOT_CHOSEN", "UNRESOLVED", "check_stale", "part"]

NOT_CHOSEN = "the peer holds a branch that was not chosen"
UNRESOLVED = "its conflict is not resolved"


def check_stale(context: Context, domain: bytes, shown: HeadDocument) -> None:
    """Raise Refusal if the domain's own site shows less than it has signed before."""
    if shown.origin and domain != context.holdings.domain:
        before = context.holdings.signed_head(domain)
        if before is not None and shown.size < before.size:
            rule = f"the origin shows {shown.size} records and has signed {before.size} before"
            raise Refusal("stale_head", domain, f"head of {shown.domain}", rule, shown.note.encode())


def part(
    context: Context, shown: HeadDocument, head: SignedHead, differ: int, known: Sequence[SignedHead]
) -> Steps[tuple[str, str]]:
    """Find the last common record, and say that the domain is forked; refuse a peer that cannot show it.

    At record ``differ`` the two journals are not the same. Returns outcome and reason of the report. Where our branch is the
    one that was chosen, nothing is new. ``known`` are the heads that it leans on, as far as they are not kept here.
    """
    domain, key, holdings = head.domain, bytes.fromhex(shown.key), context.holdings
    search = CommonSearch(differ)
    while (probe := search.probe) is not None:
        their_hash = decoded(_hash, body_of((yield GetHash(domain, probe))), domain)
        search.tell(their_hash == holdings.hash_at(domain, probe))
    seq = search.common + 1
    if seq in context.chosen.get(domain, {}):
        return "unchanged", NOT_CHOSEN
    asked = GetRecords(domain, search.common, 1)
    data = body_of((yield asked))
    theirs = records_of(asked, data)[0].header
    path = proof((yield GetInclusion(domain, seq, shown.size)), domain)
    ours = next(iter(holdings.records(domain, search.common, 1))).header
    links = () if is_of_root(head, key) else links_of(holdings, leaning(context, domain, shown.size, known))
    own_voucher = _own_voucher(context, domain, key, seq)
    try:
        bridge = shown.bridge_path()
        root = inclusion_root(record_hash(theirs.to_bytes()), seq - 1, shown.size, path) if bridge else head.root
        their_voucher = Voucher(shown.size, root, path, bridge or (), head, links)
        evidence = ForkProof.of(key, (ours, own_voucher), (theirs, their_voucher))
        evidence.check()
    except PeerError as error:
        at = f"record {seq} of {domain.hex()}"
        raise Refusal("payload_mismatch", domain, at, f"the peer shows no fork: {error}", data) from None
    yield Forked(domain, search.common, evidence)
    return "forked", f"it parts from ours at record {seq}"


def _own_voucher(context: Context, domain: bytes, key: bytes, seq: int) -> Voucher:
    holdings = context.holdings
    heads = holdings.signed_heads(None if domain == holdings.domain else domain)
    if heads and heads[-1].size >= seq:
        head = heads[-1]
        path = tuple(holdings.inclusion_proof(domain, seq, head.size))
        return Voucher(head.size, head.root, path, (), head, links_of(holdings, heads[:-1]))
    if domain not in context.bridges or context.bridges[domain].size < seq:
        rule = "no signed head covers our own record: that it is true cannot be shown"
        raise Refusal("payload_mismatch", domain + u64(seq), f"record {seq} of {domain.hex()}", rule)
    size, hashes, head = context.bridges[domain]
    path = tuple(holdings.inclusion_proof(domain, seq, size))
    links = () if is_of_root(head, key) else links_of(holdings, heads)
    return Voucher(size, holdings.root_at(domain, size), path, hashes, head, links)


def _hash(data: bytes) -> bytes:
    return bytes.fromhex(decode_json(data, HashDocument).hash)
