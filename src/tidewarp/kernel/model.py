"""A model: logical processes, their links and constants, and the digest that names them all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from tidewarp.errors import ModelError, OperatorError
from tidewarp.kernel.arguments import is_identifier, is_name, is_one_of, whole
from tidewarp.kernel.kinds import Field, Form, form_of, i64
from tidewarp.kernel.lp import (
    LogicalProcess,
    check_class,
    check_message,
    form_of_lp,
    handlers_of,
    methods_of,
)
from tidewarp.kernel.model_digest import model_digest
from tidewarp.kernel.source import messages_of
from tidewarp.units import TICK_MAX, seconds

__all__ = ["Accumulator", "Group", "Links", "Model", "Published", "Source"]

LPS_MAX = 2**31 - 1


class Published(NamedTuple):
    """The value of an accumulator at a multiple of its ``publish_every``, sent to every LP that handles this class."""

    accumulator: i64
    value: i64


@dataclass(frozen=True, slots=True)
class Group:
    """LPs added together: one class, consecutive numbers from ``first``."""

    cls: type[LogicalProcess]
    first: int
    count: int
    path: str
    init: Mapping[str, Any]


class Accumulator(NamedTuple):
    """A whole number that events change when they are committed, never before: ``kind`` is sum, min or max."""

    name: str
    kind: str
    publish_every: int | None  # ticks

    @property
    def start(self) -> int:
        """Its value before any event: 0, or the end of int64 that loses every comparison."""
        return {"sum": 0, "min": TICK_MAX, "max": -TICK_MAX - 1}[self.kind]

    def merge(self, value: int, n: int) -> int:
        """``value`` after an event has added ``n``."""
        if self.kind == "sum":
            return value + n
        return min(value, n) if self.kind == "min" else max(value, n)


class Source(NamedTuple):
    """An external source of a model; ``rank`` is its place in the order of ``Model.input``."""

    name: str
    rank: int

    @property
    def src(self) -> int:
        """The source number in event keys: below every LP's."""
        return self.rank - 2**31


class Links(NamedTuple):
    """Declared channels as arrays: LP ``i`` may send to ``dst[first[i]:first[i + 1]]`` with at least ``lookahead[…]`` ticks."""

    first: np.ndarray[Any, np.dtype[np.int64]]  # (n_lps + 1,)
    dst: np.ndarray[Any, np.dtype[np.int64]]  # (links,), as declared
    lookahead: np.ndarray[Any, np.dtype[np.int64]]  # (links,) ticks


