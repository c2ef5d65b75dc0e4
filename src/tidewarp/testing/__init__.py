"""Tools for tests of tidewarp models and connectors. Public; imported by no other part of the package."""

from __future__ import annotations

from tidewarp.testing.clock import ManualClock
from tidewarp.testing.kill import KillTrial

__all__ = ["KillTrial", "ManualClock"]
