"""Parameters as documents and as paths: always in step, changed as a whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tidewarp.connect.contract import Input
from tidewarp.errors import ModelError, RuleViolation, TidewarpError, UnknownPath
from tidewarp.process import (
    BreakdownConfig,
    CapacityConfig,
    DistributionConfig,
    DynamicContainer,
    DynamicResource,
    DynamicStore,
    Environment,
    SimParameter,
)


def parameters() -> SimParameter:
    return SimParameter(
        sim_id="L",
        arrival={"parts": DistributionConfig("exponential", rate=0.5)},
        service={"milling": DistributionConfig("lognormal", mean=300, std=60)},
        resources={"lathe": CapacityConfig(current_cap=2, max_cap=5)},
        containers={"tank": CapacityConfig(current_cap=7.75)},
        stores={"shelf": CapacityConfig(current_cap=3)},
        variables={"mode": "auto", "speed": 1.5, "any": None},
        breakdowns={
            "spindle": BreakdownConfig(
                resource="lathe",
                up=DistributionConfig("exponential", rate=0.001),
                down=DistributionConfig("uniform", low=60, high=120),
            )
        },
    )


@pytest.fixture
def env() -> Environment:
    env = Environment()
    env.registry.register_sim_parameter(parameters())
    return env


def test_a_parameter_set_becomes_typed_paths(env: Environment) -> None:
    """Each field has a path with its rule; resources at the paths take their capacities from there."""
    values = env.registry.values()
    assert (values["L.arrival.parts.rate"], values["L.service.milling.std"], values["L.variables.mode"]) == (
        0.5,
        60,
        "auto",
    )
    assert values["L.service.milling"] == {"dist": "lognormal", "mean": 300.0, "std": 60.0}
    assert values["L.breakdowns.spindle.down.high"] == 120.0
    lathe, tank, shelf = (
        DynamicResource(env, "L.resources.lathe"),
        DynamicContainer(env, "L.containers.tank"),
        DynamicStore(env, "L.stores.shelf"),
    )
    assert (lathe.capacity, lathe.max_capacity, tank.capacity, shelf.capacity) == (2, 5, 7.75, 3)
    env.registry.update("L.resources.lathe.current_cap", 4)
    assert (lathe.capacity, env.registry.get_config("L.resources.lathe").current_cap) == (4, 4)
    assert env.registry.get_config("L").service["milling"] is env.registry.get_config("L.service.milling")
    for taken in (lambda: DynamicResource(env, "L.resources.lathe"), lambda: DynamicStore(env, "L.containers.tank")):
        with pytest.raises(RuleViolation, match="unless a SimParameter has registered one"):
            taken()
    with pytest.raises(UnknownPath, match=r"did you mean L.service.milling"):
        env.registry.get_config("L.service.miling")


def test_leaf_object_and_live_config_change_together(env: Environment) -> None:
    """Whichever is set, draws, waiters and readers see one state."""
    registry = env.registry
    config = registry.get_config("L.service.milling")
    whole, mean = registry.get("L.service.milling"), registry.get("L.service.milling.mean")
    signal = whole.wait_for_change()
    registry.update("L.service.milling.mean", "240")
    assert (config.mean, mean.value, whole.value) == (240.0, 240.0, {"dist": "lognormal", "mean": 240.0, "std": 60.0})
    assert signal.triggered
    registry.update("L.service.milling", {"dist": "exponential", "rate": 2})
    assert (config.dist, config.rate, config.mean, config.std) == ("exponential", 2.0, None, None)
    assert [registry.get(f"L.service.milling.{name}").value for name in ("dist", "rate", "mean")] == [
        "exponential",
        2.0,
        None,
    ]
    registry.update("L.service.milling", {"dist": "empirical", "values": [3, 1, 2.5]})
    assert config.values == whole.value["values"] == [1.0, 2.5, 3.0]
    assert config is registry.get_config("L.service.milling")


def test_the_rate_of_a_service_stays_above_0_and_that_of_an_arrival_may_stop(env: Environment) -> None:
    """Also where it is set alone: a service without end would hold its unit for ever."""
    env.registry.update("L.service.milling", {"dist": "exponential", "rate": 2})
    with pytest.raises(RuleViolation, match="rate of a service is above 0"):
        env.registry.update("L.service.milling.rate", 0)
    env.registry.update("L.arrival.parts.rate", 0)
    assert (env.registry.get_config("L.service.milling").rate, env.registry.get_config("L.arrival.parts").rate) == (
        2.0,
        0.0,
    )


def test_several_parameters_change_in_one_update_or_not_at_all(env: Environment) -> None:
    """low and high may only be moved together; what is refused leaves no trace."""
    registry = env.registry
    down = "L.breakdowns.spindle.down"
    with pytest.raises(RuleViolation, match="at least low 200; set both in one update"):
        registry.update(f"{down}.low", 200)
    registry.update_many({f"{down}.low": 200, f"{down}.high": 300})
    assert registry.get_config(down).low == 200
    before = registry.state()
    with pytest.raises(RuleViolation):
        registry.update_many({f"{down}.low": 250, "L.variables.speed": 2.0, f"{down}.high": 240})
    assert registry.state() == before


REFUSED: list[tuple[str, Any, str]] = [
    ("L.arrival.parts.rate", -1, "at least 0"),
    ("L.arrival.parts.rate", float("nan"), "finite"),
    ("L.arrival.parts.mean", 3, "either rate or mean"),
    ("L.service.milling.std", -0.5, "at least 0"),
    ("L.service.milling.mean", 0, "1e-09 or more"),
    ("L.service.milling.mean", "x", "not a number"),
    ("L.service.milling.rate", 3, "lognormal takes mean and std; leave it out"),
    ("L.service.milling.dist", "cauchy", "one of"),
    ("L.service.milling", {"dist": "exponential", "rate": 0}, "rate of a service is above 0"),
    ("L.service.milling", {"dist": "exponential"}, "either rate or mean"),
    ("L.service.milling", {"dist": "exponential", "rate": 1, "colour": "red"}, "a distribution has dist, rate"),
    ("L.service.milling", {"dist": "empirical", "values": [1, "two"]}, "not a number"),
    ("L.service.milling", {"dist": "empirical", "values": "12"}, "not a list"),
    ("L.service.milling", {"dist": ["constant"]}, "not text"),
    ("L.service.milling", {}, "one of constant"),
    ("L.service.milling", [1], "not an object"),
    ("L.breakdowns.spindle.down", {"dist": "exponential", "rate": 0}, "rate of a service is above 0"),
    ("L.resources.lathe.current_cap", 7.75, "not a whole number"),
    ("L.resources.lathe.current_cap", 6, "at most max_cap 5"),
    ("L.resources.lathe.max_cap", 1, "at least current_cap 2"),
    ("L.containers.tank.current_cap", float("nan"), "finite"),
]


@pytest.mark.parametrize(("path", "value", "rule"), REFUSED)
def test_predecessor_2_and_4_what_makes_no_sense_is_refused_where_it_is_set(
    env: Environment, path: str, value: Any, rule: str
) -> None:
    """Predecessors: std < 0 fails in the sampler, mean NaN is an arrival flood, rate <= 0 silently means 1."""
    before, config = env.registry.state(), env.registry.get_config("L.service.milling").model_dump()
    with pytest.raises(RuleViolation, match=rule):
        env.registry.update(path, value)
    assert env.registry.state() == before
    assert env.registry.get_config("L.service.milling").model_dump() == config


def test_a_whole_object_is_judged_by_the_gate_and_an_input_that_the_state_forbids_by_the_model(
    env: Environment,
) -> None:
    """The rule of a whole path needs no state; a leaf that does not fit the present kind is refused when it is applied."""
    rule = env.registry.rule("L.service.milling")
    assert rule.check({"dist": "constant", "mean": "5"}) == {"dist": "constant", "mean": 5.0}
    with pytest.raises(RuleViolation, match=r"value -1.0 for L.service.milling.std"):
        rule.check({"dist": "normal", "mean": 5, "std": -1})
    refusals = env.apply([Input(0, 1, 0, 0, (("L.service.milling.shape", 2.0),), 0)])
    assert refusals[0].path == "L.service.milling.shape"
    assert "leave it out" in refusals[0].reason


BAD: list[dict[str, Any]] = [
    {"sim_id": "a.b.c d"},
    {"resources": {"x": {"current_cap": 2.5}}},
    {"resources": {"x": {"current_cap": 3, "max_cap": 2}}},
    {"resources": {"x": {"current_cap": -1}}},
    {"resources": {"x": {"current_cap": True}}},
    {"resources": {"x": {"current_cap": float("nan")}}},
    {"resources": {"x": {"current_cap": "2"}}},
    {"resources": {"x": {}}},
    {"service": {"x": {"dist": "exponential", "rate": 0}}},
    {"service": {"x": {"dist": "normal", "mean": 1, "std": -1}}},
    {"arrival": {"x": {"dist": "normal", "mean": float("nan"), "std": 1}}},
    {"arrival": {"bad name": {"dist": "constant", "mean": 1}}},
    {"variables": {"x": object()}},
    {"breakdowns": {"x": {"resource": "r", "up": {"dist": "constant", "mean": 1}}}},
    {"surprise": {}},
]


@pytest.mark.parametrize("fields", BAD)
def test_a_parameter_set_that_makes_no_sense_is_one_error_of_ours(fields: dict[str, Any]) -> None:
    """Whether pydantic or the registry finds it, it is a ModelError in three sentences."""
    with pytest.raises(ModelError) as caught:
        Environment().registry.register_sim_parameter(SimParameter(**({"sim_id": "L"} | fields)))
    assert all((caught.value.value, caught.value.rule, caught.value.action))


NUMBERS = st.one_of(st.none(), st.integers(-2, 400), st.floats(allow_nan=True), st.booleans(), st.text(max_size=3))
OBJECTS = st.fixed_dictionaries(
    {"dist": st.sampled_from(["constant", "exponential", "lognormal", "uniform", "erlang", "x", 3])},
    optional=dict.fromkeys(("rate", "mean", "std", "low", "high", "shape", "scale"), NUMBERS),
)


class LiveMachine(RuleBasedStateMachine):
    """Any updates of a distribution: paths, object and live config agree, and the config can always be drawn from."""

    @initialize()
    def build(self) -> None:
        self.env = Environment(seed=1)
        self.env.registry.register_sim_parameter(parameters())
        self.config = self.env.registry.get_config("L.service.milling")

    @rule(value=OBJECTS)
    def set_whole(self, value: dict[str, Any]) -> None:
        self.set({"L.service.milling": value})

    @rule(values=st.dictionaries(st.sampled_from(["rate", "mean", "std", "low", "high", "dist"]), NUMBERS, min_size=1))
    def set_parts(self, values: dict[str, Any]) -> None:
        self.set({f"L.service.milling.{name}": value for name, value in values.items()})

    @rule(whole=OBJECTS, mean=NUMBERS)
    def set_both(self, whole: dict[str, Any], mean: Any) -> None:
        self.set({"L.service.milling.mean": mean, "L.service.milling": whole})

    def set(self, changes: dict[str, Any]) -> None:
        before = self.env.registry.state()
        try:
            self.env.registry.update_many(changes)
        except TidewarpError:
            assert self.env.registry.state() == before

    @invariant()
    def agrees(self) -> None:
        registry = self.env.registry
        fields = self.config.model_dump()
        assert fields == {name: registry.get(f"L.service.milling.{name}").value for name in fields}
        assert registry.get("L.service.milling").value == {k: v for k, v in fields.items() if v is not None}
        assert self.env.sampler("L.service.milling").sample(self.config) > 0
        DistributionConfig(**fields)


TestLiveDistribution = LiveMachine.TestCase
TestLiveDistribution.settings = settings(max_examples=30, stateful_step_count=25)


@given(st.integers(0, 10), st.integers(0, 10))
def test_capacities_of_a_parameter_set_obey_their_rule_without_a_resource(current: int, most: int) -> None:
    """Nobody has built the resource yet: the paths are checked all the same."""
    env = Environment()
    env.registry.register_sim_parameter(
        SimParameter(sim_id="L", stores={"s": CapacityConfig(current_cap=1, max_cap=4)})
    )
    changes = {"L.stores.s.current_cap": current, "L.stores.s.max_cap": most}
    try:
        env.registry.update_many(changes)
    except RuleViolation:
        assert current > most
    else:
        assert (current, most) == (
            env.registry.get_config("L.stores.s").current_cap,
            DynamicStore(env, "L.stores.s").max_capacity,
        )
