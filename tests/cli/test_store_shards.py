"""``tidewarp store init --shards`` and ``reshard``: what a user sees of shards, which is their number."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("store", ["A", "A.tw"])
def test_a_store_is_divided_and_nothing_else_is_seen_of_it(store, run):
    run("store", "init", store, "--shards", 7, "--json").done()
    for number in range(5):
        Path("file").write_bytes(b"%d" % number)
        run("store", "put", store, "file", "--json").done()
    assert run("store", "stat", store, "--json").done()["shards"] == 7
    before = [run("store", name, store, "--json").done() for name in ("digest", "log")]
    assert run("store", "reshard", store, 64, "--json").done() == {"shards": 64, "before": 7, "records": 5}
    assert run("store", "stat", store, "--json").done()["shards"] == 64
    assert [run("store", name, store, "--json").done() for name in ("digest", "log")] == before
    assert run("store", "fsck", store, "--json").done()["clean"]
    assert run("store", "reshard", store, 1).out == "5 records in 1 shards (before: 64)\n"
    assert "shards" not in run("store", "stat", store).out


@pytest.mark.parametrize("count", [0, 257, "many"])
def test_a_number_that_no_store_has_is_refused(count, run):
    """Before anything is made, or changed."""
    run("store", "init", "A", "--shards", count).refusal(2)
    assert not Path("A").exists()
    run("store", "init", "A", "--json").done()
    run("store", "reshard", "A", count).refusal(2)
    assert run("store", "stat", "A", "--json").done()["shards"] == 1
