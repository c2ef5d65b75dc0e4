"""Where outputs go. Each factory returns a :class:`~tidewarp.connect.contract.Sink` that is opened only when live.

jsonl("events.jsonl")      one JSON object a line, each output once, also after a crash
console()                  one line each on standard output, at least once
"""

from __future__ import annotations

from tidewarp.connect.backends.console import ConsoleSink as console
from tidewarp.connect.backends.jsonl import JsonlSink as jsonl

__all__ = ["console", "jsonl"]
