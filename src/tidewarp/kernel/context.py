"""What a handler may do: read its surroundings, draw random numbers, send, emit, count. Nothing else.

This is the interpreted form; :mod:`tidewarp.kernel.compiled.dispatch` gives a compiled handler an object with the
same methods. Both refuse the same things, so an error of the model is the same error in every engine.
"""

from __future__ import annotations

from math import log
from operator import index
from struct import error as StructError  # noqa: N812  it is a class
from typing import Any, NoReturn

import numpy as np

from tidewarp.errors import (
    GenerationOverflow,
    LookaheadError,
    ModelError,
    NegativeDelay,
    RangeError,
    UnhandledMessage,
    UnknownDestination,
)
from tidewarp.kernel.model import Model
from tidewarp.seeds import exact_log, normal_of
from tidewarp.units import TICK_MAX

__all__ = ["GENERATIONS_MAX", "SENDS_MAX", "Context", "Undo"]

GENERATIONS_MAX = 1_000_000
SENDS_MAX = 2**20
_MASK = 2**64 - 1
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_JUST_BELOW, _JUST_ABOVE = 1.0 - 2.0**-46, 1.0 + 2.0**-46  # 64 ulp: two logarithms and their products are much nearer


class Undo:
    """What a reverse handler gets: ``bits``, the whole number that the handler noted with ``ctx.note`` (0 if it did not)."""

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        self.bits = bits


class _Table(np.ndarray[Any, Any]):
    """A constant array whose single items are Python's numbers: numpy's would wrap around, and leak into the state."""

    def __getitem__(self, item: Any) -> Any:
        value = super().__getitem__(item)
        return value.item() if isinstance(value, np.generic) else value

    def __iter__(self) -> Any:
        return iter(self.tolist()) if self.ndim == 1 else super().__iter__()


