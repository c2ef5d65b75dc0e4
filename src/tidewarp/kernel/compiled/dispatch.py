"""The handlers of one model as one compiled function: ``dispatch(address of the context block) -> error code``.

The function stands in a generated file, so that Numba can cache it; what the file names is put into its namespace before it
is executed. Its name in the cache is :func:`digest_of`: over everything that the compiled code depends on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import numba
from numba import njit, types
from numba.core.errors import NumbaError

from tidewarp.codec import Digest
from tidewarp.errors import NotCompilable
from tidewarp.kernel.compiled import layout
from tidewarp.kernel.compiled.context import ContextType, Surroundings, UndoType, native_dtype
from tidewarp.kernel.compiled.handlers import Rewriter, Role
from tidewarp.kernel.compiled.refusals import check_compilable, refusal, refuse
from tidewarp.kernel.compiled.typed import check_typed
from tidewarp.kernel.compiled.words import HOME, array_at, get, kept, put, view
from tidewarp.kernel.context import SENDS_MAX
from tidewarp.kernel.kinds import Form
from tidewarp.kernel.lp import form_of_lp, handlers_of, reverses_of
from tidewarp.kernel.model import Model
from tidewarp.kernel.source import constants_of, functions_of, tokens_of

__all__ = ["HOME", "Dispatch", "digest_of", "in_memory", "names_of", "source_of"]

Dispatch = Callable[[int], int]
OPTIONS = {"boundscheck": True, "error_model": "python", "nogil": True}


def digest_of(model: Model) -> str:
    """Names the compiled code of a model: its handlers and forms, not its parameters, start values, tables' contents or links."""
    model.freeze()
    digest = Digest("TWDISPATCH1")
    for part in _parts(model):
        digest.add(part)
    return digest.hexdigest()


def _parts(model: Model) -> Iterable[bytes]:
    yield numba.__version__.encode()
    for form in (*model.message_forms, *([model.params_form] if model.params_form else [])):
        yield _described(form)
    roots: list[FunctionType] = []
    for cls in model.classes:
        yield _described(form_of_lp(cls))
        for marked in (handlers_of(cls), reverses_of(cls)):
            for message, method in marked.items():
                yield str(model.message_index[message]).encode() + tokens_of(method)
                roots.append(method)
    for function in functions_of(roots):
        yield tokens_of(function)
    yield from constants_of(roots)
    for name, table in model.tables.items():
        yield f"{name} {table.dtype.str} {table.shape}".encode()
    yield " ".join(model.accumulator_names).encode()


def _described(form: Form) -> bytes:
    return f"{form.name}: {[(field.name, field.kind.name, field.shape) for field in form.fields]}".encode()


def source_of(model: Model) -> str:
    """The text of the generated file: only numbers, and names that :func:`names_of` gives."""
    lines = ["# Made by tidewarp.kernel.compiled.dispatch; its names are put in when it is loaded.", ""]
    lines += [f"@njit(**{OPTIONS!r})", "def choose(a):", f"    kind = {_get(layout.KIND)}"]
    for c, cls in enumerate(model.classes):
        lines.append(f"    {'el' if c else ''}if {_get(layout.CLASS)} == {c}:")
        lines.append(f"        me = row_{c}({_get(layout.STATE)} + {8 * layout.ROW_HEAD})")
        lines += _branches(model, cls, c)
    lines += ["", f'@njit("int64(int64)", cache=True, **{OPTIONS!r})', "def dispatch(a):"]
    lines += [f"    {_put(word, '0')}" for word in (layout.EFFECTS, layout.ERROR)]
    lines += ["    try:", "        choose(a)", "    except Exception:"]
    lines += [f"        if {_get(layout.ERROR)} == 0:", f"            {_put(layout.ERROR, str(layout.RAISED))}"]
    lines += [
        f"    if {_get(layout.EFFECTS)} > {SENDS_MAX}:",
        "        count_effects(a)",
        f"    return {_get(layout.ERROR)}",
    ]
    return "\n".join(lines) + "\n"


