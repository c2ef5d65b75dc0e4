"""Snapshots as people name them: by the name under which one was kept, or the beginning of its id."""

from __future__ import annotations

import click

from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import OperatorError
from tidewarp.store import Store, find_snapshot

__all__ = ["at_option", "kept_snapshots", "snapshot_at"]

_DIGITS_MIN, _ID_DIGITS = 12, 64
_DIGITS = "0123456789abcdef"

at_option = click.option(
    "--at", "at", metavar="SNAPSHOT", help="As it was at a snapshot: its name, or 12 digits of its id or more."
)


def kept_snapshots(store: Store) -> dict[str, Snapshot]:
    """The snapshots that are kept, by name in byte order."""
    return {name: what for name, what in store.pins().items() if isinstance(what, Snapshot)}


def snapshot_at(store: Store, text: str | None) -> Snapshot | None:
    """The snapshot that ``text`` names; None where it is None, which means now.

    Raises:
        NotFound: none that is kept, nor that of now, has such a name or id, and no record has such a name.
        OperatorError: several have.
    """
    if text is None:
        return None
    kept = kept_snapshots(store)
    if text in kept:
        return kept[text]
    known = {one.id(): one for one in (*kept.values(), store.snapshot())}
    is_id = len(text) >= _DIGITS_MIN and all(one in _DIGITS for one in text)
    found = [one for name, one in sorted(known.items()) if is_id and name.hex().startswith(text)]
    if len(found) > 1:
        raise OperatorError(f"snapshot {text}", f"{len(found)} begin so", "give more digits")
    if found:
        return found[0]
    return find_snapshot(store, bytes.fromhex(text) if is_id and len(text) == _ID_DIGITS else text)  # a record names it
