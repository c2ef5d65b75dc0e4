"""What Numba made of a handler: refused wherever a value would silently become one of another kind.

Numba gives a variable one type. Where ways of different types meet it converts, and Python does not: 2**53 + 1 on one
way and 0.5 on the other would come out as 2**53. A variable without a value on some way is 0 to Numba and an error to Python.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import ir
from numba.core.analysis import compute_cfg_from_blocks

from tidewarp.kernel.compiled.refusals import refuse
from tidewarp.kernel.compiled.writer import is_unsigned, is_whole

__all__ = ["check_typed"]


def check_typed(dispatcher: Any) -> None:
    """Refuse a compiled function that would not compute what its text says.

    Raises:
        NotCompilable: with file, line, variable and rule.
    """
    for result in dispatcher.overloads.values():
        _Check(dispatcher.py_func.__code__.co_filename, result.type_annotation, result.signature.return_type).run()


class _Check:
    """The check of one function for one choice of argument types."""

    def __init__(self, file: str, notes: Any, returned: Any) -> None:
        self.file = file
        self.blocks = notes.blocks
        self.typemap = notes.typemap
        self.calltypes = notes.calltypes
        self.returned = returned
        self.made = {
            statement.target.name: statement.value
            for block in self.blocks.values()
            for statement in block.body
            if isinstance(statement, ir.Assign)
        }

    def run(self) -> None:
        """Look at each statement."""
        for label, names in self._set_before().items():
            for statement in self.blocks[label].body:
                self._check_set(statement, names)
                if isinstance(statement, ir.Assign):
                    names.add(statement.target.name)
                    self._check_assignment(statement)
                elif isinstance(statement, ir.Return):
                    self._check_return(statement)
                elif isinstance(statement, (ir.SetItem, ir.StaticSetItem)):
                    self._check_index(statement.target, statement.index, statement)

    def _set_before(self) -> dict[int, set[str]]:
        """The variables that have a value at the beginning of each block that is reached, whatever way leads to it."""
        graph = compute_cfg_from_blocks(self.blocks)
        made = {
            label: {one.target.name for one in self.blocks[label].body if isinstance(one, ir.Assign)}
            for label in graph.nodes()
        }
        everything = set().union(*made.values())
        before = {label: set(everything) for label in made}
        before[graph.entry_point()] = set()
        changed = True
        while changed:
            changed = False
            for label in made:
                ways = [before[above] | made[above] for above, _ in graph.predecessors(label)]
                names = before[label].intersection(*ways)
                changed |= names != before[label]
                before[label] = names
        return before

    def _check_set(self, statement: Any, names: set[str]) -> None:
        """A variable of one assignment, read where that was not passed: for several, Numba sets a null where they meet."""
        if isinstance(statement, ir.Del):
            return
        for variable in _read(statement):
            if isinstance(variable, ir.Var) and variable.name not in names:
                self._refuse_unset(statement, _name(variable))

    def _refuse_unset(self, statement: Any, name: str) -> None:
        self._refuse(statement, name, f"{name} has no value on some way to here: set it before")

    def _refuse(self, statement: Any, what: str, rule: str) -> None:
        refuse(f"{self.file}:{statement.loc.line}", what, rule)

    def _check_assignment(self, statement: Any) -> None:
        target, value = statement.target, statement.value
        if isinstance(value, ir.Var):
            self._check_meeting(statement, _name(target), self.typemap[value.name], self.typemap[target.name])
        elif isinstance(value, ir.Expr):
            check = getattr(self, f"_check_{value.op}", None)
            if check is not None:
                check(statement, value)

    def _check_meeting(self, statement: Any, what: str, given: Any, wanted: Any) -> None:
        """A value that goes on as a value of another kind."""
        if _kind(given) == _kind(wanted):
            return
        rule = f"it is {_said(given)} on one way and {_said(wanted)} where the ways meet"
        literal = getattr(given, "literal_value", None)
        if literal is not None and isinstance(wanted, types.Float):
            rule += f": write {float(literal)!r}, or make it u64 with u64_add(x, 0) if the others are"
        elif is_whole(given) and isinstance(wanted, types.Float):
            rule += ": write float(x), or make all of them i64 with wrap_i64 or u64 with u64_add(x, 0)"
        self._refuse(statement, what, rule)

    def _check_return(self, statement: Any) -> None:
        given = self.made[statement.value.name]
        source = given.value if isinstance(given, ir.Expr) and given.op == "cast" else statement.value
        self._check_meeting(statement, "the value returned", self.typemap[source.name], self.returned)

    def _check_null(self, statement: Any, value: Any) -> None:
        self._refuse_unset(self._reader(statement), _name(statement.target))

    def _reader(self, statement: Any) -> Any:
        """The first statement that reads the variable which this one sets."""
        names = {statement.target.name}
        for block in self.blocks.values():
            for other in block.body:
                if not isinstance(other, ir.Del) and any(v.name in names for v in _read(other)):
                    if isinstance(other, ir.Assign) and _name(other.target) == _name(statement.target):
                        names.add(other.target.name)  # the same variable, further on
                    else:
                        return other
        return statement

    def _check_phi(self, statement: Any, value: Any) -> None:
        for part in value.incoming_values:
            if not isinstance(part, ir.Var):
                self._check_null(statement, value)
            given, wanted = self.typemap[part.name], self.typemap[statement.target.name]
            self._check_meeting(statement, _name(statement.target), given, wanted)

    def _check_getattr(self, statement: Any, value: Any) -> None:
        given = self.typemap[value.value.name]
        if isinstance(given, (types.Array, types.Number, types.Boolean, types.BaseTuple)) and not isinstance(
            given, types.BaseNamedTuple
        ):
            self._refuse(
                statement, f".{value.attr}", "a number and an array have no attributes: use an index, or len()"
            )

    def _check_getitem(self, statement: Any, value: Any) -> None:
        self._check_index(value.value, value.index, statement)

    _check_static_getitem = _check_getitem

    def _check_index(self, base: Any, index: Any, statement: Any) -> None:
        """Arrays are lists in Python: one whole number at a time. Only tables are arrays in both."""
        array = self.typemap[base.name]
        if not isinstance(array, types.Array):
            return
        given = self.typemap[index.name] if isinstance(index, ir.Var) else index
        is_number = type(given) is int or isinstance(given, types.Integer)
        is_table = not array.mutable and array.aligned
        is_place = is_table and (
            all(isinstance(part, types.Integer) for part in given)
            if isinstance(given, types.BaseTuple)
            else isinstance(given, tuple) and all(type(part) is int for part in given)
        )
        if not (is_number or is_place):
            self._refuse(statement, "an index", "an array is read with a whole number: write array[i][j]")

    def _check_call(self, statement: Any, value: Any) -> None:
        function = self.typemap[value.func.name]
        if getattr(function, "typing_key", None) is bool:
            self._check_truth(statement, value.args[0])

    def _check_unary(self, statement: Any, value: Any) -> None:
        self._check_truth(statement, value.value)

    def _check_truth(self, statement: Any, given: Any) -> None:
        if not isinstance(self.typemap[given.name], (types.Number, types.Boolean)):
            self._refuse(statement, f"{_name(given)} as a condition", "a condition is a number, True or False")


def _read(statement: Any) -> Any:
    """The variables that a statement reads."""
    if isinstance(statement, ir.Assign):
        value = statement.value
        return [value] if isinstance(value, ir.Var) else value.list_vars() if isinstance(value, ir.Expr) else []
    return statement.list_vars()


def _name(variable: Any) -> str:
    """A variable as its author wrote it."""
    name: str = variable.name.split(".")[0]
    return "an expression" if name.startswith(("$", "__tw_")) else name


def _kind(given: Any) -> Any:
    """What is to be the same wherever ways meet; smaller whole numbers, True and False are i64 without a loss."""
    given = _plain(given)
    if is_unsigned(given):
        return "u64"
    if is_whole(given):
        return "a whole number"
    if isinstance(given, types.Float):
        return "a float"
    if isinstance(given, types.BaseTuple):
        return tuple(_kind(part) for part in given)
    return str(given)


def _plain(given: Any) -> Any:
    if isinstance(given, types.Omitted):
        return {bool: types.boolean, int: types.int64, float: types.float64}.get(type(given.value), given)
    return types.unliteral(given)


def _said(given: Any) -> str:
    kind = _kind(given)
    return kind if isinstance(kind, str) else str(_plain(given))
