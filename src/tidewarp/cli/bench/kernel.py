"""``tidewarp bench kernel``: what the parts of the kernel cost, each beside a reference in the same run."""

from __future__ import annotations

import heapq
import importlib.util
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from queue import SimpleQueue
from statistics import median
from typing import Any, NamedTuple

import click
import numpy as np

from tidewarp.cli.bench.kernel_options import wall_time
from tidewarp.cli.bench.measure import Best, Prepared, best_of
from tidewarp.cli.frame import emit, json_option
from tidewarp.codec import Digest
from tidewarp.kernel import Engine
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

__all__ = ["FIGURES", "Figure", "command", "measure"]

LPS, BALLS = 256, 4
EVENTS = {"compiled": 200_000, "python": 10_000}
RECORD_BYTES = 52  # of a ball, with its length, in the trace
STATE_BYTES = 512
CHECKPOINT_LPS = 20_000
CHUNK = 10_000  # turns of a reference loop


class Figure(NamedTuple):
    """One measured cost: ``value`` and ``reference`` in ``unit``; ``ratio`` above 1 is in our favour."""

    unit: str
    value: float
    reference: float
    reference_name: str
    ratio: float


@click.command()
@click.option(
    "--seconds",
    "seconds_",
    type=wall_time,
    default=2.0,
    show_default=True,
    help="Wall seconds for each comparison: more rounds, the same work.",
)
@json_option
def command(seconds_: float, as_json: bool) -> int:
    """Measure the parts of the kernel: pending set, rings, copies, undo, GVT, digest, checkpoints, Python tier.

    Cases take turns; a cost is that of the best round. Where a part cannot be run alone, its cost is the difference of two runs that
    differ in it, so small costs are noisy, and may come out below 0. The compiled tier is measured where Numba is installed, and named in ``tier``.
    """
    emit(measure(seconds_), as_json, _render)
    return 0


def measure(seconds_: float) -> dict[str, Any]:
    """All figures, the tier they are of, and a digest over what was computed."""
    tier = "compiled" if importlib.util.find_spec("numba") is not None else "python"
    digest = Digest("TWBENCH1")
    figures = []
    for name, figure in FIGURES.items():
        figures.append({"name": name, **figure(tier, seconds_, digest)._asdict()})
    return {"tier": tier, "figures": figures, "digest": digest.hexdigest()}


class _Run(NamedTuple):
    """What a round of PHOLD gave: wall seconds without opening, and counts."""

    seconds: float
    committed: int
    rolled_back: int
    rounds: int
    remote: int
    digest: str | None


def _phold(tier: str, model: Mapping[str, Any] | None = None, **options: Any) -> Callable[[], Prepared]:
    """A case: PHOLD in an engine that is opened before the round is timed."""
    events = EVENTS[tier]
    arguments = {"lps": LPS, "population": BALLS, **(model or {})}
    end = seconds(events / (arguments["lps"] * arguments["population"]))

    def prepare() -> Prepared:
        engine = Engine(phold(**arguments), tier=tier, **{"digest": "state", **options})

        def work() -> _Run:
            with engine:
                engine.advance(end)
                stats = engine.stats()
                name = None if engine.options.digest == "off" else engine.digest()
                counts = (stats.rolled_back, stats.gvt_rounds, stats.remote_sent)
                return _Run(engine.seconds, engine.ledger.committed, *counts, name)

        return work

    return prepare


def _loop(turn: Callable[[], object], turns: int = CHUNK) -> Callable[[], Prepared]:
    """A case: a reference that takes ``turns`` turns in one call."""

    def work() -> int:
        turn()
        return turns

    return lambda: work


def _ns(best: Best) -> float:
    """Nanoseconds for one turn of a reference loop."""
    return 1e9 * best.seconds / float(best.result)


def _least(best: Best) -> float:
    return float(best.result.seconds)


