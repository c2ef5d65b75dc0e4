"""How many requests a peer may send: a token bucket for each. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections import OrderedDict

__all__ = ["RequestRates"]

_PEERS_MAX = 4_096  # the one that was silent longest is forgotten: its bucket is as good as full


class RequestRates:
    """``per_second`` requests of one peer, and as many at once. Not safe from several threads."""

    def __init__(self, per_second: int = 200) -> None:
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # peer -> tokens, time

    def wait_s(self, peer: str, now_s: float) -> int:
        """Take one request of ``peer`` at host time ``now_s``: 0, or in how many whole seconds to try again."""
        tokens, before_s = self._buckets.pop(peer, (float(self._per_second), now_s))
        tokens = min(self._per_second, tokens + max(0.0, now_s - before_s) * self._per_second)
        allowed = tokens >= 1
        self._buckets[peer] = (tokens - allowed, now_s)
        if len(self._buckets) > _PEERS_MAX:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) / self._per_second))
