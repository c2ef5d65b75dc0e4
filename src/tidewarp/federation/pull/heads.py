"""Which of the domains that a peer shows are looked at."""

from __future__ import annotations

from typing import NamedTuple

from tidewarp.federation.documents import HeadDocument, decode_heads
from tidewarp.federation.messages import NEXT_PAGE, DomainReport, GetHeads
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.parting import UNRESOLVED
from tidewarp.federation.pull.steps import Steps, body_of, decoded
from tidewarp.federation.verify import Refusal

__all__ = ["DOMAINS_MAX", "Heads", "compared", "look"]

DOMAINS_MAX = 1_000
"""Domains that a store without a policy takes in."""


class Heads(NamedTuple):
    """The heads to look at: of the own domain first, then by domain. ``ignored`` counts the others.

    ``etag`` is that of the whole list, if it came as one page; None: the list is still the one whose tag was given.
    """

    shown: list[HeadDocument]
    ignored: int
    etag: str | None


def look(context: Context, etag: str) -> Steps[Heads]:
    """Ask for the heads, page by page, unless they are still those of ``etag``."""
    taken: list[HeadDocument] = []
    ignored = 0
    room = DOMAINS_MAX + 1 - len(context.held)  # the own domain is held, and does not count
    after = b""
    while True:
        answer = yield GetHeads(after, "" if after else etag)
        if answer.status == 304 and etag and not after:
            return Heads([], 0, None)
        page = decoded(decode_heads, body_of(answer), b"")
        if page and bytes.fromhex(page[0].domain) <= after:
            raise Refusal("payload_mismatch", b"", "heads", f"a page begins behind {after.hex()}", answer.whole)
        for one in page:
            domain = bytes.fromhex(one.domain)
            is_new = context.domains is None and domain not in context.held
            if domain in context.held if context.domains is None else domain in context.domains:
                taken.append(one)
            elif is_new and room > 0:
                room -= 1
                taken.append(one)
            else:
                ignored += 1
        next_after = _next_page(context, page, room) if answer.headers.get(NEXT_PAGE) else None
        if next_after is None:
            taken.sort(key=lambda one: (one.domain != context.holdings.domain.hex(), one.domain))
            return Heads(taken, ignored, "" if after else answer.headers.get("etag", ""))
        after = next_after


def compared(context: Context, domain: bytes, shown: HeadDocument) -> DomainReport:
    """What a pull would do about a domain, as far as the heads tell."""
    size = context.size(domain)
    if size >= context.frozen.get(domain, size + 1):
        return DomainReport(domain, size, size, "frozen", UNRESOLVED)
    if shown.size > size:
        return DomainReport(domain, size, shown.size, "to pull")
    is_same = not shown.size or context.holdings.hash_at(domain, shown.size) == bytes.fromhex(shown.head)
    return DomainReport(domain, size, size, "unchanged" if is_same else "to compare")


def _next_page(context: Context, page: list[HeadDocument], room: int) -> bytes | None:
    """Behind which domain to look further: not through a million of which none is wanted."""
    if not page:
        return None
    last = bytes.fromhex(page[-1].domain)
    if context.domains is None and room > 0:
        return last
    beyond = [one for one in (context.held if context.domains is None else context.domains) if one > last]
    if not beyond:
        return None
    return max(last, (int.from_bytes(min(beyond), "big") - 1).to_bytes(32, "big"))
