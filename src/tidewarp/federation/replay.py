"""Federated replay: the view that a collection of records comes to at a snapshot, whatever order they lie in.

The name is that of the amduat documents. They sort the records of all logs by (sequence number, id), apply a tombstone
where it comes, and keep a cursor; two records of two logs are enough for two sites to disagree for ever. Here each
record is checked, the contiguous prefix of each domain counts, and the view is a function of the prefixes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tidewarp.codec import RecordHeader, genesis, record_hash
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, SnapshotIncomplete
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.fold import Fold, View, fork_id

__all__ = ["FederationReplay", "ForkEvidence", "Held", "SnapshotRange", "fork_evidence"]

Held = tuple[RecordHeader, bytes | None]
"""A record, as a Record is; its body may be None, where it is withheld, erased or not here."""

_Gap = tuple[bytes, int, int]


class SnapshotRange(NamedTuple):
    """Every domain up to one sequence number. It means something for one domain only; sites compare by Snapshots."""

    logseq_max: int


class ForkEvidence(NamedTuple):
    """Headers that one domain wrote for one place, behind the same predecessor, ascending by record hash.

    Whether the domain has signed them is the business of the proofs that go with it.
    """

    headers: tuple[RecordHeader, ...]

    @property
    def domain(self) -> bytes:
        """Who forked, 32 bytes."""
        return self.headers[0].domain

    @property
    def seq(self) -> int:
        """The first place that differs."""
        return self.headers[0].seq

    @property
    def conflict(self) -> bytes:
        """The name of the conflict, 32 bytes: equal wherever this fork is found."""
        return fork_id(self.domain, self.seq)


def FederationReplay(  # noqa: N802 - the published name
    log: Iterable[Held], target: Snapshot | SnapshotRange, *, admission: Admission = OPEN, internal: bool = False
) -> View:
    """The view at ``target`` of the records in ``log``: the same for every order of them, and with repetitions.

    Args:
        log: records of any domains. Those of domains that do not count are left out.
        target: where each domain is cut. Records beyond it are checked, and mean nothing.
        admission: whose records count, and for what.
        internal: fold also what is not published.

    Raises:
        CodecError: a record that is not what its header says, or a first record of another domain.
        SnapshotIncomplete: records, or bodies, are missing below the target.
        OperatorError: the snapshot was made under another policy.
    """
    domains = _by_domain(log, admission)
    fold = Fold(admission, internal=internal)
    gaps: list[_Gap] = []
    if isinstance(target, Snapshot):
        for domain, records in domains.items():
            _feed(fold, domain, records)
        for domain, seq, _ in target.vector:
            gaps += _gaps(domain, domains.get(domain, []), seq)
    else:
        for domain, records in domains.items():
            cut = [record for record in records if record.header.seq <= target.logseq_max]
            lacking = _feed(fold, domain, cut)
            gaps += [*_gaps(domain, cut, cut[-1].header.seq if cut else 0)] or lacking
        gaps += [(domain, seq, seq) for domain, seq in fold.missing_bodies()]
    if gaps:
        domain, first, last = gaps[0]
        raise SnapshotIncomplete(
            f"replay up to {_name(target)}",
            f"of {len(gaps)} gaps the first is records {first} to {last} of {domain.hex()[:16]}",
            "add these records, or choose an earlier target",
            gaps,
        )
    return fold.cut(target) if isinstance(target, Snapshot) else fold


def fork_evidence(log: Iterable[Held]) -> list[ForkEvidence]:
    """A proof for each place where a domain of ``log`` parts; ascending by domain, place and predecessor.

    Records further on, whose predecessors differ, say no more and are left out.

    Raises:
        CodecError: as :func:`FederationReplay`.
    """
    found = []
    for _, records in sorted(_by_domain(log, None).items()):
        rivals: dict[tuple[int, bytes], list[RecordHeader]] = {}
        for header, _, _ in records:
            rivals.setdefault((header.seq, header.prev), []).append(header)
        found += [ForkEvidence(tuple(headers)) for _, headers in sorted(rivals.items()) if len(headers) > 1]
    return found


class _Checked(NamedTuple):
    header: RecordHeader
    hash: bytes
    body: bytes | None


def _by_domain(log: Iterable[Held], admission: Admission | None) -> dict[bytes, list[_Checked]]:
    """The records of each domain that counts, each once, ascending by seq and hash."""
    domains: dict[bytes, dict[bytes, _Checked]] = {}
    for header, body in log:
        checked = _check(header, body)
        if admission is None or admission.standing(header.domain) is not None:
            records = domains.setdefault(header.domain, {})
            if checked.hash not in records or body is not None:  # a stub is as good as nothing beside the whole
                records[checked.hash] = checked
    return {
        domain: sorted(records.values(), key=lambda record: (record.header.seq, record.hash))
        for domain, records in domains.items()
    }


def _check(header: RecordHeader, body: bytes | None) -> _Checked:
    where = f"record {header.seq} of {header.domain.hex()[:16]}"
    if body is not None and (len(body) != header.body_len or hashlib.sha256(body).digest() != header.body_hash):
        raise CodecError(where, "the body is not the one that the header names", "get the record from another site")
    if header.seq == 1 and header.prev != genesis(header.domain):
        raise CodecError(where, "the first record follows the genesis of its domain", "get it from another site")
    return _Checked(header, record_hash(header.to_bytes()), body)


def _feed(fold: Fold, domain: bytes, records: list[_Checked]) -> list[_Gap]:
    """Fold the records that can be followed back to the first; the places of the predecessors that the rest lacks."""
    places = {genesis(domain): 0}
    lacking = set()
    for header, name, body in records:
        if places.get(header.prev) == header.seq - 1:
            fold.add(header, body)
            places[name] = header.seq
        else:
            lacking.add(header.seq - 1)
    return [(domain, seq, seq) for seq in sorted(lacking)[:1]]


def _gaps(domain: bytes, records: list[_Checked], last: int) -> Iterator[_Gap]:
    """The ranges up to ``last`` of which there is no record, on any branch."""
    reached = 0
    for header, _, _ in records:
        if header.seq > last:
            break
        if header.seq > reached + 1:
            yield domain, reached + 1, header.seq - 1
        reached = header.seq
    if reached < last:
        yield domain, reached + 1, last


def _name(target: Snapshot | SnapshotRange) -> str:
    return f"record {target.logseq_max}" if isinstance(target, SnapshotRange) else f"snapshot {target.id().hex()[:16]}"
