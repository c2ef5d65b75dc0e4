"""What orders events, and what ties virtual time to the wall.

* :mod:`~tidewarp.clocks.key`: the total order of events.
* :mod:`~tidewarp.clocks.pacing`: virtual time against wall time, with every time an argument.
* :mod:`~tidewarp.clocks.wall`: the only reader of host time in the package. For hosts: the pure ring takes a
  ``Clock``, or better the time itself, as an argument.
"""

from __future__ import annotations

from tidewarp.clocks.key import EventKey, input_key
from tidewarp.clocks.pacing import Clock, Pacer
from tidewarp.clocks.wall import WallClock

__all__ = ["Clock", "EventKey", "Pacer", "WallClock", "input_key"]
