"""Random cases: a model that hurts, late inputs, and options under which it is executed.

Windows go from one tick to unlimited, KPs from one for each PE to one for each LP, rings from 8 messages, memory
from little more than the first events need. Some cases thrash on purpose: correctness must not depend on going well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tidewarp.kernel import Engine, Model, Output, Source, Status
from tidewarp.kernel.contract import Statistics
from tidewarp.seeds import Stream
from tidewarp.units import TICK_MAX
from tidewarp.worlds.hurt.model import CLASSES, Token, hurt

__all__ = ["Case", "Late", "Played", "play", "random_case", "random_options"]


class Late(NamedTuple):
    """An input: LP ``dst`` gets a token at tick ``at``, handed over after others."""

    at: int
    dst: int
    value: int


class Case(NamedTuple):
    """A run to compare: what is computed (model, inputs, until) and how (options)."""

    model: Model
    until: int  # ticks
    inputs: Sequence[Late]
    options: Mapping[str, Any]  # of Options, but for the tier


class Played(NamedTuple):
    """What a case came to."""

    digest: str
    committed: int
    trace_digests: dict[int, str]  # head of the events' chain behind each block
    outputs: list[Output]
    accumulators: list[int]
    stats: Statistics


def play(case: Case, until: int | None = None, **options: Any) -> Played:
    """Run a case under ``options``, by default to its end; inputs come while the run waits for them, latest first.

    A sequential run gets all of them before it begins: that is the meaning of the others.

    Raises:
        TidewarpError: what the engine raises.
    """
    end = case.until if until is None else until
    outputs: list[Output] = []
    with Engine(case.model, **options) as engine:
        ledger = engine.ledger
        ledger.keep_digests()
        _feed(engine, case.model.sources[0], case.inputs, end)
        while engine.advance(end) is Status.FULL:
            outputs += engine.outputs()
        outputs += engine.outputs()
        digest, stats = engine.digest(), engine.stats()
    return Played(digest, ledger.committed, ledger.trace_digests(), outputs, list(ledger.accumulators), stats)


def _feed(engine: Engine, source: Source, inputs: Sequence[Late], end: int) -> None:
    """Hand the inputs over; an optimistic run goes on meanwhile, and has to repair what came late."""
    sequence = sorted(range(len(inputs)), key=lambda i: -inputs[i].at)
    held = min((one.at for one in inputs), default=TICK_MAX)
    engine.watermark(source, held)
    for index in sequence:
        one = inputs[index]
        if engine.options.kernel == "optimistic" and held <= end:
            engine.advance(end)
        engine.inject(source, one.dst, one.at, Token(one.value), seq=index)
    engine.watermark(source, TICK_MAX)


def random_case(seed: int, index: int) -> Case:
    """Case number ``index`` (>= 0) of ``seed`` (U64): the same in every life and on every machine."""
    stream = Stream(seed, f"hurt.case.{index}")

    def pick(*values: Any) -> Any:
        return values[stream.below(len(values))]

    lookahead = pick(0, 0, 0, 0, 0, 1, 2)
    links = pick("none", "none", "none", "some", "forward")
    model = hurt(
        pick(*CLASSES),
        pick(1, 2, 4, 8),
        population=pick(1, 3, 8),
        lookahead=lookahead,
        spread=pick(2, 4, 4),
        remote=pick(0.1, 0.5, 1.0),
        emit=pick(0.0, 0.1),
        links=links,
        publish_every=pick(None, None, 5),
        trace_interval=pick(1, 8, 1000),
        seed=stream.bits(),
    )
    until = pick(3, 15, 25)
    n_inputs = pick(0, 0, 1, 4)
    inputs = [Late(stream.below(until + 2), stream.below(model.n_lps), stream.bits()) for _ in range(n_inputs)]
    options = random_options(stream, model, conservative=lookahead > 0 or links == "forward")
    return Case(model, until, inputs, options)


def random_options(stream: Stream, model: Model, *, conservative: bool) -> dict[str, Any]:
    """Options of a parallel run; one in twelve is conservative where that is possible."""

    def pick(*values: Any) -> Any:
        return values[stream.below(len(values))]

    options = {
        "workers": min(model.n_lps, pick(1, 2, 2, 3, 3, 4, 4, 4)),
        "batch": pick(1, 8, 64, 64, 64, 256),
        "gvt_interval": pick(1, 4, 16),
        "ring": pick(8, 64, 4096),
        "slice_turns": pick(3, 1000),
        "schedule_seed": stream.below(2**32),
        "outputs_max": pick(3, 2**20),
    }
    if conservative and stream.below(12) == 0:
        return {"kernel": "conservative", **options}
    first_bytes = 1024 * model.n_lps * (2 + model.params.population)
    return {
        "kernel": "optimistic",
        **options,
        "window": pick("auto", "lookahead", 1, 3, 20, 10**9, 10**9, 10**9, 10**9, 10**9),
        "kps": pick(None, 1, 1, 2, 4, model.n_lps),
        "cancellation": pick("aggressive", "lazy"),
        "saving": pick(None, None, "copy", "periodic:5", "delta"),
        "memory_max_bytes": first_bytes * pick(1, 2, 3, 4) if stream.below(8) == 0 else None,
    }
