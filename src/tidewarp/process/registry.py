"""Typed values at flat paths that processes can wait on.

``DynamicValue`` is one of them. ``SimulationRegistry`` holds all of one environment and is the only way to
change one: every change is checked by the rule of its path (static stage), then by the governors of the
paths that change together (dynamic stage, the state of the moment), and only then stored.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simpy.events import Event

from tidewarp import units
from tidewarp.errors import ModelError, Removed, RuleViolation, UnknownPath
from tidewarp.process.causality import NO_ORIGIN, Origin
from tidewarp.process.changes import Change, Changes
from tidewarp.process.live import register
from tidewarp.process.rules import Rule, same, shown
from tidewarp.process.until import Until

if TYPE_CHECKING:
    from tidewarp.connect.contract import Input
    from tidewarp.process.capacity import Capacity
    from tidewarp.process.environment import Environment
    from tidewarp.process.live import LiveDistribution
    from tidewarp.process.parameters import SimParameter

__all__ = ["PATHS_MAX", "PATH_BYTES_MAX", "Complaint", "DynamicValue", "SimulationRegistry"]

PATHS_MAX: Final = 1_000_000
PATH_BYTES_MAX: Final = 255
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NEIGHBOURS: Final = (
    64  # paths compared for a "did you mean", so that a flood of wrong paths costs the same at any size
)

type_ = type  # `declare` has a parameter of that name
Complaint = tuple[str, ModelError]  # the path that may not change, and why


class DynamicValue:
    """The value at one path. None until the first value, if none was given.

    Treat a list or an object as read-only: a change made inside it wakes nobody. Update the path instead.
    """

    __slots__ = (
        "_at",
        "_env",
        "_high",
        "_low",
        "_old",
        "_origin",
        "_readers",
        "_registry",
        "_signal",
        "_value",
        "awaited",
        "name",
        "removed",
        "rule",
        "version",
    )

    def __init__(self, registry: SimulationRegistry, rule: Rule, value: Any) -> None:
        self.name = rule.path
        self.rule = rule
        self._low, self._high = rule.floats
        self._value = value
        self.version = 0
        self._registry = registry
        self._env = registry.env
        self.awaited: dict[Until, None] = {}  # conditions that somebody waits for
        self.removed: Removed | None = None  # what it says to everybody since it was taken out of the registry
        self._old: Any = None
        self._at: float = 0
        self._origin: Origin = NO_ORIGIN
        self._signal: Event | None = None
        self._readers: list[Changes] = []

    @property
    def env(self) -> Environment:
        """The environment that this value belongs to."""
        return self._env

    @property
    def type(self) -> type_ | None:
        """The declared type; None: untyped."""
        return self.rule.type

    def _refuse_assignment(self, value: object) -> None:
        raise ModelError(
            f"{self.name}: value = {shown(value)}", "an assignment is neither checked nor seen", "use update()"
        )

    value = property(
        attrgetter("_value"), _refuse_assignment, doc="The value now; None until the first, if none was given."
    )

    def update(self, value: object) -> None:
        """Change the value now. An equal value is no change.

        Raises:
            RuleViolation: the rule of the path, or the state of the moment, forbids it.
            ModelError: called from outside a sealed run.
        """
        self._registry.update(self.name, value)

    def wait_for_change(self, since: int | None = None) -> Event:
        """An event whose value is the next :class:`Change`, shared by all who wait at present.

        So each of them wakes exactly once per change, and a change of the past wakes nobody. With ``since``
        (a ``version``) a value that is newer already triggers at once, with its last change. Of several changes at
        one instant this is the first; :meth:`changes` gives them all.

        Raises:
            Removed: the value was taken out of the registry; who waits at that moment gets it then.
        """
        if self.removed is not None:
            raise self.removed
        if since is not None and self.version > since:
            return Event(self._env).succeed(self._last_change())
        if self._signal is None:
            self._signal = Event(self._env)
        return self._signal

    def wait_until(self, predicate: Callable[[Any], object]) -> Event:
        """An event that is triggered with the value when ``predicate(value)`` holds: at once, or after a change.

        Each change is looked at, also of several at one instant, and it is the value of that moment that the event
        has. A process that waits gets what ``predicate`` raises. See :class:`Until`.

        Raises:
            Removed: as :meth:`wait_for_change`.
            Exception: ``predicate`` raises for the present value.
        """
        if self.removed is not None:
            raise self.removed
        return Until(self, predicate)

    def changes(self, capacity: int = 1024, full: str = "error") -> Changes:
        """A reader of every change from now on, several at one instant among them; see :class:`Changes`."""
        reader = Changes(self._env, self.name, capacity, full)
        self._readers.append(reader)
        return reader

    def take(self, value: object) -> bool:
        """Store an input, if it is a float that needs no cast. False: it goes the long way, by :meth:`SimulationRegistry.change`."""
        if type(value) is not float or not self._low <= value <= self._high:
            return False
        old = self._value
        if type(old) is not float or old != value:
            self._store(old, value)
        return True

    def store(self, value: Any) -> None:
        """Store a checked value; an equal one is no change."""
        old = self._value
        if not same(old, value):
            self._store(old, value)

    def _store(self, old: Any, value: Any) -> None:
        self._old = old
        self._value = value
        self.version += 1
        self._at = self._env._now
        self._origin = self._env._current[0]
        if self._signal is not None or self._readers or self.awaited:
            self._tell()

    def _tell(self) -> None:
        signal = self._signal
        if signal is not None:
            # Also without a callback: whoever holds the event may yield it later.
            self._signal = None
            signal.succeed(self._last_change())
        if self._readers:
            self._readers = [reader for reader in self._readers if not reader.closed]
            for reader in self._readers:
                reader.put(self._last_change())
        for until in tuple(self.awaited):
            until.look()

    def show(self, value: Any, version: int) -> None:
        """Have the value of another process: for a picture of its registry, in which nobody waits."""
        self._value, self.version = value, version

    def resume(self, value: Any, version: int) -> None:
        """Take over the value and the version of another life, and tell nobody."""
        self._value, self.version = value, version

    def end(self) -> None:
        """It is taken out of the registry: who waits for it gets :class:`Removed`, its readers are closed."""
        self.removed = Removed(f"path {self.name}", "it was taken out of the model", "wait for something else")
        waits: list[Event] = [*self.awaited, *([self._signal] if self._signal is not None else [])]
        self.awaited.clear()
        self._signal = None
        for wait in waits:
            wait.fail(self.removed)
            wait.defused = True  # who yields it later gets it all the same
        for reader in self._readers:
            reader.close()

    def _last_change(self) -> Change:
        cause, _ = self._env.causality.resolved(self._origin)
        return Change(self.name, self._old, self._value, self.version, units.ticks(float(self._at)), cause)


class Governor(NamedTuple):
    """What depends on the state: may these changes happen, and what follows from them."""

    allow: Callable[[Mapping[str, Any]], Complaint | None]  # all checked changes of one update, by path
    changed: Callable[[], None]  # called once, after all of them are stored


class SimulationRegistry:
    """All values of one environment, by path."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._values: dict[str, DynamicValue] = {}
        self._governors: dict[str, Governor] = {}
        self.free: dict[str, DynamicValue] = {}  # by path, those without a governor
        self.configs: dict[str, Any] = {}  # by path, the live documents
        self.capacities: dict[str, Capacity] = {}
        self.distributions: dict[str, LiveDistribution] = {}
        self._sorted: list[str] | None = None
        self.topology = 0  # raised by every path that is added or taken out

    def declare(
        self,
        path: str,
        type: type_ | None,
        initial: object = None,
        *,
        low: float | None = None,
        high: float | None = None,
        one_of: Iterable[object] | None = None,
        unit: str = "",
        nonfinite: bool = False,
        coalesce: bool = False,
    ) -> DynamicValue:
        """A new value at ``path``; ``initial`` None leaves it unset. For the other arguments see :class:`Rule`.

        Raises:
            ModelError: the path is malformed or taken, there are too many, or the rule makes no sense.
            RuleViolation: ``initial`` breaks the rule.
        """
        self.check_new(path)
        choice = None if one_of is None else tuple(one_of)
        return self.add(Rule(path, type, low, high, choice, unit, nonfinite, coalesce), initial)

    def add(self, rule: Rule, initial: object = None) -> DynamicValue:
        """A new value with ``rule``; otherwise as :meth:`declare`."""
        path = rule.path
        self.check_new(path)
        value = DynamicValue(self, rule, None if initial is None else rule.check(initial))
        self._values[path] = self.free[path] = value
        self._sorted = None
        self.topology += 1
        return value

    def remove(self, path: str) -> None:
        """Take a value out: it refuses updates, and who waits for it gets :class:`Removed`.

        Raises:
            UnknownPath: there is none.
            ModelError: the path belongs to a resource or a distribution, or the call comes from outside a sealed run.
        """
        self.check_writable(f"removal of {shown(path)}")
        if self.get(path).name not in self.free:
            raise ModelError(
                f"removal of {path}", "it belongs to a resource or a distribution", "remove that as a whole"
            )
        self.drop([path])

    def drop(self, paths: Iterable[str]) -> None:
        """Take values out, governed ones among them: for what governs them."""
        for path in paths:
            value = self._values.pop(path)
            self.free.pop(path, None)
            self._governors.pop(path, None)
            value.end()
        self._sorted = None
        self.topology += 1

    def register_sim_parameter(self, param: SimParameter) -> None:
        """Declare all parameters of a unit; a resource at one of the paths then takes its capacity from there.

        Raises:
            ModelError: a path is malformed or taken.
            RuleViolation: a parameter is out of its range.
        """
        register(self, param)
        self.configs[param.sim_id] = param

    def get_config(self, path: str) -> Any:
        """The live document at ``path``, in step with all updates: a distribution, a capacity, a breakdown, a SimParameter.

        Raises:
            UnknownPath: there is none.
        """
        try:
            return self.configs[path]
        except (KeyError, TypeError):
            raise self._unknown(path) from None

    def get(self, path: str) -> DynamicValue:
        """The value at ``path``.

        Raises:
            UnknownPath: there is none; the message names up to three that are spelled alike.
        """
        try:
            return self._values[path]
        except (KeyError, TypeError):  # TypeError: a path that is not hashable is also no path of ours
            raise self._unknown(path) from None

    def rule(self, path: str) -> Rule:
        """The static rule of ``path``, for the gate. Raises UnknownPath."""
        return self.get(path).rule

    def update(self, path: str, value: object) -> None:
        """Change one value. Raises as :meth:`update_many`."""
        self.check_writable(path)
        complaint = self.change(((path, value),))
        if complaint is not None:
            raise complaint[1]

    def update_many(self, changes: Mapping[str, object]) -> None:
        """Change all values or none, in the order given.

        Raises:
            UnknownPath: one of the paths does not exist.
            RuleViolation: one of the rules, or the state after the whole update, forbids it.
            ModelError: called from outside a sealed run.
        """
        self.check_writable(next(iter(changes), ""))
        complaint = self.change(tuple(changes.items()))
        if complaint is not None:
            raise complaint[1]

    def change(self, changes: Sequence[tuple[Any, object]]) -> Complaint | None:
        """As :meth:`update_many`, for ``Environment.apply``: says what is wrong instead of raising, asks for no leave.

        Of two values for one path the last counts.
        """
        if len(changes) == 1:
            path, value = changes[0]
            variable = self.free.get(path) if isinstance(path, str) else None
            if variable is not None:  # the common input, in one pass
                try:
                    variable.store(variable.rule.check(value))
                except RuleViolation as error:
                    return path, error
                return None
        return self._change_together(changes)

    def _change_together(self, changes: Sequence[tuple[Any, object]]) -> Complaint | None:
        planned: dict[str, Any] = {}
        for path, value in changes:
            try:
                planned[path] = self.get(path).rule.check(value)
            except ModelError as error:
                return path, error
        governors = self._governors_of(planned)
        for governor in governors:
            complaint = governor.allow(planned)
            if complaint is not None:
                return complaint
        for path, new in planned.items():
            self._values[path].store(new)
        for governor in governors:
            governor.changed()
        return None

    def _governors_of(self, planned: Mapping[str, Any]) -> list[Governor]:
        found = [governor for path in planned if (governor := self._governors.get(path)) is not None]
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def take_quiet(self, inputs: Sequence[Input], start: int, end_s: float) -> int:
        """Store ``inputs`` from ``start`` on, as far as each is one float as its path takes it, nobody waits for it, and it
        is not behind ``end_s``. The index of the first that is not stored.

        As :meth:`DynamicValue.take` does it, in one loop: most inputs are these, and nothing follows from them.
        """
        free = self.free
        for at in range(start, len(inputs)):
            given = inputs[at]
            now = given.tick / units.TICKS_PER_SECOND
            changes = given.changes
            if now > end_s or len(changes) != 1:
                return at
            path, value = changes[0]
            variable = free.get(path)
            if (
                variable is None
                or type(value) is not float
                or not variable._low <= value <= variable._high
                or variable._signal is not None
                or variable._readers
                or variable.awaited
            ):
                return at
            old = variable._value
            if type(old) is not float or old != value:
                variable._old = old
                variable._value = value
                variable.version += 1
                variable._at = now
                variable._origin = given
        return len(inputs)

    def govern(
        self,
        paths: Iterable[str],
        allow: Callable[[Mapping[str, Any]], Complaint | None],
        changed: Callable[[], None],
    ) -> None:
        """Let ``allow`` judge, and ``changed`` follow, every update of one of ``paths``; one governor per path."""
        governor = Governor(allow, changed)
        for path in paths:
            self._governors[self.get(path).name] = governor
            self.free.pop(path, None)

    def paths(self, prefix: str = "") -> list[str]:
        """All paths that begin with ``prefix``, sorted."""
        ordered = self._in_order()
        return ordered[bisect_left(ordered, prefix) : bisect_left(ordered, prefix + "\x7f")]

    def values(self) -> dict[str, Any]:
        """Path to present value, sorted by path."""
        return {path: self._values[path].value for path in self._in_order()}

    def state(self) -> dict[str, list[Any]]:
        """Path to [value, version], sorted by path: what a digest of the state takes in."""
        return {path: [(value := self._values[path]).value, value.version] for path in self._in_order()}

    def changed_topology(self) -> str | None:
        """The first path by which an update has changed what a line is made of; None if none did."""
        for path in self._in_order():
            value = self._values[path]
            if path.endswith(".topology") and path in self._governors and value.value is not None:
                return path
        return None

    def resume(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Take over what :meth:`state` gave elsewhere. Nobody is told: those who would be do not wait yet.

        Raises:
            ModelError: a path is not declared, or the values do not fit it.
        """
        planned: dict[Governor, dict[str, Any]] = {}
        for path, (value, version) in state.items():
            if path not in self._values:
                raise ModelError(f"path {path}", "the cut has it, and build did not declare it", "declare it in build")
            self._values[path].resume(value, version)
            governor = self._governors.get(path)
            if governor is not None and value is not None:
                planned.setdefault(governor, {})[path] = value
        for governor, values in planned.items():
            complaint = governor.allow(values)
            if complaint is not None:
                raise complaint[1]
            governor.changed()

    def _in_order(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self._values)
        return self._sorted

    def rules(self) -> list[Rule]:
        """The rules of all paths, in the order of declaration."""
        return [value.rule for value in self._values.values()]

    def mirror(self, rules: Iterable[Rule]) -> None:
        """Have these paths and no others: for a picture of the registry of another process. Nobody who waits is told."""
        before = self._values
        self._values = {
            rule.path: before[rule.path]
            if rule.path in before and before[rule.path].rule == rule
            else DynamicValue(self, rule, None)
            for rule in rules
        }
        self._sorted = None

    def show(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Have the values of another registry's ``state()``, as far as their paths are here. Nobody who waits is told."""
        for path, (value, version) in state.items():
            if path in self._values:
                self._values[path].show(value, version)

    def check_writable(self, what: str) -> None:
        """Raise ModelError if nothing may be changed now: between the slices of a sealed run."""
        if not self.env.writable:
            raise ModelError(
                f"change of {what} from outside the run",
                "only a journaled input or the model changes a model",
                "connect a source, e.g. sources.schedule",
            )

    def check_new(self, path: object) -> None:
        """Raise ModelError if no value can be declared at ``path`` now."""
        self.check_writable(f"declaration of {shown(path)}")
        if not isinstance(path, str) or len(path) > PATH_BYTES_MAX or not _PATH.fullmatch(path):
            raise ModelError(
                f"path {shown(path)}",
                f"segments of A-Z a-z 0-9 _ - joined by dots, at most {PATH_BYTES_MAX} bytes",
                "rename it",
            )
        if path.partition(".")[0] == "system":
            raise ModelError(f"path {path}", "what begins with system is said by the run itself", "rename it")
        if path in self._values:
            raise ModelError(
                f"path {path}", "it is declared already", "choose another name, or get() the one that exists"
            )
        if len(self._values) >= PATHS_MAX:
            raise ModelError(f"path {path}", f"at most {PATHS_MAX} paths", "group readings into one list or object")

    def _unknown(self, path: object) -> UnknownPath:
        near: list[str] = []
        if isinstance(path, str) and len(path) <= PATH_BYTES_MAX:
            ordered = self._in_order()
            at = max(0, bisect_left(ordered, path) - _NEIGHBOURS // 2)
            near = get_close_matches(path, ordered[at : at + _NEIGHBOURS], n=3)
        action = (
            f"did you mean {', '.join(near)}?" if near else "declare it, or list what there is with registry.paths()"
        )
        return UnknownPath(f"path {shown(path)}", "no such path", action)
