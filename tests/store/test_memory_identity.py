"""Journals in memory are runs of their own."""

from __future__ import annotations

from tidewarp.store import open_store


def test_two_stores_in_memory_are_two_domains() -> None:
    """A sink knows a run by its domain: a second run in memory must not look like the first, held already."""
    one, other = open_store(":memory:"), open_store(":memory:")
    assert one.journal.domain != other.journal.domain
