"""`tidewarp store log`: the records of every domain, as they are chained."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.kinds import name_of, parse_kind
from tidewarp.cli.store.places import SIZE_MAX, opened_store, store_argument
from tidewarp.cli.store.snapshots import at_option, snapshot_at
from tidewarp.codec import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.bodies import ArtifactBody, Body, EdgeBody, LiftBody, ReceiptBody, TombstoneBody, decode_body
from tidewarp.errors import CodecError, NotFound, OperatorError
from tidewarp.store import Store
from tidewarp.store.fold.order import Place, rank
from tidewarp.store.stamps import stamp_ns
from tidewarp.units import TICK_MAX, format_instant

__all__ = ["command"]

LIMIT = 1_000
_STATES = ("here", "withheld", "erased")
_SHOWN_DIGITS = 12


@click.command()
@store_argument
@click.option("--domain", "domain_text", metavar="HEX", help="Of this domain only: its digits, or the first of them.")
@click.option(
    "--after", metavar="SEQ", type=click.IntRange(0, SIZE_MAX), default=0, help="Behind this number in each domain."
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, SIZE_MAX), default=LIMIT, show_default=True, help="Records, at most."
)
@click.option(
    "--kind", metavar="KIND", callback=parse_kind, help="Of this kind only: artifact, edge, tombstone, …, or a number."
)
@click.option("--merge", is_flag=True, help="All domains in the one merge order, in place of one after the other.")
@at_option
@json_option
def command(
    place: Path,
    domain_text: str | None,
    after: int,
    limit: int,
    kind: int | None,
    merge: bool,
    at: str | None,
    as_json: bool,
) -> int:
    """Show the records of the store DIR, of every domain, undecoded. (The inputs of a twin: tidewarp log.)

    The merge order is that of listings. It says nothing about what was before what: numbers of two domains have nothing
    to do with each other.

    A record that has no effect under the policy in force says why: its domain lacks the role, or does not count. One that
    its writer has stamped says when it was written, by that writer's clock.
    """
    with opened_store(place, read_only=True) as store:
        snapshot = snapshot_at(store, at)
        ends = None if snapshot is None else {domain: seq for domain, seq, _ in snapshot.vector}
        logs = [
            filter(partial(_is_of, kind), _log(store, domain, after, None if ends is None else ends.get(domain, 0)))
            for domain in _domains(store, domain_text)
        ]
        lines = heapq.merge(*logs, key=lambda line: line.place) if merge else (line for log in logs for line in log)
        shown = [line.row for line in islice(lines, limit)]
        more = next(lines, None) is not None
    emit({"records": shown, "count": len(shown), "more": more}, as_json, _render)
    return 0


class _Line(NamedTuple):
    """A record: its place in the merge order, its kind, and the row that shows it."""

    place: Place
    kind: int
    row: dict[str, Any]


def _is_of(kind: int | None, line: _Line) -> bool:
    return kind is None or line.kind == kind


def _domains(store: Store, text: str | None) -> list[bytes]:
    """The domains to show, ascending."""
    if text == "":
        raise OperatorError("domain ''", "it is 1 to 64 digits of its name", "leave the option out to see all domains")
    found = sorted(one.id for one in store.domains() if one.id.hex().startswith(text or ""))
    if text is None:
        return found
    if not found:
        raise NotFound(f"domain {text[:80]}", "no record of it is here", "tidewarp store digest lists the domains")
    if len(found) > 1:
        raise OperatorError(f"domain {text[:80]!r}", f"{len(found)} domains begin so", "give more digits")
    return found


def _log(store: Store, domain: bytes, after: int, end: int | None) -> Iterator[_Line]:
    """The records behind ``after``, up to ``end``; None: all."""
    admission = store.admission
    for header, state, body in store.records(domain, after, None if end is None else max(0, end - after)):
        said = _decoded(header, body)
        ref = _named(said)
        name = record_hash(header.to_bytes())
        row = {
            "domain": header.domain,
            "seq": header.seq,
            "kind": name_of(header.kind),
            "published": bool(header.flags & PUBLISHED),
            "hlc": header.hlc,
            "prev": header.prev,
            "hash": name,
            "state": _STATES[state],
            "body_size": header.body_len,
            "body_hash": header.body_hash,
            "body": body,
            "ref": ref.hex() or None,
            "no_effect": admission.objection(header.domain, header.seq, said),
        }
        yield _Line((header.seq, rank(header.kind), header.domain, ref, name), header.kind, row)


def _decoded(header: RecordHeader, body: bytes | None) -> Body | None:
    """What a record says to a store; None of any other, and where that cannot be read."""
    try:
        return None if body is None else decode_body(header.kind, body)
    except CodecError:
        return None


def _named(said: Body | None) -> bytes:
    """The reference of what a record adds, lifts or hides; empty of any other."""
    return (
        said.ref.to_bytes()
        if isinstance(said, ArtifactBody | EdgeBody | ReceiptBody | TombstoneBody | LiftBody)
        else b""
    )


def _render(document: Mapping[str, Any]) -> str:
    lines = [_line(row) for row in document["records"]]
    if document["more"]:
        lines.append("… more: --domain and --after, or a larger --limit")
    return "\n".join(lines) if lines else "no such records"


def _line(row: Mapping[str, Any]) -> str:
    domain = row["domain"].hex()[:_SHOWN_DIGITS]
    told = [row["ref"] or f"{row['body_size']} bytes"]
    if not row["published"]:
        told.append("internal")
    if row["state"] != "here":
        told.append(row["state"])
    if row["no_effect"] is not None:
        told.append(f"no effect: {row['no_effect']}")
    if row["hlc"]:
        told.append(_stamped(row["hlc"]))
    return f"{domain} {row['seq']:>8} {row['kind']:<10} {' '.join(told)}"


def _stamped(hlc: int) -> str:
    """When a record says that it was written. Any number may have come from another site."""
    unix_ns = stamp_ns(hlc)
    return f"written {format_instant(unix_ns) if unix_ns <= TICK_MAX else f'at stamp {hlc}'}"
