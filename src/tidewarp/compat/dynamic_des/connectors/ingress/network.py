"""Origins that are sources of ``tidewarp.connect``."""

from __future__ import annotations

from typing import Any, ClassVar

from tidewarp.compat.dynamic_des.connectors.ingress.base import BaseIngress
from tidewarp.connect.contract import Source

__all__ = ["NetworkIngress"]


class NetworkIngress(BaseIngress):
    """An origin that needs no ``run``: the environment asks it for its source. ``policy``: keywords of ``connect``."""

    policy: ClassVar[dict[str, Any]] = {}

    def source(self, name: str, *, keeps: bool) -> Source:
        """The source, called ``name`` in the journal. ``keeps``: the journal outlives this process."""
        raise NotImplementedError(type(self).__name__)
