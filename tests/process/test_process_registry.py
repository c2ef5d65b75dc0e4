"""The registry: paths, all-or-nothing updates, and a comparison with a dict."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.errors import ModelError, RuleViolation, UnknownPath
from tidewarp.process import Change, DynamicResource, Environment
from tidewarp.process import registry as registry_module


@pytest.fixture
def env() -> Environment:
    return Environment()


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a b", "é", "a/b", "a" * 256, 7, None, ["x"], "a\n"])
def test_malformed_paths_are_refused(env: Environment, path: object) -> None:
    """Segments are ASCII letters, digits, _ and -, 255 bytes in all."""
    with pytest.raises(ModelError):
        env.registry.declare(path, float)  # type: ignore[arg-type]


def test_what_the_run_says_of_itself_is_nobody_elses(env: Environment) -> None:
    """A variable there would look like an observation of the host; `systems` is a name like any other."""
    for path in ("system", "system.input.refused"):
        with pytest.raises(ModelError, match="said by the run itself"):
            env.registry.declare(path, float)
    with pytest.raises(ModelError, match="said by the run itself"):
        DynamicResource(env, "system.lathe", 1)
    assert env.registry.declare("systems.a", float).name == "systems.a"


def test_a_path_is_declared_once_and_their_number_is_bounded(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second declaration, or one above the bound, changes nothing."""
    monkeypatch.setattr(registry_module, "PATHS_MAX", 2)
    env.registry.declare("a" * 255, int, 1)
    with pytest.raises(ModelError, match="declared already"):
        env.registry.declare("a" * 255, float)
    env.registry.declare("b", int)
    with pytest.raises(ModelError, match="at most 2 paths"):
        env.registry.declare("c", int)
    assert env.registry.values() == {"a" * 255: 1, "b": None}


def test_an_unknown_path_names_up_to_three_that_are_near(env: Environment) -> None:
    """The message is the help; a path that is not text is only unknown (predecessors: it killed the run)."""
    for name in ("temperature", "temperatures", "temperatur", "temperate", "mode"):
        env.registry.declare(f"Line_A.variables.{name}", float)
    with pytest.raises(UnknownPath) as caught:
        env.registry.get("Line_A.variables.temprature")
    assert caught.value.action.count("Line_A.variables.temp") == 3
    for path in (["x"], {}, None, 3, "x" * 10_000):
        with pytest.raises(UnknownPath):
            env.registry.get(path)  # type: ignore[arg-type]
        assert env.registry.change(((path, 1),)) is not None
        assert env.registry.change(((path, 1), ("Line_A.variables.mode", 1))) is not None


def test_paths_by_prefix_are_sorted(env: Environment) -> None:
    """Prefix means text, not segment; declaring more shows at once."""
    for path in ("b.x", "a.y", "a.x", "ab"):
        env.registry.declare(path, int)
    assert env.registry.paths("a") == ["a.x", "a.y", "ab"]
    env.registry.declare("a.z", int)
    assert env.registry.paths("a.") == ["a.x", "a.y", "a.z"]
    assert env.registry.paths() == sorted(env.registry.paths())


def test_an_equal_value_is_no_change_but_an_equal_number_of_another_type_is(env: Environment) -> None:
    """Only untyped and nested values can hold both: a typed path casts first."""
    value = env.registry.declare("x", float, 1)
    value.update(1)
    value.update("1.0")
    assert value.version == 0
    free = env.registry.declare("y", None, [1])
    free.update([True])
    assert (free.value, free.version) == ([True], 1)
    free.update([True])
    assert free.version == 1


def test_update_many_is_all_or_nothing(env: Environment) -> None:
    """One bad value, or one unknown path, and no value, version or waiter has moved."""
    one, two = env.registry.declare("one", int, 1), env.registry.declare("two", int, 2)
    waiting = one.wait_for_change()
    for changes in ({"one": 5, "two": "x"}, {"one": 5, "three": 1}):
        with pytest.raises(ModelError):
            env.registry.update_many(changes)
    assert (one.value, one.version, two.value, waiting.triggered) == (1, 0, 2, False)
    env.registry.update_many({"one": 5, "two": 6})
    assert (one.value, two.value, waiting.value) == (5, 6, Change("one", 1, 5, 1, 0))


