"""The simulation's side of the forked host: a run in a process of its own, which does what its host asks for.

All these processes are alike: each has a run and a connection of its own to the host, and sleeps on it until something is
asked. One that is asked to fork gives the host a connection to its copy. So a fork snapshot is a copy that is not asked
for anything yet, and to wake it is to ask it for a copy.

A process ends when its connection does, as it does when the host dies. The first one (``nursery``) adopts what its
descendants leave behind and ends last, so a host that waits for it knows that none is left, and there are no zombies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from typing import Any, NoReturn

from tidewarp.connect.contract import Input
from tidewarp.connect.gate import Grant
from tidewarp.errors import ModelError, OperatorError, TidewarpError
from tidewarp.process.rules import Rule
from tidewarp.twin.documents import Mark
from tidewarp.twin.run import Run

__all__ = ["flush", "serve"]

_ORPHAN_S = 1.0  # how often a slice that takes long looks whether its host is still there
_SUBREAPER = 36  # prctl(2), PR_SET_CHILD_SUBREAPER


def serve(run: Run, connection: Connection) -> NoReturn:
    """Be the nursery: the child of a fork that has just happened. Never returns into the host's program."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):  # the first two are for the host to decide on
            signal.signal(number, signal.SIG_IGN)  # of the third: the kernel reaps what nobody waits for
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.closerange(3, connection.fileno())  # the journal's lock among them
        os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        with contextlib.suppress(AttributeError, OSError):  # Linux; elsewhere the system's first process adopts
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        gc.freeze()  # what is there before the run: a collection would copy its pages, and end what is the host's to end
        _Server(run, connection).serve()
    finally:
        os._exit(1)  # no handlers, no buffers, no test framework of the host's


def flush() -> None:
    """Before a fork: what waits to be printed would be printed by both."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


class _Server:
    """Answers requests, ``(name, arguments)``, with ``(is_done, value or error, standing)``, pickled: host and
    simulation are one program.
    """

    def __init__(self, run: Run, connection: Connection) -> None:
        self._run, self._connection = run, connection
        self._is_nursery = True
        self._requests: dict[str, Callable[..., Any]] = {
            "step": self._step,
            "mark": self._mark,
            "digest": lambda: (run.digest(), run.env.registry.state()),
            "rules": self._rules,
            "restore": lambda cut: list(map(tuple, run.restore(cut))),
            "cuts": run.take_cuts,
        }
        signal.signal(signal.SIGALRM, self._leave_if_orphaned)

    def serve(self) -> NoReturn:
        while True:
            try:
                name, arguments = pickle.loads(self._connection.recv_bytes())
                if name == "fork":
                    self._fork()
                else:
                    self._answer(*self._done(name, arguments))
            except (EOFError, OSError):
                self._leave()

    def _done(self, name: str, arguments: Sequence[Any]) -> tuple[bool, Any]:
        try:
            return True, self._requests[name](*arguments)
        except TidewarpError as error:
            error.add_note(traceback.format_exc())
            return False, error
        except Exception as error:  # of a function given to twin.state, say
            text = f"twin.{name}(): {type(error).__name__}: {error}"
            raised = ModelError(text, "a state is plain data at any time", "mend the function given to state")
            raised.add_note(traceback.format_exc())
            return False, raised

    def _answer(self, is_done: bool, value: Any) -> None:
        answer = is_done, value, tuple(self._run.standing())
        self._connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))

    def _step(
        self, limit: int, events_max: int, grants: Sequence[tuple[int, Sequence[Any]]]
    ) -> tuple[list[tuple[Any, ...]], ModelError | None]:
        """The outputs; of a model that raised, those of its completed instants, and its error."""
        for floor, inputs in grants:
            self._run.grant(Grant(floor, tuple(map(Input._make, inputs))))
        signal.setitimer(signal.ITIMER_REAL, _ORPHAN_S, _ORPHAN_S)
        try:
            outputs, failure = self._run.step(limit, events_max), None
        except ModelError as error:
            error.add_note(traceback.format_exc())
            outputs, failure = self._run.salvage(), error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return list(map(tuple, outputs)), failure

    def _mark(self, final: bool) -> Mark:
        return self._run.mark(final=final)

    def _rules(self) -> list[Rule]:
        return self._run.env.registry.rules()

    def _fork(self) -> None:
        """Go on twice: here, and as a copy with nothing granted, whose process id and connection the host gets."""
        flush()
        ours, theirs = Pipe()
        try:
            copy = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            refused = OperatorError(
                "a fork snapshot", f"fork: {error.strerror}", "raise the limit of processes or memory"
            )
            self._answer(False, refused)
            return
        if copy:
            theirs.close()
            try:
                self._answer(True, copy)
                send_handle(self._connection, ours.fileno(), None)
            finally:
                ours.close()  # a host that has gone meanwhile: the copy is waited for, and this is how it hears of it
        else:
            ours.close()
            self._connection.close()
            self._connection, self._is_nursery = theirs, False
            self._run.forget()

    def _leave_if_orphaned(self, *_: Any) -> None:
        """In a slice there is nothing to be read: what can be is the end of the connection."""
        if self._connection.poll():
            self._leave()

    def _leave(self) -> NoReturn:
        flush()
        if self._is_nursery:
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()
        os._exit(0)
