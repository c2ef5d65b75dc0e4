"""What the commands take as the place of a store, and of a private key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tidewarp.clocks import Clock
from tidewarp.errors import OperatorError
from tidewarp.federation.shell.site import open_site
from tidewarp.store import Store
from tidewarp.store.files import open_regular

__all__ = ["SIZE_MAX", "STORE", "opened_store", "read_key_file", "store_argument"]

SIZE_MAX = (1 << 63) - 1
"""Bytes of the largest file that there can be, and records of the longest listing."""

STORE = click.Path(path_type=Path, readable=False)
"""The store says itself what is wrong with its path."""

store_argument = click.argument("place", metavar="DIR", type=STORE)


_SEED_BYTES = 32


def read_key_file(file: Path) -> bytes:
    """The Ed25519 seed (32 bytes) that ``file`` is. Raises OSError, and OperatorError: it has another length."""
    with open_regular(file) as stream:
        seed = stream.read(_SEED_BYTES + 1)
    if len(seed) != _SEED_BYTES:
        held = f"more than {_SEED_BYTES}" if len(seed) > _SEED_BYTES else f"{len(seed)}"
        raise OperatorError(str(file), f"a private key has {_SEED_BYTES} bytes, this file has {held}", "give its seed")
    return seed


@contextmanager
def opened_store(place: Path, *, read_only: bool = False, clock: Clock | None = None) -> Iterator[Store]:
    """The store at ``place``, whose views follow the policy in force in it; one that was forked takes nothing any more.

    With a ``clock`` each record that is written has a stamp of it.
    """
    with open_site(place, read_only=read_only, clock=clock) as site:
        if not read_only:
            site.check_undivided()
        yield site.store