class Model:
    """Logical processes, their links and constants: everything that a run depends on but its inputs.

    ``params`` is a NamedTuple of kernel kinds that handlers read as ``ctx.params``. ``lookahead`` (ticks) is the least
    delay of a send between two LPs where no links are declared. ``seed`` is a U64. ``messages`` lists message
    classes that no handler names. ``trace_interval`` (ticks) is the length of a block of the trace digest.
    """

    def __init__(
        self,
        name: str,
        params: Any = None,
        *,
        lookahead: int = 0,
        seed: int = 1,
        messages: Iterable[type] | None = None,
        trace_interval: int = seconds(1),
    ) -> None:
        if not is_name(name):
            raise ModelError(f"model name {name!r}", "a name is printable text", "choose another name")
        self.name = name
        self.params = params
        self.lookahead = _ticks("lookahead", lookahead, 0)
        self.trace_interval = _ticks("trace_interval", trace_interval, 1)
        number = whole(seed)
        if number is None or not 0 <= number < 2**64:
            raise OperatorError(f"seed {seed!r}", "a seed is a whole number from 0 to 2**64 - 1", "choose another seed")
        self.seed = number
        self.groups: list[Group] = []
        self.classes: list[type[LogicalProcess]] = []
        self.tables: dict[str, np.ndarray[Any, Any]] = {}
        self.accumulators: list[Accumulator] = []
        self.sources: list[Source] = []
        self.n_lps = 0
        self.params_form = _form_of_params(params)
        if self.params_form is not None:  # as plain numbers of their kinds, whatever type they came in
            self.params = type(params)._make(self.params_form.unpack(self.params_form.pack(params)))
        self._declared = _listed(messages)
        self._links: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]] = []
        self._frozen = False
        self._digest: str | None = None
        self._starts: list[int] = []
        self._paths: dict[str, int] = {}

    # --- building ---------------------------------------------------------------------------------

    def add(self, cls: type[LogicalProcess], count: int, *, path: str, init: Mapping[str, Any] | None = None) -> range:
        """Add ``count`` LPs of ``cls``; returns their numbers.

        Their paths are ``path.0``, ``path.1`` …; a single LP has ``path`` itself. ``init`` maps a field to one value
        for all, to an array or list with one entry for each LP, or to a function of the LP's place (0 to count - 1).

        Raises:
            ModelError: no LogicalProcess, a field without a kernel kind, a path twice, an ``init`` of an unknown field. That an
                ``init`` has the wrong shape is said when an engine opens.
        """
        self._check_open("add")
        if not _is_lp_class(cls):
            raise ModelError(f"add({cls!r})", "an LP is a class derived from LogicalProcess", "pass the class itself")
        number = whole(count)
        if number is None or not 1 <= number <= LPS_MAX - self.n_lps:
            raise ModelError(f"{count!r} LPs at {path!r}", f"a model has 1 to {LPS_MAX} LPs", "choose another count")
        count = number
        if not is_name(path) or self._is_taken(path, count):
            raise ModelError(
                f"path {path!r}", "a path is printable text, and names one group or LP", "choose another path"
            )
        form = form_of_lp(cls)
        if cls not in self.classes:
            check_class(cls)
            self.classes.append(cls)
        if init is not None and not isinstance(init, Mapping):
            raise ModelError(
                f"init {init!r:.80} of {cls.__name__}", "it maps fields to values", "write e.g. init={'hits': 1}"
            )
        group = Group(cls, self.n_lps, count, path, dict(init or {}))
        for name in group.init:
            if name not in form.names:
                raise ModelError(
                    f"init of {cls.__name__}.{name}",
                    f"its fields are {', '.join(form.names) or 'none'}",
                    "correct the name",
                )
        self.groups.append(group)
        self._paths[path] = group.first
        self._starts.append(group.first)
        self.n_lps += count
        return range(group.first, group.first + count)

    def _is_taken(self, path: str, count: int) -> bool:
        """Whether an LP of such a group would have the path, and so the random numbers, of another."""
        if path in self._paths or (count == 1 and self._has_lp(path)):
            return True
        places = (other.removeprefix(f"{path}.") for other in self._paths if other.startswith(f"{path}."))
        return any(place.isascii() and place.isdecimal() and int(place) < count for place in places)

    def _has_lp(self, path: str) -> bool:
        try:
            self.lp(path)
        except ModelError:
            return False
        return True

    def link(self, srcs: int | Iterable[int], dsts: int | Iterable[int], lookahead: int) -> None:
        """Declare that every LP of ``srcs`` may send to every LP of ``dsts``, never with less delay than ``lookahead`` ticks.

        Once any link is declared, a send to another LP outside of the links is an error. Sends to oneself need none.

        Raises:
            ModelError: an LP that does not exist, a lookahead that is no tick >= 0.
        """
        self._check_open("link")
        starts, stops = self._lps_of(srcs), self._lps_of(dsts)
        self._links.append((starts, stops, _ticks("lookahead of a link", lookahead, 0)))

    def _lps_of(self, given: object) -> np.ndarray[Any, np.dtype[np.int64]]:
        """One end of a link as an array of numbers of LPs."""
        if isinstance(given, np.ndarray):
            given = given.tolist()
        numbers = [whole(lp) for lp in given] if isinstance(given, Iterable) else [whole(given)]
        if not numbers or any(lp is None or not 0 <= lp < self.n_lps for lp in numbers):
            rule = f"LPs are 0 to {self.n_lps - 1}" if self.n_lps else "there are none yet"
            raise ModelError(
                f"link of LP {given!r:.80}", rule, "add LPs before linking them, and give what add() returned"
            )
        return np.array(numbers, np.int64)

    def table(self, name: str, array: Any) -> None:
        """A constant array that handlers read as ``ctx.table(name)``: numbers of one kind, C-contiguous, kept as a copy.

        Raises:
            ModelError: a name twice, another type of array.
        """
        self._check_open("table")
        if not is_identifier(name) or name in self.tables:
            raise ModelError(f"table {name!r}", "a table's name is an identifier and used once", "choose another name")
        values = _array_of(name, array)
        kept = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
        kept.flags.writeable = False
        self.tables[name] = kept

    def accumulator(self, name: str, kind: str = "sum", publish_every: int | None = None) -> None:
        """A number that ``ctx.add(name, n)`` changes once the event is committed, and that never rolls back.

        With ``publish_every`` (ticks) its value at each multiple, over all events before that tick, is sent as
        :class:`Published` to every LP that handles it; ``Published.accumulator`` is its place in the order declared.

        Raises:
            ModelError: a name twice, another kind.
        """
        self._check_open("accumulator")
        if not is_one_of(kind, ("sum", "min", "max")):
            raise ModelError(f"accumulator kind {kind!r}", "a kind is sum, min or max", "choose one of them")
        if not is_identifier(name) or name in self.accumulator_names:
            raise ModelError(f"accumulator {name!r}", "its name is an identifier and used once", "choose another name")
        every = None if publish_every is None else _ticks("publish_every", publish_every, 1)
        self.accumulators.append(Accumulator(name, kind, every))

    def input(self, name: str) -> Source:
        """Declare an external source; pass it to ``Engine.inject``. Its events sort before those of LPs at the same tick.

        Raises:
            ModelError: a name twice, or one that is no printable text.
        """
        self._check_open("input")
        if not is_name(name) or any(source.name == name for source in self.sources):
            raise ModelError(f"input {name!r}", "a source has a printable name of its own", "choose another name")
        self.sources.append(Source(name, len(self.sources)))
        return self.sources[-1]

    # --- what the engines read --------------------------------------------------------------------

    @property
    def accumulator_names(self) -> list[str]:
        """Names of the accumulators in the order declared."""
        return [accumulator.name for accumulator in self.accumulators]

    def freeze(self) -> None:
        """Close the model: from the first engine on it cannot change. Numbers the message classes.

        Raises:
            ModelError: no LPs, a message class with a field without a kernel kind.
        """
        if self._frozen:
            return
        if not self.n_lps:
            raise ModelError(f"model {self.name!r}", "a model has at least one LP", "call add() first")
        self.messages = self._number_messages()
        self.message_forms = [form_of(message) for message in self.messages]
        self.message_index = {message: index for index, message in enumerate(self.messages)}
        self.links = self._join_links()
        self._frozen = True

    def _number_messages(self) -> list[type]:
        handled = [message for cls in self.classes for message in handlers_of(cls)]
        named = [message for cls in self.classes for method in methods_of(cls) for message in messages_of(method)]
        messages = list(dict.fromkeys([*handled, *self._declared, *named]))
        for message in messages:
            check_message(message)
        if len(messages) > 2**15:
            raise ModelError(
                f"{len(messages)} message classes", "a model has at most 32768", "use a field to tell them apart"
            )
        return messages

    def _join_links(self) -> Links | None:
        if not self._links:
            return None
        srcs = np.concatenate([np.repeat(s, len(d)) for s, d, _ in self._links])
        dsts = np.concatenate([np.tile(d, len(s)) for s, d, _ in self._links])
        ahead = np.concatenate([np.full(len(s) * len(d), ticks, np.int64) for s, d, ticks in self._links])
        order = np.argsort(srcs, kind="stable")
        srcs, dsts, ahead = srcs[order], dsts[order], ahead[order]
        pairs = srcs << 32 | dsts
        if len(np.unique(pairs)) != len(pairs):
            values, counts = np.unique(pairs, return_counts=True)
            pair = int(values[counts > 1][0])
            raise ModelError(
                f"link {self.path(pair >> 32)} to {self.path(pair & 0xFFFFFFFF)}",
                "a pair of LPs is linked once",
                "declare it once, with its least delay",
            )
        first = np.searchsorted(srcs, np.arange(self.n_lps + 1)).astype(np.int64)
        return Links(first, dsts, ahead)

    def lp(self, path: str) -> int:
        """The number of the LP at ``path``.

        Raises:
            ModelError: no such LP.
        """
        if not isinstance(path, str):
            raise ModelError(
                f"LP {path!r}", "an LP is found by its path, which is text", "path(lp) gives that of a number"
            )
        if path in self._paths and self.groups[bisect_right(self._starts, self._paths[path]) - 1].count == 1:
            return self._paths[path]
        group_path, _, place = path.rpartition(".")
        if group_path in self._paths and place.isascii() and place.isdecimal():
            group = self.groups[bisect_right(self._starts, self._paths[group_path]) - 1]
            if group.count > 1 and int(place) < group.count and str(int(place)) == place:
                return group.first + int(place)
        known = ", ".join(f"{g.path}.0 to .{g.count - 1}" if g.count > 1 else g.path for g in self.groups[:8])
        raise ModelError(f"LP {path!r}", f"the LPs are {known}", "correct the path")

    def path(self, lp: int) -> str:
        """The path of LP number ``lp``; external sources (below 0) are named too.

        Raises:
            ModelError: no such LP.
        """
        if type(lp) is int and -(2**31) <= lp < 0:
            rank = lp + 2**31
            return f"input {self.sources[rank].name!r}" if rank < len(self.sources) else "accumulators"
        lp = self.check_lp(lp)
        group = self.group_of(lp)
        return group.path if group.count == 1 else f"{group.path}.{lp - group.first}"

    def check_lp(self, lp: int) -> int:
        """The number of an LP as Python's int.

        Raises:
            ModelError: no such LP.
        """
        number = whole(lp)
        if number is None or not 0 <= number < self.n_lps:
            raise ModelError(f"LP {lp!r}", f"LPs are 0 to {self.n_lps - 1}", "give a number; model.lp(path) finds it")
        return number

    def group_of(self, lp: int) -> Group:
        """The group that LP number ``lp`` was added in."""
        return self.groups[bisect_right(self._starts, lp) - 1]

    def class_of(self, lp: int) -> type[LogicalProcess]:
        """The class of LP number ``lp``."""
        return self.group_of(lp).cls

    def initial_values(self, group: Group) -> list[tuple[Any, ...]]:
        """The fields of each LP of a group before ``start``."""
        form = form_of_lp(group.cls)
        columns = [_column(group, field) for field in form.fields]
        return list(zip(*columns, strict=True)) if columns else [()] * group.count

    def digest(self) -> str:
        """Names the model: 64 digits over name, classes, handlers, fields, start values, parameters, tables and links.

        Handlers count by their tokens, without comments, docstrings and layout, so that the digest is the same on
        every Python; so do the marked functions that they call and the constants that they read. The seed is not in it.
        """
        self.freeze()
        if self._digest is None:
            self._digest = model_digest(self)
        return self._digest

    def _check_open(self, method: str) -> None:
        if self._frozen:
            raise ModelError(
                f"{method}() of model {self.name!r}",
                "a model is closed once an engine uses it",
                "build it whole before running it",
            )


