"""LPs as Python objects, and the ways to keep the state before an event.

``copy``: the fields as a tuple, arrays copied. ``undo``: a log of the assignments (arrays are copied).
``periodic:K``: a copy before every K-th event, and back by executing again. ``delta``: the fields that the event has changed. ``reverse``:
nothing; the reverse handler goes back. ``custom``: whatever ``save(self)`` returns, for ``load(self, saved)``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from tidewarp.errors import ModelError, RangeError, ReverseMismatch
from tidewarp.kernel.context import Context, Undo
from tidewarp.kernel.kinds import Field, Form
from tidewarp.kernel.lp import LogicalProcess, form_of_lp, policy_of, reverses_of
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import CheckedObjects, Objects, logged, slotted
from tidewarp.kernel.records import Event, Image

__all__ = ["ObjectsExecutor"]


class Saving:
    """How one class keeps the state before an event; ``copy`` is this base.

    ``save`` makes what ``restore`` takes; ``seal`` may reduce it (in place, so it is a list then) when the event is executed.
    """

    coasts = False
    seals = False

    def __init__(self, cls: type[LogicalProcess]) -> None:
        form = form_of_lp(cls)
        self._names = ("_draws", "_sends", *form.names)
        self._arrays = [(place + 2, field) for place, field in enumerate(form.fields) if field.shape]
        self._get = attrgetter(*self._names)

    def save(self, state: Any) -> Any:
        """What ``restore`` needs to come back to here."""
        return self._image(state)

    def restore(self, state: Any, saved: Any) -> None:
        """Back to where ``saved`` was made."""
        self._load(state, saved)

    def seal(self, state: Any, saved: Any, event: Event, noted: int) -> None:
        """The event after ``save`` is executed."""

    def _image(self, state: Any) -> tuple[Any, ...]:
        values = self._get(state)
        return self._copied(values) if self._arrays else values

    def _load(self, state: Any, image: tuple[Any, ...]) -> None:
        for name, value in zip(self._names, self._copied(image) if self._arrays else image, strict=True):
            setattr(state, name, value)

    def _copied(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        copies = list(values)
        for place, field in self._arrays:
            copies[place] = _copy_array(copies[place], field)
        return tuple(copies)


class Periodic(Saving):
    """A copy before every K-th event of the LP."""

    coasts = True

    def __init__(self, cls: type[LogicalProcess], interval: int) -> None:
        super().__init__(cls)
        self._interval = interval
        self._since: dict[int, int] = {}

    def save(self, state: Any) -> Any:
        """A copy, or None where the last one is near enough."""
        since = self._since.get(id(state), self._interval)
        if since >= self._interval:
            self._since[id(state)] = 1
            return self._image(state)
        self._since[id(state)] = since + 1
        return None

    def restore(self, state: Any, saved: Any) -> None:
        """Load the copy; it may be gone now, so the next event gets one of its own."""
        self._since.pop(id(state), None)
        self._load(state, saved)


class Log(Saving):
    """The assignments of the event, newest last; states are of :func:`~tidewarp.kernel.objects.logged` classes."""

    def save(self, state: Any) -> list[tuple[str, Any]]:
        """A log that the state writes to from here on, begun with copies of the arrays."""
        log = [(field.name, _copy_array(getattr(state, field.name), field)) for _, field in self._arrays]
        object.__setattr__(state, "_log", log)
        return log

    def restore(self, state: Any, saved: list[tuple[str, Any]]) -> None:
        """Assign the old values, newest first."""
        object.__setattr__(state, "_log", None)
        for name, value in reversed(saved):
            setattr(state, name, value)

    def seal(self, state: Any, saved: Any, event: Event, noted: int) -> None:
        """Close the log."""
        object.__setattr__(state, "_log", None)


class Delta(Saving):
    """The fields that the event has changed."""

    seals = True

    def save(self, state: Any) -> list[Any]:
        """Everything, until it is known what changes."""
        return [self._image(state)]

    def seal(self, state: Any, saved: list[Any], event: Event, noted: int) -> None:
        """Keep the old values of the changed fields alone."""
        now = self._get(state)
        floats = {place for place, field in self._arrays if field.kind.code == "d"}
        arrays = {place for place, _ in self._arrays}
        saved[0] = {
            place: old
            for place, (old, new) in enumerate(zip(saved[0], now, strict=True))
            if place in floats or (old != new if place in arrays else old is not new)
        }

    def restore(self, state: Any, saved: list[Any]) -> None:
        """Put these fields back."""
        if isinstance(saved[0], tuple):  # the event failed
            self._load(state, saved[0])
            return
        for place, old in saved[0].items():
            setattr(state, self._names[place], old)


class Reverse(Saving):
    """The reverse handlers; draws and sends are put back here. A failed event goes back by a copy."""

    seals = True

    def __init__(self, cls: type[LogicalProcess], check: bool) -> None:
        super().__init__(cls)
        self._cls = cls
        self._reverses = reverses_of(cls)
        self._check = check

    def save(self, state: Any) -> list[Any]:
        """A copy, until the event has ended well."""
        return [self._image(state)]

    def seal(self, state: Any, saved: list[Any], event: Event, noted: int) -> None:
        """Forget the copy; keep what the reverse handler is called with.

        Raises:
            ReverseMismatch: the check is on, and the reverse handler does not bring the old bytes back.
        """
        image = saved[0]
        reversal = [None, image[0], image[1], noted, event]
        if self._check:
            after = self._image(state)
            self._reverse(state, reversal)
            self._compare(image, self._image(state), event)
            self._load(state, after)
        saved[:] = reversal

    def restore(self, state: Any, saved: list[Any]) -> None:
        """Run the reverse handler."""
        if saved[0] is not None:
            self._load(state, saved[0])
        else:
            self._reverse(state, saved)

    def _reverse(self, state: Any, reversal: list[Any]) -> None:
        _, draws, sends, noted, event = reversal
        message = event[5]
        try:
            self._reverses[type(message)](state, event[0], message, Undo(noted))
        except Exception as error:
            raise ReverseMismatch(
                f"{self._cls.__name__}, {type(message).__name__} at {event[:5]}: {type(error).__name__}: {error}",
                "its reverse handler raised",
                "mend it, or choose another saving",
            ) from error
        state._draws, state._sends = draws, sends

    def _compare(self, before: tuple[Any, ...], after: tuple[Any, ...], event: Event) -> None:
        for field, old, new in zip(form_of_lp(self._cls).fields, before[2:], after[2:], strict=True):
            if _bytes_of(field, old) != _bytes_of(field, new):
                raise ReverseMismatch(
                    f"{self._cls.__name__}.{field.name} after {type(event[5]).__name__} at {event[:5]} and back: {new!r}",
                    f"it was {old!r}",
                    "mend the reverse handler, or choose another saving",
                )


class Custom(Saving):
    """The class's own ``save`` and ``load``."""

    def save(self, state: Any) -> tuple[int, int, Any]:
        """The hidden words and what ``save`` returns."""
        return state._draws, state._sends, state.save()

    def restore(self, state: Any, saved: tuple[int, int, Any]) -> None:
        """Hand it to ``load``."""
        state.load(saved[2])
        state._draws, state._sends = saved[:2]


