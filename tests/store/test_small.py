"""Small artifacts, many at once: what travels with records is hashed as it is read, like anything else that is read."""

from __future__ import annotations

import os
import sqlite3

import pytest

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.references import Reference
from tidewarp.store import MemoryStore, open_store


@pytest.fixture(params=["memory", "sqlite", "blocks"])
def store(request, tmp_path):
    """The last keeps all payloads as blocks."""
    made = {
        "memory": lambda: MemoryStore(seed=os.urandom(32)),
        "sqlite": lambda: open_store(tmp_path / "s.tw", create=True),
        "blocks": lambda: open_store(tmp_path / "s.tw", create=True, inline_max=0),
    }[request.param]()
    yield made
    made.close()


def test_those_that_are_here_and_small(store):
    """More than one statement asks for, with tags, empty, too large by a byte, and never heard of."""
    artifacts = [Artifact(b"%d" % n, n if n % 2 else None) for n in range(600)]
    artifacts += [
        Artifact(b""),
        Artifact(bytes(92)),
        Artifact(bytes(93)),
        Artifact(bytes(88), 1),
        Artifact(bytes(89), 1),
    ]
    refs = store.put_many([(one.payload, one.tag) for one in artifacts])
    unknown = Artifact(b"unknown").reference()
    expected = {ref: one.to_bytes() for ref, one in zip(refs, artifacts, strict=True)}
    del expected[refs[602]], expected[refs[604]]
    assert store.small([*refs, unknown, Reference(2, bytes(32)), refs[0]], 101) == expected
    assert store.small([], 100) == {}
    for places in ([0], [0, 599, 2], [5, 3, 300, 4], [7, 7], [3, 2]):
        asked = [refs[place] for place in places]
        assert store.small(asked, 101) == {ref: expected[ref] for ref in asked}, "in any order, together or apart"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE artifact SET bytes = x'00' WHERE ref = ?",
        "UPDATE artifact SET bytes = x'6c69652121' WHERE ref = ?",
        "UPDATE artifact SET tag = 7 WHERE ref = ?",
        "UPDATE artifact SET size = 4 WHERE ref = ?",
        "UPDATE artifact SET state = 1 WHERE ref = ?",
    ],
)
def test_what_is_damaged_is_left_out(tmp_path, damage):
    """Bytes that do not have their name are never given; the others are."""
    with open_store(tmp_path / "s.tw", create=True) as store:
        bad, good = store.put(b"hello"), store.put(b"world")
    with sqlite3.connect(tmp_path / "s.tw") as db:
        db.execute(damage, (bad.to_bytes(),))
    db.close()
    with open_store(tmp_path / "s.tw") as store:
        assert store.small([bad, good], 100) == {good: Artifact(b"world").to_bytes()}
