"""``tidewarp bench control``: the figures of the live control plane, their references, and a digest of it all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import wall_time
from tidewarp.cli.bench.told import machine, shown
from tidewarp.cli.frame import emit, json_option
from tidewarp.codec import Digest
from tidewarp.errors import MissingExtra

__all__ = ["command"]

NAMES = (
    "memory",
    "timeouts",
    "request",
    "mm2",
    "ingest",
    "publish",
    "replay",
    "apply",
    "burst",
    "sinks",
    "day",
)

ROWS = (
    ("timeouts, 10 processes", "{timeouts_vs_simpy:.2f}x simpy.Environment", "0.95x"),
    ("request, hold, release", "{request_vs_simpy:.2f}x simpy.Resource", "0.9x"),
    ("M/M/2 declared, 3 events a task", "{mm2_vs_simpy:.2f}x SimPy without events", "0.45x"),
    ("its tasks", "{mm2_tasks_per_s:,.0f} a second", "40,000"),
    ("readings checked, journaled, applied", "{ingest_updates_per_s:,.0f} a second", "500,000"),
    ("the same, beside SimPy without a journal", "{ingest_vs_simpy:.2f}x", ""),
    ("bytes in the journal", "{ingest_bytes_per_update:.1f} a reading", "40"),
    ("events encoded, chained, delivered", "{publish_events_per_s:,.0f} a second", "500,000"),
    ("the same, beside SimPy with JSON and SHA-256", "{publish_vs_simpy:.2f}x", ""),
    ("replay of the sample", "{replay_speed_x:,.0f}x real time", "10,000x"),
    ("the same, beside its live run", "{replay_vs_live:.2f}x", "0.8x"),
    ("recovery of a simulated month", "{recovery_month_s:.2f} s", "5 s"),
    ("from a source to the process it resumes, p99", "{apply_latency_ms_p99:.2f} ms", "5 ms"),
    ("the same, half of them", "{apply_latency_ms_p50:.2f} ms", ""),
    ("one commit by itself, p99", "{apply_commit_ms_p99:.2f} ms", ""),
    ("updates seen of those sent", "{apply_updates_seen:,}", "{apply_updates:,}"),
    ("the same with SimPy, which looks each 0.1 s", "{apply_polling_seen:,}, p99 {apply_polling_ms_p99:.0f} ms", ""),
    ("clock behind in a burst, at most", "{burst_behind_ms_max:.0f} ms", "50 ms"),
    ("p99 of its ticks", "{burst_behind_ms_p99:.0f} ms", ""),
    ("clock behind without the burst, at most", "{burst_base_behind_ms_max:.0f} ms", ""),
    ("updates of the burst applied", "{burst_updates_applied:,}", "{burst_updates_admitted:,}"),
    ("memory that the burst takes", "{burst_rss_growth_mib:.0f} MiB", "bounded"),
    ("clock further behind with a slow sink", "{sinks_slow_lag_change_ms:+.0f} ms", "50 ms"),
    ("clock further behind with a dead sink", "{sinks_down_lag_change_ms:+.0f} ms", "50 ms"),
    ("outputs that sinks lost, or got twice", "{sinks_lost}, {sinks_doubled}", "0, 0"),
    ("growth of memory in a simulated year", "{rss_growth_percent_per_year:+.2f} %", "about 0"),
    (
        "growth in a day of 1,000 updates a second",
        "{day_rss_slope_mb:+.1f} MB ± {day_rss_slope_margin_mb:.1f} (of {day_hours:.2f} h)",
        "0 within",
    ),
)
"""What it is, how it is shown, its goal: formats over the document, or over ``published`` for the published tool."""


@click.command()
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Measure this alone; may be repeated.")
@click.option(
    "--seconds",
    type=wall_time,
    default=5.0,
    show_default=True,
    help="Wall seconds for each comparison: more rounds of the same work. What goes by the wall lasts so long.",
)
@json_option
def command(only: tuple[str, ...], seconds: float, as_json: bool) -> int:
    """Measure the live control plane beside plain SimPy, and beside dynamic-des if it is installed, in one run.

    Cases take turns. A rate is that of the best round, a ratio the median over the rounds; above 1 it is in our favour. ``digest`` names what was
    computed, but for what goes by the wall: it is the same on every machine, and a change that makes anything faster must not change it.
    """
    emit(measure(only or NAMES, seconds), as_json, _render)
    return 0


def measure(names: tuple[str, ...], seconds: float, module: str = "dynamic_des") -> dict[str, Any]:
    """All figures of ``names`` (in the order of NAMES), those of the published tool, ``digest`` over ours, and the ``machine``."""
    for name in ("memory", "burst", "day"):
        if name in names and not Path("/proc/self/statm").exists():
            raise MissingExtra(
                name, "the resident set is read from /proc", "measure on Linux, or name others with --only"
            )
    from tidewarp.cli.bench.figures import FIGURES  # imports SimPy and the worlds
    from tidewarp.cli.bench.published import Published

    document: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    digest = Digest("TWBENCH1")
    with tempfile.TemporaryDirectory(prefix="tidewarp-bench-") as folder, Published(module) as published:
        for name in NAMES:
            if name in names:
                figures = FIGURES[name](Path(folder), seconds, published)
                published.rest()
                digest.add(name.encode())
                digest.add(figures.pop("digest", "").encode())
                theirs |= figures.pop("published", {})
                document |= figures
        document |= published.document(theirs)
    return {**document, "digest": digest.hexdigest(), "machine": machine("simpy")}


def _render(document: Mapping[str, Any]) -> object:
    from rich.table import Table

    published = document["published"] or {}
    heads = ["work", "measured", "goal", *([f"dynamic-des {published['version']}"] if published else [])]
    table = Table(*heads, title_justify="left", box=None)
    for label, form, goal in ROWS:
        text = shown(form, document)
        if text is not None:
            beside = [shown(form, published) or ""] if published else []
            table.add_row(label, text, shown(goal, document), *beside)
    host = document["machine"]
    failed = [f"dynamic-des, {work}: {why}\n" for work, why in published.get("failed", {}).items()]
    missing = [] if document["published_missing"] is None else [f"{document['published_missing']}\n"]
    table.caption = (
        f"{''.join((*missing, *failed))}digest {document['digest']}\nPython {host['python']}, SimPy {host['simpy']}, "
        f"{host['cpus']} cpus, load {host['load']:.1f} at the end"
    )
    table.caption_justify = "left"
    return table
