"""A hot standby: a replay that does not end. It follows the journal of a living writer, and takes its place when it dies.

The follower is that of every recovery. What it reads here is a journal whose records come while it waits for them, so
the run stands at the last mark that there is: a mark is what tells where the writer has been, and what to compare with.
Marks come every 2,000 inputs and each minute of the wall, and what is left to do when the writer dies is what lies behind
the last one, however long the journal is.

A writer that ended in order has also gone, and its place is taken as well: who wants nobody to go on, ends the standby first.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from tidewarp.clocks import Clock
from tidewarp.codec import CHECKPOINT, RELEASED, Record
from tidewarp.connect.contract import Output
from tidewarp.connect.documents import PathTable
from tidewarp.errors import OperatorError, StoreLocked
from tidewarp.store import Journal, JournalHolder, open_store
from tidewarp.twin.documents import CUT, RELEASED_IDS
from tidewarp.twin.early import complete_below
from tidewarp.twin.facts import documents, holds_run, opening_of
from tidewarp.twin.follow import Follower, differs
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.host import Host
from tidewarp.twin.model import changed_files
from tidewarp.twin.run import Run

if TYPE_CHECKING:
    from tidewarp.twin.session import Twin

__all__ = ["KEPT_MAX", "Standby", "stand_by"]

KEPT_MAX: Final = 100_000
"""Outputs that a standby keeps for sinks that may not hold them. What they lack beyond that is made again at the takeover."""
_KEPT_BYTES_MAX = 64 << 20
_POLL_S = 0.1
_LOOK_OUTPUTS = 1_000  # new ones, after which it is looked up what the sinks hold


def stand_by(path: str | Path, clock: Clock) -> JournalHolder:
    """The store of a journal that nobody else writes, or a Standby beside the process that does. Waits until its run has begun."""
    while True:
        try:
            return open_store(path, create=True)
        except StoreLocked:
            pass
        try:
            reader = open_store(path, read_only=True)
        except OperatorError:  # its writer has not got that far
            _sleep(clock)
            continue
        if holds_run(reader.journal):
            return Standby(path, reader, clock)
        reader.close()
        _sleep(clock)


def _sleep(clock: Clock) -> None:
    nobody: queue.SimpleQueue[None] = queue.SimpleQueue()
    clock.wait(nobody, _POLL_S)


class _Handed:
    """A journal in the hands of a reader first, and of a writer later."""

    def __init__(self, journal: Journal) -> None:
        self.now = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


class _Growing:
    """The same, for who reads on until the writer is dead."""

    def __init__(self, handed: _Handed, wait: Callable[[], bool]) -> None:
        self._handed, self._wait = handed, wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handed.now, name)

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As a journal reads; at its end it waits for more, as long as there is a writer. ``limit`` has no use here."""
        grows = True
        while True:
            journal = self._handed.now
            size = journal.size
            for record in journal.read(after=after, kinds=kinds):
                after = record.seq
                yield record
            after = max(after, size)
            if not grows:
                return
            grows = self._wait()


class Standby:
    """A store that is read until its writer is dead, and written from then on."""

    def __init__(self, path: str | Path, reader: JournalHolder, clock: Clock) -> None:
        self._path, self._reader, self._clock = path, reader, clock
        self._writer: JournalHolder | None = None
        self._handed = _Handed(reader.journal)
        self._host: Host | None = None
        self._close_run: Callable[[], None] = lambda: None
        self._kept: deque[Output] = deque()
        self._kept_bytes = 0
        self._dropped_id = ""  # the last output that found no room
        self._new = 0  # outputs since it was looked up what the sinks hold
        self._released: dict[str, str] = {}  # sink -> the last id that it is known to hold
        self._cut_tick = 0  # of the last cut that is journaled
        self._seq = 0  # up to which record that is known

    @property
    def journal(self) -> Journal:
        """The journal; read-only until the takeover."""
        return cast(Journal, self._handed)

    def follower(
        self,
        twin: Twin,
        run: Run | ForkedRun,
        table: PathTable,
        begin: Callable[[Mapping[str, str]], Host],
    ) -> Follower:
        """Of a run that is moved as far as there are marks while there is a writer, and to the end when it has gone.

        ``begin(released)`` is called in between, with the last id that each sink is known to hold: it makes the host, and
        opens the sinks.
        """
        self._twin, self._run, self._begin, self._close_run = twin, run, begin, run.close
        journal = cast(Journal, _Growing(self._handed, self._wait))
        self._follower = Follower(journal, twin._gate, run, self._release, table=table, probe=twin._probe)
        return self._follower

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        if self._host is None:  # which closes its run
            self._close_run()
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> bool:
        """Has the journal a writer still? If not, it is this process from now on. Raises ModelError if it would differ."""
        if self._writer is None:
            if self._follower.first_difference is not None:
                changed = changed_files(opening_of(self.journal).model, self._twin._model)
                raise differs(self._follower.first_difference, changed)
            try:
                self._writer = open_store(self._path)
            except StoreLocked:
                _sleep(self._clock)
                return True
            self._take_over(self._writer.journal)
        return False

    def _take_over(self, journal: Journal) -> None:
        self._handed.now = journal
        self._look()
        held = self._held_by_all()
        self._run.cuts_from = max(self._run.cuts_from, self._cut_tick)
        self._host = self._begin(self._released)
        if held is not None and held < self._dropped_id:
            self._make_again(self._host, held)
        self._host.release_recovered(list(self._kept))
        self._kept.clear()

    def _make_again(self, host: Host, held: str) -> None:
        """The outputs for which there was no room: the run once more, up to the last of them."""
        last = self._dropped_id

        def release(outputs: Sequence[Output]) -> None:
            host.release_recovered([one for one in outputs if held < one.id <= last])

        fresh = self._twin._anew()
        Follower(self.journal, fresh._gate, fresh._run, release, halt=int(last[:16], 16) + 1).follow()

    def _release(self, outputs: Sequence[Output]) -> None:
        """Keep what the sinks may lack: the writer has sent it, or was about to."""
        if self._host is not None:
            self._host.release_recovered(outputs)
            return
        self._run.take_cuts()  # the writer has journaled them: they lie below a mark
        self._kept += outputs
        self._kept_bytes += sum(len(one.value) for one in outputs)
        self._new += len(outputs)
        if self._new >= _LOOK_OUTPUTS:
            self._look()
            self._new = 0
            held = self._held_by_all()
            while len(self._kept) > 1 and (held is None or self._kept[0].id <= held):  # the last says where the run is
                self._drop()
            while len(self._kept) > 1 and (len(self._kept) > KEPT_MAX or self._kept_bytes > _KEPT_BYTES_MAX):
                self._dropped_id = self._drop()

    def _drop(self) -> str:
        one = self._kept.popleft()
        self._kept_bytes -= len(one.value)
        return one.id

    def _held_by_all(self) -> str | None:
        """The last output that every sink is known to hold; None if there are no sinks."""
        return min((complete_below(self._released.get(name, "")) for name in self._twin._sinks), default=None)

    def _look(self) -> None:
        """What the journal says of sinks and cuts by now."""
        size = self._handed.now.size
        for _, _, document in documents(self._handed.now, after=self._seq, kinds={RELEASED, CHECKPOINT}):
            if document.schema == RELEASED_IDS:
                self._released.update(document.value["sinks"])
            elif document.schema == CUT:
                self._cut_tick = document.value["tick"]
        self._seq = size
