"""Logical processes: their base class, the marks of their handlers, and the rules that every class keeps.

    class Process(LogicalProcess):          annotated fields are the whole state
        hits: i64

        @on(Ball)                           one handler for each message class
        def receive(self, now, ball, ctx):
            self.hits += 1
            ctx.send(ctx.lp, 10, ball)

The same source is interpreted (:mod:`tidewarp.kernel.objects`) and compiled (:mod:`tidewarp.kernel.compiled`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar, TypeVar

from tidewarp.errors import ModelError, OperatorError
from tidewarp.kernel.kinds import Form, form_of
from tidewarp.kernel.source import has_source, text_of

__all__ = [
    "LogicalProcess",
    "check_class",
    "check_message",
    "form_of_lp",
    "handlers_of",
    "methods_of",
    "on",
    "parse_saving",
    "policy_of",
    "reverse",
    "reverses_of",
]

SAVINGS = ("copy", "periodic", "delta", "reverse", "undo", "custom")

Handler = TypeVar("Handler", bound=Callable[..., None])


def on(message: type) -> Callable[[Handler], Handler]:
    """Mark a method ``(self, now, message, ctx)`` of a LogicalProcess as the handler of ``message``, a NamedTuple class."""

    def mark(method: Handler) -> Handler:
        method.handles = message  # type: ignore[attr-defined]
        return method

    return mark


def reverse(message: type) -> Callable[[Handler], Handler]:
    """Mark a method ``(self, now, message, undo)`` as the inverse of the handler of ``message``.

    It puts the fields back as they were before the handler ran. ``undo.bits`` is what the handler noted with
    ``ctx.note``; draws and the numbers of sends are put back by the kernel.
    """

    def mark(method: Handler) -> Handler:
        method.reverses = message  # type: ignore[attr-defined]
        return method

    return mark


class LogicalProcess:
    """Base of all LP classes: annotated fields are the whole state and start as zero.

    A handler is a function of (self, now, message, draws). It may run several times, on states that never become
    real, and be undone; so it changes nothing but ``self`` and calls nothing but ``ctx``, functions marked
    with :func:`~tidewarp.kernel.function`, and :mod:`math`'s exact operations. Delays are whole ticks >= 0; a send to
    another LP keeps the lookahead that the model declares. An exception counts only if its event is committed. A
    handler must end for every state of the declared kinds, odd ones too: bound its loops by the fields.
    A number has its kind from when it is assigned, sent or emitted (:mod:`~tidewarp.kernel.kinds`).

    Options of the class statement:

    ``speculative=False``
        its events run only when they are final (in key order, never undone): for what cannot be taken back.
    ``saving="copy"``
        how the state before an event is kept: ``copy``, ``periodic:K``, ``delta``, ``reverse``, ``undo`` (Python tier) or
        ``custom`` (Python tier; with methods ``save(self)`` and ``load(self, saved)``). The digest does not depend on it.
    """

    __slots__ = ()

    speculative: ClassVar[bool] = True
    saving: ClassVar[str] = "copy"
    saving_interval: ClassVar[int] = 1

    def __init_subclass__(cls, speculative: bool | None = None, saving: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if speculative is not None:
            cls.speculative = speculative
        if saving is not None:
            cls.saving, cls.saving_interval = parse_saving(saving, cls.__name__)

    def start(self, ctx: Any) -> None:
        """Called once before the run, in LP order: may draw and send, not emit."""


def parse_saving(text: str, owner: str) -> tuple[str, int]:
    """("periodic", 16) of "periodic:16"; 1 for the other policies.

    Raises:
        ModelError: no such policy.
    """
    policy, _, interval = text.partition(":")
    if policy not in SAVINGS or (policy == "periodic") != bool(interval) or (interval and not interval.isdecimal()):
        raise ModelError(
            f"{owner} saving {text!r}",
            "a policy is copy, periodic:K, delta, reverse, undo or custom",
            "choose one of them",
        )
    if interval and not 1 <= int(interval) <= 10_000:
        raise ModelError(f"{owner} saving {text!r}", "K is 1 to 10000 events", "choose another K")
    return policy, int(interval or 1)


def policy_of(cls: type[LogicalProcess], option: str | None) -> tuple[str, int]:
    """How the state of a class is kept: its own policy, or the run's ``option``, with the interval of "periodic".

    Raises:
        OperatorError: the option asks for methods that the class does not have.
    """
    policy, interval = (cls.saving, cls.saving_interval) if option is None else parse_saving(option, "option")
    if policy == "reverse" and set(reverses_of(cls)) != set(handlers_of(cls)):
        raise OperatorError('saving "reverse"', f"{cls.__name__} has no reverse handlers", "choose another saving")
    if policy == "custom" and not all(hasattr(cls, name) for name in ("save", "load")):
        raise OperatorError('saving "custom"', f"{cls.__name__} has no save and load", "choose another saving")
    return policy, interval


_FORMS: dict[type, Form] = {}


def form_of_lp(cls: type[LogicalProcess]) -> Form:
    """The form of an LP class: fields of its bases first."""
    if cls not in _FORMS:
        _FORMS[cls] = form_of(cls, LogicalProcess)
    return _FORMS[cls]


def methods_of(cls: type) -> list[FunctionType]:
    """``start``, handlers, reverse handlers, ``save`` and ``load`` of an LP class, in the order of definition, bases first."""
    bases = reversed(cls.__mro__[: cls.__mro__.index(LogicalProcess)])
    found = {name: value for base in bases for name, value in vars(base).items() if _is_contract(name, value)}
    return list(found.values())


def _is_contract(name: str, value: object) -> bool:
    marked = hasattr(value, "handles") or hasattr(value, "reverses")
    return isinstance(value, FunctionType) and (marked or name in ("start", "save", "load"))


def handlers_of(cls: type) -> dict[type, FunctionType]:
    """The handler of each message class."""
    return {method.handles: method for method in methods_of(cls) if hasattr(method, "handles")}


def reverses_of(cls: type) -> dict[type, FunctionType]:
    """The reverse handler of each message class."""
    return {method.reverses: method for method in methods_of(cls) if hasattr(method, "reverses")}


def check_class(cls: type[LogicalProcess]) -> None:
    """Refuse an LP class that no engine could run."""
    _check_stores(cls)
    marked = [method for method in methods_of(cls) if hasattr(method, "handles")]
    messages = [method.handles for method in marked]
    for message in messages:
        check_message(message)
        if messages.count(message) > 1:
            names = ", ".join(method.__name__ for method in marked if method.handles is message)
            raise ModelError(f"{cls.__name__}: {names}", f"one handler takes {message.__name__}", "merge them")
    for message in reverses_of(cls):
        if message not in messages:
            raise ModelError(
                f"{cls.__name__}: reverse of {message.__name__}",
                "a reverse handler belongs to a handler",
                "add the handler",
            )
    if cls.saving == "reverse" and set(reverses_of(cls)) != set(messages):
        missing = ", ".join(message.__name__ for message in messages if message not in reverses_of(cls))
        raise ModelError(
            f'{cls.__name__} saving "reverse"',
            f"no reverse handler of {missing}",
            "write one for each message, or choose another saving",
        )
    if cls.saving == "custom" and not all(callable(getattr(cls, name, None)) for name in ("save", "load")):
        raise ModelError(
            f'{cls.__name__} saving "custom"',
            "it needs methods save(self) and load(self, saved)",
            "add them, or choose another saving",
        )


def _check_stores(cls: type[LogicalProcess]) -> None:
    """Refuse `self.cells = other`: interpreted, two names would share one list, and compiled they would not."""
    arrays = {field.name for field in form_of_lp(cls).fields if field.shape}
    for method in methods_of(cls):
        if not arrays or method.__name__ in ("save", "load") or not has_source(method):
            continue
        for node in ast.walk(ast.parse(text_of(method))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in arrays:
                raise ModelError(
                    f"{method.__qualname__} assigns to {ast.unparse(node)}",
                    "an array field is changed place by place",
                    f"write {ast.unparse(node)}[i] = ... in a loop",
                )


def check_message(message: Any) -> None:
    """Refuse a message class that is no NamedTuple of kernel kinds."""
    if not (isinstance(message, type) and issubclass(message, tuple) and hasattr(message, "_fields")):
        raise ModelError(
            f"message {message!r}", "a message class is a typing.NamedTuple", "declare class Message(NamedTuple)"
        )
    form_of(message)
