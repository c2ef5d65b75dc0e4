"""Bytes of artifacts that did not travel with their records: of a batch, before its commit; of earlier pulls, at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from tidewarp.codec.bodies import ArtifactBody
from tidewarp.codec.frames import Reader
from tidewarp.codec.references import Reference, read_references
from tidewarp.errors import Erased, NotFound, Withheld
from tidewarp.federation.contract import Holdings
from tidewarp.federation.messages import Absent, Fetched, GetArtifact, GetMissing, Supply
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.steps import Interrupted, Steps, Unanswered, body_of, conflicting, decoded
from tidewarp.federation.verify import Refusal, Wanted

__all__ = ["LACKING_MAX", "Brought", "fetch", "last_that_fits", "missed", "missing", "supply"]

LACKING_MAX = 10_000
"""Artifacts whose bytes have not come, and that one pull asks for again."""

_FETCHED_BYTES_MAX = 256 << 20  # of artifacts that wait for one commit, unless it is one artifact
_ABSENT = frozenset({403, 404, 410, 413})  # answers that say why bytes are not to be had; others may be better tomorrow
_REFUSED = _ABSENT - {413}  # who answers these does not have them to give


class Brought(NamedTuple):
    """Artifacts that came, and those that did not with the status that says why."""

    sources: dict[Reference, BinaryIO]
    absent: tuple[tuple[Reference, int], ...]


def missing(context: Context, wanted: Iterable[Wanted]) -> list[Wanted]:
    """Of the artifacts that records name those that are not held, each once, where it is named first."""
    once: dict[Reference, Wanted] = {}
    for one in wanted:
        once.setdefault(one.reference, one)
    held = context.holdings.has([*once])
    return [one for one, is_held in zip(once.values(), held, strict=True) if not is_held]


def last_that_fits(context: Context, wanted: Iterable[Wanted], after: int) -> int | None:
    """The last of the records behind ``after`` that is taken, so that one commit has no more bytes than it may.

    None: all of them are. The first is in any case.
    """
    total = 0
    for one in missing(context, wanted):
        total += one.size if one.size <= context.artifact_bytes_max else 0
        if total > _FETCHED_BYTES_MAX and one.seq - 1 > after:
            return one.seq - 1
    return None


def fetch(context: Context, domain: bytes, wanted: Iterable[Wanted]) -> Steps[Brought]:
    """Ask for what is not held of these. Raises Refusal; Interrupted where the peer fails for now."""
    sources: dict[Reference, BinaryIO] = {}
    absent: list[tuple[Reference, int]] = []
    for one in missing(context, wanted):
        outcome: Fetched | Absent = Absent(413)
        if one.size <= context.artifact_bytes_max:
            outcome = yield GetArtifact(domain, one)
        if isinstance(outcome, Fetched):
            sources[one.reference] = outcome.source
        elif outcome.status in _ABSENT:
            absent.append((one.reference, outcome.status))
            if outcome.status in _REFUSED:
                context.not_given.add(one.reference)
        else:
            raise Interrupted(_not_given(one.reference, outcome.status))
    return Brought(sources, tuple(absent))


def supply(context: Context, lacking: Mapping[Reference, bytes]) -> Steps[None]:
    """Ask for the bytes that earlier pulls have not got: by artifact, the domain (32 bytes) whose record names it."""
    wanted = _still_wanted(context, lacking)
    if not wanted:
        return
    try:
        not_there = decoded(_references, body_of((yield GetMissing(tuple(wanted)))), b"")
    except Refusal as refusal:
        yield conflicting(b"", refusal)
        return
    except Unanswered:
        return  # they stay on record, and are asked for again
    context.not_given.update(not_there & wanted.keys())
    for reference, one in wanted.items():
        if reference in not_there:
            continue
        domain = lacking[reference]
        try:
            outcome = yield GetArtifact(domain, one)
        except Refusal as refusal:
            yield conflicting(domain, refusal)
            continue
        if isinstance(outcome, Fetched):
            yield Supply(domain, reference, outcome.source, outcome.size)
        elif outcome.status in _REFUSED:
            context.not_given.add(reference)
        elif outcome.status not in _ABSENT:
            raise Interrupted(_not_given(reference, outcome.status))


def missed(holdings: Holdings, references: Sequence[Reference]) -> set[Reference]:
    """Of artifacts that records name those whose bytes are not here, and neither erased nor hidden by all that add them."""
    lacking = [one for one, is_held in zip(references, holdings.has(references), strict=True) if not is_held]
    return {one for one in lacking if _is_missed(holdings, one)}


def _is_missed(holdings: Holdings, reference: Reference) -> bool:
    try:
        info = holdings.info(reference)
    except Withheld:
        return True  # no record says its size
    except (NotFound, Erased):
        return False
    return info.state != "erased" and info.shown


def _still_wanted(context: Context, lacking: Mapping[Reference, bytes]) -> dict[Reference, Wanted]:
    """Of the bytes that are lacking, those that a peer may give: not erased, and no more than are taken."""
    named = [one for one, domain in lacking.items() if context.domains is None or domain in context.domains]
    wanted: dict[Reference, Wanted] = {}
    for reference, is_held in zip(named, context.holdings.has(named), strict=True):
        if is_held:
            continue
        stated: ArtifactBody | None = None
        try:
            info = context.holdings.info(reference)
        except Withheld:
            pass  # no record says its size
        except (NotFound, Erased):
            context.not_given.add(reference)  # by anybody
            continue
        else:
            if info.state == "erased":
                context.not_given.add(reference)
                continue
            stated = ArtifactBody(reference, info.tag, info.size)
        one = Wanted(0, reference, stated)
        if one.size <= context.artifact_bytes_max and len(wanted) < LACKING_MAX:
            wanted[reference] = one
    return wanted


def _references(data: bytes) -> frozenset[Reference]:
    reader = Reader(data, "references")
    found = frozenset(read_references(reader))
    reader.end()
    return found


def _not_given(reference: Reference, status: int) -> str:
    return (
        f"artifact {reference.hex()}: the peer answered {status}, so its record was not taken yet; "
        "if it stays so, pull from another site, and ask this one's operator for: tidewarp store fsck DIR"
    )