def in_memory(model: Model) -> Dispatch:
    """The dispatcher, compiled now and kept nowhere.

    Raises:
        NotCompilable: as :func:`names_of`.
    """
    names = names_of(model)
    exec(
        compile(source_of(model).replace("cache=True, ", ""), "<dispatch>", "exec"), names
    )  # numbers and names of ours only
    return names["dispatch"]  # type: ignore[no-any-return]


def _branches(model: Model, cls: Any, c: int) -> Iterable[str]:
    word = "if"
    for message in handlers_of(cls):
        k = model.message_index[message]
        yield f"        {word} kind == {k}:"
        yield f"            handler_{c}_{k}(me, {_get(layout.NOW)}, message_{k}({_get(layout.MESSAGE)}), context(a))"
        word = "elif"
    for message in reverses_of(cls):
        k = model.message_index[message]
        yield f"        {word} kind == {layout.REVERSE | k}:"
        yield f"            reverse_{c}_{k}(me, {_get(layout.NOW)}, message_{k}({_get(layout.MESSAGE)}), undo(a))"
        word = "elif"
    if word == "if":
        yield f"        {_put(layout.ERROR, str(layout.UNHANDLED))}"
    else:
        yield "        else:"
        yield f"            {_put(layout.ERROR, str(layout.UNHANDLED))}"


def _get(word: int) -> str:
    return f"get(a + {8 * word})"


def _put(word: int, value: str) -> str:
    return f"put(a + {8 * word}, {value})"


def names_of(model: Model) -> dict[str, Any]:
    """The namespace of the generated file: its handlers, rewritten and typed.

    Raises:
        NotCompilable: a handler outside of the compilable subset, with file, line, construct and rule.
    """
    check_compilable(model)
    digest = digest_of(model)
    forms, accumulators = list(model.message_forms), model.accumulator_names
    around = Surroundings(digest, list(model.messages), forms, model.params_form, model.tables, accumulators)
    context_type, undo_type = ContextType(around), UndoType()
    names: dict[str, Any] = {"__name__": HOME, "njit": njit, "get": get, "put": put, "count_effects": count_effects}
    names |= {"context": context_type.make(), "undo": undo_type.make()}
    compiler = _Compiler(model)
    for k, (message, form) in enumerate(zip(model.messages, forms, strict=True)):
        names[f"message_{k}"] = _message_maker(message, form)
    for c, cls in enumerate(model.classes):
        form = form_of_lp(cls)
        names[f"row_{c}"] = row = _row_maker(form)
        for prefix, marked, last in (
            ("handler", handlers_of(cls), context_type),
            ("reverse", reverses_of(cls), undo_type),
        ):
            for message, method in marked.items():
                k = model.message_index[message]
                arguments = (_returned(row), types.int64, _returned(names[f"message_{k}"]), last)
                names[f"{prefix}_{c}_{k}"] = compiler.handler(method, form, arguments)
    return names


class _Compiler:
    """Compiles the handlers of one model, and checks what Numba made of them."""

    def __init__(self, model: Model) -> None:
        self._rewriter = Rewriter(model.messages, njit(**OPTIONS))

    def handler(self, method: FunctionType, form: Form, arguments: tuple[Any, ...]) -> Any:
        """The compiled handler for these types."""
        parameters = method.__code__.co_varnames[: method.__code__.co_argcount]
        if len(parameters) != 4:
            refuse(_place(method), f"{method.__qualname__}{parameters}", "a handler takes (self, now, message, ctx)")
        is_reverse = isinstance(arguments[3], UndoType)
        role = Role(parameters[0], form, None if is_reverse else parameters[3])
        compiled = njit(**OPTIONS)(self._rewriter.rewritten(method, role))
        try:
            compiled.compile(arguments)
        except NumbaError as error:
            raise _refusal(method, error) from error
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # Numba's own, on what it did not expect
            name = type(error).__name__
            raise refusal(
                _place(method), method.__qualname__, f"Numba fails on it, with {name}: {error}"[:300]
            ) from error
        for dispatcher in (compiled, *self._rewriter.functions.values()):
            check_typed(dispatcher)
        return compiled


