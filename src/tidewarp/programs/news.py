"""What is new in a view since somebody looked last: which runs were asked for, and what the records speak of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from tidewarp.codec import PUBLISHED
from tidewarp.codec.bodies import REQUEST, VERDICT, ReceiptBody, RequestBody, VerdictBody
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError
from tidewarp.store.admission import Role
from tidewarp.store.contract import Store, StoredRecord
from tidewarp.store.fold import View
from tidewarp.store.subjects import told

__all__ = ["News", "NewsReader", "Subject"]

Subject: TypeAlias = Reference | bytes
"""What a record speaks of: an artifact, or a computation key (32 bytes)."""


class News(NamedTuple):
    """The runs that were asked for, and what the records speak of that have come to count since the last time.

    ``anew``: records that counted then do so no more, or the view was made anew. ``requests`` are all that there are
    then, and ``subjects`` are none: nothing that was known before need be so.
    """

    anew: bool
    requests: frozenset[Reference]
    subjects: frozenset[Subject]


class NewsReader:
    """Reads the records of a view of ``store`` as it grows, each once unless the view is made anew."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lineage: object = None
        self._reached: dict[bytes, int] = {}  # by domain, how many records

    def read(self, view: View) -> News:
        """What is new in ``view``, which is the store's of now and folds unpublished records too."""
        heads = view.heads()
        anew = view.lineage is not self._lineage
        if anew:
            self._lineage = view.lineage
            self._reached.clear()
        requests: set[Reference] = set()
        subjects: set[Subject] = set()
        for domain, size, *_ in heads:
            after = self._reached.get(domain, 0)
            if after == size:
                continue
            standing = view.admission.standing(domain)
            for record in self._store.records(domain, after, size - after):
                header, _, body = record
                may_ask = standing is not None and Role.PRODUCE in standing.roles_at(header.seq)
                if header.kind == REQUEST and header.flags & PUBLISHED and body is not None and may_ask:
                    requests.add(RequestBody.from_bytes(body).ref)
                elif not anew:
                    subjects.update(_subjects(record))
            self._reached[domain] = size
        return News(anew, frozenset(requests), frozenset(subjects))


def _subjects(record: StoredRecord) -> Iterator[Subject]:
    """What a record speaks of. A body that is none of its kind says nothing: only an unpublished one may be here."""
    header, _, body = record
    said = told(header, body)
    if said is not None:
        yield said.ref
        if isinstance(said.body, ReceiptBody):
            yield said.body.key
    elif header.kind == VERDICT and body is not None:
        with suppress(CodecError):
            yield VerdictBody.from_bytes(body).key
