"""Counts as Prometheus reads them: its text format 0.0.4, of which numbers with at most one label are all that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["Counts", "exposition"]

Counts: TypeAlias = Mapping[tuple[str, str], int]
"""By name, as ``peer_requests_total``, and label, as ``status="200"`` or nothing. No part of it comes from a peer."""

_PREFIX = "tidewarp_"


def exposition(counters: Counts, gauges: Counts) -> bytes:
    """The text. Names and labels ascend."""
    lines: list[str] = []
    for kind, counts in (("counter", counters), ("gauge", gauges)):
        for name in sorted({name for name, _ in counts}):
            lines.append(f"# TYPE {_PREFIX}{name} {kind}")
            for label in sorted(label for one, label in counts if one == name):
                braced = f"{{{label}}}" if label else ""
                lines.append(f"{_PREFIX}{name}{braced} {counts[name, label]}")
    return "".join(f"{line}\n" for line in lines).encode("ascii")
