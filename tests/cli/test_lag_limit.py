"""`tidewarp run --lag-limit`: a run that is too late stops in order, and says so."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from plant import write

from tidewarp.testing import ManualClock
from tidewarp.twin import opening

SLOW = """
import wall

def build(twin):
    def tick():
        while True:
            yield twin.env.timeout(0.1)
            if twin.live and twin.now > 0.25:
                wall.advance(0.3)

    twin.process(tick())
"""


def test_a_run_that_is_too_late_stops_in_order_and_exits_with_1(place, run, monkeypatch):
    """The journal is whole: a replay is equal. The model takes its time by a simulated wall clock."""
    clock = ManualClock()
    monkeypatch.setattr(opening, "WallClock", lambda: clock)
    monkeypatch.setitem(sys.modules, "wall", SimpleNamespace(advance=clock.advance))
    write(SLOW)
    options = ["run", "model.py", "--journal", "a.tw", "--factor", "1", "--until", "5", "--json"]
    late = run(*options, "--lag-limit", "0.1")
    assert (late.code, late.document["reason"]) == (1, "lag")
    assert late.document["lag_s_max"] > 0.1
    assert late.document["virtual_time_s"] < 5
    assert run("replay", "a.tw", "--json").document["equal"]
    refused = run(*options, "--resume", "--lag-limit", "-1")
    assert (refused.code, "late by 0 s or more" in refused.err + refused.out) == (2, True)
