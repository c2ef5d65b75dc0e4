"""What `tidewarp peer pull` and `push` say of the conflicts that they met: what shows each, and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tidewarp.federation.conflicts import Contested, met
from tidewarp.federation.shell.site import Site
from tidewarp.store.fold.conflicts import FORK

__all__ = ["CONTESTED_MAX", "lines_of", "met_at", "times_noted"]

CONTESTED_MAX = 20
"""Conflicts of one run that are told in full."""

_CHOOSE = "tidewarp store conflicts DIR; tidewarp store conflicts DIR --resolve ID --choose HASH"
_ASK = "tidewarp store conflicts DIR; ask the operator of the peer, and pull from another site"


def times_noted(site: Site) -> dict[bytes, int]:
    """By conflict (its id, 32 bytes), how often it was met until now: for :func:`met_at`."""
    ledger = site.noted()
    return {} if ledger is None else {one.id: one.times for one in ledger.conflicts()}


def met_at(site: Site, before: Mapping[bytes, int], stopped: Collection[bytes]) -> dict[str, Any]:
    """The members ``contested`` and ``contested_more`` of an answer: what was met since ``before``, open forks first.

    ``stopped`` are the domains (32 bytes) with which it did not go on: also an older fork of these is told.
    """
    ledger = site.noted()
    found = [] if ledger is None else met(site.store, ledger, site.policy, before, stopped)
    found.sort(key=lambda one: (one.kind != FORK, one.state != "open", one.id))
    shown = [_document(one) for one in found[:CONTESTED_MAX]]
    return {"contested": shown, "contested_more": len(found) - len(shown)}


def lines_of(document: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    lines = []
    for one in document["contested"]:
        at = "" if one["seq"] is None else f" at record {one['seq']:,}"
        of = f" of domain {one['domain'].hex()}" if one["domain"] else ""
        lines.append(f"{one['kind']} {one['id'].hex()} {one['state']}{of}{at}: {one['rule']}")
        lines += [f"  record {each['hash'].hex()}{' held here' if each['held'] else ''}" for each in one["records"]]
        if one["evidence"] is not None:
            lines.append(f"  proof  {one['evidence']}")
        lines.append(f"  next   {one['next']}")
    if document["contested_more"]:
        lines.append(f"{document['contested_more']:,} conflicts more: tidewarp store conflicts DIR")
    return lines


def _document(one: Contested) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "state": one.state,
        "domain": one.subject or None,
        "seq": one.seq,
        "rule": one.rule,
        "records": [{"hash": each.hash, "held": each.held} for each in one.choices],
        "evidence": None if one.evidence is None else one.evidence.hex(),
        "next": _CHOOSE if one.kind == FORK else _ASK,
    }
