"""Receipts by computation key: claims of what the outputs are, and whether they agree.

A receipt is a claim. A list of outputs is *evident* once a receipt claims it and domains that count have added the
receipt and each output, hidden since or not: so the evident lists of a key only become more, and nobody makes a
contradiction go away by hiding his part of it. Auditors do, by verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from tidewarp.codec.frames import count
from tidewarp.store.fold.visibility import Visibility

__all__ = ["Agreement", "Outcome", "Outputs", "Receipts"]

Outputs = tuple[bytes, ...]
"""A list of outputs, as encoded references."""


class Agreement(IntEnum):
    """How far the receipts of a key agree."""

    CLAIMED = 0
    """No list of outputs that is evident is also visible, with a visible receipt."""
    ACCEPTED = 1
    """One list is evident, and visible."""
    DIVERGENT = 2
    """More than one list is evident."""
    RESOLVED = 3
    """The last verdicts of all auditors who gave one are the same."""


class Outcome(NamedTuple):
    """What a key comes to: the lists claimed, the one accepted, those that contradict each other, or the verdict."""

    agreement: Agreement
    lists: tuple[Outputs, ...]


class Receipts:
    """Receipts and verdicts go in, those of one domain in order of their seq."""

    def __init__(self) -> None:
        self._claims: dict[bytes, dict[Outputs, dict[tuple[bytes, bytes], int]]] = {}
        self._verdicts: dict[bytes, dict[bytes, Outputs]] = {}  # key: the last one of each auditor

    def claim(self, key: bytes, outputs: Outputs, receipt: bytes, domain: bytes, seq: int) -> None:
        """A domain's record ``seq`` has a receipt (an encoded reference) of this key that claims the outputs."""
        self._claims.setdefault(key, {}).setdefault(outputs, {})[receipt, domain] = seq

    def judge(self, key: bytes, outputs: Outputs, domain: bytes) -> None:
        """An auditor says what the outputs are."""
        self._verdicts.setdefault(key, {})[domain] = outputs

    @property
    def keys(self) -> Iterator[bytes]:
        """The keys with a receipt."""
        return iter(self._claims)

    def claims(self, key: bytes) -> list[tuple[int, bytes, bytes, Outputs]]:
        """Seq, domain, receipt and outputs of each claim, in merge order."""
        claims = self._claims.get(key, {})
        return sorted((seq, *by[::-1], outputs) for outputs, of in claims.items() for by, seq in of.items())

    def outcome(self, key: bytes, visibility: Visibility) -> Outcome | None:
        """What the key comes to; None without a receipt."""
        claims = self._claims.get(key)
        if claims is None:
            return None
        verdicts = set(self._verdicts.get(key, {}).values())
        if len(verdicts) == 1:
            return Outcome(Agreement.RESOLVED, tuple(verdicts))
        evident = [outputs for outputs in claims if all(map(visibility.was_added, outputs))]
        if len(evident) > 1:
            return Outcome(Agreement.DIVERGENT, tuple(sorted(evident, key=outputs_hash)))
        for outputs in evident:
            shown = any(receipt in visibility.visible for receipt, _ in claims[outputs])
            if shown and visibility.visible.issuperset(outputs):
                return Outcome(Agreement.ACCEPTED, (outputs,))
        return Outcome(Agreement.CLAIMED, tuple(sorted(claims, key=outputs_hash)))


def outputs_hash(outputs: Outputs) -> bytes:
    """The name (32 bytes) of a list of outputs: SHA-256 of ``n U32 ER*``."""
    return hashlib.sha256(count(len(outputs)) + b"".join(outputs)).digest()
