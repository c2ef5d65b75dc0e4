"""The folder of compiled code: one subfolder for each unit (the kernels' modules, each model's handlers), made once, then loaded.

What Numba keeps there is executed when it is loaded. So the folder is private to its user, and a unit's *seal*, the SHA-256 of each
of its files, is checked before anything of it is touched: what does not fit is removed and compiled again. A lock per unit makes
processes that start together compile once. Where nothing can be written, what is there is used, and what is not is compiled for
this process alone. The folder's name holds everything that compiled code depends on besides its own
source: our sources, versions, processor, Numba's settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
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
from queue import SimpleQueue
from typing import IO, Any, NamedTuple, TypeVar

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import Digest
from tidewarp.kernel import compiled

__all__ = ["Cache", "Loaded", "default_root", "processor"]

T = TypeVar("T")
_SEAL = "seal.json"
_TEXT_MAX = 2**20  # bytes of a seal
_LOCK_QUIET_S = 1.0  # wall seconds that a lock is waited for without a word
_LOCK_LOOK_S = 0.05  # between two looks at it

_LOG = logging.getLogger("tidewarp.kernel")


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
        self._read_only: Path | None = None  # where units may be that others have compiled
        self._fault: OSError | None = None  # why what is compiled now is not kept
        self._said: set[str] = set()
        self._never: SimpleQueue[None] = SimpleQueue()  # empty: who waits for a lock sleeps on it

    @property
    def folder(self) -> Path:
        """Where this version of everything keeps its code; made at the first use."""
        if self._folder is None:
            self._folder = self._private_folder()
        return self._folder

    def load(self, unit: str, build: Callable[[Path], T], slow: str = "") -> T:
        """What ``build(folder of the unit)`` gives, with Numba's files in that folder; blocks while another process builds it.

        Where files fail (a full disk) it is built in memory, with one warning: ``build`` is called again, ``compiled.keeps``
        being False. ``slow`` names what takes so long to compile that it is said, once.
        """
        started = self._clock.now()
        place = self.folder / unit
        try:
            result, cached = self._load(place, build, slow)
        except OSError as error:
            self._fault = self._fault or error
            result, cached = build(place), False
        self.loaded[unit] = Loaded(unit, self._clock.now() - started, cached)
        if not cached and self._fault is not None:
            self._warn(self._fault)
        return result

    def _load(self, place: Path, build: Callable[[Path], T], slow: str) -> tuple[T, bool]:
        if self._read_only is not None and _is_whole(self._read_only / place.name):
            with _numba_files_in(self._read_only / place.name, writes=False):
                return build(self._read_only / place.name), True
        with self._locked(place.with_name(f"{place.name}.lock")):
            try:
                return self._build(place, build, slow)
            except OSError:
                with contextlib.suppress(OSError):  # what went wrong is what is said; a part of a unit is of no use
                    _empty(place)
                raise

    def _build(self, place: Path, build: Callable[[Path], T], slow: str) -> tuple[T, bool]:
        if not place.is_dir():
            _remove(place)
        place.mkdir(mode=0o700, exist_ok=True)
        before = _seal_of(place)
        if before is None or before != _digests(place):
            _empty(place)
            before = {}
        if slow and not before:
            self._say(f"compiling {slow}, once: this may take two minutes")
        with _numba_files_in(place):
            result = build(place)
        after = _digests(place)
        if after != before:
            _write_seal(place, after)
        return result, bool(after) and after == before

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        if not path.is_file():
            _remove(path)
        with path.open("ab") as file:
            self._take(file)
            yield

    def _take(self, file: IO[bytes]) -> None:
        quiet_until = self._clock.now() + _LOCK_QUIET_S
        while self._clock.now() < quiet_until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            self._clock.wait(self._never, _LOCK_LOOK_S)
        self._say("waiting for another process that compiles")
        fcntl.flock(file, fcntl.LOCK_EX)

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            _LOG.warning("%s", line)

    def _warn(self, fault: OSError) -> None:
        line = f"compiled code is not kept: {fault}; free some space, or set TIDEWARP_CACHE to a folder of your own"
        if line not in self._said:
            self._said.add(line)
            warnings.warn(line, RuntimeWarning, stacklevel=3)

    def clear(self) -> None:
        """Remove all compiled code, of other versions too."""
        for place in _folders(self.root):
            shutil.rmtree(place, ignore_errors=True)
        self._folder = self._read_only = self._fault = None

    def _private_folder(self) -> Path:
        place = self.root / _environment()[:32]
        try:
            if place.is_file():
                place.unlink()
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = place.stat()
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"others may write to {place}")
            self._read_only = place
            with tempfile.TemporaryFile(dir=place):
                self._read_only = None
                return place
        except OSError as error:
            self._fault = error
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


def _is_whole(place: Path) -> bool:
    seal = _seal_of(place)
    return bool(seal) and seal == _digests(place)


def _write_seal(place: Path, digests: dict[str, str]) -> None:
    draft = place / f"{_SEAL}.new"
    draft.write_text(json.dumps(digests))
    draft.replace(place / _SEAL)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _numba_files_in(place: Path, writes: bool = True) -> Iterator[None]:
    """Functions that are decorated meanwhile keep their compiled form below ``place``, or only find it there."""
    from numba.core import caching, config

    locator, kept = caching._CacheLocator, caching.Cache
    before = config.CACHE_DIR, compiled.keeps, locator.ensure_cache_path, kept.load_overload
    config.CACHE_DIR, compiled.keeps, kept.load_overload = str(place), True, _load_overload
    if not writes:
        locator.ensure_cache_path = lambda self: None  # Numba would not read where it cannot write
    try:
        yield
    finally:
        config.CACHE_DIR, compiled.keeps, locator.ensure_cache_path, kept.load_overload = before


def _load_overload(files: Any, signature: Any, target: Any) -> Any:
    """What Numba's own ``Cache.load_overload`` gives, without all that it imports to compile: half the time of a warm start.

    Code that is there needs Numba's runtime; code that is not is compiled, and the compiler then imports the rest.
    """
    from numba.core.runtime import rtsys

    rtsys.initialize(target)
    with files._guard_against_spurious_io_errors():
        return files._load_overload(signature, target)


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
