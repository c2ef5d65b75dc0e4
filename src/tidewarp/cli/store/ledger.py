"""The ledger of a store's exchange with its peers, for commands that read."""

from __future__ import annotations

from pathlib import Path

from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.ledger import EXTENSION, Ledger
from tidewarp.store import Store
from tidewarp.store.described import describe

__all__ = ["find_ledger"]


def find_ledger(store: Store, place: Path) -> Ledger | None:
    """The ledger in ``store``, which lies at ``place``; None if it has never pulled."""
    return ledger_of(store) if EXTENSION in describe(place).extensions else None
