"""Bugs that Time Warp engines have had, planted one after the other: the random stress finds each of them.

Every row plants one by changing a method of the pure machine; it is found if one of the first cases ends otherwise than the
reference, breaks an invariant, or does not end. The table is the test of the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidewarp.errors import TidewarpError
from tidewarp.kernel import Engine
from tidewarp.kernel.context import Context
from tidewarp.kernel.optimistic.commit import Committer
from tidewarp.kernel.optimistic.entries import ANTI, EXECUTED, PENDING, QUEUED, SENT, Entry, Letter
from tidewarp.kernel.optimistic.gvt import NEVER, Mark
from tidewarp.kernel.optimistic.pe import ProcessingElement
from tidewarp.kernel.optimistic.rollback import History
from tidewarp.kernel.optimistic.saving import ObjectsExecutor, Saving
from tidewarp.kernel.optimistic.scheduler import Scheduler
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.records import Image
from tidewarp.seeds import Stream
from tidewarp.testing.kernel import check_parity
from tidewarp.worlds.hurt import CLASSES, Case, Late, hurt

CASES_MAX = 60
TURNS_MAX = 20_000

Patch = pytest.MonkeyPatch


def stress_case(index: int) -> Case:
    """A small case that thrashes: three PEs, a few KPs, short turns, windows without end, late inputs."""
    stream = Stream(index, "faults")

    def pick(*values: Any) -> Any:
        return values[stream.below(len(values))]

    lookahead = pick(0, 0, 2)
    model = hurt(
        pick(*CLASSES),
        2,
        population=2,
        remote=0.6,
        emit=0.4,
        lookahead=lookahead,
        spread=pick(2, 4),
        trace_interval=2,
        seed=index,
    )
    inputs = [Late(stream.below(9), stream.below(model.n_lps), stream.bits()) for _ in range(pick(0, 3))]
    options = {
        "kernel": "optimistic",
        "tier": "python",
        "workers": min(model.n_lps, pick(2, 3)),
        "kps": pick(1, 2),
        "batch": pick(1, 4, 16),
        "ring": pick(2, 64),
        "gvt_interval": pick(1, 3),
        "window": pick("lookahead", 2**40, 2**40) if lookahead else 2**40,
        "cancellation": pick("aggressive", "lazy"),
        "saving": pick(None, "copy", "periodic:3"),
        "schedule_seed": index,
    }
    return Case(model, 10, inputs, options)


class Endless(AssertionError):
    """A run that does not end."""


@pytest.fixture
def bounded(monkeypatch: Patch) -> None:
    """No run takes more turns than TURNS_MAX; a window of the lookahead rolls nothing back."""
    turn = Scheduler.turn

    def counted(self: Scheduler, horizon: int) -> bool:
        if sum(pe.statistics.turns for pe in self.pes) > TURNS_MAX:
            raise Endless
        return turn(self, horizon)

    monkeypatch.setattr(Scheduler, "turn", counted)


def image_at(case: Case, tick: int, **options: Any) -> Image:
    """The image of a run that may run to the end, and has committed what lies below ``tick``."""
    with Engine(case.model, **options) as engine:
        engine.watermark(case.model.sources[0], tick)
        engine.advance(case.until)
        return engine.image()


def find(cases: int) -> int | None:
    """The first case that shows a fault; None: none of them does."""
    for index in range(cases):
        case = stress_case(index)
        try:
            played = check_parity(case)
            if case.options["window"] == "lookahead" and not case.inputs:
                assert played.stats.rolled_back == 0, "a window of the lookahead rolls nothing back"
            assert image_at(case, 5, **case.options) == image_at(case, 5, tier="python"), "an image is exact"
        except (AssertionError, TidewarpError, LookupError, TypeError):
            return index
    return None


# --- the faults ---------------------------------------------------------------------------------------


def lose_an_anti_message(patch: Patch) -> None:
    receive = ProcessingElement.receive

    def lossy(self: Any, letters: Any) -> None:
        receive(self, [one for one in letters if one.kind != ANTI or one.number % 3])

    patch.setattr(ProcessingElement, "receive", lossy)


def skip_what_left_since_the_round_began(patch: Patch) -> None:
    patch.setattr(ProcessingElement, "_count_sent", lambda self, letters: None)


def read_the_round_after_draining(patch: Patch) -> None:
    step = ProcessingElement.step

    def late(self: Any, *args: Any, **more: Any) -> list[Letter]:
        self._seen = self._bulletin.number
        return step(self, *args, **more)

    patch.setattr(ProcessingElement, "step", late)


def forget_the_send_queue_in_gvt(patch: Patch) -> None:
    low = ProcessingElement.low

    def without(self: Any) -> Mark:
        boxes, self._outbox = self._outbox, {}
        try:
            return low(self)
        finally:
            self._outbox = boxes

    patch.setattr(ProcessingElement, "low", without)


def compare_times_alone(patch: Patch) -> None:
    patch.setattr(
        History,
        "_is_straggler",
        lambda self, entry: bool(entry.kp.executed) and entry.kp.executed[-1].event[0] > entry.event[0],
    )


def overlook_stragglers(patch: Patch) -> None:
    patch.setattr(History, "_is_straggler", lambda self, entry: False)


def undo_later_times_alone(patch: Patch) -> None:
    patch.setattr(History, "_must_undo", lambda self, entry, cause: entry.event[0] > cause.event[0])


def use_a_channel_number_again(patch: Patch) -> None:
    letter = ProcessingElement._letter

    def repeated(self: Any, target: int, kind: int, stub: Entry) -> Letter | None:
        sent = letter(self, target, kind, stub)
        if sent is not None and sent.kind != ANTI and sent.number == 3:
            self._sent[target] = 3
        return sent

    patch.setattr(ProcessingElement, "_letter", repeated)


def _forgetting(patch: Patch, word: str) -> None:
    load = Saving._load

    def without(self: Saving, state: Any, image: tuple[Any, ...]) -> None:
        kept = getattr(state, word)
        load(self, state, image)
        setattr(state, word, kept)

    patch.setattr(Saving, "_load", without)


def forget_the_draw_counter(patch: Patch) -> None:
    _forgetting(patch, "_draws")


def forget_the_send_counter(patch: Patch) -> None:
    _forgetting(patch, "_sends")


def share_arrays_with_the_image(patch: Patch) -> None:
    patch.setattr(Saving, "_copied", lambda self, values: values)


def drop_the_newest_image(patch: Patch) -> None:
    coast = History._coast

    def older(self: Any, kp: Any, lp: int) -> None:
        newest = [entry for entry in reversed(kp.executed) if entry.event[2] == lp and entry.saved is not None]
        kept = newest[0].saved if newest else None
        if newest:
            newest[0].saved = self._bases.get(lp, (kept,))[0]
        coast(self, kp, lp)
        if newest:
            newest[0].saved = kept

    patch.setattr(History, "_coast", older)


def keep_an_image_without_what_came_after(patch: Patch) -> None:
    bury = History._bury

    def short(self: Any, entry: Entry) -> None:
        bury(self, entry)
        if entry.event[2] in self._bases:
            self._bases[entry.event[2]][1][1:] = []

    patch.setattr(History, "_bury", short)


def collect_too_early(patch: Patch) -> None:
    def greedy(self: Any) -> list[Entry]:
        self._gvt = self._bulletin.gvt
        found = [entry for kp in self.kps for entry in kp.executed if entry.event[0] <= self._gvt[0]]
        return sorted(found, key=lambda entry: entry.event[:5])

    patch.setattr(ProcessingElement, "final", greedy)


def a_window_that_includes_its_end(patch: Patch) -> None:
    ticks = Window.ticks.fget
    patch.setattr(Window, "ticks", property(lambda self: ticks(self) + 1))  # type: ignore[misc]


def commit_out_of_key_order(patch: Patch) -> None:
    def unsorted(self: Committer, finals: Any) -> int:
        for final in list(finals):
            for entry in final:
                self._last = ()
                self._take(entry)
                self._ledger.commit([entry.event])
        return 0

    patch.setattr(Committer, "release", unsorted)


def keep_a_changed_message(patch: Patch) -> None:
    patch.setattr(ObjectsExecutor, "same", lambda self, a, b: True)


def forget_a_cascade(patch: Patch) -> None:
    cancel = History._cancel

    def shallow(self: Any, entry: Entry) -> None:
        if entry.status != EXECUTED:
            cancel(self, entry)

    patch.setattr(History, "_cancel", shallow)


def do_not_put_back_what_a_cascade_undid(patch: Patch) -> None:
    queue = History._queue

    def losing(self: Any, entry: Entry) -> None:
        if entry.saved is not None or entry.channel is None or not entry.kp.executed:
            queue(self, entry)
        else:
            self._pool.give(1)

    patch.setattr(History, "_queue", losing)


def leave_queued_messages_of_undone_events(patch: Patch) -> None:
    withdraw = History._withdraw

    def partial(self: Any, children: Any) -> None:
        withdraw(self, [child for child in children if child.status != QUEUED])

    patch.setattr(History, "_withdraw", partial)


def leave_sent_messages_of_undone_events(patch: Patch) -> None:
    withdraw = History._withdraw

    def partial(self: Any, children: Any) -> None:
        withdraw(self, [child for child in children if child.status != SENT])

    patch.setattr(History, "_withdraw", partial)


def leave_pending_messages_of_undone_events(patch: Patch) -> None:
    withdraw = History._withdraw

    def partial(self: Any, children: Any) -> None:
        withdraw(self, [child for child in children if child.status != PENDING])

    patch.setattr(History, "_withdraw", partial)


def release_outputs_at_execution(patch: Patch) -> None:
    effects = ProcessingElement._take_effects

    def early(self: Any, entry: Entry, done: Context) -> None:
        effects(self, entry, done)
        if entry.emitted:
            LEDGERS[-1].emit(entry.event, entry.emitted)
            entry.emitted = ()

    _remember_ledgers(patch)
    patch.setattr(ProcessingElement, "_take_effects", early)


def add_to_accumulators_at_execution(patch: Patch) -> None:
    effects = ProcessingElement._take_effects

    def early(self: Any, entry: Entry, done: Context) -> None:
        effects(self, entry, done)
        LEDGERS[-1].add(entry.adds)
        entry.adds = ()

    _remember_ledgers(patch)
    patch.setattr(ProcessingElement, "_take_effects", early)


LEDGERS: list[Any] = []


def _remember_ledgers(patch: Patch) -> None:
    init = Committer.__init__

    def remembering(self: Committer, ledger: Any) -> None:
        LEDGERS.append(ledger)
        init(self, ledger)

    patch.setattr(Committer, "__init__", remembering)


def keep_outputs_of_undone_events(patch: Patch) -> None:
    effects = ProcessingElement._take_effects

    def appending(self: Any, entry: Entry, done: Context) -> None:
        before = getattr(entry, "adds", ())
        effects(self, entry, done)
        entry.adds = [*before, *entry.adds]

    undo = History._undo

    def keeping(self: Any, entry: Entry) -> None:
        adds = entry.adds
        undo(self, entry)
        entry.adds = adds

    patch.setattr(ProcessingElement, "_take_effects", appending)
    patch.setattr(History, "_undo", keeping)


def take_an_image_without_rolling_back(patch: Patch) -> None:
    patch.setattr(ProcessingElement, "undo_all", lambda self: None)


def do_not_restore_the_state(patch: Patch) -> None:
    patch.setattr(ObjectsExecutor, "restore", lambda self, lp, saved: None)


def coast_one_event_short(patch: Patch) -> None:
    coast = History._coast

    def short(self: Any, kp: Any, lp: int) -> None:
        mine = [entry for entry in kp.executed if entry.event[2] == lp]
        if mine and mine[-1].saved is None:
            kp.executed.remove(mine[-1])
            coast(self, kp, lp)
            kp.executed.append(mine[-1])
            kp.executed = type(kp.executed)(sorted(kp.executed, key=lambda entry: entry.item))
        else:
            coast(self, kp, lp)

    patch.setattr(History, "_coast", short)


def let_gvt_ignore_pending_events(patch: Patch) -> None:
    patch.setattr(ProcessingElement, "low", lambda self: NEVER)


def commit_what_is_only_at_gvt(patch: Patch) -> None:
    def early(self: Any) -> list[Entry]:
        self._gvt = gvt = self._bulletin.gvt
        found = [entry for kp in self.kps for entry in kp.executed if entry.event[:2] <= gvt[:2]]
        return sorted(found, key=lambda entry: entry.event[:5])

    patch.setattr(ProcessingElement, "final", early)


def leave_fossils(patch: Patch) -> None:
    patch.setattr(History, "collect", lambda self: None)


FAULTS = [
    lose_an_anti_message,
    skip_what_left_since_the_round_began,
    read_the_round_after_draining,
    forget_the_send_queue_in_gvt,
    compare_times_alone,
    overlook_stragglers,
    undo_later_times_alone,
    use_a_channel_number_again,
    forget_the_draw_counter,
    forget_the_send_counter,
    share_arrays_with_the_image,
    drop_the_newest_image,
    keep_an_image_without_what_came_after,
    collect_too_early,
    a_window_that_includes_its_end,
    commit_out_of_key_order,
    keep_a_changed_message,
    forget_a_cascade,
    do_not_put_back_what_a_cascade_undid,
    leave_queued_messages_of_undone_events,
    leave_sent_messages_of_undone_events,
    leave_pending_messages_of_undone_events,
    release_outputs_at_execution,
    add_to_accumulators_at_execution,
    keep_outputs_of_undone_events,
    take_an_image_without_rolling_back,
    do_not_restore_the_state,
    coast_one_event_short,
    let_gvt_ignore_pending_events,
    commit_what_is_only_at_gvt,
    leave_fossils,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault: Callable[[Patch], None], monkeypatch: Patch, bounded: None) -> None:
    """Within the first cases."""
    fault(monkeypatch)
    assert find(CASES_MAX) is not None


def test_without_a_fault_nothing_is_found(bounded: None) -> None:
    """The same cases, and they do roll back."""
    assert find(CASES_MAX // 3) is None
    assert sum(check_parity(stress_case(index)).stats.rolled_back for index in range(4)) > 50