class Context:
    """The one object that a handler talks to.

    ``now`` is the tick of the event, ``lp`` the number of this LP, ``n_lps`` how many there are, ``params`` the model's
    parameters. What a handler sends, emits and adds is collected here; the engine takes it when the handler is done.
    """

    __slots__ = (
        "_accumulators",
        "_checkers",
        "_forms",
        "_lookahead",
        "_model",
        "_outs",
        "_reach",
        "_state",
        "_tables",
        "adds",
        "emitted",
        "generation",
        "lp",
        "n_lps",
        "noted",
        "now",
        "params",
        "sends",
    )

    def __init__(self, model: Model) -> None:
        self._model = model
        self._accumulators = {name: index for index, name in enumerate(model.accumulator_names)}
        self._lookahead = model.lookahead if model.links is None else None  # None: each link has its own
        self._outs: dict[int, list[int]] = {}  # LP -> linked LPs, filled when asked for
        self._reach: dict[int, dict[int, int]] = {}  # LP -> linked LP -> least delay, filled with it
        self._forms = dict(zip(model.messages, model.message_forms, strict=True))
        self._checkers = {message: form.checker for message, form in self._forms.items()}
        self._tables = {name: array.view(_Table) for name, array in model.tables.items()}
        self.n_lps = model.n_lps
        self.params = model.params
        self.now = 0
        self.generation = 0
        self.lp = 0
        self.noted = 0
        self.sends: list[tuple[int, int, int, int, int, Any]] = []  # events: key and message
        self.emitted: list[Any] = []
        self.adds: list[tuple[int, int]] = []  # (accumulator, n)
        self._state: Any = None

    def begin(self, state: Any, lp: int, now: int, generation: int) -> None:
        """Turn to an LP for one event: forget what the last one did."""
        self._state = state
        self.lp = lp
        self.now = now
        self.generation = generation
        self.noted = 0
        self.sends = []
        if self.emitted:
            self.emitted = []
        if self.adds:
            self.adds = []

    # --- sending ----------------------------------------------------------------------------------

    def send(self, dst: int, delay: int, message: Any) -> None:
        """Send ``message`` to LP ``dst``; it arrives ``delay`` >= 0 ticks from now.

        Raises:
            UnknownDestination: no such LP, or it is not linked from here.
            NegativeDelay: a delay below 0, or an arrival beyond the last tick.
            LookaheadError: less delay than declared, to another LP.
            GenerationOverflow: the millionth send in a row without delay.
            UnhandledMessage: a message of a class that the model does not know.
            RangeError: a field of it that its kind cannot hold.
        """
        if type(dst) is not int or type(delay) is not int:
            dst, delay = self._whole(dst, delay)
        state = self._state
        lp = self.lp
        now = self.now
        if dst != lp:
            if not 0 <= dst < self.n_lps:
                self._refuse_destination(dst)
            least = self._lookahead
            if least is None:
                least = self._least_delay(dst)
            if delay < least:
                self._refuse_delay(dst, delay, least)
        if delay > 0:
            generation = 0
            if now + delay > TICK_MAX:
                self._refuse_delay(dst, delay, 0)
        elif delay == 0:
            generation = self.generation + 1
            if generation >= GENERATIONS_MAX:
                self._refuse_generation(dst)
        else:
            self._refuse_delay(dst, delay, 0)
        check = self._checkers.get(type(message))
        if check is None:
            message = self._canonical(message)
        else:
            try:
                check(*message)
            except StructError:
                self._canonical(message)  # which words what is wrong
        count = state._sends
        state._sends = count + 1
        sends = self.sends
        sends.append((now + delay, generation, dst, lp, count, message))
        if len(sends) > SENDS_MAX:
            self._refuse_sends()

    def _canonical(self, message: Any) -> Any:
        """A message as its receiver gets it in every tier, and whose arrays nobody can change any more."""
        kind: Any = type(message)
        form = self._forms.get(kind)
        if form is None:
            self._refuse_message(message)
        return kind._make(form.canonical(message, self._here()))

    def _whole(self, dst: Any, delay: Any) -> tuple[int, int]:
        """Python's own numbers for numpy's and for True and False; what is no whole number is refused."""
        if not hasattr(dst, "__index__"):
            self._refuse_destination(dst)
        if not hasattr(delay, "__index__"):
            raise NegativeDelay(
                f"{self._here()} sends after {delay!r} ticks",
                "a delay is a whole number of ticks",
                "round it with int()",
            )
        return index(dst), index(delay)

    @property
    def n_out(self) -> int:
        """How many LPs are linked from this one (without links: all)."""
        return self.n_lps if self._lookahead is not None else len(self._links_from(self.lp))

    def out(self, i: int) -> int:
        """The number of the i-th LP that is linked from this one, in the order declared.

        Raises:
            UnknownDestination: i is not in [0, n_out).
        """
        outs: Any = range(self.n_lps) if self._lookahead is not None else self._outs.get(self.lp)
        if outs is None:
            outs = self._links_from(self.lp)
        if not 0 <= i < len(outs):
            raise UnknownDestination(
                f"{self._here()}: out({i!r})", f"it has {self.n_out} links", "keep i in [0, ctx.n_out)"
            )
        return int(outs[i])

    def _links_from(self, lp: int) -> list[int]:
        """The LPs that ``lp`` is linked to, in the order declared."""
        outs = self._outs.get(lp)
        if outs is None:
            links = self._model.links
            assert links is not None
            a, b = links.first[lp], links.first[lp + 1]
            outs = self._outs[lp] = links.dst[a:b].tolist()
            self._reach[lp] = dict(zip(outs, links.lookahead[a:b].tolist(), strict=True))
        return outs

    def _least_delay(self, dst: int) -> int:
        self._links_from(self.lp)
        reach = self._reach[self.lp]
        if dst not in reach:
            self._refuse_destination(dst)
        return reach[dst]

    # --- what leaves the model --------------------------------------------------------------------

    def emit(self, message: Any) -> None:
        """Put ``message`` out: it leaves the run, in key order, once this event is committed.

        Raises:
            UnhandledMessage: a message of a class that the model does not know.
            RangeError: a field of it that its kind cannot hold.
        """
        self.emitted.append(self._canonical(message))
        if len(self.emitted) > SENDS_MAX:
            self._refuse_sends()

    def add(self, name: str, n: int = 1) -> None:
        """Add ``n`` to the accumulator ``name`` (or offer it to a min or max), once this event is committed.

        Raises:
            ModelError: no such accumulator.
            RangeError: n is no int64.
        """
        place = self._accumulators.get(name)
        if place is None:
            known = ", ".join(self._accumulators) or "none"
            raise ModelError(
                f"{self._here()}: add({name!r})",
                f"the model's accumulators are: {known}",
                "declare it with model.accumulator",
            )
        if not hasattr(n, "__index__") or not -TICK_MAX - 1 <= n <= TICK_MAX:
            raise RangeError(
                f"{self._here()}: add({name!r}, {n!r})", "n is a whole number of int64", "add less, or round it"
            )
        self.adds.append((place, index(n)))
        if len(self.adds) > SENDS_MAX:
            self._refuse_sends()

    def note(self, bits: int) -> None:
        """Keep a whole number for the reverse handler of this event.

        Raises:
            RangeError: it is no int64.
        """
        if not hasattr(bits, "__index__") or not -TICK_MAX - 1 <= bits <= TICK_MAX:
            raise RangeError(
                f"{self._here()}: note({bits!r})", "bits are a whole number of int64", "wrap it with wrap_i64"
            )
        self.noted = index(bits)

    # --- reading ----------------------------------------------------------------------------------

    def table(self, name: str) -> Any:
        """The constant array ``name``, read-only.

        Raises:
            ModelError: no such table.
        """
        found = self._tables.get(name)
        if found is None:
            raise ModelError(
                f"{self._here()}: table {name!r}",
                f"the model's tables are: {', '.join(self._model.tables) or 'none'}",
                "declare it with model.table",
            )
        return found

    def bits(self) -> int:
        """The next 64 random bits of this LP; how many were drawn is part of its state."""
        state = self._state
        state._draws = count = state._draws + 1
        x: int = state._key + count * state._gamma & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        return x ^ x >> 31

    def random(self) -> float:
        """A float in [0, 1) with 53 random bits."""
        state = self._state  # bits(), written out: most of what handlers do is to draw
        state._draws = count = state._draws + 1
        x: int = state._key + count * state._gamma & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        return ((x ^ x >> 31) >> 11) * _TO_UNIT

    def below(self, n: int) -> int:
        """A whole number in [0, n), each equally likely: low bits of a word, drawn anew while they are n or more.

        Raises:
            RangeError: n is not in [1, 2**63).
        """
        if not 1 <= n <= TICK_MAX:
            raise RangeError(
                f"{self._here()}: below({n!r})",
                "the bound is a whole number from 1 to 2**63 - 1",
                "check it before drawing",
            )
        mask = (1 << (n - 1).bit_length()) - 1
        while (x := self.bits() & mask) >= n:
            pass
        return x

    def exponential(self, mean: float) -> int:
        """An exponentially distributed whole number of ticks, rounded down; ``mean`` in ticks.

        It is ``-mean`` times the exact logarithm of a uniform number. libm's logarithm is quicker, and never off by
        more than some ulp: only where so little could change the tick is the exact one asked.

        Raises:
            RangeError: a mean that is not above 0 and at most 2**57.
        """
        if not 0.0 < mean <= 144115188075855872.0:
            raise RangeError(
                f"{self._here()}: exponential({mean!r})",
                "a mean is above 0 and at most 2**57 ticks",
                "correct the mean",
            )
        uniform = 1.0 - self.random()
        ticks = -mean * log(uniform)
        least = int(ticks * _JUST_BELOW)
        if least == int(ticks * _JUST_ABOVE):
            return least
        return int(-mean * exact_log(uniform))

    def normal(self) -> float:
        """A standard normal value, |x| < 8.3 (Wichura's AS 241, as in :meth:`tidewarp.seeds.Stream.normal`)."""
        return normal_of(self.bits())

    # --- refusals ---------------------------------------------------------------------------------

    def _here(self) -> str:
        return f"{self._model.path(self.lp)} at tick {self.now}"

    def _refuse_destination(self, dst: Any) -> NoReturn:
        rule = f"LPs are 0 to {self.n_lps - 1}"
        if type(dst) is int and 0 <= dst < self.n_lps:
            rule = f"no link leads from there to {self._model.path(dst)}"
        raise UnknownDestination(
            f"{self._here()} sends to LP {dst!r}", rule, "send to an LP that exists and is linked (model.link)"
        )

    def _refuse_delay(self, dst: int, delay: Any, least: int) -> NoReturn:
        where = f"{self._here()} sends to {self._model.path(dst)} after {delay!r} ticks"
        if delay < 0:
            raise NegativeDelay(where, "nothing arrives before it is sent", "use a delay >= 0")
        if self.now + delay > TICK_MAX:
            raise NegativeDelay(where, "an arrival is a tick below 2**63", "use a shorter delay")
        raise LookaheadError(where, f"the declared lookahead is {least} ticks", "add it to the delay, or declare less")

    def _refuse_generation(self, dst: int) -> NoReturn:
        raise GenerationOverflow(
            f"{self._here()} sends to {self._model.path(dst)} without delay",
            f"at most {GENERATIONS_MAX} events cause each other within a tick",
            "give the loop a delay",
        )

    def _refuse_message(self, message: Any) -> NoReturn:
        raise UnhandledMessage(
            f"{self._here()} sends a {type(message).__name__}",
            "the model has no such message class",
            "handle it in an LP, or list it in Model(messages=...)",
        )

    def _refuse_sends(self) -> NoReturn:
        raise ModelError(
            self._here(), f"an event has at most {SENDS_MAX} effects of a kind", "send less from one event"
        )
