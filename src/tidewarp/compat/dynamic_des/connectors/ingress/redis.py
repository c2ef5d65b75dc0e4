"""Updates from Redis."""

from __future__ import annotations

from typing import Any, ClassVar

from tidewarp.compat.dynamic_des.connectors.ingress.network import NetworkIngress
from tidewarp.compat.dynamic_des.connectors.keywords import redis_url
from tidewarp.connect.contract import Source
from tidewarp.connect.sources import redis_pubsub

__all__ = ["RedisIngress"]


class RedisIngress(NetworkIngress):
    """Messages ``{"param_path": …, "param_value": …}`` of a channel; keywords are those of redis-py's ``from_url``.

    What is published while nobody listens is lost, as Redis says; the loss is counted as a gap. ``poll_interval`` has no
    effect: messages are taken as they come.
    """

    policy: ClassVar[dict[str, Any]] = {"time": "arrival", "gap": "accept"}

    def __init__(self, url: str, channel_name: str = "params", poll_interval: float = 0.5, **kwargs: Any) -> None:
        self.url, self.channel_name, self.poll_interval, self.kwargs = url, channel_name, poll_interval, kwargs
        self._url = redis_url("RedisIngress", url, kwargs)

    def source(self, name: str, *, keeps: bool) -> Source:
        """A Redis Pub/Sub source."""
        return redis_pubsub(self._url, self.channel_name, name=name)
