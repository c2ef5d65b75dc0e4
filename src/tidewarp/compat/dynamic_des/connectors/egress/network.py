"""Destinations that are sinks of ``tidewarp.connect``."""

from __future__ import annotations

from tidewarp.compat.dynamic_des.connectors.egress.base import BaseEgress
from tidewarp.connect.contract import Sink

__all__ = ["NetworkEgress"]


class NetworkEgress(BaseEgress):
    """A destination that needs no ``run``: the environment asks it for its sink."""

    def sink(self, name: str) -> Sink:
        """The sink, called ``name`` in the journal."""
        raise NotImplementedError(type(self).__name__)