_WORDED = {
    operator.setitem: "numbers are stored into array fields of self; a message and a table keep theirs",
    operator.getitem: "an array is read with a whole number: write array[i][j]",
    operator.truth: "a condition is a number, True or False",
}
"""What to say in place of Numba's complaint about a function."""


def _place(method: FunctionType) -> str:
    return f"{method.__code__.co_filename}:{method.__code__.co_firstlineno}"


def _refusal(method: FunctionType, error: NumbaError) -> NotCompilable:
    """Numba's complaint, its line and its last sentence."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [
        line for line in text if line.startswith("File ") and method.__code__.co_filename.rsplit("/", 1)[-1] in line
    ]
    line = places[-1].rsplit("line ", 1)[-1].rstrip(":") if places else str(method.__code__.co_firstlineno)
    reasons = [
        part
        for part in text
        if part.startswith(
            ("TypingError: ", "- Resolution failure", "Cannot", "No implementation", "Unknown attribute")
        )
    ]
    ours = [part for part in reasons if not part.startswith(("- Resolution failure", "TypingError: Failed in"))]
    reasons = ours or reasons  # the others only say that there is one further down
    reason = reasons[-1].removeprefix("TypingError: ") if reasons else text[1] if len(text) > 1 else text[0]
    for function, rule in _WORDED.items():
        if f"Function({function!r})" in reason or f"Function({function!r})" in str(error).splitlines()[1]:
            reason = rule
    return NotCompilable(
        f"{method.__code__.co_filename}:{line}: {method.__qualname__}",
        reason[:300],
        "write it otherwise, or run the model with tier='python'",
    )


def _returned(dispatcher: Any) -> Any:
    return dispatcher.overloads[(types.int64,)].signature.return_type


def _row_maker(form: Form) -> Any:
    """A compiled function: the record of an LP's fields at an address."""
    dtype = native_dtype(form)

    @njit("(int64,)")
    def row(address: Any) -> Any:
        return view(address, dtype)

    return row


def _message_maker(message: Any, form: Form) -> Any:
    """A compiled function: the NamedTuple whose fields lie at an address; small whole numbers come as int64."""
    dtype = native_dtype(form)
    names: dict[str, Any] = {"__name__": HOME, "view": view, "message": message, "dtype": dtype, "int64": types.int64}
    fields = []
    for field in form.fields:
        if field.shape:  # a tuple in Python: nobody stores into it
            kind, at = dtype.fields[field.name][:2] if dtype.fields else (dtype, 0)
            names[f"array_{field.name}"] = array_at(kind.base, field.shape, aligned=False)
            fields.append(f"array_{field.name}(address + {at})")
        elif field.kind.code in "bhiBHI":
            fields.append(f"int64(record.{field.name})")
        else:
            fields.append(f"record.{field.name}")
    read = "view(address, dtype)" if fields else "0"
    exec(f"def make(address):\n record = {read}\n return message({', '.join(fields)})", names)  # fields are identifiers
    return njit("(int64,)")(names["make"])


@kept("void(int64)")
def count_effects(a: Any) -> None:
    """Refuse an event with more effects of one kind than any may have."""
    sends = emits = adds = 0
    for i in range(get(a + 8 * layout.EFFECTS)):
        tag = get(get(a + 8 * layout.OUT) + i * get(a + 8 * layout.OUT_STRIDE) + 16) >> 32
        sends += tag == layout.SEND
        emits += tag == layout.EMIT
        adds += tag == layout.ADD
    if get(a + 8 * layout.ERROR) == 0 and max(sends, emits, adds) > SENDS_MAX:
        put(a + 8 * layout.ERROR, layout.TOO_MANY_EFFECTS)
