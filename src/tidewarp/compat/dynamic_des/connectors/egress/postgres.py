"""Outputs to PostgreSQL."""

from __future__ import annotations

from typing import Any

from tidewarp.compat.dynamic_des.connectors.egress.network import NetworkEgress
from tidewarp.compat.dynamic_des.connectors.keywords import postgres_dsn
from tidewarp.connect.contract import Sink
from tidewarp.connect.sinks import postgres

__all__ = ["PostgresEgress"]


class PostgresEgress(NetworkEgress):
    """Rows of a table, or of that which ``__table__`` in a value names; keywords are those of asyncpg's pool."""

    def __init__(self, connection_dsn: str, table_name: str = "simulation_data", **kwargs: Any) -> None:
        self.dsn, self.table_name, self.kwargs = connection_dsn, table_name, kwargs
        self._dsn = postgres_dsn("PostgresEgress", connection_dsn, kwargs)

    def sink(self, name: str) -> Sink:
        """A PostgreSQL sink."""
        return postgres(self._dsn, self.table_name, name=name)
