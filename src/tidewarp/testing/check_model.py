"""Does a model keep its contract? ``check_model`` runs it in every way that this machine has, and looks at each event.

A model that passes gives one digest in every engine, tier and number of workers, as far as ``until`` goes with
its own inputs. What a check cannot find: behaviour behind ``until``, and reliance on the host that happens to repeat itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from tidewarp.errors import ModelError, NotCompilable, ReverseMismatch, TidewarpError, ZeroLookahead
from tidewarp.kernel import Engine, Model, Undo
from tidewarp.kernel.lp import form_of_lp, reverses_of
from tidewarp.kernel.objects import CheckedObjects, initial_image
from tidewarp.kernel.records import HIDDEN, Event, Image, pack_event, split_frames, split_rows
from tidewarp.kernel.sequential import SequentialKernel

__all__ = ["Checked", "check_model"]

SCHEDULES = 50
WINDOWS = ("auto", 2**40, "lookahead")


class Checked(NamedTuple):
    """What was checked: events looked at one by one, other runs with the same result, events these undid, what could not be."""

    events: int
    runs: int
    rolled_back: int
    skipped: tuple[str, ...]


def check_model(model: Model, until: int, *, schedules: int = SCHEDULES, tier: str = "auto") -> Checked:
    """Run ``model`` to ``until`` (ticks, inclusive) in all engines and tiers, and check every event of the reference.

    * purity: each handler runs twice on one state and must do the same twice;
    * ranges: fields and messages fit their kinds after every event;
    * lookahead: no send is sooner than declared, and the conservative engine, which trusts that, agrees;
    * reverse: each reverse handler, and each ``save`` and ``load``, puts back every byte;
    * schedules: the optimistic engine agrees under so many random orders of turns;
    * tiers: the compiled handlers agree, if the model compiles and Numba is there; ``tier="python"`` leaves them out.

    Raises:
        ModelError: of the rule that was broken; it names the first event (path and key) at which anything differs.
    """
    model.freeze()
    keys, expected = _audit(model, until)
    runs = rolled_back = 0
    skipped: list[str] = []
    for options in _ways(model, schedules, tier, skipped):
        try:
            with Engine(model, **options) as engine:
                _take_all(engine, until)
                image, stats = engine.image(), engine.stats()
        except (ZeroLookahead, NotCompilable) as error:
            skipped.append(str(error))
            continue
        if image != expected:
            raise _difference(model, keys, options)
        runs += 1
        rolled_back += stats.rolled_back
    return Checked(len(keys), runs, rolled_back, tuple(skipped))


def _ways(model: Model, schedules: int, tier: str, skipped: list[str]) -> list[dict[str, Any]]:
    workers = min(model.n_lps, 4)
    ways: list[dict[str, Any]] = (
        [{"kernel": "conservative", "tier": "python", "workers": workers}] if workers > 1 else []
    )
    for seed in range(schedules):
        how = {
            "window": WINDOWS[seed % 3],
            "cancellation": ("aggressive", "lazy")[seed % 2],
            "batch": (1, 16, 64)[seed % 3],
        }
        ways.append({"kernel": "optimistic", "tier": "python", "workers": workers, "schedule_seed": seed, **how})
    if tier == "python":
        skipped.append("compiled tier: not asked for")
        return ways
    if importlib.util.find_spec("numba") is None:
        skipped.append("compiled tier: Numba is not installed")
        return ways
    compiled = [{"kernel": kernel, "workers": n} for kernel, n in (("sequential", 1), ("optimistic", workers))]
    return ways + [{"tier": "compiled", **how} for how in compiled]


def _take_all(engine: Engine, until: int) -> None:
    while engine.advance(until).name == "FULL":
        engine.outputs()


def _audit(model: Model, until: int) -> tuple[list[Event], Image]:
    """All events of the reference, each looked at, and the final state."""
    image = initial_image(model)
    objects = _Audited(model, image)
    with Engine(model, tier="python", kernel="sequential", image=image) as engine:
        engine._kernel = SequentialKernel(model, image, engine.ledger, objects)
        _take_all(engine, until)
        return objects.executed, engine.image()


class _Audited(CheckedObjects):
    """Objects that execute every event twice, and back."""

    def __init__(self, model: Model, image: Image) -> None:
        super().__init__(model, image)
        self.executed: list[Event] = []

    def execute(self, event: Event) -> None:
        """As in the base, with all checks."""
        lp = event[2]
        before, record = self.row(lp), pack_event(self.model, event)
        super().execute(event)
        after, effects = self.row(lp), self._effects()
        self._check_reverse(event, before, after)
        self._check_saving(event, after)
        self.set_row(lp, before)
        super().execute(event)
        if (self.row(lp), self._effects()) != (after, effects) or pack_event(self.model, event) != record:
            raise ModelError(
                f"{_named(self.model, event)}: its handler does something else when it runs again",
                "a handler is a function of state, message and draws" + self._fields_that_differ(lp, after),
                "keep everything in fields; take random numbers from ctx; change no message",
            )
        self.executed.append(event)

    def _effects(self) -> tuple[Any, ...]:
        context = self.context
        sent = [pack_event(self.model, event) for event in context.sends]
        emitted = [pack_event(self.model, (0, 0, 0, context.lp, 0, message)) for message in context.emitted]
        return sent, emitted, list(context.adds), context.noted

    def _fields_that_differ(self, lp: int, row: bytes) -> str:
        names = _differing(self.model, lp, self.row(lp), row)
        return f"; {', '.join(names)} came out different" if names else ""

    def _check_reverse(self, event: Event, before: bytes, after: bytes) -> None:
        now, _, lp, _, _, message = event
        cls = self.model.class_of(lp)
        inverse = reverses_of(cls).get(type(message))
        if inverse is None:
            return
        state = self.states[lp]
        try:
            inverse(state, now, message, Undo(self.context.noted))
        except Exception as error:
            raise ReverseMismatch(
                f"{_named(self.model, event)}: {type(error).__name__}: {error}",
                "its reverse handler raised",
                "mend it: it takes (self, now, message, undo) and puts the fields back",
            ) from error
        state._draws, state._sends = HIDDEN.unpack_from(before)
        self._check_same(event, before, f"the reverse handler of {type(message).__name__} puts back every byte")
        self.set_row(lp, after)

    def _check_saving(self, event: Event, after: bytes) -> None:
        lp = event[2]
        state = self.states[lp]
        if self.model.class_of(lp).saving == "custom":
            saved = state.save()
            self.set_row(lp, HIDDEN.pack(0, 0) + bytes(form_of_lp(type(state)).pack(form_of_lp(type(state)).zeros())))
            state.load(saved)
            state._draws, state._sends = HIDDEN.unpack_from(after)
            self._check_same(event, after, "load() puts back what save() took")
            self.set_row(lp, after)

    def _check_same(self, event: Event, expected: bytes, rule: str) -> None:
        lp = event[2]
        row = self.row(lp)
        if row != expected:
            form = form_of_lp(type(self.states[lp]))
            values = (dict(zip(form.names, form.unpack(data[HIDDEN.size :]), strict=True)) for data in (expected, row))
            was, got = values
            name = next(name for name in form.names if was[name] != got[name] or str(was[name]) != str(got[name]))
            raise ReverseMismatch(
                f"{_named(self.model, event)}: {name} was {was[name]!r} and comes back as {got[name]!r}",
                rule,
                "mend it",
            )


def _differing(model: Model, lp: int, one: bytes, other: bytes) -> list[str]:
    form = form_of_lp(model.class_of(lp))
    pairs = zip(form.names, form.unpack(one[HIDDEN.size :]), form.unpack(other[HIDDEN.size :]), strict=True)
    return [name for name, a, b in pairs if str(a) != str(b)]


def _named(model: Model, event: Event) -> str:
    return f"{model.path(event[2])} at {event[:5]}, {type(event[5]).__name__} from {model.path(event[3])}"


def _difference(model: Model, events: Sequence[Event], options: dict[str, Any]) -> TidewarpError:
    """The error that names the first event behind which the run under ``options`` is in another state."""
    told = ", ".join(f"{name}={value!r}" for name, value in options.items())
    ticks = sorted({event[0] for event in events})
    low, high = 0, len(ticks) - 1
    while low < high:
        middle = (low + high) // 2
        if _image_at(model, ticks[middle], options) == _image_at(model, ticks[middle], {"tier": "python"}):
            low = middle + 1
        else:
            high = middle
    tick = ticks[low] if ticks else 0
    images = (_image_at(model, tick, how) for how in (options, {"tier": "python"}))
    lps = _lps_that_differ(model, *images)
    suspects = [event for event in events if event[0] == tick and event[2] in lps] or [
        e for e in events if e[0] == tick
    ]
    where = _named(model, suspects[0]) if suspects else f"the start of {', '.join(map(model.path, sorted(lps)))}"
    return ModelError(
        f"{where}: the run with {told} is in another state there",
        "every engine and tier computes the same",
        "look for what differs between Python and compiled code: integers beyond 64 bits, shared lists, global state",
    )


def _image_at(model: Model, tick: int, options: dict[str, Any]) -> Image:
    with Engine(model, **options) as engine:
        _take_all(engine, tick)
        return engine.image()


def _lps_that_differ(model: Model, one: Image, other: Image) -> set[int]:
    found: set[int] = set()
    for group, mine, theirs in zip(model.groups, one.rows, other.rows, strict=True):
        form = form_of_lp(group.cls)
        rows = zip(split_rows(form, mine, group.count), split_rows(form, theirs, group.count), strict=True)
        found.update(group.first + place for place, (a, b) in enumerate(rows) if a != b)
    pending = {bytes(record) for record in split_frames(one.pending)} ^ {bytes(r) for r in split_frames(other.pending)}
    return found | {int.from_bytes(record[24:32], "big", signed=True) for record in pending}
