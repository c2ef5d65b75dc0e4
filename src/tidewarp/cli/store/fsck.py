"""`tidewarp store fsck`: read everything in a store, and mend what can be mended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.ledger import find_ledger
from tidewarp.cli.store.places import store_argument
from tidewarp.cli.store.sources import PeerSource
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.federation.shell import PeerClient
from tidewarp.federation.shell.site import Site
from tidewarp.store import Store, open_store
from tidewarp.store.damage import ORPHAN, FsckReport, Problem
from tidewarp.store.fold.conflicts import FORK

__all__ = ["command"]

_SHOWN = 20


@click.command()
@store_argument
@click.option("--repair", is_flag=True, help="Make anew what follows from something that is whole.")
@click.option(
    "--from", "urls", metavar="URL", multiple=True, help="With --repair: a peer that is asked for bytes; repeatable."
)
@json_option
def command(place: Path, repair: bool, urls: tuple[str, ...], as_json: bool) -> int:
    """Read everything in the store DIR: pages, records, signed heads, bytes, indices, and what nothing names.

    A repair changes and deletes no record. Bytes that are damaged, or have never come, are asked for at each URL, and
    taken if they have the right name; what nobody has is put into quarantine, where nothing reads it. Ends with 1 if
    damage remains. Blocks and files that nothing names (orphan), such as a crash leaves, are told and are no damage.
    """
    if urls and not repair:
        raise OperatorError(f"--from {urls[0]!r:.80}", "nothing is fetched but to repair", "say --repair too")
    sources: list[PeerSource] = []
    try:
        report = _checked(place, repair, urls, sources)
    except Corrupt as error:
        problem = Problem("store", error.value, error.rule)
        report = FsckReport({}, (problem,), 0.0)
        if repair:  # what is too damaged to be written may still be read
            with suppress(Corrupt):
                report = _checked(place, False, (), [])
                report = report._replace(problems=(problem, *report.problems))
    document = {
        "clean": report.clean,
        "checked": report.checked,
        "problems": [one._asdict() for one in report.problems],
        "unanswered": [source.fault for source in sources if source.fault],
        "seconds": report.seconds,
    }
    emit(document, as_json, _render)
    return 0 if document["clean"] else 1


def _checked(place: Path, repair: bool, urls: tuple[str, ...], sources: list[PeerSource]) -> FsckReport:
    """The report, also of what is noted of peers; ``sources`` is filled with those of the addresses."""
    with open_store(place, read_only=not repair) as store, ExitStack() as clients:
        for url in urls:
            tls = Site(store, place, read_only=False).tls(None, url) if url.startswith("https:") else None
            client = clients.enter_context(PeerClient(url, tls=tls))
            sources.append(PeerSource(client, store.domain))
        report = store.fsck(repair, sources)
        return report._replace(problems=(*report.problems, *_cursors(store, place)))


def _cursors(store: Store, place: Path) -> list[Problem]:
    """The notes of how far a peer was read that go beyond what is here; those of a forked domain may."""
    ledger = find_ledger(store, place)
    if ledger is None:
        return []
    forked = {one.domain for one in ledger.conflicts() if one.kind == FORK}
    return [
        Problem("cursor", f"{peer}, domain {origin.hex()}", f"record {seq} that it names is not here")
        for peer in ledger.last_errors()
        for origin, (seq, hash_) in sorted(ledger.cursors(peer).items())
        if origin not in forked and store.hash_at(origin, seq) != hash_
    ]


def _render(document: Mapping[str, Any]) -> str:
    checked = ", ".join(f"{number:,} {name}" for name, number in document["checked"].items())
    lines = [f"{'clean' if document['clean'] else 'bad'}  {checked or 'it cannot be opened'}"]
    problems = document["problems"]
    lines += [
        f"{_standing(one)}  {one['where'] if one['where'].startswith(one['kind']) else one['kind'] + ': ' + one['where']}: {one['rule']}"
        for one in problems[:_SHOWN]
    ]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN:,} more: --json shows all")
    lines += [f"no answer from {fault}" for fault in document["unanswered"]]
    return "\n".join(lines)


def _standing(problem: Mapping[str, Any]) -> str:
    """What there is to say of a problem before all else."""
    if problem["repaired"]:
        return "mended"
    return "left" if problem["kind"] == ORPHAN else "wrong"
