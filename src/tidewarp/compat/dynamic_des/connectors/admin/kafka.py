"""Topics, configuration and vitals of a Kafka cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidewarp.compat.dynamic_des.connectors.keywords import kafka_config
from tidewarp.connect.backends.kafka_admin import KafkaAdmin

__all__ = ["KafkaAdminConnector"]


class KafkaAdminConnector:
    """Keywords are those of aiokafka's and kafka-python's clients."""

    def __init__(self, bootstrap_servers: str, max_tasks: int = 100, **kwargs: Any) -> None:
        self.bootstrap_servers, self.max_tasks, self.kwargs = bootstrap_servers, max_tasks, kwargs
        config = kafka_config("KafkaAdminConnector", kwargs)
        self._admin = KafkaAdmin(bootstrap_servers, max_tasks, config)

    @property
    def malformed(self) -> int:
        """Messages that could not be read."""
        return self._admin.malformed

    def create_topics(self, topics_config: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Create topics ``{"name", "partitions", "replication"}``: name -> "created", "exists" or why it was refused."""
        return self._admin.create_topics(topics_config)

    async def send_config(self, topic: str, path_id: str, value: Any) -> None:
        """Send an update to whoever reads ``topic``."""
        await self._admin.send_config(topic, path_id, value)

    async def collect_data(self, topics: Sequence[str], auto_offset_reset: str = "latest") -> None:
        """Collect what is published to ``topics``, until cancelled."""
        await self._admin.collect(topics, auto_offset_reset)

    def get_vitals(self) -> dict[str, Any]:
        """Path -> last value."""
        return self._admin.vitals

    def get_state(self) -> dict[str, Any]:
        """Sim -> service -> task -> status -> timestamp."""
        return self._admin.state
