"""Finding a model's code and naming it: which files decide what a run computes."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tidewarp.codec import Digest, pack
from tidewarp.errors import CodecError, OperatorError
from tidewarp.twin.documents import ModelRecord

__all__ = ["ModelSource", "changed_files", "find_model", "load_model", "model_source", "refuse_while_loading"]


@dataclass(frozen=True)
class ModelSource:
    """Where a model's code stands. ``path`` None: it was not read from a file and cannot be checked."""

    path: Path | None
    function: str
    files: dict[str, str] = field(default_factory=dict)  # path relative to the model's folder -> SHA-256 hex

    @property
    def digest(self) -> str:
        """The model digest: SHA-256 over names and contents of the files; "" without files."""
        if not self.files:
            return ""
        digest = Digest("TWMODEL1")
        for name, content in sorted(self.files.items()):
            digest.add(name.encode("utf-8", "surrogateescape"))
            digest.add(content.encode())
        return digest.hexdigest()

    def record(self, journal: Path) -> ModelRecord:
        """What ``tw.open`` records; the path is relative to the journal's folder, so both can move together."""
        path = None if self.path is None else Path(os.path.relpath(self.path, journal.resolve().parent)).as_posix()
        for name in (path or "", *self.files):
            if name.encode("utf-8", "replace") != name.encode("utf-8", "surrogateescape"):
                rule = "the journal holds the names of a model's files as text, which is UTF-8"
                raise OperatorError(repr(name), rule, "rename the file or its folder")
        return ModelRecord(path, self.function, self.digest, self.files)


def model_source(build: Callable[..., Any]) -> ModelSource:
    """The file of ``build`` and the modules beside it that it imports, directly or through each other."""
    function = inspect.unwrap(getattr(build, "func", build))
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        found = inspect.getsourcefile(function)
    except TypeError:
        found = None
    if found is None or not Path(found).is_file():
        return ModelSource(None, name)
    path = Path(found).resolve()
    files = _files(path)
    if isinstance(build, functools.partial):
        files["arguments of " + name] = sha256(_arguments(build)).hexdigest()
    return ModelSource(path, name, files)


def _files(path: Path) -> dict[str, str]:
    """The file ``path`` and the modules beside it that it imports, by their paths in its folder, each with its SHA-256."""
    files: dict[str, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        relative = file.relative_to(path.parent).as_posix()
        if relative not in files:
            data = file.read_bytes()
            files[relative] = sha256(data).hexdigest()
            waiting += [found for found in _beside(data, path.parent, file.parent) if path.parent in found.parents]
    return files


def _arguments(build: functools.partial[Any]) -> bytes:
    try:
        return pack([list(build.args), dict(build.keywords)])
    except CodecError as error:
        raise OperatorError(
            f"partial: {error.value}", "a model's arguments are plain data: they decide what is replayed", "give such"
        ) from error


def _beside(data: bytes, folder: Path, here: Path) -> Iterator[Path]:
    """The modules in ``folder`` that a source text imports; none of a text that is no Python."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):  # a module beside the model that it does not, or cannot, import
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        else:
            continue
        level = node.level if isinstance(node, ast.ImportFrom) else 0
        base = [folder, here, *here.parents][min(level, len(here.parents) + 1)]  # from . is here, from .. above it
        for name in names:
            place = base.joinpath(*name.split("."))
            for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                if candidate.is_file():
                    yield candidate


_loading = False


def refuse_while_loading() -> None:
    """A model file is imported to be run or replayed: a twin that it opens by itself would run behind our back."""
    if _loading:
        raise OperatorError(
            "tidewarp.open()", "a model file wires a twin and runs none", 'put it below: if __name__ == "__main__":'
        )


def find_model(spec: str) -> ModelSource:
    """The source of the model named by ``MODEL.py`` or ``MODEL.py:function``, read and not run. Raises OperatorError."""
    path, name = _parse(spec)
    try:
        return ModelSource(path.resolve(), name, _files(path.resolve()))
    except OSError as error:
        raise OperatorError(str(path), f"cannot be read: {error.strerror}", "check its permissions") from error


def load_model(spec: str) -> Callable[..., Any]:
    """The build function named by ``MODEL.py`` or ``MODEL.py:function``. Raises OperatorError."""
    path, name = _parse(spec)
    build = getattr(_load(path.resolve()), name, None)
    if not callable(build):
        raise OperatorError(f"{path}: {name}", "the file has no function of this name", f"define {name}(twin)")
    return build  # type: ignore[no-any-return]  # the model is the user's: its type is known to be callable, no more


def _parse(spec: str) -> tuple[Path, str]:
    """The file and the function in ``FILE.py[:function]``. Raises OperatorError."""
    text, _, name = spec.rpartition(":")
    if not text or not name.isidentifier():
        text, name = spec, "build"
    path = Path(text)
    if path.is_dir() or path.suffix != ".py":
        raise OperatorError(str(path), "a model is a Python file with a build function", "name a .py file")
    if not path.is_file():
        raise OperatorError(
            str(path), "no such file", "name the model's .py file (tidewarp replay takes --model MODEL.py[:build])"
        )
    return path, name


class _Text(SourceFileLoader):
    """Compiles the text that is digested: Python would take a .pyc for it that is of the same second and size."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(path: Path) -> ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loader = _Text("tidewarp_model", str(path))
    spec = importlib.util.spec_from_file_location("tidewarp_model", path, loader=loader)
    if spec is None:
        raise OperatorError(str(path), "not importable as a Python module", "name a .py file")
    module = importlib.util.module_from_spec(spec)
    global _loading
    sys.modules["tidewarp_model"] = module
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # of the modules beside it neither
    _loading = True
    try:
        loader.exec_module(module)
    except OperatorError:
        raise
    except (Exception, SystemExit) as error:
        value = f"{path}: {type(error).__name__}: {error}"
        raise OperatorError(value, "a model file must import without an error", "mend it and run again") from error
    finally:
        _loading = False
        sys.dont_write_bytecode = writes_none
    return module


def changed_files(recorded: ModelRecord, present: ModelSource) -> list[str]:
    """The model's files that differ from those that a journal recorded, by name."""
    before, now = recorded.files, present.files
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
