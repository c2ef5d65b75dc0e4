"""The factory line on real telemetry: 79 days of a machine's temperature.

tidewarp run factory.py --journal line.tw        runs it and writes events.jsonl
tidewarp replay line.tw                          runs it again from its journal and compares
"""

import tidewarp as tw
from tidewarp.worlds import factory


def build(twin: tw.Twin) -> None:
    """Wire the line, its telemetry and its events."""
    factory.line(twin, "line")
    twin.connect(
        tw.sources.csv(factory.SAMPLE, time="timestamp", map={"value": "line.furnace.temperature"}, name="telemetry"),
        disorder="1h",  # the machine's clock once jumped back by 55 minutes
    )
    twin.sink(tw.sinks.jsonl("events.jsonl"))
