"""Who has signed the head that a peer shows: the root key, or a key that an earlier head makes known; which then comes first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tidewarp.codec.heads import SignedHead
from tidewarp.errors import PeerError
from tidewarp.federation.documents import HeadDocument
from tidewarp.federation.pull.context import Context
from tidewarp.federation.verify import Refusal, check_head, heads_before
from tidewarp.store.signers import check_bounds, earlier_heads, keys_of

__all__ = ["heads_first", "leaning", "names_signers", "signed"]


def signed(context: Context, domain: bytes, shown: HeadDocument, known: Sequence[SignedHead] = ()) -> SignedHead:
    """The head that a peer shows, if who has signed it may.

    That is the root key, or one that the last KEYS record names which the newest valid head before it covers: of those that
    are kept here, and of those ``known`` beside. An older list counts no more, so that a withdrawn key signs nothing later.

    Raises:
        Refusal: nobody who may has signed it, or it leans on more heads than anybody keeps.
    """
    holdings = context.holdings
    try:
        return check_head(shown)
    except Refusal:
        before = leaning(context, domain, shown.size, known)
        declared = keys_of(holdings.keys_record(domain, before[-1].size)) if before else ()
        if not declared:
            raise
    head = check_head(shown, declared)
    try:
        check_bounds(
            domain, earlier_heads(bytes.fromhex(shown.key), before, head, partial(holdings.keys_record, domain))
        )
    except PeerError as error:
        raise Refusal("bad_signature", domain, error.value, error.rule, head.to_bytes()) from None
    return head


def leaning(context: Context, domain: bytes, size: int, known: Sequence[SignedHead]) -> list[SignedHead]:
    """The valid heads of ``domain`` before ``size``, ascending, that lead to the newest of them."""
    holdings = context.holdings
    kept = holdings.signed_heads(None if domain == holdings.domain else domain)
    ours, theirs = ([one for one in heads if one.size < size] for heads in (kept, known))
    return max(ours, theirs, key=lambda heads: heads[-1].size if heads else 0)


def heads_first(context: Context, domain: bytes, shown: HeadDocument) -> list[HeadDocument]:
    """The heads to bring before the one that is shown: none, where it is known who has signed that. Raises Refusal."""
    if not shown.notes:
        return []
    try:
        signed(context, domain, shown)
    except Refusal:
        return heads_before(shown)
    return []


def names_signers(context: Context, shown: HeadDocument) -> SignedHead:
    """The head that was brought first, which covers a list of keys. Raises Refusal: it covers none."""
    head = SignedHead.parse(shown.note)
    if not keys_of(context.holdings.keys_record(head.domain, head.size)):
        what = f"head of {shown.domain} at {shown.size}"
        rule = "it was shown for the KEYS record that it covers, and covers none"
        raise Refusal("bad_signature", head.domain, what, rule, head.to_bytes())
    return head
