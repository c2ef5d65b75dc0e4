"""From records to what is visible: a pure function of the records that verify and of the admission in force.

    fold         Fold: takes records, in any interleaving of their domains; cuts at snapshots
    view         View: answers, rows and state hash
    branches     the history of one domain: forks, erased and missing bodies
    state        the rule of each kind of record; over
    visibility   ids: adds, lifts, tombstones, curators
    slots        edges that share type and ends
    pointers     names
    receipts     computation keys
    order        the merge order
    conflicts    names of conflicts

Nothing here reads a clock, a file or bytes of an artifact.
"""

from __future__ import annotations

from tidewarp.store.fold.conflicts import Fork, conflict_id, fork_id
from tidewarp.store.fold.fold import Fold
from tidewarp.store.fold.order import merge_order
from tidewarp.store.fold.receipts import Agreement
from tidewarp.store.fold.view import Claim, DomainStatus, Head, KeyState, View

__all__ = [
    "Agreement",
    "Claim",
    "DomainStatus",
    "Fold",
    "Fork",
    "Head",
    "KeyState",
    "View",
    "conflict_id",
    "fork_id",
    "merge_order",
]
