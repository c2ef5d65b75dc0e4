"""`tidewarp peer plan`: what a pull would do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import EXIT_UNANSWERED, check_answered, tls_for, tls_option
from tidewarp.cli.store.places import store_argument
from tidewarp.federation.shell import plan
from tidewarp.federation.shell.site import open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("url")
@tls_option
@json_option
def command(place: Path, url: str, tls_file: Path | None, as_json: bool) -> int:
    """Say what a pull from the site at URL would bring to the store DIR. No record is taken.

    Ends with 3 if nobody answers.
    """
    with open_site(place) as site:
        report = plan(site.store, url, tls=tls_for(site, url, tls_file))
    check_answered(report, url)
    domains = [
        {
            "id": one.domain,
            "ours": one.before,
            "theirs": one.after,
            "records": max(one.after - one.before, 0),
            "action": one.outcome.removeprefix("to "),
            "reason": one.reason,
        }
        for one in report.domains
    ]
    emit({"domains": domains, "ignored": report.ignored, "incomplete": report.incomplete or None}, as_json, _render)
    return EXIT_UNANSWERED if report.incomplete else 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [
        f"domain {one['id'].hex()} {one['action']}: ours {one['ours']:,}, theirs {one['theirs']:,}"
        + (f" ({one['reason']})" if one["reason"] else "")
        for one in document["domains"]
    ]
    if document["ignored"]:
        lines.append(f"{document['ignored']:,} domains would not be looked at: name them with --domain")
    if document["incomplete"]:
        lines.append(f"incomplete: {document['incomplete']}")
    return "\n".join(lines) or "the peer shows no domain"
