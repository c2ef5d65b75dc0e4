"""``tidewarp bench control``: the figures of the live control plane, their references, and a digest of it all."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import wall_time
from tidewarp.cli.frame import emit, json_option
from tidewarp.codec import Digest
from tidewarp.errors import MissingExtra

__all__ = ["command"]

NAMES = ("memory", "timeouts", "request", "ingest", "publish", "replay")

ROWS = (
    ("timeouts, 10 processes", "timeouts_vs_simpy", "{:.2f}x simpy.Environment", "0.95x"),
    ("request, hold, release", "request_vs_simpy", "{:.2f}x simpy.Resource", "0.9x"),
    ("readings checked, journaled, applied", "ingest_updates_per_s", "{:,.0f} a second", "300,000"),
    ("the same, beside SimPy without a journal", "ingest_vs_simpy", "{:.2f}x", ""),
    ("bytes in the journal", "ingest_bytes_per_update", "{:.1f} a reading", "40"),
    ("events encoded, chained, delivered", "publish_events_per_s", "{:,.0f} a second", "500,000"),
    ("the same, beside SimPy with JSON and SHA-256", "publish_vs_simpy", "{:.2f}x", ""),
    ("replay of the sample", "replay_speed_x", "{:,.0f}x real time", "10,000x"),
    ("the same, beside its live run", "replay_vs_live", "{:.2f}x", "0.8x"),
    ("recovery of a simulated month", "recovery_month_s", "{:.2f} s", "5 s"),
    ("growth of memory in a simulated year", "rss_growth_percent_per_year", "{:+.2f} %", "about 0"),
)
"""What it is, its key, how it is shown, its goal."""


@click.command()
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Measure this alone; may be repeated.")
@click.option(
    "--seconds",
    type=wall_time,
    default=5.0,
    show_default=True,
    help="Wall seconds for each comparison: more rounds, the same work.",
)
@json_option
def command(only: tuple[str, ...], seconds: float, as_json: bool) -> int:
    """Measure the live control plane beside plain SimPy, in one run.

    Cases take turns. A rate is that of the best round, a ratio the median over the rounds; above 1 it is in our favour. ``digest`` names what was
    computed: it is the same on every machine, and a change that makes anything faster must not change it.
    """
    emit(measure(only or NAMES, seconds), as_json, _render)
    return 0


def measure(names: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """All figures of ``names`` (in the order of NAMES), ``digest`` over theirs, and the ``machine``."""
    if "memory" in names and not Path("/proc/self/statm").exists():
        raise MissingExtra(
            "memory", "the resident set is read from /proc", "measure on Linux, or name others with --only"
        )
    from tidewarp.cli.bench.figures import FIGURES  # imports SimPy and the worlds

    document: dict[str, Any] = {}
    digest = Digest("TWBENCH1")
    with tempfile.TemporaryDirectory(prefix="tidewarp-bench-") as folder:
        for name in NAMES:
            if name in names:
                figures = FIGURES[name](Path(folder), seconds)
                digest.add(name.encode())
                digest.add(figures.pop("digest").encode())
                document |= figures
    return {**document, "digest": digest.hexdigest(), "machine": _machine()}


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "simpy": metadata.version("simpy"),
        "sqlite": sqlite3.sqlite_version,
    }


def _render(document: Mapping[str, Any]) -> object:
    from rich.table import Table

    table = Table("work", "measured", "goal", title_justify="left", box=None)
    for label, key, form, goal in ROWS:
        if key in document:
            table.add_row(label, form.format(document[key]), goal)
    machine = document["machine"]
    table.caption = (
        f"digest {document['digest']}\nPython {machine['python']}, SimPy {machine['simpy']}, {machine['cpus']} cpus, "
        f"load {machine['load']:.1f} at the end"
    )
    table.caption_justify = "left"
    return table
