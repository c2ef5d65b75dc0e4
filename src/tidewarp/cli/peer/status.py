"""`tidewarp peer status`: whom a site knows, and what came of its exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.exchanged import SHOWN_DIGITS
from tidewarp.cli.store.places import store_argument
from tidewarp.federation.ledger import Quarantined
from tidewarp.federation.peers import Peer
from tidewarp.federation.policy import NEWCOMER_ROLES
from tidewarp.federation.shell.site import Site, open_site
from tidewarp.store.admission import Role

__all__ = ["command"]

_LOG_ROWS = 20
_REFUSED_ROWS = 20


@click.command()
@store_argument
@json_option
def command(place: Path, as_json: bool) -> int:
    """Show the peers of the store DIR: their roles, how far each was pulled, what it holds, what went wrong last.

    Then the end of the federation log: which records came from whom, and what became of them; and of the quarantine: what
    was refused, of whom, and why.
    """
    with open_site(place, read_only=True) as site:
        (own, *_) = site.store.domains()
        document = {
            "domain": own.id,
            "public_key": own.key,
            "policy_hash": None if site.policy is None else site.policy.hash,
            "peers": _peers(site),
            "federation_log": []
            if site.ledger is None
            else [{**one._asdict(), "origin": one.origin or None} for one in site.ledger.log(_LOG_ROWS)],
            "quarantine": [] if site.ledger is None else [*map(_refused, site.ledger.quarantined()[-_REFUSED_ROWS:])],
        }
    emit(document, as_json, _render)
    return 0


def _peers(site: Site) -> list[dict[str, Any]]:
    """Those that are named, then those that were only pulled from."""
    known = site.peers()
    errors = {} if site.ledger is None else site.ledger.last_errors()
    strange = [url for url in errors if known.at(url) is None]
    return [_peer(site, one.name, one.url, one, errors) for one in known.peers] + [
        _peer(site, url, url, None, errors) for url in strange
    ]


def _peer(site: Site, name: str, url: str, peer: Peer | None, errors: Mapping[str, str]) -> dict[str, Any]:
    cursors = {} if site.ledger is None else site.ledger.cursors(url.rstrip("/"))
    acked = {} if site.ledger is None else site.ledger.acked(url.rstrip("/"))
    return {
        "name": name,
        "url": url or None,
        "domain": None if peer is None else peer.domain,
        "roles": sorted(_roles(site, peer)),
        "cursors": {origin.hex(): seq for origin, (seq, _) in sorted(cursors.items())},
        "acked": {origin.hex(): seq for origin, seq in acked.items()},
        "last_error": errors.get(url.rstrip("/")) or None,
    }


def _refused(one: Quarantined) -> dict[str, Any]:
    return {"peer": one.peer, "domain": one.domain or None, "reason": one.reason, "bytes": len(one.data)}


def _roles(site: Site, peer: Peer | None) -> frozenset[Role]:
    if site.policy is None:
        return NEWCOMER_ROLES
    member = None if peer is None else site.policy.members.get(peer.domain)
    return frozenset() if member is None else member.standing.roles


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"domain {document['domain'].hex()}", f"public key {document['public_key'].hex()}"]
    for one in document["peers"]:
        lines.append(f"peer {one['name']} {one['url'] or 'without an address'}: {', '.join(one['roles']) or 'no role'}")
        lines += [f"  {origin[:SHOWN_DIGITS]} up to record {seq:,}" for origin, seq in one["cursors"].items()]
        lines += [f"  {origin[:SHOWN_DIGITS]} holds {seq:,} records" for origin, seq in one["acked"].items()]
        lines += [f"  last error: {one['last_error']}"] if one["last_error"] else []
    for one in document["federation_log"]:
        origin = "-" if one["origin"] is None else one["origin"].hex()[:SHOWN_DIGITS]
        lines.append(f"{one['result']} {origin} {one['first']:,} to {one['last']:,} from {one['peer']}")
    for one in document["quarantine"]:
        lines.append(f"in quarantine {one['bytes']:,} bytes from {one['peer']}: {one['reason']}")
    return "\n".join(lines)
