"""Delays follow their distributions, bit for bit the same everywhere, and no parameter makes a flood or a hang."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import ModelError, RuleViolation
from tidewarp.process import Environment
from tidewarp.process.distributions import ERLANG_STAGES_MAX, VALUES_MAX, DistributionConfig, complaint
from tidewarp.process.sampler import Sampler
from tidewarp.seeds import Stream

VALUES = [1.0, 2.5, 4.0, 4.0, 30.0]
CONFIGS = {
    "constant": DistributionConfig("constant", mean=7.25),
    "empirical": DistributionConfig("empirical", values=VALUES),
    "erlang": DistributionConfig("erlang", shape=3, scale=20.0),
    "exponential": DistributionConfig("exponential", rate=1 / 200),
    "lognormal": DistributionConfig("lognormal", mean=300.0, std=60.0),
    "normal": DistributionConfig("normal", mean=50.0, std=5.0),
    "triangular": DistributionConfig("triangular", low=2.0, mode=3.0, high=10.0),
    "uniform": DistributionConfig("uniform", low=20.0, high=80.0),
    "weibull": DistributionConfig("weibull", shape=1.5, scale=100.0),
}


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def lognormal_cdf(x: float) -> float:
    variance = math.log1p((60 / 300) ** 2)
    return normal_cdf((math.log(x / 300) + variance / 2) / math.sqrt(variance))


def triangular_cdf(x: float) -> float:
    return (x - 2) ** 2 / (8 * 1) if x < 3 else 1 - (10 - x) ** 2 / (8 * 7)


def erlang_cdf(x: float) -> float:
    y = x / 20
    return 1 - math.exp(-y) * (1 + y + y * y / 2)


CDF: dict[str, Callable[[float], float]] = {
    "erlang": erlang_cdf,
    "exponential": lambda x: -math.expm1(-x / 200),
    "lognormal": lognormal_cdf,
    "normal": lambda x: normal_cdf((x - 50) / 5),
    "triangular": triangular_cdf,
    "uniform": lambda x: (x - 20) / 60,
    "weibull": lambda x: -math.expm1(-((x / 100) ** 1.5)),
}
MOMENTS = {  # mean, variance
    "constant": (7.25, 0.0),
    "empirical": (float(np.mean(VALUES)), float(np.var(VALUES))),
    "erlang": (60.0, 3 * 400.0),
    "exponential": (200.0, 200.0**2),
    "lognormal": (300.0, 60.0**2),
    "normal": (50.0, 25.0),
    "triangular": (5.0, (4 + 9 + 100 - 6 - 20 - 30) / 18),
    "uniform": (50.0, 60.0**2 / 12),
    "weibull": (100 * math.gamma(5 / 3), 1e4 * (math.gamma(7 / 3) - math.gamma(5 / 3) ** 2)),
}


class Fixed(Stream):
    """A stream whose every word is the same."""

    def __init__(self, word: int) -> None:
        super().__init__(0, "fixed")
        self.word = word

    def bits(self) -> int:
        return self.word


def draws(sampler: Sampler, kind: str, n: int) -> list[float]:
    return [sampler.sample(CONFIGS[kind], min_delay=0) for _ in range(n)]


GOLDEN = {
    "constant": [7.25, 7.25, 7.25],
    "empirical": [30.0, 2.5, 4.0],
    "erlang": [89.839545626, 96.912363663, 53.272537753],
    "exponential": [603.919562833, 53.124140949, 241.351752473],
    "lognormal": [408.384192424, 254.671291332, 326.523278411],
    "normal": [58.281978806, 46.35940073, 52.634012465],
    "triangular": [8.34652863, 3.447376571, 5.906925234],
    "uniform": [77.070749032, 33.996206638, 62.050077455],
    "weibull": [208.91328988, 41.321360905, 113.347942354],
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_draws_are_frozen(kind: str) -> None:
    """The first three of seed 7: what changes here changes every run that was ever recorded."""
    assert draws(Sampler(Stream(7, "golden")), kind, 3) == GOLDEN[kind]


@pytest.mark.parametrize("kind", CDF)
@pytest.mark.parametrize("make", [Stream, lambda seed, _: np.random.default_rng(seed)], ids=["stream", "numpy"])
def test_draws_follow_the_closed_form(kind: str, make: Callable[[int, str], Any]) -> None:
    """Kolmogorov and Smirnov: of 10,000 draws the greatest distance is below what chance gives once in a million."""
    n = 10_000
    cdf = sorted(map(CDF[kind], draws(Sampler(make(3, "ks")), kind, n)))
    distance = max(max((k + 1) / n - at, at - k / n) for k, at in enumerate(cdf))
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * n))


@pytest.mark.parametrize("kind", MOMENTS)
def test_draws_have_mean_and_variance(kind: str) -> None:
    """The mean within five standard errors, the variance within a tenth; of the value, not of its logarithm."""
    mean, variance = MOMENTS[kind]
    drawn = draws(Sampler(Stream(5, "moments")), kind, 20_000)
    assert abs(float(np.mean(drawn)) - mean) <= 5 * math.sqrt(variance / len(drawn))
    assert float(np.var(drawn)) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("kind", MOMENTS)
def test_without_a_source_it_is_the_mean(kind: str) -> None:
    """Rounded to ns, as every delay."""
    assert Sampler().sample(CONFIGS[kind]) == pytest.approx(MOMENTS[kind][0], abs=1e-9)
    assert Sampler().rng is None


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_draw_takes_one_word_and_an_erlang_one_for_each_stage(kind: str) -> None:
    """Another kind in its place shifts nothing behind it."""
    stream = Stream(1, "words")
    draws(Sampler(stream), kind, 4)
    assert stream.count == (12 if kind == "erlang" else 4)


@pytest.mark.parametrize("kind", CONFIGS)
@given(words=st.tuples(*[st.integers(0, 2**64 - 1)] * 2))
def test_a_delay_rises_with_its_uniform(kind: str, words: tuple[int, int]) -> None:
    """So common random numbers compare; the ends of the range give finite delays too."""
    low, high = [Sampler(Fixed(word)).sample(CONFIGS[kind]) for word in sorted(words)]
    assert low <= high


@pytest.mark.parametrize("word", [0, 2**64 - 1])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_ends_of_the_uniform_give_delays(kind: str, word: int) -> None:
    """u = 0 and the greatest u below 1."""
    assert 1e-5 <= Sampler(Fixed(word)).sample(CONFIGS[kind]) < 1e5


@pytest.mark.parametrize("source", [Stream(2, "ns"), np.random.default_rng(2), None], ids=["stream", "numpy", "mean"])
def test_delays_are_whole_nanoseconds_and_never_below_the_least(source: Any) -> None:
    """A normal distribution has negative values; a delay has not."""
    sampler, config = Sampler(source), DistributionConfig("normal", mean=1e-5, std=1e-3)
    for _ in range(100):
        delay = sampler.sample(config, min_delay=2e-5)
        assert delay >= 2e-5
        assert delay == round(delay * 1e9) / 1e9


def test_a_draw_reads_the_config_as_it_is_then() -> None:
    """A change of a parameter counts for the next draw; of the kind too."""
    sampler, config = Sampler(Stream(0, "live")), DistributionConfig("constant", mean=5.0)
    assert sampler.sample(config) == 5.0
    config.mean = 6.0
    assert sampler.sample(config) == 6.0
    config.dist, config.mean, config.low, config.high = "uniform", None, 8.0, 8.0
    assert sampler.sample(config) == 8.0


@pytest.mark.parametrize(
    "assigned",
    [
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": 1e-300},
        {"rate": None},
        {"rate": "fast"},
        {"dist": "nope"},
        {"dist": "normal"},
        {"dist": "empirical", "values": []},
        {"dist": "lognormal", "mean": -1.0, "std": 1.0},
        {"dist": "weibull", "shape": 1e-9, "scale": 1.0},
        {"dist": "erlang", "shape": 2.0, "scale": -1.0},
    ],
)
@pytest.mark.parametrize("source", [Stream(9, "bad"), np.random.default_rng(1), None], ids=["stream", "numpy", "mean"])
def test_a_parameter_assigned_unchecked_is_an_error_at_the_draw(assigned: dict[str, Any], source: Any) -> None:
    """Never a flood of shortest delays, never NaN in SimPy's queue; the message shows the parameters."""
    config = DistributionConfig("exponential", rate=1.0)
    for name, value in assigned.items():
        config.__dict__[name] = value
    with pytest.raises(ModelError, match="dist="):
        Sampler(source).sample(config)


