"""``tidewarp store put --stamp`` and what ``store log`` shows of it."""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path

from tidewarp.store import Entry, open_store
from tidewarp.store.stamps import stamp_ns
from tidewarp.testing import ManualClock
from tidewarp.units import parse_instant

WRITTEN = re.compile(r" written (\S+)$", re.MULTILINE)


def test_a_put_may_say_when_it_was_written(run):
    """One that asks for it does, in UTC; others have no stamp, and nothing else differs."""
    run("store", "init", "A", "--json").done()
    for text, options in (("one", ["--stamp"]), ("two", []), ("one", ["--stamp"]), ("three", ["--stamp"])):
        Path("text").write_text(text)
        run("store", "put", "A", "text", "--json", *options).done()
    rows = run("store", "log", "A", "--json").done()["records"]
    assert [row["hlc"] > 0 for row in rows] == [True, False, True], "what is shown already is not written again"
    assert rows[0]["hlc"] < rows[2]["hlc"]
    shown = run("store", "log", "A").out
    assert [parse_instant(text, UTC) for text in WRITTEN.findall(shown)] == [
        stamp_ns(rows[0]["hlc"]),
        stamp_ns(rows[2]["hlc"]),
    ]
    run("store", "verify", "A", "--json").done()


def test_a_stamp_of_any_year_is_shown(run):
    """Whatever clock its writer had."""
    with open_store("A.tw", create=True, clock=ManualClock(unix_ns=1 << 90)) as store:
        store.journal.append([Entry(0x80, b"")])
    (row,) = run("store", "log", "A.tw", "--json").done()["records"]
    assert row["hlc"] == (1 << 63) - 1
    assert f"written at stamp {row['hlc']}" in run("store", "log", "A.tw").out
