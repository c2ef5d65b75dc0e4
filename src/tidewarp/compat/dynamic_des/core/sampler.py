"""Random times, with the published constructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidewarp.process.sampler import Sampler as _Sampler

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Sampler"]


class Sampler(_Sampler):
    """Draws from ``rng``, a numpy Generator; None: the mean each time. ``sample(config, min_delay=1e-5)`` in seconds."""

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        super().__init__(rng)
