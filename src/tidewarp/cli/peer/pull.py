"""`tidewarp peer pull`: take over what another site has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.peer.answers import check_answered, domains_option, tls_for, tls_option
from tidewarp.cli.peer.exchanged import EXIT_REFUSED, exit_code, members_of, moved
from tidewarp.cli.peer.met import lines_of, met_at, times_noted
from tidewarp.cli.signals import StopSignals
from tidewarp.cli.store.places import store_argument
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OperatorError, StoreLocked
from tidewarp.federation.shell import PeerClient, PullReport, pull_by
from tidewarp.federation.shell.following import Follower
from tidewarp.federation.shell.site import Site, open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("url")
@domains_option
@click.option("--until", metavar="SEQ", type=click.IntRange(min=1), help="Up to this number in each domain.")
@click.option("--max-records", metavar="N", type=click.IntRange(min=1), help="Records of all domains, at most.")
@click.option("--follow", is_flag=True, help="Go on: pull whenever the peer has grown, until SIGINT or SIGTERM.")
@tls_option
@json_option
def command(
    place: Path,
    url: str,
    domains: tuple[bytes, ...],
    until: int | None,
    max_records: int | None,
    follow: bool,
    tls_file: Path | None,
    as_json: bool,
) -> int:
    """Take from the site that serves at URL what it has and the store DIR lacks.

    Everything is checked before it is kept: chains, signatures, and that every byte has its name. So it does not
    matter whom it is pulled from. What was kept before an interruption stays, and the next pull goes on from there.

    Under a policy, only the domains that it names are taken. An https URL has to be that of a peer whose key is known:
    see tidewarp peer trust.

    Bytes that the peer does not give are counted, and asked for again by the next pull, from any site.

    With --follow it goes on until SIGINT or SIGTERM, and then says what all pulls have brought. Where the peer is away it
    is asked again after a second, then two, and so on to ten minutes. Between two pulls others may write the store; while
    somebody does, it waits.

    Of each conflict that it met it says what shows it: id, kind, domain and number, the hashes of both records, and the proof.

    Ends with 1 if something was refused, a quota is full, or a domain has two histories and nobody has chosen one; with 3
    if nobody answers, or no longer.
    """
    if follow and (until is not None or max_records is not None):
        raise OperatorError("--follow", "a pull with a bound has an end", "leave out --until and --max-records")
    if follow:
        pulled = _follow(place, url, tls_file, domains)
    else:
        pulled = _once(place, url, tls_file, {"domains": domains or None, "until": until, "records_max": max_records})
    document = pulled.document()
    emit(document, as_json, _render)
    code = exit_code(document, is_refused=pulled.is_refused)
    return 0 if follow and code != EXIT_REFUSED else code  # it was ended, whatever the peer said at last


class _Pulled(NamedTuple):
    """What came of all pulls from ``url``: their report, and which domains are frozen then; ``more`` is for the answer."""

    url: str
    report: PullReport
    frozen: frozenset[bytes]
    more: Mapping[str, Any]

    @property
    def is_refused(self) -> bool:
        """Whether there was a conflict that is no fork, or a fork that nobody has resolved since."""
        return self.report.conflicts > len(self.report.forks) or not self.frozen.isdisjoint(self.report.forks)

    def document(self) -> dict[str, Any]:
        """The answer of the command."""
        domains = [
            one._replace(outcome="settled", reason="its fork is resolved by what came: pull again")
            if one.outcome in ("frozen", "forked") and one.domain not in self.frozen
            else one
            for one in self.report.domains
        ]
        return {"peer": self.url, **members_of(self.report, domains), "ignored": self.report.ignored, **self.more}


def _once(place: Path, url: str, tls_file: Path | None, bounds: dict[str, Any]) -> _Pulled:
    clock = WallClock()
    with open_site(place) as site:
        tls, noted = tls_for(site, url, tls_file), times_noted(site)
        with PeerClient(url, tls=tls, clock=clock) as client:
            report, frozen = _pulled(site, client, clock, bounds)
        check_answered(report, url)
        return _Pulled(client.url, report, frozen, met_at(site, noted, _stopped(report)))


def _follow(place: Path, url: str, tls_file: Path | None, domains: tuple[bytes, ...]) -> _Pulled:
    """Pull whenever the peer has grown, until a signal comes; between two pulls the store is free for others."""
    clock, frozen = WallClock(), frozenset[bytes]()
    with open_site(place) as site:
        tls, noted = tls_for(site, url, tls_file), times_noted(site)
    with PeerClient(url, tls=tls, clock=clock) as client:

        def pull_once() -> PullReport:
            nonlocal frozen
            try:
                with open_site(place) as site:
                    report, frozen = _pulled(site, client, clock, {"domains": domains or None})
            except StoreLocked as locked:
                return PullReport.nothing()._replace(incomplete=str(locked))
            return report

        follower = Follower(client, pull_once, clock)
        with StopSignals(follower.stop):
            report = follower.run()
    with open_site(place, read_only=True) as site:
        contested = met_at(site, noted, _stopped(report))
    return _Pulled(client.url, report, frozen, {**contested, "pulls": follower.pulls, "interrupted": True})


def _stopped(report: PullReport) -> frozenset[bytes]:
    """The domains that are forked, and with which the pull did not go on."""
    return frozenset(one.domain for one in report.domains if one.outcome in ("forked", "frozen"))


def _pulled(
    site: Site, client: PeerClient, clock: WallClock, bounds: dict[str, Any]
) -> tuple[PullReport, frozenset[bytes]]:
    """Pull once: the report, and which domains are frozen then."""
    report = pull_by(client, site.store, clock, quotas=site.peers().quotas, **bounds)
    site.settle()
    return report, frozenset(site.frozen())


def _render(document: Mapping[str, Any]) -> str:
    lines = moved(document)
    if document["ignored"]:
        lines.append(f"{document['ignored']:,} domains were not looked at: name them with --domain")
    if document["absent"]:
        lines.append(
            f"{document['absent']:,} artifacts have no bytes here, the peer does not give them: pull from another site,"
            " or tidewarp store fsck DIR --repair --from URL"
        )
    if document["incomplete"]:
        lines.append(f"incomplete, from {document['peer']}: {document['incomplete']}; what was taken stays, pull again")
    lines += lines_of(document)
    return "\n".join(lines)
