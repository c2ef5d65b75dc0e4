"""`tidewarp run --lag-limit`: a run that is too late stops in order, and says so."""

from __future__ import annotations

from plant import write

SLOW = """
import time

def build(twin):
    def tick():
        while True:
            yield twin.env.timeout(0.1)
            if twin.live and twin.now > 0.25:
                time.sleep(0.3)

    twin.process(tick())
"""


def test_a_run_that_is_too_late_stops_in_order_and_exits_with_1(place, run):
    """The journal is whole: a replay is equal, and --resume goes on."""
    write(SLOW)
    options = ["run", "model.py", "--journal", "a.tw", "--factor", "1", "--until", "5", "--json"]
    late = run(*options, "--lag-limit", "0.1")
    assert (late.code, late.document["reason"]) == (1, "lag")
    assert late.document["lag_s_max"] > 0.1
    assert late.document["virtual_time_s"] < 5
    assert run("replay", "a.tw", "--json").document["equal"]
    refused = run(*options, "--resume", "--lag-limit", "-1")
    assert (refused.code, "late by 0 s or more" in refused.err + refused.out) == (2, True)
