"""What a model declares: its values, resources and lines, its processes, what they publish, and its state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import simpy

from tidewarp.errors import ModelError
from tidewarp.process import (
    DynamicContainer,
    DynamicResource,
    DynamicStore,
    DynamicValue,
    Environment,
    SimParameter,
    SimulationContext,
    SimulationRegistry,
    cuts,
)
from tidewarp.process.sampler import Sampler
from tidewarp.seeds import Stream
from tidewarp.twin.model import ModelSource

__all__ = ["Declarations", "Restored"]


class Restored(NamedTuple):
    """What a model is built from at a cut: its environment, what it gave as its state, and the id of its last output."""

    environment: dict[str, Any]
    states: list[Any]
    last_id: str
    model: ModelSource


class Declarations:
    """The environment of a model, and what is declared in it: until it is sealed."""

    def __init__(self, seed: int, restored: Restored | None) -> None:
        self.env = Environment(0 if restored is None else restored.environment["now"], seed=seed)
        if restored is not None:
            cuts.begin(self.env, restored.environment, restored.last_id)
        self._restored = restored
        self._documents: list[Callable[[], Any]] = []
        self._lines: dict[str, SimulationContext] = {}
        self._sealed = False

    @property
    def now(self) -> float:
        """Virtual time, seconds since the epoch of the twin."""
        return self.env.now

    @property
    def tick(self) -> int:
        """Virtual time, ns since the epoch of the twin."""
        return self.env.tick

    @property
    def seed(self) -> int:
        """The seed of all random streams of this twin."""
        return self.env.seed

    @property
    def registry(self) -> SimulationRegistry:
        """All variables and resources by path."""
        return self.env.registry

    def variable(
        self,
        path: str,
        type: type | None = None,
        initial: Any = None,
        *,
        low: float | None = None,
        high: float | None = None,
        one_of: tuple[Any, ...] | None = None,
        unit: str = "",
        nonfinite: bool = False,
        coalesce: bool = False,
    ) -> DynamicValue:
        """A typed value at ``path`` that sources may set and processes may wait for; None until first set.

        Args:
            path: dot-separated words of A-Z a-z 0-9 _ -.
            type: bool, int, float, str, list, dict; None: any of these.
            initial: its value until the first input; None leaves it unset.
            low: least number, inclusive.
            high: greatest number, inclusive.
            one_of: all that it may be.
            unit: text for people.
            nonfinite: may a float be NaN or infinite? Else such a reading is a dead letter. Sinks that write JSON make
                null of it, and count it.
            coalesce: of the values that a source sends at once, is the last enough? Then the others are counted
                (``coalesced``) and become no inputs. Only of sources that the clock does not wait for.
        """
        return self.registry.declare(
            path,
            type,
            initial,
            low=low,
            high=high,
            one_of=one_of,
            unit=unit,
            nonfinite=nonfinite,
            coalesce=coalesce,
        )

    def resource(self, path: str, capacity: int, max_capacity: int | None = None) -> DynamicResource:
        """A resource whose capacity may change while work is in progress (``path.current_cap``)."""
        return DynamicResource(self.env, path, capacity, max_capacity)

    def container(self, path: str, capacity: float, init: float = 0.0) -> DynamicContainer:
        """A vessel whose size may change while there is something in it (``path.current_cap``)."""
        return DynamicContainer(self.env, path, capacity, init)

    def store(self, path: str, capacity: int, priority: bool = False) -> DynamicStore:
        """A shelf whose length may change while there is something on it; ``priority``: the least item goes first."""
        return DynamicStore(self.env, path, capacity, priority)

    def line(self, sim_id: str) -> SimulationContext:
        """The line of that name, to declare its parts and processes; the same one at every call."""
        if sim_id not in self._lines:
            self._lines[sim_id] = SimulationContext(self.env, sim_id)
        return self._lines[sim_id]

    def parameters(self, param: SimParameter) -> None:
        """Declare all parameters of a unit at their paths. A ``line`` of its name that is asked for later has its parts."""
        self.registry.register_sim_parameter(param)

    def sampler(self, name: str) -> Sampler:
        """Random times from the stream of this name."""
        return self.env.sampler(name)

    def stream(self, name: str) -> Stream:
        """The random stream of this name: draws depend on (seed, name, count) and on nothing else."""
        return self.env.stream(name)

    def process(self, generator: Generator[simpy.Event, Any, Any]) -> simpy.Process:
        """Start a SimPy process."""
        self._refuse_outside("process")
        _refuse_no_generator(generator)
        return self.env.process(generator)

    def publish_event(self, key: str, value: Any) -> str:
        """Send ``value`` (plain data) to the sinks under ``key``; the id of the output. Never blocks."""
        if not self.env.writable:
            self._refuse_outside("publish_event")
        return self.env.publish_event(key, value)

    def publish_telemetry(self, path_id: str, value: Any) -> str:
        """Send ``value`` (plain data) to the sinks as a measurement of ``path_id``; the id of the output. Never blocks."""
        if not self.env.writable:
            self._refuse_outside("publish_telemetry")
        return self.env.publish_telemetry(path_id, value)

    def state(self, document: Callable[[], Any]) -> None:
        """Add ``document()`` (plain data) to the run digest: state that lives outside registry and resources."""
        self._refuse_sealed("state")
        self._documents.append(document)

    def cut(self) -> simpy.Event:
        """Let the run go on, at the end of this instant, from a document: a later life may begin there.

        For processes: ``yield twin.cut()`` does not come back, without ``yield`` the instant goes on. At a cut every
        process ends, in every life, and ``build`` is called anew, with the present time and the values of all paths,
        and with :attr:`restored`: it starts its processes from there. So there is nothing that only a crash would lose.
        Resources keep their statistics, containers their levels, stores their items.

        Allowed at a quiet instant: no unit of a resource is in use, nobody waits for a resource, container or store, what
        is in stores is plain data, and numpy's generators have not been drawn from. Arbitrary generators cannot be cut:
        a process that is in the middle of something else has to have it in what ``state`` was given.

        Raises:
            ModelError: the model gives no ``state``, or time has not passed since the last cut. What is not quiet ends the
                run with its name.
        """
        if not self._documents:
            rule = "the model is built anew from what the function given to twin.state returns, and there is none"
            raise ModelError("twin.cut()", rule, "give one: twin.state(save), and read twin.restored in build")
        return cuts.ask(self.env)

    @property
    def restored(self) -> Any:
        """In ``build``: what the function given to ``state`` returned at the cut (of several, a list); None at the beginning."""
        if self._restored is None:
            return None
        states = self._restored.states
        return states[0] if len(states) == 1 else states

    def _refuse_outside(self, what: str) -> None:
        if not self.env.writable:
            raise ModelError(
                f"twin.{what}()", "only a journaled input or the model itself changes a model", "connect a source"
            )

    def _refuse_sealed(self, what: str) -> None:
        if self._sealed:
            raise ModelError(f"twin.{what}()", "a twin is wired in build, before it runs", f"move {what} into build")


def _refuse_no_generator(made: object) -> None:
    if not hasattr(made, "throw"):  # as SimPy asks
        name = getattr(made, "__name__", type(made).__name__)
        action = f"call it: twin.process({name}())" if callable(made) else "write it with yield, and call it"
        raise ModelError(
            f"twin.process({name})", "a process is a generator: what a function with yield returns", action
        )
