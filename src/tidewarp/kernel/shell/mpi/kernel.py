"""One rank's engine: its PEs take turns with MPI in one thread, and rank 0 keeps the ledger.

Every rank makes the same calls in the same order; ``advance``, ``image`` and ``state`` end on all ranks together, and so do errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tidewarp.codec import pack, unpack
from tidewarp.errors import LateInput, PoolExhausted, TidewarpError
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.lookahead import promises_between
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.optimistic.entries import COMMITTED, Entry, Letter
from tidewarp.kernel.optimistic.gvt import FAILED, TRANSIT
from tidewarp.kernel.optimistic.kernel import counts_of, kps_default, open_window
from tidewarp.kernel.optimistic.memory import Pool
from tidewarp.kernel.optimistic.pe import ProcessingElement, grouped
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import HIDDEN, Event, Image, framed, pack_event, split_frames, unpack_event
from tidewarp.kernel.shell.mpi.commits import Final, Merger, pack_batch
from tidewarp.kernel.shell.mpi.images import joined_image
from tidewarp.kernel.shell.mpi.letters import RankExecutor, pack_letter, unpack_letters
from tidewarp.kernel.shell.mpi.post import Post
from tidewarp.kernel.shell.mpi.rounds import STOP, RankRounds
from tidewarp.kernel.shell.mpi.tallies import numbers, total
from tidewarp.kernel.shell.mpi.world import Ranks, aborting
from tidewarp.kernel.trace import Ledger

__all__ = ["RankKernel"]

_STILL_MOST = 64  # rounds without a final event: somebody should hear of it
_FULL_MOST = 4


class RankKernel:
    """The PEs of one rank, numbers ``rank * workers`` and up. See :class:`~tidewarp.kernel.contract.Kernel`.

    Conservative: events within one lookahead above GVT, and none while a round is on, so nothing arrives too late and
    nothing is ever undone (the synchronous windows of Nicol, The Cost of Conservative Synchronization in Parallel Discrete
    Event Simulations, J. ACM 40(2), 1993).
    """

    def __init__(self, model: Model, image: Image, ledger: Ledger, options: Options, ranks: Ranks) -> None:
        self.gvt = 0
        self._model = model
        self._ledger = ledger
        self._options = options
        self._ranks = ranks
        self._post = Post(ranks)
        self._rounds = RankRounds(ranks, self._post, options.workers, (0, 0, TRANSIT), self._work)
        self._merger = Merger(model, ledger, ranks.size)
        self._executor = RankExecutor(model, image, options.saving, options.debug)
        self._pool = Pool(options.memory_max_bytes)
        self._pe_of = partition(model, options, options.workers * ranks.size)
        if options.kernel == "conservative":
            promises_between(model, self._pe_of)  # refuses zero lookahead
        self._in_windows = options.kernel == "conservative" or options.window == "lookahead"
        self._first = ranks.rank * options.workers
        pending = [unpack_event(model, record) for record in split_frames(image.pending)]
        self._pes = [self._open_pe(self._first + place, pending) for place in range(options.workers)]
        self._inboxes: list[list[Letter]] = [[] for _ in self._pes]
        self._turns = 0
        self._commits = 0  # rounds that ended with a new GVT
        self._still = 0
        self._full = 0  # rounds
        self._failure: TidewarpError | None = None  # of this rank, before the others know
        self._failed: TidewarpError | None = None  # of all ranks
        self._counts = Statistics()
        for event in pending:
            self.inject(event)

    def _open_pe(self, number: int, pending: list[Event]) -> ProcessingElement:
        model, options = self._model, self._options
        lps = [lp for lp in range(model.n_lps) if self._pe_of[lp] == number]
        kps = grouped(lps, options.kps or kps_default(len(lps)), lambda lp: not model.class_of(lp).speculative)
        return ProcessingElement(
            number,
            self._pe_of,
            kps,
            self._executor,
            self._rounds,
            pool=self._pool,
            window=self._open_window(pending),
            lazy=options.cancellation == "lazy",
        )

    def _open_window(self, pending: list[Event]) -> Window:
        window = "lookahead" if self._in_windows else self._options.window
        return open_window(self._model, replace(self._options, window=window), pending)

    # --- advancing --------------------------------------------------------------------------------

    def advance(self, until: int, safe: int) -> None:
        """Run with the other ranks until everything below ``safe`` is committed on rank 0, or its ledger is full."""
        if self._failed is not None:
            raise self._failed
        rounds = self._rounds
        bound = min(until + 1, safe)
        rounds.bound = max(rounds.bound, (bound, 0, TRANSIT))
        rounds.flags = 0
        self._ledger.held = False
        with aborting(self._ranks):
            while not (rounds.reached or rounds.flags):
                self._turn(until + 1)
            if rounds.gvt[2] == FAILED:
                self._rewind()  # the state that is left is that before the event
            self._finish()
        self.gvt = max(self.gvt, rounds.begun) if self._ledger.full else bound

    def _turn(self, horizon: int) -> None:
        """Receive, let each PE do a step, take part in the round."""
        rounds = self._rounds
        if rounds.resting and self._turns >= self._options.gvt_interval:
            rounds.begin()
        busy = False
        try:
            busy = self._receive()
            if self._failure is None:
                busy |= self._step(horizon)
        except TidewarpError as error:
            self._failure = self._failure or error
        if self._failure is not None and rounds.open:
            rounds.give_up()
        self._turns += 1 if busy else self._options.gvt_interval
        if rounds.poll(self._flag()):
            self._turns = 0
            self._end_round()
        if not busy:
            self._post.flush()
            os.sched_yield()  # MPICH polls: without this it takes the core from those who have work

    def _flag(self) -> int:
        return STOP if self._failure is not None or not self._merger.is_empty else 0

    def _receive(self) -> bool:
        """Take in letters of other ranks, and on rank 0 what they have committed."""
        arrived = False
        for _, data in self._post.poll():
            arrived = True
            for letter in unpack_letters(self._model, data):
                self._inboxes[letter.target - self._first].append(letter)
        if self._ranks.rank == 0:
            self._take_commits()
        return arrived

    def _step(self, horizon: int) -> bool:
        busy = False
        batch = self._options.batch if self._rounds.resting or not self._in_windows else 0
        for place, pe in enumerate(self._pes):
            if self._rounds.open:
                pe.look()
            letters, self._inboxes[place] = self._inboxes[place], []
            pe.receive(letters)
            executed = pe.statistics.executed
            letters = pe.step(horizon, batch, room=self._room)
            self._carry(letters)
            busy |= pe.statistics.executed != executed or bool(letters)
        return busy

    def _work(self) -> tuple[int, int]:
        counts = [pe.statistics for pe in self._pes]
        return sum(one.executed for one in counts), sum(one.rolled_back for one in counts)

    def _room(self, target: int) -> int:
        rank = target // self._options.workers
        return 2**30 if rank == self._ranks.rank or self._post.has_room(rank) else 0

    def _carry(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            rank, place = divmod(letter.target, self._options.workers)
            if rank == self._ranks.rank:
                self._inboxes[place].append(letter)
            else:
                self._post.add(rank, pack_letter(self._model, letter))

    # --- committing -------------------------------------------------------------------------------

    def _end_round(self) -> None:
        """GVT is new: what it has passed goes to rank 0."""
        rounds = self._rounds
        if rounds.flags:
            return
        finals = sorted((entry for pe in self._pes for entry in pe.final()), key=_key)
        if rounds.gvt[2] == FAILED:
            finals = self._before_failure(finals)
        for entry in finals:
            if entry.error is None:
                entry.status = COMMITTED
        batch = (Final(entry.event, entry.emitted, entry.adds, entry.error) for entry in finals)
        self._post.add_commit(pack_batch(self._model, self._commits, batch, self._ledger.tracing))
        self._commits += 1
        for pe in self._pes:
            pe.collect()
            if rounds.breaker.is_shut:
                pe.window.shut()
        self._still = 0 if finals else self._still + 1
        self._check_pool()

    def _before_failure(self, finals: list[Entry]) -> list[Entry]:
        """Of the last final events those up to the first that failed on any rank: what comes behind it stays undone."""
        failed = next((entry.event[:5] for entry in finals if entry.error is not None), None)
        keys = [unpack(data) for data in self._ranks.gather(pack(list(failed or ())))]
        first = min(tuple(key) for key in keys if key)
        return [entry for entry in finals if entry.event[:5] <= first]

    def _take_commits(self) -> None:
        for data in self._post.poll_commits():
            self._merger.take(data)
        if self._failure is None:
            try:
                self._merger.commit()
            except TidewarpError as error:
                self._failure = error

    def _finish(self) -> None:
        """Rank 0 has committed all rounds; every rank hears what came of it.

        Raises:
            TidewarpError: any rank's, on all ranks.
        """
        if self._ranks.rank == 0:
            while self._merger.rounds < self._commits:
                self._take_commits()
            self._take_commits()
        try:
            self._ranks.raise_any(self._failure)
        except TidewarpError as error:
            self._failed = error
            raise
        finally:
            position = self._ranks.share(self._ledger.position())
            if self._ranks.rank:
                self._ledger.follow(*position)
            told = [unpack(data) for data in self._ranks.gather(pack(self._own_counts()))]
            self._counts = total(told, len(self._model.classes))

    def _check_pool(self) -> None:
        """Refuse a bound that what is pending here does not fit, for rounds on end and with nothing left to undo."""
        pool = self._pool
        self._full = self._full + 1 if pool.full and not any(pe.speculative for pe in self._pes) else 0
        if self._full == _FULL_MOST:
            need = pool.live * pool.entry_bytes
            self._failure = PoolExhausted(
                f"rank {self._ranks.rank}: {need} bytes for {pool.live} events at tick {self._rounds.gvt[0]}",
                f"the bound is {(pool.limit or 0) * pool.entry_bytes} bytes a rank, and nothing can be undone any more",
                f"raise memory_max_bytes above {need}",
            )

    # --- looking in -------------------------------------------------------------------------------

    def inject(self, event: Event) -> None:
        """Add an external event; every rank is given it, and that of its LP takes it.

        Raises:
            LateInput: all below GVT is final, though outputs that wait have kept it from being committed.
        """
        if (event[0], 0, TRANSIT) < self._rounds.gvt:
            raise LateInput(f"an input at tick {event[0]}", f"GVT is {self._rounds.gvt[0]}", "hold the watermark back")
        if self._is_mine(event[2]):
            self._pes[self._pe_of[event[2]] - self._first].inject(event)

    def image(self) -> Image:
        """The state of all ranks after the committed events, on every rank; everything beyond is undone."""
        self._rewind()
        model, objects = self._model, self._executor.objects
        mine = [lp for lp in range(model.n_lps) if self._is_mine(lp)]
        pending = [event for pe in self._pes for event in pe.unprocessed()]
        error = None
        data = b""
        try:
            rows = framed(objects.row(lp) for lp in mine)
            data = framed((rows, framed(pack_event(model, event) for event in pending)))
        except TidewarpError as caught:
            error = caught
        self._ranks.raise_any(error)
        return joined_image(model, self._pe_of, self._options.workers, self._ranks.gather(data))

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP, on every rank; everything that is not committed is undone."""
        self._rewind()
        root = self._pe_of[lp] // self._options.workers
        row = self._ranks.share_bytes(self._executor.objects.row(lp) if self._is_mine(lp) else b"", root)
        form = form_of_lp(self._model.class_of(lp))
        return dict(zip(form.names, form.unpack(row[HIDDEN.size :]), strict=True))

    def _is_mine(self, lp: int) -> bool:
        return self._first <= self._pe_of[lp] < self._first + len(self._pes)

    def _rewind(self) -> None:
        """Undo on all ranks what is not committed, and deliver what that sends until all is quiet."""
        if self._failed is not None:
            return
        while True:
            self._receive()
            for place, pe in enumerate(self._pes):
                letters, self._inboxes[place] = self._inboxes[place], []
                pe.receive(letters)
                pe.undo_all()
                self._carry(pe.flush())
            self._post.flush()
            accepted, received, left = self._ranks.total(
                [int(self._post.accepted.sum()), self._post.received, any(self._inboxes)]
            )
            if accepted == received and not left:
                return

    def statistics(self) -> Statistics:
        """Counts over all PEs of all ranks, as of the end of the last ``advance``."""
        return self._counts

    def _own_counts(self) -> list[int]:
        windows = [pe.window for pe in self._pes]
        own = Statistics(
            gvt_rounds=self._rounds.number,
            live_events_most=self._pool.most,
            pool_size=self._pool.live,
            pool_bytes=self._pool.live * self._pool.entry_bytes,
            window_ticks=min(window.ticks for window in windows),
            window_least_ticks=min(window.least for window in windows),
            window_greatest_ticks=max(window.greatest for window in windows),
            thrash_breaks=sum(window.breaks for window in windows)
            + (self._rounds.breaker.breaks if self._first == 0 else 0),
        )
        own.add(counts_of(self._model, self._pes))
        return numbers(own)

    @property
    def who(self) -> str:
        """Of whom the watchdog speaks."""
        return f"rank {self._ranks.rank}"

    def stalls(self) -> list[str]:
        """Which rank and PE holds GVT, and why, if it has not moved for long."""
        return self._rounds.holders(self._own_holders) if self._still >= _STILL_MOST else []

    def _own_holders(self) -> list[str]:
        return [f"PE {pe.number}: {pe.waits_for()}" for pe in self._pes]

    def close(self) -> None:
        """Nothing to release: the ranks stay until their programs end."""


def _key(entry: Entry) -> tuple[Any, ...]:
    return entry.event[:5]
