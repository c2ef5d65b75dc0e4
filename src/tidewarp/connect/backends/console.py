"""Outputs as lines of text on a stream."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import msgspec

from tidewarp.connect.contract import Observation, Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import event_payload, observation_payload
from tidewarp.errors import OperatorError

__all__ = ["ConsoleSink"]


class ConsoleSink(Sink):
    """``[EVT] timestamp key value``, of telemetry ``[TEL] timestamp path value``, on ``stream`` (default: standard
    output). A crash may repeat lines. Retractions (``release="early"``) are ``[RET]``; one of all that follows has the key ``*``.
    """

    kind = "console"
    delivery = "at_least_once"

    def __init__(self, *, stream: TextIO | None = None, name: str = "console") -> None:
        self.name = name
        self._stream = stream if stream is not None else sys.stdout
        self._run = RunIdentity("", 0)

    async def open(self, run: RunIdentity) -> str | None:
        """None: a terminal does not tell what it has shown."""
        self._run = run
        return None

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Print and flush. Raises OperatorError when nobody reads the stream any more."""
        try:
            for output in batch:
                tag = "RET" if output.retracts else "TEL" if output.stream == "telemetry" else "EVT"
                self._print(tag, output.key or "*", event_payload(output, self._run))
            self._stream.flush()
        except BrokenPipeError:
            rule = "its reader has gone, and will not come back"
            raise OperatorError(
                f"sink {self.name!r}: the stream", rule, "send it where it is read, then --resume"
            ) from None
        return []

    async def observe(self, rows: Sequence[Observation]) -> None:
        """Print each as a line ``[OBS] timestamp path value``."""
        for row in rows:
            self._print("OBS", row.path, observation_payload(row, self._run))
        self._stream.flush()

    def _print(self, tag: str, key: str, payload: Mapping[str, Any]) -> None:
        value = msgspec.json.encode(payload.get("value")).decode()
        self._stream.write(self._writable(f"[{tag}] {payload.get('timestamp', '-')} {key} {value}\n"))

    def _writable(self, line: str) -> str:
        """A terminal that has no such character gets its number: an output must not end the run."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return line if line.isascii() else line.encode(encoding, "backslashreplace").decode(encoding)
