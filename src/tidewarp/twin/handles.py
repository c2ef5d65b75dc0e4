"""What a program may do with a twin beside running it: set values, hold the clock, change its pace, ask how late it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidewarp.clocks import Pacer
from tidewarp.errors import ModelError, OperatorError, RuleViolation
from tidewarp.twin.local import MISSING, changes_of
from tidewarp.twin.wiring import Wiring

if TYPE_CHECKING:
    from tidewarp.twin.host import Host

__all__ = ["Handles"]


class Handles(Wiring):
    """A part of :class:`~tidewarp.twin.session.Twin`."""

    _host: Host | None = None
    _failed = False
    _is_closed = False
    _is_under_way = False  # a run
    _closer: int | None = None  # the thread that closes it now
    _runner: int | None = None  # the thread that runs the model now: in a run, a recovery, or by `apply`
    _factor: float | None = None  # wished for since it was opened

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # Held where a run begins or ends, and by who asks something of the host between two runs; told of the end of a run.
        self._turn = threading.Condition()

    def apply(self, path: str | Mapping[str, Any], value: Any = MISSING) -> None:
        """Set ``path`` to ``value``, or all paths of a mapping or none, from the program that runs the twin.

        It is an input like any other: checked, stamped, journaled, and then applied; a replay has it. Its source is called
        "local". Between two runs it is applied at once, where the clock stands, before the model does anything further
        there. While a run is under way, in another thread, it is queued and applied at the virtual time by the wall (at full
        speed: as soon as the clock may still be told). Safe from any thread.

        Model code does not use it: what the model does by itself is in no journal. There ``twin.registry.update`` acts at once.

        Raises:
            UnknownPath: the model has no such path.
            RuleViolation: the value does not fit the path; or, between two runs, the state of the moment forbids it. During a
                run such an input is published as ``system.input.refused``.
            OperatorError: 65,536 updates wait already; or the twin has failed, or is closed.
            ModelError: called from ``build`` or from a process of the model.
        """
        host = self._host
        if host is None or (self.env.writable and self._runner == threading.get_ident()):
            action = "call twin.registry.update() in a process, or give the initial value in build"
            raise ModelError("twin.apply() in a model", "an input comes from outside of the model", action)
        if not self._gate.sources.takes_local:
            raise OperatorError("twin.apply()", 'a source of the model is called "local"', "connect it by another name")
        changes = self._gate.checked(changes_of(path, value))
        with self._turn:
            if self._is_under_way:
                host.apply_later(changes)
                return
            self._refuse_at_end()
            host.queue(changes)
            with self._between_runs():
                host.apply_queued()

    def pause(self) -> None:
        """Let the clock stand still, in this run and the next ones, until :meth:`proceed`. Safe from any thread.

        What arrives meanwhile is journaled, with the time at which the clock stands; sinks are served.
        """
        self._hosted("pause").control.pause()

    def proceed(self) -> None:
        """End a pause: a paced run goes on from where it stands, and one by the calendar catches up. Safe from any thread."""
        self._hosted("proceed").control.proceed()

    def set_factor(self, factor: float) -> None:
        """Wall seconds per simulated second from now on, 0 = full speed; also of later runs. Safe from any thread.

        Nothing but the pace depends on it. What the run was late by is forgiven.

        Raises:
            OperatorError: no factor; or the twin follows the times of live sources, whose factor is 1.
        """
        host = self._hosted("set_factor")
        factor = Pacer(factor).factor  # refuses what is none
        if self._live_times and factor != 1:
            rule = "event times of live sources are those of the wall: factor 1"
            raise OperatorError(f"factor {factor!r} with source {self._live_times[0]!r}", rule, "leave it at 1")
        host.control.set_factor(factor)
        self._factor = factor

    @property
    def lag_s(self) -> float:
        """Wall seconds by which the run is late now; 0 on time, while it catches up, at factor 0 and between runs."""
        return 0.0 if self._host is None or not self._is_under_way else self._host.lag_s

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Around a run: updates of other threads are queued from here, where `_turn` is held, up to `_come_to_rest`."""
        try:
            self._runner, self._is_under_way = threading.get_ident(), True
            self._failed = True  # unless it comes back: what was admitted but not journaled must not be passed over
            yield
        except BaseException:
            with self._turn:
                self._come_to_rest(failed=True)
            raise

    def _come_to_rest(self, *, failed: bool) -> None:
        """A run has ended. Called in turn."""
        self._failed, self._runner, self._is_under_way = failed, None, False
        self._turn.notify_all()

    @contextmanager
    def _between_runs(self) -> Iterator[None]:
        """Around what the host does between two runs, and may let the model do in this thread.

        What it cannot do ends the use of the twin, as in a run; an update that the model's state forbids is done.
        """
        before, self._runner = self._runner, threading.get_ident()
        try:
            yield
        except RuleViolation:
            raise
        except BaseException:
            self._failed = True  # what was admitted but not journaled must not be passed over, nor waited for
            raise
        finally:
            self._runner = before

    def _refuse_at_end(self) -> None:
        """Called in turn, where no run is under way. Raises OperatorError."""
        if self._is_closed or self._failed:
            rule = "it is closed" if self._is_closed else "its last run ended with an error"
            raise OperatorError("this twin", rule, "open its journal again")
        if self._runner not in (None, threading.get_ident()):
            raise OperatorError("this twin", "it is being opened by another thread", "wait until open() has returned")

    def _hosted(self, what: str) -> Host:
        if self._host is None:
            raise ModelError(
                f"twin.{what}()", "a model does not see the wall's time", "call it on what open() returned"
            )
        return self._host