def _is_lp_class(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, LogicalProcess)


def _numbers(given: Any) -> np.ndarray[Any, Any]:
    """An array of ``given`` in which Python's numbers stay what they are: numpy would make floats of large ones."""
    return np.asarray(given) if isinstance(given, (np.ndarray, np.generic)) else np.array(given, dtype=object)


def _array_of(name: str, given: Any) -> np.ndarray[Any, Any]:
    """A table's numbers as numpy has them."""
    try:
        values, numbers = np.asarray(given), _numbers(given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"table {name!r}", f"it is no array ({error})", "give rows of equal length") from error
    if numbers.dtype == object and not numbers.size:
        raise ModelError(
            f"table {name!r}", "an empty list does not say of what", "give np.zeros(0, np.int64), or numbers"
        )
    if values.dtype.kind == "f" and numbers.dtype == object and not any(isinstance(x, float) for x in numbers.flat):
        raise ModelError(
            f"table {name!r}", "numpy makes floats of whole numbers beyond int64", "give an array of uint64"
        )
    is_other_float = values.dtype.kind == "f" and values.dtype != np.float64
    if values.dtype.kind not in "iufb" or is_other_float:
        raise ModelError(
            f"table {name!r} of {values.dtype}",
            "a table holds whole numbers, float64 or bool",
            "convert it with astype",
        )
    return values


