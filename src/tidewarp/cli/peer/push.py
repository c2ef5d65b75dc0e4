"""`tidewarp peer push`: give another site what this one has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import EXIT_UNANSWERED, parse_domains, tls_for, tls_option
from tidewarp.cli.peer.met import lines_of, met_at, times_noted
from tidewarp.cli.store.places import store_argument
from tidewarp.errors import MissingExtra
from tidewarp.federation.shell import push
from tidewarp.federation.shell.site import open_site

__all__ = ["command"]

EXIT_REFUSED = 1
_SHOWN_DIGITS = 12


@click.command()
@store_argument
@click.argument("url")
@click.option(
    "--domain", "domains", metavar="HEX", callback=parse_domains, multiple=True, help="Of this domain only; repeatable."
)
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
        report = push(site.store, url, domains=domains or None, tls=tls_for(site, url, tls_file))
        contested = met_at(site, noted, {one.domain for one in report.domains if one.outcome in ("forked", "refused")})
    if not report.answered:
        raise MissingExtra(
            url, f"nobody answers: {report.incomplete}", "start it there: tidewarp peer serve DIR --port P"
        )
    document = {
        "records": report.records,
        "conflicts": report.conflicts,
        "bytes": report.bytes,
        "domains": [
            {"id": one.domain, "before": one.before, "after": one.after, "outcome": one.outcome, "reason": one.reason}
            for one in report.domains
        ],
        "absent": report.absent,
        "incomplete": report.incomplete or None,
        **contested,
        "seconds": report.seconds,
    }
    emit(document, as_json, _render)
    outcomes = {one.outcome for one in report.domains}
    if report.conflicts or outcomes & {"refused", "forked", "full"}:
        return EXIT_REFUSED
    return EXIT_UNANSWERED if report.incomplete or "incomplete" in outcomes else 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"{document['records']:,} records, {document['bytes']:,} bytes in {document['seconds']:.2f} s"]
    for one in document["domains"]:
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(
            f"domain {one['id'].hex()[:_SHOWN_DIGITS]} {one['outcome']} ({one['before']:,} -> {one['after']:,}){reason}"
        )
    if document["absent"]:
        lines.append(
            f"{document['absent']:,} artifacts have no bytes there, and are not here either, or are not published"
        )
    if document["incomplete"]:
        lines.append(f"incomplete: {document['incomplete']}; what was taken stays, push again")
    lines += lines_of(document)
    return "\n".join(lines)