REFUSED = [
    ({"dist": "nope"}, "constant"),
    ({"dist": "exponential"}, "either rate or mean"),
    ({"dist": "exponential", "rate": 1, "mean": 1}, "either rate or mean"),
    ({"dist": "exponential", "rate": -0.1}, "0 or more"),
    ({"dist": "exponential", "rate": 1e-12}, "1e-09 or more"),
    ({"dist": "exponential", "rate": math.nan}, "finite"),
    ({"dist": "exponential", "rate": True}, "no numbers"),
    ({"dist": "exponential", "mean": 0}, "or more"),
    ({"dist": "normal", "mean": 1.0, "std": -1.0}, "0 or more"),
    ({"dist": "normal", "mean": math.inf, "std": 1.0}, "finite"),
    ({"dist": "normal", "mean": 1e12, "std": 1.0}, "at most"),
    ({"dist": "normal", "mean": 1.0}, "mean and std"),
    ({"dist": "normal", "mean": 1.0, "std": 1.0, "rate": 3.0}, "leave it out"),
    ({"dist": "normal", "mean": 1.0, "std": 1.0, "sdt": 3.0}, "leave it out"),
    ({"dist": "lognormal", "mean": 0.0, "std": 1.0}, "or more"),
    ({"dist": "uniform", "low": 3.0, "high": 1.0}, "at least low 3"),
    ({"dist": "triangular", "low": 1.0, "mode": 5.0, "high": 4.0}, "low 1 to high 4"),
    ({"dist": "erlang", "shape": 2.5, "scale": 1.0}, "whole number of stages"),
    ({"dist": "erlang", "shape": ERLANG_STAGES_MAX + 1, "scale": 1.0}, "whole number of stages"),
    ({"dist": "weibull", "shape": 0, "scale": 1.0}, "0.1 or more"),
    ({"dist": "weibull", "shape": 1, "scale": 0}, "1e-09 or more"),
    ({"dist": "empirical", "values": []}, "1 to 10000 numbers"),
    ({"dist": "empirical", "values": [1.0] * (VALUES_MAX + 1)}, "1 to 10000 numbers"),
    ({"dist": "empirical", "values": [math.nan]}, "finite"),
    ({}, "dist"),
]


