"""`tidewarp peer pull`: take over what another site has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import EXIT_UNANSWERED, check_answered, parse_domains, tls_for, tls_option
from tidewarp.cli.store.places import store_argument
from tidewarp.federation.shell import pull
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
@click.option("--until", metavar="SEQ", type=click.IntRange(min=1), help="Up to this number in each domain.")
@click.option("--max-records", metavar="N", type=click.IntRange(min=1), help="Records of all domains, at most.")
@tls_option
@json_option
def command(
    place: Path,
    url: str,
    domains: tuple[bytes, ...],
    until: int | None,
    max_records: int | None,
    tls_file: Path | None,
    as_json: bool,
) -> int:
    """Take from the site that serves at URL what it has and the store DIR lacks.

    Everything is checked before it is kept: chains, signatures, and that every byte has its name. So it does not
    matter whom it is pulled from. What was kept before an interruption stays, and the next pull goes on from there.

    Under a policy, only the domains that it names are taken. An https URL has to be that of a peer whose key is known:
    see tidewarp peer trust.

    Bytes that the peer does not give are counted, and asked for again by the next pull, from any site.

    Ends with 1 if something was refused, a quota is full, or a domain has two histories; with 3 if nobody answers, or no
    longer.
    """
    with open_site(place) as site:
        report = pull(
            site.store,
            url,
            domains=domains or None,
            until=until,
            records_max=max_records,
            quotas=site.peers().quotas,
            tls=tls_for(site, url, tls_file),
        )
        site.settle()
    check_answered(report, url)
    document = {
        "records": report.records,
        "conflicts": report.conflicts,
        "bytes": report.bytes,
        "domains": [
            {"id": one.domain, "before": one.before, "after": one.after, "outcome": one.outcome, "reason": one.reason}
            for one in report.domains
        ],
        "ignored": report.ignored,
        "absent": report.absent,
        "incomplete": report.incomplete or None,
        "seconds": report.seconds,
    }
    emit(document, as_json, _render)
    outcomes = {one.outcome for one in report.domains}
    if report.conflicts or outcomes & {"refused", "forked", "frozen", "full"}:
        return EXIT_REFUSED
    return EXIT_UNANSWERED if report.incomplete or "incomplete" in outcomes else 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"{document['records']:,} records, {document['bytes']:,} bytes in {document['seconds']:.2f} s"]
    for one in document["domains"]:
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(
            f"domain {one['id'].hex()[:_SHOWN_DIGITS]} {one['outcome']} ({one['before']:,} -> {one['after']:,}){reason}"
        )
    if document["ignored"]:
        lines.append(f"{document['ignored']:,} domains were not looked at: name them with --domain")
    if document["absent"]:
        lines.append(
            f"{document['absent']:,} artifacts have no bytes here, the peer does not give them: pull from another site,"
            " or tidewarp store fsck DIR --repair --from URL"
        )
    if document["incomplete"]:
        lines.append(f"incomplete: {document['incomplete']}; what was taken stays, pull again")
    return "\n".join(lines)
