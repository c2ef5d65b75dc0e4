"""One rank's engine in the compiled tier: slices of its PEs, and between them a gateway that carries messages and GVT.

With one PE per rank the main thread does both in turn; more PEs have threads, and the main thread is the gateway alone.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, TypeAlias

import numpy as np

from tidewarp.clocks.pacing import Clock
from tidewarp.codec import pack, unpack
from tidewarp.errors import InternalError, LateInput, OperatorError, TidewarpError
from tidewarp.kernel.compiled import gvt
from tidewarp.kernel.compiled import pe as pes
from tidewarp.kernel.compiled.fossils import LOG_WORDS
from tidewarp.kernel.compiled.gateway import (
    LOW_NEVER,
    Pointed,
    begin_local_round,
    direct,
    drain,
    end_local_round,
    fill,
    is_empty,
    least,
    publish_gvt,
    report_gateway,
)
from tidewarp.kernel.compiled.looking import pending_of
from tidewarp.kernel.compiled.opening import least_lookahead
from tidewarp.kernel.compiled.optimistic import CompiledOptimistic, Workers
from tidewarp.kernel.compiled.pools import enlarge_channel, enlarge_slots
from tidewarp.kernel.compiled.recall import NEEDS_CHANNEL, NEEDS_LOG, NEEDS_SLOTS, QUIET, recall
from tidewarp.kernel.compiled.replay import Tried
from tidewarp.kernel.compiled.rings import ENTRY_WORDS
from tidewarp.kernel.compiled.slices import ERROR_FINAL, run_slice
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.lookahead import promises_between
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import HIDDEN, Event, Image, framed
from tidewarp.kernel.sequential import SequentialKernel
from tidewarp.kernel.shell.mpi.images import joined_image
from tidewarp.kernel.shell.mpi.post import BATCH_BYTES, Post
from tidewarp.kernel.shell.mpi.rounds import RankRounds
from tidewarp.kernel.shell.mpi.tallies import numbers, total
from tidewarp.kernel.shell.mpi.world import Ranks, aborting
from tidewarp.kernel.trace import Ledger

__all__ = ["CompiledRankKernel"]

_LOG_HEAD = 5  # words before a log: PE, time and generation that it is complete below, entries, bytes
_NONE, _BEGUN, _REPORTED, _OVER = range(4)  # of the local part of a round
_TURNS = 8  # of a slice between two looks at other ranks
_FULL, _STUCK, _ERRED, _FAILED = 1, 2, 3, 4
"""Why a rank wants all to leave after a round, the strongest wins: outputs wait, memory is to be divided anew, an event that
failed is final, this rank cannot go on."""

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class CompiledRankKernel(CompiledOptimistic):
    """The PEs of one rank. Numbers of PEs: ``rank * workers`` and up over all ranks; here own ones first, then the others."""

    _run_slice = staticmethod(direct(run_slice))

    def __init__(
        self,
        model: Model,
        image: Image,
        ledger: Ledger,
        options: Options,
        handler: Any,
        workers: Workers | None,
        clock: Clock,
        ranks: Ranks,
    ) -> None:
        self._gvt = 0
        self._ranks = ranks
        self._first = ranks.rank * options.workers
        self._in_windows = options.kernel == "conservative" or options.window == "lookahead"
        super().__init__(model, image, ledger, options, Pointed(handler), workers, clock)  # type: ignore[arg-type]
        conf = self._shared.conf
        conf[gvt.PARTICIPANTS], conf[gvt.LEADER] = self._here + 1, -1
        if options.kernel == "conservative":
            promises_between(model, self._partition.tolist())  # refuses zero lookahead
        lookahead = least_lookahead(model, self._pe_of)
        if self._in_windows:
            conf[gvt.ADAPTIVE], conf[gvt.WINDOW_LEAST_TICKS] = 0, lookahead
            for me in self._pes:
                me.reg[pes.WINDOW] = conf[gvt.WINDOW_LEAST_TICKS]
        self._was_shut = False
        self._control = int(self._shared.control.ctypes.data)
        self._width = 1 + ENTRY_WORDS + self._memory.message_words
        self._post = Post(ranks)
        self._rounds = RankRounds(ranks, self._post, 1, (0, 0, 0), self._work_done)
        self._out = np.zeros((max(1, BATCH_BYTES // (8 * self._width)), self._width), np.int64)
        self._held: deque[Rows] = deque()  # what the rings had no room for yet
        self._low = np.array(LOW_NEVER, np.int64)  # of what was drained since the round began
        self._local_round = _NONE
        self._told = [(0, 0)] * self._here  # how far rank 0 knows each PE here to have committed
        self._turns_run = 0
        self._turns = _TURNS
        self._outcome = 0
        self._failure: TidewarpError | None = None
        self._counts = Statistics()

    def _placement(self) -> tuple[int, int, np.ndarray[Any, Any]]:
        here, n = self._options.workers, self._options.workers * self._ranks.size
        mine = np.arange(self._first, self._first + here)
        self._global_of = np.concatenate([mine, np.setdiff1d(np.arange(n), mine)]).astype(np.int64)
        self._local_of = np.argsort(self._global_of).astype(np.int64)
        self._rank_of = self._global_of // here
        self._partition = np.array(partition(self._model, self._options, n), np.int64)
        return n, here, self._local_of[self._partition]

    # --- advancing --------------------------------------------------------------------------------

    @property
    def gvt(self) -> int:
        """All events below this tick are committed, or wait on rank 0 for outputs to be taken."""
        return self._gvt

    @gvt.setter
    def gvt(self, tick: int) -> None:
        self._gvt = tick

    def advance(self, until: int, safe: int) -> None:
        """Run with the other ranks until everything below ``safe`` is committed on rank 0, or its ledger is full."""
        if self._failed is not None:
            raise self._failed
        rounds, bound = self._rounds, min(until + 1, safe)
        rounds.bound = max(rounds.bound, (bound, 0, 0))
        self._ledger.held = False
        self._shared.conf[gvt.UNTIL], self._shared.conf[gvt.SAFE] = until, rounds.bound[0]
        with aborting(self._ranks):
            while True:
                if self._ranks.rank == 0:
                    self._merger.commit()
                self._take_injected()
                self._run_with_others()
                self._leave()
                if rounds.flags != _STUCK:
                    break
        self.gvt = max(self.gvt, rounds.begun) if self._ledger.full else bound

    def _run_with_others(self) -> None:
        """Slices and the gateway, until all below the bound is committed here or a rank wants all to leave."""
        self._outcome = self._rounds.flags = 0
        self._shared.control[gvt.STOP] = 0
        self._last_moved, self._working = self._clock.now(), True
        threads = self._workers if self._here > 1 and not self._in_windows else None
        if threads is not None:
            threads.start(self._work)
        while not self._rounds.flags and (not self._rounds.reached or self._is_behind(threads)):
            busy = self._gateway()
            busy |= self._slices() if threads is None else self._listen(threads)
            if not busy:
                self._turns_run += self._options.gvt_interval
                os.sched_yield()
            elif not self._in_windows:  # of a window the whole is done before the next round
                self._turns_run += self._turns
        if threads is not None:
            self._shared.control[gvt.STOP] = 1
            while threads.running:
                self._listen(threads)
        self._working = False

    def _is_behind(self, threads: Workers | None) -> bool:
        """Whether a PE has still to commit what GVT has passed."""
        if threads is not None:
            return threads.running > 0
        return any(me.reg[pes.GVT_TIME] < self._rounds.bound[0] or me.reg[pes.BEHIND] for me in self._pes)

    def _slices(self) -> bool:
        """One slice of each PE here; False if none executed anything."""
        conf = self._shared.conf
        conf[gvt.BATCH] = self._options.batch if self._rounds.resting or not self._in_windows else 0
        before = self._work_done()[0]
        for p in range(self._here):
            try:
                self.step(p, self._take_post, self._turns)
            except TidewarpError as error:
                self._fail(error)
            if self._is_news(p):
                self._hand_over(p, *self._log_of(self._pes[p]))
        busy = self._work_done()[0] != before
        self._turns = _TURNS if busy else 1  # who has nothing to do looks at the other ranks
        return busy

    def _listen(self, threads: Workers) -> bool:
        """Take what the threads have posted; False if nothing."""
        try:
            item = threads.take(0.0)
        except TidewarpError as error:
            self._fail(error)
            return True
        if item is not None:
            self._take_post(item)
        return item is not None

    def _take_post(self, item: Any) -> None:
        """What a slice had to tell: why it ended for good, or what its PE has committed."""
        if isinstance(item, int):
            self._outcome = max(self._outcome, _ERRED if item == ERROR_FINAL else _STUCK)
            return
        p, log, data, upto = item
        self._in_flight[p] -= 1
        self._hand_over(p, log, data, upto)

    def _fail(self, error: TidewarpError) -> None:
        self._failure = self._failure or error
        self._outcome = _FAILED

    # --- the gateway ------------------------------------------------------------------------------

    def _gateway(self) -> bool:
        """Carry messages both ways and take part in GVT rounds; False if there was nothing to carry."""
        rounds = self._rounds
        if rounds.resting and not rounds.reached and self._turns_run >= self._options.gvt_interval:
            self._drain()
            rounds.begin()
            self._low[:] = LOW_NEVER
            self._local_round = _NONE
        busy = self._deliver()
        busy |= self._drain()
        self._post.flush()
        if rounds.open:
            self._take_part()
        control = self._shared.control
        rounds.note = max(rounds.note, int(control[gvt.EMITTED_ANY]))
        before = rounds.gvt
        if rounds.poll(self._flag()):
            self._turns_run = 0
            self._obey_breaker()
            if rounds.note:
                control[gvt.EMITTED_ANY] = 1
            if rounds.gvt > before or any(me.reg[pes.N_ERRED] for me in self._pes):  # then a PE has to look again
                publish_gvt(self._control, rounds.gvt[0], rounds.gvt[1] * 2 + rounds.gvt[2])
                self._follow_gvt()
        return busy

    def _work_done(self) -> tuple[int, int]:
        counts = [me.stats for me in self._pes]
        return sum(int(one[pes.EXECUTED]) for one in counts), sum(int(one[pes.ROLLED_BACK]) for one in counts)

    def _obey_breaker(self) -> None:
        """Shut the windows of the PEs here, or open them; again after each round, as a PE may count its own rounds meanwhile."""
        shut = self._rounds.breaker.is_shut
        if shut or self._was_shut:
            for me in self._pes:
                me.reg[pes.BREAK_ROUNDS] = 2 if shut else 0
        self._was_shut = shut

    def _flag(self) -> int:
        if self._outcome == 0 and self._ranks.rank == 0 and self._ledger.full:
            return _FULL
        return self._outcome

    def _take_part(self) -> None:
        """The round among the PEs here: begun when no older message is missing; the gateway reports when it holds none back."""
        if self._outcome >= _STUCK:  # a PE may have stopped: nobody uses what this round finds
            self._rounds.give_up()
            return
        if self._local_round == _NONE:
            begin_local_round(self._control, self._here + 1)
            self._local_round = _BEGUN
        if self._local_round == _BEGUN:
            self._drain()
            if is_empty(self._shared, self._here):
                for rows in self._held:
                    least(rows, 0, self._low)
                report_gateway(self._control, self._here, self._low)
                self._local_round = _REPORTED
        if self._local_round == _REPORTED:
            found = np.zeros(2, np.int64)
            if end_local_round(self._control, self._here + 1, found):
                self._rounds.report((int(found[0]), int(found[1]) >> 1, int(found[1]) & 1))
                self._local_round = _OVER

    def _drain(self) -> bool:
        """Take messages for other ranks out of the rings."""
        any_drained = False
        for rank in range(self._ranks.size):
            while rank != self._ranks.rank and self._post.has_room(rank):
                n = drain(self._shared, self._here, self._rank_of, self._global_of, rank, self._out, self._low)
                if n:
                    any_drained = True
                    self._post.add(rank, self._out[:n].tobytes(), n)
                if n < len(self._out):
                    break
        return any_drained

    def _deliver(self) -> bool:
        """Put messages of other ranks into the rings; rank 0 takes logs."""
        arrived = False
        for _, data in self._post.poll():
            self._held.append(np.frombuffer(data, np.int64).reshape(-1, self._width))
            arrived = True
        while self._held:
            rows = self._held[0]
            at = fill(self._shared, self._local_of, rows, 0)
            if at < len(rows):
                self._held[0] = rows[at:]
                break
            self._held.popleft()
        if self._ranks.rank == 0:
            for log in self._post.poll_commits():
                self._take_log(log)
        return arrived

    # --- committing -------------------------------------------------------------------------------

    def _hand_over(self, p: int, log: Any, data: Any, upto: tuple[int, int]) -> None:
        """Give rank 0 the log of a PE."""
        self._told[p] = upto
        head = np.array([self._global_of[p], *upto, len(log), len(data)], np.int64)
        self._post.add_commit(head.tobytes() + log.tobytes() + data.tobytes())

    def _is_news(self, p: int) -> bool:
        """Whether rank 0 waits to hear how far this PE has committed, though it has nothing to log."""
        me, ordered = self._pes[p], self._ledger.tracing or self._rounds.note
        return bool(ordered) and (int(me.reg[pes.UPTO_TIME]), int(me.reg[pes.UPTO_LEVEL])) > self._told[p]

    def _take_log(self, packed: bytes | bytearray) -> None:
        pe, time, level, n, size = np.frombuffer(packed, np.int64, _LOG_HEAD).tolist()
        log = np.frombuffer(packed, np.int64, n * LOG_WORDS, 8 * _LOG_HEAD).reshape(n, LOG_WORDS)
        data = np.frombuffer(packed, np.uint8, size, 8 * (_LOG_HEAD + n * LOG_WORDS))
        self._merger.add(pe, log, data, (time, level))
        try:
            self._merger.commit()
        except TidewarpError as error:
            self._fail(error)

    def _leave(self) -> None:
        """All ranks leave together: rank 0 commits the rest, memory is divided anew, errors are raised everywhere.

        Raises:
            TidewarpError: any rank's, on all ranks.
        """
        flags = self._rounds.flags
        if flags in (_STUCK, _ERRED):
            self._recall_all()
        self._commit_rest()
        if flags == _STUCK and self._outcome == _STUCK:
            try:
                self._divide_memory()
            except TidewarpError as error:
                self._failure = error
        if flags == _ERRED:
            self._repeat_error()
        try:
            self._ranks.raise_any(self._failure)
        except TidewarpError as error:
            self._failed = error
            raise
        finally:
            position = self._ranks.share(self._ledger.position())
            if self._ranks.rank:
                self._ledger.follow(*position)
            told = [unpack(data) for data in self._ranks.gather(pack(numbers(self._own_counts())))]
            self._counts = total(told, self._memory.n_classes)

    def _commit_rest(self) -> None:
        """Rank 0 gets what every PE has committed until now, in logs or as counts and sums."""
        for p, me in enumerate(self._pes):
            self._hand_over(p, *self._log_of(me))
        (logs,) = self._ranks.total([self._post.commits])
        while self._ranks.rank == 0 and self._post.commits_taken < logs:
            for log in self._post.poll_commits():
                self._take_log(log)
        accumulators = self._model.accumulators
        own = [sum(int(me.stats[pes.COMMITTED]) for me in self._pes)]
        told = [unpack(data) for data in self._ranks.gather(pack([*own, *map(self._summed, range(len(accumulators)))]))]
        if self._ranks.rank:
            return
        counted = sum(part[0] for part in told) - self._merger.logged - self._credited
        if counted > 0:
            self._ledger.commit_framed([(0, b"", counted)])
            self._credited += counted
        for part in told:
            adds = [(index, int.from_bytes(n, "big", signed=True)) for index, n in enumerate(part[1:]) if n]
            self._ledger.add(adds)

    def _summed(self, index: int) -> bytes:
        """What the PEs here have added to an accumulator without a log, since they were asked last; empty: nothing."""
        accumulator, value = self._model.accumulators[index], None
        for me in self._pes:
            low, high = me.sums[index].tolist()
            if (low, high) != (accumulator.start, 0):
                n = low + (high << 32)
                value = n if value is None else accumulator.merge(value, n)
                me.sums[index] = accumulator.start, 0
        return b"" if value is None else value.to_bytes(16, "big", signed=True)

    def _repeat_error(self) -> None:
        """An error is final: the sequential engine of the Python tier, on rank 0, goes on from GVT, up to the event that errs."""
        image = self._joined()
        if self._ranks.rank:
            return
        tick = self._rounds.gvt[0]
        self._ledger.outputs_max = 2**62  # the run ends within this tick
        try:
            objects = Tried(self._model, image, self._memory, self._handler)
            SequentialKernel(self._model, image, self._ledger, objects).advance(tick, tick + 1)
        except TidewarpError as error:
            self._failure = error
        else:
            self._failure = InternalError(
                f"a handler at tick {tick}", "it broke a rule compiled, and then it does not", "please report this"
            )

    # --- standing still ---------------------------------------------------------------------------

    def _restart_round(self) -> None:
        """Nothing to do: no round is on while a rank stands still, and the next one asks every PE anew."""

    def _gather(self) -> None:
        """Nothing to do: rank 0 takes logs when all leave."""

    def _recall_all(self) -> None:
        """Undo on all ranks what lies beyond GVT, and let every message arrive."""
        while True:
            moved = self._deliver()
            for p in range(self._here):
                moved |= self._recall_one(p)
            self._drain()
            self._post.flush()
            left = moved or bool(self._held) or not is_empty(self._shared, self._here)
            accepted, received, left_all = self._ranks.total(
                [int(self._post.accepted.sum()), self._post.received, left]
            )
            if accepted == received and not left_all:
                return

    def _recall_one(self, p: int) -> bool:
        me = self._pes[p]
        status = direct(recall)(self._handler, me, self._shared, p)
        if status == NEEDS_SLOTS:
            self._pes[p] = enlarge_slots(me, len(me.pool) * 3 // 2 + 64)
        elif status == NEEDS_CHANNEL:
            self._pes[p] = enlarge_channel(me, self._n)
        elif status == NEEDS_LOG:
            self._hand_over(p, *self._log_of(me))
        return bool(status != QUIET)

    def inject(self, event: Event) -> None:
        """Add an external event; every rank is given it, and that of its LP takes it.

        Raises:
            LateInput: it lies below GVT.
        """
        if (event[0], 0, 0) < self._rounds.gvt:
            raise LateInput(f"an input at tick {event[0]}", f"GVT is {self._rounds.gvt[0]}", "hold the watermark back")
        if self._pe_of[event[2]] < self._here:
            self._injected.append(event)

    def image(self) -> Image:
        """The state of all ranks after the committed events, on every rank; everything beyond is undone.

        Raises:
            OperatorError: committed outputs wait to be taken.
        """
        if self._ledger.full:
            raise OperatorError(
                "an image between two outputs", "the ledger is full", "take the outputs and advance first"
            )
        self._take_injected()
        self._recall_all()
        return self._joined()

    def _joined(self) -> Image:
        mine = np.flatnonzero(self._pe_of < self._here).tolist()
        rows = framed(self._memory.row_bytes(self._rows, lp) for lp in mine)
        pending = b"".join(self._memory.records(me.pool, me.payload, pending_of(me)) for me in self._pes)
        parts = self._ranks.gather(framed((rows, pending)))
        return joined_image(self._model, self._partition.tolist(), self._here, parts)

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP, on every rank; everything that is not committed is undone."""
        self._recall_all()
        own = self._memory.row_bytes(self._rows, lp) if self._pe_of[lp] < self._here else b""
        row = self._ranks.share_bytes(own, int(self._partition[lp]) // self._here)
        form = form_of_lp(self._model.class_of(lp))
        return dict(zip(form.names, form.unpack(row[HIDDEN.size :]), strict=True))

    def _own_counts(self) -> Statistics:
        own = super().statistics()
        own.gvt_rounds = self._rounds.number
        if self._ranks.rank == 0:
            own.thrash_breaks += self._rounds.breaker.breaks
        return own

    def statistics(self) -> Statistics:
        """Counts over all PEs of all ranks, as of the end of the last ``advance``."""
        return self._counts

    @property
    def who(self) -> str:
        """Of whom the watchdog speaks."""
        return f"rank {self._ranks.rank}"

    def _holders(self) -> list[str]:
        """Which rank and PE holds GVT, and why."""
        return self._rounds.holders(super()._holders)

    def close(self) -> None:
        """Stop the threads; the ranks stay until their programs end."""
        self._shared.control[gvt.STOP] = 1
        if self._workers is not None:
            self._workers.close()