def _listed(messages: Iterable[type] | None) -> list[type]:
    if messages is not None and (isinstance(messages, (str, bytes, type)) or not isinstance(messages, Iterable)):
        raise ModelError(f"messages {messages!r:.80}", "it is a list of message classes", "write messages=[Message]")
    return list(messages or ())


def _column(group: Group, field: Field) -> list[Any]:
    if field.name not in group.init:
        return [field.zero() for _ in range(group.count)]
    given = group.init[field.name]
    what = f"init of {group.cls.__name__}.{field.name}"
    if callable(given):
        return [_given(what, given, place, field) for place in range(group.count)]
    if isinstance(given, (bool, int, float, bytes)):
        if field.shape:
            raise ModelError(what, f"its shape is {field.shape}", "give an array, or one array for each LP")
        return [given] * group.count
    try:
        values = _numbers(given) if field.kind.code else list(given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} = {given!r:.80}", f"it is no start value ({error})", "give numbers") from error
    if isinstance(values, np.ndarray):
        if values.shape == field.shape:
            return [values.tolist() for _ in range(group.count)]
        if values.shape == (group.count, *field.shape):
            return cast("list[Any]", values.tolist())
    elif len(values) == group.count:
        return values
    shape = getattr(values, "shape", len(values))
    raise ModelError(
        f"{what} of shape {shape}",
        f"one LP takes {field.shape or 'a number'}, the group has {group.count} LPs",
        "correct the shape",
    )


