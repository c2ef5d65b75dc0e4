"""What the commands take as the place of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tidewarp.federation.shell.site import open_site
from tidewarp.store import Store

__all__ = ["SIZE_MAX", "STORE", "opened_store", "store_argument"]

SIZE_MAX = (1 << 63) - 1
"""Bytes of the largest file that there can be, and records of the longest listing."""

STORE = click.Path(path_type=Path, readable=False)
"""The store says itself what is wrong with its path."""

store_argument = click.argument("place", metavar="DIR", type=STORE)


@contextmanager
def opened_store(place: Path, *, read_only: bool = False) -> Iterator[Store]:
    """The store at ``place``, whose views follow the policy in force in it; one that was forked takes nothing any more."""
    with open_site(place, read_only=read_only) as site:
        if not read_only:
            site.check_undivided()
        yield site.store
