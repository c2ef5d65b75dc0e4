"""`tidewarp peer push`: give another site what this one has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import check_answered, domains_option, tls_for, tls_option
from tidewarp.cli.peer.exchanged import exit_code, members_of, moved
from tidewarp.cli.peer.met import lines_of, met_at, times_noted
from tidewarp.cli.store.places import store_argument
from tidewarp.federation.shell import push
from tidewarp.federation.shell.site import open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("url")
@domains_option
@tls_option
@json_option
def command(place: Path, url: str, domains: tuple[bytes, ...], tls_file: Path | None, as_json: bool) -> int:
    """Give the site that serves at URL what is published in the store DIR and it lacks.

    It is for a site that others cannot reach. The other side checks and takes everything as if it had pulled it; it lets
    itself be given something by those alone who have the role federate in its policy, and only over TLS.

    Where the other side holds another history of a domain, the proof of it is shown, if it is here; else a pull brings it.

    Ends with 1 if the other side refused something, or has no room; with 3 if nobody answers, or no longer.
    """
    with open_site(place) as site:
        noted = times_noted(site)
        ledger = site.noted()
        bridges = None if ledger is None else ledger.bridges()
        report = push(site.store, url, domains=domains or None, bridges=bridges, tls=tls_for(site, url, tls_file))
        contested = met_at(site, noted, {one.domain for one in report.domains if one.outcome in ("forked", "refused")})
    check_answered(report, url)
    document = {**members_of(report, report.domains), **contested}
    emit(document, as_json, _render)
    return exit_code(document, is_refused=report.conflicts > 0)


def _render(document: Mapping[str, Any]) -> str:
    lines = moved(document)
    if document["absent"]:
        lines.append(
            f"{document['absent']:,} artifacts have no bytes there, and are not here either, or are not published"
        )
    if document["incomplete"]:
        lines.append(f"incomplete: {document['incomplete']}; what was taken stays, push again")
    lines += lines_of(document)
    return "\n".join(lines)
