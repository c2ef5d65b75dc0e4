"""Accumulators as messages: when their values are sent, and to whom."""

from __future__ import annotations

from collections.abc import Sequence

from tidewarp.kernel.lp import handlers_of
from tidewarp.kernel.model import Model, Published
from tidewarp.kernel.records import Event
from tidewarp.units import TICK_MAX

__all__ = ["PUBLISHER", "Publications"]

PUBLISHER = -1
"""The source number of published accumulators: above every input's."""


class Publications:
    """What a model publishes, and the LPs that handle it."""

    def __init__(self, model: Model) -> None:
        self._every = [accumulator.publish_every for accumulator in model.accumulators]
        self._subscribers = [
            lp
            for group in model.groups
            if Published in handlers_of(group.cls)
            for lp in range(group.first, group.first + group.count)
        ]

    def after(self, tick: int) -> int:
        """The first tick above ``tick`` at which anything is sent; TICK_MAX: never."""
        nexts = [tick // every * every + every for every in self._every if every is not None]
        return min(nexts, default=TICK_MAX) if self._subscribers else TICK_MAX

    def at(self, tick: int, values: Sequence[int]) -> list[Event]:
        """The events of ``tick``, with these values of the accumulators."""
        return [
            (tick, 0, lp, PUBLISHER, index, Published(index, values[index]))
            for index, every in enumerate(self._every)
            if every is not None and tick % every == 0
            for lp in self._subscribers
        ]