def test_predecessor_6_registry_and_resource_agree_and_max_cap_counts_at_once(env: Environment) -> None:
    """Predecessor: registry 50 and resource 5; a raised max_cap was ignored."""
    lathe = DynamicResource(env, "Line_A.resources.lathe", 2, 5)
    current, most = "Line_A.resources.lathe.current_cap", "Line_A.resources.lathe.max_cap"
    with pytest.raises(RuleViolation) as caught:
        env.registry.update(current, 50)
    assert str(caught.value).startswith(f"value 50 for {current}: at most max_cap 5; raise max_cap first")
    assert (lathe.capacity, env.registry.get(current).value) == (2, 2)
    env.registry.update(most, 50)
    env.registry.update(current, 50)
    assert (lathe.capacity, lathe.max_capacity) == (50, 50)
    with pytest.raises(RuleViolation, match="lower current_cap first, or set both in one update") as caught:
        env.registry.update(most, 3)
    assert most in caught.value.value
    env.registry.update_many({most: 3, current: 3})
    assert (lathe.capacity, lathe.max_capacity) == (3, 3)
    with pytest.raises(RuleViolation):
        env.registry.update_many({most: 10, current: 11})
    assert (lathe.capacity, lathe.max_capacity) == (3, 3)


def test_one_update_may_set_several_resources(env: Environment) -> None:
    """Each is judged, and none follows unless all may."""
    resources = [DynamicResource(env, name, 1, 3) for name in ("a", "b")]
    waiting = [(resource.request(), resource.request())[1] for resource in resources]
    with pytest.raises(RuleViolation, match=r"value 4 for b\.current_cap"):
        env.registry.update_many({"a.current_cap": 2, "a.max_cap": 2, "b.current_cap": 4})
    assert [(one.capacity, one.max_capacity, one.in_use) for one in resources] == [(1, 3, 1)] * 2
    env.registry.update_many({"b.current_cap": 2, "a.current_cap": 2})
    assert [(one.capacity, one.in_use) for one in resources] == [(2, 2)] * 2
    assert all(request.triggered for request in waiting)


def test_a_sealed_environment_is_changed_by_its_model_only(env: Environment) -> None:
    """Invariant 1: nothing changes a model but a journaled input or the model itself."""
    value = env.registry.declare("x", int, 0)
    value.update(1)

    def model():  # type: ignore[no-untyped-def]
        yield env.timeout(1)
        value.update(2)
        env.registry.declare("y", int, 3)

    env.process(model())
    env.seal()
    for change in (
        lambda: value.update(9),
        lambda: env.registry.update("x", 9),
        lambda: env.registry.update_many({"x": 9}),
        lambda: env.registry.declare("z", int),
        lambda: DynamicResource(env, "r", 1),
    ):
        with pytest.raises(ModelError, match="only a journaled input or the model changes a model"):
            change()
    assert env.run_slice(2 * 10**9) == "empty"
    assert env.registry.values() == {"x": 2, "y": 3}
    with pytest.raises(ModelError, match=r"sources\.schedule"):
        value.update(9)


NAMES = st.sampled_from(["a", "a.b", "a.c", "b", "b-1.x"])
NUMBERS = st.integers(-3, 12) | st.sampled_from(["5", "x", 2.0, 2.5, True, None])


class RegistryMachine(RuleBasedStateMachine):
    """The registry of int paths in 0..9 against a dict of [value, version]."""

    @initialize()
    def build(self) -> None:
        self.env = Environment()
        self.model: dict[str, list[int]] = {}

    def expected(self, path: str, value: object) -> int | None:
        if isinstance(value, bool) or value in (None, "x", 2.5) or path not in self.model:
            return None
        number = int(value)  # type: ignore[call-overload]
        return number if 0 <= number <= 9 else None

    @rule(path=NAMES)
    def declare(self, path: str) -> None:
        if path in self.model:
            with pytest.raises(ModelError):
                self.env.registry.declare(path, int, 0, low=0, high=9)
        else:
            self.env.registry.declare(path, int, 0, low=0, high=9)
            self.model[path] = [0, 0]

    @precondition(lambda self: self.model)
    @rule(changes=st.dictionaries(NAMES, NUMBERS, max_size=4))
    def update_many(self, changes: dict[str, object]) -> None:
        planned = {path: self.expected(path, value) for path, value in changes.items()}
        if None in planned.values():
            with pytest.raises(ModelError):
                self.env.registry.update_many(changes)
            return
        self.env.registry.update_many(changes)
        for path, number in planned.items():
            assert number is not None
            if self.model[path][0] != number:
                self.model[path] = [number, self.model[path][1] + 1]

    @rule(path=NAMES, value=NUMBERS)
    def update(self, path: str, value: object) -> None:
        self.update_many({path: value}) if path in self.model else None

    @invariant()
    def agrees(self) -> None:
        assert self.env.registry.state() == dict(sorted(self.model.items()))
        assert self.env.registry.paths() == sorted(self.model)


TestRegistryAgainstDict = RegistryMachine.TestCase