class ObjectsExecutor:
    """Runs the handlers of a model's LPs as Python objects, under the classes' policies or ``saving`` for all.

    ``check``: rows are looked at, and reverse handlers tried, after every event.
    """

    def __init__(self, model: Model, image: Image, saving: str | None = None, check: bool = False) -> None:
        policies = {cls: _policy(cls, saving, check) for cls in model.classes}
        self.objects = (CheckedObjects if check else Objects)(
            model, image, lambda cls: logged(cls) if isinstance(policies[cls], Log) else slotted(cls)
        )
        self._model = model
        self._savings = [policies[group.cls] for group in model.groups for _ in range(group.count)]
        self._open: Any = None

    def save(self, lp: int) -> Any:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        self._open = saved = self._savings[lp].save(self.objects.states[lp])
        return saved

    def restore(self, lp: int, saved: Any) -> None:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        self._savings[lp].restore(self.objects.states[lp], saved)

    def execute(self, event: Event) -> Context:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        saved, self._open = self._open, None
        objects = self.objects
        objects.execute(event)
        if saved is not None:
            lp = event[2]
            self._savings[lp].seal(objects.states[lp], saved, event, objects.context.noted)
        return objects.context

    def coasts(self, lp: int) -> bool:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        return self._savings[lp].coasts

    def same(self, a: Event, b: Event) -> bool:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        if type(a[5]) is not type(b[5]):
            return False
        form = self._model.message_forms[self._model.message_index[type(a[5])]]
        try:
            return form.pack(a[5]) == form.pack(b[5])
        except RangeError:
            return False


def _policy(cls: type[LogicalProcess], saving: str | None, check: bool) -> Saving:
    policy, interval = policy_of(cls, saving)
    if policy == "periodic":
        return Periodic(cls, interval)
    if policy == "reverse":
        return Reverse(cls, check)
    return {"copy": Saving, "undo": Log, "delta": Delta, "custom": Custom}[policy](cls)


def _copy_array(value: Any, field: Field) -> Any:
    return value.copy() if len(field.shape) == 1 else [_copy_part(part, len(field.shape) - 1) for part in value]


def _copy_part(value: Any, depth: int) -> Any:
    return value.copy() if depth == 1 else [_copy_part(part, depth - 1) for part in value]


def _bytes_of(field: Field, value: Any) -> Any:
    try:
        return Form("", [field]).pack((value,))
    except ModelError:
        return repr(value)
