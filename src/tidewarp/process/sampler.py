"""How long it takes this time: one draw from a distribution as it is configured at this moment.

A draw takes one uniform of 53 bits from its stream and inverts the distribution function (Erlang takes one for each
stage, and sums them), so that two runs which differ in a parameter still compare with common random numbers: a value
rises with its uniform. Logarithm, exponential and normal quantile are those of ``seeds``, which have the same bits on
every machine; powers are made of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tidewarp.errors import ModelError
from tidewarp.process.distributions import complaint
from tidewarp.process.rules import shown
from tidewarp.seeds import Stream, exact_exp, exact_log
from tidewarp.units import TICK_MAX, TICKS_PER_SECOND

if TYPE_CHECKING:
    import numpy as np

    from tidewarp.process.distributions import DistributionConfig

__all__ = ["Sampler"]

_DELAY_MAX: Final = TICK_MAX / TICKS_PER_SECOND / 2  # seconds


class Sampler:
    """Draws delays from ``source``: a stream of seeds, a numpy Generator, or None, which gives the mean each time.

    A numpy Generator is used as it is: its state is no part of a twin's state, and which machines agree on its draws is
    numpy's matter.
    """

    def __init__(self, source: Stream | np.random.Generator | None = None) -> None:
        self.source = source
        self._rng: np.random.Generator | None = None
        self._kinds = (
            _of_stream(source) if isinstance(source, Stream) else _MEANS if source is None else _of_numpy(source)
        )

    @property
    def rng(self) -> np.random.Generator | None:
        """A numpy Generator for user code: the one given; of a stream, one of its own (Philox, keyed by the stream).

        What was drawn from that one is part of the state, by :attr:`rng_count`. None without a source.
        """
        if not isinstance(self.source, Stream):
            return self.source
        if self._rng is None:
            import numpy as np

            self._rng = np.random.Generator(np.random.Philox(key=np.array(self.source.key, dtype=np.uint64)))
        return self._rng

    @property
    def rng_count(self) -> int:
        """32-bit words that were drawn from :attr:`rng` of a stream; 0 if it was never asked for."""
        if self._rng is None:
            return 0
        state: dict[str, Any] = dict(self._rng.bit_generator.state)
        # A step of the counter makes four 64-bit words, of which `buffer_pos` are used; before the first step it is 4.
        words = 4 * (int(state["state"]["counter"][0]) - 1) + int(state["buffer_pos"])
        return 2 * words - int(state["has_uint32"])

    def sample(self, config: DistributionConfig, min_delay: float = 1e-5) -> float:
        """A delay in seconds, at least ``min_delay``, rounded to whole ns. Reads ``config`` as it is now.

        Raises:
            ModelError: ``config`` has no such distribution, a parameter that was assigned unchecked makes no sense,
                its rate is 0, or the delay is beyond 146 years.
        """
        try:
            value = float(self._kinds[config.dist](config))
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, ModelError) as error:
            raise _unfit(config, f"a draw from it fails ({type(error).__name__}: {error})") from error
        if not value <= _DELAY_MAX:
            raise _unfit(config, f"a delay is a number of at most {_DELAY_MAX:.0f} s, not {value!r}")
        if value < min_delay:
            _check(config)  # what makes a flood of shortest delays may be a parameter that was assigned unchecked
            value = min_delay
        whole = int(value)
        return (whole * TICKS_PER_SECOND + round((value - whole) * TICKS_PER_SECOND)) / TICKS_PER_SECOND


def _check(config: object) -> None:
    found = complaint(getattr(config, "__dict__", {}), is_service=True)
    if found is not None:
        raise _unfit(config, f"{found[0]}: {found[1]}")


def _unfit(config: object, rule: str) -> ModelError:
    parameters = getattr(config, "__dict__", {})
    said = ", ".join(f"{name}={shown(value)}" for name, value in parameters.items() if value is not None)
    return ModelError(
        f"distribution {said or shown(config)}", rule, "correct its parameters; a rate of 0 has to be waited out"
    )


_Draw = Callable[[Any], Any]  # of a config, seconds


def _rate_or_mean(config: Any) -> Any:
    """Mean of an exponential distribution. Raises ZeroDivisionError where it is stopped."""
    return config.mean if config.rate is None else 1.0 / config.rate


def _triangle(config: Any, u: float) -> Any:
    low, mode, high = config.low, config.mode, config.high
    width = high - low
    if u * width < mode - low:
        return low + math.sqrt(u * width * (mode - low))  # sqrt is rounded correctly by IEEE 754
    return high - math.sqrt((1.0 - u) * width * (high - mode))


def _of_stream(stream: Stream) -> dict[str, _Draw]:
    """Kind -> its draw, by inversion of one uniform."""
    random, unit = stream.random, stream.unit_exponential

    def constant(config: Any) -> Any:
        random()  # as every kind: a change of the kind shifts nothing
        return config.mean

    def exponential(config: Any) -> Any:
        rate = config.rate  # _rate_or_mean, written out
        return unit() * (config.mean if rate is None else 1.0 / rate)

    def weibull(config: Any) -> Any:
        x = -exact_log(1.0 - random())
        return config.scale * exact_exp(exact_log(x) / config.shape) if x > 0.0 else 0.0

    def erlang(config: Any) -> Any:
        total = 0.0
        for _ in range(int(config.shape)):
            total -= exact_log(1.0 - random())
        return config.scale * total

    def empirical(config: Any) -> Any:
        return config.values[int(random() * len(config.values))]

    return {
        "constant": constant,
        "empirical": empirical,
        "erlang": erlang,
        "exponential": exponential,
        "lognormal": lambda config: stream.lognormal(config.mean, config.std),
        "normal": lambda config: config.mean + config.std * stream.normal(),
        "triangular": lambda config: _triangle(config, random()),
        "uniform": lambda config: config.low + (config.high - config.low) * random(),
        "weibull": weibull,
    }


def _of_numpy(rng: np.random.Generator) -> dict[str, _Draw]:
    """Kind -> its draw, by numpy's own methods."""

    def lognormal(config: Any) -> Any:
        variance = math.log1p((config.std / config.mean) ** 2)
        return rng.lognormal(math.log(config.mean) - variance / 2, math.sqrt(variance))

    return {
        "constant": lambda config: config.mean,
        "empirical": lambda config: config.values[int(rng.integers(len(config.values)))],
        "erlang": lambda config: rng.gamma(config.shape, config.scale),
        "exponential": lambda config: rng.exponential(_rate_or_mean(config)),
        "lognormal": lognormal,
        "normal": lambda config: rng.normal(config.mean, config.std),
        "triangular": lambda config: _triangle(config, rng.random()),
        "uniform": lambda config: rng.uniform(config.low, config.high),
        "weibull": lambda config: config.scale * rng.weibull(config.shape),
    }


_MEANS: Final[dict[str, _Draw]] = {
    "constant": lambda config: config.mean,
    "empirical": lambda config: math.fsum(config.values) / len(config.values),
    "erlang": lambda config: config.shape * config.scale,
    "exponential": _rate_or_mean,
    "lognormal": lambda config: config.mean,
    "normal": lambda config: config.mean,
    "triangular": lambda config: (config.low + config.mode + config.high) / 3,
    "uniform": lambda config: (config.low + config.high) / 2,
    "weibull": lambda config: config.scale * math.gamma(1.0 + 1.0 / config.shape),  # libm's; the ns hide its last bits
}