@pytest.mark.parametrize(("parameters", "said"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_parameter_without_sense_is_refused_where_it_is_set(parameters: dict[str, Any], said: str) -> None:
    """With the value, the rule and what to do; also where pydantic validates a document."""
    with pytest.raises(RuleViolation, match=said):
        DistributionConfig(**parameters)
    with pytest.raises(ValueError, match=re.escape(said)):
        DistributionConfig.model_validate(parameters)


def test_only_an_arrival_may_stop() -> None:
    """A rate of 0 is a config, and no service."""
    stopped = {"dist": "exponential", "rate": 0.0}
    assert DistributionConfig(**stopped).rate == 0
    assert complaint(stopped) is None
    assert complaint(stopped, is_service=True) == (
        "rate", "the rate of a service is above 0", "give a positive rate; only an arrival may stop",
    )  # fmt: skip


def test_an_environment_has_one_sampler_for_a_name_and_its_counts_in_the_state() -> None:
    """Other names are not shifted; the count of the numpy Generator is there once it has drawn."""
    env, other = Environment(seed=4), Environment(seed=4)
    first = [env.sampler("a").sample(CONFIGS["normal"]) for _ in range(3)]
    other.sampler("b").sample(CONFIGS["normal"])
    assert first == [other.sampler("a").sample(CONFIGS["normal"]) for _ in range(3)]
    assert env.sampler("a") is env.sampler("a")
    assert env.state()["streams"] == {"a": 3}
    rng, same = env.sampler("a").rng, other.sampler("a").rng
    assert rng is not None
    assert same is not None
    assert rng is env.sampler("a").rng
    assert rng.random(9).tolist() == same.random(9).tolist()
    assert env.state()["streams"] == {"a": 3, "a/numpy": 18}
    rng.integers(10, dtype=np.uint32)
    assert env.state()["streams"]["a/numpy"] == 19
    assert first[0] != env.sampler("a").sample(CONFIGS["normal"])


def test_a_numpy_generator_is_used_as_it_is() -> None:
    """Its draws are numpy's, rounded to ns."""
    rng, twin = np.random.default_rng(11), np.random.default_rng(11)
    sampler = Sampler(rng)
    assert sampler.rng is rng
    assert sampler.sample(CONFIGS["normal"]) == round(twin.normal(50, 5), 9)
    assert sampler.sample(CONFIGS["exponential"]) == round(twin.exponential(200), 9)
