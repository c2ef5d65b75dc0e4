"""What `tidewarp peer pull` and `push` say of an exchange: what it moved, and how each domain came out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tidewarp.cli.peer.answers import EXIT_UNANSWERED
from tidewarp.federation.messages import DomainReport
from tidewarp.federation.shell import PullReport, PushReport

__all__ = ["EXIT_REFUSED", "SHOWN_DIGITS", "exit_code", "members_of", "moved"]

EXIT_REFUSED = 1

SHOWN_DIGITS = 12
"""Of a domain, in a line for people."""

_REFUSED = frozenset({"refused", "forked", "frozen", "full"})


def members_of(report: PullReport | PushReport, domains: Collection[DomainReport]) -> dict[str, Any]:
    """The members of an answer that every exchange has; ``domains`` are those of the report, as they stand now."""
    return {
        "records": report.records,
        "conflicts": report.conflicts,
        "bytes": report.bytes,
        "domains": [
            {"id": one.domain, "before": one.before, "after": one.after, "outcome": one.outcome, "reason": one.reason}
            for one in domains
        ],
        "absent": report.absent,
        "incomplete": report.incomplete or None,
        "seconds": report.seconds,
    }


def exit_code(document: Mapping[str, Any], *, is_refused: bool) -> int:
    """1 if a side refused something or has no room, 3 if it did not come to its end."""
    outcomes = {one["outcome"] for one in document["domains"]}
    if is_refused or outcomes & _REFUSED:
        return EXIT_REFUSED
    return EXIT_UNANSWERED if document["incomplete"] or "incomplete" in outcomes else 0


def moved(document: Mapping[str, Any]) -> list[str]:
    """What was moved, for people: a line for all of it, and one for each domain."""
    lines = [f"{document['records']:,} records, {document['bytes']:,} bytes in {document['seconds']:.2f} s"]
    for one in document["domains"]:
        reason = f": {one['reason']}" if one["reason"] else ""
        size = f"({one['before']:,} -> {one['after']:,})"
        lines.append(f"domain {one['id'].hex()[:SHOWN_DIGITS]} {one['outcome']} {size}{reason}")
    return lines
