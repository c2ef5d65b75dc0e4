"""The conservative engine of the compiled tier: threads run PEs by their promises, the shell commits what they log."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.clocks.pacing import Clock
from tidewarp.errors import InternalError, PoolExhausted, TidewarpError
from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.conservative import (
    BASE,
    BASES,
    BROKEN,
    CLOCK,
    DONE,
    EXECUTED,
    FAILED,
    FLOOR,
    IDLE,
    LOG_CAP,
    LOG_FULL,
    LOG_MOST,
    MY_ROUND,
    N_DATA,
    N_FREE,
    N_LOG,
    N_PENDING,
    N_QUEUED,
    NEVER,
    OUT_LOW,
    PE_WORDS,
    POOL_LOW,
    QUEUE_MOST,
    REGISTERS,
    REMOTE,
    ROUND,
    ROUNDS,
    SEND_MIN,
    STOP,
    TURNS,
    WAITING,
    WANTED,
    Pe,
    run_slice,
    take,
)
from tidewarp.kernel.compiled.conservative_arrays import (
    bytes_of,
    enlarge_log,
    enlarge_out,
    enlarge_pool,
    new_pe,
    new_shared,
    swap_log,
)
from tidewarp.kernel.compiled.dispatch import Dispatch
from tidewarp.kernel.compiled.fossils import LOG_ADD, LOG_EVENT
from tidewarp.kernel.compiled.image import Ints, Memory
from tidewarp.kernel.compiled.merge import Merger
from tidewarp.kernel.compiled.replay import error_of
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.lookahead import promises_between
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import Event, Image
from tidewarp.kernel.shell.threads import Post, Threads
from tidewarp.kernel.trace import Ledger

__all__ = ["CompiledConservative"]

RESERVE = 1024  # outputs: with less room than this, PEs take turns in key order
SLOTS_MIN = 2**12
_SLOW = 2**17  # outputs: with less room for each PE, what was executed is committed before the PEs go on

Key = tuple[int, int, int, int, int]


class CompiledConservative:
    """One thread for each PE. What stops a slice is answered here, with all threads at rest.

    Raises:
        ZeroLookahead: PEs that would wait for each other for ever.
    """

    def __init__(
        self, model: Model, image: Image, ledger: Ledger, options: Options, dispatch: Dispatch, clock: Clock
    ) -> None:
        self.gvt = 0
        self._model, self._ledger, self._options, self._dispatch = model, ledger, options, dispatch
        self._pe_of = partition(model, options)
        self._promises = promises_between(model, self._pe_of)
        self._memory = memory = Memory(model)
        self._rows = memory.rows(image)
        self._shared = new_shared(memory, self._rows, self._pe_of, self._promises, options.ring, ledger.tracing)
        self._pes = self._new_pes(image)
        self._spare = [(np.zeros_like(pe.log), np.zeros_like(pe.data)) for pe in self._pes]
        self._merger = Merger(len(self._pes), ledger, model.trace_interval)
        self._merger.upto = [(NEVER, 0)] * len(self._pes)  # what it gets is final
        self._threads = Threads(len(self._pes), clock)
        self._failures: list[tuple[Key, int]] = []
        self._failed: TidewarpError | None = None
        self._bound = 0

    def _new_pes(self, image: Image) -> list[Pe]:
        count, pool, payload = self._memory.pending(image)
        owner = self._shared.pe_of[pool["dst"][:count]]
        pes = []
        for number in range(self._options.workers):
            mine = np.flatnonzero(owner == number)
            own, fields = self._memory.new_pool(max(SLOTS_MIN, len(mine) + len(mine) // 2))
            own[: len(mine)], fields[: len(mine)] = pool[mine], payload[mine]
            pe = new_pe(self._memory, own, fields, self._options.workers, self._ledger.tracing)
            pe.reg[N_FREE] -= len(mine)
            for slot in range(len(mine)):
                take(pe, slot)
            pes.append(pe)
        return pes

    @property
    def blocks(self) -> list[Ints]:
        """The context block of each PE, for the watchdog."""
        return [pe.block for pe in self._pes]

    # --- the contract -----------------------------------------------------------------------------

    def advance(self, until: int, safe: int) -> None:
        """Execute and commit every event with time <= until and < safe, or until no more outputs fit."""
        if self._failed is not None:
            raise self._failed
        bound = min(until + 1, safe)
        try:
            while self.gvt < bound and not self._ledger.full:
                self._bound = bound
                if self._room() <= RESERVE:
                    self._run_in_order()
                else:
                    self._run_apart()
        except TidewarpError as error:
            self._failed = error
            raise

    def inject(self, event: Event) -> None:
        """Add an external event."""
        number = self._pe_of[event[2]]
        if event[0] < self.gvt:
            raise InternalError(
                f"event {event[:5]} below GVT {self.gvt}", "it would have to be undone", "please report this"
            )
        if self._pes[number].reg[N_FREE] == 0:
            self._enlarge_pool(number)
        pe = self._pes[number]
        pe.reg[N_FREE] -= 1
        slot = int(pe.free[pe.reg[N_FREE]])
        self._memory.set_event(pe.pool, pe.payload, slot, event)
        take(pe, slot)

    def image(self) -> Image:
        """The state as it is now."""
        parts = [pe.slots[: pe.reg[N_PENDING]] for pe in self._pes]
        pool = np.concatenate([pe.pool[part] for pe, part in zip(self._pes, parts, strict=True)])
        payload = np.concatenate([pe.payload[part] for pe, part in zip(self._pes, parts, strict=True)])
        return self._memory.image(self._rows, pool, payload, np.arange(len(pool), dtype=np.int64))

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP."""
        return self._memory.fields(self._rows, lp)

    def statistics(self) -> Statistics:
        """Counts over all PEs; ``gvt_rounds`` are the rounds that idle PEs began."""
        counts = [pe.reg for pe in self._pes]
        by_class = np.sum([reg[REGISTERS:] for reg in counts], axis=0).tolist()
        return Statistics(
            executed=int(sum(reg[EXECUTED] for reg in counts)),
            executed_by_class=by_class,
            rolled_back_by_class=[0] * len(by_class),
            remote_sent=int(sum(reg[REMOTE] for reg in counts)),
            gvt_rounds=int(counts[0][ROUNDS]),
            live_events_most=int(sum(reg[LOG_MOST] for reg in counts)),
            pool_size=sum(len(pe.pool) for pe in self._pes),
            pool_bytes=sum(map(bytes_of, self._pes)),
            send_queue_most=int(max(reg[QUEUE_MOST] for reg in counts)),
            idle_turns=int(sum(reg[IDLE] for reg in counts)),
            turns=int(sum(reg[TURNS] for reg in counts)),
        )

    def stalls(self) -> list[str]:
        """Which PE waits for whose promise; a snapshot where threads run."""
        found = []
        for number in range(len(self._pes)):
            promised = [
                (self._promise(src, number), src)
                for src in range(len(self._pes))
                if self._shared.lookahead[src, number] >= 0
            ]
            first = self._first(number)
            if promised and min(promised)[0] <= first < self._bound:
                found.append(self._stall(number, first, *min(promised)))
        return found

    def close(self) -> None:
        """End the threads; idempotent."""
        self._shared.control[STOP] = 1
        self._threads.close()

    # --- PEs by their promises --------------------------------------------------------------------

    def _run_apart(self) -> None:
        """Let the PEs run until all events below the bound are committed; a failure or full outputs lower it."""
        self._begin_promises()
        statuses = [0] * len(self._pes)
        while any(status != DONE for status in statuses):
            self._limit_logs()
            self._start(statuses)
            try:
                self._merger.commit()  # what was handed over before, while the PEs go on with other memory
            finally:
                self._join()
            for number, status in enumerate(statuses):
                self._answer(number, status)
            self._hand_over(self._least_base())
            for number, status in enumerate(statuses):
                if status == LOG_FULL:
                    self._widen_log(number)
            if self._room() <= _SLOW * len(self._pes):
                self._merger.commit()
                if self._room() <= RESERVE:
                    self._bound = min(self._bound, max(int(pe.reg[CLOCK]) for pe in self._pes) + 1)
        self._hand_over(self._bound)
        self._merger.commit()
        self._settle()
        if self._failures:
            self._fail()

    def _start(self, statuses: list[int]) -> None:
        """Let each thread run one slice of its PE, which ends with a status."""
        pes, shared, bound, options, dispatch = (
            list(self._pes),
            self._shared,
            self._bound,
            self._options,
            self._dispatch,
        )
        shared.control[STOP] = 0

        def work(number: int, post: Post) -> None:
            statuses[number] = run_slice(
                dispatch, pes[number], shared, number, bound, options.batch, options.slice_turns, False
            )

        self._threads.start(work)

    def _join(self) -> None:
        """Wait for all threads; an interrupt stops them first."""
        try:
            while self._threads.running:
                self._threads.take(1.0)
        except BaseException:
            self._shared.control[STOP] = 1
            while self._threads.running:
                self._threads.take(1.0)
            raise

    def _begin_promises(self) -> None:
        """Nothing is on its way, and inputs may have come for any tick from GVT on."""
        control = self._shared.control
        control[:] = 0
        for number, pe in enumerate(self._pes):
            pe.reg[BASE] = control[BASES + number * PE_WORDS] = self.gvt
            pe.reg[MY_ROUND], pe.reg[SEND_MIN] = 0, NEVER
        control[FLOOR] = control[ROUND] = control[WAITING] = 0

    def _least_base(self) -> int:
        return min(int(self._shared.control[BASES + number * PE_WORDS]) for number in range(len(self._pes)))

    def _answer(self, number: int, status: int) -> None:
        """Give a PE what its slice ended for."""
        pe = self._pes[number]
        if status == POOL_LOW:
            self._enlarge_pool(number)
        elif status == OUT_LOW:
            self._pes[number] = enlarge_out(self._memory, pe)
        elif status == FAILED:
            slot = int(pe.slots[0])
            self._failures.append((self._key(pe, slot), number))
            self._bound = min(self._bound, int(pe.times[0]))
        elif status == BROKEN:
            raise InternalError(
                f"a message reached PE {number} below {int(pe.reg[CLOCK])}",
                "a conservative PE never executes what can be preceded",
                "please report this",
            )

    def _enlarge_pool(self, number: int) -> None:
        pe = self._pes[number]
        slots = len(pe.pool) + max(len(pe.pool) // 2, int(pe.reg[WANTED]))
        pe = self._pes[number] = enlarge_pool(self._memory, pe, slots)
        need, most = sum(map(bytes_of, self._pes)), self._options.memory_max_bytes
        if most is not None and need > most:
            raise PoolExhausted(
                f"PE {number} needs {need} bytes at t={self.gvt} with the others'",
                f"the bound is {most}",
                "raise memory_max_bytes",
            )

    # --- committing -------------------------------------------------------------------------------

    def _room(self) -> int:
        return self._ledger.outputs_max - len(self._ledger.outputs)

    def _limit_logs(self) -> None:
        """Let no more events wait in the logs than outputs fit, if each emitted one; but what waits already may double."""
        most = max(self._room() // (2 * len(self._pes)), 256)
        for pe in self._pes:
            pe.reg[LOG_CAP] = min(max(most, 2 * int(pe.reg[N_LOG])), len(pe.log) - len(pe.out))

    def _widen_log(self, number: int) -> None:
        """More room, where hardly anything of a full log can be committed yet or one event needs more than there is."""
        pe = self._pes[number]
        entries, size = 1 + int(pe.reg[WANTED]), (1 + int(pe.reg[WANTED])) * self._memory.record_bytes_max
        is_full = 2 * pe.reg[N_LOG] > len(pe.log) - len(pe.out)
        if is_full or pe.reg[N_LOG] + entries > len(pe.log) or pe.reg[N_DATA] + size > len(pe.data):
            self._pes[number] = enlarge_log(pe, len(pe.log) + entries, len(pe.data) + size)

    def _hand_over(self, bound: int) -> None:
        """Hand over what was executed below ``bound``, and let GVT be there."""
        for number, pe in enumerate(self._pes):
            self._hand_over_part(number, int(np.searchsorted(pe.log[: pe.reg[N_LOG], 0], bound)))
        self.gvt = max(self.gvt, bound)

    def _hand_over_part(self, number: int, cut: int) -> None:
        """Give the first entries of a PE's log to the merger; where there are only events and no trace, count them."""
        pe = self._pes[number]
        entries, size = int(pe.reg[N_LOG]), int(pe.reg[N_DATA])
        if not cut:
            return
        at = size if cut == entries else int(pe.log[cut, 6])
        part, rest, more = pe.log[:cut], pe.log[cut:entries], pe.data[at:size]
        if self._merger.waiting:  # in the memory that is swapped in below
            self._merger.hold()
        if self._ledger.tracing or self._merger.waiting or (part[:, 5] >> 32 != LOG_EVENT).any():
            fresh = swap_log(pe, *self._spare[number])
            self._spare[number] = pe.log, pe.data
            self._merger.add(number, part, pe.data[:at], (NEVER, 0))
        else:
            fresh = pe
            self._ledger.committed += cut
        rest = rest.copy()
        rest[rest[:, 5] >> 32 != LOG_ADD, 6] -= at
        fresh.log[: entries - cut], fresh.data[: size - at] = rest, more.copy()
        pe.reg[N_LOG], pe.reg[N_DATA] = entries - cut, size - at
        self._pes[number] = fresh

    # --- one by one in key order ------------------------------------------------------------------

    def _run_in_order(self) -> None:
        """Run PE after PE as far as key order allows, up to the bound, and stop behind any event that fills the outputs."""
        while not self._ledger.full:
            number = self._first_pe()
            first = self._first(number)
            if first >= self._bound:
                self.gvt = self._bound
                return
            others = min((self._first(other) for other in range(len(self._pes)) if other != number), default=NEVER)
            status = self._step(
                number, min(self._bound, max(others, first + 1)), self._options.batch if others > first else 1
            )
            pe = self._pes[number]
            self._hand_over_part(number, int(pe.reg[N_LOG]))
            self._merger.commit()
            self.gvt = max(self.gvt, int(pe.reg[CLOCK]))
            if status == FAILED:
                self._fail()
            self._settle()

    def _step(self, number: int, bound: int, batch: int) -> int:
        """Let one PE execute below ``bound`` while the others stand still."""
        status: int = run_slice(self._dispatch, self._pes[number], self._shared, number, bound, batch, 1, True)
        self._answer(number, status)
        if status == LOG_FULL:
            self._widen_log(number)
        return status

    def _settle(self) -> None:
        """Bring every message to the PE that it is for."""
        lines = self._shared.lines.reshape(-1, 2, LINE_WORDS)
        while any(pe.reg[N_QUEUED] for pe in self._pes) or (lines[:, 0, 0] != lines[:, 1, 0]).any():
            for number in range(len(self._pes)):
                self._step(number, 0, 1)

    def _fail(self) -> None:
        """Commit all that precedes the first event whose handler refused, then raise what the Python tier says of it."""
        failed = min(self._failures)
        while (first := min(self._heads())) < failed:
            status = self._step(first[1], first[0][0] + 1, 1)
            if status == FAILED:
                failed = first
                break
            self._settle()
        key, number = failed
        for other, pe in enumerate(self._pes):
            before = [_key_of(entry) < key for entry in pe.log[: pe.reg[N_LOG]]]
            self._hand_over_part(other, sum(before))
        self._merger.commit()
        self.gvt = max(self.gvt, key[0])
        pe = self._pes[number]
        raise error_of(self._model, self._memory, self._rows, self._memory.event(pe.pool, pe.payload, int(pe.slots[0])))

    # --- looking at PEs ---------------------------------------------------------------------------

    def _first(self, number: int) -> int:
        """The tick of a PE's first pending event."""
        pe = self._pes[number]
        return int(pe.times[0]) if pe.reg[N_PENDING] else NEVER

    def _heads(self) -> list[tuple[Key, int]]:
        """The key of each PE's first pending event, and the PE."""
        return [(self._key(pe, int(pe.slots[0])), number) for number, pe in enumerate(self._pes) if pe.reg[N_PENDING]]

    def _first_pe(self) -> int:
        return min(self._heads(), default=((), 0))[1]

    def _key(self, pe: Pe, slot: int) -> Key:
        event = pe.pool[slot]
        return int(event["time"]), int(event["generation"]), int(event["dst"]), int(event["src"]), int(event["seq"])

    def _promise(self, src: int, dst: int) -> int:
        return int(self._shared.control[BASES + src * PE_WORDS]) + int(self._shared.lookahead[src, dst])

    def _stall(self, number: int, first: int, promised: int, src: int) -> str:
        pe, other = self._pes[number], self._pes[src]
        has_event = self._first(src) < NEVER
        stands = f"stands at {self._path(other)}, tick {self._first(src)}" if has_event else "has no event"
        return (
            f"PE {number} waits for PE {src}'s promise of tick {first} at {self._path(pe)}: "
            f"it has promised {promised} and {stands}"
        )

    def _path(self, pe: Pe) -> str:
        return self._model.path(int(pe.pool["dst"][pe.slots[0]]))


def _key_of(entry: Any) -> Key:
    time, generation, dst, src, seq = entry[:5].tolist()
    return time, generation, dst, src, seq % 2**64
