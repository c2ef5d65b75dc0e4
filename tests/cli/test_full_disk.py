"""A disk that is full, or fails: what was acknowledged is there, and with room the run goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from pathlib import Path

import pytest
from plant import write

from tidewarp.store import opening

pytestmark = pytest.mark.proof("a full or failing disk loses nothing acknowledged")

FILLS = (16, 15, 14, 13, 12, 10) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else (16, 13, 10)
"""Pages of 4 KiB, of the disk's 16, that are taken: nothing can be made, not all of it, almost all."""

ACKNOWLEDGED = """
import os
import tidewarp as tw
from tidewarp.connect.contract import Raw, Update

class Notes:
    '''Texts of 2 kB, one a second; what it is told to be durable, it writes down on another disk.'''
    name, kind = "notes", "notes"
    def describe(self): return {"kind": self.kind}
    def paths(self): return ["plant.note"]
    def first_event_ns(self): return None
    def decoder(self, epoch_ns): return self
    def decode(self, raw): return Update(raw.offset * 10**9, (("plant.note", f"{raw.offset:08d}" * 250),))
    async def open(self, positions):
        self.at = positions.get(0, 0)
        self.acknowledged = open("acknowledged.txt", "a")
    async def read(self, limit):
        if self.at >= COUNT: return None
        first, self.at = self.at + 1, min(COUNT, self.at + limit)
        return [Raw(0, n, b"") for n in range(first, self.at + 1)]
    async def confirm(self, positions): print(positions[0], file=self.acknowledged, flush=True)
    async def close(self): self.acknowledged.close()

COUNT = 4000

def build(twin):
    twin.variable("plant.note", str)
    twin.connect(Notes())
"""


def acknowledged_is_there(run, journal: str) -> int:
    """The journal is whole and has every input that the source was told to be durable; how many it has."""
    verified = run("verify", journal, "--json").done()
    told = [int(word) for word in Path("acknowledged.txt").read_text().split()]
    rows = run("log", journal, "--kind", "input", "--limit", 100_000, "--json").done()["records"]
    assert [row["offset"] for row in rows] == [*range(1, len(rows) + 1)]
    assert all(row["value"] == f"{row['offset']:08d}" * 250 for row in rows)
    assert len(rows) == verified["inputs"] >= max(told) > 0
    return len(rows)


def goes_on_to_the_end(run, journal: str) -> None:
    """With room the run goes on, and ends like one that was never disturbed."""
    done = run("run", "model.py", "--journal", journal, "--resume", "--json").done()
    undisturbed = run("run", "model.py", "--journal", "undisturbed.tw", "--json").done()
    assert (done["inputs"], done["digest"]) == (4_000, undisturbed["digest"])
    assert run("replay", journal, "--json").done()["equal"] is True


FULL = """
set -e
mount -t tmpfs -o size=2m tmpfs disk
for more in "" --resume; do
    code=0
    "$@" --journal disk/j.tw $more --json || code=$?
    echo "$code" >> codes.txt
done
cp disk/j.tw* copy/
"""


@pytest.mark.parametrize("batch", [10, 300])
def test_a_full_disk(place, run, child, require, batch):
    """2 MiB: exit 1 with the record that found no room, every time it is tried; with room the run goes on."""
    require("userns")
    write(ACKNOWLEDGED)
    Path("disk").mkdir()
    Path("copy").mkdir()
    ended = child(
        sys.executable, "-W", "error", "-m", "tidewarp", "run", "model.py", "--journal-batch", batch,
        command=("unshare", "-Urm", "bash", "-c", FULL, "bash"),
    )  # fmt: skip
    assert ended.code == 0, ended
    assert Path("codes.txt").read_text().split() == ["1", "1"]
    lines = ended.err.splitlines()
    assert len(lines) == len(ended.out.splitlines()) == 2, ended
    for line, document in zip(lines, map(json.loads, ended.out.splitlines()), strict=True):
        assert re.match(r"error: .*/disk/j\.tw: record \d+: .*\(SQLITE_FULL\)", line), line
        assert "make room" in line
        assert document["exit"] == 1
    assert acknowledged_is_there(run, "copy/j.tw") < 4_000
    goes_on_to_the_end(run, "copy/j.tw")


