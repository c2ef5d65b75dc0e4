"""The guard: model code that looks at the host's clock or at random numbers of its own is stopped where it does.

A profile function (``sys.setprofile``) sees every call of a C function in the model's thread, however the model came by
the name, and all that is watched ends in one: ``uuid.uuid4`` and ``secrets`` in ``os.urandom``, ``random.randint`` in a method of
the module's hidden generator. Wrappers in place of the functions would miss ``from time import time``, and ``datetime`` can have
none. The draws of ``numpy.random`` make no such event: there the lock that each of them takes is ours for the while.

It costs a Python call for each call that the model makes, so it is for rehearsals; a run without it pays nothing.
"""

from __future__ import annotations

import gc
import sys
import threading
from datetime import date
from types import FrameType
from typing import Any

from tidewarp.errors import ModelError

__all__ = ["Guard", "Unguarded"]

_PURE = {"strptime", "get_clock_info"}  # of the module time
_NOW = {"now", "utcnow", "today"}  # of datetime and date
_SYSTEM = {"posix", "nt"}  # where os has its functions from
_OURS = {"tidewarp", "simpy"}
_EXEMPT = {"logging", "importlib"}  # a line of a log has a time, and a module that is imported may want one
_TIME, _RANDOM = "take twin.now, twin.tick or twin.epoch", "draw from twin.stream(name) or twin.sampler(name)"
_running = threading.local()  # .guard: of the model that this thread runs


class Unguarded:
    """No guard: a context manager that does nothing."""

    broken: ModelError | None = None

    def __enter__(self) -> Unguarded:
        return self

    def __exit__(self, *error: object) -> None:
        return


class Guard(Unguarded):
    """A context manager around model code. ``broken`` is the first forbidden call, also where the model caught the error.

    It watches the thread that enters it, and no other one.
    """

    def __init__(self) -> None:
        self._before: Any = None  # what profiles this thread otherwise

    def __enter__(self) -> Guard:
        _GlobalDraws.watch()
        self._before = sys.getprofile()
        _running.guard = self
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._before)
        _running.guard = None
        _GlobalDraws.leave()

    def _profile(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (action := _instead(called)) is not None:
            self.refuse(frame, _name(called), action)

    def refuse(self, frame: FrameType | None, called: str, action: str) -> None:
        """Raise ModelError if what ``frame`` calls is called by the model, directly or through the standard library or numpy."""
        author: FrameType | None = None
        collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}  # they come at any moment
        while frame is not None:
            if frame.f_code in collecting:
                return
            module = frame.f_globals.get("__name__", "")
            package = module.partition(".")[0]
            if package in _OURS:
                break
            if package in _EXEMPT:
                return
            if author is None:
                if package in sys.stdlib_module_names or package == "numpy":
                    called = f"{module}.{frame.f_code.co_qualname}()"
                else:
                    author = frame
            frame = frame.f_back
        if author is None:
            return
        called = called.replace("random.Random.", "random.")
        value = f"{called} in {author.f_code.co_name}, {author.f_code.co_filename}:{author.f_lineno}"
        self.broken = ModelError(value, "a model is a function of its inputs and its seed", action)
        raise self.broken


def _name(called: Any) -> str:
    """A C function as its users write it."""
    owner = called.__self__
    place = called.__module__ or (owner if isinstance(owner, type) else type(owner)).__module__
    return f"{'os' if place in _SYSTEM else place}.{called.__qualname__}()"


def _instead(called: Any) -> str | None:
    """What a model does instead of calling this C function; None if it may."""
    module, name = getattr(called, "__module__", None), called.__name__
    if module == "time":
        return None if name in _PURE else _TIME
    if module in _SYSTEM:
        return _RANDOM if name in ("urandom", "getrandom") else None
    if module == "_uuid":
        return _RANDOM
    owner = getattr(called, "__self__", None)
    if name in _NOW and isinstance(owner, type) and issubclass(owner, date):
        return _TIME
    hidden = getattr(sys.modules.get("random"), "_inst", None)
    return _RANDOM if hidden is not None and owner is hidden else None


class _GlobalDraws:
    """What numpy's global generator draws through while any model is guarded: itself, with a lock that looks who comes."""

    _count = 0
    _mutex = threading.Lock()
    _before: Any = None

    @classmethod
    def watch(cls) -> None:
        numpy = sys.modules.get("numpy")
        with cls._mutex:
            cls._count += 1
            if cls._before is None and numpy is not None:
                cls._before = numpy.random.get_bit_generator()
                numpy.random.set_bit_generator(_watched(numpy.random.MT19937, cls._before))

    @classmethod
    def leave(cls) -> None:
        with cls._mutex:
            cls._count -= 1
            if not cls._count and cls._before is not None:
                sys.modules["numpy"].random.set_bit_generator(cls._before)
                cls._before = None


class _Lock:
    """The lock of a generator, which refuses a model's thread."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        guard = getattr(_running, "guard", None)
        if guard is not None:
            guard.refuse(sys._getframe(1), "numpy.random's global generator", _RANDOM)
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _watched(kind: Any, generator: Any) -> Any:
    """``generator`` with another lock: its state is its own, so whoever draws from it meanwhile has the draws in their order."""

    class Watched(kind):  # type: ignore[misc]  # numpy's: of this class the global one must be to be seeded
        lock = _Lock(generator.lock)
        capsule = generator.capsule
        state = property(lambda _: generator.state, lambda _, state: setattr(generator, "state", state))

        def _legacy_seeding(self, seed: Any) -> None:
            generator._legacy_seeding(seed)

    return Watched(0)
