"""Updates from PostgreSQL."""

from __future__ import annotations

from typing import Any, ClassVar

from tidewarp.compat.dynamic_des.connectors.ingress.network import NetworkIngress
from tidewarp.compat.dynamic_des.connectors.keywords import postgres_dsn
from tidewarp.connect.contract import Source
from tidewarp.connect.sources import postgres

__all__ = ["PostgresIngress"]


class PostgresIngress(NetworkIngress):
    """Rows of a table of parameters (``param_path, param_value, is_applied``); keywords are those of asyncpg's pool."""

    policy: ClassVar[dict[str, Any]] = {"time": "arrival"}

    def __init__(
        self,
        connection_dsn: str,
        table_name: str = "simulation_params",
        poll_interval: float = 2.0,
        **kwargs: Any,
    ) -> None:
        self.dsn, self.table_name, self.poll_interval, self.kwargs = connection_dsn, table_name, poll_interval, kwargs
        self._dsn = postgres_dsn("PostgresIngress", connection_dsn, kwargs)

    def source(self, name: str, *, keeps: bool) -> Source:
        """A PostgreSQL source."""
        return postgres(self._dsn, self.table_name, poll=self.poll_interval, name=name)
