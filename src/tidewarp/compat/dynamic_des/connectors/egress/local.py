"""Outputs as lines of the log."""

from __future__ import annotations

import asyncio
import logging
import queue
from typing import Any

from tidewarp.compat.dynamic_des.connectors.egress.base import BaseEgress

__all__ = ["ConsoleEgress"]

_log = logging.getLogger(__name__)
_IDLE_S = 0.01


class ConsoleEgress(BaseEgress):
    """``[TEL]`` or ``[EVT]`` and the record without its ``stream_type``, at level INFO."""

    async def run(self, egress_queue: queue.Queue[Any]) -> None:
        """Until cancelled."""
        while True:
            try:
                batch = egress_queue.get_nowait()
            except queue.Empty:
                await asyncio.sleep(_IDLE_S)
                continue
            for record in batch:
                tag = "[TEL]" if record.get("stream_type") == "telemetry" else "[EVT]"
                _log.info("%s %s", tag, {name: value for name, value in record.items() if name != "stream_type"})
