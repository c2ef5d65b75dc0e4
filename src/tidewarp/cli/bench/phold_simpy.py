"""PHOLD on SimPy, in the form that is fastest there: a timeout with a callback for each hop, no generators.

Random numbers are drawn by numpy in blocks, which costs less than any generator called once per draw. Every hop does what a
hop of the model does: the hash, the grain, the choice of a destination. Delays are floats in seconds, as SimPy's users write them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import simpy

from tidewarp.clocks import WallClock
from tidewarp.kernel import mix64
from tidewarp.units import in_seconds

__all__ = ["Reference"]

BLOCK = 4096  # numbers drawn at once


class Reference:
    """One run: ``seconds_per_event`` runs it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._end_s = in_seconds(values["end"])
        self._lookahead_s = in_seconds(values["lookahead"])
        self._remote: float = values["remote"]
        self._grain: int = values["grain"]
        self._generator = np.random.default_rng(values["seed"])
        self._delays = self._drawn(in_seconds(values["mean"]))
        self._uniforms = self._drawn(None)
        self._env = simpy.Environment()
        self._hashes = [0] * values["lps"]
        self.hops = 0
        for lp in range(values["lps"]):
            for token in range(values["events_per_lp"]):
                self._send(lp, token)

    def _drawn(self, mean: float | None) -> Iterator[float]:
        while True:
            block = self._generator.random(BLOCK) if mean is None else self._generator.exponential(mean, BLOCK)
            numbers: list[float] = block.tolist()
            yield from numbers

    def _send(self, lp: int, token: int) -> None:
        timeout = self._env.timeout(self._lookahead_s + next(self._delays), (lp, token))
        timeout.callbacks.append(self._receive)

    def _receive(self, event: simpy.Event) -> None:
        hop: Any = event.value
        lp, token = hop
        self.hops += 1
        mixed = mix64(self._hashes[lp] ^ token ^ int(self._env.now))
        for _ in range(self._grain):
            mixed = mix64(mixed)
        self._hashes[lp] = mixed
        chance = next(self._uniforms)
        if chance < self._remote:
            lp = int(chance / self._remote * len(self._hashes))
        self._send(lp, mixed)

    def seconds_per_event(self) -> float:
        """Run to the end; wall seconds for one hop (0 without hops)."""
        gc.collect()
        clock = WallClock()
        started_s = clock.now()
        self._env.run(self._end_s)
        return (clock.now() - started_s) / max(self.hops, 1)
