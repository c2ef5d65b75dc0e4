"""What the three kinds have in common: the two names that their paths are made of."""

from __future__ import annotations

__all__ = ["BaseDynamicResource"]


class BaseDynamicResource:
    """``sim_id`` and ``obj_id`` of what lives at ``{sim_id}.{kind}.{obj_id}``."""

    sim_id: str
    obj_id: str