def _extra(more: Best, less: Best) -> float:
    """Seconds that ``more`` takes longer than ``less``, which took turns with it: the median over the rounds."""
    return median(a - b for a, b in zip(more.rounds, less.rounds, strict=True))


def _figure(unit: str, value: float, reference: float, reference_name: str, *, more_is_better: bool = False) -> Figure:
    low, high = (reference, value) if more_is_better else (value, reference)
    return Figure(unit, value, reference, reference_name, high / low if low > 0.0 else 0.0)


def pending(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does an event cost in the sequential engine, beside taking and putting a tuple with heapq?"""
    heap = [(place * 7919 % 100_003, place) for place in range(LPS * BALLS)]
    heapq.heapify(heap)

    def turn() -> None:
        for place in range(CHUNK):
            heapq.heapreplace(heap, (heap[0][0] + 7919 + place % 97, place))

    best = best_of({"ours": _phold(tier), "reference": _loop(turn)}, seconds_)
    _name(digest, best["ours"])
    per_event = 1e9 * _least(best["ours"]) / best["ours"].result.committed
    return _figure("ns", per_event, _ns(best["reference"]), "heapq.heapreplace")


def ring(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does a message to another PE cost, beside a SimpleQueue in one thread?"""
    queue: SimpleQueue[int] = SimpleQueue()

    def turn() -> None:
        for place in range(CHUNK):
            queue.put(place)
            queue.get()

    how: dict[str, Any] = {"kernel": "optimistic", "workers": 2, "window": "lookahead"}
    cases = {
        "far": _phold(tier, {"remote": 1.0}, **how),
        "near": _phold(tier, {"remote": 0.0}, **how),
        "reference": _loop(turn),
    }
    best = best_of(cases, seconds_)
    _name(digest, best["far"])
    extra = 1e9 * _extra(best["far"], best["near"]) / max(best["far"].result.remote, 1)
    return _figure("ns", extra, _ns(best["reference"]), "queue.SimpleQueue put and get")


def copy(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does keeping a row of 512 bytes for undo cost an event, beside numpy copying such a row?"""
    rows = np.zeros((CHUNK, STATE_BYTES), np.uint8)
    how: dict[str, Any] = {"kernel": "optimistic", "workers": 1, "saving": "copy"}
    cases = {
        "wide": _phold(tier, {"state_bytes": STATE_BYTES}, **how),
        "narrow": _phold(tier, **how),
        "reference": _loop(rows.copy),
    }
    best = best_of(cases, seconds_)
    _name(digest, best["wide"])
    extra = 1e9 * _extra(best["wide"], best["narrow"]) / best["wide"].result.committed
    return _figure("ns", extra, _ns(best["reference"]), "numpy copy of 512 bytes")


def undo(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does an event cost that is undone and executed again, beside one that is executed once?"""
    how: dict[str, Any] = {"kernel": "optimistic", "workers": 2, "kps": 1}
    cases = {"wide": _phold(tier, window=seconds(1000), **how), "narrow": _phold(tier, window="lookahead", **how)}
    best = best_of(cases, seconds_)
    _name(digest, best["narrow"])
    once = 1e9 * _least(best["narrow"]) / best["narrow"].result.committed
    undone = max(best["wide"].result.rolled_back, 1)
    again = 1e9 * _extra(best["wide"], best["narrow"]) / undone
    return _figure("ns", again, once, "an event without rollback")


def gvt(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does a round of GVT between two PEs cost, beside two threads that meet at a barrier?"""
    barrier = threading.Barrier(2)
    meetings = 200

    def meet() -> None:
        for _ in range(meetings):
            barrier.wait()

    def turn() -> None:
        other = threading.Thread(target=meet)
        other.start()
        meet()
        other.join()

    how: dict[str, Any] = {"kernel": "optimistic", "workers": 2, "window": "lookahead"}
    cases = {
        "often": _phold(tier, gvt_interval=1, **how),
        "seldom": _phold(tier, gvt_interval=64, **how),
        "reference": _loop(turn, meetings),
    }
    best = best_of(cases, seconds_)
    _name(digest, best["often"])
    rounds = best["often"].result.rounds - best["seldom"].result.rounds
    extra = 1e6 * _extra(best["often"], best["seldom"]) / max(rounds, 1)
    return _figure("us", extra, _ns(best["reference"]) / 1e3, "threading.Barrier")


def tracing(tier: str, seconds_: float, digest: Digest) -> Figure:
    """What does the digest over all events cost each of them, beside SHA-256 of such a record in one long buffer?"""
    buffer = bytes(RECORD_BYTES * CHUNK)
    cases = {
        "events": _phold(tier, digest="events"),
        "off": _phold(tier, digest="off"),
        "reference": _loop(lambda: sha256(buffer)),
    }
    best = best_of(cases, seconds_)
    _name(digest, best["events"])
    extra = 1e9 * _extra(best["events"], best["off"]) / best["events"].result.committed
    return _figure("ns", extra, _ns(best["reference"]), f"SHA-256 of {RECORD_BYTES} bytes")


def checkpoint(tier: str, seconds_: float, digest: Digest) -> Figure:
    """How fast is a state written as a checkpoint, beside SHA-256 of its bytes?"""
    model = phold(lps=CHECKPOINT_LPS if tier == "compiled" else CHECKPOINT_LPS // 20)
    with Engine(model, tier=tier) as engine:
        engine.advance(seconds(1) - 1)
        data = engine.checkpoint()
        cases: dict[str, Callable[[], Prepared]] = {
            "ours": lambda: engine.checkpoint,
            "reference": lambda: lambda: sha256(data).digest(),
        }
        best = best_of(cases, seconds_)
    digest.add(sha256(data).digest())
    ours, theirs = (len(data) / 1e6 / best[name].seconds for name in ("ours", "reference"))
    return _figure("MB/s", ours, theirs, "SHA-256", more_is_better=True)


def python(tier: str, seconds_: float, digest: Digest) -> Figure:
    """How many events a second does the Python tier make, beside the same PHOLD on SimPy?"""
    from tidewarp.cli.bench.phold_simpy import Reference

    end = seconds(EVENTS["python"] / (LPS * BALLS))
    values = {"end": end, "lookahead": seconds(0.1), "mean": seconds(0.9), "remote": 0.1, "grain": 0, "seed": 1}
    balls = {"lps": LPS, "events_per_lp": BALLS}

    def prepare() -> Prepared:
        reference = Reference({**values, **balls})
        return lambda: 1.0 / reference.seconds_per_event()

    best = best_of({"ours": _phold("python"), "reference": prepare}, seconds_)
    _name(digest, best["ours"])
    ours = best["ours"].result.committed / _least(best["ours"])
    return _figure("events/s", ours, best["reference"].result, "SimPy", more_is_better=True)


def _name(digest: Digest, best: Best) -> None:
    digest.add(str(best.result.digest).encode())


FIGURES: Mapping[str, Callable[[str, float, Digest], Figure]] = {
    "pending set and handler, per event": pending,
    "message to another PE": ring,
    "pre-image of 512 bytes": copy,
    "event undone and run again": undo,
    "GVT round of two PEs": gvt,
    "digest, per event": tracing,
    "checkpoint": checkpoint,
    "Python tier": python,
}
"""Each figure by name, in the order in which they are measured."""


def _render(document: Mapping[str, Any]) -> object:
    from rich.table import Table

    table = Table("part", "measured", "reference", "", title_justify="left", box=None)
    for figure in document["figures"]:
        unit = figure["unit"]
        measured, reference = (f"{figure[key]:,.0f} {unit}" for key in ("value", "reference"))
        table.add_row(figure["name"], measured, f"{reference} {figure['reference_name']}", f"{figure['ratio']:.2f}x")
    table.caption = f"{document['tier']} tier; digest {document['digest']}"
    table.caption_justify = "left"
    return table
