"""Parameters of a unit, with the published fields: those of the process layer, without what a kind does not take."""

from __future__ import annotations

from typing import Any

from tidewarp.process.distributions import DistributionConfig as _Distribution
from tidewarp.process.parameters import CapacityConfig as _Capacity
from tidewarp.process.parameters import SimParameter as _Parameter

__all__ = ["CapacityConfig", "DistributionConfig", "SimParameter"]

_NORMAL, _LOGNORMAL = (0.0, 0.0), (1.0, 0.1)  # the published mean and std where None is given


class DistributionConfig(_Distribution):
    """``DistributionConfig(dist, rate=None, mean=None, std=None)``; what ``dist`` does not use is left out.

    None as the mean or std of "normal" means 0, of "lognormal" 1 and 0.1 (as do 0). Other kinds are those of
    :class:`tidewarp.process.DistributionConfig`. Raises RuleViolation, a ValueError, for a parameter that makes no sense.
    """

    def __init__(
        self,
        dist: str | None = None,
        rate: float | None = None,
        mean: float | None = None,
        std: float | None = None,
        **parameters: Any,
    ) -> None:
        given: dict[str, Any] = {"rate": rate, "mean": mean, "std": std}
        if dist == "exponential":
            given = {"rate": rate} if rate is not None else {"mean": mean}
        elif dist == "normal":
            given = {"mean": _NORMAL[0] if mean is None else mean, "std": _NORMAL[1] if std is None else std}
        elif dist == "lognormal":
            given = {"mean": mean or _LOGNORMAL[0], "std": std or _LOGNORMAL[1]}
        super().__init__(dist, **given, **parameters)


class CapacityConfig(_Capacity):
    """``CapacityConfig(current_cap, max_cap=None)``: a capacity now and at most."""

    def __init__(self, current_cap: float, max_cap: float | None = None) -> None:
        super().__init__(current_cap=current_cap, max_cap=max_cap)


class SimParameter(_Parameter):
    """``SimParameter(sim_id, arrival={}, service={}, resources={}, containers={}, stores={}, variables={})``."""

    def __init__(self, sim_id: str, **kinds: Any) -> None:
        super().__init__(sim_id=sim_id, **kinds)
