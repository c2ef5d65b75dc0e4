"""Stores that earlier releases wrote are opened, verified, replayed and written on, for ever.

``tests/golden/make_stores.py`` says how the archives were made. A journal of format 1 is ``tests/golden/live-0.1.0.tw.gz``.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tidewarp.codec import INPUT
from tidewarp.codec.records import Record
from tidewarp.federation.replay import FederationReplay
from tidewarp.store import Store, check_file, open_store
from tidewarp.store.audit import audit

GOLDEN = Path(__file__).parents[1] / "golden"
ARCHIVES = sorted(GOLDEN.glob("stores-*.tar.gz"))


def held(store: Store) -> dict[str, object]:
    """As ``make_stores.py`` has it; written again, because that file may change with the next release."""
    head = store.signed_head()
    assert head is not None
    return {
        "domain": store.domain.hex(),
        "size": store.journal.size,
        "head": store.journal.head.hex(),
        "visible": [ref.hex() for ref in store.view(scope="all").visible()],
        "state_hash": store.state_hash().hex(),
        "state_hash_all": store.state_hash("all").hex(),
        "snapshot": store.snapshot().id().hex(),
        "note": head.note(),
    }


@pytest.fixture(params=ARCHIVES, ids=[one.name for one in ARCHIVES])
def unpacked(request, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(request.param.read_bytes()), mode="r:gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_there_is_one_of_each_format():
    """Format 1 is a journal alone."""
    assert [one.name for one in ARCHIVES] == ["stores-2.tar.gz"]


@pytest.mark.parametrize("name", ["A", "A.tw"])
def test_an_old_store_is_what_it_was(unpacked, name):
    """Opened, verified and replayed; then written on, and still whole."""
    place = unpacked / name
    told = json.loads((unpacked / "held.json").read_text())[name]
    assert (place / "store.db").exists() is (name == "A"), "one is a directory, one a file"
    check_file(place)
    with open_store(place, read_only=True) as store:
        assert held(store) == told
        assert audit(store).findings == ()
        assert store.fsck().problems == ()
        assert [one.header.kind for one in store.journal.read_time(5, 5)] == [INPUT] * 4
        records = [Record(header, body) for one in store.domains() for header, _, body in store.records(one.id)]
        assert FederationReplay(records, store.snapshot()).state_hash().hex() == told["state_hash"]
        data = [store.get(ref) for ref in store.view(scope="all").visible() if all(store.has([ref]))]
        assert {b"in a row", bytes(range(250)) * 4, b"theirs"} <= {*data}
    with open_store(place) as store:
        assert held(store) == told
        store.journal.append([], cursors={"source": b"21"})
        later = store.put(b"written by a later release")
        assert store.fsck(True).problems == ()
    with open_store(place, read_only=True) as store:
        assert store.get(later) == b"written by a later release"
        assert store.state_hash().hex() != told["state_hash"]
        assert audit(store).findings == ()
