"""A handler as its author wrote it, made into a function that Numba compiles to the same results; or a refusal.

The source is read, everything outside of the compilable subset refused with its line, names from outside put in by value,
and operators on whole numbers replaced by those of :mod:`tidewarp.kernel.compiled.exact`.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import operator
import textwrap
from collections.abc import Iterable, Mapping
from copy import deepcopy
from enum import IntEnum
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from tidewarp.errors import NotCompilable
from tidewarp.kernel.compiled import compare, exact, reals
from tidewarp.kernel.compiled.refusals import refusal, refuse
from tidewarp.kernel.compiled.words import HOME
from tidewarp.kernel.kinds import Form
from tidewarp.kernel.source import text_of

__all__ = ["Rewriter", "Role"]

_STATEMENTS: tuple[type[ast.AST], ...] = (
    ast.Return,
    ast.Assign,
    ast.AugAssign,
    ast.AnnAssign,
    ast.For,
    ast.While,
    ast.If,
    ast.Raise,
    ast.Assert,
)
_STATEMENTS += (ast.Expr, ast.Pass, ast.Break, ast.Continue)
_EXPRESSIONS: tuple[type[ast.AST], ...] = (
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.IfExp,
    ast.Call,
    ast.Compare,
    ast.Attribute,
)
_EXPRESSIONS += (ast.Subscript, ast.Name, ast.Tuple, ast.Constant)
_RULES: dict[type[ast.AST], str] = {
    ast.Try: "compiled handlers do not catch exceptions",
    ast.With: "compiled handlers have no context managers",
    ast.Dict: "compiled handlers have no dicts",
    ast.DictComp: "compiled handlers have no dicts",
    ast.Set: "compiled handlers have no sets",
    ast.SetComp: "compiled handlers have no sets",
    ast.List: "compiled handlers make no lists: use a tuple, or an Array field",
    ast.ListComp: "compiled handlers make no lists: write a loop over an Array field",
    ast.GeneratorExp: "compiled handlers have no generators: write a loop",
    ast.JoinedStr: "compiled handlers make no text",
    ast.Lambda: "compiled handlers define no functions: write a @function",
    ast.FunctionDef: "compiled handlers define no functions: write a @function",
    ast.Slice: "a slice is a copy in Python and a view in compiled code: write a loop",
    ast.NamedExpr: "compiled handlers assign in statements of their own",
    ast.Starred: "compiled handlers pass arguments one by one",
}
_BUILTINS = {"abs", "bool", "enumerate", "float", "int", "len", "max", "min", "range", "round", "zip"}
_CTX_VALUES = {"now", "lp", "n_lps", "params", "n_out"}
_CTX_METHODS = {"send", "emit", "add", "note", "bits", "random", "below", "exponential", "normal", "table", "out"}
_OF_ONE = {
    "abs": exact.absolute, "bool": reals.truth, "float": reals.real, "int": reals.whole, "round": reals.rounded,
}  # fmt: skip
_FOLDED_BITS_MAX = 4096
_FOLDED = {
    "Add": "add", "Sub": "sub", "Mult": "mul", "FloorDiv": "floordiv", "Mod": "mod", "Div": "truediv", "BitAnd": "and_",
    "BitOr": "or_", "BitXor": "xor", "LShift": "lshift", "RShift": "rshift", "Pow": "pow",
}  # fmt: skip


class Role:
    """What the parameters of a function are: ``own`` the LP with ``form``, ``ctx`` the context; None in a ``@function``."""

    def __init__(self, own: str | None = None, form: Form | None = None, ctx: str | None = None) -> None:
        self.own = own
        self.form = form
        self.ctx = ctx


class Rewriter:
    """Rewrites the functions of one model; ``functions`` maps each ``@function`` that was met to its compiled form."""

    def __init__(self, messages: Iterable[type], compile_function: Any) -> None:
        self.messages = set(messages)
        self.functions: dict[FunctionType, Any] = {}
        self._compile_function = compile_function
        self._open: list[FunctionType] = []

    def rewritten(self, method: FunctionType, role: Role) -> FunctionType:
        """A function with the same parameters that Numba compiles.

        Raises:
            NotCompilable: with file, line, construct and rule.
        """
        return _Rewriting(self, method, role).result()

    def function(self, function: FunctionType, where: str) -> Any:
        """The compiled form of a ``@function``."""
        if function in self._open:
            refuse(where, f"{function.__qualname__}()", "compiled functions do not call themselves: write a loop")
        if function not in self.functions:
            self._open.append(function)
            self.functions[function] = self._compile_function(self.rewritten(function, Role()))
            self._open.pop()
        return self.functions[function]


class _Rewriting(ast.NodeTransformer):
    """One function."""

    def __init__(self, rewriter: Rewriter, method: FunctionType, role: Role) -> None:
        self.rewriter = rewriter
        self.method = method
        self.role = role
        self.file = method.__code__.co_filename
        self.names: dict[str, Any] = {"__name__": HOME}
        self.temporaries = 0
        code = method.__code__
        self.local = {*code.co_varnames, *code.co_cellvars}
        self.outside = {**method.__globals__, **_closed(method)}

    def result(self) -> FunctionType:
        text = text_of(self.method)
        module = ast.parse(text)
        ast.increment_lineno(module, self.method.__code__.co_firstlineno - 1)
        definition = module.body[0]
        if not isinstance(definition, ast.FunctionDef):
            self._refuse(definition, "a handler is a method written with def")
        definition.decorator_list = []
        definition.returns = None
        self._check_arguments(definition)
        body = definition.body
        if (
            isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body = body[1:]
        definition.body = self._block(body) or [ast.copy_location(ast.Pass(), definition)]
        self._check_constants(module)
        ast.fix_missing_locations(module)
        exec(compile(module, self.file, "exec"), self.names)  # the author's own function, its operators exchanged
        made: FunctionType = self.names[definition.name]
        return made

    def _check_constants(self, module: ast.Module) -> None:
        """What is left after constants were computed with each other."""
        for part in ast.walk(module):
            if isinstance(part, ast.Constant) and type(part.value) is int and not -(2**63) <= part.value < 2**64:
                self._refuse(part, "a whole number in a compiled handler has at most 64 bits")

    def _check_arguments(self, definition: ast.FunctionDef) -> None:
        arguments = definition.args
        if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
            self._refuse(definition, "a compiled function has plain parameters")
        for argument in (*arguments.posonlyargs, *arguments.args):
            argument.annotation = None
        values = (
            self.method.__defaults__ or ()
        )  # as they are since the function was defined, whatever their names mean now
        if self.role.own is not None:
            arguments.defaults = []  # the kernel gives a handler all of its arguments
            return
        for value in values:
            if not _is_number(value):
                self._refuse(
                    definition, f"a default of a compiled function is a number, or a tuple of them, not {value!r:.80}"
                )
        arguments.defaults = [
            self._default(value, node) for value, node in zip(values, arguments.defaults, strict=True)
        ]

    def _block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in statements:
            done = self.visit(statement)
            made += done if isinstance(done, list) else [done]
        return made

    def _refuse(self, node: ast.AST, rule: str) -> NoReturn:
        raise self._refusal(node, rule)

    def _refusal(self, node: ast.AST, rule: str) -> NotCompilable:
        shown = ast.unparse(node).splitlines()[0][:80]
        line = getattr(node, "lineno", self.method.__code__.co_firstlineno)
        return refusal(f"{self.file}:{line}", shown, rule)

    # --- statements -------------------------------------------------------------------------------

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.stmt, ast.expr)) and not isinstance(node, (*_STATEMENTS, *_EXPRESSIONS)):
            rule = _RULES.get(type(node), f"{type(node).__name__} is not in the compilable subset")
            self._refuse(node, rule)
        return super().generic_visit(node)

    def visit_Return(self, node: ast.Return) -> ast.AST:
        is_none = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
        if self.role.own is not None and not is_none:
            self._refuse(node, "a handler returns nothing")
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if not isinstance(node.value, ast.Call):
            self._refuse(node, "an expression alone does nothing")
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """The exception itself counts only in the Python tier, which words the error."""
        made = ast.parse("raise ValueError('raised')").body[0]
        for part in ast.walk(made):
            ast.copy_location(part, node)
        return made

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        for part in ast.walk(node.target):
            if isinstance(part, (ast.Attribute, ast.Subscript)):
                self._refuse(node.target, "a loop counts in a variable of its own")
        node.iter = self.visit(node.iter)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        node.test = self.visit(node.test)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        node.test = self.visit(node.test)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_Assign(self, node: ast.Assign) -> Any:
        value = self.visit(node.value)
        if len(node.targets) == 1 and not isinstance(node.targets[0], (ast.Tuple, ast.Subscript)):
            return self._stores(node.targets[0], value, node)
        temporary = self._temporary()
        made = [self._assign(temporary, value, node)]
        for target in node.targets:
            made += self._stores(target, self._load(temporary), node)
        return made

    def _stores(self, target: ast.expr, value: ast.expr, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(target, ast.Name):
            return [self._assign(target.id, value, node)]
        if isinstance(target, ast.Tuple):
            parts: list[ast.stmt] = []
            names = [self._temporary() for _ in target.elts]
            unpacked = ast.Tuple([ast.Name(name, ast.Store()) for name in names], ast.Store())
            parts.append(ast.copy_location(ast.Assign([unpacked], value), node))
            for part, name in zip(target.elts, names, strict=True):
                parts += self._stores(part, self._load(name), node)
            return parts
        if isinstance(target, ast.Attribute):
            kind = self._stored_field(target)
            value = self._call(f"fit_{kind}", exact.FIT[kind], [value])
            return [ast.copy_location(ast.Assign([target], value), node)]
        if isinstance(target, ast.Subscript):
            made, place = self._place(target, node)
            return [*made, self._store_at(place, value, node)]
        raise self._refusal(target, "a value is assigned to a variable, a field, or a place of an array field")

    def _stored_field(self, target: ast.Attribute) -> str:
        field = self._field(target)
        if field is None:
            self._refuse(target, "only fields of self are assigned to")
        if field.shape:
            self._refuse(target, "an array field keeps its array: assign its numbers one by one")
        return field.kind.name

    def _place(self, target: ast.Subscript, node: ast.stmt) -> tuple[list[ast.stmt], ast.Subscript]:
        """The place of an array with its indices in variables, so that they are worked out once."""
        indices: list[ast.expr] = []
        base: ast.expr = target
        while isinstance(base, ast.Subscript):
            indices.insert(0, base.slice)
            base = base.value
        if not (isinstance(base, ast.Name) or (isinstance(base, ast.Attribute) and self._field(base) is not None)):
            self._refuse(target, "only array fields are stored into")
        made: list[ast.stmt] = []
        place = self.visit(base)
        for index in indices:
            temporary = self._temporary()
            made.append(self._assign(temporary, self.visit(index), node))
            place = ast.Subscript(place, self._load(temporary), ast.Load())
        assert isinstance(place, ast.Subscript)
        return made, place

    def _store_at(self, place: ast.Subscript, value: ast.expr, node: ast.stmt) -> ast.stmt:
        array = place.value
        fitted = self._call("fit_into", exact.fit_into, [array, value])
        return ast.copy_location(ast.Assign([ast.Subscript(array, place.slice, ast.Store())], fitted), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        name = type(node.op).__name__
        if isinstance(node.target, ast.Subscript):
            made, place = self._place(node.target, node)
            return [*made, self._store_at(place, self._operate(name, place, self.visit(node.value), node), node)]
        before = self.visit(_as_load(node.target))
        return self._stores(node.target, self._operate(name, before, self.visit(node.value), node), node)

    # --- expressions ------------------------------------------------------------------------------

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        return self._operate(type(node.op).__name__, self.visit(node.left), self.visit(node.right), node)

    def _operate(self, name: str, left: ast.expr, right: ast.expr, node: ast.AST) -> ast.expr:
        if name not in exact.OPERATORS:
            self._refuse(node, "compiled handlers have no matrix product")
        if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
            folded = _folded(name, left.value, right.value)
            if folded is not None:
                return self._constant(folded, node)
        return ast.copy_location(self._call(f"exact_{name}", exact.OPERATORS[name], [left, right]), node)  # type: ignore[type-var]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        name = type(node.op).__name__
        operand = self.visit(node.operand)
        if name == "USub" and isinstance(operand, ast.Constant) and isinstance(operand.value, (int, float)):
            return self._constant(-operand.value, node)
        if name == "Not":
            node.operand = operand
            return node
        return ast.copy_location(self._call(f"exact_{name}", exact.UNARY[name], [operand]), node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Each comparison by value. What stands in the middle of a chain is worked out twice, and must not mind."""
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            return self._membership(node)
        for middle in node.comparators[:-1]:
            self._check_repeatable(middle)
        parts: list[ast.expr] = []
        lefts = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, lefts, node.comparators, strict=False):
            name = type(op).__name__
            if name not in compare.COMPARISONS:
                self._refuse(node, "compiled handlers compare numbers with < <= > >= == !=, or look for one in (1, 2)")
            operands = [self.visit(deepcopy(left)), self.visit(deepcopy(right))]
            parts.append(self._call(f"compare_{name}", compare.COMPARISONS[name], operands))
        return ast.copy_location(parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts), node)

    def _membership(self, node: ast.Compare) -> ast.AST:
        """``x in (1, 2)`` as comparisons, one after the other."""
        given = node.comparators[0]
        places = [self.visit(part) for part in given.elts] if isinstance(given, ast.Tuple) else []
        if not places or not all(isinstance(part, ast.Constant) for part in places):
            self._refuse(node, "a number is looked for in a tuple of constants that is written out")
        if len(places) > 1:
            self._check_repeatable(node.left)
        parts = [
            self._call("same_whole", compare.same_whole, [self.visit(deepcopy(node.left)), part]) for part in places
        ]
        found: ast.expr = parts[0] if len(parts) == 1 else ast.BoolOp(ast.Or(), parts)
        made = ast.UnaryOp(ast.Not(), found) if isinstance(node.ops[0], ast.NotIn) else found
        return ast.copy_location(made, node)

    def _check_repeatable(self, node: ast.expr) -> None:
        """Refuse what does something each time that it is worked out."""
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and not (
                isinstance(part.func, ast.Name) and part.func.id in _BUILTINS and part.func.id not in self.local
            ):
                self._refuse(node, "what a comparison uses twice has no calls: put it into a variable first")

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            raise self._refusal(node, "compiled handlers make no text")
        if node.value is None or isinstance(node.value, (bool, int, float)):
            return self._constant(node.value, node)
        raise self._refusal(node, "compiled handlers know numbers, True, False and None")

    def _constant(self, value: Any, node: ast.AST) -> ast.expr:
        return ast.copy_location(ast.Constant(value), node)  # type: ignore[type-var]

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.local:
            if node.id in (self.role.own, self.role.ctx) and isinstance(node.ctx, ast.Load):
                self._refuse(node, "self and ctx are not handed on: pass fields and numbers")
            return node
        return self._from_outside(self._outside(node.id, node), node)

    def _outside(self, name: str, node: ast.AST) -> Any:
        if name in self.outside:
            return self.outside[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise self._refusal(node, "nothing has this name")

    def _from_outside(self, value: Any, node: ast.expr) -> ast.expr:
        if isinstance(value, IntEnum):
            return self._constant(int(value), node)
        if type(value) in (bool, int, float):
            return self._constant(value, node)
        raise self._refusal(
            node,
            "compiled handlers read numbers, IntEnum members, messages and @functions from outside; put arrays into model.table",
        )

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        base = node.value
        if isinstance(base, ast.Name) and base.id in self.local:
            if base.id == self.role.ctx and node.attr not in _CTX_VALUES:
                self._refuse(node, f"ctx offers {', '.join(sorted(_CTX_VALUES | _CTX_METHODS))}")
            if base.id == self.role.own and self._field(node) is None:
                self._refuse(node, f"{self.role.form.name if self.role.form else 'self'} has no such field")
            return node
        found = self._resolved(node)
        if found is not _NOTHING:
            return self._from_outside(found, node)
        node.value = self.visit(base)
        return node

    def _field(self, node: ast.expr) -> Any:
        """The field that ``self.name`` is; None for everything else."""
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self.role.own
        if not is_own or self.role.own is None or self.role.form is None:
            return None
        assert isinstance(node, ast.Attribute)
        return next((field for field in self.role.form.fields if field.name == node.attr), None)

    def _resolved(self, node: ast.expr) -> Any:
        """What a name, or ``module.name``, outside of the function stands for."""
        if isinstance(node, ast.Name) and node.id not in self.local:
            return self._outside(node.id, node)
        if isinstance(node, ast.Attribute):
            base = self._resolved(node.value)
            is_open = isinstance(base, ModuleType) or (isinstance(base, type) and issubclass(base, IntEnum))
            if is_open:
                if not hasattr(base, node.attr):
                    self._refuse(node, "nothing has this name")
                return getattr(base, node.attr)
        return _NOTHING

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = node.func
        if any(keyword.arg is None for keyword in node.keywords):
            self._refuse(node, _RULES[ast.Starred])
        if (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id in self.local
        ):
            return self._method_call(node, function, function.value.id)
        found = self._resolved(function)
        if found is _NOTHING or (isinstance(function, ast.Name) and function.id in self.local):
            self._refuse(node, "compiled handlers call ctx, messages, @functions, math and plain builtins")
        if found in self.rewriter.messages or (isinstance(found, type) and hasattr(found, "_fields")):
            return self._message(node, found)
        arguments = [self.visit(argument) for argument in node.args]
        if getattr(builtins, getattr(found, "__name__", ""), None) is found:
            return self._builtin(node, str(getattr(found, "__name__", "")), arguments)
        node.func = self._callee(node, found)
        node.args = arguments
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node

    def _callee(self, node: ast.Call, found: Any) -> ast.expr:
        name = getattr(found, "__name__", "")
        if isinstance(found, FunctionType) and hasattr(found, "kernel_function"):
            where = f"{self.file}:{node.lineno}"
            return self._global(f"function_{name}_{id(found)}", self.rewriter.function(found, where))
        if isinstance(found, FunctionType) and found in exact.KNOWN:
            return self._global(name, exact.KNOWN[found])
        if getattr(math, name, None) is found:
            if name not in reals.MATH or node.keywords:
                self._refuse(
                    node,
                    f"of math, compiled handlers call {', '.join(sorted(reals.MATH))}: others differ between machines; "
                    "exact_log and exact_exp of tidewarp.seeds do not",
                )
            return self._global(f"math_{name}", reals.MATH[name])
        raise self._refusal(
            node, "compiled handlers call ctx, messages, @functions, math and plain builtins: mark it @function"
        )

    def _method_call(self, node: ast.Call, function: ast.Attribute, owner: str) -> ast.AST:
        if owner == self.role.own:
            self._refuse(node, "a compiled handler calls no methods of self: write a @function")
        if owner != self.role.ctx:
            self._refuse(node, "compiled handlers call no methods of values")
        if function.attr not in _CTX_METHODS:
            self._refuse(node, f"ctx offers {', '.join(sorted(_CTX_METHODS))}")
        named = 1 if function.attr in ("add", "table") else 0
        literals = node.args[:named]
        if named and not (literals and isinstance(literals[0], ast.Constant) and isinstance(literals[0].value, str)):
            self._refuse(node, f"the name in ctx.{function.attr} is written out")
        node.args = [*literals, *(self.visit(argument) for argument in node.args[named:])]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node

    def _message(self, node: ast.Call, cls: Any) -> ast.AST:
        """A message with its fields by position, defaults filled in."""
        try:
            bound = inspect.signature(cls).bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
        except TypeError as error:
            self._refuse(node, str(error))
        written = [str(keyword.arg) for keyword in node.keywords]
        is_simple = all(isinstance(keyword.value, (ast.Name, ast.Constant, ast.Attribute)) for keyword in node.keywords)
        if not is_simple and written != [name for name in cls._fields if name in written]:
            self._refuse(node, "the fields of a message are worked out in their declared order: write them in it")
        fields: list[ast.expr] = []
        for name in cls._fields:
            if name in bound.arguments:
                fields.append(self.visit(bound.arguments[name]))
            else:
                fields.append(self._default(cls._field_defaults[name], node))
        made = self._call(f"message_{cls.__name__}_{id(cls)}", cls, fields)
        return ast.copy_location(made, node)

    def _default(self, value: Any, node: ast.expr) -> ast.expr:
        if isinstance(value, tuple):
            return ast.copy_location(ast.Tuple([self._default(part, node) for part in value], ast.Load()), node)
        return self._from_outside(value, node)

    def _builtin(self, node: ast.Call, name: str, arguments: list[ast.expr]) -> ast.AST:
        if name not in _BUILTINS or node.keywords:
            self._refuse(node, f"of the builtins, compiled handlers call {', '.join(sorted(_BUILTINS))}")
        if name in _OF_ONE:
            if len(arguments) != 1:
                self._refuse(node, f"{name} takes one number")
            return ast.copy_location(self._call(name, _OF_ONE[name], arguments), node)
        if name in ("min", "max"):
            if len(arguments) < 2:
                self._refuse(node, f"{name} takes two numbers or more")
            function = exact.least if name == "min" else exact.greatest
            made = arguments[0]
            for other in arguments[1:]:
                made = self._call(name, function, [made, other])
            return ast.copy_location(made, node)
        if name == "range":
            arguments = [self._call("spread", exact.spread, [argument]) for argument in arguments]
        node.func = self._global(name, getattr(builtins, name))
        node.args = arguments
        return node

    # --- parts ------------------------------------------------------------------------------------

    def _temporary(self) -> str:
        self.temporaries += 1
        return f"__tw_{self.temporaries}"

    def _assign(self, name: str, value: ast.expr, node: ast.stmt) -> ast.stmt:
        return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node)

    def _load(self, name: str) -> ast.expr:
        return ast.Name(name, ast.Load())

    def _global(self, name: str, value: Any) -> ast.expr:
        self.names[f"__tw_{name}"] = value
        return ast.Name(f"__tw_{name}", ast.Load())

    def _call(self, name: str, function: Any, arguments: list[ast.expr]) -> ast.expr:
        return ast.Call(self._global(name, function), arguments, [])


_NOTHING = object()


def _is_number(value: Any) -> bool:
    if type(value) is tuple:
        return all(_is_number(part) for part in value)
    return isinstance(value, IntEnum) or type(value) in (bool, int, float)


def _closed(method: FunctionType) -> Mapping[str, Any]:
    found = {}
    for name, cell in zip(method.__code__.co_freevars, method.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet: the name is refused where it is used
            continue
    return found


def _as_load(node: ast.expr) -> ast.expr:
    copied = ast.parse(textwrap.dedent(ast.unparse(node)), mode="eval").body
    for part in ast.walk(copied):
        ast.copy_location(part, node)
    return copied


def _folded(name: str, a: Any, b: Any) -> Any:
    """The result of an operator on two constants; None where it is better left to the run."""
    if not all(type(x) in (int, float) for x in (a, b)):
        return None
    if name in ("LShift", "Pow") and not (isinstance(b, int) and 0 <= b < _FOLDED_BITS_MAX and abs(a) < 2**64):
        return None
    try:
        return getattr(operator, _FOLDED[name])(a, b)
    except (ArithmeticError, TypeError, ValueError):
        return None