def _given(what: str, function: Callable[[int], Any], place: int, field: Field) -> Any:
    """The start value that an author's function gives for one LP."""
    try:
        value = function(place)
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        return list(value) if field.shape else value
    except Exception as error:
        raise ModelError(
            f"{what}: its function at place {place}", f"{type(error).__name__}: {error}", "mend the function"
        ) from error


def _ticks(what: str, value: int, least: int) -> int:
    ticks = whole(value)
    if ticks is None or not least <= ticks <= TICK_MAX:
        raise ModelError(
            f"{what} {value!r}", f"it is a whole number of ticks from {least} to 2**63 - 1", "write e.g. seconds(0.1)"
        )
    return ticks


def _form_of_params(params: Any) -> Form | None:
    if params is None:
        return None
    if not (isinstance(params, tuple) and hasattr(params, "_fields")):
        raise ModelError(
            f"params {params!r}", "parameters are an instance of a NamedTuple class", "declare class Params(NamedTuple)"
        )
    form = form_of(type(params))
    if not form.fixed or any(field.shape for field in form.fields):
        raise ModelError(f"params {type(params).__name__}", "parameters are single numbers", "put arrays into a table")
    for name, value in zip(form.names, params, strict=True):
        if isinstance(value, float) and not -1.7976931348623157e308 <= value <= 1.7976931348623157e308:
            raise ModelError(f"{form.name}.{name} = {value!r}", "a parameter is a finite number", "correct it")
    form.pack(params)
    return form
