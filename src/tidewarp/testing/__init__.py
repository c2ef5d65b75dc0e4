"""Tools for tests of tidewarp models and connectors. Public; imported by no other part of the package."""

from __future__ import annotations

from tidewarp.testing.clock import ManualClock

__all__ = ["ManualClock"]
