"""`tidewarp program work`: execute the requests that are ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.cli.peer.answers import EXIT_UNANSWERED, tls_for, tls_option
from tidewarp.cli.program.operations import models_option, registry_of
from tidewarp.cli.program.run import executor_of
from tidewarp.cli.signals import StopSignals
from tidewarp.cli.store.places import STORE
from tidewarp.cli.values import WallSeconds
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OperatorError, StoreLocked
from tidewarp.federation.shell import pull
from tidewarp.federation.shell.site import Site, open_site
from tidewarp.programs import Limits, OperationRegistry
from tidewarp.programs.requests import GRACE_S
from tidewarp.programs.working import Work, Worker
from tidewarp.store.files import locate, read_seed

__all__ = ["command"]

EXIT_REFUSED = 1
RUNS_SHOWN = 100
"""Runs of which the answer says what came of each: the last ones."""


@click.command()
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where the requests are.")
@click.option("--from", "urls", metavar="URL", multiple=True, help="A site to pull from before each round; repeatable.")
@click.option("--once", is_flag=True, help="One round, and end.")
@click.option(
    "--every",
    "pause_s",
    metavar="S",
    type=WallSeconds(min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds from one round to the next.",
)
@click.option(
    "--grace",
    "grace_s",
    metavar="S",
    type=WallSeconds(),
    default=GRACE_S,
    show_default=True,
    help="Seconds that each site leaves to the one before it; 0: execute all that is ready.",
)
@tls_option
@models_option
@json_option
def command(
    place: Path,
    urls: tuple[str, ...],
    once: bool,
    pause_s: float,
    grace_s: float,
    tls_file: Path | None,
    models: tuple[str, ...],
    as_json: bool,
) -> int:
    """Execute the requests in the store DIR that are ready, and keep their results with receipts, until SIGINT or SIGTERM.

    Sites that work for each other need no leader: for each computation they have an order, in which each leaves some time
    to the one before it. The store is locked during a round alone; what this site has made others find when they
    pull, also from a server with --read-only beside it.

    What this machine cannot execute is left to others, and the command ends with 1. A program that fails has a result
    like any other. With --once and --from it ends with 3 if none of the sites was pulled to its end; what could be executed
    without them was.
    """
    with StopSignals() as signals:
        rounds = _Rounds(place, urls, tls_file, registry_of(models), grace_s, signals, is_last=once)
        while not signals.have_come():
            rounds.next()
            if once or signals.wait(pause_s):
                break
        was_stopped = once and signals.have_come()
    emit(rounds.document(), as_json, _render)
    if was_stopped:
        return EXIT_INTERRUPTED
    if rounds.refused:
        return EXIT_REFUSED
    return EXIT_UNANSWERED if once and rounds.are_alone() else 0


class _Rounds:
    """Pulls and executes, once for each :meth:`next`, and counts what came of it.

    Where the first is not the last, each run is told on stderr, and a round is left out while another process writes.
    """

    def __init__(
        self,
        place: Path,
        urls: tuple[str, ...],
        tls_file: Path | None,
        registry: OperationRegistry,
        grace_s: float,
        signals: StopSignals,
        *,
        is_last: bool,
    ) -> None:
        self.refused = 0
        self._is_last = is_last
        self._place = place
        self._unanswered = dict.fromkeys(urls, "")  # by URL, why
        self._tls_file = tls_file
        self._signals = signals
        self._count = self._executed = self._records = 0
        self._last: deque[dict[str, Any]] = deque(maxlen=RUNS_SHOWN)
        with open_site(place, read_only=True) as site:
            executor = executor_of(site.store)
        seed = read_seed(locate(place, create=False, read_only=True))
        limits = Limits(cancelled=signals.have_come)
        self._worker = Worker(executor, seed, registry, WallClock(), grace_s=grace_s, limits=limits)

    def next(self) -> None:
        """One round."""
        try:
            with open_site(self._place) as site:
                for url in self._unanswered:
                    self._pull(site, url)
                site.check_undivided()
                for work in self._worker.round(site.store):
                    self._note(work)
                site.store.signed_head()  # for a server beside, which cannot sign
        except StoreLocked:
            if self._is_last:
                raise
        self._count += 1

    def are_alone(self) -> bool:
        """Were sites named to pull from, and was none of them pulled to its end the last time?"""
        return bool(self._unanswered) and all(self._unanswered.values())

    def document(self) -> dict[str, Any]:
        """What came of all rounds."""
        return {
            "rounds": self._count,
            "executed": self._executed,
            "refused": self.refused,
            "runs": list(self._last),
            "pulled": self._records,
            "unanswered": {url: reason for url, reason in self._unanswered.items() if reason},
        }

    def _pull(self, site: Site, url: str) -> None:
        if self._signals.have_come():
            return
        tls = tls_for(site, url, self._tls_file)
        report = pull(site.store, url, quotas=site.peers().quotas, tls=tls)
        site.settle()
        self._records += report.records
        self._unanswered[url] = report.incomplete

    def _note(self, work: Work) -> None:
        document: dict[str, Any] = {"request_ref": work.ready.request.hex(), "computation_key": work.ready.key}
        if work.run is None:
            self.refused += 1
            document["error"] = _error(work.refusal)
        else:
            self._executed += not work.run.reused
            document |= {
                "status": int(work.run.status),
                "output_refs": [ref.hex() for ref in work.run.outputs],
                "result_ref": work.run.result.hex(),
                "receipt_ref": work.run.receipt.hex(),
            }
        self._last.append(document)
        if not self._is_last:
            click.echo(_line(document), err=True)


def _error(refusal: OperatorError | None) -> dict[str, str]:
    return {} if refusal is None else {"value": refusal.value, "rule": refusal.rule, "action": refusal.action}


def _render(document: Mapping[str, Any]) -> str:
    refused = f", {document['refused']:,} cannot be executed here" if document["refused"] else ""
    lines = [f"{document['executed']:,} executed{refused}"]
    lines += [f"{url}: {reason}" for url, reason in document["unanswered"].items()]
    return "\n".join(lines)


def _line(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    if error is not None:
        return f"{document['request_ref']}: {error['value']}: {error['rule']}; {error['action']}"
    return f"{document['request_ref']}: status {document['status']} {' '.join(document['output_refs'])}".rstrip()
