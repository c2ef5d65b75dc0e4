"""Outputs to Redis."""

from __future__ import annotations

from typing import Any

from tidewarp.compat.dynamic_des.connectors.egress.network import NetworkEgress
from tidewarp.compat.dynamic_des.connectors.keywords import redis_url
from tidewarp.connect.contract import Sink
from tidewarp.connect.sinks import redis_stream

__all__ = ["RedisEgress"]


class RedisEgress(NetworkEgress):
    """Entries of a stream, the record as JSON in the field ``payload``; keywords are those of redis-py's ``from_url``."""

    def __init__(self, url: str, stream_name: str = "simulation_data", **kwargs: Any) -> None:
        self.url, self.stream_name, self.kwargs = url, stream_name, kwargs
        self._url = redis_url("RedisEgress", url, kwargs)

    def sink(self, name: str) -> Sink:
        """A Redis sink."""
        return redis_stream(self._url, self.stream_name, name=name)
