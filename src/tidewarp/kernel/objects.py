"""LPs as Python objects: what every engine of the Python tier executes.

Each LP is an instance of its own class, rebuilt with slots: a handler that assigns to anything but a declared field
fails, because such a value would not be undone, hashed or saved.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any

from tidewarp.errors import HandlerError, InternalError, ModelError, RangeError, TidewarpError, UnhandledMessage
from tidewarp.kernel.context import Context
from tidewarp.kernel.kinds import Field, Form, fit_of
from tidewarp.kernel.lp import LogicalProcess, form_of_lp, handlers_of
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import HIDDEN, Event, Image, framed, pack_event, split_rows
from tidewarp.seeds import stream_key

__all__ = ["CheckedObjects", "Objects", "initial_image", "logged", "slotted"]

_SLOTS = ("_draws", "_gamma", "_key", "_sends")


class Objects:
    """The LPs of a model in the state of an image, and the context that their handlers are called with.

    ``blank_of`` gives the class that an LP class is executed as: :func:`slotted`, or :func:`logged`.
    """

    def __init__(
        self, model: Model, image: Image, blank_of: Callable[[type[LogicalProcess]], type] | None = None
    ) -> None:
        self.model = model
        self.context = Context(model)
        self.states: list[Any] = []
        self._lps: list[tuple[Any, dict[type, FunctionType]]] = []  # state and handlers of each
        for group, rows in zip(model.groups, image.rows, strict=True):
            form = form_of_lp(group.cls)
            blank = (blank_of or slotted)(group.cls)
            handlers = handlers_of(group.cls)
            for place, row in enumerate(split_rows(form, rows, group.count)):
                state = blank()
                state._key, state._gamma = stream_key(model.seed, model.path(group.first + place))
                self.states.append(state)
                self._lps.append((state, handlers))
                self.set_row(group.first + place, row)

    def execute(self, event: Event) -> None:
        """Call the handler of one event; what it sent, emitted and added is in ``context``.

        Raises:
            ModelError: the handler did what no handler may; its LP is left as far as it came.
        """
        now, generation, lp, _, _, message = event
        state, handlers = self._lps[lp]
        context = self.context
        context._state = state  # Context.begin, written out: it is called for every event
        context.lp = lp
        context.now = now
        context.generation = generation
        context.noted = 0
        context.sends = []
        if context.emitted:
            context.emitted = []
        if context.adds:
            context.adds = []
        try:
            if handlers[type(message)](state, now, message, context) is not None:
                self._refuse_result(event)
        except RangeError as error:
            raise self._placed(event, error) from error
        except (ModelError, InternalError):
            raise
        except KeyError as error:
            if type(message) in handlers:
                raise self._failure(event, error) from error
            self._refuse_message(event)
        except Exception as error:
            raise self._failure(event, error) from error

    def row(self, lp: int) -> bytes:
        """The row of one LP in its byte form.

        Raises:
            RangeError: a field that its kind cannot hold.
        """
        state = self.states[lp]
        form = form_of_lp(type(state))
        values = [getattr(state, name) for name in form.names]
        return HIDDEN.pack(state._draws, state._sends) + form.pack(values, self.model.path(lp))

    def set_row(self, lp: int, row: bytes | memoryview) -> None:
        """Put one LP into the state of a row."""
        state = self.states[lp]
        state._draws, state._sends = HIDDEN.unpack_from(row)
        form = form_of_lp(type(state))
        for name, value in zip(form.names, form.unpack(row[HIDDEN.size :]), strict=True):
            setattr(state, name, value)

    def fields(self, lp: int) -> dict[str, Any]:
        """The fields of one LP by name; arrays are lists of their own."""
        form = form_of_lp(type(self.states[lp]))
        return dict(zip(form.names, form.unpack(self.row(lp)[HIDDEN.size :]), strict=True))

    def image(self, pending: list[Event]) -> Image:
        """The state as bytes, with these events (in any order) still to come."""
        rows = []
        for group in self.model.groups:
            parts = [self.row(lp) for lp in range(group.first, group.first + group.count)]
            rows.append(b"".join(parts) if form_of_lp(group.cls).fixed else framed(parts))
        return Image(tuple(rows), framed(pack_event(self.model, event) for event in sorted(pending, key=_key)))

    def _failure(self, event: Event, error: Exception) -> HandlerError:
        return HandlerError(
            f"{self.model.path(event[2])} at {event[:5]}: {type(error).__name__}: {error}",
            f"its handler of {type(event[5]).__name__} raised",
            "mend the handler; everything before this event is committed",
        )

    def _placed(self, event: Event, error: RangeError) -> RangeError:
        """The error with path and event key, if it does not say yet where it happened."""
        path = self.model.path(event[2])
        if error.value.startswith(f"{path} at "):
            return error
        return RangeError(f"{path} at {event[:5]}: {error.value.removeprefix(f'{path}: ')}", error.rule, error.action)

    def _refuse_result(self, event: Event) -> None:
        handler = self._lps[event[2]][1][type(event[5])]
        raise ModelError(
            f"{handler.__qualname__} returned a value", "a handler returns nothing", "change self, or send a message"
        )

    def _refuse_message(self, event: Event) -> None:
        name = type(event[5]).__name__
        raise UnhandledMessage(
            f"{self.model.path(event[2])} at {event[:5]}: a {name} from {self.model.path(event[3])}",
            f"{self.model.class_of(event[2]).__name__} has no handler of it",
            f"add one with @on({name}), or send it elsewhere",
        )


class CheckedObjects(Objects):
    """Objects whose rows are looked at after every event: what their kinds cannot hold is an error of that event."""

    def execute(self, event: Event) -> None:
        """As in the base.

        Raises:
            RangeError: also a field of i64 or u64 that its kind cannot hold.
        """
        super().execute(event)
        try:
            self.row(event[2])
        except RangeError as error:
            raise self._placed(event, error) from error


def initial_image(model: Model) -> Image:
    """The state before the first event: fields as given, then ``start`` of every LP in LP order.

    Raises:
        ModelError: a ``start`` that does what no handler may.
    """
    model.freeze()
    rows = []
    for group in model.groups:
        form = form_of_lp(group.cls)
        parts = [HIDDEN.pack(0, 0) + form.pack(values, group.path) for values in model.initial_values(group)]
        rows.append(b"".join(parts) if form.fixed else framed(parts))
    objects = Objects(model, Image(tuple(rows), b""))
    pending: list[Event] = []
    for lp, state in enumerate(objects.states):
        objects.context.begin(state, lp, 0, 0)
        _start(objects, lp)
        pending += objects.context.sends
    return objects.image(pending)


def _start(objects: Objects, lp: int) -> None:
    context = objects.context
    try:
        objects.states[lp].start(context)
    except RangeError as error:
        raise objects._placed((0, 0, lp, lp, 0, None), error) from error
    except TidewarpError:
        raise
    except Exception as error:
        path = objects.model.path(lp)
        raise HandlerError(f"{path}: {type(error).__name__}: {error}", "its start raised", "mend start()") from error
    if context.emitted or context.adds:
        raise ModelError(
            f"start of {objects.model.path(lp)}",
            "it may draw and send, not emit or add",
            "send a message and emit there",
        )


def _key(event: Event) -> tuple[int, int, int, int, int]:
    return event[:5]


_BLANKS: dict[type, type] = {}
_LOGGED: dict[type, type] = {}


def slotted(cls: type[LogicalProcess]) -> type:
    """The same class with slots for its fields and nothing else."""
    if cls not in _BLANKS:
        names = form_of_lp(cls).names
        body: dict[str, Any] = {}
        for base in reversed(cls.__mro__[: cls.__mro__.index(LogicalProcess)]):
            body |= vars(base)
        for name in (*names, "__dict__", "__weakref__", "__slots__"):
            body.pop(name, None)
        body["__slots__"] = (*names, *_SLOTS)
        blank = type(cls.__name__, (LogicalProcess,), body)
        for field in form_of_lp(cls).fields:
            if (held := fit_of(field, blank.__name__)) is not None:
                setattr(blank, field.name, _checked_slot(blank, field, *held))
        _share_form(blank, cls)
        _BLANKS[cls] = blank
    return _BLANKS[cls]


def _checked_slot(blank: type, field: Field, wanted: type, fit: Callable[[Any], Any]) -> property:
    """The slot of a field, behind an assignment that makes of every value what its kind holds: only such a field pays for it."""
    slot = vars(blank)[field.name]
    put = slot.__set__
    is_whole = wanted is int

    def assign(state: Any, value: Any) -> None:
        if is_whole or type(value) is not wanted:
            try:
                value = fit(value)
            except (struct.error, TypeError, ValueError, OverflowError):
                Form(blank.__name__, [field]).pack((value,))  # which words what is wrong
                raise
        put(state, value)

    return property(slot.__get__, assign)


def logged(cls: type[LogicalProcess]) -> type:
    """The slotted class with ``_log``: a list that takes (name, old value) of every assignment, or None."""
    if cls not in _LOGGED:
        blank = slotted(cls)
        body = {"__slots__": ("_log",), "__setattr__": _assign_logged, "__init__": _begin_unlogged}
        _LOGGED[cls] = type(cls.__name__, (blank,), body)
        _share_form(_LOGGED[cls], cls)
    return _LOGGED[cls]


def _begin_unlogged(state: Any) -> None:
    object.__setattr__(state, "_log", None)


def _assign_logged(state: Any, name: str, value: Any) -> None:
    if state._log is not None:
        state._log.append((name, getattr(state, name)))
    object.__setattr__(state, name, value)


def _share_form(blank: type, cls: type[LogicalProcess]) -> None:
    from tidewarp.kernel import lp

    lp._FORMS[blank] = form_of_lp(cls)
