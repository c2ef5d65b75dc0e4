"""The folder of compiled code: one subfolder for each unit (the kernels' modules, each model's handlers), made once, then loaded.

What Numba keeps there is executed when it is loaded. So the folder is private to its user, and a unit's *seal*, the SHA-256 of each
of its files, is checked before anything of it is touched: what does not fit is removed and compiled again. A lock per unit makes
processes that start together compile once. The folder's name holds everything that compiled code depends on besides its own
source: our sources, versions, processor, Numba's settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import Digest
from tidewarp.kernel import compiled

__all__ = ["Cache", "Loaded", "default_root", "processor"]

T = TypeVar("T")
_SEAL = "seal.json"
_TEXT_MAX = 2**20  # bytes of a seal


class Loaded(NamedTuple):
    """How a unit came into this process: ``seconds`` of wall time, ``cached`` if nothing had to be compiled."""

    name: str
    seconds: float
    cached: bool


def default_root() -> Path:
    """``TIDEWARP_CACHE``, or the platform's folder for caches."""
    given = os.environ.get("TIDEWARP_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tidewarp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidewarp"


class Cache:
    """Units of compiled code below ``root``; in a temporary folder, with one warning, where that cannot be written."""

    def __init__(self, root: Path | None = None, clock: Clock | None = None) -> None:
        self.root = root or default_root()
        self.loaded: dict[str, Loaded] = {}
        self._clock = clock or WallClock()
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where this version of everything keeps its code; made at the first use."""
        if self._folder is None:
            self._folder = self._private_folder()
        return self._folder

    def load(self, unit: str, build: Callable[[Path], T]) -> T:
        """What ``build(folder of the unit)`` gives, with Numba's files in that folder; blocks while another process builds it."""
        started = self._clock.now()
        place = self.folder / unit
        with _locked(self.folder / f"{unit}.lock"):
            place.mkdir(mode=0o700, exist_ok=True)
            before = _seal_of(place)
            if before is None or before != _digests(place):
                _empty(place)
                before = {}
            with _numba_files_in(place):
                result = build(place)
            after = _digests(place)
            if after != before:
                _write_seal(place, after)
        self.loaded[unit] = Loaded(unit, self._clock.now() - started, bool(after) and after == before)
        return result

    def clear(self) -> None:
        """Remove all compiled code, of other versions too."""
        for place in _folders(self.root):
            shutil.rmtree(place, ignore_errors=True)
        self._folder = None

    def _private_folder(self) -> Path:
        place = self.root / _environment()[:32]
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = place.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"others may write to {place}")
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError as error:
            warnings.warn(
                f"compiled code is not kept: {error}; set TIDEWARP_CACHE to a folder of your own",
                RuntimeWarning,
                stacklevel=2,
            )
            return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    import atexit

    place = Path(tempfile.mkdtemp(prefix="tidewarp-code-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _folders(root: Path) -> Iterator[Path]:
    """The folders that :meth:`Cache._private_folder` has made."""
    with contextlib.suppress(OSError):
        for place in root.iterdir():
            if len(place.name) == 32 and set(place.name) <= set("0123456789abcdef") and place.is_dir():
                yield place


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digests(place: Path) -> dict[str, str]:
    """The SHA-256 of every file of a unit but its seal, with the time that Numba knows it by."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name != _SEAL:
            found[str(path.relative_to(place))] = f"{sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
    return found


def _seal_of(place: Path) -> dict[str, str] | None:
    """What the seal of a unit vouches for; None without a whole one."""
    try:
        with (place / _SEAL).open("rb") as file:
            document = json.loads(file.read(_TEXT_MAX))
    except (OSError, ValueError):
        return None
    is_seal = isinstance(document, dict) and all(isinstance(value, str) for value in document.values())
    return document if is_seal else None


def _write_seal(place: Path, digests: dict[str, str]) -> None:
    draft = place / f"{_SEAL}.new"
    draft.write_text(json.dumps(digests))
    draft.replace(place / _SEAL)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _numba_files_in(place: Path) -> Iterator[None]:
    """Functions that are decorated meanwhile keep their compiled form below ``place``."""
    from numba.core import config

    before = config.CACHE_DIR, compiled.keeps
    config.CACHE_DIR, compiled.keeps = str(place), True
    try:
        yield
    finally:
        config.CACHE_DIR, compiled.keeps = before


def processor() -> str:
    """The name of the processor that code is compiled for."""
    from llvmlite import binding

    name: str = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    return name


@cache
def _environment() -> str:
    """Names what all compiled code depends on."""
    from llvmlite import binding

    digest = Digest("TWCACHE1")
    package = Path(__file__).parents[2]
    outside = [
        package / f"{name}.py" for name in ("seeds", "units", "kernel/arithmetic", "kernel/context", "kernel/kinds")
    ]
    for path in [*outside, *sorted((package / "kernel" / "compiled").glob("*.py"))]:
        digest.add(path.name.encode())
        digest.add(path.read_bytes())
    settings: dict[str, Any] = {
        name: value for name, value in os.environ.items() if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR"
    }
    parts = [
        sys.version,
        platform.machine(),
        processor(),
        binding.get_host_cpu_features().flatten(),
        str(sorted(settings.items())),
    ]
    parts += [metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    for part in parts:
        digest.add(part.encode())
    return digest.hexdigest()
