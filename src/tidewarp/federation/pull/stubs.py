"""Bodies of records that are held as stubs, because who gave them might not show them: a later peer may.

The header that is held names the body by its hash, so what comes needs no signature to be believed. A peer that shows
none of the first is not asked for more in this pull.
"""

from __future__ import annotations

from tidewarp.codec.batches import BODY, ERASED, BatchItem
from tidewarp.federation.messages import GetRecords, Reveal
from tidewarp.federation.pull.artifacts import fetch, last_that_fits
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.steps import Steps, body_of, records_of
from tidewarp.federation.verify import check_bodies

__all__ = ["reveal", "stubbed"]

_PROBE_RECORDS = 100  # of the first question: 12 KiB if none of their bodies is shown


def stubbed(context: Context) -> set[bytes]:
    """The domains of which a body is withheld here."""
    return {domain for domain in context.held if context.holdings.withheld(domain, 0, 1)}


def reveal(context: Context, domain: bytes, shown_size: int) -> Steps[None]:
    """Ask for the bodies that are withheld here, as long as some come. Raises Refusal, Unanswered, Interrupted."""
    after, limit = 0, _PROBE_RECORDS
    while seqs := [seq for seq in context.holdings.withheld(domain, after, limit) if seq <= shown_size]:
        asked = GetRecords(domain, seqs[0] - 1, min(limit, seqs[-1] - seqs[0] + 1))
        data = body_of((yield asked))
        lacking = set(seqs)
        items = [item for item in records_of(asked, data) if item.header.seq in lacking]
        came = [item for item in items if item.state == BODY]
        if came:
            yield from _take(context, domain, came, data)
        elif not items or any(item.state != ERASED for item in items):
            return
        after, limit = max(item.header.seq for item in items), context.limit


def _take(context: Context, domain: bytes, items: list[BatchItem], data: bytes) -> Steps[None]:
    """Check bodies against the headers that are held, fetch what they name and have not brought, and keep them.

    As many of them at a time as one commit may have bytes.
    """
    held = [next(context.holdings.records(domain, item.header.seq - 1, 1)).header for item in items]
    wanted = check_bodies(domain, held, items, data)
    while items:
        last = last_that_fits(context, wanted, items[0].header.seq - 1) or items[-1].header.seq
        part = [item for item in items if item.header.seq <= last]
        sources, absent = yield from fetch(context, domain, (one for one in wanted if one.seq <= last))
        yield Reveal(domain, tuple(part), sources, absent)
        context.absent.update(reference for reference, _ in absent)
        items, wanted = items[len(part) :], tuple(one for one in wanted if one.seq > last)
