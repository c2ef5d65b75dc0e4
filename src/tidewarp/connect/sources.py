"""Where inputs come from. Each factory returns a :class:`~tidewarp.connect.contract.Source` that is opened only when live.

csv(path, time="timestamp", map={"value": "line.temperature"})     rows of a file, by event time
schedule([(0, "line.speed", 1.0), ("8h", "line.speed", 0.5)])      a list, relative to the twin's epoch
"""

from __future__ import annotations

from tidewarp.connect.backends.csv import CsvSource as csv
from tidewarp.connect.backends.schedule import ScheduleSource as schedule

__all__ = ["csv", "schedule"]
