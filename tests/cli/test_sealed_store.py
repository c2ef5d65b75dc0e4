"""A store that was closed, on a medium that is mounted read-only: every command that reads answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SEALED = """
set -e
mount --bind medium medium
mount -o remount,bind,ro medium
"$@"
"""
COMMANDS = """
import sys
from tidewarp.cli import main
for words in ("verify", "stat", "fsck", "digest", "log", "conflicts", "gc --budget-s 1 --dry-run", "fsck --repair"):
    name, *options = words.split()
    print(main(["store", name, sys.argv[1], *options, "--json"]), file=open("codes.txt", "a"))
"""


@pytest.mark.parametrize("name", ["A", "A.tw"])
@pytest.mark.parametrize("is_wal_left", [False, True])
def test_a_store_on_a_medium_mounted_read_only(run, child, require, name, is_wal_left):
    """Also with an empty -wal, as a reader leaves one, that was copied with it. A repair says why it cannot be."""
    require("userns")
    medium = Path("medium")
    medium.mkdir()
    store = medium / name
    run("store", "init", store, "--json").done()
    Path("hello").write_bytes(b"hello")
    run("store", "put", store, "hello", "--json").done()
    database = store / "store.db" if store.is_dir() else store
    for end in ("-wal", "-shm"):
        Path(f"{database}{end}").unlink(missing_ok=True)
    if is_wal_left:
        Path(f"{database}-wal").touch()
    before = sorted(medium.rglob("*"))
    ended = child(
        sys.executable, "-c", COMMANDS, store,
        command=("unshare", "-Urm", "bash", "-c", SEALED, "bash"),
    )  # fmt: skip
    assert ended.code == 0, ended
    verified, counted, checked, *_, refused = map(json.loads, ended.out.splitlines())
    assert (verified["ok"], verified["records"]) == (True, 1)
    assert (counted["artifacts"], counted["bytes"]) == (1, 5)
    assert checked["clean"] is True
    assert len(ended.out.splitlines()) == 8
    assert Path("codes.txt").read_text().split() == [*"00000002"]
    assert refused["exit"] == 2
    assert "read-only" in ended.err.lower()
    assert sorted(medium.rglob("*")) == before