def test_a_disk_too_full_to_begin(place, run, child, require):
    """Not even the tables fit: one line, and after room was made the same command works."""
    require("userns")
    write(ACKNOWLEDGED)
    Path("disk").mkdir()
    script = """
        mount -t tmpfs -o size=64k tmpfs disk && dd if=/dev/zero of=disk/filler bs=4k count=$1 status=none
        shift
        "$@"; echo $? >> codes.txt
        rm disk/filler; mount -o remount,size=64m disk
        "$@"; echo $? >> codes.txt
    """
    words = ("run", "model.py", "--journal", "disk/j.tw", "--until", "5", "--json")
    told = set()
    for fill in FILLS:
        Path("codes.txt").unlink(missing_ok=True)
        ended = child(
            fill, sys.executable, "-W", "error", "-m", "tidewarp", *words,
            command=("unshare", "-Urm", "bash", "-c", script, "bash"),
        )  # fmt: skip
        first, second = Path("codes.txt").read_text().split()
        assert second == "0", (fill, ended)
        assert first == "1", (fill, ended)
        document, _ = map(json.loads, ended.out.splitlines())
        line = ended._replace(code=1, out=json.dumps(document)).refusal(1)
        assert "disk/j.tw" in line
        told.add("make room" if "make room" in line else "SQLITE_IOERR_SHMSIZE" if "SHMSIZE" in line else line)
    assert "make room" in told
    assert told <= {"make room", "SQLITE_IOERR_SHMSIZE"}  # the second: SQLite's own way to say it of one of its files


def test_a_database_that_may_not_grow(place, run, monkeypatch):
    """SQLITE_FULL on any machine, by `max_page_count`."""
    write(ACKNOWLEDGED)

    def limited(path):
        db = connect(path)
        db.execute("PRAGMA max_page_count = 200")
        return db

    connect = opening.connect
    monkeypatch.setattr(opening, "connect", limited)
    for words in ((), ("--resume",)):
        line = run("run", "model.py", "--journal", "j.tw", "--journal-batch", 10, "--json", *words).refusal(1)
        assert re.search(r"j\.tw: record \d+: .*\(SQLITE_FULL\)", line), line
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert acknowledged_is_there(run, "j.tw") < 4_000
    goes_on_to_the_end(run, "j.tw")


@pytest.mark.parametrize("limit", [300_000, 1_000_000])
def test_a_disk_that_fails_to_write(place, run, child, limit):
    """SQLITE_IOERR_WRITE, by RLIMIT_FSIZE: exit 1 at once, since what is on the disk is unknown."""
    write(ACKNOWLEDGED)
    for words in ((), ("--resume",)):
        ended = child(
            "run", "model.py", "--journal", "j.tw", "--journal-batch", 10, "--json", *words,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        line = ended.refusal(1)
        assert "j.tw: " in line
        assert "(SQLITE_IOERR_" in line
        if not words:
            assert re.search(r"record \d+: .*\(SQLITE_IOERR_WRITE\)", line), line
        assert "verify" in line
    assert acknowledged_is_there(run, "j.tw") < 4_000
    goes_on_to_the_end(run, "j.tw")


FILES = """
mount -t tmpfs -o size=64k tmpfs disk
for words in "store get A $1 -o disk/copy" "log tank.tw --out disk/rows.jsonl" "log tank.tw --out disk/rows.csv"; do
    "${@:2}" $words || echo "$?" >> codes.txt
    ls -A disk >> left.txt
done
"""


def test_a_disk_too_full_for_a_file(place, run, child, require):
    """Whoever asked for the file is told its name and why, and nothing half written is left."""
    require("userns")
    write(ACKNOWLEDGED)
    run("run", "model.py", "--journal", "tank.tw", "--json").done()
    run("store", "init", "A", "--json").done()
    Path("large").write_bytes(os.urandom(200_000))
    ref = run("store", "put", "A", "large").out.strip()
    Path("disk").mkdir()
    ended = child(
        ref, sys.executable, "-W", "error", "-m", "tidewarp",
        command=("unshare", "-Urm", "bash", "-c", FILES, "bash"),
    )  # fmt: skip
    assert Path("codes.txt").read_text().split() == ["2"] * 3, ended
    named = [
        re.match(r"error: (disk/\S+): No space left on device; free some space", line)
        for line in ended.err.splitlines()
    ]
    assert [one and one[1] for one in named] == ["disk/copy", "disk/rows.jsonl", "disk/rows.csv"], ended
    assert Path("left.txt").read_text() == ""


TAKEN = """
mount -t tmpfs -o size=1m tmpfs disk
"$@" init disk/S && "$@" put disk/S notes --tag 1
cat /dev/zero > disk/filler 2> /dev/null
for words in "put disk/S notes --tag 2" "stat disk/S"; do "$@" $words || echo "$?" >> codes.txt; done
rm disk/filler
"$@" stat disk/S --json > stat.json
"""


def test_a_disk_too_full_to_open_a_store(place, run, child, require):
    """Not even the memory that readers share has room: that is said, and with room everything is there."""
    require("userns")
    Path("notes").write_text("kept")
    Path("disk").mkdir()
    ended = child(
        sys.executable, "-W", "error", "-m", "tidewarp", "store",
        command=("unshare", "-Urm", "bash", "-c", TAKEN, "bash"),
    )  # fmt: skip
    assert Path("codes.txt").read_text().split() == ["1", "1"], ended
    for line in ended.err.splitlines():
        assert re.match(r"error: .*/disk/S/store\.db: opening it: no room for store\.db-shm.*; make room", line), line
    assert json.loads(Path("stat.json").read_text())["artifacts"] == 1
