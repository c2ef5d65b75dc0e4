"""What the benchmarks of the kernel share: options that say how a run is executed, and the figures of one run."""

from __future__ import annotations

import math
import re
import resource
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

import click

from tidewarp.cli.values import parse_time
from tidewarp.errors import OperatorError
from tidewarp.kernel import Options, Result
from tidewarp.units import TICK_MAX, ticks

__all__ = ["duration", "engine_options", "figures_of", "options_of", "peak_rss_bytes", "wall_time"]

Command = TypeVar("Command", bound=Callable[..., Any])

_SIZE = re.compile(r"(\d{1,15})\s*(|[kMGT]i?)B?", re.ASCII)
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def duration(text: str) -> int:
    """Ticks of a duration of virtual time: a bare number is seconds, text a number and a unit.

    Raises:
        OperatorError: no duration, or one below 0.
    """
    given = parse_time(text)
    if isinstance(given, datetime):
        raise OperatorError(f"duration {text!r:.40}", "that is a date", "give e.g. 0.1 or 100ms")
    tick = ticks(given)
    if not 0 <= tick < TICK_MAX:
        raise OperatorError(f"duration {text!r:.40}", "it is at least 0 and below 292 years", "give e.g. 0.1 or 100ms")
    return tick


def wall_time(text: str) -> float:
    """A finite number of wall seconds, or minutes, from 0 on.

    Raises:
        OperatorError: it is none.
    """
    try:
        given = float(text)
    except ValueError:
        given = math.nan
    if not 0.0 <= given < math.inf:
        raise OperatorError(f"time {text!r:.40}", "it is a finite number from 0 on", "give e.g. 2.5")
    return given


def size(text: str) -> int:
    """A number of bytes: 1048576, 512KiB, 2GB.

    Raises:
        OperatorError: no size above 0.
    """
    match = _SIZE.fullmatch(text.strip().replace("K", "k"))
    if match is None or int(match[1]) == 0:
        raise OperatorError(f"size {text!r:.40}", "it is a whole number of bytes above 0", "give e.g. 512MiB")
    base = 1024 if match[2].endswith("i") else 1000
    return int(match[1]) * int(base ** _POWERS[match[2][:1]])


def window(text: str) -> str | int:
    """``auto``, ``lookahead`` or a duration in ticks."""
    return text if text in ("auto", "lookahead") else duration(text)


_OPTIONS = (
    click.option("--kernel", type=click.Choice(["sequential", "conservative", "optimistic"]), default="sequential", show_default=True, help="Engine."),
    click.option("--tier", type=click.Choice(["python", "compiled"]), default="compiled", show_default=True, help="Handlers interpreted, or by Numba."),
    click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="PEs."),
    click.option("--window", type=window, metavar="auto|lookahead|DUR", default="auto", show_default=True, help="How far an optimistic PE may run ahead of GVT."),
    click.option("--kps", type=click.IntRange(1), help="Groups of LPs that roll back together, per PE."),
    click.option("--batch", type=click.IntRange(1, 2**20), default=64, show_default=True, help="Events per turn of a PE."),
    click.option("--gvt-interval", type=click.IntRange(1, 2**20), default=4, show_default=True, help="Turns between two GVT rounds."),
    click.option("--saving", metavar="POLICY", help="State saving: copy, periodic:K, delta, reverse, undo."),
    click.option("--cancellation", type=click.Choice(["aggressive", "lazy"]), default="aggressive", show_default=True, help="When anti-messages leave."),
    click.option("--memory-max", type=size, metavar="SIZE", help="Bound of the event pools of all PEs together."),
    click.option("--digest", type=click.Choice(["state", "events", "off"]), default="state", show_default=True, help="What the run's digest is over."),
    click.option("--partition", type=click.Choice(["blocks", "graph"]), default="blocks", show_default=True, help="Which PE runs which LP."),
    click.option("--schedule-seed", type=click.IntRange(0, 2**63 - 1), help="Order in which the PEs of the Python tier take turns."),
)  # fmt: skip


def engine_options(command: Command) -> Command:
    """Add the options that say how a run is executed; :func:`options_of` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(values: Mapping[str, Any]) -> Options:
    """The kernel's options from a command's parameters; parameters that are none of them are left out.

    Raises:
        OperatorError: a value that breaks its rule.
    """
    known = {field.name for field in fields(Options)}
    given = {("memory_max_bytes" if name == "memory_max" else name): value for name, value in values.items()}
    return Options(**{name: value for name, value in given.items() if name in known})


def figures_of(result: Result, options: Options) -> dict[str, Any]:
    """What a benchmark says of one run: the engine's figures, with the keys that all benchmarks of the kernel share."""
    stats = result.stats
    return {
        "committed": result.committed,
        "seconds": result.seconds,
        "events_per_s": result.events_per_s,
        "rolled_back": stats.rolled_back,
        "rollbacks": stats.rollbacks,
        "gvt_rounds": stats.gvt_rounds,
        "digest": result.digest,
        "kernel": options.kernel,
        "tier": options.tier,
        "workers": options.workers,
        "transport": options.transport,
        "executed": stats.executed,
        "anti_messages": stats.anti_messages,
        "anti_dropped": stats.anti_dropped,
        "remote_sent": stats.remote_sent,
        "efficiency": result.efficiency,
        "rolled_back_share": stats.rolled_back / result.committed if result.committed else 0.0,
        "window_ticks": stats.window_ticks,
        "pool_bytes": stats.pool_bytes,
        "cancelbacks": stats.cancelbacks,
        "lazy_hits": stats.lazy_hits,
        "idle_share": stats.idle_turns / stats.turns if stats.turns else 0.0,
    }


def peak_rss_bytes() -> int:
    """The largest resident set that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
