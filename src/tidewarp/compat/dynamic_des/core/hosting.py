"""An environment that its program made, as the model of a twin: sources, sinks and clock are the twin's."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tidewarp.clocks import Clock
from tidewarp.connect.contract import Sink, Source
from tidewarp.process import Environment
from tidewarp.twin import Twin, open_twin

__all__ = ["MEMORY", "Hosting", "Wires", "model_of", "stopped_by_interrupt"]

MEMORY = ":memory:"


class Wires(NamedTuple):
    """What an environment is connected with: (source or sink, keywords of ``connect`` or ``sink``)."""

    sources: Sequence[tuple[Source, dict[str, Any]]]
    sinks: Sequence[tuple[Sink, dict[str, Any]]]


def model_of(env: Environment, wires: Callable[[Twin], Wires]) -> Callable[[Twin], None]:
    """A model that is ``env``, with its connectors."""

    def build(twin: Twin) -> None:
        twin.adopt(env)
        connected = wires(twin)
        for source, policy in connected.sources:
            twin.connect(source, **policy)
        for sink, policy in connected.sinks:
            twin.sink(sink, **policy)

    return build


class Hosting:
    """The twin of one environment; its journal is opened at once.

    Args:
        env: built, with nothing run yet, or run so far without connectors.
        journal: file, or ":memory:" for one that is forgotten at the end.
        factor: wall seconds per simulated second.
        epoch: of tick 0; None: that of the journal, if it exists.
        wires: what it is connected with.
        clock: the wall clock.
        observe_s: wall seconds between two observations; 0: none.
    """

    def __init__(
        self,
        env: Environment,
        journal: str,
        factor: float,
        epoch: datetime | None,
        wires: Callable[[Twin], Wires],
        clock: Clock,
        observe_s: float,
    ) -> None:
        build = model_of(env, wires)
        # All journals in memory have one domain, by which sinks know a run: what a former process has delivered
        # would be taken for ours. A file that lives as long as the process has a domain of its own.
        self._folder = tempfile.TemporaryDirectory(prefix="tidewarp-") if journal == MEMORY else None
        place = journal if self._folder is None else os.path.join(self._folder.name, "run.tw")
        try:
            self.twin: Twin = open_twin(
                place, build, seed=env.seed, factor=factor, epoch=epoch, clock=clock, observe=observe_s, host="inline"
            )
        except BaseException:
            self._forget()
            raise

    def close(self) -> None:
        """Close the twin; the journal stays if it was given a name."""
        try:
            self.twin.close()
        finally:
            self._forget()

    def _forget(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


@contextlib.contextmanager
def stopped_by_interrupt(twin: Twin) -> Iterator[None]:
    """An interrupt of the keyboard stops the run at the next completed instant, and is then raised; a second at once."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    seen: list[int] = []

    def stop(number: int, _: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        twin.stop()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt
