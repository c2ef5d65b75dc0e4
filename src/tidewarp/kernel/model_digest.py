"""The digest that names a model: what it is made of, part by part."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import FunctionType
from typing import TYPE_CHECKING

from tidewarp.codec import Digest
from tidewarp.kernel.kinds import Form
from tidewarp.kernel.lp import LogicalProcess, form_of_lp, methods_of
from tidewarp.kernel.source import constants_of, functions_of, tokens_of

if TYPE_CHECKING:
    from tidewarp.kernel.model import Model

__all__ = ["model_digest"]


def model_digest(model: Model) -> str:
    """SHA-256 labelled ``TWMODEL1`` over the name and all parts of a frozen model, as 64 digits."""
    digest = Digest("TWMODEL1")
    digest.add(model.name.encode())
    for part in itertools.chain(_class_parts(model), _structure_parts(model)):
        digest.add(part)
    return digest.hexdigest()


def _class_parts(model: Model) -> Iterable[bytes]:
    for message, form in zip(model.messages, model.message_forms, strict=True):
        yield _described("message", message.__name__, form)
    for cls in model.classes:
        yield _described(f"lp speculative={cls.speculative}", cls.__name__, form_of_lp(cls))
        yield from (tokens_of(method) for method in _functions_of(cls))
        yield from _attributes_of(cls)
    roots = [method for cls in model.classes for method in methods_of(cls)]
    for function in functions_of(roots):
        yield tokens_of(function)
    yield from constants_of(roots)


def _functions_of(cls: type) -> list[FunctionType]:
    """Handlers, and what else the class defines: in the Python tier they may call it."""
    bases = reversed(cls.__mro__[: cls.__mro__.index(LogicalProcess)])
    found = {name: value for base in bases for name, value in vars(base).items() if isinstance(value, FunctionType)}
    return list(found.values())


def _attributes_of(cls: type) -> Iterable[bytes]:
    """Constants of the class, which handlers read as ``self.NAME``."""
    hidden = set(vars(LogicalProcess))  # saving does not count
    for base in reversed(cls.__mro__[: cls.__mro__.index(LogicalProcess)]):
        for name, value in vars(base).items():
            if name not in hidden and isinstance(value, (int, float, str, tuple)) and not name.startswith("__"):
                yield f"{name}={value!r}".encode()


def _structure_parts(model: Model) -> Iterable[bytes]:
    if model.params_form is not None:
        yield _described("params", model.params_form.name, model.params_form) + model.params_form.pack(model.params)
    yield f"lookahead {model.lookahead} trace {model.trace_interval}".encode()
    for group in model.groups:
        form = form_of_lp(group.cls)
        yield f"group {group.path} {group.cls.__name__} {group.first} {group.count}".encode()
        yield b"".join(form.pack(values, group.path) for values in model.initial_values(group))
    for name, table in model.tables.items():
        yield f"table {name} {table.dtype.str[1:]} {list(table.shape)}".encode()
        yield table.astype(table.dtype.newbyteorder(">")).tobytes()
    for accumulator in model.accumulators:
        yield f"accumulator {accumulator.name} {accumulator.kind} {accumulator.publish_every}".encode()
    for source in model.sources:
        yield f"input {source.name}".encode()
    if model.links is not None:
        yield b"links"
        for array in model.links:
            yield array.astype(">i8").tobytes()


def _described(what: str, name: str, form: Form) -> bytes:
    fields = " ".join(f"{field.name}:{field.kind.name}{list(field.shape) or ''}" for field in form.fields)
    return f"{what} {name} {fields}".encode()
